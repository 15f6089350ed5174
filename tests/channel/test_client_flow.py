# SPDX-License-Identifier: Apache-2.0
"""What a client does with a host that lies: no fallback, no silent repetition, nothing unauthenticated believed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from confide.channel import flow
from confide.channel.client import Client
from confide.channel.flow import RequestOptions
from confide.channel.settings import ChannelSettings
from confide.errors import ChannelError, ConfideError, ConfigurationError, NotAcceptable
from support.channel_world import World, answer, take, verifier

if TYPE_CHECKING:
    from confide.channel.instance import Instance

EVIDENCE, RESPONSE = "application/confide-evidence", "application/confide-response"
Handler = Callable[[httpx2.Request], httpx2.Response]


class Host(httpx2.BaseTransport):
    """Carries bytes between a client and an instance, as long as ``lie`` has nothing else in mind."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.instance: Instance = world.instance
        self.lies: list[Handler | None] = []
        self.requests: list[httpx2.Request] = []
        self.executed: list[bytes] = []
        self.discovery: Handler | None = None
        self.closed = False

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        if request.url.path == "/.well-known/confide":
            return self.discovery(request) if self.discovery else self.discover(request)
        lie = self.lies.pop(0) if self.lies else None
        return lie(request) if lie else self.forward(request)

    def discover(self, request: httpx2.Request) -> httpx2.Response:
        nonce = request.read() if request.method == "POST" else None
        return reply(200, EVIDENCE, self.instance.bundle(nonce), {"confide-route": "replica-1"})

    def forward(self, request: httpx2.Request) -> httpx2.Response:
        opened, body = take(self.instance, request.read())
        self.executed.append(body)
        return reply(200, RESPONSE, answer(opened, b"echo " + body))

    def close(self) -> None:
        self.closed = True


def reply(
    status: int, kind: str = "", content: bytes = b"", fields: dict[str, str] | None = None
) -> httpx2.Response:
    headers = {**({"content-type": kind} if kind else {}), **(fields or {})}
    return httpx2.Response(status, headers=headers, stream=httpx2.ByteStream(content))


def made(**settings: Any) -> tuple[Host, Client]:
    world = World(settings=ChannelSettings(**settings))
    host = Host(world)
    client = Client(
        "http://service.example",
        verifier(),
        transport=host,
        clock=world.clock.wall,
        monotonic=world.clock,
    )
    return host, client


def code(call: Callable[[], Any]) -> str:
    with pytest.raises(ConfideError) as error:
        call()
    return error.value.code


def test_an_honest_host_carries_a_request_and_its_route() -> None:
    host, client = made()

    assert client.post("/x", content=b"hi").content == b"echo hi"
    assert "confide-route" not in host.requests[0].headers
    assert host.requests[1].headers["confide-route"] == "replica-1"
    client.close()
    assert host.closed


@pytest.mark.parametrize("status", [200, 204, 301, 302, 307, 400, 403, 404, 413, 500, 502, 503])
@pytest.mark.parametrize("kind", ["text/html", RESPONSE, "application/json", ""])
def test_an_answer_that_is_not_authentic_is_an_error_and_shows_nothing(status: int, kind: str) -> None:
    host, client = made()
    told = b"please send your password to evil.example"
    host.lies = [
        lambda _: reply(status, kind, told, {"location": "http://evil.example/", "x-told": told.decode()})
    ]
    with pytest.raises(ChannelError) as error:
        client.post("/x", content=b"hi", follow_redirects=True)

    genuine = status == 200 and kind == RESPONSE
    assert error.value.code == ("channel.protocol" if genuine else "channel.unauthenticated")
    assert "password" not in str(error.value)
    assert "evil" not in str(error.value) + repr(error.value.__cause__) + repr(error.value.__context__)
    assert len(host.requests) == 2, "nothing was followed and nothing repeated"
    assert error.value.retryable == (status == 503)


def test_a_421_leads_to_fresh_evidence_and_one_repetition_where_that_does_no_harm() -> None:
    host, client = made(at_most_once=False)
    first = client.attestation.kid
    host.lies = [lambda _: reply(421)]
    response = client.post("/x", content=b"hi")

    assert response.content == b"echo hi"
    assert [request.url.path for request in host.requests] == [
        "/.well-known/confide",
        "/confide",
        "/.well-known/confide",
        "/confide",
    ]
    assert host.requests[2].method == "POST", "fresh evidence, whatever the host says"
    assert client.attestation.kid != first


def test_ch_20_a_421_is_no_reason_to_run_a_request_twice() -> None:
    """The host lets the request run and then says that it does not know the session."""

    def run_and_deny(request: httpx2.Request) -> httpx2.Response:
        host.forward(request)
        return reply(421)

    host, client = made(at_most_once=True)
    host.lies = [run_and_deny]

    assert code(lambda: client.post("/pay", content=b"100")) == "channel.outcome_unknown"
    assert host.executed == [b"100"]
    assert client.post("/pay", content=b"later").content == b"echo later", "the next call uses a new session"


