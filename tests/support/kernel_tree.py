# SPDX-License-Identifier: Apache-2.0
"""The files that kernels and Gramine show to a guest, emulated through FUSE so that drivers make their real system calls.

Run as a program: ``python kernel_tree.py MOUNTPOINT SETTINGS.json JOURNAL``. It serves until its standard input ends, and
never longer than a minute. Three trees: ``tsm`` (configfs-tsm/report), ``measurements`` (sysfs, TDX) and ``gramine``
(/dev/attestation). The journal gets one JSON line for each change that a caller makes.

What is copied from the kernel: files of an entry appear with mkdir and cannot be unlinked; a binary attribute is committed at
close, and what fails there is not reported; a write of more than 64 bytes is EFBIG at once; text attributes are ASCII and
fail at write; outblob is EINVAL unless 64 bytes were committed.
"""

from __future__ import annotations

import errno
import hashlib
import importlib
import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

LIMIT = 60
PRIVILEGES = 3
REGISTERS = ("mrtd:sha384", "mrconfigid", "mrowner", "mrownerconfig", *(f"rtmr{n}:sha384" for n in range(4)))


class Refused(Exception):
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Tsm:
    """One entry of configfs-tsm."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.inblob = b""
        self.generation = 0
        self.privilege = 0
        self.busy = int(settings.get("busy", 0))

    def names(self) -> dict[str, int]:
        names = {"inblob": 0o222, "outblob": 0o444, "generation": 0o444, "provider": 0o444}
        if self.settings["provider"] == "sev_guest":
            names |= {"auxblob": 0o444, "privlevel": 0o222, "privlevel_floor": 0o444}
        return names

    def read(self, name: str) -> bytes:
        if name == "provider":
            return f"{self.settings['provider']}\n".encode()
        if name == "generation":
            return f"{self.generation}\n".encode()
        if name == "privlevel_floor":
            return f"{self.settings.get('floor', 0)}\n".encode()
        if len(self.inblob) != 64:
            raise Refused(errno.EINVAL)
        if name == "auxblob":
            return bytes.fromhex(self.settings.get("auxblob", ""))
        if self.busy:
            self.busy -= 1
            raise Refused(errno.EBUSY)
        if self.privilege < self.settings.get("floor", 0):
            raise Refused(errno.ENXIO)  # By the firmware.
        if number := self.settings.get("outblob_error"):
            raise Refused(number)
        if self.settings.get("empty"):
            return b""
        return filled(self.settings, self.inblob)

    def check(self, name: str, data: bytes) -> None:
        """What fails at write(2)."""
        if name == "inblob" and len(data) > 64:
            raise Refused(errno.EFBIG)
        if name == "privlevel":
            text = data.decode("latin-1").strip()
            if not (text.isascii() and text.isdigit()) or not (
                self.settings.get("floor", 0) <= int(text) <= PRIVILEGES
            ):
                raise Refused(errno.EINVAL)
            self.privilege = int(text)
            self.generation += 1

    def commit(self, name: str, data: bytes) -> None:
        """What takes effect at close(2)."""
        if name == "inblob" and not self.settings.get("lost"):
            self.inblob = data
            self.generation += 1 + self.settings.get("race", 0)


class Registers:
    """The measurement registers of a TD."""

    def __init__(self) -> None:
        self.values = dict.fromkeys(REGISTERS, bytes(48))

    def names(self) -> dict[str, int]:
        return {name: 0o644 if name.startswith("rtmr") else 0o444 for name in REGISTERS}

    def read(self, name: str) -> bytes:
        return self.values[name]

    def check(self, name: str, data: bytes) -> None:
        if len(data) != 48:
            raise Refused(errno.EINVAL)
        self.values[name] = hashlib.sha384(self.values[name] + data).digest()

    def commit(self, name: str, data: bytes) -> None:
        pass


class Gramine:
    """/dev/attestation; whatever fails is EACCES."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.report_data = bytes(64)

    def names(self) -> dict[str, int]:
        names = {"attestation_type": 0o444, "user_report_data": 0o666}
        if self.settings["type"] == "dcap":
            names["quote"] = 0o444
        return names | dict.fromkeys(self.settings["keys"], 0o444)

    def read(self, name: str) -> bytes:
        if name == "attestation_type":
            return str(self.settings["type"]).encode()
        if name == "user_report_data":
            return self.report_data
        if name == "quote":
            if self.settings.get("fails"):
                raise Refused(errno.EACCES)
            return filled(self.settings, (self.settings.get("stuck") and bytes(64)) or self.report_data)
        return bytes.fromhex(self.settings["keys"][name])

    def check(self, name: str, data: bytes) -> None:
        self.report_data = data[:64].ljust(64, b"\0")

    def commit(self, name: str, data: bytes) -> None:
        pass


