# SPDX-License-Identifier: Apache-2.0
"""Writes ONNX models byte by byte, so that tests need no `onnx` package and can write what it would refuse to.

A message is a list of ``(field number, value)``; ints become varints, bytes, str and messages length-delimited fields,
floats 32-bit fields. The builders below give plain good models; hostile ones change one field of those.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

Message: TypeAlias = list[tuple[int, Any]]

FLOAT, UINT8, INT8, INT32, INT64, STRING, BOOL, FLOAT16, DOUBLE = 1, 2, 3, 6, 7, 8, 9, 10, 11


def varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    out = bytearray()
    while True:
        byte = number & 0x7F
        number >>= 7
        if not number:
            out.append(byte)
            return bytes(out)
        out.append(byte | 0x80)


def encode(message: Message) -> bytes:
    out = bytearray()
    for number, value in message:
        if isinstance(value, float):
            out += varint(number << 3 | 5) + struct.pack("<f", value)
        elif isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            data = (
                value.encode()
                if isinstance(value, str)
                else value
                if isinstance(value, bytes)
                else encode(value)
            )
            out += varint(number << 3 | 2) + varint(len(data)) + data
    return bytes(out)


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def tensor(
    name: str, dims: Sequence[int], raw: bytes, data_type: int = FLOAT, extra: Message | None = None
) -> Message:
    return [*((1, size) for size in dims), (2, data_type), (8, name), (9, raw), *(extra or [])]


def value(name: str, shape: Sequence[int | str], data_type: int = FLOAT) -> Message:
    dims: Message = [(1, [(2, size) if isinstance(size, str) else (1, size)]) for size in shape]
    return [(1, name), (2, [(1, [(1, data_type), (2, dims)])])]


def attribute(name: str, kind: int, field: int, content: Any) -> Message:
    return [(1, name), (field, content), (20, kind)]


def node(
    operator: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    attributes: Sequence[Message] = (),
    domain: str = "",
) -> Message:
    return [
        *((1, name) for name in inputs),
        *((2, name) for name in outputs),
        (4, operator),
        *((5, item) for item in attributes),
        *([(7, domain)] if domain else []),
    ]


def graph(
    nodes: Sequence[Message],
    inputs: Sequence[Message],
    outputs: Sequence[Message],
    initializers: Sequence[Message] = (),
    extra: Message | None = None,
) -> Message:
    return [
        *((1, item) for item in nodes),
        (2, "g"),
        *((5, item) for item in initializers),
        *((11, item) for item in inputs),
        *((12, item) for item in outputs),
        *(extra or []),
    ]


def function(
    domain: str, name: str, inputs: Sequence[str], outputs: Sequence[str], nodes: Sequence[Message]
) -> Message:
    return [
        (1, name),
        *((4, item) for item in inputs),
        *((5, item) for item in outputs),
        *((7, item) for item in nodes),
        (9, [(1, ""), (2, 17)]),
        (9, [(1, domain), (2, 1)]),
        (10, domain),
    ]


def model(graph_: Message, *, functions: Sequence[Message] = (), extra: Message | None = None) -> bytes:
    domains = sorted({dict(item)[10] for item in functions})
    return encode(
        [
            (1, 9),
            (7, graph_),
            (8, [(1, ""), (2, 17)]),
            *((8, [(1, domain), (2, 1)]) for domain in domains),
            *((25, item) for item in functions),
            *(extra or []),
        ]
    )


def linear_model(columns: int = 3, weights: Sequence[float] | None = None, bias: float = 1.0) -> bytes:
    """``y = x @ W + b``: input ``x`` float32 [batch, columns], output ``y`` float32 [batch, 1]."""
    weights = list(weights) if weights is not None else [float(index + 1) for index in range(columns)]
    return model(
        graph(
            [node("MatMul", ["x", "W"], ["t"]), node("Add", ["t", "b"], ["y"])],
            [value("x", ["batch", columns])],
            [value("y", ["batch", 1])],
            [tensor("W", [columns, 1], floats(*weights)), tensor("b", [1], floats(bias))],
        )
    )


def identity_model(data_type: int, shape: Sequence[int | str] = ("n", 2)) -> bytes:
    """Gives its input back, in any one data type."""
    return model(
        graph(
            [node("Identity", ["x"], ["y"])], [value("x", shape, data_type)], [value("y", shape, data_type)]
        )
    )


def endless_model() -> bytes:
    """A Loop that runs for 2**62 iterations: input ``x`` float32 [1], output ``y`` float32 [1]."""
    body = graph(
        [node("Identity", ["go"], ["go_on"]), node("Add", ["carried", "carried"], ["next"])],
        [value("i", [], INT64), value("go", [], BOOL), value("carried", [1])],
        [value("go_on", [], BOOL), value("next", [1])],
    )
    return model(
        graph(
            [node("Loop", ["trips", "yes", "x"], ["y"], [attribute("body", 5, 6, body)])],
            [value("x", [1])],
            [value("y", [1])],
            [tensor("trips", [], struct.pack("<q", 2**62), INT64), tensor("yes", [], b"\x01", BOOL)],
        )
    )
