# SPDX-License-Identifier: Apache-2.0
"""Models that load: what they compute, what is said of them, and what they cost."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from confide.errors import EnclaveError, ModelError
from confide.frameworks import onnx, table
from confide.frameworks.contract import LoadLimits, TensorSpec
from support import onnx_bytes as craft


def magika_model() -> bytes:
    magika = pytest.importorskip("magika")
    return (Path(magika.__file__).parent / "models" / "standard_v3_3" / "model.onnx").read_bytes()


def test_a_small_model_computes_what_it_says() -> None:
    """x @ W + b, for weights and inputs that no other formula gives."""
    model = onnx.load({"model.onnx": craft.linear_model(3, [2.0, -1.0, 0.5], bias=10.0)})
    run = model.prepare({"x": np.array([[1, 2, 4], [0, 0, 0]], np.float32)}, ["y"])

    assert run()["y"].tolist() == [[12.0], [10.0]]
    assert model.description.inputs == (TensorSpec("x", "float32", ("batch", 3)),)
    assert model.description.outputs == (TensorSpec("y", "float32", ("batch", 1)),)
    assert (model.description.nodes, model.description.parameters) == (2, 4)


def test_the_digest_is_that_of_the_bytes_that_were_loaded() -> None:
    data = craft.linear_model()

    assert onnx.load({"model.onnx": memoryview(data)}).digest == hashlib.sha256(data).digest()


def test_a_buffer_that_changes_after_loading_changes_nothing() -> None:
    """ml_06: what was inspected and hashed is what was loaded, also if the caller's buffer is written to later."""
    buffer = bytearray(craft.linear_model())
    model = onnx.load({"model.onnx": memoryview(buffer)})
    buffer[:] = bytes(len(buffer))

    assert model.prepare({"x": np.ones((1, 3), np.float32)}, ["y"])()["y"].tolist() == [[7.0]]


def test_dump_and_load_are_each_others_inverse() -> None:
    data = craft.linear_model()
    (part,) = onnx.dump(data)

    assert (part.name, part.kind, bytes(part.data)) == ("model.onnx", "blob", data)
    assert onnx.load({part.name: part.data}).description == onnx.describe(data)


@pytest.mark.parametrize(
    ("data_type", "dtype"),
    [
        (craft.FLOAT, "float32"),
        (craft.UINT8, "uint8"),
        (craft.INT8, "int8"),
        (craft.INT32, "int32"),
        (craft.INT64, "int64"),
        (craft.BOOL, "bool"),
        (craft.FLOAT16, "float16"),
        (craft.DOUBLE, "float64"),
        (12, "uint32"),
        (13, "uint64"),
        (4, "uint16"),
        (5, "int16"),
    ],
)
def test_every_numeric_type_passes_through(data_type: int, dtype: str) -> None:
    model = onnx.load({"model.onnx": craft.identity_model(data_type)})
    sent = np.array([[0, 1], [1, 0]], dtype)
    (output,) = model.prepare({"x": sent}, ["y"])().values()

    assert model.description.inputs[0].dtype == dtype
    assert output.dtype == sent.dtype
    assert output.tolist() == sent.tolist()


def test_strings_pass_through() -> None:
    model = onnx.load({"model.onnx": craft.identity_model(craft.STRING, ["n"])})

    assert model.prepare({"x": np.array(["", "ä b"], object)}, ["y"])()["y"].tolist() == ["", "ä b"]


def test_subgraphs_and_functions_of_the_model_are_accepted() -> None:
    """A custom domain is only refused where the model does not define it itself."""
    twice = craft.function("acme", "Twice", ["a"], ["b"], [craft.node("Add", ["a", "a"], ["b"])])
    data = craft.model(
        craft.graph(
            [
                craft.node("Twice", ["x"], ["t"], domain="acme"),
                craft.node("Twice", ["t"], ["y"], domain="acme"),
            ],
            [craft.value("x", [2])],
            [craft.value("y", [2])],
        ),
        functions=[twice],
    )
    model = onnx.load({"model.onnx": data})

    assert model.prepare({"x": np.array([1, 3], np.float32)}, ["y"])()["y"].tolist() == [4.0, 12.0]
    assert model.description.nodes == 4


def test_a_real_model_is_described_as_its_own_framework_describes_it() -> None:
    description = onnx.describe(magika_model())
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(magika_model(), providers=["CPUExecutionProvider"])

    assert [spec.name for spec in description.inputs] == [item.name for item in session.get_inputs()]
    assert [spec.shape for spec in description.inputs] == [tuple(item.shape) for item in session.get_inputs()]
    assert [spec.shape for spec in description.outputs] == [
        tuple(item.shape) for item in session.get_outputs()
    ]


