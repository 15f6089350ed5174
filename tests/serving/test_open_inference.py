# SPDX-License-Identifier: Apache-2.0
"""The messages of the Open Inference Protocol: every datatype both ways, and everything that is refused."""

from __future__ import annotations

import json
import math
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from confide.errors import ConfideError, EnclaveError, MalformedError, ModelError
from confide.frameworks.contract import ModelDescription, TensorSpec
from confide.serving import open_inference as oip
from confide.serving.open_inference import InferLimits, Signature

if TYPE_CHECKING:
    from collections.abc import Callable

DTYPES = [
    "bool",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "int8",
    "int16",
    "int32",
    "int64",
    "float16",
    "float32",
    "float64",
]
LIMITS = InferLimits(max_json=100_000, max_elements=1000, max_output=10_000)


def signature(dtype: str = "float32", shape: tuple[int | str | None, ...] | None = ("n", 2)) -> Signature:
    spec = TensorSpec("x", dtype, shape)
    return Signature.of(ModelDescription("onnx", (spec,), (TensorSpec("y", dtype, shape),), 1, 0))


def good() -> dict[str, Any]:
    return {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [1.5, -2.0, 0, 4]}]}


def read(
    message: object, binary: bytes = b"", *, sig: Signature | None = None, limits: InferLimits = LIMITS
) -> oip.InferRequest:
    header = message if isinstance(message, bytes) else json.dumps(message).encode()
    length = str(len(header)) if binary else None
    return oip.read_request(memoryview(header + binary), length, sig or signature(), limits)


def refused(code: str, *arguments: Any, **keywords: Any) -> ConfideError:
    with pytest.raises(ConfideError) as caught:
        read(*arguments, **keywords)
    assert caught.value.code == code
    return caught.value


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """The good request with one thing changed."""
    message = good()
    change(message)
    return message


def test_a_json_request_becomes_an_array() -> None:
    request = read(good())

    assert request.inputs["x"].tolist() == [[1.5, -2.0], [0.0, 4.0]]
    assert request.inputs["x"].dtype == np.float32
    assert request.outputs == (("y", False),)
    assert (request.id, request.timeout) == ("", None)


def test_nested_data_is_the_same_as_flat_data() -> None:
    nested = changed(lambda message: message["inputs"][0].update(data=[[1.5, -2.0], [0, 4]]))

    assert read(nested).inputs["x"].tolist() == read(good()).inputs["x"].tolist()


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_binary_tensors_arrive_bit_for_bit(dtype: str, data: st.DataObject) -> None:
    """Client to server and back, whatever the values (also -0.0), strides and orders."""
    shape = data.draw(hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=8))
    elements = (
        st.floats(allow_nan=False, allow_infinity=False, width=np.dtype(dtype).itemsize * 8)  # type: ignore[arg-type]
        if dtype.startswith("float")
        else None
    )
    array = data.draw(hnp.arrays(dtype, shape, elements=elements))
    array = data.draw(st.sampled_from([array, array[::-1], np.asfortranarray(array), array.T.copy().T]))
    parts, length = oip.compose_request({"x": array}, identifier="r")
    sig = signature(dtype, (None, None))
    request = oip.read_request(memoryview(b"".join(parts)), str(length), sig, LIMITS)

    assert request.inputs["x"].dtype == array.dtype
    assert request.inputs["x"].tobytes() == array.tobytes()
    assert request.outputs == (("y", True),)
    reply, header = oip.compose_response("m", "1", request, {"y": array}, sig, LIMITS)
    (output,) = oip.read_response(memoryview(b"".join(reply)), str(header)).values()
    assert (output.dtype, output.shape, output.tobytes()) == (array.dtype, array.shape, array.tobytes())


