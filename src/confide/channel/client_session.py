# SPDX-License-Identifier: Apache-2.0
"""The client's side of a session, without any I/O: a secret wrapped to an attested key, and exchanges under it.

Source: ``docs/spec/envelope.md``, sections 3 to 9.
"""

from __future__ import annotations

import base64
import os
import threading
from typing import TYPE_CHECKING

from confide.channel import binary_http, receipt, schedule
from confide.channel import head as heads
from confide.channel.frames import Direction, FrameOpener, Kind
from confide.channel.message import OutgoingMessage
from confide.crypto import hpke
from confide.errors import ChannelError, ConfideError, ConfigurationError, NotAcceptable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from confide.attestation.result import AttestationResult
    from confide.channel.binary_http import ResponseHead
    from confide.channel.frames import Frame
    from confide.channel.receipt import Receipt

__all__ = ["ClientSession", "Exchange", "Signer"]

Signer = "Callable[[bytes, binary_http.RequestHead], Iterable[tuple[bytes, bytes]]]"
"""Given the binder (the value of ``confide-binder``) and the head that has it, the fields of a caller's signature."""

_ABORTS = {
    b"application": ("closed", "the service failed in the middle of its answer"),
    b"timeout": ("timeout", "the service took too long"),
    b"too_large": ("too_large", "the service's answer is beyond a limit"),
    b"cancelled": ("closed", "the peer gave up"),
}


class ClientSession:
    """Exchanges with the one enclave whose evidence ``result`` accepted.

    ``started`` is the monotonic time at which the nonce for that evidence was sent, ``max_age`` the policy's bound in
    seconds, if it has one. Raises ``not_acceptable.channel`` if the result carries no key.
    """

    def __init__(
        self,
        result: AttestationResult,
        *,
        random: Callable[[int], bytes],
        monotonic: Callable[[], float],
        started: float | None = None,
        max_age: float | None = None,
    ) -> None:
        material, key_id = result.key_material, result.kid
        if material is None or key_id is None:
            raise NotAcceptable("channel", "the evidence vouches for no key", stage="binding")
        now = monotonic()
        self.result = result
        self.material = material
        self.kid = key_id
        self.authority = binary_http.authority(material.service.id)
        self._random = random
        self._monotonic = monotonic
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._seq = 0
        self._ended = False
        self._proven = False
        self._secret = random(schedule.SECRET_BYTES)
        if len(self._secret) != schedule.SECRET_BYTES:
            raise ConfigurationError("random", "the source of randomness gave too few bytes")
        self._wrap = hpke.seal(material.key, schedule.session_info(key_id), self._secret)
        self.sid = schedule.sid(self._wrap)
        begun = now if started is None else started
        ends = [now + material.max_session]
        if max_age is not None:
            ends.append(begun + max_age)
        self._ends = min(ends)
        self._opens_until = begun + material.lifetime

    @property
    def usable(self) -> bool:
        """Whether another request may be sent; never in a process forked after the session was made."""
        now = self._monotonic()
        return (
            not self._ended
            and os.getpid() == self._owner
            and now < self._ends
            and (self._proven or now < self._opens_until)
        )

    def end(self) -> None:
        """Send nothing more; exchanges that are under way have keys of their own and may finish."""
        self._ended = True

    def prove(self) -> None:
        """A response has authenticated, so the enclave knows this session."""
        self._proven = True

    def request(
        self,
        method: bytes,
        path: bytes,
        fields: Iterable[tuple[bytes, bytes]] = (),
        *,
        length: int | None = None,
        want_receipt: bool = False,
        sign: Callable[[bytes, binary_http.RequestHead], Iterable[tuple[bytes, bytes]]] | None = None,
    ) -> Exchange:
        """Begin an exchange. ``fields`` are those that the envelope carries (``binary_http.without_hop_fields``),
        ``length`` that of the body if it is known.

        Raises ``channel.closed`` if the session has ended, ``channel.protocol`` for a head that may not be sent,
        ``channel.too_large`` for a body that the service will not admit.
        """
        own = tuple(fields)
        if length is None:
            length = binary_http.content_length(own)
        if length is not None and length > self.material.max_body:
            raise ChannelError("too_large", "the body is larger than the service admits")
        with self._lock:
            if not self.usable:
                raise ChannelError("closed", "the session has ended", hint="attest again", retryable=True)
            seq = self._seq
            if seq >= schedule.MAX_SEQ:
                raise ChannelError("closed", "the session has used up its numbers", retryable=True)
            self._seq = seq + 1
        outer = heads.Head(want_receipt, self.kid, self._wrap, seq, self._random(schedule.SALT_BYTES))
        transcript = outer.transcript(self.sid)
        request = binary_http.RequestHead(method, self.authority, path, own)
        if sign is not None:
            bound = b":%s:" % base64.b64encode(schedule.binder(self._secret, transcript))
            request = binary_http.RequestHead(
                method, self.authority, path, (*own, (binary_http.BINDER_FIELD, bound))
            )
            request = binary_http.RequestHead(
                method, self.authority, path, (*request.fields, *sign(bound, request))
            )
        raw = binary_http.encode_request(request)
        secret = schedule.receipt_secret(self._secret, transcript) if want_receipt else b""
        hashed = receipt.Transcript(secret, b"request", raw) if want_receipt else None
        outgoing = OutgoingMessage(
            outer.encode(),
            schedule.request_key(self._secret, transcript),
            raw,
            length=length,
            transcript=hashed,
        )
        return Exchange(self, method, seq, outgoing, transcript, self._secret, secret, hashed)