def test_an_idempotent_call_is_repeated_also_where_the_service_runs_requests_once() -> None:
    host, client = made(at_most_once=True)
    host.lies = [lambda _: reply(421)]
    options = RequestOptions(idempotent=True)

    assert client.get("/x", extensions={"confide": options}).content == b"echo "


def test_a_clients_own_at_most_once_overrules_the_service() -> None:
    world = World(settings=ChannelSettings(at_most_once=False))
    host = Host(world)
    client = Client(
        "http://service.example",
        verifier(),
        transport=host,
        clock=world.clock.wall,
        monotonic=world.clock,
        at_most_once=True,
    )
    host.lies = [lambda _: reply(421)]

    assert code(lambda: client.post("/x", content=b"hi")) == "channel.outcome_unknown"


def test_a_second_421_ends_it() -> None:
    host, client = made(at_most_once=False)
    host.lies = [lambda _: reply(421), lambda _: reply(421), lambda _: reply(421)]

    assert code(lambda: client.post("/x", content=b"hi")) == "channel.key_unknown"
    assert len(host.requests) == 5 - 1


def test_a_body_that_cannot_be_sent_again_is_not() -> None:
    host, client = made(at_most_once=False)
    host.lies = [lambda _: reply(421)]

    assert code(lambda: client.post("/x", content=iter([b"once"]))) == "channel.outcome_unknown"


def test_a_session_that_is_over_is_replaced_before_anything_is_sent() -> None:
    host, client = made(max_session=50)
    client.post("/x", content=b"1")
    host.world.clock.now += 51

    assert client.post("/x", content=b"2").content == b"echo 2"
    assert [request.url.path for request in host.requests].count("/.well-known/confide") == 2


def test_bnd_15_a_restart_behind_the_same_address_needs_new_evidence() -> None:
    host, client = made(at_most_once=False)
    assert client.post("/x", content=b"1").content == b"echo 1"
    instance = host.instance
    host.instance = host.world.another()

    def through_the_gateway(request: httpx2.Request) -> httpx2.Response:
        try:
            return host.forward(request)
        except ChannelError:
            return reply(421)

    host.lies = [through_the_gateway]
    assert client.post("/x", content=b"2").content == b"echo 2"
    assert client.attestation.key_material is not None
    assert client.attestation.key_material.service.instance != instance.identity.instance


def test_bnd_13_an_older_key_of_the_same_instance_is_refused() -> None:
    host, client = made(max_session=50, cached=True)
    host.world.clock.now += 51
    # Fresh evidence answers the client's own nonce, so an older epoch means an instance that went back in time.
    host.instance._epoch = -1

    assert code(lambda: client.post("/x", content=b"1")) == "not_acceptable.stale"


def test_a_bundle_for_another_nonce_is_refused() -> None:
    host, client = made(max_session=50)
    host.world.clock.now += 51
    old = host.instance.bundle(os.urandom(32))
    host.discovery = lambda _: reply(200, EVIDENCE, old)

    assert code(lambda: client.post("/x", content=b"1")) == "not_acceptable.nonce_mismatch"


def test_a_cached_bundle_is_not_accepted_for_a_fresh_one() -> None:
    host, client = made(max_session=50, cached=True)
    host.world.clock.now += 51
    host.discovery = lambda _: reply(200, EVIDENCE, host.instance.bundle(None))

    assert code(lambda: client.post("/x", content=b"1")) == "not_acceptable.nonce_missing"
    assert host.executed == []


@pytest.mark.parametrize(
    ("answered", "wanted"),
    [
        (lambda: reply(200, EVIDENCE, b""), "malformed.truncated"),
        (lambda: reply(200, EVIDENCE, b"\x00" * (256 * 1024 + 1)), "channel.too_large"),
        (lambda: reply(200, "text/plain", b"bundle"), "channel.unauthenticated"),
        (lambda: reply(302, EVIDENCE, b"", {"location": "http://evil.example"}), "channel.unauthenticated"),
        (lambda: reply(503), "channel.unauthenticated"),
    ],
)
def test_discovery_believes_nothing_but_evidence(
    answered: Callable[[], httpx2.Response], wanted: str
) -> None:
    world = World()
    host = Host(world)
    host.discovery = lambda _: answered()

    assert (
        code(lambda: Client("http://s.example", verifier(), transport=host, clock=world.clock.wall)) == wanted
    )
    assert len(host.requests) == 1
    assert host.closed


