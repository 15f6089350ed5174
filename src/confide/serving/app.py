# SPDX-License-Identifier: Apache-2.0
"""Builds the app of a model service inside the enclave: opens the protected models and loads them, from memory only."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING

from confide.enclave.context import Built
from confide.errors import ModelError
from confide.frameworks.table import adapter
from confide.serving.inference_app import InferenceApp, Served
from confide.serving.open_inference import InferLimits, Signature
from confide.serving.settings import ModelEntry, ModelSettings
from confide.serving.worker_pool import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Mapping

    from confide.enclave.context import Context
    from confide.frameworks.contract import Model

__all__ = ["build"]


def build(options: Mapping[str, object], context: Context) -> Built:
    """Open, check and load every model of the service; the app that serves them and the digests of what was loaded.

    Raises ConfigurationError for wrong options, SealingError for a file that is not what its pinned owner signed,
    ModelError for a model that is refused, EnclaveError ``key_missing`` for a key that is not there.
    """
    settings = ModelSettings.from_options(options)
    limits = context.service.limits
    served = {entry.name: _load(entry, settings, context) for entry in settings.models}
    app = InferenceApp(
        served,
        WorkerPool(workers=settings.workers, waiting=settings.waiting),
        limits=InferLimits(
            max_json=settings.max_json, max_output=settings.max_output, non_finite=settings.non_finite
        ),
        # The rest of the service's deadline is for receiving the request and sending the answer, or the typed error.
        deadline=0.9 * limits.deadline,
        max_body=limits.max_body,
        version=_version(),
    )
    return Built(app, {name: item.model.digest for name, item in served.items()}, lifespan=True)


def _version() -> str:
    try:
        return metadata.version("confide")
    except metadata.PackageNotFoundError:
        return "unknown"


def _load(entry: ModelEntry, settings: ModelSettings, context: Context) -> Served:
    with context.open_protected(entry.name) as file:
        if file.metadata.get("format") != entry.format:
            raise ModelError("unsafe_format", "the protected file holds a model of another format")
        # Into anonymous memory, which is erased again as soon as the framework has its own copy.
        parts = {name: file.read(name, threads=settings.threads) for name in file.names}
    try:
        model: Model = adapter(entry.format).load(parts, threads=settings.threads)
    finally:
        for part in parts.values():
            part[:] = bytes(len(part))
    return Served(model, entry.version, entry.format, Signature.of(model.description))
