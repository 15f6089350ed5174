# SPDX-License-Identifier: Apache-2.0
"""RT-11: what is refused is refused as well when Python drops assert statements, and under any locale or hash seed.

A quick subset; ``make test-optimized`` runs all of what decides trust.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SUBSET = (
    "tests/attestation/test_verifier.py",
    "tests/enclave/test_control.py",
    "tests/enclave/test_egress.py",
    "tests/enclave/confinement",
)


@pytest.mark.parametrize(
    ("flags", "variables"),
    [
        (("-O",), {"LC_ALL": "C", "PYTHONHASHSEED": "0"}),
        (("-OO",), {"LC_ALL": "tr_TR.UTF-8", "PYTHONHASHSEED": "4294967295"}),
    ],
    ids=["-O, plain C locale", "-OO, Turkish locale"],
)
def test_rt_11_attacks_are_refused_without_asserts_and_in_other_locales(
    flags: tuple[str, ...], variables: dict[str, str]
) -> None:
    """The attack tests of what decides trust and of the borders of an enclave, in an interpreter of that kind."""
    command = [sys.executable, *flags, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-x"]
    done = subprocess.run(
        [*command, "-m", "not slow", "-k", "not real_enclave", *SUBSET],
        cwd=ROOT,
        capture_output=True,
        timeout=110,
        check=False,
        env={**os.environ, **variables},
    )
    tail = done.stdout.decode("utf-8", "replace")[-3000:]
    assert done.returncode == 0, tail
    assert " passed" in tail
