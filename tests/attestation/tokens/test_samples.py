# SPDX-License-Identifier: Apache-2.0
"""Real tokens: each gives the verdict that is documented for it."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from confide.attestation.evidence import Endorsements, Evidence, EvidencePart
from confide.attestation.policy import AppraisalPolicy
from confide.attestation.result import Tier
from confide.attestation.tokens import ear, endorse, kinds, maa, nras, wire
from confide.attestation.verifier import Verifier
from confide.crypto import jose, x509
from confide.errors import ConfideError
from confide.wire import strict_json

if TYPE_CHECKING:
    from pathlib import Path

GOOGLE_ROOT = "148b293821bb0c6a317f413c8ba475814091cb22d49b9e3c94198db8e8f86c39"
IMAGE = "sha256:e2e5e3672f416ac9ca71aa639abf86db0b713729a48c125a925af6c808b20b5d"
ISSUED = datetime(2025, 9, 5, 8, 17, 30, tzinfo=UTC)
GOOGLE: dict[str, Any] = {
    "kind": "google-confidential-space",
    "issuer": "https://confidentialcomputing.googleapis.com",
    "audience": "z08381475938604996746",
    "roots": "google-confidential-space",
    "claims": {
        "submods.container.image_digest": [IMAGE],
        "submods.confidential_space.support_attributes[]": ["STABLE"],
    },
}
NRAS: dict[str, Any] = {
    "kind": "nras",
    "issuer": "https://nras.attestation.nvidia.com",
    "keys": ["ab" * 32],
    "claims": {"submods.*.x-nvidia-gpu-driver-version": ["550.90.07"]},
}


def verify(data: bytes, table: dict[str, Any], at: datetime, endorsements: Endorsements | None = None) -> Any:
    """The result, or the codes of the refusal."""
    policy = AppraisalPolicy.from_table({"tees": ["token"], "reference": {"token": table}})
    try:
        return Verifier(policy, endorsements=endorsements).verify(
            Evidence(EvidencePart("token", data)), at=at
        )
    except ConfideError as error:
        return [reason.code for reason in getattr(error, "reasons", (error.reason,))]


@pytest.fixture(scope="module")
def google(shared: Path) -> bytes:
    return (shared / "evidence/tokens/google-confidential-space-tdx.jwt").read_bytes()


def test_the_built_in_root_is_the_one_that_google_publishes(shared: Path) -> None:
    pem = (shared / "evidence/roots/google_confidential_space_root.pem").read_bytes()
    assert endorse.google_root() == x509.parse_pem(pem)[0].der


def test_the_built_in_root_is_pinned() -> None:
    assert hashlib.sha256(endorse.google_root()).hexdigest() == GOOGLE_ROOT
    (anchor,) = endorse.anchors()
    assert anchor.name == GOOGLE["issuer"]


def test_google_s_token_is_accepted_between_issue_and_expiry(google: bytes) -> None:
    for at in (ISSUED, datetime(2025, 9, 5, 8, 30, tzinfo=UTC), ISSUED + timedelta(seconds=3599)):
        result = verify(google, GOOGLE, at)
        assert result.tier is Tier.AFFIRMING
        assert result.claims.measurements["image_digest"].hex() == IMAGE.removeprefix("sha256:")
        assert result.claims.report_data.hex().startswith("75a91c8dbe289f19")
        assert [v.name.rpartition("CN=")[2] for v in result.claims.chain] == [
            "Confidential Space Leaf Certificate",
            "Confidential Space Intermediate CA",
            "Confidential Space Root CA",
        ]
        assert result.claims.expires == ISSUED + timedelta(seconds=3600)
        strict_json.encode(result.to_json())


def test_google_s_token_is_refused_before_and_after(google: bytes) -> None:
    assert verify(google, GOOGLE, ISSUED - timedelta(seconds=1)) == ["not_genuine.not_yet_valid"]
    assert verify(google, GOOGLE, ISSUED + timedelta(seconds=3600)) == ["not_genuine.expired"]


def test_the_root_may_be_pinned_by_its_hash_and_must_be_pinned(google: bytes) -> None:
    assert verify(google, GOOGLE | {"roots": [GOOGLE_ROOT]}, ISSUED).tier is Tier.AFFIRMING
    assert verify(google, GOOGLE | {"roots": ["00" * 32]}, ISSUED) == ["not_acceptable.signer"]
    other = {key: value for key, value in GOOGLE.items() if key != "roots"} | {"keys": ["00" * 32]}
    assert verify(google, other, ISSUED) == ["not_acceptable.signer"]


def test_one_changed_pin_of_google_s_token_refuses(google: bytes) -> None:
    for changes, code in (
        ({"audience": "z08381475938604996747"}, "not_acceptable.identity"),
        ({"tees": ["snp"]}, "not_acceptable.tee"),
        ({"claims": {"submods.container.image_digest": [IMAGE[:-1] + "e"]}}, "not_acceptable.measurement"),
        ({"claims": {"submods.gce.zone": ["us-west1-a"]}}, "not_acceptable.attributes"),
        ({"max_age": "1s"}, "not_acceptable.stale"),
    ):
        assert verify(google, GOOGLE | changes, ISSUED + timedelta(seconds=2)) == [code]


def test_every_byte_of_google_s_token_counts(google: bytes) -> None:
    """The last character of each of the three parts has spare bits, which strict base64url refuses as well."""
    for mark in [
        *range(0, len(google), 97),
        *(i - 1 for i, c in enumerate(google) if c == ord(".")),
        len(google) - 1,
    ]:
        changed = bytearray(google)
        changed[mark] ^= 1
        found = verify(bytes(changed), GOOGLE, ISSUED)
        assert isinstance(found, list), mark
        assert found[0].startswith(("malformed.", "not_genuine.")), (mark, found)


def test_nvidia_s_bundle_links_its_parts_and_lacks_its_key(shared: Path) -> None:
    data = (shared / "evidence/tokens/nras-hopper-claims-v3.detached-eat.json").read_bytes()
    decoded = json.loads((shared / "evidence/tokens/nras-hopper-claims-v3.decoded.json").read_bytes())

    token = wire.decode(data)

    assert {name: claims for name, (_, claims) in token.parts.items()} == decoded
    said = nras.read(token.claims, {name: claims for name, (_, claims) in token.parts.items()})
    assert said.objections == ()
    assert said.debug is False
    assert said.nonce is not None
    assert said.nonce.hex().startswith("931d8dd0add203ac")
    at = datetime(2025, 6, 11, 0, 30, tzinfo=UTC)
    assert verify(data, NRAS, at) == ["endorsements_missing.certificate"]
    assert verify(data, NRAS | {"issuer": "https://nras.example"}, at) == ["not_genuine.identity_mismatch"]


def test_nvidia_s_bundle_with_a_changed_part_is_refused(shared: Path) -> None:
    data = (shared / "evidence/tokens/nras-hopper-claims-v3.detached-eat.json").read_bytes()
    mark = data.index(b"GPU-0") + 400
    changed = data[:mark] + (b"A" if data[mark : mark + 1] != b"A" else b"B") + data[mark + 1 :]
    found = verify(changed, NRAS, datetime(2025, 6, 11, 0, 30, tzinfo=UTC))
    assert found[0] in {"not_genuine.identity_mismatch", "malformed.non_canonical"}


def test_azure_s_claims_are_mapped(shared: Path) -> None:
    """Only decoded claims are at hand, so that nothing is verified here."""
    claims = json.loads((shared / "evidence/tokens/azure-maa-claims.json").read_bytes())
    assert kinds.of(claims) == "maa"

    said = maa.read(claims, {})

    assert said.hardware == ("snp",)
    assert said.debug is False
    assert said.measurements["measurement"].hex().startswith("fe353d3026450365")
    assert said.nonce is None
    assert said.objections == ()
    node = claims["x-ms-isolation-tee"]
    for change, debug, objections in (
        ({"x-ms-isolation-tee": node | {"x-ms-sevsnpvm-is-debuggable": True}}, True, 0),
        ({"x-ms-azurevm-kerneldebug-enabled": True}, True, 0),
        ({"x-ms-isolation-tee": node | {"x-ms-compliance-status": "none"}}, False, 1),
    ):
        changed = maa.read(claims | change, {})
        assert (changed.debug, len(changed.objections)) == (debug, objections)
    assert maa.read(
        {key: value for key, value in claims.items() if key != "x-ms-isolation-tee"}, {}
    ).hardware == ("tpm",)


def test_trustee_s_ear_is_mapped_and_its_own_key_is_not_believed(shared: Path) -> None:
    data = (shared / "evidence/tokens/coco-ear-tdx.jwt").read_bytes()
    token = wire.decode(data)

    said = ear.read(token.claims, {})

    assert said.tier is Tier.CONTRAINDICATED
    assert (said.vector.configuration, said.vector.executables, said.vector.hardware) == (36, 33, 97)
    assert said.hardware == ("tdx",)
    at = datetime.fromtimestamp(1754278500, UTC)
    table = {
        "kind": "ear",
        "issuer": "https://confidentialcontainers.org",
        "keys": ["ab" * 32],
        "claims": {"submods.cpu.ear.status": ["contraindicated"]},
    }
    assert verify(data, table, at) == ["endorsements_missing.certificate"]

    # With the key from its header pinned by hand, which is what nobody should do, the signature is seen to verify.
    head = json.loads(base64.urlsafe_b64decode(data.split(b".")[0] + b"=="))
    jwks = json.dumps({"keys": [head["jwk"]]}).encode()
    (key,) = jose.read_jwks(jwks)
    given = Endorsements(documents=(EvidencePart("jwks", jwks),))
    pinned = table | {"keys": [key.spki_sha256.hex()]}
    assert verify(data, pinned, at, given) == ["not_acceptable.attributes"]
    assert verify(data, pinned, datetime.fromtimestamp(1754278780, UTC), given) == ["not_genuine.expired"]


def test_the_samples_are_recognised_and_explained(shared: Path) -> None:
    folder = shared / "evidence/tokens"
    for name in (
        "google-confidential-space-tdx.jwt",
        "nras-hopper-claims-v3.detached-eat.json",
        "coco-ear-tdx.jwt",
    ):
        data = (folder / name).read_bytes()
        assert wire.recognises(data), name
        strict_json.encode(wire.explain(data))


def test_no_other_sample_is_taken_for_a_token(shared: Path) -> None:
    others = [
        path
        for path in sorted((shared / "evidence").rglob("*"))
        if path.is_file() and path.parent.name != "tokens"
    ]
    assert len(others) > 50
    for path in others:
        assert not wire.recognises(path.read_bytes()), path.name
