# SPDX-License-Identifier: Apache-2.0
"""The whole way, in real enclaves: a model is protected, launched, unlocked, attested and called."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from confide import simulator
from confide.attestation.policy import AppraisalPolicy
from confide.attestation.verifier import Verifier
from confide.channel.async_transport import AsyncAttestedTransport
from confide.channel.proxy import Proxy
from confide.enclave.service import Limits
from confide.errors import ConfideError, ConfigurationError, EnclaveError, NotAcceptable
from confide.host.enclave import Enclave
from confide.keys.identity import Identity
from confide.keys.keyring import Keyring
from confide.serving.first_try import FirstTry, serve
from confide.serving.model_service import ModelService
from confide.serving.protecting import protect
from support import magika_model
from support import onnx_bytes as craft
from support.asgi_call import served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def start(model: Path, folder: Path, **options: Any) -> FirstTry:
    """`confide serve`, with every place that belongs to a person moved below ``folder``."""
    return serve(
        model,
        folder=folder / "served",
        identity=Identity.open_or_create("default", folder / "identities"),
        keyring=Keyring(folder / "keys"),
        simulator_directory=folder / "simulator",
        state_directory=folder / "state",
        **options,
    )


def verifier_of(first: FirstTry, folder: Path) -> Verifier:
    """A client's verifier: the policy file, and the two consents."""
    policy = AppraisalPolicy.from_file(first.policy_path)
    return Verifier(policy, extra_anchors=[simulator.anchor(folder / "simulator")], allow_simulated=True)


@pytest.fixture(scope="module")
def magika_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("magika")


@pytest.fixture(scope="module")
def running(magika_folder: Path) -> Iterator[FirstTry]:
    with start(magika_model.model_path(), magika_folder, name="magika") as first:
        yield first


def test_a_protected_real_model_answers_as_its_own_package_does(
    running: FirstTry, magika_folder: Path
) -> None:
    """Labels, scores and reasons of magika's own API, for files of 28 kinds, from an enclave and from the package."""
    oracle = magika_model.package().Magika()
    calls = 0
    with ModelService.connect(running.url, verifier_of(running, magika_folder)) as model:

        def predict(inputs: Any) -> Any:
            nonlocal calls
            calls += 1
            return model.predict(inputs)

        remote = magika_model.remote_magika(predict)
        for name, content in magika_model.samples().items():
            assert remote.identify_bytes(content).asdict() == oracle.identify_bytes(content).asdict(), name
        assert model.digest == hashlib.sha256(magika_model.model_path().read_bytes()).digest()

    assert calls >= 20


def test_a_batch_gives_the_answers_of_its_rows(running: FirstTry, magika_folder: Path) -> None:
    rows = np.random.default_rng(3).integers(0, 257, (5, 2048)).astype(np.int32)
    with ModelService.connect(running.url, verifier_of(running, magika_folder)) as model:
        together = model.predict({"bytes": rows})["target_label"]
        one_by_one = [model.predict({"bytes": row[None]})["target_label"][0] for row in rows]

    np.testing.assert_allclose(together, one_by_one, rtol=1e-3, atol=1e-6)


def test_receipts_come_from_the_enclave(running: FirstTry, magika_folder: Path) -> None:
    with ModelService.connect(running.url, verifier_of(running, magika_folder), receipts=True) as model:
        model.predict({"bytes": np.zeros((1, 2048), np.int32)})

        assert model.receipt is not None
        assert model.receipt.content["magika"] == model.digest
        assert model.receipt.kid == model.attestation.kid


def test_the_owner_attested_before_the_key_left(running: FirstTry) -> None:
    assert running.attestation.simulated
    assert running.attestation.key_material is not None
    assert running.attestation.key_material.purpose == "release"
    assert running.attestation.freshness == "fresh"


def test_two_consents_are_needed(running: FirstTry, magika_folder: Path) -> None:
    """sim: the policy alone, or either consent alone, accepts nothing."""
    policy = AppraisalPolicy.from_file(running.policy_path)
    anchor = simulator.anchor(magika_folder / "simulator")
    for options in ({}, {"allow_simulated": True}, {"extra_anchors": [anchor]}):
        with pytest.raises(ConfideError) as caught:
            ModelService.connect(running.url, Verifier(policy, **options))
        assert caught.value.code.split(".")[0] in {"not_genuine", "not_acceptable"}


def test_another_service_is_not_accepted(running: FirstTry, magika_folder: Path) -> None:
    text = running.policy_path.read_text()
    other = text.replace('id = "default"', 'id = "another"')
    assert other != text
    policy = AppraisalPolicy.from_toml(other)
    verifier = Verifier(
        policy, extra_anchors=[simulator.anchor(magika_folder / "simulator")], allow_simulated=True
    )
    with pytest.raises(NotAcceptable) as caught:
        ModelService.connect(running.url, verifier)

    assert "not_acceptable.identity" in {reason.code for reason in caught.value.reasons}


