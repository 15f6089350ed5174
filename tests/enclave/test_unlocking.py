# SPDX-License-Identifier: Apache-2.0
"""The release routes inside the enclave, against a host that sends whatever it likes."""

from __future__ import annotations

import asyncio
import os
from types import SimpleNamespace
from typing import Any

import pytest

from confide.crypto.secret import Secret
from confide.crypto.signing import SigningKey
from confide.enclave import unlocking
from confide.enclave.runtime import Runtime
from confide.enclave.unlocking import Unlocking
from confide.errors import BrokerError, EnclaveError
from confide.keys.identity import Identity
from confide.keys.receiver import Released
from confide.keys.release import ANSWER_PATH, REQUEST_PATH, ReleaseRequest, SecretName
from confide.simulator.installation import Installation
from confide.simulator.snp import Chip
from confide.wire import cbor
from support.asgi_call import Answer, acall
from support.release_world import CANARY, MANIFEST, ReleaseWorld, SimulatedAttester, service

TYPE = [("content-type", "application/confide-release")]


@pytest.fixture(scope="module")
def chip(tmp_path_factory: pytest.TempPathFactory) -> Chip:
    return Chip.power_on(Installation.open_or_create(tmp_path_factory.mktemp("simulated") / "device"))


@pytest.fixture
def world(chip: Chip) -> ReleaseWorld:
    return ReleaseWorld(chip)


class Waiting:
    def __init__(self, world: ReleaseWorld, **changed: Any) -> None:
        self.world = world
        self.released: list[Released] = []
        arguments: dict[str, Any] = {
            "attester": SimulatedAttester(world.chip), "service": service(), "manifest": MANIFEST,
            "pins": {"weights": world.owner.public}, "on_released": self.released.append,
            "monotonic": world.clock, "wall_clock": world.clock.wall,
        }  # fmt: skip
        arguments.update(changed)
        self.app = Unlocking(**arguments)

    async def ask(self, request: ReleaseRequest, owner: Identity | None = None) -> Answer:
        body = cbor.encode({"v": 1, "owner": (owner or self.world.owner).public, "request": request.encode()})
        return await self.post(REQUEST_PATH, body)

    async def post(self, path: str, body: bytes, headers: Any = TYPE, **changed: Any) -> Answer:
        answer = await acall(self.app, "POST", path, body, headers, **changed)
        assert answer is not None
        return answer


def test_it_waits_until_every_owner_has_sent(world: ReleaseWorld) -> None:
    """Two owners, three secrets; each can supply only what is pinned to him."""
    other = Identity("other", SigningKey.generate())
    other_world = ReleaseWorld(world.chip, clock=world.clock, owner=other)
    pins = {"weights": world.owner.public, "token": world.owner.public, "table": other.public}
    waiting = Waiting(world, pins=pins)

    async def story() -> None:
        finished = asyncio.create_task(waiting.app.wait())
        assert (await waiting.ask(world.request(SecretName("table", 1)))).status == 400
        assert (await waiting.ask(world.request(), other)).status == 400
        assert (await waiting.ask(world.request(), Identity("x", SigningKey.generate()))).status == 400

        request = world.request(SecretName("token", 1), SecretName("weights", 2))
        secrets = {name: Secret(CANARY) for name in request.secrets}
        answer = await waiting.ask(request)
        assert (answer.status, answer.headers["content-type"]) == (200, "application/confide-evidence")
        wrapped = world.release(answer.body, request, secrets=secrets, lease=0)
        accepted = await waiting.post(ANSWER_PATH, wrapped.encode())
        assert (accepted.status, len(accepted.body)) == (200, 64)
        assert waiting.app.missing == {"table"}
        assert not finished.done()

        request = other_world.request(SecretName("table", 5))
        answer = await waiting.ask(request, other)
        wrapped = other_world.release(
            answer.body, request, secrets={SecretName("table", 5): Secret(b"t")}, lease=0
        )
        assert (await waiting.post(ANSWER_PATH, wrapped.encode())).status == 200
        await asyncio.wait_for(finished, 5)
        assert (await waiting.ask(request, other)).status == 404

    asyncio.run(story())
    assert [len(released.secrets) for released in waiting.released] == [2, 1]


def test_an_answer_of_one_owner_does_not_pass_as_anothers(world: ReleaseWorld) -> None:
    """The host gives the other owner's signature to this owner's request."""
    other = Identity("other", SigningKey.generate())
    waiting = Waiting(world, pins={"weights": world.owner.public, "table": other.public})

    async def story() -> None:
        request = world.request()
        evidence = (await waiting.ask(request)).body
        wrapped = world.release(evidence, request, signer=other.key)
        assert (await waiting.post(ANSWER_PATH, wrapped.encode())).status == 400
        wrapped = world.release(evidence, request)
        assert (await waiting.post(ANSWER_PATH, wrapped.encode())).status == 200

    asyncio.run(story())


