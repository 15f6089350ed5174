# SPDX-License-Identifier: Apache-2.0
"""The getter against a hostile service on loopback: bounded, unredirected, and to named hosts only."""

from __future__ import annotations

import gzip
import threading
import time
import tracemalloc
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from confide.crypto import x509
from confide.errors import ConfideError, ConfigurationError, EndorsementsMissing, MalformedError
from confide.tees import fetch, formats
from confide.tees.snp import endorse, wire
from support import snp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOST = "vendor.example"
URL = f"https://{HOST}/certificate"


class ToLoopback(httpx2.BaseTransport):
    """Sends what is meant for a vendor to a server of the test, and counts it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._inner = httpx2.HTTPTransport()
        self.asked: list[str] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(str(request.url))
        request.url = request.url.copy_with(scheme="http", host="127.0.0.1", port=self._port)
        return self._inner.handle_request(request)

    def close(self) -> None:
        self._inner.close()


@contextmanager
def serving(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[ToLoopback]:
    """A service on loopback that answers every request with ``answer`` and ends with the test."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                answer(self)
            except OSError:
                return  # The client hung up, as it should.

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield ToLoopback(server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)


def respond(status: int = 200, body: bytes = b"", **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in ({"content-length": str(len(body))} | headers).items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def get(transport: ToLoopback, **options: Any) -> bytes:
    return fetch.get(
        URL, allowed_hosts=frozenset({HOST}), transport=transport, **({"timeout": 5.0} | options)
    )


def test_a_document_is_fetched() -> None:
    with serving(respond(body=b"document")) as transport:
        assert get(transport) == b"document"
        assert transport.asked == [URL]


@pytest.mark.parametrize(
    ("answer", "retryable"),
    [
        (respond(301, location="https://vendor.example/other"), False),
        (respond(302, location="http://127.0.0.1:9/other"), False),
        (respond(307, location="https://elsewhere.example/"), False),
        (respond(404, b"<html>"), False),
        (respond(204), False),
        (respond(206, b"part"), False),
        (respond(429), True),
        (respond(500, b"x"), True),
        (respond(200, gzip.compress(bytes(1 << 20)), content_encoding="gzip"), False),
        (respond(200, b"short", content_length="10"), True),
    ],
)
def test_ev_34_every_answer_but_a_document_is_refused(answer: Any, retryable: bool) -> None:
    with serving(answer) as transport:
        with pytest.raises(EndorsementsMissing) as caught:
            get(transport)

        assert caught.value.retryable is retryable
        assert transport.asked == [URL]


def test_ev_34_a_body_without_end_is_cut_off_at_the_limit() -> None:
    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("content-length", str(5 << 30))
        handler.end_headers()
        for _ in range(1 << 16):
            handler.wfile.write(bytes(1 << 16))

    with serving(endless) as transport:
        tracemalloc.start()
        try:
            with pytest.raises(EndorsementsMissing):
                get(transport, max_bytes=100_000)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak < 8_000_000


def test_ev_34_a_body_of_exactly_the_limit_is_accepted_and_one_byte_more_is_not() -> None:
    with serving(respond(body=bytes(1000))) as transport:
        assert len(get(transport, max_bytes=1000)) == 1000
    with serving(respond(body=bytes(1001))) as transport, pytest.raises(EndorsementsMissing):
        get(transport, max_bytes=1000)


def drip_body(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("content-length", "1000")
    handler.end_headers()
    for _ in range(60):
        handler.wfile.write(b"x")
        handler.wfile.flush()
        time.sleep(0.05)


def drip_headers(handler: BaseHTTPRequestHandler) -> None:
    for byte in b"HTTP/1.1 200 OK\r\nx-header: ".ljust(60, b"x"):
        handler.wfile.write(bytes((byte,)))
        handler.wfile.flush()
        time.sleep(0.05)


@pytest.mark.parametrize("drip", [drip_body, drip_headers])
def test_ev_34_a_service_that_drips_is_left(drip: Callable[[BaseHTTPRequestHandler], None]) -> None:
    with serving(drip) as transport:
        begun = time.monotonic()
        with pytest.raises(EndorsementsMissing) as caught:
            get(transport, timeout=0.5)
        took = time.monotonic() - begun

    assert caught.value.retryable
    assert took < 2


def test_ev_34_a_service_that_is_not_there_is_an_error_of_confide() -> None:
    transport = ToLoopback(9)

    with pytest.raises(EndorsementsMissing):
        get(transport)


@pytest.mark.parametrize(
    "url",
    [
        "http://vendor.example/certificate",
        "https://elsewhere.example/certificate",
        "https://vendor.example.evil.example/",
        "https://vendor.example:8443/",
        "https://user@vendor.example/",
        "https://user:secret@vendor.example/",
        "https://vendor.example@evil.example/",
        "https://vendor.example/#fragment",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://[bad/",
        "file:///etc/hostname",
        "ftp://vendor.example/",
        "//vendor.example/",
        "",
        "https://v\u0435ndor.example/",
    ],
)
def test_ev_35_only_named_hosts_are_asked(url: str) -> None:
    with serving(respond(body=b"x")) as transport:
        with pytest.raises(ConfigurationError) as caught:
            fetch.get(url, allowed_hosts=frozenset({HOST}), transport=transport)

        assert caught.value.code == "configuration.address"
        assert transport.asked == []


def test_ev_35_the_vendors_hosts_are_the_only_ones_by_default() -> None:
    assert frozenset({"kdsintf.amd.com"}) == fetch.ALLOWED_HOSTS
    with pytest.raises(ConfigurationError):
        fetch.get("https://kds.example/vcek")


def test_ev_35_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")

    with serving(respond(body=b"document")) as transport:
        assert get(transport) == b"document"


def test_what_was_fetched_is_written_as_pem() -> None:
    case = snp.mint()

    text = fetch.certificate_pem(case.certificate)
    assert [one.der for one in x509.parse_pem(text.encode())] == [case.certificate]
    assert fetch.certificate_pem(text.encode()) == text
    assert fetch.certificate_pem(case.authority.crl()).startswith("-----BEGIN X509 CRL-----\n")
    for page in (b"<html>Sorry</html>", b"", b"0", b"\x30\x00", b"{}"):
        with pytest.raises(MalformedError):
            fetch.certificate_pem(page)


@pytest.mark.parametrize(
    ("case", "url"),
    [
        (
            snp.mint(product="Genoa"),
            f"https://kdsintf.amd.com/vcek/v1/Genoa/{'22' * 64}?blSPL=10&teeSPL=00&snpSPL=23&ucodeSPL=84",
        ),
        (
            snp.mint(product="Turin", version=5),
            f"https://kdsintf.amd.com/vcek/v1/Turin/{'33' * 8}?fmcSPL=01&blSPL=02&teeSPL=03&snpSPL=04&ucodeSPL=81",
        ),
        (
            snp.mint(product="Milan"),
            f"https://kdsintf.amd.com/vcek/v1/Milan/{'11' * 64}?blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219",
        ),
    ],
)
def test_the_address_of_a_certificate_is_made_from_chip_id_and_reported_tcb(
    case: snp.Minted, url: str
) -> None:
    product = url.split("/")[5]

    assert formats.endorsement_urls(case.evidence) == (url, f"https://kdsintf.amd.com/vcek/v1/{product}/crl")
    old = wire.decode_report(snp.mint(product=product, version=2).report)
    assert endorse.certificate_url(old, product=product) == url


@pytest.mark.parametrize(
    ("case", "code"),
    [
        (snp.mint(version=2), "configuration.product"),
        (snp.mint(kind="vlek"), "configuration.endorsement"),
        (snp.mint(report={"chip_id": bytes(64)}), "configuration.endorsement"),
        (snp.mint(report={"cpuid_fam_id": 1}), "configuration.product"),
    ],
)
def test_evidence_for_which_nothing_can_be_asked_says_why(case: snp.Minted, code: str) -> None:
    with pytest.raises(ConfideError) as caught:
        formats.endorsement_urls(case.evidence)

    assert caught.value.code == code
