# SPDX-License-Identifier: Apache-2.0
"""PEM files (RFC 7468, strict form) that hold blocks of one kind and nothing else."""

from __future__ import annotations

import base64
import re

from confide.errors import MalformedError

__all__ = ["blocks", "labelled_blocks"]

_PEM = re.compile(
    rb"-----BEGIN ([A-Z0-9 ]{1,32})-----\r?\n((?:[A-Za-z0-9+/]{1,76}={0,2}\r?\n)+)-----END \1-----(?:\r?\n)*"
)


def blocks(data: bytes, label: str, *, max_size: int, max_count: int) -> list[bytes]:
    """The contents of the PEM blocks in ``data`` (RFC 7468, strict), which must hold nothing else but empty lines."""
    return [block for _, block in labelled_blocks(data, (label,), max_size=max_size, max_count=max_count)]


def labelled_blocks(
    data: bytes, labels: tuple[str, ...], *, max_size: int, max_count: int
) -> list[tuple[str, bytes]]:
    """Label and contents of the PEM blocks in ``data``, each of which must have one of ``labels``."""
    if len(data) > 2 * max_size * max_count:
        raise MalformedError("limit_exceeded", "the PEM file is too large")
    found: list[tuple[str, bytes]] = []
    known = {label.encode("ascii"): label for label in labels}
    text = bytes(data)
    if not text.endswith(b"\n"):
        text += b"\n"
    offset = 0
    while offset < len(text):
        match = _PEM.match(text, offset)
        if match is None or match.group(1) not in known:
            raise MalformedError(
                "non_canonical",
                f"something other than blocks of {' or '.join(labels)} is in the PEM file at offset {offset}",
            )
        encoded = match.group(2).replace(b"\r", b"").replace(b"\n", b"")
        try:
            block = base64.b64decode(encoded, validate=True)
        except ValueError:
            block = b""
        if not block or base64.b64encode(block) != encoded:
            raise MalformedError("non_canonical", "a PEM block is not canonical base64")
        found.append((known[match.group(1)], block))
        if len(found) > max_count:
            raise MalformedError("limit_exceeded", f"more than {max_count} PEM blocks in one file")
        offset = match.end()
    return found
