# SPDX-License-Identifier: Apache-2.0
"""Owners' requests, and whatever else arrives: who may say what, and what a name may be."""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import hashlib
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import confide.broker
from confide.broker.holdings import MAX_PER_OWNER
from confide.broker.limits import Rate
from confide.crypto import cose
from confide.crypto.secret import Secret
from confide.crypto.signing import SigningKey
from confide.errors import BrokerError, ConfideError
from confide.keys import broker_flows
from confide.keys import broker_messages as messages
from confide.keys.release import SecretName
from confide.keys.signed_policy import (
    MAX_POLICY_BYTES,
    MAX_SECRETS,
    PutKey,
    Query,
    Revoke,
    SetPolicy,
    SignedStatement,
    Statement,
    commitment,
    sign,
)
from confide.wire import cbor
from support.broker_world import TENANT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import httpx2

    from support.broker_world import World

SALT = bytes(range(32))
SECRET = b"the weights' key"


async def post(world: World, path: str, content: bytes) -> tuple[int, str]:
    response = await world.http.post(path, content=content)
    if response.status_code == 200:
        return 200, ""
    return response.status_code, messages.read_error(response.status_code, response.content).code


def statements(
    world: World, key: SigningKey, **changes: Any
) -> dict[str, tuple[str, Statement, dict[str, Any]]]:
    """One of each kind of request that an owner may make: its path, its statement, and what goes with it."""
    head: dict[str, Any] = {"owner": key.public, "store": world.store.name, "serial": 7, **changes}
    name = SecretName("admin-test", 1)
    appraisal = world.enclave.policy()
    return {
        "put": (
            "/v1/keys",
            PutKey(**head, secret=name, commitment=commitment(SALT, SECRET)),
            {"secret": SECRET, "salt": SALT},
        ),
        "policy": (
            "/v1/policies",
            SetPolicy(**head, tenant=TENANT, secrets=(name,), appraisal=appraisal, lease_seconds=60),
            {},
        ),
        "revoke key": ("/v1/revocations", Revoke(**head, secret=SecretName("weights", 1)), {}),
        "revoke policy": ("/v1/revocations", Revoke(**head, tenant=TENANT), {}),
        "revoke measurement": ("/v1/revocations", Revoke(**head, measurement=b"m" * 48), {}),
        "revoke manifest": ("/v1/revocations", Revoke(**head, manifest=b"m" * 32), {}),
        "list": ("/v1/list", Query(**{**head, "serial": 1}, what="list", challenge=bytes(32)), {}),
        "audit": (
            "/v1/audit",
            Query(**{**head, "serial": 1}, what="audit", challenge=bytes(32)),
            {"start": 0, "count": 5},
        ),
    }


OPERATIONS = (
    "put",
    "policy",
    "revoke key",
    "revoke policy",
    "revoke measurement",
    "revoke manifest",
    "list",
    "audit",
)


async def send(
    world: World,
    operation: str,
    *,
    key: SigningKey | None = None,
    signer: SigningKey | None = None,
    kind: str | None = None,
    claimed: bytes | None = None,
    **changes: Any,
) -> tuple[int, str]:
    """Make one of the requests, with one thing about its signature changed."""
    key = key or world.owner
    path, statement, body = statements(world, key, **changes)[operation]
    if isinstance(statement, Query):
        response = await world.http.post("/v1/question", content=messages.encode(owner=key.public))
        fields = messages.decode(response.content, "question")
        challenge = fields.bytes_("challenge")
        statement = dataclasses.replace(statement, challenge=challenge)
        body = {**body, "challenge": challenge, "token": fields.bytes_("token")}
    aad = b"confide/broker/statement/1\x00" + (kind or statement.kind).encode()
    data = cose.sign1(signer or key, statement.encode(), external_aad=aad)
    signed = SignedStatement(claimed or key.public, data)
    return await post(world, path, messages.encode(statement=signed.to_value(), **body))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_kb_02_every_owner_operation_needs_the_owners_own_signature(world: World, operation: str) -> None:
    async def story() -> None:
        await world.stock("weights")
        before = world.store.head
        stranger = world.stranger
        attempts: dict[str, dict[str, Any]] = {
            "a stranger": {"key": stranger},
            "a stranger's signature under the owner's name": {"signer": stranger},
            "the owner's statement under a stranger's name": {"claimed": stranger.public},
            "the signature of another kind of statement": {"kind": "other"},
        }
        for what, attempt in attempts.items():
            assert await send(world, operation, **attempt) == (403, "broker.denied"), what
        assert world.store.head == before
        # Another store's statement is told apart for whoever has signed it, and only for him.
        assert await send(world, operation, store=bytes(16)) == (400, "not_genuine.identity_mismatch")
        assert await send(world, operation, store=bytes(16), key=stranger) == (403, "broker.denied")
        assert world.store.head == before
        assert await send(world, operation) == (200, "")

    asyncio.run(story())


