# SPDX-License-Identifier: Apache-2.0
"""The release of secrets: what an operator in the middle may try, each step from a passing case, each with its reason."""

from __future__ import annotations

import dataclasses
import functools
import os
import pickle  # noqa: TID251 - to show that it is refused
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from confide.attestation.evidence import Evidence
from confide.attestation.key_material import KeyMaterial, kid
from confide.crypto import hpke
from confide.crypto.secret import Secret
from confide.crypto.signing import SigningKey, verify
from confide.errors import (
    AttestationError,
    BrokerError,
    ConfideError,
    ConfigurationError,
    MalformedError,
    NotAcceptable,
    NotGenuine,
)
from confide.keys.challenges import Challenges
from confide.keys.identity import Identity
from confide.keys.receiver import LIFETIME, MAX_PENDING
from confide.keys.release import (
    Admission,
    ReleaseRequest,
    SecretName,
    Wrapped,
    admit,
    hpke_info,
    read_plaintext,
    wrap,
)
from confide.wire import cbor
from support.release_world import CANARY, MANIFEST, Clock, ReleaseWorld

if TYPE_CHECKING:
    from collections.abc import Callable


def code(attempt: Callable[[], object]) -> str:
    with pytest.raises(ConfideError) as error:
        attempt()
    return error.value.code


def codes(attempt: Callable[[], object]) -> set[str]:
    with pytest.raises(AttestationError) as error:
        attempt()
    return {reason.code for reason in error.value.reasons}


def test_a_secret_reaches_the_admitted_enclave_and_the_owner_knows(world: ReleaseWorld) -> None:
    receiver = world.receiver()
    request = world.request(SecretName("token", 7), world.name)
    evidence = receiver.answer(request)
    secrets = {**world.secrets, SecretName("token", 7): Secret(b"t")}
    answer = world.release(evidence, request, secrets=secrets, lease=60)
    released = receiver.accept(answer.encode())
    assert {name: secret.reveal() for name, secret in released.secrets.items()} == {
        world.name: CANARY, SecretName("token", 7): b"t",
    }  # fmt: skip
    assert released.lease == 60
    material = KeyMaterial.decode(Evidence.decode(evidence).key_material or b"")
    verify(material.receipt_key, released.acknowledgement, answer.accepted_message)


def test_kb_10_an_answer_opened_by_another_enclave_is_refused(world: ReleaseWorld) -> None:
    """Another instance of the same service, waiting for the same request."""
    receiver, thief = world.receiver(), world.receiver()
    request = world.request()
    answer = world.release(receiver.answer(request), request)
    thief.answer(request)
    assert code(lambda: thief.accept(answer)) == "broker.integrity"
    # With the kid exchanged, the owner's signature is wrong; where there is none, HPKE's info is.
    other = kid(Evidence.decode(thief.answer(world.request())).key_material or b"")
    assert other != answer.kid
    assert receiver.accept(answer).secrets


def test_kb_10_an_unsigned_answer_under_another_kid_does_not_open(world: ReleaseWorld) -> None:
    receiver, thief = world.receiver(owner_public=None), world.receiver(owner_public=None)
    request = world.request()
    answer = world.release(receiver.answer(request), request, signer=None)
    stolen = kid(Evidence.decode(thief.answer(request)).key_material or b"")
    assert code(lambda: thief.accept(dataclasses.replace(answer, kid=stolen))) == "broker.integrity"
    assert receiver.accept(answer).secrets


def test_bnd_01_old_evidence_does_not_answer_a_new_challenge(world: ReleaseWorld) -> None:
    receiver = world.receiver()
    old = receiver.answer(world.request())
    assert "not_acceptable.nonce_mismatch" in codes(lambda: world.release(old, world.request()))


