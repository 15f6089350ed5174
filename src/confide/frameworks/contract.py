# SPDX-License-Identifier: Apache-2.0
"""What every framework adapter gives: four functions, and the types that they speak.

An adapter is a module with ``recognises``, ``dump``, ``load`` and ``describe``. Models are data: an adapter takes
bytes that are already in memory, refuses by content whatever could run code or reach outside those bytes, and only
then shows them to its framework. There is no second attempt with a laxer loader.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Adapter", "LoadLimits", "Model", "ModelDescription", "Part", "Run", "TensorSpec"]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a model.

    ``dtype`` is a numpy name (``float32``, ``int64``, ``bool``) or ``string``. ``shape`` holds a size, the name of a
    symbolic size, or None for a size that is not said; it is None as a whole where even the rank is not said.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] | None


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """What can be said of a model without running it."""

    format: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    nodes: int
    parameters: int


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of a dumped model: what becomes one entry of a protected file."""

    name: str
    kind: Literal["blob", "tensor"]
    data: bytes | memoryview
    dtype: str = ""
    shape: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class LoadLimits:
    """Ceilings that are checked before a framework sees a model. All counts are after functions are expanded."""

    max_bytes: int = 2**31 - 1
    max_nodes: int = 50_000
    max_initializers: int = 20_000
    max_elements: int = 2**31 - 1
    max_depth: int = 8
    max_functions: int = 1_000
    max_fields: int = 4_000_000


class Run(Protocol):
    """One run of a model, made before it starts so that another thread can end it."""

    def __call__(self) -> dict[str, Any]:
        """Run and return the outputs by name. Raises ModelError."""

    def cancel(self) -> None:
        """Ask the framework to stop at its next step; safe from any thread, before, during and after the run."""


class Model(Protocol):
    """A loaded model."""

    @property
    def description(self) -> ModelDescription:
        """The signature that the bytes declared and the framework confirmed."""

    @property
    def digest(self) -> bytes:
        """SHA-256 of exactly the bytes that were loaded."""

    def prepare(self, inputs: Mapping[str, Any], outputs: Sequence[str]) -> Run:
        """A run of these arrays that gives these outputs."""


class Adapter(Protocol):
    """The four functions of a module in ``confide.frameworks``."""

    def recognises(self, data: bytes | memoryview) -> bool:
        """Whether these bytes are of this format, judged by content alone."""

    def dump(self, data: bytes | memoryview, *, limits: LoadLimits = ...) -> tuple[Part, ...]:
        """Check a model and split it into the entries of a protected file. Raises ModelError."""

    def load(
        self, parts: Mapping[str, bytes | memoryview], *, threads: int = ..., limits: LoadLimits = ...
    ) -> Model:
        """Load a model from memory. Raises ModelError."""

    def describe(self, data: bytes | memoryview, *, limits: LoadLimits = ...) -> ModelDescription:
        """Inputs, outputs and counts, without loading. Raises ModelError."""