@pytest.mark.parametrize("operation", OPERATIONS)
def test_kb_02_a_request_without_a_signature_is_malformed(world: World, operation: str) -> None:
    async def story() -> None:
        path, _, body = statements(world, world.owner)[operation]
        unsigned: tuple[object, ...] = (
            None,
            [],
            [world.owner.public],
            [world.owner.public, b""],
            [b"", b"x"],
            b"x",
            {},
        )
        for statement in unsigned:
            status, code = await post(world, path, messages.encode(statement=statement, **body))
            assert status == 400
            assert code.startswith("malformed.")
        status, code = await post(world, path, messages.encode(**body))
        assert (status, code) == (400, "malformed.non_canonical")
        assert world.store.length == 0

    asyncio.run(story())


def test_kb_02_a_statement_replayed_later_changes_nothing(world: World) -> None:
    async def story() -> None:
        first = sign(statements(world, world.owner, serial=1)["policy"][1], world.owner)
        second = sign(statements(world, world.owner, serial=2)["policy"][1], world.owner)
        body = {name: messages.encode(statement=s.to_value()) for name, s in (("1", first), ("2", second))}
        assert await post(world, "/v1/policies", body["1"]) == (200, "")
        assert await post(world, "/v1/policies", body["1"]) == (200, "")  # Asked again after a lost answer.
        assert world.store.length == 1
        assert await post(world, "/v1/policies", body["2"]) == (200, "")
        assert await post(world, "/v1/policies", body["1"]) == (409, "broker.conflict")
        await world.client.revoke(world.owner, tenant=TENANT)
        assert await post(world, "/v1/policies", body["2"]) == (409, "broker.conflict")
        assert world.store.length == 3

    asyncio.run(story())


def test_kb_02_a_query_is_answered_once_and_shows_ones_own_only(make_world: Callable[..., World]) -> None:
    first, second = SigningKey.generate(), SigningKey.generate()
    world = make_world(owners=frozenset({first.public, second.public}))

    async def story() -> None:
        await world.client.put(first, SecretName("of-the-first", 1), Secret(b"1"))
        await world.client.put(second, SecretName("of-the-second", 1), Secret(b"2"))
        listed = await world.client.list(second)
        assert [entry["name"] for entry in listed["secrets"]] == ["of-the-second"]
        audited = await world.client.audit(second)
        assert [record.details["name"] for record in audited.records] == ["of-the-second"]
        assert audited.length == 2
        response = await world.http.post("/v1/question", content=messages.encode(owner=first.public))
        fields = messages.decode(response.content, "question")
        challenge, token = fields.bytes_("challenge"), fields.bytes_("token")
        query = Query(owner=first.public, store=world.store.name, serial=1, what="list", challenge=challenge)
        ask = {"statement": sign(query, first).to_value(), "challenge": challenge, "token": token}
        assert await post(world, "/v1/list", messages.encode(**ask)) == (200, "")
        assert await post(world, "/v1/list", messages.encode(**ask)) == (400, "not_acceptable.nonce_reused")
        # A challenge for one owner is not another's, and a list is not an audit.
        query = dataclasses.replace(query, owner=second.public)
        ask["statement"] = sign(query, second).to_value()
        assert await post(world, "/v1/list", messages.encode(**ask)) == (400, "not_acceptable.nonce_mismatch")
        body = messages.encode(**ask, start=0, count=1)
        assert await post(world, "/v1/audit", body) == (403, "broker.denied")

    asyncio.run(story())


