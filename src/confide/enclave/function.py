# SPDX-License-Identifier: Apache-2.0
"""A top-level function as a confidential service.

    service = Function(predict, models={"weights": identity.public}, data={"weights": "weights.confide"})
    with Enclave.launch(service, tee="simulated") as enclave, Function.connect(enclave.url, verifier) as call:
        call(x)

The function's source files are measured and imported inside; the function itself is never serialised. If its first
parameter is called ``context`` it gets the enclave's `Context`.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

from confide.enclave import values
from confide.enclave.context import Built
from confide.enclave.service import Limits, Service
from confide.enclave.user_code import code_roots, owner_pins, resolve
from confide.errors import ChannelError, ConfideError, ConfigurationError, EnclaveError, MalformedError
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from confide.attestation.result import AttestationResult
    from confide.attestation.verifier import Verifier
    from confide.channel.client import Client
    from confide.enclave.context import Context, Receive, Scope, Send
    from confide.enclave.service import BrokerAddress, CodeRoot, SecretPin

__all__ = ["Function", "FunctionClient", "build"]

KIND: Final = "function"
_PATH: Final = "/call"
_TYPE: Final = "application/confide-function"
_MAX_ANSWER: Final = 1 << 30
_THREADS: Final = 4
_WAITING: Final = 64


class Function(Service):
    """The measured configuration of a function.

    ``data`` lends protected files by name (their owners' keys are in ``models``, or are read from the files, whose owner
    is then trusted as found here, where the service is defined). ``requires`` names the distributions that the function
    imports, numpy among them if arrays are passed. The rest is that of `Service`.

    Raises ``configuration.code`` for what is not an importable top-level function.
    """

    __slots__ = ("files",)
    files: Mapping[str, Path]

    def __init__(
        self,
        function: Callable[..., object],
        *,
        id: str = "default",  # noqa: A002 - the service's own word
        data: Mapping[str, str | Path] | None = None,
        code: Sequence[str | Path | CodeRoot] = (),
        requires: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        limits: Limits | None = None,
        egress: Sequence[str] = (),
        secrets: Mapping[str, bytes] | Sequence[SecretPin] = (),
        models: Mapping[str, bytes] | Sequence[SecretPin] = (),
        broker: BrokerAddress | None = None,
        at_most_once: bool = True,
        max_session: int = 3600,
        evidence: str = "fresh",
        debug: bool = False,
    ) -> None:
        _check(function)
        files = {name: Path(path) for name, path in (data or {}).items()}
        pins = {pin.name: pin.owner_public for pin in owner_pins(models)}
        for name, path in files.items():
            if name not in pins:
                pins[name] = _owner_of(path)
        super().__init__(
            kind=KIND,
            id=id,
            options={"function": f"{function.__module__}:{function.__name__}"},
            code=code_roots(function.__module__, code),
            requires=tuple(requires),
            environment=dict(environment or {}),
            limits=limits or Limits(),
            egress=tuple(egress),
            secrets=owner_pins(secrets),
            models=owner_pins(pins),
            broker=broker,
            at_most_once=at_most_once,
            max_session=max_session,
            evidence=evidence,
            debug=debug,
        )
        object.__setattr__(self, "files", types.MappingProxyType(files))

    @staticmethod
    def connect(url: str, verifier: Verifier, **options: Any) -> FunctionClient:
        """Attest the enclave at ``url`` and give something to call; raises if attestation fails."""
        from confide.channel.client import Client

        return FunctionClient(Client(url, verifier, **options))


def _owner_of(path: Path) -> bytes:
    from confide.sealing.layout import HEADER_BLOCK, Header

    try:
        with path.open("rb") as file:
            header, _encoded, _signature = Header.split(file.read(HEADER_BLOCK))
    except OSError as error:
        raise ConfigurationError("data", "a protected file cannot be read", hint=str(path)) from error
    return header.owner


def _check(function: object) -> None:
    if not isinstance(function, types.FunctionType):
        _refuse(
            f"a {type(function).__name__} is not a function",
            "Pass a function that a module defines by `def`.",
        )
    name, module = function.__name__, function.__module__
    if name == "<lambda>":
        _refuse(
            "a lambda has no name to be imported by",
            "Write `def predict(x): return ...` in a module and pass it.",
        )
    if function.__closure__:
        held = ", ".join(function.__code__.co_freevars)
        _refuse(
            f"{name} is a closure over {held}",
            f"Make {held} a parameter, a constant of its module, or sealed data.",
        )
    if function.__qualname__ != name:
        _refuse(
            f"{name} is defined inside {function.__qualname__.rpartition('.')[0]}",
            f"Move `def {name}` to the top level of its module.",
        )
    main = sys.modules.get("__main__")
    if module == "__main__" or module not in sys.modules:
        where = (
            "this notebook or prompt" if getattr(main, "__file__", None) is None else "the script that runs"
        )
        _refuse(
            f"{name} is defined in {where}, whose file cannot be imported under a name",
            f"Put `def {name}` into a file beside it, such as confidential.py, and write `from confidential import {name}`.",
        )
    if getattr(sys.modules[module], name, None) is not function:
        _refuse(
            f"{module}.{name} is not this function",
            f"Pass what `from {module} import {name}` gives; a decorator or a later assignment has replaced it.",
        )


def _refuse(problem: str, hint: str) -> NoReturn:
    raise ConfigurationError("code", problem, hint=hint, stage="service")


class FunctionClient:
    """Calls the function in the enclave as if it were here. Made by ``Function.connect``; close it, or use ``with``."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def attestation(self) -> AttestationResult:
        """What was verified."""
        return self._client.attestation

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Encrypt the arguments, call, decrypt the result.

        Raises `ConfigurationError` for arguments that have no place in a message, `EnclaveError` for what went wrong
        inside (its code alone comes out), and what the channel raises.
        """
        body = values.encode({"arguments": list(arguments), "named": named})
        response = self._client.post(_PATH, content=body, headers={"content-type": _TYPE})
        if response.status_code != 200 or response.headers.get("content-type") != _TYPE:
            raise ChannelError("protocol", "the enclave did not answer as a function does")
        fields = Fields(values.decode(response.content, max_size=_MAX_ANSWER), "function answer")
        if fields.has("error"):
            raise _received(fields.text("error", 128))
        if not fields.has("result"):
            raise MalformedError("non_canonical", "function answer: neither a result nor an error")
        return values.decode(response.content, max_size=_MAX_ANSWER)["result"]

    def close(self) -> None:
        """End the session."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _received(code: str) -> EnclaveError:
    leaf = code.rpartition(".")[2]
    messages = {
        "out_of_memory": "the call does not fit into the enclave's memory limit",
        "deadline": "the call took longer than the service's deadline",
        "overloaded": "the enclave has too many calls waiting",
    }
    error = EnclaveError(
        leaf,
        messages.get(leaf, "the function failed inside the enclave, which says no more than this code"),
        hint="Run it outside with test data to see why." if leaf == "crashed" else "",
        retryable=leaf == "overloaded",
    )
    error.code = code
    return error


