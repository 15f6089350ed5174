# SPDX-License-Identifier: Apache-2.0
"""The replay window: which of the last 1024 request numbers of a session are spent.

Source: ``docs/spec/envelope.md``, section 4; the shape is that of RFC 4303, section 3.4.3.
"""

from __future__ import annotations

from confide.errors import ChannelError

__all__ = ["WINDOW", "ReplayWindow"]

WINDOW = 1024
_MASK = (1 << WINDOW) - 1


class ReplayWindow:
    """Numbers from ``highest - 1023`` to ``highest``; bit ``d`` of ``seen`` is the number ``highest - d``."""

    __slots__ = ("_highest", "_seen")

    def __init__(self) -> None:
        self._highest = -1
        self._seen = 0

    def mark(self, seq: int) -> None:
        """Spend ``seq``; ``sequence`` if it is spent already or lies behind the window. The caller holds the lock."""
        ahead = seq - self._highest
        if ahead > 0:
            # A shift by a number the peer chose would allocate as many bits.
            self._seen = (self._seen << ahead | 1) & _MASK if ahead < WINDOW else 1
            self._highest = seq
            return
        bit = 1 << -ahead if -ahead < WINDOW else 0
        if not bit or self._seen & bit:
            raise ChannelError("sequence", "the request's number is spent or too old")
        self._seen |= bit
