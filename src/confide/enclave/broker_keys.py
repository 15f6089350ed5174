# SPDX-License-Identifier: Apache-2.0
"""Keys from a broker: the enclave attests the broker through its egress, is attested by it, and keeps its leases alive."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from confide.attestation.anchors import TrustAnchor
from confide.attestation.policy import AppraisalPolicy
from confide.attestation.verifier import Verifier
from confide.channel.client import Client
from confide.errors import ConfigurationError
from confide.keys.broker_client import BrokerClient, broker_audience
from confide.keys.lease import LeaseKeeper
from confide.keys.receiver import Receiver

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from confide.attestation.attester import Attester
    from confide.attestation.key_material import ServiceIdentity
    from confide.crypto.secret import Secret
    from confide.enclave.egress import Egress
    from confide.enclave.service import Service
    from confide.errors import ConfideError
    from confide.keys.lease import Lease

__all__ = ["BrokerKeys"]


class BrokerKeys:
    """The secrets and models of ``service`` from its broker, by owner.

    The broker's policy is in the manifest. On a simulated device a broker of the same simulated root is accepted, and no
    other: the consent is this enclave's own being simulated, which everybody who attests it sees.
    """

    def __init__(
        self,
        *,
        service: Service,
        identity: ServiceIdentity,
        manifest: bytes,
        device: Attester,
        egress: Egress,
        on_lost: Callable[[ConfideError], Awaitable[None]],
    ) -> None:
        if service.broker is None:
            raise ConfigurationError("broker", "the service names no broker")
        self._address = service.broker
        self._service = service
        self._identity = identity
        self._manifest = manifest
        self._device = device
        self._egress = egress
        self._on_lost = on_lost
        self._client: Client | None = None
        self._keeper: LeaseKeeper | None = None

    async def acquire(self) -> Mapping[str, Secret]:
        """Attest the broker and fetch everything; raises what the Verifier, the channel and the broker raise."""
        client = await asyncio.to_thread(self._connect)
        wanted: dict[bytes, list[str]] = {}
        for pin in (*self._service.models, *self._service.secrets):
            wanted.setdefault(pin.owner_public, []).append(pin.name)
        material = client.attestation.key_material
        if material is None:
            raise ConfigurationError("broker", "the broker's evidence names no service")
        receiver = Receiver(
            self._device,
            self._identity,
            self._manifest,
            audience=broker_audience(material.service.id),
            names=[name for names in wanted.values() for name in names],
            # The broker was verified and answers through its attested channel; it checked the owners' signatures.
            owner_public=None,
            monotonic=time.monotonic,
            wall_clock=lambda: datetime.fromtimestamp(time.time(), UTC),
        )
        self._keeper = LeaseKeeper(
            _InThread(BrokerClient(client)),
            receiver,
            self._on_lost,
            tenant=self._service.id,
            wanted=wanted,
        )
        return await self._keeper.acquire()

    async def run(self) -> None:
        """Renew until cancelled or lost."""
        if self._keeper is not None:
            await self._keeper.run()

    def _connect(self) -> Client:
        policy = AppraisalPolicy.from_toml(self._address.policy)
        anchors = _own_simulated_root(self._device)
        verifier = Verifier(policy, extra_anchors=anchors, allow_simulated=bool(anchors))
        self._client = Client(self._address.url, verifier, transport=self._egress.transport())
        return self._client


class _InThread:
    """A blocking broker client for an event loop."""

    def __init__(self, client: BrokerClient) -> None:
        self._client = client

    async def fetch(self, receiver: Receiver, *, owner: bytes, tenant: str, names: Iterable[str]) -> Lease:
        return await asyncio.to_thread(self._client.fetch, receiver, owner=owner, tenant=tenant, names=names)


def _own_simulated_root(device: Attester) -> tuple[TrustAnchor, ...]:
    """The root of this enclave's own device, if that is a simulated one."""
    from confide.simulator.client import SimulatedDevice
    from confide.simulator.installation import PRODUCT

    if not isinstance(device, SimulatedDevice):
        return ()
    # No key material hashes to zeros, so this report vouches for nothing; only its certificates are looked at.
    _vcek, ask, ark = device.attest(bytes(64)).endorsements.certificates
    return (TrustAnchor("snp", PRODUCT, (ark, ask), simulated=True),)
