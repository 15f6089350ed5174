# SPDX-License-Identifier: Apache-2.0
"""The adapter for ONNX models, on onnxruntime.

A protected ONNX model is one blob, ``model.onnx``: onnxruntime takes a whole serialised model, and the graph and the
weights in it refer to each other, so entries of single tensors would only be glued together again (a second copy of the
weights) before anything could run. Graph, names, shapes and weights are all inside that blob, that is, encrypted.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
from typing import TYPE_CHECKING, Any, Final

from confide.errors import ConfideError, EnclaveError, ModelError
from confide.frameworks import onnx_tables
from confide.frameworks.contract import LoadLimits, ModelDescription, Part
from confide.frameworks.onnx_inspection import inspect
from confide.frameworks.protobuf import Budget, read

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType

__all__ = ["PART", "OnnxModel", "OnnxRun", "describe", "dump", "load", "recognises"]

PART: Final = "model.onnx"
_QUIET: Final = (
    4  # onnxruntime's "fatal": its warnings name nodes and tensors, and would reach the host's log.
)


def recognises(data: bytes | memoryview) -> bool:
    """Whether the bytes are a ModelProto with a version and a graph, judged from its outermost fields."""
    try:
        record = read(memoryview(data).cast("B"), onnx_tables.MODEL, what="the model", budget=Budget(100_000))
    except ConfideError:
        return False
    return "graph" in record and "ir_version" in record


def describe(data: bytes | memoryview, *, limits: LoadLimits | None = None) -> ModelDescription:
    """Inputs, outputs and counts; needs no onnxruntime. Raises ModelError for a model that would be refused."""
    return inspect(data, limits=limits)


def dump(data: bytes | memoryview, *, limits: LoadLimits | None = None) -> tuple[Part, ...]:
    """The entries of the protected file: the checked model as one blob. Raises ModelError."""
    inspect(data, limits=limits)
    return (Part(PART, "blob", data),)


def load(
    parts: Mapping[str, bytes | memoryview], *, threads: int = 1, limits: LoadLimits | None = None
) -> OnnxModel:
    """Check, load and cross-check a model that is in memory.

    ``threads`` is the number of threads that one run uses. Raises ModelError: the codes of the inspection,
    ``missing_extra`` without onnxruntime, ``unsafe_format`` if onnxruntime refuses the model or reads another
    signature out of it than the inspection did.
    """
    if set(parts) != {PART}:
        raise ModelError("unsafe_format", "a protected ONNX model has exactly one entry, `model.onnx`")
    # One immutable copy is inspected, hashed and loaded, so that nothing can change between the check and the use.
    data = bytes(parts[PART])
    description = inspect(data, limits=limits)
    digest = hashlib.sha256(data).digest()
    runtime = _runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _QUIET
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = runtime.InferenceSession(
            data, options, providers=["CPUExecutionProvider"], read_config_from_model=0
        )
        session.disable_fallback()
        loaded = tuple((item.name, item.type) for item in (*session.get_inputs(), *session.get_outputs()))
    except MemoryError:
        raise EnclaveError("out_of_memory", "the model does not fit into the enclave's memory") from None
    except Exception:  # noqa: BLE001 - onnxruntime's own classes share no base, and their texts name the model's parts.
        raise ModelError(
            "unsafe_format",
            "onnxruntime does not accept the model",
            hint="run onnx.checker.check_model(model, full_check=True) on the plain model",
        ) from None
    # onnxruntime's Python layer would keep a second reference to the plaintext for as long as the session lives.
    session._model_bytes = None  # noqa: SLF001
    declared = tuple(
        (spec.name, f"tensor({_TYPE_NAMES.get(spec.dtype, spec.dtype)})")
        for spec in (*description.inputs, *description.outputs)
    )
    if loaded != declared:
        raise ModelError(
            "unsafe_format", "onnxruntime reads another signature out of the model than confide does"
        )
    return OnnxModel(session, runtime, description, digest)


# Where onnxruntime's name of an element type is not numpy's.
_TYPE_NAMES: Final = {"float32": "float", "float64": "double"}


def _runtime() -> ModuleType:
    """Import onnxruntime, with its telemetry off before its library is loaded."""
    if "onnxruntime" not in sys.modules:
        # Switching it off after the import is too late: by then the library has opened a database below the home.
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        import numpy  # noqa: F401, ICN001

        onnxruntime = importlib.import_module("onnxruntime")
    except ImportError:
        raise ModelError(
            "missing_extra",
            "ONNX models need onnxruntime and numpy, which are not installed",
            hint="pip install 'confide[onnx]'",
        ) from None
    onnxruntime.set_default_logger_severity(_QUIET)
    return onnxruntime


class OnnxRun:
    """One run; see ``confide.frameworks.contract.Run``. onnxruntime looks at the flag between two nodes."""

    __slots__ = ("_inputs", "_options", "_outputs", "_session")

    def __init__(self, session: Any, options: Any, inputs: Mapping[str, Any], outputs: Sequence[str]) -> None:
        self._session = session
        self._options = options
        self._inputs = inputs
        self._outputs = list(outputs)

    def cancel(self) -> None:
        """Ask for an end at the next node. The flag belongs to this run alone, so it cannot hit a later one."""
        self._options.terminate = True

    def __call__(self) -> dict[str, Any]:
        """Run the model. Raises ModelError ``schema``, EnclaveError ``deadline`` or ``out_of_memory``."""
        try:
            values = self._session.run(self._outputs, self._inputs, self._options)
        except MemoryError:
            raise EnclaveError("out_of_memory", "the model ran out of memory") from None
        except Exception:  # noqa: BLE001 - see load: no common base, and the texts quote shapes, names and values.
            if self._options.terminate:
                raise EnclaveError("deadline", "the run was ended before it was complete") from None
            raise ModelError("schema", "the model failed on this input") from None
        return dict(zip(self._outputs, values, strict=True))


class OnnxModel:
    """A model in an onnxruntime session; runs may be made from several threads at once."""

    __slots__ = ("_runtime", "_session", "description", "digest")

    def __init__(
        self, session: Any, runtime: ModuleType, description: ModelDescription, digest: bytes
    ) -> None:
        self._session = session
        self._runtime = runtime
        self.description = description
        self.digest = digest

    def prepare(self, inputs: Mapping[str, Any], outputs: Sequence[str]) -> OnnxRun:
        """A run of these arrays, which must have the model's dtypes; strings are arrays of ``str`` objects."""
        options = self._runtime.RunOptions()
        options.log_severity_level = _QUIET
        return OnnxRun(self._session, options, inputs, outputs)
