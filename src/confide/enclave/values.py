# SPDX-License-Identifier: Apache-2.0
"""Arguments and results of functions as strict CBOR: plain values, and numpy arrays by RFC 8746.

None, booleans, integers of 64 bits, floats (not NaN), text, bytes, lists, maps with text keys. An array is
tag 40 [shape, typed array]: row-major, little-endian, with the tag of its number type; what arrives is checked against
its shape before an array is made of it. Nothing here can name a class or a function.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any, Final

from confide.errors import ConfigurationError, MalformedError
from confide.wire import cbor
from confide.wire.cbor import Tagged

__all__ = ["decode", "encode"]

_ARRAY: Final = 40
_TYPES: Final = {
    "|u1": 64,
    "<u2": 69,
    "<u4": 70,
    "<u8": 71,
    "|i1": 72,
    "<i2": 77,
    "<i4": 78,
    "<i8": 79,
    "<f2": 84,
    "<f4": 85,
    "<f8": 86,
}
_BY_TAG: Final = {tag: name for name, tag in _TYPES.items()}
_TAGS: Final = frozenset({_ARRAY, *_BY_TAG})
_MAX_DIMENSIONS: Final = 16
_MAX_DEPTH: Final = 24


def encode(value: object) -> bytes:
    """One value; `ConfigurationError` for what has no place in a message."""
    return cbor.encode(_plain(value, 0), floats=True)


def decode(data: bytes, *, max_size: int) -> Any:
    """The value that ``encode`` wrote; `MalformedError` for anything else."""
    value = cbor.decode(
        data, what="function message", max_size=max_size, max_depth=_MAX_DEPTH + 4, tags=_TAGS, floats=True
    )
    return _native(value)


def _refuse(problem: str, hint: str = "") -> ConfigurationError:
    return ConfigurationError("value", problem, hint=hint)


def _plain(value: object, depth: int) -> object:
    if depth > _MAX_DEPTH:
        raise _refuse(f"a value is nested deeper than {_MAX_DEPTH}")
    if value is None or isinstance(value, (bool, str, bytes)):
        return value
    if isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 64:
            raise _refuse("an integer does not fit 64 bits")
        return int(value)
    if isinstance(value, float):
        if math.isnan(value):
            raise _refuse("NaN has no single encoding", "Pass it inside a numpy array, or pass None.")
        return float(value)
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise _refuse("a map has a key that is not text")
        return {key: _plain(item, depth + 1) for key, item in value.items()}
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic):
        return _plain(value.item(), depth)
    if numpy is not None and isinstance(value, numpy.ndarray):
        return _array(numpy, value)
    raise _refuse(
        f"a {type(value).__name__} has no place in a message",
        "Pass numbers, text, bytes, lists, maps and numpy arrays.",
    )


def _array(numpy: Any, array: Any) -> Tagged:
    little = array.dtype.newbyteorder("<")
    tag = _TYPES.get(little.str)
    if tag is None or array.ndim > _MAX_DIMENSIONS:
        raise _refuse(
            "an array's type is not an integer or float of 8 to 64 bits",
            "Convert it first, for example mask.astype('uint8').",
        )
    data = numpy.ascontiguousarray(array, dtype=little).tobytes()
    return Tagged(_ARRAY, [[int(size) for size in array.shape], Tagged(tag, data)])


def _native(value: Any) -> Any:
    if isinstance(value, list):
        return [_native(item) for item in value]
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise MalformedError("non_canonical", "function message: a map has a key that is not text")
        return {key: _native(item) for key, item in value.items()}
    if isinstance(value, Tagged):
        return _read_array(value)
    return value


def _read_array(value: Tagged) -> Any:
    match value:
        case Tagged(tag=40, value=[list() as shape, Tagged(tag=kind, value=bytes() as data)]) if (
            kind in _BY_TAG
        ):
            pass
        case _:
            raise MalformedError("non_canonical", "function message: a tag that is no array")
    if len(shape) > _MAX_DIMENSIONS or not all(type(size) is int and 0 <= size < 1 << 48 for size in shape):
        raise MalformedError("limit_exceeded", "function message: an array of an impossible shape")
    name = _BY_TAG[kind]
    if math.prod(shape) * int(name[2:]) != len(data):
        raise MalformedError("length_mismatch", "function message: an array's data does not fit its shape")
    try:
        import numpy as np
    except ImportError:
        raise ConfigurationError(
            "value", "an array arrived where numpy is not installed", hint='Launch with requires=["numpy"].'
        ) from None
    return np.frombuffer(data, dtype=np.dtype(name)).reshape(shape)
