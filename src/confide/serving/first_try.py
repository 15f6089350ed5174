# SPDX-License-Identifier: Apache-2.0
"""``confide serve MODEL``: from a model file to a running enclave on loopback, with everything written down beside it.

A first try has owner, operator and client on one machine. What it leaves in the folder is what they would exchange if
they were three: ``service.toml`` (what runs), ``policy.toml`` (what the others accept), ``NAME.confide`` (the ciphertext).
"""

from __future__ import annotations

import ipaddress
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from confide.attestation.verifier import Verifier
from confide.errors import ConfigurationError
from confide.host.enclave import Enclave
from confide.keys.identity import Identity
from confide.keys.keyring import Keyring
from confide.serving.protecting import Protected, name_of, protect_for_service
from confide.simulator import anchor

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from confide.attestation.result import AttestationResult
    from confide.sealing.protected_file import Progress

__all__ = ["FirstTry", "serve"]

_START: Final = 60.0


@dataclass(frozen=True, slots=True)
class FirstTry:
    """A model that is being served; a context manager that ends the enclave."""

    enclave: Enclave
    name: str
    folder: Path
    identity: Identity
    protected: Protected
    attestation: AttestationResult
    """What the owner's process accepted before it handed the key over."""

    @property
    def url(self) -> str:
        """Where the enclave listens."""
        return self.enclave.url

    @property
    def service_path(self) -> Path:
        """The service as a file."""
        return self.folder / "service.toml"

    @property
    def policy_path(self) -> Path:
        """The policy that a client gives to its Verifier."""
        return self.folder / "policy.toml"

    @property
    def protected_path(self) -> Path:
        """The encrypted model."""
        return self.folder / f"{self.name}.confide"

    @property
    def client_lines(self) -> tuple[str, ...]:
        """Python that calls the model, complete, as it would be typed."""
        return (
            "from confide import AppraisalPolicy, ModelService, Verifier, simulator",
            "",
            f"policy = AppraisalPolicy.from_file({str(self.policy_path)!r})",
            "verifier = Verifier(policy, extra_anchors=[simulator.anchor()], allow_simulated=True)",
            f"with ModelService.connect({self.url!r}, verifier) as model:",
            "    print(model.metadata)",
            "    outputs = model.predict({...})  # {input name: numpy array}",
        )

    @property
    def shell_lines(self) -> tuple[str, ...]:
        """The same by command: a local proxy for curl and other clients of the Open Inference Protocol."""
        consent = "--allow-simulated --anchor local"
        return (
            f"confide proxy {self.url} --policy {self.policy_path} {consent} --listen 127.0.0.1:8000",
            f"curl http://127.0.0.1:8000/v2/models/{self.name}",
        )

    def stop(self) -> None:
        """End the enclave; its keys go with it."""
        self.enclave.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def serve(
    model: Path,
    *,
    folder: Path,
    name: str | None = None,
    service_id: str = "default",
    listen: tuple[str, int] = ("127.0.0.1", 0),
    identity: Identity | None = None,
    keyring: Keyring | None = None,
    progress: Progress | None = None,
    simulator_directory: Path | None = None,
    state_directory: Path | None = None,
) -> FirstTry:
    """Protect ``model`` into ``folder``, launch a simulated enclave that serves it on loopback, and unlock it.

    A ``service.toml`` that is in ``folder`` already is used as it is; the key gets a new version with each call. Raises
    ConfigurationError for an address other than loopback, and whatever protecting, launching and unlocking raise; then
    no enclave is left running.
    """
    _require_loopback(listen)
    identity = Identity.open_or_create() if identity is None else identity
    keyring = Keyring() if keyring is None else keyring
    name = name_of(model) if name is None else name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        raise ConfigurationError(
            "invalid", "the folder for service, policy and protected model cannot be made"
        ) from None
    path = folder / f"{name}.confide"
    protected = protect_for_service(
        model,
        service_path=folder / "service.toml",
        output=path,
        policy_path=folder / "policy.toml",
        identity=identity,
        name=name,
        service_id=service_id,
        keyring=keyring,
        progress=progress,
    )
    with ExitStack() as on_failure:
        enclave = Enclave.launch(
            protected.service,
            tee="simulated",
            data={name: path},
            listen=listen,
            simulator_directory=simulator_directory,
            state_directory=state_directory,
        )
        on_failure.callback(enclave.stop)
        verifier = Verifier(
            protected.policy, extra_anchors=(anchor(simulator_directory),), allow_simulated=True
        )
        done = protected.unlock(enclave.url, verifier)
        enclave.wait_until("running", timeout=_START)
        on_failure.pop_all()
    return FirstTry(enclave, name, folder, identity, protected, done.result)


def _require_loopback(listen: tuple[str, int]) -> None:
    host = listen[0]
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ConfigurationError(
            "listen",
            "a simulated enclave listens on loopback only",
            hint="it protects nothing from the owner of this machine, so nobody else should rely on it; use 127.0.0.1",
        )
