# SPDX-License-Identifier: Apache-2.0
"""EAR tokens of other verifiers: Veraison, Trustee of Confidential Containers, and confide itself (JWT, and CWT).

An EAR need not have `iss`, `aud` or a nonce; its issuer is then the developer in its verifier id. Source:
draft-ietf-rats-ear; seen on real bytes: a JWT of Trustee.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

from confide.attestation import ear
from confide.attestation.result import Tier, Vector
from confide.attestation.tokens.said import Said

if TYPE_CHECKING:
    from collections.abc import Mapping

ALGORITHMS: Final = frozenset({"ES256", "ES384", "PS256", "PS384", "EdDSA"})
MEASURED: Final = frozenset(
    {
        "ear_appraisal_policy_ids",
        "ear.appraisal-policy-id",
        "executables",
        "measurement",
        "mr_td",
        "mr_enclave",
    }
)
UNPROVEN: Final = ()

# What Trustee calls the evidence of a submodule, and confide's own extension calls its TEE.
_EVIDENCE: Final = {
    "snp": "snp",
    "az-snp-vtpm": "snp",
    "tdx": "tdx",
    "az-tdx-vtpm": "tdx",
    "sgx": "sgx",
    "nitro": "nitro",
    "tpm": "tpm",
    "nvidia": "nvidia",
}


def recognises(claims: Mapping[str, Any]) -> bool:
    """Whether a payload is of this kind."""
    return "submods" in claims and any(str(key).startswith(("ear_", "ear.")) for key in claims)


def issuer(claims: Mapping[str, Any]) -> str | None:
    """Who speaks, for tokens without `iss`: the developer in the verifier id."""
    for name in ("ear_verifier_id", "ear.verifier-id"):
        value = claims.get(name)
        if isinstance(value, dict) and isinstance(value.get("developer"), str):
            return str(value["developer"])
    return None


def read(claims: Mapping[str, Any], parts: Mapping[str, Mapping[str, Any]]) -> Said:
    """The claims in common terms: of each trustworthiness claim the worst that any attester has."""
    _ = parts
    found = ear.read(claims)
    vector = _worst([appraisal.vector for appraisal in found.submods.values()])
    if max(found.tier, Tier.AFFIRMING) > vector.tier:
        # A status may be worse than its vector; then some claim must be, so that the tier follows.
        vector = _with_sourced(vector, int(found.tier))
    return Said(
        tree=claims,
        hardware=tuple(sorted({_hardware(appraisal.claims) for appraisal in found.submods.values()})),
        debug=Tier.of(vector.configuration) == Tier.CONTRAINDICATED,
        nonce=found.nonce,
        vector=vector,
        tier=found.tier,
    )


def _worst(vectors: list[Vector]) -> Vector:
    worst = {
        field.name: max((getattr(vector, field.name) for vector in vectors), key=_badness)
        for field in fields(Vector)
    }
    return Vector(**worst)


def _badness(claim: int) -> tuple[int, int]:
    return int(Tier.of(claim)), claim


def _with_sourced(vector: Vector, value: int) -> Vector:
    values = {field.name: getattr(vector, field.name) for field in fields(Vector)}
    return Vector(**(values | {"sourced_data": value}))


def _hardware(appraisal: Mapping[str, Any]) -> str:
    own = appraisal.get("confide")
    if isinstance(own, dict):
        return _EVIDENCE.get(str(own.get("tee")), "unknown") if own.get("simulated") is False else "simulated"
    for name in ("ear.veraison.annotated-evidence", "ear_veraison_annotated_evidence"):
        evidence = appraisal.get(name)
        if isinstance(evidence, dict):
            named = sorted({_EVIDENCE[key] for key in evidence if key in _EVIDENCE})
            if len(named) == 1:
                return named[0]
    return "unknown"
