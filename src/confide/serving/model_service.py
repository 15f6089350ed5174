# SPDX-License-Identifier: Apache-2.0
"""A service that serves models, in a few lines:

service = ModelService(name="magika", owner=identity.public, id="acme")
with Enclave.launch(service, tee="simulated", data={"magika": path}) as enclave: ...

with ModelService.connect(url, verifier) as model:
model.predict({"bytes": array})
"""

from __future__ import annotations

from dataclasses import fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Self

from confide.enclave.service import BrokerAddress, Limits, SecretPin, Service
from confide.errors import ConfigurationError, ModelError
from confide.serving.settings import MIB, ModelEntry, ModelSettings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from confide.attestation.verifier import Verifier
    from confide.serving.client import ModelClient

__all__ = ["ModelService"]

KIND: Final = "model"
_REQUIRES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({"onnx": ("numpy", "onnxruntime")})
_OTHER_THREADS: Final = (
    24  # the event loop, the channel's and the runtime's own, and replacements of lost workers
)
_FAST: Final = ("httptools", "uvloop")


class ModelService(Service):
    """The measured configuration of a service for one or more models of one owner.

    ``owner`` is the Ed25519 public key (32 bytes) of who alone can supply the models and their keys; ``id`` names the
    tenant. ``name``, ``format`` and ``version`` describe one model; ``models`` more of them. ``workers`` runs go at a time,
    with ``threads`` threads each; ``waiting`` more requests are held. ``max_output`` is in bytes per request.
    ``non_finite`` admits NaN and infinities. ``fast`` measures uvloop and httptools in, which then carry the HTTP of the
    enclave. ``at_most_once`` defaults to false, since a prediction may be repeated.

    Raises ConfigurationError for a value that a manifest cannot say.
    """

    __slots__ = ()

    def __init__(
        self,
        name: str | None = None,
        *,
        owner: bytes,
        id: str = "default",  # noqa: A002 - the service's own word
        format: str = "onnx",  # noqa: A002
        version: str = "1",
        models: tuple[ModelEntry, ...] = (),
        workers: int = 1,
        threads: int = 1,
        waiting: int = 32,
        max_output: int = 64 * MIB,
        non_finite: bool = False,
        fast: bool = False,
        limits: Limits | None = None,
        broker: BrokerAddress | None = None,
        egress: tuple[str, ...] = (),
        at_most_once: bool = False,
        max_session: int = 3600,
        evidence: str = "fresh",
        debug: bool = False,
    ) -> None:
        entries = (() if name is None else (ModelEntry(name, format, version),)) + models
        settings = ModelSettings(
            models=entries,
            workers=workers,
            threads=threads,
            waiting=waiting,
            max_output=max_output,
            non_finite=non_finite,
        )
        # Read back, so that a value which the enclave would refuse is refused here.
        options = settings.to_options()
        ModelSettings.from_options(options)
        limits = Limits() if limits is None else limits
        if workers * threads + _OTHER_THREADS > limits.processes:
            raise ConfigurationError(
                "limit",
                "the service's limit of processes and threads is too low for its workers",
                hint=f"limits=Limits(processes={workers * threads + _OTHER_THREADS}) or more",
            )
        super().__init__(
            kind=KIND,
            id=id,
            options=options,
            requires=tuple(package for entry in entries for package in _REQUIRES[entry.format])
            + (_FAST if fast else ()),
            environment={
                # Telemetry is decided before onnxruntime is loaded, so it is part of what is measured.
                "ORT_DISABLE_TELEMETRY": "1",
                "OMP_NUM_THREADS": str(threads),
                "OPENBLAS_NUM_THREADS": "1",
            },
            limits=limits,
            egress=egress,
            debug=debug,
            models=tuple(SecretPin(entry.name, owner) for entry in entries),
            broker=broker,
            at_most_once=at_most_once,
            max_session=max_session,
            evidence=evidence,
        )

    @classmethod
    def _of(cls, service: Service) -> Self:
        if service.kind != KIND:
            raise ConfigurationError(
                "kind", "this is not a model service", hint="Service.from_toml reads any kind"
            )
        ModelSettings.from_options(service.options)
        made = cls.__new__(cls)
        Service.__init__(made, **{item.name: getattr(service, item.name) for item in fields(service)})
        return made

    @classmethod
    def from_toml(cls, path: Path | str) -> Self:
        """Read a ``service.toml`` of kind ``model``; its options are checked as well. Raises ConfigurationError."""
        return cls._of(Service.from_toml(path))

    @classmethod
    def from_configuration(cls, configuration: Mapping[object, object]) -> Self:
        """See ``Service.from_configuration``."""
        return cls._of(Service.from_configuration(configuration))

    @classmethod
    def from_description(cls, description: Mapping[object, object]) -> Self:
        """See ``Service.from_description``."""
        return cls._of(Service.from_description(description))

    @staticmethod
    def connect(
        url: str,
        verifier: Verifier,
        *,
        model: str | None = None,
        receipts: bool = False,
        **client_options: Any,
    ) -> ModelClient:
        """Attest the service at ``url`` and give a client for its model; raises what the Verifier and the channel raise.

        ``model`` chooses among several. ``receipts`` asks for a signed receipt with every prediction. Further options are
        those of ``confide.channel.client.Client``.
        """
        from confide.channel.client import Client

        try:
            from confide.serving.client import ModelClient
        except ImportError:
            raise ModelError(
                "missing_extra",
                "calling a model needs numpy, which is not installed",
                hint="pip install numpy",
            ) from None
        http = Client(url, verifier, receipts=receipts, **client_options)
        try:
            return ModelClient(http, model=model)
        except BaseException:
            http.close()
            raise
