# SPDX-License-Identifier: Apache-2.0
"""The measured options of a model service, read strictly; `service.toml` has them under `[options]`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from confide.errors import ConfigurationError
from confide.frameworks.table import FORMATS
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ModelEntry", "ModelSettings"]

MIB: Final = 1024 * 1024
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?\Z")
_MAX_MODELS: Final = 64


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One model to serve: the name of its protected file and key, its format, the version that clients see."""

    name: str
    format: str = "onnx"
    version: str = "1"

    def __post_init__(self) -> None:
        if _NAME.match(self.name) is None or _NAME.match(self.version) is None:
            raise ConfigurationError(
                "invalid",
                "a model's name and version are letters, digits, dot, dash and underscore, at most 128",
            )
        if self.format not in FORMATS:
            raise ConfigurationError(
                "invalid",
                "the model format is not one that confide loads",
                hint=f"formats: {', '.join(FORMATS)}",
            )


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """What a model service does with its models.

    ``workers`` runs go at a time, with ``threads`` threads each; ``waiting`` more requests are held, the next one is
    refused. ``max_output`` (bytes) bounds what one request can take out of the enclave, ``max_json`` (bytes) the JSON of a
    request. ``non_finite`` admits NaN and infinities in inputs.
    """

    models: tuple[ModelEntry, ...]
    workers: int = 1
    threads: int = 1
    waiting: int = 32
    max_output: int = 64 * MIB
    max_json: int = 16 * MIB
    non_finite: bool = False

    def __post_init__(self) -> None:
        names = [entry.name for entry in self.models]
        if not names or len(names) > _MAX_MODELS or len(set(names)) != len(names):
            raise ConfigurationError(
                "invalid", f"a model service has 1 to {_MAX_MODELS} models of different names"
            )

    def to_options(self) -> dict[str, object]:
        """The options as they stand in the manifest, every one spelled out."""
        return {
            "models": {
                entry.name: {"format": entry.format, "version": entry.version} for entry in self.models
            },
            "workers": self.workers,
            "threads": self.threads,
            "waiting": self.waiting,
            "max_output": self.max_output,
            "max_json": self.max_json,
            "non_finite": self.non_finite,
        }

    @classmethod
    def from_options(cls, options: Mapping[str, object]) -> Self:
        """Read what ``to_options`` gives; everything but ``models`` may be left out. Raises ConfigurationError."""
        fields = Fields(options, "the options of a model service", ConfigurationError)
        entries = []
        for name, table in fields.mapping("models").items():
            if not isinstance(name, str):
                raise ConfigurationError("invalid", "a model's name is text")
            model = Fields(table, "a model of the service", ConfigurationError)
            entries.append(
                ModelEntry(name, model.text("format", default="onnx"), model.text("version", default="1"))
            )
            model.end()
        settings = cls(
            models=tuple(sorted(entries, key=lambda entry: entry.name)),
            workers=fields.integer("workers", 1, 256, default=1),
            threads=fields.integer("threads", 1, 256, default=1),
            waiting=fields.integer("waiting", 0, 65_536, default=32),
            max_output=fields.integer("max_output", 1, 2**40, default=64 * MIB),
            max_json=fields.integer("max_json", 64, 2**30, default=16 * MIB),
            non_finite=fields.boolean("non_finite", default=False),
        )
        fields.end()
        return settings
