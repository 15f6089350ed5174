# SPDX-License-Identifier: Apache-2.0
"""Deadlines, bounds and lost threads of the pool that runs models."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from confide.errors import ConfideError, EnclaveError, ModelError
from confide.serving.worker_pool import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Coroutine


class Held:
    """A run that lasts until it is let go; ``stubborn`` ones do not react when they are cancelled."""

    def __init__(self, value: int = 0, *, stubborn: bool = False) -> None:
        self.value = value
        self.stubborn = stubborn
        self.started = threading.Event()
        self.let_go = threading.Event()
        self.cancelled = 0

    def cancel(self) -> None:
        self.cancelled += 1
        if not self.stubborn:
            self.let_go.set()

    def __call__(self) -> dict[str, Any]:
        self.started.set()
        assert self.let_go.wait(20)
        if self.cancelled and not self.stubborn:
            raise EnclaveError("deadline", "ended")
        return {"value": self.value}


class Quick(Held):
    def __call__(self) -> dict[str, Any]:
        self.started.set()
        return {"value": self.value}


class Failing(Held):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def __call__(self) -> dict[str, Any]:
        raise self.error


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, 30))


async def until(condition: Any) -> None:
    while not condition():  # noqa: ASYNC110 - the state belongs to another thread
        await asyncio.sleep(0.005)


async def code_of(awaitable: Any) -> str:
    try:
        await awaitable
    except ConfideError as error:
        return error.code
    return ""


def test_a_run_gives_its_outputs() -> None:
    async def scene() -> None:
        pool = WorkerPool(workers=1, waiting=1)
        assert await pool.run(Quick(7), deadline=5) == {"value": 7}
        assert pool.in_flight == 0
        pool.close()

    run(scene())


def test_the_next_request_beyond_the_queue_is_refused_and_room_comes_back() -> None:
    async def scene() -> None:
        pool = WorkerPool(workers=1, waiting=1)
        held = [Held(1), Held(2)]
        tasks = [asyncio.ensure_future(pool.run(item, deadline=10)) for item in held]
        await until(held[0].started.is_set)
        assert await code_of(pool.run(Quick(), deadline=5)) == "enclave.overloaded"
        for item in held:
            item.let_go.set()
        assert [answer["value"] for answer in await asyncio.gather(*tasks)] == [1, 2]
        assert await pool.run(Quick(3), deadline=5) == {"value": 3}
        pool.close()

    run(scene())


def test_rt_07_a_run_over_its_deadline_is_cancelled_and_the_next_is_untouched() -> None:
    async def scene() -> None:
        pool = WorkerPool(workers=1, waiting=4, grace=0.05)
        slow, other = Held(), Quick(2)
        assert await code_of(pool.run(slow, deadline=0.05)) == "enclave.deadline"
        assert slow.cancelled == 1
        assert await pool.run(other, deadline=5) == {"value": 2}
        await asyncio.sleep(0.15)
        assert other.cancelled == 0
        assert pool.healthy
        assert pool.in_flight == 0
        pool.close()

    run(scene())


def test_rt_07_the_deadline_covers_the_wait_and_a_waiting_run_never_starts() -> None:
    async def scene() -> None:
        pool = WorkerPool(workers=1, waiting=4, max_lost=0, grace=0.05)
        first, second = Held(1), Held(2)
        task = asyncio.ensure_future(pool.run(first, deadline=10))
        await until(first.started.is_set)
        assert await code_of(pool.run(second, deadline=0.05)) == "enclave.deadline"
        await asyncio.sleep(0.15)
        assert pool.healthy
        first.let_go.set()
        assert await task == {"value": 1}
        assert await pool.run(Quick(3), deadline=5) == {"value": 3}
        assert not second.started.is_set()
        pool.close()

    run(scene())


def test_rt_07_a_run_that_cannot_be_stopped_costs_a_thread_and_not_the_service() -> None:
    async def scene() -> None:
        pool = WorkerPool(workers=1, waiting=1, max_lost=1, grace=0.05)
        stuck = Held(stubborn=True)
        assert await code_of(pool.run(stuck, deadline=0.05)) == "enclave.deadline"
        assert await pool.run(Quick(2), deadline=5) == {"value": 2}
        assert pool.healthy
        again = Held(stubborn=True)
        assert await code_of(pool.run(again, deadline=0.05)) == "enclave.deadline"
        await until(lambda: not pool.healthy)
        assert await code_of(pool.run(Quick(), deadline=5)) == "enclave.deadline"
        stuck.let_go.set()
        await until(lambda: pool.healthy)
        again.let_go.set()
        pool.close()

    run(scene())


def test_a_caller_that_goes_away_frees_the_worker() -> None:
    async def scene() -> None:
        pool = WorkerPool(workers=1, waiting=0, grace=0.05)
        held = Held()
        task = asyncio.ensure_future(pool.run(held, deadline=10))
        await until(held.started.is_set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: pool.in_flight == 0)
        assert held.cancelled == 1
        assert await pool.run(Quick(5), deadline=5) == {"value": 5}
        pool.close()

    run(scene())


def test_leak_02_an_unknown_failure_crosses_as_a_code_only() -> None:
    async def scene() -> None:
        pool = WorkerPool(workers=1, waiting=0)
        for error in (ValueError("canary-51"), SystemExit("canary-51"), KeyboardInterrupt("canary-51")):
            with pytest.raises(EnclaveError) as caught:
                await pool.run(Failing(error), deadline=5)
            assert caught.value.code == "enclave.crashed"
            assert "canary" not in str(caught.value)
            assert caught.value.__cause__ is None
            assert caught.value.__context__ is None
        assert await code_of(pool.run(Failing(ModelError("schema", "m")), deadline=5)) == "model.schema"
        assert await pool.run(Quick(1), deadline=5) == {"value": 1}
        pool.close()

    run(scene())


def test_a_closed_pool_takes_nothing() -> None:
    async def scene() -> None:
        pool = WorkerPool(workers=2, waiting=2)
        pool.close()
        assert await code_of(pool.run(Quick(), deadline=5)) == "enclave.deadline"

    run(scene())


def test_rt_07_a_pool_that_gets_no_thread_for_a_lost_one_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit of threads is reached: the pool is not healthy, and nothing escapes into the event loop."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def scene() -> None:
        pool = WorkerPool(workers=1, waiting=1, max_lost=5, grace=0.05)
        stuck = Held(stubborn=True)
        task = asyncio.ensure_future(pool.run(stuck, deadline=0.05))
        await until(stuck.started.is_set)
        monkeypatch.setattr(threading.Thread, "start", refuse)
        assert await code_of(task) == "enclave.deadline"
        await until(lambda: not pool.healthy)
        assert await code_of(pool.run(Quick(), deadline=5)) == "enclave.deadline"
        stuck.let_go.set()

    run(scene())
