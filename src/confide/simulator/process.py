# SPDX-License-Identifier: Apache-2.0
"""Starting a simulated device from outside. Holds no key and imports none: the host may use it.

device = DeviceProcess.spawn(service.description(), sites=sites)
measured = device.measured()             # the manifest that the device made of the files, and its measurement
...give device.worker to the worker...
device.ready()                           # its key is there; the worker may ask before, and waits
device.stop()
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from confide.errors import EnclaveError, MalformedError
from confide.simulator import messages
from confide.simulator.place import default_directory
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["ISOLATED", "DeviceProcess", "Measured"]

ISOLATED = ("-I", "-S", "-B", "-X", f"pycache_prefix={os.devnull}")
"""How Python is started for measured code. Below a device file there is no bytecode, and nobody can put any there."""

_MAIN = Path(__file__).with_name("device_main.py")
_MAX_MANIFEST = 192 * 1024


@dataclass(frozen=True, slots=True)
class Measured:
    """What a device made of a described service: the encoded manifest, and its measurement (48 B)."""

    manifest: bytes
    measurement: bytes


class DeviceProcess:
    """A running device. ``worker`` is the worker's end of its socket."""

    def __init__(self, process: subprocess.Popen[bytes], host: socket.socket, worker: socket.socket) -> None:
        self._process = process
        self._host = host
        self.worker = worker

    @classmethod
    def spawn(
        cls,
        description: Mapping[str, object],
        *,
        sites: Sequence[Path],
        directory: Path | None = None,
        timeout: float = 120.0,
        interpreter: str = sys.executable,
    ) -> Self:
        """Start a device for a described service, whose distributions lie in ``sites``; does not wait for it.

        ``directory`` holds the machine's simulated root; ``timeout`` is in seconds, for each answer. The first launch on a
        machine takes seconds more, while the root is made.
        """
        host, host_end = socket.socketpair()
        worker, worker_end = socket.socketpair()
        with host_end, worker_end:
            try:
                process = subprocess.Popen(
                    [interpreter, *ISOLATED, str(_MAIN), str(host_end.fileno()), str(worker_end.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env={},
                    pass_fds=(host_end.fileno(), worker_end.fileno()),
                    start_new_session=True,
                )
            except OSError as error:
                host.close()
                worker.close()
                raise EnclaveError(
                    "crashed", "the simulated device could not be started", stage="device"
                ) from error
        host.settimeout(timeout)
        device = cls(process, host, worker)
        try:
            messages.send(
                host,
                {
                    "directory": str(default_directory() if directory is None else directory),
                    "service": dict(description),
                    "sites": [str(site) for site in sites],
                },
            )
        except BaseException:
            device.stop()
            raise
        return device

    @property
    def pid(self) -> int:
        """The process id of the device."""
        return self._process.pid

    def measured(self) -> Measured:
        """Wait for the measurement.

        Raises ``enclave.unmeasured`` and configuration errors as the device found them, ``enclave.crashed`` and
        ``enclave.deadline`` when it gives no answer; the device has stopped then.
        """
        fields = self._answer("measurement of a device")
        found = Measured(
            fields.bytes_("manifest", max_length=_MAX_MANIFEST), fields.bytes_("measurement", 48)
        )
        fields.end()
        return found

    def ready(self) -> None:
        """Wait until the device can sign; raises as ``measured`` does."""
        fields = self._answer("state of a device")
        if not fields.boolean("ready"):
            raise EnclaveError("bad_state", "the simulated device is not ready", stage="device")
        fields.end()

    def _answer(self, what: str) -> Fields:
        try:
            answer = messages.receive(self._host, limit=messages.MAX_HOST)
            if answer is None:
                raise EnclaveError(
                    "crashed", "the simulated device has ended", hint="launch again", stage="device"
                )
            messages.raise_error(answer)
        except MalformedError as error:
            self.stop()
            raise EnclaveError(
                "crashed", "the simulated device gave no readable answer", stage="device"
            ) from error
        except BaseException:
            self.stop()
            raise
        return Fields(answer, what)

    def stop(self) -> None:
        """End the device and free its sockets; can be called again."""
        self._host.close()
        self.worker.close()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)  # It has no state to lose.
        self._process.wait(timeout=10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
