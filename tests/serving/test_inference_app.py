# SPDX-License-Identifier: Apache-2.0
"""The application over real models: routes, errors, deadlines; and the protocol's own client against it, unchanged."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from confide.frameworks import onnx
from confide.serving import open_inference as oip
from confide.serving.inference_app import InferenceApp, Served
from confide.serving.open_inference import InferLimits, Signature
from confide.serving.worker_pool import WorkerPool
from support import onnx_bytes as craft
from support.asgi_call import Answer, acall, call, served

if TYPE_CHECKING:
    from collections.abc import Iterator


def make_app(
    models: dict[str, bytes], *, deadline: float = 20.0, limits: InferLimits | None = None, **pool: Any
) -> InferenceApp:
    loaded = {}
    for name, data in models.items():
        model = onnx.load({"model.onnx": data})
        loaded[name] = Served(model, "1", "onnx", Signature.of(model.description))
    return InferenceApp(
        loaded,
        WorkerPool(**({"workers": 1, "waiting": 4} | pool)),
        limits=limits or InferLimits(),
        deadline=deadline,
        max_body=1_000_000,
        version="0.1",
    )


@pytest.fixture
def app() -> InferenceApp:
    return make_app({"linear": craft.linear_model(), "text": craft.identity_model(craft.STRING, ["n"])})


def infer_body(array: np.ndarray[Any, Any]) -> tuple[bytes, list[tuple[str, str]]]:
    parts, length = oip.compose_request({"x": array})
    return b"".join(parts), [(oip.HEADER_LENGTH, str(length))]


def error_of(answer: Answer) -> str:
    """The protocol's error object, which has one key."""
    message = json.loads(answer.body)
    assert list(message) == ["error"]
    return str(message["error"])


def test_the_routes_of_the_protocol(app: InferenceApp) -> None:
    server = json.loads(call(app, "GET", "/v2").body)
    model = json.loads(call(app, "GET", "/v2/models/linear").body)

    assert server == {"name": "confide", "version": "0.1", "extensions": ["binary_tensor_data"]}
    assert json.loads(call(app, "GET", "/v2/health/live").body) == {"live": True}
    assert json.loads(call(app, "GET", "/v2/health/ready").body) == {"ready": True}
    assert json.loads(call(app, "GET", "/v2/models/linear/ready").body) == {"name": "linear", "ready": True}
    assert json.loads(call(app, "GET", "/v2/models/linear/versions/1/ready").body)["ready"] is True
    assert model["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
    assert json.loads(call(app, "GET", "/v2/models/linear/versions/1").body) == model


def test_an_inference_in_json_and_in_binary(app: InferenceApp) -> None:
    message = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 0, 2]}], "id": "q"}
    as_json = call(app, "POST", "/v2/models/linear/infer", json.dumps(message).encode())
    body, headers = infer_body(np.array([[1, 0, 2]], np.float32))
    as_binary = call(app, "POST", "/v2/models/linear/versions/1/infer", body, headers)

    assert json.loads(as_json.body) == {
        "id": "q",
        "model_name": "linear",
        "model_version": "1",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 1], "data": [8.0]}],
    }
    assert "inference-header-content-length" not in as_json.headers
    assert as_binary.headers["content-type"] == "application/octet-stream"
    length = as_binary.headers["inference-header-content-length"]
    assert oip.read_response(memoryview(as_binary.body), length)["y"].tolist() == [[8.0]]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/models", 404),
        ("GET", "/v2/models", 404),
        ("GET", "/v2/models/canary-name", 404),
        ("GET", "/v2/models/linear/versions/2", 404),
        ("GET", "/v2/models/linear/versions", 404),
        ("GET", "/v2/models/linear/config", 404),
        ("GET", "/v2/models/linear/ready/more", 404),
        ("GET", "/v2/models/linear/versions/1/versions/1", 404),
        ("GET", "/v2/models/../models/linear", 404),
        ("GET", "/v2/models/linear/infer", 400),
        ("POST", "/v2/models/linear", 400),
        ("DELETE", "/v2/models/linear", 400),
        ("POST", "/v2/repository/models/linear/load", 404),
    ],
)
def test_everything_else_is_refused_with_the_protocols_error(
    app: InferenceApp, method: str, path: str, status: int
) -> None:
    answer = call(app, method, path)

    assert answer.status == status
    assert "canary" not in error_of(answer)


def test_ml_14_no_route_gives_the_model_away(app: InferenceApp) -> None:
    """Every route a protocol client can ask for, and none of the answers holds the model's bytes or its node names."""
    for suffix in ("", "/config", "/stats", "/file", "/model.onnx", "/versions/1/file", "/ready"):
        body = call(app, "GET", f"/v2/models/linear{suffix}").body
        assert craft.linear_model() not in body
        assert b"MatMul" not in body


def test_bad_requests_get_typed_errors_and_change_nothing(app: InferenceApp) -> None:
    body, headers = infer_body(np.array([[1, 0, 2]], np.float32))
    good = call(app, "POST", "/v2/models/linear/infer", body, headers)
    wrong_shape, wrong_headers = infer_body(np.array([[1, 0]], np.float32))
    cases: list[tuple[bytes, list[tuple[str, str]], int]] = [
        (b"", [], 400),
        (b"{", [], 400),
        (body, [], 400),
        (body[:-1], headers, 400),
        (wrong_shape, wrong_headers, 400),
        (body, [*headers, *headers], 400),
        (body, [*headers, ("content-encoding", "gzip")], 400),
        (bytes(1_000_001), [], 413),
        (b"", [("content-length", "1000001")], 413),
    ]
    for data, extra, status in cases:
        answer = call(app, "POST", "/v2/models/linear/infer", data, extra)
        assert answer.status == status
        assert error_of(answer).endswith("]")
    assert call(app, "POST", "/v2/models/linear/infer", body, headers) == good


