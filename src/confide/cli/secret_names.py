# SPDX-License-Identifier: Apache-2.0
"""How a person writes which version of which key: NAME or NAME:VERSION."""

from __future__ import annotations

import re

from confide.errors import ConfigurationError

__all__ = ["split"]

_VERSION = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)


def split(text: str) -> tuple[str, int | None]:
    """Name and version; None where no version is given. The name is checked where it is used."""
    name, colon, version = text.partition(":")
    if not colon:
        return name, None
    if _VERSION.fullmatch(version) is None:
        raise ConfigurationError("secret", "a secret is NAME or NAME:VERSION", hint="versions count from 1")
    return name, int(version)
