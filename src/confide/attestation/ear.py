# SPDX-License-Identifier: Apache-2.0
"""EAT attestation results (draft-ietf-rats-ear): an AttestationResult as a signed JWT or CWT, and reading of such claims.

Emitted is one spelling, that of profile ``tag:ietf.org,2026:rats/ear#03`` (keys with underscores). Read are also #04 and the
dotted keys of Veraison's and Trustee's code, each under its own profile; a token that mixes both is refused, since two
readers would see two results in it. What `docs/spec/result.md` says is what stands here.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, cast

from confide.attestation.evidence import Endorsements
from confide.attestation.result import Tier, Vector
from confide.crypto import cose, jose
from confide.errors import ConfigurationError, MalformedError
from confide.wire import base64_text, cbor
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from confide.attestation.result import AttestationResult
    from confide.crypto.signing import SigningKey

__all__ = ["PROFILE", "PROFILES", "Appraisal", "Ear", "from_cbor", "read", "to_claims", "to_cwt", "to_jwt"]

PROFILE: Final = "tag:ietf.org,2026:rats/ear#03"
_UNDERSCORED, _DOTTED = "_", "."
PROFILES: Final[Mapping[str, str]] = {
    PROFILE: _UNDERSCORED,
    "tag:ietf.org,2026:rats/ear#04": _UNDERSCORED,
    "tag:github.com,2023:veraison/ear": _DOTTED,
    "tag:github.com,2024:confidential-containers/Trustee": _DOTTED,
}
"""By profile, what stands after ``ear`` in its keys. A profile that is not here is refused."""

JWT_TYPE: Final = "eat+jwt"
CWT_TYPE: Final = "application/eat+cwt"
MAX_SUBMODS: Final = 32
MAX_NONCE: Final = 64
DEFAULT_LIFETIME: Final = timedelta(minutes=5)

_HYPHEN: Final = {_DOTTED: "-", _UNDERSCORED: "_"}
_TIERS: Final = {"none": 0, "affirming": 2, "warning": 32, "contraindicated": 96}
_VECTOR: Final = {field.name.replace("_", "-"): index for index, field in enumerate(fields(Vector))}
# Labels of claims in CBOR: RFC 8392, RFC 9711 and the draft; below -65536 is for private use.
_LABELS: Final = {
    "iss": 1,
    "aud": 3,
    "exp": 4,
    "iat": 6,
    "eat_nonce": 10,
    "eat_profile": 265,
    "submods": 266,
    "ear_status": 1000,
    "ear_trustworthiness_vector": 1001,
    "ear_raw_evidence": 1002,
    "ear_appraisal_policy_ids": 1003,
    "ear_verifier_id": 1004,
    "ear_veraison_annotated_evidence": -70000,
    "ear_veraison_policy_claims": -70001,
    "ear_veraison_key_attestation": -70002,
    "confide": -70470,
}
_NAMES: Final = {label: name for name, label in _LABELS.items()}
_OLD_NAMES: Final = ("verifier-id", "raw-evidence", "status", "trustworthiness-vector", "appraisal-policy-id")


@dataclass(frozen=True, slots=True)
class Appraisal:
    """The result about one attester: ``tier`` is its status, or its worst claim where the status claims nothing and that is
    contraindicated. ``nonce`` is the evidence's own; ``claims`` everything that stands there.
    """

    tier: Tier
    vector: Vector
    policy_ids: tuple[str, ...]
    nonce: bytes | None
    claims: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Ear:
    """An EAR's claims; whoever reads them has verified its signature, or has nothing. ``status`` is that of the whole, if there
    is one.
    """

    profile: str
    developer: str
    build: str
    nonce: bytes | None
    status: Tier | None
    submods: Mapping[str, Appraisal]

    @property
    def tier(self) -> Tier:
        """The worst tier among the attesters and of the whole; ``NONE`` if nothing is claimed of one of them."""
        own = () if self.status is None else (self.status,)
        return _worst(*own, *(appraisal.tier for appraisal in self.submods.values()))


def _worst(*tiers: Tier) -> Tier:
    # What claims nothing is not made good by a warning beside it, which a policy may accept.
    return Tier.NONE if Tier.NONE in tiers and max(tiers) < Tier.CONTRAINDICATED else max(tiers)


def read(claims: Mapping[str, Any]) -> Ear:
    """The claims of an EAR in JSON (RFC 9711, draft-ietf-rats-ear section 3).

    Raises ``malformed.unknown_format`` for a profile that is not in ``PROFILES``; ``malformed.non_canonical`` for keys of the
    other spelling, for what is missing or mistyped, and for a status that is better than the worst claim beside it.
    Values of the vector that no specification names count by their range. Unknown claims are ignored.
    """
    profile = claims.get("eat_profile")
    separator = PROFILES.get(profile) if isinstance(profile, str) else None
    if not isinstance(profile, str) or separator is None:
        raise MalformedError(
            "unknown_format", "the EAR has a profile that is not known", hint="known: " + ", ".join(PROFILES)
        )
    _refuse_other_spelling(claims, separator)
    outer = Fields(claims, "EAR")
    identity = Fields(outer.mapping(_key("verifier-id", separator)), "verifier id of the EAR")
    submods = outer.mapping("submods")
    if not 1 <= len(submods) <= MAX_SUBMODS:
        raise MalformedError("limit_exceeded", f"an EAR has 1 to {MAX_SUBMODS} submodules")
    found = {name: _appraisal(value, separator) for name, value in submods.items()}
    named = claims.get(_key("status", separator))
    status = None if named is None else _tier(named)
    if status is not None:
        _check_status(status, max(appraisal.tier for appraisal in found.values()))
    return Ear(
        profile=profile,
        developer=identity.text("developer", 512),
        build=identity.text("build", 512),
        nonce=_nonce(outer, separator),
        status=status,
        submods=found,
    )


def _key(name: str, separator: str) -> str:
    if separator == _DOTTED:
        return f"ear.{name}"
    plural = "s" if name == "appraisal-policy-id" else ""
    return f"ear_{name.replace('-', '_')}{plural}"


def _refuse_other_spelling(claims: Mapping[str, Any], separator: str) -> None:
    other = _UNDERSCORED if separator == _DOTTED else _DOTTED
    if any(isinstance(key, str) and key.startswith(f"ear{other}") for key in claims):
        raise MalformedError(
            "non_canonical", "the EAR has keys of another spelling than its profile's", hint="ask its issuer"
        )


def _appraisal(value: object, separator: str) -> Appraisal:
    if not isinstance(value, dict):
        raise MalformedError("non_canonical", "a submodule of the EAR is not an appraisal")
    _refuse_other_spelling(value, separator)
    inner = Fields(value, "appraisal of the EAR")
    vector = _vector(inner.mapping(_key("trustworthiness-vector", separator), default=None))
    status = _tier(value.get(_key("status", separator)))
    _check_status(status, vector.tier)
    key = _key("appraisal-policy-id", separator)
    ids: list[Any] = (
        [value[key]] if separator == _DOTTED and key in value else inner.list_(key, 64, default=[])
    )
    if any(not isinstance(item, str) for item in ids):
        raise MalformedError("non_canonical", "a policy id of the EAR is not text")
    _check_key(
        inner.mapping(f"ear{separator}veraison{separator}key{_HYPHEN[separator]}attestation", default=None)
    )
    return Appraisal(
        tier=_worst(status, max(status, vector.tier)),
        vector=vector,
        policy_ids=tuple(ids),
        nonce=_nonce(inner, separator),
        claims=value,
    )


def _check_key(attested: dict[Any, Any] | None) -> None:
    """Veraison's extension: a public key that the evidence vouches for, which is there or the extension is not."""
    if attested is not None:
        text = Fields(attested, "key attestation of the EAR").text("akpub", 4096)
        if not base64_text.decode(text, what="key in the EAR", max_length=2048, url=True):
            raise MalformedError("non_canonical", "the key attestation of the EAR has an empty key")


