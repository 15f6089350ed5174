# SPDX-License-Identifier: Apache-2.0
"""The operator owns the disk: what he can do to the database, and what the store says to each of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from typing import TYPE_CHECKING

import pytest

from confide.broker.store import CHECKPOINT_EVERY, TABLES, Store
from confide.crypto.secret import Secret
from confide.errors import SealingError
from support.refusal import code_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

OWNER = b"o" * 32
OTHER = b"p" * 32
ROOT = b"r" * 32


def opened(path: Path, *, root: bytes = ROOT, now: int = 1_000) -> Store:
    return Store(path, Secret(root), clock=lambda: now)


def write(store: Store, name: str, value: bytes, *, owner: bytes = OWNER, table: str = "secrets") -> None:
    with store.transaction() as tx:
        tx.put(table, (owner, name), value)
        tx.record("put", owner, {"name": name})


def read(store: Store, name: str, *, owner: bytes = OWNER, table: str = "secrets") -> bytes | None:
    with store.transaction() as tx:
        return tx.get(table, (owner, name))


def raw(path: Path, *statements: str, parameters: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """What the operator does with his own client of the database."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        rows: list[tuple[object, ...]] = []
        for statement in statements:
            rows = connection.execute(statement, parameters).fetchall()
        return rows


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    store = opened(path)
    for name in ("a", "b", "c"):
        write(store, name, name.encode() * 10)
    yield store
    store.close()


def test_rows_are_read_back_and_absence_is_known(store: Store) -> None:
    assert read(store, "a") == b"a" * 10
    assert read(store, "absent") is None
    assert read(store, "a", owner=OTHER) is None
    assert store.length == 3
    assert store.anchored


def test_nothing_is_written_when_the_block_raises(store: Store) -> None:
    head = store.head

    def cut_short() -> None:
        with store.transaction() as tx:
            tx.put("secrets", (OWNER, "d"), b"d")
            tx.record("put", OWNER, {})
            raise KeyError

    with pytest.raises(KeyError):
        cut_short()
    assert read(store, "d") is None
    assert (store.head, store.length) == (head, 3)


def test_rows_without_a_record_are_not_written(store: Store) -> None:
    with store.transaction() as tx:
        tx.put("secrets", (OWNER, "d"), b"d")
    assert read(store, "d") is None


def test_the_disk_shows_neither_names_nor_owners_nor_values(path: Path, store: Store) -> None:
    write(store, "canary-name", b"canary-value")
    store.close()
    disk = b"".join(file.read_bytes() for file in path.parent.iterdir())
    for canary in (b"canary-name", b"canary-value", OWNER, ROOT):
        assert canary not in disk


def test_the_database_is_for_its_owner_alone(path: Path, store: Store) -> None:
    for file in path.parent.iterdir():
        assert file.stat().st_mode & 0o077 == 0


