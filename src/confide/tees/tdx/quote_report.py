# SPDX-License-Identifier: Apache-2.0
"""dstack's file around a quote: JSON with ``quote`` (hexadecimal), ``event_log`` (its JSON list, as text), and other members.

The other members (report data, the machine's configuration) are signed by nobody, and dropped.
"""

from __future__ import annotations

from typing import Final

from confide.attestation.evidence import Endorsements, Evidence, EvidencePart
from confide.errors import MalformedError
from confide.wire import hexadecimal, strict_json

__all__ = ["read", "recognises"]

MAX_BYTES: Final = 1 << 20
_HEAD: Final = 64


def recognises(data: bytes) -> bool:
    """Whether ``data`` looks like such a file: an object with both members."""
    return data[:_HEAD].lstrip().startswith(b"{") and b'"quote"' in data and b'"event_log"' in data


def read(data: bytes) -> Evidence:
    """The quote, with the event log among its endorsements; ``malformed`` errors for what is no such file."""
    table = strict_json.decode(data, what="quote report", max_size=MAX_BYTES, max_depth=8)
    if not isinstance(table, dict):
        raise MalformedError("non_canonical", "a quote report is an object")
    text, log = table.get("quote"), table.get("event_log")
    if not isinstance(text, str) or not isinstance(log, str):
        raise MalformedError("non_canonical", "a quote report has its quote and its event log as text")
    quote = hexadecimal.decode(text, what="`quote` in the quote report")
    documents = (EvidencePart("event-log", log.encode()),) if log else ()
    return Evidence(EvidencePart("tdx", quote), endorsements=Endorsements(documents=documents))
