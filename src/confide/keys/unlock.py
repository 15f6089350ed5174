# SPDX-License-Identifier: Apache-2.0
"""``unlock``: an owner's own process verifies an enclave and hands it the keys that it waits for, without a broker.

    1. POST a request with a fresh challenge; fresh evidence comes back, or nothing that counts.
    2. Verify it: policy with [service], purpose "release", this owner as audience, this challenge, this clock.
    3. Encrypt the secrets to the attested key, sign, POST.
    4. Check the enclave's signature that it holds them.

Until 2 has passed no byte of a secret leaves. Everything before 4 that the server says is the host's word. Source:
``docs/spec/release.md``.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import httpx2

from confide.attestation.evidence import MAX_BUNDLE
from confide.crypto import signing
from confide.errors import (
    BrokerError,
    ChannelError,
    ConfideError,
    ConfigurationError,
    MalformedError,
    NotAcceptable,
)
from confide.keys.release import (
    ANSWER_PATH,
    CHALLENGE_BYTES,
    CONTENT_TYPE,
    EVIDENCE_TYPE,
    REQUEST_PATH,
    ReleaseRequest,
    SecretName,
    admit,
    wrap,
)
from confide.wire import cbor
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from confide.attestation.result import AttestationResult
    from confide.attestation.verifier import Verifier
    from confide.crypto.secret import Secret
    from confide.keys.identity import Identity

__all__ = [
    "Awaited",
    "UnlockResult",
    "awaited",
    "unlock",
]

DEADLINE: Final = 60.0
MAX_AWAITED: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class UnlockResult:
    """What was handed over, and to what: the enclave has signed that it holds the secrets."""

    result: AttestationResult
    names: tuple[SecretName, ...]
    lease: int


@dataclass(frozen=True, slots=True)
class Awaited:
    """What a server says that it waits for. The host's word: good for choosing what to offer, never for trusting."""

    tenant: str
    owners: Mapping[str, bytes]


def unlock(
    url: str,
    *,
    verifier: Verifier,
    secrets: Mapping[SecretName, Secret],
    identity: Identity,
    lease: int = 0,
    transport: httpx2.BaseTransport | None = None,
    wall_clock: Callable[[], datetime] | None = None,
    monotonic: Callable[[], float] = time.monotonic,
    random: Callable[[int], bytes] = os.urandom,
) -> UnlockResult:
    """Release ``secrets`` to the enclave at ``url``, if the Verifier's policy admits it.

    ``lease`` is in seconds; 0, the default, means until the enclave ends. Raises the Verifier's errors,
    ``channel.unauthenticated`` for a server that does not answer as an enclave does, ``channel.timeout``, ``channel.closed``, and
    ``channel.outcome_unknown`` if the answer was sent and nothing authentic came back.
    """
    service = verifier.policy.service
    if service is None:
        raise NotAcceptable(
            "empty_policy",
            "the policy names no service",
            hint="add a [service] table; `confide measure` writes it",
        )
    if not secrets:
        raise ConfigurationError("invalid", "there is nothing to release", hint="name a key of your keyring")
    clock = wall_clock or _utc_now
    request = ReleaseRequest.new(service.id, secrets, random(CHALLENGE_BYTES))
    message = cbor.encode({"v": 1, "owner": identity.public, "request": request.encode()})
    with _Server(url, transport, monotonic) as server:
        left = monotonic()
        evidence = server.post(REQUEST_PATH, message, content_type=EVIDENCE_TYPE, max_bytes=MAX_BUNDLE)
        admission = admit(
            evidence,
            request,
            verifier=verifier,
            audience=identity.audience,
            at=clock(),
            age=timedelta(seconds=max(0.0, monotonic() - left)),
        )
        material = admission.result.key_material
        if material is None:
            raise NotAcceptable("channel", "the evidence vouches for no key", stage="release")
        answer = wrap(admission, secrets, lease=lease, signer=identity.key)
        try:
            acknowledgement = server.post(
                ANSWER_PATH, answer.encode(), content_type=CONTENT_TYPE, max_bytes=signing.SIGNATURE_BYTES
            )
        except ChannelError as error:
            raise _unknown(error.message) from None
    try:
        signing.verify(material.receipt_key, acknowledgement, answer.accepted_message)
    except ConfideError:
        raise _unknown("the acknowledgement is not the enclave's") from None
    return UnlockResult(admission.result, request.secrets, lease)


def awaited(
    url: str,
    *,
    transport: httpx2.BaseTransport | None = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> Awaited:
    """Ask the server at ``url`` what it waits for; see ``Awaited`` for what that is worth."""
    with _Server(url, transport, monotonic) as server:
        data = server.get(REQUEST_PATH, content_type=CONTENT_TYPE, max_bytes=MAX_AWAITED)
    what = "list of awaited secrets"
    try:
        fields = Fields(cbor.decode(data, what=what, max_size=MAX_AWAITED, max_depth=4), what)
        fields.integer("v", 1, 1)
        tenant = fields.text("tenant", 256)
        rows = fields.list_("awaited")
        fields.end()
        owners: dict[str, bytes] = {}
        for row in rows:
            if not isinstance(row, list) or [type(cell) for cell in row] != [str, bytes] or len(row[1]) != 32:
                raise MalformedError("non_canonical", f"{what}: a row has another form")
            owners[SecretName(row[0], 1).name] = row[1]
    except (MalformedError, BrokerError):
        raise ChannelError("protocol", "the server's list of awaited secrets is malformed") from None
    return Awaited(tenant, owners)


def _unknown(cause: str) -> ChannelError:
    return ChannelError(
        "outcome_unknown",
        f"the secrets were sent to the attested enclave, but it is not known whether they arrived: {cause}",
        hint="only that enclave can open them; unlock again if it still waits",
        retryable=True,
    )


def _utc_now() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)


class _Server:
    """The untrusted server: bounded answers, one deadline, no redirects, no cookies, no proxies from the environment."""

    def __init__(
        self, url: str, transport: httpx2.BaseTransport | None, monotonic: Callable[[], float]
    ) -> None:
        try:
            parsed = httpx2.URL(url)
        except (httpx2.InvalidURL, TypeError):
            parsed = httpx2.URL("")
        if (
            parsed.scheme not in {"http", "https"}
            or not parsed.host
            or parsed.userinfo
            or parsed.query
            or not 0 < (parsed.port or 80) < 65536
        ):
            raise ConfigurationError(
                "invalid", "this is not the address of a server", hint="for example http://127.0.0.1:8443"
            )
        self._base = str(parsed.copy_with(fragment=None)).rstrip("/")
        self._monotonic = monotonic
        self._client = httpx2.Client(
            transport=transport, follow_redirects=False, trust_env=False, timeout=httpx2.Timeout(DEADLINE)
        )

    def __enter__(self) -> _Server:  # noqa: PYI034 - private, never subclassed
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str, *, content_type: str, max_bytes: int) -> bytes:
        return self._exchange("GET", path, None, content_type, max_bytes)

    def post(self, path: str, body: bytes, *, content_type: str, max_bytes: int) -> bytes:
        return self._exchange("POST", path, body, content_type, max_bytes)

    def _exchange(
        self, method: str, path: str, body: bytes | None, content_type: str, max_bytes: int
    ) -> bytes:
        headers = {"accept": content_type, "accept-encoding": "identity"}
        if body is not None:
            headers["content-type"] = CONTENT_TYPE
        end = self._monotonic() + DEADLINE
        try:
            with self._client.stream(method, self._base + path, content=body, headers=headers) as response:
                if response.status_code != 200 or response.headers.get("content-type") != content_type:
                    raise _refused(response.status_code)
                data = bytearray()
                for piece in response.iter_raw():
                    data += piece
                    if len(data) > max_bytes:
                        raise ChannelError("too_large", "the server's answer is longer than it may be")
                    if self._monotonic() > end:
                        raise ChannelError("timeout", "the server did not answer in time", retryable=True)
                return bytes(data)
        except httpx2.TimeoutException:
            problem = ChannelError("timeout", "the server did not answer in time", retryable=True)
        except (httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL):
            problem = ChannelError(
                "closed",
                "the server could not be reached, or closed the connection",
                hint="is it running? `confide ps` lists the enclaves of this machine",
                retryable=True,
            )
        raise problem


def _refused(status: int) -> ChannelError:
    hints = {
        404: "it waits for no keys: either it has them all, or this is not an enclave",
        503: "it is busy; try again",
    }
    return ChannelError(
        "unauthenticated",
        f"the server answered with status {status}, which anybody on the way can do",
        hint=hints.get(
            status, "it refused: compare the tenant, the names and the owner with its configuration"
        ),
        retryable=status == 503,
    )
