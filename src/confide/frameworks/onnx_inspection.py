# SPDX-License-Identifier: Apache-2.0
"""Judges an ONNX model by its content, before onnxruntime sees a byte of it.

What is refused, and why:

1. external data anywhere (main graph, subgraphs, functions, attributes, sparse tensors): it names files, and one of
   onnxruntime's own location markers names memory addresses;
2. operators outside the standard domains and the model's own functions: they stand for native libraries; and the few
   operators of a standard domain that load files or call back into a host language;
3. session options carried in the model's metadata, training information, segmented tensors;
4. graphs that are not in topological order, name a value twice or use one that is nowhere defined: cycles end here;
5. functions that call themselves, and functions that multiply: nodes are counted as if every call were expanded;
6. tensors whose declared shape and carried data differ, negative sizes, sizes, counts and nesting above the limits.

Source: the ONNX intermediate representation specification (IR 13); threats ML-01 and ML-05.
"""

from __future__ import annotations

from typing import Any, Final, NoReturn

from confide.errors import ModelError
from confide.frameworks import onnx_tables as tables
from confide.frameworks.contract import LoadLimits, ModelDescription, TensorSpec
from confide.frameworks.protobuf import Budget, Table, Wire, count, integers, read, signed64, text

__all__ = ["inspect"]

_STANDARD_DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
_REFUSED_OPERATORS: Final = frozenset(
    {
        ("com.microsoft", "EPContext"),  # compiled contexts, by path or as native code
        ("com.microsoft", "Snpe"),  # a container for another runtime
        ("com.microsoft", "PythonOp"),
        ("com.microsoft", "PythonOpGrad"),
        ("com.microsoft", "TritonOp"),
    }
)
_REFUSED_METADATA: Final = frozenset({"ort_config"})
_MAX_RANK: Final = 64
_MAX_DIMENSION: Final = 2**63 - 1
_MAX_CALL_DEPTH: Final = 12  # with max_depth subgraphs each, well below the interpreter's own recursion limit

_FunctionKey = tuple[str, str, str]
_TYPED_FIELDS: Final = {
    "float_data": Wire.FIXED32,
    "int32_data": Wire.VARINT,
    "int64_data": Wire.VARINT,
    "double_data": Wire.FIXED64,
    "uint64_data": Wire.VARINT,
}


def inspect(data: bytes | memoryview, *, limits: LoadLimits | None = None) -> ModelDescription:
    """Check a serialised ModelProto and return its signature.

    Raises ModelError: ``external_data``, ``limit``, ``schema`` for inputs or outputs that are not tensors, and
    ``unsafe_format`` for everything else that is refused. Linear in the number of fields; tensor data is not copied.
    """
    return _Inspection(memoryview(data).cast("B"), limits or LoadLimits()).model()


def _refuse(message: str, hint: str = "") -> NoReturn:
    raise ModelError("unsafe_format", message, hint=hint)


def _limit(message: str) -> NoReturn:
    raise ModelError(
        "limit", message, hint="the limits are part of the measured configuration of the service"
    )


