# SPDX-License-Identifier: Apache-2.0
"""Protected files: what goes in comes out, and only that, and only for the right key, owner, name and version."""

from __future__ import annotations

import gc
import io
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from confide.crypto.secret import Secret
from confide.errors import ConfideError, ConfigurationError, MalformedError, SealingError
from confide.sealing.layout import HEADER_BLOCK
from confide.sealing.protected_file import Entry, ProtectedFile, anonymous, write
from support import protected_file_decoder
from support.sealed import CHUNK, ENTRIES, KEY, NAME, OWNER, VERSION, WEIGHTS, Sealed, sealed

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def good(tmp_path: Path) -> Sealed:
    return sealed(tmp_path)


def test_what_was_written_is_read_back(good: Sealed) -> None:
    with good.open() as file:
        assert file.names == tuple(entry.name for entry in ENTRIES)
        assert dict(file.metadata) == {"architecture": "canary_architecture"}
        assert file.version == VERSION
        assert file.freshness == "none"
        described = file.describe("canary_layer_0.weight")
        assert (described.kind, described.dtype, described.shape) == ("tensor", "f32", (len(WEIGHTS) // 4,))
        assert file.read("canary_layer_0.weight") == WEIGHTS
        assert bytes(file.read("empty")) == b""


def _pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[i : i + size] for i in range(0, len(data), size))


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(
        st.one_of(st.integers(0, 3), st.integers(CHUNK - 2, CHUNK + 2), st.integers(0, 20_000)), max_size=6
    ),
    write_threads=st.integers(1, 3),
    read_threads=st.integers(1, 3),
    piece=st.integers(1, 9000),
    streamed=st.booleans(),
    holders=st.sampled_from(["many", "owner"]),
)
def test_any_entries_survive_the_way_through_a_file(
    sizes: list[int], write_threads: int, read_threads: int, piece: int, streamed: bool, holders: str
) -> None:
    """Sizes around the chunk's, buffers and streams, one thread and several; the second decoder reads the same."""
    contents = {f"entry {i}": os.urandom(size) for i, size in enumerate(sizes)}
    with tempfile.TemporaryDirectory() as folder:
        entries = [Entry(name, _pieces(data, piece) if streamed else data) for name, data in contents.items()]
        made = sealed(Path(folder), tuple(entries), threads=write_threads)
        with made.open(key_holders=holders) as file:
            assert {name: bytes(file.read(name, threads=read_threads)) for name in file.names} == contents
        metadata, found = protected_file_decoder.read(made.data, KEY, OWNER.public, NAME)
        assert found == contents
        assert metadata == {"architecture": "canary_architecture"}


@settings(max_examples=60, deadline=None)
@given(offset=st.integers(0, len(WEIGHTS)), length=st.integers(0, len(WEIGHTS)))
def test_a_range_is_the_same_bytes_as_the_whole(offset: int, length: int) -> None:
    length = min(length, len(WEIGHTS) - offset)
    with _GOOD.open() as file:
        buffer = bytearray(length)
        file.read_range_into("canary_layer_0.weight", offset, buffer)
        assert buffer == WEIGHTS[offset : offset + length]


with tempfile.TemporaryDirectory() as _folder:
    _GOOD = sealed(Path(_folder))


def test_a_path_a_descriptor_and_bytes_open_alike(tmp_path: Path, good: Sealed) -> None:
    path = tmp_path / "sealed.confide"
    descriptor = os.open(path, os.O_RDONLY)
    try:
        for source in (path, str(path), descriptor, good.data, memoryview(good.data)):
            with ProtectedFile.open(source, key=good.key, owner_public=OWNER.public, name=NAME) as file:
                assert file.read("canary_layer_0.weight", threads=2) == WEIGHTS
        os.fstat(descriptor)  # The caller's descriptor stays open.
    finally:
        os.close(descriptor)


def test_a_large_read_lands_in_the_callers_buffer(good: Sealed) -> None:
    buffer = anonymous(len(WEIGHTS))
    with good.open() as file:
        file.read_into("canary_layer_0.weight", buffer)
    assert buffer == WEIGHTS


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no memfd")
def test_an_entry_in_an_anonymous_file_is_whole_and_cannot_be_changed(good: Sealed) -> None:
    with good.open() as file:
        for name, content in (("canary_layer_0.weight", WEIGHTS), ("empty", b"")):
            descriptor = file.read_memfd(name, threads=2)
            try:
                assert os.read(descriptor, 1 << 20) == content
                with pytest.raises(PermissionError):
                    os.pwrite(descriptor, b"x", 0)
                with pytest.raises(PermissionError):
                    os.ftruncate(descriptor, len(content) + 1)
            finally:
                os.close(descriptor)


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no memfd")
def test_a_damaged_entry_leaves_no_anonymous_file(good: Sealed) -> None:
    data = bytearray(good.data)
    data[HEADER_BLOCK + 5] ^= 1
    before = _descriptors()
    code = ""
    try:
        with good.open(bytes(data)) as file:
            file.read_memfd("graph")
    except SealingError as error:
        code = error.code
    assert code == "sealing.integrity"
    gc.collect()  # The traceback held the mapping.
    assert _descriptors() == before


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_the_store_learns_neither_names_nor_shapes_nor_architecture(good: Sealed) -> None:
    for canary in (b"canary", b"graph", b"MatMul", b"tensor", b"f32", b"weight", WEIGHTS[:32]):
        assert canary not in good.data
    assert NAME.encode() in good.data[:HEADER_BLOCK]  # The key's name, as the specification says.


