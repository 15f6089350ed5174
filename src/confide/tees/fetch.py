# SPDX-License-Identifier: Apache-2.0
"""The one place where confide asks a vendor: HTTPS GET to hosts named in the code, bounded in bytes and time.

Nothing that is fetched is trusted for having been fetched: certificates and CRLs are judged by their signatures. Addresses
come from ``endorse`` modules and never from evidence or certificates.
"""

from __future__ import annotations

import base64
import threading
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from confide.crypto import x509
from confide.errors import ConfigurationError, EndorsementsMissing, MalformedError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ALLOWED_HOSTS", "MAX_BYTES", "certificate_pem", "get"]

ALLOWED_HOSTS: Final = frozenset({"kdsintf.amd.com"})
MAX_BYTES: Final = 1024 * 1024
TIMEOUT: Final = 20.0


def get(
    url: str,
    *,
    max_bytes: int = MAX_BYTES,
    allowed_hosts: frozenset[str] = ALLOWED_HOSTS,
    timeout: float = TIMEOUT,
    transport: Any = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> bytes:
    """The body at ``url``, at most ``max_bytes`` of it, within ``timeout`` seconds altogether.

    Only ``https`` on its usual port to one of ``allowed_hosts`` is asked, no redirect is followed, no content coding is
    accepted, and neither proxies nor certificates are taken from the environment. ``transport`` replaces httpx2's own.
    Raises ``configuration.address`` for an address that may not be asked, ``endorsements_missing.certificate`` for every
    answer but a complete one, ``retryable`` where a later try can help.
    """
    _check(url, allowed_hosts)
    deadline = monotonic() + timeout
    outcome: list[bytes | Exception] = []

    def ask() -> None:
        try:
            outcome.append(_ask(url, max_bytes, timeout, transport, lambda: monotonic() > deadline))
        except Exception as error:  # noqa: BLE001 - handed to the caller's thread
            outcome.append(error)

    # In a thread of its own, because a service that sends its headers byte by byte never lets a read time out.
    asking = threading.Thread(target=ask, name="confide-fetch", daemon=True)
    asking.start()
    asking.join(timeout)
    if not outcome:
        raise _failed("the vendor's service is too slow", retryable=True)
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


def _ask(url: str, max_bytes: int, timeout: float, transport: Any, is_late: Callable[[], bool]) -> bytes:
    # Imported here, because verification never needs it.
    import httpx2

    body = bytearray()
    try:
        with (
            httpx2.Client(
                transport=transport, follow_redirects=False, trust_env=False, timeout=timeout, max_redirects=0
            ) as client,
            client.stream("GET", url, headers={"accept-encoding": "identity"}) as response,
        ):
            if response.status_code != 200:
                retryable = response.status_code == 429 or response.status_code >= 500
                raise _failed("the vendor's service did not answer with a document", retryable=retryable)
            if response.headers.get("content-encoding", "identity") != "identity":
                raise _failed("the vendor's service answered in a content coding that was not asked for")
            for chunk in response.iter_raw():
                body += chunk
                if len(body) > max_bytes:
                    raise _failed(f"the vendor's service answered with more than {max_bytes} bytes")
                if is_late():
                    raise _failed("the vendor's service is too slow", retryable=True)
    except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, OSError) as error:
        raise _failed("the vendor's service could not be reached", retryable=True) from error
    return bytes(body)


def certificate_pem(data: bytes) -> str:
    """Certificates and CRLs as PEM, from one in DER or any in PEM; ``malformed`` for everything else that a service may send."""
    if data[:1] != b"\x30":
        certificates, crls = x509.parse_documents(data)
        return "".join(
            (
                *(_pem("CERTIFICATE", one.der) for one in certificates),
                *(_pem("X509 CRL", one.der) for one in crls),
            )
        )
    try:
        return _pem("CERTIFICATE", x509.Certificate.from_der(data).der)
    except MalformedError:
        return _pem("X509 CRL", x509.Crl.from_bytes(data).der)


def _pem(label: str, der: bytes) -> str:
    text = base64.b64encode(der).decode("ascii")
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return "\n".join((f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""))


def _check(url: str, allowed_hosts: frozenset[str]) -> None:
    try:
        parts = urlsplit(url)
        plain = (
            parts.port is None and parts.username is None and parts.password is None and not parts.fragment
        )
    except ValueError:
        parts, plain = urlsplit(""), False
    if parts.scheme != "https" or parts.hostname not in allowed_hosts or not plain or not url.isascii():
        raise ConfigurationError(
            "address",
            "this address may not be asked for endorsements",
            hint=f"allowed: https to {', '.join(sorted(allowed_hosts))}",
        )


def _failed(message: str, *, retryable: bool = False) -> EndorsementsMissing:
    return EndorsementsMissing(
        "certificate",
        message,
        hint="try again later, or give the documents with --endorsements",
        retryable=retryable,
    )
