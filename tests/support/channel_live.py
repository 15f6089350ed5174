# SPDX-License-Identifier: Apache-2.0
"""A gateway behind a real server on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import uvicorn

from confide.channel.gateway import Gateway
from confide.channel.instance import Instance
from confide.channel.settings import ChannelSettings
from support import snp
from support.channel_world import MANIFEST, World, echo

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def serving(app: Any, **options: Any) -> Iterator[str]:
    """Serve an ASGI application on a free port of loopback; its URL."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="critical", access_log=False, **options)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


class Live:
    """A world that is served: the instance uses real time, as the clients do."""

    def __init__(self, app: Any = echo, **settings: Any) -> None:
        self.errors: list[BaseException] = []
        self.world = World(settings=ChannelSettings(**settings))
        self.world.clock = time.monotonic  # type: ignore[assignment]
        self.world.instance = self.instance()
        self.gateway = Gateway(app, self.world.instance, on_error=self.errors.append)
        self.url = ""

    def instance(self) -> Any:
        return Instance(
            self.world.service,
            MANIFEST,
            self.world.attester,
            settings=self.world.settings,
            content=self.world.content,
            random=os.urandom,
            monotonic=time.monotonic,
            wall_clock=lambda: snp.AT,
        )
