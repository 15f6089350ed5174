# SPDX-License-Identifier: Apache-2.0
"""Writes more than a small file system holds. Run inside a user namespace with a tmpfs of 64 KiB; prints JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from confide.crypto.secret import Secret
from confide.crypto.signing import SigningKey
from confide.errors import SealingError
from confide.sealing.protected_file import Entry, write
from confide.sealing.vault import Vault

OWNER = SigningKey.from_bytes(bytes(32))
KEY = Secret(bytes(32))


def attempt(action: object) -> str:
    try:
        action()  # type: ignore[operator]
    except SealingError as error:
        return error.code
    return "written"


def main() -> None:
    folder = Path(sys.argv[1])
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], check=True)
    path = folder / "file"

    def save(size: int) -> None:
        write(path, [Entry("a", bytes(size))], key=KEY, signer=OWNER, name="n", version=1, chunk=4096)

    found: dict[str, object] = {"small": attempt(lambda: save(1000))}
    before = path.read_bytes()
    (folder / "v").mkdir(mode=0o700)
    vault = Vault(folder / "v", KEY, name="s")
    found["vault"] = attempt(lambda: vault.put("a", b"1"))
    found["large"] = attempt(lambda: save(200_000))
    found["vault_large"] = attempt(lambda: vault.put("b", bytes(200_000)))
    found["untouched"] = path.read_bytes() == before and vault.get("a") == b"1" and vault.get("b") is None
    found["left"] = sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))
    # A second, read-only file system on top: an ordinary user may not remount the first.
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)], check=True)
    found["read_only"] = attempt(lambda: save(10))
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
