# SPDX-License-Identifier: Apache-2.0
"""T13: the CPU time of `confide --help` and of a local `confide verify`, over that of the bare interpreter."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import attestation as _attestation
from benchmarks import harness

from confide.simulator.installation import Installation
from confide.simulator.snp import Chip


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    options = harness.parser(__doc__ or "").parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        variables = {**os.environ, "XDG_DATA_HOME": name}
        installation = Installation.open_or_create(folder / "confide" / "simulator")
        chip = Chip.power_on(installation)
        (folder / "report.bin").write_bytes(chip.report(bytes(64), manifest=b"m", debug=False, level=3))
        (folder / "vcek.der").write_bytes(chip.vcek)
        (folder / "policy.toml").write_text('tees = ["snp"]\n[reference.snp]\nmeasurement = "ANY"\n')
        confide = [sys.executable, "-m", "confide.cli.main"]
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "confide --help": [*confide, "--help"],
            "confide verify": [
                *confide, "verify", str(folder / "report.bin"), "--policy", str(folder / "policy.toml"),
                "--endorsements", str(folder / "vcek.der"), "--allow-simulated", "--anchor", "local",
                "--at", _attestation.AT.isoformat(),
            ],
        }  # fmt: skip
        times: dict[str, list[float]] = {label: [] for label in commands}
        for repetition in range(-1, max(options.repetitions, 9)):
            for label, command in commands.items():
                before = _children()
                subprocess.run(command, env=variables, check=True, capture_output=True)
                if repetition >= 0:
                    times[label].append(_children() - before)
    middle = {label: sorted(values)[len(values) // 2] for label, values in times.items()}
    report = harness.Report("T13: the command line, CPU time over the interpreter's own")
    bare = middle["python -c pass"]
    report.difference("T13", "confide --help", middle["confide --help"], bare, at_most=60, unit="ms")
    report.difference("T13", "confide verify", middle["confide verify"], bare, at_most=110, unit="ms")
    report.show(as_json=options.json)


if __name__ == "__main__":
    main()