def _check_status(status: Tier, worst: Tier) -> None:
    """A status may be worse than what it sums up, or claim nothing; better it may not be (section 3.2)."""
    if Tier.NONE < status < worst:
        raise MalformedError("non_canonical", "a status in the EAR is better than what it sums up")


def _tier(value: object) -> Tier:
    number = _TIERS.get(value) if isinstance(value, str) else value
    if type(number) is not int or number not in _TIERS.values():
        raise MalformedError("non_canonical", "a status in the EAR is none of the four tiers")
    return Tier(number)


def _vector(values: dict[Any, Any] | None) -> Vector:
    found: dict[str, int] = {}
    for name, value in (values or {}).items():
        if name not in _VECTOR or type(value) is not int:
            raise MalformedError("non_canonical", "the EAR has an unknown claim in a trustworthiness vector")
        Tier.of(value)
        found[name.replace("-", "_")] = value
    return Vector(**found)


def _nonce(inner: Fields, separator: str) -> bytes | None:
    """Base64url, as the draft has it since the keys have underscores; before that free text, often hexadecimal."""
    text = inner.text("eat_nonce", 96, default=None)
    if text is None:
        return None
    if separator == _UNDERSCORED:
        data = base64_text.decode(text, what="nonce of the EAR", max_length=MAX_NONCE, url=True)
    elif len(text) % 2 == 0 and set(text) <= set("0123456789abcdef"):
        data = bytes.fromhex(text)
    else:
        data = text.encode("utf-8")
    if not 8 <= len(data) <= 88:
        raise MalformedError("length_mismatch", "the nonce of the EAR is shorter or longer than a nonce is")
    return data


