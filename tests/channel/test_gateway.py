# SPDX-License-Identifier: Apache-2.0
"""The front door: what it answers to whom, and what slow, rude and broken peers cost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from confide.channel.client import AsyncClient, Client
from confide.channel.gateway import Gateway
from confide.channel.settings import ChannelSettings
from confide.errors import ChannelError, EnclaveError
from support import snp
from support.channel_world import World, echo, post, receive, verifier

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

REQUEST = b"application/confide-request"
NONCE = b"application/confide-nonce"
DISCOVERY = "/.well-known/confide"


class Peer:
    """One outer request to an ASGI application, without a server; waits for ever once its messages are used up."""

    def __init__(
        self,
        path: str,
        body: Sequence[bytes] = (b"",),
        *,
        method: str = "POST",
        kind: bytes | None = REQUEST,
        ends: bool = True,
        leaves: bool = False,
    ) -> None:
        headers = [] if kind is None else [(b"content-type", kind)]
        self.scope = {"type": "http", "method": method, "path": path, "headers": headers}
        last = len(body) - 1
        self.messages: list[dict[str, Any]] = [
            {"type": "http.request", "body": piece, "more_body": index < last or not ends}
            for index, piece in enumerate(body)
        ]
        if leaves:
            self.messages.append({"type": "http.disconnect"})
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        if not self.messages:
            await asyncio.Event().wait()
        return self.messages.pop(0)

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    async def ask(self, app: Any) -> tuple[int, bytes]:
        await app(self.scope, self.receive, self.send)
        return self.outcome

    @property
    def outcome(self) -> tuple[int, bytes]:
        return self.sent[0]["status"], b"".join(message.get("body", b"") for message in self.sent[1:])


def ask(world: World, *args: Any, app: Any = echo, **options: Any) -> tuple[int, bytes]:
    return asyncio.run(Peer(*args, **options).ask(Gateway(app, world.instance)))


def test_an_exchange_goes_through() -> None:
    world = World()
    exchange, data = post(world.session(), b"hello")
    status, body = ask(world, "/confide", [data])

    assert status == 200
    assert receive(exchange, body) == b"hello"


@pytest.mark.parametrize("size", [1, 100, 1262, 1263, 5000])
def test_an_exchange_in_pieces_goes_through(size: int) -> None:
    world = World()
    exchange, data = post(world.session(), b"hello" * 200)
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    status, body = ask(world, "/confide", [*pieces, b""])

    assert status == 200
    assert receive(exchange, body) == b"hello" * 200


@pytest.mark.parametrize(
    ("path", "options", "wanted"),
    [
        ("/", {}, 404),
        ("/echo", {}, 404),
        ("/confide/", {}, 404),
        ("/confide", {"method": "GET"}, 400),
        ("/confide", {"kind": None}, 400),
        ("/confide", {"kind": b"application/json"}, 400),
        ("/confide", {"body": [b"x" * 3000]}, 400),
        ("/confide", {"body": [b""]}, 400),
        (DISCOVERY, {"kind": NONCE, "body": [b"x" * 31]}, 400),
        (DISCOVERY, {"kind": NONCE, "body": [b"x" * 33]}, 400),
        (DISCOVERY, {"kind": NONCE, "body": [b"x" * 32, b"y"]}, 400),
        (DISCOVERY, {"kind": NONCE, "body": [b""]}, 400),
        (DISCOVERY, {"kind": b"text/plain", "body": [b"x" * 32]}, 400),
        (DISCOVERY, {"method": "GET"}, 404),
        (DISCOVERY, {"method": "DELETE"}, 405),
    ],
)
def test_every_outer_error_is_a_status_with_an_empty_body(
    path: str, options: dict[str, Any], wanted: int
) -> None:
    status, body = ask(World(), path, **options)

    assert (status, body) == (wanted, b"")


def test_ch_21_outer_errors_differ_in_nothing_but_their_status() -> None:
    world = World()
    session = world.session()
    _, used = post(session, b"used")
    gateway = Gateway(echo, world.instance)
    told = []

    async def run() -> None:
        await Peer("/confide", [used]).ask(gateway)
        for data in (used, used[:-1], b"CFE1" + used[4:100], bytes((used[0] ^ 1,)) + used[1:]):
            peer = Peer("/confide", [data])
            await peer.ask(gateway)
            told.append(peer.sent)

    asyncio.run(run())

    assert all(sent == told[0] for sent in told)
    assert told[0][0]["status"] == 400


@pytest.mark.parametrize("cut", [10, 1262, 1262 + 100, 1262 + 277, -1])
def test_ch_02_a_peer_that_leaves_in_the_middle_never_completes_a_request(cut: int) -> None:
    world = World()
    _, data = post(world.session(), b"transfer everything")
    bodies: list[bytes] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                bodies.append(b"disconnected")
                return
            body += message["body"]
            if not message["more_body"]:
                bodies.append(body)
                return

    async def leave() -> None:
        peer = Peer("/confide", [data[:cut]], ends=False, leaves=True)
        await Gateway(app, world.instance)(peer.scope, peer.receive, peer.send)

    asyncio.run(leave())
    ask(world, "/confide", [data[:cut]], app=app)

    assert b"transfer everything" not in bodies
    assert set(bodies) <= {b"disconnected"}


def test_bytes_behind_the_final_frame_make_the_whole_request_void() -> None:
    world = World()
    _, data = post(world.session(), b"hello")
    ran: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        ran.append(message["type"])

    assert ask(world, "/confide", [data, b"\x00"], app=app) == (400, b"")
    assert ran == ["http.disconnect"]


def test_a_cancelled_request_is_a_disconnect_for_the_application() -> None:
    world = World()
    exchange = world.session().request(b"POST", b"/echo")
    message = exchange.outgoing
    data = b"".join([message.start(), *message.write(b"half"), message.flush(), message.abort(b"cancelled")])
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while not seen or seen[-1] != "http.disconnect":
            seen.append((await receive())["type"])

    assert ask(world, "/confide", [data], app=app) == (400, b"")
    assert seen[-1] == "http.disconnect"


def test_what_the_application_says_too_early_waits_for_the_end_of_the_request() -> None:
    world = World()
    exchange, data = post(world.session(), b"x" * 3000)
    order: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"early ", "more_body": True})
        order.append("said")
        while (await receive())["more_body"]:
            pass
        await send({"type": "http.response.body", "body": b"late"})

    peer = Peer("/confide", [data[:2000], data[2000:]])

    async def receive_outer() -> dict[str, Any]:
        if not peer.messages[:1] or len(peer.messages) == 1:
            assert peer.sent == [], "a byte of the response left before the request was whole"
        return await Peer.receive(peer)

    asyncio.run(Gateway(app, world.instance)(peer.scope, receive_outer, peer.send))

    assert order == ["said"]
    assert receive(exchange, peer.outcome[1]) == b"early late"


def test_an_application_that_floods_before_it_reads_is_stopped() -> None:
    world = World()
    exchange, data = post(world.session(), b"x" * 3000)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(3):
            await send({"type": "http.response.body", "body": b"y" * 700_000, "more_body": True})

    status, body = ask(world, "/confide", [data[:2000], data[2000:]], app=app)

    assert status == 200
    assert receive(exchange, body) == b"internal error"
    assert exchange.response is not None
    assert exchange.response.status == 500


@pytest.mark.parametrize(
    "fault",
    [
        "returns nothing",
        "start twice",
        "body first",
        "trailers",
        "bad head",
        "too short",
        "too long",
        "other message",
    ],
)
def test_a_faulty_application_leaks_nothing(fault: str) -> None:
    world = World()
    exchange, data = post(world.session(), b"")
    errors: list[BaseException] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        start: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": []}
        if fault == "returns nothing":
            return
        if fault == "body first":
            await send({"type": "http.response.body", "body": b""})
        if fault == "trailers":
            start["trailers"] = True
        if fault == "bad head":
            start["headers"] = [(b"connection", b"close")]
        if fault in {"too short", "too long"}:
            start["headers"] = [(b"content-length", b"3")]
        await send(start)
        if fault == "start twice":
            await send(start)
        if fault == "other message":
            await send({"type": "http.response.push", "path": "/"})
        await send({"type": "http.response.body", "body": b"xx" if fault == "too short" else b"xxxx"})

    peer = Peer("/confide", [data])
    asyncio.run(peer.ask(Gateway(app, world.instance, on_error=errors.append)))
    outcome = b""
    with contextlib.suppress(ChannelError):
        outcome = receive(exchange, peer.outcome[1])

    assert peer.outcome[0] == 200
    assert outcome in {b"internal error", b""}
    assert not exchange.complete or (exchange.response is not None and exchange.response.status == 500)


def test_ch_08_a_head_that_drips_is_cut_off_after_its_time() -> None:
    world = World(settings=ChannelSettings(head_seconds=0.1))
    _, data = post(world.session(), b"hello")
    for body in ([b""], [data[:1000]], [data[:1262]], [data[:1400]]):
        began = time.monotonic()
        status = ask(world, "/confide", body, ends=False)

        assert status == (408, b"")
        assert time.monotonic() - began < 2


def test_ch_08_a_body_that_drips_is_cut_off_after_its_time() -> None:
    world = World(settings=ChannelSettings(frame_seconds=0.1))
    _, data = post(world.session(), b"hello" * 1000)

    assert ask(world, "/confide", [data[:-1]], ends=False) == (408, b"")


def test_ch_08_a_frame_that_drips_steadily_is_cut_off_too() -> None:
    """One byte now and then resets no clock: the frame as a whole has its time."""
    world = World(settings=ChannelSettings(frame_seconds=0.2))
    _, data = post(world.session(), b"hello" * 1000)
    start = 1262 + 277
    peer = Peer("/confide", [data[:start]], ends=False)

    async def drip() -> dict[str, Any]:
        if peer.messages:
            return await Peer.receive(peer)
        await asyncio.sleep(0.02)
        drip.at += 1  # type: ignore[attr-defined]
        at: int = drip.at  # type: ignore[attr-defined]
        return {"type": "http.request", "body": data[at - 1 : at], "more_body": True}

    drip.at = start  # type: ignore[attr-defined]
    began = time.monotonic()
    asyncio.run(asyncio.wait_for(Gateway(echo, world.instance)(peer.scope, drip, peer.send), 10))

    assert peer.outcome == (408, b"")
    assert time.monotonic() - began < 3


def test_ch_08_a_nonce_that_drips_is_cut_off_after_its_time() -> None:
    world = World(settings=ChannelSettings(head_seconds=0.1))

    assert ask(world, DISCOVERY, [b"x" * 31], kind=NONCE, ends=False) == (400, b"")


def test_ch_08_a_reader_that_takes_nothing_is_given_up() -> None:
    world = World(settings=ChannelSettings(frame_seconds=0.1))
    _, data = post(world.session(), b"hello")
    errors: list[BaseException] = []
    peer = Peer("/confide", [data])

    async def never(message: Any) -> None:
        await asyncio.Event().wait()

    gateway = Gateway(echo, world.instance, on_error=errors.append)
    asyncio.run(asyncio.wait_for(gateway(peer.scope, peer.receive, never), 5))

    assert gateway.exchanges == 0
    assert [getattr(error, "code", None) for error in errors][:1] == ["channel.timeout"]


def test_ch_08_exchanges_are_bounded_and_others_are_told_at_once() -> None:
    world = World(settings=ChannelSettings(max_exchanges=2, head_seconds=0.5))
    session = world.session()
    exchange, data = post(session, b"hello")

    async def run() -> tuple[tuple[int, bytes], tuple[int, bytes]]:
        gateway = Gateway(echo, world.instance)
        idle = [asyncio.create_task(Peer("/confide", [b""], ends=False).ask(gateway)) for _ in range(2)]
        await asyncio.sleep(0.05)
        busy = await Peer("/confide", [data]).ask(gateway)
        await asyncio.gather(*idle)
        return busy, await Peer("/confide", [data]).ask(gateway)

    busy, later = asyncio.run(run())

    assert busy == (503, b"")
    assert receive(exchange, later[1]) == b"hello"


def test_ch_08_500_idle_connections_leave_an_honest_client_alone(live: Callable[..., Any]) -> None:
    service = live(head_seconds=30.0)
    port = int(service.url.rpartition(":")[2])
    head = b"POST /confide HTTP/1.1\r\nhost: x\r\ncontent-type: application/confide-request\r\ncontent-length: 5000\r\n\r\n"
    with contextlib.ExitStack() as stack:
        for _ in range(500):
            idle = stack.enter_context(socket.create_connection(("127.0.0.1", port), 5))
            idle.sendall(head + b"CFE1")
        with Client(service.url, verifier(), clock=lambda: snp.AT) as http:
            for _ in range(20):
                assert http.post("/echo", content=b"honest").content == b"honest"


def test_a_draining_gateway_starts_nothing_new_and_finishes_what_it_has() -> None:
    world = World()
    exchange, data = post(world.session(), b"hello")

    async def run() -> tuple[tuple[int, bytes], ...]:
        gateway = Gateway(echo, world.instance)
        going = Peer("/confide", [data[:1700]], ends=False)
        task = asyncio.create_task(going.ask(gateway))
        await asyncio.sleep(0.05)
        gateway.drain()
        refused = await Peer("/confide", [data]).ask(gateway)
        no_nonce = await Peer(DISCOVERY, [os.urandom(32)], kind=NONCE).ask(gateway)
        task.cancel()
        return refused, no_nonce

    assert asyncio.run(run()) == ((503, b""), (503, b""))
    assert exchange.response is None


def test_extra_routes_are_served_outside_the_envelope_and_by_exact_path() -> None:
    world = World()

    async def release(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 299, "headers": []})
        await send({"type": "http.response.body", "body": b"release"})

    gateway = Gateway(echo, world.instance, {"/confide/release": release})

    async def run(path: str) -> tuple[int, bytes]:
        return await Peer(path).ask(gateway)

    assert asyncio.run(run("/confide/release")) == (299, b"release")
    assert asyncio.run(run("/confide/release/x")) == (404, b"")


@pytest.mark.parametrize(
    "error", [EnclaveError("crashed", "the device is gone"), OSError("ioctl"), MemoryError()]
)
def test_a_quoting_device_that_fails_is_a_503_for_its_batch_only(error: BaseException) -> None:
    world = World()
    attest = world.attester.attest

    def fail(report_data: bytes) -> Any:
        world.attester.attest = attest  # type: ignore[method-assign]
        raise error

    world.attester.attest = fail  # type: ignore[method-assign]

    async def run() -> list[tuple[int, bytes]]:
        gateway = Gateway(echo, world.instance)
        return [await Peer(DISCOVERY, [os.urandom(32)], kind=NONCE).ask(gateway) for _ in range(2)]

    first, second = asyncio.run(run())

    assert first == (503, b"")
    assert second[0] == 200


def test_nonces_that_come_while_the_device_is_busy_share_the_next_quote() -> None:
    world = World()
    busy = threading.Event()
    attest = world.attester.attest

    def slowly(report_data: bytes) -> Any:
        busy.wait(5)
        return attest(report_data)

    world.attester.attest = slowly  # type: ignore[method-assign]

    async def run() -> list[tuple[int, bytes]]:
        gateway = Gateway(echo, world.instance)
        first = asyncio.create_task(Peer(DISCOVERY, [os.urandom(32)], kind=NONCE).ask(gateway))
        await asyncio.sleep(0.05)
        others = [
            asyncio.create_task(Peer(DISCOVERY, [os.urandom(32)], kind=NONCE).ask(gateway)) for _ in range(50)
        ]
        await asyncio.sleep(0.05)
        busy.set()
        return list(await asyncio.gather(first, *others))

    answers = asyncio.run(run())

    assert [status for status, _ in answers] == [200] * 51
    assert world.attester.quotes == 2


def test_a_key_that_cannot_be_made_is_a_503_and_not_a_wait() -> None:
    world = World()
    make = world.instance._make_key

    def fail(lifetime: int, opens_for: int) -> Any:
        world.instance._make_key = make  # type: ignore[method-assign]
        raise OSError("no entropy")

    world.instance._make_key = fail  # type: ignore[method-assign]

    async def run() -> list[tuple[int, bytes]]:
        gateway = Gateway(echo, world.instance)
        return [await Peer(DISCOVERY, [os.urandom(32)], kind=NONCE).ask(gateway) for _ in range(2)]

    began = time.monotonic()
    first, second = asyncio.run(run())

    assert (first, second[0]) == ((503, b""), 200)
    assert time.monotonic() - began < 5


def test_fresh_and_cached_evidence_share_the_device_and_the_pace() -> None:
    world = World(settings=ChannelSettings(cached=True))

    async def run() -> list[tuple[int, bytes]]:
        gateway = Gateway(echo, world.instance)
        asked = [
            Peer(DISCOVERY, [os.urandom(32)], kind=NONCE) if index % 2 else Peer(DISCOVERY, method="GET")
            for index in range(20)
        ]
        return list(await asyncio.gather(*(peer.ask(gateway) for peer in asked)))

    answers = asyncio.run(run())

    assert [status for status, _ in answers] == [200] * 20
    assert len({body for _, body in answers[::2]}) == 1, "one cached bundle for everybody"
    assert world.attester.quotes <= 4


def test_a_client_that_is_cancelled_gives_its_connection_back(live: Callable[..., Any]) -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == "/slow":
            await asyncio.sleep(0.5)
        await echo(scope, receive, send)

    service = live(slow)

    async def run() -> bytes:
        inner = httpx2.AsyncHTTPTransport(limits=httpx2.Limits(max_connections=1))
        async with AsyncClient(service.url, verifier(), clock=lambda: snp.AT, transport=inner) as http:
            for _ in range(3):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await http.post("/slow", content=b"x")
            return (await http.post("/echo", content=b"next", timeout=5)).content

    assert asyncio.run(run()) == b"next"


def test_a_websocket_is_refused() -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def nothing() -> dict[str, Any]:
        return {}

    asyncio.run(Gateway(echo, World().instance)({"type": "websocket", "path": "/confide"}, nothing, send))

    assert [message["type"] for message in sent] == ["websocket.close"]


def test_the_application_has_its_lifespan_and_its_state(live: Callable[..., Any]) -> None:
    events: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            events.append("startup")
            scope["state"]["model"] = "loaded"
            await send({"type": "lifespan.startup.complete"})
            await receive()
            events.append("shutdown")
            await send({"type": "lifespan.shutdown.complete"})
            return
        events.append(scope["state"]["model"])
        await echo(scope, receive, send)

    service = live(app)
    with Client(service.url, verifier(), clock=lambda: snp.AT) as http:
        http.get("/echo")

    assert events == ["startup", "loaded"]


def test_keys_and_sessions_are_dropped_also_when_nobody_asks(live: Callable[..., Any]) -> None:
    service = live(max_session=1)
    with Client(service.url, verifier(), clock=lambda: snp.AT) as http:
        http.get("/echo")
        assert len(service.world.instance.table) == 1
        deadline = time.monotonic() + 5
        while len(service.world.instance.table) and time.monotonic() < deadline:
            time.sleep(0.05)

    assert len(service.world.instance.table) == 0


def test_the_host_sees_no_plaintext_on_the_wire(live: Callable[..., Any]) -> None:
    service = live()
    seen: list[bytes] = []

    class Tap(httpx2.BaseTransport):
        def __init__(self) -> None:
            self.inner = httpx2.HTTPTransport()

        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            seen.append(request.read() + repr(request.headers.raw).encode())
            response = self.inner.handle_request(request)
            seen.append(response.read() + repr(response.headers.raw).encode())
            return httpx2.Response(
                response.status_code, headers=response.headers.raw, stream=httpx2.ByteStream(response.content)
            )

        def close(self) -> None:
            self.inner.close()

    with Client(service.url, verifier(), clock=lambda: snp.AT, transport=Tap()) as http:
        assert http.post("/echo?canary-path", content=b"canary-body").content == b"canary-body"

    assert b"canary" not in b"".join(seen)