def test_a_body_may_be_shorter_or_longer_than_announced(app: InferenceApp) -> None:
    """The announcement sizes a buffer and decides nothing: what arrives is what counts."""
    body, headers = infer_body(np.array([[1, 0, 2]], np.float32))
    for announced in ("0", "3", str(len(body)), "900000", "x", "-5", "9" * 40):
        answer = call(app, "POST", "/v2/models/linear/infer", body, [*headers, ("content-length", announced)])
        assert answer.status == 200


def test_a_client_that_leaves_while_sending_gets_nothing_run(app: InferenceApp) -> None:
    body, headers = infer_body(np.array([[1, 0, 2]], np.float32))

    assert (
        asyncio.run(acall(app, "POST", "/v2/models/linear/infer", body, headers, 8, disconnect=True)) is None
    )


def test_rt_07_an_endless_model_ends_at_its_deadline_while_health_answers() -> None:
    app = make_app({"endless": craft.endless_model(), "linear": craft.linear_model()}, deadline=0.5)
    body, headers = infer_body(np.ones(1, np.float32))
    quick, quick_headers = infer_body(np.array([[1, 0, 2]], np.float32))

    async def scene() -> None:
        slow = asyncio.ensure_future(acall(app, "POST", "/v2/models/endless/infer", body, headers))
        await asyncio.sleep(0.1)
        live = await acall(app, "GET", "/v2/health/live")
        assert live is not None
        assert live.status == 200
        assert not slow.done()
        answer = await slow
        assert answer is not None
        assert answer.status == 504
        assert error_of(answer).endswith("[enclave.deadline]")
        after = await acall(app, "POST", "/v2/models/linear/infer", quick, quick_headers)
        assert after is not None
        assert after.status == 200

    asyncio.run(scene())


def test_a_request_may_ask_for_a_shorter_deadline_and_not_for_a_longer_one() -> None:
    app = make_app({"endless": craft.endless_model()}, deadline=0.4)
    base = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]}
    for timeout in (1, 3_600_000_000):
        message = json.dumps(base | {"parameters": {"timeout": timeout}}).encode()
        assert call(app, "POST", "/v2/models/endless/infer", message).status == 504


def test_overload_is_a_typed_error() -> None:
    app = make_app({"endless": craft.endless_model()}, deadline=0.5, workers=1, waiting=0)
    body, headers = infer_body(np.ones(1, np.float32))

    async def scene() -> list[Answer | None]:
        return await asyncio.gather(
            *(acall(app, "POST", "/v2/models/endless/infer", body, headers) for _ in range(3))
        )

    answers = [answer for answer in asyncio.run(scene()) if answer is not None]
    assert sorted(answer.status for answer in answers) == [503, 503, 504]
    refused = next(answer for answer in answers if answer.status == 503)
    assert refused.headers["retry-after"] == "1"
    assert error_of(refused).endswith("[enclave.overloaded]")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    models = {
        "linear": craft.linear_model(),
        "text": craft.identity_model(craft.STRING, ["n"]),
        "half": craft.identity_model(craft.FLOAT16),
        "yesno": craft.identity_model(craft.BOOL),
    }
    with served(make_app(models)) as address:
        yield address.removeprefix("http://")


def test_tritonclient_works_against_the_app(url: str) -> None:
    """The protocol's most used client, as it is: binary and JSON, numbers, strings, half precision, booleans, errors."""
    http = pytest.importorskip("tritonclient.http")
    utils = pytest.importorskip("tritonclient.utils")
    client = http.InferenceServerClient(url)
    try:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("linear")
        assert not client.is_model_ready("nothing")
        assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
        assert client.get_model_metadata("linear", "1")["outputs"][0]["shape"] == [-1, 1]
        cases: list[tuple[str, np.ndarray[Any, Any], str, list[Any]]] = [
            ("linear", np.array([[1, 0, 2]], np.float32), "FP32", [[8.0]]),
            ("half", np.array([[1.5, -2]], np.float16), "FP16", [[1.5, -2.0]]),
            ("yesno", np.array([[True, False]]), "BOOL", [[True, False]]),
            ("text", np.array([b"", "ä b".encode()], object), "BYTES", [b"", "ä b".encode()]),
        ]
        for name, array, datatype, expected in cases:
            for binary in (True, False):
                if datatype == "FP16" and not binary:
                    continue
                tensor = http.InferInput("x", list(array.shape), datatype)
                tensor.set_data_from_numpy(array, binary_data=binary)
                outputs = [http.InferRequestedOutput("y", binary_data=binary)]
                for chosen in (outputs, None):
                    result = client.infer(name, [tensor], outputs=chosen, request_id="7")
                    values = result.as_numpy("y").tolist()
                    assert [item.encode() if isinstance(item, str) else item for item in values] == expected
                    assert result.get_response()["id"] == "7"
        wrong = http.InferInput("x", [1, 2], "FP32")
        wrong.set_data_from_numpy(np.ones((1, 2), np.float32))
        with pytest.raises(utils.InferenceServerException, match=r"model\.schema"):
            client.infer("linear", [wrong])
    finally:
        client.close()
