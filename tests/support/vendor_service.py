# SPDX-License-Identifier: Apache-2.0
"""Vendors' services on loopback, over real TLS under a CA of the tests.

``reached(service, monkeypatch)`` sends every connection, to whatever host, to the service, so that the client under test is the whole real
one: its address, TLS with the name of the host, and HTTP. Only the CA is told to it, by ``transport()``.
"""

from __future__ import annotations

import functools
import socket
import ssl
import tempfile
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2

from confide.crypto.issue import IssuingKey, issue
from confide.crypto.x509 import Extension
from support import der_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pytest

HOST = "vendor.example"
# TLS looks at the real clock, so that these certificates are made around it.
NOW = datetime.now(UTC).replace(microsecond=0)  # noqa: TID251


def pem(label: str, der: bytes) -> str:
    return ssl.DER_cert_to_PEM_cert(der).replace("CERTIFICATE", label)


@functools.cache
def authority(seed: int = 1) -> tuple[IssuingKey, bytes]:
    """A CA of the tests and its certificate; another ``seed`` is another CA of the same name."""
    key = IssuingKey.from_scalar(77000 + seed, curve="p256")
    der = issue(
        subject="Test TLS CA",
        issuer="Test TLS CA",
        public_key=key.public_key_der,
        signing_key=key,
        serial=seed,
        not_before=NOW - timedelta(days=2),
        not_after=NOW + timedelta(days=30),
        is_ca=True,
        key_usage=frozenset({"key_cert_sign", "crl_sign"}),
    )
    return key, der


def certificate(*hosts: str, seed: int = 1, **changes: Any) -> tuple[bytes, bytes]:
    """PEM of a server's certificate for ``hosts`` and of its key."""
    ca, _ = authority(seed)
    key = IssuingKey.from_scalar(88000 + seed, curve="p256")
    names = b"".join(der_bytes.tagged(0x82, host.encode()) for host in hosts)
    fields: dict[str, Any] = {
        "subject": "Test service",
        "issuer": "Test TLS CA",
        "public_key": key.public_key_der,
        "signing_key": ca,
        "serial": 100,
        "not_before": NOW - timedelta(days=1),
        "not_after": NOW + timedelta(days=1),
        "is_ca": False,
        "key_usage": frozenset({"digital_signature"}),
        "extensions": {"2.5.29.17": Extension(critical=False, value=der_bytes.sequence(names))},
    }
    return pem("CERTIFICATE", issue(**(fields | changes))).encode(), key.to_pem()


def transport(seed: int = 1) -> httpx2.HTTPTransport:
    """httpx2's own transport, which trusts the CA of the tests and nothing else."""
    context = ssl.create_default_context(cadata=pem("CERTIFICATE", authority(seed)[1]))
    return httpx2.HTTPTransport(verify=context)


class Service:
    """A service that answers with what ``answer`` writes, and says what it was asked."""

    def __init__(self, answer: Callable[[BaseHTTPRequestHandler], None]) -> None:
        self.asked: list[str] = []
        self.bodies: list[bytes] = []
        self.connections = 0
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service.asked.append(f"{self.command} https://{self.headers['host']}{self.path}")
                length = int(self.headers.get("content-length", "0"))
                service.bodies.append(self.rfile.read(length))
                try:
                    answer(self)
                except OSError:
                    return  # The client hung up, as it should.

            do_POST = do_GET  # noqa: N815 - the name that the standard library looks for

            def log_message(self, *_: Any) -> None:
                return

        self.handler = Handler
        self.port = 0


@contextmanager
def serving(
    answer: Callable[[BaseHTTPRequestHandler], None],
    *,
    hosts: tuple[str, ...] = (HOST,),
    tls: bool = True,
    **changes: Any,
) -> Iterator[Service]:
    """A service on loopback with a certificate for ``hosts``, which ends with the test."""
    service = Service(answer)

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def get_request(self) -> tuple[socket.socket, Any]:
            connection, address = super().get_request()
            service.connections += 1
            connection.settimeout(10)
            return connection, address

        def finish_request(self, request: Any, client_address: Any) -> None:
            if tls:
                try:
                    request = context.wrap_socket(request, server_side=True)
                except OSError:
                    return  # The client did not like the certificate.
            try:
                service.handler(request, client_address, self)
            finally:
                request.close()

        def handle_error(self, *_: Any) -> None:
            return

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        chain, key = certificate(*hosts, **changes)
        paths = Path(folder, "chain.pem"), Path(folder, "key.pem")
        paths[0].write_bytes(chain)
        paths[1].write_bytes(key)
        context.load_cert_chain(*paths)
    server = Server(("127.0.0.1", 0), service.handler)
    service.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)


def reached(service: Service, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Lead every connection to ``service``; the list tells where each of them wanted to go."""
    wanted: list[tuple[str, int]] = []
    create = socket.create_connection

    def led(address: tuple[str, int], *arguments: Any, **options: Any) -> socket.socket:
        wanted.append(address)
        return create(("127.0.0.1", service.port), *arguments, **options)

    monkeypatch.setattr(socket, "create_connection", led)
    return wanted


def respond(status: int = 200, body: bytes = b"", **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    """An answer with these headers; their names are written with underscores."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in ({"content-length": str(len(body))} | headers).items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer
