# SPDX-License-Identifier: Apache-2.0
"""The one place where confide asks a vendor: HTTPS to hosts named in the code, bounded in bytes and time.

Nothing that is fetched is trusted for having been fetched: certificates, CRLs and signed documents are judged by their
signatures. Addresses come from ``endorse`` modules, which make them of fields of the evidence. One kind is read from certificates:
the places of Nitro's CRLs, once the chain above the evidence ends at AWS's root. Of all of them only hosts named here are asked.
"""

from __future__ import annotations

import base64
import re
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlsplit

from confide.crypto import x509
from confide.errors import ConfigurationError, EndorsementsMissing, MalformedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["ALLOWED_HOSTS", "MAX_BYTES", "Answer", "Ask", "Request", "ask", "certificate_pem", "get"]

# AMD's key distribution service, Intel's provisioning certification service with the place of its root's CRL, and NVIDIA's
# services of reference values and of certificate status.
ALLOWED_HOSTS: Final = frozenset(
    {
        "kdsintf.amd.com",
        "api.trustedservices.intel.com",
        "certificates.trustedservices.intel.com",
        "rim.attestation.nvidia.com",
        "ocsp.ndis.nvidia.com",
    }
)
# AWS publishes the CRLs of Nitro Enclaves in a bucket for each region, each named after it; `tees.nitro.endorse` has the forms.
_AWS_CRLS: Final = re.compile(
    r"aws-nitro-enclaves-crl\.s3\.amazonaws\.com|"
    r"crl-([a-z]{2}(?:-[a-z]{1,16}){1,3}-[0-9]{1,2})-aws-nitro-enclaves\.s3\.\1\.amazonaws\.com",
    re.ASCII,
)
MAX_BYTES: Final = 1024 * 1024
MAX_HEADER: Final = 16 * 1024
MAX_REQUEST: Final = 4 * 1024
TIMEOUT: Final = 20.0


@dataclass(frozen=True, slots=True)
class Request:
    """One question: GET ``url``, or POST of ``body`` where there is one. ``headers`` names those of the answer that are wanted,
    in lower case; each of them must be there once. ``leaf`` is the error's where no answer comes.
    """

    url: str
    headers: tuple[str, ...] = ()
    body: bytes | None = None
    content_type: str = "application/octet-stream"
    leaf: str = "certificate"


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer: its body, and the headers that were asked for."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Ask(Protocol):
    """What asks: ``fetch.ask``, the same behind a cache, or a service of a test."""

    def __call__(self, request: Request, /) -> Answer:
        """The answer, or ``endorsements_missing.*``."""
        ...


def get(
    url: str,
    *,
    max_bytes: int = MAX_BYTES,
    allowed_hosts: frozenset[str] = ALLOWED_HOSTS,
    timeout: float = TIMEOUT,
    transport: Any = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> bytes:
    """The body at ``url``; everything else as ``ask``."""
    return ask(
        Request(url),
        max_bytes=max_bytes,
        allowed_hosts=allowed_hosts,
        timeout=timeout,
        transport=transport,
        monotonic=monotonic,
    ).body


def ask(
    request: Request,
    *,
    max_bytes: int = MAX_BYTES,
    allowed_hosts: frozenset[str] = ALLOWED_HOSTS,
    timeout: float = TIMEOUT,
    transport: Any = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> Answer:
    """The answer to one request, with at most ``max_bytes`` of body, within ``timeout`` seconds altogether.

    Only ``https`` on its usual port to one of ``allowed_hosts`` is asked, no redirect is followed, no content coding is
    accepted, and neither proxies nor certificates are taken from the environment. ``transport`` replaces httpx2's own.
    Raises ``configuration.address`` for an address that may not be asked, ``endorsements_missing.*`` for every answer but a
    complete one, ``retryable`` where a later try can help.
    """
    _check(request.url, allowed_hosts)
    if request.body is not None and len(request.body) > MAX_REQUEST:
        raise ConfigurationError("address", f"a question to a vendor is longer than {MAX_REQUEST} bytes")
    deadline = monotonic() + timeout
    outcome: list[Answer | Exception] = []

    def work() -> None:
        try:
            outcome.append(_ask(request, max_bytes, timeout, transport, lambda: monotonic() > deadline))
        except Exception as error:  # noqa: BLE001 - handed to the caller's thread
            outcome.append(error)

    # In a thread of its own, because a service that sends its headers byte by byte never lets a read time out.
    asking = threading.Thread(target=work, name="confide-fetch", daemon=True)
    asking.start()
    asking.join(timeout)
    if not outcome:
        raise _failed(request, "the vendor's service is too slow", retryable=True)
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


def _ask(
    request: Request, max_bytes: int, timeout: float, transport: Any, is_late: Callable[[], bool]
) -> Answer:
    # Imported here, because verification never needs it.
    import httpx2

    body = bytearray()
    sent = {"accept-encoding": "identity"}
    if request.body is not None:
        sent["content-type"] = request.content_type
    try:
        with (
            httpx2.Client(
                transport=transport, follow_redirects=False, trust_env=False, timeout=timeout, max_redirects=0
            ) as client,
            client.stream(
                "GET" if request.body is None else "POST", request.url, headers=sent, content=request.body
            ) as response,
        ):
            if response.status_code != 200:
                retryable = response.status_code == 429 or response.status_code >= 500
                raise _failed(
                    request, "the vendor's service did not answer with a document", retryable=retryable
                )
            if response.headers.get("content-encoding", "identity") != "identity":
                raise _failed(
                    request, "the vendor's service answered in a content coding that was not asked for"
                )
            headers = {name: _header(request, response.headers.get_list(name)) for name in request.headers}
            for chunk in response.iter_raw():
                body += chunk
                if len(body) > max_bytes:
                    raise _failed(request, f"the vendor's service answered with more than {max_bytes} bytes")
                if is_late():
                    raise _failed(request, "the vendor's service is too slow", retryable=True)
    except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, OSError) as error:
        raise _failed(request, "the vendor's service could not be reached", retryable=True) from error
    return Answer(bytes(body), headers)


def _header(request: Request, values: list[str]) -> str:
    if len(values) != 1 or not 0 < len(values[0]) <= MAX_HEADER or not values[0].isascii():
        raise _failed(request, "the vendor's service answered without a header that belongs to its document")
    return values[0]


def certificate_pem(data: bytes) -> str:
    """Certificates and CRLs as PEM, from one in DER or any in PEM; ``malformed`` for everything else that a service may send."""
    if data[:1] != b"\x30":
        certificates, crls = x509.parse_documents(data)
        return pem_text(tuple(one.der for one in certificates), tuple(one.der for one in crls))
    try:
        return pem_text((x509.Certificate.from_der(data).der,), ())
    except MalformedError:
        return pem_text((), (x509.Crl.from_bytes(data).der,))


def pem_text(certificates: tuple[bytes, ...], crls: tuple[bytes, ...]) -> str:
    """DER certificates and CRLs as one PEM text, in that order."""
    return "".join(
        (*(_pem("CERTIFICATE", der) for der in certificates), *(_pem("X509 CRL", der) for der in crls))
    )


def _pem(label: str, der: bytes) -> str:
    text = base64.b64encode(der).decode("ascii")
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return "\n".join((f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""))


def _check(url: str, allowed_hosts: frozenset[str]) -> None:
    # `urlsplit` drops control characters and spaces before it reads, and the client does not: both must read the same address.
    visible = all("!" <= one <= "~" for one in url)
    try:
        parts = urlsplit(url)
        plain = (
            parts.port is None and parts.username is None and parts.password is None and not parts.fragment
        )
    except ValueError:
        parts, plain = urlsplit(""), False
    host = parts.hostname or ""
    known = host in allowed_hosts or (
        allowed_hosts == ALLOWED_HOSTS and _AWS_CRLS.fullmatch(host) is not None
    )
    if parts.scheme != "https" or not known or not plain or not visible:
        raise ConfigurationError(
            "address",
            "this address may not be asked for endorsements",
            hint=f"allowed: https to {', '.join(sorted(allowed_hosts))}",
        )


def _failed(request: Request, message: str, *, retryable: bool = False) -> EndorsementsMissing:
    return EndorsementsMissing(
        request.leaf,
        message,
        hint="try again later, or give the documents with --endorsements",
        retryable=retryable,
    )