def test_of_two_answers_for_one_name_the_second_is_refused(world: ReleaseWorld) -> None:
    waiting = Waiting(world)

    async def story() -> None:
        requests = [world.request(), world.request()]
        answers = [world.release((await waiting.ask(r)).body, r, lease=0) for r in requests]
        assert [(await waiting.post(ANSWER_PATH, a.encode())).status for a in answers] == [200, 404]

    asyncio.run(story())
    assert len(waiting.released) == 1


def test_a_name_that_came_is_awaited_no_more_while_others_are(world: ReleaseWorld) -> None:
    """Neither a new request for it is answered, nor an answer to an older request accepted."""
    pins = {"weights": world.owner.public, "token": world.owner.public}
    waiting = Waiting(world, pins=pins)

    async def story() -> list[int]:
        requests = [world.request(), world.request()]
        answers = [world.release((await waiting.ask(r)).body, r, lease=0) for r in requests]
        statuses = [(await waiting.post(ANSWER_PATH, a.encode())).status for a in answers]
        return [*statuses, (await waiting.ask(world.request())).status]

    assert asyncio.run(story()) == [200, 400, 400]
    assert len(waiting.released) == 1
    assert waiting.app.missing == {"token"}


def test_what_the_enclave_does_not_keep_is_erased_and_not_acknowledged(world: ReleaseWorld) -> None:
    seen: list[Released] = []

    def refuse(released: Released) -> None:
        seen.append(released)
        raise BrokerError("conflict", "not this one")

    waiting = Waiting(world, on_released=refuse)

    async def story() -> Answer:
        request = world.request()
        answer = world.release((await waiting.ask(request)).body, request)
        return await waiting.post(ANSWER_PATH, answer.encode())

    answer = asyncio.run(story())
    assert (answer.status, answer.body) == (400, b"")
    for secret in seen[0].secrets.values():
        with pytest.raises(EnclaveError):
            secret.reveal()


def test_an_answer_with_one_other_secret_lengthens_no_lease() -> None:
    """The runtime takes all of an answer or nothing."""
    weights, token = SecretName("weights", 1), SecretName("token", 1)
    held = {"weights": Secret(b"w"), "token": Secret(b"t")}
    runtime: Any = SimpleNamespace(_secrets=dict(held), _leases={"weights": 1.0, "token": 1.0})

    wrong = Released({weights: Secret(b"w"), token: Secret(b"other")}, 3600, b"")
    with pytest.raises(BrokerError):
        Runtime._accept(runtime, wrong)
    assert runtime._leases == {"weights": 1.0, "token": 1.0}

    Runtime._accept(runtime, Released({weights: Secret(b"w"), token: Secret(b"t")}, 3600, b""))
    assert min(runtime._leases.values()) > 3600
    assert all(runtime._secrets[name] is held[name] for name in held)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [*TYPE, *TYPE],
        [("content-type", "application/cbor")],
        [("content-type", "application/confide-release; x=1")],
    ],
)
def test_a_good_body_under_another_content_type_is_refused(world: ReleaseWorld, headers: Any) -> None:
    """A form on a web page can send any body, but not this type without asking first."""
    waiting = Waiting(world)
    body = cbor.encode({"v": 1, "owner": world.owner.public, "request": world.request().encode()})
    assert asyncio.run(waiting.post(REQUEST_PATH, body, headers)).status == 400
    assert asyncio.run(waiting.post(REQUEST_PATH, body)).status == 200


def test_where_nothing_is_awaited_there_is_nothing_to_see(world: ReleaseWorld) -> None:
    waiting = Waiting(world, pins={})
    for method in ("GET", "POST", "PUT"):
        for path in (REQUEST_PATH, ANSWER_PATH, "/other"):
            answer = asyncio.run(acall(waiting.app, method, path, b"x", TYPE))
            assert answer is not None
            assert (answer.status, answer.body) == (404, b"")
    asyncio.run(asyncio.wait_for(waiting.app.wait(), 1))
    closed = Waiting(world)
    closed.app.close()
    assert asyncio.run(closed.ask(world.request())).status == 404


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("POST", REQUEST_PATH, b"", TYPE, 400),
        ("POST", REQUEST_PATH, b"\xff", TYPE, 400),
        ("POST", REQUEST_PATH, b"x", [], 400),
        ("POST", REQUEST_PATH, b"x", [*TYPE, *TYPE], 400),
        ("POST", REQUEST_PATH, b"x", [("content-type", "application/cbor")], 400),
        ("POST", REQUEST_PATH, bytes(16 * 1024 + 1), TYPE, 413),
        ("POST", ANSWER_PATH, bytes(300 * 1024 + 1), TYPE, 413),
        ("POST", ANSWER_PATH, b"", TYPE, 400),
        ("POST", "/elsewhere", b"", TYPE, 400),
        ("GET", ANSWER_PATH, b"", TYPE, 400),
        ("DELETE", REQUEST_PATH, b"", TYPE, 400),
        ("POST", ANSWER_PATH, cbor.encode({"v": 1, "kid": bytes(32), "nonce": bytes(32), "wrap": b""}), TYPE, 400),
    ],
)  # fmt: skip
def test_kb_04_bad_requests_get_a_status_and_nothing_else(
    world: ReleaseWorld, method: str, path: str, body: bytes, headers: Any, status: int
) -> None:
    waiting = Waiting(world)
    answer = asyncio.run(acall(waiting.app, method, path, body, headers))
    assert answer is not None
    assert (answer.status, answer.body) == (status, b"")
    assert answer.headers == {"cache-control": "no-store", "content-length": "0"}
    # And the honest owner is still served.
    request = world.request()
    assert asyncio.run(waiting.ask(request)).status == 200


