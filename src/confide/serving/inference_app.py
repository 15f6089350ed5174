# SPDX-License-Identifier: Apache-2.0
"""The Open Inference Protocol as a bare ASGI application over models that are already loaded.

Routes: ``GET /v2``, ``/v2/health/live``, ``/v2/health/ready``, ``/v2/models/NAME[/versions/VERSION][/ready]`` and
``POST /v2/models/NAME[/versions/VERSION]/infer``. There is no route that hands out a model. A request is run by itself:
requests are never batched together, so no input can influence, or learn from, a neighbour's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from confide.errors import ConfideError, EnclaveError, MalformedError, ModelError
from confide.serving import open_inference
from confide.serving.open_inference import HEADER_LENGTH, InferLimits, Signature
from confide.wire import strict_json

if TYPE_CHECKING:
    from confide.frameworks.contract import Model
    from confide.serving.worker_pool import WorkerPool

__all__ = ["InferenceApp", "Served"]

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_JSON: Final = b"application/json"
_BINARY: Final = b"application/octet-stream"
_SMALL: Final = 64 * 1024  # Up to here a copy is cheaper than another turn through the layers below.
_STATUS: Final = {
    "model.schema": 400,
    "model.limit": 413,
    "malformed.limit_exceeded": 413,
    "enclave.overloaded": 503,
    "enclave.deadline": 504,
    "enclave.out_of_memory": 503,
}


@dataclass(frozen=True, slots=True)
class Served:
    """A loaded model under the version and format that clients see."""

    model: Model
    version: str
    format: str
    signature: Signature


class _Gone(Exception):
    """The client went away while it was sending."""


class _NotFound(Exception):
    """No such route, model or version."""


class InferenceApp:
    """``models`` by name; ``deadline`` in seconds and ``max_body`` in bytes, per request."""

    def __init__(
        self,
        models: Mapping[str, Served],
        pool: WorkerPool,
        *,
        limits: InferLimits,
        deadline: float,
        max_body: int,
        version: str,
    ) -> None:
        self._models = models
        self._pool = pool
        self._limits = limits
        self._deadline = deadline
        self._max_body = max_body
        self._version = version

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; errors are answers too, and carry no value from a request or a model."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        try:
            status, content_type, header_length, parts = await self._answer(scope, receive)
        except _Gone:
            return
        except _NotFound:
            status, parts = (
                404,
                [open_inference.error_body(ModelError("schema", "there is no such model or route"))],
            )
            content_type, header_length = _JSON, None
        except ConfideError as error:
            status, parts = _STATUS.get(error.code, 400), [open_inference.error_body(error)]
            if isinstance(error, EnclaveError) and status == 400:
                status = 500
            content_type, header_length = _JSON, None
        headers = [
            (b"content-type", content_type),
            (b"content-length", b"%d" % sum(len(part) for part in parts)),
        ]
        if header_length is not None:
            headers.append((HEADER_LENGTH.encode(), b"%d" % header_length))
        if status == 503:
            headers.append((b"retry-after", b"1"))
        if sum(len(part) for part in parts) <= _SMALL:
            parts = [b"".join(parts)]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for part in parts[:-1]:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": parts[-1]})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                self._pool.close()
                await send({"type": "lifespan.shutdown.complete"})
                return
            await send({"type": "lifespan.startup.complete"})

    async def _answer(
        self, scope: Scope, receive: Receive
    ) -> tuple[int, bytes, int | None, list[bytes | memoryview]]:
        path = scope["path"]
        parts = path.removesuffix("/").split("/")[1:]
        method = scope["method"]
        match parts:
            case ["v2", "models", name, *rest]:
                served = self._find(name, rest)
                action = rest[2:] if rest[:1] == ["versions"] else rest
                if action == ["infer"]:
                    _require(method, "POST")
                    return await self._infer(name, served, scope, receive)
                _require(method, "GET")
                if action == ["ready"]:
                    return self._health({"name": name, "ready": self._pool.healthy}, ready=self._pool.healthy)
                if action == []:
                    metadata = open_inference.model_metadata(
                        name, served.version, served.format, served.signature
                    )
                    return 200, _JSON, None, [strict_json.encode(metadata)]
                raise _NotFound
            case ["v2"]:
                _require(method, "GET")
                return 200, _JSON, None, [strict_json.encode(open_inference.server_metadata(self._version))]
            case ["v2", "health", "live"]:
                _require(method, "GET")
                return self._health({"live": True}, ready=True)
            case ["v2", "health", "ready"]:
                _require(method, "GET")
                return self._health({"ready": self._pool.healthy}, ready=self._pool.healthy)
        raise _NotFound

    def _find(self, name: str, rest: list[str]) -> Served:
        served = self._models.get(name)
        if served is None or (rest[:1] == ["versions"] and rest[1:2] != [served.version]):
            raise _NotFound
        return served

    @staticmethod
    def _health(
        state: dict[str, Any], *, ready: bool
    ) -> tuple[int, bytes, int | None, list[bytes | memoryview]]:
        return 200 if ready else 503, _JSON, None, [strict_json.encode(state)]

    async def _infer(
        self, name: str, served: Served, scope: Scope, receive: Receive
    ) -> tuple[int, bytes, int | None, list[bytes | memoryview]]:
        headers = _headers(scope)
        body = await self._body(headers, receive)
        request = open_inference.read_request(
            memoryview(body), headers.get(HEADER_LENGTH), served.signature, self._limits
        )
        run = served.model.prepare(request.inputs, [output for output, _ in request.outputs])
        deadline = self._deadline if request.timeout is None else min(self._deadline, request.timeout)
        values = await self._pool.run(run, deadline=deadline)
        parts, header_length = open_inference.compose_response(
            name, served.version, request, values, served.signature, self._limits
        )
        return 200, _JSON if header_length is None else _BINARY, header_length, parts

    async def _body(self, headers: Mapping[str, str], receive: Receive) -> bytearray:
        """The whole body, in one buffer of the announced size where one was announced."""
        if headers.get("content-encoding", "identity") != "identity":
            raise ModelError(
                "schema", "compressed bodies are not accepted", hint="the envelope carries bytes as they are"
            )
        announced = headers.get("content-length", "")
        size = int(announced) if announced.isascii() and announced.isdigit() and len(announced) < 16 else 0
        if size > self._max_body:
            raise MalformedError("limit_exceeded", "the body is larger than the service takes")
        body = bytearray(size)
        at = 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise _Gone
            chunk = message.get("body", b"")
            if at + len(chunk) > self._max_body:
                raise MalformedError("limit_exceeded", "the body is larger than the service takes")
            # Slice assignment within the buffer copies into it; beyond its end it grows.
            body[at : at + len(chunk)] = chunk
            at += len(chunk)
            if not message.get("more_body", False):
                del body[at:]
                return body


def _require(method: str, expected: str) -> None:
    if method != expected:
        raise ModelError("schema", f"this route takes {expected} only")


def _headers(scope: Scope) -> dict[str, str]:
    """Lower-case names to values. Raises ModelError ``schema`` for one that matters here and comes twice."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1").lower()
        if key in found and key in {HEADER_LENGTH, "content-length", "content-encoding"}:
            raise ModelError("schema", "a header that may come once came twice")
        found[key] = value.decode("latin-1")
    return found
