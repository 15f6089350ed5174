# SPDX-License-Identifier: Apache-2.0
"""The broker's database: SQLite on a disk that the operator owns, and that is therefore believed in nothing.

What makes it safe to read:

1. Every row is sealed (AES-256-GCM) under a key of its own that is derived from the root key, the table, the row's id
   and the number of the ledger record that wrote it. Ids are HMACs, so the disk shows neither names nor owners.
2. Every state change appends one sealed record to a hash chain. The record holds the digests of the rows that it wrote.
3. The chain's head and length, and the digest of every live row, are kept in the memory of the enclave. Each transaction
   first compares the schema and the end of the ledger on disk with them, and each row that it reads.

So an edited, swapped, planted or deleted row is `broker.integrity`, and an older copy of a row or of the whole file is
`broker.rollback`. Rows are never deleted: what has been revoked stays as its revocation, so that nothing that is missing
can be taken for something that never was.

Memory does not survive a restart. A store that was not made by this very process is ``anchored = False``: its ledger and
rows are consistent with one another, but the file as a whole might be last week's. Whoever releases keys must refuse then.

Specification: docs/spec/broker.md section 5.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import sqlite3
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from confide.broker.database import (
    APPLICATION_ID,
    READ_ROW,
    READ_ROWS,
    SCHEMA,
    SCHEMA_VERSION,
    TABLES,
    WRITE_ROW,
    connect,
    integrity,
    mapped_errors,
    rollback,
)
from confide.broker.records import Record, leaf_of, open_record, seal_record
from confide.crypto import kdf
from confide.crypto.aead import Aead, AuthenticationFailed
from confide.errors import BrokerError, ConfideError, EnclaveError
from confide.ledger import chain
from confide.wire import cbor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from confide.crypto.secret import Secret

__all__ = ["CHECKPOINT_EVERY", "TABLES", "Store", "Transaction"]

CHECKPOINT_EVERY = 256
MAX_ROW_BYTES = 256 * 1024
NONCE_BYTES = 12


@dataclass(frozen=True, slots=True)
class _Row:
    seq: int
    digest: bytes
    owner: bytes


class Store:
    """One database file and what memory knows of it. Thread-safe: one transaction at a time.

    ``anchored`` says whether memory has seen every change since the store was made. ``name`` is the store's random name
    (16 bytes), which owners' statements are signed for. ``head`` (64 bytes) and ``length`` are the ledger's.
    """

    def __init__(
        self,
        path: Path,
        root: Secret,
        *,
        clock: Callable[[], int],
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """Open the store at ``path``, or make it where nothing is.

        ``clock`` gives Unix seconds and is the host's word; records never go back in time, whatever it says.
        Raises ``broker.integrity`` for a file that is not a whole, consistent store under this root key, and
        ``sealing.storage_io`` or ``sealing.storage_full`` for what the disk does.
        """
        self._path = path
        self._clock = clock
        self._random = random
        self._root = root
        self._lock = threading.RLock()
        self._index: dict[tuple[str, bytes], _Row] = {}
        self._heads: list[bytes] = []
        self._tail = b""
        self._pending: tuple[Record, bytes] | None = None
        self._closed = False
        self.head = chain.GENESIS
        self.length = 0
        self.floor = 0
        with mapped_errors():
            self._connection, self._identity, fresh = connect(path)
            try:
                if fresh:
                    self._create()
                else:
                    self._load()
            except BaseException:
                self._connection.close()
                raise
        self.anchored = fresh

    # -- making and loading

    def _create(self) -> None:
        self.name = self._random(16)
        self._derive()
        self._connection.execute("BEGIN IMMEDIATE")
        for statement in SCHEMA:
            self._connection.execute(statement)
        self._connection.execute(
            "INSERT INTO meta (id, store, seal) VALUES (1, ?, ?)", (self.name, self._meta_seal())
        )
        self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self._connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        self._connection.execute("COMMIT")

    def _derive(self) -> None:
        def key(purpose: str) -> bytes:
            info = b"confide/broker/store/1\x00" + purpose.encode("ascii")
            return kdf.hkdf(self._root, salt=self.name, info=info, length=32)

        self._row_key = key("rows")
        self._id_key = key("ids")
        self._ledger_key = key("ledger")
        self._meta_key = key("meta")

    def _meta_seal(self) -> bytes:
        return hmac.digest(self._meta_key, cbor.encode([SCHEMA_VERSION, self.name]), "sha256")

    def _load(self) -> None:
        """Believe the file only as a whole: schema, name, every ledger record in its chain, and exactly the rows that the
        ledger says are there.
        """
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            self._check_schema()
            meta = self._connection.execute("SELECT store, seal FROM meta").fetchall()
            if len(meta) != 1 or not all(isinstance(x, bytes) for x in meta[0]) or len(meta[0][0]) != 16:
                raise integrity("the database does not say which store it is")
            self.name, seal = meta[0]
            self._derive()
            if not hmac.compare_digest(self._meta_seal(), seal):
                raise integrity("the database belongs to another broker, or its name was changed")
            for number, (seq, sealed) in enumerate(
                self._connection.execute("SELECT seq, sealed FROM ledger ORDER BY seq")
            ):
                if seq != number:
                    raise integrity("a record of the ledger is missing")
                self._advance(self._open_record(seq, sealed), sealed)
            found = 0
            for table in TABLES:
                for identity, seq, sealed in self._connection.execute(READ_ROWS[table]):
                    self._open_row(table, identity, (seq, sealed))
                    found += 1
            if found != len(self._index):
                raise integrity("a row that the ledger names is missing")
        finally:
            self._connection.execute("ROLLBACK")

    # -- transactions

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """One serialised look at the store, checked against memory first.

        What ``record`` was given is durable (fsync) when the block has been left without an exception; otherwise nothing
        was changed. Raises ``broker.integrity``, ``broker.rollback``, ``sealing.storage_full`` or ``sealing.storage_io``.
        """
        with self._lock:
            if self._closed:
                raise EnclaveError("bad_state", "the store is closed", hint="start the broker again")
            if self._busy():
                raise EnclaveError("bad_state", "the store has one transaction at a time")
            with mapped_errors():
                self._connection.execute("BEGIN IMMEDIATE")
            transaction = Transaction(self)
            try:
                with mapped_errors():
                    self._check()
                yield transaction
                transaction.done = True
                if transaction.event is not None:
                    with mapped_errors():
                        self._commit(transaction)
                transaction.length = self.length
            finally:
                transaction.done = True
                if self._busy():
                    with mapped_errors():
                        self._connection.execute("ROLLBACK")

    def _busy(self) -> bool:
        return self._connection.in_transaction

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Keep every other transaction out, across several of one's own and what is done between them."""
        with self._lock:
            yield

    def close(self) -> None:
        """Close the database. Idempotent; a transaction begun afterwards is refused."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._connection.close()

    def _check(self) -> None:
        try:
            current = self._path.lstat()
        except FileNotFoundError as error:
            raise rollback("the database file was taken away while the broker was running") from error
        if (current.st_dev, current.st_ino) != self._identity:
            raise rollback("the database file was replaced while the broker was running")
        self._check_schema()
        tail = self._connection.execute("SELECT seq, sealed FROM ledger ORDER BY seq DESC LIMIT 1").fetchone()
        # Numbers are contiguous in what this broker writes, so the last one is the length; whoever removed an earlier
        # record is found when the records are read.
        count = 0 if tail is None else tail[0] + 1
        pending, self._pending = self._pending, None
        if pending is not None and tail == (self.length, pending[1]) and count == self.length + 1:
            # A commit whose outcome the disk would not tell has happened after all.
            self._advance(*pending)
            return
        if count < self.length:
            raise rollback("the ledger on disk is shorter than the one in memory")
        if count > self.length:
            raise integrity("the ledger on disk has records that this broker did not write")
        if tail is None:
            return
        if not isinstance(tail[1], bytes) or not hmac.compare_digest(
            hashlib.sha256(tail[1]).digest(), self._tail
        ):
            raise integrity("the last record of the ledger was changed")

    def _check_schema(self) -> None:
        # Triggers and views would be the operator's code in the middle of our transactions.
        schema = [
            sql
            for kind, sql in self._connection.execute("SELECT type, sql FROM sqlite_master ORDER BY rowid")
            if not (kind == "index" and sql is None)
        ]
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise integrity("the database has a newer schema than this broker knows")
        if version != SCHEMA_VERSION or schema != list(SCHEMA):
            raise integrity("the schema of the database was changed")

    def _commit(self, transaction: Transaction) -> None:
        seq = self.length
        rows = []
        for (table, identity), plaintext in transaction.staged.items():
            sealed = self._seal_row(table, identity, seq, plaintext)
            rows.append((table, identity, hashlib.sha256(sealed).digest()))
            self._connection.execute(WRITE_ROW[table], (identity, seq, sealed))
        kind, owner, details = transaction.event or ("", b"", {})
        record = Record(
            seq=seq,
            at=max(self._clock(), self.floor),
            kind=kind,
            owner=owner,
            details=details,
            rows=tuple(rows),
            salt=self._random(32),
        )
        sealed = seal_record(record, self._ledger_key, self.name, nonce=self._random(NONCE_BYTES))
        self._connection.execute("INSERT INTO ledger (seq, sealed) VALUES (?, ?)", (seq, sealed))
        # Read back before the commit: whatever the file's structures were bent to do, this is what will be there.
        if self._connection.execute("SELECT sealed FROM ledger WHERE seq = ?", (seq,)).fetchone() != (
            sealed,
        ):
            raise integrity("the ledger did not take a record")
        for table, identity, digest in rows:
            stored = self._connection.execute(READ_ROW[table], (identity,)).fetchone()
            if stored is None or stored[0] != seq or hashlib.sha256(stored[1]).digest() != digest:
                raise integrity("the database did not take a row")
        try:
            self._connection.execute("COMMIT")
        except sqlite3.Error:
            self._pending = (record, sealed)
            raise
        self._advance(record, sealed)

    def _advance(self, record: Record, sealed: bytes) -> None:
        """Take a record into memory: it is on the disk, or was read from there."""
        if self.length % CHECKPOINT_EVERY == 0:
            self._heads.append(self.head)
        self.head = chain.link(self.head, leaf_of(record))
        self.length += 1
        self.floor = max(self.floor, record.at)
        self._tail = hashlib.sha256(sealed).digest()
        for table, identity, digest in record.rows:
            self._index[table, identity] = _Row(record.seq, digest, record.owner)

    # -- rows and records

    def _open_record(self, seq: int, sealed: object) -> Record:
        if not isinstance(sealed, bytes):
            raise integrity("a record of the ledger was changed")
        try:
            return open_record(sealed, self._ledger_key, self.name, seq=seq)
        except ConfideError as error:
            raise integrity("a record of the ledger was changed") from error

    def identity(self, table: str, key: tuple[Any, ...]) -> bytes:
        """The row id (32 bytes) of a key: an HMAC, so that the disk does not show it."""
        return hmac.digest(self._id_key, cbor.encode([table, *key]), "sha256")

    def _row_aead(self, table: str, identity: bytes, seq: int) -> tuple[Aead, bytes]:
        where = cbor.encode([table, identity, seq])
        return Aead(kdf.expand(self._row_key, b"row\x00" + where, 32)), where

    def _seal_row(self, table: str, identity: bytes, seq: int, plaintext: bytes) -> bytes:
        aead, where = self._row_aead(table, identity, seq)
        # The key is new for each write; the nonce is random all the same, because after a restart from an older file the
        # same place may be written with the same number again.
        nonce = self._random(NONCE_BYTES)
        return nonce + aead.seal(nonce, plaintext, where)

    def _open_row(self, table: str, identity: object, stored: tuple[object, object] | None) -> bytes | None:
        if not isinstance(identity, bytes):
            raise integrity("a row was planted in the database")
        known = self._index.get((table, identity))
        if stored is None:
            if known is not None:
                raise integrity("a row was deleted from the database")
            return None
        seq, sealed = stored
        if known is None or not isinstance(seq, int) or not isinstance(sealed, bytes):
            raise integrity("a row was planted in the database")
        if not 0 <= seq < self.length or not NONCE_BYTES < len(sealed) <= MAX_ROW_BYTES:
            raise integrity("a row was changed in the database")
        aead, where = self._row_aead(table, identity, seq)
        try:
            plaintext = aead.open(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], where)
        except AuthenticationFailed as error:
            raise integrity("a row was changed in the database") from error
        if not hmac.compare_digest(hashlib.sha256(sealed).digest(), known.digest):
            raise rollback("a row is an older one of the same name")
        return plaintext

    def records(self, start: int, count: int) -> list[Record]:
        """The ledger's records from ``start``, at most ``count``, read from disk and checked against the chain in memory."""
        with self.transaction():
            stop = min(start + count, self.length)
            if start >= stop:
                return []
            first = start - start % CHECKPOINT_EVERY
            last = min(-(-stop // CHECKPOINT_EVERY) * CHECKPOINT_EVERY, self.length)
            head = self._heads[first // CHECKPOINT_EVERY]
            found: list[Record] = []
            with mapped_errors():
                stored = self._connection.execute(
                    "SELECT seq, sealed FROM ledger WHERE seq >= ? AND seq < ? ORDER BY seq", (first, last)
                ).fetchall()
            if [seq for seq, _ in stored] != list(range(first, last)):
                raise integrity("a record of the ledger is missing")
            for seq, sealed in stored:
                record = self._open_record(seq, sealed)
                head = chain.link(head, leaf_of(record))
                if start <= seq < stop:
                    found.append(record)
            expected = self.head if last == self.length else self._heads[last // CHECKPOINT_EVERY]
            if not hmac.compare_digest(head, expected):
                raise integrity("a record of the ledger was changed")
            return found

    def head_at(self, length: int) -> bytes:
        """The chain's head when it had ``length`` records; for a length that is a multiple of ``CHECKPOINT_EVERY`` or the
        present one. Raises KeyError otherwise.
        """
        with self._lock:
            if length == self.length:
                return self.head
            if length % CHECKPOINT_EVERY or length > self.length:
                raise KeyError(length)
            return self._heads[length // CHECKPOINT_EVERY]


class Transaction:
    """What may be done while the store is held: read rows, stage rows, and say in one record what happened."""

    __slots__ = ("_store", "done", "event", "length", "staged")

    def __init__(self, store: Store) -> None:
        self._store = store
        self.staged: dict[tuple[str, bytes], bytes] = {}
        self.event: tuple[str, bytes, dict[str, Any]] | None = None
        self.done = False
        self.length = store.length
        """The ledger's length: before the block at first, after it once it has been left."""

    def _check_open(self) -> None:
        if self.done:
            raise EnclaveError("bad_state", "the transaction is over")

    def get(self, table: str, key: tuple[Any, ...]) -> bytes | None:
        """The authenticated row under ``key``, or None if memory knows that there never was one."""
        return self._read(table, self._store.identity(table, key))

    def _read(self, table: str, identity: bytes) -> bytes | None:
        self._check_open()
        if (table, identity) in self.staged:
            return self.staged[table, identity]
        with mapped_errors():
            stored = self._store._connection.execute(READ_ROW[table], (identity,)).fetchone()  # noqa: SLF001
        return self._store._open_row(table, identity, stored)  # noqa: SLF001

    def put(self, table: str, key: tuple[Any, ...], plaintext: bytes) -> None:
        """Stage a row; it is written when the transaction is left, under the record's number."""
        self._check_open()
        if len(plaintext) > MAX_ROW_BYTES - 64:
            raise BrokerError("too_large", "a row is larger than the store takes")
        self.staged[table, self._store.identity(table, key)] = plaintext

    def owned(self, table: str, owner: bytes) -> Iterator[bytes]:
        """Every row of a table whose last writer was ``owner``, in no particular order."""
        for (name, identity), row in list(self._store._index.items()):  # noqa: SLF001
            if name == table and row.owner == owner:
                plaintext = self._read(table, identity)
                if plaintext is not None:
                    yield plaintext

    def count(self, table: str, owner: bytes) -> int:
        """How many rows of a table ``owner`` has."""
        return sum(
            1
            for (name, _), row in self._store._index.items()  # noqa: SLF001
            if name == table and row.owner == owner
        )

    def record(self, kind: str, owner: bytes, details: dict[str, Any]) -> None:
        """Say what this transaction does; without this nothing is written. Once per transaction."""
        self._check_open()
        if self.event is not None:
            raise EnclaveError("bad_state", "a transaction has exactly one record")
        self.event = (kind, owner, details)
