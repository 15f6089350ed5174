# SPDX-License-Identifier: Apache-2.0
"""The asynchronous twin of ``transport.py``: the same flow, on asyncio or trio."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import httpx2

from confide.channel import tls
from confide.channel.flow import ChannelFlow
from confide.channel.shell import AsyncShell
from confide.channel.transport import utc_now
from confide.errors import ChannelError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from confide.attestation.result import AttestationResult
    from confide.attestation.verifier import Verifier

__all__ = ["AsyncAttestedTransport"]


class AsyncAttestedTransport(httpx2.AsyncBaseTransport):
    """As ``AttestedTransport``, for ``httpx2.AsyncClient``."""

    def __init__(
        self,
        url: str,
        verifier: Verifier,
        *,
        fresh: bool = True,
        purpose: str = "channel",
        audience: str | None = None,
        receipts: bool = False,
        at_most_once: bool = False,
        transport: httpx2.AsyncBaseTransport | None = None,
        clock: Callable[[], datetime] = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        flow = ChannelFlow(
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
        self._shell = AsyncShell(
            flow, httpx2, transport or httpx2.AsyncHTTPTransport(verify=tls.context_for(url), trust_env=False)
        )

    async def attest(self) -> AttestationResult:
        """Verify evidence now and open a session with it."""
        return await self._shell.attest()

    @property
    def attestation(self) -> AttestationResult:
        """What was verified for the current session; ``channel.closed`` before any was."""
        result = self._shell.flow.attestation
        if result is None:
            raise ChannelError(
                "closed", "nothing has been attested yet", hint="await attest() or send a request"
            )
        return result

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request through the envelope."""
        response: httpx2.Response = await self._shell.handle(request)
        return response

    async def aclose(self) -> None:
        """Close the outer connections."""
        await self._shell.close()