def to_claims(
    result: AttestationResult,
    *,
    developer: str,
    build: str,
    issuer: str | None = None,
    audience: str | None = None,
    nonce: bytes | None = None,
    lifetime: timedelta = DEFAULT_LIFETIME,
) -> dict[str, Any]:
    """The claims of an EAR about ``result`` in JSON, of profile ``PROFILE``.

    One submodule for the platform, named by its TEE, and one for each device (``nvidia-0``). ``nonce`` is what the party
    that asked for the result sent, 8 to 64 bytes; the submodules' nonce is the evidence's report data. The result expires
    after ``lifetime`` and never later than what it rests on. ``iat`` is the time at which the evidence was judged.
    """
    if nonce is not None and not 8 <= len(nonce) <= MAX_NONCE:
        raise ConfigurationError("nonce", f"the nonce of an EAR is 8 to {MAX_NONCE} bytes")
    if not developer or not build or lifetime <= timedelta(0):
        raise ConfigurationError("invalid", "an EAR names its verifier and has a lifetime")
    expires = min(result.verified_at + lifetime, result.expires)
    policy = "ni:///sha-256;" + _b64(result.policy_digest)
    submods = {result.tee: _submod(result.vector, result.claims, policy, "platform")}
    for index, part in enumerate(result.parts):
        submods[f"{part.tee}-{index}"] = _submod(part.vector, part.claims, policy, part.binding)
    claims: dict[str, Any] = {
        "eat_profile": PROFILE,
        "iat": int(result.verified_at.timestamp()),
        "exp": int(expires.timestamp()),
        "ear_verifier_id": {"developer": developer, "build": build},
        "ear_status": result.tier.name.lower(),
        "submods": submods,
        "confide": {
            "evidence_sha256": _b64(hashlib.sha256(_evidence(result)).digest()),
            "freshness": result.freshness,
            **({} if result.kid is None else {"kid": _b64(result.kid)}),
        },
    }
    optional = {"iss": issuer, "aud": audience, "eat_nonce": None if nonce is None else _b64(nonce)}
    return claims | {name: value for name, value in optional.items() if value is not None}


def _evidence(result: AttestationResult) -> bytes:
    """What was judged as one byte string: the bundle without endorsements, which differ from one verifier to the next. A
    bundle beyond the size of one is its platform's own bytes.
    """
    try:
        return replace(result.evidence, endorsements=Endorsements()).encode()
    except MalformedError:
        return result.evidence.platform.data


def _submod(vector: Vector, claims: Any, policy: str, binding: str) -> dict[str, Any]:
    made = {name: value for name, value in vector.to_json().items() if value}
    submod: dict[str, Any] = {
        "ear_status": vector.tier.name.lower(),
        "ear_appraisal_policy_ids": [policy],
        "confide": {"tee": claims.tee, "simulated": claims.simulated, "binding": binding},
    }
    if made:
        submod["ear_trustworthiness_vector"] = made
    if 8 <= len(claims.report_data) <= MAX_NONCE:
        submod["eat_nonce"] = _b64(claims.report_data)
    return submod


def to_jwt(result: AttestationResult, key: SigningKey, **options: Any) -> str:
    """``to_claims`` with the same options, signed as a JWT (EdDSA)."""
    return jose.sign(key, to_claims(result, **options), typ=JWT_TYPE)


