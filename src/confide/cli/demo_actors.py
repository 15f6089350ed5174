# SPDX-License-Identifier: Apache-2.0
"""The processes of the demo's other parties: each has a home of its own, and what it says goes to a file of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Self

from confide.errors import EnclaveError

if TYPE_CHECKING:
    from pathlib import Path

_DEADLINE = 60.0


def environment(home: Path) -> dict[str, str]:
    """An environment in which confide keeps everything below `home`."""
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "LANG", "LC_ALL", "TMPDIR"}}
    places = {"XDG_CONFIG_HOME": "config", "XDG_DATA_HOME": "data", "XDG_STATE_HOME": "state"}
    return {
        **kept,
        "HOME": str(home),
        "NO_COLOR": "1",
        "ORT_DISABLE_TELEMETRY": "1",
        **{name: str(home / sub) for name, sub in places.items()},
    }


class Actor:
    """A process that says where it listens in a file, and ends when told to."""

    def __init__(self, name: str, arguments: list[str], *, home: Path, source: Path | None = None) -> None:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.name = name
        self._ready = home / f"{name}.url"
        self._talk = home / f"{name}.log"
        variables = environment(home)
        if source is not None:
            variables["PYTHONPATH"] = str(source)
        with self._talk.open("wb") as talk:
            self._process = subprocess.Popen(
                [sys.executable, *arguments, "--ready-file", str(self._ready)],
                stdin=subprocess.DEVNULL,
                stdout=talk,
                stderr=talk,
                env=variables,
                cwd=home,
            )

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._process.pid

    def url(self) -> str:
        """Where it listens, once it does; `enclave.crashed` or `enclave.deadline` with what it said otherwise."""
        end = time.monotonic() + _DEADLINE
        while time.monotonic() < end:
            if self._ready.exists() and (text := self._ready.read_text().strip()):
                return text
            if self._process.poll() is not None:
                raise EnclaveError("crashed", f"the {self.name} ended: {self.said()}")
            time.sleep(0.02)
        raise EnclaveError("deadline", f"the {self.name} did not start: {self.said()}")

    def said(self) -> str:
        """The end of what it said."""
        return self._talk.read_text(errors="replace")[-2000:].strip()

    def stop(self) -> None:
        """End it, politely first."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
