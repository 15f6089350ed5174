# SPDX-License-Identifier: Apache-2.0
"""Is a token one that a policy wants? The table ``[reference.token]``, and claims against it.

[reference.token]
kind = "google-confidential-space"         # or "ear", "maa", "ita", "nras"; mandatory
issuer = "https://..."                     # exactly the token's `iss`; mandatory
audience = "https://me.example"            # exactly one of the token's `aud`; mandatory for google-confidential-space
keys = ["<64 hex digits>"]                 # SHA-256 of the signer's SubjectPublicKeyInfo; this, or
roots = ["<64 hex digits>"]                # SHA-256 of the DER of the root of its chain; or
roots = "google-confidential-space"        # the root that comes with confide
claims = { "submods.container.image_digest" = ["sha256:..."] }      # mandatory; or "ANY", spelled out
tees = ["tdx"]                             # hardware that the token may speak of; default: snp, tdx, sgx, nitro, nvidia
tier = "affirming"                         # the lowest that an EAR may have; or "warning"
max_age = "5m"                             # since `iat`, by the issuer's clock

The paths of ``claims`` are explained in ``tokens.paths``. Without ``audience`` a token must carry none either.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from confide.attestation.anchors import TrustAnchor
from confide.attestation.policy import digests
from confide.attestation.result import Tier, Vector, unacceptable
from confide.attestation.tokens import endorse, google, kinds, paths
from confide.attestation.tokens.authenticate import TokenDetails
from confide.errors import AttestationError, ConfigurationError, MalformedError, NotAcceptable
from confide.wire import strict_json
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from confide.attestation.claims import Claims
    from confide.attestation.policy import AppraisalPolicy
    from confide.errors import Reason

__all__ = ["TokenReference", "appraise", "describe", "parse_reference", "trustworthiness"]

BUILT_IN: Final = "google-confidential-space"
STRONG: Final = ("snp", "tdx", "sgx", "nitro", "nvidia")
WEAK: Final = ("sev", "sev-es", "shielded-vm", "tpm", "simulated", "unknown")
MAX_CLAIMS: Final = 64
MAX_VALUES: Final = 256
_AGE = re.compile(r"([1-9][0-9]{0,5})([smhd])", re.ASCII)
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_TIERS: Final = {"affirming": Tier.AFFIRMING, "warning": Tier.WARNING}


@dataclass(frozen=True, slots=True)
class TokenReference:
    """The parsed table; ``claims`` None is the spelled ``ANY``, ``audience`` None one that is not asked for."""

    kind: str
    issuer: str
    audience: str | None
    keys: tuple[bytes, ...]
    roots: tuple[bytes, ...]
    built_in: bool
    claims: Mapping[str, tuple[Any, ...]] | None
    tees: tuple[str, ...]
    tier: Tier
    max_age: int | None

    @property
    def measured(self) -> bool:
        """Whether a claim is pinned by which the issuer names what runs."""
        measuring = kinds.KINDS[self.kind].MEASURED
        return any(
            path == name or path.endswith(f".{name}")
            for path in map(paths.last_name, self.claims or {})
            for name in measuring
        )

    @property
    def wildcards(self) -> tuple[str, ...]:
        """What is open: claims (or the measuring one among them), and the audience where none is asked for."""
        names = () if self.claims is not None else ("claims",)
        if self.claims is not None and not self.measured:
            names = ("measurement",)
        return (*names, *(("audience",) if self.audience is None else ()))

    @property
    def anchors(self) -> tuple[TrustAnchor, ...]:
        """The issuer with the pinned keys and roots, both by SHA-256; what they stand for comes as endorsements."""
        certificates = (endorse.google_root(),) if self.built_in else ()
        return (TrustAnchor("token", self.issuer, certificates, keys=(*self.keys, *self.roots)),)


def parse_reference(table: Mapping[str, object]) -> TokenReference:
    """The table ``[reference.token]``. Raises ``configuration.invalid`` for what is written wrongly, and
    ``not_acceptable.empty_policy`` where no key or root, or no claim, is pinned.
    """
    fields = Fields(table, "[reference.token]", ConfigurationError)
    kind = fields.text("kind", 64)
    if kind not in kinds.KINDS:
        raise ConfigurationError(
            "invalid", "`kind` in [reference.token] is not known", hint=f"one of {', '.join(kinds.KINDS)}"
        )
    issuer = fields.text("issuer", 512)
    audience = fields.text("audience", 512, default=None)
    if not issuer or audience == "":
        raise ConfigurationError("invalid", "`issuer` or `audience` in [reference.token] is empty")
    if audience is None and kind in kinds.AUDIENCE_MANDATORY:
        raise NotAcceptable(
            "empty_policy",
            "[reference.token] names no audience, so that a token made for anybody would pass",
            hint='add `audience = "..."`, exactly as the token was asked for',
        )
    built_in = table.get("roots") == BUILT_IN
    if built_in:
        fields.text("roots")
        if kind != BUILT_IN or issuer != google.ISSUER:
            raise ConfigurationError("invalid", "the built-in root speaks for Google Confidential Space only")
    roots = () if built_in else digests(fields, "roots", 32, default=()) or ()
    keys = digests(fields, "keys", 32, default=()) or ()
    if not keys and not roots and not built_in:
        raise NotAcceptable(
            "empty_policy",
            "[reference.token] pins neither a key nor a root, so that nobody can be believed",
            hint="add `keys` with the SHA-256 of the issuer's SubjectPublicKeyInfo, or `roots`",
        )
    reference = TokenReference(
        kind=kind,
        issuer=issuer,
        audience=audience,
        keys=keys,
        roots=roots,
        built_in=built_in,
        claims=_claims(fields, table),
        tees=_tees(fields),
        tier=_tier(fields.text("tier", 16, default="affirming")),
        max_age=_age(fields.text("max_age", 16, default=None)),
    )
    fields.end()
    return reference


def _claims(fields: Fields, table: Mapping[str, object]) -> Mapping[str, tuple[Any, ...]] | None:
    if table.get("claims") == "ANY":
        fields.text("claims")
        return None
    found = fields.mapping("claims", default={})
    if not found:
        raise NotAcceptable(
            "empty_policy",
            "[reference.token] pins no claim",
            hint='add `claims = { "path" = ["value"] }`, or spell `claims = "ANY"` if you mean it',
        )
    if len(found) > MAX_CLAIMS:
        raise ConfigurationError("invalid", f"`claims` has more than {MAX_CLAIMS} paths")
    for path, values in found.items():
        paths.check_path(path)
        if not isinstance(values, list) or len(values) > MAX_VALUES:
            raise ConfigurationError(
                "invalid", "`claims` gives a path no list of values", hint='write "path" = ["value"]'
            )
        if not values:
            raise NotAcceptable("empty_policy", "`claims` has an empty list, which admits nothing")
        for value in values:
            _check_value(value)
    return MappingProxyType({path: tuple(values) for path, values in found.items()})


def _check_value(value: Any) -> None:
    """Dates, infinities and the like have no JSON, so that no claim could ever be equal to them."""
    try:
        strict_json.encode(value)
    except MalformedError:
        raise ConfigurationError("invalid", "`claims` has a value that no token can have") from None


def _tees(fields: Fields) -> tuple[str, ...]:
    values = fields.list_("tees", 16, default=list(STRONG))
    if not values or any(value not in {*STRONG, *WEAK} for value in values):
        raise ConfigurationError(
            "invalid",
            "`tees` in [reference.token] has a word that is not known",
            hint=f"known: {', '.join((*STRONG, *WEAK))}",
        )
    return tuple(values)


def _tier(text: str) -> Tier:
    if text not in _TIERS:
        raise ConfigurationError("invalid", '`tier` is neither "affirming" nor "warning"')
    return _TIERS[text]


def _age(text: str | None) -> int | None:
    if text is None:
        return None
    found = _AGE.fullmatch(text)
    if found is None:
        raise ConfigurationError(
            "invalid", "`max_age` in [reference.token] is not a duration", hint='write "45s", "30m" or "1h"'
        )
    return int(found[1]) * _UNITS[found[2]]


def appraise(claims: Claims, reference: object, policy: AppraisalPolicy) -> tuple[Reason, ...]:
    """Every way in which authenticated claims differ from what the policy wants; empty if there is none."""
    details, wanted = _details(claims), _reference(reference)
    said = details.said
    found: list[Reason] = []

    def need(condition: bool, leaf: str, message: str, hint: str = "", stage: str = "policy") -> None:  # noqa: FBT001
        if not condition:
            found.append(unacceptable(leaf, message, hint=hint, stage=stage))

    need(details.kind == wanted.kind, "identity", "the token is of another kind than the policy names")
    need(details.issuer == wanted.issuer, "identity", "the token is of another issuer than the policy names")
    pinned = details.signer in wanted.keys if details.root is None else _root_pinned(details.root, wanted)
    need(
        pinned,
        "signer",
        "the token is genuine, but the policy does not name the key or root that vouches for it",
        'name it in `keys` or `roots`; for Google\'s own root write `roots = "google-confidential-space"`',
    )
    if wanted.audience is None:
        need(
            not details.audience, "identity", "the token was made for an audience, and the policy names none"
        )
    else:
        need(
            wanted.audience in details.audience,
            "identity",
            "the token was made for another audience than the policy names",
        )
    need(
        bool(said.hardware) and set(said.hardware) <= set(wanted.tees),
        "tee",
        "the token speaks of hardware that the policy does not admit",
        f"known: {', '.join((*STRONG, *WEAK))}; see `tees` in [reference.token]",
    )
    need(
        policy.allow_debug or said.debug is False,
        "debug",
        "the token says that debugging is possible, or does not say that it is not",
        "launch without debugging; `allow_debug = true` accepts this for development",
    )
    need(
        Tier.NONE < said.tier <= wanted.tier,
        "attributes",
        "the issuer's own verdict is worse than the policy admits",
        'read its claims with `confide inspect`; `tier = "warning"` accepts warnings',
    )
    need(
        wanted.max_age is None or details.age <= wanted.max_age,
        "stale",
        "the token is older than the policy admits",
        "ask its issuer for a new one",
    )
    found += [
        unacceptable(
            "out_of_date",
            f"the issuer reports a TCB status that the policy does not admit{_named(status)}",
            hint="update the machine, or add the status to `tcb_status`",
            stage="tcb",
        )
        for status in said.statuses
        if status not in policy.tcb_status
    ]
    found += said.objections
    found += _pins(said.tree, wanted)
    return tuple(found)


def _named(status: str) -> str:
    """The status in a message if it is a word: its issuer's signature has been verified."""
    return f": {status}" if re.fullmatch(r"[A-Za-z]{1,64}", status) else ""


