# SPDX-License-Identifier: Apache-2.0
"""The messages of the Open Inference Protocol, version 2 (REST), with its binary tensor data extension.

Strict where the protocol is loose: unknown keys, unknown parameters, names that come twice and bytes that belong to no
tensor are refused. No message of an error repeats a name or a value that a request brought; tensors are named by
their position. A request is read once, and binary tensors are views on it.

Source: the KServe V2 protocol, "HTTP/REST" and "Binary Tensor Data Extension".
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from confide.errors import ConfideError, EnclaveError, MalformedError, ModelError
from confide.serving.tensors import Array, datatype_of, from_binary, from_json, read_shape, to_binary, to_json
from confide.wire import strict_json
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from confide.frameworks.contract import ModelDescription, TensorSpec

__all__ = [
    "HEADER_LENGTH",
    "InferLimits",
    "InferRequest",
    "Signature",
    "compose_request",
    "compose_response",
    "error_body",
    "model_metadata",
    "read_error",
    "read_request",
    "read_response",
    "server_metadata",
]

HEADER_LENGTH: Final = "inference-header-content-length"
_PLATFORMS: Final = {"onnx": "onnx_onnxv1"}
_ENVELOPE: Final = 64 * 1024  # what names, shapes and sizes may add to the outputs themselves
_MAX_HEADER: Final = 64 * 1024 * 1024
_DIGITS: Final = re.compile(r"[0-9]{1,12}\Z")
_ERROR_CODE: Final = re.compile(r"(?s)(.{1,500}) \[((?:model|enclave|malformed)\.[a-z_]{1,40})\]\Z")
_ERROR_CLASSES: Final[Mapping[str, type[ConfideError]]] = {
    "model": ModelError,
    "enclave": EnclaveError,
    "malformed": MalformedError,
}


@dataclass(frozen=True, slots=True)
class InferLimits:
    """Ceilings of one request: ``max_json`` and ``max_output`` in bytes, ``max_elements`` for one tensor.

    ``non_finite`` admits NaN and infinities in floating-point inputs, which are refused otherwise.
    """

    max_json: int = 16 * 1024 * 1024
    max_elements: int = 2**31 - 1
    max_output: int = 64 * 1024 * 1024
    non_finite: bool = False


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A checked request: the arrays fit the model; ``outputs`` are names with "as binary data?"; times in seconds."""

    id: str
    inputs: Mapping[str, Array]
    outputs: tuple[tuple[str, bool], ...]
    timeout: float | None


@dataclass(frozen=True, slots=True)
class Signature:
    """A model's inputs and outputs in the protocol's datatypes. Raises ModelError ``schema`` if it has none for one."""

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    datatypes: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, description: ModelDescription) -> Signature:
        """The signature of a loaded model."""
        inputs = {spec.name: spec for spec in description.inputs}
        outputs = {spec.name: spec for spec in description.outputs}
        kinds = {spec.dtype: datatype_of(spec.dtype) for spec in (*inputs.values(), *outputs.values())}
        return cls(inputs, outputs, kinds)

    def datatype(self, spec: TensorSpec) -> str:
        """The protocol's datatype of an input or output."""
        return self.datatypes[spec.dtype]


def _schema(message: str, hint: str = "") -> ModelError:
    return ModelError("schema", message, hint=hint)


def server_metadata(version: str) -> dict[str, Any]:
    """The answer to ``GET /v2``."""
    return {"name": "confide", "version": version, "extensions": ["binary_tensor_data"]}


def model_metadata(name: str, version: str, format_: str, signature: Signature) -> dict[str, Any]:
    """The answer to ``GET /v2/models/NAME``; a size that is open is -1."""

    def tensors(specs: Mapping[str, TensorSpec]) -> list[dict[str, Any]]:
        return [
            {
                "name": spec.name,
                "datatype": signature.datatype(spec),
                "shape": [size if isinstance(size, int) else -1 for size in spec.shape or (-1,)]
                if spec.shape != ()
                else [],
            }
            for spec in specs.values()
        ]

    return {
        "name": name,
        "versions": [version],
        "platform": _PLATFORMS[format_],
        "inputs": tensors(signature.inputs),
        "outputs": tensors(signature.outputs),
    }


def _split(body: memoryview, header_length: str | None, max_json: int) -> tuple[Any, memoryview]:
    """The JSON object in front, and the binary data behind it."""
    size = len(body)
    if header_length is not None:
        if _DIGITS.match(header_length) is None or int(header_length) > size:
            raise _schema("Inference-Header-Content-Length is not a length within the body")
        size = int(header_length)
    if size > max_json:
        raise ModelError(
            "limit", "the JSON part is larger than the limit allows", hint="send tensors as binary data"
        )
    return strict_json.decode(body[:size], what="the JSON part", max_size=max_json, max_depth=40), body[size:]


