# SPDX-License-Identifier: Apache-2.0
"""The firmware's event log beside a quote: for which PCRs does its replay give what the TPM signed?

A log is an untrusted story. Where the replay of a PCR agrees, every digest in it is proven, and an event's text where its digest
is that of the text. PCRs that the operating system extends after boot (10 and above, mostly) do not agree with a firmware's
log, and that is no fault. Source: TCG PC Client Platform Firmware Profile, section 10.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from confide.errors import MalformedError
from confide.tees._tcg import log as tcg

if TYPE_CHECKING:
    from collections.abc import Mapping

    from confide.attestation.evidence import Endorsements
    from confide.tees._tcg.log import EventLog

__all__ = ["DOCUMENT", "BootLog", "of_a_tpm", "read_secure_boot", "replay"]

DOCUMENT: Final = "event-log"
MAX_LOGS: Final = 4
_POLICY_PCR: Final = 7
_VARIABLE: Final = 0x80000001  # EV_EFI_VARIABLE_DRIVER_CONFIG
_SEPARATOR: Final = 0x00000004
_GLOBAL: Final = "8be4df61-93ca-11d2-aa0d-00e098032b8c"


@dataclass(frozen=True, slots=True)
class BootLog:
    """A log replayed in one ``bank``: the PCRs that agree with the quote, and those that do not.

    ``secure_boot`` is what the firmware measured of the variable SecureBoot, None where the log does not prove it.
    """

    bank: str
    agrees: tuple[int, ...]
    differs: tuple[int, ...]
    secure_boot: bool | None
    events: int

    @property
    def summary(self) -> str:
        """One sentence for a person."""
        agreeing = ", ".join(map(str, self.agrees)) or "none"
        if not self.differs:
            return f"replay gives the quoted PCRs {agreeing} ({self.bank})"
        return f"replay gives PCRs {agreeing} ({self.bank}), and others than quoted for {', '.join(map(str, self.differs))}"


def replay(endorsements: Endorsements, pcrs: Mapping[str, Mapping[int, bytes]]) -> BootLog | None:
    """The log among the endorsements that explains most PCRs; None if there is none of a bank that was quoted.

    Raises MalformedError for a log that cannot be read. Logs that extend no register 0 are not of a TPM, but CCEL's of a TD or
    dstack's, and left alone.
    """
    documents = [one for one in endorsements.documents if one.format == DOCUMENT]
    if len(documents) > MAX_LOGS:
        raise MalformedError("limit_exceeded", f"more than {MAX_LOGS} event logs were given as endorsements")
    found: list[BootLog] = []
    for document in documents:
        log = tcg.read(document.data)
        if of_a_tpm(log):
            found += [_compare(log, bank, pcrs[bank]) for bank in log.strong if bank in pcrs]
    # Of equal ones that of SHA-256, the bank that a policy uses unless it names another.
    return max(
        found,
        key=lambda one: (len(one.agrees), -len(one.differs), one.bank == "sha256", one.bank),
        default=None,
    )


def of_a_tpm(log: EventLog) -> bool:
    """Whether a log is about PCRs: its firmware measures itself into PCR 0. In CCEL that place is MRTD's, which takes no events."""
    return log.form == "tcg" and any(event.index == 0 and event.extends for event in log.events)


def _compare(log: EventLog, bank: str, quoted: Mapping[int, bytes]) -> BootLog:
    values = {index: value for index, value in log.replay(bank).items() if index in quoted}
    agrees = tuple(i for i in sorted(values) if hmac.compare_digest(values[i], quoted[i]))
    return BootLog(
        bank,
        agrees,
        tuple(index for index in sorted(values) if index not in agrees),
        read_secure_boot(log) if _POLICY_PCR in agrees else None,
        len(log.events),
    )


def read_secure_boot(log: EventLog) -> bool | None:
    """The value of SecureBoot as the firmware measured it into PCR 7, None unless it is there exactly once, proven, first of all
    and before the separator that ends the firmware's own measurements. To be asked only where PCR 7 agrees with a quote.

    Types are not measured: a system that was booted without it could call the true event and the separator something else,
    extend the other value and another separator itself, and show those. Only what was extended first is out of its reach.
    """
    values: list[object] = []
    first = next((event for event in log.events if event.index == _POLICY_PCR and event.extends), None)
    # The first event must be the one that is counted below: under another type its own bytes, or a part of them, would prove it.
    if first is None or first.type != _VARIABLE or not first.covered or not _is_secure_boot(first.details()):
        return None
    for event in log.events:
        if event.index != _POLICY_PCR:
            continue
        if event.type == _SEPARATOR:
            break
        if event.type != _VARIABLE:
            continue
        details = event.details()
        if _is_secure_boot(details):
            values.append(details.get("variable_data") if event.covered else None)
    if len(values) != 1 or values[0] not in {"00", "01"}:
        return None
    return values[0] == "01"


def _is_secure_boot(details: Mapping[str, object]) -> bool:
    return details.get("unicode_name") == "SecureBoot" and details.get("variable_name") == _GLOBAL