def test_a_secret_that_is_not_the_signed_one_is_refused(world: World) -> None:
    async def story() -> None:
        path, statement, body = statements(world, world.owner)["put"]
        signed = sign(statement, world.owner).to_value()
        for change in ({"secret": SECRET + b"!"}, {"salt": bytes(32)}):
            changed = messages.encode(statement=signed, **{**body, **change})
            assert await post(world, path, changed) == (503, "broker.integrity")
        assert world.store.length == 0
        assert await post(world, path, messages.encode(statement=signed, **body)) == (200, "")

    asyncio.run(story())


NAMES: dict[str, object] = {
    "empty": "",
    "dot dot": "..",
    "a path upwards": "../../etc/passwd",
    "percent": "%2e%2e",
    "percent twice": "%252e%252e",
    "a backslash": "..\\x",
    "NUL": "a\x00b",
    "absolute": "/etc/passwd",
    "overlong": "a" * 129,
    "64 KB": "a" * 60_000,
    "three parts, one empty": "a//b",
    "a Unicode slash": "a\u2215b",
    "full-width dots": "\uff0e\uff0e",
    "a newline": "a\n",
    "a space": "a b",
    "a combining mark": "e\u0301",
    "a leading dot": ".hidden",
    "a trailing dot": "a.",
    "bytes": b"abc",
    "a number": 7,
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_kb_03_names_outside_the_grammar_are_refused_everywhere(
    world: World, tmp_path: Path, name: object
) -> None:
    canary = tmp_path / "canary"
    canary.write_text("untouched")
    before = sorted(file.name for file in tmp_path.rglob("*"))

    async def story() -> None:
        for operation, field in (
            ("put", "name"),
            ("revoke key", "name"),
            ("policy", "tenant"),
            ("revoke policy", "tenant"),
        ):
            path, statement, body = statements(world, world.owner)[operation]
            payload = cbor.decode(statement.encode(), what="statement", max_size=1 << 16)
            payload[field] = name
            aad = b"confide/broker/statement/1\x00" + statement.kind.encode()
            data = cose.sign1(world.owner, cbor.encode(payload), external_aad=aad)
            whole = messages.encode(statement=[world.owner.public, data], **body)
            status, code = await post(world, path, whole)
            assert status in {400, 413}
            assert code in {"broker.name_invalid", "malformed.limit_exceeded"}
        for body in (
            {"tenant": TENANT, "secrets": [[name, 0]]},
            {"tenant": name, "secrets": [["weights", 0]]},
        ):
            status, code = await post(
                world, "/v1/challenge", messages.encode(owner=world.owner.public, **body)
            )
            assert status == 400
            assert code in {"broker.name_invalid", "malformed.limit_exceeded", "malformed.non_canonical"}
        assert world.store.length == 0

    asyncio.run(story())
    assert sorted(file.name for file in tmp_path.rglob("*")) == before
    assert canary.read_text() == "untouched"


def test_kb_03_a_good_name_with_dots_and_dashes_is_only_a_name(world: World, tmp_path: Path) -> None:
    async def story() -> None:
        values = await world.stock("a..b", "A-1_x.y", "z" * 128)
        lease = await world.fetch(*values)
        assert {n.name: s.reveal() for n, s in lease.secrets.items()} == values

    before = {file.name for file in tmp_path.rglob("*")}
    asyncio.run(story())
    assert {file.name for file in tmp_path.rglob("*")} == before


PATHS = (
    "/v1/challenge",
    "/v1/release",
    "/v1/question",
    "/v1/keys",
    "/v1/policies",
    "/v1/revocations",
    "/v1/list",
    "/v1/audit",
)


@pytest.mark.parametrize("path", PATHS)
def test_kb_04_a_body_without_end_is_cut_at_the_limit(world: World, path: str) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield bytes(16 * 1024)

    async def story() -> None:
        received: list[Any] = []
        chunks = endless()

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": await anext(chunks), "more_body": True}

        async def keep(message: Any) -> None:
            received.append(message)

        await world.app({"type": "http", "method": "POST", "path": path}, receive, keep)
        assert received[0]["status"] == 413

    asyncio.run(story())
    assert sent <= 512 // 16 + 1


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00",
        b"\xa0",
        b"\xa1\x61v\x02",
        b"\x81" * 1000,
        b"{}",
        b"\x9f\xff",
        b"\x1f\x8b\x08" + bytes(20),
        bytes(4000),
    ],
)
def test_kb_04_a_body_that_is_no_request_is_malformed(world: World, path: str, body: bytes) -> None:
    async def story() -> None:
        status, code = await post(world, path, body)
        assert status == 400
        assert code.startswith("malformed.")

    asyncio.run(story())


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/keys"), ("PUT", "/v1/keys"), ("DELETE", "/v1/keys"), ("GET", "/"), ("POST", "/v1/status"),
        ("POST", "/v1/keys/"), ("POST", "/v1//keys"), ("POST", "/V1/keys"), ("POST", "/v1/keys/../status"),
        ("GET", "/kbs/v0/auth"),
    ],
)  # fmt: skip
def test_kb_02_other_methods_and_paths_do_not_exist(world: World, method: str, path: str) -> None:
    async def story() -> None:
        received: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def keep(message: Any) -> None:
            received.append(message)

        await world.app({"type": "http", "method": method, "path": path}, receive, keep)
        assert received[0]["status"] == 404

    asyncio.run(story())


