# SPDX-License-Identifier: Apache-2.0
"""What a service may choose about its channel. These values are measured with the service's configuration."""

from __future__ import annotations

from dataclasses import dataclass

from confide.errors import ConfigurationError

__all__ = ["ChannelSettings"]

FRESH_LIFETIME = 120
OVERLAP = 60
PERMITS = 64
PERMIT_SECONDS = 0.6


@dataclass(frozen=True, slots=True)
class ChannelSettings:
    """Limits and terms of the envelope; lengths in bytes, times in seconds, the defaults those of the specification.

    ``at_most_once`` tells clients never to repeat a request on the host's word; ``cached`` offers evidence without a nonce.
    """

    purpose: str = "channel"
    audience: str = ""
    at_most_once: bool = True
    cached: bool = False
    cached_lifetime: int = 3600
    max_body: int = 64 << 20
    max_session: int = 3600
    max_sessions: int = 65_536
    max_dead: int = 1_000_000
    max_waiting: int = 4096
    max_exchanges: int = 1024
    max_per_session: int = 1024
    unwraps_per_second: int = 2000
    head_seconds: float = 10.0
    frame_seconds: float = 60.0
    flush_seconds: float = 0.03

    def __post_init__(self) -> None:
        whole = ("cached_lifetime", "max_session", "max_sessions", "max_dead", "max_waiting", "max_exchanges")
        for name in (*whole, "max_per_session", "unwraps_per_second"):
            if getattr(self, name) < 1:
                raise ConfigurationError("channel", f"{name} must be at least 1")
        for name in ("head_seconds", "frame_seconds", "flush_seconds"):
            if not getattr(self, name) > 0:
                raise ConfigurationError("channel", f"{name} must be more than 0")
        if self.cached_lifetime > 3600 or self.max_waiting > 4096 or self.max_per_session > 1024:
            raise ConfigurationError(
                "channel", "a limit of the channel is above what the specification admits"
            )
        if not 0 <= self.max_body < 1 << 63 or self.max_session >= 1 << 32:
            raise ConfigurationError("channel", "max_body or max_session does not fit its field")
