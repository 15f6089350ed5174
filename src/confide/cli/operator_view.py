# SPDX-License-Identifier: Apache-2.0
"""What the owner of the machine can see: memory of processes, files, traffic, searched for planted secrets.

The demo and the tests use it on our processes and on a plain server alike: a search that finds nothing anywhere proves nothing.
"""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import threading
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_CHUNK = 4 << 20


def spellings(secret: bytes) -> Iterator[bytes]:
    """The encodings in which a leaked secret may stand: raw, hex, base64 at each alignment, URL, UTF-16, JSON, reversed."""
    yield secret
    yield secret[::-1]
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    for lead in range(3):
        encoded = base64.b64encode(b"\0" * lead + secret)
        # Only the characters that depend on the secret alone: the first and last groups mix with their neighbours.
        inner = encoded[-(-lead * 8 // 6) :].rstrip(b"=")[:-1]
        yield inner
        yield inner.replace(b"+", b"-").replace(b"/", b"_")
    with contextlib.suppress(UnicodeDecodeError):
        text = secret.decode()
        yield text.encode("utf-16-le")
        yield urllib.parse.quote(text, safe="").encode()
        yield json.dumps(text)[1:-1].encode()


@dataclass(frozen=True, slots=True)
class Finding:
    """A planted secret that was found: its name, and where."""

    secret: str
    where: str


class Search:
    """A set of named secrets, each at least 16 bytes so that no finding is a coincidence, in all their spellings."""

    def __init__(self, secrets: Mapping[str, bytes]) -> None:
        short = [name for name, secret in secrets.items() if len(secret) < 16]
        if short:
            raise ValueError(f"too short to be searched for: {', '.join(short)}")
        self._needles = [
            (name, needle) for name, secret in secrets.items() for needle in sorted(set(spellings(secret)))
        ]
        self._longest = max(len(needle) for _, needle in self._needles)

    def content(self, data: bytes, where: str) -> set[Finding]:
        """Search bytes."""
        return {Finding(name, where) for name, needle in self._needles if needle in data}

    def files(self, paths: Iterable[Path]) -> set[Finding]:
        """Search regular files, and every regular file below folders."""
        found: set[Finding] = set()
        for path in paths:
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if file.is_file() and not file.is_symlink():
                    found |= self.content(file.read_bytes(), f"file {file.name}")
                    found |= self.content(str(file).encode(), "a file name")
        return found

    def process(self, pid: int, *, where: str | None = None) -> set[Finding]:
        """Search the readable memory, the arguments and the environment of a process of this machine.

        Raises PermissionError where the kernel refuses, which is what it should do for a confined worker.
        """
        where = where or f"memory of process {pid}"
        found: set[Finding] = set()
        root = Path("/proc") / str(pid)
        found |= self.content((root / "cmdline").read_bytes(), f"arguments of process {pid}")
        found |= self.content((root / "environ").read_bytes(), f"environment of process {pid}")
        regions = [line.split(maxsplit=5) for line in (root / "maps").read_text().splitlines()]
        with (root / "mem").open("rb", buffering=0) as memory:
            for fields in regions:
                code = "x" in fields[1] and "w" not in fields[1]
                if "r" not in fields[1] or code or fields[-1].startswith("[v"):
                    continue
                start, end = (int(edge, 16) for edge in fields[0].split("-"))
                found |= self._region(memory, start, end, where)
        return found

    def _region(self, memory: object, start: int, end: int, where: str) -> set[Finding]:
        found: set[Finding] = set()
        tail = b""
        position = start
        while position < end:
            try:
                memory.seek(position)  # type: ignore[attr-defined]
                chunk = memory.read(min(_CHUNK, end - position))  # type: ignore[attr-defined]
            except (OSError, OverflowError, ValueError):
                break  # A page that its owner has unmapped since, or a device: nothing to read there.
            if not chunk:
                break
            found |= self.content(tail + chunk, where)
            tail = chunk[-self._longest :]
            position += len(chunk)
        return found


class Wiretap:
    """A TCP relay on loopback that keeps every byte of both directions: the operator's network."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.2)
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self.upward = bytearray()
        self.downward = bytearray()
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    @property
    def url(self) -> str:
        """Where clients connect instead of to the target."""
        host, port = self._listener.getsockname()[:2]
        return f"http://{host}:{port}"

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            server = socket.create_connection(self._target, timeout=30)
            self._sockets += (client, server)
            for source, sink, record in ((client, server, self.upward), (server, client, self.downward)):
                thread = threading.Thread(target=self._pump, args=(source, sink, record), daemon=True)
                thread.start()
                self._threads.append(thread)

    def _pump(self, source: socket.socket, sink: socket.socket, record: bytearray) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(1 << 16):
                with self._lock:
                    record += chunk
                sink.sendall(chunk)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop relaying; what was captured stays."""
        self._closing.set()
        self._listener.close()
        self._accepting.join(timeout=5)
        for end in self._sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(timeout=5)
        for end in self._sockets:
            end.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
