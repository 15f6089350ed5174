# SPDX-License-Identifier: Apache-2.0
"""The receiving side of a release, inside the enclave (``docs/spec/release.md``, section 2).

For each request the receiver makes one key pair, has the device vouch for it under the request's nonce, opens one answer
with it and erases it. Private keys never leave this object.
"""

from __future__ import annotations

import hmac
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from confide.attestation import binding
from confide.attestation.attester import quote
from confide.attestation.evidence import Evidence
from confide.attestation.key_material import KeyMaterial, kid
from confide.crypto import hpke
from confide.crypto.secret import Secret
from confide.crypto.signing import SigningKey, verify
from confide.errors import BrokerError, ChannelError, ConfideError, MalformedError, NotGenuine
from confide.keys.release import PURPOSE, ReleaseRequest, SecretName, Wrapped, hpke_info, read_plaintext

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from datetime import datetime

    from confide.attestation.attester import Attester
    from confide.attestation.key_material import ServiceIdentity

__all__ = ["LIFETIME", "MAX_PENDING", "Receiver", "Released"]

LIFETIME: Final = 120
MAX_PENDING: Final = 16


@dataclass(frozen=True, slots=True)
class Released:
    """What one answer brought: the secrets, their lease in seconds (0: until the enclave ends), and the 64-byte
    acknowledgement to send back.
    """

    secrets: Mapping[SecretName, Secret]
    lease: int
    acknowledgement: bytes


@dataclass(frozen=True, slots=True)
class _Pending:
    request: ReleaseRequest
    kid: bytes
    private: hpke.PrivateKey
    receipt: SigningKey
    expires: float


