# SPDX-License-Identifier: Apache-2.0
"""JSON without its ambiguities (RFC 8259, narrowed along RFC 7493)."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from confide.errors import MalformedError

__all__ = ["decode", "encode"]

_LOWEST, _HIGHEST = -(1 << 63), (1 << 64) - 1
_MAX_NUMBER = 128
# What changes the depth, and what hides it: strings are skipped whole, an unfinished one to the end. The quantifiers are
# possessive and the end always matches, so that the scan is linear whatever the text.
_STRUCTURE = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)


class _Refused(Exception):
    def __init__(self, leaf: str, problem: str) -> None:
        super().__init__(problem)
        self.leaf = leaf
        self.problem = problem


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Refused("non_canonical", "has a duplicate key")
    return found


def _integer(text: str) -> int:
    if len(text) > 20 or not _LOWEST <= int(text) <= _HIGHEST:
        raise _Refused("limit_exceeded", "has an integer of more than 64 bits")
    return int(text)


def _float(text: str) -> float:
    number = float(text) if len(text) <= _MAX_NUMBER else math.inf
    if not math.isfinite(number):
        raise _Refused("limit_exceeded", "has a number that is too large or too long")
    return number


def _constant(_: str) -> Any:
    raise _Refused("non_canonical", "has a number that is not one")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant, strict=True
)


def decode(data: bytes | bytearray | memoryview, *, what: str, max_size: int, max_depth: int = 32) -> Any:
    """The one value that ``data`` holds: UTF-8 without a byte-order mark, no duplicate keys, no NaN or infinities, integers
    of 64 bits, no lone surrogates, nothing after the value but white space.

    ``max_size`` is in bytes, ``max_depth`` counts nested arrays and objects; both are checked before anything is parsed.
    Raises ``malformed.limit_exceeded`` or ``malformed.non_canonical``; the errors keep no part of the text.
    """
    if len(data) > max_size:
        raise MalformedError("limit_exceeded", f"{what} is longer than {max_size} bytes")
    refusal: _Refused | None = None
    value: Any = None
    try:
        text = bytes(data).decode("utf-8")
        _check_depth(text, max_depth)
        value = _DECODER.decode(text)
        _check_text(value)
    except _Refused as error:
        refusal = _Refused(error.leaf, error.problem)
    except ValueError:
        # Also UnicodeDecodeError and JSONDecodeError, which carry the document: they are dropped, not chained.
        refusal = _Refused("non_canonical", "is not JSON in UTF-8")
    if refusal is not None:
        raise MalformedError(refusal.leaf, f"{what} {refusal.problem}")
    return value


def _check_depth(text: str, max_depth: int) -> None:
    depth = 0
    for match in _STRUCTURE.finditer(text):
        mark = match.group()
        if mark in {"[", "{"}:
            depth += 1
            if depth > max_depth:
                raise _Refused("limit_exceeded", "is nested too deeply")
        elif mark in {"]", "}"}:
            depth -= 1


def _check_text(value: Any) -> None:
    """Refuse escaped lone surrogates, which no UTF-8 text can hold."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            item.encode("utf-8")
        elif isinstance(item, dict):
            pending.extend(item)
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)


def encode(value: Any) -> bytes:
    """UTF-8 with sorted keys and no white space; ``malformed.non_canonical`` for what JSON cannot hold."""
    data = None
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        data = text.encode("utf-8")
    except (TypeError, ValueError, RecursionError):
        pass  # Raised below: the library's exception may carry the value.
    if data is None:
        raise MalformedError("non_canonical", "a value of this type has no JSON encoding")
    return data
