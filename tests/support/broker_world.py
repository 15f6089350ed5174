# SPDX-License-Identifier: Apache-2.0
"""A broker, its owners and enclaves on a simulated chip, all in one process and without a network."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx2

from confide.attestation.attester import PlatformEvidence
from confide.attestation.evidence import Endorsements, EvidencePart
from confide.attestation.key_material import ServiceIdentity
from confide.broker.app import BrokerApp
from confide.broker.limits import Rate
from confide.broker.settings import BrokerSettings
from confide.broker.store import Store
from confide.crypto.secret import Secret
from confide.crypto.signing import SigningKey
from confide.keys.broker_client import AsyncBrokerClient, broker_audience
from confide.keys.receiver import Receiver
from confide.keys.release import SecretName
from confide.simulator.measurement import measurement

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from confide.keys.lease import Lease
    from confide.simulator.installation import Installation
    from confide.simulator.snp import Chip

TENANT = "acme"
BROKER = "keys.example"
PLENTY = Rate(100_000, 6_000_000)
ROOT = bytes(range(32))


class FakeClock:
    """A monotonic clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class InProcessAttester:
    """The device as the enclave sees it, without the process around it."""

    def __init__(self, chip: Chip, manifest: bytes, *, debug: bool = False) -> None:
        self.chip = chip
        self.manifest = manifest
        self.debug = debug

    def attest(self, report_data: bytes) -> PlatformEvidence:
        report = self.chip.report(report_data, manifest=self.manifest, debug=self.debug, level=0)
        return PlatformEvidence(
            EvidencePart("snp", report),
            endorsements=Endorsements(
                certificates=(self.chip.vcek, self.chip.installation.ask), crls=(self.chip.installation.crl,)
            ),
        )

    def derive_key(self, label: bytes) -> bytes:
        return self.chip.derive_key(label, manifest=self.manifest)


@dataclasses.dataclass(frozen=True)
class Enclave:
    """One instance of one measured service."""

    chip: Chip
    manifest: bytes = b"the manifest of the served model"
    tenant: str = TENANT
    kind: str = "model"
    debug: bool = False
    instance: bytes = dataclasses.field(default_factory=lambda: os.urandom(16))

    @property
    def identity(self) -> ServiceIdentity:
        return ServiceIdentity(self.kind, hashlib.sha256(self.manifest).digest(), self.tenant, self.instance)

    def receiver(self, *names: str, audience: str = broker_audience(BROKER)) -> Receiver:
        return Receiver(
            InProcessAttester(self.chip, self.manifest, debug=self.debug),
            self.identity,
            None,
            audience=audience,
            names=names,
            owner_public=None,
            monotonic=time.monotonic,
            wall_clock=lambda: datetime(2026, 6, 1, tzinfo=UTC),
        )

    def policy(self, *, tenant: str | None = None, max_age: str = "60s") -> bytes:
        """The appraisal policy (TOML) that admits exactly this service."""
        return (
            f'tees = ["snp"]\nmax_age = "{max_age}"\n'
            f'[service]\nkind = "{self.kind}"\nid = "{tenant or self.tenant}"\n'
            f'manifest = ["{hashlib.sha256(self.manifest).hexdigest()}"]\n'
            f'[reference.snp]\nmeasurement = ["{measurement(self.manifest).hex()}"]\n'
        ).encode()


class World:
    """A broker over a database in ``directory``, and whatever talks to it."""

    def __init__(self, directory: Path, installation: Installation, chip: Chip, **settings: Any) -> None:
        self.path = directory / "broker.db"
        self.installation = installation
        self.chip = chip
        self.owner = SigningKey.generate()
        self.stranger = SigningKey.generate()
        self.now = datetime(2026, 6, 1, tzinfo=UTC)
        self.monotonic = FakeClock()
        self.enclave = Enclave(chip)
        self.logged: list[str] = []
        self.settings = BrokerSettings(
            **{
                "owners": frozenset({self.owner.public}),
                "anchors": (installation.anchor,),
                "allow_simulated": True,
                "peer_rate": PLENTY,
                "evidence_rate": PLENTY,
                "release_rate": PLENTY,
                **settings,
            }
        )
        self.start()

    def start(self) -> None:
        """Start, or start again over the same file."""
        self.store = Store(
            self.path, Secret(ROOT), clock=lambda: int(self.now.timestamp()), random=os.urandom
        )
        self.app = BrokerApp(
            self.store,
            self.settings,
            service_id=BROKER,
            clock=lambda: self.now,
            monotonic=self.monotonic,
            log=lambda event, code: self.logged.append(f"{event} {code}"),
        )
        self.http = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=self.app), base_url="https://broker.invalid"
        )
        self.client = AsyncBrokerClient(self.http, monotonic=self.monotonic)

    def stop(self) -> None:
        self.app.close()

    def restart(self) -> None:
        self.stop()
        self.start()

    async def stock(self, *names: str, **policy: Any) -> dict[str, bytes]:
        """Put a secret under each name, version 1, and a policy that admits ``self.enclave`` to them."""
        values = {name: hashlib.sha256(b"secret " + name.encode()).digest() for name in names}
        for name, value in values.items():
            await self.client.put(self.owner, SecretName(name, 1), Secret(value))
        await self.set_policy(names, **policy)
        return values

    async def set_policy(self, names: Iterable[str], **policy: Any) -> None:
        arguments: dict[str, Any] = {
            "tenant": TENANT,
            "secrets": [SecretName(name, 1) for name in names],
            "appraisal": self.enclave.policy(),
            **policy,
        }
        await self.client.set_policy(self.owner, **arguments)

    async def fetch(self, *names: str, enclave: Enclave | None = None, owner: bytes | None = None) -> Lease:
        who = enclave or self.enclave
        return await self.client.fetch(
            who.receiver(*names), owner=owner or self.owner.public, tenant=who.tenant, names=names
        )

    async def kinds(self) -> list[str]:
        """The kinds of the owner's audit records, in order."""
        return [record.kind for record in (await self.client.audit(self.owner)).records]


_numbers = itertools.count()


def unique(prefix: str) -> str:
    """A name that no other call gives."""
    return f"{prefix}-{next(_numbers)}"