def test_progress_rises_to_the_total(tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    total = sum(len(entry.data) for entry in ENTRIES if isinstance(entry.data, bytes))
    sealed(tmp_path, progress=lambda done, of: seen.append((done, of)))
    assert seen == sorted(seen)
    assert seen[-1] == (total, total)


@pytest.mark.parametrize(
    "entries",
    [
        (Entry("a", b"1"), Entry("a", b"2")),
        (Entry("", b"1"),),
        (Entry("x" * 513, b"1"),),
        (Entry("line\nbreak", b"1"),),
        (Entry("t", b"123", "tensor", "f32", (1,)),),
        (Entry("t", b"1234", "tensor", "f33", (1,)),),
        (Entry("t", b"1234", "tensor", "f32", (-1, -1)),),
        (Entry("t", b"1234", "table"),),
        (Entry("t", b"1234", "blob", "f32"),),
        (Entry("t", "text"),),
        (Entry("t", 7),),
        (Entry("t", ["text"]),),
    ],
    ids=lambda entries: repr(entries[-1])[:50],
)
def test_what_the_format_cannot_hold_is_refused_and_leaves_nothing(
    tmp_path: Path, entries: tuple[Entry, ...]
) -> None:
    with pytest.raises(MalformedError):
        sealed(tmp_path, entries)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "changed",
    [
        {"chunk": 4095}, {"chunk": 6144}, {"chunk": 1 << 23}, {"threads": 0}, {"name": "../x"}, {"name": ""},
        {"version": 0}, {"version": True}, {"key": Secret(bytes(31))}, {"version": 1 << 63},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_arguments_are_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        sealed(tmp_path, **changed)


def test_wrong_buffers_are_refused_untouched(good: Sealed) -> None:
    with good.open() as file:
        for buffer in (
            bytearray(10),
            bytes(len(WEIGHTS)),
            "text",
            memoryview(bytearray(2 * len(WEIGHTS)))[::2],
        ):
            with pytest.raises(ConfigurationError):
                file.read_into("canary_layer_0.weight", buffer)
        with pytest.raises(ConfigurationError):
            file.read_range_into("canary_layer_0.weight", len(WEIGHTS) - 1, bytearray(2))
        with pytest.raises(SealingError) as refused:
            file.read("absent")
        assert refused.value.code == "sealing.policy_mismatch"


def test_a_pipe_is_not_a_protected_file() -> None:
    reader, writer = os.pipe()
    try:
        with pytest.raises(SealingError) as refused:
            ProtectedFile.open(reader, key=Secret(KEY), owner_public=OWNER.public, name=NAME)
        assert refused.value.code == "sealing.storage_io"
    finally:
        os.close(reader)
        os.close(writer)


@settings(max_examples=150, deadline=None)
@given(data=st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(lambda b: b"CFDFILE1" + b)))
def test_any_bytes_give_a_typed_error(data: bytes) -> None:
    with pytest.raises(SealingError):
        _GOOD.open(data)


def test_a_numpy_array_and_a_file_object_are_buffers_and_streams(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(6, dtype="<f4").reshape(2, 3)
    stream = io.BytesIO(WEIGHTS)
    made = sealed(
        tmp_path,
        (Entry("a", array, "tensor", "f32", (2, 3)), Entry("s", iter(lambda: stream.read(1000), b""))),
    )
    with made.open() as file:
        out = numpy.empty((2, 3), dtype="<f4")
        file.read_into("a", out)
        assert (out == array).all()
        assert file.read("s") == WEIGHTS
    with pytest.raises(ConfideError):
        sealed(tmp_path, (Entry("a", array.T, "tensor", "f32", (3, 2)),))


def test_a_failed_source_leaves_the_old_file(tmp_path: Path, good: Sealed) -> None:
    def source() -> Iterator[bytes]:
        yield b"x" * 10_000
        raise RuntimeError("the producer failed")

    for threads in (1, 3):
        with pytest.raises(RuntimeError):
            write(
                tmp_path / "sealed.confide", [Entry("a", source())],
                key=Secret(KEY), signer=OWNER, name=NAME, version=VERSION, chunk=CHUNK, threads=threads,
            )  # fmt: skip
    assert (tmp_path / "sealed.confide").read_bytes() == good.data
    assert [p.name for p in tmp_path.iterdir()] == ["sealed.confide"]
