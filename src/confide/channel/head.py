# SPDX-License-Identifier: Apache-2.0
"""The clear heads in front of the frames of a request and of a response.

Source: ``docs/spec/envelope.md``, sections 4 and 7.
"""

from __future__ import annotations

from typing import NamedTuple

from confide.channel import schedule
from confide.errors import ChannelError

__all__ = [
    "EVIDENCE_TYPE",
    "NONCE_TYPE",
    "REQUEST_HEAD",
    "REQUEST_TYPE",
    "RESPONSE_HEAD",
    "RESPONSE_TYPE",
    "Head",
]

REQUEST_HEAD = 1262
RESPONSE_HEAD = 38
RECEIPT_WANTED = 0x01

REQUEST_TYPE = b"application/confide-request"
RESPONSE_TYPE = b"application/confide-response"
EVIDENCE_TYPE = b"application/confide-evidence"
NONCE_TYPE = b"application/confide-nonce"
ENVELOPE_PATH = "/confide"
DISCOVERY_PATH = "/.well-known/confide"
ROUTE_FIELD = b"confide-route"

_REQUEST = b"CFE1\x01"
_RESPONSE = b"CFE1\x02\x00"


class Head(NamedTuple):
    """The head of a request: ``kid`` 32 bytes, ``wrap`` 1200, ``salt`` 16, ``seq`` below 2^63."""

    receipt_wanted: bool
    kid: bytes
    wrap: bytes
    seq: int
    salt: bytes

    @property
    def flags(self) -> int:
        """The flags byte."""
        return RECEIPT_WANTED if self.receipt_wanted else 0

    def encode(self) -> bytes:
        """The 1262 bytes."""
        return b"".join(
            (_REQUEST, bytes((self.flags,)), self.kid, self.wrap, self.seq.to_bytes(8, "big"), self.salt)
        )

    def transcript(self, sid: bytes) -> bytes:
        """T of this request."""
        return schedule.transcript(self.flags, sid, self.seq, self.salt)


def decode_request(data: bytes) -> Head:
    """Read the 1262 bytes in front of a request; ``protocol`` for another magic, type, flag or number."""
    if len(data) != REQUEST_HEAD or data[:5] != _REQUEST:
        raise ChannelError("protocol", "this is not a request of the envelope, version 1")
    flags = data[5]
    if flags & ~RECEIPT_WANTED:
        raise ChannelError("protocol", "the request has an unknown flag")
    seq = int.from_bytes(data[1238:1246], "big")
    if seq >= schedule.MAX_SEQ:
        raise ChannelError("protocol", "the request's number is too large")
    return Head(bool(flags), data[6:38], data[38:1238], seq, data[1246:1262])


def encode_response(nonce: bytes) -> bytes:
    """The 38 bytes in front of a response with ``nonce`` (32 bytes)."""
    return _RESPONSE + nonce


def decode_response(data: bytes) -> bytes:
    """The nonce in the 38 bytes in front of a response; ``protocol`` for another magic, type or flag."""
    if len(data) != RESPONSE_HEAD or data[:6] != _RESPONSE:
        raise ChannelError("protocol", "this is not a response of the envelope, version 1")
    return data[6:]
