# SPDX-License-Identifier: Apache-2.0
"""Leases: renewed in time, or erased; never used a moment longer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from confide.crypto.secret import Secret
from confide.errors import (
    BrokerError,
    ChannelError,
    ConfideError,
    ConfigurationError,
    KeyRefused,
    SealingError,
)
from confide.keys.lease import Lease, LeaseKeeper
from confide.keys.release import SecretName

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

OWNER, SECOND = b"o" * 32, b"p" * 32
HOUR = 3600


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.naps: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


class Broker:
    """Answers as it is told, in order; then always as the last time."""

    def __init__(
        self, clock: Clock, *answers: int | ConfideError | Callable[[], Any], takes: float = 0.0
    ) -> None:
        self.clock = clock
        self.answers = list(answers)
        self.takes = takes
        self.asked: list[float] = []
        self.given: list[Lease] = []
        self.versions = 1

    async def fetch(self, receiver: object, *, owner: bytes, tenant: str, names: Iterable[str]) -> Lease:
        assert tenant == "acme"
        self.asked.append(self.clock.now)
        began = self.clock.now
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.clock.now += self.takes
        if isinstance(answer, ConfideError):
            raise answer
        if callable(answer):
            answer = await answer()
        secrets = {SecretName(name, self.versions): Secret(name.encode()) for name in names}
        self.given.append(Lease(owner, secrets, answer, began))
        return self.given[-1]


class Story:
    """One keeper, and what became of it."""

    def __init__(
        self, *answers: Any, wanted: dict[bytes, tuple[str, ...]] | None = None, takes: float = 0.0
    ) -> None:
        self.clock = Clock()
        self.broker = Broker(self.clock, *answers, takes=takes)
        self.lost: list[tuple[float, str]] = []
        self.keeper = LeaseKeeper(
            self.broker,
            object(),  # type: ignore[arg-type]
            self.on_lost,
            tenant="acme",
            wanted=wanted or {OWNER: ("weights",)},
            monotonic=self.clock,
            sleep=self.clock.sleep,
        )

    async def on_lost(self, error: ConfideError) -> None:
        for secret in self.secrets.values():
            with pytest.raises(ConfideError):
                secret.reveal()  # Erased before anybody is told.
        self.lost.append((self.clock.now, error.code))

    async def acquire(self) -> None:
        self.secrets = await self.keeper.acquire()

    async def live(self) -> None:
        await self.acquire()
        await self.keeper.run()


async def run_until(story: Story, when: float) -> None:
    """Let the keeper run up to a time, then cancel it."""
    task = asyncio.create_task(story.keeper.run())
    while story.clock.now < when and not task.done():  # noqa: ASYNC110 - time passes while the keeper sleeps
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_secrets_are_renewed_half_way_and_stay_the_same_objects() -> None:
    async def story() -> None:
        it = Story(HOUR)
        await it.acquire()
        secret = it.secrets["weights"]
        task = asyncio.create_task(it.keeper.run())
        while it.clock.now < 3 * HOUR:  # noqa: ASYNC110 - time passes while the keeper sleeps
            await asyncio.sleep(0)
        assert secret.reveal() == b"weights"
        assert it.broker.asked[:4] == [0.0, HOUR / 2, HOUR, 3 * HOUR / 2]
        # The copies that renewals brought are not left lying about.
        for lease in it.broker.given[1:]:
            for copy in lease.secrets.values():
                with pytest.raises(ConfideError):
                    copy.reveal()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(ConfideError):
            secret.reveal()  # A cancelled keeper erases.
        assert it.lost == []

    asyncio.run(story())


@pytest.mark.parametrize("error", [KeyRefused("denied", "no"), KeyRefused("not_attested", "no")])
def test_a_refusal_ends_the_lease_at_once(error: ConfideError) -> None:
    it = Story(HOUR, error)
    asyncio.run(it.live())
    assert it.lost == [(HOUR / 2, error.code)]


@pytest.mark.parametrize(
    "error",
    [
        ChannelError("closed", "gone"),
        BrokerError("rate_limited", "busy", retryable=True),
        BrokerError("unanchored", "restarted"),
        BrokerError("integrity", "damaged"),
        SealingError("storage_io", "disk", retryable=True),
    ],
)
def test_a_broker_that_cannot_be_reached_is_asked_until_the_lease_ends_and_no_longer(
    error: ConfideError,
) -> None:
    it = Story(HOUR, error)
    asyncio.run(it.live())
    ((when, _),) = it.lost
    assert when == HOUR
    pauses = [b - a for a, b in zip(it.broker.asked[1:], it.broker.asked[2:], strict=False)]
    assert pauses[:4] == [1.0, 2.0, 4.0, 8.0]
    assert max(pauses) == 60.0
    assert len(it.broker.asked) < 60


def test_an_outage_that_passes_costs_nothing() -> None:
    async def story() -> None:
        gone = ChannelError("closed", "gone")
        it = Story(HOUR, gone, gone, HOUR)
        await it.acquire()
        await run_until(it, 1.4 * HOUR)
        assert it.lost == []
        assert it.broker.asked[1:4] == [1800.0, 1801.0, 1803.0]

    asyncio.run(story())


def test_a_lease_counts_from_before_the_request_left() -> None:
    """A slow answer shortens it: asked at half-way, it begins when it was asked."""

    async def story() -> None:
        it = Story(HOUR, takes=100.0)
        await it.acquire()
        assert it.keeper.expires == HOUR
        await run_until(it, HOUR)
        assert it.broker.given[1].began == HOUR / 2

    asyncio.run(story())


def test_an_answer_that_comes_after_the_end_is_too_late() -> None:
    it = Story(HOUR, takes=0.0)

    async def slow() -> int:
        it.clock.now += HOUR
        return HOUR

    it.broker.answers = [HOUR, slow]
    asyncio.run(it.live())
    assert [code for _, code in it.lost] == ["broker.lease_expired"]


def test_a_machine_that_slept_through_the_end_finds_its_secrets_gone() -> None:
    async def story() -> None:
        it = Story(HOUR)
        await it.acquire()
        it.clock.now = 2.0 * HOUR
        await it.keeper.run()
        assert it.lost == [(2.0 * HOUR, "broker.lease_expired")]
        assert len(it.broker.asked) == 1

    asyncio.run(story())


def test_naps_are_short_so_that_a_suspended_machine_does_not_oversleep() -> None:
    async def story() -> None:
        it = Story(HOUR)
        await it.acquire()
        await run_until(it, HOUR)
        assert max(it.clock.naps) <= 60.0

    asyncio.run(story())


def test_other_secrets_under_the_same_name_end_the_lease() -> None:
    async def story() -> None:
        it = Story(HOUR)
        await it.acquire()
        it.broker.versions = 2
        await it.keeper.run()
        assert [code for _, code in it.lost] == ["broker.conflict"]

    asyncio.run(story())


def test_each_owner_is_asked_and_one_refusal_erases_everything() -> None:
    async def story() -> None:
        it = Story(HOUR, wanted={OWNER: ("weights",), SECOND: ("table",)})
        await it.acquire()
        assert {name: secret.reveal() for name, secret in it.secrets.items()} == {
            "weights": b"weights",
            "table": b"table",
        }
        it.broker.answers = [HOUR, KeyRefused("denied", "no")]
        await it.keeper.run()
        assert [code for _, code in it.lost] == ["broker.denied"]

    asyncio.run(story())


def test_kb_13_a_renewal_that_is_held_up_does_not_lengthen_another_owners_lease() -> None:
    """The host stalls the renewal of the long lease; the short one of the other owner ends when it ends."""

    async def story() -> None:
        it = Story(0, wanted={OWNER: ("weights",), SECOND: ("table",)})
        stalled = asyncio.Event()

        async def fetch(_: object, *, owner: bytes, tenant: str, names: Iterable[str]) -> Lease:
            secrets = {SecretName(name, 1): Secret(name.encode()) for name in names}
            if owner == OWNER and it.clock.now:
                stalled.set()
                await asyncio.Event().wait()
            return Lease(owner, secrets, 1000 if owner == OWNER else 1, it.clock.now)

        it.broker.fetch = fetch  # type: ignore[method-assign, assignment]
        await it.acquire()
        keeping = asyncio.create_task(it.keeper.run())
        await stalled.wait()
        await asyncio.wait_for(keeping, 5)  # The long lease would have 500 s left.
        assert [code for _, code in it.lost] == ["broker.lease_expired"]

    asyncio.run(story())


def test_an_error_that_nobody_foresaw_ends_the_leases_and_the_service() -> None:
    """Or the task would die unseen, and what was built from the secrets would be served for ever."""

    def unforeseen() -> int:
        raise ZeroDivisionError

    async def story() -> None:
        it = Story(HOUR, unforeseen)
        await it.live()
        assert it.lost == [(HOUR / 2, "enclave.crashed")]

    asyncio.run(story())


def test_what_came_before_a_refusal_is_erased_when_acquiring() -> None:
    async def story() -> None:
        it = Story(HOUR, KeyRefused("denied", "no"), wanted={OWNER: ("weights",), SECOND: ("table",)})
        with pytest.raises(KeyRefused):
            await it.acquire()
        (first,) = it.broker.given
        for secret in first.secrets.values():
            with pytest.raises(ConfideError):
                secret.reveal()
        assert it.lost == []

    asyncio.run(story())


def test_a_lease_of_zero_never_ends() -> None:
    async def story() -> None:
        it = Story(0)
        await it.acquire()
        await run_until(it, 1000.0 * HOUR)
        assert len(it.broker.asked) == 1
        assert it.lost == []

    asyncio.run(story())


@pytest.mark.parametrize(
    "wanted",
    [{}, {OWNER: ()}, {OWNER: ("same",), SECOND: ("same",)}],
    ids=["nobody", "nothing", "one name of two owners"],
)
def test_a_keeper_wants_each_name_from_exactly_one_owner(wanted: dict[bytes, tuple[str, ...]]) -> None:
    async def never(_: ConfideError) -> None: ...

    with pytest.raises(ConfigurationError):
        LeaseKeeper(Broker(Clock(), 1), object(), never, tenant="acme", wanted=wanted)  # type: ignore[arg-type]


def test_a_lease_does_not_show_its_secrets() -> None:
    lease = Lease(OWNER, {SecretName("weights", 1): Secret(b"canary")}, 60, 0.0)
    assert "canary" not in repr(lease)
    assert "weights" not in repr(lease)
