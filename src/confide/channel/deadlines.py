# SPDX-License-Identifier: Apache-2.0
"""Deadlines for many exchanges at once, watched by one timer.

``asyncio.timeout`` arms a timer of the event loop for every wait, which costs more than opening a frame. Here a wait only enters
a set, and one timer looks at the set a few times per deadline: a wait may last up to a quarter longer than it should.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Deadlines"]


class _Wait:
    """One wait of one task; ``TimeoutError`` if it lasts beyond its time. A plain context manager around awaits."""

    __slots__ = ("_deadlines", "at", "expired", "seconds", "task")

    def __init__(self, deadlines: Deadlines, seconds: float) -> None:
        self._deadlines = deadlines
        self.seconds = seconds
        self.at = 0.0
        self.expired = False
        self.task: asyncio.Task[object] | None = None

    def __enter__(self) -> None:
        deadlines = self._deadlines
        self.at = deadlines.loop.time() + self.seconds
        self.task = asyncio.current_task()
        deadlines.waits.add(self)
        deadlines.watch(self.seconds)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deadlines.waits.discard(self)
        if self.expired and self.task is not None:
            still = self.task.uncancel()
            # If somebody else wants the task to end as well, that goes first.
            if still == 0 and kind is asyncio.CancelledError:
                raise TimeoutError from error


class Deadlines:
    """The waits of one event loop that have a deadline."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.waits: set[_Wait] = set()
        self._timer: asyncio.TimerHandle | None = None

    def within(self, seconds: float) -> _Wait:
        """``with deadlines.within(10): await ...``"""
        return _Wait(self, seconds)

    def watch(self, seconds: float) -> None:
        """Look at the waits again soon enough for one of ``seconds``."""
        timer = self._timer
        soon = seconds / 4
        if timer is None or timer.when() > self.loop.time() + soon:
            if timer is not None:
                timer.cancel()
            self._timer = self.loop.call_later(soon, self._look)

    def close(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        now = self.loop.time()
        shortest = None
        for wait in self.waits:
            if wait.expired:
                continue
            if now >= wait.at and wait.task is not None:
                wait.expired = True
                wait.task.cancel()
            elif shortest is None or wait.seconds < shortest:
                shortest = wait.seconds
        if shortest is not None:
            self.watch(shortest)
