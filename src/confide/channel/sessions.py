# SPDX-License-Identifier: Apache-2.0
"""The enclave's keys and sessions: who may open what, for how long, and what stays dead.

All times are monotonic seconds. Every change happens under one lock and in one step.
Source: ``docs/spec/envelope.md``, sections 2 to 4.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from confide.channel import schedule
from confide.channel.settings import PERMIT_SECONDS, PERMITS
from confide.channel.window import ReplayWindow
from confide.errors import ChannelError, EnclaveError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from confide.channel.binary_http import RequestHead
    from confide.channel.head import Head
    from confide.channel.settings import ChannelSettings
    from confide.crypto import hpke
    from confide.crypto.signing import SigningKey

__all__ = ["Bucket", "ChannelKey", "Session", "SessionTable"]


@dataclass(slots=True)
class ChannelKey:
    """One key pair of this instance with its material. ``private`` is ``None`` once it has been dropped; the receipt key
    stays as long as a session refers to it.
    """

    kid: bytes
    material: bytes
    content: Mapping[str, bytes]
    private: hpke.PrivateKey | None
    receipt_key: SigningKey
    opens_until: float
    dead: set[bytes] = field(default_factory=set)

    def drop(self) -> None:
        """Forget the private key; what was dead under it need not be remembered any more."""
        if self.private is not None:
            self.private.erase()
        self.private = None
        self.dead.clear()


class ReadHead(NamedTuple):
    """The head of a request, from its bytes to what must be checked of it again each time."""

    content: bytes
    request: RequestHead
    declared: int | None
    binders: tuple[bytes, ...]


class Session:
    """A secret shared with one client, and which of its request numbers are spent."""

    __slots__ = ("ended", "genuine", "in_flight", "key", "last_head", "opened", "secret", "sid", "window")

    def __init__(self, sid: bytes, key: ChannelKey, secret: bytes, *, genuine: bool) -> None:
        self.sid = sid
        self.key = key
        self.secret = secret
        self.genuine = genuine
        self.window = ReplayWindow()
        self.opened = 0.0
        self.in_flight = 0
        self.ended = False
        self.last_head: ReadHead | None = None


class Bucket:
    """A token bucket on the monotonic clock: ``burst`` permits, one more every ``interval`` seconds."""

    __slots__ = ("_at", "_burst", "_interval", "_permits")

    def __init__(self, burst: int, interval: float, now: float) -> None:
        self._burst = burst
        self._interval = interval
        self._permits = float(burst)
        self._at = now

    def wait(self, now: float) -> float:
        """Seconds until a permit is there; 0 if one is."""
        if now > self._at:
            self._permits = min(self._burst, self._permits + (now - self._at) / self._interval)
            self._at = now
        return 0.0 if self._permits >= 1 else (1 - self._permits) * self._interval

    def take(self, now: float) -> bool:
        """Use a permit, if there is one."""
        if self.wait(now) > 0:
            return False
        self._permits -= 1
        return True


def unknown() -> ChannelError:
    """The one answer for a key or session that this instance does not have, whatever the reason."""
    return ChannelError("key_unknown", "the key or the session is not known here", retryable=True)


class SessionTable:
    """Keys by kid and sessions by sid."""

    def __init__(self, settings: ChannelSettings, *, random: Callable[[int], bytes], now: float) -> None:
        self._settings = settings
        self._random = random
        self._lock = threading.Lock()
        self._keys: dict[bytes, ChannelKey] = {}
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()
        self._by_age: OrderedDict[bytes, Session] = OrderedDict()
        self.next_end = math.inf
        """When (monotonic) something is over next."""
        self._unwraps = Bucket(settings.unwraps_per_second, 1 / settings.unwraps_per_second, now)
        self._making = Bucket(PERMITS, PERMIT_SECONDS, now)

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def keys(self) -> int:
        """The number of keys that can still open sessions."""
        return len(self._keys)

    def making_wait(self, now: float) -> float:
        """Seconds until another key may be made."""
        with self._lock:
            return self._making.wait(now)

    def add_key(self, key: ChannelKey, now: float) -> None:
        """Let ``key`` open sessions; ``enclave.overloaded`` if keys are made faster than they may be."""
        with self._lock:
            if not self._making.take(now):
                raise EnclaveError("overloaded", "keys are made too fast", retryable=True)
            self._keys[key.kid] = key
            self.next_end = min(self.next_end, key.opens_until)

    def sweep(self, now: float) -> float | None:
        """Drop what is over; the time at which something is over next, or ``None``."""
        with self._lock:
            return self._sweep(now)

    def find(self, head: Head, sid: bytes, now: float) -> Session:
        """The session of a request's head, or a candidate that ``commit`` will enter.

        Raises ``key_unknown``, or ``enclave.overloaded`` beyond the bound of unwraps. A wrap that does not open gives a
        candidate with a secret that nobody knows: the request then fails at its first frame, like any other.
        """
        with self._lock:
            self._sweep(now)
            session = self._sessions.get(sid)
            if session is not None:
                if session.key.kid != head.kid:
                    raise unknown()
                return session
            key = self._keys.get(head.kid)
            if key is None or key.private is None or sid in key.dead:
                raise unknown()
            if not self._unwraps.take(now):
                raise EnclaveError("overloaded", "too many sessions are being opened", retryable=True)
            private = key.private
        try:
            secret = private.open(schedule.session_info(head.kid), head.wrap)
            genuine = len(secret) == schedule.SECRET_BYTES
        except (ChannelError, EnclaveError):
            genuine = False
        if not genuine:
            secret = self._random(schedule.SECRET_BYTES)
        return Session(sid, key, secret, genuine=genuine)

    def commit(self, session: Session, seq: int, now: float) -> Session:
        """After the first frame has authenticated: enter the session if it is new, and spend ``seq``.

        Gives the session as it is in the table. Raises ``key_unknown`` if it has ended meanwhile, ``sequence`` if the
        number is spent, ``enclave.overloaded`` if too many of its requests are in flight.
        """
        with self._lock:
            self._sweep(now)
            known = self._sessions.get(session.sid)
            if known is None:
                known = self._enter(session, now)
            if known.in_flight >= self._settings.max_per_session:
                raise EnclaveError(
                    "overloaded", "too many requests of this session are in flight", retryable=True
                )
            known.window.mark(seq)
            known.in_flight += 1
            self._sessions.move_to_end(known.sid)
            return known

    def release(self, session: Session) -> None:
        """A request of ``session`` is over."""
        with self._lock:
            session.in_flight -= 1

    def drop_all(self) -> None:
        """Forget every key and session."""
        with self._lock:
            for key in self._keys.values():
                key.drop()
            self._keys.clear()
            self._sessions.clear()
            self._by_age.clear()

    def _enter(self, session: Session, now: float) -> Session:
        key = session.key
        if session.ended or not session.genuine or key.private is None or session.sid in key.dead:
            raise unknown()
        if len(self._sessions) >= self._settings.max_sessions:
            self._end(next(iter(self._sessions.values())))
            if key.private is None:  # The eviction was one too many for this very key.
                raise unknown()
        session.opened = now
        self._sessions[session.sid] = session
        self._by_age[session.sid] = session
        self.next_end = min(self.next_end, now + self._settings.max_session)
        return session

    def _end(self, session: Session) -> None:
        del self._sessions[session.sid]
        del self._by_age[session.sid]
        session.ended = True
        key = session.key
        if key.private is None:
            return
        key.dead.add(session.sid)
        if len(key.dead) >= self._settings.max_dead:
            self._drop(key)

    def _drop(self, key: ChannelKey) -> None:
        key.drop()
        self._keys.pop(key.kid, None)

    def _sweep(self, now: float) -> float | None:
        if now >= self.next_end:
            limit = now - self._settings.max_session
            while self._by_age:
                oldest = next(iter(self._by_age.values()))
                if oldest.opened > limit:
                    break
                self._end(oldest)
            for key in [key for key in self._keys.values() if now >= key.opens_until]:
                self._drop(key)
            ends = [key.opens_until for key in self._keys.values()]
            if self._by_age:
                ends.append(next(iter(self._by_age.values())).opened + self._settings.max_session)
            self.next_end = min(ends, default=math.inf)
        return None if self.next_end == math.inf else self.next_end
