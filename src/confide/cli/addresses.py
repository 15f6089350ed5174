# SPDX-License-Identifier: Apache-2.0
"""Addresses as people write them."""

from __future__ import annotations

from confide.errors import ConfigurationError


def host_port(text: str) -> tuple[str, int]:
    """Read HOST:PORT; port 0 lets the system choose."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 <= int(port) <= 65_535:
        raise ConfigurationError("address", "an address is HOST:PORT", hint="for example 127.0.0.1:8080")
    return host.strip("[]"), int(port)
