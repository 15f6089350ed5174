# SPDX-License-Identifier: Apache-2.0
"""Run every benchmark, each in a process of its own so that none inherits another's memory: `python -m benchmarks [--json]`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Run all, in order of their names; the exit code is that of the worst. A missed target is not a failure."""
    folder = Path(__file__).parent
    names = sorted(
        path.stem for path in folder.glob("*.py") if path.stem not in {"__init__", "__main__", "harness"}
    )
    return max(
        subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}", *sys.argv[1:]], cwd=folder.parent, check=False
        ).returncode
        for name in names
    )


if __name__ == "__main__":
    sys.exit(main())
