# SPDX-License-Identifier: Apache-2.0
"""NVIDIA Remote Attestation Service: a detached EAT bundle of one overall JWT and one JWT for each GPU or switch (ES384).

The overall token names each part by SHA-256 over the part's compact serialisation (RFC 9711, section 4.2.18.2, detached
submodule digest). Source: NVIDIA's documentation of attestation claims, version 3.0; seen on real bytes.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

from confide.attestation.result import unacceptable
from confide.attestation.tokens.said import Said, member
from confide.errors import MalformedError, NotGenuine
from confide.wire import hexadecimal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from confide.errors import Reason

ISSUER: Final = "https://nras.attestation.nvidia.com"
ALGORITHMS: Final = frozenset({"ES384"})
MEASURED: Final = frozenset({"measres", "x-nvidia-gpu-driver-version", "x-nvidia-gpu-vbios-version"})
UNPROVEN: Final = ()

_OVERALL: Final = "x-nvidia-overall-att-result"
_MUST_BE_TRUE: Final = (
    "x-nvidia-gpu-attestation-report-cert-chain-fwid-match",
    "x-nvidia-gpu-attestation-report-nonce-match",
    "x-nvidia-gpu-attestation-report-parsed",
    "x-nvidia-gpu-attestation-report-signature-verified",
    "x-nvidia-gpu-arch-check",
    "x-nvidia-gpu-driver-rim-signature-verified",
    "x-nvidia-gpu-driver-rim-version-match",
    "x-nvidia-gpu-vbios-rim-signature-verified",
    "x-nvidia-gpu-vbios-rim-version-match",
    "x-nvidia-gpu-vbios-index-no-conflict",
    "secboot",
)
_CHAINS: Final = (
    "x-nvidia-gpu-attestation-report-cert-chain",
    "x-nvidia-gpu-driver-rim-cert-chain",
    "x-nvidia-gpu-vbios-rim-cert-chain",
)


def recognises(claims: Mapping[str, Any]) -> bool:
    """Whether an overall payload is of this kind."""
    return _OVERALL in claims


def digests(claims: Mapping[str, Any]) -> dict[str, bytes]:
    """By its name, the SHA-256 that the overall token gives for each part."""
    submods = member(claims, "submods", dict)
    if not submods:
        raise MalformedError("non_canonical", "the overall token names no part")
    return {name: _digest(value) for name, value in submods.items()}


def _digest(value: object) -> bytes:
    match value:
        case ["DIGEST", ["SHA-256", str() as text]]:
            return hexadecimal.decode(text, what="digest of a part", length=32)
    raise MalformedError("non_canonical", "the overall token names a part by no SHA-256")


def linked(part: str, digest: bytes) -> bool:
    """Whether a part's compact serialisation has this SHA-256."""
    return hashlib.sha256(part.encode("utf-8", "surrogatepass")).digest() == digest


def read(claims: Mapping[str, Any], parts: Mapping[str, Mapping[str, Any]]) -> Said:
    """The overall claims with the parts' put in the place of their digests; digests were compared before."""
    nonce = member(claims, "eat_nonce", str)
    if nonce is None:
        raise MalformedError("non_canonical", "the token has no `eat_nonce`")
    if not parts or any(part.get("eat_nonce") != nonce for part in parts.values()):
        raise NotGenuine(
            "identity_mismatch", "a part of the token answers another nonce than the whole", stage="identity"
        )
    objections: list[Reason] = []
    if claims.get(_OVERALL) is not True:
        objections.append(unacceptable("attributes", "NVIDIA's service says that attestation failed"))
    devices = [device for part in parts.values() if (device := member(part, "ueid", str)) is not None]
    if len(set(devices)) != len(devices):
        objections.append(unacceptable("identity", "two parts are about one and the same device"))
    for part in parts.values():
        objections += _objections(part)
    statuses = [member(part, "dbgstat", str) for part in parts.values()]
    return Said(
        tree={**claims, "submods": dict(parts)},
        hardware=("nvidia",),
        debug=None if None in statuses else any(status != "disabled" for status in statuses),
        nonce=hexadecimal.decode(nonce, what="nonce of the token", length=32),
        objections=tuple(objections),
    )


def _objections(part: Mapping[str, Any]) -> list[Reason]:
    found = [
        unacceptable("attributes", f"NVIDIA's service does not say `{name}` of a device")
        for name in _MUST_BE_TRUE
        if part.get(name) is not True
    ]
    if part.get("measres") != "success":
        found.append(
            unacceptable(
                "measurement", "NVIDIA's service found measurements of a device that are in no reference file"
            )
        )
    for name in _CHAINS:
        chain = member(part, name, dict) or {}
        if chain.get("x-nvidia-cert-status") != "valid" or chain.get("x-nvidia-cert-ocsp-status") != "good":
            found.append(unacceptable("attributes", f"NVIDIA's service does not call `{name}` good"))
    return found
