# SPDX-License-Identifier: Apache-2.0
"""How much time and memory something may take."""

from __future__ import annotations

import time
import tracemalloc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

HUNDRED_MEGABYTES = 100 << 20


@contextmanager
def bounded(*, seconds: float, megabytes: float) -> Iterator[None]:
    """CPU time of this thread, and memory that Python allocates, within bounds."""
    tracemalloc.start()
    try:
        began = time.thread_time()
        yield
        took = time.thread_time() - began
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert took < seconds
    assert peak < megabytes * (1 << 20)
