# SPDX-License-Identifier: Apache-2.0
"""Azure's HCL report: what the paravisor of a confidential VM put into the TPM's NV index 0x01400001.

    header (32 bytes) | hardware report (1184 bytes: an SNP report, or a TDREPORT and zeros) | runtime data | zeros

The hardware signs SHA-256 of the runtime claims, exact bytes, as the first half of its report data; the claims name the vTPM's
attestation key. Source: Microsoft's "Guest attestation for confidential VMs", layouts as in azure-cvm-tooling (az-cvm-vtpm).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated, Any, Final

from confide.crypto import signing
from confide.errors import MalformedError
from confide.wire import base64_text, strict_json
from confide.wire.fields import Fields
from confide.wire.layout import U32, Layout, Raw, Zero

__all__ = ["AK_NAME", "HclReport", "Header", "RuntimeClaims", "decode_claims", "decode_hcl", "explain"]

AK_NAME: Final = "HCLAkPub"
HARDWARE_REPORT: Final = 1184
MAX_HCL: Final = 16 * 1024
MAX_CLAIMS: Final = 8 * 1024
SIGNATURE: Final = int.from_bytes(b"HCLA", "little")
VERSIONS: Final = frozenset({1, 2})
REQUEST_TYPE: Final = 2
REPORT_TYPES: Final = {2: "snp", 4: "tdx"}
HASH_SHA256: Final = 1


class Header(Layout, size=32):
    """The attestation header; ``report_size`` counts everything up to the padding."""

    signature: U32
    version: U32
    report_size: U32
    request_type: U32
    status: U32
    reserved_14: Annotated[bytes, Zero(12)] = bytes(12)


class RuntimeHeader(Layout, size=20):
    """The head of the runtime data; ``data_size`` counts it and the claims, ``claims_size`` the claims."""

    data_size: U32
    version: U32
    report_type: U32
    hash_type: U32
    claims_size: U32


class SnpPart(Layout, size=HARDWARE_REPORT):
    """Where the report data and the measurement lie in an SNP report (AMD 56860, ATTESTATION_REPORT)."""

    head: Annotated[bytes, Raw(0x50)]
    report_data: Annotated[bytes, Raw(64)]
    measurement: Annotated[bytes, Raw(48)]
    rest: Annotated[bytes, Raw(HARDWARE_REPORT - 0xC0)]


class TdxPart(Layout, size=HARDWARE_REPORT):
    """Where the report data and TDINFO lie in a TDREPORT (Intel TDX module ABI, TDREPORT_STRUCT), and zeros after it."""

    head: Annotated[bytes, Raw(128)]
    report_data: Annotated[bytes, Raw(64)]
    middle: Annotated[bytes, Raw(320)]
    attributes_xfam: Annotated[bytes, Raw(16)]
    mrtd: Annotated[bytes, Raw(48)]
    config_and_owner: Annotated[bytes, Raw(144)]
    rtmr0: Annotated[bytes, Raw(48)]
    rtmr1: Annotated[bytes, Raw(48)]
    rtmr2: Annotated[bytes, Raw(48)]
    rtmr3: Annotated[bytes, Raw(48)]
    rest: Annotated[bytes, Raw(112)]
    padding: Annotated[bytes, Zero(160)] = bytes(160)


@dataclass(frozen=True, slots=True)
class RuntimeClaims:
    """What the paravisor says about its VM. ``ak`` is a SubjectPublicKeyInfo; ``user_data`` what the guest last wrote, 64
    bytes, zeros at boot: no nonce may be taken from there. Flags are None where the claims do not have them.
    """

    ak: bytes
    user_data: bytes | None
    vm_id: str | None
    secure_boot: bool | None
    console_enabled: bool | None
    tpm_enabled: bool | None
    tpm_persisted: bool | None


@dataclass(frozen=True, slots=True)
class HclReport:
    """The report, split. ``tee`` is "snp" or "tdx"; ``claims_json`` the exact bytes that were hashed."""

    version: int
    tee: str
    hardware_report: bytes
    claims_json: bytes

    @property
    def claims_sha256(self) -> bytes:
        """What the hardware's report data must begin with."""
        return hashlib.sha256(self.claims_json).digest()

    def hardware(self) -> SnpPart | TdxPart:
        """The parts of the hardware report that are compared with the platform's own evidence."""
        if self.tee == "snp":
            return SnpPart.decode(self.hardware_report)
        return TdxPart.decode(self.hardware_report)


