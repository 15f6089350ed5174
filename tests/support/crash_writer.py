# SPDX-License-Identifier: Apache-2.0
"""Kills a writer at random moments and looks at what is left. Run as ``python crash_writer.py FOLDER KILLS SEED``; prints JSON.

The process imports once and forks each writer, so that a kill costs milliseconds.
"""

from __future__ import annotations

import json
import os
import random  # noqa: TID251 - a seed makes the attack repeatable
import signal
import sys
import time
from pathlib import Path

from confide.crypto.secret import Secret
from confide.crypto.signing import SigningKey
from confide.sealing.protected_file import Entry, ProtectedFile, write
from confide.sealing.vault import Vault

OWNER = SigningKey.from_bytes(bytes(32))
KEY = Secret(bytes(32))


def content(number: int) -> bytes:
    return number.to_bytes(4, "big") * 20_000


def writer(folder: Path, number: int, done: int) -> None:
    """Write on and on, with a byte to ``done`` at the start and after each round."""
    vault = Vault(folder / "vault", KEY, name="state")
    while True:
        os.write(done, b".")
        number += 1
        write(
            folder / "file",
            [Entry("a", content(number))],
            key=KEY,
            signer=OWNER,
            name="n",
            version=1,
            chunk=4096,
        )
        vault.update({"number": number.to_bytes(4, "big"), "again": number.to_bytes(4, "big")})


def look(folder: Path) -> tuple[int, int]:
    """What the file and the vault hold; raises if either is torn."""
    with ProtectedFile.open(folder / "file", key=KEY, owner_public=OWNER.public, name="n") as file:
        data = bytes(file.read("a"))
    number = int.from_bytes(data[:4], "big")
    if data != content(number):
        raise RuntimeError("the file is torn")
    vault = Vault(folder / "vault", KEY, name="state")
    values = [int.from_bytes(vault.get(key) or b"", "big") for key in ("number", "again")]
    if values[0] != values[1]:
        raise RuntimeError("the vault is torn")
    return number, values[0]


def main() -> None:
    folder, kills, generator = Path(sys.argv[1]), int(sys.argv[2]), random.Random(int(sys.argv[3]))
    write(folder / "file", [Entry("a", content(0))], key=KEY, signer=OWNER, name="n", version=1, chunk=4096)
    number, kept, advanced, leftovers = 0, 0, 0, 0
    for _ in range(kills):
        progress, done = os.pipe()
        begun = time.monotonic()
        child = os.fork()
        if child == 0:
            writer(folder, number, done)
        os.close(done)
        # Some rounds are let through, so that a slow machine tests the same as a fast one.
        for _ in range(1 + generator.randrange(3)):
            os.read(progress, 1)
        time.sleep(generator.uniform(0, min(0.05, time.monotonic() - begun)))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(progress)
        found, stored = look(folder)
        # The vault is written after the file, so it is never ahead of it.
        if not number <= found or not kept <= stored <= found:
            raise RuntimeError("an older state came back")
        advanced += found > number
        number, kept = found, stored
        leftovers += sum(1 for path in folder.iterdir() if path.name.endswith(".tmp"))
    sys.stdout.write(
        json.dumps({"kills": kills, "advanced": advanced, "last": number, "leftovers": leftovers})
    )


if __name__ == "__main__":
    main()
