# SPDX-License-Identifier: Apache-2.0
"""What it takes to be given a secret, and what does not do."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import os
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from confide.attestation import binding
from confide.attestation.evidence import Evidence
from confide.attestation.key_material import KeyMaterial
from confide.attestation.verifier import Verifier
from confide.broker import app, releases
from confide.broker.limits import Rate
from confide.crypto import hpke
from confide.crypto.secret import Secret
from confide.crypto.signing import SigningKey
from confide.errors import BrokerError, ConfideError, NotAcceptable
from confide.keys import broker_messages as messages
from confide.keys import release
from confide.keys.broker_client import broker_audience
from confide.keys.release import ReleaseRequest, SecretName, Wrapped
from confide.keys.signed_policy import PutKey, SignedStatement, sign, verify
from confide.simulator.installation import Installation
from confide.simulator.snp import Chip
from support.broker_world import BROKER, TENANT, Enclave, InProcessAttester

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from confide.broker.holdings import Held
    from support.broker_world import World


async def refused(work: Awaitable[object]) -> str:
    """The code with which the broker refuses; the test fails if it does not."""
    with pytest.raises(ConfideError) as caught:
        await work
    return caught.value.code


async def ask(
    world: World, *names: str, owner: bytes | None = None, tenant: str = TENANT
) -> tuple[ReleaseRequest, bytes]:
    """A challenge, as an enclave gets it."""
    body = messages.encode(
        owner=owner or world.owner.public,
        tenant=tenant,
        secrets=[[name, 0] for name in sorted(names)],
    )
    response = await world.http.post("/v1/challenge", content=body)
    assert response.status_code == 200
    fields = messages.decode(response.content, "challenge")
    return ReleaseRequest.decode(fields.bytes_("request")), fields.bytes_("token")


async def present(
    world: World,
    request: ReleaseRequest,
    token: bytes,
    evidence: bytes,
    *,
    owner: bytes | None = None,
) -> tuple[int, bytes]:
    """Status and body of a release request."""
    body = messages.encode(
        owner=owner or world.owner.public, request=request.encode(), token=token, evidence=evidence
    )
    response = await world.http.post("/v1/release", content=body)
    return response.status_code, response.content


def code(answer: tuple[int, bytes]) -> str:
    return messages.read_error(*answer).code


def evidence_for(
    enclave: Enclave,
    nonce: bytes,
    *,
    purpose: str = "release",
    audience: str = broker_audience(BROKER),
    private: hpke.PrivateKey | None = None,
) -> bytes:
    """Genuine evidence over a key of one's own, for any purpose, audience and nonce."""
    material = KeyMaterial(
        purpose=purpose,
        audience=audience,
        service=enclave.identity,
        key=(private or hpke.PrivateKey.generate()).public,
        receipt_key=SigningKey.generate().public,
        epoch=1,
        lifetime=120,
        issued_at=0,
        at_most_once=True,
        content={},
        max_body=0,
        max_session=120,
    ).encode()
    attester = InProcessAttester(enclave.chip, enclave.manifest, debug=enclave.debug)
    answer = attester.attest(binding.report_data(binding.batch_root([binding.leaf(nonce, material)])))
    return Evidence(
        platform=answer.platform,
        devices=(),
        key_material=material,
        manifest=None,
        proof=binding.NonceProof(size=1, index=0, path=()),
        endorsements=answer.endorsements,
    ).encode()


def test_an_admitted_enclave_gets_exactly_what_the_owner_put(world: World) -> None:
    async def story() -> None:
        values = await world.stock("weights", "tokens", "other")
        lease = await world.fetch("weights", "tokens")
        assert {name.name: secret.reveal() for name, secret in lease.secrets.items()} == {
            name: values[name] for name in ("weights", "tokens")
        }
        assert lease.seconds == 3600
        records = (await world.client.audit(world.owner)).records
        assert [record.kind for record in records] == ["put", "put", "put", "policy", "release"]
        details = records[-1].details
        assert details["secrets"] == [["tokens", 1], ["weights", 1]]
        assert details["instance"] == world.enclave.instance
        assert details["simulated"] is True
        assert details["appraisal"] == hashlib.sha256(world.enclave.policy()).digest()

    asyncio.run(story())


def test_the_newest_version_that_the_policy_allows_is_released(world: World) -> None:
    async def story() -> None:
        for version in (1, 2, 3):
            await world.client.put(world.owner, SecretName("weights", version), Secret(b"v%d" % version))
        await world.client.set_policy(
            world.owner,
            tenant=TENANT,
            secrets=[SecretName("weights", 1), SecretName("weights", 2)],
            appraisal=world.enclave.policy(),
        )
        assert [s.version for s in (await world.fetch("weights")).secrets] == [2]
        await world.client.revoke(world.owner, secret=SecretName("weights", 2))
        assert [s.version for s in (await world.fetch("weights")).secrets] == [1]

    asyncio.run(story())


