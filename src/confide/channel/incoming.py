# SPDX-License-Identifier: Apache-2.0
"""One request as the enclave receives it, and the response to it.

The order is the protocol: clear head, session, first frame, replay window, HTTP head, body, end; then the response. Nothing
is shown to the application before its step. Source: ``docs/spec/envelope.md``, sections 3 to 9.
"""

from __future__ import annotations

import base64
import hmac
from typing import TYPE_CHECKING

from confide.channel import binary_http, head, receipt, schedule
from confide.channel.frames import Direction, FrameOpener, Kind
from confide.channel.message import OutgoingMessage
from confide.channel.sessions import ReadHead
from confide.errors import ChannelError, ConfideError, EnclaveError

if TYPE_CHECKING:
    from confide.channel.binary_http import RequestHead, ResponseHead
    from confide.channel.frames import Frame
    from confide.channel.head import Head
    from confide.channel.instance import Instance
    from confide.channel.sessions import Session

__all__ = ["IncomingRequest", "outer_status"]


def outer_status(error: ConfideError) -> int:
    """The status that tells an unauthenticated peer of ``error``; it says no more than this."""
    if isinstance(error, EnclaveError):
        return 503
    return {"channel.key_unknown": 421, "channel.too_large": 413, "channel.timeout": 408}.get(error.code, 400)