def test_a_request_that_is_cut_changes_nothing(world: World) -> None:
    async def story() -> None:
        path, statement, body = statements(world, world.owner)["put"]
        whole = messages.encode(statement=sign(statement, world.owner).to_value(), **body)
        parts = iter(
            [{"type": "http.request", "body": whole, "more_body": True}, {"type": "http.disconnect"}]
        )
        received: list[Any] = []

        async def receive() -> Any:
            return next(parts)

        async def keep(message: Any) -> None:
            received.append(message)

        await world.app({"type": "http", "method": "POST", "path": path}, receive, keep)
        assert received[0]["status"] == 400
        assert world.store.length == 0

    asyncio.run(story())


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(PATHS),
    body=st.dictionaries(
        st.sampled_from(
            [
                "owner",
                "tenant",
                "secrets",
                "request",
                "token",
                "evidence",
                "statement",
                "secret",
                "salt",
                "challenge",
                "x",
            ]
        ),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers(-(2**63), 2**63)
            | st.binary(max_size=40)
            | st.text(max_size=10),
            lambda inner: st.lists(inner, max_size=3),
            max_leaves=6,
        ),
    ),
)
def test_any_request_gives_a_typed_error_and_changes_nothing(
    world: World, path: str, body: dict[str, Any]
) -> None:
    async def story() -> None:
        try:
            encoded = messages.encode(**body)
        except ConfideError:
            return
        status, code = await post(world, path, encoded)
        # Only a question needs no more than somebody's public key.
        assert status in ({200, 400} if path == "/v1/question" else {400, 403})
        assert code != "enclave.bad_state"

    asyncio.run(story())
    assert world.store.length == 0
    assert world.logged == []


def test_kb_18_errors_records_and_the_log_hold_no_secret(
    world: World, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = b"canary-3d1b6a0f7c2e4d5a9b8f"

    async def story() -> None:
        await world.client.put(world.owner, SecretName("weights", 1), Secret(canary))
        await world.set_policy(["weights"])
        seen: list[bytes] = []

        async def keep(response: httpx2.Response) -> None:
            await response.aread()
            if response.request.url.path != "/v1/release":
                seen.append(response.content)

        world.http.event_hooks = {"response": [keep]}
        await world.fetch("weights")
        await world.client.list(world.owner)
        await world.client.audit(world.owner)
        with pytest.raises(ConfideError) as caught:
            await world.client.put(world.owner, SecretName("weights", 1), Secret(canary))
        seen += [str(caught.value).encode(), repr(caught.value).encode()]

        def exploding(*_: Any, **__: Any) -> Any:
            raise RuntimeError(canary.decode())

        monkeypatch.setattr(world.app.holdings, "policy", exploding)
        with pytest.raises(ConfideError) as caught:
            await world.fetch("weights")
        assert caught.value.code == "enclave.bad_state"
        seen += [str(caught.value).encode(), *(line.encode() for line in world.logged)]
        assert world.logged == ["broker_failed RuntimeError"]
        output = capfd.readouterr()
        seen += [output.out.encode(), output.err.encode()]
        world.store.close()
        seen += [file.read_bytes() for file in world.path.parent.iterdir()]
        haystack = b"\n".join(seen)
        assert len(haystack) > 10_000
        for spelling in (canary, canary.hex().encode(), canary[::-1], canary.decode().encode("utf-16-le")):
            assert spelling not in haystack
        assert hashlib.sha256(canary).digest() not in haystack

    asyncio.run(story())


def test_kb_19_one_peer_does_not_use_up_what_another_may_ask(make_world: Callable[..., World]) -> None:
    world = make_world(peer_rate=Rate(5, 1))

    async def ask(session: bytes) -> int:
        received: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": messages.encode(owner=bytes(32)), "more_body": False}

        async def keep(message: Any) -> None:
            received.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/question",
            "extensions": {"confide": {"session": session}},
        }
        await world.app(scope, receive, keep)
        return int(received[0]["status"])

    async def story() -> None:
        assert [await ask(b"a" * 32) for _ in range(7)] == [200] * 5 + [429] * 2
        assert await ask(b"b" * 32) == 200
        world.monotonic.now += 60
        assert [await ask(b"a" * 32) for _ in range(2)] == [200, 429]

    asyncio.run(story())


