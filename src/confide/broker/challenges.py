# SPDX-License-Identifier: Apache-2.0
"""Challenges that cost the broker nothing until somebody answers one.

A challenge is a MAC over a random token, the time of issue and what it was issued for. Handing out ten million of them
takes no memory, and honest clients never find the table full because of others who only ask. What is remembered is which
challenges were presented, for as long as they would otherwise be good: each one once, whatever comes of it (BND-02 to
BND-04). The MAC key is made anew in each instance, so no challenge of another instance, or of this one before a restart,
is good here.

Specification: docs/spec/broker.md section 4.
"""

from __future__ import annotations

import hmac
import os
import threading
from collections import OrderedDict
from datetime import timedelta
from typing import TYPE_CHECKING

from confide.errors import BrokerError, MalformedError, NotAcceptable
from confide.wire import cbor

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CHALLENGE_BYTES", "TOKEN_BYTES", "StatelessChallenges"]

CHALLENGE_BYTES = 32
RANDOM_BYTES = 32
TOKEN_BYTES = RANDOM_BYTES + 8
_LABEL = b"confide/broker/challenge/1"


class StatelessChallenges:
    """Issues and takes back challenges. ``lifetime`` is in seconds; at most ``limit`` presented ones are remembered."""

    def __init__(
        self,
        *,
        monotonic: Callable[[], float],
        random: Callable[[int], bytes] = os.urandom,
        lifetime: float = 60.0,
        limit: int = 65_536,
    ) -> None:
        self._monotonic = monotonic
        self._random = random
        self._lifetime = lifetime
        self._limit = limit
        self._key = random(32)
        self._lock = threading.Lock()
        self._presented: OrderedDict[bytes, float] = OrderedDict()

    def issue(self, *context: object) -> tuple[bytes, bytes]:
        """A fresh challenge (32 bytes) for ``context`` and the token (40 bytes) that must come back with it."""
        token = self._random(RANDOM_BYTES) + max(0, int(self._monotonic() * 1000)).to_bytes(8, "big")
        return self._challenge(token, context), token

    def present(self, challenge: bytes, token: bytes, *context: object) -> timedelta:
        """Take a challenge back, once, and say how long ago it was issued.

        Raises ``not_acceptable.nonce_mismatch`` if it was not issued by this instance for this context,
        ``not_acceptable.nonce_reused`` the second time, ``not_acceptable.stale`` after its lifetime, and
        ``broker.rate_limited`` where no more presented challenges can be remembered.
        """
        if len(challenge) != CHALLENGE_BYTES or len(token) != TOKEN_BYTES:
            raise MalformedError("length_mismatch", "a challenge or its token has another length")
        if not hmac.compare_digest(self._challenge(token, context), challenge):
            raise NotAcceptable(
                "nonce_mismatch", "the challenge is not one of ours for this", stage="release"
            )
        with self._lock:
            now = self._monotonic()
            while self._presented and next(iter(self._presented.values())) + self._lifetime < now:
                self._presented.popitem(last=False)
            age = now - int.from_bytes(token[RANDOM_BYTES:], "big") / 1000
            if age > self._lifetime:
                raise NotAcceptable(
                    "stale", "the challenge is too old", hint="ask for a new challenge", stage="release"
                )
            if challenge in self._presented:
                raise NotAcceptable("nonce_reused", "the challenge was presented before", stage="release")
            if len(self._presented) >= self._limit:
                raise BrokerError("rate_limited", "too many challenges were answered lately", retryable=True)
            # Remembered for a lifetime from now, which is at least as long as the challenge itself is good.
            self._presented[challenge] = now
        return timedelta(seconds=max(age, 0.0))

    def _challenge(self, token: bytes, context: tuple[object, ...]) -> bytes:
        return hmac.digest(self._key, cbor.encode([_LABEL, token, list(context)]), "sha256")
