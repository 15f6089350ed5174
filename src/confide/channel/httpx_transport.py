# SPDX-License-Identifier: Apache-2.0
"""The transports for libraries that still use httpx; ``pip install confide[httpx]``.

Everything but the class names is that of ``transport.py`` and ``async_transport.py``.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import httpx

from confide.channel import tls
from confide.channel.flow import ChannelFlow
from confide.channel.shell import AsyncShell, SyncShell
from confide.channel.transport import utc_now

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from confide.attestation.result import AttestationResult
    from confide.attestation.verifier import Verifier

__all__ = ["AsyncAttestedTransport", "AttestedTransport"]


def _flow(
    url: str,
    verifier: Verifier,
    *,
    fresh: bool = True,
    purpose: str = "channel",
    audience: str | None = None,
    receipts: bool = False,
    at_most_once: bool = False,
    clock: Callable[[], datetime] = utc_now,
    monotonic: Callable[[], float] = time.monotonic,
    random: Callable[[int], bytes] = os.urandom,
) -> ChannelFlow:
    return ChannelFlow(
        url,
        verifier,
        fresh=fresh,
        purpose=purpose,
        audience=audience,
        receipts=receipts,
        at_most_once=at_most_once,
        clock=clock,
        monotonic=monotonic,
        random=random,
    )


class AttestedTransport(httpx.BaseTransport):
    """For ``httpx.Client``: ``options`` are those of ``confide.channel.transport.AttestedTransport``."""

    def __init__(
        self, url: str, verifier: Verifier, *, transport: httpx.BaseTransport | None = None, **options: object
    ) -> None:
        flow = _flow(url, verifier, **options)  # type: ignore[arg-type]
        self._shell = SyncShell(
            flow, httpx, transport or httpx.HTTPTransport(verify=tls.context_for(url), trust_env=False)
        )

    def attest(self) -> AttestationResult:
        """Verify evidence now and open a session with it."""
        return self._shell.attest()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request through the envelope."""
        response: httpx.Response = self._shell.handle(request)
        return response

    def close(self) -> None:
        """Close the outer connections."""
        self._shell.close()


class AsyncAttestedTransport(httpx.AsyncBaseTransport):
    """For ``httpx.AsyncClient``."""

    def __init__(
        self,
        url: str,
        verifier: Verifier,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        **options: object,
    ) -> None:
        flow = _flow(url, verifier, **options)  # type: ignore[arg-type]
        self._shell = AsyncShell(
            flow, httpx, transport or httpx.AsyncHTTPTransport(verify=tls.context_for(url), trust_env=False)
        )

    async def attest(self) -> AttestationResult:
        """Verify evidence now and open a session with it."""
        return await self._shell.attest()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request through the envelope."""
        response: httpx.Response = await self._shell.handle(request)
        return response

    async def aclose(self) -> None:
        """Close the outer connections."""
        await self._shell.close()
