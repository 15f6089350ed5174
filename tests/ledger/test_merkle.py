# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from confide.errors import MalformedError
from confide.ledger import merkle
from support.refusal import code_of


def leaves(count: int) -> list[bytes]:
    return [hashlib.sha512(b"\0" + index.to_bytes(4, "big")).digest() for index in range(count)]


def defined_root(hashes: list[bytes]) -> bytes:
    """RFC 9162, section 2.1.1, as it is defined there: split at the largest power of two below the size."""
    if len(hashes) == 1:
        return hashes[0]
    split = 1 << (len(hashes) - 1).bit_length() - 1
    return hashlib.sha512(b"\1" + defined_root(hashes[:split]) + defined_root(hashes[split:])).digest()


def defined_path(hashes: list[bytes], index: int) -> list[bytes]:
    """RFC 9162, section 2.1.3.1."""
    if len(hashes) == 1:
        return []
    split = 1 << (len(hashes) - 1).bit_length() - 1
    if index < split:
        return [*defined_path(hashes[:split], index), defined_root(hashes[split:])]
    return [*defined_path(hashes[split:], index - split), defined_root(hashes[:split])]


@pytest.mark.parametrize("size", [*range(1, 34), 63, 64, 65, 100])
def test_roots_and_paths_are_those_of_the_definition(size: int) -> None:
    hashes = leaves(size)
    root = merkle.root(hashes)

    assert root == defined_root(hashes)
    for index in range(size):
        path = merkle.path(hashes, index)
        assert list(path) == defined_path(hashes, index)
        assert merkle.root_from_path(hashes[index], index, size, path) == root


def test_a_full_batch_of_4096_has_paths_of_12() -> None:
    hashes = leaves(4096)

    assert len(merkle.path(hashes, 4095)) == 12
    assert merkle.root_from_path(hashes[4095], 4095, 4096, merkle.path(hashes, 4095)) == merkle.root(hashes)


def test_the_shape_is_that_of_three_leaves_written_out() -> None:
    a, b, c = leaves(3)
    ab = hashlib.sha512(b"\1" + a + b).digest()

    assert merkle.root([a, b, c]) == hashlib.sha512(b"\1" + ab + c).digest()
    assert merkle.path([a, b, c], 2) == (ab,)
    assert merkle.path([a, b, c], 0) == (b, c)


@given(st.integers(1, 40), st.data())
def test_another_leaf_index_size_or_node_gives_another_root_or_a_refusal(
    size: int, draw: st.DataObject
) -> None:
    hashes = leaves(size)
    index = draw.draw(st.integers(0, size - 1))
    path = merkle.path(hashes, index)
    root = merkle.root(hashes)
    other = hashlib.sha512(b"other").digest()

    assert merkle.root_from_path(other, index, size, path) != root
    for position in range(len(path)):
        changed = (*path[:position], other, *path[position + 1 :])
        assert merkle.root_from_path(hashes[index], index, size, changed) != root
    for wrong in range(size):
        if wrong != index:
            assert _lead(hashes[index], wrong, size, path) != root
    assert (
        code_of(merkle.root_from_path, hashes[index], index, size, (*path, other))
        == "malformed.length_mismatch"
    )
    if path:
        assert (
            code_of(merkle.root_from_path, hashes[index], index, size, path[:-1])
            == "malformed.length_mismatch"
        )


def _lead(*arguments: Any) -> bytes | None:
    try:
        return merkle.root_from_path(*arguments)
    except MalformedError:
        return None


def test_an_inner_node_is_no_leaf_of_the_whole_tree() -> None:
    """A node is hashed with 0x01 and a leaf with 0x00, and the path must have the length of its place."""
    hashes = leaves(4)
    node = hashlib.sha512(b"\1" + hashes[0] + hashes[1]).digest()
    sibling = hashlib.sha512(b"\1" + hashes[2] + hashes[3]).digest()

    assert merkle.root_from_path(node, 0, 2, [sibling]) == merkle.root(hashes)
    assert code_of(merkle.root_from_path, node, 0, 4, [sibling]) == "malformed.length_mismatch"


@pytest.mark.parametrize(
    ("index", "size"),
    [(-1, 1), (1, 1), (4, 4), (0, 0), (0, -1), (5, 4), (0, (1 << 63) + 1), (1 << 70, 1 << 71)],
)
def test_places_outside_the_tree_are_refused(index: int, size: int) -> None:
    assert code_of(merkle.root_from_path, bytes(64), index, size, []) == "malformed.length_mismatch"


def test_hashes_of_another_length_and_empty_trees_are_refused() -> None:
    assert code_of(merkle.root, []) == "malformed.length_mismatch"
    assert code_of(merkle.root, [bytes(64), bytes(63)]) == "malformed.length_mismatch"
    assert code_of(merkle.path, [], 0) == "malformed.length_mismatch"
    assert code_of(merkle.path, leaves(3), 3) == "malformed.length_mismatch"
    assert code_of(merkle.root_from_path, bytes(32), 0, 1, []) == "malformed.length_mismatch"
    assert code_of(merkle.root_from_path, bytes(64), 0, 2, [bytes(65)]) == "malformed.length_mismatch"
    assert (
        code_of(merkle.root_from_path, bytes(64), 0, 1 << 63, [bytes(64)] * 1000)
        == "malformed.length_mismatch"
    )
