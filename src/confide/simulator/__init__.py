# SPDX-License-Identifier: Apache-2.0
"""A simulated TEE: it signs what real hardware would sign, in the same bytes, under a root that is this machine's own.

It protects nothing from whoever owns the machine. Evidence of it is accepted only with two consents in code,
``Verifier(..., extra_anchors=[simulator.anchor()], allow_simulated=True)``; no file and no variable can give them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from confide.attestation.anchors import TrustAnchor

__all__ = ["anchor"]


def anchor(directory: Path | None = None) -> TrustAnchor:
    """The trust anchor of this machine's simulated devices, made on first use; ``simulated`` is set in it.

    Raises ``enclave.bad_state`` when the installation in ``directory`` is damaged or readable by others.
    """
    from confide.simulator.installation import public_anchor

    return public_anchor(directory)
