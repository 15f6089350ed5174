# SPDX-License-Identifier: Apache-2.0
"""Calls an ASGI application without a socket, and serves one on loopback for clients that need a socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import uvicorn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


async def acall(
    app: Any,
    method: str,
    path: str,
    body: bytes = b"",
    headers: Sequence[tuple[str, str]] = (),
    chunk: int = 65536,
    *,
    disconnect: bool = False,
) -> Answer | None:
    """One request; with ``disconnect`` the client leaves instead of sending the last chunk. None if nothing came back."""
    pieces = [body[at : at + chunk] for at in range(0, len(body), chunk)] or [b""]
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": piece, "more_body": index + 1 < len(pieces) or disconnect}
        for index, piece in enumerate(pieces)
    ]
    if disconnect:
        messages.append({"type": "http.disconnect"})
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers],
        "query_string": b"",
    }
    await app(scope, receive, send)
    if not sent:
        return None
    head = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], head, b"".join(bytes(message["body"]) for message in sent[1:]))


def call(
    app: Any, method: str, path: str, body: bytes = b"", headers: Sequence[tuple[str, str]] = ()
) -> Answer:
    answer = asyncio.run(acall(app, method, path, body, headers))
    assert answer is not None
    return answer


@contextlib.contextmanager
def served(app: Any, *, lifespan: Literal["on", "off"] = "off") -> Iterator[str]:
    """The app behind uvicorn on a free loopback port, in a thread that ends with the block; the URL."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        config = uvicorn.Config(
            app, log_level="critical", lifespan=lifespan, access_log=False, loop="asyncio"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)
