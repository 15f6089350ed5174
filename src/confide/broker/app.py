# SPDX-License-Identifier: Apache-2.0
"""The broker as an ASGI app. It is served inside the attested envelope: whoever speaks to it has verified it first, bodies
are already decrypted, and the operator sees neither names nor answers.

Specification: docs/spec/broker.md section 7.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from confide.broker.challenges import TOKEN_BYTES, StatelessChallenges
from confide.broker.holdings import Holdings
from confide.broker.limits import Buckets
from confide.broker.releases import Releaser
from confide.broker.settings import BrokerSettings
from confide.broker.store import Store
from confide.crypto.secret import Secret
from confide.errors import BrokerError, ConfideError, EnclaveError, MalformedError
from confide.keys import broker_messages as messages
from confide.keys.release import MAX_REQUEST, ReleaseRequest
from confide.keys.signed_policy import (
    MAX_SECRET_BYTES,
    OWNER_BYTES,
    SALT_BYTES,
    SignedStatement,
    check_name,
)

if TYPE_CHECKING:
    from confide.enclave.context import Built, Context
    from confide.wire.fields import Fields

__all__ = ["BrokerApp", "build"]

MAX_EVIDENCE = 256 * 1024
MAX_AUDIT_PAGE = 256
RELEASE_WORKERS = 3
OWNER_WORKERS = 1
MAX_WAITING = 64

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class _Lane:
    """A few threads and how much work is given to them."""

    def __init__(self, workers: int) -> None:
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="broker")
        self.waiting = 0

    async def run(self, work: Callable[[], Any]) -> Any:
        self.waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        finally:
            self.waiting -= 1

    def close(self) -> None:
        self._executor.shutdown(wait=True)


@dataclass(frozen=True, slots=True)
class _Call:
    fields: Fields
    peer: str


class BrokerApp:
    """ASGI over one store. Work that takes CPU or waits for the disk is done by a few threads; what would have to wait
    behind more than 64 others is refused.
    """

    def __init__(
        self,
        store: Store,
        settings: BrokerSettings,
        *,
        service_id: str,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
        random: Callable[[int], bytes] = os.urandom,
        log: Callable[[str, str], None] = lambda _event, _code: None,
    ) -> None:
        self._store = store
        self._settings = settings
        self._service_id = service_id
        self._log = log
        self._challenges = StatelessChallenges(
            monotonic=monotonic, random=random, lifetime=settings.challenge_seconds
        )
        self._peers = Buckets(settings.peer_rate, monotonic=monotonic)
        self._evidence = Buckets(settings.evidence_rate, monotonic=monotonic)
        self.holdings = Holdings(store, settings.owners)
        self.releaser = Releaser(
            store,
            self.holdings,
            audience=messages.broker_audience(service_id),
            anchors=settings.anchors,
            allow_simulated=settings.allow_simulated,
            allow_unanchored=settings.allow_unanchored,
            challenges=self._challenges,
            releases=Buckets(settings.release_rate, monotonic=monotonic),
            clock=clock,
        )
        if not store.anchored:
            with store.transaction() as tx:
                tx.record("started", b"", {"anchored": False, "releasing": self.releaser.open})
        self._flushing: asyncio.Task[None] | None = None
        self._unwritten = False
        releases = self._releases = _Lane(RELEASE_WORKERS)
        owners = self._owners = _Lane(OWNER_WORKERS)
        self._routes: Mapping[tuple[str, str], tuple[_Lane, Callable[[_Call], dict[str, object]]]] = {
            ("POST", "/v1/challenge"): (releases, self._challenge),
            ("POST", "/v1/release"): (releases, self._release),
            ("POST", "/v1/question"): (owners, self._question),
            ("POST", "/v1/keys"): (owners, self._put),
            ("POST", "/v1/policies"): (owners, self._set_policy),
            ("POST", "/v1/revocations"): (owners, self._revoke),
            ("POST", "/v1/list"): (owners, self._list),
            ("POST", "/v1/audit"): (owners, self._audit),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI 3)."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            raise EnclaveError("bad_state", "the broker speaks HTTP only")
        status, body = await self._answer(scope, receive)
        headers = [
            (b"content-type", messages.MEDIA_TYPE.encode("ascii")),
            (b"content-length", str(len(body)).encode("ascii")),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        if status >= 400:
            # Apart from the answer, whose time must not tell whether there was anything to write. One task for all
            # refusals: they cost whoever earns them nothing, so they must not fill the lane of those who ask properly.
            self._unwritten = True
            if self._flushing is None or self._flushing.done():
                self._flushing = asyncio.create_task(self._flush_until_written())

    async def _flush_until_written(self) -> None:
        while self._unwritten:
            self._unwritten = False
            with contextlib.suppress(RuntimeError):  # The lane is closed; closing writes what is left.
                await self._releases.run(self._flush)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                self.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    def close(self) -> None:
        """Finish what runs, then close the store."""
        self._releases.close()
        self._owners.close()
        self._flush()
        self._store.close()

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[int, bytes]:
        try:
            path, method = scope["path"], scope["method"]
            if (method, path) == ("GET", "/v1/status"):
                return 200, messages.encode(**self._status())
            route = self._routes.get((method, path))
            if route is None:
                raise BrokerError("not_found", "there is no such route")
            self._peers.take(_peer(scope))
            body = await _read_body(receive)
            call = _Call(messages.decode(body, "broker request"), _peer(scope))
            lane, handler = route
            if lane.waiting >= MAX_WAITING:
                raise BrokerError("rate_limited", "the broker is busy", retryable=True)
            return 200, messages.encode(**await lane.run(lambda: handler(call)))
        except ConfideError as error:
            return messages.error_body(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing of it goes out, and nothing was released.
            self._log("broker_failed", type(error).__name__)
            return messages.error_body(EnclaveError("bad_state", "the broker failed; nothing was released"))

    def _flush(self) -> None:
        try:
            self.releaser.flush_denials()
        except ConfideError as error:
            self._log("broker_refusal_not_recorded", error.code)

    # -- the routes

    def _status(self) -> dict[str, object]:
        return {
            "id": self._service_id,
            "store": self._store.name,
            "anchored": self._store.anchored,
            "releasing": self.releaser.open,
        }

    def _challenge(self, call: _Call) -> dict[str, object]:
        owner = call.fields.bytes_("owner", OWNER_BYTES)
        tenant = check_name(call.fields.text("tenant", 1024), "tenant")
        wanted = messages.read_wanted(call.fields.list_("secrets"))
        call.fields.end()
        request, token = self.releaser.challenge(owner, tenant, wanted)
        return {"request": request.encode(), "token": token}

    def _question(self, call: _Call) -> dict[str, object]:
        owner = call.fields.bytes_("owner", OWNER_BYTES)
        call.fields.end()
        challenge, token = self._challenges.issue("query", owner)
        return {"challenge": challenge, "token": token}

    def _release(self, call: _Call) -> dict[str, object]:
        owner = call.fields.bytes_("owner", OWNER_BYTES)
        request = ReleaseRequest.decode(call.fields.bytes_("request", max_length=MAX_REQUEST))
        token = call.fields.bytes_("token", TOKEN_BYTES)
        evidence = call.fields.bytes_("evidence", max_length=MAX_EVIDENCE)
        call.fields.end()
        self._evidence.take(call.peer)  # Verifying is the dear part, and is paid for before it begins.
        granted = self.releaser.release(owner, request, token, evidence)
        return {
            "answer": granted.wrapped.encode(),
            "origins": [[signed.data, salt] for signed, salt in granted.origins],
            "record": granted.record,
        }

    def _put(self, call: _Call) -> dict[str, object]:
        signed = SignedStatement.from_value(call.fields.list_("statement"))
        salt = call.fields.bytes_("salt", SALT_BYTES)
        secret = Secret(call.fields.bytes_("secret", max_length=MAX_SECRET_BYTES))
        call.fields.end()
        try:
            return {"record": self.holdings.put(signed, secret=secret, salt=salt)}
        finally:
            secret.erase()

    def _set_policy(self, call: _Call) -> dict[str, object]:
        signed = SignedStatement.from_value(call.fields.list_("statement"))
        call.fields.end()
        return {"record": self.holdings.set_policy(signed)}

    def _revoke(self, call: _Call) -> dict[str, object]:
        signed = SignedStatement.from_value(call.fields.list_("statement"))
        call.fields.end()
        return {"record": self.holdings.revoke(signed)}

    def _list(self, call: _Call) -> dict[str, object]:
        owner = self._query(call, "list")
        call.fields.end()
        return self.holdings.overview(owner)

    def _audit(self, call: _Call) -> dict[str, object]:
        owner = self._query(call, "audit")
        start = call.fields.integer("start", 0, 2**53)
        count = call.fields.integer("count", 1, MAX_AUDIT_PAGE)
        call.fields.end()
        self._flush()  # Whoever asks is shown what was refused until now.
        with self._store.holding():
            entries = list(self.holdings.audit(owner, start, count))
            return {"entries": entries, "head": self._store.head, "length": self._store.length}

    def _query(self, call: _Call, what: str) -> bytes:
        signed = SignedStatement.from_value(call.fields.list_("statement"))
        token = call.fields.bytes_("token", TOKEN_BYTES)
        challenge = call.fields.bytes_("challenge", 32)
        # The signature first: a challenge is spent only by whoever can sign.
        self.holdings.query(signed, what, challenge)
        self._challenges.present(challenge, token, "query", signed.owner)
        return signed.owner


def _peer(scope: Scope) -> str:
    """Who is asking, as well as it can be known: the envelope's session where there is one. Sessions cost their maker
    nothing, so what is scarce is limited as a whole, too.
    """
    extensions = scope.get("extensions") or {}
    confide = extensions.get("confide") or {}
    session = confide.get("session") if isinstance(confide, Mapping) else None
    return session.hex() if isinstance(session, bytes) else "everybody"


async def _read_body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise MalformedError("truncated", "the request was cut")
        body += message.get("body", b"")
        if len(body) > messages.MAX_REQUEST_BODY:
            raise BrokerError("too_large", f"a request has at most {messages.MAX_REQUEST_BODY} bytes")
        if not message.get("more_body", False):
            return bytes(body)


def build(options: Mapping[str, object], context: Context) -> Built:
    """The broker over the database in the directory that the host lent, under a root key that this TEE derives for this
    measurement alone.

    Raises ``configuration`` errors for options, ``enclave.bad_state`` without a directory, ``broker.integrity`` for a
    database that is not a whole one of this broker.
    """
    from confide.enclave.context import Built

    settings = BrokerSettings.from_options(options)
    root = context.key("broker/root-key/1")
    store = Store(context.storage() / "broker.db", root, clock=lambda: int(time.time()))
    context.log("broker_opened", state="anchored" if store.anchored else "unanchored", count=store.length)
    app = BrokerApp(
        store,
        settings,
        service_id=context.service.id,
        clock=lambda: datetime.fromtimestamp(time.time(), UTC),
        log=lambda event, code: context.log(event, code=code),
    )
    return Built(app, lifespan=True)
