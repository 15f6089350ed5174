# SPDX-License-Identifier: Apache-2.0
"""A simulated installation for tests: made once for a run, since its root takes seconds, and removed with it."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

from confide.simulator.installation import Installation


@functools.cache
def directory() -> Path:
    """The folder of this run's installation."""
    folder = Path(tempfile.mkdtemp(prefix="confide-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    place = folder / "simulator"
    Installation.open_or_create(place)
    return place


def installation() -> Installation:
    """The installation itself, opened anew."""
    return Installation.open_or_create(directory())
