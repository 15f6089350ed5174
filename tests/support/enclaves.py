# SPDX-License-Identifier: Apache-2.0
"""Launching real enclaves in tests, with one simulated root for the whole run and no trace in the user's folders."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from confide import simulator
from confide.attestation.verifier import Verifier
from confide.channel.client import Client
from confide.enclave.application import Application
from confide.enclave.measure import policy_for
from confide.host.enclave import Enclave

if TYPE_CHECKING:
    from collections.abc import Iterator

    from confide.enclave.service import Service

__all__ = ["SAMPLES", "Launcher", "launcher", "sample_application"]

SAMPLES = Path(__file__).parents[1] / "samples"
_ROOTS: dict[str, Path] = {}


def sample_application(**options: Any) -> Application:
    """`tests/samples/confidential_app.py` as a service."""
    return Application("confidential_app:app", code=[SAMPLES / "confidential_app.py"], **options)


@dataclass(frozen=True, slots=True)
class Launcher:
    """Where simulated root and records lie; launches and connects with them."""

    simulator_directory: Path
    state_directory: Path

    @contextmanager
    def launch(self, service: Service, **options: Any) -> Iterator[Enclave]:
        enclave = Enclave.launch(
            service,
            tee=options.pop("tee", "simulated"),
            simulator_directory=self.simulator_directory,
            state_directory=self.state_directory,
            timeout=60,
            **options,
        )
        with enclave:
            yield enclave

    def verifier(self, enclave: Enclave) -> Verifier:
        if enclave.manifest is None:
            pytest.fail("a launched enclave has a manifest")
        return Verifier(
            policy_for(enclave.manifest),
            extra_anchors=[simulator.anchor(self.simulator_directory)],
            allow_simulated=True,
        )

    def connect(self, enclave: Enclave, **options: Any) -> Client:
        return Client(enclave.url, self.verifier(enclave), **options)


@pytest.fixture(scope="session")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Launcher:
    """Launches enclaves; skips where workers cannot run."""
    if sys.platform != "linux":
        pytest.skip("enclaves are launched on Linux here")
    if "root" not in _ROOTS:
        _ROOTS["root"] = tmp_path_factory.mktemp("simulator") / "root"
    return Launcher(_ROOTS["root"], tmp_path_factory.mktemp("state") / "enclaves")
