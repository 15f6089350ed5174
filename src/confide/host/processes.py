# SPDX-License-Identifier: Apache-2.0
"""Starting a process with exactly the descriptors and the environment that it should have, and ending it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from confide.errors import EnclaveError
from confide.simulator.process import ISOLATED

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Process", "isolated_python", "start_time"]

_FIRST_FREE: Final = 256
_POLL: Final = 0.005


def isolated_python(program: Path) -> tuple[str, ...]:
    """The command that runs ``program`` alone: no site, no user folder, no working directory on the path, no bytecode."""
    options = (*ISOLATED, "-X", "utf8")
    if sys.version_info >= (3, 14):
        options = (*options, "-X", "disable-remote-debug")
    return (sys.executable, *options, str(program))


def start_time(pid: int) -> int | None:
    """When the process started, in the kernel's ticks since boot: with the pid it names one process for good.

    None where there is no such process, or no /proc.
    """
    try:
        status = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The program's name stands in parentheses and may itself hold any character.
    fields = status.rpartition(b")")[2].split()
    return int(fields[19]) if len(fields) > 19 and fields[0] not in {b"Z", b"X"} else None


class Process:
    """A child. It ends when it is told to, or when it is killed; nobody waits for it without a bound."""

    def __init__(self, pid: int) -> None:
        self.pid: Final = pid
        self.started: Final = start_time(pid)
        self._code: int | None = None

    @classmethod
    def spawn(
        cls,
        program: Path,
        *,
        descriptors: Mapping[int, int],
        environment: Mapping[str, str],
        errors: int | None = None,
    ) -> Process:
        """Run ``program`` isolated in a session of its own. ``descriptors``: number in the child -> ours.

        Standard input and output are the null device, and so are errors unless ``errors`` names a descriptor. Nothing
        else is inherited: Python opens every descriptor close-on-exec.
        """
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        wanted = {0: null, 1: null, 2: null if errors is None else errors, **descriptors}
        # Out of the way first: a target number may be the number of another source.
        free = max(_FIRST_FREE, max(wanted) + 1)
        sources = {target: fcntl.fcntl(ours, fcntl.F_DUPFD_CLOEXEC, free) for target, ours in wanted.items()}
        try:
            command = isolated_python(program)
            pid = os.posix_spawn(
                command[0],
                command,
                dict(environment),
                file_actions=[(os.POSIX_SPAWN_DUP2, ours, target) for target, ours in sources.items()],
                setsid=True,
                setsigdef=(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE),
                setsigmask=(),
            )
        except OSError as error:
            raise EnclaveError("crashed", "a process could not be started", stage="launch") from error
        finally:
            for descriptor in (null, *sources.values()):
                os.close(descriptor)
        return cls(pid)

    def poll(self) -> int | None:
        """The exit status (128 + n after signal n), or None while it runs. One thread at a time."""
        if self._code is None:
            with contextlib.suppress(ChildProcessError):
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid == 0:
                    return None
                code = os.waitstatus_to_exitcode(status)
                self._code = code if code >= 0 else 128 - code
            if self._code is None:
                self._code = 1  # Somebody else has waited for it; it is gone all the same.
        return self._code

    def wait(self, seconds: float) -> int | None:
        """As `poll`, after waiting for at most ``seconds``."""
        end = time.monotonic() + seconds
        while (code := self.poll()) is None and time.monotonic() < end:
            time.sleep(_POLL)
        return code

    def end(self, grace: float) -> int:
        """Wait ``grace`` seconds for the process to end by itself, then kill it."""
        code = self.wait(grace)
        if code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            code = self.wait(10)
        return 1 if code is None else code