class _Binary:
    """The bytes behind the JSON, handed out in the order in which the JSON names them."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> memoryview:
        if size > len(self._data) - self._at:
            raise _schema("the binary data is shorter than the sizes that the JSON names")
        self._at += size
        return self._data[self._at - size : self._at]

    def end(self) -> None:
        if self._at != len(self._data):
            raise _schema("the body holds bytes that belong to no tensor")


def _tensor(
    entry: object, what: str, binary: _Binary, *, max_elements: int, smallest: int
) -> tuple[str, str, Array]:
    """One tensor object of a request's inputs or a response's outputs: name, datatype, array."""
    fields = Fields(entry if isinstance(entry, dict) else {}, what)
    name, datatype = fields.text("name"), fields.text("datatype", 16)
    shape = read_shape(fields.list_("shape"), max_elements=max_elements, smallest=smallest)
    parameters = Fields(fields.mapping("parameters", default={}), f"the parameters of {what}")
    size = parameters.integer("binary_data_size", 0, 2**40, default=None)
    parameters.end()
    if size is None:
        array = from_json(fields.list_("data"), datatype, shape)
    else:
        array = from_binary(binary.take(size), datatype, shape)
    fields.end()
    return name, datatype, array


def read_request(
    body: memoryview, header_length: str | None, signature: Signature, limits: InferLimits
) -> InferRequest:
    """Read and check an inference request.

    ``header_length`` is the value of the header ``Inference-Header-Content-Length``, None where there is none.
    Raises MalformedError for JSON that is not the protocol's, ModelError ``schema`` or ``limit`` for the rest.
    """
    message, rest = _split(body, header_length, limits.max_json)
    binary = _Binary(rest)
    fields = Fields(message if isinstance(message, dict) else {}, "the request")
    identifier = fields.text("id", default="")
    parameters = Fields(fields.mapping("parameters", default={}), "the request's parameters")
    all_binary = parameters.boolean("binary_data_output", default=False)
    timeout = parameters.integer("timeout", 0, 2**53, default=0)
    parameters.integer("priority", 0, 2**64 - 1, default=0)
    parameters.end()
    entries = fields.list_("inputs", 1024)
    wanted = fields.list_("outputs", 1024, default=[])
    fields.end()
    inputs: dict[str, Array] = {}
    symbols: dict[str, int] = {}
    for index, entry in enumerate(entries):
        what = f"input {index}"
        name, datatype, array = _tensor(entry, what, binary, max_elements=limits.max_elements, smallest=1)
        spec = signature.inputs.get(name)
        if spec is None or name in inputs:
            raise _schema(f"{what} is not an input of the model, or comes twice")
        if datatype != signature.datatype(spec):
            raise _schema(f"{what} has another datatype than the model's input")
        _fits(array.shape, spec, what, symbols)
        if array.dtype.kind == "f" and not limits.non_finite and not np.isfinite(array).all():
            raise _schema(
                f"{what} holds numbers that are not finite", "the service can be configured to accept them"
            )
        inputs[name] = array
    binary.end()
    if len(inputs) != len(signature.inputs):
        raise _schema("an input of the model is missing")
    return InferRequest(
        identifier, inputs, _outputs(wanted, signature, all_binary), timeout / 1e6 if timeout else None
    )


def _outputs(wanted: list[Any], signature: Signature, all_binary: bool) -> tuple[tuple[str, bool], ...]:  # noqa: FBT001
    chosen: dict[str, bool] = {}
    for index, entry in enumerate(wanted):
        what = f"output {index}"
        fields = Fields(entry if isinstance(entry, dict) else {}, what)
        name = fields.text("name")
        parameters = Fields(fields.mapping("parameters", default={}), f"the parameters of {what}")
        as_binary = parameters.boolean("binary_data", default=all_binary)
        parameters.end()
        fields.end()
        if name not in signature.outputs or name in chosen:
            raise _schema(f"{what} is not an output of the model, or comes twice")
        chosen[name] = as_binary
    return tuple((chosen or dict.fromkeys(signature.outputs, all_binary)).items())


def _fits(shape: tuple[int, ...], spec: TensorSpec, what: str, symbols: dict[str, int]) -> None:
    """Compare a shape with the model's: same rank, fixed sizes equal, one symbol one size across all inputs."""
    if spec.shape is None:
        return
    if len(shape) != len(spec.shape):
        raise _schema(f"{what} has another rank than the model's input")
    for size, expected in zip(shape, spec.shape, strict=True):
        if isinstance(expected, int) and size != expected:
            raise _schema(f"{what} has another size than the model's input")
        if isinstance(expected, str) and symbols.setdefault(expected, size) != size:
            raise _schema(f"{what} disagrees with another input about a size that they share")


