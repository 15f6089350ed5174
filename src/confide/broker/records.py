# SPDX-License-Identifier: Apache-2.0
"""The records of the broker's ledger on the disk: sealed, each in its place, chained by a blinded leaf.

A leaf is the digest of a record with a random salt, so that an owner who audits the chain sees the records that concern
him in full and of all others only the leaf, from which nothing can be guessed. ``confide.keys.audit`` checks what the
broker shows; this module only seals and opens what the broker keeps.

Specification: docs/spec/broker.md section 5.
"""

from __future__ import annotations

from confide.crypto.aead import Aead
from confide.errors import MalformedError
from confide.keys.audit import Record, leaf_of
from confide.wire import cbor

__all__ = ["Record", "leaf_of", "open_record", "seal_record"]

NONCE_BYTES = 12


def seal_record(record: Record, key: bytes, store: bytes, *, nonce: bytes) -> bytes:
    """Seal a record for its place (its number) in this store; a fresh random nonce of 12 bytes each time."""
    plaintext = cbor.encode([record.salt, record.body])
    return nonce + Aead(key).seal(nonce, plaintext, _place(store, record.seq))


def open_record(sealed: bytes, key: bytes, store: bytes, *, seq: int) -> Record:
    """Open a record that is said to be number ``seq``; raises a ConfideError if it is not exactly that."""
    plaintext = Aead(key).open(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], _place(store, seq))
    value = cbor.decode(plaintext, what="ledger record", max_size=1 << 20)
    if not isinstance(value, list) or len(value) != 2:
        raise MalformedError("non_canonical", "a ledger record is not a pair")
    record = Record.decode(value[0], value[1])
    if record.seq != seq:
        raise MalformedError("non_canonical", "a ledger record has another number than its place")
    return record


def _place(store: bytes, seq: int) -> bytes:
    return cbor.encode(["ledger", store, seq])
