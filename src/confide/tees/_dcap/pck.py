# SPDX-License-Identifier: Apache-2.0
"""PCK certificates: the chain inside a quote, and Intel's extension that says which platform a key is of.

Source: Intel, "SGX PCK Certificate and Certificate Revocation List Profile Specification", section 1.3.5.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final

from confide.crypto import x509
from confide.errors import MalformedError
from confide.tees._dcap.tcb import COMPONENTS
from confide.wire import der

__all__ = ["CHAIN_TYPE", "EXTENSION", "MAX_CHAIN", "PckCertificate", "is_pck", "read_chain", "read_pck"]

EXTENSION: Final = "1.2.840.113741.1.13.1"
MAX_CHAIN: Final = 8
CHAIN_TYPE: Final = 5
"""The type of certification data that holds a PCK chain."""
_PCESVN: Final = COMPONENTS + 1
_CPUSVN: Final = COMPONENTS + 2
_WHAT: Final = "SGX extension of the PCK certificate"
_TYPES: Final = ("standard", "scalable", "scalable with integrity")


@dataclass(frozen=True, slots=True)
class PckCertificate:
    """A certificate of a platform's provisioning key and what its extension says.

    ``components`` are the 16 SVNs of the platform's TCB, ``platform_instance_id`` (16 bytes) exists on platforms of several
    processors; ``sgx_type`` says how memory is protected.
    """

    certificate: x509.Certificate
    ppid: bytes
    components: tuple[int, ...]
    pcesvn: int
    cpusvn: bytes
    pceid: bytes
    fmspc: bytes
    sgx_type: str
    platform_instance_id: bytes | None


@functools.lru_cache(maxsize=256)
def read_chain(data: bytes) -> tuple[x509.Certificate, ...]:
    """The certificates in certification data of type 5: PEM, one after another, and at most one NUL that ends the text."""
    text = data.removesuffix(b"\x00")
    certificates = x509.parse_pem(text)
    if len(certificates) > MAX_CHAIN:
        raise MalformedError("limit_exceeded", f"the quote holds more than {MAX_CHAIN} certificates")
    return certificates


def is_pck(certificate: x509.Certificate) -> bool:
    """Whether a certificate has Intel's extension at all."""
    return EXTENSION in certificate.extensions


@functools.lru_cache(maxsize=256)
def _read(encoded: bytes) -> PckCertificate:
    certificate = x509.Certificate.from_der(encoded)
    extension = certificate.extensions.get(EXTENSION)
    if extension is None:
        raise MalformedError("unknown_format", "the certificate of the platform's key has no SGX extension")
    fields = _pairs(der.decode(extension.value, what=_WHAT, max_size=4096), EXTENSION)
    tcb = _pairs(_need(fields, 2), f"{EXTENSION}.2")
    if set(tcb) != set(range(1, _CPUSVN + 1)) or not set(fields) <= set(range(1, 8)):
        raise MalformedError("unknown_format", f"{_WHAT}: parts are missing, or there are unknown ones")
    components = tuple(_small(tcb[number], 0xFF) for number in range(1, COMPONENTS + 1))
    cpusvn = _octets(tcb[_CPUSVN], COMPONENTS)
    if bytes(components) != cpusvn:
        raise MalformedError("non_canonical", f"{_WHAT}: CPUSVN and its components are not the same")
    kind = _need(fields, 5).enumerated()
    if not 0 <= kind < len(_TYPES):
        raise MalformedError("unknown_format", f"{_WHAT}: an unknown type of SGX")
    if 7 in fields:
        _configuration(fields[7])
    return PckCertificate(
        certificate=certificate,
        ppid=_octets(_need(fields, 1), 16),
        components=components,
        pcesvn=_small(tcb[_PCESVN], 0xFFFF),
        cpusvn=cpusvn,
        pceid=_octets(_need(fields, 3), 2),
        fmspc=_octets(_need(fields, 4), 6),
        sgx_type=_TYPES[kind],
        platform_instance_id=_octets(fields[6], 16) if 6 in fields else None,
    )


def read_pck(certificate: x509.Certificate) -> PckCertificate:
    """Read Intel's extension strictly: every part once, in its own type and length, CPUSVN equal to its 16 components.

    Raises ``malformed``. What the certificate says is worth nothing until its chain has been verified.
    """
    return _read(certificate.der)


def _pairs(element: der.Element, prefix: str) -> dict[int, der.Element]:
    """The parts of a SEQUENCE OF SEQUENCE { OID, value }, by the last number of the OID; each may be there once."""
    found: dict[int, der.Element] = {}
    for item in element.expect(der.SEQUENCE).children():
        parts = item.expect(der.SEQUENCE).children()
        if len(parts) != 2:
            raise MalformedError("non_canonical", f"{_WHAT}: a part that is not a name and a value")
        head, _, last = parts[0].oid().rpartition(".")
        if head != prefix:
            raise MalformedError("unknown_format", f"{_WHAT}: a part with a name of another structure")
        number = int(last)
        if number in found:
            raise MalformedError("non_canonical", f"{_WHAT}: the same part twice")
        found[number] = parts[1]
    return found


def _need(fields: dict[int, der.Element], number: int) -> der.Element:
    if number not in fields:
        raise MalformedError("unknown_format", f"{_WHAT}: part {number} is missing")
    return fields[number]


def _small(element: der.Element, most: int) -> int:
    value = element.integer()
    if not 0 <= value <= most:
        raise MalformedError("limit_exceeded", f"{_WHAT}: an SVN outside its range")
    return value


def _octets(element: der.Element, length: int) -> bytes:
    value = element.octets()
    if len(value) != length:
        raise MalformedError("length_mismatch", f"{_WHAT}: an identifier of another length")
    return value


def _configuration(element: der.Element) -> None:
    """Dynamic platform, cached keys, SMT: booleans that nothing here depends on, but whose form is checked."""
    flags = _pairs(element, f"{EXTENSION}.7")
    if not set(flags) <= {1, 2, 3}:
        raise MalformedError("unknown_format", f"{_WHAT}: an unknown part of the configuration")
    for flag in flags.values():
        flag.boolean()
