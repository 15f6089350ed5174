# SPDX-License-Identifier: Apache-2.0
"""Which TCB level a platform is at, and what Intel says of that level.

Source: Intel, "API for Provisioning Certification Service", TCB Info V3, "how to determine the TCB status"; where the page
leaves a question open (the order of levels, TDX components of versioned modules, relaunch), Intel's own Quote Verification
Library decides (TcbLevelCheck, TdxModuleCheck, TDRelaunchCheck).
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import ge
from typing import TYPE_CHECKING, Final

from confide.errors import NotGenuine

if TYPE_CHECKING:
    from datetime import datetime

__all__ = [
    "COMPONENTS",
    "STATUSES",
    "PlatformLevel",
    "SvnLevel",
    "TcbEvaluation",
    "judge",
    "match_platform",
    "match_svn",
    "merge",
    "old_module_alone",
    "relaunch",
]

COMPONENTS: Final = 16

UP_TO_DATE: Final = "UpToDate"
OUT_OF_DATE: Final = "OutOfDate"
REVOKED: Final = "Revoked"
CONFIGURATION_NEEDED: Final = "ConfigurationNeeded"
OUT_OF_DATE_CONFIGURATION_NEEDED: Final = "OutOfDateConfigurationNeeded"
SW_HARDENING_NEEDED: Final = "SWHardeningNeeded"
CONFIGURATION_AND_SW_HARDENING_NEEDED: Final = "ConfigurationAndSWHardeningNeeded"
TD_RELAUNCH_ADVISED: Final = "TDRelaunchAdvised"
TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED: Final = "TDRelaunchAdvisedConfigurationNeeded"

# What Intel writes into TCB info; the last two words of STATUSES only come from comparing it with a TD's report.
_PUBLISHED: Final = frozenset(
    {
        UP_TO_DATE,
        OUT_OF_DATE,
        REVOKED,
        CONFIGURATION_NEEDED,
        OUT_OF_DATE_CONFIGURATION_NEEDED,
        SW_HARDENING_NEEDED,
        CONFIGURATION_AND_SW_HARDENING_NEEDED,
    }
)
STATUSES: Final = _PUBLISHED | {TD_RELAUNCH_ADVISED, TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED}
"""Every word that ``tcb_status`` of the details can be, but for ``Revoked``, which is refused."""

_NEEDS_CONFIGURATION: Final = frozenset(
    {
        CONFIGURATION_NEEDED,
        OUT_OF_DATE_CONFIGURATION_NEEDED,
        CONFIGURATION_AND_SW_HARDENING_NEEDED,
        TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED,
    }
)


@dataclass(frozen=True, slots=True)
class TcbEvaluation:
    """What Intel says of one part (platform, quoting enclave, TDX module): status word, date of the level, advisories."""

    status: str
    date: datetime
    advisory_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PlatformLevel:
    """One entry of ``tcbLevels`` in TCB info; ``tdx_components`` is empty for SGX. Components have 16 SVNs each, 0 to 255."""

    sgx_components: tuple[int, ...]
    pcesvn: int
    tdx_components: tuple[int, ...]
    evaluation: TcbEvaluation

    @property
    def order(self) -> tuple[tuple[int, ...], int, tuple[int, ...]]:
        """What Intel's library sorts levels by, highest first."""
        return self.sgx_components, self.pcesvn, self.tdx_components


@dataclass(frozen=True, slots=True)
class SvnLevel:
    """One TCB level of a quoting enclave or a TDX module: it is met from ``isvsvn`` on."""

    isvsvn: int
    evaluation: TcbEvaluation


