# SPDX-License-Identifier: Apache-2.0
"""How much each peer may ask for: token buckets in bounded memory, on the monotonic clock."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from confide.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

__all__ = ["Buckets", "Rate"]


@dataclass(frozen=True, slots=True)
class Rate:
    """``burst`` at once, and ``per_minute`` on average."""

    burst: int
    per_minute: int


class Buckets:
    """One token bucket for each key; at most ``limit`` keys.

    When the table is full, keys whose buckets have filled up again are forgotten, which changes nothing for them; if there
    is none, the new key shares one bucket with all other newcomers, so that inventing keys is no way around the rate.
    """

    def __init__(self, rate: Rate, *, monotonic: Callable[[], float], limit: int = 4096) -> None:
        self._rate = rate
        self._monotonic = monotonic
        self._limit = limit
        self._lock = threading.Lock()
        self._levels: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def take(self, key: Hashable) -> None:
        """Spend one token of ``key``; ``broker.rate_limited`` if it has none."""
        with self._lock:
            now = self._monotonic()
            if key not in self._levels and len(self._levels) >= self._limit:
                self._forget_full(now)
                if len(self._levels) >= self._limit:
                    key = _NEWCOMERS
            level = self._level(key, now)
            if level < 1:
                self._levels[key] = (level, now)
                raise BrokerError(
                    "rate_limited", "too many requests", hint="try again in a minute", retryable=True
                )
            self._levels[key] = (level - 1, now)
            self._levels.move_to_end(key)

    def _level(self, key: Hashable, now: float) -> float:
        level, then = self._levels.get(key, (float(self._rate.burst), now))
        return min(float(self._rate.burst), level + max(0.0, now - then) * self._rate.per_minute / 60)

    def _forget_full(self, now: float) -> None:
        # The least recently used stand in front; a few looks each time keep this cheap.
        for key in list(self._levels)[:64]:
            if self._level(key, now) >= self._rate.burst:
                del self._levels[key]


_NEWCOMERS = object()