def test_an_endless_bundle_is_not_read_to_its_end() -> None:
    read = []

    class Endless(httpx2.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            while True:
                read.append(1)
                yield bytes(65536)

    world = World()
    host = Host(world)
    host.discovery = lambda _: httpx2.Response(200, headers={"content-type": EVIDENCE}, stream=Endless())

    assert (
        code(lambda: Client("http://s.example", verifier(), transport=host, clock=world.clock.wall))
        == "channel.too_large"
    )
    assert len(read) < 10


class Broken(httpx2.SyncByteStream):
    def __init__(self, data: bytes, error: type[httpx2.TransportError]) -> None:
        self.data = data
        self.error = error

    def __iter__(self) -> Iterator[bytes]:
        yield self.data
        raise self.error("the wire was cut")


def refuse(error: httpx2.TransportError, *, read: bool) -> Handler:
    def lie(request: httpx2.Request) -> httpx2.Response:
        if read:
            request.read()
        raise error

    return lie


@pytest.mark.parametrize(
    ("lie", "wanted"),
    [
        (refuse(httpx2.ConnectError("no"), read=False), "channel.closed"),
        (refuse(httpx2.ConnectTimeout("no"), read=False), "channel.timeout"),
        (refuse(httpx2.ReadError("cut"), read=True), "channel.outcome_unknown"),
        (refuse(httpx2.ReadTimeout("slow"), read=True), "channel.outcome_unknown"),
        (refuse(httpx2.RemoteProtocolError("cut"), read=True), "channel.outcome_unknown"),
    ],
)
def test_ch_20_a_broken_connection_says_whether_the_request_may_have_run(lie: Handler, wanted: str) -> None:
    host, client = made(at_most_once=False)
    host.lies = [lie]

    assert code(lambda: client.post("/x", content=b"hi")) == wanted
    assert len(host.requests) == 2, "a broken connection is never a reason to repeat"


@pytest.mark.parametrize("error", [httpx2.ReadError, httpx2.RemoteProtocolError, httpx2.ReadTimeout])
def test_ch_02_an_answer_that_breaks_off_is_truncated_for_the_caller(
    error: type[httpx2.TransportError],
) -> None:
    host, client = made()

    def cut(request: httpx2.Request) -> httpx2.Response:
        opened, _body = take(host.instance, request.read())
        data = answer(opened, b"x" * 5000)
        return httpx2.Response(200, headers={"content-type": RESPONSE}, stream=Broken(data[:-100], error))

    host.lies = [cut]
    with client.stream("POST", "/x", content=b"hi") as response, pytest.raises(ChannelError) as broken:
        response.read()

    assert broken.value.code == ("channel.timeout" if error is httpx2.ReadTimeout else "channel.truncated")
    assert not response.extensions["confide"].complete


def test_two_content_types_are_none() -> None:
    host, client = made()

    def twice(request: httpx2.Request) -> httpx2.Response:
        honest = host.forward(request)
        return httpx2.Response(
            200, headers=[("content-type", RESPONSE), ("content-type", "text/html")], stream=honest.stream
        )

    host.lies = [twice]
    assert code(lambda: client.get("/x")) == "channel.unauthenticated"


@pytest.mark.parametrize("route", ["", "x" * 65, "a b", "ü"])
def test_a_route_that_is_not_well_formed_is_not_sent_back(route: str) -> None:
    world = World()
    host = Host(world)

    def with_route(request: httpx2.Request) -> httpx2.Response:
        bundle = host.instance.bundle(request.read())
        fields = [(b"content-type", EVIDENCE.encode()), (b"confide-route", route.encode())]
        return httpx2.Response(200, headers=fields, stream=httpx2.ByteStream(bundle))

    host.discovery = with_route
    client = Client(
        "http://s.example", verifier(), transport=host, clock=world.clock.wall, monotonic=world.clock
    )
    client.get("/x")

    assert "confide-route" not in host.requests[-1].headers


def test_an_authentication_failure_ends_the_session_and_the_next_call_attests_anew() -> None:
    host, client = made()

    def flip(request: httpx2.Request) -> httpx2.Response:
        opened, body = take(host.instance, request.read())
        data = bytearray(answer(opened, body))
        data[-1] ^= 1
        return reply(200, RESPONSE, bytes(data))

    host.lies = [flip]
    assert code(lambda: client.post("/x", content=b"hi")) == "channel.record_auth"
    assert client.post("/x", content=b"again").content == b"echo again"
    assert [request.url.path for request in host.requests].count("/.well-known/confide") == 2


def test_evidence_older_than_the_policy_admits_is_refused_on_arrival() -> None:
    world = World()
    host = Host(world)

    def slow(request: httpx2.Request) -> httpx2.Response:
        answered = host.discover(request)
        world.clock.now += 31
        return answered

    host.discovery = slow
    with pytest.raises(NotAcceptable) as stale:
        Client(
            "http://s.example",
            verifier(max_age="30s"),
            transport=host,
            clock=world.clock.wall,
            monotonic=world.clock,
        )

    assert stale.value.code == "not_acceptable.stale"


def test_options_of_another_type_are_refused_before_anything_is_sent() -> None:
    host, client = made()

    assert (
        code(lambda: client.get("/x", extensions={"confide": {"receipt": True}})) == "configuration.options"
    )
    assert len(host.requests) == 1


def test_a_flow_only_takes_its_steps_answers() -> None:
    steps = flow.ChannelFlow(
        "http://s.example",
        verifier(),
        fresh=True,
        purpose="channel",
        audience=None,
        receipts=False,
        at_most_once=False,
        clock=World().clock.wall,
        monotonic=World().clock,
        random=os.urandom,
    ).attest()
    next(steps)
    with pytest.raises(ConfigurationError):
        steps.send(b"bytes are no reply")
