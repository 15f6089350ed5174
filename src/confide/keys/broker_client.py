# SPDX-License-Identifier: Apache-2.0
"""The clients of a key broker: an owner's (put, policy, revoke, list, audit) and an enclave's (fetch).

Both speak through any client with the interface of httpx2. In production that is ``confide.channel.client.Client`` (or
``AsyncClient``), which has verified the broker before the first byte; these classes add no protection of the transport.
What is exchanged is written once, as generators that yield calls and take answers, and driven by ``BrokerClient`` and by
``AsyncBrokerClient``.

Specification: docs/spec/broker.md sections 7 and 8.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from confide.errors import BrokerError, MalformedError
from confide.keys import broker_messages as messages
from confide.keys.audit import AuditedLedger, Record, read_entries
from confide.keys.broker_messages import Wanted, broker_audience
from confide.keys.lease import Lease
from confide.keys.release import MAX_ANSWER, MAX_REQUEST, ReleaseRequest, SecretName
from confide.keys.signed_policy import (
    SALT_BYTES,
    STORE_BYTES,
    PutKey,
    Query,
    Revoke,
    SetPolicy,
    SignedStatement,
    Statement,
    check_origin,
    commitment,
    sign,
)
from confide.ledger import chain

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping

    from confide.crypto.secret import Secret
    from confide.crypto.signing import SigningKey
    from confide.keys.receiver import Receiver
    from confide.wire.fields import Fields

__all__ = [
    "AsyncBrokerClient",
    "Audited",
    "BrokerClient",
    "BrokerStatus",
    "Wanted",
    "broker_audience",
]

PAGE: Final = 256
MAX_PAGES: Final = 1 << 20

T = TypeVar("T")


class _Response(Protocol):
    @property
    def status_code(self) -> int: ...
    @property
    def content(self) -> bytes: ...


class _SyncHttp(Protocol):
    def request(
        self, method: str, url: str, *, content: bytes | None = ..., headers: dict[str, str] | None = ...
    ) -> Any: ...


class _AsyncHttp(Protocol):
    def request(
        self, method: str, url: str, *, content: bytes | None = ..., headers: dict[str, str] | None = ...
    ) -> Awaitable[Any]: ...


@dataclass(frozen=True, slots=True)
class _Call:
    method: str
    path: str
    body: bytes | None


@dataclass(frozen=True, slots=True)
class _Work:
    """Something that takes long and is no HTTP: asking the quoting device."""

    run: Callable[[], bytes]


Flow = "Generator[_Call | _Work, Any, T]"


@dataclass(frozen=True, slots=True)
class BrokerStatus:
    """What a broker says of itself: its measured service id, its store's random name (16 bytes), whether memory has seen
    every change since the store was made, and whether it releases anything.
    """

    id: str
    store: bytes
    anchored: bool
    releasing: bool


@dataclass(frozen=True, slots=True)
class Audited:
    """A ledger checked from beginning to end: the owner's records, and where it stands now. Keep ``head`` and ``length``
    and give them to the next audit.
    """

    records: tuple[Record, ...]
    head: bytes
    length: int


# -- the flows


def _post(path: str, what: str, **body: object) -> Generator[_Call | _Work, Any, Fields]:
    answer = yield _Call("POST", path, messages.encode(**body))
    return messages.decode(answer, what, messages.MAX_RESPONSE_BODY)


def _status() -> Generator[_Call | _Work, Any, BrokerStatus]:
    fields = messages.decode((yield _Call("GET", "/v1/status", None)), "broker status", 4096)
    status = BrokerStatus(
        id=fields.text("id"),
        store=fields.bytes_("store", STORE_BYTES),
        anchored=fields.boolean("anchored"),
        releasing=fields.boolean("releasing"),
    )
    fields.end()
    return status


def _query(key: SigningKey, store: bytes, what: str) -> Generator[_Call | _Work, Any, dict[str, object]]:
    fields = yield from _post("/v1/question", "broker challenge", owner=key.public)
    challenge, token = fields.bytes_("challenge", 32), fields.bytes_("token", max_length=256)
    fields.end()
    query = Query(owner=key.public, store=store, serial=1, what=what, challenge=challenge)
    return {"statement": sign(query, key).to_value(), "challenge": challenge, "token": token}


def _list(key: SigningKey) -> Generator[_Call | _Work, Any, dict[str, Any]]:
    status = yield from _status()
    query = yield from _query(key, status.store, "list")
    fields = yield from _post("/v1/list", "broker list", **query)
    found = {name: fields.list_(name) for name in ("secrets", "policies", "revocations")}
    serials = fields.mapping("serials")
    fields.end()
    return {**found, "serials": serials, "store": status.store}


def _send(
    key: SigningKey, subject: str, build: Callable[[bytes, int], Statement], path: str, **body: object
) -> Generator[_Call | _Work, Any, int]:
    """Sign with the next serial of the subject, and send."""
    known = yield from _list(key)
    serial = known["serials"].get(subject, 0)
    if type(serial) is not int:
        raise BrokerError("integrity", "the broker lists a serial that is not a number")
    signed = sign(build(known["store"], serial + 1), key)
    return (yield from _send_signed(signed, path, **body))


def _send_signed(signed: SignedStatement, path: str, **body: object) -> Generator[_Call | _Work, Any, int]:
    fields = yield from _post(path, "broker answer", statement=signed.to_value(), **body)
    record = fields.integer("record", 1, 2**53)
    fields.end()
    return record


def _put(
    key: SigningKey, secret: SecretName, value: Secret, random: Callable[[int], bytes]
) -> Generator[_Call | _Work, Any, int]:
    salt, plain = random(32), value.reveal()

    def build(store: bytes, serial: int) -> Statement:
        return PutKey(
            owner=key.public,
            store=store,
            serial=serial,
            secret=secret,
            commitment=commitment(salt, plain),
        )

    return (yield from _send(key, f"key/{secret.name}", build, "/v1/keys", secret=plain, salt=salt))


def _set_policy(
    key: SigningKey,
    *,
    tenant: str,
    secrets: Iterable[SecretName],
    appraisal: bytes,
    lease_seconds: int,
    max_instances: int,
) -> Generator[_Call | _Work, Any, int]:
    names = tuple(sorted(secrets))

    def build(store: bytes, serial: int) -> Statement:
        statement = SetPolicy(
            owner=key.public,
            store=store,
            serial=serial,
            tenant=tenant,
            secrets=names,
            appraisal=appraisal,
            lease_seconds=lease_seconds,
            max_instances=max_instances,
        )
        statement.appraisal_policy  # noqa: B018 - the owner hears here what is wrong with it, not from the broker.
        return statement

    return (yield from _send(key, f"policy/{tenant}", build, "/v1/policies"))


def _revoke(
    key: SigningKey,
    secret: SecretName | None,
    tenant: str | None,
    measurement: bytes | None,
    manifest: bytes | None,
) -> Generator[_Call | _Work, Any, int]:
    def build(store: bytes, serial: int) -> Revoke:
        return Revoke(
            owner=key.public,
            store=store,
            serial=serial,
            secret=secret,
            tenant=tenant,
            measurement=measurement,
            manifest=manifest,
        )

    return (yield from _send(key, build(bytes(STORE_BYTES), 1).subject, build, "/v1/revocations"))


def _audit(key: SigningKey, head: bytes, length: int) -> Generator[_Call | _Work, Any, Audited]:
    status = yield from _status()
    ledger = AuditedLedger(key.public, head=head, length=length)
    for _ in range(MAX_PAGES):
        query = yield from _query(key, status.store, "audit")
        fields = yield from _post("/v1/audit", "broker audit", **query, start=ledger.length, count=PAGE)
        entries = read_entries(fields.list_("entries"))
        stated, total = fields.bytes_("head", chain.HASH), fields.integer("length", 0, 2**53)
        fields.end()
        ledger.feed(entries)
        if ledger.length >= total or not entries:
            ledger.finish(head=stated, length=total)
            break
    return Audited(tuple(ledger.records), ledger.head, ledger.length)


def _fetch(
    receiver: Receiver, *, owner: bytes, tenant: str, wanted: tuple[Wanted, ...], began: float
) -> Generator[_Call | _Work, Any, Lease]:
    fields = yield from _post(
        "/v1/challenge",
        "broker challenge",
        owner=owner,
        tenant=tenant,
        secrets=[[item.name, item.version] for item in wanted],
    )
    request = ReleaseRequest.decode(fields.bytes_("request", max_length=MAX_REQUEST))
    token = fields.bytes_("token", max_length=256)
    fields.end()
    asked = {item.name: item.version for item in wanted}
    if request.tenant != tenant or {secret.name for secret in request.secrets} != set(asked):
        raise BrokerError("integrity", "the broker asks for evidence about other secrets")
    if any(asked[secret.name] not in {0, secret.version} for secret in request.secrets):
        raise BrokerError("integrity", "the broker asks for evidence about another version")
    evidence = yield _Work(lambda: receiver.answer(request))
    fields = yield from _post(
        "/v1/release",
        "broker release",
        owner=owner,
        request=request.encode(),
        token=token,
        evidence=evidence,
    )
    answer = fields.bytes_("answer", max_length=MAX_ANSWER)
    origins = fields.list_("origins", len(request.secrets))
    fields.integer("record", 1, 2**53)
    fields.end()
    released = receiver.accept(answer)
    try:
        _check_origins(released.secrets, request, origins, owner)
    except BaseException:
        for secret in released.secrets.values():
            secret.erase()
        raise
    return Lease(owner, released.secrets, released.lease, began)


def _check_origins(
    secrets: Mapping[SecretName, Secret], request: ReleaseRequest, origins: list[Any], owner: bytes
) -> None:
    if len(origins) != len(request.secrets):
        raise BrokerError("integrity", "the broker does not prove the origin of each secret")
    for name, origin in zip(request.secrets, origins, strict=True):
        match origin:
            case [bytes(data), bytes(salt)] if len(salt) == SALT_BYTES:
                signed = SignedStatement.from_value([owner, data])
            case _:
                raise MalformedError("non_canonical", "the origin of a secret is not a statement and a salt")
        check_origin(signed, salt, name, secrets[name].reveal(), owner=owner)


def _wanted(names: Iterable[str | SecretName | Wanted]) -> tuple[Wanted, ...]:
    def one(name: str | SecretName | Wanted) -> Wanted:
        return Wanted(name) if isinstance(name, str) else Wanted(name.name, name.version)

    wanted = tuple(sorted(one(name) for name in names))
    return messages.read_wanted([[item.name, item.version] for item in wanted])


def _answer(response: _Response) -> bytes:
    status, content = response.status_code, bytes(response.content)
    if status != 200:
        raise messages.read_error(status, content)
    return content


# -- the drivers


class BrokerClient:
    """A broker, through a blocking HTTP client whose ``base_url`` is the broker's.

    Every method raises what the transport raises, and the broker's own errors as they are.
    """

    def __init__(
        self,
        http: _SyncHttp,
        *,
        random: Callable[[int], bytes] = os.urandom,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = http
        self._random = random
        self._monotonic = monotonic

    def status(self) -> BrokerStatus:
        """What the broker says of itself."""
        return self._drive(_status())

    def put(self, key: SigningKey, secret: SecretName, value: Secret) -> int:
        """Keep a secret under a name and version; gives the length of the ledger that holds the record."""
        return self._drive(_put(key, secret, value, self._random))

    def set_policy(
        self,
        key: SigningKey,
        *,
        tenant: str,
        secrets: Iterable[SecretName],
        appraisal: bytes,
        lease_seconds: int = 3600,
        max_instances: int = 0,
    ) -> int:
        """Say which secrets a tenant's enclave may have, and by which policy (exact TOML) it must show itself."""
        return self._drive(
            _set_policy(
                key,
                tenant=tenant,
                secrets=secrets,
                appraisal=appraisal,
                lease_seconds=lease_seconds,
                max_instances=max_instances,
            )
        )

    def revoke(
        self,
        key: SigningKey,
        *,
        secret: SecretName | None = None,
        tenant: str | None = None,
        measurement: bytes | None = None,
        manifest: bytes | None = None,
    ) -> int:
        """Take one thing back. When this returns, the broker releases nothing against it any more."""
        return self._drive(_revoke(key, secret, tenant, measurement, manifest))

    def list(self, key: SigningKey) -> dict[str, Any]:
        """What the owner has here: ``secrets``, ``policies``, ``revocations``, ``serials``; no secret's bytes."""
        return self._drive(_list(key))

    def audit(self, key: SigningKey, *, head: bytes = chain.GENESIS, length: int = 0) -> Audited:
        """The owner's records, with the whole chain checked from ``head`` and ``length`` on.

        Raises ``broker.rollback`` if the ledger is shorter than it was, ``broker.integrity`` if it is another one.
        """
        return self._drive(_audit(key, head, length))

    def fetch(
        self,
        receiver: Receiver,
        *,
        owner: bytes,
        tenant: str,
        names: Iterable[str | SecretName | Wanted],
    ) -> Lease:
        """Inside an enclave: attest to the broker and get secrets of one owner under a lease."""
        began = self._monotonic()
        return self._drive(_fetch(receiver, owner=owner, tenant=tenant, wanted=_wanted(names), began=began))

    def _drive(self, flow: Generator[_Call | _Work, Any, T]) -> T:
        answer: bytes | None = None
        while True:
            try:
                step = flow.send(answer)
            except StopIteration as stop:
                result: T = stop.value
                return result
            if isinstance(step, _Work):
                answer = step.run()
            else:
                answer = _answer(
                    self._http.request(step.method, step.path, content=step.body, headers=_headers(step))
                )