def test_bnd_02_a_challenge_is_decided_once_also_100_times_at_once(world: ReleaseWorld) -> None:
    challenges = Challenges(monotonic=world.clock)
    request = challenges.issue("acme", [world.name])
    outcomes: list[str] = []
    barrier = threading.Barrier(100)

    def present() -> None:
        barrier.wait(20)
        try:
            assert challenges.present(request.challenge).request == request
            outcomes.append("accepted")
        except NotAcceptable as error:
            outcomes.append(error.code)

    threads = [threading.Thread(target=present) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["accepted"] + ["not_acceptable.nonce_reused"] * 99


def test_bnd_02_one_admission_gives_one_answer(world: ReleaseWorld) -> None:
    request = world.request()
    admission = admit(
        world.receiver().answer(request), request,
        verifier=world.verifier(), audience=world.owner.audience, at=world.clock.wall(), age=timedelta(0),
    )  # fmt: skip
    wrap(admission, world.secrets, signer=world.owner.key)
    assert code(lambda: wrap(admission, world.secrets)) == "not_acceptable.nonce_reused"


def test_bnd_02_an_answer_is_accepted_once_also_at_once(world: ReleaseWorld) -> None:
    receiver = world.receiver()
    request = world.request()
    answer = world.release(receiver.answer(request), request)
    outcomes: list[str] = []
    barrier = threading.Barrier(16)

    def accept() -> None:
        barrier.wait(20)
        try:
            receiver.accept(answer)
            outcomes.append("accepted")
        except BrokerError as error:
            outcomes.append(error.code)

    threads = [threading.Thread(target=accept) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["accepted"] + ["broker.not_found"] * 15
    assert code(lambda: receiver.accept(answer)) == "broker.not_found"


def test_bnd_03_a_challenge_that_is_old_or_not_ours_is_refused(world: ReleaseWorld) -> None:
    ours, theirs = Challenges(monotonic=world.clock), Challenges(monotonic=world.clock)
    request = ours.issue("acme", [world.name])
    assert len({ours.issue("acme", [world.name]).challenge for _ in range(100)}) == 100
    assert code(lambda: theirs.present(request.challenge)) == "not_acceptable.nonce_mismatch"
    assert code(lambda: ours.present(bytes(32))) == "not_acceptable.nonce_mismatch"
    world.clock.now += 121
    assert code(lambda: ours.present(request.challenge)) == "not_acceptable.stale"
    # Spent by the attempt, though it failed.
    assert code(lambda: ours.present(request.challenge)) == "not_acceptable.nonce_reused"


def test_bnd_03_the_challenge_of_one_tenant_is_no_other_tenants(world: ReleaseWorld) -> None:
    """The same 32 bytes for another tenant, name or version are another nonce."""
    request = world.request()
    evidence = world.receiver().answer(request)
    for other in (
        dataclasses.replace(request, secrets=(SecretName("weights", 3),)),
        dataclasses.replace(request, secrets=(SecretName("token", 2),)),
        dataclasses.replace(request, secrets=(SecretName("token", 1), world.name)),
    ):
        secrets = {name: Secret(CANARY) for name in other.secrets}
        found = codes(lambda o=other, s=secrets: world.release(evidence, o, secrets=s))  # type: ignore[misc]
        assert "not_acceptable.nonce_mismatch" in found
    assert world.release(evidence, request)


def test_bnd_04_a_flood_of_challenges_is_bounded_and_forgets_no_honest_one() -> None:
    clock = Clock()
    challenges = Challenges(monotonic=clock, limit=100)
    honest = challenges.issue("acme", [SecretName("weights", 1)])
    for _ in range(99):
        challenges.issue("acme", [SecretName("weights", 1)])
    for _ in range(1000):
        assert code(lambda: challenges.issue("acme", [SecretName("weights", 1)])) == "broker.rate_limited"
    assert challenges.present(honest.challenge).request == honest
    clock.now += 121
    assert challenges.issue("acme", [SecretName("weights", 1)])  # The old ones have made room.


_NAMES = st.from_regex(r"[a-z0-9]{1,4}", fullmatch=True)
_REQUESTS = st.builds(
    ReleaseRequest.new,
    st.text("ab\0", min_size=1, max_size=4),
    st.lists(
        st.builds(SecretName, _NAMES, st.integers(1, 300)), min_size=1, max_size=3, unique_by=lambda s: s.name
    ),
    st.binary(min_size=32, max_size=32).map(lambda b: b[:1] * 32),
)


@settings(max_examples=300)
@given(first=_REQUESTS, second=_REQUESTS)
def test_bnd_07_no_two_requests_have_the_same_nonce(first: ReleaseRequest, second: ReleaseRequest) -> None:
    assert (first.nonce == second.nonce) == (first == second)


def test_bnd_07_text_moved_across_a_border_changes_the_nonce() -> None:
    challenge = bytes(32)
    one = ReleaseRequest("ab", (SecretName("c", 1),), challenge)
    two = ReleaseRequest("a", (SecretName("bc", 1),), challenge)
    assert one.nonce != two.nonce


def test_bnd_08_a_relay_with_a_key_of_its_own_gets_nothing(world: ReleaseWorld) -> None:
    """Genuine evidence of the enclave, with the attacker's key put into the key material."""
    request = world.request()
    evidence = Evidence.decode(world.receiver().answer(request))
    mine = hpke.PrivateKey.generate()
    material = KeyMaterial.decode(evidence.key_material or b"")
    forged = dataclasses.replace(
        evidence, key_material=dataclasses.replace(material, key=mine.public).encode()
    )
    found = codes(lambda: world.release(forged.encode(), request))
    assert "not_acceptable.channel" in found
    assert world.release(evidence.encode(), request)


def test_bnd_08_evidence_for_another_releaser_is_not_for_this_one(world: ReleaseWorld) -> None:
    """Mallory has the enclave attest a key for her, and hands that evidence to the owner."""
    mallory = Identity("mallory", SigningKey.generate())
    receiver = world.receiver(owner=mallory)
    request = world.request()
    assert "not_acceptable.identity" in codes(lambda: world.release(receiver.answer(request), request))


def test_bnd_10_an_enclave_of_another_tenant_is_refused(world: ReleaseWorld) -> None:
    """The same code on the same chip; only the measured id differs."""
    receiver = world.receiver(tenant="rival")
    request = world.request()
    assert code(lambda: receiver.answer(request)) == "broker.denied"
    evidence = receiver.answer(dataclasses.replace(request, tenant="rival"))
    found = codes(lambda: world.release(evidence, dataclasses.replace(request, tenant="rival")))
    assert "not_acceptable.identity" in found
    # A policy that admits the rival does not admit him for this tenant's secrets.
    evidence = world.evidence(request.nonce, tenant="rival")
    found = codes(lambda: world.release(evidence, request, verifier=world.verifier(tenant="rival")))
    assert found == {"not_acceptable.identity"}


def test_bnd_11_evidence_of_each_purpose_serves_that_purpose_only(world: ReleaseWorld) -> None:
    """channel, release and member, each asked for each: the diagonal passes."""
    for made in ("channel", "release", "member"):
        request = world.request()
        evidence = world.evidence(request.nonce, purpose=made)
        for wanted in ("channel", "release", "member"):
            asked: dict[str, Any] = {
                "at": world.clock.wall(),
                "nonce": request.nonce,
                "age": timedelta(0),
                "audience": world.owner.audience,
            }
            if made == wanted:
                assert world.verifier().verify(evidence, purpose=wanted, **asked).kid
            else:
                attempt = functools.partial(world.verifier().verify, evidence, purpose=wanted, **asked)
                found = codes(attempt)
                assert found == {"not_acceptable.purpose"}
        if made == "release":
            assert world.release(evidence, request)
        else:
            assert codes(lambda e=evidence, r=request: world.release(e, r)) == {"not_acceptable.purpose"}  # type: ignore[misc]


def test_bnd_11_a_channel_nonce_cannot_be_a_release_nonce(world: ReleaseWorld) -> None:
    """The channel attests any 32 bytes that a client sends. Even the release nonce sent there gives channel evidence only."""
    request = world.request()
    evidence = world.evidence(request.nonce, purpose="channel", audience="")
    found = codes(lambda: world.release(evidence, request))
    assert {"not_acceptable.purpose", "not_acceptable.identity"} <= found


def test_bnd_12_messages_mirrored_to_their_sender_are_refused(world: ReleaseWorld) -> None:
    receiver = world.receiver()
    request = world.request()
    evidence = receiver.answer(request)
    answer = world.release(evidence, request)
    for mirrored in (evidence, request.encode(), answer.wrap):
        with pytest.raises(MalformedError):
            receiver.accept(mirrored)
    for mirrored in (answer.encode(), request.encode()):
        with pytest.raises(MalformedError):
            world.release(mirrored, request)
    # The owner's own signature is not the enclave's acknowledgement.
    material = KeyMaterial.decode(Evidence.decode(evidence).key_material or b"")
    with pytest.raises(NotGenuine):
        verify(material.receipt_key, answer.signature or b"", answer.accepted_message)
    with pytest.raises(NotGenuine):
        verify(world.owner.public, answer.signature or b"", answer.accepted_message)


def test_bnd_17_a_releasers_clock_that_jumps_does_not_stretch_a_challenge(world: ReleaseWorld) -> None:
    challenges = Challenges(monotonic=world.clock)
    request = challenges.issue("acme", [world.name])
    world.clock.now -= 10  # Not a monotonic clock, so nothing can be said about the age.
    assert code(lambda: challenges.present(request.challenge)) == "not_acceptable.stale"


def test_evidence_older_than_the_policy_admits_is_refused(world: ReleaseWorld) -> None:
    request = world.request()
    evidence = world.receiver().answer(request)
    assert world.release(evidence, request, age=timedelta(seconds=60))
    assert codes(lambda: world.release(evidence, request, age=timedelta(seconds=61))) == {
        "not_acceptable.stale"
    }
    assert codes(lambda: world.release(evidence, request, age=None)) == {"not_acceptable.stale"}


def test_another_measurement_gets_nothing(world: ReleaseWorld) -> None:
    receiver = world.receiver(manifest=b"another manifest")
    request = world.request()
    found = codes(lambda: world.release(receiver.answer(request), request))
    assert "not_acceptable.measurement" in found


def test_sim_01_a_simulated_enclave_gets_nothing_without_both_consents(world: ReleaseWorld) -> None:
    request = world.request()
    evidence = world.receiver().answer(request)
    found = codes(lambda: world.release(evidence, request, verifier=world.verifier(consent=False)))
    assert found == {"not_acceptable.simulated"}


class _Lax:
    """A Verifier that checks the evidence for what the evidence itself says it is for."""

    def __init__(self, world: ReleaseWorld, *, cached: bool = False) -> None:
        self.world = world
        self.cached = cached

    def verify(self, evidence: bytes, *, at: Any, nonce: bytes, age: Any, **_: Any) -> Any:
        material = KeyMaterial.decode(Evidence.decode(evidence).key_material or b"")
        verifier = self.world.verifier(max_age=None)
        if self.cached:
            return verifier.verify(
                evidence, at=at, purpose=material.purpose, audience=material.audience, cached=True
            )
        return verifier.verify(
            evidence, at=at, nonce=nonce, age=age, purpose=material.purpose, audience=material.audience
        )


def test_bnd_11_a_release_does_not_rest_on_the_verifier_alone(world: ReleaseWorld) -> None:
    """What the Verifier was asked for is compared once more: purpose, audience, freshness."""
    request = world.request()
    assert world.release(world.evidence(request.nonce), request, verifier=_Lax(world))
    changes: list[dict[str, Any]] = [{"purpose": "channel"}, {"audience": "owner:somebody else"}]
    for changed in changes:
        evidence = world.evidence(request.nonce, **changed)
        attempt = functools.partial(world.release, evidence, request, verifier=_Lax(world))
        assert codes(attempt) == {"not_acceptable.purpose"}
    attempt = functools.partial(
        world.release, world.evidence(b"", cached=True), request, verifier=_Lax(world, cached=True)
    )
    assert codes(attempt) == {"not_acceptable.nonce_missing"}


def test_only_admit_makes_an_admission(world: ReleaseWorld) -> None:
    request = world.request()
    result = admit(
        world.receiver().answer(request), request,
        verifier=world.verifier(), audience=world.owner.audience, at=world.clock.wall(), age=timedelta(0),
    ).result  # fmt: skip
    with pytest.raises(ConfigurationError):
        Admission(result, request, token=object())


def test_the_answer_holds_what_was_asked_for_or_nothing(world: ReleaseWorld) -> None:
    request = world.request()
    evidence = world.receiver().answer(request)
    assert code(lambda: world.release(evidence, request, secrets={})) == "broker.not_found"
    wrong = {SecretName("weights", 1): Secret(CANARY)}
    assert code(lambda: world.release(evidence, request, secrets=wrong)) == "broker.not_found"
    for size in (0, 64 * 1024 + 1):
        found = code(lambda n=size: world.release(evidence, request, secrets={world.name: Secret(bytes(n))}))  # type: ignore[misc]
        assert found == "broker.too_large"
    for lease in (-1, 31 * 24 * 3600, True):
        with pytest.raises(ConfigurationError):
            world.release(evidence, request, lease=lease)


def _plaintext(document: object, pad: int = 1024) -> bytes:
    content = document if isinstance(document, bytes) else cbor.encode(document)
    plaintext = len(content).to_bytes(4, "big") + content
    return plaintext + bytes(-len(plaintext) % pad)


def _forge(world: ReleaseWorld, evidence: bytes, request: ReleaseRequest, plaintext: bytes) -> Wrapped:
    """What an owner, or whoever may speak for him, could send instead of an honest answer."""
    key_material = Evidence.decode(evidence).key_material or b""
    material, key = KeyMaterial.decode(key_material), kid(key_material)
    answer = Wrapped(key, request.nonce, hpke.seal(material.key, hpke_info(key, request.nonce), plaintext))
    return dataclasses.replace(answer, signature=world.owner.key.sign(answer.signed_message))


_ROW = ["weights", 2, CANARY]


@pytest.mark.parametrize(
    "plaintext",
    [
        _plaintext({"v": 1, "lease": 0, "secrets": [["token", 2, CANARY]]}),
        _plaintext({"v": 1, "lease": 0, "secrets": [["weights", 1, CANARY]]}),
        _plaintext({"v": 1, "lease": 0, "secrets": [_ROW, ["zoken", 1, b"x"]]}),
        _plaintext({"v": 1, "lease": 0, "secrets": [_ROW, _ROW]}),
        _plaintext({"v": 1, "lease": 0, "secrets": []}),
        _plaintext({"v": 1, "lease": 0, "secrets": [["weights", 2, b""]]}),
        _plaintext({"v": 1, "lease": 0, "secrets": [["weights", 2, "text"]]}),
        _plaintext({"v": 1, "lease": 0, "secrets": [["../x", 2, b"x"]]}),
        _plaintext({"v": 1, "lease": 0, "secrets": [[True, 2, b"x"]]}),
        _plaintext({"v": 1, "lease": -1, "secrets": [_ROW]}),
        _plaintext({"v": 1, "lease": 1 << 40, "secrets": [_ROW]}),
        _plaintext({"v": 2, "lease": 0, "secrets": [_ROW]}),
        _plaintext({"v": 1, "lease": 0, "secrets": [_ROW], "more": 1}),
        _plaintext({"v": 1, "secrets": [_ROW]}),
        _plaintext({"v": 1, "lease": 0, "secrets": [_ROW]}, pad=1),
        _plaintext({"v": 1, "lease": 0, "secrets": [_ROW]}) + bytes(1024),
        _plaintext({"v": 1, "lease": 0, "secrets": [_ROW]})[:-1] + b"\x01",
        _plaintext(b"\xff"),
        b"",
        b"\xff" * 1024,
    ],
    ids=lambda p: f"{len(p)}-{hash(p) & 0xFFF:03x}",
)
def test_bnd_14_an_authentic_answer_with_other_content_is_refused_and_spent(
    world: ReleaseWorld, plaintext: bytes
) -> None:
    receiver = world.receiver()
    request = world.request()
    evidence = receiver.answer(request)
    answer = _forge(world, evidence, request, plaintext)
    assert code(lambda: receiver.accept(answer)) == "broker.integrity"
    assert code(lambda: receiver.accept(world.release(evidence, request))) == "broker.not_found"


def test_the_forged_answers_start_from_one_that_passes(world: ReleaseWorld) -> None:
    receiver = world.receiver()
    request = world.request()
    plaintext = _plaintext({"v": 1, "lease": 0, "secrets": [_ROW]})
    answer = _forge(world, receiver.answer(request), request, plaintext)
    assert receiver.accept(answer).secrets[world.name].reveal() == CANARY


def test_a_host_cannot_feed_secrets_of_its_own(world: ReleaseWorld) -> None:
    """The host verifies the enclave too, and sends it a secret under the owner's name."""
    mallory = SigningKey.generate()
    receiver = world.receiver()
    for signer in (mallory, None):
        request = world.request()
        answer = world.release(receiver.answer(request), request, signer=signer)
        assert code(lambda a=answer: receiver.accept(a)) == "broker.denied"  # type: ignore[misc]
    # Where the releaser is an attested broker, a signed answer has no place.
    receiver = world.receiver(owner_public=None)
    request = world.request()
    assert code(lambda: receiver.accept(world.release(receiver.answer(request), request))) == "broker.denied"


def test_what_does_not_authenticate_spends_nothing(world: ReleaseWorld) -> None:
    """Anybody can send garbage; the owner's answer still opens, and again only once."""
    receiver = world.receiver()
    request = world.request()
    answer = world.release(receiver.answer(request), request)
    signed = dataclasses.replace(answer, wrap=os.urandom(len(answer.wrap)))
    signed = dataclasses.replace(signed, signature=world.owner.key.sign(signed.signed_message))
    attempts = [
        (dataclasses.replace(answer, kid=bytes(32)), "broker.integrity"),
        (dataclasses.replace(answer, nonce=bytes(32)), "broker.not_found"),
        (dataclasses.replace(answer, signature=bytes(64)), "broker.denied"),
        (dataclasses.replace(answer, wrap=answer.wrap[:-1] + bytes([answer.wrap[-1] ^ 1])), "broker.denied"),
        (signed, "broker.integrity"),
    ]
    for attempt, expected in attempts:
        assert code(lambda a=attempt: receiver.accept(a)) == expected  # type: ignore[misc]
    assert receiver.accept(answer).secrets


def test_a_pending_request_expires_and_its_key_is_erased(world: ReleaseWorld) -> None:
    receiver = world.receiver()
    request = world.request()
    answer = world.release(receiver.answer(request), request)
    world.clock.now += LIFETIME
    assert code(lambda: receiver.accept(answer)) == "broker.not_found"
    assert not receiver._pending


def test_the_private_key_is_gone_after_one_answer(world: ReleaseWorld) -> None:
    receiver = world.receiver()
    request = world.request()
    answer = world.release(receiver.answer(request), request)
    private = receiver._pending[request.nonce].private
    receiver.accept(answer)
    assert code(lambda: private.open(b"", answer.wrap)) == "enclave.key_missing"
    receiver.answer(world.request())
    receiver.close()
    assert not receiver._pending


def test_bnd_14_a_receiver_closed_while_it_opens_an_answer_keeps_no_private_key(
    world: ReleaseWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver, request = world.receiver(), world.request()
    answer = world.release(receiver.answer(request), request)
    ((_, pending),) = receiver._pending.items()

    def closed_meanwhile(*_: Any) -> bytes:
        receiver.close()
        raise BrokerError("integrity", "the answer does not authenticate")

    monkeypatch.setattr(receiver, "_open", closed_meanwhile)
    with pytest.raises(BrokerError):
        receiver.accept(answer)
    assert not receiver._pending
    with pytest.raises(ConfideError):
        pending.private.open(b"", answer.wrap)
    with pytest.raises(BrokerError):
        receiver.answer(world.request())  # Nor does it make new ones.


def test_a_flood_of_requests_is_bounded_and_keeps_the_newest(world: ReleaseWorld) -> None:
    receiver = world.receiver()
    first = world.request()
    early = world.release(receiver.answer(first), first)
    for _ in range(MAX_PENDING):
        last = world.request()
        evidence = receiver.answer(last)
    assert len(receiver._pending) == MAX_PENDING
    assert code(lambda: receiver.accept(early)) == "broker.not_found"
    assert receiver.accept(world.release(evidence, last)).secrets


def test_a_request_with_a_pending_nonce_or_an_unknown_name_is_refused(world: ReleaseWorld) -> None:
    receiver = world.receiver()
    request = world.request()
    receiver.answer(request)
    assert code(lambda: receiver.answer(request)) == "broker.conflict"
    assert code(lambda: receiver.answer(world.request(SecretName("other", 1)))) == "broker.not_found"


def test_two_quotes_at_once_are_refused(world: ReleaseWorld) -> None:
    receiver = world.receiver()
    entered, leave = threading.Event(), threading.Event()
    inner = receiver._attester.attest

    def slow(report_data: bytes) -> Any:
        entered.set()
        leave.wait(10)
        return inner(report_data)

    receiver._attester.attest = slow  # type: ignore[method-assign]
    thread = threading.Thread(target=receiver.answer, args=(world.request(),))
    thread.start()
    assert entered.wait(10)
    assert code(lambda: receiver.answer(world.request())) == "broker.rate_limited"
    leave.set()
    thread.join()
    assert receiver.answer(world.request())


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "a\\b", "a%2fb", "a\0b", " a", "a ", "ä", "a" * 129, 7, None]
)
def test_kb_03_a_name_that_is_a_path_is_no_name(name: Any) -> None:
    assert code(lambda: SecretName(name, 1)) == "broker.name_invalid"
    request = cbor.encode({"v": 1, "tenant": "acme", "challenge": bytes(32), "secrets": [[name, 1]]})
    with pytest.raises((BrokerError, MalformedError)):
        ReleaseRequest.decode(request)


@pytest.mark.parametrize("version", [0, -1, 1 << 63, True, "1", None])
def test_a_version_is_a_positive_number(version: Any) -> None:
    assert code(lambda: SecretName("a", version)) == "broker.name_invalid"


_GOOD = {"v": 1, "tenant": "acme", "challenge": bytes(32), "secrets": [["a", 1], ["b", 2]]}


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2}, {"v": "1"}, {"tenant": ""}, {"tenant": "x" * 257}, {"tenant": 1}, {"challenge": bytes(31)}, {"secrets": []},
        {"challenge": "x" * 32}, {"secrets": [["b", 2], ["a", 1]]}, {"secrets": [["a", 1], ["a", 2]]}, {"more": 1},
        {"secrets": [["a", 1]] * 2}, {"secrets": [["a"]]}, {"secrets": [["a", 1, 2]]}, {"secrets": ["a"]},
        {"secrets": [[f"n{i:02}", 1] for i in range(33)]}, {"secrets": {}}, {"tenant": "line\nbreak"},
    ],
    ids=str,
)  # fmt: skip
def test_a_request_has_one_form(change: dict[str, Any]) -> None:
    assert ReleaseRequest.decode(cbor.encode(_GOOD)).encode() == cbor.encode(_GOOD)
    with pytest.raises(MalformedError):
        ReleaseRequest.decode(cbor.encode(_GOOD | change))


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=300))
def test_any_bytes_give_a_typed_error(data: bytes) -> None:
    for reader in (ReleaseRequest.decode, Wrapped.decode, read_plaintext):
        with pytest.raises(ConfideError):
            reader(data)


