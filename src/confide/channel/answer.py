# SPDX-License-Identifier: Apache-2.0
"""A response on its way out: frames are gathered for a moment, then sent in one piece.

Small pieces in quick succession become one frame, which hides how a stream of tokens was cut and costs less.
Source: ``docs/spec/envelope.md``, sections 5 and 10.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from confide.channel import head as heads
from confide.errors import ChannelError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from confide.channel.deadlines import Deadlines
    from confide.channel.message import OutgoingMessage
    from confide.channel.settings import ChannelSettings

__all__ = ["Answer"]

_FIELDS = ((b"content-type", heads.RESPONSE_TYPE), (b"cache-control", b"no-store"))


class Answer:
    """Sends ``message`` through ``send``. With ``bodiless`` what the application writes as a body is dropped."""

    def __init__(
        self,
        message: OutgoingMessage,
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
        settings: ChannelSettings,
        deadlines: Deadlines,
        *,
        bodiless: bool,
    ) -> None:
        self._message = message
        self._send = send
        self._settings = settings
        self._deadlines = deadlines
        self._bodiless = bodiless
        self._pending = [message.start()]
        self._started = False
        self._lock = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._failure: ConnectionError | ChannelError | None = None

    async def write(self, body: bytes, *, last: bool) -> None:
        """Add to the body. Raises ``protocol`` if it does not keep to its declared length, ``timeout`` if the peer
        takes nothing.
        """
        async with self._lock:
            if self._failure is not None:
                raise self._failure
            message = self._message
            if not self._bodiless:
                for frame in message.write(body):
                    self._pending.append(frame)
                    await self._emit(last=False)
            if last:
                self._pending.append(message.finish())
                await self._emit(last=True)
                return
            if self._timer is None and (message.waiting or self._pending):
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(self._settings.flush_seconds, self._flush_soon)

    async def abort(self, code: bytes) -> None:
        """End the response as failed."""
        async with self._lock:
            if self._failure is None:
                self._pending.append(self._message.abort(code))
                await self._emit(last=True)

    def close(self) -> None:
        """Nothing more will be sent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _flush_soon(self) -> None:
        self._timer = None
        self._flushing = asyncio.get_running_loop().create_task(self._flush())

    async def _flush(self) -> None:
        async with self._lock:
            if self._message.ended and self._started:
                return
            self._pending.append(self._message.flush())
            try:
                await self._emit(last=False)
            except (ConnectionError, ChannelError) as error:
                self._failure = error  # The application learns of it with its next piece.

    async def _emit(self, *, last: bool) -> None:
        data = self._pending[0] if len(self._pending) == 1 else b"".join(self._pending)
        self._pending = []
        if last:
            self.close()
        elif not data:
            return
        try:
            with self._deadlines.within(self._settings.frame_seconds):
                if not self._started:
                    self._started = True
                    fields = list(_FIELDS)
                    if last:
                        fields.append((b"content-length", b"%d" % len(data)))
                    await self._send({"type": "http.response.start", "status": 200, "headers": fields})
                await self._send({"type": "http.response.body", "body": data, "more_body": not last})
        except TimeoutError:
            raise ChannelError("timeout", "the peer takes nothing of the response") from None
