# SPDX-License-Identifier: Apache-2.0
"""A broker in a process of its own that works until it is killed: run by tests/broker/test_crash.py.

    python broker_crash.py WORK DATABASE_FOLDER DEVICE_FOLDER SEED

Each line on stdout is one thing that somebody outside has been told.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from confide.broker import releases
from confide.crypto.secret import Secret
from confide.crypto.signing import SigningKey
from confide.keys.release import SecretName
from confide.simulator.installation import Installation
from confide.simulator.snp import Chip
from support.broker_world import TENANT, World


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def release_for_ever(world: World) -> None:
    await world.stock("weights")
    say("ready")
    while True:
        lease = await world.fetch("weights")
        say(f"released {len(lease.secrets)}")


async def die_between_decision_and_answer(world: World) -> None:
    await world.stock("weights", max_instances=1)

    def die(*_: Any, **__: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(releases, "wrap", die)  # noqa: B010 - the module does not export it
    say("ready")
    await world.fetch("weights")
    say("released 1")


async def change_policies_for_ever(world: World) -> None:
    await world.stock("weights")
    say("ready")
    lease = 100
    while True:
        lease += 1
        await world.set_policy(["weights"], lease_seconds=lease)
        say(f"policy {lease}")


async def put_and_revoke_for_ever(world: World) -> None:
    say("ready")
    version = 0
    while True:
        version += 1
        name = SecretName("weights", version)
        await world.client.put(world.owner, name, Secret(b"v%d" % version))
        say(f"put {version}")
        await world.client.revoke(world.owner, secret=name)
        say(f"revoked {version}")


WORK = {
    "release": release_for_ever,
    "die": die_between_decision_and_answer,
    "policies": change_policies_for_ever,
    "revoke": put_and_revoke_for_ever,
}


def opened(folder: Path, device: Path, seed: bytes) -> World:
    """The broker over the same file, for the same owner, in this process or the one after it."""
    installation = Installation.open_or_create(device)
    owner = SigningKey.from_bytes(seed)
    world = World(
        folder,
        installation,
        Chip.power_on(installation),
        owners=frozenset({owner.public}),
        allow_unanchored=True,
    )
    world.owner = owner
    return world


def main() -> None:
    work, folder, device, seed = sys.argv[1:]
    world = opened(Path(folder), Path(device), bytes.fromhex(seed))
    assert TENANT
    asyncio.run(WORK[work](world))


if __name__ == "__main__":
    main()
