# SPDX-License-Identifier: Apache-2.0
"""Bundles of confide over minted SEV-SNP reports: fresh ones that answer a nonce and cached ones that answer none."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING, Any

from confide.attestation import binding
from confide.attestation.key_material import KeyMaterial, ServiceIdentity
from confide.attestation.verifier import Verifier
from support import snp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from confide.attestation.evidence import Evidence

MANIFEST = b"the measured manifest"
SERVICE = {"kind": "model", "manifest": [hashlib.sha256(MANIFEST).hexdigest()], "id": "acme"}


def material(**changes: Any) -> KeyMaterial:
    """Key material of a model service, issued one minute before the tests' time."""
    base = KeyMaterial(
        purpose="channel",
        audience="client",
        service=ServiceIdentity("model", hashlib.sha256(MANIFEST).digest(), "acme", b"\x0a" * 16),
        key=bytes(range(256)) * 4 + bytes(192),
        receipt_key=b"\x0b" * 32,
        epoch=1,
        lifetime=3600,
        issued_at=int(snp.AT.timestamp()) - 60,
        at_most_once=False,
        content={"weights": b"\x0c" * 32},
        max_body=1 << 30,
        max_session=3600,
    )
    return dataclasses.replace(base, **changes)


def _bundle(key_material: bytes, report_data: bytes, proof: binding.NonceProof | None) -> Evidence:
    case = snp.mint(version=5, report={"report_data": report_data})
    return dataclasses.replace(case.evidence, key_material=key_material, manifest=MANIFEST, proof=proof)


def fresh(nonce: bytes, *, batch: Sequence[bytes] | None = None, **changes: Any) -> Evidence:
    """A bundle that answers ``nonce``, alone or as one of a ``batch``."""
    encoded = material(**changes).encode()
    nonces = [nonce] if batch is None else list(batch)
    leaves = [binding.leaf(one, encoded) for one in nonces]
    proof = binding.batch_proofs(leaves)[nonces.index(nonce)]
    return _bundle(encoded, binding.report_data(binding.batch_root(leaves)), proof)


def cached(*, report_data: bytes | None = None, **changes: Any) -> Evidence:
    """A bundle that answers no nonce."""
    encoded = material(**changes).encode()
    data = binding.report_data(binding.leaf(b"", encoded)) if report_data is None else report_data
    return _bundle(encoded, data, None)


def verifier(*, reference: dict[str, Any] | None = None, top: dict[str, Any] | None = None) -> Verifier:
    """A Verifier of the service in these bundles, under the tests' own root."""
    table: dict[str, Any] = {"service": SERVICE} | (top or {})
    wanted = {key: value for key, value in table.items() if value is not None}
    return Verifier(snp.policy(reference, **wanted), extra_anchors=(snp.authority().anchor(),))
