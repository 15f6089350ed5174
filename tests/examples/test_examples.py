# SPDX-License-Identifier: Apache-2.0
"""The examples run as they stand, from another folder, and print what they claim."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("numpy")


def run(repository: Path, name: str, home: Path) -> list[str]:
    environment = {
        key: value
        for key, value in os.environ.items()
        if key in {"PATH", "LANG", "PYTHONPATH", "VIRTUAL_ENV"}
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", str(repository / "examples" / name)],
        cwd=home,
        env=environment | {"HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_a_sealed_model_is_attested_and_called(repository: Path, tmp_path: Path) -> None:
    """The scores are those of the formula, from weights that the enclave alone could open; no weights stay behind."""
    lines = run(repository, "sealed_model.py", tmp_path)
    expected = [1 / (1 + math.exp(-value)) for value in (2.0 * 0.5 - 1.0, 2.0)]

    assert lines == [
        "attested: snp SIMULATED",
        "scores: " + ", ".join(f"{score:.3f}" for score in expected),
    ]


def test_data_is_processed_under_a_key_of_the_enclave(repository: Path, tmp_path: Path) -> None:
    """Survives a restart, is refused to another measurement, and to another purpose in the same one."""
    stored, summary, reveal, other = run(repository, "secure_data_processor.py", tmp_path)

    assert stored.startswith("stored: 72 bytes of ciphertext")
    assert summary == 'summary: {"count": 3, "mean": 9.0}'
    assert reveal == "reveal of the records themselves: sealing.integrity"
    assert other == "in another enclave: sealing.integrity"
