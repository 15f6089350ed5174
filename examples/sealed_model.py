# SPDX-License-Identifier: Apache-2.0
"""Seal a model and an inference function into an enclave, attest it, call it with encrypted data.

    python examples/sealed_model.py

Runs on a SIMULATED enclave: the steps and the checks are the real ones, the protection from this machine's owner is not.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from scoring import predict

from confide import Enclave, Function, Verifier, protect, simulator
from confide.keys.identity import Identity


def main(folder: Path) -> None:
    np.save(folder / "weights.npy", np.array([0.5, -1.0, 2.0]))
    owner = Identity.open_or_create()

    service = Function(predict, id="scoring", models={"weights": owner.public}, requires=["numpy"])
    sealed = protect(folder / "weights.npy", service, folder / "weights.confide")
    verifier = Verifier(sealed.policy, extra_anchors=[simulator.anchor()], allow_simulated=True)

    with Enclave.launch(service, tee="simulated", data={"weights": sealed.output}) as enclave:
        sealed.unlock(enclave.url, verifier)
        enclave.wait_until("running", timeout=60)
        with Function.connect(enclave.url, verifier) as call:
            scores = call(np.array([[2.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
            print("attested:", call.attestation.tee, "SIMULATED" if call.attestation.simulated else "")
            print("scores:", ", ".join(f"{score:.3f}" for score in scores))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name))
