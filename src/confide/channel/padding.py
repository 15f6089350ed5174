# SPDX-License-Identifier: Apache-2.0
"""How long a frame's plaintext is made, so that its length says little about its content.

A plaintext is a four-byte length, the content and zeros. Source: ``docs/spec/envelope.md``, section 5; Padmé is from
Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and Communication with PURBs" (2019).
"""

from __future__ import annotations

from bisect import bisect_left

__all__ = ["MAX_CONTENT", "MAX_PLAINTEXT", "body", "padme", "small", "stream"]

LENGTH_BYTES = 4
MAX_PLAINTEXT = 1 << 20
MAX_CONTENT = MAX_PLAINTEXT - LENGTH_BYTES
_STEP = 256
_STREAM_STEPS = (256, 1024, 4096, 16384, 65536, 262144, MAX_PLAINTEXT)


def padme(length: int) -> int:
    """The Padmé length at or above ``length`` (at least 2): no more than 12 % longer, few distinct values."""
    exponent = length.bit_length() - 1
    significant = exponent.bit_length()
    mask = (1 << (exponent - significant)) - 1
    return (length + mask) & ~mask


def small(content: int) -> int:
    """The plaintext length for a head, receipt or abort of ``content`` bytes: the next multiple of 256."""
    return (content + LENGTH_BYTES + _STEP - 1) // _STEP * _STEP


def body(content: int) -> int:
    """The plaintext length for one frame of a body whose length is known, of at most ``MAX_CONTENT`` bytes."""
    return min(MAX_PLAINTEXT, max(_STEP, padme(content + LENGTH_BYTES)))


def stream(content: int) -> int:
    """The plaintext length for one flush of a stream, of at most ``MAX_CONTENT`` bytes."""
    return _STREAM_STEPS[bisect_left(_STREAM_STEPS, content + LENGTH_BYTES)]