class Receiver:
    """Waits for secrets from one releaser.

    ``service`` is this instance's identity and ``manifest`` the measured manifest's bytes (both go into evidence);
    ``audience`` names the releaser; ``names`` are the secrets that may come from it. ``owner_public`` (32 bytes) makes
    the owner's signature on answers mandatory; None is for a releaser whose own evidence has been verified and whose
    answer comes through that attested channel. ``wall_clock`` only fills ``issued_at``, which is a claim.
    """

    def __init__(
        self,
        attester: Attester,
        service: ServiceIdentity,
        manifest: bytes | None,
        *,
        audience: str,
        names: Collection[str],
        owner_public: bytes | None,
        monotonic: Callable[[], float],
        wall_clock: Callable[[], datetime],
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        if owner_public is not None and len(owner_public) != 32:
            raise MalformedError("length_mismatch", "an owner's public key has 32 bytes")
        self._attester = attester
        self._service = service
        self._manifest = manifest
        self._audience = audience
        self._names = frozenset(names)
        self._owner = owner_public
        self._monotonic = monotonic
        self._wall_clock = wall_clock
        self._random = random
        self._epoch = 0
        self._closed = False
        self._pending: OrderedDict[bytes, _Pending] = OrderedDict()
        self._lock = threading.Lock()
        self._device = threading.Lock()

    def answer(self, request: ReleaseRequest) -> bytes:
        """Fresh evidence for ``request`` (message 2), over a key that opens its answer and nothing else.

        Raises ``broker.denied`` for another tenant, ``broker.not_found`` for a name that is not waited for,
        ``broker.conflict`` for a nonce that is pending already, ``broker.rate_limited`` while the device is busy, and the
        device's errors.
        """
        if request.tenant != self._service.id:
            raise BrokerError("denied", "the request is for another tenant")
        if not self._names.issuperset(secret.name for secret in request.secrets):
            raise BrokerError("not_found", "the request names a secret that is not waited for")
        nonce = request.nonce
        # One quote at a time: the device is not re-entrant, and a queue of requests would be memory that anybody fills.
        if not self._device.acquire(blocking=False):
            raise BrokerError("rate_limited", "the quoting device is busy", retryable=True)
        try:
            with self._lock:
                if nonce in self._pending:
                    raise BrokerError("conflict", "a request with this challenge is pending already")
                self._epoch += 1
                epoch = self._epoch
            private = hpke.PrivateKey.generate()
            receipt = SigningKey.generate()
            material = KeyMaterial(
                purpose=PURPOSE,
                audience=self._audience,
                service=self._service,
                key=private.public,
                receipt_key=receipt.public,
                epoch=epoch,
                lifetime=LIFETIME,
                issued_at=int(self._wall_clock().timestamp()),
                at_most_once=True,
                content={},
                max_body=0,
                max_session=LIFETIME,
            ).encode()
            leaf = binding.leaf(nonce, material)
            answer = quote(self._attester, binding.batch_root([leaf]))
        finally:
            self._device.release()
        evidence = Evidence(
            platform=answer.platform,
            devices=answer.devices,
            key_material=material,
            manifest=self._manifest,
            proof=binding.NonceProof(size=1, index=0, path=()),
            endorsements=answer.endorsements,
        ).encode()
        pending = _Pending(request, kid(material), private, receipt, self._monotonic() + LIFETIME)
        with self._lock:
            if self._closed:
                private.erase()
                raise BrokerError("not_found", "no secret is waited for any more")
            self._expire()
            self._pending[nonce] = pending
            while len(self._pending) > MAX_PENDING:
                self._pending.popitem(last=False)[1].private.erase()
        return evidence

    def accept(self, wrapped: Wrapped | bytes) -> Released:
        """Open an answer (message 3), once.

        Raises ``broker.not_found`` if nothing is pending for its nonce, ``broker.denied`` if the owner's signature is not
        as it must be, ``broker.integrity`` if it does not authenticate or holds other secrets than were asked for.
        """
        answer = wrapped if isinstance(wrapped, Wrapped) else Wrapped.decode(wrapped)
        with self._lock:
            self._expire()
            # Taken out before it is opened, so that of two answers at once only one can be accepted.
            pending = self._pending.pop(answer.nonce, None)
        if pending is None:
            raise BrokerError("not_found", "no request is pending for this answer")
        try:
            plaintext = self._open(answer, pending)
        except ConfideError:
            with self._lock:
                if self._closed:
                    pending.private.erase()
                else:
                    self._pending[answer.nonce] = pending  # Nothing authenticated, so nothing is spent.
                    self._pending.move_to_end(answer.nonce, last=False)
            raise
        pending.private.erase()
        try:
            lease, rows = read_plaintext(plaintext)
        except ConfideError:
            rows = []
            lease = 0
        if tuple(name for name, _ in rows) != pending.request.secrets:
            raise BrokerError("integrity", "the answer does not hold exactly the secrets that were asked for")
        secrets = MappingProxyType({name: Secret(value) for name, value in rows})
        return Released(secrets, lease, pending.receipt.sign(answer.accepted_message))

    def _open(self, answer: Wrapped, pending: _Pending) -> bytes:
        if not hmac.compare_digest(answer.kid, pending.kid):
            raise BrokerError("integrity", "the answer is for another key")
        if (answer.signature is None) != (self._owner is None):
            raise BrokerError(
                "denied", "the owner's signature on the answer is missing, or has no place there"
            )
        if self._owner is not None and answer.signature is not None:
            try:
                verify(self._owner, answer.signature, answer.signed_message)
            except NotGenuine:
                raise BrokerError("denied", "the answer is not signed by the secret's owner") from None
        try:
            return pending.private.open(hpke_info(pending.kid, answer.nonce), answer.wrap)
        except ChannelError:
            raise BrokerError("integrity", "the answer does not authenticate") from None

    def _expire(self) -> None:
        now = self._monotonic()
        for nonce in [nonce for nonce, pending in self._pending.items() if pending.expires <= now]:
            self._pending.pop(nonce).private.erase()

    def waits_for(self, nonce: bytes) -> bool:
        """Whether a request with this nonce is pending."""
        with self._lock:
            self._expire()
            return nonce in self._pending

    def close(self) -> None:
        """Erase every private key; pending requests can no longer be answered."""
        with self._lock:
            self._closed = True
            for pending in self._pending.values():
                pending.private.erase()
            self._pending.clear()
