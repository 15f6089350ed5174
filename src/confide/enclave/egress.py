# SPDX-License-Identifier: Apache-2.0
"""The way out of an enclave: to the measured allow-list and nowhere else, through sockets that the host connects.

The check is here, inside; the host checks too, but nobody inside relies on that. The host sees every byte and may connect to
somebody else, so what goes out must be the attested envelope, or TLS that ends in the enclave under trust anchors from
the manifest (an ``ssl_context`` made from measured data; without one, https is refused).
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
import stat
from typing import TYPE_CHECKING, Final

from confide.enclave.egress_messages import PACKETS, EgressRequest, Status
from confide.errors import EnclaveError, MalformedError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

    from confide.enclave.egress_transport import EgressTransport

__all__ = ["Egress"]

_TIMEOUT: Final = 10.0
_DESCRIPTORS: Final = 4


class Egress:
    """Connects to the entries of ``allowed`` (``host:port``) through the host's end of ``packets``."""

    def __init__(self, packets: socket.socket | None, allowed: Iterable[str]) -> None:
        if packets is not None:
            # A host that does not read must not hold a thread in here.
            packets.settimeout(_TIMEOUT)
        self._packets = packets
        self._allowed = frozenset(allowed)

    def connect(self, host: str, port: int, *, timeout: float = _TIMEOUT) -> socket.socket:
        """A connected stream socket. Thread-safe.

        Raises ``enclave.sandbox`` for what the manifest does not allow and for a host that answers otherwise than it
        should, ``enclave.deadline`` when it does not answer.
        """
        request = EgressRequest(host.lower(), port)
        if request.entry not in self._allowed or self._packets is None:
            raise EnclaveError(
                "sandbox",
                "the measured egress list does not contain this destination",
                hint="Add host:port to the service's egress and measure it again.",
                stage="egress",
            )
        ours, theirs = socket.socketpair(socket.AF_UNIX, PACKETS)
        try:
            with theirs:
                ours.settimeout(timeout)
                rights = array.array("i", [theirs.fileno()])
                self._packets.sendmsg(
                    [request.encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights.tobytes())]
                )
            return _read_answer(ours)
        except TimeoutError as error:
            raise EnclaveError(
                "deadline", "the host did not connect in time", stage="egress", retryable=True
            ) from error
        except OSError as error:
            raise EnclaveError("sandbox", "the host's egress is gone", stage="egress") from error
        finally:
            ours.close()

    def transport(self, *, ssl_context: ssl.SSLContext | None = None) -> EgressTransport:
        """For ``httpx2.Client(transport=...)``."""
        # Most services never leave; they do not wait for an HTTP client to be imported.
        from confide.enclave.egress_transport import EgressTransport

        return EgressTransport(self, ssl_context=ssl_context)


def _read_answer(ours: socket.socket) -> socket.socket:
    size = array.array("i").itemsize
    data, ancillary, flags, _ = ours.recvmsg(
        2, socket.CMSG_SPACE(_DESCRIPTORS * size), getattr(socket, "MSG_CMSG_CLOEXEC", 0)
    )
    received = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            received.frombytes(content[: len(content) - len(content) % size])
    sockets = [
        socket.socket(fileno=descriptor) if _is_socket(descriptor) else descriptor for descriptor in received
    ]
    try:
        if len(data) != 1 or flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC) or data[0] not in set(Status):
            raise MalformedError("unknown_format", "the host's answer to an egress request is not one")
        status = Status(data[0])
        if status is not Status.CONNECTED:
            if sockets:
                raise MalformedError("unknown_format", "the host sent a socket with a refusal")
            raise _refused(status)
        if len(sockets) != 1:
            raise MalformedError("unknown_format", "the host did not send exactly one socket")
        connected = sockets[0]
        if isinstance(connected, int) or not _is_connected_stream(connected):
            raise MalformedError("unknown_format", "what the host sent is not a connected stream socket")
        sockets.clear()
        # It arrives with whatever file status flags the host left on it.
        connected.settimeout(None)
        return connected
    finally:
        for item in sockets:
            if isinstance(item, int):
                _close(item)
            else:
                item.close()


def _refused(status: Status) -> EnclaveError:
    leaf = "deadline" if status is Status.TIMEOUT else "overloaded" if status is Status.BUSY else "sandbox"
    return EnclaveError(
        leaf,
        f"the host could not connect: {status.name.lower()}",
        hint="Is the destination up, and in the host's view of the network?",
        stage="egress",
        retryable=status is not Status.REFUSED,
    )


def _is_socket(descriptor: int) -> bool:
    return stat.S_ISSOCK(os.fstat(descriptor).st_mode)


def _close(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        os.close(descriptor)


def _is_connected_stream(connection: socket.socket) -> bool:
    try:
        connection.getpeername()
        kind = connection.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
    except OSError:
        return False
    families = {socket.AF_INET, socket.AF_INET6, socket.AF_UNIX}
    return kind == socket.SOCK_STREAM and connection.family in families
