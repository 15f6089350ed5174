# SPDX-License-Identifier: Apache-2.0
"""The committed corpus: it reaches behind the first check of every decoder, and nothing near it breaks a promise."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from fuzz import __main__ as runner
from fuzz.targets import TARGETS

from confide.errors import ConfideError

if TYPE_CHECKING:
    from pathlib import Path

CORPUS = runner.CORPUS
SEEDS = sorted(path for path in CORPUS.glob("*/*") if path.is_file())


def test_every_target_has_seeds_and_every_seed_a_target() -> None:
    assert {path.parent.name for path in SEEDS} == set(TARGETS)
    assert sum(path.stat().st_size for path in SEEDS) < 1 << 20


@pytest.mark.parametrize("seed", SEEDS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_a_seed_is_accepted_unless_it_is_called_refused(seed: Path) -> None:
    target = TARGETS[seed.parent.name]
    data = seed.read_bytes()
    assert len(data) <= target.max_len

    if seed.name.startswith("refused"):
        with pytest.raises(ConfideError):
            target.run(data)
    else:
        target.run(data)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_ev_04_what_is_near_a_seed_gives_errors_of_confide_only(name: str) -> None:
    """Cuts, doubled parts, flipped bits and swapped seeds at places that follow from the seed."""
    target = TARGETS[name]
    seeds = [path.read_bytes() for path in SEEDS if path.parent.name == name]
    for data in seeds:
        for number in range(60):
            place = int.from_bytes(hashlib.sha256(bytes((number,)) + data).digest()[:4], "big") % len(data)
            flipped = bytearray(data)
            flipped[place] ^= 1 << number % 8
            other = seeds[number % len(seeds)]
            for changed in (
                bytes(flipped),
                data[:place],
                data[:place] + data,
                data + data[place:],
                data[:place] + data[place + 1 :],
                data[:place] + other[place:],
                data[:place] + b"\xff\xff\xff\xff" + data[place + 4 :],
            ):
                try:
                    target.run(changed)
                except ConfideError:
                    continue


RUNNER = """
import sys
from pathlib import Path
from confide.errors import ConfideError
from fuzz import __main__ as runner
from fuzz.targets import Target

def wrong(data):
    if len(data) > 2:
        raise IndexError

def right(data):
    if len(data) > 2:
        raise ConfideError("x", "refused")

folder = Path(sys.argv[1])
found = runner._fuzz_apart("wrong", Target(wrong), 5, folder / "wrong")
nothing = runner._fuzz_apart("right", Target(right), 1, folder / "right")
sys.exit(0 if (found, nothing) == (1, 0) and list((folder / "wrong").glob("crash-*")) else 1)
"""


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="the fuzzer is not to be had for this Python")
def test_the_runner_notices_what_a_target_does_wrong(tmp_path: Path, repository: Path) -> None:
    """In a process of its own: the runner forks, and the tests' process has threads."""
    pytest.importorskip("atheris", reason="the fuzzer is not installed: it is in the dependency group `fuzz`")

    ended = subprocess.run(
        [sys.executable, "-c", RUNNER, str(tmp_path)],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