def _too_much() -> ModelError:
    return ModelError("limit", "the outputs are larger than the service lets out per request")


def compose_response(
    name: str,
    version: str,
    request: InferRequest,
    values: Mapping[str, Array],
    signature: Signature,
    limits: InferLimits,
) -> tuple[list[bytes | memoryview], int | None]:
    """The body of a response in parts, and the length of its JSON part where binary data follows.

    Raises ModelError ``limit`` if the outputs are larger than one request may take out.
    """
    # Before anything is copied; what the elements of strings weigh shows only below.
    if sum(value.nbytes for value in values.values()) > limits.max_output:
        raise _too_much()
    parts: list[bytes | memoryview] = []
    outputs: list[dict[str, Any]] = []
    for output, as_binary in request.outputs:
        datatype, value = signature.datatype(signature.outputs[output]), values[output]
        entry: dict[str, Any] = {"name": output, "datatype": datatype, "shape": list(value.shape)}
        if as_binary:
            data = to_binary(value, datatype)
            entry["parameters"] = {"binary_data_size": len(data)}
            parts.append(data)
        else:
            entry["data"] = to_json(value, datatype)
        outputs.append(entry)
    message: dict[str, Any] = {"model_name": name, "model_version": version, "outputs": outputs}
    if request.id:
        message["id"] = request.id
    header = strict_json.encode(message)
    if len(header) + sum(len(part) for part in parts) > limits.max_output + _ENVELOPE:
        raise _too_much()
    return [header, *parts], len(header) if any(as_binary for _, as_binary in request.outputs) else None


def compose_request(
    inputs: Mapping[str, Array], *, outputs: Sequence[str] = (), identifier: str = ""
) -> tuple[list[bytes | memoryview], int]:
    """A request with binary tensors, in parts, asking for binary outputs; and the length of its JSON part.

    Raises ModelError ``schema`` for what is not a numpy array of one of the protocol's datatypes.
    """
    parts: list[bytes | memoryview] = []
    entries: list[dict[str, Any]] = []
    for name, array in inputs.items():
        if not isinstance(array, np.ndarray):
            raise _schema(f"the input `{name}` is not a numpy array", "numpy.asarray(value, dtype) makes one")
        if not array.dtype.isnative:
            raise _schema(
                f"the input `{name}` is in the byte order of another machine",
                "array.astype(dtype.newbyteorder('='))",
            )
        datatype = datatype_of("string" if array.dtype.kind in "OUT" else array.dtype.name)
        data = to_binary(array, datatype)
        entries.append(
            {
                "name": name,
                "datatype": datatype,
                "shape": list(array.shape),
                "parameters": {"binary_data_size": len(data)},
            }
        )
        parts.append(data)
    message: dict[str, Any] = {"inputs": entries, "parameters": {"binary_data_output": True}}
    if outputs:
        message["outputs"] = [{"name": name, "parameters": {"binary_data": True}} for name in outputs]
    if identifier:
        message["id"] = identifier
    header = strict_json.encode(message)
    return [header, *parts], len(header)


def read_response(body: memoryview, header_length: str | None) -> dict[str, Array]:
    """The arrays of a response, as views on it where alignment allows. Raises MalformedError or ModelError ``schema``."""
    message, rest = _split(body, header_length, _MAX_HEADER)
    binary = _Binary(rest)
    fields = Fields(message if isinstance(message, dict) else {}, "the response")
    fields.text("model_name")
    fields.text("model_version", default="")
    fields.text("id", default="")
    arrays: dict[str, Array] = {}
    for index, entry in enumerate(fields.list_("outputs", 1024)):
        name, _, array = _tensor(entry, f"output {index}", binary, max_elements=2**40, smallest=0)
        if name in arrays:
            raise _schema("the response names one output twice")
        arrays[name] = array
    fields.end()
    binary.end()
    return arrays


def error_body(error: ConfideError) -> bytes:
    """The protocol's error object. The code stands at the end of the text, so that our own client finds it again."""
    return strict_json.encode({"error": f"{error.message} [{error.code}]"})


def read_error(status: int, body: bytes) -> ConfideError:
    """The error that a response of this status carries; whatever the body is, one of confide's own."""
    try:
        message = strict_json.decode(body, what="the error", max_size=64 * 1024, max_depth=4)
    except MalformedError:
        message = {}
    text = message.get("error") if isinstance(message, dict) else None
    found = _ERROR_CODE.match(text) if isinstance(text, str) else None
    if found is None:
        if status >= 500:
            return EnclaveError("crashed", f"the service failed with status {status}", stage="service")
        return ModelError("schema", f"the service refused with status {status}", stage="service")
    family, leaf = found[2].split(".")
    return _ERROR_CLASSES[family](leaf, found[1], stage="service", retryable=status == 503)
