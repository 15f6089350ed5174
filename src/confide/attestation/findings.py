# SPDX-License-Identifier: Apache-2.0
"""What the independent checks of one authentication find, kept together so that one failure does not hide another."""

from __future__ import annotations

from typing import TYPE_CHECKING, ParamSpec, TypeVar

from confide.attestation import result
from confide.errors import EndorsementsMissing, NotGenuine

if TYPE_CHECKING:
    from collections.abc import Callable

    from confide.errors import Reason

__all__ = ["Findings"]

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Findings:
    """``genuine`` are the findings against genuineness, ``missing`` those about endorsements that are not there."""

    def __init__(self) -> None:
        self.genuine: list[Reason] = []
        self.missing: list[Reason] = []

    def run(self, check: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T | None:
        """The check's result, or None after keeping its finding. Every other error goes on at once."""
        try:
            return check(*args, **kwargs)
        except NotGenuine as error:
            self.genuine += error.reasons
        except EndorsementsMissing as error:
            self.missing += error.reasons
        return None

    def raise_any(self) -> None:
        """Raise what was found, each finding once (``result.raise_first``); return if there is nothing."""
        result.raise_first(list(dict.fromkeys(self.genuine)), list(dict.fromkeys(self.missing)))