# -- KB-01, BND: what is not evidence for this


def changes(world: World, foreign: Chip) -> dict[str, Callable[[bytes], bytes]]:
    """Evidence for a nonce with one thing wrong with it."""
    good = world.enclave

    def changed(**fields: Any) -> Callable[[bytes], bytes]:
        return lambda nonce: evidence_for(dataclasses.replace(good, **fields), nonce)

    def flipped(nonce: bytes) -> bytes:
        evidence = Evidence.decode(evidence_for(good, nonce))
        data = bytearray(evidence.platform.data)
        data[0x50] ^= 1
        return dataclasses.replace(
            evidence, platform=dataclasses.replace(evidence.platform, data=bytes(data))
        ).encode()

    def other_key(nonce: bytes) -> bytes:
        mine, genuine = (Evidence.decode(evidence_for(good, nonce)) for _ in range(2))
        return dataclasses.replace(genuine, key_material=mine.key_material).encode()

    return {
        "nothing": lambda _: b"",
        "noise": lambda _: os.urandom(400),
        "another tenant": changed(tenant="other"),
        "another manifest": changed(manifest=b"a changed line"),
        "another kind of service": changed(kind="function"),
        "debug": changed(debug=True),
        "another root": changed(chip=foreign),
        "a flipped bit of the report": flipped,
        "another key than the attested one": other_key,
        "another nonce": lambda _: evidence_for(good, os.urandom(32)),
        "the purpose of a channel": lambda nonce: evidence_for(good, nonce, purpose="channel"),
        "the purpose of a member": lambda nonce: evidence_for(good, nonce, purpose="member"),
        "another audience": lambda nonce: evidence_for(good, nonce, audience="broker:other.example"),
        "no audience": lambda nonce: evidence_for(good, nonce, audience=""),
    }


CHANGES = (
    "nothing", "noise", "another tenant", "another manifest", "another kind of service", "debug", "another root",
    "a flipped bit of the report", "another key than the attested one", "another nonce", "the purpose of a channel",
    "the purpose of a member", "another audience", "no audience",
)  # fmt: skip


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Chip:
    """A chip under the root of another machine."""
    return Chip.power_on(Installation.open_or_create(tmp_path_factory.mktemp("foreign") / "device"))


@pytest.mark.parametrize("change", CHANGES)
def test_kb_01_evidence_with_one_thing_wrong_releases_nothing(
    world: World, foreign: Chip, change: str
) -> None:
    async def story() -> None:
        await world.stock("weights")
        request, token = await ask(world, "weights")
        status, _ = await present(world, request, token, evidence_for(world.enclave, request.nonce))
        assert status == 200  # The same, with nothing wrong.
        before = Counter(await world.kinds())
        request, token = await ask(world, "weights")
        answer = await present(world, request, token, changes(world, foreign)[change](request.nonce))
        assert answer[0] == 403
        assert code(answer) == "broker.denied"
        after = Counter(await world.kinds())
        assert after - before == Counter({"denied": 1})

    asyncio.run(story())


def test_kb_01_the_owner_finds_the_reason_that_the_requester_is_not_told(world: World) -> None:
    async def story() -> None:
        await world.stock("weights")
        other = dataclasses.replace(world.enclave, manifest=b"a changed line")
        assert await refused(world.fetch("weights", enclave=other)) == "broker.denied"
        record = (await world.client.audit(world.owner)).records[-1]
        assert record.kind == "denied"
        assert record.details == {"tenant": TENANT, "reason": "not_acceptable.measurement", "times": 1}

    asyncio.run(story())


def test_kb_10_bnd_08_the_answer_opens_only_with_the_attested_key(world: World) -> None:
    async def story() -> None:
        await world.stock("weights")
        request, token = await ask(world, "weights")
        mine, thief = world.enclave.receiver("weights"), world.enclave.receiver("weights")
        evidence = mine.answer(request)
        thief.answer(request)
        status, body = await present(world, request, token, evidence)
        assert status == 200
        answer = messages.decode(body, "release").bytes_("answer")
        with pytest.raises(BrokerError) as caught:
            thief.accept(answer)
        assert caught.value.code == "broker.integrity"
        wrapped = Wrapped.decode(answer)
        private = hpke.PrivateKey.generate()
        with pytest.raises(ConfideError):
            private.open(b"confide/1 release\x00" + wrapped.kid + wrapped.nonce, wrapped.wrap)
        assert [s.name for s in mine.accept(answer).secrets] == ["weights"]

    asyncio.run(story())


