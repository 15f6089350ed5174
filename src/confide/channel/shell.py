# SPDX-License-Identifier: Apache-2.0
"""What performs the effects of ``flow.py``: one shell for blocking code, one for asynchronous code.

httpx2 and httpx have the same objects under two names, so a shell is given the library as an argument and the transports
are a few lines each. Errors of the library never reach the caller, and neither does anything that the host wrote.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from confide.channel import binary_http
from confide.channel import head as heads
from confide.channel.flow import (
    MAX_BUNDLE,
    BrokenConnectionError,
    Call,
    Close,
    Fetch,
    Opened,
    Reply,
    RequestOptions,
    Submit,
)
from confide.errors import ChannelError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
    from types import ModuleType

    from confide.attestation.result import AttestationResult
    from confide.channel.flow import ChannelFlow, Effect

__all__ = ["EXTENSION", "AsyncShell", "SyncShell"]

EXTENSION = "confide"
"""Key in a request's extensions (``RequestOptions``) and in a response's (``Exchange``)."""

DISCOVERY_TIMEOUT = 30.0


class _Outer:
    """The last outer response of one run, and how it failed."""

    __slots__ = ("response", "sent", "stream")

    def __init__(self) -> None:
        self.response: Any = None
        self.stream: Any = None
        self.sent = False


def _reply(response: Any, body: bytes = b"") -> Reply:
    kind: bytes | None = None
    route: bytes | None = None
    for name, value in response.headers.raw:
        lower = name.lower()
        if lower == b"content-type":
            # Two values are no value: which one counts is not the host's choice.
            kind = value.strip() if kind is None else b""
        elif lower == heads.ROUTE_FIELD:
            route = value
    return Reply(response.status_code, kind or b"", route, body)


def _broken(library: ModuleType, error: Exception, *, sent: bool) -> BrokenConnectionError:
    return BrokenConnectionError(sent=sent, timeout=isinstance(error, library.TimeoutException))


def _call(library: ModuleType, request: Any) -> Call:
    options = request.extensions.get(EXTENSION) or RequestOptions()
    if not isinstance(options, RequestOptions):
        raise ConfigurationError("options", "extensions['confide'] takes RequestOptions")
    fields = binary_http.without_hop_fields(request.headers.raw)
    again = isinstance(request.stream, library.ByteStream)
    length = binary_http.field(fields, b"content-length")
    known = int(length) if length is not None and length.isdigit() else None
    if known is None and "transfer-encoding" not in request.headers:
        known = 0  # As in HTTP/1.1: a request without framing fields has no body.
    return Call(request.method.encode("ascii"), request.url.raw_path, fields, known, again, options)


def _read_error() -> ChannelError:
    return ChannelError("truncated", "the connection broke in the middle of the answer")


class _SyncStream:
    """A body of one library's kind; the library's base class is mixed in by the shell."""

    def __init__(self, make: Callable[[], Iterator[bytes]], close: Callable[[], None]) -> None:
        self._make = make
        self._close = close

    def __iter__(self) -> Iterator[bytes]:
        return self._make()

    def close(self) -> None:
        self._close()


class _AsyncStream:
    def __init__(
        self, make: Callable[[], AsyncIterator[bytes]], close: Callable[[], Awaitable[None]]
    ) -> None:
        self._make = make
        self._close = close

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._make()

    async def aclose(self) -> None:
        await self._close()


def _nothing() -> None:
    """A request's body holds no resource of ours."""


async def _nothing_async() -> None:
    _nothing()


