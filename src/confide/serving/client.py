# SPDX-License-Identifier: Apache-2.0
"""The caller's side of a model service: numpy arrays in and out, through the attested envelope."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote

from confide.channel.flow import RequestOptions
from confide.channel.shell import EXTENSION
from confide.errors import ConfigurationError, MalformedError
from confide.serving import open_inference
from confide.serving.open_inference import HEADER_LENGTH
from confide.wire import strict_json
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from confide.attestation.result import AttestationResult
    from confide.channel.client import Client
    from confide.channel.receipt import Receipt
    from confide.serving.tensors import Array

__all__ = ["ModelClient", "ModelMetadata", "TensorMetadata"]

_MAX_METADATA: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class TensorMetadata:
    """One input or output; a size that is open is -1."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """What the service says of its model."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]


class ModelClient:
    """One model of an attested service; made by ``ModelService.connect``, and a context manager.

    It exists only with accepted evidence. Not for use by several threads at once, except that ``predict`` may be called
    from several if ``receipt`` is not of interest.
    """

    def __init__(self, http: Client, *, model: str | None = None) -> None:
        material = http.attestation.key_material
        names = sorted(material.content) if material is not None else []
        if model is None:
            if len(names) != 1:
                raise ConfigurationError(
                    "invalid",
                    "the service has several models, and none was chosen",
                    hint='ModelService.connect(url, verifier, model="NAME")',
                )
            model = names[0]
        elif model not in names:
            raise ConfigurationError(
                "invalid", "the service has no model of this name", hint=f"it has: {', '.join(names)}"
            )
        self._http = http
        self._path = f"/v2/models/{quote(model, safe='')}"
        self._name = model
        self._receipt: Receipt | None = None
        self._metadata: ModelMetadata | None = None

    @property
    def name(self) -> str:
        """The model's name."""
        return self._name

    @property
    def attestation(self) -> AttestationResult:
        """What was verified for the session in use."""
        return self._http.attestation

    @property
    def digest(self) -> bytes:
        """SHA-256 of the model that the enclave loaded, as its evidence says (32 bytes)."""
        material = self.attestation.key_material
        if material is None or self._name not in material.content:
            raise ConfigurationError("invalid", "the evidence names no such model")
        return material.content[self._name]

    @property
    def receipt(self) -> Receipt | None:
        """The verified receipt of the last prediction; None unless receipts were asked for."""
        return self._receipt

    @property
    def metadata(self) -> ModelMetadata:
        """Inputs and outputs of the model, asked for once. Raises ChannelError and MalformedError."""
        if self._metadata is None:
            response = self._http.get(self._path)
            if response.status_code != 200:
                raise open_inference.read_error(response.status_code, response.content)
            self._metadata = _read_metadata(response.content)
        return self._metadata

    def predict(
        self, inputs: Mapping[str, Array], *, outputs: Sequence[str] = (), timeout: float | None = None
    ) -> dict[str, Array]:
        """Run the model on numpy arrays, by input name; all outputs, or those that are named.

        Arrays have the model's element types (text is an array of ``str``); a batch is the first dimension. The arrays that
        come back are read-only views. ``timeout`` is in seconds, for each network operation. A prediction changes nothing in
        the service, so it is repeated once if a replica is lost.

        Raises ModelError ``schema`` or ``limit`` for inputs that do not fit, EnclaveError ``overloaded`` or ``deadline``,
        ChannelError for everything that happens on the way.
        """
        parts, header_length = open_inference.compose_request(inputs, outputs=outputs)
        options: dict[str, Any] = {} if timeout is None else {"timeout": timeout}
        response = self._http.post(
            f"{self._path}/infer",
            content=b"".join(parts),
            headers={"content-type": "application/octet-stream", HEADER_LENGTH: str(header_length)},
            extensions={EXTENSION: RequestOptions(idempotent=True)},
            **options,
        )
        if response.status_code != 200:
            raise open_inference.read_error(response.status_code, response.content)
        arrays = open_inference.read_response(
            memoryview(response.content), response.headers.get(HEADER_LENGTH)
        )
        self._receipt = response.extensions[EXTENSION].receipt
        return arrays

    def close(self) -> None:
        """End the session."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        result = self.attestation
        simulated = ", SIMULATED" if result.simulated else ""
        return (
            f"ModelClient({self._name!r}, tee={result.tee!r}, tier={result.tier.name.lower()!r}{simulated})"
        )


def _read_metadata(body: bytes) -> ModelMetadata:
    message = strict_json.decode(body, what="the model's metadata", max_size=_MAX_METADATA)
    fields = Fields(message, "the model's metadata")
    metadata = ModelMetadata(
        name=fields.text("name"),
        versions=tuple(_text(item) for item in fields.list_("versions", 1024)),
        platform=fields.text("platform"),
        inputs=tuple(_read_tensor(item) for item in fields.list_("inputs", 1024)),
        outputs=tuple(_read_tensor(item) for item in fields.list_("outputs", 1024)),
    )
    fields.end()
    return metadata


def _read_tensor(entry: object) -> TensorMetadata:
    fields = Fields(entry if isinstance(entry, dict) else {}, "a tensor of the model's metadata")
    shape = fields.list_("shape", 64)
    if any(type(size) is not int or size < -1 for size in shape):
        raise MalformedError("non_canonical", "a shape in the model's metadata is not a list of sizes")
    tensor = TensorMetadata(fields.text("name"), fields.text("datatype", 16), tuple(shape))
    fields.end()
    return tensor


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise MalformedError("non_canonical", "a version in the model's metadata is not text")
    return value
