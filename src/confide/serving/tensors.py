# SPDX-License-Identifier: Apache-2.0
"""Tensors of the Open Inference Protocol, as JSON values and as bytes, in both directions.

Binary tensors are little-endian, row-major, without gaps; BOOL is one byte of 0 or 1; an element of BYTES is a u32
little-endian length and that many bytes. In JSON a tensor is flat or nested exactly as its shape; FP16 has no JSON form.
Nothing is converted: an element that its datatype cannot hold exactly is refused, except that JSON numbers of FP32 are
rounded to the nearest value. BYTES are UTF-8 text here, because the strings of every framework behind it are.

Source: Open Inference Protocol 2, "Tensor Data" and "Tensor Data Types"; the binary tensor data extension.
"""

from __future__ import annotations

import math
import struct
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from confide.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "MAX_RANK",
    "Array",
    "datatype_of",
    "from_binary",
    "from_json",
    "read_shape",
    "to_binary",
    "to_json",
]

Array: TypeAlias = Any
"""A numpy array; its element type is in its dtype, which the checks here are about."""

MAX_RANK: Final = 32

_NUMPY: Final[Mapping[str, np.dtype[Any]]] = MappingProxyType(
    {
        "BOOL": np.dtype("?"),
        "UINT8": np.dtype("<u1"),
        "UINT16": np.dtype("<u2"),
        "UINT32": np.dtype("<u4"),
        "UINT64": np.dtype("<u8"),
        "INT8": np.dtype("<i1"),
        "INT16": np.dtype("<i2"),
        "INT32": np.dtype("<i4"),
        "INT64": np.dtype("<i8"),
        "FP16": np.dtype("<f2"),
        "FP32": np.dtype("<f4"),
        "FP64": np.dtype("<f8"),
    }
)
_DATATYPE_OF: Final = MappingProxyType(
    {dtype.name: name for name, dtype in _NUMPY.items()} | {"string": "BYTES"}
)
_SMALLEST_STRING: Final = 4


def _schema(message: str, hint: str = "") -> ModelError:
    return ModelError("schema", message, hint=hint)


def datatype_of(dtype: str) -> str:
    """The protocol's name for a numpy dtype's name, or for ``string``. Raises ModelError ``schema`` if it has none."""
    name = _DATATYPE_OF.get(dtype)
    if name is None:
        raise _schema("the Open Inference Protocol has no datatype for this kind of element")
    return name


def read_shape(value: object, *, max_elements: int, smallest: int = 1) -> tuple[int, ...]:
    """A shape that came from JSON: a list of integers with a bounded product. Raises ModelError.

    Outputs may be empty (``smallest=0``), inputs may not.
    """
    if not isinstance(value, list) or len(value) > MAX_RANK:
        raise _schema(f"a shape is a list of at most {MAX_RANK} sizes")
    elements = 1
    for size in value:
        if type(size) is not int or size < smallest:
            raise _schema("a size in a shape is not a positive integer", "empty tensors are not accepted")
        elements *= size
        if elements > max_elements:
            raise ModelError("limit", "a tensor has more elements than the limit allows")
    return tuple(value)


def from_binary(data: memoryview, datatype: str, shape: tuple[int, ...]) -> Array:
    """The array that these bytes are; a view on them where alignment allows, and read-only.

    Raises ModelError ``schema`` if the bytes are not exactly the tensor.
    """
    elements = math.prod(shape)
    if datatype == "BYTES":
        return _strings(data, elements).reshape(shape)
    dtype = _NUMPY.get(datatype)
    if dtype is None:
        raise _schema("the datatype is not one of the Open Inference Protocol, or not supported")
    if len(data) != elements * dtype.itemsize:
        raise _schema("the binary data is not as long as shape and datatype ask for")
    if datatype == "BOOL" and elements and np.frombuffer(data, np.uint8).max() > 1:
        raise _schema("a binary BOOL is neither 0 nor 1")
    return np.require(np.frombuffer(data, dtype).reshape(shape), requirements=("A", "C"))


