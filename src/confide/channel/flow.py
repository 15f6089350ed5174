# SPDX-License-Identifier: Apache-2.0
"""What a client does, as generators that ask for I/O and never do any: discovery, sessions, one repetition.

A shell (``shell.py``) runs a generator: it performs each effect that the generator yields and sends the outcome back in, or
throws ``BrokenConnectionError`` in. The synchronous and asynchronous transports run the same generators.
Source: ``docs/spec/envelope.md``, sections 2, 3 and 9.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from confide.channel import binary_http
from confide.channel import head as heads
from confide.channel.client_session import ClientSession, Exchange
from confide.errors import ChannelError, ConfideError, ConfigurationError, NotAcceptable

if TYPE_CHECKING:
    from datetime import datetime

    from confide.attestation.result import AttestationResult
    from confide.attestation.verifier import Verifier

__all__ = [
    "BrokenConnectionError",
    "Call",
    "ChannelFlow",
    "Effect",
    "Fetch",
    "Opened",
    "Reply",
    "RequestOptions",
    "Submit",
]

MAX_BUNDLE = 256 * 1024
_MAX_INSTANCES = 256
_PROTOCOL_FIELDS = ((b"accept", b"*/*"), (b"accept-encoding", b"identity"), (b"user-agent", b"confide"))


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """What a caller may say about one request, as ``extensions={"confide": RequestOptions(...)}``.

    ``receipt`` asks for a receipt (``None``: as the transport was told), ``idempotent`` says that running the request twice
    does no harm, ``sign`` adds a caller's signature over the head and the binder.
    """

    receipt: bool | None = None
    idempotent: bool = False
    sign: Callable[[bytes, binary_http.RequestHead], Iterable[tuple[bytes, bytes]]] | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One inner request. ``length`` is that of its body if it is known; ``again`` says that the body can be sent twice."""

    method: bytes
    path: bytes
    fields: binary_http.Fields
    length: int | None
    again: bool
    options: RequestOptions


@dataclass(frozen=True, slots=True)
class Fetch:
    """Effect: send this outer request, answer with a ``Reply`` that has at most ``MAX_BUNDLE`` + 1 bytes of body."""

    method: str
    path: str
    fields: binary_http.Fields
    body: bytes


@dataclass(frozen=True, slots=True)
class Submit:
    """Effect: send the exchange's outgoing bytes, answer with a ``Reply`` as soon as its fields are there."""

    path: str
    fields: binary_http.Fields
    exchange: Exchange


@dataclass(frozen=True, slots=True)
class Read:
    """Effect: the next bytes of the body of the last submission's reply, or ``None`` at its end."""


@dataclass(frozen=True, slots=True)
class Close:
    """Effect: let go of the last submission's reply."""


Effect = Fetch | Submit | Read | Close


@dataclass(frozen=True, slots=True)
class Reply:
    """What the host answered: its word only."""

    status: int
    content_type: bytes
    route: bytes | None
    body: bytes = b""


class BrokenConnectionError(Exception):
    """Thrown in by the shell: the connection failed. ``sent`` says whether any byte of the request may have left."""

    def __init__(self, *, sent: bool, timeout: bool) -> None:
        super().__init__()
        self.sent = sent
        self.timeout = timeout

    def error(self, *, asked: bool) -> ChannelError:
        """The error for the caller; ``asked`` if a request of the caller's was in it."""
        if asked and self.sent:
            return ChannelError(
                "outcome_unknown",
                "the connection broke before the answer; the request may have run",
                hint="repeat it only if running it twice does no harm",
            )
        if self.timeout:
            return ChannelError("timeout", "the enclave's host did not answer in time", retryable=True)
        return ChannelError(
            "closed",
            "there is no connection to the enclave's host",
            hint="is it running, and is this its address?",
            retryable=True,
        )


@dataclass(frozen=True, slots=True)
class Opened:
    """An exchange whose response head has authenticated; its body is still to be read."""

    exchange: Exchange
    head: binary_http.ResponseHead
    first: tuple[bytes, ...]


