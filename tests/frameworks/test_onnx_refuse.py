# SPDX-License-Identifier: Apache-2.0
"""Models that are refused by content, before onnxruntime sees them. Each starts from a model that loads."""

from __future__ import annotations

import struct
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from confide.errors import ModelError
from confide.frameworks import onnx
from confide.frameworks.contract import LoadLimits
from support import onnx_bytes as craft

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

X, Y = craft.value("x", [2]), craft.value("y", [2])


def simple(
    nodes: list[craft.Message] | None = None,
    initializers: list[craft.Message] | None = None,
    functions: list[craft.Message] | None = None,
    extra: craft.Message | None = None,
    graph_extra: craft.Message | None = None,
) -> bytes:
    nodes = nodes if nodes is not None else [craft.node("Identity", ["x"], ["y"])]
    return craft.model(
        craft.graph(nodes, [X], [Y], initializers or [], graph_extra), functions=functions or [], extra=extra
    )


def refused(data: bytes, code: str, limits: LoadLimits | None = None) -> ModelError:
    """The refusal, which is the same from every one of the adapter's doors, and leaves onnxruntime untouched."""
    with pytest.raises(ModelError) as caught:
        onnx.describe(data, limits=limits)
    assert caught.value.code == code
    for door in (onnx.dump, lambda data, limits: onnx.load({"model.onnx": data}, limits=limits)):
        with pytest.raises(ModelError) as other:
            door(data, limits=limits)
        assert other.value.code == code
    return caught.value


@pytest.fixture(autouse=True)
def _framework_is_never_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refusals happen before the framework: here it is not even importable."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)


def test_the_starting_point_is_accepted() -> None:
    assert onnx.describe(simple()).nodes == 1


def external(location: str) -> craft.Message:
    return [
        *craft.tensor("w", [2], b"")[:-1],
        (13, [(1, "location"), (2, location)]),
        (14, 1),
    ]


def wrap_in_initializer(item: craft.Message) -> bytes:
    return simple(initializers=[item])


def wrap_in_constant(item: craft.Message) -> bytes:
    return simple(
        [
            craft.node("Constant", [], ["c"], [craft.attribute("value", 4, 5, item)]),
            craft.node("Add", ["x", "c"], ["y"]),
        ]
    )


def wrap_in_tensors(item: craft.Message) -> bytes:
    return simple([craft.node("Identity", ["x"], ["y"], [craft.attribute("values", 9, 10, item)])])


def wrap_in_subgraph(item: craft.Message) -> bytes:
    inner = craft.graph([craft.node("Identity", ["w"], ["z"])], [], [craft.value("z", [2])], [item])
    branches = [craft.attribute("then_branch", 5, 6, inner), craft.attribute("else_branch", 5, 6, inner)]
    return simple(
        [craft.node("If", ["yes"], ["y"], branches)], [craft.tensor("yes", [], b"\x01", craft.BOOL)]
    )


def wrap_in_function(item: craft.Message) -> bytes:
    constant = craft.node("Constant", [], ["b"], [craft.attribute("value", 4, 5, item)])
    return simple(functions=[craft.function("acme", "Unused", ["a"], ["b"], [constant])])


def wrap_in_sparse(item: craft.Message) -> bytes:
    indices = craft.tensor("", [2], struct.pack("<2q", 0, 1), craft.INT64)
    return simple(graph_extra=[(15, [(1, item), (2, indices), (3, 2)])])


def wrap_in_sparse_indices(item: craft.Message) -> bytes:
    return simple(graph_extra=[(15, [(1, craft.tensor("s", [2], craft.floats(1, 2))), (2, item), (3, 2)])])


def wrap_in_sparse_attribute(item: craft.Message) -> bytes:
    indices = craft.tensor("", [2], struct.pack("<2q", 0, 1), craft.INT64)
    sparse: craft.Message = [(1, item), (2, indices), (3, 2)]
    return simple(
        [
            craft.node("Constant", [], ["c"], [craft.attribute("sparse_value", 11, 22, sparse)]),
            craft.node("Add", ["x", "c"], ["y"]),
        ]
    )


