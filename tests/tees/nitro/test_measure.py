# SPDX-License-Identifier: Apache-2.0
"""Predicted registers of enclave images, and image files that are not in order."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import tracemalloc
import zlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from confide.crypto.issue import IssuingKey, issue
from confide.errors import ConfideError, ConfigurationError, MalformedError
from confide.tees.nitro import measure
from confide.wire import cbor

if TYPE_CHECKING:
    from pathlib import Path

KERNEL, CMDLINE, RAMDISK, SIGNATURE, METADATA = range(1, 6)
SECTIONS = [
    (KERNEL, b"kernel"),
    (CMDLINE, b"console=ttyS0"),
    (METADATA, b"{}"),
    (RAMDISK, b"init"),
    (RAMDISK, b"app"),
]


def image(
    sections: list[tuple[int, bytes]] | None = None,
    *,
    tail: bytes = b"",
    section_flags: int = 0,
    crc: int | None = None,
    **header: Any,
) -> bytes:
    """An EIF file whose header can be overridden, and whose CRC is right unless it is overridden, too."""
    chosen = SECTIONS if sections is None else sections
    offsets, sizes, body, offset = [], [], b"", 548
    for kind, content in chosen:
        offsets.append(offset)
        sizes.append(len(content))
        body += struct.pack(">HHQ", kind, section_flags, len(content)) + content
        offset += 12 + len(content)
    values: dict[str, Any] = {
        "magic": b".eif",
        "version": 4,
        "flags": 0,
        "memory": 1 << 30,
        "cpus": 2,
        "reserved": 0,
        "count": len(chosen),
        "offsets": [*offsets, *[0] * (32 - len(offsets))],
        "sizes": [*sizes, *[0] * (32 - len(sizes))],
        "unused": 0,
    } | header
    *start, count, offsets, sizes, unused = values.values()
    packed = struct.pack(">4sHHQQHH32Q32QI", *start, count, *offsets, *sizes, unused)
    body += tail
    checksum = zlib.crc32(body, zlib.crc32(packed)) if crc is None else crc
    return packed + struct.pack(">I", checksum) + body


def read(data: bytes) -> measure.Image:
    return measure.read_image(io.BytesIO(data))


def code(data: bytes) -> str:
    with pytest.raises(ConfideError) as caught:
        read(data)
    return caught.value.code


def extended(*parts: bytes) -> bytes:
    return hashlib.sha384(bytes(48) + hashlib.sha384(b"".join(parts)).digest()).digest()


def signature_section(*entries: Any) -> bytes:
    """As serde writes it: byte vectors are arrays of numbers."""
    return cbor.encode([{name: list(value) for name, value in entry.items()} for entry in entries])


def certificate() -> tuple[bytes, bytes]:
    """A certificate in DER and in PEM."""
    import base64

    key = IssuingKey.from_scalar(17)
    der = issue(
        subject="signer",
        issuer="signer",
        public_key=key.public_key_der,
        signing_key=key,
        serial=1,
        not_before=datetime(2024, 1, 1, tzinfo=UTC),
        not_after=datetime(2034, 1, 1, tzinfo=UTC),
        is_ca=False,
    )
    text = base64.encodebytes(der).replace(b"\n", b"")
    lines = b"\n".join(text[start : start + 64] for start in range(0, len(text), 64))
    return der, b"-----BEGIN CERTIFICATE-----\n" + lines + b"\n-----END CERTIFICATE-----\n"


def test_the_shared_image_measures_to_its_recorded_registers(shared: Path) -> None:
    folder = shared / "evidence" / "measurements" / "nitro"
    with (folder / "test.eif").open("rb") as file:
        found = measure.read_image(file)

    expected = json.loads((folder / "test.pcrs.json").read_text())
    assert {name.upper(): value.hex() for name, value in found.pcrs.items()} == expected
    assert (found.version, found.architecture, found.signing_certificate) == (4, "x86_64", None)


def test_registers_cover_the_contents_of_their_sections_in_the_order_of_the_file() -> None:
    found = read(image()).pcrs

    assert found["pcr0"] == extended(b"kernel", b"console=ttyS0", b"init", b"app")
    assert found["pcr1"] == extended(b"kernel", b"console=ttyS0", b"init")
    assert found["pcr2"] == extended(b"app")
    assert set(found) == {"pcr0", "pcr1", "pcr2"}


def test_an_image_of_one_ramdisk_has_an_application_of_nothing() -> None:
    found = read(image([(KERNEL, b"k"), (CMDLINE, b"c"), (RAMDISK, b"r")])).pcrs

    assert found["pcr0"] == found["pcr1"] == extended(b"k", b"c", b"r")
    assert found["pcr2"] == extended()


def test_metadata_and_default_sizes_are_not_measured() -> None:
    changed = [(kind, b'{"ImageName":"x"}' if kind == METADATA else content) for kind, content in SECTIONS]

    assert read(image(changed, memory=1, cpus=9)).pcrs == read(image()).pcrs


def test_a_signed_image_has_its_certificate_in_register_8() -> None:
    der, pem = certificate()
    section = signature_section({"signing_certificate": pem, "signature": b"\x84"})
    found = read(image([*SECTIONS, (SIGNATURE, section)]))

    assert found.signing_certificate == der
    assert found.pcrs["pcr8"] == hashlib.sha384(bytes(48) + hashlib.sha384(der).digest()).digest()
    assert {name: value for name, value in found.pcrs.items() if name != "pcr8"} == read(image()).pcrs


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (image(magic=b".eiF"), "malformed.unknown_format"),
        (image(version=1), "malformed.unsupported_version"),
        (image(version=5), "malformed.unsupported_version"),
        (image(version=3), "malformed.unknown_format"),  # Metadata came with version 4.
        (image(flags=2), "malformed.reserved_not_zero"),
        (image(reserved=1), "malformed.reserved_not_zero"),
        (image(unused=1), "malformed.reserved_not_zero"),
        (image(section_flags=1), "malformed.reserved_not_zero"),
        (image(count=0), "malformed.limit_exceeded"),
        (image(count=33), "malformed.limit_exceeded"),
        (image(count=4), "malformed.reserved_not_zero"),
        (image(count=6), "malformed.truncated"),
        (image(offsets=[548] * 32), "malformed.reserved_not_zero"),
        (image(offsets=[549, *[0] * 31]), "malformed.length_mismatch"),
        (image(sizes=[7, *[0] * 31]), "malformed.length_mismatch"),
        (image(sizes=[1 << 63, *[0] * 31]), "malformed.limit_exceeded"),
        (image(crc=0), "malformed.non_canonical"),
        (image(tail=b"\0"), "malformed.trailing_data"),
        (image()[:-1], "malformed.truncated"),
        (image()[:547], "malformed.truncated"),
        (b"", "malformed.truncated"),
        (image([*SECTIONS, (0, b"x")]), "malformed.unknown_format"),
        (image([*SECTIONS, (6, b"x")]), "malformed.unknown_format"),
        (image([*SECTIONS, (KERNEL, b"x")]), "malformed.non_canonical"),
        (image([*SECTIONS, (CMDLINE, b"x")]), "malformed.non_canonical"),
        (image([*SECTIONS, (METADATA, b"x")]), "malformed.non_canonical"),
        (image([(RAMDISK, b"r"), (KERNEL, b"k"), (CMDLINE, b"c")]), "malformed.non_canonical"),
        (image([(CMDLINE, b"c"), (KERNEL, b"k")]), "malformed.non_canonical"),
        (image([(KERNEL, b"k"), (RAMDISK, b"r")]), "malformed.non_canonical"),
    ],
)
def test_an_image_that_is_not_in_order_is_not_measured(data: bytes, expected: str) -> None:
    assert code(data) == expected


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        (b"", "malformed.truncated"),
        (cbor.encode([]), "malformed.unknown_format"),
        (cbor.encode({}), "malformed.unknown_format"),
        (cbor.encode({"signing_certificate": []}), "malformed.unknown_format"),
        (cbor.encode([{"signing_certificate": ["0"], "signature": []}]), "malformed.non_canonical"),
        (cbor.encode([{"signing_certificate": [], "signature": [None]}]), "malformed.non_canonical"),
        (cbor.encode([1]), "malformed.non_canonical"),
        (cbor.encode([{"signing_certificate": b"pem", "signature": []}]), "malformed.non_canonical"),
        (cbor.encode([{"signing_certificate": [256], "signature": []}]), "malformed.non_canonical"),
        (cbor.encode([{"signing_certificate": [-1], "signature": []}]), "malformed.non_canonical"),
        (cbor.encode([{"signing_certificate": [True], "signature": []}]), "malformed.non_canonical"),
        (cbor.encode([{"signing_certificate": []}]), "malformed.non_canonical"),
        (cbor.encode([{"signing_certificate": [], "signature": [], "more": 1}]), "malformed.non_canonical"),
        (bytes(300 * 1024), "malformed.limit_exceeded"),
    ],
)
def test_a_signature_section_that_is_not_in_order_is_refused(section: bytes, expected: str) -> None:
    assert code(image([*SECTIONS, (SIGNATURE, section)])) == expected


def test_a_changed_byte_changes_the_checksum() -> None:
    good = image()

    for offset in range(len(good)):
        changed = bytearray(good)
        changed[offset] ^= 0x01
        assert code(bytes(changed)).startswith("malformed.")


def test_an_image_cut_at_any_byte_is_refused() -> None:
    good = image()

    assert {code(good[:length]) for length in range(len(good))} == {"malformed.truncated"}


def test_a_section_that_says_another_size_than_the_header_is_refused() -> None:
    data = bytearray(image())
    data[548 + 11] += 1

    assert code(bytes(data)) == "malformed.length_mismatch"


def test_sizes_of_sections_that_are_not_there_are_zero() -> None:
    sizes = [len(content) for _, content in SECTIONS]

    assert code(image(sizes=[*sizes, 1, *[0] * 26])) == "malformed.reserved_not_zero"


@given(st.binary(max_size=1200))
@settings(max_examples=200)
def test_any_bytes_are_refused_in_words(data: bytes) -> None:
    assert code(data).startswith("malformed.")
    assert code(b".eif\0\4\0\0" + data).startswith("malformed.")


def test_a_large_image_is_read_in_pieces() -> None:
    data = image([(KERNEL, b"k"), (CMDLINE, b"c"), (RAMDISK, bytes(24 * 1024 * 1024))])
    file = io.BytesIO(data)
    tracemalloc.start()
    try:
        found = measure.read_image(file)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert found.pcrs["pcr1"] == extended(b"k", b"c", bytes(24 * 1024 * 1024))


def test_a_section_that_only_claims_to_be_large_allocates_nothing() -> None:
    data = bytearray(image([(KERNEL, b"k"), (CMDLINE, b"c"), (RAMDISK, b"r")]))
    data[32 + 256 : 40 + 256] = (1 << 35).to_bytes(8, "big")
    data[548 + 4 : 548 + 12] = (1 << 35).to_bytes(8, "big")
    tracemalloc.start()
    try:
        assert code(bytes(data)).startswith("malformed.")
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_registers_3_and_4_follow_from_role_and_instance() -> None:
    """The instance's is checked against real documents in test_samples; the role's is made in the same way."""
    arn = "arn:aws:iam::123456789012:role/enclave"

    assert measure.pcr3_of_role(arn) == hashlib.sha384(bytes(48) + arn.encode()).digest()
    for wrong, code in (
        (measure.pcr3_of_role, "configuration.pcr3"),
        (measure.pcr4_of_instance, "configuration.pcr4"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            wrong("enclave")
        assert caught.value.code == code


def test_an_image_becomes_reference_values() -> None:
    found = read(image())
    reference = measure.reference_values(found, origin="image.eif")

    assert (reference.tee, reference.origin) == ("nitro", "image.eif")
    assert dict(reference.measurements) == {name: (value,) for name, value in found.pcrs.items()}


def test_a_text_file_is_no_image() -> None:
    with pytest.raises(MalformedError):
        read(b"not an image")
