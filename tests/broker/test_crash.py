# SPDX-License-Identifier: Apache-2.0
"""A broker that is killed at any moment: what was acknowledged is there, what was released is in the log."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from confide.errors import ConfideError
from support.broker_crash import opened

if TYPE_CHECKING:
    from support.broker_world import World

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("crash") / "device"


class Victim:
    """A broker in a process of its own, and what it told."""

    def __init__(self, work: str, folder: Path, device: Path) -> None:
        self.folder, self.device = folder, device
        self.seed = os.urandom(32)
        self.process = subprocess.Popen(
            [
                sys.executable,
                str(TESTS / "support" / "broker_crash.py"),
                work,
                str(folder),
                str(device),
                self.seed.hex(),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(TESTS)},
        )

    def kill_after(self, seconds: float) -> list[str]:
        """Let it work so long after it is ready, kill it, and give the whole lines that it had said."""
        assert self.process.stdout is not None
        first = self.process.stdout.readline()
        if first != b"ready\n":
            _, errors = self.process.communicate(timeout=30)
            pytest.fail(errors.decode())
        time.sleep(seconds)
        self.process.kill()
        output, _ = self.process.communicate(timeout=30)
        assert self.process.returncode == -9
        return output.decode().splitlines()[: output.count(b"\n")]

    def die_alone(self) -> list[str]:
        output, errors = self.process.communicate(timeout=60)
        assert self.process.returncode == -9, errors.decode()
        return output.decode().splitlines()

    def afterwards(self) -> World:
        return opened(self.folder, self.device, self.seed)


def kinds(world: World) -> Counter[str]:
    return Counter(asyncio.run(world.kinds()))


def test_kb_12_killed_between_deciding_and_sending_the_record_is_there_and_counts(
    tmp_path: Path, device: Path
) -> None:
    victim = Victim("die", tmp_path, device)
    assert victim.die_alone() == ["ready"]
    world = victim.afterwards()
    assert kinds(world) == Counter({"put": 1, "policy": 1, "release": 1, "started": 1})
    # The policy admits one instance, and one was decided for: nobody else gets the key, sent or not.
    other = dataclasses.replace(world.enclave, instance=os.urandom(16))
    with pytest.raises(ConfideError) as caught:
        asyncio.run(world.fetch("weights", enclave=other))
    assert caught.value.code == "broker.denied"
    world.stop()


def killed_while_releasing(folder: Path, device: Path, seconds: float) -> None:
    victim = Victim("release", folder, device)
    told = victim.kill_after(seconds)
    world = victim.afterwards()
    recorded = kinds(world)["release"]
    # Each key that left is recorded. One more may be recorded than was told: killed after the commit.
    assert len(told) <= recorded <= len(told) + 1
    assert not world.store.anchored
    world.stop()


@pytest.mark.parametrize("seconds", [0.0, 0.013, 0.05, 0.2])
def test_kb_14_killed_while_releasing_no_release_is_without_its_record(
    tmp_path: Path, device: Path, seconds: float
) -> None:
    killed_while_releasing(tmp_path, device, seconds)


def killed_while_changing(folder: Path, device: Path, seconds: float) -> None:
    victim = Victim("policies", folder, device)
    told = victim.kill_after(seconds)
    world = victim.afterwards()
    listed = asyncio.run(world.client.list(world.owner))
    (policy,) = listed["policies"]
    newest = int(told[-1].split()[1]) if told else 3600
    # The old or the new one, whole: what was acknowledged, or the one change that was under way.
    assert policy["lease_seconds"] in {newest, newest + 1 if told else 101}
    assert policy["appraisal"] == world.enclave.policy()
    assert asyncio.run(world.fetch("weights")).seconds == policy["lease_seconds"]
    world.stop()


@pytest.mark.parametrize("seconds", [0.0, 0.011, 0.07])
def test_kb_07_killed_while_policies_change_the_old_or_the_new_one_is_in_force(
    tmp_path: Path, device: Path, seconds: float
) -> None:
    killed_while_changing(tmp_path, device, seconds)


def killed_while_revoking(folder: Path, device: Path, seconds: float) -> None:
    victim = Victim("revoke", folder, device)
    told = victim.kill_after(seconds)
    world = victim.afterwards()
    listed = asyncio.run(world.client.list(world.owner))
    found = {entry["version"]: entry["revoked"] for entry in listed["secrets"]}
    for line in told:
        what, version = line.split()
        if what == "revoked":
            assert found[int(version)] is True
        else:
            assert int(version) in found
    world.stop()


@pytest.mark.parametrize("seconds", [0.02, 0.09])
def test_kb_06_killed_while_revoking_what_was_acknowledged_stays_revoked(
    tmp_path: Path, device: Path, seconds: float
) -> None:
    killed_while_revoking(tmp_path, device, seconds)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_kb_14_killed_at_many_points(tmp_path: Path, device: Path) -> None:
    for number in range(25):
        for work in (killed_while_releasing, killed_while_changing, killed_while_revoking):
            folder = tmp_path / f"{work.__name__}-{number}"
            folder.mkdir()
            work(folder, device, number * 0.0077)
