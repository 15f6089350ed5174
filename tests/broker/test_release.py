# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from support.broker_world import World


def test_an_admitted_enclave_gets_exactly_what_the_owner_put(world: World) -> None:
    async def story() -> None:
        values = await world.stock("weights", "tokens")
        lease = await world.fetch("weights", "tokens")
        assert {name.name: secret.reveal() for name, secret in lease.secrets.items()} == values
        assert await world.kinds() == ["put", "put", "policy", "release"]

    asyncio.run(story())
