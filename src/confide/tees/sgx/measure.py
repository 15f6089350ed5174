# SPDX-License-Identifier: Apache-2.0
"""Read what an SGX enclave will measure out of its SIGSTRUCT, which its signer made when the enclave was built.

MRENCLAVE is the hash in the structure; MRSIGNER is SHA-256 over the signer's modulus in its own byte order. The processor
launches the enclave only if the signature verifies and what it loaded hashes to ENCLAVEHASH, so that a checked structure
tells what a genuine enclave will report, and nothing about what the enclave does.
Source: Intel SDM, volume 3D, sections 36.13 (SIGSTRUCT) and 38.1.3 (EINIT).
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Final, Literal

from confide.attestation.reference import ReferenceValues
from confide.crypto import sigstruct
from confide.errors import MalformedError, NotGenuine
from confide.wire.layout import U8, U16, U32, U64, Layout, Raw, Zero

__all__ = ["MAX_FILE", "Sigstruct", "find", "read", "reference_table", "reference_values"]

MAX_FILE: Final = 256 << 20
_HEADER: Final = bytes.fromhex("06000000e10000000000010000000000")
_HEADER2: Final = bytes.fromhex("01010000600000006000000001000000")
_VENDORS: Final = (0x0000, 0x8086)
_EXPONENT: Final = 3
_SIGNED_FIRST: Final = slice(0, 128)
_SIGNED_SECOND: Final = slice(900, 1028)
_DEBUG: Final = 1 << 1


class Sigstruct(Layout, size=1808):
    """SIGSTRUCT. Numbers of 384 bytes are little-endian."""

    header: Annotated[bytes, Raw(16)]
    vendor: U32
    date: U32
    header2: Annotated[bytes, Raw(16)]
    swdefined: U32
    reserved_2c: Annotated[bytes, Zero(84)] = bytes(84)
    modulus: Annotated[bytes, Raw(384)]
    exponent: U32
    signature: Annotated[bytes, Raw(384)]
    miscselect: U32
    miscmask: U32
    cet_attributes: U8
    cet_attributes_mask: U8
    reserved_38e: Annotated[bytes, Zero(2)] = bytes(2)
    isvfamilyid: Annotated[bytes, Raw(16)]
    flags: U64
    xfrm: U64
    flags_mask: U64
    xfrm_mask: U64
    enclavehash: Annotated[bytes, Raw(32)]
    reserved_3e0: Annotated[bytes, Zero(16)] = bytes(16)
    isvextprodid: Annotated[bytes, Raw(16)]
    isvprodid: U16
    isvsvn: U16
    reserved_404: Annotated[bytes, Zero(12)] = bytes(12)
    q1: Annotated[bytes, Raw(384)]
    q2: Annotated[bytes, Raw(384)]

    @property
    def mrenclave(self) -> bytes:
        """What the enclave will report as MRENCLAVE, 32 bytes."""
        return self.enclavehash

    @property
    def mrsigner(self) -> bytes:
        """What the enclave will report as MRSIGNER, 32 bytes."""
        return hashlib.sha256(self.modulus).digest()

    @property
    def may_be_debugged(self) -> bool:
        """Whether the enclave can be launched in debug mode: DEBUG is not among the attributes that must be as signed."""
        return not self.flags_mask & _DEBUG or bool(self.flags & _DEBUG)


def read(data: bytes) -> Sigstruct:
    """The structure in 1808 bytes, after the checks that EINIT makes of it.

    Raises ``malformed`` for another length, header, vendor or exponent; ``not_genuine.weak_key``, ``bad_signature``, also
    where Q1 or Q2 is not what the processor computes with.
    """
    found = Sigstruct.decode(data)
    if found.header != _HEADER or found.header2 != _HEADER2:
        raise MalformedError("unknown_format", "this is not a SIGSTRUCT")
    if found.vendor not in _VENDORS or found.exponent != _EXPONENT:
        raise MalformedError(
            "non_canonical", "the SIGSTRUCT has a vendor or an exponent that no processor takes"
        )
    signed = data[_SIGNED_FIRST] + data[_SIGNED_SECOND]
    sigstruct.verify(found.modulus[::-1], found.signature[::-1], signed)
    modulus, signature = _number(found.modulus), _number(found.signature)
    q1, rest = divmod(signature * signature, modulus)
    if _number(found.q1) != q1 or _number(found.q2) != signature * rest // modulus:
        raise NotGenuine("bad_signature", "Q1 or Q2 of the SIGSTRUCT is wrong, so that no processor takes it")
    return found


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")


def find(file: bytes) -> Sigstruct:
    """The one structure in a signed enclave, or in a file of its own (such as Gramine's ``.sig``).

    Raises as ``read`` does, and ``malformed.unknown_format`` where there is none or more than one.
    """
    if len(file) > MAX_FILE:
        raise MalformedError("limit_exceeded", f"a signed enclave has at most {MAX_FILE >> 20} MiB")
    places: list[int] = []
    at = file.find(_HEADER)
    while at >= 0 and len(places) < 2:
        if file[at + 24 : at + 40] == _HEADER2 and at + Sigstruct.SIZE <= len(file):
            places.append(at)
        at = file.find(_HEADER, at + 1)
    if len(places) != 1:
        raise MalformedError(
            "unknown_format",
            "the file holds no SIGSTRUCT, or more than one",
            hint="give the signed enclave (enclave.signed.so), or the file that holds its SIGSTRUCT alone",
        )
    return read(file[places[0] : places[0] + Sigstruct.SIZE])


def reference_values(found: Sigstruct, *, origin: str) -> ReferenceValues:
    """MRENCLAVE and MRSIGNER of a checked structure as reference values."""
    return ReferenceValues("sgx", {"mrenclave": (found.mrenclave,), "mrsigner": (found.mrsigner,)}, origin)


def reference_table(found: Sigstruct, *, by: Literal["mrenclave", "mrsigner"]) -> dict[str, object]:
    """The table ``[reference.sgx]`` of a policy for this enclave alone, or for it and all that follows it."""
    if by == "mrenclave":
        return {"mrenclave": [found.mrenclave.hex()]}
    return {"mrsigner": [found.mrsigner.hex()], "isvprodid": found.isvprodid, "min_isvsvn": found.isvsvn}
