# SPDX-License-Identifier: Apache-2.0
"""The broker's audit records, and how an owner checks that none is missing, changed or out of order.

The ledger of a broker is one hash chain over all owners' records. Each link is a leaf: SHA-512 over a random salt and the
record. An owner is shown his own records with their salts, and everybody else's only as leaves; so he can recompute the
whole chain without learning who else uses the broker or what for. Keeping the last head and length that he saw, he will
also notice a ledger that was cut short, or another one in its place. That none of his own is shown to him as somebody else's leaf
rests on the broker, which he has attested.

Specification: docs/spec/broker.md section 6.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from confide.errors import BrokerError, MalformedError
from confide.ledger import chain
from confide.wire import cbor
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["AuditedLedger", "Record", "blinded_leaf", "leaf_of", "read_entries"]

SALT_BYTES = 32
LEAF_BYTES = 64
MAX_BODY_BYTES = 128 * 1024
MAX_ENTRIES = 1024
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Record:
    """One state change or decision of the broker.

    ``at`` is Unix seconds of the host's clock, never going back. ``kind`` is one of ``put``, ``policy``, ``revoke``,
    ``release``, ``denied``, ``limited``, ``started``. ``owner`` is whose record it is: empty for the broker's own.
    ``rows`` names the rows that changed, by table, blinded id and digest of the sealed row.
    """

    seq: int
    at: int
    kind: str
    owner: bytes
    details: dict[str, Any]
    rows: tuple[tuple[str, bytes, bytes], ...]
    salt: bytes = field(repr=False)

    @property
    def body(self) -> bytes:
        """Deterministic CBOR of everything but the salt."""
        return cbor.encode(
            {
                "v": _VERSION,
                "seq": self.seq,
                "at": self.at,
                "kind": self.kind,
                "owner": self.owner,
                "details": self.details,
                "rows": [list(row) for row in self.rows],
            }
        )

    @classmethod
    def decode(cls, salt: object, body: object) -> Self:
        """Read a record; strict, so that one record has one encoding."""
        if not isinstance(salt, bytes) or len(salt) != SALT_BYTES or not isinstance(body, bytes):
            raise MalformedError("length_mismatch", "an audit record has no salt of 32 bytes")
        value = cbor.decode(body, what="audit record", max_size=MAX_BODY_BYTES)
        fields = Fields(value, "audit record")
        if fields.integer("v", 0, 2**32) != _VERSION:
            raise MalformedError("unsupported_version", "an audit record has an unknown version")
        rows = []
        for row in fields.list_("rows", 256):
            match row:
                case [str(table), bytes(identity), bytes(digest)]:
                    rows.append((table, identity, digest))
                case _:
                    raise MalformedError("non_canonical", "an audit record names a row in an unknown way")
        record = cls(
            seq=fields.integer("seq", 0, 2**53),
            at=fields.integer("at", 0, 2**53),
            kind=fields.text("kind", 16),
            owner=fields.bytes_("owner", max_length=32),
            details=fields.mapping("details"),
            rows=tuple(rows),
            salt=salt,
        )
        fields.end()
        return record


def blinded_leaf(salt: bytes, body: bytes) -> bytes:
    """``SHA-512("confide/broker/audit/1" || 0x00 || salt || body)``; the salt has 32 bytes."""
    return hashlib.sha512(b"confide/broker/audit/1\x00" + salt + body).digest()


def leaf_of(record: Record) -> bytes:
    """The leaf by which the chain holds a record."""
    return blinded_leaf(record.salt, record.body)


def read_entries(items: object) -> tuple[Record | bytes, ...]:
    """Read what the broker shows: own records as ``[salt, body]``, others' as their leaf of 64 bytes."""
    if not isinstance(items, list) or len(items) > MAX_ENTRIES:
        raise MalformedError("limit_exceeded", "the audit entries are not a list of at most 1024")
    entries: list[Record | bytes] = []
    for item in items:
        match item:
            case bytes(leaf) if len(leaf) == LEAF_BYTES:
                entries.append(leaf)
            case [bytes(salt), bytes(body)]:
                entries.append(Record.decode(salt, body))
            case _:
                raise MalformedError("non_canonical", "an audit entry is neither a record nor a leaf")
    return tuple(entries)


class AuditedLedger:
    """What an owner has checked so far of one broker's ledger: feed it pages, in order."""

    __slots__ = ("head", "length", "owner", "records")

    def __init__(self, owner: bytes, *, head: bytes = chain.GENESIS, length: int = 0) -> None:
        """Start at the beginning, or go on from a head and length that were checked before."""
        self.owner = owner
        self.head = head
        self.length = length
        self.records: list[Record] = []

    def feed(self, entries: Sequence[Record | bytes]) -> None:
        """Take the entries that follow; raises ``broker.integrity`` for a record out of its place or of another owner."""
        for entry in entries:
            if isinstance(entry, Record):
                if entry.seq != self.length:
                    raise BrokerError("integrity", "an audit record is not in its place")
                if entry.owner not in {self.owner, b""}:
                    raise BrokerError("integrity", "an audit record belongs to another owner")
                self.records.append(entry)
                self.head = chain.link(self.head, leaf_of(entry))
            else:
                self.head = chain.link(self.head, entry)
            self.length += 1

    def finish(self, *, head: bytes, length: int) -> None:
        """Compare with the head and length that the broker states; raises ``broker.rollback`` for a shorter ledger than
        the one already seen, ``broker.integrity`` for a different one.
        """
        if length < self.length:
            raise BrokerError(
                "rollback",
                "the broker's ledger is shorter than it was",
                hint="the broker was restarted from an older copy of its database; releases since then are not recorded",
            )
        if length != self.length or not hmac.compare_digest(head, self.head):
            raise BrokerError(
                "integrity",
                "the audit records do not lead to the head that the broker states",
                hint="records are missing, changed or out of order; keep what you received as evidence",
            )
