# SPDX-License-Identifier: Apache-2.0
"""Writes a large protected file from a stream and reads it in pieces. ``python large_file.py PATH MIB THREADS``; prints the peak RSS."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from confide.crypto.secret import Secret
from confide.crypto.signing import SigningKey
from confide.sealing.protected_file import Entry, ProtectedFile, write

if TYPE_CHECKING:
    from collections.abc import Iterator

OWNER = SigningKey.from_bytes(bytes(32))
KEY = Secret(bytes(32))


def peak() -> int:
    # Not getrusage: its maximum survives exec, so that it would be the parent's.
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("there is no VmHWM")


def main() -> None:
    path, mib, threads = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    piece = bytes(range(256)) * 4096

    def source() -> Iterator[bytes]:
        for _ in range(mib):
            yield piece

    before = peak()
    write(
        path, [Entry("a", source())], key=KEY, signer=OWNER, name="n", version=1, threads=threads, sync=False
    )
    buffer = bytearray(1 << 20)
    with ProtectedFile.open(path, key=KEY, owner_public=OWNER.public, name="n") as file:
        for i in range(0, mib, 16):
            file.read_range_into("a", i << 20, buffer)
            if buffer != piece:
                raise RuntimeError("another content")
    sys.stdout.write(json.dumps({"before": before, "grown": peak() - before, "size": path.stat().st_size}))


if __name__ == "__main__":
    main()
