# SPDX-License-Identifier: Apache-2.0
"""A hostile store, a hostile holder of the key, a hostile signer: what they change is refused, with its reason."""

from __future__ import annotations

import os
import random  # noqa: TID251 - a seed makes the attack repeatable
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from confide.crypto.aead import TAG, Aead
from confide.crypto.secret import Secret
from confide.crypto.signing import SigningKey
from confide.errors import SealingError
from confide.sealing import layout
from confide.sealing.layout import HEADER_BLOCK
from confide.sealing.protected_file import Entry, ProtectedFile
from confide.wire import cbor
from support import gcm
from support.sealed import CHUNK, KEY, NAME, OWNER, VERSION, WEIGHTS, Sealed, sealed, signed

with tempfile.TemporaryDirectory() as _folder:
    GOOD = sealed(Path(_folder))
    OTHER = sealed(Path(_folder))  # The same content, key, owner and version; another file.

WEIGHT = "canary_layer_0.weight"
STEP = CHUNK + TAG
# Entry 1 is one short chunk, entry 2 two full ones and a last one of 512 bytes.
FIRST = HEADER_BLOCK + len(b"MatMul(canary_layer_0)") + TAG


def refused(data: bytes, code: str, **changed: Any) -> None:
    """Opening and reading everything fails with ``code``."""
    with pytest.raises(SealingError) as error:
        GOOD.read_all(data, **changed)
    assert error.value.code == code


def reheaded(data: bytes, **fields: Any) -> bytes:
    """The file with header fields replaced and the owner's signature made anew: what only the owner could do."""
    return signed(replace(GOOD.header, **fields)) + data[HEADER_BLOCK:]


def test_sea_01_no_flipped_bit_is_accepted_and_no_plaintext_is_released() -> None:
    """One random bit in each byte of the header in use and every 5th of the rest; a failed read leaves zeros only."""
    used = HEADER_BLOCK - len(GOOD.data[:HEADER_BLOCK].rstrip(b"\0"))
    generator = random.Random(1)
    positions = [*range(HEADER_BLOCK - used), *range(HEADER_BLOCK - used, len(GOOD.data), 5)]
    for position in positions:
        data = bytearray(GOOD.data)
        data[position] ^= 1 << generator.randrange(8)
        buffer = bytearray(b"\xee" * len(WEIGHTS))
        opened = False
        code = ""
        try:
            with GOOD.open(bytes(data)) as file:
                opened = True
                file.read("graph")
                file.read("empty")
                file.read_into(WEIGHT, buffer, threads=1 + position % 2)
        except SealingError as error:
            code = error.code
        assert code in {"sealing.integrity", "sealing.unsupported_version", "sealing.signer"}
        if opened and FIRST <= position < FIRST + len(WEIGHTS) + 3 * TAG:
            assert not any(buffer)


def test_sea_01_no_truncation_and_no_appendix_is_accepted() -> None:
    lengths = {*range(0, len(GOOD.data), 97), *range(len(GOOD.data) - 40, len(GOOD.data)), 4095, 4096, 4097}
    for length in sorted(lengths):
        with pytest.raises(SealingError) as error:
            GOOD.read_all(GOOD.data[:length])
        assert error.value.code in {"sealing.integrity", "sealing.unsupported_version"}
    refused(GOOD.data + b"\0", "sealing.integrity")


def test_sea_01_a_range_that_fails_leaves_zeros_only() -> None:
    data = bytearray(GOOD.data)
    data[FIRST + STEP + 5] ^= 1
    buffer = bytearray(b"\xee" * (CHUNK + 100))
    with GOOD.open(bytes(data)) as file, pytest.raises(SealingError):
        file.read_range_into(WEIGHT, 0, buffer)
    assert not any(buffer)


@pytest.mark.parametrize("holders", ["many", "owner"])
def test_sea_04_chunks_swapped_doubled_or_from_another_file_are_refused(holders: str) -> None:
    """Both with the owner's digests and with the AEAD alone."""
    first, second = GOOD.data[FIRST : FIRST + STEP], GOOD.data[FIRST + STEP : FIRST + 2 * STEP]
    rest = GOOD.data[FIRST + 2 * STEP :]
    for middle in (second + first, first + first, second + second, first + OTHER.data[FIRST + STEP :][:STEP]):
        refused(GOOD.data[:FIRST] + middle + rest, "sealing.integrity", key_holders=holders)
    assert GOOD.read_all(GOOD.data[:FIRST] + first + second + rest, key_holders=holders)[WEIGHT] == WEIGHTS


