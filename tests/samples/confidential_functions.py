# SPDX-License-Identifier: Apache-2.0
"""Functions that tests launch in an enclave."""

from __future__ import annotations

import time
from typing import Any


def add(x: Any, y: Any = 1) -> Any:
    return x + y


def mean_of_rows(x: Any) -> Any:
    return x.mean(axis=1)


def fail(secret: str) -> None:
    raise ValueError(secret)


def many(what: str, size: int = 0) -> Any:
    """Several behaviours behind one measurement."""
    if what == "allocate":
        return len(bytearray(size))
    if what == "sleep":
        time.sleep(size)
    if what == "unsendable":
        return object()
    if what == "fail":
        raise ValueError("what must not come out")
    return what


def weighted(context: Any, x: Any) -> Any:
    """The article's sketch: weights that only this enclave can open."""
    import numpy as np

    with context.open_protected("weights") as file:
        weights = np.frombuffer(file.read("w"), dtype="<f4")
        return x @ weights


def outer() -> Any:
    def inner(x: Any) -> Any:
        return x

    return inner


class Holder:
    def method(self, x: Any) -> Any:
        return x


factor = 3


def make_closure(factor: int) -> Any:
    def scaled(x: int) -> int:
        return x * factor

    return scaled


as_lambda = lambda x: x


def replaced(x: Any) -> Any:
    return x


kept = replaced


def replaced(x: Any) -> Any:  # type: ignore[no-redef]
    return [x]
