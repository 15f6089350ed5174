# SPDX-License-Identifier: Apache-2.0
"""The getter against a hostile service on loopback: bounded, unredirected, and to named hosts only."""

from __future__ import annotations

import gzip
import time
import tracemalloc
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from confide.crypto import x509
from confide.errors import ConfigurationError, EndorsementsMissing, MalformedError
from confide.tees import fetch
from confide.tees.nitro import endorse as nitro
from support import snp, vendor_service
from support.vendor_service import HOST, respond, serving

if TYPE_CHECKING:
    from http.server import BaseHTTPRequestHandler

URL = f"https://{HOST}/certificate"


@pytest.fixture
def get(monkeypatch: pytest.MonkeyPatch) -> Callable[..., bytes]:
    """Ask a service of the test for ``URL`` with the real client, to which only the CA of the tests is told."""

    def asked(service: vendor_service.Service, url: str = URL, **options: Any) -> bytes:
        vendor_service.reached(service, monkeypatch)
        chosen: dict[str, Any] = {
            "timeout": 5.0,
            "allowed_hosts": frozenset({HOST}),
            "transport": vendor_service.transport(),
        }
        return fetch.get(url, **(chosen | options))

    return asked


Get = Callable[..., bytes]


def test_a_document_is_fetched(get: Get) -> None:
    with serving(respond(body=b"document")) as service:
        assert get(service) == b"document"
        assert service.asked == [f"GET {URL}"]


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
def test_ev_34_every_answer_but_a_document_is_refused(get: Get, answer: Any, retryable: bool) -> None:
    with serving(answer) as service:
        with pytest.raises(EndorsementsMissing) as caught:
            get(service)

        assert caught.value.retryable is retryable
        assert service.asked == [f"GET {URL}"]


def test_ev_34_a_body_without_end_is_cut_off_at_the_limit(get: Get) -> None:
    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("content-length", str(5 << 30))
        handler.end_headers()
        for _ in range(1 << 16):
            handler.wfile.write(bytes(1 << 16))

    with serving(endless) as service:
        tracemalloc.start()
        try:
            with pytest.raises(EndorsementsMissing):
                get(service, max_bytes=100_000)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak < 8_000_000


def test_ev_34_a_body_of_exactly_the_limit_is_accepted_and_one_byte_more_is_not(get: Get) -> None:
    with serving(respond(body=bytes(1000))) as service:
        assert len(get(service, max_bytes=1000)) == 1000
    with serving(respond(body=bytes(1001))) as service, pytest.raises(EndorsementsMissing):
        get(service, max_bytes=1000)


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
def test_ev_34_a_service_that_drips_is_left(get: Get, drip: Callable[[BaseHTTPRequestHandler], None]) -> None:
    with serving(drip) as service:
        begun = time.monotonic()
        with pytest.raises(EndorsementsMissing) as caught:
            get(service, timeout=0.5)
        took = time.monotonic() - begun

    assert caught.value.retryable
    assert took < 2


def test_ev_34_a_service_that_is_not_there_is_an_error_of_confide(get: Get) -> None:
    with serving(respond()) as service:
        pass

    with pytest.raises(EndorsementsMissing) as caught:
        get(service)
    assert caught.value.retryable


@pytest.mark.parametrize(
    "served",
    [
        {"seed": 2},
        {"hosts": ("elsewhere.example",)},
        {"hosts": ("sub.vendor.example",)},
        {"not_after": vendor_service.NOW - timedelta(hours=1)},
        {"not_before": vendor_service.NOW + timedelta(hours=1)},
        {"tls": False},
    ],
    ids=["other CA", "other host", "host below", "expired", "not yet valid", "plain http"],
)
def test_ev_34_a_service_that_cannot_prove_its_name_is_told_nothing(get: Get, served: dict[str, Any]) -> None:
    with serving(respond(body=b"document"), **served) as service:
        with pytest.raises(EndorsementsMissing):
            get(service)

        assert service.connections == 1
        assert service.asked == []


