# SPDX-License-Identifier: Apache-2.0
"""HTTP through an enclave's egress, for httpx2."""

from __future__ import annotations

import contextlib
import select
import ssl
from typing import TYPE_CHECKING, Any

import httpcore2
import httpx2

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Iterator

    from confide.enclave.egress import Egress

__all__ = ["EgressTransport"]


class _Backend(httpcore2.NetworkBackend):
    def __init__(self, egress: Egress) -> None:
        self._egress = egress

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        del local_address, socket_options  # The host decides both.
        return _Stream(self._egress.connect(host, port, timeout=10.0 if timeout is None else timeout))


class _Stream(httpcore2.NetworkStream):
    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with _translated(httpcore2.ReadTimeout, httpcore2.ReadError):
            self._socket.settimeout(timeout)
            return self._socket.recv(max_bytes)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        with _translated(httpcore2.WriteTimeout, httpcore2.WriteError):
            self._socket.settimeout(timeout)
            self._socket.sendall(buffer)

    def close(self) -> None:
        self._socket.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        with _translated(httpcore2.ConnectTimeout, httpcore2.ConnectError):
            self._socket.settimeout(timeout)
            return _Stream(ssl_context.wrap_socket(self._socket, server_hostname=server_hostname))

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            # Asked before a kept connection is used again: one that the other side closed is readable.
            poll = select.poll()
            poll.register(self._socket, select.POLLIN)
            return bool(poll.poll(0))
        return None


@contextlib.contextmanager
def _translated(timeout: type[Exception], other: type[Exception]) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise timeout("the connection timed out") from error
    except OSError as error:
        raise other("the connection failed") from error


class _Body(httpx2.SyncByteStream):
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        with _as_httpx():
            yield from self._stream

    def close(self) -> None:
        self._stream.close()


@contextlib.contextmanager
def _as_httpx() -> Iterator[None]:
    try:
        yield
    except (httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError) as error:
        # The same names at both levels; the outer ones are what clients catch.
        kind = getattr(httpx2, type(error).__name__, httpx2.TransportError)
        raise kind("the connection through the host failed") from error


class EgressTransport(httpx2.BaseTransport):
    """HTTP/1.1 through the enclave's egress."""

    def __init__(self, egress: Egress, *, ssl_context: ssl.SSLContext | None = None) -> None:
        # A context without a single root refuses every certificate.
        self._pool = httpcore2.ConnectionPool(
            ssl_context=ssl_context or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            max_connections=16,
            network_backend=_Backend(egress),
        )

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request; `EnclaveError` where the egress refuses, httpx2's errors where the network fails."""
        url = request.url
        outgoing = httpcore2.Request(
            method=request.method,
            url=httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        with _as_httpx():
            response = self._pool.handle_request(outgoing)
        return httpx2.Response(
            status_code=response.status,
            headers=response.headers,
            stream=_Body(response.stream),
            extensions=response.extensions,
        )

    def close(self) -> None:
        """Close every connection."""
        self._pool.close()