@settings(max_examples=50, deadline=None)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), min_size=1, max_size=8))
def test_strings_arrive_as_they_were_sent(texts: list[str]) -> None:
    sig = signature("string", ("n",))
    for array in (np.array(texts, object), np.array(texts, np.dtypes.StringDType())):
        parts, length = oip.compose_request({"x": array})
        request = oip.read_request(memoryview(b"".join(parts)), str(length), sig, LIMITS)
        assert request.inputs["x"].tolist() == texts
    as_json = {"inputs": [{"name": "x", "datatype": "BYTES", "shape": [len(texts)], "data": texts}]}
    assert read(as_json, sig=sig).inputs["x"].tolist() == texts


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype != "float16"])
def test_json_outputs_hold_the_values(dtype: str) -> None:
    array = np.array([[0, 1], [1, 0]], dtype)
    sig = signature(dtype)
    parts, length = oip.compose_request({"x": array})
    asked = oip.read_request(memoryview(b"".join(parts)), str(length), sig, LIMITS)
    request = oip.InferRequest("id-7", asked.inputs, (("y", False),), None)
    reply, header = oip.compose_response("m", "3", request, {"y": array}, sig, LIMITS)
    message = json.loads(b"".join(reply))

    assert header is None
    assert (message["model_name"], message["model_version"], message["id"]) == ("m", "3", "id-7")
    assert message["outputs"][0]["shape"] == [2, 2]
    assert oip.read_response(memoryview(b"".join(reply)), None)["y"].tolist() == array.tolist()


def test_floats_survive_json_exactly() -> None:
    values = [1 / 3, 1e-45, -0.0, 3.4028234663852886e38]
    array = np.array([values], np.float32)
    request = read(
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": array.reshape(-1).tolist()}]},
        sig=signature(shape=(1, 4)),
    )

    assert request.inputs["x"].tobytes() == array.tobytes()


def test_a_scalar_and_an_open_rank_are_accepted() -> None:
    scalar = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [], "data": [7]}]}

    assert read(scalar, sig=signature(shape=())).inputs["x"].tolist() == 7.0
    assert read(good(), sig=signature(shape=None)).inputs["x"].shape == (2, 2)