Steps = Generator[Effect, "Reply | bytes | None", "Opened"]


class ChannelFlow:
    """One client of one service: which session it uses, and what it does when that one is over.

    ``clock`` gives aware datetimes for the validity of certificates, ``monotonic`` seconds for every lifetime, ``random``
    secret bytes. ``at_most_once`` forbids repetition even where the service would allow it.
    """

    def __init__(
        self,
        url: str,
        verifier: Verifier,
        *,
        fresh: bool,
        purpose: str,
        audience: str | None,
        receipts: bool,
        at_most_once: bool,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
        random: Callable[[int], bytes],
    ) -> None:
        self.origin, self._prefix = _split(url)
        # Nothing of the inner request is in these: the host sees the same fields for every request.
        self._common = ((b"host", self.origin.partition("//")[2].encode("ascii")), *_PROTOCOL_FIELDS)
        self._verifier = verifier
        self._fresh = fresh
        self._purpose = purpose
        self._audience = audience
        self._receipts = receipts
        self._at_most_once = at_most_once
        self._clock = clock
        self._monotonic = monotonic
        self._random = random
        self._lock = threading.Lock()
        self._session: ClientSession | None = None
        self._route: bytes | None = None
        self._epochs: OrderedDict[bytes, int] = OrderedDict()

    @property
    def attestation(self) -> AttestationResult | None:
        """The result under which the current session was made."""
        session = self._session
        return None if session is None else session.result

    def attest(self, *, fresh: bool | None = None) -> Generator[Effect, Reply | bytes | None, ClientSession]:
        """Ask for evidence, verify it and make a session; whatever the Verifier raises, or ``unauthenticated``."""
        nonce = self._random(32) if (self._fresh if fresh is None else fresh) else None
        with self._lock:
            seen = dict(self._epochs)
        started = self._monotonic()
        if nonce is None:
            fetch = Fetch("GET", self._prefix + heads.DISCOVERY_PATH, self._common, b"")
        else:
            fields = (*self._common, (b"content-type", heads.NONCE_TYPE), (b"content-length", b"32"))
            fetch = Fetch("POST", self._prefix + heads.DISCOVERY_PATH, fields, nonce)
        try:
            reply = yield fetch
        except BrokenConnectionError as broken:
            raise broken.error(asked=False) from None
        if not isinstance(reply, Reply):
            raise ConfigurationError("shell", "the shell answered a request with something else")
        if reply.status != 200 or reply.content_type != heads.EVIDENCE_TYPE:
            raise _unauthenticated(reply.status, "evidence")
        if len(reply.body) > MAX_BUNDLE:
            raise ChannelError("too_large", "the evidence is larger than 256 KiB")
        result = self._verifier.verify(
            reply.body,
            at=self._clock(),
            nonce=nonce,
            age=None if nonce is None else timedelta(seconds=self._monotonic() - started),
            purpose=self._purpose,
            audience=self._audience,
            cached=nonce is None,
        )
        max_age = self._verifier.policy.max_age
        session = ClientSession(
            result,
            random=self._random,
            monotonic=self._monotonic,
            started=started,
            max_age=None if max_age is None else max_age.total_seconds(),
        )
        self._accept(session, seen, reply.route)
        return session

    def exchange(self, call: Call) -> Steps:
        """Send ``call`` to an attested enclave and open the head of its answer.

        Raises what ``attest`` raises; ``unauthenticated`` for every answer that does not authenticate, ``outcome_unknown``
        where the request may have run, ``key_unknown`` if the enclave denies even a new session.
        """
        repeated = False
        while True:
            session = self._session
            if session is None or not session.usable:
                # What a host says about our last session does not lead to weaker evidence.
                session = yield from self.attest(fresh=True if repeated else None)
            exchange = self._begin(session, call)
            try:
                reply = yield Submit(
                    self._prefix + heads.ENVELOPE_PATH, self._fields(exchange, call), exchange
                )
                if not isinstance(reply, Reply):
                    raise ConfigurationError("shell", "the shell answered a request with something else")
                if reply.status == 421:
                    session.end()
                    yield Close()
                    self._check_repeat(session, call, repeated=repeated)
                    repeated = True
                    continue
                if reply.status != 200 or reply.content_type != heads.RESPONSE_TYPE:
                    yield Close()
                    raise _unauthenticated(reply.status, "an answer")
                return (yield from self._open(exchange))
            except BrokenConnectionError as broken:
                raise broken.error(asked=True) from None

    def _open(self, exchange: Exchange) -> Steps:
        first: list[bytes] = []
        try:
            while exchange.response is None:
                data = yield Read()
                if data is None:
                    exchange.end()
                elif isinstance(data, bytes):
                    first += exchange.feed(data)
        except ConfideError:
            yield Close()
            raise
        return Opened(exchange, exchange.response, tuple(first))

    def _begin(self, session: ClientSession, call: Call) -> Exchange:
        wanted = call.options.receipt
        return session.request(
            call.method,
            call.path,
            call.fields,
            length=call.length,
            want_receipt=self._receipts if wanted is None else wanted,
            sign=call.options.sign,
        )

    def _fields(self, exchange: Exchange, call: Call) -> binary_http.Fields:
        fields = [*self._common, (b"content-type", heads.REQUEST_TYPE)]
        route = self._route
        if route is not None:
            fields.append((heads.ROUTE_FIELD, route))
        if call.length is None:
            fields.append((b"transfer-encoding", b"chunked"))
        else:
            fields.append((b"content-length", b"%d" % exchange.outgoing.wire_length))
        return tuple(fields)

    def _check_repeat(self, session: ClientSession, call: Call, *, repeated: bool) -> None:
        """Whether the host's word that the enclave does not know the session may lead to sending the request again."""
        if repeated:
            raise ChannelError(
                "key_unknown", "the enclave does not know the session, not even a new one", retryable=True
            )
        harmless = call.options.idempotent or not (session.material.at_most_once or self._at_most_once)
        if not harmless or not call.again:
            raise ChannelError(
                "outcome_unknown",
                "the host says that the session is over; the request may have run",
                hint="mark the request as idempotent if running it twice does no harm",
            )

    def _accept(self, session: ClientSession, seen: dict[bytes, int], route: bytes | None) -> None:
        service, epoch = session.material.service, session.material.epoch
        if epoch < seen.get(service.instance, 0):
            raise NotAcceptable(
                "stale", "the instance offers a key older than one it had offered", stage="binding"
            )
        with self._lock:
            self._epochs[service.instance] = max(epoch, self._epochs.pop(service.instance, 0))
            if len(self._epochs) > _MAX_INSTANCES:
                self._epochs.popitem(last=False)
            self._session = session
            self._route = route if _is_route(route) else None


def _unauthenticated(status: int, what: str) -> ChannelError:
    return ChannelError(
        "unauthenticated",
        f"the host answered with status {status} instead of {what}",
        hint="nothing of this answer is authentic; look at the service's own log",
        retryable=status == 503,
    )


def _is_route(route: bytes | None) -> bool:
    return route is not None and 1 <= len(route) <= 64 and all(0x21 <= byte <= 0x7E for byte in route)


def _split(url: str) -> tuple[str, str]:
    """Origin and path prefix of a service's URL."""
    try:
        parts = urlsplit(url)
        bad = parts.port == 0
    except ValueError:
        raise ConfigurationError("url", "the service's URL is not well-formed") from None
    if bad or parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
        raise ConfigurationError(
            "url", "the service's URL must be http or https with a host and without user name"
        )
    if not url.isascii():
        raise ConfigurationError("url", "the service's URL is written in ASCII, its host name in A-labels")
    if parts.query or parts.fragment:
        raise ConfigurationError("url", "the service's URL has no query and no fragment")
    return f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
