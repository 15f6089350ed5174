# SPDX-License-Identifier: Apache-2.0
"""HTTP clients that exist only together with accepted evidence.

    with Client("https://models.example", verifier) as client:
        answer = client.post("/v1/score", json={"text": "..."})
        answer.extensions["confide"].receipt

They are httpx2 clients, so a library that takes one takes these: ``openai.OpenAI(http_client=Client(...))``. Only path and
query of a URL count; every request goes to the attested service.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import httpx2

from confide.channel.async_transport import AsyncAttestedTransport
from confide.channel.transport import AttestedTransport, utc_now

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from typing import Self

    from confide.attestation.result import AttestationResult
    from confide.attestation.verifier import Verifier

__all__ = ["BASE_URL", "AsyncClient", "Client"]

BASE_URL = "https://confide.invalid"
"""What relative URLs are joined to. The name can never resolve, so that a mistake cannot send plaintext anywhere."""


class Client(httpx2.Client):
    """An ``httpx2.Client`` for the service at ``url``; making one verifies fresh evidence, or raises.

    Options are those of ``AttestedTransport``; ``http_options`` those of ``httpx2.Client`` that concern the inner request
    (``headers``, ``params``, ``auth``, ``timeout``, ``cookies``, ``event_hooks``, ``base_url``).
    """

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
        transport: httpx2.BaseTransport | None = None,
        clock: Callable[[], datetime] = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
        random: Callable[[int], bytes] = os.urandom,
        **http_options: Any,
    ) -> None:
        inner = _inner(http_options)
        attested = AttestedTransport(
            url,
            verifier,
            fresh=fresh,
            purpose=purpose,
            audience=audience,
            receipts=receipts,
            at_most_once=at_most_once,
            transport=transport,
            clock=clock,
            monotonic=monotonic,
            random=random,
        )
        try:
            attested.attest()
        except BaseException:
            attested.close()
            raise
        self._attested = attested
        super().__init__(transport=attested, **inner)

    @property
    def attestation(self) -> AttestationResult:
        """What was verified for the session in use."""
        return self._attested.attestation


class AsyncClient(httpx2.AsyncClient):
    """An ``httpx2.AsyncClient``; entering it (or its first request) verifies fresh evidence, or raises."""

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
        **http_options: Any,
    ) -> None:
        self._attested = AsyncAttestedTransport(
            url,
            verifier,
            fresh=fresh,
            purpose=purpose,
            audience=audience,
            receipts=receipts,
            at_most_once=at_most_once,
            transport=transport,
            clock=clock,
            monotonic=monotonic,
            random=random,
        )
        super().__init__(transport=self._attested, **_inner(http_options))

    @property
    def attestation(self) -> AttestationResult:
        """What was verified for the session in use; ``channel.closed`` before any was."""
        return self._attested.attestation

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        try:
            await self._attested.attest()
        except BaseException:
            await self.aclose()
            raise
        return self


def _inner(options: dict[str, Any]) -> dict[str, Any]:
    """Options of the inner client; those that would lead around the envelope do not exist here."""
    for name in ("mounts", "proxy", "trust_env", "verify", "cert", "http1", "http2", "limits"):
        if name in options:
            raise TypeError(f"{name} belongs to the outer connection: give transport= instead")
    # The environment's proxies and .netrc passwords are not meant for what is inside the envelope.
    return {"base_url": BASE_URL, **options, "trust_env": False}