def test_outputs_are_chosen_by_name_and_form() -> None:
    message = good() | {
        "parameters": {"binary_data_output": True, "timeout": 1_500_000},
        "outputs": [{"name": "y", "parameters": {"binary_data": False}}],
        "id": "abc",
    }
    request = read(message)

    assert request.outputs == (("y", False),)
    assert (request.id, request.timeout) == ("abc", 1.5)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda m: m["inputs"][0].update(shape=[4]), "model.schema"),
        (lambda m: m["inputs"][0].update(shape=[4, 1]), "model.schema"),
        (lambda m: m["inputs"][0].update(shape=[2, 2, 1]), "model.schema"),
        (lambda m: m["inputs"][0].update(shape=[0, 2], data=[]), "model.schema"),
        (lambda m: m["inputs"][0].update(shape=[-2, -2]), "model.schema"),
        (lambda m: m["inputs"][0].update(shape=[2.0, 2]), "model.schema"),
        (lambda m: m["inputs"][0].update(shape=[True, 2]), "model.schema"),
        (lambda m: m["inputs"][0].update(shape=[1] * 33), "model.schema"),
        (lambda m: m["inputs"][0].update(shape="2,2"), "malformed.non_canonical"),
        (lambda m: m["inputs"][0].update(shape=[2**31, 2]), "model.limit"),
        (lambda m: m["inputs"][0].update(shape=[2**40, 2**40]), "model.limit"),
        (lambda m: m["inputs"][0].update(data=[1, 2, 3]), "model.schema"),
        (lambda m: m["inputs"][0].update(data=[1, 2, 3, 4, 5]), "model.schema"),
        (lambda m: m["inputs"][0].update(data=[[1, 2], [3]]), "model.schema"),
        (lambda m: m["inputs"][0].update(data=[[1, 2, 3, 4]]), "model.schema"),
        (lambda m: m["inputs"][0].update(data=[[1, 2], 3]), "model.schema"),
        (lambda m: m["inputs"][0].update(data=[1, 2, 3, "4"]), "model.schema"),
        (lambda m: m["inputs"][0].update(data=[1, 2, 3, True]), "model.schema"),
        (lambda m: m["inputs"][0].update(data=[1, 2, 3, None]), "model.schema"),
        (lambda m: m["inputs"][0].update(data=[1, 2, 3, 1e39]), "model.schema"),
        (lambda m: m["inputs"][0].update(data={"0": 1}), "malformed.non_canonical"),
        (lambda m: m["inputs"][0].update(datatype="FP64"), "model.schema"),
        (lambda m: m["inputs"][0].update(datatype="FP16"), "model.schema"),
        (lambda m: m["inputs"][0].update(datatype="BF16"), "model.schema"),
        (lambda m: m["inputs"][0].update(datatype="fp32"), "model.schema"),
        (lambda m: m["inputs"][0].update(datatype=1), "malformed.non_canonical"),
        (lambda m: m["inputs"][0].update(name="z"), "model.schema"),
        (lambda m: m["inputs"].append(m["inputs"][0]), "model.schema"),
        (lambda m: m["inputs"].clear(), "model.schema"),
        (lambda m: m["inputs"].append(5), "malformed.non_canonical"),
        (lambda m: m.pop("inputs"), "malformed.non_canonical"),
        (lambda m: m["inputs"][0].pop("data"), "malformed.non_canonical"),
        (lambda m: m["inputs"][0].update(parameters={"binary_data_size": 16}), "model.schema"),
        (
            lambda m: m["inputs"][0].update(parameters={"shared_memory_region": "r"}),
            "malformed.non_canonical",
        ),
        (lambda m: m["inputs"][0].update(extra=1), "malformed.non_canonical"),
        (lambda m: m.update(extra=1), "malformed.non_canonical"),
        (lambda m: m.update(parameters={"sequence_id": 7}), "malformed.non_canonical"),
        (lambda m: m.update(parameters={"binary_data_output": 1}), "malformed.non_canonical"),
        (lambda m: m.update(parameters={"timeout": -1}), "malformed.limit_exceeded"),
        (lambda m: m.update(id="a\x00b"), "malformed.non_canonical"),
        (lambda m: m.update(id=7), "malformed.non_canonical"),
        (lambda m: m.update(outputs=[{"name": "z"}]), "model.schema"),
        (lambda m: m.update(outputs=[{"name": "y"}, {"name": "y"}]), "model.schema"),
        (
            lambda m: m.update(outputs=[{"name": "y", "parameters": {"classification": 3}}]),
            "malformed.non_canonical",
        ),
    ],
)
def test_ml_12_one_changed_field_is_refused(change: Callable[[dict[str, Any]], object], code: str) -> None:
    read(good())
    refused(code, changed(change))


def test_ml_12_numbers_that_are_not_finite_are_refused_unless_configured() -> None:
    for number in (math.nan, math.inf, -math.inf):
        parts, length = oip.compose_request({"x": np.array([[1, number]], np.float32)})
        body = memoryview(b"".join(parts))
        with pytest.raises(ModelError) as caught:
            oip.read_request(body, str(length), signature(), LIMITS)
        assert caught.value.code == "model.schema"
        admitted = oip.read_request(body, str(length), signature(), InferLimits(non_finite=True)).inputs["x"]
        assert admitted.tobytes() == np.array([[1, number]], np.float32).tobytes()
    refused(
        "malformed.non_canonical", b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,NaN]}]}'
    )


def test_ml_12_minus_zero_is_a_number() -> None:
    message = changed(lambda m: m["inputs"][0].update(shape=[1, 2], data=[-0.0, 0.0]))

    assert [math.copysign(1, number) for number in read(message).inputs["x"][0]] == [-1.0, 1.0]


@pytest.mark.parametrize(
    ("array", "name"),
    [
        (np.array([[1.0, 2.0]], ">f4"), "big-endian"),
        (np.array([[object(), 2.0]], object), "objects"),
        (np.array([[b"a", b"b"]], object), "bytes"),
        (np.array([[1j, 2j]]), "complex"),
        (np.array([["2026-01-01", "2026-01-02"]], "datetime64[D]"), "dates"),
        ([[1.0, 2.0]], "a list"),
    ],
)
def test_ml_12_the_client_refuses_arrays_that_have_no_datatype(array: Any, name: str) -> None:
    with pytest.raises(ModelError) as caught:
        oip.compose_request({"x": array})
    assert caught.value.code == "model.schema", name


