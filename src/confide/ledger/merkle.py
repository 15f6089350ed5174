# SPDX-License-Identifier: Apache-2.0
"""Merkle trees of the shape of RFC 9162, section 2.1, with SHA-512 and given leaf hashes of 64 bytes.

Leaves are hashes that were made with the prefix 0x00 by the caller; a node is SHA-512(0x01 || left || right), so a node
cannot be passed off as a leaf.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from confide.errors import MalformedError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["HASH", "path", "paths", "root", "root_from_path"]

HASH = 64


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha512(b"\x01" + left + right).digest()


def _levels(leaves: Sequence[bytes]) -> list[list[bytes]]:
    """The tree from its leaves upwards; a last node without a sibling moves up unchanged."""
    if not leaves:
        raise MalformedError("length_mismatch", "a tree needs at least one leaf")
    if any(len(leaf) != HASH for leaf in leaves):
        raise MalformedError("length_mismatch", f"a leaf is a hash of {HASH} bytes")
    levels = [list(leaves)]
    while len(levels[-1]) > 1:
        below = levels[-1]
        above = [_node(below[i], below[i + 1]) for i in range(0, len(below) - 1, 2)]
        if len(below) % 2:
            above.append(below[-1])
        levels.append(above)
    return levels


def root(leaves: Sequence[bytes]) -> bytes:
    """The root over ``leaves``; a tree of one leaf is that leaf."""
    return _levels(leaves)[-1][0]


def path(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """The inclusion path of the leaf at ``index``, from its sibling upwards."""
    if not 0 <= index < len(leaves):
        raise MalformedError("length_mismatch", "the index lies outside the tree")
    found: list[bytes] = []
    for level in _levels(leaves)[:-1]:
        sibling = index ^ 1
        if sibling < len(level):
            found.append(level[sibling])
        index >>= 1
    return tuple(found)


def paths(leaves: Sequence[bytes]) -> tuple[tuple[bytes, ...], ...]:
    """The inclusion paths of all leaves. The tree is built once: one by one, a batch of thousands would take seconds."""
    levels = _levels(leaves)[:-1]
    found = []
    for index in range(len(leaves)):
        steps = ((level, (index >> depth) ^ 1) for depth, level in enumerate(levels))
        found.append(tuple(level[sibling] for level, sibling in steps if sibling < len(level)))
    return tuple(found)


def root_from_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """The root that ``path`` leads to from ``leaf`` at ``index`` in a tree of ``size`` leaves.

    The path must have exactly the length that index and size demand: ``malformed.length_mismatch`` otherwise. That the
    result is the right root is for the caller to compare. Source: RFC 9162, section 2.1.3.2.
    """
    if not 0 <= index < size or size > 1 << 63:
        raise MalformedError("length_mismatch", "the index lies outside the tree")
    if len(leaf) != HASH or any(len(node) != HASH for node in path):
        raise MalformedError("length_mismatch", f"a node is a hash of {HASH} bytes")
    if len(path) > 63:
        raise MalformedError("length_mismatch", "the inclusion path is too long for the tree")
    found = leaf
    last = size - 1
    rest = list(path)
    while last:
        if index & 1 or index < last:
            if not rest:
                raise MalformedError("length_mismatch", "the inclusion path is too short for the tree")
            sibling = rest.pop(0)
            found = _node(sibling, found) if index & 1 else _node(found, sibling)
        index >>= 1
        last >>= 1
    if rest:
        raise MalformedError("length_mismatch", "the inclusion path is too long for the tree")
    return found
