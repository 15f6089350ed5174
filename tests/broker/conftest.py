# SPDX-License-Identifier: Apache-2.0
"""One simulated chip for all tests of the broker: making its root takes seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from confide.simulator.installation import Installation
from confide.simulator.snp import Chip
from support.broker_world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return Installation.open_or_create(tmp_path_factory.mktemp("simulated") / "device")


@pytest.fixture(scope="session")
def chip(installation: Installation) -> Chip:
    return Chip.power_on(installation)


@pytest.fixture
def make_world(tmp_path: Path, installation: Installation, chip: Chip) -> Iterator[Callable[..., World]]:
    worlds: list[World] = []

    def make(**settings: object) -> World:
        directory = tmp_path / f"broker-{len(worlds)}"
        directory.mkdir()
        worlds.append(World(directory, installation, chip, **settings))
        return worlds[-1]

    yield make
    for world in worlds:
        world.stop()


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()
