# SPDX-License-Identifier: Apache-2.0
"""A model service behind the gateway: confide's own client, and the protocol's client through the local proxy."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from confide.channel.async_transport import AsyncAttestedTransport
from confide.channel.gateway import Gateway
from confide.channel.proxy import Proxy
from confide.channel.receipt import Receipt
from confide.errors import ConfigurationError, EnclaveError, ModelError, NotAcceptable
from confide.frameworks import onnx
from confide.serving.inference_app import InferenceApp, Served
from confide.serving.model_service import ModelService
from confide.serving.open_inference import InferLimits, Signature
from confide.serving.worker_pool import WorkerPool
from support import onnx_bytes as craft
from support.asgi_call import served
from support.channel_world import World, verifier

if TYPE_CHECKING:
    from collections.abc import Iterator

MODELS = {
    "linear": craft.linear_model(),
    "text": craft.identity_model(craft.STRING, ["n"]),
    "wide": craft.identity_model(craft.FLOAT, ["n", "m"]),
    "endless": craft.endless_model(),
}


@contextmanager
def serving(models: dict[str, bytes], recorder: list[bytes] | None = None) -> Iterator[tuple[str, World]]:
    """The gateway over the models, on loopback; with ``recorder``, all bytes that the host would see of requests."""
    loaded = {name: onnx.load({"model.onnx": data}) for name, data in models.items()}
    world = World(content={name: model.digest for name, model in loaded.items()})
    app = InferenceApp(
        {name: Served(model, "1", "onnx", Signature.of(model.description)) for name, model in loaded.items()},
        WorkerPool(workers=1, waiting=8),
        limits=InferLimits(),
        deadline=1.0,
        max_body=40_000_000,
        version="0",
    )
    gateway = Gateway(app, world.instance)

    async def recorded(scope: Any, receive: Any, send: Any) -> None:
        async def hearing() -> Any:
            message = await receive()
            if recorder is not None:
                recorder.append(bytes(message.get("body", b"")))
            return message

        async def telling(message: Any) -> None:
            if recorder is not None:
                recorder.append(bytes(message.get("body", b"")))
            await send(message)

        await gateway(scope, hearing, telling)

    with served(recorded) as url:
        yield url, world


@pytest.fixture(scope="module")
def service() -> Iterator[tuple[str, World]]:
    with serving(MODELS) as found:
        yield found


def connect(service: tuple[str, World], **options: Any) -> Any:
    url, world = service
    return ModelService.connect(url, verifier(), clock=world.clock.wall, **options)


def test_numpy_in_and_numpy_out(service: tuple[str, World]) -> None:
    with connect(service, model="linear") as model:
        outputs = model.predict({"x": np.array([[1, 0, 2], [0, 0, 0]], np.float32)})

        assert outputs["y"].tolist() == [[8.0], [1.0]]
        assert model.metadata.inputs[0].shape == (-1, 3)
        assert model.metadata.platform == "onnx_onnxv1"
        assert model.digest == hashlib.sha256(MODELS["linear"]).digest()
        assert model.attestation.verdict == "accepted"
        assert model.receipt is None
        assert "SIMULATED" not in repr(model)


def test_a_receipt_names_what_was_loaded(service: tuple[str, World]) -> None:
    with connect(service, model="linear", receipts=True) as model:
        model.predict({"x": np.zeros((1, 3), np.float32)})
        first = model.receipt
        model.predict({"x": np.zeros((1, 3), np.float32)})

        assert isinstance(first, Receipt)
        assert first.content["linear"] == hashlib.sha256(MODELS["linear"]).digest()
        assert first.status == 200
        assert model.receipt is not None
        assert model.receipt.seq != first.seq


def test_strings_and_large_arrays_pass(service: tuple[str, World]) -> None:
    with connect(service, model="text") as model:
        assert model.predict({"x": np.array(["", "ä b"], object)})["y"].tolist() == ["", "ä b"]
    with connect(service, model="wide") as model:
        large = np.random.default_rng(1).standard_normal((1000, 2000)).astype(np.float32)
        assert model.predict({"x": large}, outputs=["y"])["y"].tobytes() == large.tobytes()


def test_errors_of_the_service_arrive_as_their_own_classes(service: tuple[str, World]) -> None:
    with connect(service, model="linear") as model:
        with pytest.raises(ModelError) as wrong:
            model.predict({"x": np.zeros((1, 4), np.float32)})
        assert model.predict({"x": np.zeros((1, 3), np.float32)})["y"].tolist() == [[1.0]]
    with connect(service, model="endless") as model, pytest.raises(EnclaveError) as slow:
        model.predict({"x": np.zeros(1, np.float32)})

    assert (wrong.value.code, slow.value.code) == ("model.schema", "enclave.deadline")


def test_a_model_is_chosen_where_there_are_several(service: tuple[str, World]) -> None:
    with pytest.raises(ConfigurationError):
        connect(service)
    with pytest.raises(ConfigurationError) as caught:
        connect(service, model="nothing")
    assert "linear" in caught.value.hint
    with serving({"linear": MODELS["linear"]}) as one, connect(one) as model:
        assert model.name == "linear"


def test_no_client_exists_without_accepted_evidence(service: tuple[str, World]) -> None:
    url, world = service
    with pytest.raises(NotAcceptable) as caught:
        ModelService.connect(url, verifier(manifest=b"another manifest"), clock=world.clock.wall)

    assert "not_acceptable.measurement" in {reason.code for reason in caught.value.reasons}


def test_leak_01_the_host_sees_neither_inputs_nor_outputs_nor_names() -> None:
    """The same scan of the plain protocol's bytes finds all of them."""
    heard: list[bytes] = []
    array = np.array(["canary-input-5e21"], object)
    with serving({"text": MODELS["text"]}, heard) as found, connect(found) as model:
        assert model.predict({"x": array})["y"].tolist() == ["canary-input-5e21"]
    plain: list[bytes] = []
    from confide.serving import open_inference

    plain += [bytes(part) for part in open_inference.compose_request({"x": array})[0]]
    for needle in (b"canary-input-5e21", b"BYTES", b"binary_data"):
        assert needle in b"".join(plain)
        assert needle not in b"".join(heard)
    assert sum(len(part) for part in heard) > 1000


def test_tritonclient_works_through_the_proxy(service: tuple[str, World]) -> None:
    """The protocol's client, unchanged, speaks plain HTTP to loopback; behind it everything is in the envelope."""
    http = pytest.importorskip("tritonclient.http")
    url, world = service
    transport = AsyncAttestedTransport(url, verifier(), clock=world.clock.wall)
    with served(Proxy(transport), lifespan="on") as local:
        client = http.InferenceServerClient(local.removeprefix("http://"))
        try:
            assert client.is_server_live()
            assert client.is_model_ready("linear")
            assert client.get_model_metadata("linear")["name"] == "linear"
            for binary in (True, False):
                tensor = http.InferInput("x", [1, 3], "FP32")
                tensor.set_data_from_numpy(np.array([[1, 0, 2]], np.float32), binary_data=binary)
                wanted = http.InferRequestedOutput("y", binary_data=binary)
                assert client.infer("linear", [tensor], outputs=[wanted]).as_numpy("y").tolist() == [[8.0]]
            wrong = http.InferInput("x", [1, 2], "FP32")
            wrong.set_data_from_numpy(np.ones((1, 2), np.float32))
            with pytest.raises(http.InferenceServerException, match=r"model\.schema"):
                client.infer("linear", [wrong])
        finally:
            client.close()
