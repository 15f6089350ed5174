# SPDX-License-Identifier: Apache-2.0
"""What policies ask of every Intel platform, TDX or SGX: its TCB, and which machine it is.

These keys stand in `[reference.tdx]` and in `[reference.sgx]`:

min_tcb_date = "2025-05-14"                # no part of the TCB may be of a level older than this
deny_advisories = ["INTEL-SA-01036"]       # refused where Intel names one of them for this platform's level
fmspcs = ["<12 hex digits>"]               # only these kinds of platform
ppids = ["<32 hex digits>"]                # only these machines, by the platform's provisioning id

`tcb_status` and `min_tcb_evaluation` are keys of the whole policy. Source: Intel, "API for Provisioning Certification
Service", TCB Info V3.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Final, Protocol

from confide.attestation.policy import digests
from confide.attestation.result import unacceptable
from confide.errors import ConfigurationError

if TYPE_CHECKING:
    from confide.attestation.policy import AppraisalPolicy
    from confide.errors import Reason
    from confide.tees._dcap import tcb
    from confide.wire.fields import Fields

__all__ = ["PlatformFacts", "PlatformReference", "appraise", "describe", "hardware", "parse_reference"]

_ADVISORY: Final = re.compile(r"[A-Z]{2,16}(-[A-Z0-9]{1,16}){1,4}", re.ASCII)
_MAX_ADVISORIES: Final = 1024
# A relaunch would bring these TDs up to date, so that they are no worse than the word that admits them.
_NO_WORSE_THAN: Final = {
    "TDRelaunchAdvised": "OutOfDate",
    "TDRelaunchAdvisedConfigurationNeeded": "OutOfDateConfigurationNeeded",
}
_OLD: Final = frozenset({"OutOfDate", "OutOfDateConfigurationNeeded", *_NO_WORSE_THAN})


class PlatformFacts(Protocol):
    """The part of a quote's authenticated facts that is about the platform; TDX and SGX have it in common."""

    @property
    def fmspc(self) -> bytes: ...
    @property
    def pceid(self) -> bytes: ...
    @property
    def ppid(self) -> bytes: ...
    @property
    def platform(self) -> tcb.TcbEvaluation: ...
    @property
    def qe(self) -> tcb.TcbEvaluation: ...
    @property
    def tcb_status(self) -> str: ...
    @property
    def tcb_date(self) -> datetime: ...
    @property
    def advisory_ids(self) -> tuple[str, ...]: ...
    @property
    def tcb_evaluation_data_number(self) -> int: ...
    @property
    def qe_evaluation_data_number(self) -> int: ...


@dataclass(frozen=True, slots=True)
class PlatformReference:
    """The parsed keys; None where nothing is asked for."""

    min_tcb_date: date | None
    deny_advisories: tuple[str, ...]
    fmspcs: tuple[bytes, ...] | None
    ppids: tuple[bytes, ...] | None


def parse_reference(fields: Fields) -> PlatformReference:
    """The common keys of a table; ``configuration.invalid`` for what is written wrongly."""
    text = fields.text("min_tcb_date", 10, default=None)
    denied = fields.list_("deny_advisories", _MAX_ADVISORIES, default=[])
    if not all(isinstance(word, str) and _ADVISORY.fullmatch(word) for word in denied):
        raise ConfigurationError(
            "invalid",
            "`deny_advisories` has a value that is no advisory id",
            hint="write INTEL-SA-00000, as Intel does",
        )
    return PlatformReference(
        min_tcb_date=None if text is None else _date(text),
        deny_advisories=tuple(denied),
        fmspcs=digests(fields, "fmspcs", 6, default=None),
        ppids=digests(fields, "ppids", 16, default=None),
    )


def _date(text: str) -> date:
    try:
        if len(text) == 10:
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise ConfigurationError("invalid", "`min_tcb_date` is not a date", hint='write it like "2025-05-14"')


def appraise(facts: PlatformFacts, wanted: PlatformReference, policy: AppraisalPolicy) -> list[Reason]:
    """Every way in which the platform differs from what the policy wants."""
    found: list[Reason] = []

    def refuse(leaf: str, message: str, hint: str = "", stage: str = "tcb") -> None:
        found.append(unacceptable(leaf, message, hint=hint, stage=stage))

    status = facts.tcb_status
    if status not in policy.tcb_status and _NO_WORSE_THAN.get(status) not in policy.tcb_status:
        refuse(
            "out_of_date" if status in _OLD else "tcb_status",
            f"Intel's status of this platform is {status} (TCB level of {facts.tcb_date.date().isoformat()}"
            f"{_named(facts.advisory_ids)}); the policy admits {', '.join(policy.tcb_status)}",
            "launch the TD again on this host"
            if status in _NO_WORSE_THAN
            else "update the host's firmware and microcode; if you accept the risk of these advisories, "
            f'write `tcb_status = ["UpToDate", "{status}"]`',
        )
    floor = policy.min_tcb_evaluation
    if floor is not None and min(facts.tcb_evaluation_data_number, facts.qe_evaluation_data_number) < floor:
        refuse(
            "below_minimum",
            f"the collateral is of tcbEvaluationDataNumber {facts.tcb_evaluation_data_number} (quoting enclave:"
            f" {facts.qe_evaluation_data_number}), below the policy's floor of {floor}",
            "fetch newer collateral with `confide endorse`",
        )
    if wanted.min_tcb_date is not None and facts.tcb_date.date() < wanted.min_tcb_date:
        refuse(
            "below_minimum",
            f"the platform's TCB level is of {facts.tcb_date.date().isoformat()}, older than the policy's floor",
            "update the host's firmware and microcode",
        )
    if denied := [name for name in facts.advisory_ids if name in wanted.deny_advisories]:
        refuse(
            "advisory_denied",
            f"the policy denies platforms that are open to {', '.join(denied)}",
            "update the host's firmware and microcode",
        )
    if wanted.fmspcs is not None and facts.fmspc not in wanted.fmspcs:
        refuse("identity", "the platform's kind (FMSPC) is not one that the policy names", stage="policy")
    if wanted.ppids is not None and facts.ppid not in wanted.ppids:
        refuse("identity", "the machine (PPID) is not one that the policy names", stage="policy")
    return found


def _named(advisories: tuple[str, ...]) -> str:
    return f"; advisories {', '.join(advisories)}" if advisories else "; no advisories"


def hardware(status: str) -> int:
    """EAR's claim for the hardware at one TCB status: genuine, or genuine with known vulnerabilities."""
    return 2 if status == "UpToDate" else 32


def describe(facts: PlatformFacts) -> dict[str, object]:
    """The platform's facts as JSON values, by Intel's names."""
    return {
        "fmspc": facts.fmspc.hex(),
        "pceid": facts.pceid.hex(),
        "ppid": facts.ppid.hex(),
        "tcb_status": facts.tcb_status,
        "tcb_date": facts.tcb_date.isoformat(),
        "advisory_ids": list(facts.advisory_ids),
        "platform_tcb": evaluation(facts.platform),
        "qe_tcb": evaluation(facts.qe),
        "tcb_evaluation_data_number": facts.tcb_evaluation_data_number,
        "qe_evaluation_data_number": facts.qe_evaluation_data_number,
    }


def evaluation(part: tcb.TcbEvaluation) -> dict[str, object]:
    """What Intel says of one part of the platform."""
    return {
        "status": part.status,
        "date": part.date.isoformat(),
        "advisory_ids": list(part.advisory_ids),
    }
