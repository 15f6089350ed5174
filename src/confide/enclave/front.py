# SPDX-License-Identifier: Apache-2.0
"""Between the listening socket and the service: what is routed where, the deadline, and an app's startup and shutdown."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

from confide.errors import EnclaveError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from confide.channel.gateway import Gateway
    from confide.enclave.context import Application, Message, Receive, Scope, Send

__all__ = ["Front", "Guard", "lifespan", "server"]

_STARTUP: Final = 60.0
_SHUTDOWN: Final = 10.0


class Front:
    """What the listening socket leads to: the gateway once there is one, the release routes, else 503."""

    def __init__(self) -> None:
        self.gateway: Gateway | None = None
        self.routes: Mapping[str, Application] = {}

    def drain(self) -> None:
        """Let nothing new in."""
        self.routes = {}
        if self.gateway is not None:
            self.gateway.drain()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: a release route, else the gateway, else 503."""
        if scope["type"] != "http":
            return
        route = self.routes.get(scope["path"])
        if route is not None:
            await route(scope, receive, send)
        elif self.gateway is not None:
            await self.gateway(scope, receive, send)
        else:
            headers = [(b"content-length", b"0"), (b"cache-control", b"no-store")]
            await send({"type": "http.response.start", "status": 503, "headers": headers})
            await send({"type": "http.response.body", "body": b""})


class Guard:
    """The service's app with its deadline, and its failures as errors that say nothing of the data."""

    def __init__(self, app: Application, deadline: int) -> None:
        self._app = app
        self._deadline = deadline

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI; raises ``enclave.deadline``, ``enclave.out_of_memory`` and ``enclave.crashed`` beside the app's own errors."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._deadline):
                await self._app(scope, receive, send)
        except MemoryError:
            raise EnclaveError(
                "out_of_memory", "the request does not fit into the enclave's memory"
            ) from None
        except TimeoutError:
            raise EnclaveError("deadline", "the request took longer than the service's deadline") from None
        except (SystemExit, KeyboardInterrupt):
            # `exit()` and the like end the request, not the enclave of everybody else.
            raise EnclaveError("crashed", "the service asked the interpreter to end") from None


@contextlib.asynccontextmanager
async def lifespan(app: Application | None) -> AsyncIterator[None]:
    """Run an app's startup and shutdown events (ASGI lifespan protocol) around the block; None has none.

    Raises ``enclave.crashed`` when startup fails and ``enclave.deadline`` when it does not end.
    """
    if app is None:
        yield
        return
    events: asyncio.Queue[Message] = asyncio.Queue()
    answers: asyncio.Queue[str] = asyncio.Queue()

    async def send(message: Message) -> None:
        await answers.put(message["type"])

    async def run() -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
        try:
            await app(scope, events.get, send)
        except Exception:  # noqa: BLE001 - an app without lifespan events raises, as the protocol has it
            await answers.put("unsupported")
        await answers.put("ended")

    task = asyncio.create_task(run())
    await events.put({"type": "lifespan.startup"})
    try:
        answer = await asyncio.wait_for(answers.get(), _STARTUP)
    except TimeoutError:
        task.cancel()
        raise EnclaveError("deadline", "the application's startup does not end", stage="launch") from None
    if answer == "lifespan.startup.failed":
        raise EnclaveError("crashed", "the application's startup failed", stage="launch")
    try:
        yield
    finally:
        await events.put({"type": "lifespan.shutdown"})
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(task, _SHUTDOWN)


def server(front: Front, open_files: int) -> Any:
    """The HTTP server in front of ``front``, within ``open_files`` descriptors; the runtime decides when it ends."""
    import uvicorn

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield  # The runtime decides when to end.

    return Server(
        uvicorn.Config(
            front,
            lifespan="off",
            interface="asgi3",
            ws="none",
            access_log=False,
            log_config=None,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=30,
            # Each connection is a descriptor; some are kept for the service itself.
            limit_concurrency=max(8, open_files - 64),
        )
    )
