# SPDX-License-Identifier: Apache-2.0
"""A host as an operator runs it: launches the sample application and waits for a line. Prints what tests need to know.

Run as ``python host_script.py SIMULATOR STATE [LEVEL]`` with the folder of tests on the path.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from support.enclaves import Launcher, sample_application


def main() -> None:
    launcher = Launcher(Path(sys.argv[1]), Path(sys.argv[2]))
    with launcher.launch(sample_application(), storage=Path(sys.argv[3])) as enclave:
        if enclave.manifest is None:
            raise SystemExit(1)
        known = {
            "url": enclave.url,
            "worker": enclave.worker_pid,
            "device": enclave.device_pid,
            "level": enclave.level.name,
            "manifest": enclave.manifest.encode().hex(),
        }
        sys.stdout.write(json.dumps(known) + "\n")
        sys.stdout.flush()
        sys.stdin.readline()
        for line in enclave.logs():
            sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
