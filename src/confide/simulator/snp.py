# SPDX-License-Identifier: Apache-2.0
"""A simulated SEV-SNP chip: reports of version 5 in AMD's layout, signed by a VCEK under this machine's own root.

The level of confinement is the only thing in a report that the worker says of itself: FAMILY_ID holds
``confide-sim-L0`` to ``confide-sim-L3``, zero-padded. It is a claim; no policy can make it more.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from confide.crypto import kdf
from confide.crypto.issue import IssuingKey, issue
from confide.crypto.signing import CURVES
from confide.crypto.x509 import Extension
from confide.simulator.installation import NOT_AFTER, NOT_BEFORE, PRODUCT, Installation, subject
from confide.simulator.measurement import host_data, measurement
from confide.tees.snp import endorse
from confide.tees.snp.wire import SIGNED_BYTES, GuestPolicy, ReportV5, Signature, TcbVersion, VersionNumber

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Chip", "family_id"]

_TCB = TcbVersion(boot_loader=10, tee=0, snp=24, microcode=84)
_FIRMWARE = VersionNumber(build=1, minor=58, major=1)
_FAMILY, _MODEL, _STEPPING = 0x19, 0x11, 1
_SMT = 1 << 16
_DEBUG = 1 << 19
_PLATFORM = 1 << 0 | 1 << 2 | 1 << 5  # SMT on, ECC memory, alias check complete.
_CHIP_INFO = b"confide/simulated/chip/1"
_VCEK_INFO = b"confide/simulated/vcek/1"
_DERIVE_INFO = b"confide/simulated/derive/1\x00"


def family_id(level: int) -> bytes:
    """FAMILY_ID (16 B) that claims the level of confinement, 0 to 3."""
    return f"confide-sim-L{level}".encode("ascii").ljust(16, b"\x00")


@dataclass(frozen=True, slots=True, repr=False)
class Chip:
    """One start of a simulated chip, with its key."""

    installation: Installation
    chip_id: bytes
    vcek: bytes
    _key: IssuingKey
    _report_id: bytes

    @classmethod
    def power_on(cls, installation: Installation, *, random: Callable[[int], bytes] = os.urandom) -> Self:
        """Derive the chip's key and certify it under the installation's root, with the levels that reports name.

        As on hardware the key follows from the chip's secret and its TCB, so that certificates of an earlier start stay good.
        """
        chip_id = kdf.hkdf(installation.secret, salt=b"", info=_CHIP_INFO, length=64)
        # FIPS 186-5, A.2.1: at least 64 bits more than the order, reduced to 1 .. n-1.
        wide = kdf.hkdf(installation.secret, salt=_TCB.encode(), info=_VCEK_INFO, length=64)
        key = IssuingKey.from_scalar(int.from_bytes(wide, "big") % (CURVES["p384"][2] - 1) + 1)
        vcek = issue(
            subject=subject("SEV-VCEK"),
            issuer=subject(f"SEV-{PRODUCT}"),
            public_key=key.public_key_der,
            signing_key=installation.ask_key,
            serial=int.from_bytes(random(15), "big") + 1,
            not_before=NOT_BEFORE,
            not_after=NOT_AFTER,
            is_ca=False,
            extensions=_extensions(chip_id),
        )
        return cls(installation, chip_id, vcek, key, random(32))

    def report(self, report_data: bytes, *, manifest: bytes, debug: bool, level: int) -> bytes:
        """The signed report (1184 B) over 64 bytes of report data, for the enclave that ``manifest`` describes."""
        tcb = _TCB.encode()
        unsigned = ReportV5(
            version=5,
            guest_svn=0,
            policy=GuestPolicy.RESERVED_MUST_BE_ONE | _SMT | (_DEBUG if debug else 0),
            family_id=family_id(level),
            image_id=bytes(16),
            vmpl=0,
            signature_algo=1,
            current_tcb=tcb,
            platform_info=_PLATFORM,
            key_info=0,
            report_data=report_data,
            measurement=measurement(manifest),
            host_data=host_data(manifest),
            id_key_digest=bytes(48),
            author_key_digest=bytes(48),
            report_id=self._report_id,
            report_id_ma=b"\xff" * 32,
            reported_tcb=tcb,
            cpuid_fam_id=_FAMILY,
            cpuid_mod_id=_MODEL,
            cpuid_step=_STEPPING,
            chip_id=self.chip_id,
            committed_tcb=tcb,
            current_version=_FIRMWARE,
            committed_version=_FIRMWARE,
            launch_tcb=tcb,
            launch_mit_vector=0,
            current_mit_vector=0,
            signature=Signature(r=bytes(72), s=bytes(72)),
        )
        r, s = self._key.sign_ecdsa(unsigned.encode()[:SIGNED_BYTES])
        signature = Signature(r=r.to_bytes(72, "little"), s=s.to_bytes(72, "little"))
        return dataclasses.replace(unsigned, signature=signature).encode()

    def derive_key(self, label: bytes, *, manifest: bytes) -> bytes:
        """32 bytes that this installation gives to this manifest, for ``label``, and to no other."""
        salt = measurement(manifest)
        return kdf.hkdf(self.installation.secret, salt=salt, info=_DERIVE_INFO + label, length=32)

    def __repr__(self) -> str:
        return "Chip(redacted)"


def _extensions(chip_id: bytes) -> dict[str, Extension]:
    integers = {
        endorse.OID_STRUCT_VERSION: 0,
        endorse.OID_BL_SPL: _TCB.boot_loader,
        endorse.OID_TEE_SPL: _TCB.tee,
        endorse.OID_SNP_SPL: _TCB.snp,
        endorse.OID_UCODE_SPL: _TCB.microcode,
    }
    values = {oid: bytes((2, 1, value)) for oid, value in integers.items()}
    name = PRODUCT.encode("ascii")
    values[endorse.OID_PRODUCT_NAME] = bytes((0x16, len(name))) + name
    values[endorse.OID_HWID] = bytes((0x04, 64)) + chip_id
    return {oid: Extension(critical=False, value=value) for oid, value in values.items()}