def decode_hcl(data: bytes) -> HclReport:
    """The HCL report in ``data``; MalformedError for every field of its headers that is not as Azure writes it."""
    what = "HCL report"
    if len(data) > MAX_HCL:
        raise MalformedError("limit_exceeded", f"{what} is longer than {MAX_HCL} bytes")
    start = Header.SIZE + HARDWARE_REPORT
    if len(data) < start + RuntimeHeader.SIZE:
        raise MalformedError("truncated", f"{what}: cut off before its runtime claims")
    header = Header.decode(data[: Header.SIZE])
    if header.signature != SIGNATURE:
        raise MalformedError("unknown_format", f"{what}: does not begin with HCLA")
    if header.version not in VERSIONS:
        raise MalformedError("unsupported_version", f"{what}: of an unknown version")
    if header.request_type != REQUEST_TYPE or header.status != 0:
        raise MalformedError("non_canonical", f"{what}: not the answer to a request for a report")
    runtime = RuntimeHeader.decode(data[start : start + RuntimeHeader.SIZE])
    if runtime.version != 1:
        raise MalformedError("unsupported_version", f"{what}: runtime data of an unknown version")
    tee = REPORT_TYPES.get(runtime.report_type)
    if tee is None:
        raise MalformedError("unknown_format", f"{what}: of a kind of hardware that is not known")
    if runtime.hash_type != HASH_SHA256:
        raise MalformedError("unknown_format", f"{what}: its claims are not hashed with SHA-256")
    end = start + RuntimeHeader.SIZE + runtime.claims_size
    if runtime.data_size != RuntimeHeader.SIZE + runtime.claims_size or header.report_size != end:
        raise MalformedError("length_mismatch", f"{what}: its lengths contradict each other")
    if end > len(data):
        raise MalformedError("truncated", f"{what}: cut off in its runtime claims")
    if any(data[end:]):
        raise MalformedError("trailing_data", f"{what}: bytes other than zero after its end")
    return HclReport(
        header.version,
        tee,
        bytes(data[Header.SIZE : start]),
        bytes(data[start + RuntimeHeader.SIZE : end]),
    )


def decode_claims(data: bytes) -> RuntimeClaims:
    """The runtime claims in JSON. Members that are not known here are covered by the hash and left alone.

    Raises MalformedError (``non_canonical`` for duplicate names), ``not_genuine.weak_key`` for an unusable key.
    """
    what = "runtime claims"
    document = strict_json.decode(data, what=what, max_size=MAX_CLAIMS, max_depth=8)
    fields = Fields(document, what)
    keys = [key for key in fields.list_("keys", 16) if isinstance(key, dict) and key.get("kid") == AK_NAME]
    if len(keys) != 1:
        raise MalformedError("non_canonical", f"{what}: not exactly one attestation key of the TPM")
    vm = Fields(fields.mapping("vm-configuration", default={}), "vm-configuration")
    user_data = fields.text("user-data", 128, default=None)
    return RuntimeClaims(
        ak=_read_jwk(keys[0]),
        user_data=None if user_data is None else _hex(user_data),
        vm_id=vm.text("vmUniqueId", 64, default=None),
        secure_boot=vm.boolean("secure-boot", default=None),
        console_enabled=vm.boolean("console-enabled", default=None),
        tpm_enabled=vm.boolean("tpm-enabled", default=None),
        tpm_persisted=vm.boolean("tpm-persisted", default=None),
    )


def _read_jwk(key: dict[str, Any]) -> bytes:
    """An RSA key for signatures, and for nothing else (RFC 7517, RFC 7518 section 6.3)."""
    fields = Fields(key, "the TPM's key in the runtime claims")
    fields.text("kid")
    if fields.text("kty") != "RSA" or fields.list_("key_ops", 4) != ["sign"]:
        raise MalformedError(
            "non_canonical", "the TPM's key in the runtime claims is not an RSA key that signs"
        )
    exponent = base64_text.decode(fields.text("e", 16), what="e", max_length=8, url=True)
    modulus = base64_text.decode(fields.text("n", 1400), what="n", max_length=1024, url=True)
    fields.end()
    if not exponent or not exponent[0]:
        raise MalformedError(
            "non_canonical", "the exponent in the runtime claims is not in its shortest form"
        )
    return signing.public_key_from_modulus(modulus, int.from_bytes(exponent, "big"))


def _hex(text: str) -> bytes:
    """Hexadecimal in the upper case in which the paravisor writes it, or in lower case: it is hashed as it stands, and only shown."""
    digits = "0123456789abcdef" if text.islower() else "0123456789ABCDEF"
    if len(text) % 2 or not frozenset(digits).issuperset(text):
        raise MalformedError("non_canonical", "user-data in the runtime claims is not hexadecimal")
    return bytes.fromhex(text)


def explain(data: bytes) -> dict[str, object]:
    """The report's fields for a person; nothing of it is checked."""
    report = decode_hcl(data)
    claims = decode_claims(report.claims_json)
    return {
        "version": report.version,
        "hardware": report.tee,
        "hardware report data": report.hardware().report_data.hex(),
        "SHA-256 of the runtime claims": report.claims_sha256.hex(),
        "attestation key (SHA-256)": hashlib.sha256(claims.ak).hexdigest(),
        "user-data": None if claims.user_data is None else claims.user_data.hex(),
        "vmUniqueId": claims.vm_id,
        "secure-boot": claims.secure_boot,
        "console-enabled": claims.console_enabled,
        "tpm-enabled": claims.tpm_enabled,
        "tpm-persisted": claims.tpm_persisted,
    }
