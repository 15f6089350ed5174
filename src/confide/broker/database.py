# SPDX-License-Identifier: Apache-2.0
"""The file below the broker's store: its schema, how it is opened, and what its failures are called."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from confide.errors import BrokerError, SealingError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = [
    "APPLICATION_ID",
    "READ_ROW",
    "READ_ROWS",
    "SCHEMA",
    "SCHEMA_VERSION",
    "TABLES",
    "WRITE_ROW",
    "connect",
    "integrity",
    "mapped_errors",
    "rollback",
]

TABLES: Final = ("secrets", "policies", "revocations", "subjects", "grants")
SCHEMA_VERSION: Final = 1
APPLICATION_ID: Final = 0x436F6E66  # "Conf": tells a person with `file` what this is.
MIN_FILE_BYTES: Final = 512

SCHEMA = (
    "CREATE TABLE meta (id INTEGER PRIMARY KEY CHECK (id = 1), store BLOB NOT NULL, seal BLOB NOT NULL)",
    "CREATE TABLE ledger (seq INTEGER PRIMARY KEY, sealed BLOB NOT NULL)",
    *(
        f"CREATE TABLE {table} (id BLOB PRIMARY KEY, seq INTEGER NOT NULL, sealed BLOB NOT NULL) WITHOUT ROWID"
        for table in TABLES
    ),
)
READ_ROW = {table: f"SELECT seq, sealed FROM {table} WHERE id = ?" for table in TABLES}  # noqa: S608 - constants
READ_ROWS = {table: f"SELECT id, seq, sealed FROM {table}" for table in TABLES}  # noqa: S608
WRITE_ROW = {
    table: f"INSERT INTO {table} (id, seq, sealed) VALUES (?, ?, ?) "  # noqa: S608
    "ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, sealed = excluded.sealed"
    for table in TABLES
}


def integrity(message: str) -> BrokerError:
    """The error for a database that somebody else has changed."""
    return BrokerError(
        "integrity",
        message,
        hint="the database was changed by something other than this broker; keep a copy of it as evidence, and start anew",
    )


def rollback(message: str) -> BrokerError:
    """The error for a database, or a part of one, that was the newest once."""
    return BrokerError(
        "rollback",
        message,
        hint="an older copy of the database was put back; restore the newest one, or start anew",
    )


def connect(path: Path) -> tuple[sqlite3.Connection, tuple[int, int], bool]:
    """Open the file, privately made if absent; say whether there was nothing in it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o600)
    try:
        status = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        raise integrity("the database is not a regular file with one name")
    if 0 < status.st_size < MIN_FILE_BYTES:
        raise integrity("the database file is cut short")  # SQLite would take it for an empty one.
    if status.st_size == 0 and any(
        path.with_name(path.name + suffix).exists() for suffix in ("-wal", "-journal")
    ):
        raise rollback("the database is empty, but its log is not")
    connection = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute("PRAGMA mmap_size = 0")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute("PRAGMA secure_delete = ON")
        if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            raise SealingError("storage_io", "the disk of the broker does not support a write-ahead log")
        connection.execute("PRAGMA synchronous = FULL")
        empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
        fresh = empty and connection.execute("PRAGMA user_version").fetchone()[0] == 0
    except BaseException:
        connection.close()
        raise
    return connection, (status.st_dev, status.st_ino), fresh


@contextmanager
def mapped_errors() -> Iterator[None]:
    """Whatever SQLite or the disk says, as an error of confide, without the values that SQLite quotes."""
    try:
        yield
    except sqlite3.Error as error:
        code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            raise SealingError("storage_full", "the disk of the broker is full", retryable=True) from None
        if code in {
            sqlite3.SQLITE_IOERR,
            sqlite3.SQLITE_BUSY,
            sqlite3.SQLITE_LOCKED,
            sqlite3.SQLITE_READONLY,
            sqlite3.SQLITE_CANTOPEN,
            sqlite3.SQLITE_PERM,
            sqlite3.SQLITE_NOMEM,
            sqlite3.SQLITE_INTERRUPT,
        }:
            raise SealingError(
                "storage_io", "the disk of the broker cannot be used", retryable=True
            ) from None
        raise integrity("the database file is damaged") from None
    except OSError:
        raise SealingError("storage_io", "the disk of the broker cannot be used", retryable=True) from None