@pytest.mark.parametrize(
    "lie", ["another value", "no origin", "another's signature", "another salt", "not a pair"]
)
def test_kb_10_not_even_a_broker_gives_an_enclave_a_secret_of_its_own_choice(
    world: World, monkeypatch: pytest.MonkeyPatch, lie: str
) -> None:
    decide = releases.Releaser._decide
    wrap = release.wrap

    def another_value(admission: Any, secrets: Any, **options: Any) -> Any:
        return wrap(admission, {name: Secret(b"the broker's own choice") for name in secrets}, **options)

    def lying(self: Any, *arguments: Any) -> Any:
        granted = decide(self, *arguments)
        ((signed, salt),) = granted.origins
        forged = sign(dataclasses.replace(_statement(signed), owner=world.stranger.public), world.stranger)
        origins: dict[str, Any] = {
            "no origin": (),
            "another's signature": ((forged, salt),),
            "another salt": ((signed, bytes(32)),),
            "not a pair": ((signed, b""),),
        }
        return dataclasses.replace(granted, origins=origins[lie])

    async def story() -> None:
        await world.stock("weights")
        await world.fetch("weights")
        if lie == "another value":
            monkeypatch.setattr(releases, "wrap", another_value)
        else:
            monkeypatch.setattr(releases.Releaser, "_decide", lying)
        wanted = "malformed.non_canonical" if lie == "not a pair" else "broker.integrity"
        assert await refused(world.fetch("weights")) == wanted

    asyncio.run(story())


def _statement(signed: SignedStatement) -> PutKey:
    return verify(signed, PutKey, store=None)


