# SPDX-License-Identifier: Apache-2.0
"""Nonces that wait for a quote, and the batches in which they get one.

Source: ``docs/spec/envelope.md``, section 2.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from confide.attestation import binding
from confide.attestation.attester import quote
from confide.attestation.evidence import Evidence
from confide.errors import ChannelError, EnclaveError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from confide.attestation.attester import Attester, PlatformEvidence
    from confide.channel.sessions import ChannelKey

__all__ = ["Batch", "NonceQueue", "Ticket"]


class Ticket:
    """One nonce that waits. ``bundle`` gives its evidence once its batch has been quoted."""

    __slots__ = ("_evidence", "_proof", "nonce")

    def __init__(self, nonce: bytes) -> None:
        self.nonce = nonce
        self._evidence: Evidence | None = None
        self._proof: binding.NonceProof | None = None

    def answer(self, evidence: Evidence, proof: binding.NonceProof) -> None:
        """Take what the whole batch shares and the place of this nonce in it; an empty nonce has no proof."""
        self._evidence = evidence
        self._proof = proof if self.nonce else None

    def bundle(self) -> bytes:
        """The encoded evidence; made when it is asked for, since a batch may have thousands."""
        shared = self._evidence
        if shared is None:
            raise EnclaveError("overloaded", "no evidence was made for this nonce", retryable=True)
        return Evidence(
            platform=shared.platform,
            devices=shared.devices,
            key_material=shared.key_material,
            manifest=shared.manifest,
            proof=self._proof,
            endorsements=shared.endorsements,
        ).encode()


class NonceQueue:
    """At most ``limit`` nonces, the oldest first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: OrderedDict[int, Ticket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    def enter(self, nonce: bytes) -> Ticket:
        """Let a nonce wait; ``enclave.overloaded`` if too many wait already."""
        if len(nonce) != binding.NONCE_BYTES:
            raise ChannelError("protocol", "a nonce has 32 bytes")
        if len(self._waiting) >= self._limit:
            raise EnclaveError("overloaded", "too many nonces are waiting for evidence", retryable=True)
        ticket = Ticket(bytes(nonce))
        self._waiting[id(ticket)] = ticket
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Whoever waited is gone."""
        self._waiting.pop(id(ticket), None)

    def take(self) -> list[Ticket]:
        """All who wait, up to the size of a batch."""
        count = min(len(self._waiting), binding.MAX_BATCH)
        return [self._waiting.popitem(last=False)[1] for _ in range(count)]


@dataclass(frozen=True, slots=True)
class Batch:
    """Nonces that share one key and one quote over their ``root`` (64 bytes)."""

    tickets: Sequence[Ticket]
    key: ChannelKey
    manifest: bytes
    leaves: tuple[bytes, ...]
    root: bytes

    @classmethod
    def of(cls, tickets: Sequence[Ticket], key: ChannelKey, manifest: bytes) -> Batch:
        """Bind ``key``, which must be younger than every nonce, to the nonces."""
        leaves = tuple(binding.leaf(ticket.nonce, key.material) for ticket in tickets)
        return cls(tickets, key, manifest, leaves, binding.batch_root(leaves))

    def quote(self, attester: Attester) -> None:
        """Ask the device, which may take its time, and give each nonce its evidence."""
        self.finish(quote(attester, self.root))

    def finish(self, quoted: PlatformEvidence) -> None:
        """Give each nonce the evidence that was made for ``root``."""
        evidence = Evidence(
            platform=quoted.platform,
            devices=quoted.devices,
            key_material=self.key.material,
            manifest=self.manifest,
            proof=None,
            endorsements=quoted.endorsements,
        )
        for ticket, proof in zip(self.tickets, binding.batch_proofs(self.leaves), strict=True):
            ticket.answer(evidence, proof)
