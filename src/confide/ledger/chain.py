# SPDX-License-Identifier: Apache-2.0
"""An append-only chain of records: each head commits to every record before it and to their order."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from confide.errors import SealingError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["GENESIS", "HASH", "Chain", "link", "verify"]

HASH = 64
_DOMAIN = b"confide/chain/1"
GENESIS = hashlib.sha512(_DOMAIN + b"\x00").digest()
"""The head of the chain without records."""


def link(head: bytes, record: bytes) -> bytes:
    """The head after ``record``: SHA-512("confide/chain/1" || 0x01 || head || SHA-512(record)), 64 bytes."""
    if len(head) != HASH:
        raise SealingError("integrity", f"the head of a chain has {HASH} bytes")
    return hashlib.sha512(_DOMAIN + b"\x01" + head + hashlib.sha512(record).digest()).digest()


@dataclass(frozen=True, slots=True)
class Chain:
    """Where a chain has come to: its head (64 bytes) and how many records it holds."""

    head: bytes = GENESIS
    length: int = 0

    def append(self, record: bytes) -> Self:
        """The chain with ``record`` at its end."""
        return type(self)(link(self.head, record), self.length + 1)


def verify(records: Iterable[bytes], head: bytes) -> Chain:
    """Check that ``records``, from the first, lead to ``head``; ``sealing.integrity`` if one is missing, added or changed."""
    chain = Chain()
    for record in records:
        chain = chain.append(record)
    if not hmac.compare_digest(chain.head, head):
        raise SealingError("integrity", "the records do not lead to the head that was kept for them")
    return chain
