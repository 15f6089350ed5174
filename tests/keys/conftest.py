# SPDX-License-Identifier: Apache-2.0
"""One simulated chip for all tests of keys: making its root takes seconds."""

from __future__ import annotations

import pytest

from confide.simulator.installation import Installation
from confide.simulator.snp import Chip
from support.release_world import ReleaseWorld


@pytest.fixture(scope="session")
def chip(tmp_path_factory: pytest.TempPathFactory) -> Chip:
    return Chip.power_on(Installation.open_or_create(tmp_path_factory.mktemp("simulated") / "device"))


@pytest.fixture
def world(chip: Chip) -> ReleaseWorld:
    return ReleaseWorld(chip)
