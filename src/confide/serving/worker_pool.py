# SPDX-License-Identifier: Apache-2.0
"""Runs models in threads of their own, with a deadline for each, so that no model can hold up what is not its own.

A run that is over its deadline is asked to stop. One that does not stop within a grace is given up: its thread is
replaced, so that others are served, and retires when it comes back. Threads cannot be killed, so when too many are
lost that way the pool says that it is not healthy, takes nothing more, and the host has to start the enclave anew.

The bookkeeping is the event loop's alone, except for the one lock that decides whether a run came back in time.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from typing import TYPE_CHECKING, Any, Final

from confide.errors import ConfideError, EnclaveError

if TYPE_CHECKING:
    from confide.frameworks.contract import Run

__all__ = ["WorkerPool"]

_GRACE: Final = 1.0


class _Job:
    __slots__ = ("abandoned", "counted", "finished", "future", "loop", "lost", "run", "started")

    def __init__(self, run: Run, loop: asyncio.AbstractEventLoop) -> None:
        self.run = run
        self.loop = loop
        self.future: asyncio.Future[dict[str, Any]] = loop.create_future()
        self.abandoned = False
        self.started = False
        self.finished = False
        self.lost = False
        self.counted = True


class WorkerPool:
    """``workers`` runs at a time, ``waiting`` more in a queue; the next is refused with ``enclave.overloaded``.

    ``grace`` is in seconds. Used from one event loop; nothing of it keeps the interpreter from ending.
    """

    def __init__(
        self, *, workers: int, waiting: int, max_lost: int | None = None, grace: float = _GRACE
    ) -> None:
        self._capacity = workers + waiting
        self._grace = grace
        self._max_lost = workers if max_lost is None else max_lost
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._in_flight = 0
        self._lost = 0
        self._workers = workers
        self._closed = False
        for _ in range(workers):
            self._start()

    @property
    def healthy(self) -> bool:
        """Whether runs are taken: not closed, and not more threads lost to runs than may be."""
        return not self._closed and self._lost <= self._max_lost

    @property
    def in_flight(self) -> int:
        """Runs that are waiting or being worked on; runs that were given up do not count."""
        return self._in_flight

    async def run(self, run: Run, *, deadline: float) -> dict[str, Any]:
        """The outputs of a run that ends within ``deadline`` seconds, the wait for a thread included.

        Raises EnclaveError ``overloaded``, ``deadline`` or ``crashed``, and what the run itself raises. When the caller
        is cancelled (its client went away), so is the run.
        """
        if not self.healthy:
            raise EnclaveError(
                "deadline", "the enclave has lost its workers to runs that never ended", retryable=True
            )
        if self._in_flight >= self._capacity:
            raise EnclaveError(
                "overloaded",
                "the enclave has as many requests as it takes",
                hint="try again later",
                retryable=True,
            )
        loop = asyncio.get_running_loop()
        job = _Job(run, loop)
        self._in_flight += 1
        self._jobs.put(job)
        try:
            async with asyncio.timeout(deadline):
                return await job.future
        except TimeoutError:
            self._abandon(job)
            raise EnclaveError(
                "deadline",
                "the model did not answer within the deadline",
                hint="the deadline is part of the service",
            ) from None
        except asyncio.CancelledError:
            self._abandon(job)
            raise

    def close(self) -> None:
        """Take nothing more, and let threads end after what they are doing."""
        if not self._closed:
            self._closed = True
            for _ in range(self._workers):
                self._jobs.put(None)

    def _start(self) -> None:
        threading.Thread(target=self._work, name="model", daemon=True).start()

    def _abandon(self, job: _Job) -> None:
        job.abandoned = True
        job.run.cancel()
        job.loop.call_later(self._grace, self._give_up, job)

    def _give_up(self, job: _Job) -> None:
        with self._lock:
            if job.finished or not job.started:
                return  # A run that still waits is skipped by the thread that comes to it.
            job.lost = True
        self._lost += 1
        self._release(job)
        if self.healthy:
            try:
                self._start()
            except RuntimeError:
                self._max_lost = -1  # No thread is to be had any more: not healthy, whoever comes back.

    def _release(self, job: _Job) -> None:
        if job.counted:
            job.counted = False
            self._in_flight -= 1

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            outputs: dict[str, Any] = {}
            error: ConfideError | None = None
            with self._lock:
                job.started = not job.abandoned
            if job.started:
                try:
                    outputs = job.run()
                except ConfideError as raised:
                    error = raised
                except BaseException:  # noqa: BLE001 - a thread must not die silently, and no text may leave it.
                    error = EnclaveError("crashed", "the model failed")
            with self._lock:
                job.finished = True
                lost = job.lost
            try:
                job.loop.call_soon_threadsafe(self._settle, job, outputs, error)
            except RuntimeError:
                return  # The loop is closed, and with it the service.
            if lost:
                return

    def _settle(self, job: _Job, outputs: dict[str, Any], error: ConfideError | None) -> None:
        self._release(job)
        if job.lost:
            self._lost -= 1
        if job.future.done():
            return
        if error is not None:
            job.future.set_exception(error)
        else:
            job.future.set_result(outputs)
