# SPDX-License-Identifier: Apache-2.0
"""Keys and sessions of the enclave: a state machine against a plain model, and the bounds one by one."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from confide.channel import schedule
from confide.channel.head import Head
from confide.channel.sessions import Bucket, ChannelKey, Session, SessionTable
from confide.channel.settings import ChannelSettings
from confide.channel.window import WINDOW
from confide.crypto import hpke
from confide.crypto.signing import SigningKey
from confide.errors import ChannelError, ConfigurationError, EnclaveError

if TYPE_CHECKING:
    from collections.abc import Callable

PRIVATE = hpke.PrivateKey.from_seeds(bytes(64), bytes(range(32)))
KIDS = tuple(hashlib.sha256(bytes((index,))).digest() for index in range(2))
SECRETS = tuple(bytes((index,)) * 64 for index in range(5))
WRAPS = {
    (kid, secret): hpke.seal(PRIVATE.public, schedule.session_info(kid), secret)
    for kid in KIDS
    for secret in SECRETS
}
RECEIPT = SigningKey.generate()


def key(kid: bytes, opens_until: float = 1e12) -> ChannelKey:
    private = hpke.PrivateKey.from_seeds(bytes(64), bytes(range(32)))
    return ChannelKey(kid, b"", {}, private, RECEIPT, opens_until)


def head(kid: bytes, secret: bytes, seq: int = 0) -> tuple[Head, bytes]:
    wrap = WRAPS[kid, secret]
    return Head(False, kid, wrap, seq, bytes(16)), schedule.sid(wrap)


def code(call: Any) -> str | None:
    try:
        call()
    except (ChannelError, EnclaveError) as error:
        return error.code
    return None


def attempt(call: Callable[[], Session]) -> tuple[Session | None, str | None]:
    """What a call gives, or the code with which it refuses."""
    try:
        return call(), None
    except (ChannelError, EnclaveError) as error:
        return None, error.code


class TableMachine(RuleBasedStateMachine):
    """Requests arrive, authenticate or not, in any order; keys and sessions come to their ends."""

    LIMITS = ChannelSettings(max_sessions=2, max_dead=4, max_session=100, unwraps_per_second=1_000_000)

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.table = SessionTable(self.LIMITS, random=os.urandom, now=0.0)
        self.keys: dict[bytes, float] = {}  # kid -> end
        self.dead: dict[bytes, set[bytes]] = {}
        self.live: dict[
            bytes, tuple[bytes, float, set[int]]
        ] = {}  # sid -> kid, opened, spent; in order of use
        self.candidates: list[tuple[Session, bytes, bytes]] = []
        self.executed: set[tuple[bytes, int]] = set()

    @rule(kid=st.sampled_from(KIDS), lifetime=st.integers(1, 150))
    def make_key(self, kid: bytes, lifetime: int) -> None:
        if kid not in self.keys and not any(found == kid for found, _, _ in self.live.values()):
            if kid in self.dead:
                return  # A kid names one key pair for ever.
            if code(lambda: self.table.add_key(key(kid, self.now + lifetime), self.now)) is None:
                self.keys[kid] = self.now + lifetime
                self.dead[kid] = set()

    @rule(seconds=st.integers(1, 80))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds
        self.table.sweep(self.now)
        for sid, (kid, opened, _) in list(self.live.items()):
            if self.now >= opened + 100:
                self.end(sid, kid)
        for kid, end in list(self.keys.items()):
            if self.now >= end:
                self.drop(kid)

    def end(self, sid: bytes, kid: bytes) -> None:
        del self.live[sid]
        if kid in self.keys:
            self.dead[kid].add(sid)
            if len(self.dead[kid]) >= 4:
                self.drop(kid)

    def drop(self, kid: bytes) -> None:
        del self.keys[kid]
        self.dead[kid].clear()

    @rule(kid=st.sampled_from(KIDS), secret=st.sampled_from(SECRETS))
    def find(self, kid: bytes, secret: bytes) -> None:
        outer, sid = head(kid, secret)
        known = sid in self.live or (kid in self.keys and sid not in self.dead[kid])
        session, refused = attempt(lambda: self.table.find(outer, sid, self.now))
        assert refused == (None if known else "channel.key_unknown")
        if session is None:
            return
        assert session.secret == secret
        self.candidates.append((session, kid, sid))

    @initialize()
    def begin(self) -> None:
        self.make_key(KIDS[0], 150)

    @precondition(lambda self: self.keys)
    @rule(data=st.data(), secret=st.sampled_from(SECRETS), seq=st.integers(0, 4))
    def whole_request(self, data: st.DataObject, secret: bytes, seq: int) -> None:
        before = len(self.candidates)
        self.find(data.draw(st.sampled_from(sorted(self.keys))), secret)
        if len(self.candidates) > before:
            self.finish(self.candidates[-1], seq)

    @precondition(lambda self: self.candidates)
    @rule(data=st.data(), seq=st.integers(0, 4))
    def commit(self, data: st.DataObject, seq: int) -> None:
        self.finish(data.draw(st.sampled_from(self.candidates)), seq)

    def finish(self, candidate: tuple[Session, bytes, bytes], seq: int) -> None:
        session, kid, sid = candidate
        known, refused = attempt(lambda: self.table.commit(session, seq, self.now))
        if refused == "channel.sequence":
            assert seq in self.live[sid][2]
        elif refused is not None:
            # What ended meanwhile stays ended: its numbers would start anew.
            assert refused == "channel.key_unknown"
            assert sid not in self.live
            if kid in self.keys and sid not in self.dead[kid]:
                # Entering it evicted the last session that this key could afford, or it had ended before.
                assert session.ended or len(self.live) >= 2
                if not session.ended and len(self.live) >= 2:
                    self.evict()
        if known is None:
            return
        self.table.release(known)
        assert (sid, seq) not in self.executed, "a request was executed twice"
        self.executed.add((sid, seq))
        if sid not in self.live:
            if len(self.live) >= 2:
                self.evict()
            self.live[sid] = (kid, self.now, set())
        entry = self.live.pop(sid)
        entry[2].add(seq)
        self.live[sid] = entry

    def evict(self) -> None:
        oldest = next(iter(self.live))
        self.end(oldest, self.live[oldest][0])

    @invariant()
    def bounded(self) -> None:
        assert len(self.table) == len(self.live) <= 2
        assert self.table.keys == len(self.keys)


TestTable = TableMachine.TestCase
TestTable.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)


def table(**limits: Any) -> SessionTable:
    made = SessionTable(ChannelSettings(**limits), random=os.urandom, now=0.0)
    made.add_key(key(KIDS[0]), 0.0)
    return made


def enter(made: SessionTable, secret: bytes, seq: int = 0, now: float = 0.0) -> Session:
    outer, sid = head(KIDS[0], secret)
    session = made.commit(made.find(outer, sid, now), seq, now)
    made.release(session)
    return session


def test_an_evicted_session_cannot_come_back_with_a_new_window() -> None:
    made = table(max_sessions=1)
    enter(made, SECRETS[0])
    enter(made, SECRETS[1])

    outer, sid = head(KIDS[0], SECRETS[0])
    assert code(lambda: made.find(outer, sid, 0.0)) == "channel.key_unknown"
    assert code(lambda: enter(made, SECRETS[1], 1)) is None


def test_two_first_requests_at_once_share_one_window_and_none_survives_the_eviction() -> None:
    made = table(max_sessions=1)
    outer, sid = head(KIDS[0], SECRETS[0])
    one, two = made.find(outer, sid, 0.0), made.find(outer, sid, 0.0)
    assert one is not two
    known = made.commit(one, 0, 0.0)

    assert made.commit(two, 1, 0.0) is known
    assert code(lambda: made.commit(two, 0, 0.0)) == "channel.sequence"
    enter(made, SECRETS[1])
    assert code(lambda: made.commit(two, 2, 0.0)) == "channel.key_unknown"


def test_a_session_outlives_its_key_and_its_sid_stays_unknown_afterwards() -> None:
    made = SessionTable(ChannelSettings(max_session=1000), random=os.urandom, now=0.0)
    made.add_key(key(KIDS[0], opens_until=120), 0.0)
    enter(made, SECRETS[0])

    assert code(lambda: enter(made, SECRETS[0], 1, now=500.0)) is None
    assert code(lambda: enter(made, SECRETS[1], 0, now=500.0)) == "channel.key_unknown"
    assert code(lambda: enter(made, SECRETS[0], 2, now=1000.0)) == "channel.key_unknown"
    assert made.keys == 0


def test_too_many_dead_sessions_drop_their_key_at_once() -> None:
    made = table(max_sessions=1, max_dead=3)
    for secret in SECRETS[:3]:
        enter(made, secret)

    assert made.keys == 1
    # The third eviction is one too many: neither the dead nor anything new may use the key.
    assert code(lambda: enter(made, SECRETS[3])) == "channel.key_unknown"
    assert made.keys == 0
    assert code(lambda: enter(made, SECRETS[0])) == "channel.key_unknown"


def test_ch_08_unwraps_are_bounded_and_known_sessions_need_none() -> None:
    made = table(unwraps_per_second=2)
    enter(made, SECRETS[0])
    enter(made, SECRETS[1])

    assert code(lambda: enter(made, SECRETS[2])) == "enclave.overloaded"
    assert code(lambda: enter(made, SECRETS[0], 1)) is None
    assert code(lambda: enter(made, SECRETS[2], now=0.5)) is None


def test_requests_in_flight_of_a_session_are_bounded() -> None:
    made = table(max_per_session=2)
    outer, sid = head(KIDS[0], SECRETS[0])
    sessions = [made.commit(made.find(outer, sid, 0.0), seq, 0.0) for seq in range(2)]

    assert code(lambda: made.commit(made.find(outer, sid, 0.0), 2, 0.0)) == "enclave.overloaded"
    made.release(sessions[0])
    assert code(lambda: made.commit(made.find(outer, sid, 0.0), 2, 0.0)) is None


def test_ch_08_no_more_than_264_fresh_keys_live_however_fast_they_are_asked_for() -> None:
    made = SessionTable(ChannelSettings(), random=os.urandom, now=0.0)
    private = PRIVATE
    alive = 0
    now = 0.0
    for index in range(4000):
        now += 0.1
        if made.making_wait(now) == 0:
            kid = index.to_bytes(32, "big")
            made.add_key(ChannelKey(kid, b"", {}, private, RECEIPT, now + 120), now)
        made.sweep(now)
        alive = max(alive, made.keys)
        assert made.making_wait(now) <= 0.6

    assert 200 < alive <= 264


def test_a_bucket_does_not_gain_by_a_clock_that_stands_or_goes_back() -> None:
    bucket = Bucket(1, 1.0, 10.0)
    assert bucket.take(10.0)

    assert not bucket.take(10.0)
    assert not bucket.take(5.0)
    assert not bucket.take(10.5)
    assert bucket.take(11.0)


def test_a_wrap_that_does_not_open_gives_a_session_that_is_never_entered() -> None:
    made = table()
    outer, _ = head(KIDS[0], SECRETS[0])
    broken = Head(False, KIDS[0], outer.wrap[:-1] + b"\x00", 0, bytes(16))
    session = made.find(broken, schedule.sid(broken.wrap), 0.0)

    assert not session.genuine
    assert len(session.secret) == 64
    assert session.secret not in SECRETS
    assert code(lambda: made.commit(session, 0, 0.0)) == "channel.key_unknown"
    assert len(made) == 0


def test_the_window_is_that_of_the_specification() -> None:
    made = table()
    enter(made, SECRETS[0], 5000)

    assert WINDOW == 1024
    assert code(lambda: enter(made, SECRETS[0], 5000 - 1024)) == "channel.sequence"
    assert code(lambda: enter(made, SECRETS[0], 5000 - 1023)) is None


@pytest.mark.parametrize(
    "limits",
    [
        {"max_sessions": 0},
        {"max_waiting": 4097},
        {"max_per_session": 1025},
        {"cached_lifetime": 3601},
        {"head_seconds": 0},
        {"frame_seconds": float("nan")},
        {"max_body": -1},
        {"max_session": 1 << 32},
    ],
)
def test_settings_beyond_the_specification_are_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as refused:
        ChannelSettings(**limits)

    assert refused.value.code == "configuration.channel"
