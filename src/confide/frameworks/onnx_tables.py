# SPDX-License-Identifier: Apache-2.0
"""The messages of ONNX as tables, with the format's own names. Source: onnx-ml.proto, IR version 13."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from confide.frameworks.protobuf import Field, Table, Wire

__all__ = [
    "ATTRIBUTE",
    "DATA_TYPES",
    "DIMENSION",
    "ENTRY",
    "FUNCTION",
    "GRAPH",
    "MODEL",
    "NODE",
    "OPAQUE",
    "OPERATOR_SET",
    "SHAPE",
    "SPARSE_TENSOR",
    "TENSOR",
    "TYPE",
    "TYPE_ELEMENT",
    "TYPE_MAP",
    "TYPE_TENSOR",
    "VALUE_INFO",
    "DataType",
]


def _number(name: str) -> Field:
    return Field(name, Wire.VARINT)


def _bytes(name: str) -> Field:
    return Field(name, Wire.BYTES)


def _many(name: str) -> Field:
    return Field(name, Wire.BYTES, repeated=True)


def _numbers(name: str, wire: Wire = Wire.VARINT) -> Field:
    return Field(name, wire, repeated=True)


MODEL: Final[Table] = MappingProxyType(
    {
        1: _number("ir_version"),
        2: _bytes("producer_name"),
        3: _bytes("producer_version"),
        4: _bytes("domain"),
        5: _number("model_version"),
        6: _bytes("doc_string"),
        7: _bytes("graph"),
        8: _many("opset_import"),
        14: _many("metadata_props"),
        20: _many("training_info"),
        25: _many("functions"),
        26: _many("configuration"),
    }
)
OPERATOR_SET: Final[Table] = MappingProxyType({1: _bytes("domain"), 2: _number("version")})
ENTRY: Final[Table] = MappingProxyType({1: _bytes("key"), 2: _bytes("value")})
GRAPH: Final[Table] = MappingProxyType(
    {
        1: _many("node"),
        2: _bytes("name"),
        5: _many("initializer"),
        10: _bytes("doc_string"),
        11: _many("input"),
        12: _many("output"),
        13: _many("value_info"),
        14: _many("quantization_annotation"),
        15: _many("sparse_initializer"),
        16: _many("metadata_props"),
    }
)
NODE: Final[Table] = MappingProxyType(
    {
        1: _many("input"),
        2: _many("output"),
        3: _bytes("name"),
        4: _bytes("op_type"),
        5: _many("attribute"),
        6: _bytes("doc_string"),
        7: _bytes("domain"),
        8: _bytes("overload"),
        9: _many("metadata_props"),
        10: _many("device_configurations"),
    }
)
ATTRIBUTE: Final[Table] = MappingProxyType(
    {
        1: _bytes("name"),
        2: Field("f", Wire.FIXED32),
        3: _number("i"),
        4: _bytes("s"),
        5: _bytes("t"),
        6: _bytes("g"),
        7: _numbers("floats", Wire.FIXED32),
        8: _numbers("ints"),
        9: _many("strings"),
        10: _many("tensors"),
        11: _many("graphs"),
        13: _bytes("doc_string"),
        14: _bytes("tp"),
        15: _many("type_protos"),
        20: _number("type"),
        21: _bytes("ref_attr_name"),
        22: _bytes("sparse_tensor"),
        23: _many("sparse_tensors"),
    }
)
TENSOR: Final[Table] = MappingProxyType(
    {
        1: _numbers("dims"),
        2: _number("data_type"),
        3: _bytes("segment"),
        4: _numbers("float_data", Wire.FIXED32),
        5: _numbers("int32_data"),
        6: _many("string_data"),
        7: _numbers("int64_data"),
        8: _bytes("name"),
        9: _bytes("raw_data"),
        10: _numbers("double_data", Wire.FIXED64),
        11: _numbers("uint64_data"),
        12: _bytes("doc_string"),
        13: _many("external_data"),
        14: _number("data_location"),
        16: _many("metadata_props"),
    }
)
SPARSE_TENSOR: Final[Table] = MappingProxyType(
    {1: _bytes("values"), 2: _bytes("indices"), 3: _numbers("dims")}
)
VALUE_INFO: Final[Table] = MappingProxyType(
    {1: _bytes("name"), 2: _bytes("type"), 3: _bytes("doc_string"), 4: _many("metadata_props")}
)
TYPE: Final[Table] = MappingProxyType(
    {
        1: _bytes("tensor_type"),
        4: _bytes("sequence_type"),
        5: _bytes("map_type"),
        6: _bytes("denotation"),
        7: _bytes("opaque_type"),
        8: _bytes("sparse_tensor_type"),
        9: _bytes("optional_type"),
    }
)
TYPE_TENSOR: Final[Table] = MappingProxyType({1: _number("elem_type"), 2: _bytes("shape")})
TYPE_ELEMENT: Final[Table] = MappingProxyType({1: _bytes("elem_type")})
TYPE_MAP: Final[Table] = MappingProxyType({1: _number("key_type"), 2: _bytes("value_type")})
OPAQUE: Final[Table] = MappingProxyType({1: _bytes("domain"), 2: _bytes("name")})
SHAPE: Final[Table] = MappingProxyType({1: _many("dim")})
DIMENSION: Final[Table] = MappingProxyType(
    {1: _number("dim_value"), 2: _bytes("dim_param"), 3: _bytes("denotation")}
)
FUNCTION: Final[Table] = MappingProxyType(
    {
        1: _bytes("name"),
        4: _many("input"),
        5: _many("output"),
        6: _many("attribute"),
        7: _many("node"),
        8: _bytes("doc_string"),
        9: _many("opset_import"),
        10: _bytes("domain"),
        11: _many("attribute_proto"),
        12: _many("value_info"),
        13: _bytes("overload"),
        14: _many("metadata_props"),
    }
)


@dataclass(frozen=True, slots=True)
class DataType:
    """One element type: the numpy name where numpy has it, bits an element, and the field for unpacked data.

    ``values`` is how many values of that field make one element (two for complex numbers).
    """

    dtype: str
    bits: int
    field: str
    values: int = 1


DATA_TYPES: Final = MappingProxyType(
    {
        1: DataType("float32", 32, "float_data"),
        2: DataType("uint8", 8, "int32_data"),
        3: DataType("int8", 8, "int32_data"),
        4: DataType("uint16", 16, "int32_data"),
        5: DataType("int16", 16, "int32_data"),
        6: DataType("int32", 32, "int32_data"),
        7: DataType("int64", 64, "int64_data"),
        8: DataType("string", 0, "string_data"),
        9: DataType("bool", 8, "int32_data"),
        10: DataType("float16", 16, "int32_data"),
        11: DataType("float64", 64, "double_data"),
        12: DataType("uint32", 32, "uint64_data"),
        13: DataType("uint64", 64, "uint64_data"),
        14: DataType("complex64", 64, "float_data", 2),
        15: DataType("complex128", 128, "double_data", 2),
        16: DataType("bfloat16", 16, "int32_data"),
        17: DataType("float8e4m3fn", 8, "int32_data"),
        18: DataType("float8e4m3fnuz", 8, "int32_data"),
        19: DataType("float8e5m2", 8, "int32_data"),
        20: DataType("float8e5m2fnuz", 8, "int32_data"),
        21: DataType("uint4", 4, "int32_data"),
        22: DataType("int4", 4, "int32_data"),
        23: DataType("float4e2m1", 4, "int32_data"),
        24: DataType("float8e8m0", 8, "int32_data"),
        25: DataType("uint2", 2, "int32_data"),
        26: DataType("int2", 2, "int32_data"),
    }
)