def test_a_real_model_gives_bit_equal_outputs() -> None:
    """ml_13: the protected path adds nothing to the arithmetic."""
    ort = pytest.importorskip("onnxruntime")
    inputs = np.random.default_rng(7).integers(0, 257, (3, 2048)).astype(np.int32)
    plain = ort.InferenceSession(magika_model(), providers=["CPUExecutionProvider"])
    model = onnx.load({"model.onnx": magika_model()})

    assert model.prepare({"bytes": inputs}, ["target_label"])()["target_label"].tobytes() == (
        plain.run(["target_label"], {"bytes": inputs})[0].tobytes()
    )


def test_recognition_is_by_content() -> None:
    assert table.recognise(craft.linear_model()) == "onnx"
    for other in (b"", b"\x80\x04]q\x00.", b"PK\x03\x04" + bytes(64), b"GGUF" + bytes(64), bytes(100)):
        assert not onnx.recognises(other)
        with pytest.raises(ModelError) as caught:
            table.recognise(other)
        assert caught.value.code == "model.unsafe_format"


def test_rt_07_a_run_that_never_ends_can_be_ended_and_the_next_is_not_hit() -> None:
    model = onnx.load({"model.onnx": craft.endless_model()})
    first = model.prepare({"x": np.ones(1, np.float32)}, ["y"])
    timer = threading.Timer(0.2, first.cancel)
    timer.start()
    with pytest.raises(EnclaveError) as caught:
        first()
    timer.join()

    assert caught.value.code == "enclave.deadline"
    quick = onnx.load({"model.onnx": craft.linear_model()}).prepare({"x": np.ones((1, 3), np.float32)}, ["y"])
    first.cancel()
    assert quick()["y"].tolist() == [[7.0]]


def test_a_run_that_was_cancelled_before_it_began_does_not_run() -> None:
    run = onnx.load({"model.onnx": craft.endless_model()}).prepare({"x": np.ones(1, np.float32)}, ["y"])
    run.cancel()
    with pytest.raises(EnclaveError) as caught:
        run()

    assert caught.value.code == "enclave.deadline"


def test_a_failing_run_says_nothing_about_its_input(capfd: pytest.CaptureFixture[str]) -> None:
    """leak_02: onnxruntime's text names values and shapes; the error that crosses the border does not."""
    model = onnx.load({"model.onnx": craft.linear_model()})
    with pytest.raises(ModelError) as caught:
        model.prepare({"x": np.ones((2, 12345), np.float32)}, ["y"])()

    assert caught.value.code == "model.schema"
    assert "12345" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert capfd.readouterr() == ("", "")


def test_leak_01_loading_says_nothing_of_the_model(capfd: pytest.CaptureFixture[str]) -> None:
    """onnxruntime warns of an unused initializer by its name, on standard error, unless it is told to be quiet."""
    ort = pytest.importorskip("onnxruntime")
    graph = craft.graph(
        [craft.node("Identity", ["x"], ["y"])],
        [craft.value("x", [1])],
        [craft.value("y", [1])],
        [craft.tensor("canary_weight_3e8a", [1], craft.floats(1))],
    )
    onnx.load({"model.onnx": craft.model(graph)})
    assert capfd.readouterr() == ("", "")
    loud = ort.SessionOptions()
    loud.log_severity_level = 2
    ort.InferenceSession(craft.model(graph), loud, providers=["CPUExecutionProvider"])

    assert "canary_weight_3e8a" in capfd.readouterr().err


def test_loading_leaves_no_trace_below_the_home(tmp_path: Path) -> None:
    """leak_09: onnxruntime's telemetry writes a database on import unless it is off before."""
    program = (
        "from support import onnx_bytes\n"
        "from confide.frameworks import onnx\n"
        "import numpy as np\n"
        "model = onnx.load({'model.onnx': onnx_bytes.linear_model()})\n"
        "print(model.prepare({'x': np.ones((1, 3), np.float32)}, ['y'])()['y'].item())\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run(
        [sys.executable, "-B", "-c", program],
        env=environment | {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "7.0\n", "")
    assert list(tmp_path.rglob("*")) == []


def test_a_missing_extra_names_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelError) as caught:
        onnx.load({"model.onnx": craft.linear_model()})

    assert caught.value.code == "model.missing_extra"
    assert "pip install 'confide[onnx]'" in caught.value.hint


def test_a_description_needs_no_framework() -> None:
    """The owner's machine can protect a model without onnxruntime or numpy."""
    program = (
        "import sys\n"
        "sys.modules['onnxruntime'] = sys.modules['numpy'] = None\n"
        "from support import onnx_bytes\n"
        "from confide.frameworks import onnx\n"
        "print(len(onnx.dump(onnx_bytes.linear_model())))\n"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", program],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, "1\n")


def test_limits_are_inclusive() -> None:
    """A model that is exactly as large as each limit is accepted."""
    data = craft.linear_model(3)
    limits = LoadLimits(
        max_bytes=len(data), max_nodes=2, max_initializers=2, max_elements=3, max_depth=0, max_functions=0
    )

    assert onnx.describe(data, limits=limits).nodes == 2
