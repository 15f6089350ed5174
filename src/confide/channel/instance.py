# SPDX-License-Identifier: Apache-2.0
"""The enclave's side of the channel without any I/O: keys, evidence for them, sessions, requests.

One ``Instance`` lives in one process; a process forked from it refuses to use it, since two processes with the same secrets
would answer the same request twice. Source: ``docs/spec/envelope.md``.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Protocol

from confide.attestation import key_material
from confide.attestation.key_material import KeyMaterial, ServiceIdentity
from confide.channel import binary_http
from confide.channel.batches import Batch, NonceQueue, Ticket
from confide.channel.incoming import IncomingRequest
from confide.channel.sessions import ChannelKey, SessionTable
from confide.channel.settings import FRESH_LIFETIME, OVERLAP, ChannelSettings
from confide.crypto import hpke
from confide.crypto.signing import SigningKey
from confide.errors import EnclaveError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from confide.attestation.attester import Attester
    from confide.channel.binary_http import ResponseHead

__all__ = ["Instance", "ServiceName"]


class ServiceName(Protocol):
    """What an instance must know of its service: the kind and the id (tenant, room or run)."""

    @property
    def kind(self) -> str:
        """The kind of service."""

    @property
    def id(self) -> str:
        """Tenant, room or run."""


class Instance:
    """Keys, sessions and evidence of one running service.

    ``manifest`` is the measured manifest, ``content`` maps names to 32-byte digests of what was loaded, ``receipt_extension``
    gives further facts for each receipt (a model card, a budget). ``random`` gives secret bytes, ``monotonic`` seconds that
    never go back, ``wall_clock`` the host's claim of the time, which is reported and decides nothing.
    """

    def __init__(
        self,
        service: ServiceName,
        manifest: bytes,
        attester: Attester,
        *,
        settings: ChannelSettings | None = None,
        content: Mapping[str, bytes] | None = None,
        random: Callable[[int], bytes],
        monotonic: Callable[[], float],
        wall_clock: Callable[[], datetime],
        receipt_extension: Callable[[], Mapping[str, str | bytes | int | bool]] | None = None,
    ) -> None:
        self.settings = settings or ChannelSettings()
        self.identity = ServiceIdentity(
            kind=service.kind, manifest=hashlib.sha256(manifest).digest(), id=service.id, instance=random(16)
        )
        self.authority = binary_http.authority(service.id)
        self.attester = attester
        self.random = random
        self.monotonic = monotonic
        self.queue = NonceQueue(self.settings.max_waiting)
        self.table = SessionTable(self.settings, random=random, now=monotonic())
        self._manifest = manifest
        self._content = dict(content or {})
        self._wall_clock = wall_clock
        self._receipt_extension = receipt_extension
        self._epoch = 0
        self._cached: tuple[float, bytes] | None = None
        self._last_head: tuple[ResponseHead, bytes] | None = None
        self._owner = os.getpid()
        self._closed = False

    # Evidence

    def enter_nonce(self, nonce: bytes) -> Ticket:
        """Let a client's nonce (32 bytes) wait for the next batch."""
        self.check_process()
        return self.queue.enter(nonce)

    def batch_wait(self) -> float | None:
        """Seconds until a batch may be closed (if the quoting device is free); ``None`` if nobody waits."""
        self.check_process()
        return self.table.making_wait(self.monotonic()) if len(self.queue) else None

    def close_batch(self) -> Batch:
        """Make a key for all who wait. The caller has it quoted, or lets the tickets fail."""
        self.check_process()
        # The nonces are there, so the key is younger than each of them; if it cannot be made, they still wait.
        key = self._make_key(FRESH_LIFETIME, FRESH_LIFETIME)
        return Batch.of(self.queue.take(), key, self._manifest)

    def cached_bundle(self) -> bytes | None:
        """The evidence without a nonce, while its key is in its lifetime."""
        self.check_process()
        if self._cached is None or self.monotonic() >= self._cached[0]:
            return None
        return self._cached[1]

    def close_cached_batch(self) -> Batch:
        """Make the next key for evidence without a nonce; ``keep_cached`` stores the outcome."""
        self.check_process()
        if not self.settings.cached:
            raise EnclaveError("bad_state", "this service offers no cached evidence")
        lifetime = self.settings.cached_lifetime
        return Batch.of((Ticket(b""),), self._make_key(lifetime, lifetime + OVERLAP), self._manifest)

    def keep_cached(self, batch: Batch) -> None:
        """Offer a finished batch of ``close_cached_batch`` to everybody until its lifetime is over."""
        self._cached = (batch.key.opens_until - OVERLAP, batch.tickets[0].bundle())

    def bundle(self, nonce: bytes | None) -> bytes:
        """Evidence for one nonce, or without one, made here and now; the gateway batches instead.

        Raises ``enclave.overloaded`` when keys are made faster than they may be, and what the attester raises.
        """
        if nonce is None:
            found = self.cached_bundle()
            if found is not None:
                return found
            batch = self.close_cached_batch()
            batch.quote(self.attester)
            self.keep_cached(batch)
            return batch.tickets[0].bundle()
        ticket = self.enter_nonce(nonce)
        batch = self.close_batch()
        batch.quote(self.attester)
        return ticket.bundle()

    # Requests

    def open_request(self) -> IncomingRequest:
        """A request whose bytes have yet to come."""
        self.check_process()
        return IncomingRequest(self)

    def encode_head(self, response: ResponseHead) -> bytes:
        """The content of a response's head frame. Applications repeat themselves, so the last one is kept."""
        last = self._last_head
        if last is not None and last[0] == response:
            return last[1]
        raw = binary_http.encode_response(response)
        self._last_head = (response, raw)
        return raw

    def claimed_time(self) -> int:
        """The host's claim of the time, in Unix seconds."""
        return int(self._wall_clock().timestamp())

    def receipt_extension(self) -> Mapping[str, str | bytes | int | bool]:
        """Further facts for the next receipt."""
        return self._receipt_extension() if self._receipt_extension else {}

    def sweep(self) -> float | None:
        """Drop what is over; seconds until something else is, or ``None``."""
        now = self.monotonic()
        at = self.table.sweep(now)
        return None if at is None else max(0.0, at - now)

    def close(self) -> None:
        """Forget every key and session; nothing can be opened afterwards."""
        self._closed = True
        self._cached = None
        self.table.drop_all()

    def check_process(self) -> None:
        """Refuse a forked copy of this instance, and a closed one, with ``enclave.bad_state``."""
        if os.getpid() != self._owner:
            raise EnclaveError("bad_state", "this process was forked after its channel keys were made")
        if self._closed:
            raise EnclaveError("bad_state", "the channel of this instance is closed")

    def _make_key(self, lifetime: int, opens_for: int) -> ChannelKey:
        settings = self.settings
        now = self.monotonic()
        private = hpke.PrivateKey.generate()
        receipt_key = SigningKey.generate()
        self._epoch += 1
        material = KeyMaterial(
            purpose=settings.purpose,
            audience=settings.audience,
            service=self.identity,
            key=private.public,
            receipt_key=receipt_key.public,
            epoch=self._epoch,
            lifetime=lifetime,
            issued_at=self.claimed_time(),
            at_most_once=settings.at_most_once,
            content=self._content,
            max_body=settings.max_body,
            max_session=settings.max_session,
        ).encode()
        key = ChannelKey(
            kid=key_material.kid(material),
            material=material,
            content=self._content,
            private=private,
            receipt_key=receipt_key,
            opens_until=now + opens_for,
        )
        self.table.add_key(key, now)
        return key
