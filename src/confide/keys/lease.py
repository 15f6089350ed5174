# SPDX-License-Identifier: Apache-2.0
"""Leases: a released secret is used for so long, and then renewed or erased.

A lease runs on the monotonic clock of whoever holds it, from before its request left, so that a slow network shortens it
and never lengthens it. It binds an honest enclave, which is what was attested; it cannot recall a copy. The host can slow
the clocks of some TEEs; what then remains is that the broker refuses to renew.

Specification: docs/spec/broker.md section 8.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from confide.errors import BrokerError, ConfideError, ConfigurationError, EnclaveError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from confide.crypto.secret import Secret
    from confide.keys.receiver import Receiver
    from confide.keys.release import SecretName

__all__ = ["Lease", "LeaseKeeper", "LeaseSource"]

RENEW_AT: Final = 0.5
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0


@dataclass(frozen=True, slots=True)
class Lease:
    """Secrets of one owner and the monotonic time, in seconds, at which they must be erased. ``seconds`` is the lease's
    length; 0 means that there is none, and ``expires`` is infinite then.
    """

    owner: bytes
    secrets: Mapping[SecretName, Secret] = field(repr=False)
    seconds: int
    began: float

    @property
    def expires(self) -> float:
        """When the secrets must be erased, on the monotonic clock."""
        return self.began + self.seconds if self.seconds else float("inf")

    @property
    def renew_at(self) -> float:
        """When to ask again: half-way."""
        return self.began + self.seconds * RENEW_AT if self.seconds else float("inf")

    def erase(self) -> None:
        """Erase every secret. Idempotent."""
        for secret in self.secrets.values():
            secret.erase()


class LeaseSource(Protocol):
    """What a keeper asks: ``confide.keys.broker_client.AsyncBrokerClient``."""

    async def fetch(self, receiver: Receiver, *, owner: bytes, tenant: str, names: Iterable[str]) -> Lease:
        """Attest to the broker and get secrets under a lease."""
        ...


class LeaseKeeper:
    """Holds an enclave's leased secrets, renews them, and erases them when that fails.

        keeper = LeaseKeeper(broker, receiver, on_lost, tenant="acme", wanted={owner: ("weights",)})
        secrets = await keeper.acquire()          # once; raises what the broker says
        await keeper.run()                        # a task, until the leases are lost or it is cancelled

    ``wanted`` maps an owner's public key to the names that come from that owner. ``on_lost`` is awaited once, after every
    secret was erased, with the error that made it so; the runtime stops the service then. A refusal by the broker ends the
    leases at once; a broker that cannot be reached or cannot decide is asked again, less and less often, until the first lease ends. A
    renewal gives the same versions, so the secrets that the service already holds stay the same objects. An error that nobody
    foresaw ends the leases as well (``enclave.crashed``).
    """

    def __init__(
        self,
        broker: LeaseSource,
        receiver: Receiver,
        on_lost: Callable[[ConfideError], Awaitable[None]],
        *,
        tenant: str,
        wanted: Mapping[bytes, Iterable[str]],
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._broker = broker
        self._receiver = receiver
        self._on_lost = on_lost
        self._tenant = tenant
        self._wanted = {owner: tuple(sorted(set(names))) for owner, names in wanted.items()}
        every = [name for names in self._wanted.values() for name in names]
        if not every or len(set(every)) != len(every):
            raise ConfigurationError("invalid", "a lease keeper wants each name from exactly one owner")
        self._monotonic = monotonic
        self._sleep = sleep
        self._leases: dict[bytes, Lease] = {}
        self._lost = False

    @property
    def expires(self) -> float:
        """The monotonic time at which the first lease ends; infinite if none does."""
        return min((lease.expires for lease in self._leases.values()), default=float("inf"))

    async def acquire(self) -> Mapping[str, Secret]:
        """Fetch everything that is wanted, by name. If one part is refused, what came before it is erased."""
        try:
            for owner in self._wanted:
                self._leases[owner] = await self._fetch(owner)
        except BaseException:
            self.erase()
            raise
        return {
            name.name: secret for lease in self._leases.values() for name, secret in lease.secrets.items()
        }

    async def run(self) -> None:
        """Renew until the leases are lost; returns after ``on_lost``. A cancelled keeper erases its secrets."""
        try:
            pause = FIRST_PAUSE
            while True:
                due = min((lease.renew_at for lease in self._leases.values()), default=float("inf"))
                if due == float("inf"):
                    await self._sleep(LONGEST_PAUSE)
                    continue
                # Short naps: after a suspended machine wakes up, a long one would oversleep the end of the lease.
                await self._sleep(max(0.0, min(due - self._monotonic(), LONGEST_PAUSE)))
                try:
                    self._check()
                    await self._renew()
                    pause = FIRST_PAUSE
                except ConfideError as error:
                    if _is_decision(error) or self._monotonic() >= self.expires:
                        await self._lose(error)
                        return
                    await self._sleep(max(0.0, min(pause, self.expires - self._monotonic())))
                    pause = min(pause * 2, LONGEST_PAUSE)
        except Exception as error:  # noqa: BLE001 - a keeper that just died would leave a service that nothing ends
            await self._lose(
                EnclaveError("crashed", f"the leases could not be renewed: {type(error).__name__}")
            )
        finally:
            self.erase()

    def erase(self) -> None:
        """Erase every secret now. Idempotent."""
        for lease in self._leases.values():
            lease.erase()

    async def _renew(self) -> None:
        for owner, lease in list(self._leases.items()):
            if self._monotonic() < lease.renew_at:
                continue
            # The first end of all leases bounds the wait: whoever holds up one renewal must not lengthen another lease.
            remaining = self.expires - self._monotonic()
            try:
                async with asyncio.timeout(max(0.0, remaining)):
                    renewed = await self._fetch(owner)
            except TimeoutError:
                raise BrokerError(
                    "lease_expired", "the broker did not renew a lease in time", retryable=True
                ) from None
            self._check()
            self._leases[owner] = self._take_over(lease, renewed)

    def _take_over(self, lease: Lease, renewed: Lease) -> Lease:
        try:
            if renewed.secrets != lease.secrets:
                raise BrokerError(
                    "conflict",
                    "the broker renewed a lease with other secrets or versions",
                    hint="a service takes a new version of a secret by starting anew",
                )
        finally:
            renewed.erase()
        return Lease(lease.owner, lease.secrets, renewed.seconds, renewed.began)

    def _check(self) -> None:
        if self._monotonic() >= self.expires:
            raise BrokerError("lease_expired", "a lease ended before it was renewed")

    async def _lose(self, error: ConfideError) -> None:
        self.erase()
        if not self._lost:
            self._lost = True
            await self._on_lost(error)

    async def _fetch(self, owner: bytes) -> Lease:
        return await self._broker.fetch(
            self._receiver, owner=owner, tenant=self._tenant, names=self._wanted[owner]
        )


def _is_decision(error: ConfideError) -> bool:
    """Whether asking again is useless: the broker has decided about this enclave. Whatever else goes wrong (the network, a
    broker that is busy, was restarted or cannot read its database) may pass while the lease lasts.
    """
    return error.code in {"broker.denied", "broker.not_attested", "broker.conflict", "broker.lease_expired"}