def test_kb_04_an_endless_body_is_left_at_the_limit(world: ReleaseWorld) -> None:
    waiting = Waiting(world)
    received = [0]

    async def receive() -> dict[str, Any]:
        received[0] += 1
        return {"type": "http.request", "body": bytes(4096), "more_body": True}

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": REQUEST_PATH,
        "headers": [(b"content-type", TYPE[0][1].encode())],
    }
    asyncio.run(waiting.app(scope, receive, send))
    assert sent[0]["status"] == 413
    assert received[0] == 5


def test_kb_04_a_body_that_never_comes_is_not_waited_for(
    world: ReleaseWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unlocking, "BODY_SECONDS", 0.05)
    waiting = Waiting(world)

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(30)
        raise AssertionError

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": REQUEST_PATH,
        "headers": [(b"content-type", TYPE[0][1].encode())],
    }
    asyncio.run(waiting.app(scope, receive, send))
    assert sent[0]["status"] == 400


def test_a_client_that_leaves_changes_nothing(world: ReleaseWorld) -> None:
    waiting = Waiting(world)
    body = cbor.encode({"v": 1, "owner": world.owner.public, "request": world.request().encode()})
    answer = asyncio.run(waiting.post(REQUEST_PATH, body, disconnect=True))
    assert answer.status == 400
    assert waiting.app.missing == {"weights"}


def test_a_device_that_fails_or_is_busy_is_503(world: ReleaseWorld) -> None:
    class Broken(SimulatedAttester):
        def attest(self, report_data: bytes) -> Any:
            raise EnclaveError("crashed", "canary")

    answer = asyncio.run(Waiting(world, attester=Broken(world.chip)).ask(world.request()))
    assert (answer.status, answer.body) == (503, b"")

    waiting = Waiting(world)

    async def story() -> list[int]:
        return sorted(
            [(await a).status for a in [asyncio.create_task(waiting.ask(world.request())) for _ in range(20)]]
        )

    statuses = asyncio.run(story())
    assert set(statuses) <= {200, 503}
    assert 200 in statuses


def test_a_secret_that_the_enclave_cannot_use_is_not_acknowledged(world: ReleaseWorld) -> None:
    def refuse(_: Released) -> None:
        raise EnclaveError("bad_state", "canary: of no use")

    waiting = Waiting(world, on_released=refuse)

    async def story() -> Answer:
        request = world.request()
        return await waiting.post(
            ANSWER_PATH, world.release((await waiting.ask(request)).body, request).encode()
        )

    answer = asyncio.run(story())
    assert (answer.status, answer.body) == (503, b"")
    assert waiting.app.missing == {"weights"}


def test_an_error_of_our_own_is_a_status_too(world: ReleaseWorld) -> None:
    def fail(_: Released) -> None:
        raise ZeroDivisionError("canary")

    waiting = Waiting(world, on_released=fail)

    async def story() -> Answer:
        request = world.request()
        return await waiting.post(
            ANSWER_PATH, world.release((await waiting.ask(request)).body, request).encode()
        )

    answer = asyncio.run(story())
    assert (answer.status, answer.body) == (400, b"")


def test_only_http_is_spoken(world: ReleaseWorld) -> None:
    async def nothing(*_: Any) -> Any:
        raise AssertionError

    with pytest.raises(EnclaveError):
        asyncio.run(Waiting(world).app({"type": "websocket"}, nothing, nothing))


def test_random_bodies_are_never_more_than_a_status(world: ReleaseWorld) -> None:
    waiting = Waiting(world)
    good = cbor.encode({"v": 1, "owner": world.owner.public, "request": world.request().encode()})
    for position in range(len(good)):
        body = bytearray(good)
        body[position] ^= 1 + os.urandom(1)[0] % 255
        answer = asyncio.run(waiting.post(REQUEST_PATH, bytes(body)))
        assert answer.status in {200, 400}
        if answer.status == 200:
            # Only a change of challenge or version is still a request, and its evidence is for that one.
            assert answer.headers["content-type"] == "application/confide-evidence"