def test_kb_05_a_refusal_is_written_down_only_after_it_was_answered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fsync in front of the answer, only where there is an owner to tell, would tell that there is one."""
    events: list[str] = []
    flush = world.app.releaser.flush_denials

    def watched() -> None:
        events.append("flush")
        flush()

    monkeypatch.setattr(world.app.releaser, "flush_denials", watched)

    async def story() -> None:
        await world.stock("weights")
        request, token = await ask(world, "weights")
        body = messages.encode(
            owner=world.owner.public, request=request.encode(), token=token, evidence=b"noise"
        )

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def keep(message: Any) -> None:
            events.append(message["type"])

        await world.app({"type": "http", "method": "POST", "path": "/v1/release"}, receive, keep)
        events.append("returned")
        while "flush" not in events:  # noqa: ASYNC110 - the other thread says when
            await asyncio.sleep(0.001)
        assert events == ["http.response.start", "http.response.body", "returned", "flush"]
        assert (await world.kinds())[-1] == "denied"

    asyncio.run(story())


# -- challenges


def test_bnd_02_one_challenge_presented_many_times_at_once_is_good_once(world: World) -> None:
    async def story() -> None:
        await world.stock("weights")
        request, token = await ask(world, "weights")
        evidence = evidence_for(world.enclave, request.nonce)
        answers = await asyncio.gather(*(present(world, request, token, evidence) for _ in range(30)))
        assert Counter(status for status, _ in answers)[200] == 1
        assert {code(answer) for answer in answers if answer[0] != 200} == {"not_acceptable.nonce_reused"}
        assert Counter(await world.kinds())["release"] == 1

    asyncio.run(story())


def test_bnd_02_a_challenge_is_spent_by_bad_evidence_too(world: World) -> None:
    async def story() -> None:
        await world.stock("weights")
        request, token = await ask(world, "weights")
        assert code(await present(world, request, token, b"noise")) == "broker.denied"
        good = evidence_for(world.enclave, request.nonce)
        assert code(await present(world, request, token, good)) == "not_acceptable.nonce_reused"

    asyncio.run(story())


def test_bnd_03_an_old_challenge_is_stale_and_a_fresh_one_is_not(world: World) -> None:
    async def story() -> None:
        await world.stock("weights", appraisal=world.enclave.policy(max_age="1h"))
        for age, wanted in ((59.0, 200), (61.0, 400)):
            request, token = await ask(world, "weights")
            evidence = evidence_for(world.enclave, request.nonce)
            world.monotonic.now += age
            answer = await present(world, request, token, evidence)
            assert answer[0] == wanted
        assert code(answer) == "not_acceptable.stale"

    asyncio.run(story())


def test_bnd_03_the_policy_may_ask_for_younger_evidence_than_the_broker(world: World) -> None:
    async def story() -> None:
        await world.stock("weights", appraisal=world.enclave.policy(max_age="5s"))
        for age, wanted in ((4.0, 200), (6.0, 403)):
            request, token = await ask(world, "weights")
            evidence = evidence_for(world.enclave, request.nonce)
            world.monotonic.now += age
            assert (await present(world, request, token, evidence))[0] == wanted

    asyncio.run(story())


def test_bnd_03_a_challenge_is_good_for_its_broker_owner_tenant_and_names_only(
    make_world: Callable[..., World],
) -> None:
    world, other = make_world(), make_world()

    async def story() -> None:
        await world.stock("weights", "tokens")
        second = SigningKey.generate()
        request, token = await ask(world, "weights")
        elsewhere, foreign_token = await ask(other, "weights", owner=world.owner.public)
        attempts = {
            "another broker's": (elsewhere, foreign_token, world.owner.public),
            "another token": (request, os.urandom(40), world.owner.public),
            "another owner": (request, token, second.public),
            "another tenant": (dataclasses.replace(request, tenant="other"), token, world.owner.public),
            "another name": (
                dataclasses.replace(request, secrets=(SecretName("tokens", 1),)),
                token,
                world.owner.public,
            ),
            "another version": (
                dataclasses.replace(request, secrets=(SecretName("weights", 2),)),
                token,
                world.owner.public,
            ),
            "an own challenge": (
                dataclasses.replace(request, challenge=bytes(32)),
                token,
                world.owner.public,
            ),
        }
        for what, (changed, ticket, owner) in attempts.items():
            evidence = evidence_for(world.enclave, changed.nonce)
            answer = await present(world, changed, ticket, evidence, owner=owner)
            assert code(answer) == "not_acceptable.nonce_mismatch", what
        evidence = evidence_for(world.enclave, request.nonce)
        assert (await present(world, request, token, evidence))[0] == 200

    asyncio.run(story())


def test_bnd_03_challenges_are_32_bytes_and_do_not_repeat(world: World) -> None:
    seen = set()
    bits = Counter[int]()
    for _ in range(4_000):
        challenge, _ = world.app._challenges.issue("release", b"o" * 32, TENANT, [["weights", 1]])
        seen.add(challenge)
        bits[sum(byte.bit_count() for byte in challenge)] += 1
    assert len(seen) == 4_000
    assert {len(challenge) for challenge in seen} == {32}
    mean = sum(count * number for count, number in bits.items()) / 4_000
    assert 127 < mean < 129  # The mean of 4000 sums of 256 fair bits is within 1 of 128, but once in 10**14.


def test_bnd_04_challenges_take_no_memory_and_answered_ones_a_bounded_amount(world: World) -> None:
    challenges = world.app._challenges
    for _ in range(20_000):
        challenges.issue("release", b"o" * 32, TENANT, [])
    assert len(challenges._presented) == 0
    challenges._limit = 50
    for _ in range(50):
        challenges.present(*challenges.issue("x"), "x")
    with pytest.raises(BrokerError) as caught:
        challenges.present(*challenges.issue("x"), "x")
    assert caught.value.code == "broker.rate_limited"
    world.monotonic.now += 61
    challenges.present(*challenges.issue("x"), "x")
    assert len(challenges._presented) == 1


# -- who is told what


def test_kb_05_refusals_do_not_tell_what_exists(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    verified: list[str] = []
    verify = Verifier.verify

    def counted(self: Verifier, *arguments: Any, **options: Any) -> Any:
        verified.append("one")
        return verify(self, *arguments, **options)

    monkeypatch.setattr(Verifier, "verify", counted)

    async def story() -> None:
        await world.stock("weights")
        await world.client.put(world.owner, SecretName("unlisted", 1), Secret(b"x"))
        wrong = dataclasses.replace(world.enclave, manifest=b"a changed line")
        somebody = SigningKey.generate().public
        cases = {
            "there, but not for this enclave": (wrong, "weights", world.owner.public, TENANT),
            "no such name": (world.enclave, "absent", world.owner.public, TENANT),
            "there, but in no policy": (world.enclave, "unlisted", world.owner.public, TENANT),
            "no such tenant": (
                dataclasses.replace(world.enclave, tenant="nobody"),
                "weights",
                world.owner.public,
                "nobody",
            ),
            "no such owner": (world.enclave, "weights", somebody, TENANT),
        }
        answers, sizes, work = {}, {}, {}
        for what, (enclave, name, owner, tenant) in cases.items():
            request, token = await ask(world, name, owner=owner, tenant=tenant)
            sizes[what] = len(request.encode()) - len(name) - len(tenant)
            verified.clear()
            answers[what] = await present(
                world, request, token, evidence_for(enclave, request.nonce), owner=owner
            )
            work[what] = len(verified)
        assert set(answers.values()) == {answers["no such name"]}
        assert answers["no such name"][0] == 403
        assert set(sizes.values()) == {sizes["no such name"]}
        # Verifying evidence is what takes the time, and it is done once in each case.
        assert set(work.values()) == {1}

    asyncio.run(story())


def test_kb_05_the_version_that_is_made_up_for_what_is_absent_stays_the_same(world: World) -> None:
    async def story() -> None:
        versions: dict[str, set[int]] = {}
        for _ in range(3):
            for name in (f"absent-{n}" for n in range(40)):
                request, _ = await ask(world, name)
                versions.setdefault(name, set()).add(request.secrets[0].version)
        assert all(len(found) == 1 for found in versions.values())
        assert len({min(found) for found in versions.values()}) > 1

    asyncio.run(story())


def test_kb_16_nobody_widens_an_owners_policy(make_world: Callable[..., World]) -> None:
    first, second = SigningKey.generate(), SigningKey.generate()
    world = make_world(owners=frozenset({first.public, second.public}))
    mallory = dataclasses.replace(world.enclave, manifest=b"mallory's service")

    async def story() -> None:
        name = SecretName("weights", 1)
        await world.client.put(first, name, Secret(b"first"))
        await world.client.set_policy(first, tenant=TENANT, secrets=[name], appraisal=world.enclave.policy())
        # Another owner names the same tenant and secret, and admits an enclave of his own.
        await world.client.set_policy(second, tenant=TENANT, secrets=[name], appraisal=mallory.policy())
        assert await refused(world.fetch("weights", enclave=mallory, owner=first.public)) == "broker.denied"
        assert await refused(world.fetch("weights", enclave=mallory, owner=second.public)) == "broker.denied"
        await world.client.put(second, name, Secret(b"second"))
        got = await world.fetch("weights", enclave=mallory, owner=second.public)
        assert [secret.reveal() for secret in got.secrets.values()] == [b"second"]
        got = await world.fetch("weights", owner=first.public)
        assert [secret.reveal() for secret in got.secrets.values()] == [b"first"]
        # The requester cannot bring a policy of its own: there is no field for one.
        request, token = await ask(world, "weights", owner=first.public)
        body = messages.encode(
            owner=first.public,
            request=request.encode(),
            token=token,
            evidence=evidence_for(mallory, request.nonce),
            appraisal=mallory.policy(),
        )
        response = await world.http.post("/v1/release", content=body)
        assert code((response.status_code, response.content)) == "malformed.non_canonical"

    asyncio.run(story())


# -- policies at the moment of use


@pytest.mark.parametrize(
    "flip", ["policy revoked", "key revoked", "measurement revoked", "manifest revoked", "policy replaced"]
)
def test_bnd_16_kb_06_what_changes_between_verifying_and_deciding_counts(
    world: World, monkeypatch: pytest.MonkeyPatch, flip: str
) -> None:
    measurement = InProcessAttester(world.chip, world.enclave.manifest)
    flips: list[Callable[[], Any]] = []
    admit = release.admit

    def and_then_flip(*arguments: Any, **options: Any) -> Any:
        admission = admit(*arguments, **options)
        if flips:
            flips.pop()()
        return admission

    monkeypatch.setattr(releases, "admit", and_then_flip)

    async def story() -> None:
        await world.stock("weights")
        await world.fetch("weights")
        client, owner = world.client, world.owner
        report = Evidence.decode(evidence_for(world.enclave, bytes(32))).platform.data
        changes: dict[str, Callable[[], Awaitable[object]]] = {
            "policy revoked": lambda: client.revoke(owner, tenant=TENANT),
            "key revoked": lambda: client.revoke(owner, secret=SecretName("weights", 1)),
            "measurement revoked": lambda: client.revoke(owner, measurement=report[0x90:0xC0]),
            "manifest revoked": lambda: client.revoke(owner, manifest=world.enclave.identity.manifest),
            "policy replaced": lambda: world.set_policy(["weights"], lease_seconds=60),
        }
        loop = asyncio.get_running_loop()
        flips.append(lambda: asyncio.run_coroutine_threadsafe(_await(changes[flip]()), loop).result(10))
        assert await refused(world.fetch("weights")) == "broker.denied"
        assert not flips
        kinds = await world.kinds()
        assert kinds[:3] == ["put", "policy", "release"]
        assert Counter(kinds)["release"] == 1
        if flip == "policy replaced":
            assert (await world.fetch("weights")).seconds == 60
        else:
            assert await refused(world.fetch("weights")) == "broker.denied"

    assert measurement is not None
    asyncio.run(story())


async def _await(work: Awaitable[object]) -> object:
    return await work


def test_kb_06_no_release_after_a_revocation_among_a_hundred_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapped_at: list[int] = []
    wrap = release.wrap

    def watched(*arguments: Any, **options: Any) -> Any:
        # Nothing is committed between the record of a release and its wrap.
        wrapped_at.append(world.store.length)
        return wrap(*arguments, **options)

    monkeypatch.setattr(releases, "wrap", watched)
    monkeypatch.setattr(app, "MAX_WAITING", 256)  # So that all of them contend for the store.

    async def story() -> None:
        await world.stock("weights")
        enough = asyncio.Event()
        done, after = [], []

        async def one() -> str:
            try:
                await world.fetch("weights")
            except ConfideError as error:
                return error.code
            done.append("released")
            if len(done) == 20:
                enough.set()
            return "released"

        async def flip() -> None:
            await enough.wait()
            await world.client.revoke(world.owner, tenant=TENANT)
            after.extend(await asyncio.gather(*(one() for _ in range(10))))

        results = await asyncio.gather(*(one() for _ in range(100)), flip())
        records = (await world.client.audit(world.owner)).records
        kinds = [record.kind for record in records]
        revoked_at = kinds.index("revoke")
        assert "release" not in kinds[revoked_at:]
        assert set(after) == {"broker.denied"}
        released = [record for record in records if record.kind == "release"]
        assert set(results) == {"released", "broker.denied", None}
        # Each secret that went out is in the log, and each record was the newest when its secret was wrapped.
        assert Counter(results)["released"] == len(released) == len(wrapped_at)
        assert sorted(wrapped_at) == [record.seq + 1 for record in released]

    asyncio.run(story())


def test_kb_06_policies_flip_back_and_forth_and_only_admitting_ones_release(world: World) -> None:
    other = dataclasses.replace(world.enclave, manifest=b"somebody else")

    async def story() -> None:
        await world.stock("weights")

        async def flip() -> None:
            for number in range(12):
                admitted = other if number % 2 == 0 else world.enclave
                await world.set_policy(["weights"], appraisal=admitted.policy())

        async def many() -> None:
            for _ in range(15):
                try:
                    await world.fetch("weights")
                except ConfideError as error:
                    assert error.code in {"broker.denied", "broker.rate_limited"}  # noqa: PT017

        await asyncio.gather(flip(), *(many() for _ in range(6)))
        records = (await world.client.audit(world.owner)).records
        policy = None
        for record in records:
            if record.kind == "policy":
                policy = record.details["statement"]
            elif record.kind == "release":
                assert record.details["policy"] == policy
                assert record.details["manifest"] == world.enclave.identity.manifest

    asyncio.run(story())


@pytest.mark.parametrize("kind", ["error", "unexpected", "no result"])
def test_kb_08_a_verification_that_fails_in_any_way_denies(
    world: World, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        if kind == "error":
            raise NotAcceptable("measurement", "injected")
        if kind == "unexpected":
            raise RuntimeError("injected")
        return None

    async def story() -> None:
        await world.stock("weights")
        await world.fetch("weights")
        monkeypatch.setattr(Verifier, "verify", broken)
        found = await refused(world.fetch("weights"))
        assert found == ("broker.denied" if kind == "error" else "enclave.bad_state")
        assert Counter(await world.kinds())["release"] == 1

    asyncio.run(story())


def test_kb_08_a_stored_policy_that_no_longer_reads_denies(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        await world.stock("weights")

        def unreadable(_: object) -> Any:
            raise NotAcceptable("empty_policy", "injected")

        from confide.keys.signed_policy import SetPolicy

        monkeypatch.setattr(SetPolicy, "appraisal_policy", property(unreadable))
        assert await refused(world.fetch("weights")) == "broker.denied"

    asyncio.run(story())


POLICIES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not_acceptable.empty_policy"),
    "not TOML": (b"]", "configuration.invalid"),
    "no measurement": (b'tees = ["snp"]\n', "not_acceptable.empty_policy"),
    "no service": (
        b'tees = ["snp"]\n[reference.snp]\nmeasurement = ["' + b"11" * 48 + b'"]\n',
        "configuration.invalid",
    ),
    "any measurement": (
        b'tees = ["snp"]\n[service]\nkind = "model"\nid = "acme"\nmanifest = ["'
        + b"11" * 32
        + b'"]\n[reference.snp]\nmeasurement = "ANY"\n',
        "not_acceptable.unmeasured_runtime",
    ),
    "another tenant": (
        b'tees = ["snp"]\n[service]\nkind = "model"\nid = "other"\nmanifest = ["'
        + b"11" * 32
        + b'"]\n[reference.snp]\nmeasurement = ["'
        + b"11" * 48
        + b'"]\n',
        "configuration.invalid",
    ),
    "an unknown key": (
        b'tees = ["snp"]\nmr_enclav = 1\n[service]\nkind = "model"\nid = "acme"\nmanifest = ["'
        + b"11" * 32
        + b'"]\n[reference.snp]\nmeasurement = ["'
        + b"11" * 48
        + b'"]\n',
        "configuration.invalid",
    ),
}


@pytest.mark.parametrize(("text", "wanted"), POLICIES.values(), ids=POLICIES.keys())
def test_kb_08_a_policy_that_pins_nothing_or_does_not_read_does_not_get_in(
    world: World, text: bytes, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from confide.keys.signed_policy import SetPolicy

    async def story() -> None:
        await world.stock("weights")
        assert await refused(world.set_policy(["weights"], appraisal=text)) == wanted
        # The owner's own client has refused; the broker does so as well.
        real = SetPolicy.appraisal_policy
        skipped = [True]

        def first_unchecked(self: SetPolicy) -> Any:
            if skipped:
                return skipped.pop()
            return real.__get__(self, SetPolicy)

        monkeypatch.setattr(SetPolicy, "appraisal_policy", property(first_unchecked))
        assert await refused(world.set_policy(["weights"], appraisal=text)) == wanted
        assert not skipped
        monkeypatch.undo()
        assert await world.kinds() == ["put", "policy"]
        await world.fetch("weights")

    asyncio.run(story())


# -- limits


def test_kb_11_an_attested_enclave_that_asks_without_end_is_stopped_and_recorded(
    make_world: Callable[..., World],
) -> None:
    world = make_world(release_rate=Rate(5, 1))

    async def story() -> None:
        await world.stock("weights")
        outcomes = []
        for _ in range(20):
            try:
                await world.fetch("weights")
                outcomes.append("released")
            except BrokerError as error:
                outcomes.append(error.code)
        assert outcomes == ["released"] * 5 + ["broker.rate_limited"] * 15
        records = (await world.client.audit(world.owner)).records
        limited = [record for record in records if record.kind == "limited"]
        assert sum(record.details["times"] for record in limited) == 15
        # Another instance of the same service is not made to wait for it.
        other = dataclasses.replace(world.enclave, instance=os.urandom(16))
        await world.fetch("weights", enclave=other)
        world.monotonic.now += 60
        await world.fetch("weights")

    asyncio.run(story())


def test_kb_11_guessing_names_releases_nothing_and_is_recorded(world: World) -> None:
    async def story() -> None:
        await world.stock("weights")
        for number in range(20):
            assert await refused(world.fetch(f"weights{number}")) == "broker.denied"
        records = (await world.client.audit(world.owner)).records
        assert sum(r.details["times"] for r in records if r.kind == "denied") == 20
        assert "release" not in {record.kind for record in records}

    asyncio.run(story())


def test_kb_19_evidence_is_not_looked_at_without_a_challenge_and_not_beyond_the_budget(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(evidence_rate=Rate(3, 1))
    verified: list[object] = []
    verify = Verifier.verify

    def counted(self: Verifier, *arguments: Any, **options: Any) -> Any:
        verified.append(arguments)
        return verify(self, *arguments, **options)

    monkeypatch.setattr(Verifier, "verify", counted)

    async def story() -> None:
        await world.stock("weights")
        request, token = await ask(world, "weights")
        too_large = await present(world, request, token, bytes(256 * 1024 + 1))
        assert code(too_large) == "malformed.limit_exceeded"
        unasked = await present(world, request, bytes(40), evidence_for(world.enclave, request.nonce))
        assert code(unasked) == "not_acceptable.nonce_mismatch"
        assert verified == []
        codes = []
        for _ in range(5):
            request, token = await ask(world, "weights")
            codes.append(code(await present(world, request, token, b"noise")))
        assert codes == ["broker.denied"] * 2 + ["broker.rate_limited"] * 3
        assert len(verified) == 2
        world.monotonic.now += 60
        await world.fetch("weights")

    asyncio.run(story())


# -- time, restarts, instances


@pytest.mark.parametrize("hours", [-24, -1, 1, 24])
def test_kb_13_the_hosts_clock_of_day_moves_and_leases_and_challenges_do_not(
    world: World, hours: int
) -> None:
    async def story() -> None:
        await world.stock("weights")
        world.now += timedelta(hours=hours)
        assert (await world.fetch("weights")).seconds == 3600
        records = (await world.client.audit(world.owner)).records
        assert [record.at for record in records] == sorted(record.at for record in records)

    asyncio.run(story())


def test_kb_13_the_clock_cannot_be_turned_back_before_what_the_ledger_has_seen(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    times: list[datetime] = []
    admit = release.admit

    def watched(*arguments: Any, **options: Any) -> Any:
        times.append(options["at"])
        return admit(*arguments, **options)

    monkeypatch.setattr(releases, "admit", watched)

    async def story() -> None:
        await world.stock("weights")
        world.now = datetime(2001, 1, 1, tzinfo=UTC)
        await world.fetch("weights")
        assert times == [datetime(2026, 6, 1, tzinfo=UTC)]

    asyncio.run(story())


def test_kb_12_after_a_restart_nothing_is_released_and_everything_says_unanchored(world: World) -> None:
    async def story() -> None:
        await world.stock("weights")
        await world.fetch("weights")
        assert (await world.client.status()).anchored
        request, token = await ask(world, "weights")
        world.restart()
        status = await world.client.status()
        assert (status.anchored, status.releasing) == (False, False)
        assert await refused(world.fetch("weights")) == "broker.unanchored"
        evidence = evidence_for(world.enclave, request.nonce)
        assert code(await present(world, request, token, evidence)) == "broker.unanchored"
        # Owners can still speak: above all, revoke.
        await world.client.revoke(world.owner, secret=SecretName("weights", 1))
        records = (await world.client.audit(world.owner)).records
        assert [record.kind for record in records] == ["put", "policy", "release", "started", "revoke"]
        assert records[3].details == {"anchored": False, "releasing": False}

    asyncio.run(story())


def test_kb_12_what_was_counted_before_a_restart_counts_after_it(make_world: Callable[..., World]) -> None:
    world = make_world(allow_unanchored=True)

    async def story() -> None:
        await world.stock("weights", max_instances=1)
        await world.fetch("weights")
        await world.fetch("weights")  # The same instance renews.
        other = dataclasses.replace(world.enclave, instance=os.urandom(16))
        assert await refused(world.fetch("weights", enclave=other)) == "broker.denied"
        request, token = await ask(world, "weights")
        world.restart()
        status = await world.client.status()
        assert (status.anchored, status.releasing) == (False, True)
        # A challenge from before the restart is nobody's.
        evidence = evidence_for(world.enclave, request.nonce)
        assert code(await present(world, request, token, evidence)) == "not_acceptable.nonce_mismatch"
        assert await refused(world.fetch("weights", enclave=other)) == "broker.denied"
        await world.fetch("weights")
        # A new statement of the owner counts anew.
        await world.set_policy(["weights"], max_instances=1)
        await world.fetch("weights", enclave=other)

    asyncio.run(story())


def test_a_revoked_version_is_gone_for_good(world: World) -> None:
    async def story() -> None:
        await world.stock("weights")
        await world.client.revoke(world.owner, secret=SecretName("weights", 1))
        assert await refused(world.fetch("weights")) == "broker.denied"
        again = world.client.put(world.owner, SecretName("weights", 1), Secret(b"again"))
        assert await refused(again) == "broker.conflict"
        listed = await world.client.list(world.owner)
        assert listed["secrets"] == [{"name": "weights", "version": 1, "revoked": True}]

    asyncio.run(story())


def test_simulated_evidence_needs_both_consents_of_the_measured_configuration(
    make_world: Callable[..., World],
) -> None:
    async def story(world: World) -> None:
        await world.stock("weights")
        assert await refused(world.fetch("weights")) == "broker.denied"

    for settings in ({"anchors": ()}, {"allow_simulated": False}):
        asyncio.run(story(make_world(**settings)))


def test_kb_14_an_integrity_failure_is_not_hidden_behind_a_denial(world: World) -> None:
    import sqlite3

    async def story() -> None:
        await world.stock("weights")
        with sqlite3.connect(world.path) as connection:
            connection.execute("UPDATE policies SET sealed = zeroblob(length(sealed))")
        connection.close()
        assert await refused(world.fetch("weights")) == "broker.integrity"
        assert len(world.store.records(0, 10)) == 2

    asyncio.run(story())


def test_kb_14_a_record_that_cannot_be_written_stops_the_release(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what had been read for it is erased."""
    read: list[Secret] = []
    secret_of = world.app.holdings.secret

    def watched(*arguments: Any) -> Held | None:
        held = secret_of(*arguments)
        read.extend([held.secret] if held is not None else [])
        return held

    monkeypatch.setattr(world.app.holdings, "secret", watched)

    async def story() -> None:
        await world.stock("weights")
        connection = world.store._connection
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
        outcomes = Counter[str]()
        for _ in range(40):
            try:
                await world.fetch("weights")
                outcomes["released"] += 1
            except ConfideError as error:
                outcomes[error.code] += 1
        assert outcomes["sealing.storage_full"] > 0
        assert set(outcomes) <= {"released", "sealing.storage_full"}
        connection.execute("PRAGMA max_page_count = 1000000")
        assert len(read) == 40
        for secret in read:
            with pytest.raises(ConfideError):
                secret.reveal()
        assert Counter(await world.kinds())["release"] == outcomes["released"]

    assert tmp_path.exists()
    asyncio.run(story())
