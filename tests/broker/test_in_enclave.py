# SPDX-License-Identifier: Apache-2.0
"""The broker where it belongs: in an enclave of its own, behind the envelope, attested before anybody speaks to it."""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import TYPE_CHECKING, Any

import pytest

from confide.attestation.verifier import Verifier
from confide.broker.service import KeyBroker
from confide.channel.client import AsyncClient, Client
from confide.crypto.secret import Secret
from confide.crypto.signing import SigningKey
from confide.enclave.application import Application
from confide.enclave.measure import measure
from confide.enclave.service import BrokerAddress
from confide.errors import ConfideError, EnclaveError
from confide.host.enclave import Enclave as Launched
from confide.host.enclave import State
from confide.keys.broker_client import AsyncBrokerClient, BrokerClient
from confide.keys.release import SecretName
from confide.simulator.installation import Installation
from confide.simulator.snp import Chip
from support.broker_world import BROKER, TENANT, Enclave

if TYPE_CHECKING:
    from pathlib import Path

CANARY = b"canary-7f1c0d5be2a94c6d8e3f"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one simulated device, for the broker's enclave and for those that it serves."""
    folder = tmp_path_factory.mktemp("simulated") / "device"
    Installation.open_or_create(folder)
    return folder


def test_kb_18_the_story_through_a_real_enclave_leaves_no_secret_outside(
    installed: Path, tmp_path: Path
) -> None:
    """Owner and enclave attest the broker, a key goes in and out, the operator's view has neither it nor its name."""
    owner = SigningKey.generate()
    root = Installation.open_or_create(installed)
    chip = Chip.power_on(root)
    service = KeyBroker(BROKER, owners=[owner.public], anchors=[root.anchor], allow_simulated=True)
    verifier = Verifier(measure(service), extra_anchors=(root.anchor,), allow_simulated=True)
    storage = tmp_path / "storage"
    storage.mkdir(mode=0o700)
    name = SecretName("canary-name", 1)
    model = Enclave(chip)
    options: dict[str, Any] = {
        "tee": "simulated",
        "simulator_directory": installed,
        "state_directory": tmp_path / "state",
        "storage": storage,
    }
    with Launched.launch(service, **options) as enclave:
        with Client(enclave.url, verifier) as http:
            broker = BrokerClient(http)
            assert broker.status().anchored
            broker.put(owner, name, Secret(CANARY))
            broker.set_policy(owner, tenant=TENANT, secrets=[name], appraisal=model.policy())
            lease = broker.fetch(
                model.receiver("canary-name"), owner=owner.public, tenant=TENANT, names=["canary-name"]
            )
            assert [secret.reveal() for secret in lease.secrets.values()] == [CANARY]
            audited = broker.audit(owner)
            assert [record.kind for record in audited.records] == ["put", "policy", "release"]
            other = Enclave(chip, manifest=b"a changed line")
            with pytest.raises(ConfideError) as caught:
                broker.fetch(
                    other.receiver("canary-name"), owner=owner.public, tenant=TENANT, names=["canary-name"]
                )
            assert caught.value.code == "broker.denied"
            with pytest.raises(ConfideError) as caught:
                broker.put(SigningKey.generate(), name, Secret(b"another's"))
            assert caught.value.code == "broker.denied"
        seen = "\n".join(enclave.logs()).encode()
    for file in (*storage.iterdir(), *(tmp_path / "state").rglob("*")):
        if file.is_file():
            seen += file.read_bytes()
    assert len(seen) > 10_000
    for canary in (CANARY, b"canary-name", CANARY.hex().encode(), owner.public):
        assert canary not in seen

    with Launched.launch(service, **options) as enclave, Client(enclave.url, verifier) as http:
        broker = BrokerClient(http)
        status = broker.status()
        assert (status.anchored, status.releasing) == (False, False)
        with pytest.raises(ConfideError) as caught:
            broker.fetch(
                model.receiver("canary-name"), owner=owner.public, tenant=TENANT, names=["canary-name"]
            )
        assert caught.value.code == "broker.unanchored"
        again = broker.audit(owner, head=audited.head, length=audited.length)
        assert [record.kind for record in again.records] == ["denied", "started"]
        assert any("unanchored" in line for line in enclave.logs())


def test_sea_02_another_measurement_cannot_open_the_database(installed: Path, tmp_path: Path) -> None:
    """The root key is derived for one measurement: a broker that was measured otherwise refuses the file."""
    owner = SigningKey.generate()
    storage = tmp_path / "storage"
    storage.mkdir(mode=0o700)
    options: dict[str, Any] = {
        "tee": "simulated",
        "simulator_directory": installed,
        "state_directory": tmp_path / "state",
        "storage": storage,
    }
    with Launched.launch(KeyBroker(BROKER, owners=[owner.public]), **options):
        pass
    with pytest.raises(ConfideError) as caught:
        Launched.launch(KeyBroker(BROKER, owners=None), **options)
    assert caught.value.code == "broker.integrity" or isinstance(caught.value, EnclaveError)
    assert "another broker" in str(caught.value)