def test_ev_34_the_client_trusts_no_ca_but_the_systems(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a transport of the test's, the very service of the passing test is refused, whatever the environment says."""
    monkeypatch.setenv("SSL_CERT_FILE", "/dev/null")

    with serving(respond(body=b"document")) as service:
        assert get(service) == b"document"
        with pytest.raises(EndorsementsMissing):
            get(service, transport=None)

        assert service.asked == [f"GET {URL}"]


@pytest.mark.parametrize("size", [1, 200_000])
def test_ev_34_headers_without_end_are_refused(get: Get, size: int) -> None:
    """One header of that many bytes is read or refused; a hundred of them are always too many."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        for index in range(1 + 200_000 // size // 10):
            handler.send_header(f"x-{index}", "x" * size)
        handler.send_header("content-length", "0")
        handler.end_headers()

    with serving(answer) as service, pytest.raises(EndorsementsMissing):
        get(service)


def test_ev_34_an_answer_without_a_start_is_refused(get: Get) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"SSH-2.0-OpenSSH\r\n" * 100)

    with serving(answer) as service, pytest.raises(EndorsementsMissing):
        get(service)


def test_a_question_is_posted_and_the_headers_that_were_asked_for_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request = fetch.Request(URL, ("x-chain",), body=b"question", content_type="application/ocsp-request")

    with serving(respond(body=b"answer", x_chain="%20a", x_other="b")) as service:
        vendor_service.reached(service, monkeypatch)
        answer = fetch.ask(request, allowed_hosts=frozenset({HOST}), transport=vendor_service.transport())

    assert answer == fetch.Answer(b"answer", {"x-chain": "%20a"})
    assert service.asked == [f"POST {URL}"]
    assert service.bodies == [b"question"]


@pytest.mark.parametrize(
    "headers",
    [{}, {"x_chain": ""}, {"x_chain": "x" * 16385}, {"x_chain": "a", "X_CHAIN": "b"}],
    ids=["absent", "empty", "too long", "twice"],
)
def test_ev_34_a_wanted_header_of_another_form_is_refused(
    headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = fetch.Request(URL, ("x-chain",), leaf="collateral")

    with serving(respond(200, b"answer", **headers)) as service:
        vendor_service.reached(service, monkeypatch)
        with pytest.raises(EndorsementsMissing) as caught:
            fetch.ask(request, allowed_hosts=frozenset({HOST}), transport=vendor_service.transport())

    assert caught.value.code == "endorsements_missing.collateral"


def test_a_question_that_is_too_long_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(respond(body=b"answer")) as service:
        vendor_service.reached(service, monkeypatch)
        with pytest.raises(ConfigurationError):
            fetch.ask(fetch.Request(URL, body=bytes(4097)), allowed_hosts=frozenset({HOST}))

        assert service.connections == 0


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
        "https://vendor.example/a b",
        " https://vendor.example/",
        "https://vendor.example/ ",
        "\0https://vendor.example/",
        "https://vendor.example\t/",
        "https://vendor\n.example/",
        "https://vendor.example/\r\nhost: evil.example",
        "https://vendor.example/\x7f",
    ],
)
def test_ev_35_only_named_hosts_are_asked(get: Get, url: str) -> None:
    with serving(respond(body=b"x")) as service:
        with pytest.raises(ConfigurationError) as caught:
            get(service, url)

        assert caught.value.code == "configuration.address"
        assert service.connections == 0


def test_ev_35_the_vendors_hosts_are_the_only_ones_by_default() -> None:
    vendors = {
        "kdsintf.amd.com",
        "api.trustedservices.intel.com",
        "certificates.trustedservices.intel.com",
        "rim.attestation.nvidia.com",
        "ocsp.ndis.nvidia.com",
    }

    assert vendors == fetch.ALLOWED_HOSTS
    with pytest.raises(ConfigurationError):
        fetch.get("https://kds.example/vcek")


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("aws-nitro-enclaves-crl.s3.amazonaws.com", True),
        ("crl-us-east-1-aws-nitro-enclaves.s3.us-east-1.amazonaws.com", True),
        ("crl-us-gov-west-1-aws-nitro-enclaves.s3.us-gov-west-1.amazonaws.com", True),
        ("crl-us-east-1-aws-nitro-enclaves.s3.us-east-2.amazonaws.com", False),
        ("crl-us-east-1-aws-nitro-enclaves.s3.us-east-1.amazonaws.com.evil.example", False),
        ("evil-aws-nitro-enclaves-crl.s3.amazonaws.com", False),
        ("mine.s3.us-east-1.amazonaws.com", False),
        ("s3.amazonaws.com", False),
    ],
)
def test_ev_35_of_awss_hosts_only_those_of_nitros_crls_are_asked(
    monkeypatch: pytest.MonkeyPatch, host: str, known: bool
) -> None:
    url = f"https://{host}/crl/x.crl"

    with serving(respond(body=b"crl"), hosts=(host[:63],)) as service:
        wanted = vendor_service.reached(service, monkeypatch)
        with pytest.raises((ConfigurationError, EndorsementsMissing)) as caught:
            # Known hosts are connected to, and do not prove their name: the certificate is of another one.
            fetch.get(url, timeout=5, transport=vendor_service.transport(seed=2))

    assert isinstance(caught.value, EndorsementsMissing) is known
    assert nitro.is_crl_host(host) is known
    assert wanted == ([(host, 443)] if known else [])


def test_ev_35_proxies_of_the_environment_are_not_used(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")

    with serving(respond(body=b"document")) as service:
        assert get(service) == b"document"
        assert service.asked == [f"GET {URL}"]


def test_what_was_fetched_is_written_as_pem() -> None:
    case = snp.mint()

    text = fetch.certificate_pem(case.certificate)
    assert [one.der for one in x509.parse_pem(text.encode())] == [case.certificate]
    assert fetch.certificate_pem(text.encode()) == text
    assert fetch.certificate_pem(case.authority.crl()).startswith("-----BEGIN X509 CRL-----\n")
    for page in (b"<html>Sorry</html>", b"", b"0", b"\x30\x00", b"{}"):
        with pytest.raises(MalformedError):
            fetch.certificate_pem(page)
