# SPDX-License-Identifier: Apache-2.0
"""From nothing to the first answer, and what a client pays for an attested session.

Cold: `Enclave.launch` of the ONNX service (measured, confined, unlocked) to its first prediction, wall time; target 3 s. Peer: the same
model loaded and run by onnxruntime in a fresh interpreter. Session: CPU time of a client with cached endorsements, from asking
for evidence to being ready to send; target 20 ms. Peer: one ECDSA P-384 check, the dearest thing in it.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from benchmarks import harness

from confide import simulator
from confide.attestation.verifier import Verifier
from confide.channel.client import Client
from confide.cli.demo_model import INPUT, FileClassifier
from confide.host.enclave import Enclave
from confide.keys.identity import Identity
from confide.keys.keyring import Keyring
from confide.keys.unlock import unlock
from confide.serving.model_service import ModelService
from confide.serving.protecting import protect_for_service

if TYPE_CHECKING:
    from confide.serving.protecting import Protected

_PLAIN = """
import sys, numpy, onnxruntime
session = onnxruntime.InferenceSession(open(sys.argv[1], "rb").read(), providers=["CPUExecutionProvider"])
session.run(None, {"bytes": numpy.full((1, 2048), 256, dtype=numpy.int32)})
"""


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    options = harness.parser(__doc__ or "").parse_args(arguments)
    classifier = FileClassifier.installed()
    report = harness.Report("Launch and session")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        identity = Identity.open_or_create("owner", folder / "identities")
        keyring = Keyring(folder / "keys")
        protected = protect_for_service(
            classifier.path,
            service_path=folder / "service.toml",
            output=folder / "model.confide",
            policy_path=folder / "policy.toml",
            identity=identity,
            keyring=keyring,
        )
        anchor = simulator.anchor(folder / "simulator")
        verifier = Verifier(protected.policy, extra_anchors=(anchor,), allow_simulated=True)
        cold, plain, sessions = [], [], []
        for repetition in range(-1, min(options.repetitions, 5)):
            began = time.perf_counter()
            with _launch(protected, folder, verifier, identity, keyring) as enclave:
                _predict(enclave, verifier)
                took = time.perf_counter() - began
                if repetition >= 0:
                    cold.append(took)
                    sessions += [_session(enclave, verifier) for _ in range(10)]
            began = time.perf_counter()
            subprocess.run(
                [sys.executable, "-c", _PLAIN, str(classifier.path)], check=True, capture_output=True
            )
            if repetition >= 0:
                plain.append(time.perf_counter() - began)
    report.difference(
        "launch",
        "to the first prediction, over plain onnxruntime",
        statistics.median(cold),
        statistics.median(plain),
        at_most=3.0,
        unit="s",
    )
    report.difference(
        "session", "attested session, CPU", statistics.median(sessions), 0.0, at_most=20, unit="ms"
    )
    report.show(as_json=options.json)


def _launch(
    protected: Protected, folder: Path, verifier: Verifier, identity: Identity, keyring: Keyring
) -> Enclave:
    enclave = Enclave.launch(
        protected.service,
        tee="simulated",
        data={protected.key.name: folder / "model.confide"},
        simulator_directory=folder / "simulator",
        state_directory=folder / "state",
    )
    key = keyring.get(protected.key.name, protected.key.version)
    unlock(enclave.url, verifier=verifier, secrets={key.name: key.secret}, identity=identity)
    enclave.wait_until("running", timeout=60)
    return enclave


def _predict(enclave: Enclave, verifier: Verifier) -> None:
    with ModelService.connect(enclave.url, verifier) as model:
        model.predict({INPUT: np.full((1, 2048), 256, dtype=np.int32)})


def _session(enclave: Enclave, verifier: Verifier) -> float:
    began = time.process_time()
    with Client(enclave.url, verifier):
        return time.process_time() - began


if __name__ == "__main__":
    main()