def match_platform(
    levels: tuple[PlatformLevel, ...], *, cpusvn: tuple[int, ...], pcesvn: int, tee_tcb_svn: bytes | None
) -> tuple[PlatformLevel, PlatformLevel]:
    """The levels that a platform meets by its certificate alone, and with its TDX components (twice the same for SGX).

    ``levels`` are sorted, highest first; ``cpusvn`` are the 16 components of the certificate, ``tee_tcb_svn`` 16 bytes or
    None for SGX. A level is met if every component is as high or higher. Raises ``not_genuine.unknown_status`` if none is.
    """
    by_certificate: PlatformLevel | None = None
    # Modules from version 1 on have levels of their own, so that the first two components do not speak of them.
    first = 2 if tee_tcb_svn is not None and tee_tcb_svn[1] > 0 else 0
    for level in levels:
        if pcesvn < level.pcesvn or not _meets(cpusvn, level.sgx_components):
            continue
        if by_certificate is None:
            by_certificate = level
        if tee_tcb_svn is None or _meets(tuple(tee_tcb_svn[first:]), level.tdx_components[first:]):
            return by_certificate, level
    raise NotGenuine(
        "unknown_status",
        "the platform is below every TCB level that Intel has published for it",
        hint="its firmware is older than anything Intel supports: the host must be updated",
        stage="tcb",
    )


def _meets(svns: tuple[int, ...], least: tuple[int, ...]) -> bool:
    # Lists of different lengths are never compared: what the shorter one leaves out would go unjudged.
    return len(svns) == len(least) and all(map(ge, svns, least))


def match_svn(levels: tuple[SvnLevel, ...], svn: int, *, what: str) -> TcbEvaluation:
    """The evaluation of the highest level that ``svn`` meets; ``levels`` are sorted, highest first.

    Raises ``not_genuine.unknown_status`` if none is met.
    """
    for level in levels:
        if svn >= level.isvsvn:
            return level.evaluation
    raise NotGenuine(
        "unknown_status", f"the {what} is below every level that Intel has published for it", stage="tcb"
    )


def judge(evaluation: TcbEvaluation, *, what: str) -> TcbEvaluation:
    """The evaluation itself, unless it is ``Revoked`` or a word that Intel has not documented: no policy admits those."""
    if evaluation.status == REVOKED:
        raise NotGenuine("revoked", f"Intel has revoked the TCB level of the {what}", stage="tcb")
    if evaluation.status not in _PUBLISHED:
        raise NotGenuine(
            "unknown_status", f"the TCB status of the {what} is not a word of Intel's", stage="tcb"
        )
    return evaluation


def merge(platform: str, part: str | None) -> str:
    """The platform's status with that of its quoting enclave or module: an old part makes the whole old."""
    if part is None or part == UP_TO_DATE:
        return platform
    if part == OUT_OF_DATE:
        if platform in {UP_TO_DATE, SW_HARDENING_NEEDED}:
            return OUT_OF_DATE
        if platform in {CONFIGURATION_NEEDED, CONFIGURATION_AND_SW_HARDENING_NEEDED}:
            return OUT_OF_DATE_CONFIGURATION_NEEDED
        return platform
    raise NotGenuine(
        "unknown_status", "an enclave or a module has a TCB status that only a platform can have", stage="tcb"
    )


def old_module_alone(merged: str, *, by_certificate: str, module: str | None) -> bool:
    """Whether nothing of a platform is old but the TDX module that a TD was launched with (``merged`` is both together)."""
    current = {UP_TO_DATE, SW_HARDENING_NEEDED, CONFIGURATION_NEEDED, CONFIGURATION_AND_SW_HARDENING_NEEDED}
    old = {OUT_OF_DATE, OUT_OF_DATE_CONFIGURATION_NEEDED}
    return by_certificate in current and module == OUT_OF_DATE and merged in old


def relaunch(
    merged: str, *, by_certificate: str, running: bytes, newest: PlatformLevel, newest_module_svn: int
) -> str:
    """The status of a TD 1.5 whose module was updated while it ran: launching it again may be all it lacks.

    To be asked where ``old_module_alone`` and the quoting enclave is up to date. ``running`` is TEE_TCB_SVN_2, the TCB of the
    module that runs now, ``newest`` the highest level, ``newest_module_svn`` the highest SVN of that module's version.
    """
    if running[0] < newest_module_svn or running[2] < newest.tdx_components[2]:
        return merged
    if by_certificate in _NEEDS_CONFIGURATION or merged in _NEEDS_CONFIGURATION:
        return TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED
    return TD_RELAUNCH_ADVISED