def test_tritonclient_classifies_through_the_proxy(running: FirstTry, magika_folder: Path) -> None:
    http = pytest.importorskip("tritonclient.http")
    rows = np.zeros((2, 2048), np.int32)
    transport = AsyncAttestedTransport(running.url, verifier_of(running, magika_folder))
    with served(Proxy(transport), lifespan="on") as local:
        client = http.InferenceServerClient(local.removeprefix("http://"))
        try:
            tensor = http.InferInput("bytes", [2, 2048], "INT32")
            tensor.set_data_from_numpy(rows)
            found = client.infer("magika", [tensor]).as_numpy("target_label")
        finally:
            client.close()
    with ModelService.connect(running.url, verifier_of(running, magika_folder)) as model:
        assert found.tobytes() == model.predict({"bytes": rows})["target_label"].tobytes()


def test_what_is_printed_for_the_client_runs(
    running: FirstTry,
    magika_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The lines are executed as they stand, but for the input, which they leave open."""
    monkeypatch.setattr(simulator, "anchor", lambda: _anchor(magika_folder / "simulator"))
    source = "\n".join(running.client_lines)
    assert "{...}" in source
    exec(source.replace("{...}", "{'bytes': __import__('numpy').zeros((1, 2048), 'int32')}"), {})  # noqa: S102

    assert "INT32" in capsys.readouterr().out


_anchor = simulator.anchor


def test_a_first_try_writes_what_it_needs_and_nothing_in_the_clear(running: FirstTry) -> None:
    assert sorted(path.name for path in running.folder.iterdir()) == [
        "magika.confide",
        "policy.toml",
        "service.toml",
    ]
    plain = magika_model.model_path().read_bytes()
    sealed = running.protected_path.read_bytes()
    for at in range(0, len(plain) - 64, len(plain) // 50):
        assert plain[at : at + 64] not in sealed


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.com", ""])  # noqa: S104
def test_a_first_try_listens_on_loopback_only(host: str, tmp_path: Path) -> None:
    """Refused before anything is made: no identity, no key, no file."""
    path = tmp_path / "linear.onnx"
    path.write_bytes(craft.linear_model())
    with pytest.raises(ConfigurationError) as caught:
        serve(path, folder=tmp_path / "served", listen=(host, 0))

    assert caught.value.code == "configuration.listen"
    assert [item.name for item in tmp_path.iterdir()] == ["linear.onnx"]


def test_ml_06_an_enclave_that_is_lent_another_file_fails_and_says_why(tmp_path: Path) -> None:
    """The host lends the ciphertext of another model of the same owner; the owner unlocks what was asked for."""
    identity = Identity.open_or_create("default", tmp_path / "identities")
    keyring = Keyring(tmp_path / "keys")
    sealed = {}
    for name, bias in (("linear", 1.0), ("other", 9.0)):
        (tmp_path / f"{name}.onnx").write_bytes(craft.linear_model(bias=bias))
        sealed[name] = protect(
            tmp_path / f"{name}.onnx",
            ModelService(name, owner=identity.public),
            tmp_path / f"{name}.confide",
            identity=identity,
            keyring=keyring,
        )
    verifier = Verifier(
        sealed["linear"].policy,
        extra_anchors=[simulator.anchor(tmp_path / "simulator")],
        allow_simulated=True,
    )
    with Enclave.launch(
        sealed["linear"].service,
        tee="simulated",
        data={"linear": sealed["other"].output},
        simulator_directory=tmp_path / "simulator",
        state_directory=tmp_path / "state",
    ) as enclave:
        sealed["linear"].unlock(enclave.url, verifier)
        with pytest.raises(ConfideError) as caught:
            enclave.wait_until("running", timeout=30)

    assert caught.value.code == "sealing.policy_mismatch"


def test_a_hanging_model_does_not_hang_its_enclave(tmp_path: Path) -> None:
    """rt: an endless model answers with a typed error at the deadline, and the enclave still attests and serves."""
    path = tmp_path / "endless.onnx"
    path.write_bytes(craft.endless_model())
    identity = Identity.open_or_create("default", tmp_path / "identities")
    (tmp_path / "served").mkdir()
    service = ModelService("endless", owner=identity.public, limits=dataclasses.replace(Limits(), deadline=1))
    (tmp_path / "served" / "service.toml").write_text(service.to_toml())
    with start(path, tmp_path) as first:
        for _ in range(2):
            with ModelService.connect(first.url, verifier_of(first, tmp_path)) as model:
                with pytest.raises(EnclaveError) as caught:
                    model.predict({"x": np.ones(1, np.float32)})
                assert caught.value.code == "enclave.deadline"
                assert model.metadata.name == "endless"
