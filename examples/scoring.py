# SPDX-License-Identifier: Apache-2.0
"""What runs inside the enclave of `sealed_model.py`: a linear model whose weights only the enclave can open."""

from __future__ import annotations

import io
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from confide.enclave.context import Context


@cache
def weights(context: Context) -> Any:
    """Open the sealed weights once; their owner's key is pinned by the service, and nothing but numbers is loaded."""
    with context.open_protected("weights") as file:
        return np.load(io.BytesIO(file.read("data")), allow_pickle=False)


def predict(context: Context, inputs: Any) -> Any:
    """One score in (0, 1) for each row of ``inputs``."""
    return 1 / (1 + np.exp(-(inputs @ weights(context))))
