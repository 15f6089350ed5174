# SPDX-License-Identifier: Apache-2.0
"""The host's side of an enclave's egress: connects to the allow-list and hands the sockets over.

It carries no bytes. The list is checked inside the enclave, under measurement; checking it here as well protects the
operator's network from an enclave that misbehaves.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
import stat
import threading
from typing import TYPE_CHECKING, Final

from confide.enclave.egress_messages import MAX_REQUEST, EgressRequest, Status
from confide.errors import MalformedError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["EgressServer"]

_CONNECT_TIMEOUT: Final = 10.0
_MAX_CONNECTING: Final = 32


class EgressServer:
    """Answers on ``packets`` until it is closed; one thread that reads, one short-lived thread for each connect."""

    def __init__(self, packets: socket.socket, allowed: Iterable[str]) -> None:
        self._packets = packets
        self._allowed = frozenset(allowed)
        self._slots = threading.BoundedSemaphore(_MAX_CONNECTING)
        self._thread = threading.Thread(target=self._serve, name="confide-egress", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Stop answering; sockets that were handed over live on."""
        with contextlib.suppress(OSError):
            self._packets.shutdown(socket.SHUT_RDWR)
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout=5)
        self._packets.close()

    def _serve(self) -> None:
        size = array.array("i").itemsize
        while True:
            try:
                data, ancillary, _flags, _ = self._packets.recvmsg(
                    MAX_REQUEST + 1, socket.CMSG_SPACE(4 * size), getattr(socket, "MSG_CMSG_CLOEXEC", 0)
                )
            except OSError:
                return
            if not data and not ancillary:
                return
            received = array.array("i")
            for level, kind, content in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    received.frombytes(content[: len(content) - len(content) % size])
            if len(received) == 1 and stat.S_ISSOCK(os.fstat(received[0]).st_mode):
                self._answer(data, socket.socket(fileno=received[0]))
            else:
                # Nothing to answer on, or too much: not a request.
                for descriptor in received:
                    os.close(descriptor)

    def _answer(self, data: bytes, end: socket.socket) -> None:
        try:
            request = EgressRequest.decode(data)
        except MalformedError:
            _reply(end, Status.REFUSED)
            return
        if request.entry not in self._allowed:
            _reply(end, Status.REFUSED)
        elif not self._slots.acquire(blocking=False):
            _reply(end, Status.BUSY)
        else:
            threading.Thread(target=self._connect, args=(request, end), daemon=True).start()

    def _connect(self, request: EgressRequest, end: socket.socket) -> None:
        try:
            with socket.create_connection(
                (request.host, request.port), timeout=_CONNECT_TIMEOUT
            ) as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.settimeout(None)
                _reply(end, Status.CONNECTED, connection)
        except TimeoutError:
            _reply(end, Status.TIMEOUT)
        except OSError:
            _reply(end, Status.UNREACHABLE)
        finally:
            self._slots.release()


def _reply(end: socket.socket, status: Status, connection: socket.socket | None = None) -> None:
    rights = array.array("i", [] if connection is None else [connection.fileno()]).tobytes()
    with end, contextlib.suppress(OSError):
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if rights else []
        # An enclave that does not read its answer goes without one; it does not hold a thread of the host.
        end.sendmsg([bytes([status])], ancillary, getattr(socket, "MSG_DONTWAIT", 0))
