# SPDX-License-Identifier: Apache-2.0
"""The published vectors of the release protocol, against the implementation and a decoder written from the specification."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from confide.attestation.evidence import Evidence
from confide.attestation.key_material import ServiceIdentity
from confide.crypto import hpke
from confide.crypto.signing import SigningKey
from confide.errors import BrokerError
from confide.keys import receiver as receiver_module
from confide.keys.receiver import Receiver
from confide.keys.release import ReleaseRequest, owner_audience
from support import release_decoder, release_vectors
from support.release_world import Clock, ReleaseWorld, SimulatedAttester

if TYPE_CHECKING:
    from collections.abc import Callable

VECTOR: dict[str, Any] = json.loads(release_vectors.PLACE.read_text())
PUBLIC = SigningKey.from_bytes(release_vectors.OWNER_SEED).public


@pytest.fixture
def waiting(world: ReleaseWorld, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Receiver]:
    """A receiver with the vector's keys that has answered the vector's request."""
    seeds = release_vectors.MLKEM_SEED, release_vectors.X25519_PRIVATE
    monkeypatch.setattr(hpke.PrivateKey, "generate", classmethod(lambda cls: cls.from_seeds(*seeds)))
    monkeypatch.setattr(
        receiver_module.SigningKey, "generate", classmethod(lambda cls: cls.from_bytes(release_vectors.RECEIPT_SEED))  # type: ignore[attr-defined]
    )  # fmt: skip

    def make() -> Receiver:
        import hashlib

        digest = hashlib.sha256(release_vectors.MANIFEST).digest()
        receiver = Receiver(
            SimulatedAttester(world.chip), ServiceIdentity("model", digest, "acme", release_vectors.INSTANCE),
            release_vectors.MANIFEST, audience=owner_audience(PUBLIC), names=["token", "weights"], owner_public=PUBLIC,
            monotonic=Clock(), wall_clock=lambda: datetime.fromtimestamp(release_vectors.ISSUED, UTC),
        )  # fmt: skip
        evidence = receiver.answer(ReleaseRequest.decode(bytes.fromhex(VECTOR["request"])))
        assert (Evidence.decode(evidence).key_material or b"").hex() == VECTOR["key_material"]
        return receiver

    return make


def test_the_request_and_its_nonce_are_those_of_the_vector() -> None:
    request = ReleaseRequest.decode(bytes.fromhex(VECTOR["request"]))
    assert request.encode().hex() == VECTOR["request"]
    assert request.nonce.hex() == VECTOR["nonce"]
    secrets = [[s["name"], s["version"]] for s in VECTOR["secrets"]]
    assert release_decoder.nonce(request.challenge, VECTOR["tenant"], secrets) == request.nonce


def test_the_answer_opens(waiting: Callable[[], Receiver]) -> None:
    released = waiting().accept(bytes.fromhex(VECTOR["answer"]))
    assert {n.name: s.reveal().hex() for n, s in released.secrets.items()} == {
        s["name"]: s["secret"] for s in VECTOR["secrets"]
    }
    assert released.lease == VECTOR["lease"]
    assert released.acknowledgement.hex() == VECTOR["acknowledgement"]


def test_the_second_implementation_opens_it_too() -> None:
    lease, rows, acknowledgement = release_decoder.accept(VECTOR, bytes.fromhex(VECTOR["answer"]))
    assert lease == VECTOR["lease"]
    assert [[n, v, s.hex()] for n, v, s in rows] == [
        [s["name"], s["version"], s["secret"]] for s in VECTOR["secrets"]
    ]
    assert acknowledgement.hex() == VECTOR["acknowledgement"]


@pytest.mark.parametrize("case", VECTOR["refuse"], ids=lambda case: case["what"])
def test_what_the_vectors_refuse_is_refused_with_the_same_code(
    waiting: Callable[[], Receiver], case: dict[str, str]
) -> None:
    answer = bytes.fromhex(case["answer"])
    with pytest.raises(BrokerError) as error:
        waiting().accept(answer)
    assert error.value.code == case["code"]
    with pytest.raises(release_decoder.RefusedError) as refused:
        release_decoder.accept(VECTOR, answer)
    assert str(refused.value) == case["code"]


def test_the_file_is_what_the_script_makes() -> None:
    """All but the ciphertexts, which HPKE makes anew each time."""
    made = release_vectors.make()
    random = {"answer", "acknowledgement", "refuse"}
    assert {k: v for k, v in made.items() if k not in random} == {
        k: v for k, v in VECTOR.items() if k not in random
    }
    assert [(case["what"], case["code"]) for case in made["refuse"]] == [
        (case["what"], case["code"]) for case in VECTOR["refuse"]
    ]
