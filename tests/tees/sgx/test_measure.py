# SPDX-License-Identifier: Apache-2.0
"""Measurements out of SIGSTRUCTs: a real one, and structures signed by keys made here."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from confide.errors import ConfideError, MalformedError, NotGenuine
from confide.tees.sgx import appraise, measure

if TYPE_CHECKING:
    from pathlib import Path

SAMPLE = "evidence/measurements/sgx/ita_sample.sigstruct.bin"


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=3, key_size=3072)


def signed(key: rsa.RSAPrivateKey, **fields: Any) -> bytes:
    """A structure signed as the SDK's signer does it."""
    modulus = key.public_key().public_numbers().n
    blank = measure.Sigstruct(
        header=bytes.fromhex("06000000e10000000000010000000000"),
        vendor=0,
        date=0x20260101,
        header2=bytes.fromhex("01010000600000006000000001000000"),
        swdefined=0,
        modulus=modulus.to_bytes(384, "little"),
        exponent=3,
        signature=bytes(384),
        miscselect=0,
        miscmask=0xFFFFFFFF,
        cet_attributes=0,
        cet_attributes_mask=0,
        isvfamilyid=bytes(16),
        flags=4,
        xfrm=3,
        flags_mask=0xFFFFFFFFFFFFFFFF,
        xfrm_mask=0,
        enclavehash=bytes(range(32)),
        isvextprodid=bytes(16),
        isvprodid=7,
        isvsvn=3,
        q1=bytes(384),
        q2=bytes(384),
    )
    late = {name: fields.pop(name) for name in ("signature", "q1", "q2") if name in fields}
    made = replace(blank, **fields)
    encoded = made.encode()
    number = int.from_bytes(
        key.sign(encoded[:128] + encoded[900:1028], padding.PKCS1v15(), hashes.SHA256()), "big"
    )
    q1, rest = divmod(number * number, modulus)
    values = {"signature": number, "q1": q1, "q2": number * rest // modulus} | late
    numbers: dict[str, Any] = {name: value.to_bytes(384, "little") for name, value in values.items()}
    return replace(made, **numbers).encode()


def test_a_real_sigstruct_gives_the_recorded_measurements(shared: Path) -> None:
    found = measure.read((shared / SAMPLE).read_bytes())

    assert found.mrenclave.hex() == "69a8788a94e77a4d0cb91a5974022c4fa3422fb6fad96d576af38ff42a7a9f3d"
    assert found.mrsigner.hex() == "d412a4f07ef83892a5915fb2ab584be31e186e5a4f95ab5f6950fd4eb8694d7b"
    assert (found.date, found.isvprodid, found.isvsvn) == (0x20240123, 0, 0)
    assert not found.may_be_debugged
    assert measure.find(b"\x7fELF" + bytes(1001) + found.encode() + bytes(99)) == found


def test_changed_bytes_of_a_real_sigstruct_are_refused(shared: Path) -> None:
    data = (shared / SAMPLE).read_bytes()
    for offset in range(0, len(data), 7):
        changed = data[:offset] + bytes((data[offset] ^ 0x10,)) + data[offset + 1 :]
        with pytest.raises((MalformedError, NotGenuine)):
            measure.read(changed)


def test_a_signed_structure_gives_its_measurements(key: rsa.RSAPrivateKey) -> None:
    found = measure.read(signed(key))

    modulus = key.public_key().public_numbers().n.to_bytes(384, "little")
    assert (found.mrenclave, found.mrsigner) == (bytes(range(32)), hashlib.sha256(modulus).digest())
    values = measure.reference_values(found, origin="a test")
    assert values.measurements == {"mrenclave": (found.mrenclave,), "mrsigner": (found.mrsigner,)}
    by_enclave = appraise.parse_reference(measure.reference_table(found, by="mrenclave"))
    by_signer = appraise.parse_reference(measure.reference_table(found, by="mrsigner"))
    assert by_enclave.mrenclave == (found.mrenclave,)
    assert (by_signer.mrsigner, by_signer.isvprodid, by_signer.min_isvsvn) == ((found.mrsigner,), 7, 3)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"header": bytes(16)}, "malformed.unknown_format"),
        ({"header2": bytes(16)}, "malformed.unknown_format"),
        ({"vendor": 1}, "malformed.non_canonical"),
        ({"exponent": 65537}, "malformed.non_canonical"),
        ({"q1": 1}, "not_genuine.bad_signature"),
        ({"q2": 1}, "not_genuine.bad_signature"),
        ({"signature": 1}, "not_genuine.bad_signature"),
        ({"modulus": bytes(384)}, "not_genuine.weak_key"),
        ({"modulus": b"\x01" + bytes(382) + b"\x01"}, "not_genuine.weak_key"),
        ({"modulus": b"\x02" + bytes(382) + b"\x80"}, "not_genuine.weak_key"),
    ],
)
def test_a_structure_that_no_processor_takes_is_refused(
    key: rsa.RSAPrivateKey, fields: dict[str, Any], code: str
) -> None:
    with pytest.raises(ConfideError) as caught:
        measure.read(signed(key, **fields))
    assert caught.value.code == code


def test_the_signature_covers_the_second_range_and_another_key_is_refused(key: rsa.RSAPrivateKey) -> None:
    good = signed(key)
    for offset in (0x14, 0x28, 900, 960, 1024, 1026):
        changed = good[:offset] + bytes((good[offset] ^ 1,)) + good[offset + 1 :]
        with pytest.raises(NotGenuine) as caught:
            measure.read(changed)
        assert caught.value.code == "not_genuine.bad_signature"


@pytest.mark.parametrize(
    ("flags", "mask", "open_"), [(4, 2, False), (4, 0, True), (6, 2, True), (6, 0, True), (4, 0xFFFD, True)]
)
def test_whether_debugging_is_possible_is_told(
    key: rsa.RSAPrivateKey, flags: int, mask: int, open_: bool
) -> None:
    assert measure.read(signed(key, flags=flags, flags_mask=mask)).may_be_debugged is open_


def test_a_file_with_none_or_two_structures_is_refused(key: rsa.RSAPrivateKey) -> None:
    good = signed(key)
    for file in (b"", bytes(5000), good[:-1], good + good, b"\x7fELF" + good[:24]):
        with pytest.raises(MalformedError):
            measure.find(file)
    assert measure.find(good[:16] * 5 + good).isvsvn == 3