def binary_good() -> tuple[dict[str, Any], bytes]:
    entry = {"name": "x", "datatype": "FP32", "shape": [2, 2], "parameters": {"binary_data_size": 16}}
    return {"inputs": [entry]}, struct.pack("<4f", 1, 2, 3, 4)


def test_ml_12_binary_sizes_agree_with_shapes_and_body() -> None:
    message, binary = binary_good()
    assert read(message, binary).inputs["x"].tolist() == [[1, 2], [3, 4]]
    refused("model.schema", message, binary[:-1])
    refused("model.schema", message, binary + b"\x00")
    for size in (15, 17, 0, 2**40):
        message["inputs"][0]["parameters"]["binary_data_size"] = size
        refused("model.schema", message, binary)
    for size in (-1, 2**41):
        message["inputs"][0]["parameters"]["binary_data_size"] = size
        refused("malformed.limit_exceeded", message, binary)


@pytest.mark.parametrize("length", ["", "-1", "+5", " 5", "5 ", "0x5", "1e2", "999999", "\u0665", "5,5"])
def test_ml_12_the_header_length_is_a_plain_number_within_the_body(length: str) -> None:
    message, binary = binary_good()
    with pytest.raises(ConfideError):
        oip.read_request(memoryview(json.dumps(message).encode() + binary), length, signature(), LIMITS)


def test_ml_12_binary_booleans_are_zero_or_one() -> None:
    entry = {"name": "x", "datatype": "BOOL", "shape": [1, 2], "parameters": {"binary_data_size": 2}}

    assert read({"inputs": [entry]}, b"\x00\x01", sig=signature("bool")).inputs["x"].tolist() == [
        [False, True]
    ]
    refused("model.schema", {"inputs": [entry]}, b"\x00\x02", sig=signature("bool"))


