# SPDX-License-Identifier: Apache-2.0
"""Watching a worker from outside: what it reports moves the enclave's state, and its end is noticed at once.

Everything that the worker says is hostile input to the host: it is bounded, typed, and shown only as identifiers and
numbers.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING, Final

from confide.enclave.control import Confined, Failed, Forked, LogLine, StateChanged
from confide.errors import ConfideError, EnclaveError, TeeUnavailable
from confide.host.lifecycle import State
from confide.host.processes import start_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from confide.enclave.confinement.levels import Confinement, Level
    from confide.enclave.control import Connection
    from confide.host.lifecycle import Lifecycle
    from confide.host.processes import Process

__all__ = ["Supervisor"]

_END_GRACE: Final = 2.0
_CODES: Final = {
    137: "out of memory, or killed",
    139: "a segmentation fault",
    134: "an abort",
    132: "an illegal instruction",
    135: "a bus error",
}


class Supervisor:
    """One thread that reads the worker's reports until its end of the control socket is closed, and then buries it."""

    def __init__(
        self,
        *,
        connection: Connection,
        process: Process,
        lifecycle: Lifecycle,
        require_level: Level | None,
        on_line: Callable[[str], None],
        on_state: Callable[[], None],
        on_end: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._process = process
        self._lifecycle = lifecycle
        self._require_level = require_level
        self._on_line = on_line
        self._on_state = on_state
        self._on_end = on_end
        self._stopping = False
        self._failure: ConfideError | None = None
        self.confinement: Confinement | None = None
        self.worker_pid: int = process.pid
        self._worker_started = process.started
        self._thread = threading.Thread(target=self._watch, name="confide-supervisor", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def expect_end(self) -> None:
        """From here on the worker's end is not a crash."""
        self._stopping = True

    def join(self, timeout: float) -> bool:
        """Wait until the worker is buried; False when it is not after ``timeout`` seconds."""
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def kill(self) -> None:
        """End the worker now."""
        known = {self.worker_pid: self._worker_started, self._process.pid: self._process.started}
        for pid, started in known.items():
            # Once it is gone the number may be another process's.
            if start_time(pid) == started:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)

    def _watch(self) -> None:
        try:
            while (message := self._connection.receive()) is not None:
                match message:
                    case Forked():
                        self._forked(message.pid)
                    case Confined():
                        self._confined(message.confinement)
                    case StateChanged():
                        self._moved(message.state)
                    case Failed():
                        self._failure = _received(message)
                    case LogLine():
                        self._on_line(str(message))
                    case _:
                        raise EnclaveError("bad_state", "the worker sent what only a host sends")
        except ConfideError as error:
            if self._failure is None and error.code != "enclave.crashed":
                self._failure = error
        self._bury()

    def _forked(self, pid: int) -> None:
        """Only before the service's code runs: later it could make the host forget whom to kill."""
        if self.confinement is not None or self.worker_pid != self._process.pid:
            raise EnclaveError("bad_state", "the worker forked after it was confined, or twice")
        self.worker_pid = self._descendant(pid)
        self._worker_started = start_time(self.worker_pid)

    def _descendant(self, pid: int) -> int:
        """The worker's own number, believed only if it is a child of the process that was started."""
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
                parent = int(file.read().rpartition(b")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return self._process.pid
        return pid if parent == self._process.pid else self._process.pid

    def _confined(self, confinement: Confinement) -> None:
        if self.confinement is not None:
            raise EnclaveError("bad_state", "the worker reported its confinement twice")
        self.confinement = confinement
        self._on_line(f"confined level={confinement.level.name}")
        if self._require_level is not None:
            confinement.require(self._require_level)

    def _moved(self, state: str) -> None:
        if self.confinement is None:
            raise EnclaveError("bad_state", "the worker serves before it has reported its confinement")
        if state == "stopped":
            self._stopping = True
            return
        if state == "draining":
            self._stopping = True
        self._lifecycle.move(State(state))
        self._on_line(f"state state={state}")
        self._on_state()

    def _bury(self) -> None:
        # Whoever has closed the control socket, broken the protocol or fallen short of the level does not go on. The worker
        # is killed by its own number: it could outlive the process that was started.
        self._process.wait(_END_GRACE if self._failure is None or _ends_itself(self._failure) else 0)
        self.kill()
        code = self._process.end(_END_GRACE)
        if self._failure is not None:
            self._lifecycle.fail(self._failure)
            self._on_line(f"failed code={self._failure.code}")
        elif self._stopping and code in {0, 128 + signal.SIGTERM}:
            self._lifecycle.move(State.STOPPED)
            self._on_line("stopped")
        else:
            reason = _CODES.get(code, f"exit status {code}")
            self._lifecycle.fail(
                EnclaveError(
                    "crashed",
                    f"the worker has ended unexpectedly: {reason}",
                    hint="Its keys are gone with it; what is launched again has to be attested again.",
                )
            )
            self._on_line(f"crashed status={code}")
        self._connection.close()
        self._on_end()


def _ends_itself(failure: ConfideError) -> bool:
    return not isinstance(failure, TeeUnavailable)


def _received(message: Failed) -> ConfideError:
    family, _, leaf = message.code.partition(".")
    if family == "enclave" and leaf == "level":
        return TeeUnavailable(leaf, message.message, hint=message.hint)
    error = EnclaveError(leaf or "crashed", message.message, hint=message.hint)
    # The worker's own code is kept: it is what the operator looks up.
    error.code = message.code
    return error
