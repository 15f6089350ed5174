# SPDX-License-Identifier: Apache-2.0
"""KB-14 from the owner's side: a ledger that was cut, changed, reordered or exchanged does not check."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from confide.keys.audit import AuditedLedger, Record, leaf_of, read_entries
from confide.ledger import chain
from support.refusal import code_of, only_typed_errors

OWNER, OTHER = b"o" * 32, b"p" * 32
Entry = Record | bytes


def record(seq: int, owner: bytes = OWNER, **changes: Any) -> Record:
    fields: dict[str, Any] = {
        "seq": seq,
        "at": 1_000 + seq,
        "kind": "put",
        "owner": owner,
        "details": {"n": seq},
        "rows": (("secrets", bytes(32), bytes(32)),),
        "salt": bytes([seq % 256]) * 32,
        **changes,
    }
    return Record(**fields)


def ledger(count: int) -> tuple[list[Entry], bytes]:
    """Entries as an owner of every second record sees them, and the head."""
    head = chain.GENESIS
    entries: list[Entry] = []
    for seq in range(count):
        item = record(seq, OWNER if seq % 2 == 0 else OTHER)
        head = chain.link(head, leaf_of(item))
        entries.append(item if item.owner == OWNER else leaf_of(item))
    return entries, head


def check(entries: list[Entry], head: bytes, length: int) -> list[Record]:
    audited = AuditedLedger(OWNER)
    audited.feed(entries)
    audited.finish(head=head, length=length)
    return audited.records


@given(st.integers(0, 30))
def test_a_whole_ledger_checks_and_shows_ones_own(count: int) -> None:
    entries, head = ledger(count)
    assert [item.seq for item in check(entries, head, count)] == list(range(0, count, 2))


@given(st.data(), st.integers(2, 12))
def test_kb_14_any_one_change_to_what_is_shown_is_noticed(data: st.DataObject, count: int) -> None:
    entries, head = ledger(count)
    place = data.draw(st.integers(0, count - 1))
    change = data.draw(st.sampled_from(["removed", "twice", "swapped", "another", "another salt", "hidden"]))
    changed = list(entries)
    if change == "removed":
        del changed[place]
    elif change == "twice":
        changed.insert(place, changed[place])
    elif change == "swapped":
        other = (place + 1) % count
        changed[place], changed[other] = changed[other], changed[place]
    elif change == "another":
        changed[place] = record(place, details={"n": -1})
    elif change == "another salt":
        changed[place] = record(place, salt=b"x" * 32)
    else:
        # A record that is shown as a leaf only still checks; that it is not shown is what an owner has to ask about.
        item = changed[place]
        changed[place] = leaf_of(item) if isinstance(item, Record) else item
        assert len(check(changed, head, count)) <= len(entries)
        return
    with pytest.raises(Exception) as caught:
        check(changed, head, count)
    assert getattr(caught.value, "code", "") in {"broker.integrity", "broker.rollback"}


def test_kb_14_a_ledger_that_was_cut_short_is_a_rollback_for_whoever_saw_more() -> None:
    entries, head = ledger(6)
    audited = AuditedLedger(OWNER, head=head, length=6)
    shorter, older = ledger(4)
    assert shorter
    assert code_of(audited.finish, head=older, length=4) == "broker.rollback"
    audited.finish(head=head, length=6)
    assert len(entries) == 6


def test_kb_14_another_ledger_of_the_same_length_does_not_follow_on_the_head_that_was_seen() -> None:
    entries, _ = ledger(8)
    _, seen = ledger(4)
    other = chain.GENESIS
    for entry in entries[4:]:
        other = chain.link(other, leaf_of(entry) if isinstance(entry, Record) else entry)
    audited = AuditedLedger(OWNER, head=seen, length=4)
    audited.feed(entries[4:])
    assert code_of(audited.finish, head=other, length=8) == "broker.integrity"
    _, whole = ledger(8)
    audited.finish(head=whole, length=8)


def test_records_of_another_owner_are_not_taken() -> None:
    audited = AuditedLedger(OWNER)
    assert code_of(audited.feed, [record(0, OTHER)]) == "broker.integrity"
    AuditedLedger(OWNER).feed([record(0, b"")])  # The broker's own: that it was started.


def test_a_record_has_one_encoding() -> None:
    item = record(3)
    assert Record.decode(item.salt, item.body) == item
    for body in (item.body + b"\x00", item.body[:-1], b"", b"\xa0"):
        assert code_of(Record.decode, item.salt, body).startswith("malformed.")
    for salt in (b"", bytes(31), bytes(33), "text"):
        assert code_of(Record.decode, salt, item.body) == "malformed.length_mismatch"


def test_what_the_broker_shows_is_read_strictly() -> None:
    item = record(0)
    assert read_entries([[item.salt, item.body], leaf_of(item)]) == (item, leaf_of(item))
    wrong: tuple[object, ...] = (
        None,
        {},
        [bytes(63)],
        [[item.salt]],
        [[item.salt, item.body, b""]],
        ["leaf"],
        [bytes(64)] * 1025,
    )
    for items in wrong:
        assert code_of(read_entries, items).startswith("malformed.")


@given(st.binary(max_size=100), st.binary(min_size=32, max_size=32))
def test_noise_is_no_record(body: bytes, salt: bytes) -> None:
    assert only_typed_errors(Record.decode, salt, body) is None
