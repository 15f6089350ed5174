# SPDX-License-Identifier: Apache-2.0
"""An ASGI application that tests launch in an enclave. Each path is one thing that a test needs from the inside."""

from __future__ import annotations

import asyncio
import ctypes
import json
import logging
import os
import sys
import threading
from pathlib import Path
from typing import Any

KEPT: list[bytes] = []


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body", False):
            break
    context = scope["state"]["confide"]
    answer = await PATHS[scope["path"]](bytes(body), context)
    data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", b"application/octet-stream")],
        }
    )
    await send({"type": "http.response.body", "body": data})


async def echo(body: bytes, _context: Any) -> bytes:
    return body


async def keep(body: bytes, _context: Any) -> bytes:
    """Hold the body in memory, and talk about it where the host might listen."""
    KEPT.append(body)
    print(body, flush=True)  # noqa: T201
    sys.stderr.write(repr(body))
    logging.getLogger().error("received %r", body)
    return b"kept"


async def fail(body: bytes, _context: Any) -> bytes:
    raise ValueError(body)


async def slow(body: bytes, _context: Any) -> bytes:
    await asyncio.sleep(float(body))
    return b"done"


async def allocate(body: bytes, _context: Any) -> bytes:
    held = bytearray(int(body))
    return str(len(held)).encode()


async def segfault(_body: bytes, _context: Any) -> bytes:
    ctypes.string_at(0)
    return b""


async def threads(_body: bytes, _context: Any) -> int:
    """A thread bomb; how many threads could be started."""
    release = threading.Event()
    started: list[threading.Thread] = []
    try:
        for _ in range(5000):
            thread = threading.Thread(target=release.wait, daemon=True)
            thread.start()
            started.append(thread)
    except RuntimeError:
        pass
    release.set()
    return len(started)


async def recurse(_body: bytes, _context: Any) -> bytes:
    def again(depth: int) -> int:
        return again(depth + 1) + 1

    try:
        again(0)
    except RecursionError:
        return b"bounded"
    return b""


async def facts(_body: bytes, _context: Any) -> Any:
    """What of the world outside reaches the inside."""
    here = Path("/proc/self")
    descriptors: dict[str, str] = {}
    for entry in (here / "fd").iterdir():
        try:
            descriptors[entry.name] = str(entry.readlink())
        except OSError:
            continue
    return {
        "environment": dict(os.environ),
        "arguments": sys.argv[1:],
        "path": sys.path,
        "directory": str(Path.cwd()),
        "descriptors": descriptors,
        "flags": [sys.flags.isolated, sys.flags.no_site, sys.flags.dont_write_bytecode, sys.flags.utf8_mode],
        "umask": _umask(),
    }


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


async def context_use(body: bytes, context: Any) -> Any:
    sealed = context.seal(body, purpose="test")
    return {
        "key": context.key("test").reveal().hex(),
        "other": context.key("test2").reveal().hex(),
        "opened": context.open(sealed, purpose="test").hex(),
        "sealed": sealed.hex(),
        "evidence": context.attest(bytes(range(32))).hex(),
    }


async def open_sealed(body: bytes, context: Any) -> bytes:
    opened: bytes = context.open(body, purpose="test")
    return opened


async def vault(body: bytes, context: Any) -> bytes:
    kept = context.vault("notes")
    before: bytes = kept.get("last") or b"nothing"
    kept.put("last", body)
    return before


async def say(body: bytes, context: Any) -> bytes:
    request = json.loads(body)
    try:
        context.log(request["event"], **request["fields"])
    except Exception as error:  # noqa: BLE001
        return type(error).__name__.encode()
    return b"said"


async def fetch(body: bytes, context: Any) -> bytes:
    host, port = json.loads(body)

    def connect() -> bytes:
        try:
            with context.egress.connect(host, port, timeout=5) as connection:
                connection.sendall(b"hello")
                received: bytes = connection.recv(100)
                return received
        except Exception as error:  # noqa: BLE001
            return str(getattr(error, "code", type(error).__name__)).encode()

    return await asyncio.to_thread(connect)


async def get(body: bytes, context: Any) -> bytes:
    import httpx2

    def fetch_page() -> bytes:
        try:
            with httpx2.Client(transport=context.egress.transport()) as client:
                return client.get(body.decode()).content
        except Exception as error:  # noqa: BLE001
            return str(getattr(error, "code", type(error).__name__)).encode()

    return await asyncio.to_thread(fetch_page)


PATHS: dict[str, Any] = {
    "/echo": echo,
    "/keep": keep,
    "/fail": fail,
    "/slow": slow,
    "/allocate": allocate,
    "/segfault": segfault,
    "/threads": threads,
    "/recurse": recurse,
    "/facts": facts,
    "/context": context_use,
    "/open": open_sealed,
    "/vault": vault,
    "/say": say,
    "/fetch": fetch,
    "/get": get,
}
