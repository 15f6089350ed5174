# SPDX-License-Identifier: Apache-2.0
"""Plain clients on this machine, through the proxy, to a service in the envelope."""

from __future__ import annotations

import http.client
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from confide.channel.async_transport import AsyncAttestedTransport
from confide.channel.proxy import Proxy
from support import snp
from support.channel_live import serving
from support.channel_world import verifier

if TYPE_CHECKING:
    from collections.abc import Callable


def call(
    url: str, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """One request with the standard library's client, which knows nothing of envelopes."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        response = connection.getresponse()
        return response.status, {key.lower(): value for key, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def proxy(service: Any, **options: Any) -> Proxy:
    return Proxy(AsyncAttestedTransport(service.url, verifier(**options), clock=lambda: snp.AT))


def test_a_plain_client_talks_to_the_enclave(live: Callable[..., Any]) -> None:
    service = live()
    with serving(proxy(service)) as url:
        for size in (0, 5, 100_000, 3_000_000):
            body = os.urandom(size)
            status, headers, answer = call(url, "POST", "/echo?x=%20y", body)

            assert (status, answer) == (200, body)
            assert headers["x-method"] == "POST"


def test_streams_pass_in_both_directions(live: Callable[..., Any]) -> None:
    service = live()
    with serving(proxy(service)) as url:
        _, _, answer = call(url, "POST", "/echo", iter([b"one ", b"two ", b"three"]))
        _, _, events = call(url, "GET", "/stream")

    assert answer == b"one two three"
    assert events == b"event 0;event 1;event 2;event 3;event 4;"


def test_evidence_that_is_refused_is_a_502_with_its_code(live: Callable[..., Any]) -> None:
    service = live()
    with serving(proxy(service, id="another tenant")) as url:
        status, _, answer = call(url, "POST", "/echo", b"never sent")

    assert status == 502
    assert json.loads(answer)["error"]["code"] == "not_acceptable.identity"
    assert len(service.world.instance.table) == 0


def test_an_answer_that_breaks_off_does_not_look_whole(live: Callable[..., Any]) -> None:
    service = live()
    with serving(proxy(service)) as url, pytest.raises(http.client.HTTPException):
        call(url, "GET", "/fail-later")


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", ""])
def test_a_name_that_is_not_loopbacks_is_refused(live: Callable[..., Any], host: str) -> None:
    service = live()
    with serving(proxy(service)) as url:
        status, _, answer = call(url, "GET", "/echo", headers={"host": host})

    assert (status, answer) == (421, b"")
    assert len(service.world.instance.table) == 0