def _strings(data: memoryview, elements: int) -> Array:
    # The check in front keeps a declared shape from reserving memory that the bytes do not back.
    if len(data) < elements * _SMALLEST_STRING:
        raise _schema("the binary data is shorter than its shape asks for")
    array = np.empty(elements, object)
    at = 0
    for index in range(elements):
        if len(data) - at < _SMALLEST_STRING:
            raise _schema("binary BYTES end within an element")
        (size,) = struct.unpack_from("<I", data, at)
        at += _SMALLEST_STRING
        if size > len(data) - at:
            raise _schema("an element of BYTES is longer than what is left")
        try:
            array[index] = str(data[at : at + size], "utf-8")
        except UnicodeDecodeError:
            raise _schema("an element of BYTES is not UTF-8") from None
        at += size
    if at != len(data):
        raise _schema("the binary data is longer than its shape asks for")
    return array


def to_binary(array: Array, datatype: str) -> bytes | memoryview:
    """The bytes of an array of exactly this datatype; no copy for a contiguous one. Raises ModelError ``schema``."""
    if datatype == "BYTES":
        out = bytearray()
        for item in _texts(array):
            encoded = item.encode("utf-8")
            out += struct.pack("<I", len(encoded)) + encoded
        return bytes(out)
    if array.dtype != _NUMPY.get(datatype):
        raise _schema("the array's elements are not of the datatype")
    if not array.size:
        return b""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _texts(array: Array) -> list[str]:
    """The elements of an array of strings, which has dtype object, ``str`` or numpy's own string type."""
    items: list[Any] = array.reshape(-1).tolist()
    if any(not isinstance(item, str) for item in items):
        raise _schema("an array of strings holds something else", "decode bytes to str first")
    return items


def to_json(array: Array, datatype: str) -> list[Any]:
    """The flat JSON values of an array. Raises ModelError ``schema`` for what JSON cannot hold."""
    if datatype == "BYTES":
        return _texts(array)
    if datatype == "FP16":
        raise _schema("FP16 has no JSON form", "ask for the output as binary data")
    if datatype in {"FP32", "FP64"} and not np.isfinite(array).all():
        raise _schema("JSON cannot hold numbers that are not finite", "ask for the output as binary data")
    values: list[Any] = array.reshape(-1).tolist()
    return values


def from_json(value: object, datatype: str, shape: tuple[int, ...]) -> Array:
    """The array that JSON values are. Raises ModelError ``schema``."""
    flat = _flat(value, shape)
    if datatype == "BYTES":
        if any(type(item) is not str for item in flat):
            raise _schema("an element of BYTES is not a string")
        array = np.empty(len(flat), object)
        array[:] = flat
        return array.reshape(shape)
    if datatype == "FP16":
        raise _schema("FP16 has no JSON form", "send the input as binary data")
    dtype = _NUMPY.get(datatype)
    if dtype is None:
        raise _schema("the datatype is not one of the Open Inference Protocol, or not supported")
    kinds: tuple[type, ...] = (bool,) if datatype == "BOOL" else (int, float) if dtype.kind == "f" else (int,)
    # By exact type, since a JSON true is an int to Python and must not become a 1.
    if any(type(item) not in kinds for item in flat):
        raise _schema("an element is not of the datatype")
    try:
        with np.errstate(over="ignore"):
            array = np.array(flat, dtype)
    except OverflowError:
        raise _schema("an element is outside of what the datatype holds") from None
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise _schema("an element is outside of what the datatype holds")
    return array.reshape(shape)


def _flat(value: object, shape: tuple[int, ...]) -> list[Any]:
    """The elements in row-major order; nested lists must have exactly the shape."""
    if not isinstance(value, list):
        raise _schema("the data of a tensor is not a list")
    if len(shape) > 1 and value and isinstance(value[0], list):
        level: list[Any] = [value]
        for size in shape:
            below: list[Any] = []
            for item in level:
                if not isinstance(item, list) or len(item) != size:
                    raise _schema("the nested data does not have the shape of the tensor")
                below.extend(item)
            level = below
        return level
    if len(value) != math.prod(shape):
        raise _schema("the data does not have as many elements as the shape asks for")
    return value
