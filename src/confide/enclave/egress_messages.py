# SPDX-License-Identifier: Apache-2.0
"""What is said on the egress socket. `host`-safe: data only.

The enclave makes a pair of sockets, sends one end with ``{host, port}`` in one packet, and reads one packet from the other:
a status byte, and with `CONNECTED` exactly one descriptor, a connected stream socket. Like CONNECT of HTTP, without a
proxy that would copy every byte.
"""

from __future__ import annotations

import socket
import sys
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Self

from confide.errors import MalformedError
from confide.wire import cbor
from confide.wire.fields import Fields

__all__ = ["MAX_REQUEST", "PACKETS", "EgressRequest", "Status"]

MAX_REQUEST: Final = 512
PACKETS: Final = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_DGRAM
"""What keeps packets apart; the second, where the first does not exist, does not tell the end of the other side."""


class Status(IntEnum):
    """How the host answered."""

    CONNECTED = 0
    REFUSED = 1
    UNREACHABLE = 2
    TIMEOUT = 3
    BUSY = 4


@dataclass(frozen=True, slots=True)
class EgressRequest:
    """Where the enclave wants to connect."""

    host: str
    port: int

    def encode(self) -> bytes:
        """One packet."""
        return cbor.encode({"host": self.host, "port": self.port})

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read one packet; `MalformedError` for anything else."""
        value = cbor.decode(data, what="egress request", max_size=MAX_REQUEST, max_depth=1)
        fields = Fields(value, "egress request")
        request = cls(fields.text("host", 253), fields.integer("port", 1, 65535))
        fields.end()
        if not request.host.isascii():
            raise MalformedError("non_canonical", "the host of an egress request is not ASCII")
        return request

    @property
    def entry(self) -> str:
        """As it stands in an allow-list."""
        return f"{self.host}:{self.port}"
