# SPDX-License-Identifier: Apache-2.0
"""The demo's story in five steps. Each step does its part for real, and says what it has proved.

Parties: the *owner* has the model, the *client* has files, the *operator* has the machine: it runs the host processes, sees
their memory, the disk and the traffic. Owner and client are this process.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx2

from confide import simulator
from confide.attestation.verifier import Verifier
from confide.broker.service import KeyBroker
from confide.channel.client import Client
from confide.cli import demo_attacks
from confide.cli.demo_actors import Actor
from confide.cli.demo_model import INPUT, OUTPUT, FileClassifier, sample_files
from confide.cli.operator_view import Finding, Search, Wiretap
from confide.enclave import manifest as manifests
from confide.enclave.measure import measure
from confide.enclave.service import BrokerAddress
from confide.errors import ChannelError, ConfideError
from confide.keys.broker_client import BrokerClient
from confide.keys.identity import Identity
from confide.keys.keyring import Keyring
from confide.serving.model_service import ModelService
from confide.serving.protecting import protect_for_service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from confide.attestation.policy import AppraisalPolicy
    from confide.enclave.service import Service
    from confide.keys.release import SecretName

NAME = "magika"
TENANT = "demo"
_WEIGHT_SAMPLE = 48


@dataclass
class Step:
    """One step: what happened, line by line, and the facts for machines."""

    key: str
    title: str
    lines: list[str] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)
    proved: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Story:
    """Runs the steps in order in `folder`; what was started is ended by `close`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._operator = folder / "operator"
        self._owner = folder / "owner"
        self._stack = ExitStack()
        self._classifier = FileClassifier.installed()
        self._model = self._classifier.path.read_bytes()
        self._token = f"canary-{os.urandom(16).hex()}".encode()
        self._files = sample_files(self._token)

    def steps(self) -> Iterator[Callable[[], Step]]:
        """The steps, to be called one after another."""
        yield from (self.protect, self.start, self.ask, self.look, self.attack)

    def close(self) -> None:
        """End every process of the story."""
        self._stack.close()

    # 1

    def protect(self) -> Step:
        """The owner starts with a broker that is attested, and a model that only one measured enclave may open."""
        step = Step("protect", "The owner encrypts a real model for one measured enclave")
        self._anchor = simulator.anchor(self._operator / "data" / "confide" / "simulator")
        self._identity = Identity.open_or_create("owner", self._owner / "identities")
        self._keyring = Keyring(self._owner / "keys")
        broker = KeyBroker(
            "demo-broker", owners=[self._identity.public], anchors=[self._anchor], allow_simulated=True
        )
        self._broker_policy = measure(broker)
        broker_path = self._write(self._operator / "broker.toml", broker)
        self._broker = self._run("broker", broker_path, "--storage", str(self._operator / "broker"))
        self._broker_url = self._broker.url()
        service = ModelService(
            NAME,
            owner=self._identity.public,
            id=TENANT,
            broker=BrokerAddress(self._broker_url, self._broker_policy.to_toml()),
            egress=(self._broker_url.removeprefix("http://"),),
        )
        self._service_path = self._write(self._operator / "service.toml", service)
        self._protected_path = self._operator / f"{NAME}.confide"
        done = protect_for_service(
            self._classifier.path,
            service_path=self._service_path,
            output=self._protected_path,
            policy_path=self._owner / "policy.toml",
            identity=self._identity,
            keyring=self._keyring,
        )
        self._manifest = manifests.build(done.service)
        self._policy = done.policy
        self._key = done.key
        protected = self._protected_path.read_bytes()
        found = self._model_search().content(protected, "the protected file")
        if found:
            raise ChannelError("protocol", "the protected file shows parts of the model")
        step.lines = [
            f"model        {NAME}, {len(self._model):,} bytes of ONNX  ->  {self._protected_path.name}, {len(protected):,} bytes",
            f"owner        {self._identity.fingerprint}",
            f"measured     {sum(len(files) for files in self._manifest.code.values())} files of code, {len(self._manifest.dependencies)} dependencies, the whole configuration",
            f"policy       manifest {self._manifest.digest.hex()[:16]}...",
        ]
        step.proved = [
            f"{len(self._secrets_of_model())} layer names and samples of weights are searched for in the protected file: none is there"
        ]
        step.facts = {
            "model_bytes": len(self._model),
            "protected_bytes": len(protected),
            "found_in_protected_file": len(found),
            "manifest": self._manifest.digest.hex(),
        }
        return step

    # 2

    def start(self) -> Step:
        """The owner attests the broker and gives it the key; the operator starts the enclave, which fetches it."""
        step = Step("start", "The operator starts a key broker and an enclave")
        with Client(self._broker_url, self.verifier(self._broker_policy)) as http:
            broker = BrokerClient(http)
            broker.put(
                self._identity.key, self._key, self._keyring.get(self._key.name, self._key.version).secret
            )
            broker.set_policy(
                self._identity.key,
                tenant=TENANT,
                secrets=[self._key],
                appraisal=self._policy.to_toml().encode(),
                lease_seconds=3600,
            )
            self._enclave = self._run(
                "enclave", self._service_path, "--data", f"{NAME}={self._protected_path}"
            )
            url = self._enclave.url()
            self._await(url)
            audited = broker.audit(self._identity.key)
        kinds = [record.kind for record in audited.records]
        host, _, port = url.removeprefix("http://").partition(":")
        self._tap = self._stack.enter_context(Wiretap((host, int(port))))
        step.lines = [
            f"broker       {self._broker_url}, in an enclave of its own, attested before it got the key",
            f"enclave      {url}, SIMULATED, confined: {self._level()}",
            f"key          {self._key.name}, version {self._key.version}, released under a lease of 3600 s",
            f"audit        {audited.length} records, chain intact: {', '.join(kinds)}",
        ]
        step.proved = [
            "the key went from the owner to an attested broker, and from it to the enclave that the policy names, and nowhere else"
        ]
        step.facts = {"audit": kinds, "level": self._level()}
        return step

    # 3

    def ask(self) -> Step:
        """The client verifies, sends encrypted inputs, gets right answers and receipts."""
        step = Step("ask", "A client verifies the enclave, then classifies real files")
        oracle = self._classifier.oracle(list(self._files.values()))
        verifier = self.verifier(self._policy)
        began = time.perf_counter()
        with ModelService.connect(self._tap.url, verifier, receipts=True) as model:
            connected = time.perf_counter() - began
            attested = model.attestation
            answers, receipts = [], 0
            for content in self._files.values():
                scores = model.predict({INPUT: self._classifier.features(content)})[OUTPUT][0]
                answers.append(self._classifier.answer(scores))
                receipts += model.receipt is not None and model.receipt.content[NAME] == model.digest
        equal = sum(
            ours[0] == theirs[0] and abs(ours[1] - theirs[1]) < 1e-6
            for ours, theirs in zip(answers, oracle, strict=True)
        )
        step.lines = [
            f"evidence     {attested.tee}, SIMULATED, tier {attested.tier.name.lower()}, {attested.freshness}; verified and connected in {connected * 1000:.0f} ms",
            *(
                f"{name:<12} {label:<8} {score:.4f}   magika's own answer: {theirs[0]:<8} {theirs[1]:.4f}"
                for (name, (label, score)), theirs in zip(
                    zip(self._files, answers, strict=True), oracle, strict=True
                )
            ),
        ]
        step.proved = [
            f"{equal} of {len(oracle)} answers equal magika's own",
            f"{receipts} of {len(oracle)} receipts verified: which enclave, which model, which request, which answer",
        ]
        step.facts = {
            "answers": len(oracle),
            "equal": equal,
            "receipts": receipts,
            "simulated": attested.simulated,
            "freshness": attested.freshness,
        }
        return step

    # 4

    def look(self) -> Step:
        """The operator searches what it can see; and the same search on a plain server shows that the search works."""
        step = Step(
            "look", "The operator looks at memory, disk and network; the same search on a plain server"
        )
        search = Search(
            {
                **self._secrets_of_model(),
                **self._secrets_of_client(),
                "data key": self._keyring.get(self._key.name).secret.reveal(),
            }
        )
        self._tap.close()
        ours = {
            "memory": search.process(self._enclave.pid, where="memory")
            | search.process(self._broker.pid, where="memory"),
            "disk": search.files([self._operator]),
            "network": search.content(bytes(self._tap.upward), "network")
            | search.content(bytes(self._tap.downward), "network"),
        }
        plain = self._plain(search)
        step.lines = [f"{'':<12} {'plain server':<38} confide"]
        for place, found in ours.items():
            seen = sorted({finding.secret.split(":")[0] for finding in plain[place]})
            leaked = sorted({finding.secret.split(":")[0] for finding in found})
            step.lines.append(
                f"{place:<12} {', '.join(seen) or 'nothing':<38} {', '.join(leaked) or 'nothing'}"
            )
        step.proved = [
            "searched: host processes' memory, arguments and environment, every file of the operator, every byte of the client's traffic",
            "for: planted text of the files, the model's input, layer names, weights, the data key; raw, hex, base64, URL, UTF-16, JSON, reversed",
        ]
        step.facts = {
            "found": {place: len(found) for place, found in ours.items()},
            "found_at_plain_server": {place: len(found) for place, found in plain.items()},
        }
        return step

    # 5

    def attack(self) -> Step:
        """Three attacks, each refused for its reason."""
        step = Step("attack", "Three attacks")
        changed = demo_attacks.changed_code(self)
        relayed = demo_attacks.relayed_evidence(self)
        replayed = demo_attacks.replayed_request(self)
        for attack in (changed, relayed, replayed):
            step.lines += [f"{attack.what}", *(f"    {line}" for line in attack.lines)]
        step.proved = ["no key and no plaintext had left, and nothing was executed twice"]
        step.facts = {
            attack.key: {
                "refused": attack.refused,
                "code": attack.code,
                "difference": list(attack.difference),
            }
            for attack in (changed, relayed, replayed)
        }
        return step

    # What the attacks need

    @property
    def folder(self) -> Path:
        """Where everything lies."""
        return self._folder

    @property
    def enclave_url(self) -> str:
        """Where the honest enclave listens."""
        return self._enclave.url()

    @property
    def captured(self) -> bytes:
        """What the client sent to the honest enclave, as the operator recorded it."""
        return bytes(self._tap.upward)

    @property
    def identity(self) -> Identity:
        """The owner."""
        return self._identity

    @property
    def key(self) -> SecretName:
        """The name of the model's key."""
        return self._key

    def client_verifier(self) -> Verifier:
        """What the client verifies with."""
        return self.verifier(self._policy)

    def verifier(self, policy: AppraisalPolicy) -> Verifier:
        """A verifier that accepts simulation: two consents, in code. Real hardware needs neither."""
        return Verifier(policy, extra_anchors=(self._anchor,), allow_simulated=True)

    def service_without_broker(self) -> ModelService:
        """The same service, waiting for its owner instead of asking a broker."""
        return ModelService(NAME, owner=self._identity.public, id=TENANT)

    def run_from(self, source: Path, service: Service) -> Actor:
        """Start a service from another copy of the code, as a hostile operator would."""
        path = self._write(self._operator / "hostile.toml", service)
        return self._run("hostile", path, "--data", f"{NAME}={self._protected_path}", source=source)

    # Parts

    def _write(self, path: Path, service: Service) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(service.to_toml(path.parent))
        return path

    def _run(self, name: str, service: Path, *options: str, source: Path | None = None) -> Actor:
        actor = Actor(
            name,
            ["-m", "confide.cli.main", "run", str(service), "--tee", "simulated", *options],
            home=self._operator,
            source=source,
        )
        self._stack.enter_context(actor)
        actor.url()
        return actor

    def _level(self) -> str:
        for line in self._enclave.said().splitlines():
            if line[:2] in {"L0", "L1", "L2", "L3"}:
                return line
        return "unknown"

    def _await(self, url: str) -> None:
        """Wait until the enclave has its key, which is when it answers with evidence."""
        end = time.monotonic() + 60
        while True:
            try:
                with Client(url, self.verifier(self._policy)):
                    return
            except ConfideError as error:
                if not error.retryable or time.monotonic() > end:
                    raise
                time.sleep(0.05)

    def _secrets_of_model(self) -> dict[str, bytes]:
        weights = self._classifier.weights(self._model)
        largest = sorted(weights, key=lambda name: len(weights[name]), reverse=True)[:3]
        middle = {
            f"weights:{name}": weights[name][len(weights[name]) // 2 :][:_WEIGHT_SAMPLE] for name in largest
        }
        # Every fourth name is as good a witness as all of them, and the search takes seconds instead of half a minute.
        names = [name for name in weights if len(name) >= 16][::4]
        return {**{f"layer names:{name}": name.encode() for name in names}, **middle}

    def _model_search(self) -> Search:
        return Search(self._secrets_of_model())

    def _secrets_of_client(self) -> dict[str, bytes]:
        import numpy as np

        as_input = np.frombuffer(self._token, dtype=np.uint8).astype("<i4").tobytes()
        return {"planted text": self._token, "model input": as_input}

    def _plain(self, search: Search) -> dict[str, set[Finding]]:
        """The same model and files with a plain server: its memory, its disk, its traffic."""
        home = self._folder / "plain"
        model = home / f"{NAME}.onnx"
        home.mkdir(parents=True)
        model.write_bytes(self._model)
        with Actor("plain", ["-m", "confide.cli.demo_plain", str(model)], home=home) as server:
            host, _, port = server.url().removeprefix("http://").partition(":")
            with (
                Wiretap((host, int(port))) as tap,
                httpx2.Client(base_url=tap.url, trust_env=False) as client,
            ):
                for name, content in self._files.items():
                    body = self._classifier.features(content).tobytes()
                    answer = client.post(
                        f"/{name}", content=body, params={"note": self._token.decode()}, timeout=30
                    )
                    answer.raise_for_status()
            memory = search.process(server.pid, where="memory")
            traffic = search.content(bytes(tap.upward), "network") | search.content(
                bytes(tap.downward), "network"
            )
        return {"memory": memory, "disk": search.files([home]), "network": traffic}