WRAPPERS: list[Callable[[craft.Message], bytes]] = [
    wrap_in_initializer,
    wrap_in_constant,
    wrap_in_tensors,
    wrap_in_subgraph,
    wrap_in_function,
    wrap_in_sparse,
    wrap_in_sparse_indices,
    wrap_in_sparse_attribute,
]
GOOD = craft.tensor("w", [2], craft.floats(1, 2))


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_ml_05_external_data_is_refused_wherever_it_hides(
    wrap: Callable[[craft.Message], bytes], tmp_path: Path
) -> None:
    """The same model with the tensor inside is accepted; a file at the place it names is not opened."""
    onnx.describe(wrap(GOOD))
    sentinel = tmp_path / "weights.bin"
    sentinel.write_bytes(craft.floats(1, 2))
    before = sentinel.stat().st_atime_ns
    for location in (str(sentinel), "weights.bin", "../weights.bin", "*/_ORT_MEM_ADDR_/*", ""):
        refused(wrap(external(location)), "model.external_data")

    assert sentinel.stat().st_atime_ns == before


@pytest.mark.parametrize("number", [1, 2, 2**32 + 1, 2**63])
def test_ml_05_only_the_default_data_location_is_accepted(number: int) -> None:
    """protobuf keeps the low 32 bits of an enum, so that 2**32 + 1 would be EXTERNAL again."""
    onnx.describe(wrap_in_initializer([*GOOD, (14, 0)]))
    refused(wrap_in_initializer([*GOOD, (14, number)]), "model.external_data")


def test_ml_01_operators_of_custom_domains_are_refused() -> None:
    for domain in ("acme", "com.microsoft.extensions", "org.pytorch.aten", "ai.onnx.contrib", "AI.ONNX", " "):
        refused(simple([craft.node("Identity", ["x"], ["y"], domain=domain)]), "model.unsafe_format")


def test_ml_01_operators_that_load_code_are_refused_in_a_standard_domain() -> None:
    for operator in ("EPContext", "PythonOp", "TritonOp", "Snpe"):
        refused(simple([craft.node(operator, ["x"], ["y"], domain="com.microsoft")]), "model.unsafe_format")


def test_ml_01_session_options_in_the_metadata_are_refused() -> None:
    onnx.describe(simple(extra=[(14, [(1, "note"), (2, "{}")])]))
    refused(simple(extra=[(14, [(1, "ort_config"), (2, "{}")])]), "model.unsafe_format")


def test_ml_01_training_information_is_refused() -> None:
    refused(simple(extra=[(20, [])]), "model.unsafe_format")


