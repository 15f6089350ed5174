# SPDX-License-Identifier: Apache-2.0
"""A local door for clients that speak plain HTTP: curl, a browser's page on this machine, another language's library.

An ASGI application that belongs on loopback. Whoever reaches it reaches the service as this user does, so it answers to
loopback names only: a web page whose name an attacker points at this machine is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx2

from confide.channel.client import BASE_URL
from confide.errors import ConfideError
from confide.wire import strict_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping

    from confide.channel.async_transport import AsyncAttestedTransport

    Message = MutableMapping[str, Any]

__all__ = ["Proxy"]

LOOPBACK = frozenset({b"localhost", b"127.0.0.1", b"[::1]"})
KEPT_BODY = 1 << 20  # A body up to this size is read first, so that it could be sent again.
_NEVER = httpx2.Timeout(None)


class _Stream(httpx2.AsyncByteStream):
    """A request's body as it comes in."""

    def __init__(self, receive: Callable[[], Awaitable[Message]]) -> None:
        self._receive = receive

    async def __aiter__(self) -> AsyncIterator[bytes]:
        more = True
        while more:
            message = await self._receive()
            if message["type"] != "http.request":
                raise httpx2.ReadError("the local client left in the middle of its request")
            more = message.get("more_body", False)
            yield message.get("body", b"")


class Proxy:
    """Forwards every plain request through ``transport`` into the envelope and streams the answer back.

    ``hosts`` are the names, without port, under which it may be addressed. What goes wrong before an answer began is a 502
    with the error's code; afterwards the connection breaks off, so that nothing incomplete looks whole.
    """

    def __init__(self, transport: AsyncAttestedTransport, *, hosts: frozenset[bytes] = LOOPBACK) -> None:
        self._transport = transport
        self._hosts = hosts

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """ASGI."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._forward(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": ""})

    async def _lifespan(
        self, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await self._transport.aclose()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return

    async def _forward(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        names = [value for name, value in scope["headers"] if name == b"host"]
        if len(names) != 1 or _without_port(names[0]) not in self._hosts:
            await _answer(send, 421, b"")
            return
        started = False
        try:
            response = await self._transport.handle_async_request(await self._request(scope, receive))
            try:
                started = True
                head = {"type": "http.response.start", "status": response.status_code}
                await send({**head, "headers": response.headers.raw})
                if not isinstance(response.stream, httpx2.AsyncByteStream):
                    return
                async for piece in response.stream:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            finally:
                await response.aclose()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except ConfideError as error:
            if not started:
                told = {"code": error.code, "message": error.message, "hint": error.hint}
                await _answer(send, 502, strict_json.encode({"error": told}))

    async def _request(self, scope: Message, receive: Callable[[], Awaitable[Message]]) -> httpx2.Request:
        target = bytes(scope.get("raw_path") or scope["path"].encode())
        if scope.get("query_string"):
            target += b"?" + scope["query_string"]
        fields = list(scope["headers"])
        declared = [value for name, value in fields if name == b"content-length"]
        stream: httpx2.AsyncByteStream = _Stream(receive)
        if len(declared) == 1 and declared[0].isdigit() and int(declared[0]) <= KEPT_BODY:
            stream = httpx2.ByteStream(b"".join([piece async for piece in stream]))
        return httpx2.Request(
            scope["method"],
            httpx2.URL(BASE_URL).copy_with(raw_path=target),
            headers=fields,
            stream=stream,
            extensions={"timeout": _NEVER.as_dict()},
        )


def _without_port(host: bytes) -> bytes:
    name, colon, port = host.lower().rpartition(b":")
    return name if colon and port.isdigit() else host.lower()


async def _answer(send: Callable[[Message], Awaitable[None]], status: int, body: bytes) -> None:
    fields = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body, "more_body": False})