class SyncShell:
    """Runs flows on blocking transports of ``library`` (httpx2 or httpx); ``transport`` carries the outer requests."""

    def __init__(self, flow: ChannelFlow, library: Any, transport: Any) -> None:
        self._flow = flow
        self._library = library
        self._transport = transport
        self._stream: Any = type("EnvelopeStream", (_SyncStream, library.SyncByteStream), {})

    @property
    def flow(self) -> ChannelFlow:
        """What this shell runs."""
        return self._flow

    def attest(self) -> AttestationResult:
        """Verify fresh evidence and open a session."""
        result: AttestationResult = self._run(self._flow.attest(), None, _Outer()).result
        return result

    def handle(self, request: Any) -> Any:
        """Send one request through the envelope and give the authentic response."""
        outer = _Outer()
        opened: Opened = self._run(self._flow.exchange(_call(self._library, request)), request, outer)
        return self._library.Response(
            opened.head.status,
            headers=list(opened.head.fields),
            stream=self._stream(lambda: self._body(opened, outer), lambda: self._close(outer)),
            extensions={EXTENSION: opened.exchange},
        )

    def close(self) -> None:
        """Close the outer transport."""
        self._transport.close()

    def _run(self, steps: Generator[Effect, Any, Any], request: Any, outer: _Outer) -> Any:
        try:
            effect = next(steps)
            while True:
                try:
                    outcome = self._perform(effect, request, outer)
                except self._library.TransportError as error:
                    effect = steps.throw(_broken(self._library, error, sent=outer.sent))
                    continue
                effect = steps.send(outcome)
        except StopIteration as stop:
            return stop.value
        except BaseException:
            steps.close()
            self._close(outer)
            raise

    def _perform(self, effect: Effect, request: Any, outer: _Outer) -> Reply | bytes | None:
        if isinstance(effect, Fetch):
            return self._fetch(effect)
        if isinstance(effect, Submit):
            return self._submit(effect, request, outer)
        if isinstance(effect, Close):
            self._close(outer)
            return None
        return next(outer.stream, None)

    def _fetch(self, effect: Fetch) -> Reply:
        library = self._library
        request = library.Request(
            effect.method,
            self._flow.origin + effect.path,
            headers=list(effect.fields),
            stream=library.ByteStream(effect.body),
            extensions={"timeout": library.Timeout(DISCOVERY_TIMEOUT).as_dict()},
        )
        response = self._transport.handle_request(request)
        body = bytearray()
        try:
            for data in response.stream:
                body += data
                if len(body) > MAX_BUNDLE:
                    break
        finally:
            response.stream.close()
        return _reply(response, bytes(body[: MAX_BUNDLE + 1]))

    def _submit(self, effect: Submit, request: Any, outer: _Outer) -> Reply:
        message = effect.exchange.outgoing
        outer.sent = False

        def body() -> Iterator[bytes]:
            outer.sent = True
            held = message.start()
            if not message.ended:
                for data in request.stream:
                    for piece in message.pieces(data):
                        yield held + piece
                        held = b""
            yield held + message.finish()

        outer.response = self._transport.handle_request(
            self._library.Request(
                "POST",
                self._flow.origin + effect.path,
                headers=list(effect.fields),
                stream=self._stream(body, _nothing),
                extensions=_timeouts(request),
            )
        )
        outer.stream = iter(outer.response.stream)
        return _reply(outer.response)

    def _body(self, opened: Opened, outer: _Outer) -> Iterator[bytes]:
        yield from opened.first
        exchange = opened.exchange
        try:
            for data in outer.stream:
                yield from exchange.feed(data)
        except self._library.TimeoutException:
            raise ChannelError("timeout", "the answer did not go on in time") from None
        except self._library.TransportError:
            raise _read_error() from None
        exchange.end()

    def _close(self, outer: _Outer) -> None:
        if outer.response is not None:
            outer.response.stream.close()


