# SPDX-License-Identifier: Apache-2.0
"""Is the quoting enclave Intel's, and is the TDX module? Without this, any enclave and any module could vouch.

Source: Intel, "API for Provisioning Certification Service", Enclave Identity V2 ("verifying an enclave's report") and TCB
Info V3 (``tdxModule``, ``tdxModuleIdentities``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from confide.errors import NotGenuine
from confide.tees._dcap.tcb import TcbEvaluation, judge, match_svn

if TYPE_CHECKING:
    from confide.tees._dcap.collateral import EnclaveIdentity, ModuleIdentity, TcbInfo
    from confide.tees._dcap.quote import EnclaveReport

__all__ = ["Seam", "check_module", "check_quoting_enclave", "check_running_module"]

_DEBUG: Final = 1 << 1
_STAGE: Final = "identity"
_RUNNING: Final = "TDX module that runs now"


@dataclass(frozen=True, slots=True)
class Seam:
    """What a TD's report says of its TDX module: SVNs (16 bytes; the second is the module's version), signer (48), attributes
    (8), and from TDX 1.5 on the SVNs of the module that runs now (else None).
    """

    tee_tcb_svn: bytes
    mrsigner: bytes
    attributes: bytes
    tee_tcb_svn_2: bytes | None


def check_quoting_enclave(identity: EnclaveIdentity, report: EnclaveReport) -> TcbEvaluation:
    """The level of the quoting enclave that made ``report``, which must be the one that ``identity`` describes.

    Raises ``not_genuine``: ``debug`` for an enclave whose memory its host can read, ``identity_mismatch``,
    ``unknown_status`` for one below every level, ``revoked``.
    """
    if report.flags & _DEBUG:
        raise NotGenuine("debug", "the quoting enclave runs in debug mode", stage=_STAGE)
    compared = (
        ("MRSIGNER", report.mrsigner, identity.mrsigner),
        ("ISVPRODID", report.isvprodid, identity.isvprodid),
        ("MISCSELECT", report.miscselect & identity.miscselect_mask, identity.miscselect),
        ("ATTRIBUTES", _masked(report.attributes, identity.attributes_mask), identity.attributes),
    )
    for name, found, expected in compared:
        if found != expected:
            raise NotGenuine(
                "identity_mismatch",
                f"the quoting enclave is not Intel's: its {name} is another",
                stage=_STAGE,
            )
    return judge(match_svn(identity.levels, report.isvsvn, what="quoting enclave"), what="quoting enclave")


def check_module(info: TcbInfo, seam: Seam) -> TcbEvaluation | None:
    """The level of the TDX module, which must be one that ``info`` describes; None for version 0, which has no levels.

    Raises ``not_genuine``: ``identity_mismatch`` for a version, signer or attributes that Intel does not list,
    ``unknown_status``, ``revoked``.
    """
    version = seam.tee_tcb_svn[1]
    identity = _of_version(info, version)
    if seam.mrsigner != identity.mrsigner:
        raise NotGenuine("identity_mismatch", "the TDX module is not signed by Intel", stage=_STAGE)
    masked = _masked(seam.attributes, identity.attributes_mask)
    if masked != identity.attributes or masked != seam.attributes:
        raise NotGenuine(
            "identity_mismatch", "the TDX module has other attributes than Intel's", stage=_STAGE
        )
    if version == 0:
        return None
    return judge(match_svn(identity.levels, seam.tee_tcb_svn[0], what="TDX module"), what="TDX module")


def _of_version(info: TcbInfo, version: int) -> ModuleIdentity:
    """The identity of TDX modules of ``version``."""
    identity = info.module if version == 0 else info.modules.get(version)
    if identity is None:
        raise NotGenuine(
            "identity_mismatch", "Intel's TCB info knows no TDX module of this version", stage=_STAGE
        )
    return identity


def check_running_module(info: TcbInfo, running: bytes) -> int | None:
    """The highest SVN that Intel has published for the version of the module that runs now (``running`` is TEE_TCB_SVN_2);
    None for version 0. Its own level must be known and not revoked, as that of the module at launch.
    """
    version = running[1]
    levels = _of_version(info, version).levels
    if version == 0:
        return None
    judge(match_svn(levels, running[0], what=_RUNNING), what=_RUNNING)
    return levels[0].isvsvn


def _masked(value: bytes, mask: bytes) -> bytes:
    # Both have the same length by their layouts; as numbers no byte can be left out.
    joined = int.from_bytes(value, "big") & int.from_bytes(mask, "big")
    return joined.to_bytes(len(value), "big")