class _Inspection:
    """The walk over one model; holds what is counted across all of it."""

    def __init__(self, view: memoryview, limits: LoadLimits) -> None:
        if len(view) > limits.max_bytes:
            _limit("the model has more bytes than the limit allows")
        if not len(view):
            _refuse("the model is empty")
        self._view = view
        self._limits = limits
        self._budget = Budget(limits.max_fields)
        self._initializers = 0
        self._parameters = 0
        self._functions: dict[_FunctionKey, dict[str, Any]] = {}
        self._costs: dict[_FunctionKey, int] = {}
        self._calling: list[_FunctionKey] = []

    def _read(self, view: memoryview, table: Table, what: str) -> dict[str, Any]:
        return read(view, table, what=what, budget=self._budget)

    def model(self) -> ModelDescription:
        """Walk the whole model."""
        record = self._read(self._view, tables.MODEL, "the model")
        if "graph" not in record or "ir_version" not in record:
            _refuse("the model has no graph or no version", "the file is not an ONNX model")
        if record["training_info"]:
            _refuse("the model carries training information", "export the model for inference only")
        for entry in record["metadata_props"]:
            key = text(self._read(entry, tables.ENTRY, "metadata").get("key"), what="metadata")
            if key in _REFUSED_METADATA:
                _refuse(
                    "the model's metadata carries session options", "remove the metadata entry `ort_config`"
                )
        for entry in record["opset_import"]:
            self._read(entry, tables.OPERATOR_SET, "an operator set")
        self._collect_functions(record["functions"])
        # Every function is judged, also one that nothing calls: the framework reads it all the same.
        for function in self._functions:
            self._function_cost(function)
        graph = self._read(record["graph"], tables.GRAPH, "the graph")
        nodes = self._graph(graph, depth=0, outer=())
        carried = {
            text(self._read(item, tables.TENSOR, "an initializer").get("name"), what="an initializer")
            for item in graph["initializer"]
        }
        specs = [self._spec(item) for item in graph["input"]]
        inputs = tuple(spec for spec in specs if spec.name not in carried)
        outputs = tuple(self._spec(item) for item in graph["output"])
        for group, what in ((inputs, "inputs"), (outputs, "outputs")):
            if not group or len({spec.name for spec in group}) != len(group):
                raise ModelError("schema", f"the model has no {what}, or two of one name")
        return ModelDescription("onnx", inputs, outputs, nodes, self._parameters)

    def _collect_functions(self, views: list[memoryview]) -> None:
        if len(views) > self._limits.max_functions:
            _limit("the model has more functions than the limit allows")
        for view in views:
            record = self._read(view, tables.FUNCTION, "a function")
            key = tuple(text(record.get(part), what="a function") for part in ("domain", "name", "overload"))
            domain, name, overload = key
            if not name or (domain, name, overload) in self._functions:
                _refuse("a function has no name, or the name of another one")
            self._functions[domain, name, overload] = record

    def _function_cost(self, key: _FunctionKey) -> int:
        known = self._costs.get(key)
        if known is not None:
            return known
        if key in self._calling:
            _refuse("a function calls itself")
        if len(self._calling) >= _MAX_CALL_DEPTH:
            _limit("functions call each other more deeply than the limit allows")
        self._calling.append(key)
        record = self._functions[key]
        for item in record["attribute_proto"]:
            self._attribute(item, depth=0, outer=())
        for item in record["value_info"]:
            self._read(item, tables.VALUE_INFO, "a value")
        for entry in record["opset_import"]:
            self._read(entry, tables.OPERATOR_SET, "an operator set")
        defined = {text(item, what="a function's input") for item in record["input"]}
        cost = self._nodes(record["node"], depth=0, outer=(defined,))
        self._require_defined(record["output"], (defined,), "a function's output")
        self._calling.pop()
        self._costs[key] = cost
        return cost

    def _graph(self, graph: dict[str, Any], *, depth: int, outer: tuple[set[str], ...]) -> int:
        if depth > self._limits.max_depth:
            _limit("graphs are nested more deeply than the limit allows")
        self._initializers += len(graph["initializer"]) + len(graph["sparse_initializer"])
        if self._initializers > self._limits.max_initializers:
            _limit("the model has more initializers than the limit allows")
        defined: set[str] = set()
        for item in graph["input"]:
            defined.add(self._value_name(item))
        carried: set[str] = set()
        for item in graph["initializer"]:
            name = self._tensor(item)
            if not name or name in carried:
                _refuse("an initializer has no name, or the name of another one")
            carried.add(name)
        for item in graph["sparse_initializer"]:
            name = self._sparse(item)
            if not name or name in carried:
                _refuse("an initializer has no name, or the name of another one")
            carried.add(name)
        defined |= carried
        for item in graph["value_info"]:
            self._value_name(item)
        scopes = (*outer, defined)
        cost = self._nodes(graph["node"], depth=depth, outer=scopes)
        for item in graph["output"]:
            self._require(self._value_name(item), scopes, "an output of a graph")
        return cost

    def _nodes(self, views: list[memoryview], *, depth: int, outer: tuple[set[str], ...]) -> int:
        """Walk nodes in order; the innermost set of ``outer`` gains what they define. Returns their cost."""
        defined = outer[-1]
        cost = 0
        for view in views:
            record = self._read(view, tables.NODE, "a node")
            self._require_defined(record["input"], outer, "a node's input")
            cost += self._node_cost(record, depth=depth, outer=outer)
            if cost > self._limits.max_nodes:
                _limit("the model has more nodes than the limit allows, counted with its functions expanded")
            for item in record["output"]:
                self._budget.spend()
                name = text(item, what="a node's output")
                if name in defined:
                    _refuse("a value is defined twice")
                if name:
                    defined.add(name)
        return cost

    def _node_cost(self, record: dict[str, Any], *, depth: int, outer: tuple[set[str], ...]) -> int:
        domain, operator, overload = (
            text(record.get(part), what="a node", max_bytes=512) for part in ("domain", "op_type", "overload")
        )
        if not operator:
            _refuse("a node names no operator")
        cost = 1
        function = (domain, operator, overload)
        if function in self._functions:
            cost += self._function_cost(function)
        elif domain not in _STANDARD_DOMAINS:
            _refuse(
                "the model uses an operator of a custom domain",
                "custom operators are native code: express them with standard operators or as functions of the model",
            )
        elif (domain, operator) in _REFUSED_OPERATORS:
            _refuse("the model uses an operator that loads or runs code from outside the model")
        for item in record["attribute"]:
            cost += self._attribute(item, depth=depth, outer=outer)
        return cost

    def _attribute(self, view: memoryview, *, depth: int, outer: tuple[set[str], ...]) -> int:
        record = self._read(view, tables.ATTRIBUTE, "an attribute")
        for item in ([record["t"]] if "t" in record else []) + record["tensors"]:
            self._tensor(item)
        for item in ([record["sparse_tensor"]] if "sparse_tensor" in record else []) + record[
            "sparse_tensors"
        ]:
            self._sparse(item)
        for item in ([record["tp"]] if "tp" in record else []) + record["type_protos"]:
            self._type(item, depth=0)
        cost = 0
        for item in ([record["g"]] if "g" in record else []) + record["graphs"]:
            cost += self._graph(self._read(item, tables.GRAPH, "a subgraph"), depth=depth + 1, outer=outer)
        return cost

    def _require_defined(self, names: list[memoryview], scopes: tuple[set[str], ...], what: str) -> None:
        for item in names:
            self._budget.spend()
            self._require(text(item, what=what), scopes, what)

    @staticmethod
    def _require(name: str, scopes: tuple[set[str], ...], what: str) -> None:
        # An empty name stands for an optional input that is left out.
        if name and not any(name in scope for scope in scopes):
            _refuse(
                f"{what} is not defined before it is used",
                "ONNX asks for nodes in topological order; export the model again",
            )

    def _value_name(self, view: memoryview) -> str:
        record = self._read(view, tables.VALUE_INFO, "a value")
        if "type" in record:
            self._type(record["type"], depth=0)
        name = text(record.get("name"), what="a value")
        if not name:
            _refuse("a value has no name")
        return name

    def _type(self, view: memoryview, *, depth: int) -> None:
        if depth > self._limits.max_depth:
            _limit("types are nested more deeply than the limit allows")
        record = self._read(view, tables.TYPE, "a type")
        for kind in ("sequence_type", "optional_type"):
            if kind in record:
                inner = self._read(record[kind], tables.TYPE_ELEMENT, "a type")
                if "elem_type" in inner:
                    self._type(inner["elem_type"], depth=depth + 1)
        if "map_type" in record:
            inner = self._read(record["map_type"], tables.TYPE_MAP, "a type")
            if "value_type" in inner:
                self._type(inner["value_type"], depth=depth + 1)
        for kind in ("tensor_type", "sparse_tensor_type"):
            if kind in record:
                self._read(record[kind], tables.TYPE_TENSOR, "a type")
        if "opaque_type" in record:
            self._read(record["opaque_type"], tables.OPAQUE, "a type")

    def _tensor(self, view: memoryview) -> str:
        """Check that a tensor carries exactly the data that its shape asks for; its name."""
        record = self._read(view, tables.TENSOR, "a tensor")
        # Not "is it EXTERNAL": protobuf narrows the number to 32 bits, so that only zero is surely the default.
        if record["external_data"] or record.get("data_location", 0) != 0:
            raise ModelError(
                "external_data",
                "the model keeps tensors in files beside it",
                hint="save it as one file: onnx.save(model, path, save_as_external_data=False)",
            )
        if "segment" in record:
            _refuse("the model carries a tensor in segments")
        kind = tables.DATA_TYPES.get(record.get("data_type", 0))
        if kind is None:
            _refuse("a tensor has an unknown data type")
        elements = self._elements(record["dims"])
        self._parameters += elements
        held = {name: count(record[name], wire, what="a tensor") for name, wire in _TYPED_FIELDS.items()}
        held["string_data"] = len(record["string_data"])
        filled = [name for name, number in held.items() if number]
        raw = record.get("raw_data")
        if raw is not None and (filled or kind.bits == 0):
            _refuse("a tensor carries its data twice, or strings as raw data")
        if raw is not None:
            complete = len(raw) * 8 == -(-elements * kind.bits // 8) * 8
        else:
            per_value = max(1, 8 // kind.bits) if kind.bits else 1
            complete = filled in ([], [kind.field]) and held[kind.field] in {
                -(-elements // per_value) * kind.values,
                elements * kind.values,
            }
        if not complete:
            _refuse("a tensor's data is not what its shape asks for")
        return text(record.get("name"), what="a tensor")

    def _elements(self, values: list[int | memoryview]) -> int:
        total = 1
        for size in integers(values, what="a shape", max_count=_MAX_RANK):
            if size < 0:
                _refuse("a tensor has a negative size")
            total *= size
            if total > self._limits.max_elements:
                _limit("a tensor has more elements than the limit allows")
        return total

    def _sparse(self, view: memoryview) -> str:
        record = self._read(view, tables.SPARSE_TENSOR, "a sparse tensor")
        if "values" not in record or "indices" not in record:
            _refuse("a sparse tensor lacks its values or indices")
        # The framework makes it dense, so the dense size is what the limit is about.
        self._elements(record["dims"])
        self._tensor(record["indices"])
        return self._tensor(record["values"])

    def _spec(self, view: memoryview) -> TensorSpec:
        record = self._read(view, tables.VALUE_INFO, "a value")
        name = text(record.get("name"), what="a value", max_bytes=256)
        kind = self._read(record.get("type", memoryview(b"")), tables.TYPE, "a type")
        if "tensor_type" not in kind:
            raise ModelError(
                "schema",
                "an input or output of the model is not a tensor",
                hint="export without sequences and maps; for scikit-learn that is the option zipmap=False",
            )
        tensor = self._read(kind["tensor_type"], tables.TYPE_TENSOR, "a type")
        element = tables.DATA_TYPES.get(tensor.get("elem_type", 0))
        if element is None:
            raise ModelError("schema", "an input or output of the model has an unknown data type")
        if "shape" not in tensor:
            return TensorSpec(name, element.dtype, None)
        dims: list[int | str | None] = []
        for item in self._read(tensor["shape"], tables.SHAPE, "a shape")["dim"]:
            if len(dims) >= _MAX_RANK:
                _limit("an input or output has more dimensions than the limit allows")
            dim = self._read(item, tables.DIMENSION, "a dimension")
            if "dim_value" in dim and "dim_param" in dim:
                _refuse("a dimension has both a size and a name")
            if "dim_value" in dim:
                size = signed64(dim["dim_value"])
                # Exporters write -1, and some 0, for a size that is open; the framework takes both that way.
                dims.append(size if 0 < size <= _MAX_DIMENSION else None)
            else:
                dims.append(text(dim.get("dim_param"), what="a dimension", max_bytes=256) or None)
        return TensorSpec(name, element.dtype, tuple(dims))
