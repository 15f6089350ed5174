# SPDX-License-Identifier: Apache-2.0
"""An httpx2 transport that sends everything through the attested envelope.

Only the path and query of a request's URL are used: whatever host the URL names, the request goes to the attested service
and nowhere else, and there is no way around the envelope.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import httpx2

from confide.channel import tls
from confide.channel.flow import ChannelFlow
from confide.channel.shell import SyncShell
from confide.errors import ChannelError

if TYPE_CHECKING:
    from collections.abc import Callable

    from confide.attestation.result import AttestationResult
    from confide.attestation.verifier import Verifier

__all__ = ["AttestedTransport", "utc_now"]


def utc_now() -> datetime:
    """The machine's clock, aware; the default at this outermost shell."""
    return datetime.fromtimestamp(time.time(), UTC)


class AttestedTransport(httpx2.BaseTransport):
    """Attests the service at ``url`` before the first byte is sent, and whenever a session has ended.

    ``fresh=False`` accepts evidence that answers no nonce. ``purpose`` and ``audience`` are what the evidence must be made for.
    ``receipts`` asks for a receipt with every request. ``at_most_once`` forbids repeating any request on the host's word,
    even where the service allows it. ``transport`` carries the outer requests (default: an ``httpx2.HTTPTransport``).
    Errors: whatever the Verifier raises, and ``ChannelError``.
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
        self._shell = SyncShell(
            flow, httpx2, transport or httpx2.HTTPTransport(verify=tls.context_for(url), trust_env=False)
        )

    def attest(self) -> AttestationResult:
        """Verify evidence now and open a session with it."""
        return self._shell.attest()

    @property
    def attestation(self) -> AttestationResult:
        """What was verified for the current session; ``channel.closed`` before any was."""
        result = self._shell.flow.attestation
        if result is None:
            raise ChannelError(
                "closed", "nothing has been attested yet", hint="call attest() or send a request"
            )
        return result

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request through the envelope."""
        response: httpx2.Response = self._shell.handle(request)
        return response

    def close(self) -> None:
        """Close the outer connections."""
        self._shell.close()