class AsyncShell:
    """Runs the same flows on asynchronous transports."""

    def __init__(self, flow: ChannelFlow, library: Any, transport: Any) -> None:
        self._flow = flow
        self._library = library
        self._transport = transport
        self._stream: Any = type("EnvelopeStream", (_AsyncStream, library.AsyncByteStream), {})

    @property
    def flow(self) -> ChannelFlow:
        """What this shell runs."""
        return self._flow

    async def attest(self) -> AttestationResult:
        """Verify fresh evidence and open a session."""
        session = await self._run(self._flow.attest(), None, _Outer())
        result: AttestationResult = session.result
        return result

    async def handle(self, request: Any) -> Any:
        """Send one request through the envelope and give the authentic response."""
        outer = _Outer()
        opened: Opened = await self._run(self._flow.exchange(_call(self._library, request)), request, outer)
        return self._library.Response(
            opened.head.status,
            headers=list(opened.head.fields),
            stream=self._stream(lambda: self._body(opened, outer), lambda: self._close(outer)),
            extensions={EXTENSION: opened.exchange},
        )

    async def close(self) -> None:
        """Close the outer transport."""
        await self._transport.aclose()

    async def _run(self, steps: Generator[Effect, Any, Any], request: Any, outer: _Outer) -> Any:
        try:
            effect = next(steps)
            while True:
                try:
                    outcome = await self._perform(effect, request, outer)
                except self._library.TransportError as error:
                    effect = steps.throw(_broken(self._library, error, sent=outer.sent))
                    continue
                effect = steps.send(outcome)
        except StopIteration as stop:
            return stop.value
        except BaseException:
            # A cancelled caller must not leave its connection checked out.
            steps.close()
            await self._close(outer)
            raise

    async def _perform(self, effect: Effect, request: Any, outer: _Outer) -> Reply | bytes | None:
        if isinstance(effect, Fetch):
            return await self._fetch(effect)
        if isinstance(effect, Submit):
            return await self._submit(effect, request, outer)
        if isinstance(effect, Close):
            await self._close(outer)
            return None
        data: bytes | None = await anext(outer.stream, None)
        return data

    async def _fetch(self, effect: Fetch) -> Reply:
        library = self._library
        request = library.Request(
            effect.method,
            self._flow.origin + effect.path,
            headers=list(effect.fields),
            stream=library.ByteStream(effect.body),
            extensions={"timeout": library.Timeout(DISCOVERY_TIMEOUT).as_dict()},
        )
        response = await self._transport.handle_async_request(request)
        body = bytearray()
        try:
            async for data in response.stream:
                body += data
                if len(body) > MAX_BUNDLE:
                    break
        finally:
            await response.stream.aclose()
        return _reply(response, bytes(body[: MAX_BUNDLE + 1]))

    async def _submit(self, effect: Submit, request: Any, outer: _Outer) -> Reply:
        message = effect.exchange.outgoing
        outer.sent = False

        async def body() -> AsyncIterator[bytes]:
            outer.sent = True
            held = message.start()
            if not message.ended:
                async for data in request.stream:
                    for piece in message.pieces(data):
                        yield held + piece
                        held = b""
            yield held + message.finish()

        outer.response = await self._transport.handle_async_request(
            self._library.Request(
                "POST",
                self._flow.origin + effect.path,
                headers=list(effect.fields),
                stream=self._stream(body, _nothing_async),
                extensions=_timeouts(request),
            )
        )
        outer.stream = aiter(outer.response.stream)
        return _reply(outer.response)

    async def _body(self, opened: Opened, outer: _Outer) -> AsyncIterator[bytes]:
        for piece in opened.first:
            yield piece
        exchange = opened.exchange
        try:
            async for data in outer.stream:
                for piece in exchange.feed(data):
                    yield piece
        except self._library.TimeoutException:
            raise ChannelError("timeout", "the answer did not go on in time") from None
        except self._library.TransportError:
            raise _read_error() from None
        exchange.end()

    async def _close(self, outer: _Outer) -> None:
        if outer.response is not None:
            await outer.response.stream.aclose()


def _timeouts(request: Any) -> dict[str, Any]:
    """The caller's own limits for the outer request; nothing else of the inner request's extensions leaves."""
    timeout = request.extensions.get("timeout")
    return {} if timeout is None else {"timeout": timeout}
