# SPDX-License-Identifier: Apache-2.0
"""Starts the emulated kernel files of ``kernel_tree``, or skips the test with the reason why it cannot."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_STARTS_WITHIN = 10.0


@dataclass(frozen=True, slots=True)
class Kernel:
    """A mounted tree, and what callers changed in it so far."""

    root: Path
    file: Path

    @property
    def journal(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.file.read_text().splitlines()]


def needed() -> None:
    """Skip where FUSE cannot be used."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("/dev/fuse is not there or not open to this user")
    try:
        importlib.import_module("mfusepy")
    except ImportError:
        pytest.skip("the Python package mfusepy is not installed")
    except OSError:
        pytest.skip("libfuse3 is not installed (Debian: fuse3)")


@contextlib.contextmanager
def running(folder: Path, **settings: Any) -> Iterator[Kernel]:
    """The trees of these settings, mounted below ``folder`` until the block ends."""
    needed()
    mountpoint = folder / "mounted"
    mountpoint.mkdir()
    (folder / "settings.json").write_text(json.dumps(settings))
    journal = folder / "journal"
    journal.touch()
    program = subprocess.Popen(
        [
            sys.executable,
            str(Path(__file__).with_name("kernel_tree.py")),
            str(mountpoint),
            str(folder / "settings.json"),
            str(journal),
        ],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        until = time.monotonic() + _STARTS_WITHIN
        while not os.path.ismount(mountpoint):
            if program.poll() is not None or time.monotonic() > until:
                pytest.skip("a FUSE file system cannot be mounted here")
            time.sleep(0.01)
        yield Kernel(mountpoint, journal)
    finally:
        program.communicate(timeout=10)
