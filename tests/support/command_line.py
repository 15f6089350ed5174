# SPDX-License-Identifier: Apache-2.0
"""What a run of the command line gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """The exit code, and what went to stdout and stderr."""

    code: int
    out: str
    err: str


Confide = Callable[..., Answer]
