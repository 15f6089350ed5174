# SPDX-License-Identifier: Apache-2.0
"""The enclave's front door as an ASGI application: evidence, the envelope, and nothing else.

Errors leave as a status with an empty body; what the application says leaves encrypted.
Source: ``docs/spec/envelope.md``, sections 2, 4, 7, 9 and 10.
"""

from __future__ import annotations

import asyncio
import math
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from confide.attestation.attester import quote
from confide.channel import head as heads
from confide.channel.deadlines import Deadlines
from confide.channel.exchange import InnerExchange, send_status
from confide.errors import ConfideError, EnclaveError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from confide.channel.batches import Batch, Ticket
    from confide.channel.exchange import Application, Message, Receive, Send
    from confide.channel.instance import Instance

__all__ = ["Gateway"]

NONCE_BYTES = 32
QUOTE_SECONDS = 60.0


class Gateway:
    """Serves ``application`` in the envelope of ``instance``.

    ``extra_routes`` maps exact paths to ASGI applications that are served outside the envelope (the release of keys has a
    protocol of its own). ``on_error`` is told of exceptions that the application let escape; it runs inside and must not
    write them where the host can read.
    """

    def __init__(
        self,
        application: Application,
        instance: Instance,
        extra_routes: Mapping[str, Application] | None = None,
        *,
        on_error: Callable[[BaseException], None] | None = None,
    ) -> None:
        self._application = application
        self._instance = instance
        self._extra_routes = dict(extra_routes or {})
        self._on_error = on_error
        self._state: dict[str, Any] = {}
        self._exchanges = 0
        self._draining = False
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._quoting: asyncio.Task[None] | None = None
        self._device = asyncio.Lock()
        self._executor: ThreadPoolExecutor | None = None
        self._sweeping: asyncio.TimerHandle | None = None
        self._next_sweep = math.inf
        self._watched: Deadlines | None = None

    @property
    def exchanges(self) -> int:
        """Requests in flight."""
        return self._exchanges

    def drain(self) -> None:
        """Answer 503 to whatever is new; what is in flight goes on."""
        self._draining = True

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """ASGI."""
        kind = scope["type"]
        if kind == "lifespan":
            await self._lifespan(scope, receive, send)
        elif kind == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": ""})
        elif kind == "http":
            await self._http(scope, receive, send)

    async def _lifespan(self, scope: Message, receive: Receive, send: Send) -> None:
        inner = {"type": "lifespan", "asgi": scope.get("asgi", {"version": "3.0"}), "state": self._state}
        try:
            await self._application(inner, receive, send)
        finally:
            if self._sweeping is not None:
                self._sweeping.cancel()
            if self._watched is not None:
                self._watched.close()
            if self._executor is not None:
                self._executor.shutdown(wait=False)

    async def _http(self, scope: Message, receive: Receive, send: Send) -> None:
        path = scope["path"]
        route = self._extra_routes.get(path)
        if route is not None:
            await route(scope, receive, send)
            return
        try:
            if path == heads.ENVELOPE_PATH:
                await self._envelope(scope, receive, send)
            elif path == heads.DISCOVERY_PATH:
                await self._discovery(scope, receive, send)
            else:
                await send_status(send, 404)
        finally:
            if self._instance.table.next_end < self._next_sweep:
                self._sweep()

    # The envelope

    async def _envelope(self, scope: Message, receive: Receive, send: Send) -> None:
        settings = self._instance.settings
        if scope["method"] != "POST" or _content_type(scope) != heads.REQUEST_TYPE:
            await send_status(send, 400)
            return
        if self._draining or self._exchanges >= settings.max_exchanges:
            await send_status(send, 503)
            return
        try:
            request = self._instance.open_request()
        except EnclaveError:
            await send_status(send, 503)
            return
        self._exchanges += 1
        try:
            exchange = InnerExchange(
                request, settings, receive, send, self._deadlines(), on_error=self._on_error
            )
            await exchange.run(self._application, self._state)
        finally:
            self._exchanges -= 1
            request.close()

    # Evidence

    async def _discovery(self, scope: Message, receive: Receive, send: Send) -> None:
        method = scope["method"]
        try:
            if self._draining:
                raise EnclaveError("overloaded", "the instance is draining", retryable=True)
            if method == "POST":
                nonce = await self._nonce(scope, receive)
                if nonce is None:
                    await send_status(send, 400)
                    return
                bundle = await self._fresh(nonce)
            elif method != "GET":
                await send_status(send, 405)
                return
            elif not self._instance.settings.cached:
                await send_status(send, 404)
                return
            else:
                bundle = await self._cached()
        except (ConfideError, TimeoutError):
            await send_status(send, 503)
            return
        fields = [
            (b"content-type", heads.EVIDENCE_TYPE),
            (b"content-length", b"%d" % len(bundle)),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": bundle, "more_body": False})

    async def _nonce(self, scope: Message, receive: Receive) -> bytes | None:
        """Exactly 32 bytes of the right media type, or ``None``."""
        if _content_type(scope) != heads.NONCE_TYPE:
            return None
        nonce = b""
        try:
            async with asyncio.timeout(self._instance.settings.head_seconds):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        return None
                    nonce += message.get("body", b"")
                    if len(nonce) > NONCE_BYTES:
                        return None
                    if not message.get("more_body", False):
                        return nonce if len(nonce) == NONCE_BYTES else None
        except TimeoutError:
            return None

    async def _fresh(self, nonce: bytes) -> bytes:
        ticket = self._instance.enter_nonce(nonce)
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[id(ticket)] = answered
        try:
            if self._quoting is None or self._quoting.done():
                self._quoting = asyncio.get_running_loop().create_task(self._quote())
            async with asyncio.timeout(QUOTE_SECONDS):
                await answered
            return ticket.bundle()
        finally:
            self._instance.queue.leave(ticket)
            del self._waiting[id(ticket)]

    async def _quote(self) -> None:
        """Close batches, one at a time, until nobody waits."""
        while True:
            async with self._device:
                wait = self._instance.batch_wait()
                if wait is None:
                    return
                if wait <= 0:
                    await self._quote_batch()
                    continue
            await asyncio.sleep(wait)

    async def _quote_batch(self) -> None:
        try:
            batch = self._instance.close_batch()
        except Exception as error:  # noqa: BLE001 - whoever waits must not wait for a key that cannot be made.
            self._tell(error)
            self._answer(self._instance.queue.take())
            return
        try:
            await self._attest(batch)
        finally:
            self._answer(batch.tickets)

    async def _attest(self, batch: Batch) -> None:
        """Ask the device; what fails leaves the batch without evidence, which its clients see as 503."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="confide-attest")
        loop = asyncio.get_running_loop()
        try:
            quoted = await loop.run_in_executor(self._executor, quote, self._instance.attester, batch.root)
            batch.finish(quoted)
        except Exception as error:  # noqa: BLE001 - a device's driver may raise anything.
            self._tell(error)

    def _tell(self, error: BaseException) -> None:
        if self._on_error is not None:
            self._on_error(error)

    def _answer(self, tickets: Iterable[Ticket]) -> None:
        for ticket in tickets:
            answered = self._waiting.get(id(ticket))
            if answered is not None and not answered.done():
                answered.set_result(None)

    async def _cached(self) -> bytes:
        found = self._instance.cached_bundle()
        if found is not None:
            return found
        async with self._device:
            found = self._instance.cached_bundle()  # Somebody else may have waited for the same.
            if found is None:
                batch = self._instance.close_cached_batch()
                await self._attest(batch)
                found = batch.tickets[0].bundle()
                self._instance.keep_cached(batch)
            return found

    # Housekeeping

    def _sweep(self) -> None:
        """See to it that keys and sessions are dropped at their end even if nobody asks any more."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        seconds = self._instance.sweep()
        self._next_sweep = self._instance.table.next_end
        if seconds is not None:
            self._sweeping = asyncio.get_running_loop().call_later(max(seconds, 0.1), self._sweep)

    def _deadlines(self) -> Deadlines:
        """Those of the running event loop."""
        watched = self._watched
        if watched is None or watched.loop is not asyncio.get_running_loop():
            watched = self._watched = Deadlines()
        return watched


def _content_type(scope: Message) -> bytes | None:
    found: bytes | None = None
    for name, value in scope["headers"]:
        if name == b"content-type":
            if found is not None:
                return None
            found = value.strip()
    return found
