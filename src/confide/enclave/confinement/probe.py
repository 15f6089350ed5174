# SPDX-License-Identifier: Apache-2.0
"""What this machine grants: confines a process for nothing and reads its report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from confide.enclave.confinement.levels import Confinement
from confide.errors import ConfideError

__all__ = ["probe"]

_LIMIT_SECONDS = 30
# An isolated interpreter without site-packages finds the package only where it is told to look, and last.
_TRIAL = (
    "import sys; sys.path.append(sys.argv[1]); from confide.enclave.confinement.probe import main; main()"
)


def probe() -> Confinement:
    """The confinement that a worker would reach here; nothing applied when the trial does not answer."""
    command = (sys.executable, "-I", "-S", "-B", "-c", _TRIAL, str(Path(__file__).resolve().parents[3]))
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_LIMIT_SECONDS, check=True, env={}
        )
        return Confinement.from_value(json.loads(done.stdout[:65_536]))
    except (OSError, ValueError, AttributeError, subprocess.SubprocessError, ConfideError):
        return Confinement(())


def main() -> None:
    """The trial itself, in a process of its own: confine it, and print the report as JSON."""
    from confide.enclave.confinement.apply import enclose, interpreter_paths, seal_off
    from confide.enclave.confinement.landlock import Grants
    from confide.enclave.confinement.limits import ResourceLimits

    resources = ResourceLimits(memory=1 << 30, open_files=64, threads=16, file_size=1 << 20)
    report = seal_off(enclose(lambda _pid: None), resources, Grants(read=interpreter_paths()))
    sys.stdout.write(json.dumps(report.to_value()))