@pytest.mark.parametrize(
    "binary",
    [
        b"\x01\x00\x00\x00a",
        b"\x01\x00\x00\x00a\x05\x00\x00\x00b",
        b"\x01\x00\x00\x00a\xff\xff\xff\xffb",
        b"\x01\x00\x00\x00a\x01\x00\x00\x00bc",
        b"\x01\x00\x00\x00\xff\x01\x00\x00\x00b",
        b"\x01\x00\x00",
        b"",
    ],
)
def test_ml_12_binary_strings_fill_their_bytes_exactly(binary: bytes) -> None:
    def message(size: int) -> dict[str, Any]:
        return {
            "inputs": [
                {"name": "x", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": size}}
            ]
        }

    good_bytes = b"\x01\x00\x00\x00a\x01\x00\x00\x00b"
    assert read(message(10), good_bytes, sig=signature("string", (2,))).inputs["x"].tolist() == ["a", "b"]
    refused("model.schema", message(len(binary)), binary, sig=signature("string", (2,)))


def test_ml_12_a_declared_shape_reserves_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand million strings are declared, ten bytes are sent."""
    empty = np.empty
    monkeypatch.setattr(
        np, "empty", lambda size, *rest: empty(size, *rest) if size < 100 else pytest.fail("reserved")
    )
    entry = {"name": "x", "datatype": "BYTES", "shape": [10**9], "parameters": {"binary_data_size": 10}}
    limits = InferLimits(max_elements=2**31 - 1)
    refused("model.schema", {"inputs": [entry]}, bytes(10), sig=signature("string", ("n",)), limits=limits)


def test_inputs_that_share_a_size_agree_about_it() -> None:
    specs = (TensorSpec("a", "float32", ("n",)), TensorSpec("b", "float32", ("n",)))
    sig = Signature.of(ModelDescription("onnx", specs, specs[:1], 1, 0))

    def message(second: int) -> dict[str, Any]:
        return {
            "inputs": [
                {"name": "a", "datatype": "FP32", "shape": [2], "data": [1, 2]},
                {"name": "b", "datatype": "FP32", "shape": [second], "data": [1] * second},
            ]
        }

    assert set(read(message(2), sig=sig).inputs) == {"a", "b"}
    refused("model.schema", message(3), sig=sig)


def test_ml_14_the_outputs_of_a_request_are_bounded() -> None:
    """What one request can take out is part of the measured configuration, also for strings, which weigh by content."""
    parts, length = oip.compose_request({"x": np.ones((1, 2), np.float32)})
    request = oip.read_request(memoryview(b"".join(parts)), str(length), signature(), LIMITS)
    fits = np.zeros(2500, np.float32)
    oip.compose_response("m", "1", request, {"y": fits}, signature(), LIMITS)
    texts = signature("string")
    for value, sig in ((np.zeros(2501, np.float32), signature()), (np.array(["a" * 80_000], object), texts)):
        with pytest.raises(ModelError) as caught:
            oip.compose_response("m", "1", request, {"y": value}, sig, LIMITS)
        assert caught.value.code == "model.limit"


def test_the_json_part_is_bounded() -> None:
    refused("model.limit", good(), limits=InferLimits(max_json=50))


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=200), length=st.one_of(st.none(), st.integers(0, 250).map(str)))
def test_noise_gives_a_typed_error(data: bytes, length: str | None) -> None:
    with pytest.raises(ConfideError):
        oip.read_request(memoryview(data), length, signature(), LIMITS)
    with pytest.raises(ConfideError):
        oip.read_response(memoryview(data), length)


@settings(max_examples=300, deadline=None)
@given(position=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_a_changed_byte_gives_a_typed_error_or_a_fitting_request(position: int, byte: int) -> None:
    parts, length = oip.compose_request({"x": np.array([[1, 2]], np.float32)})
    data = bytearray(b"".join(parts))
    data[position % len(data)] = byte
    try:
        request = oip.read_request(memoryview(bytes(data)), str(length), signature(), LIMITS)
    except ConfideError:
        return

    assert request.inputs["x"].shape[1] == 2
    assert np.isfinite(request.inputs["x"]).all()


def test_leak_02_no_error_repeats_what_the_request_brought() -> None:
    canary = "canary-93ab"
    changes: list[Callable[[dict[str, Any]], object]] = [
        lambda m: m["inputs"][0].update(name=canary),
        lambda m: m["inputs"][0].update(datatype=canary[:16]),
        lambda m: m["inputs"][0].update(data=[canary] * 4),
        lambda m: m["inputs"][0].update({canary: 1}),
        lambda m: m.update({canary: 1}),
        lambda m: m.update(outputs=[{"name": canary}]),
        lambda m: m["inputs"][0].update(shape=[canary]),
    ]
    for change in changes:
        with pytest.raises(ConfideError) as caught:
            read(changed(change))
        assert canary not in str(caught.value)
        assert canary.encode() not in oip.error_body(caught.value)


def test_errors_find_their_way_back_to_their_class() -> None:
    for error in (
        ModelError("schema", "a message"),
        EnclaveError("overloaded", "b [x] c"),
        MalformedError("truncated", "d"),
    ):
        again = oip.read_error(400, oip.error_body(error))
        assert (type(again), again.code, again.message) == (type(error), error.code, error.message)
    assert oip.read_error(503, oip.error_body(EnclaveError("overloaded", "m"))).retryable
    for body in (
        b"",
        b"[]",
        b'{"error": 5}',
        b'{"error": "text"}',
        b'{"error": "x [os.system]"}',
        b"\xff",
        b"<html>",
    ):
        assert oip.read_error(400, body).code == "model.schema"
        assert oip.read_error(500, body).code == "enclave.crashed"


def test_metadata_says_open_sizes_as_minus_one() -> None:
    metadata = oip.model_metadata("m", "2", "onnx", signature())

    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
    assert (metadata["versions"], metadata["platform"]) == (["2"], "onnx_onnxv1")
    assert oip.model_metadata("m", "2", "onnx", signature(shape=()))["inputs"][0]["shape"] == []


def test_a_model_with_an_element_type_that_the_protocol_lacks_is_refused() -> None:
    with pytest.raises(ModelError) as caught:
        signature("bfloat16")
    assert caught.value.code == "model.schema"