def test_kb_19_refused_requests_do_not_fill_the_lane_of_those_who_ask_properly(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each refusal is followed by a look at what must be written down; a hundred at once are one piece of work."""
    writing = threading.Event()
    monkeypatch.setattr(world.app.releaser, "flush_denials", lambda: writing.wait(20))

    async def story() -> None:
        for _ in range(100):
            assert (await world.http.post("/v1/nothing", content=b"")).status_code == 404
        await asyncio.sleep(0.01)  # What the refusals have started is under way.
        body = messages.encode(owner=world.owner.public, tenant=TENANT, secrets=[["weights", 0]])
        assert (await world.http.post("/v1/challenge", content=body)).status_code == 200
        writing.set()

    try:
        asyncio.run(story())
    finally:
        writing.set()


def test_kb_06_an_owner_with_much_in_the_broker_can_still_list_and_revoke(world: World) -> None:
    """The client reads the list before it signs; a list that is too long would end every revocation."""
    appraisal = world.enclave.policy().replace(TENANT.encode(), b"TENANT")
    appraisal += b"#" * (32 * 1024 - 1024)
    for number in range(140):
        tenant = f"tenant-{number}"
        statement = SetPolicy(
            owner=world.owner.public,
            store=world.store.name,
            serial=1,
            tenant=tenant,
            secrets=(SecretName("weights", 1),),
            appraisal=appraisal.replace(b"TENANT", tenant.encode()),
            lease_seconds=60,
        )
        world.app.holdings.set_policy(sign(statement, world.owner))
    asyncio.run(world.client.revoke(world.owner, tenant="tenant-7"))


def test_the_longest_list_that_an_owner_may_have_fits_one_answer() -> None:
    name, value, number = "n" * 128, bytes(64), 2**53
    most = MAX_PER_OWNER
    policy = {
        "tenant": name,
        "serial": number,
        "revoked": False,
        "secrets": [[name, 2**63 - 1]] * MAX_SECRETS,
        "appraisal": bytes(MAX_POLICY_BYTES),
        "lease_seconds": 86_400,
        "max_instances": 1024,
        "statement": bytes(32),
    }
    body = messages.encode(
        secrets=[{"name": name, "version": 2**63 - 1, "revoked": True}] * most["secrets"],
        policies=[policy] * most["policies"],
        revocations=[{"what": "measurement", "value": value, "serial": number}] * most["revocations"],
        serials={f"measurement/{index:0128x}": number for index in range(sum(most.values()))},
    )
    assert len(body) <= messages.MAX_RESPONSE_BODY


def test_kb_14_a_ledger_without_end_is_not_taken_for_one_that_was_checked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(world.stock("weights"))
    monkeypatch.setattr(broker_flows, "MAX_PAGES", 0)
    with pytest.raises(BrokerError) as error:
        asyncio.run(world.client.audit(world.owner))
    assert error.value.code == "broker.integrity"


def test_kb_17_the_broker_has_no_way_out() -> None:
    """Nothing in the package opens a connection or starts a process, so there is nothing to be led astray."""
    forbidden = {"socket", "ssl", "http", "urllib", "subprocess", "httpx", "httpx2", "ftplib", "smtplib"}
    files = sorted(Path(str(confide.broker.__file__)).parent.glob("*.py"))
    assert len(files) > 5
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names = {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {(node.module or "").partition(".")[0]}
                assert node.module != "confide.tees.fetch"
            else:
                continue
            assert not names & forbidden, file.name