@given(request=_REQUESTS.filter(lambda r: "\0" not in r.tenant))
def test_a_request_survives_the_way(request: ReleaseRequest) -> None:
    assert ReleaseRequest.decode(request.encode()) == request


def test_leak_03_nothing_of_the_release_prints_or_serialises_a_secret(world: ReleaseWorld) -> None:
    receiver = world.receiver()
    request = world.request()
    answer = world.release(receiver.answer(request), request)
    pending = receiver._pending[request.nonce]
    released = receiver.accept(answer)
    shown = "".join(map(repr, (receiver, pending, answer, released, released.secrets, request)))
    assert CANARY.decode() not in shown
    assert CANARY.hex() not in shown
    for thing in (released, receiver, pending):
        with pytest.raises(TypeError):
            pickle.dumps(thing)


def test_leak_02_errors_of_a_release_carry_nothing_of_it(world: ReleaseWorld) -> None:
    receiver = world.receiver()
    request = world.request()
    evidence = receiver.answer(request)
    content = _plaintext({"v": 1, "lease": 0, "secrets": [["canary-name", 1, b"canary-value"]]})
    with pytest.raises(BrokerError) as error:
        receiver.accept(_forge(world, evidence, request, content))
    assert "canary" not in str(error.value) + repr(error.value.__context__)


def test_the_manifest_travels_with_the_evidence(world: ReleaseWorld) -> None:
    assert Evidence.decode(world.receiver().answer(world.request())).manifest == MANIFEST
