# SPDX-License-Identifier: Apache-2.0
"""Any ASGI application as a confidential service.

    service = Application("shop.web:app", requires=["starlette"])
    with Enclave.launch(service, tee="simulated") as enclave, Application.connect(enclave.url, verifier) as client:
        client.get("/orders")

The application is measured with its package, runs unchanged, and finds its `Context` as ``request.state.confide`` (ASGI:
``scope["state"]["confide"]``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from confide.enclave.context import Built
from confide.enclave.service import Limits, Service
from confide.enclave.user_code import code_roots, owner_pins, resolve, split_target

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from confide.attestation.verifier import Verifier
    from confide.channel.client import Client
    from confide.enclave.context import Application as AsgiApplication
    from confide.enclave.context import Context, Receive, Scope, Send
    from confide.enclave.service import BrokerAddress, CodeRoot, SecretPin

__all__ = ["Application", "build"]

KIND: Final = "application"


class Application(Service):
    """The measured configuration of an ASGI application, ``target`` being ``module:attribute``.

    ``code`` gives places of code where ``import`` would not find them; ``requires`` names the distributions that it
    imports. ``secrets`` and ``models`` map names to owners' public keys (32 bytes). The rest is that of `Service`.
    """

    __slots__ = ()

    def __init__(
        self,
        target: str,
        *,
        id: str = "default",  # noqa: A002 - the service's own word
        code: Sequence[str | Path | CodeRoot] = (),
        requires: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        limits: Limits | None = None,
        egress: Sequence[str] = (),
        secrets: Mapping[str, bytes] | Sequence[SecretPin] = (),
        models: Mapping[str, bytes] | Sequence[SecretPin] = (),
        broker: BrokerAddress | None = None,
        at_most_once: bool = False,
        max_session: int = 3600,
        evidence: str = "fresh",
        debug: bool = False,
    ) -> None:
        module, _attribute = split_target(target)
        super().__init__(
            kind=KIND,
            id=id,
            options={"app": target},
            code=code_roots(module, code),
            requires=tuple(requires),
            environment=dict(environment or {}),
            limits=limits or Limits(),
            egress=tuple(egress),
            secrets=owner_pins(secrets),
            models=owner_pins(models),
            broker=broker,
            at_most_once=at_most_once,
            max_session=max_session,
            evidence=evidence,
            debug=debug,
        )

    @staticmethod
    def connect(url: str, verifier: Verifier, **options: Any) -> Client:
        """Attest the enclave at ``url`` and give an HTTP client (httpx2's interface) into it; raises if that fails."""
        from confide.channel.client import Client

        return Client(url, verifier, **options)


class _WithContext:
    """Puts the context where every ASGI framework shows it."""

    def __init__(self, app: AsgiApplication, context: Context) -> None:
        self._app = app
        self._context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["confide"] = self._context
        await self._app(scope, receive, send)


def build(options: Mapping[str, object], context: Context) -> Built:
    """Import the measured application. Raises ``enclave.unmeasured`` for what the manifest does not list."""
    return Built(_WithContext(resolve(options.get("app")), context), lifespan=True)
