# SPDX-License-Identifier: Apache-2.0
"""The store against a dictionary: whatever the order of writes, restarts and the operator's edits, it gives either what
was last written or an error, never anything else."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from confide.broker.store import TABLES, Store
from confide.crypto.secret import Secret
from confide.errors import ConfideError
from support.refusal import code_of

OWNERS = (b"o" * 32, b"p" * 32)
TABLE = st.sampled_from(TABLES[:3])
OWNER = st.sampled_from(OWNERS)
NAME = st.sampled_from("abc")


class StoreMachine(RuleBasedStateMachine):
    """`clean` is whether disk and memory agree; after the operator's edit every answer must be an error or still right."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="broker-model-"))
        self.path = self.folder / "broker.db"
        self.model: dict[tuple[str, bytes, str], bytes] = {}
        self.length = 0
        self.clean = True
        self.restarted = False
        self.closed = False
        self.copies: list[tuple[Path, int]] = []

    @initialize()
    def start(self) -> None:
        self.store = Store(self.path, Secret(b"r" * 32), clock=lambda: 0)

    def attempt(self, work: Any) -> Any:
        """The result, or None and an error that the state explains."""
        try:
            return work()
        except ConfideError as error:
            code = error.code
        if self.closed:
            assert code == "enclave.bad_state"
        else:
            assert code in {"broker.integrity", "broker.rollback"}
            assert not self.clean
        return None

    @rule(table=TABLE, owner=OWNER, name=NAME, value=st.binary(max_size=40))
    def write(self, table: str, owner: bytes, name: str, value: bytes) -> None:
        def work() -> bool:
            with self.store.transaction() as tx:
                tx.put(table, (owner, name), value)
                tx.record("put", owner, {"name": name})
            return True

        if self.attempt(work):
            self.model[table, owner, name] = value
            self.length += 1

    @rule(table=TABLE, owner=OWNER, name=NAME)
    def read(self, table: str, owner: bytes, name: str) -> None:
        found = object()

        def work() -> object:
            with self.store.transaction() as tx:
                return tx.get(table, (owner, name)), found

        result = self.attempt(work)
        if result is not None:
            assert result == (self.model.get((table, owner, name)), found)

    @rule(table=TABLE, owner=OWNER)
    def enumerate_rows(self, table: str, owner: bytes) -> None:
        def work() -> list[bytes]:
            with self.store.transaction() as tx:
                return sorted(tx.owned(table, owner))

        result = self.attempt(work)
        if result is not None:
            assert result == sorted(v for (t, o, _), v in self.model.items() if (t, o) == (table, owner))

    @rule(table=TABLE, owner=OWNER, name=NAME)
    def give_up(self, table: str, owner: bytes, name: str) -> None:
        """A block that raises changes nothing."""

        def work() -> None:
            with contextlib.suppress(KeyError), self.store.transaction() as tx:
                tx.put(table, (owner, name), b"never")
                tx.record("put", owner, {})
                raise KeyError

        self.attempt(work)

    @precondition(lambda self: self.clean and not self.closed)
    @rule()
    def restart(self) -> None:
        self.store.close()
        self.store = Store(self.path, Secret(b"r" * 32), clock=lambda: 0)
        self.restarted = True

    @rule()
    def close_and_use(self) -> None:
        """RT-05: a closed store refuses everything and may be closed again."""
        self.store.close()
        self.store.close()
        self.closed = True

    @precondition(lambda self: self.closed and self.clean)
    @rule()
    def reopen(self) -> None:
        self.store = Store(self.path, Secret(b"r" * 32), clock=lambda: 0)
        self.closed = False
        self.restarted = True

    @precondition(lambda self: not self.closed)
    @rule()
    def copy(self) -> None:
        target = self.folder / f"copy-{len(self.copies)}"
        with (
            contextlib.closing(sqlite3.connect(self.path)) as source,
            contextlib.closing(sqlite3.connect(target)) as to,
        ):
            source.backup(to)
        self.copies.append((target, self.length))

    @precondition(lambda self: self.copies and not self.closed and self.clean)
    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        copy, length = data.draw(st.sampled_from(self.copies))
        with (
            contextlib.closing(sqlite3.connect(copy)) as source,
            contextlib.closing(sqlite3.connect(self.path)) as to,
        ):
            source.backup(to)
        self.clean = length == self.length

    @precondition(lambda self: self.model and not self.closed)
    @rule(table=TABLE, edit=st.sampled_from(["DELETE FROM {}", "UPDATE {} SET sealed = zeroblob(64)"]))
    def edit(self, table: str, edit: str) -> None:
        with contextlib.closing(sqlite3.connect(self.path)) as connection, connection:
            changed = connection.execute(edit.format(table)).rowcount
        self.clean = self.clean and changed == 0

    @invariant()
    def memory_counts_what_was_written(self) -> None:
        if hasattr(self, "store"):
            assert self.store.length == self.length
            assert self.store.anchored == (not self.restarted)

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)


StoreMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


class TestRt05StoreAgainstItsModel(StoreMachine.TestCase):  # type: ignore[misc, valid-type]
    """RT-05 for the broker's store."""


def use(store: Store) -> None:
    with store.transaction() as tx:
        tx.record("put", OWNERS[0], {})


def test_rt_05_use_after_close_and_double_close(tmp_path: Path) -> None:
    store = Store(tmp_path / "broker.db", Secret(b"r" * 32), clock=lambda: 0)
    use(store)
    store.close()
    store.close()
    for _ in range(2):
        assert code_of(use, store) == "enclave.bad_state"
    assert store.length == 1


def test_rt_05_a_transaction_is_not_reentrant_and_is_over_when_it_is_over(tmp_path: Path) -> None:
    store = Store(tmp_path / "broker.db", Secret(b"r" * 32), clock=lambda: 0)
    with store.transaction() as tx:
        assert code_of(use, store) == "enclave.bad_state"
        assert code_of(store.records, 0, 1) == "enclave.bad_state"
        tx.record("put", OWNERS[0], {})
        assert code_of(tx.record, "put", OWNERS[0], {}) == "enclave.bad_state"
    assert store.length == 1
    assert code_of(tx.record, "put", OWNERS[0], {}) == "enclave.bad_state"
    assert code_of(tx.put, "secrets", (b"x",), b"x") == "enclave.bad_state"
    assert code_of(tx.get, "secrets", (b"x",)) == "enclave.bad_state"
    assert store.length == 1
    store.close()
