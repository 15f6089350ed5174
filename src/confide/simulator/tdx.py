# SPDX-License-Identifier: Apache-2.0
"""Simulated TDX platforms: quotes of versions 4 and 5 over TDs that do not exist."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from confide.simulator import dcap
from confide.tees.tdx.wire import TdReport10, TdReport15

__all__ = ["TEE_TCB_SVN", "Platform"]

TEE_TCB_SVN = bytes((5, 1, 6)) + bytes(13)
_ATTRIBUTES = 1 << 28  # SEPT_VE_DISABLE, which every kernel for TDX asks for.


@dataclass(frozen=True, slots=True, repr=False)
class Platform(dcap.Platform):
    """A platform with a TDX module of version 1, whose SVN is 5. Quotes are of version 4 unless told otherwise."""

    TEE: ClassVar[str] = "tdx"
    VERSION: ClassVar[int] = 4

    def report(self, report_data: bytes, version: int, **overrides: Any) -> tuple[int, bytes]:
        """A TD's report: TDX 1.0 up to version 4, TDX 1.5 from version 5 on, unless ``body`` says "1.0" or "1.5"."""
        fields: dict[str, Any] = {
            "tee_tcb_svn": TEE_TCB_SVN,
            "mrseam": b"\x01" * 48,
            "mrsignerseam": dcap.MODULE_SIGNER,
            "seam_attributes": bytes(8),
            "td_attributes": _ATTRIBUTES,
            "xfam": 0x602E7,
            "mrtd": bytes(range(48)),
            "mrconfigid": bytes(48),
            "mrowner": bytes(48),
            "mrownerconfig": bytes(48),
            "rtmrs": tuple(bytes((16 + number,)) * 48 for number in range(4)),
            "report_data": report_data,
        }
        if overrides.pop("body", "1.5" if version >= 5 else "1.0") == "1.0":
            return 2, TdReport10(**(fields | overrides)).encode()
        fields |= {"tee_tcb_svn_2": fields["tee_tcb_svn"], "mrservicetd": bytes(48)}
        return 3, TdReport15(**(fields | overrides)).encode()

    def level(self, sgx: tuple[int, ...], pcesvn: int, status: str, *advisories: str) -> dict[str, Any]:
        """A level with TDX components, which ask for the platform's late microcode (the third) alone."""
        level = dcap.Platform.level(self, sgx, pcesvn, status, *advisories)
        level["tcb"]["tdxtcbcomponents"] = dcap.components((5, 0, min(6, sgx[0]), *(0,) * 13))
        return level

    def tcb_info(self, **changes: Any) -> dict[str, Any]:
        """TCB info with the identities of TDX modules of versions 0, 1 and 3."""
        signer = {
            "mrsigner": dcap.MODULE_SIGNER.hex(),
            "attributes": "00" * 8,
            "attributesMask": "FF" * 8,
        }
        levels = [
            dcap.svn_level(5, "UpToDate"),
            dcap.svn_level(3, "OutOfDate", "INTEL-SA-01036"),
            dcap.svn_level(1, "Revoked"),
        ]
        modules = [{"id": f"TDX_0{version}", **signer, "tcbLevels": levels} for version in (3, 1)]
        return dcap.Platform.tcb_info(
            self, **({"tdxModule": signer, "tdxModuleIdentities": modules} | changes)
        )
