# SPDX-License-Identifier: Apache-2.0
"""Google Confidential Space: an attestation token of type PKI (RS256, `x5c`) or OIDC (RS256, keys published as JWKS).

Source: "Confidential Space token claims" in Google Cloud's documentation. Seen on real bytes: TDX, PKI.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from confide.attestation.result import unacceptable
from confide.attestation.tokens.said import Said, member, nonce_text
from confide.errors import MalformedError
from confide.wire import hexadecimal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from confide.errors import Reason

ISSUER: Final = "https://confidentialcomputing.googleapis.com"
ALGORITHMS: Final = frozenset({"RS256"})
MEASURED: Final = frozenset({"image_digest"})
UNPROVEN: Final = ()

# SEV alone protects no integrity, and a Shielded VM no memory; only a policy that names them accepts them.
_HARDWARE: Final = {
    "GCP_INTEL_TDX": "tdx",
    "GCP_AMD_SEV_SNP": "snp",
    "GCP_AMD_SEV": "sev",
    "GCP_AMD_SEV_ES": "sev-es",
    "GCP_SHIELDED_VM": "shielded-vm",
}
_DISABLED: Final = frozenset(
    {"disabled", "disabled-since-boot", "disabled-permanently", "disabled-fully-and-permanently"}
)


def recognises(claims: Mapping[str, Any]) -> bool:
    """Whether a payload is of this kind."""
    return claims.get("iss") == ISSUER and "swname" in claims


def read(claims: Mapping[str, Any], parts: Mapping[str, Mapping[str, Any]]) -> Said:
    """The claims in common terms. Several nonces, which Google allows, bind no single verifier: the nonce is then empty, as
    it is without any.
    """
    if parts:
        raise MalformedError("unknown_format", "a token of this issuer has no detached parts")
    model = member(claims, "hwmodel", str)
    status = member(claims, "dbgstat", str)
    submods = member(claims, "submods", dict) or {}
    container = member(submods, "container", dict) or {}
    measurements = {}
    digest = member(container, "image_digest", str)
    if digest is not None:
        algorithm, _, text = digest.partition(":")
        if algorithm != "sha256":
            raise MalformedError("non_canonical", "the image digest of the token is not a SHA-256")
        measurements["image_digest"] = hexadecimal.decode(text, what="image digest", length=32)
    tcb = member(claims, "tdx", dict) or {}
    found = member(tcb, "gcp_attester_tcb_status", str)
    return Said(
        tree=claims,
        hardware=(_HARDWARE.get(model or "", "unknown"),),
        debug=None if status is None else status not in _DISABLED,
        # Google echoes the nonces that were asked for; the token that it makes unasked has no such claim.
        nonce=_nonce(claims["eat_nonce"]) if "eat_nonce" in claims else None,
        measurements=measurements,
        statuses=() if found is None else (found,),
        objections=tuple(_objections(claims)),
    )


def _nonce(value: Any) -> bytes:
    values = value if isinstance(value, list) else [value]
    if not values or any(not isinstance(item, str) for item in values):
        raise MalformedError("non_canonical", "the token has no `eat_nonce` of text")
    nonces = [nonce_text(item) for item in values]
    return nonces[0] if len(nonces) == 1 else b""


def _objections(claims: Mapping[str, Any]) -> list[Reason]:
    found = []
    if claims.get("swname") != "CONFIDENTIAL_SPACE":
        found.append(unacceptable("attributes", "the token does not speak of a Confidential Space image"))
    if claims.get("secboot") is not True:
        found.append(unacceptable("attributes", "the token does not say that secure boot was in force"))
    return found
