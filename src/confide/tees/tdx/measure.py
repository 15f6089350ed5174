# SPDX-License-Identifier: Apache-2.0
"""Predict the registers of a TDX guest, as far as that can be done without its hardware.

RTMRs are chains of SHA-384 over the digests of events: they follow from an event log that somebody vouches for, or from a
list of events. MRTD depends on the order in which a hypervisor adds the pages of a firmware image; it is not computed here,
because no image with a known MRTD was there to prove the computation with. It comes from whoever publishes the image, as a
table of releases for example. Source: Intel, "TDX Module Base Architecture Specification", TDG.MR.RTMR.EXTEND.
"""

from __future__ import annotations

import csv
import hashlib
import io
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from confide.attestation.reference import ReferenceValues
from confide.errors import ConfigurationError, MalformedError
from confide.tees._tcg import events, log
from confide.wire import hexadecimal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["dstack_digest", "extend", "from_event_log", "published", "replay"]

REGISTER_BYTES: Final = 48
REGISTERS: Final = ("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3")
MAX_TABLE: Final = 4 << 20
MAX_ROWS: Final = 20_000
_MAX_COLUMNS: Final = 64


def extend(register: bytes, digest: bytes) -> bytes:
    """An RTMR of 48 bytes after it was extended by a SHA-384 digest: SHA-384(register || digest)."""
    if len(register) != REGISTER_BYTES or len(digest) != REGISTER_BYTES:
        raise ConfigurationError("register", "registers and digests are exactly 48 bytes")
    return hashlib.sha384(register + digest).digest()


def replay(digests: Iterable[bytes], *, start: bytes = bytes(REGISTER_BYTES)) -> bytes:
    """An RTMR after all of these digests, one after another; registers start as zeros."""
    register = start
    for digest in digests:
        register = extend(register, digest)
    return register


def dstack_digest(name: str, payload: bytes) -> bytes:
    """The digest by which dstack extends RTMR3 for one of its events; see ``tees/_tcg/dstack.py``."""
    text = events.DSTACK_RUNTIME.to_bytes(4, "little") + b":" + name.encode() + b":" + payload
    return hashlib.sha384(text).digest()


def from_event_log(data: bytes, *, origin: str) -> ReferenceValues:
    """The RTMRs to which a log of a boot replays, for a boot that you trust: the log itself proves nothing.

    Raises ``malformed`` errors for what is no log of RTMRs.
    """
    read = log.read(data)
    if "sha384" not in read.strong or any(event.extends and event.index == 0 for event in read.events):
        raise MalformedError("unknown_format", "the event log is a TPM's, and tells nothing about RTMRs")
    registers = read.rtmrs()
    if not registers or max(registers) > 3:
        raise MalformedError("non_canonical", "the event log has no register of a TD, or one that no TD has")
    return ReferenceValues(
        "tdx", {f"rtmr{number}": (value,) for number, value in sorted(registers.items())}, origin
    )


def published(
    table: bytes, *, origin: str, where: Mapping[str, str] = MappingProxyType({})
) -> ReferenceValues:
    """Registers from a table of releases in CSV, whose head names columns ``mrtd``, ``rtmr0`` and so on in hexadecimal.

    ``where`` selects rows by the exact text of other columns, such as ``{"artifacts_ver": "v0.0.25"}``. A policy made of
    several rows admits every mixture of them, so select as few as you run. Raises ``malformed`` for what is no such table,
    ``configuration.invalid`` where no row is left or a column is not there.
    """
    if len(table) > MAX_TABLE:
        raise MalformedError("limit_exceeded", f"a table of releases has at most {MAX_TABLE >> 20} MiB")
    rows = _rows(table)
    head = rows[0]
    columns = [name for name in REGISTERS if name in head]
    if "mrtd" not in columns or len(set(head)) != len(head):
        raise MalformedError("non_canonical", "the table of releases has no column `mrtd`, or a column twice")
    if not where.keys() <= set(head):
        raise ConfigurationError("invalid", "the table of releases has no column of this name")
    found: dict[str, dict[bytes, None]] = {name: {} for name in columns}
    for row in rows[1:]:
        values = dict(zip(head, row, strict=True))
        if any(values[name] != text for name, text in where.items()):
            continue
        for name in columns:
            value = hexadecimal.decode(
                values[name], what=f"`{name}` in the table of releases", length=REGISTER_BYTES
            )
            found[name][value] = None
    if not found["mrtd"]:
        raise ConfigurationError("invalid", "no row of the table of releases is selected")
    return ReferenceValues("tdx", {name: tuple(values) for name, values in found.items()}, origin)


def _rows(table: bytes) -> list[list[str]]:
    rows: list[list[str]] = []
    refusal = ""
    try:
        for row in csv.reader(io.StringIO(table.decode("utf-8"), newline=""), strict=True):
            if len(rows) > MAX_ROWS or len(row) > _MAX_COLUMNS:
                refusal = "is too large"
                break
            if row:
                rows.append(row)
    except (UnicodeDecodeError, csv.Error):
        refusal = "is not CSV in UTF-8"
    if not refusal and (not rows or any(len(row) != len(rows[0]) for row in rows)):
        refusal = "is empty, or has a row of another length than its head"
    if refusal:
        raise MalformedError("non_canonical", f"the table of releases {refusal}")
    return rows
