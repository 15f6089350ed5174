# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from confide.ledger import chain
from support.refusal import code_of

RECORDS = [b"first", b"second", b"", b"fourth"]


def head_of(records: list[bytes]) -> bytes:
    """The definition, written out."""
    head = hashlib.sha512(b"confide/chain/1\0").digest()
    for record in records:
        head = hashlib.sha512(b"confide/chain/1\1" + head + hashlib.sha512(record).digest()).digest()
    return head


def test_the_head_is_the_one_written_out() -> None:
    assert head_of([]) == chain.GENESIS
    assert chain.link(chain.GENESIS, b"first") == head_of([b"first"])
    assert chain.verify(RECORDS, head_of(RECORDS)) == chain.Chain(head_of(RECORDS), 4)
    assert chain.verify([], chain.GENESIS) == chain.Chain()


def test_appending_is_linking() -> None:
    found = chain.Chain()
    for record in RECORDS:
        found = found.append(record)

    assert found == chain.Chain(head_of(RECORDS), len(RECORDS))


@pytest.mark.parametrize(
    "records",
    [
        RECORDS[:-1],
        RECORDS[1:],
        [*RECORDS, b""],
        [RECORDS[1], RECORDS[0], *RECORDS[2:]],
        [b"firsT", *RECORDS[1:]],
        [b"firstsecond", *RECORDS[2:]],
        [*RECORDS, RECORDS[-1]],
        [],
    ],
)
def test_a_record_dropped_added_moved_joined_or_changed_is_found(records: list[bytes]) -> None:
    chain.verify(RECORDS, head_of(RECORDS))

    assert code_of(chain.verify, records, head_of(RECORDS)) == "sealing.integrity"


@given(st.lists(st.binary(max_size=8), max_size=6), st.lists(st.binary(max_size=8), max_size=6))
def test_two_histories_share_a_head_only_if_they_are_one(first: list[bytes], second: list[bytes]) -> None:
    assert (head_of(first) == chain.verify(first, head_of(first)).head) is True
    if first != second:
        assert code_of(chain.verify, second, head_of(first)) == "sealing.integrity"


def test_heads_have_their_length() -> None:
    for size in (0, 32, 63, 65):
        assert code_of(chain.link, bytes(size), b"record") == "sealing.integrity"
        assert code_of(chain.verify, RECORDS, bytes(size)) == "sealing.integrity"
