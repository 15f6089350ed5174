# SPDX-License-Identifier: Apache-2.0
"""One exchange in the enclave as ASGI: an inner application between a request of the envelope and its response.

The inner application's scope, body and end are made of authenticated bytes only. Until the request's final frame has
authenticated nothing but a status leaves; afterwards nothing but ciphertext does.
Source: ``docs/spec/envelope.md``, sections 6, 7, 9 and 10.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from confide.channel import binary_http
from confide.channel.answer import Answer
from confide.channel.incoming import outer_status
from confide.errors import ChannelError, ConfideError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from confide.channel.binary_http import RequestHead
    from confide.channel.deadlines import Deadlines
    from confide.channel.incoming import IncomingRequest
    from confide.channel.settings import ChannelSettings

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

__all__ = ["InnerExchange", "inner_scope", "send_status"]

EARLY_LIMIT = 1 << 20  # What an application may write before the request has been read whole.
_FAILED_BODY = b"internal error"
_FAILED = binary_http.ResponseHead(
    500, ((b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(_FAILED_BODY)))
)
_DISCONNECT = {"type": "http.disconnect"}


async def send_status(send: Send, status: int) -> None:
    """Answer with a status and nothing else."""
    fields = [(b"content-length", b"0"), (b"cache-control", b"no-store")]
    if status >= 400:
        # What is left of the request is not worth reading.
        fields.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def inner_scope(head: RequestHead, state: dict[str, Any], session: bytes) -> dict[str, Any]:
    """The ASGI scope for an authenticated request: nothing in it comes from outside the envelope.

    ``extensions["confide"]["session"]`` is the session's sid (32 bytes), so that an application can tell peers apart.
    """
    path, _, query = head.path.partition(b"?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": head.method.decode("ascii"),
        "scheme": "https",
        "path": unquote_to_bytes(path).decode("utf-8", "replace"),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": [(b"host", head.authority), *head.fields],
        "client": None,
        "server": (head.authority.decode("ascii"), 443),
        "state": state.copy(),
        "extensions": {"confide": {"session": session}},
    }


class InnerExchange:
    """Drives one request through the application. ``run`` returns when the outer response is complete."""

    def __init__(
        self,
        request: IncomingRequest,
        settings: ChannelSettings,
        receive: Receive,
        send: Send,
        deadlines: Deadlines,
        *,
        on_error: Callable[[BaseException], None] | None,
    ) -> None:
        self._request = request
        self._settings = settings
        self._deadlines = deadlines
        self._outer_receive = receive
        self._outer_send = send
        self._on_error = on_error
        self._outer_ended = False
        self._delivered_end = False
        self._gone = False  # Nobody is there to answer to, or the answer has been given.
        self._response: binary_http.ResponseHead | None = None
        self._early: list[bytes] = []
        self._early_size = 0
        self._finished = False
        self._answer: Answer | None = None

    async def run(self, application: Application, state: dict[str, Any]) -> None:
        """Read the head, run the application, answer."""
        try:
            head = await self._read_head()
        except ConfideError as error:
            await self._refuse(error)
            return
        if head is None:
            return
        try:
            await self._run_inside(application, head, state)
        finally:
            if self._answer is not None:
                self._answer.close()

    async def _run_inside(self, application: Application, head: RequestHead, state: dict[str, Any]) -> None:
        failure: BaseException | None = None
        try:
            await application(inner_scope(head, state, self._request.session), self._receive, self._send)
        except Exception as error:  # noqa: BLE001 - whatever the application raises stays inside.
            failure = error
        try:
            await self._complete(failure)
        except ConfideError as error:
            if self._on_error is not None:
                self._on_error(error)
            await self._refuse(error)

    # The way up

    async def _read_head(self) -> RequestHead | None:
        request = self._request
        try:
            with self._deadlines.within(self._settings.head_seconds):
                while request.head is None:
                    if request.next() is None and not await self._pull():
                        return None
        except TimeoutError:
            raise ChannelError("timeout", "the head of the request took too long") from None
        return request.head

    async def _pull(self) -> bool:
        """Give the request the next bytes from outside; false if the peer has left."""
        if self._outer_ended:
            self._request.end()
        message = await self._outer_receive()
        if message["type"] == "http.disconnect":
            self._gone = True
            return False
        self._outer_ended = not message.get("more_body", False)
        data = message.get("body", b"")
        if data:
            self._request.push(data)
        return True

    async def _piece(self) -> bytes | None:
        """The next piece of the body, empty at its end, or ``None`` if the request will not be completed."""
        request = self._request
        piece = request.next()
        if piece is None and not request.complete:
            piece = await self._wait_for_piece()
        if request.cancelled:
            self._gone = True
            await send_status(self._outer_send, 400)
            return None
        if not request.complete:
            return piece
        if not self._outer_ended and not await self._wait_for_end():
            return None
        return piece or b""

    async def _wait_for_piece(self) -> bytes | None:
        """A whole frame has its time, however many reads it takes: a peer that drips is not alive."""
        request = self._request
        try:
            with self._deadlines.within(self._settings.frame_seconds):
                while (piece := request.next()) is None:
                    if not await self._pull():
                        return None
        except TimeoutError:
            raise ChannelError("timeout", "the next frame of the request took too long") from None
        return piece

    async def _wait_for_end(self) -> bool:
        """Bytes after the final frame would make the whole request another one, so the outer end is waited for."""
        try:
            with self._deadlines.within(self._settings.frame_seconds):
                while not self._outer_ended:
                    if not await self._pull():
                        return False
        except TimeoutError:
            raise ChannelError("timeout", "the end of the request took too long") from None
        return True

    async def _receive(self) -> Message:
        if self._gone:
            return dict(_DISCONNECT)
        if self._delivered_end:
            message = await self._outer_receive()
            while message["type"] != "http.disconnect":
                message = await self._outer_receive()
            self._gone = True
            return dict(_DISCONNECT)
        try:
            piece = await self._piece()
        except ConfideError as error:
            await self._refuse(error)
            piece = None
        if piece is None:
            return dict(_DISCONNECT)
        self._delivered_end = self._request.complete
        return {"type": "http.request", "body": piece, "more_body": not self._delivered_end}

    async def _refuse(self, error: ConfideError) -> None:
        """Tell the peer by a status only; possible as long as nothing encrypted has been sent."""
        if not self._gone and self._answer is None:
            self._gone = True
            await send_status(self._outer_send, outer_status(error))
        self._gone = True

    # The way down

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            if self._response is not None:
                raise RuntimeError("the response has begun already")
            if message.get("trailers"):
                raise RuntimeError("trailers have no place in the envelope")
            fields = tuple(
                (bytes(name).lower(), bytes(value).strip()) for name, value in message.get("headers", ())
            )
            self._response = binary_http.ResponseHead(message["status"], fields)
        elif kind != "http.response.body":
            raise RuntimeError("this message has no place in the envelope")
        elif self._response is None:
            raise RuntimeError("the body comes after the start of the response")
        elif self._finished:
            raise RuntimeError("the response is complete already")
        else:
            await self._send_body(bytes(message.get("body", b"")), last=not message.get("more_body", False))

    async def _send_body(self, body: bytes, *, last: bool) -> None:
        self._finished = last
        if self._gone:
            return
        if self._request.complete and self._outer_ended:
            await self._write(body, last=last)
            return
        self._early_size += len(body)
        if self._early_size > EARLY_LIMIT:
            raise RuntimeError("a long response cannot begin before the request has been read")
        self._early.append(body)

    async def _write(self, body: bytes, *, last: bool) -> None:
        if self._early:
            body = b"".join((*self._early, body))
            self._early = []
        if self._answer is None:
            response = self._response or _FAILED
            method = b"" if self._request.head is None else self._request.head.method
            bodiless = binary_http.carries_no_body(method, response.status)
            length = 0 if bodiless else binary_http.content_length(response.fields)
            if length is None and last:
                length = len(body)
            message = self._request.respond(response, length=length)
            self._answer = Answer(
                message, self._outer_send, self._settings, self._deadlines, bodiless=bodiless
            )
        await self._answer.write(body, last=last)

    async def _complete(self, failure: BaseException | None) -> None:
        """The application has returned: see the request to its end, then the response."""
        while not self._gone and not (self._request.complete and self._outer_ended):
            if await self._piece() is None:
                return
        if failure is not None and self._on_error is not None:
            self._on_error(failure)
        if self._gone:
            return
        if failure is None and self._finished:
            if self._early:
                await self._write(b"", last=True)
        elif self._answer is None:
            self._response = _FAILED
            self._early = []
            await self._write(_FAILED_BODY, last=True)
        else:
            await self._answer.abort(b"application")
