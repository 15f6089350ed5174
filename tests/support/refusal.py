# SPDX-License-Identifier: Apache-2.0
"""Asking for the one reason of a refusal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from confide.errors import ConfideError

if TYPE_CHECKING:
    from collections.abc import Callable


def code_of(function: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    """The code with which ``function`` refuses; the test fails if it does not, or raises anything else."""
    with pytest.raises(ConfideError) as caught:
        function(*arguments, **options)
    return caught.value.code


def only_typed_errors(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """The result, or None after a typed refusal; any other exception goes through and fails the test."""
    try:
        return function(*arguments, **options)
    except ConfideError:
        return None