def test_sea_04_parts_of_two_files_do_not_make_a_third() -> None:
    end = HEADER_BLOCK + GOOD.header.payload
    parts = [
        (file.data[:HEADER_BLOCK], file.data[HEADER_BLOCK:end], file.data[end:]) for file in (GOOD, OTHER)
    ]
    for mixture in range(1, 7):
        data = b"".join(parts[mixture >> part & 1][part] for part in range(3))
        refused(data, "sealing.integrity")


def test_sea_04_every_file_opens_under_its_own_name_version_key_and_owner_only(tmp_path: Path) -> None:
    """Two names, two versions, two keys, two owners: of 256 pairings, the 16 right ones open."""
    owners = [OWNER, SigningKey.from_bytes(bytes(32))]
    keys = [Secret(KEY), Secret(bytes(32))]
    kinds = [(n, v, k, o) for n in ("model", "model2") for v in (1, 2) for k in (0, 1) for o in (0, 1)]
    files = {
        kind: sealed(tmp_path, name=kind[0], version=kind[1], key=keys[kind[2]], signer=owners[kind[3]])
        for kind in kinds
    }
    for made in kinds:
        for asked in kinds:
            changed: dict[str, Any] = {
                "name": asked[0], "version": asked[1], "key": keys[asked[2]],
                "owner_public": owners[asked[3]].public,
            }  # fmt: skip
            if made == asked:
                assert files[made].read_all(**changed)[WEIGHT] == WEIGHTS
                continue
            expected = "sealing.signer" if made[3] != asked[3] else "sealing.policy_mismatch"
            with pytest.raises(SealingError) as error:
                files[made].read_all(**changed)
            assert error.value.code == expected


def test_sea_02_a_version_below_the_minimum_is_a_rollback() -> None:
    refused(GOOD.data, "sealing.rollback", minimum_version=VERSION + 1)
    assert GOOD.read_all(minimum_version=VERSION)


