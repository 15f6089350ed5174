# SPDX-License-Identifier: Apache-2.0
"""Challenges that a releaser has outstanding: each leads to at most one decision, and their number is bounded."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from confide.errors import BrokerError, ConfigurationError, NotAcceptable
from confide.keys.release import CHALLENGE_BYTES, ReleaseRequest, SecretName

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Challenges", "Presented"]

_SPENT_KEPT: Final = 4096


@dataclass(frozen=True, slots=True)
class Presented:
    """A request whose challenge has just been spent, and how long ago it was issued, on the releaser's monotonic clock."""

    request: ReleaseRequest
    age: timedelta


class Challenges:
    """The table of outstanding challenges of one releaser (BND-02 to BND-04).

    ``lifetime`` is in seconds. At ``limit`` outstanding challenges a new one is refused with ``broker.rate_limited``
    rather than an old one forgotten, since the newest requests are the attacker's. ``present`` spends a challenge whatever
    comes of it. Safe to call from several threads.
    """

    def __init__(
        self,
        *,
        monotonic: Callable[[], float],
        random: Callable[[int], bytes] = os.urandom,
        lifetime: float = 120.0,
        limit: int = 4096,
    ) -> None:
        if lifetime <= 0 or limit < 1:
            raise ConfigurationError("invalid", "challenges need a lifetime and a limit above zero")
        self._monotonic = monotonic
        self._random = random
        self._lifetime = lifetime
        self._limit = limit
        self._lock = threading.Lock()
        self._issued: OrderedDict[bytes, tuple[ReleaseRequest, float]] = OrderedDict()
        self._spent: OrderedDict[bytes, None] = OrderedDict()

    def issue(self, tenant: str, secrets: Iterable[SecretName]) -> ReleaseRequest:
        """A request with a fresh challenge."""
        request = ReleaseRequest.new(tenant, secrets, self._random(CHALLENGE_BYTES))
        with self._lock:
            now = self._monotonic()
            while self._issued:
                _, issued = next(iter(self._issued.values()))
                if now - issued <= self._lifetime:
                    break
                self._issued.popitem(last=False)
            if len(self._issued) >= self._limit:
                raise BrokerError("rate_limited", "too many challenges are outstanding", retryable=True)
            if request.challenge in self._issued or request.challenge in self._spent:
                raise BrokerError("integrity", "the source of randomness gave the same challenge twice")
            self._issued[request.challenge] = (request, now)
        return request

    def present(self, challenge: bytes) -> Presented:
        """Spend ``challenge`` and give back what was asked for under it.

        Raises ``not_acceptable.nonce_reused`` if it was presented before, ``nonce_mismatch`` if it was never issued here
        (or so long ago that it is forgotten), ``stale`` if it is older than its lifetime.
        """
        with self._lock:
            issued = self._issued.pop(challenge, None)
            if issued is None:
                if challenge in self._spent:
                    raise NotAcceptable(
                        "nonce_reused", "the challenge has been answered already", stage="release"
                    )
                raise NotAcceptable("nonce_mismatch", "the challenge is not one of ours", stage="release")
            self._spent[challenge] = None
            while len(self._spent) > _SPENT_KEPT:
                self._spent.popitem(last=False)
            request, when = issued
            age = self._monotonic() - when
        if not 0 <= age <= self._lifetime:
            raise NotAcceptable(
                "stale", "the challenge is too old", hint="ask for a new challenge", stage="release"
            )
        return Presented(request, timedelta(seconds=age))
