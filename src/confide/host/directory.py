# SPDX-License-Identifier: Apache-2.0
"""The enclaves of this user on this machine: what ``confide ps``, ``stop`` and ``logs`` look at.

One JSON file for each enclave, mode 0600, below ``$XDG_STATE_HOME/confide/enclaves``, written whole or not at all. A record
names processes by number and start time, so a number that the system has given to another process is not mistaken for
it; a record whose process is gone is stale and is removed by the next listing.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from confide.errors import ConfideError, ConfigurationError, EnclaveError
from confide.host.processes import start_time
from confide.wire import strict_json
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Log",
    "Record",
    "default_directory",
    "find",
    "logs",
    "new_id",
    "records",
    "remove",
    "stop",
    "write",
]

_MAX_RECORD: Final = 16 << 10
_MAX_LOG: Final = 1 << 20
_NAME_BYTES: Final = 6


def default_directory(environment: Mapping[str, str] | None = None) -> Path:
    """``$XDG_STATE_HOME/confide/enclaves``, below ``~/.local/state`` if that is unset."""
    environment = os.environ if environment is None else environment
    base = environment.get("XDG_STATE_HOME", "")
    root = Path(base) if base.startswith("/") else Path.home() / ".local" / "state"
    return root / "confide" / "enclaves"


@dataclass(frozen=True, slots=True)
class Record:
    """What the host knows of one enclave; nothing here is secret. ``started`` is in Unix seconds, ``pid_started`` in ticks."""

    id: str
    pid: int
    pid_started: int
    host_pid: int
    url: str
    kind: str
    service: str
    tee: str
    simulated: bool
    level: str
    state: str
    measurement: str
    started: int

    def to_json(self) -> dict[str, str | int | bool]:
        """For machines."""
        return asdict(self)

    def encode(self) -> bytes:
        """As the file holds it."""
        return strict_json.encode(self.to_json())

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read a record; `MalformedError` for anything else."""
        fields = Fields(
            strict_json.decode(data, what="enclave record", max_size=_MAX_RECORD), "enclave record"
        )
        record = cls(
            id=fields.text("id", 64),
            pid=fields.integer("pid", 1, 1 << 31),
            pid_started=fields.integer("pid_started", 0, 1 << 53),
            host_pid=fields.integer("host_pid", 1, 1 << 31),
            url=fields.text("url", 256),
            kind=fields.text("kind", 64),
            service=fields.text("service", 128),
            tee=fields.text("tee", 32),
            simulated=fields.boolean("simulated"),
            level=fields.text("level", 8),
            state=fields.text("state", 16),
            measurement=fields.text("measurement", 128),
            started=fields.integer("started", 0, 1 << 53),
        )
        fields.end()
        return record

    @property
    def alive(self) -> bool:
        """Whether the very process that the record names still runs."""
        return start_time(self.pid) == self.pid_started


def new_id() -> str:
    """A short name that no other enclave has."""
    return os.urandom(_NAME_BYTES).hex()


def _ensure(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check(directory)


def _check(directory: Path) -> None:
    """A record that another user could write would make ``stop`` end any process of this one."""
    status = directory.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise ConfigurationError(
            "invalid",
            "the folder of enclave records can be written by others",
            hint="Give it mode 0700, or set XDG_STATE_HOME to a folder of your own.",
        )


def write(record: Record, directory: Path | None = None) -> None:
    """Write or replace a record, whole."""
    directory = directory or default_directory()
    _ensure(directory)
    descriptor, temporary = tempfile.mkstemp(prefix=".", dir=directory)  # Mode 0600.
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(record.encode())
        Path(temporary).replace(directory / f"{record.id}.json")
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise


def remove(identifier: str, directory: Path | None = None, *, log: bool = False) -> None:
    """Remove a record, and its log if asked."""
    directory = directory or default_directory()
    for suffix in (".json", ".log") if log else (".json",):
        with contextlib.suppress(OSError):
            (directory / f"{identifier}{suffix}").unlink()


def records(directory: Path | None = None) -> tuple[Record, ...]:
    """The enclaves that run, the oldest first. Stale records and files that are none are removed.

    Raises `ConfigurationError` for a folder that others can write to.
    """
    directory = directory or default_directory()
    found = []
    try:
        _check(directory)
        paths = sorted(directory.glob("*.json"))
    except OSError:
        return ()
    for path in paths:
        try:
            with path.open("rb") as file:
                record = Record.decode(file.read(_MAX_RECORD + 1))
        except (ConfideError, OSError):
            record = None
        if record is not None and record.id == path.stem and record.alive:
            found.append(record)
        else:
            remove(path.stem, directory, log=True)
    return tuple(sorted(found, key=lambda record: (record.started, record.id)))


def find(name: str, directory: Path | None = None) -> Record:
    """The running enclave with this id or address, or whose service id or id's beginning it is.

    Raises ``enclave.bad_state`` when there is none, or several.
    """
    found = records(directory)
    matches = [record for record in found if name in {record.id, record.url}] or [
        record for record in found if record.service == name or (name and record.id.startswith(name))
    ]
    if len(matches) != 1:
        raise EnclaveError(
            "bad_state",
            "several running enclaves match this name" if matches else "no running enclave has this name",
            hint="`confide ps` lists them.",
        )
    return matches[0]


def stop(name: str, directory: Path | None = None, *, timeout: float = 30.0) -> None:
    """Ask the enclave to finish what is in flight and end.

    Raises what `find` raises, and ``enclave.deadline`` when it has not ended after ``timeout`` seconds.
    """
    record = find(name, directory)
    end = time.monotonic() + timeout
    if record.alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(record.pid, signal.SIGTERM)
    while record.alive:
        if time.monotonic() >= end:
            raise EnclaveError("deadline", "the enclave has not ended in time", retryable=True)
        time.sleep(0.02)
    remove(record.id, directory)


def logs(name: str, directory: Path | None = None) -> tuple[str, ...]:
    """The lines that a running enclave has let out, the oldest first; raises what `find` raises."""
    directory = directory or default_directory()
    try:
        with (directory / f"{find(name, directory).id}.log").open("rb") as file:
            return tuple(file.read(_MAX_LOG + 1).decode("ascii", "replace").splitlines())
    except OSError:
        return ()


class Log:
    """The lines that an enclave lets out, kept in a file of at most 1 MiB and, the last thousand, in memory."""

    def __init__(self, identifier: str, directory: Path) -> None:
        _ensure(directory)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
        self._descriptor = os.open(directory / f"{identifier}.log", flags, 0o600)
        self._left = _MAX_LOG

    def write(self, line: str) -> None:
        """Append one line, unless the file is full."""
        data = line.encode("ascii", "replace") + b"\n"
        if self._descriptor >= 0 and len(data) <= self._left:
            self._left -= len(data)
            os.write(self._descriptor, data)

    def close(self) -> None:
        """No more lines."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
