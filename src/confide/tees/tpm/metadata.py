# SPDX-License-Identifier: Apache-2.0
"""Azure's metadata service, as seen from inside a confidential VM: certificates of the chip, and TD quotes for a TDREPORT.

It is plain HTTP on a link-local address of the host, and nothing that it says is believed: what it gives is verified with the rest
of the evidence. Source: Microsoft, "Trusted Hardware Identity Management", "Azure Instance Metadata Service".
"""

from __future__ import annotations

import base64
import http.client
from dataclasses import dataclass
from typing import Any, Final, Protocol

from confide.crypto import x509
from confide.errors import ConfideError, EnclaveError
from confide.wire import base64_text, strict_json

__all__ = ["Metadata", "MetadataService"]

_HOST: Final = "169.254.169.254"
_MAX: Final = 128 * 1024
_TIMEOUT: Final = 20.0
_MAX_QUOTE: Final = 32 * 1024


class Metadata(Protocol):
    """What the host adds to a report."""

    def certificates(self) -> tuple[bytes, ...]:
        """The chip's certificate and those above it, in DER; empty if the host gives none."""

    def td_quote(self, report: bytes) -> bytes:
        """The quote for a TDREPORT of 1024 bytes. Raises ``enclave.bad_state``."""


def _failed(problem: str) -> EnclaveError:
    return EnclaveError(
        "bad_state",
        f"Azure's metadata service {problem}",
        hint="it answers only inside Azure's confidential VMs, at 169.254.169.254",
        stage="attest",
        retryable=True,
    )


@dataclass(frozen=True, slots=True)
class MetadataService:
    """The service at ``host`` and ``port``, which are the well-known ones outside of tests."""

    host: str = _HOST
    port: int = 80

    def certificates(self) -> tuple[bytes, ...]:
        """See ``Metadata``: a verifier can get them from AMD as well, so that a failure here is none of attesting."""
        try:
            document = self._ask("GET", "/metadata/THIM/amd/certification", None)
            texts = [document.get(name) for name in ("vcekCert", "certificateChain")]
            return tuple(
                one.der
                for text in texts
                if isinstance(text, str)
                for one in x509.parse_pem(text.encode("utf-8"))
            )
        except ConfideError:
            return ()

    def td_quote(self, report: bytes) -> bytes:
        """See ``Metadata``."""
        body = strict_json.encode({"report": _base64url(report)})
        quote = self._ask("POST", "/acc/tdquote", body).get("quote")
        if not isinstance(quote, str):
            raise _failed("gave no quote")
        return base64_text.decode(quote.rstrip("="), what="a TD quote", max_length=_MAX_QUOTE, url=True)

    def _ask(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=_TIMEOUT)
        headers = {"Metadata": "true", "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, path, body=body, headers=headers)
            # An answer that is not read to its end keeps the connection, unless it is closed itself.
            with connection.getresponse() as response:
                data = response.read(_MAX + 1)
        except (OSError, http.client.HTTPException):
            raise _failed("does not answer") from None
        finally:
            connection.close()
        if response.status != 200:
            raise _failed(f"answered with status {response.status}")
        document = strict_json.decode(data, what="the metadata service's answer", max_size=_MAX, max_depth=8)
        if not isinstance(document, dict):
            raise _failed("gave no object")
        return document


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
