# SPDX-License-Identifier: Apache-2.0
"""Services behind a real server, for as long as a test runs."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from support.channel_live import Live, serving
from support.channel_world import echo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def live() -> Iterator[Callable[..., Live]]:
    """Makes worlds that are served until the test ends."""
    with contextlib.ExitStack() as stack:

        def make(app: Any = echo, *, server: dict[str, Any] | None = None, **settings: Any) -> Live:
            made = Live(app, **settings)
            made.url = stack.enter_context(serving(made.gateway, **(server or {})))
            return made

        yield make
