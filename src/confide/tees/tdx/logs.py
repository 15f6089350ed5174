# SPDX-License-Identifier: Apache-2.0
"""Event logs beside a TDX quote: they are stories, and count where their replay gives the RTMRs that the quote carries.

1. Logs of a TPM (they extend register 0, which is MRTD here and takes no events) are another device's, and left alone.
2. Every RTMR that has an event in a log must come out of its replay; so must no register that a TD does not have.
3. A dstack runtime event must have the digest that dstack computes of its type, name and payload.
4. ``event_log = "required"``: every RTMR that is not zero and not pinned must have been replayed by a log.
5. ``events``: RTMR3 must be told completely, by dstack runtime events with digests of their text alone. Otherwise a guest
   could show the event that is asked for, and pass another event of the same name off as bytes without a name.
"""

from __future__ import annotations

import functools
import hmac
from typing import TYPE_CHECKING, Final

from confide.attestation.result import unacceptable
from confide.errors import MalformedError
from confide.tees._tcg import events as events_of_boot
from confide.tees._tcg import log as event_log

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from confide.errors import Reason
    from confide.tees._tcg.events import Event
    from confide.tees._tcg.log import EventLog

__all__ = ["appraise", "describe", "of_this_td"]

MAX_LOGS: Final = 4
_RTMRS: Final = 4
_RTMR3: Final = 4  # As CCEL counts.


def of_this_td(documents: Sequence[bytes]) -> tuple[EventLog, ...]:
    """The logs among ``documents`` that are about RTMRs; ``malformed`` errors for a document that is no event log."""
    if len(documents) > MAX_LOGS:
        raise MalformedError("limit_exceeded", f"a quote comes with at most {MAX_LOGS} event logs")
    every = [_read(document) for document in documents]
    return tuple(log for log in every if not any(event.index == 0 and event.extends for event in log.events))


@functools.lru_cache(maxsize=MAX_LOGS)
def _read(document: bytes) -> EventLog:
    """A log, which is read once to be appraised and once to be described."""
    return event_log.read(document)


def appraise(
    documents: Sequence[bytes],
    rtmrs: Sequence[bytes],
    *,
    pinned: Sequence[bool],
    required: bool,
    events: Mapping[str, tuple[bytes, ...]],
) -> list[Reason]:
    """Every way in which the logs contradict the four ``rtmrs``, or fall short of what the policy asks of them."""
    found: list[Reason] = []
    logs = of_this_td(documents)
    told: dict[int, EventLog] = {}
    for log in logs:
        found += _contradictions(log, rtmrs, told)
    if required and not logs:
        found.append(
            _refused("the policy asks for an event log, and there is none", "give it with `--endorsements`")
        )
    elif required:
        found += [
            _refused(f"RTMR{number} is neither pinned nor told by an event log")
            for number in range(_RTMRS)
            if any(rtmrs[number]) and not pinned[number] and number not in told
        ]
    if events:
        found += _pins(told.get(_RTMR3 - 1), events)
    return found


def _contradictions(log: EventLog, rtmrs: Sequence[bytes], told: dict[int, EventLog]) -> list[Reason]:
    found: list[Reason] = []
    for number, value in log.rtmrs().items() if "sha384" in log.strong else ():
        if number >= _RTMRS:
            found.append(_refused("the event log has a register that a TD does not have"))
        elif hmac.compare_digest(value, rtmrs[number]):
            told[number] = log
        else:
            found.append(
                _refused(
                    f"the event log does not replay to RTMR{number}",
                    "an event is missing, was added or changed; or the log is of another boot",
                )
            )
    if "sha384" not in log.strong:
        found.append(_refused("the event log has no SHA-384 digests, which RTMRs are made of"))
    if any(event.type == events_of_boot.DSTACK_RUNTIME and not event.covered for event in log.events):
        found.append(_refused("a dstack event has another digest than that of its name and payload"))
    return found


def _pins(log: EventLog | None, wanted: Mapping[str, tuple[bytes, ...]]) -> list[Reason]:
    if log is None:
        return [
            _refused(
                "the policy names events of RTMR3, and no event log tells of it",
                "give dstack's event log with `--endorsements`",
            )
        ]
    inside = [event for event in log.events if event.index == _RTMR3]
    if not all(event.type == events_of_boot.DSTACK_RUNTIME and event.covered for event in inside):
        return [_refused("RTMR3 has events without a text, so that the named ones may not be all there are")]
    shown = [_named(event) for event in inside]
    found: list[Reason] = []
    for name, values in wanted.items():
        payloads = [payload for shown_name, payload in shown if shown_name == name.encode()]
        if not payloads:
            found.append(_refused(f"RTMR3 has no event `{name}`"))
        elif not all(payload in values for payload in payloads):
            found.append(_refused(f"an event `{name}` of RTMR3 is not one that the policy names"))
    return found


def _named(event: Event) -> tuple[bytes, bytes]:
    """Name and payload, cut at the first colon of what was hashed: that is the one cut which no other text can share."""
    name, _, payload = (event.name.encode() + b":" + event.data).partition(b":")
    return name, payload


def describe(documents: Sequence[bytes], rtmrs: Sequence[bytes]) -> list[dict[str, object]]:
    """For each log: which RTMRs its replay gives, and its events."""
    described: list[dict[str, object]] = []
    for log in of_this_td(documents):
        replayed = log.rtmrs() if "sha384" in log.strong else {}
        described.append(
            {
                "form": log.form,
                "replays": {
                    f"rtmr{number}": hmac.compare_digest(value, rtmrs[number])
                    for number, value in replayed.items()
                    if number < _RTMRS
                },
                **{f"event {number}": _brief(event) for number, event in enumerate(log.events, start=1)},
            }
        )
    return described


def _brief(event: Event) -> str:
    """Register, type and digest of an event in one line, and what is proven of its text.

    The rest is the sender's word, and does not belong among claims.
    """
    digest = event.digests["sha384"].hex() if "sha384" in event.digests else "no SHA-384 digest"
    return " ".join((f"rtmr{event.index - 1}", event.type_name, digest, *event.proven_line))


def _refused(message: str, hint: str = "") -> Reason:
    return unacceptable("measurement", message, hint=hint)