class Exchange:
    """One request and its response.

    ``outgoing`` makes the request's bytes. ``feed`` takes the response's bytes and gives pieces of its body, ``end`` says
    that the response's bytes are over. ``response`` is the head once it has authenticated; ``receipt`` is there at the
    end if it was wanted. With ``receipt``, keep ``receipt_secret`` and the evidence to show it to others.
    """

    def __init__(
        self,
        session: ClientSession,
        method: bytes,
        seq: int,
        outgoing: OutgoingMessage,
        transcript: bytes,
        secret: bytes,
        receipt_secret: bytes,
        request_hash: receipt.Transcript | None,
    ) -> None:
        self._session = session
        self._method = method
        self._transcript = transcript
        self._secret = secret
        self._request_hash = request_hash
        self._response_hash: receipt.Transcript | None = None
        self._prefix = b""
        self._opener: FrameOpener | None = None
        self._declared: int | None = None
        self._received = 0
        self.kid = session.kid
        self.sid = session.sid
        self.seq = seq
        self.outgoing = outgoing
        self.request_head = outgoing.head
        self.response_head = b""
        self.response: ResponseHead | None = None
        self.receipt: Receipt | None = None
        self.receipt_secret = receipt_secret
        self.complete = False

    @property
    def attestation(self) -> AttestationResult:
        """The verified evidence under which this exchange took place."""
        return self._session.result

    @property
    def frame(self) -> int:
        """The index of the frame that is expected next, -1 for the clear head."""
        return -1 if self._opener is None else self._opener.index

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take bytes of the response; the pieces of its body that are whole. Every refusal ends the session."""
        try:
            yield from self._feed(data)
        except ConfideError:
            self._session.end()
            raise

    def end(self) -> None:
        """No more bytes come: ``truncated`` unless the final frame was there."""
        try:
            if self._opener is None:
                raise ChannelError("truncated", "the response ends in its clear head")
            self._opener.end()
        except ConfideError:
            self._session.end()
            raise

    def _feed(self, data: bytes) -> Iterator[bytes]:
        opener = self._opener
        if opener is None:
            data = self._prefix + data
            if len(data) < heads.RESPONSE_HEAD:
                self._prefix = data
                return
            nonce = heads.decode_response(data[: heads.RESPONSE_HEAD])
            key = schedule.response_key(self._secret, self._transcript, nonce)
            opener = self._opener = FrameOpener(key, Direction.RESPONSE)
            data = data[heads.RESPONSE_HEAD :]
        if data:
            opener.push(data)
        while (frame := opener.next()) is not None:
            content = self._take(frame)
            if content:
                yield content

    def _take(self, frame: Frame) -> bytes:
        if frame.kind is Kind.ABORT:
            leaf, message = _ABORTS.get(
                frame.content, ("protocol", "the service broke off for an unknown reason")
            )
            raise ChannelError(leaf, message)
        if frame.kind is Kind.HEAD:
            self._session.prove()
            response = binary_http.decode_response(frame.content)
            self.response_head = frame.content
            if not binary_http.carries_no_body(self._method, response.status):
                self._declared = binary_http.content_length(response.fields)
            else:
                self._declared = 0
            if self._request_hash is not None:
                self._response_hash = receipt.Transcript(self.receipt_secret, b"response", frame.content)
            self.response = response
            content = b""
        elif frame.kind is Kind.DATA:
            content = frame.content
            self._received += len(content)
            if self._response_hash is not None:
                self._response_hash.update(content)
        else:
            self._check_receipt(frame.content)
            content = b""
        if frame.final:
            if self._request_hash is not None and self.receipt is None:
                raise ChannelError("receipt", "a receipt was wanted and there is none")
            if self._declared is not None and self._declared != self._received:
                raise ChannelError("protocol", "the body has another length than its head says")
            self.complete = True
        return content

    def _check_receipt(self, signed: bytes) -> None:
        if self._request_hash is None or self._response_hash is None or self.response is None:
            raise ChannelError("receipt", "there is a receipt that nobody wanted")
        found = receipt.read(signed, self._session.material, self.kid)
        receipt.check(
            found,
            sid=self.sid,
            seq=self.seq,
            request=self._request_hash.digest(),
            response=self._response_hash.digest(),
            status=self.response.status,
        )
        self.receipt = found
