# SPDX-License-Identifier: Apache-2.0
"""What the host, the network and a malicious client try; each is one change of an exchange that passes."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from confide.attestation.evidence import Evidence
from confide.attestation.key_material import KeyMaterial
from confide.channel import schedule
from confide.channel.head import Head
from confide.channel.incoming import IncomingRequest, outer_status
from confide.channel.settings import ChannelSettings
from confide.crypto import hpke
from confide.errors import ChannelError, ConfideError, EnclaveError, NotAcceptable, NotGenuine
from support.channel_world import ID, World, answer, pack, post, receive, round_trip, take, verifier

if TYPE_CHECKING:
    from confide.channel.client_session import ClientSession


def refused(call: Any) -> str:
    with pytest.raises(ConfideError) as error:
        call()
    return error.value.code


def status(call: Any) -> int:
    with pytest.raises(ConfideError) as error:
        call()
    return outer_status(error.value)


def test_the_exchange_that_every_attack_starts_from_passes() -> None:
    world = World()
    session = world.session()

    assert round_trip(world, session, b"hello") == b"hello"
    assert round_trip(world, session, b"signed", want_receipt=True) == b"signed"


# Freshness and binding


def test_bnd_02_a_request_submitted_100_times_at_once_runs_exactly_once() -> None:
    world = World()
    _, data = post(world.session(), b"pay once")
    barrier = threading.Barrier(20)

    def submit(index: int) -> str:
        if index < 20:
            barrier.wait(10)
        try:
            take(world.instance, data)
        except ChannelError as error:
            return error.code
        return "executed"

    with ThreadPoolExecutor(20) as pool:
        outcomes = list(pool.map(submit, range(100)))

    assert sorted(set(outcomes)) == ["channel.sequence", "executed"]
    assert outcomes.count("executed") == 1


def test_bnd_04_a_flood_of_nonces_is_bounded_and_those_who_wait_are_served() -> None:
    world = World(settings=ChannelSettings(max_waiting=100))
    honest = os.urandom(32)
    ticket = world.instance.enter_nonce(honest)
    for _ in range(99):
        world.instance.enter_nonce(os.urandom(32))
    with pytest.raises(EnclaveError) as flood:
        world.instance.enter_nonce(os.urandom(32))
    batch = world.instance.close_batch()
    batch.quote(world.attester)
    result = verifier().verify(
        ticket.bundle(), at=world.clock.wall(), nonce=honest, age=timedelta(0), purpose="channel"
    )

    assert (flood.value.code, flood.value.retryable) == ("enclave.overloaded", True)
    assert result.freshness == "fresh"
    assert world.attester.quotes == 1
    assert len(world.instance.queue) == 0


def test_bnd_04_a_full_batch_is_made_without_stopping_the_instance() -> None:
    world = World()
    nonces = [os.urandom(32) for _ in range(4096)]
    tickets = [world.instance.enter_nonce(nonce) for nonce in nonces]
    batch = world.instance.close_batch()
    batch.quote(world.attester)

    for index in (0, 1, 2047, 4095):
        result = verifier().verify(
            tickets[index].bundle(),
            at=world.clock.wall(),
            nonce=nonces[index],
            age=timedelta(0),
            purpose="channel",
        )
        assert result.kid == batch.key.kid


def test_bnd_05_another_encoding_of_the_same_evidence_is_not_evidence() -> None:
    world = World()
    nonce = os.urandom(32)
    bundle = world.instance.bundle(nonce)
    asked: dict[str, Any] = {
        "at": world.clock.wall(),
        "nonce": nonce,
        "age": timedelta(0),
        "purpose": "channel",
    }
    assert verifier().verify(bundle, **asked).freshness == "fresh"

    assert refused(lambda: verifier().verify(bundle + b"\x00", **asked)) == "malformed.trailing_data"
    assert refused(lambda: verifier().verify(b"\xb9\x00" + bundle, **asked)).startswith("malformed.")


@pytest.mark.parametrize("of", ["key", "receipt_key", "epoch", "at_most_once", "content"])
def test_bnd_08_a_relay_that_puts_its_own_key_under_genuine_evidence_is_refused(of: str) -> None:
    world = World()
    nonce = os.urandom(32)
    evidence = Evidence.decode(world.instance.bundle(nonce))
    assert evidence.key_material is not None
    material = KeyMaterial.decode(evidence.key_material)
    own = {
        "key": hpke.PrivateKey.generate().public,
        "receipt_key": os.urandom(32),
        "epoch": 99,
        "at_most_once": False,
        "content": {},
    }[of]
    fields = {name: getattr(material, name) for name in KeyMaterial.__slots__} | {of: own}
    relayed = Evidence(
        platform=evidence.platform,
        devices=(),
        key_material=KeyMaterial(**fields).encode(),
        manifest=evidence.manifest,
        proof=evidence.proof,
        endorsements=evidence.endorsements,
    )
    with pytest.raises(NotAcceptable) as error:
        verifier().verify(relayed, at=world.clock.wall(), nonce=nonce, age=timedelta(0), purpose="channel")

    assert {"not_acceptable.nonce_mismatch", "not_acceptable.channel"} <= {
        r.code for r in error.value.reasons
    }


def test_bnd_09_the_thief_of_an_old_key_cannot_answer_a_fresh_client() -> None:
    world = World()
    old_nonce = os.urandom(32)
    old_bundle = world.instance.bundle(old_nonce)  # The thief has this and its private key.
    fresh_nonce = os.urandom(32)
    code = refused(
        lambda: verifier().verify(
            old_bundle, at=world.clock.wall(), nonce=fresh_nonce, age=timedelta(0), purpose="channel"
        )
    )
    session = world.session()

    assert code == "not_acceptable.nonce_mismatch"
    assert session.material.key != KeyMaterial.decode(Evidence.decode(old_bundle).key_material or b"").key


def test_bnd_09_the_thief_of_an_old_key_cannot_open_a_session_under_a_new_one() -> None:
    world = World()
    stolen = hpke.PrivateKey.generate()
    session = world.session()
    exchange, _ = post(session, b"secret")
    wrap = exchange.outgoing._prefix[38:1238]

    assert refused(lambda: stolen.open(schedule.session_info(session.kid), wrap)) == "channel.record_auth"


def test_bnd_12_a_request_reflected_to_its_sender_is_no_response() -> None:
    world = World()
    exchange, data = post(world.session(), b"hello")

    assert refused(lambda: receive(exchange, data)) == "channel.protocol"


def test_bnd_12_the_frames_of_a_request_are_no_response_under_any_head() -> None:
    world = World()
    exchange, data = post(world.session(), b"hello")

    assert (
        refused(lambda: receive(exchange, b"CFE1\x02\x00" + bytes(32) + data[1262:])) == "channel.record_auth"
    )


def test_bnd_12_a_response_reflected_to_the_enclave_is_no_request() -> None:
    world = World()
    _, data = post(world.session(), b"hello")
    request, body = take(world.instance, data)

    assert status(lambda: take(world.instance, answer(request, body * 2000))) == 400


def test_bnd_13_a_session_under_one_key_is_unknown_under_another() -> None:
    world = World()
    session = world.session()
    other = world.session()
    _, data = post(session, b"hello")
    swapped = data[:6] + other.kid + data[38:]

    assert refused(lambda: take(world.instance, swapped)) == "channel.record_auth"
    take(world.instance, data)
    _, more = post(session, b"again")
    assert refused(lambda: take(world.instance, more[:6] + other.kid + more[38:])) == "channel.key_unknown"


def test_bnd_13_a_key_that_was_rotated_away_opens_nothing() -> None:
    world = World()
    session = world.session()
    world.clock.now += 120
    _, data = post_late(session, world)

    assert refused(lambda: take(world.instance, data)) == "channel.key_unknown"


def post_late(session: ClientSession, world: World) -> tuple[Any, bytes]:
    """A client whose clock stands still sends under a key that is over."""
    now = world.clock.now
    world.clock.now = 1000.0
    try:
        return post(session, b"late")
    finally:
        world.clock.now = now


def test_bnd_13_a_slow_client_does_not_use_a_key_beyond_its_lifetime() -> None:
    world = World()
    session = world.session()
    usable = []
    for seconds in (119, 1):
        world.clock.now += seconds
        usable.append(session.usable)

    assert usable == [True, False]
    assert refused(lambda: post(session, b"late")) == "channel.closed"


def test_bnd_14_a_receipt_of_one_channel_is_not_accepted_on_another(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    one, two = world.session(), world.session()
    first, data = post(one, b"same words", want_receipt=True)
    receive(first, answer(*take(world.instance, data)))
    second, data = post(two, b"same words", want_receipt=True)
    request, body = take(world.instance, data)
    assert first.receipt is not None
    signed = first.receipt.signed
    monkeypatch.setattr(IncomingRequest, "_sign", lambda *_: signed)

    assert refused(lambda: receive(second, answer(request, body))) == "channel.receipt"


def test_bnd_14_a_signature_bound_to_one_request_is_refused_in_another() -> None:
    world = World()
    session = world.session()
    binders: list[bytes] = []

    def keep(binder: bytes, _: Any) -> list[tuple[bytes, bytes]]:
        binders.append(binder)
        return []

    _, data = post(session, b"1", sign=keep)
    take(world.instance, data)
    stolen = (b"confide-binder", binders[0])
    _, data = post(session, b"2", fields=(stolen,))

    assert refused(lambda: take(world.instance, data)) == "channel.protocol"


def test_bnd_15_a_restarted_enclave_does_not_know_the_session() -> None:
    world = World()
    session = world.session()
    assert round_trip(world, session) == b"hello"
    world.instance = world.another()
    _, data = post(session, b"to the one before")

    assert refused(lambda: take(world.instance, data)) == "channel.key_unknown"


def test_bnd_15_a_session_ends_with_the_policys_age_and_with_max_session() -> None:
    world = World(settings=ChannelSettings(max_session=50))
    aged = world.session(max_age=10.0)
    plain = world.session()
    for session in (aged, plain):
        assert round_trip(world, session) == b"hello"
    world.clock.now += 10

    assert [session.usable for session in (aged, plain)] == [False, True]
    world.clock.now += 40
    assert not plain.usable
    assert refused(lambda: post(plain, b"x")) == "channel.closed"


@pytest.mark.parametrize("skew", [-86400, 86400])
def test_bnd_17_the_hosts_clock_of_day_decides_nothing_inside(skew: int) -> None:
    world = World()
    session = world.session()
    wall = world.clock.wall
    world.instance._wall_clock = lambda: wall() + timedelta(seconds=skew)

    assert round_trip(world, session) == b"hello"
    assert round_trip(world, world.session()) == b"hello"


def test_bnd_17_a_monotonic_clock_that_stands_still_extends_nothing_beyond_its_own_time() -> None:
    world = World()
    session = world.session()
    assert round_trip(world, session) == b"hello"
    world.clock.now -= 100

    assert session.usable
    assert round_trip(world, session) == b"hello"


# The channel


def test_ch_01_a_request_of_one_session_is_nothing_in_another() -> None:
    world = World()
    one, two = world.session(), world.session()
    _, data = post(one, b"hello")
    _, other = post(two, b"hello")
    spliced = other[:1262] + data[1262:]

    assert refused(lambda: take(world.instance, spliced)) == "channel.record_auth"


def test_ch_01_the_response_to_one_request_is_none_to_the_next() -> None:
    world = World()
    session = world.session()
    exchanges = [post(session, b"%d" % index) for index in range(2)]
    answers = [answer(*take(world.instance, data)) for _, data in exchanges]

    assert refused(lambda: receive(exchanges[1][0], answers[0])) == "channel.record_auth"
    assert not session.usable, "an authentication failure ends the session"


def test_ch_02_a_cut_response_never_looks_complete() -> None:
    world = World()
    session = world.session()
    exchange, data = post(session, b"x" * 3000)
    full = answer(*take(world.instance, data))

    assert refused(lambda: receive(exchange, full[:-1])) == "channel.truncated"
    assert not exchange.complete


def test_ch_03_a_clients_own_frame_does_not_come_back_to_it() -> None:
    world = World()
    session = world.session()
    exchange, data = post(session, b"hello")
    honest = answer(*take(world.instance, data))
    own = data[1262 + 277 :]

    assert refused(lambda: receive(exchange, honest[: 38 + 277] + own)) == "channel.record_auth"


def test_ch_05_a_forked_process_refuses_the_instance_and_the_session() -> None:
    world = World()
    session = world.session()
    assert round_trip(world, session) == b"hello"
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        outcome: dict[str, Any] = {}
        try:
            outcome["usable"] = session.usable
            for name, call in (
                ("session", lambda: post(session, b"x")),
                ("instance", world.instance.open_request),
                ("nonce", lambda: world.instance.enter_nonce(bytes(32))),
                ("bundle", lambda: world.instance.bundle(bytes(32))),
            ):
                try:
                    call()
                    outcome[name] = "worked"
                except ConfideError as error:
                    outcome[name] = error.code
            os.write(writing, json.dumps(outcome).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = json.loads(pipe.read())
    os.waitpid(child, 0)

    assert told == {
        "usable": False,
        "session": "channel.closed",
        "instance": "enclave.bad_state",
        "nonce": "enclave.bad_state",
        "bundle": "enclave.bad_state",
    }
    assert round_trip(world, session) == b"hello", "the parent goes on"


def test_ch_05_a_cloned_client_state_still_gets_other_keys() -> None:
    world = World()
    session = world.session()
    _, one = post(session, b"hello")
    session._seq = 0  # A snapshot was restored; the random generator was not.
    _, two = post(session, b"other")

    assert one[1238:1246] == two[1238:1246], "the same number"
    assert one[1246:] != two[1246:]
    take(world.instance, one)
    assert refused(lambda: take(world.instance, two)) == "channel.sequence"


def test_ch_06_every_message_has_a_key_of_its_own() -> None:
    world = World()
    session = world.session()
    keys = set()
    for _ in range(50):
        exchange, data = post(session, b"")
        keys.add(schedule.request_key(session._secret, exchange._transcript))
        keys.add(schedule.response_key(session._secret, exchange._transcript, data[1246:1262] * 2))

    assert len(keys) == 100


def test_ch_06_a_session_ends_before_its_numbers_do() -> None:
    world = World()
    session = world.session()
    session._seq = (1 << 63) - 1
    post(session, b"the last one")

    assert refused(lambda: post(session, b"one too many")) == "channel.closed"


@pytest.mark.parametrize(
    "point",
    [
        "00" * 32,
        "01" + "00" * 31,
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    ],
)
def test_ch_11_low_order_points_open_no_session_and_wrap_no_secret(point: str) -> None:
    world = World()
    _, data = post(world.session(), b"hello")
    share = bytes.fromhex(point)
    changed = data[: 38 + 1088] + share + data[38 + 1120 :]

    assert status(lambda: take(world.instance, changed)) == 400
    with pytest.raises(NotGenuine) as weak:
        hpke.seal(hpke.PrivateKey.generate().public[:1184] + share, b"info", bytes(64))
    assert weak.value.code == "not_genuine.weak_key"


def test_ch_12_a_request_for_one_service_is_refused_by_another_with_the_same_key() -> None:
    world = World()
    session = world.session()
    assert session.authority == ID.encode()
    session.authority = b"tenant-8"
    _, data = post(session, b"hello")

    assert refused(lambda: take(world.instance, data)) == "channel.protocol"


def test_ch_12_two_clients_with_the_same_words_have_nothing_in_common() -> None:
    world = World()
    _, one = post(world.session(), b"hello")
    _, two = post(world.session(), b"hello")

    assert one[:5] == two[:5]
    assert one[1262 + 5 :] != two[1262 + 5 :]


@pytest.mark.parametrize("magic", [b"CFE0", b"CFE2", b"cfe1", b"CFE1"])
def test_ch_13_no_other_version_or_suite_is_spoken(magic: bytes) -> None:
    world = World()
    _, data = post(world.session(), b"hello")
    changed = magic + data[4:]
    if magic == b"CFE1":
        take(world.instance, changed)
        return

    assert refused(lambda: take(world.instance, changed)) == "channel.protocol"


def test_ch_13_a_wrap_without_its_post_quantum_half_does_not_open() -> None:
    world = World()
    _, data = post(world.session(), b"hello")
    stripped = data[:38] + bytes(1088) + data[38 + 1088 :]

    assert refused(lambda: take(world.instance, stripped)) == "channel.record_auth"


def test_ch_15_recorded_traffic_stays_closed_to_who_gets_everything_later() -> None:
    world = World()
    session = world.session()
    _, recorded = post(session, b"a secret of today")
    take(world.instance, recorded)
    world.clock.now += 3600
    world.instance.sweep()

    assert refused(lambda: take(world.instance, recorded)) == "channel.key_unknown"
    assert (world.instance.table.keys, len(world.instance.table)) == (0, 0)
    found = [value for value in reachable(world.instance) if value == session._secret]
    assert found == [], "the session's secret is still held by the instance"


def reachable(root: Any) -> list[bytes]:
    """Every byte string that an instance still refers to."""
    seen: set[int] = set()
    found: list[bytes] = []
    todo = [root]
    while todo:
        value = todo.pop()
        if id(value) in seen or isinstance(value, type) or callable(value):
            continue
        seen.add(id(value))
        if isinstance(value, (bytes, bytearray)):
            found.append(bytes(value))
        elif isinstance(value, dict):
            todo += [*value.keys(), *value.values()]
        elif isinstance(value, (list, tuple, set, frozenset)):
            todo += list(value)
        else:
            todo += [getattr(value, name, None) for name in getattr(value, "__slots__", ())]
            todo += list(getattr(value, "__dict__", {}).values())
    return found


def test_ch_16_a_request_that_lands_on_another_replica_is_refused() -> None:
    world = World()
    session = world.session()
    replica = world.another()
    _, data = post(session, b"hello")

    assert status(lambda: take(replica, data)) == 421
    assert take(world.instance, data)[1] == b"hello"


def test_ch_17_a_resent_request_is_refused_also_after_its_session_is_gone() -> None:
    world = World(settings=ChannelSettings(max_session=30))
    session = world.session()
    _, data = post(session, b"pay")
    take(world.instance, data)

    assert refused(lambda: take(world.instance, data)) == "channel.sequence"
    world.clock.now += 30
    assert refused(lambda: take(world.instance, data)) == "channel.key_unknown"


def test_ch_17_a_burned_number_costs_the_honest_request_nothing() -> None:
    world = World()
    session = world.session()
    _, data = post(session, b"hello")
    far = data[:1238] + ((1 << 63) - 1).to_bytes(8, "big") + data[1246:]

    assert refused(lambda: take(world.instance, far)) == "channel.record_auth"
    assert take(world.instance, data)[1] == b"hello"


def test_ch_18_a_stream_whose_pieces_are_swapped_stops_at_the_swap() -> None:
    world = World()
    session = world.session()
    exchange, data = post(session, b"")
    request, _ = take(world.instance, data)
    full = answer(request, pieces=[b"one", b"two", b"three"])
    frame = 5 + 256 + 16
    start = 38 + frame
    swapped = (
        full[:start]
        + full[start + frame : start + 2 * frame]
        + full[start : start + frame]
        + full[start + 2 * frame :]
    )
    delivered = []
    with pytest.raises(ChannelError) as error:
        delivered += list(exchange.feed(swapped))

    assert error.value.code == "channel.record_auth"
    assert delivered == []


def test_ch_19_many_threads_on_one_session_repeat_no_number_and_no_nonce() -> None:
    world = World()
    session = world.session()

    def some(_: int) -> list[tuple[bytes, bytes]]:
        made = []
        for _ in range(100):
            exchange = session.request(b"GET", b"/")
            prefix = exchange.outgoing._prefix
            made.append((prefix[1238:1246], prefix[1246:1262]))
        return made

    with ThreadPoolExecutor(16) as pool:
        numbers = [pair for made in pool.map(some, range(16)) for pair in made]

    assert len({number for number, _ in numbers}) == 1600
    assert len({salt for _, salt in numbers}) == 1600


def test_ch_20_a_request_that_was_cut_and_sent_again_runs_once() -> None:
    world = World()
    session = world.session()
    exchange = session.request(b"POST", b"/", ((b"content-length", b"600"),), length=None)
    data = pack(exchange, pieces=[b"x" * 300, b"y" * 300])
    request = world.instance.open_request()
    request.push(data[:-10])
    pieces = []
    while (piece := request.next()) is not None:
        pieces.append(piece)
    with pytest.raises(ChannelError):
        request.end()

    assert not request.complete
    assert b"".join(pieces) != b"x" * 300 + b"y" * 300
    assert refused(lambda: take(world.instance, data)) == "channel.sequence"


def test_ch_21_every_refusal_before_the_end_of_a_request_looks_the_same_outside() -> None:
    world = World()
    session = world.session()
    _, used = post(session, b"used")
    take(world.instance, used)

    def changed(at: int) -> bytes:
        _, data = post(session, b"hello")
        return data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]

    attempts = {
        "magic": changed(0),
        "flags": changed(5),
        "wrap": changed(100),
        "number": changed(1245),
        "salt": changed(1250),
        "first frame": changed(1300),
        "second frame": changed(1262 + 277 + 50),
        "replayed": used,
        "cut": post(session, b"hello")[1][:-1],
    }
    for name, data in attempts.items():
        assert status(lambda data=data: take(world.instance, data)) == 400, name


def test_ch_21_what_the_enclave_says_of_a_wrap_depends_on_its_key_id_only() -> None:
    world = World()
    _, data = post(world.session(), b"hello")
    unknown = data[:6] + hashlib.sha256(b"no such key").digest() + data[38:]

    assert status(lambda: take(world.instance, unknown)) == 421
    assert status(lambda: take(world.instance, data[:38] + os.urandom(1200) + data[1238:])) == 400


def test_a_head_of_a_receipt_flag_cannot_be_stripped() -> None:
    world = World()
    exchange, data = post(world.session(), b"hello", want_receipt=True)
    assert data[5] == 1

    assert refused(lambda: take(world.instance, data[:5] + b"\x00" + data[6:])) == "channel.record_auth"
    request, body = take(world.instance, data)
    request._outer = Head(False, *(getattr(request._outer, name) for name in ("kid", "wrap", "seq", "salt")))
    assert refused(lambda: receive(exchange, answer(request, body))) == "channel.receipt"


def test_a_response_is_given_once_and_only_to_a_whole_request() -> None:
    world = World()
    _, data = post(world.session(), b"x" * 3000)
    partial = world.instance.open_request()
    partial.push(data[:-1])
    while partial.next() is not None:
        pass
    assert refused(lambda: answer(partial, b"early")) == "enclave.bad_state"
    _, data = post(world.session(), b"hello")
    request, body = take(world.instance, data)
    answer(request, body)

    assert refused(lambda: answer(request, body)) == "enclave.bad_state"


def test_a_closed_instance_opens_nothing() -> None:
    world = World()
    session = world.session()
    world.instance.close()

    assert refused(lambda: round_trip(world, session)) == "enclave.bad_state"
    assert refused(lambda: world.instance.bundle(bytes(32))) == "enclave.bad_state"