EDITS: dict[str, str] = {
    "a value": "UPDATE secrets SET sealed = zeroblob(length(sealed)) WHERE seq = 1",
    "one byte of a value": "UPDATE secrets SET sealed = CAST(substr(sealed, 1, 20) || x'00' || substr(sealed, 22) AS BLOB)",
    "a value cut to nothing": "UPDATE secrets SET sealed = x'' WHERE seq = 1",
    "a value of another type": "UPDATE secrets SET sealed = 'text' WHERE seq = 1",
    "the record that wrote a row": "UPDATE secrets SET seq = 0 WHERE seq = 1",
    "the record to one that is yet to come": "UPDATE secrets SET seq = 99 WHERE seq = 1",
    "a deleted row": "DELETE FROM secrets WHERE seq = 1",
    "one row in the place of another": (
        "UPDATE secrets SET (seq, sealed) = (SELECT seq, sealed FROM secrets WHERE seq = 2) WHERE seq = 1"
    ),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
def test_an_edited_row_is_refused_while_running_and_after_a_restart(
    path: Path, store: Store, edit: str
) -> None:
    assert read(store, "b") == b"b" * 10
    raw(path, edit)
    assert code_of(read, store, "b") == "broker.integrity"
    store.close()
    assert code_of(opened, path) == "broker.integrity"


def test_two_rows_that_changed_places_are_refused(path: Path, store: Store) -> None:
    for number, row in zip(
        (2, 1), raw(path, "SELECT seq, sealed FROM secrets WHERE seq > 0 ORDER BY seq"), strict=True
    ):
        raw(path, "UPDATE secrets SET seq = ?2 + 10, sealed = ?3 WHERE seq = ?1", parameters=(number, *row))
    raw(path, "UPDATE secrets SET seq = seq - 10 WHERE seq > 10")
    assert code_of(read, store, "b") == "broker.integrity"
    assert code_of(read, store, "c") == "broker.integrity"
    assert read(store, "a") == b"a" * 10


def test_a_row_moved_to_another_table_is_refused(path: Path, store: Store) -> None:
    raw(path, "INSERT INTO policies SELECT * FROM secrets WHERE seq = 1")
    identity, seq, sealed = raw(path, "SELECT id, seq, sealed FROM policies")[0]
    assert code_of(store._open_row, "policies", identity, (seq, sealed)) == "broker.integrity"
    store.close()
    assert code_of(opened, path) == "broker.integrity"


def test_an_older_row_of_the_same_name_is_a_rollback(path: Path, store: Store) -> None:
    old = raw(path, "SELECT id, seq, sealed FROM secrets WHERE seq = 1")[0]
    write(store, "b", b"newer")
    raw(path, "UPDATE secrets SET seq = ?2, sealed = ?3 WHERE id = ?1", parameters=old)
    assert code_of(read, store, "b") == "broker.rollback"
    store.close()
    assert code_of(opened, path) == "broker.rollback"


LEDGER_EDITS: dict[str, tuple[str, str]] = {
    "the last record deleted": ("DELETE FROM ledger WHERE seq = 2", "broker.rollback"),
    "every record deleted": ("DELETE FROM ledger", "broker.rollback"),
    "the last record changed": ("UPDATE ledger SET sealed = zeroblob(60) WHERE seq = 2", "broker.integrity"),
    "a record more": ("INSERT INTO ledger SELECT 3, sealed FROM ledger WHERE seq = 2", "broker.integrity"),
    "the last record's copy of another": (
        "UPDATE ledger SET sealed = (SELECT sealed FROM ledger WHERE seq = 1) WHERE seq = 2",
        "broker.integrity",
    ),
}


@pytest.mark.parametrize(("edit", "code"), LEDGER_EDITS.values(), ids=LEDGER_EDITS.keys())
def test_kb_14_a_changed_end_of_the_ledger_stops_every_transaction(
    path: Path, store: Store, edit: str, code: str
) -> None:
    raw(path, edit)
    assert code_of(read, store, "a") == code
    assert code_of(write, store, "d", b"d") == code


@pytest.mark.parametrize(
    "edit",
    [
        "DELETE FROM ledger WHERE seq = 1",
        "UPDATE ledger SET sealed = zeroblob(80) WHERE seq = 1",
        "UPDATE ledger SET sealed = (SELECT sealed FROM ledger WHERE seq = 0) WHERE seq = 1",
    ],
)
def test_kb_14_a_record_lost_or_changed_in_the_middle_is_found_when_read(
    path: Path, store: Store, edit: str
) -> None:
    assert len(store.records(0, 10)) == 3
    raw(path, edit)
    assert code_of(store.records, 0, 10) == "broker.integrity"
    assert code_of(store.records, 2, 1) == "broker.integrity"
    store.close()
    assert code_of(opened, path) == "broker.integrity"


def test_kb_14_records_in_another_order_do_not_open(path: Path, store: Store) -> None:
    raw(
        path,
        "UPDATE ledger SET seq = seq + 100 WHERE seq < 2",
        "UPDATE ledger SET seq = 101 - seq WHERE seq >= 100",
    )
    assert code_of(store.records, 0, 10) == "broker.integrity"


def copy_of(path: Path, to: Path) -> None:
    """A consistent copy, as a backup tool makes it."""
    with (
        contextlib.closing(sqlite3.connect(path)) as source,
        contextlib.closing(sqlite3.connect(to)) as target,
    ):
        source.backup(target)


def test_sea_02_an_older_copy_written_over_the_running_database_is_a_rollback(
    path: Path, tmp_path: Path, store: Store
) -> None:
    copy_of(path, tmp_path / "old.db")
    write(store, "d", b"d")
    copy_of(tmp_path / "old.db", path)
    assert code_of(read, store, "a") == "broker.rollback"
    assert code_of(write, store, "e", b"e") == "broker.rollback"


def test_sea_02_an_older_file_moved_into_the_place_of_the_running_one_is_a_rollback(
    path: Path, tmp_path: Path, store: Store
) -> None:
    copy_of(path, tmp_path / "old.db")
    write(store, "d", b"d")
    (tmp_path / "old.db").replace(path)
    assert code_of(read, store, "a") == "broker.rollback"


def test_sea_02_a_database_that_is_taken_away_is_a_rollback(path: Path, store: Store) -> None:
    path.unlink()
    assert code_of(read, store, "a") == "broker.rollback"


def test_sea_02_after_a_restart_an_older_copy_reads_well_and_says_that_it_is_not_anchored(
    path: Path, tmp_path: Path, store: Store
) -> None:
    copy_of(path, tmp_path / "old.db")
    write(store, "a", b"newer")
    store.close()
    for file in tmp_path.glob("broker.db*"):
        file.unlink()
    shutil.copy(tmp_path / "old.db", path)
    again = opened(path)
    # Nothing inside the enclave can tell this from the newest state: that is why releasing is refused by default.
    assert read(again, "a") == b"a" * 10
    assert not again.anchored
    again.close()


def test_a_restart_keeps_everything_but_the_anchor(path: Path, store: Store) -> None:
    head, name = store.head, store.name
    store.close()
    again = opened(path)
    assert (again.head, again.length, again.name) == (head, 3, name)
    assert [read(again, x) for x in "abc"] == [b"a" * 10, b"b" * 10, b"c" * 10]
    assert not again.anchored
    write(again, "d", b"d")
    assert not again.anchored
    again.close()


def test_another_root_key_opens_nothing(path: Path, store: Store) -> None:
    store.close()
    assert code_of(opened, path, root=b"x" * 32) == "broker.integrity"


def test_the_name_of_the_store_is_authenticated(path: Path, store: Store) -> None:
    store.close()
    raw(path, "UPDATE meta SET store = zeroblob(16)")
    assert code_of(opened, path) == "broker.integrity"


SCHEMA_EDITS = {
    "a trigger that drops records": (
        "CREATE TRIGGER t BEFORE INSERT ON ledger BEGIN SELECT RAISE(IGNORE); END"
    ),
    "a view": "CREATE VIEW v AS SELECT * FROM secrets",
    "a table more": "CREATE TABLE t (x)",
    "an index": "CREATE INDEX i ON ledger (sealed)",
    "a table less": "DROP TABLE grants",
    "a column more": "ALTER TABLE secrets ADD COLUMN x",
    "the version of the schema": "PRAGMA user_version = 7",
}


@pytest.mark.parametrize("edit", SCHEMA_EDITS.values(), ids=SCHEMA_EDITS.keys())
def test_a_changed_schema_is_refused_before_anything_is_read_or_written(
    path: Path, store: Store, edit: str
) -> None:
    raw(path, edit)
    assert code_of(write, store, "d", b"d") == "broker.integrity"
    assert code_of(read, store, "a") == "broker.integrity"
    store.close()
    assert code_of(opened, path) == "broker.integrity"


def test_a_record_that_the_database_swallows_is_noticed_before_the_commit(
    path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the look at the schema were fooled, what was written is read back."""
    raw(path, SCHEMA_EDITS["a trigger that drops records"])
    monkeypatch.setattr(store, "_check_schema", lambda: None)
    assert code_of(write, store, "d", b"d") == "broker.integrity"
    assert raw(path, "SELECT count(*) FROM secrets") == [(3,)]


@pytest.mark.parametrize("size", [1, 100, 4096, 5000])
def test_a_file_that_is_no_database_or_half_of_one_is_refused(path: Path, store: Store, size: int) -> None:
    store.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:size])
    assert code_of(opened, path) in {"broker.integrity", "sealing.storage_io"}


def test_garbage_in_the_place_of_the_database_is_refused(path: Path) -> None:
    path.write_bytes(os.urandom(10_000))
    assert code_of(opened, path) == "broker.integrity"


def test_an_emptied_file_beside_its_log_is_a_rollback(path: Path, store: Store) -> None:
    path.with_name("broker.db-wal").touch()
    path.write_bytes(b"")
    assert code_of(opened, path) == "broker.rollback"


@pytest.mark.parametrize("make", ["symlink", "hardlink", "fifo", "folder"])
def test_only_a_plain_file_of_one_name_is_opened(path: Path, tmp_path: Path, make: str) -> None:
    other = tmp_path / "elsewhere"
    other.touch()
    makers: dict[str, Callable[[], None]] = {
        "symlink": lambda: path.symlink_to(other),
        "hardlink": lambda: path.hardlink_to(other),
        "fifo": lambda: os.mkfifo(path),
        "folder": path.mkdir,
    }
    makers[make]()
    assert code_of(opened, path) in {"broker.integrity", "sealing.storage_io"}
    assert other.read_bytes() == b""


def test_a_full_disk_refuses_and_changes_nothing(path: Path, store: Store) -> None:
    head = store.head
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(SealingError) as caught:
        write(store, "large", os.urandom(200_000))
    assert caught.value.code == "sealing.storage_full"
    assert (store.head, store.length) == (head, 3)
    assert read(store, "large") is None
    store._connection.execute("PRAGMA max_page_count = 1000000")
    write(store, "large", b"small")
    assert read(store, "large") == b"small"


def test_a_database_that_another_process_holds_is_a_retryable_error(path: Path, store: Store) -> None:
    store._connection.execute("PRAGMA busy_timeout = 10")
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(SealingError) as caught:
            write(store, "d", b"d")
        other.execute("ROLLBACK")
    assert caught.value.code == "sealing.storage_io"
    assert caught.value.retryable
    write(store, "d", b"d")


class _FailingCommit:
    """A connection whose next commit says that it failed, before or after it has happened."""

    def __init__(self, connection: sqlite3.Connection, *, happens: bool) -> None:
        self._connection = connection
        self._happens = happens
        self._armed = True

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)

    def execute(self, statement: str, parameters: tuple[object, ...] = ()) -> sqlite3.Cursor:
        if statement == "COMMIT" and self._armed:
            self._armed = False
            if self._happens:
                self._connection.execute(statement)
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR
            raise error
        return self._connection.execute(statement, parameters)


@pytest.mark.parametrize("happens", [True, False])
def test_kb_07_a_commit_whose_outcome_is_unknown_is_settled_by_what_the_disk_says_next(
    store: Store, monkeypatch: pytest.MonkeyPatch, *, happens: bool
) -> None:
    monkeypatch.setattr(store, "_connection", _FailingCommit(store._connection, happens=happens))
    with pytest.raises(SealingError) as caught:
        write(store, "a", b"newer")
    assert caught.value.code == "sealing.storage_io"
    assert read(store, "a") == (b"newer" if happens else b"a" * 10)
    assert store.length == (4 if happens else 3)
    write(store, "b", b"newest")
    assert read(store, "b") == b"newest"


def test_records_are_read_from_any_place_across_checkpoints(path: Path) -> None:
    store = opened(path)
    total = 2 * CHECKPOINT_EVERY + 10
    for number in range(total):
        with store.transaction() as tx:
            tx.record("put", OWNER, {"n": number})
    for start, count in (
        (0, 5),
        (CHECKPOINT_EVERY - 1, 2),
        (CHECKPOINT_EVERY, 300),
        (total - 1, 5),
        (total, 5),
    ):
        wanted = list(range(start, min(start + count, total)))
        assert [record.details["n"] for record in store.records(start, count)] == wanted
    store.close()


def test_records_never_go_back_in_time(path: Path) -> None:
    now = 5_000
    store = Store(path, Secret(ROOT), clock=lambda: now)
    write(store, "a", b"a")
    now = 10
    write(store, "b", b"b")
    assert [record.at for record in store.records(0, 2)] == [5_000, 5_000]
    store.close()


def test_a_closed_store_refuses(store: Store) -> None:
    store.close()
    store.close()
    assert code_of(read, store, "a") == "enclave.bad_state"


def test_every_table_keeps_its_rows_apart(store: Store) -> None:
    for table in TABLES:
        write(store, "same", table.encode(), table=table)
    assert [read(store, "same", table=table) for table in TABLES] == [table.encode() for table in TABLES]


def test_a_second_broker_on_the_same_file_is_noticed_by_the_first(path: Path, store: Store) -> None:
    second = opened(path)
    write(second, "d", b"d")
    assert code_of(read, store, "a") == "broker.integrity"
    assert code_of(write, store, "e", b"e") == "broker.integrity"
    assert read(second, "d") == b"d"
    second.close()
