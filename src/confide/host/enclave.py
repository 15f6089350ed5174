# SPDX-License-Identifier: Apache-2.0
"""Launching an enclave and living beside it, from outside.

    with Enclave.launch(service, tee="simulated") as enclave:
        print(enclave.url, enclave.describe())

Three processes: this one, the device that measures and signs, the worker that serves. This one holds the service's
description, ciphertext and sockets; it has no key and imports nothing that could use one.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from confide.enclave import control
from confide.enclave.confinement.levels import Level
from confide.enclave.control import Connection, Drain, Start
from confide.enclave.egress_messages import PACKETS
from confide.enclave.manifest import Manifest, sites
from confide.errors import ConfideError, ConfigurationError, EnclaveError, TeeUnavailable
from confide.host import directory
from confide.host.egress import EgressServer
from confide.host.lending import bind, open_directory, open_file, url_of
from confide.host.lifecycle import Lifecycle, State
from confide.host.processes import Process, start_time
from confide.host.supervise import Supervisor
from confide.simulator.process import DeviceProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from confide.enclave.confinement.levels import Confinement
    from confide.enclave.service import Service

__all__ = ["Enclave", "State", "available_tee"]

_WORKER: Final = Path(control.__file__).with_name("worker_main.py")
_LINES: Final = 1000
_KNOWN_TEES: Final = ("snp", "tdx", "sgx", "nitro", "tpm")


class Enclave:
    """A launched enclave. Made by `launch`; ends with its ``with`` block, with `stop`, or with this process."""

    def __init__(self, service: Service, *, clock: Callable[[], float]) -> None:
        self.service: Final = service
        self.tee: Final = "snp"
        self.simulated: Final = True
        self.id: Final = directory.new_id()
        self.url = ""
        self.manifest: Manifest | None = None
        self.measurement = b""
        self._clock = clock
        self._lifecycle = Lifecycle()
        self._began: Final = int(clock())
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._device: DeviceProcess | None = None
        self._egress: EgressServer | None = None
        self._supervisor: Supervisor | None = None
        self._connection: Connection | None = None
        self._state_directory: Path | None = None
        self._log: directory.Log | None = None
        self._process: Process | None = None
        self._lock = threading.RLock()
        self._recording = threading.Lock()

    @classmethod
    def launch(
        cls,
        service: Service,
        *,
        tee: str = "auto",
        data: Mapping[str, Path | str] | None = None,
        storage: Path | str | None = None,
        listen: tuple[str, int] = ("127.0.0.1", 0),
        require_level: Level | str | None = None,
        simulator_directory: Path | None = None,
        state_directory: Path | None = None,
        timeout: float = 120.0,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Measure, start, confine; returns once the enclave serves, or waits for its keys.

        ``tee`` is this machine's TEE (``auto``) or one by name; the simulated one is used only where it is named.
        ``data`` lends files (ciphertext) by the names under which the service asks for them, ``storage`` a directory for
        its vaults. ``require_level`` (``"L3"`` to ``"L0"``) makes less confinement an error. ``timeout`` is in seconds.

        Raises `TeeUnavailable` for a TEE that is not here and a level that was not reached, ``enclave.unmeasured`` for code
        that is not what it should be, ``enclave.deadline``, ``enclave.crashed``, and `ConfigurationError`.
        """
        level = None if require_level is None else Level.parse(require_level)
        _require_simulated(tee)
        enclave = cls(service, clock=clock)
        enclave._state_directory = state_directory
        try:
            lent = {**getattr(service, "files", {}), **(data or {})}
            enclave._start(lent, storage, listen, level, simulator_directory, timeout)
            enclave._lifecycle.wait_for({State.WAITING, State.RUNNING}, timeout)
            enclave.raise_for_state()
            if enclave.state.final:
                raise EnclaveError("crashed", "the worker ended before it served", stage="launch")
            enclave._write_record()
        except BaseException:
            enclave._abandon()
            raise
        return enclave

    # What there is to see

    @property
    def state(self) -> State:
        """Where the enclave is in its life."""
        return self._lifecycle.state

    @property
    def error(self) -> ConfideError | None:
        """Why it failed, if it has."""
        return self._lifecycle.error

    @property
    def confinement(self) -> Confinement:
        """What the worker reported; ``enclave.bad_state`` before it has."""
        found = None if self._supervisor is None else self._supervisor.confinement
        if found is None:
            raise EnclaveError("bad_state", "the enclave has not reported its confinement")
        return found

    @property
    def level(self) -> Level:
        """The confinement level that was reached."""
        return self.confinement.level

    @property
    def worker_pid(self) -> int:
        """The worker's process number."""
        if self._supervisor is None:
            raise EnclaveError("bad_state", "the enclave has no worker")
        return self._supervisor.worker_pid

    @property
    def device_pid(self) -> int:
        """The simulated device's process number."""
        if self._device is None:
            raise EnclaveError("bad_state", "the enclave has no device")
        return self._device.pid

    def describe(self) -> str:
        """Several lines for a person: what runs, how it is measured, and how it is confined."""
        lines = [
            f"{self.service.kind} {self.service.id}: {self.state}",
            f"  address      {self.url}",
            f"  TEE          {self.tee}, SIMULATED: nothing protects it from the owner of this machine",
            f"  measurement  {self.measurement.hex()}",
            f"  manifest     {self.manifest.digest.hex() if self.manifest else ''}",
        ]
        return "\n".join(lines) + "\n" + self.confinement.describe()

    def logs(self) -> tuple[str, ...]:
        """What the enclave has let out, the oldest line first (at most a thousand): its life-cycle, and what its code said
        by ``Context.log``. The operator can read all of it.
        """
        return tuple(self._lines)

    # Its life

    def wait(self, *, timeout: float | None = None) -> bool:
        """Wait until it has ended, for at most ``timeout`` seconds; whether it has. `raise_for_state` says how."""
        try:
            self._lifecycle.wait_for((), timeout)
        except EnclaveError:
            return False
        return True

    def wait_until(self, state: State | str, *, timeout: float | None = None) -> None:
        """Wait until it is in ``state`` (or beyond it: ended, which raises its error or ``enclave.bad_state``).

        Raises ``enclave.deadline`` after ``timeout`` seconds.
        """
        if self._lifecycle.wait_for({State(state)}, timeout) is not State(state):
            self.raise_for_state()
            raise EnclaveError("bad_state", f"the enclave is {self.state}")

    def raise_for_state(self) -> None:
        """Raise why it failed, if it has."""
        error = self.error
        if error is not None:
            raise error

    def stop(self, *, grace: float = 10.0) -> None:
        """Finish what is in flight within ``grace`` seconds, and end. Stopping what has ended does nothing."""
        with self._lock:
            supervisor, connection = self._supervisor, self._connection
            if supervisor is None or connection is None:
                self._release()
                return
            if not self.state.final:
                supervisor.expect_end()
                with contextlib.suppress(ConfideError):
                    connection.send(Drain(max(0, min(3600, int(grace)))))
                if not supervisor.join(grace + 3):
                    supervisor.kill()
            supervisor.join(10)
            self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # Inside

    def _start(
        self,
        data: Mapping[str, Path | str],
        storage: Path | str | None,
        listen: tuple[str, int],
        level: Level | None,
        simulator_directory: Path | None,
        timeout: float,
    ) -> None:
        """Start device and worker side by side: the worker's interpreter warms up while the device measures."""
        places = sites()
        with contextlib.ExitStack() as ours:
            listener = ours.enter_context(bind(listen))
            host_end, worker_end = socket.socketpair()
            ours.enter_context(worker_end)
            egress, egress_end = socket.socketpair(socket.AF_UNIX, PACKETS)
            ours.enter_context(egress_end)
            self._connection = Connection(host_end, start=False)
            self._egress = EgressServer(egress, self.service.egress)
            lent = {name: number for number, name in enumerate(sorted(data), control.DATA)}
            descriptors = {number: open_file(ours, Path(data[name])) for name, number in lent.items()}
            kept = None
            if storage is not None:
                kept = control.DATA + len(lent)
                descriptors[kept] = open_directory(ours, Path(storage))
            device = self._device = DeviceProcess.spawn(
                self.service.description(), sites=places, directory=simulator_directory, timeout=timeout
            )
            self._process = Process.spawn(
                _WORKER,
                descriptors={
                    control.CONTROL: worker_end.fileno(),
                    control.DEVICE: device.worker.fileno(),
                    control.LISTEN: listener.fileno(),
                    control.EGRESS: egress_end.fileno(),
                    **descriptors,
                },
                environment=dict(self.service.environment),
                errors=2 if self.service.debug else None,
            )
            self.url = url_of(listener.getsockname())
        # The worker alone accepts: once it is gone a client is refused at once instead of waiting in a queue.
        device.worker.close()
        measured = device.measured()
        self.manifest = Manifest.decode(measured.manifest)
        self.measurement = measured.measurement
        self._lifecycle.move(State.MEASURED)
        self._line(f"measured measurement={self.measurement.hex()}")
        self._egress.start()
        self._supervisor = Supervisor(
            connection=self._connection,
            process=self._process,
            lifecycle=self._lifecycle,
            require_level=level,
            on_line=self._line,
            on_state=self._write_record,
            on_end=self._ended,
        )
        self._supervisor.start()
        # If the worker is gone already, the supervisor knows more about it than a broken pipe says.
        with contextlib.suppress(EnclaveError):
            self._connection.send(
                Start(
                    manifest=measured.manifest,
                    code={root.name: str(Path(root.path).resolve()) for root in self.service.code},
                    sites=tuple(str(place.resolve()) for place in places),
                    data=lent,
                    storage=kept,
                )
            )

    def _line(self, text: str) -> None:
        moment = datetime.fromtimestamp(self._clock(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        line = f"{moment} {text}"
        self._lines.append(line)
        if self._log is None and not self.state.final:
            with contextlib.suppress(OSError):
                self._log = directory.Log(self.id, self._records())
        if self._log is not None:
            with contextlib.suppress(OSError):
                self._log.write(line)

    def _records(self) -> Path:
        return self._state_directory or directory.default_directory()

    def _write_record(self) -> None:
        process = self._process
        if process is None or process.started is None or not self.url:
            return  # No /proc: nothing could tell this process from another one of the same number.
        # One at a time, and the state is looked at inside: an older state must not be written over a newer one.
        with self._recording:
            record = directory.Record(
                id=self.id,
                pid=process.pid,
                pid_started=process.started,
                host_pid=os.getpid(),
                url=self.url,
                kind=self.service.kind,
                service=self.service.id,
                tee=self.tee,
                simulated=self.simulated,
                level=self.level.name,
                state=str(self.state),
                measurement=self.measurement.hex(),
                started=self._began,
            )
            with contextlib.suppress(OSError):
                directory.write(record, self._records())
            if start_time(process.pid) is None:
                directory.remove(self.id, self._records())

    def _ended(self) -> None:
        """The worker is gone: so are its device, its way out, and its record."""
        if self._egress is not None:
            self._egress.close()
        if self._device is not None:
            self._device.stop()
        directory.remove(self.id, self._records())

    def _abandon(self) -> None:
        with self._lock:
            if self._supervisor is not None:
                self._supervisor.expect_end()
                self._supervisor.kill()
                self._supervisor.join(10)
            elif self._process is not None:
                self._process.end(0)
            self._release()

    def _release(self) -> None:
        if self._egress is not None:
            self._egress.close()
        if self._device is not None:
            self._device.stop()
        if self._connection is not None:
            self._connection.close()
        if self._log is not None:
            self._log.close()
            self._log = None
        if not self.state.final:
            self._lifecycle.move(State.STOPPED)
        directory.remove(self.id, self._records(), log=True)


def available_tee() -> str:
    """What ``confide run`` uses when nobody says which: the simulated one, as no other can be launched from here yet."""
    return "simulated"


def _require_simulated(tee: str) -> None:
    if tee == "simulated":
        return
    if tee == "auto" or tee in _KNOWN_TEES:
        raise TeeUnavailable(
            "tee",
            "no TEE that could run this service was found on this machine"
            if tee == "auto"
            else f"there is no {tee} TEE on this machine that could run this service",
            hint='`confide doctor` says what is missing. For a simulated one say so: `--tee simulated`, tee="simulated".',
            stage="launch",
        )
    raise ConfigurationError(
        "invalid", "this TEE is not known", hint=f"Known: simulated, auto, {', '.join(_KNOWN_TEES)}."
    )