class AsyncBrokerClient:
    """The same broker, through an asynchronous HTTP client; the quoting device is asked in a thread."""

    def __init__(
        self,
        http: _AsyncHttp,
        *,
        random: Callable[[int], bytes] = os.urandom,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = http
        self._random = random
        self._monotonic = monotonic

    async def status(self) -> BrokerStatus:
        """What the broker says of itself."""
        return await self._drive(_status())

    async def put(self, key: SigningKey, secret: SecretName, value: Secret) -> int:
        """See ``BrokerClient.put``."""
        return await self._drive(_put(key, secret, value, self._random))

    async def set_policy(
        self,
        key: SigningKey,
        *,
        tenant: str,
        secrets: Iterable[SecretName],
        appraisal: bytes,
        lease_seconds: int = 3600,
        max_instances: int = 0,
    ) -> int:
        """See ``BrokerClient.set_policy``."""
        return await self._drive(
            _set_policy(
                key,
                tenant=tenant,
                secrets=secrets,
                appraisal=appraisal,
                lease_seconds=lease_seconds,
                max_instances=max_instances,
            )
        )

    async def revoke(
        self,
        key: SigningKey,
        *,
        secret: SecretName | None = None,
        tenant: str | None = None,
        measurement: bytes | None = None,
        manifest: bytes | None = None,
    ) -> int:
        """See ``BrokerClient.revoke``."""
        return await self._drive(_revoke(key, secret, tenant, measurement, manifest))

    async def list(self, key: SigningKey) -> dict[str, Any]:
        """See ``BrokerClient.list``."""
        return await self._drive(_list(key))

    async def audit(self, key: SigningKey, *, head: bytes = chain.GENESIS, length: int = 0) -> Audited:
        """See ``BrokerClient.audit``."""
        return await self._drive(_audit(key, head, length))

    async def fetch(
        self,
        receiver: Receiver,
        *,
        owner: bytes,
        tenant: str,
        names: Iterable[str | SecretName | Wanted],
    ) -> Lease:
        """See ``BrokerClient.fetch``."""
        began = self._monotonic()
        return await self._drive(
            _fetch(receiver, owner=owner, tenant=tenant, wanted=_wanted(names), began=began)
        )

    async def _drive(self, flow: Generator[_Call | _Work, Any, T]) -> T:
        answer: bytes | None = None
        while True:
            try:
                step = flow.send(answer)
            except StopIteration as stop:
                result: T = stop.value
                return result
            if isinstance(step, _Work):
                answer = await asyncio.to_thread(step.run)
            else:
                response = await self._http.request(
                    step.method, step.path, content=step.body, headers=_headers(step)
                )
                answer = _answer(response)


def _headers(call: _Call) -> dict[str, str]:
    return {"content-type": messages.MEDIA_TYPE} if call.body is not None else {}
