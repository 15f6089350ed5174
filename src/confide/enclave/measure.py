# SPDX-License-Identifier: Apache-2.0
"""Predicting what an enclave will be measured as, without launching it: a service in, an appraisal policy out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confide.attestation.policy import AppraisalPolicy
from confide.enclave import manifest as manifests
from confide.errors import TeeUnavailable
from confide.simulator.measurement import measurement

if TYPE_CHECKING:
    from confide.enclave.distributions import Source
    from confide.enclave.manifest import Manifest, Target
    from confide.enclave.service import Service

__all__ = ["measure", "policy_for"]


def measure(
    service: Service,
    *,
    tee: str = "simulated",
    distributions: Source | None = None,
    target: Target | None = None,
) -> AppraisalPolicy:
    """The policy that admits exactly ``service`` on ``tee``, from the files on this machine (or ``distributions``).

    Raises ``enclave.unmeasured`` for what cannot be measured, ``ConfigurationError`` for what is not installed and
    ``TeeUnavailable`` for a TEE whose image cannot be predicted here.
    """
    return policy_for(manifests.build(service, distributions=distributions, target=target), tee=tee)


def policy_for(manifest: Manifest, *, tee: str = "simulated") -> AppraisalPolicy:
    """The policy that admits exactly the enclave of ``manifest`` on ``tee``."""
    if tee != "simulated":
        raise TeeUnavailable(
            "tee",
            "only simulated measurements can be predicted from a manifest alone",
            hint="on hardware the platform measures an image, whose reference values come with that image",
            stage="measure",
        )
    encoded = manifest.encode()
    lines = [
        "# A policy for one service on a SIMULATED device. It accepts nothing until the verifier allows simulated evidence.",
        'tees = ["snp"]',
        f"allow_debug = {'true' if manifest.service.debug else 'false'}",
        "",
        "[service]",
        f'kind = "{manifest.service.kind}"',
        f'manifest = ["{manifest.digest.hex()}"]',
        f'id = "{manifest.service.id}"',
        "",
        "[reference.snp]",
        f'measurement = ["{measurement(encoded).hex()}"]',
        "",
    ]
    return AppraisalPolicy.from_toml("\n".join(lines))