def filled(settings: dict[str, Any], report_data: bytes) -> bytes:
    template, at = bytes.fromhex(settings["template"]), settings["offset"]
    return template[:at] + report_data + template[at + 64 :]


def serve(mountpoint: str, settings: dict[str, Any], journal: Path) -> None:
    mfusepy: Any = importlib.import_module("mfusepy")

    folders: dict[str, Any] = {}
    if "measurements" in settings:
        folders["/measurements"] = Registers()
    if "gramine" in settings:
        folders["/gramine"] = Gramine(settings["gramine"])
    handles: dict[int, dict[str, Any]] = {}

    def note(**line: Any) -> None:
        with journal.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def find(path: str) -> tuple[Any, str]:
        folder, _, name = path.rpartition("/")
        if folder == "/gramine/keys":
            folder, name = "/gramine", f"keys/{name}"
        owner = folders.get(folder)
        if owner is None or name not in owner.names():
            raise mfusepy.FuseOSError(errno.ENOENT)
        return owner, name

    class Tree(mfusepy.Operations):  # type: ignore[misc]
        use_ns = True

        def getattr(self, path: str, fh: Any = None) -> dict[str, int]:
            if path in {"/", "/tsm", "/gramine/keys"} or path in folders:
                return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}
            owner, name = find(path)
            return {"st_mode": stat.S_IFREG | owner.names()[name], "st_nlink": 1, "st_size": 0}

        def readdir(self, path: str, fh: Any) -> list[str]:
            return [".", "..", *(folders[path].names() if path in folders else ())]

        def mkdir(self, path: str, mode: int) -> None:
            if not path.startswith("/tsm/"):
                raise mfusepy.FuseOSError(errno.EPERM)
            if settings["tsm"].get("provider") is None:
                raise mfusepy.FuseOSError(errno.ENXIO)
            folders[path] = Tsm(settings["tsm"])
            note(do="mkdir")

        def rmdir(self, path: str) -> None:
            del folders[path]
            note(do="rmdir")

        def unlink(self, path: str) -> None:
            raise mfusepy.FuseOSError(errno.EPERM)

        def truncate(self, path: str, length: int, fh: Any = None) -> None:
            pass

        def open(self, path: str, fi: Any) -> int:
            owner, name = find(path)
            wants, mode = fi.flags & os.O_ACCMODE, owner.names()[name]
            if wants == os.O_RDWR:
                raise mfusepy.FuseOSError(errno.ETXTBSY)
            if not mode & (0o222 if wants == os.O_WRONLY else 0o444):
                raise mfusepy.FuseOSError(errno.EACCES)
            fi.fh = max(handles, default=0) + 1
            fi.direct_io = 1
            handles[fi.fh] = {"data": b"", "written": wants == os.O_WRONLY, "content": None}
            return 0

        def read(self, path: str, size: int, offset: int, fi: Any) -> bytes:
            owner, name = find(path)
            handle = handles[fi.fh]
            if handle["content"] is None:
                try:
                    handle["content"] = owner.read(name)
                except Refused as refused:
                    raise mfusepy.FuseOSError(refused.number) from None
            content: bytes = handle["content"]
            return content[offset : offset + size]

        def write(self, path: str, data: bytes, offset: int, fi: Any) -> int:
            owner, name = find(path)
            data = bytes(data)
            note(do="write", name=name, data=data.hex())
            try:
                owner.check(name, data)
            except Refused as refused:
                raise mfusepy.FuseOSError(refused.number) from None
            handles[fi.fh]["data"] += data
            return len(data)

        def flush(self, path: str, fi: Any) -> int:
            # close(2) waits for this call, and not for release().
            handle = handles[fi.fh]
            if handle["written"]:
                handle["written"] = False
                owner, name = find(path)
                owner.commit(name, handle["data"])
                note(do="close", name=name)
            return 0

        def release(self, path: str, fi: Any) -> int:
            handles.pop(fi.fh, None)
            return 0

    mfusepy.FUSE(Tree(), mountpoint, raw_fi=True, foreground=True, nothreads=True)


def main() -> None:
    mountpoint, settings, journal = sys.argv[1], json.loads(Path(sys.argv[2]).read_text()), Path(sys.argv[3])

    def end() -> None:
        subprocess.run(["fusermount3", "-u", "-z", mountpoint], check=False)
        threading.Timer(2, os._exit, (0,)).start()

    def watch() -> None:
        while sys.stdin.buffer.read(1):
            pass
        end()

    threading.Thread(target=watch, daemon=True).start()
    limit = threading.Timer(LIMIT, end)
    limit.daemon = True
    limit.start()
    serve(mountpoint, settings, journal)
    os._exit(0)


if __name__ == "__main__":
    main()