class _FunctionApp:
    """One route: decode, call in a thread, encode."""

    def __init__(self, function: Callable[..., object], context: Context) -> None:
        first = next(iter(inspect.signature(function).parameters), None)
        self._leading = (context,) if first == "context" else ()
        self._function = function
        self._limits = context.service.limits
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="confide-function")
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] != _PATH or scope["method"] != "POST":
            await _answer(send, 404, b"")
            return
        try:
            arguments, named = self._read(await _body(receive, self._limits.max_body))
            result = values.encode({"result": await self._call(arguments, named)})
        except MemoryError:
            result = values.encode({"error": "enclave.out_of_memory"})
        except ConfideError as error:
            result = values.encode({"error": error.code})
        except Exception:  # noqa: BLE001 - the function's own error may hold any value; only that it failed goes out
            result = values.encode({"error": "enclave.crashed"})
        await _answer(send, 200, result)

    def _read(self, body: bytes) -> tuple[list[Any], dict[str, Any]]:
        fields = Fields(values.decode(body, max_size=self._limits.max_body), "function call")
        arguments, named = fields.list_("arguments", 256), fields.mapping("named")
        fields.end()
        return arguments, named

    def _run(self, arguments: list[Any], named: dict[str, Any]) -> object:
        try:
            return self._function(*self._leading, *arguments, **named)
        except (SystemExit, KeyboardInterrupt):
            # `exit()` and the like end the call, not the enclave of everybody else.
            raise EnclaveError("crashed", "the function asked the interpreter to end") from None

    async def _call(self, arguments: list[Any], named: dict[str, Any]) -> object:
        if self._waiting >= _WAITING:
            raise EnclaveError("overloaded", "too many calls wait", retryable=True)
        self._waiting += 1
        try:
            async with asyncio.timeout(max(0.1, self._limits.deadline - 0.5)):
                return await asyncio.get_running_loop().run_in_executor(
                    self._pool, lambda: self._run(arguments, named)
                )
        except TimeoutError:
            raise EnclaveError("deadline", "the call took too long") from None
        finally:
            self._waiting -= 1


async def _body(receive: Receive, limit: int) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise MalformedError("truncated", "the call was cut off")
        body += message.get("body", b"")
        if len(body) > limit:
            raise MalformedError("limit_exceeded", "the call is longer than it may be")
        if not message.get("more_body", False):
            return bytes(body)


async def _answer(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", _TYPE.encode()), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def build(options: Mapping[str, object], context: Context) -> Built:
    """Import the measured function. Raises ``enclave.unmeasured`` for what the manifest does not list."""
    return Built(_FunctionApp(resolve(options.get("function")), context))
