# SPDX-License-Identifier: Apache-2.0
"""A software TPM as a process of its own: started for a test, shut down as a machine is, ended by its number."""

from __future__ import annotations

import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from confide.tees.tpm.client import Tpm
from confide.tees.tpm.transport import UnixSocket

if TYPE_CHECKING:
    from collections.abc import Iterator

WAIT = 20.0


@contextmanager
def process(folder: Path) -> Iterator[Path]:
    """A swtpm whose state lies in ``folder``: the socket for its one client. The test skips where swtpm is not installed."""
    program = shutil.which("swtpm")
    if program is None:
        pytest.skip("swtpm is not installed (Debian: apt-get install swtpm)")
    folder.mkdir(exist_ok=True)
    socket, control = folder / "tpm", folder / "tpm.ctrl"  # The names that tpm2-tools expect.
    command = [program, "socket", "--tpm2", "--tpmstate", f"dir={folder}", "--flags", "not-need-init"]
    command += ["--server", f"type=unixio,path={socket}", "--ctrl", f"type=unixio,path={control}"]
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + WAIT
        while not _listens(socket):
            if time.monotonic() > end or started.poll() is not None:
                pytest.fail("swtpm did not start")
            time.sleep(0.01)
        yield socket
    finally:
        started.terminate()
        started.wait(WAIT)


def _listens(path: Path) -> bool:
    """Whether somebody accepts connections at a Unix socket: it lies there some time before. Source: proc(5), net/unix."""
    rows = (row.split() for row in Path("/proc/net/unix").read_text(encoding="utf-8").splitlines())
    return any(row[-1] == str(path) and row[3] == "00010000" for row in rows)


@contextmanager
def running(folder: Path) -> Iterator[Tpm]:
    """A started TPM, shut down at the end: without that the next start counts a failed authorization."""
    with process(folder) as socket:
        tpm = Tpm(UnixSocket(socket))
        tpm.startup()
        try:
            yield tpm
        finally:
            tpm.shutdown()
            tpm.close()
