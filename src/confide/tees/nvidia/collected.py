# SPDX-License-Identifier: Apache-2.0
"""Evidence in the JSON that NVIDIA's tools collect: one object for each device, with its report and its certificates.

    [{"arch": "HOPPER", "nonce": "<64 hex digits>", "evidence": "<base64>", "certificate": "<base64 of PEM>"}, ...]

Source: NVIDIA's attestation SDK, ``nvattest collect-evidence``. Reading decides nothing about trust; what the file says beside the
reports has to agree with them, since it would otherwise mislead whoever reads it.
"""

from __future__ import annotations

from typing import Final

from confide.attestation.evidence import Endorsements, Evidence, EvidencePart
from confide.crypto import x509
from confide.errors import MalformedError
from confide.tees.nvidia import wire
from confide.wire import base64_text, hexadecimal, strict_json
from confide.wire.fields import Fields

__all__ = ["read", "recognises"]

MAX_FILE: Final = 512 * 1024
MAX_DEVICES: Final = 16
MAX_CHAIN: Final = 0x1400
_WHAT: Final = "NVIDIA's evidence file"
_ARCHITECTURES: Final = ("HOPPER", "BLACKWELL", "LS10")


def recognises(data: bytes) -> bool:
    """Whether these bytes look like such a file: an array in JSON in which the three keys stand that every device has."""
    return data[:64].lstrip()[:1] == b"[" and all(
        key in data for key in (b'"arch"', b'"evidence"', b'"certificate"')
    )


def read(data: bytes) -> Evidence:
    """The devices in ``data``, the first one as the platform, with all of their certificates. Raises MalformedError."""
    devices = strict_json.decode(data, what=_WHAT, max_size=MAX_FILE)
    if not isinstance(devices, list) or not 1 <= len(devices) <= MAX_DEVICES:
        raise MalformedError("limit_exceeded", f"{_WHAT}: no device, or more than {MAX_DEVICES}")
    parts: list[EvidencePart] = []
    endorsements = Endorsements()
    for device in devices:
        report, certificates = _device(device)
        parts.append(EvidencePart("nvidia", report))
        endorsements = endorsements.merge(Endorsements(certificates))
    return Evidence(parts[0], tuple(parts[1:]), endorsements=endorsements)


def _device(device: object) -> tuple[bytes, tuple[bytes, ...]]:
    if not isinstance(device, dict):
        raise MalformedError("non_canonical", f"{_WHAT}: a device that is not an object")
    fields = Fields(device, _WHAT)
    architecture = fields.text("arch", 16)
    nonce = hexadecimal.decode(fields.text("nonce", 64), what=f"{_WHAT}: nonce", length=32)
    text = fields.text("evidence", 2 * wire.MAX_REPORT)
    report = base64_text.decode(text, what=f"{_WHAT}: evidence", max_length=wire.MAX_REPORT)
    text = fields.text("certificate", 2 * MAX_CHAIN)
    chain = base64_text.decode(text, what=f"{_WHAT}: certificate", max_length=MAX_CHAIN)
    fields.end()
    if architecture not in _ARCHITECTURES:
        raise MalformedError("unsupported_version", f"{_WHAT}: an architecture that is not known here")
    if wire.decode_report(report).request.nonce != nonce:
        raise MalformedError("non_canonical", f"{_WHAT}: a report over another nonce than the file names")
    return report, tuple(certificate.der for certificate in x509.parse_pem(chain))
