# SPDX-License-Identifier: Apache-2.0
"""Waiting for keys inside the enclave: the release protocol's routes, as one bare ASGI application.

Everything that arrives here is the host's. Bodies are bounded before they are parsed, errors are a status without a
body, and where nothing is waited for there is nothing to see. Source: ``docs/spec/release.md``, section 3.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Final

from confide.errors import BrokerError, EnclaveError, MalformedError
from confide.keys.receiver import Receiver, Released
from confide.keys.release import (
    ANSWER_PATH,
    CONTENT_TYPE,
    EVIDENCE_TYPE,
    MAX_ANSWER,
    MAX_REQUEST,
    REQUEST_PATH,
    ReleaseRequest,
    Wrapped,
    owner_audience,
)
from confide.wire import cbor
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from confide.attestation.attester import Attester
    from confide.attestation.key_material import ServiceIdentity

__all__ = ["Unlocking"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

BODY_SECONDS: Final = 10.0


class Unlocking:
    """Waits for the secrets in ``pins`` (name to the 32-byte public key of the owner who alone may supply it).

    ``service``, ``manifest`` and ``attester`` go into evidence. ``on_released`` is called in the event loop with what an
    owner has sent and takes all of it or, by raising, nothing; then it is erased and the owner is told nothing. A name with a lease stays awaited, so that it can be
    renewed; one without is done with.
    """

    def __init__(
        self,
        *,
        attester: Attester,
        service: ServiceIdentity,
        manifest: bytes | None,
        pins: Mapping[str, bytes],
        on_released: Callable[[Released], None],
        monotonic: Callable[[], float],
        wall_clock: Callable[[], datetime],
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._service = service
        self._pins = dict(pins)
        self._on_released = on_released
        self._missing = set(pins)
        self._awaited = set(pins)
        self._received = asyncio.Event()
        self._receivers: dict[bytes, Receiver] = {}
        for owner in sorted(set(pins.values())):
            self._receivers[owner] = Receiver(
                attester,
                service,
                manifest,
                audience=owner_audience(owner),
                names=[name for name, pin in pins.items() if pin == owner],
                owner_public=owner,
                monotonic=monotonic,
                wall_clock=wall_clock,
                random=random,
            )
        if not self._missing:
            self._received.set()

    @property
    def missing(self) -> frozenset[str]:
        """The names that have not come yet."""
        return frozenset(self._missing)

    async def wait(self) -> None:
        """Return when no name is missing."""
        await self._received.wait()

    def routes(self) -> dict[str, Application]:
        """Where this application answers, as ``Gateway`` takes further routes."""
        return {REQUEST_PATH: self, ANSWER_PATH: self}

    def close(self) -> None:
        """Forget every pending request and its private key."""
        for receiver in self._receivers.values():
            receiver.close()
        self._awaited.clear()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        if scope["type"] != "http":
            raise EnclaveError("bad_state", "the release protocol is spoken over HTTP only")
        try:
            status, content_type, body = await self._answer(scope, receive)
        except Exception as error:  # noqa: BLE001 - whatever went wrong in here, the host learns a status and no more
            status, content_type, body = _status(error), "", b""
        headers = [(b"cache-control", b"no-store"), (b"content-length", str(len(body)).encode())]
        if content_type:
            headers.append((b"content-type", content_type.encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[int, str, bytes]:
        if not self._awaited:
            return 404, "", b""
        path, method = scope.get("path"), scope.get("method")
        if path == REQUEST_PATH and method == "GET":
            rows = [[name, self._pins[name]] for name in sorted(self._awaited)]
            return 200, CONTENT_TYPE, cbor.encode({"v": 1, "tenant": self._service.id, "awaited": rows})
        if method != "POST" or path not in {REQUEST_PATH, ANSWER_PATH}:
            return 400, "", b""
        given = [value for name, value in scope["headers"] if name.lower() == b"content-type"]
        if given != [CONTENT_TYPE.encode()]:
            return 400, "", b""
        if path == REQUEST_PATH:
            owner, request = _read_request(await _body(receive, MAX_REQUEST))
            receiver = self._receivers.get(owner)
            if receiver is None or not self._awaited.issuperset(secret.name for secret in request.secrets):
                return 400, "", b""
            # The device and the key pair take milliseconds to seconds, in which the loop must not stand still.
            return 200, EVIDENCE_TYPE, await asyncio.to_thread(receiver.answer, request)
        answer = Wrapped.decode(await _body(receive, MAX_ANSWER))
        released = await self._accept(answer)
        try:
            if not self._awaited.issuperset(name.name for name in released.secrets):
                raise BrokerError("conflict", "another answer has brought one of these secrets already")
            self._on_released(released)
        except BaseException:
            for secret in released.secrets.values():
                secret.erase()
            raise
        for name in released.secrets:
            self._missing.discard(name.name)
            if not released.lease:
                self._awaited.discard(name.name)
        if not self._missing:
            self._received.set()
        return 200, CONTENT_TYPE, released.acknowledgement

    async def _accept(self, answer: Wrapped) -> Released:
        """Hand an answer to the receiver that waits for it; nonces of different owners never coincide."""
        for receiver in self._receivers.values():
            if receiver.waits_for(answer.nonce):
                return await asyncio.to_thread(receiver.accept, answer)
        raise BrokerError("not_found", "no request is pending for this answer")


def _status(error: Exception) -> int:
    if isinstance(error, BrokerError) and error.code == "broker.rate_limited":
        return 503
    if isinstance(error, BrokerError) and error.code == "broker.too_large":
        return 413
    return 503 if isinstance(error, EnclaveError) else 400  # 503: the device failed.


async def _body(receive: Receive, limit: int) -> bytes:
    body = bytearray()
    async with asyncio.timeout(BODY_SECONDS):
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise MalformedError("truncated", "the request was cut off")
            piece = message.get("body", b"")
            if len(body) + len(piece) > limit:
                raise BrokerError("too_large", "the body is longer than it may be")
            body += piece
            if not message.get("more_body", False):
                return bytes(body)


def _read_request(data: bytes) -> tuple[bytes, ReleaseRequest]:
    what = "owner's release request"
    fields = Fields(cbor.decode(data, what=what, max_size=MAX_REQUEST, max_depth=1), what)
    if fields.integer("v", 0, 1 << 32) != 1:
        raise MalformedError("unsupported_version", f"{what}: a version that is not supported")
    owner = fields.bytes_("owner", 32)
    request = ReleaseRequest.decode(fields.bytes_("request", max_length=MAX_REQUEST))
    fields.end()
    return owner, request
