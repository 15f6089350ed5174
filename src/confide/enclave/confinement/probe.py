# SPDX-License-Identifier: Apache-2.0
"""Which confinement this machine gives: a short-lived process confines itself and says what held."""

from __future__ import annotations

import json
import subprocess
import sys

from confide.enclave.confinement.apply import enclose, interpreter_paths, seal_off
from confide.enclave.confinement.landlock import Grants
from confide.enclave.confinement.levels import Confinement
from confide.enclave.confinement.limits import ResourceLimits
from confide.errors import EnclaveError

__all__ = ["probe"]

_LIMITS = ResourceLimits(memory=1 << 30, open_files=64, threads=16, file_size=0)


def probe() -> Confinement:
    """Try it out in a process of its own; nothing of the caller is changed. Takes about 50 ms."""
    done = subprocess.run(
        [sys.executable, "-I", "-B", "-c", "from confide.enclave.confinement.probe import main; main()"],
        capture_output=True,
        timeout=30,
        check=False,
    )
    try:
        return Confinement.from_value(json.loads(done.stdout))
    except ValueError:
        raise EnclaveError("sandbox", "the confinement of this machine could not be tried out") from None


def main() -> None:
    """Confine this process and write to stdout what was applied."""
    confinement = seal_off(enclose(lambda _: None), _LIMITS, Grants(read=interpreter_paths()))
    sys.stdout.write(json.dumps(confinement.to_value()))
    sys.stdout.flush()