def test_sea_05_no_bit_of_the_header_block_can_be_flipped() -> None:
    """All 8 bits of each byte in use, and of every 50th byte of the padding."""
    used = len(GOOD.data[:HEADER_BLOCK].rstrip(b"\0"))
    for position in [*range(used), *range(used, HEADER_BLOCK, 50)]:
        for bit in range(8):
            block = bytearray(GOOD.data[:HEADER_BLOCK])
            block[position] ^= 1 << bit
            with pytest.raises(SealingError) as error:
                GOOD.open(bytes(block) + GOOD.data[HEADER_BLOCK:])
            assert error.value.code in {"sealing.integrity", "sealing.unsupported_version", "sealing.signer"}


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"version": VERSION + 1}, "sealing.policy_mismatch"),
        ({"name": "other"}, "sealing.policy_mismatch"),
        ({"commitment": bytes(32)}, "sealing.policy_mismatch"),
        ({"file": bytes(32)}, "sealing.policy_mismatch"),
        ({"index_digest": bytes(32)}, "sealing.integrity"),
        ({"payload": GOOD.header.payload - 1}, "sealing.integrity"),
        ({"payload": GOOD.header.payload + 16, "index": GOOD.header.index - 16}, "sealing.integrity"),
        ({"chunk": 2 * CHUNK}, "sealing.integrity"),
        ({"chunk": CHUNK + 1}, "sealing.integrity"),
        ({"chunk": 16}, "sealing.integrity"),
        ({"index": 1 << 40}, "sealing.integrity"),
        ({"owner": bytes(32)}, "sealing.signer"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_sea_05_substituted_fields_are_refused_even_if_the_owner_signed_them(
    fields: dict[str, Any], code: str
) -> None:
    refused(reheaded(GOOD.data, **fields), code)


@pytest.mark.parametrize(
    "change", [{"suite": 0}, {"suite": 2}, {"suite": None}, {"extra": 1}, {"kdf": "none"}]
)
def test_sea_05_the_suite_is_fixed_by_code_and_not_by_the_file(change: dict[str, Any]) -> None:
    """A null cipher, another suite, a further field: refused though the owner signed it."""
    encoded = GOOD.header.encode()
    body = cbor.decode(encoded[12:], what="header", max_size=1024) | change
    spelled = cbor.encode(body)
    encoded = encoded[:8] + len(spelled).to_bytes(4, "big") + spelled
    block = encoded + OWNER.sign(layout.Header.signed_message(encoded))
    data = block.ljust(HEADER_BLOCK, b"\0") + GOOD.data[HEADER_BLOCK:]
    known = change.get("suite") in {0, 2}
    refused(data, "sealing.unsupported_version" if known else "sealing.integrity")


def test_sea_05_a_header_signed_by_somebody_else_is_refused() -> None:
    mallory = SigningKey.generate()
    header = replace(GOOD.header, owner=mallory.public)
    refused(signed(header, mallory) + GOOD.data[HEADER_BLOCK:], "sealing.signer")
    # Naming the owner, but with another's signature.
    refused(signed(GOOD.header, mallory) + GOOD.data[HEADER_BLOCK:], "sealing.integrity")


def test_sea_05_a_signature_for_another_context_is_refused() -> None:
    block = GOOD.header.block(OWNER.sign(GOOD.header.encode()))
    refused(block + GOOD.data[HEADER_BLOCK:], "sealing.integrity")


def _with_index(change: Any, pad: bytes = b"\0", size: int = 4096) -> bytes:
    """The file with another index, encrypted and signed as the owner would: only its meaning is wrong."""
    keys = layout.file_keys(Secret(KEY), file=GOOD.header.file, name=NAME, version=VERSION)
    aead = Aead(keys.key)
    end = HEADER_BLOCK + GOOD.header.payload
    plaintext = aead.open(layout.nonce(0, 0, last=True), GOOD.data[end:], b"")
    length = int.from_bytes(plaintext[:4], "big")
    document = cbor.decode(plaintext[4 : 4 + length], what="index", max_size=1 << 20)
    changed = change(document)
    content = changed if isinstance(changed, bytes) else cbor.encode(changed)
    plaintext = (len(content).to_bytes(4, "big") + content).ljust(size, pad)
    ciphertext = aead.seal(layout.nonce(0, 0, last=True), plaintext, b"")
    header = replace(GOOD.header, index=len(ciphertext), index_digest=layout.digest(ciphertext))
    return signed(header) + GOOD.data[HEADER_BLOCK:end] + ciphertext


def _entry(number: int, **fields: Any) -> Any:
    def change(document: dict[str, Any]) -> dict[str, Any]:
        document["entries"][number].update(fields)
        return document

    return change


@pytest.mark.parametrize(
    "change",
    [
        _entry(0, size=21), _entry(0, size=1 << 60), _entry(1, size=1), _entry(1, shape=[1]), _entry(1, shape=[-1, 1]),
        _entry(1, shape=["a"]), _entry(1, shape=[True]), _entry(1, dtype="f99"), _entry(1, kind="pickle"),
        _entry(0, name="empty"), _entry(0, name=""), _entry(0, digests=b""), _entry(1, digests=bytes(64)),
        _entry(0, extra=1), _entry(0, name=7), lambda d: d | {"v": 2}, lambda d: d | {"entries": d["entries"][:2]},
        lambda d: d | {"entries": d["entries"] * 2}, lambda d: d | {"metadata": {1: 2}}, lambda d: [],
        lambda d: d | {"metadata": {"a": [1]}}, lambda d: cbor.encode(d) + b"\0", lambda d: b"\xa1", lambda d: d | {"entries": [1]},
    ],
    ids=lambda _: "",
)  # fmt: skip
def test_sea_05_an_index_that_contradicts_itself_is_refused(change: Any) -> None:
    assert GOOD.read_all(_with_index(lambda document: document))[WEIGHT] == WEIGHTS
    refused(_with_index(change), "sealing.integrity")


def test_sea_05_an_index_has_one_padding() -> None:
    refused(_with_index(lambda document: document, pad=b"\x01"), "sealing.integrity")
    refused(_with_index(lambda document: document, size=4095), "sealing.integrity")
    refused(_with_index(lambda document: document, size=8192), "sealing.integrity")


def test_sea_05_an_index_without_a_digest_for_each_chunk_is_refused_even_where_none_is_checked() -> None:
    for digests in (b"", bytes(64), bytes(128)):
        refused(_with_index(_entry(1, digests=digests)), "sealing.integrity", key_holders="owner")


def test_sea_12_full_chunks_cannot_be_cut_off_at_the_end_of_an_entry(tmp_path: Path) -> None:
    """A stream of whole chunks, cut at a chunk's border, with index and header to match: the last flag is missing."""
    whole = sealed(tmp_path, (Entry("a", WEIGHTS[: 2 * CHUNK]),))
    keys = layout.file_keys(Secret(KEY), file=whole.header.file, name=NAME, version=VERSION)
    chunk = whole.data[HEADER_BLOCK : HEADER_BLOCK + STEP]
    index = layout.encode_index([(layout.Description("a", "blob", "", (), CHUNK), layout.digest(chunk))], {})
    ciphertext = Aead(keys.key).seal(layout.nonce(0, 0, last=True), index, b"")
    header = replace(
        whole.header, payload=STEP, index=len(ciphertext), index_digest=layout.digest(ciphertext)
    )
    refused(signed(header) + chunk + ciphertext, "sealing.integrity")


def test_sea_14_no_nonce_repeats_under_a_key_and_no_key_in_two_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[tuple[bytes, bytes]] = set()
    files: set[bytes] = set()
    inner = Aead.seal_into
    current: list[bytes] = []

    def watched(self: Aead, nonce: bytes, plaintext: Any, aad: bytes, out: Any) -> int:
        pair = (current[0], nonce)
        assert pair not in seen
        seen.add(pair)
        return inner(self, nonce, plaintext, aad, out)

    monkeypatch.setattr(Aead, "seal_into", watched)
    derive = layout.file_keys

    def watched_keys(*args: Any, **kwargs: Any) -> layout.FileKeys:
        keys = derive(*args, **kwargs)
        current[:] = [keys.key.reveal()]
        return keys

    monkeypatch.setattr(layout, "file_keys", watched_keys)
    for _ in range(200):
        files.add(sealed(tmp_path, sync=False).header.file)
    assert len(files) == 200
    assert len(seen) == 200 * 5
    assert len({key for key, _ in seen}) == 200


def test_sea_15_a_file_opens_under_one_key_only(tmp_path: Path) -> None:
    """A chunk made to be valid under two keys: GCM accepts it under both, the file does not."""
    other = bytes(32)
    file = GOOD.header.file
    first = layout.file_keys(Secret(KEY), file=file, name=NAME, version=VERSION)
    second = layout.file_keys(Secret(other), file=file, name=NAME, version=VERSION)
    nonce = layout.nonce(1, 0, last=True)
    chunk = gcm.under_two_keys(first.key.reveal(), second.key.reveal(), nonce, os.urandom(64))
    assert Aead(first.key).open(nonce, chunk, b"") != Aead(second.key).open(nonce, chunk, b"")

    index = layout.encode_index([(layout.Description("a", "blob", "", (), 64), layout.digest(chunk))], {})
    ciphertext = Aead(first.key).seal(layout.nonce(0, 0, last=True), index, b"")
    header = replace(
        GOOD.header, payload=len(chunk), index=len(ciphertext), index_digest=layout.digest(ciphertext)
    )
    data = signed(header) + chunk + ciphertext
    assert set(GOOD.read_all(data)) == {"a"}
    refused(data, "sealing.policy_mismatch", key=Secret(other))


def _forged_chunk() -> bytes:
    """What a holder of the data key can make of the first full chunk: other weights, the same nonce and the same tag."""
    keys = layout.file_keys(Secret(KEY), file=GOOD.header.file, name=NAME, version=VERSION)
    original = GOOD.data[FIRST : FIRST + STEP]
    nonce = layout.nonce(2, 0, last=False)
    evil = Aead(keys.key).seal(nonce, b"\x66" * CHUNK, b"")[:-TAG]
    return gcm.with_tag(keys.key.reveal(), nonce, evil, original[-TAG:]) + original[-TAG:]


def test_sea_15_a_holder_of_the_data_key_cannot_change_what_the_owner_signed() -> None:
    """A hostile broker has the key. A signed list of GCM tags would not stop it; the signed digests do."""
    data = GOOD.data[:FIRST] + _forged_chunk() + GOOD.data[FIRST + STEP :]
    assert data != GOOD.data
    assert data[FIRST + CHUNK : FIRST + STEP] == GOOD.data[FIRST + CHUNK : FIRST + STEP]  # The same tag.
    refused(data, "sealing.integrity")


def test_sea_15_what_key_holders_owner_gives_up_is_exactly_that() -> None:
    """With ``key_holders="owner"`` the AEAD alone authenticates the payload: the documented limit, made visible."""
    data = GOOD.data[:FIRST] + _forged_chunk() + GOOD.data[FIRST + STEP :]
    found = GOOD.read_all(data, key_holders="owner")[WEIGHT]
    assert found[: CHUNK - 16] == b"\x66" * (CHUNK - 16)


@settings(max_examples=200)
@given(
    first=st.tuples(st.from_regex(r"[a-z0-9]{1,3}", fullmatch=True), st.integers(1, 1 << 63), st.binary(min_size=32, max_size=32)),
    second=st.tuples(st.from_regex(r"[a-z0-9]{1,3}", fullmatch=True), st.integers(1, 1 << 63), st.binary(min_size=32, max_size=32)),
)  # fmt: skip
def test_sea_16_no_two_contexts_give_the_same_key(
    first: tuple[str, int, bytes], second: tuple[str, int, bytes]
) -> None:
    first, second = ((n, min(v, (1 << 63) - 1), f) for n, v, f in (first, second))
    keys = [
        layout.file_keys(Secret(KEY), file=file, name=name, version=version)
        for name, version, file in (first, second)
    ]
    assert (keys[0].key == keys[1].key) == (first == second)
    for made in keys:
        assert made.key.reveal() != made.commitment


def test_ml_06_what_is_swapped_on_disk_after_opening_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "m.confide"
    path.write_bytes(GOOD.data)
    with ProtectedFile.open(path, key=GOOD.key, owner_public=OWNER.public, name=NAME) as file:
        (tmp_path / "evil").write_bytes(OTHER.data)
        (tmp_path / "evil").rename(path)
        assert file.read(WEIGHT) == WEIGHTS  # The same open file, whatever the name now stands for.


@pytest.mark.parametrize("holders", ["many", "owner"])
def test_ml_06_what_is_changed_in_place_after_opening_is_refused(tmp_path: Path, holders: str) -> None:
    path = tmp_path / "m.confide"
    path.write_bytes(GOOD.data)
    with ProtectedFile.open(
        path,
        key=GOOD.key,
        owner_public=OWNER.public,
        name=NAME,
        key_holders=holders,  # type: ignore[arg-type]
    ) as file:
        data = bytearray(GOOD.data)
        data[FIRST + 10] ^= 1
        path.write_bytes(data)
        with pytest.raises(SealingError) as error:
            file.read(WEIGHT)
        assert error.value.code == "sealing.integrity"
        os.truncate(path, HEADER_BLOCK)
        with pytest.raises(SealingError) as error:
            file.read(WEIGHT)
        assert error.value.code == "sealing.integrity"


def test_ml_06_each_byte_of_ciphertext_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that answers a second read with other bytes gains nothing, because there is no second read."""
    path = tmp_path / "m.confide"
    path.write_bytes(GOOD.data)
    reads: list[tuple[int, int]] = []
    preadv = os.preadv

    def watched(descriptor: int, buffers: Any, offset: int) -> int:
        count = preadv(descriptor, buffers, offset)
        reads.append((offset, count))
        return count

    with ProtectedFile.open(path, key=GOOD.key, owner_public=OWNER.public, name=NAME) as file:
        monkeypatch.setattr(os, "preadv", watched)
        file.read(WEIGHT, threads=2)
    assert sorted(reads) == [(FIRST, STEP), (FIRST + STEP, STEP), (FIRST + 2 * STEP, 512 + TAG)]


def test_leak_03_nothing_prints_a_key_or_content() -> None:
    with GOOD.open() as file:
        shown = repr(file) + str(file) + repr(GOOD.header) + repr(Entry("n", WEIGHTS))
        keys = layout.file_keys(Secret(KEY), file=GOOD.header.file, name=NAME, version=VERSION)
        shown += repr(keys)
    for secret in (KEY, keys.key.reveal(), WEIGHTS[:16]):
        assert secret.hex() not in shown
        assert repr(secret)[2:-1] not in shown


def test_sealed_is_a_passing_case() -> None:
    """All attacks above start from files that open."""
    for good in (GOOD, OTHER):
        assert isinstance(good, Sealed)
        assert good.read_all()[WEIGHT] == WEIGHTS
