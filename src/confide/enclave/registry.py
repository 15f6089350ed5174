# SPDX-License-Identifier: Apache-2.0
"""The one table from a service's kind to what builds its ASGI app inside the enclave: names only, resolved late."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from confide.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BUILDERS", "builder_name"]

BUILDERS: Mapping[str, str] = MappingProxyType(
    {
        "application": "confide.enclave.application:build",
        "broker": "confide.broker.app:build",
        "function": "confide.enclave.function:build",
        "model": "confide.serving.app:build",
    }
)
"""Service kind -> ``module:attribute`` of ``build(options, context) -> Built``. Nothing else can be a kind."""


def builder_name(kind: str) -> str:
    """The ``module:attribute`` that builds a service of this kind.

    Raises ``ConfigurationError`` ``kind`` when no such kind of service exists.
    """
    try:
        return BUILDERS[kind]
    except KeyError:
        raise ConfigurationError(
            "kind",
            "there is no service of this kind",
            hint=f"the kinds are: {', '.join(sorted(BUILDERS))}",
        ) from None
