# SPDX-License-Identifier: Apache-2.0
"""What is said to a broker, and in which order: generators that yield calls and take answers, without any I/O of their own.

``confide.keys.broker_client`` drives them. Specification: docs/spec/broker.md sections 3, 4 and 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from confide.errors import BrokerError, MalformedError
from confide.keys import broker_messages as messages
from confide.keys.audit import AuditedLedger, Record, read_entries
from confide.keys.broker_messages import Wanted
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
    from collections.abc import Callable, Generator, Iterable, Mapping

    from confide.crypto.secret import Secret
    from confide.crypto.signing import SigningKey
    from confide.keys.receiver import Receiver
    from confide.wire.fields import Fields

__all__ = [
    "Audited",
    "BrokerStatus",
    "Call",
    "Work",
    "audit",
    "fetch",
    "overview",
    "put",
    "read_names",
    "revoke",
    "set_policy",
    "status",
]

PAGE: Final = 256
MAX_PAGES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request: its method, path and body (None for GET)."""

    method: str
    path: str
    body: bytes | None


@dataclass(frozen=True, slots=True)
class Work:
    """Something that takes long and is no HTTP: asking the quoting device."""

    run: Callable[[], bytes]


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


def _post(path: str, what: str, **body: object) -> Generator[Call | Work, Any, Fields]:
    answer = yield Call("POST", path, messages.encode(**body))
    return messages.decode(answer, what, messages.MAX_RESPONSE_BODY)


def status() -> Generator[Call | Work, Any, BrokerStatus]:
    """What the broker says of itself."""
    fields = messages.decode((yield Call("GET", "/v1/status", None)), "broker status", 4096)
    status = BrokerStatus(
        id=fields.text("id"),
        store=fields.bytes_("store", STORE_BYTES),
        anchored=fields.boolean("anchored"),
        releasing=fields.boolean("releasing"),
    )
    fields.end()
    return status


def _query(key: SigningKey, store: bytes, what: str) -> Generator[Call | Work, Any, dict[str, object]]:
    fields = yield from _post("/v1/question", "broker challenge", owner=key.public)
    challenge, token = fields.bytes_("challenge", 32), fields.bytes_("token", max_length=256)
    fields.end()
    query = Query(owner=key.public, store=store, serial=1, what=what, challenge=challenge)
    return {"statement": sign(query, key).to_value(), "challenge": challenge, "token": token}


def overview(key: SigningKey) -> Generator[Call | Work, Any, dict[str, Any]]:
    """What an owner has at the broker, with the name of the store that it is about."""
    now = yield from status()
    query = yield from _query(key, now.store, "list")
    fields = yield from _post("/v1/list", "broker list", **query)
    found = {name: fields.list_(name) for name in ("secrets", "policies", "revocations")}
    serials = fields.mapping("serials")
    fields.end()
    return {**found, "serials": serials, "store": now.store}


def _send(
    key: SigningKey, subject: str, build: Callable[[bytes, int], Statement], path: str, **body: object
) -> Generator[Call | Work, Any, int]:
    """Sign with the next serial of the subject, and send."""
    known = yield from overview(key)
    serial = known["serials"].get(subject, 0)
    if type(serial) is not int:
        raise BrokerError("integrity", "the broker lists a serial that is not a number")
    signed = sign(build(known["store"], serial + 1), key)
    return (yield from _send_signed(signed, path, **body))


def _send_signed(signed: SignedStatement, path: str, **body: object) -> Generator[Call | Work, Any, int]:
    fields = yield from _post(path, "broker answer", statement=signed.to_value(), **body)
    record = fields.integer("record", 1, 2**53)
    fields.end()
    return record


def put(
    key: SigningKey, secret: SecretName, value: Secret, random: Callable[[int], bytes]
) -> Generator[Call | Work, Any, int]:
    """Sign for a secret under a fresh salt and send it; gives the ledger's length."""
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


def set_policy(
    key: SigningKey,
    *,
    tenant: str,
    secrets: Iterable[SecretName],
    appraisal: bytes,
    lease_seconds: int,
    max_instances: int,
) -> Generator[Call | Work, Any, int]:
    """Check, sign and send a policy; gives the ledger's length."""
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


def revoke(
    key: SigningKey,
    secret: SecretName | None,
    tenant: str | None,
    measurement: bytes | None,
    manifest: bytes | None,
) -> Generator[Call | Work, Any, int]:
    """Sign and send a revocation of one thing; gives the ledger's length."""

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


def audit(key: SigningKey, head: bytes, length: int) -> Generator[Call | Work, Any, Audited]:
    """Fetch and check the ledger, page by page, from ``head`` and ``length`` on."""
    now = yield from status()
    ledger = AuditedLedger(key.public, head=head, length=length)
    for _ in range(MAX_PAGES):
        query = yield from _query(key, now.store, "audit")
        fields = yield from _post("/v1/audit", "broker audit", **query, start=ledger.length, count=PAGE)
        entries = read_entries(fields.list_("entries"))
        stated, total = fields.bytes_("head", chain.HASH), fields.integer("length", 0, 2**53)
        fields.end()
        ledger.feed(entries)
        if ledger.length >= total or not entries:
            ledger.finish(head=stated, length=total)
            return Audited(tuple(ledger.records), ledger.head, ledger.length)
    raise BrokerError("integrity", "the broker's ledger does not come to an end")


def fetch(
    receiver: Receiver, *, owner: bytes, tenant: str, wanted: tuple[Wanted, ...], began: float
) -> Generator[Call | Work, Any, Lease]:
    """Ask for a challenge, answer it with evidence, open what comes, and check that its owner signed for it."""
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
    evidence = yield Work(lambda: receiver.answer(request))
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


def read_names(names: Iterable[str | SecretName | Wanted]) -> tuple[Wanted, ...]:
    """The names that an enclave wants, sorted and checked; a bare name means its newest version."""

    def one(name: str | SecretName | Wanted) -> Wanted:
        return Wanted(name) if isinstance(name, str) else Wanted(name.name, name.version)

    wanted = tuple(sorted(one(name) for name in names))
    return messages.read_wanted([[item.name, item.version] for item in wanted])