def to_cwt(result: AttestationResult, key: SigningKey, **options: Any) -> bytes:
    """``to_claims`` with the same options, signed as a CWT (COSE_Sign1, Ed25519, deterministic CBOR)."""
    payload = cbor.encode(_to_cbor(to_claims(result, **options)))
    return cose.sign1(key, payload, content_type=CWT_TYPE)


_BYTES: Final = frozenset({"eat_nonce", "ear_raw_evidence", "evidence_sha256", "kid"})


def _to_cbor(claims: Mapping[str, Any]) -> dict[Any, Any]:
    """Claims with their labels in CBOR: statuses as numbers, base64url as bytes (RFC 9711, section 7.2)."""
    found: dict[Any, Any] = {}
    for name, value in claims.items():
        label = _LABELS.get(name, name)
        if name == "submods":
            found[label] = {part: _to_cbor(inner) for part, inner in value.items()}
        elif name == "ear_trustworthiness_vector":
            found[label] = {_VECTOR[claim]: number for claim, number in value.items()}
        elif name == "ear_verifier_id":
            found[label] = {0: value["developer"], 1: value["build"]}
        elif name == "ear_status":
            found[label] = _TIERS[value]
        elif name == "confide":
            found[label] = _to_cbor(value)
        else:
            found[label] = _unb64(value) if name in _BYTES else value
    return found


def from_cbor(payload: bytes) -> dict[str, Any]:
    """The claims of a CWT's payload with their names in JSON, for ``read``; labels that are not known are left out."""
    value = cbor.decode(payload, what="payload of the EAR", max_size=jose.MAX_TOKEN, max_depth=12)
    if not isinstance(value, dict):
        raise MalformedError("unknown_format", "the payload of the EAR is not a map")
    return _from_cbor(value)


def _from_cbor(value: dict[Any, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for label, item in value.items():
        name = label if isinstance(label, str) else _NAMES.get(label)
        if name is None:
            continue
        if name in found or (isinstance(label, str) and name in _LABELS):
            raise MalformedError("non_canonical", "the EAR spells a claim by its name that has a number")
        found[name] = _claim_from_cbor(name, item)
    return found


def _claim_from_cbor(name: str, item: Any) -> Any:
    if name in {"submods", "ear_trustworthiness_vector", "ear_verifier_id", "confide"} and not isinstance(
        item, dict
    ):
        raise MalformedError("non_canonical", f"`{name}` of the EAR is not a map")
    if name == "submods":
        if any(not isinstance(part, str) or not isinstance(inner, dict) for part, inner in item.items()):
            raise MalformedError("non_canonical", "a submodule of the EAR is not an appraisal")
        return {part: _from_cbor(inner) for part, inner in item.items()}
    if name == "ear_trustworthiness_vector":
        names = {index: claim for claim, index in _VECTOR.items()}
        if any(type(index) is not int or index not in names for index in item):
            raise MalformedError("non_canonical", "the EAR has an unknown claim in a trustworthiness vector")
        return {names[index]: number for index, number in item.items()}
    if name == "ear_verifier_id":
        if set(item) != {0, 1}:
            raise MalformedError("non_canonical", "the verifier id of the EAR is not developer and build")
        return {"developer": item[0], "build": item[1]}
    if name == "confide":
        return _from_cbor(item)
    if name == "ear_status" and type(item) is int:
        return next((word for word, number in _TIERS.items() if number == item), item)
    if isinstance(item, bytes) and name not in _BYTES:
        raise MalformedError("non_canonical", "a claim of the EAR is of another type")
    return _to_json(item)


def _to_json(item: Any) -> Any:
    """A claim that is not interpreted as JSON has it, with bytes in base64url (RFC 9711, section 7.2)."""
    if isinstance(item, dict):
        if any(not isinstance(key, str) for key in item):
            raise MalformedError("non_canonical", "a claim of the EAR has a label that is no text")
        return {key: _to_json(inner) for key, inner in item.items()}
    if isinstance(item, list):
        return [_to_json(inner) for inner in item]
    return _b64(item) if isinstance(item, bytes) else item


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _unb64(text: object) -> bytes:
    return base64_text.decode(cast("str", text), what="claim of the EAR", max_length=jose.MAX_TOKEN, url=True)