class IncomingRequest:
    """Takes the bytes of one request in pieces.

    ``push`` gives it bytes and ``end`` says that there are no more; ``next`` gives pieces of the body. ``head`` is ``None``
    until the first frame has authenticated, its number has been spent and its content was read. ``complete`` becomes
    true with the final frame. Every refusal is a ``ConfideError`` of which the peer learns ``outer_status`` only.
    """

    __slots__ = (
        "_committed",
        "_declared",
        "_hash",
        "_instance",
        "_opener",
        "_outer",
        "_prefix",
        "_received",
        "_responded",
        "_secret",
        "_session",
        "_transcript",
        "cancelled",
        "complete",
        "head",
    )

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._prefix = b""
        self._outer: Head | None = None
        self._session: Session | None = None
        self._committed = False
        self._secret = b""
        self._transcript = b""
        self._opener: FrameOpener | None = None
        self._hash: receipt.Transcript | None = None
        self._declared: int | None = None
        self._received = 0
        self._responded = False
        self.cancelled = False
        self.complete = False
        self.head: RequestHead | None = None

    @property
    def frame(self) -> int:
        """The index of the frame that is expected next, -1 for the clear head."""
        return -1 if self._opener is None else self._opener.index

    def push(self, data: bytes) -> None:
        """Take the next bytes."""
        if self._opener is not None:
            self._opener.push(data)
            return
        if self._prefix:
            data = self._prefix + data
        if len(data) < head.REQUEST_HEAD:
            self._prefix = data
            return
        self._prefix = b""
        self._find(head.decode_request(data[: head.REQUEST_HEAD])).push(data[head.REQUEST_HEAD :])

    def end(self) -> None:
        """No more bytes come: ``truncated`` unless the final frame was there."""
        if self._opener is None:
            raise ChannelError("truncated", "the request ends in its clear head")
        self._opener.end()

    def next(self) -> bytes | None:
        """The next piece of the body (perhaps empty, as for the head), or ``None`` until more bytes come."""
        opener = self._opener
        if opener is None:
            return None
        frame = opener.next()
        if frame is None:
            return None
        if self.head is None:
            self._admit(frame)
            content = b""
        elif frame.kind is Kind.ABORT:
            self.cancelled = True
            return b""
        else:
            content = frame.content
            self._received += len(content)
            if self._hash is not None:
                self._hash.update(content)
        if frame.final:
            if self._declared is not None and self._declared != self._received:
                raise ChannelError("protocol", "the body has another length than its head says")
            self.complete = True
        return content

    def respond(self, response: ResponseHead, *, length: int | None) -> OutgoingMessage:
        """Begin the one response. ``length`` is that of the body if it is known before its first byte.

        ``enclave.bad_state`` before the request is complete or for a second response; ``protocol`` if the head may not
        be sent.
        """
        if not self.complete or self._responded or self.head is None or self._outer is None:
            raise EnclaveError("bad_state", "a response is sent once, after the whole request")
        self._instance.check_process()
        raw = self._instance.encode_head(response)
        self._responded = True
        nonce = self._instance.random(schedule.NONCE_BYTES)
        key = schedule.response_key(self._secret, self._transcript, nonce)
        prefix = head.encode_response(nonce)
        if not self._outer.receipt_wanted:
            return OutgoingMessage(prefix, key, raw, length=length)
        secret = schedule.receipt_secret(self._secret, self._transcript)
        transcript = receipt.Transcript(secret, b"response", raw)
        return OutgoingMessage(
            prefix,
            key,
            raw,
            length=length,
            transcript=transcript,
            receipt=lambda: self._sign(transcript, response.status),
        )

    @property
    def session(self) -> bytes:
        """The sid (32 bytes) of the session that the request came in; empty before its head has authenticated."""
        return self._session.sid if self._committed and self._session is not None else b""

    def close(self) -> None:
        """The exchange is over."""
        if self._committed and self._session is not None:
            self._committed = False
            self._instance.table.release(self._session)

    def _find(self, outer: Head) -> FrameOpener:
        sid = schedule.sid(outer.wrap)
        session = self._instance.table.find(outer, sid, self._instance.monotonic())
        self._outer = outer
        self._session = session
        self._secret = session.secret
        self._transcript = outer.transcript(sid)
        opener = self._opener = FrameOpener(
            schedule.request_key(self._secret, self._transcript),
            Direction.REQUEST,
            max_body=self._instance.settings.max_body,
        )
        return opener

    def _admit(self, frame: Frame) -> None:
        """The first frame has authenticated: spend the number, then read what the frame says."""
        outer, session, instance = self._outer, self._session, self._instance
        if outer is None or session is None:
            raise EnclaveError("bad_state", "a frame without a head")
        instance.check_process()
        self._session = instance.table.commit(session, outer.seq, instance.monotonic())
        self._committed = True
        read = self._read_head(self._session, frame.content)
        request = read.request
        if not hmac.compare_digest(request.authority, instance.authority):
            raise ChannelError("protocol", "the request is for another service")
        if read.binders:
            self._check_binder(read.binders)
        self._declared = read.declared
        if self._declared is not None and self._declared > instance.settings.max_body:
            raise ChannelError("too_large", "the body is larger than the service admits")
        if outer.receipt_wanted:
            secret = schedule.receipt_secret(self._secret, self._transcript)
            self._hash = receipt.Transcript(secret, b"request", frame.content)
        self.head = request

    @staticmethod
    def _read_head(session: Session, content: bytes) -> ReadHead:
        """The head in ``content``. Clients repeat themselves, so a session keeps the last one that it read."""
        last = session.last_head
        if last is not None and last.content == content:
            return last
        request = binary_http.decode_request(content)
        read = ReadHead(content, request, binary_http.content_length(request.fields), request.binders)
        session.last_head = read
        return read

    def _check_binder(self, binders: tuple[bytes, ...]) -> None:
        expected = b":%s:" % base64.b64encode(schedule.binder(self._secret, self._transcript))
        if len(binders) != 1 or not hmac.compare_digest(binders[0], expected):
            raise ChannelError("protocol", "the binder is not that of this request")

    def _sign(self, transcript: receipt.Transcript, status: int) -> bytes:
        outer, session, instance = self._outer, self._session, self._instance
        if outer is None or session is None or self._hash is None:
            raise EnclaveError("bad_state", "a receipt without a request")
        return receipt.issue(
            session.key.receipt_key,
            kid=session.key.kid,
            sid=session.sid,
            seq=outer.seq,
            request=self._hash.digest(),
            response=transcript.digest(),
            status=status,
            content=session.key.content,
            time=instance.claimed_time(),
            ext=instance.receipt_extension(),
        )
