# SPDX-License-Identifier: Apache-2.0
"""Both ends of a channel in one process, with clocks that move when they are told to.

The evidence is minted for every quote under the tests' own root and goes through the real Verifier.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from confide.attestation.attester import PlatformEvidence
from confide.attestation.evidence import EvidencePart
from confide.attestation.policy import AppraisalPolicy
from confide.attestation.verifier import Verifier
from confide.channel.binary_http import ResponseHead
from confide.channel.client_session import ClientSession
from confide.channel.instance import Instance
from confide.channel.settings import ChannelSettings
from support import snp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from confide.attestation.result import AttestationResult
    from confide.channel.client_session import Exchange
    from confide.channel.incoming import IncomingRequest

MANIFEST = b"a measured manifest"
ID = "tenant-7"
KIND = "echo"


class Clock:
    """Monotonic seconds and the wall time that goes with them."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def wall(self) -> Any:
        return snp.AT + timedelta(seconds=self.now - 1000.0)


class MintedAttester:
    """A TEE's device whose reports are signed by the tests' own chip."""

    def __init__(self, **report: Any) -> None:
        self.report = report
        self.quotes = 0

    def attest(self, report_data: bytes) -> PlatformEvidence:
        self.quotes += 1
        minted = snp.mint(report={"report_data": report_data, **self.report})
        return PlatformEvidence(platform=EvidencePart("snp", minted.report), endorsements=minted.endorsements)

    def derive_key(self, label: bytes) -> bytes:
        return hashlib.sha256(b"tests" + label).digest()


@dataclass(frozen=True)
class Service:
    kind: str = KIND
    id: str = ID


def verifier(*, max_age: str | None = None, id: str = ID, manifest: bytes = MANIFEST) -> Verifier:  # noqa: A002
    """A Verifier that pins the minted measurement and the service."""
    table: dict[str, Any] = {
        "tees": ["snp"],
        "service": {"kind": KIND, "id": id, "manifest": [hashlib.sha256(manifest).hexdigest()]},
        "reference": {"snp": {"measurement": [snp.MEASUREMENT.hex()]}},
    }
    if max_age is not None:
        table["max_age"] = max_age
    return Verifier(AppraisalPolicy.from_table(table), extra_anchors=(snp.authority().anchor(),))


@dataclass
class World:
    """One instance, one client's view of it."""

    clock: Clock = field(default_factory=Clock)
    settings: ChannelSettings = field(default_factory=ChannelSettings)
    content: dict[str, bytes] = field(default_factory=lambda: {"model": b"\x0c" * 32})
    random: Callable[[int], bytes] = os.urandom
    service: Any = field(default_factory=Service)
    attester: MintedAttester = field(default_factory=MintedAttester)

    def __post_init__(self) -> None:
        self.instance = self.another()

    def another(self) -> Instance:
        """A further instance (a replica, or the same after a restart)."""
        return Instance(
            self.service,
            MANIFEST,
            self.attester,
            settings=self.settings,
            content=self.content,
            random=self.random,
            monotonic=self.clock,
            wall_clock=self.clock.wall,
        )

    def result(self, instance: Instance | None = None) -> AttestationResult:
        """Fresh evidence of an instance, verified."""
        nonce = os.urandom(32)
        return verifier().verify(
            (instance or self.instance).bundle(nonce),
            at=self.clock.wall(),
            nonce=nonce,
            age=timedelta(0),
            purpose="channel",
        )

    def session(self, instance: Instance | None = None, **changes: Any) -> ClientSession:
        """A session with fresh evidence of an instance."""
        options: dict[str, Any]
        options = {"random": self.random, "monotonic": self.clock, "started": self.clock(), **changes}
        return ClientSession(self.result(instance), **options)


def pack(exchange: Exchange, body: bytes = b"", *, pieces: Iterable[bytes] | None = None) -> bytes:
    """All bytes of a request; with ``pieces`` its body is a stream with a flush after each."""
    message = exchange.outgoing
    out = [message.start()]
    if not message.ended:
        for piece in [body] if pieces is None else pieces:
            out += message.write(piece)
            out.append(message.flush())
        out.append(message.finish())
    return b"".join(out)


def post(session: ClientSession, body: bytes = b"", **options: Any) -> tuple[Exchange, bytes]:
    """An exchange that posts ``body``, and the bytes of its request."""
    fields = ((b"content-length", b"%d" % len(body)), *options.pop("fields", ()))
    exchange = session.request(b"POST", b"/echo?x=1", fields, **options)
    return exchange, pack(exchange, body)


def take(instance: Instance, data: bytes, *, chunk: int | None = None) -> tuple[IncomingRequest, bytes]:
    """Let an instance receive a whole request; its opened form and the body, or the refusal."""
    request = instance.open_request()
    body = []
    try:
        step = chunk or max(1, len(data))
        for at in range(0, len(data), step):
            request.push(data[at : at + step])
            while (piece := request.next()) is not None:
                body.append(piece)
        request.end()
    except BaseException:
        request.close()
        raise
    return request, b"".join(body)


def answer(
    request: IncomingRequest,
    body: bytes = b"",
    *,
    status: int = 200,
    fields: Iterable[tuple[bytes, bytes]] = (),
    pieces: Iterable[bytes] | None = None,
) -> bytes:
    """All bytes of the response to an opened request."""
    length = None if pieces is not None else len(body)
    message = request.respond(ResponseHead(status, tuple(fields)), length=length)
    out = [message.start()]
    for piece in [body] if pieces is None else pieces:
        out += message.write(piece)
        out.append(message.flush())
    out.append(message.finish())
    request.close()
    return b"".join(out)


def receive(exchange: Exchange, data: bytes, *, chunk: int | None = None) -> bytes:
    """Let a client receive a whole response; its body, or the refusal."""
    step = chunk or max(1, len(data))
    body = [piece for at in range(0, len(data), step) for piece in exchange.feed(data[at : at + step])]
    exchange.end()
    return b"".join(body)


def round_trip(world: World, session: ClientSession, body: bytes = b"hello", **options: Any) -> bytes:
    """A whole exchange with an echo; what the client got."""
    exchange, data = post(session, body, **options)
    request, received = take(world.instance, data)
    return receive(exchange, answer(request, received))


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI application that answers with what it was sent, or as its path says."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    path = scope["path"]
    if path == "/fail":
        raise ValueError("a secret in an exception")
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        if not message["more_body"]:
            break
    start: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": []}
    if path == "/stream":
        await send(start)
        for index in range(5):
            await send({"type": "http.response.body", "body": b"event %d;" % index, "more_body": True})
            await asyncio.sleep(0.04)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return
    if path == "/fail-later":
        await send(start)
        await send({"type": "http.response.body", "body": b"x" * 2_000_000, "more_body": True})
        raise ValueError("a secret in an exception")
    start["headers"] = [
        (b"content-type", b"application/octet-stream"),
        (b"x-method", scope["method"].encode()),
    ]
    await send(start)
    await send({"type": "http.response.body", "body": body})