def test_clients_work_the_same_over_an_asynchronous_channel(installed: Path, tmp_path: Path) -> None:
    owner = SigningKey.generate()
    root = Installation.open_or_create(installed)
    service = KeyBroker(BROKER, owners=[owner.public])
    verifier = Verifier(measure(service), extra_anchors=(root.anchor,), allow_simulated=True)
    storage = tmp_path / "storage"
    storage.mkdir(mode=0o700)

    async def story(url: str) -> None:
        async with AsyncClient(url, verifier) as http:
            broker = AsyncBrokerClient(http)
            assert (await broker.put(owner, SecretName("weights", 1), Secret(b"w"))) == 1
            assert (await broker.list(owner))["serials"] == {"key/weights": 1}

    with Launched.launch(
        service,
        tee="simulated",
        simulator_directory=installed,
        state_directory=tmp_path / "state",
        storage=storage,
    ) as enclave:
        asyncio.run(story(enclave.url))


APP = """
import hashlib


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    context = scope["state"]["confide"]
    session = scope["extensions"]["confide"]["session"]
    body = hashlib.sha256(context.secret("weights").reveal()).hexdigest() + " " + session.hex()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body.encode()})
"""


def until(enclave: Launched, *states: State) -> None:
    """Wait until the enclave is in one of the states; the test fails if it never is."""
    deadline = time.monotonic() + 30
    while (state := enclave.state) not in states:
        assert time.monotonic() < deadline, state
        assert state not in {State.FAILED, State.STOPPED}, enclave.error
        time.sleep(0.05)


def ended(enclave: Launched) -> str:
    """The code with which the enclave fails."""
    until(enclave, State.FAILED)
    assert enclave.error is not None
    return enclave.error.code


def test_kb_06_an_enclave_fetches_its_key_by_itself_renews_it_and_ends_when_it_is_revoked(
    installed: Path, tmp_path: Path
) -> None:
    """Two enclaves, one broker: the host carries bytes between them, and loses the service when the owner says so."""
    owner = SigningKey.generate()
    root = Installation.open_or_create(installed)
    broker_service = KeyBroker(BROKER, owners=[owner.public], anchors=[root.anchor], allow_simulated=True)
    broker_policy = measure(broker_service)
    consent: dict[str, Any] = {"extra_anchors": (root.anchor,), "allow_simulated": True}
    code = tmp_path / "code"
    code.mkdir()
    (code / "keyed_app.py").write_text(APP)
    (tmp_path / "storage").mkdir(mode=0o700)
    places: dict[str, Any] = {
        "tee": "simulated",
        "simulator_directory": installed,
        "state_directory": tmp_path / "state",
    }
    with Launched.launch(broker_service, storage=tmp_path / "storage", **places) as broker_enclave:
        service = Application(
            "keyed_app:app",
            id=TENANT,
            code=[code / "keyed_app.py"],
            egress=[broker_enclave.url.removeprefix("http://")],
            secrets={"weights": owner.public},
            broker=BrokerAddress(broker_enclave.url, broker_policy.to_toml()),
        )
        policy = measure(service)
        with Client(broker_enclave.url, Verifier(broker_policy, **consent)) as http:
            broker = BrokerClient(http)
            with Launched.launch(service, **places) as enclave:  # Nobody has put the key yet.
                assert ended(enclave) == "broker.denied"
            broker.put(owner, SecretName("weights", 1), Secret(CANARY))
            broker.set_policy(
                owner,
                tenant=TENANT,
                secrets=[SecretName("weights", 1)],
                appraisal=policy.to_toml().encode(),
                lease_seconds=3,
            )
            with Launched.launch(service, **places) as enclave:
                until(enclave, State.RUNNING)
                with Client(enclave.url, Verifier(policy, **consent)) as client:
                    digest, session = client.get("/").text.split()
                    assert digest == hashlib.sha256(CANARY).hexdigest()
                    assert len(session) == 64
                    time.sleep(3.5)  # Longer than the lease: it was renewed.
                    assert client.get("/").text.split()[0] == digest
                broker.revoke(owner, tenant=TENANT)
                assert ended(enclave) == "broker.denied"
            kinds = [record.kind for record in broker.audit(owner).records]
            assert kinds[:2] == ["put", "policy"]
            assert kinds.count("release") >= 2
            assert "release" not in kinds[kinds.index("revoke") :]