@pytest.mark.parametrize(
    "payload",
    [
        b"cposix\nsystem\n(S'touch SENTINEL'\ntR.",
        b"\x80\x04\x95\x20\x00\x00\x00",
        b"PK\x03\x04pickle",
        b"\x89HDF\r\n\x1a\n",
        b"GGUF\x03\x00\x00\x00",
        b"\x18\x00\x00\x00ORTM",
        b"\x00" * 64,
    ],
)
def test_ml_01_ml_02_other_formats_are_refused_and_run_nothing(
    payload: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in front of, and behind, a good model; and a real pickle that would write a file does not."""
    monkeypatch.chdir(tmp_path)
    payload = payload.replace(b"SENTINEL", str(tmp_path / "sentinel").encode())
    for data in (payload, payload + simple(), simple() + payload):
        refused(data, "model.unsafe_format")

    assert list(tmp_path.iterdir()) == []


def test_ml_02_a_polyglot_behind_a_good_model_is_refused() -> None:
    refused(simple() + b"PK\x05\x06" + bytes(18), "model.unsafe_format")


def test_ml_05_a_field_that_may_come_once_is_refused_twice() -> None:
    """protobuf merges two graphs into one, so that a reader of only the last would be deceived."""
    graph = craft.graph([craft.node("Identity", ["x"], ["y"])], [X], [Y])
    refused(craft.encode([(1, 9), (7, graph), (7, graph), (8, [(1, ""), (2, 17)])]), "model.unsafe_format")


def test_ml_05_cycles_and_undefined_values_are_refused() -> None:
    cycle = [
        craft.node("Add", ["x", "b"], ["a"]),
        craft.node("Identity", ["a"], ["b"]),
        craft.node("Identity", ["b"], ["y"]),
    ]
    refused(simple(cycle), "model.unsafe_format")
    refused(simple([craft.node("Identity", ["nowhere"], ["y"])]), "model.unsafe_format")
    refused(simple([craft.node("Identity", ["x"], ["z"])]), "model.unsafe_format")


def test_ml_05_a_value_is_defined_once() -> None:
    refused(
        simple([craft.node("Identity", ["x"], ["y"]), craft.node("Neg", ["x"], ["y"])]), "model.unsafe_format"
    )
    refused(simple([craft.node("Identity", ["x"], ["x"])]), "model.unsafe_format")
    refused(simple(initializers=[GOOD, GOOD]), "model.unsafe_format")


def test_ml_05_functions_that_call_themselves_are_refused() -> None:
    one = craft.function("acme", "One", ["a"], ["b"], [craft.node("Two", ["a"], ["b"], domain="acme")])
    two = craft.function("acme", "Two", ["a"], ["b"], [craft.node("One", ["a"], ["b"], domain="acme")])
    plain = craft.function("acme", "Two", ["a"], ["b"], [craft.node("Neg", ["a"], ["b"])])
    onnx.describe(simple(functions=[one, plain]))
    refused(simple(functions=[one, two]), "model.unsafe_format")


def test_ml_05_functions_that_multiply_are_counted_expanded() -> None:
    """Ten functions, each calling the next ten times: a hundred nodes in the file, ten thousand million when run."""
    functions = []
    for level in range(10):
        last = level == 9
        body = [
            craft.node(
                "Neg" if last else f"F{level + 1}", ["a"], [f"b{index}"], domain="" if last else "acme"
            )
            for index in range(10)
        ]
        functions.append(craft.function("acme", f"F{level}", ["a"], ["b0"], body))
    refused(simple(functions=functions), "model.limit")


def test_ml_05_deep_calls_are_refused() -> None:
    functions = [
        craft.function(
            "acme", f"F{level}", ["a"], ["b"], [craft.node(f"F{level + 1}", ["a"], ["b"], domain="acme")]
        )
        for level in range(20)
    ]
    functions.append(craft.function("acme", "F20", ["a"], ["b"], [craft.node("Neg", ["a"], ["b"])]))
    refused(simple(functions=functions), "model.limit")


def nested(levels: int) -> bytes:
    inner = craft.graph([craft.node("Neg", ["x"], ["z"])], [], [craft.value("z", [2])])
    for _ in range(levels - 1):
        branches = [craft.attribute("then_branch", 5, 6, inner)]
        inner = craft.graph([craft.node("If", ["yes"], ["z"], branches)], [], [craft.value("z", [2])])
    top = craft.node("If", ["yes"], ["y"], [craft.attribute("then_branch", 5, 6, inner)])
    return simple([top], [craft.tensor("yes", [], b"\x01", craft.BOOL)])


def test_ml_05_nested_graphs_are_limited() -> None:
    onnx.describe(nested(8))
    refused(nested(9), "model.limit")
    refused(nested(200), "model.limit")


def test_ml_05_the_worst_nesting_does_not_exhaust_the_interpreter() -> None:
    """The deepest calls in the deepest graphs that the limits allow together end in a typed error or a description."""
    functions = []
    for level in range(12):
        inner_node = (
            craft.node("Neg", ["a"], ["z"])
            if level == 11
            else craft.node(f"F{level + 1}", ["a"], ["z"], domain="acme")
        )
        inner = craft.graph([inner_node], [], [craft.value("z", [2])])
        for _ in range(7):
            inner = craft.graph(
                [craft.node("If", ["a"], ["z"], [craft.attribute("then_branch", 5, 6, inner)])],
                [],
                [craft.value("z", [2])],
            )
        top = craft.node("If", ["a"], ["b"], [craft.attribute("then_branch", 5, 6, inner)])
        functions.append(craft.function("acme", f"F{level}", ["a"], ["b"], [top]))

    assert onnx.describe(simple(functions=functions)).nodes == 1


def test_ml_05_types_are_limited_in_depth() -> None:
    kind: craft.Message = [(1, [(1, craft.FLOAT)])]
    for _ in range(50):
        kind = [(4, [(1, kind)])]
    refused(simple(graph_extra=[(13, [(1, "v"), (2, kind)])]), "model.limit")


def test_ml_05_counts_are_limited() -> None:
    chain = [craft.node("Neg", ["x"], ["v0"])]
    chain += [craft.node("Neg", [f"v{index}"], [f"v{index + 1}"]) for index in range(98)]
    chain += [craft.node("Neg", ["v98"], ["y"])]
    onnx.describe(simple(chain), limits=LoadLimits(max_nodes=100))
    refused(simple(chain), "model.limit", LoadLimits(max_nodes=99))
    weights = [craft.tensor(f"w{index}", [1], craft.floats(1)) for index in range(10)]
    onnx.describe(simple(initializers=weights), limits=LoadLimits(max_initializers=10))
    refused(simple(initializers=weights), "model.limit", LoadLimits(max_initializers=9))
    refused(simple(), "model.limit", LoadLimits(max_fields=20))
    refused(simple(), "model.limit", LoadLimits(max_bytes=len(simple()) - 1))
    refused(
        simple(functions=[craft.function("a", "F", ["x"], ["y"], [craft.node("Neg", ["x"], ["y"])])]),
        "model.limit",
        LoadLimits(max_functions=0),
    )


def test_ml_05_a_hundred_thousand_nodes_are_refused_by_default() -> None:
    """Equal nodes without outputs: small in the file, and more than the default limit."""
    one = craft.encode([(1, craft.node("Neg", ["x"], []))])
    data = craft.encode(
        [(1, 9), (7, one * 100_000 + craft.encode(craft.graph([], [X], [X]))), (8, [(2, 17)])]
    )
    refused(data, "model.limit")


@pytest.mark.parametrize(
    ("tensor", "code"),
    [
        (craft.tensor("w", [2**40, 2**40], b""), "model.limit"),
        (craft.tensor("w", [2**31], b""), "model.limit"),
        (craft.tensor("w", [-1, -2], craft.floats(1, 2)), "model.unsafe_format"),
        (craft.tensor("w", [-(2**63)], b""), "model.unsafe_format"),
        (craft.tensor("w", [3], craft.floats(1, 2)), "model.unsafe_format"),
        (craft.tensor("w", [1], craft.floats(1, 2)), "model.unsafe_format"),
        (craft.tensor("w", [2**31 - 1], b""), "model.unsafe_format"),
        (craft.tensor("w", [2], craft.floats(1, 2), 99), "model.unsafe_format"),
        (craft.tensor("w", [2], craft.floats(1, 2), 0), "model.unsafe_format"),
        (craft.tensor("w", [2], b"ab", craft.STRING), "model.unsafe_format"),
        (craft.tensor("", [2], craft.floats(1, 2)), "model.unsafe_format"),
        (craft.tensor("w", [1] * 65, craft.floats(1)), "model.limit"),
        ([*craft.tensor("w", [2], craft.floats(1, 2)), (3, [(1, 0), (2, 1)])], "model.unsafe_format"),
        ([*craft.tensor("w", [2], craft.floats(1, 2)), (4, craft.floats(1, 2))], "model.unsafe_format"),
        ([(1, 2), (2, craft.FLOAT), (8, "w"), (4, craft.floats(1))], "model.unsafe_format"),
        ([(1, 2), (2, craft.FLOAT), (8, "w"), (7, b"\x01\x02")], "model.unsafe_format"),
        ([(1, 2), (2, craft.INT64), (8, "w"), (7, b"\x01\x80")], "model.unsafe_format"),
        ([(1, 1), (2, craft.INT64), (8, "w"), (7, b"\xff" * 10 + b"\x01")], "model.unsafe_format"),
        ([(1, 1), (2, craft.FLOAT), (8, "w"), (4, b"\x01\x02\x03")], "model.unsafe_format"),
        ([(1, 1), (2, craft.FLOAT), (8, "w")], "model.unsafe_format"),
    ],
)
def test_ml_05_a_tensor_holds_what_its_shape_asks_for(tensor: craft.Message, code: str) -> None:
    onnx.describe(simple(initializers=[GOOD]))
    refused(simple(initializers=[tensor]), code)


@pytest.mark.parametrize(
    "tensor",
    [
        [(1, 2), (2, craft.FLOAT), (8, "w"), (4, craft.floats(1, 2))],
        [(1, 2), (2, craft.FLOAT), (8, "w"), (4, 1.0), (4, 2.0)],
        [(1, 2), (2, craft.INT64), (8, "w"), (7, b"\x01\x80\x01")],
        [(1, b"\x01\x02"), (2, craft.INT64), (8, "w"), (7, 5), (7, 6)],
        [(1, 3), (2, 22), (8, "w"), (9, b"\x12\x03")],
        [(1, 2), (2, craft.STRING), (8, "w"), (6, "a"), (6, "")],
        [(1, 0), (2, craft.FLOAT), (8, "w")],
        [(1, 1), (2, 14), (8, "w"), (4, craft.floats(1, 2))],
    ],
)
def test_tensors_may_carry_their_data_in_every_form_of_the_format(tensor: craft.Message) -> None:
    onnx.describe(simple(initializers=[tensor]))


def test_inputs_and_outputs_are_named_tensors() -> None:
    sequence: craft.Message = [(1, "y"), (2, [(4, [(1, [(1, [(1, craft.FLOAT)])])])])]
    nodes = [craft.node("Identity", ["x"], ["y"])]
    error = refused(craft.model(craft.graph(nodes, [X], [sequence])), "model.schema")
    assert "zipmap" in error.hint
    refused(craft.model(craft.graph(nodes, [X], [Y, Y])), "model.schema")
    refused(craft.model(craft.graph(nodes, [X], [])), "model.schema")


def test_every_cut_of_a_model_is_refused() -> None:
    """A prefix is not a model: at each byte a typed error, or (behind the graph) a whole smaller message."""
    data = craft.encode(
        [(1, 9), (8, [(1, ""), (2, 17)]), (7, craft.graph([craft.node("Identity", ["x"], ["y"])], [X], [Y]))]
    )
    onnx.describe(data)
    for end in range(len(data)):
        with pytest.raises(ModelError):
            onnx.describe(data[:end])


@settings(max_examples=300, deadline=None)
@given(position=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_a_changed_byte_gives_a_typed_error_or_a_model(position: int, byte: int) -> None:
    data = bytearray(craft.linear_model())
    data[position % len(data)] = byte
    try:
        inputs = onnx.describe(bytes(data)).inputs
    except ModelError:
        return

    assert inputs


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=200))
def test_noise_gives_a_typed_error(data: bytes) -> None:
    with pytest.raises(ModelError):
        onnx.describe(data)


def test_a_protected_model_has_exactly_one_entry() -> None:
    for parts in ({}, {"other": simple()}, {"model.onnx": simple(), "more": b""}):
        with pytest.raises(ModelError) as caught:
            onnx.load(parts)
        assert caught.value.code == "model.unsafe_format"


def test_no_refusal_repeats_a_name_of_the_model() -> None:
    """leak_02: names in a model are secrets of its owner, and hostile input to everybody else."""
    canary = "canary_layer_7c1e"
    cases = [
        simple([craft.node(canary, ["x"], ["y"], domain=canary)]),
        simple([craft.node("Identity", [canary], ["y"])]),
        simple(initializers=[craft.tensor(canary, [3], b"")]),
        simple(initializers=[[*craft.tensor(canary, [2], b"")[:-1], (13, [(1, "location"), (2, canary)])]]),
        simple(extra=[(14, [(1, canary * 400), (2, "")])]),
    ]
    for data in cases:
        with pytest.raises(ModelError) as caught:
            onnx.describe(data)
        assert canary not in str(caught.value)
        assert canary not in repr(caught.value)