def _root_pinned(root: bytes, wanted: TokenReference) -> bool:
    return root in wanted.roots or (
        wanted.built_in and root == hashlib.sha256(endorse.google_root()).digest()
    )


def _pins(tree: Mapping[str, Any], wanted: TokenReference) -> list[Reason]:
    measuring = kinds.KINDS[wanted.kind].MEASURED
    found = []
    for path, values in (wanted.claims or {}).items():
        if paths.allowed(tree, path, values):
            continue
        name = paths.last_name(path)
        leaf = (
            "measurement"
            if any(name == one or name.endswith(f".{one}") for one in measuring)
            else "attributes"
        )
        found.append(
            unacceptable(
                leaf,
                f"the claim `{path}` is absent, or has none of the values that the policy names",
                hint="compare it with `confide inspect`",
            )
        )
    return found


def trustworthiness(claims: Claims, reference: object) -> Vector:
    """EAR's claims for an accepted token: an EAR's own, else what the issuer's words come to."""
    details, wanted = _details(claims), _reference(reference)
    said = details.said
    weak = any(tee not in STRONG for tee in said.hardware)
    if details.kind == "ear":
        good = Tier.of(said.vector.hardware) < Tier.WARNING
        return replace(said.vector, hardware=32) if weak and good else said.vector
    vector = replace(said.vector, executables=3 if wanted.measured else 33)
    if weak:
        vector = replace(vector, hardware=32, runtime_opaque=96)
    if any(status != "UpToDate" for status in said.statuses):
        vector = replace(vector, hardware=max(vector.hardware, 32))
    if said.debug is not False:
        vector = replace(vector, configuration=96, runtime_opaque=96)
    return vector


def describe(claims: Claims) -> Mapping[str, object]:
    """The claims as JSON values: who vouches, for how long, and what it says."""
    details = _details(claims)
    return {
        "kind": details.kind,
        "issuer": details.issuer,
        "audience": list(details.audience),
        "issued_at": details.issued_at.isoformat(),
        "expires": details.expires.isoformat(),
        "algorithm": details.algorithm,
        "signer_spki_sha256": details.signer.hex(),
        "root_sha256": None if details.root is None else details.root.hex(),
        "hardware": list(details.said.hardware),
        "debug": details.said.debug,
        "nonce": claims.report_data.hex(),
        "measurements": {name: value.hex() for name, value in claims.measurements.items()},
        "tcb_status": list(details.said.statuses),
        "token": _plain(details.said.tree),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, dict | MappingProxyType):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _details(claims: Claims) -> TokenDetails:
    if not isinstance(claims.details, TokenDetails):
        raise AttestationError("internal", "claims of another TEE", stage="internal")
    return claims.details


def _reference(reference: object) -> TokenReference:
    if not isinstance(reference, TokenReference):
        raise AttestationError("internal", "reference values of another TEE", stage="internal")
    return reference
