# SPDX-License-Identifier: Apache-2.0
"""dstack's event log: a JSON list of {imr, event_type, digest, event, event_payload}, where imr 0 is RTMR0.

For events that dstack's own runtime extends into RTMR3 (type 0x08000001) the digest is
SHA-384(event_type, 4 bytes little-endian || ":" || event || ":" || event_payload). Source: dstack, cc-eventlog. A name or
payload with a colon can be cut in two ways with the same digest, so that readers must cut at the first one.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from confide.errors import MalformedError
from confide.tees._tcg import events
from confide.wire import strict_json
from confide.wire.fields import Fields
from confide.wire.hexadecimal import decode as unhex

if TYPE_CHECKING:
    from confide.tees._tcg.events import Event

__all__ = ["encode", "read", "recognises"]

_RTMRS: Final = 4
_DIGEST: Final = 48
_MAX_NAME: Final = 256
_MAX_PAYLOAD: Final = 64 * 1024


def recognises(data: bytes) -> bool:
    """Whether ``data`` begins like a JSON list of objects that have an ``imr``."""
    head = data[:512].lstrip()
    return head.startswith(b"[") and head[1:].lstrip().startswith(b"{") and b'"imr"' in head


def read(data: bytes, *, max_size: int, max_events: int) -> tuple[Event, ...]:
    """The events of the list. Raises ``malformed`` errors."""
    rows = strict_json.decode(data, what="dstack event log", max_size=max_size, max_depth=4)
    if not isinstance(rows, list):
        raise MalformedError("non_canonical", "a dstack event log is a list")
    if len(rows) > max_events:
        raise MalformedError("limit_exceeded", f"an event log has at most {max_events} events")
    return tuple(_event(row) for row in rows)


def _event(row: Any) -> Event:
    fields = Fields(row, "dstack event")
    imr = fields.integer("imr", 0, _RTMRS - 1)
    kind = fields.integer("event_type", 0, (1 << 32) - 1)
    digest = unhex(fields.text("digest", 2 * _DIGEST), what="dstack event digest", length=_DIGEST)
    name = fields.text("event", _MAX_NAME)
    payload = unhex(fields.text("event_payload", 2 * _MAX_PAYLOAD), what="dstack event payload")
    fields.end()
    return events.Event(imr + 1, kind, MappingProxyType({"sha384": digest}), payload, name)


def encode(log: tuple[Event, ...]) -> bytes:
    """The list of these events, as dstack writes it."""
    return strict_json.encode(
        [
            {
                "imr": event.index - 1,
                "event_type": event.type,
                "digest": event.digests["sha384"].hex(),
                "event": event.name,
                "event_payload": event.data.hex(),
            }
            for event in log
        ]
    )
