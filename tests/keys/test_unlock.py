# SPDX-License-Identifier: Apache-2.0
"""``unlock`` over HTTP: the whole way on loopback, and servers that lie, stall, redirect and flood."""

from __future__ import annotations

import asyncio
import dataclasses
import gzip
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from confide.crypto.secret import Secret
from confide.crypto.signing import SigningKey
from confide.enclave.unlocking import Unlocking
from confide.errors import AttestationError, ChannelError, ConfideError, ConfigurationError
from confide.keys.identity import Identity
from confide.keys.release import ANSWER_PATH, CONTENT_TYPE, EVIDENCE_TYPE, REQUEST_PATH, SecretName
from confide.keys.unlock import UnlockResult, awaited, unlock
from support.asgi_call import acall, served
from support.release_world import CANARY, MANIFEST, ReleaseWorld, SimulatedAttester, service

if TYPE_CHECKING:
    from collections.abc import Callable

    from confide.keys.receiver import Released


class Waiting:
    """An enclave that waits for the owner's secrets, and what it got."""

    def __init__(self, world: ReleaseWorld, **changed: Any) -> None:
        self.released: list[Released] = []
        arguments: dict[str, Any] = {
            "attester": SimulatedAttester(world.chip), "service": service(), "manifest": MANIFEST,
            "pins": {"weights": world.owner.public}, "on_released": self.released.append,
            "monotonic": world.clock, "wall_clock": world.clock.wall,
        }  # fmt: skip
        arguments.update(changed)
        self.app = Unlocking(**arguments)

    @property
    def secrets(self) -> dict[str, bytes]:
        return {name.name: s.reveal() for released in self.released for name, s in released.secrets.items()}


def reply(status: int, headers: Any = None, content: bytes = b"") -> httpx2.Response:
    """An answer whose raw bytes can be streamed, as those of a socket are."""
    return httpx2.Response(status, headers=headers, stream=httpx2.ByteStream(content))


def go(world: ReleaseWorld, url: str = "http://enclave.test", **changed: Any) -> UnlockResult:
    arguments: dict[str, Any] = {
        "verifier": world.verifier(), "secrets": world.secrets, "identity": world.owner,
        "wall_clock": world.clock.wall, "monotonic": world.clock,
    }  # fmt: skip
    arguments.update(changed)
    return unlock(url, **arguments)


def enclave_transport(
    app: Any,
    change: Callable[[httpx2.Request, httpx2.Response], httpx2.Response] | None = None,
    seen: list[httpx2.Request] | None = None,
) -> httpx2.MockTransport:
    """An operator between the owner and the enclave, who may change every answer."""

    def handle(request: httpx2.Request) -> httpx2.Response:
        if seen is not None:
            seen.append(request)
        headers = [(name, value) for name, value in request.headers.items()]
        answer = asyncio.run(acall(app, request.method, request.url.path, request.content, headers))
        assert answer is not None
        response = reply(answer.status, answer.headers, answer.body)
        return response if change is None else change(request, response)

    return httpx2.MockTransport(handle)


def test_the_whole_way_over_loopback(world: ReleaseWorld) -> None:
    waiting = Waiting(world)
    with served(waiting.app) as url:
        hint = awaited(url)
        assert (hint.tenant, dict(hint.owners)) == ("acme", {"weights": world.owner.public})
        result = go(world, url)
        assert result.names == (world.name,)
        assert result.result.simulated
        assert result.result.freshness == "fresh"
        assert waiting.secrets == {"weights": CANARY}
        assert waiting.app.missing == frozenset()
        # It waits for nothing more, and there is nothing to see.
        with pytest.raises(ChannelError) as error:
            go(world, url)
        assert error.value.code == "channel.unauthenticated"
        assert "404" in error.value.message


def test_nothing_is_sent_before_the_evidence_has_been_verified(world: ReleaseWorld) -> None:
    """Whatever is wrong with the evidence, there is no second request, and the secret is in none."""
    refusals: list[tuple[dict[str, Any], str]] = [
        ({"verifier": world.verifier(consent=False)}, "not_acceptable.simulated"),
        ({"verifier": world.verifier(manifest=b"another")}, "not_acceptable.identity"),
        ({"identity": Identity("other", SigningKey.generate())}, "channel.unauthenticated"),
        ({"verifier": world.verifier(tenant="rival")}, "channel.unauthenticated"),
        ({"secrets": {SecretName("unasked", 1): Secret(CANARY)}}, "channel.unauthenticated"),
    ]
    for changed, expected in refusals:
        waiting, seen = Waiting(world), []  # type: ignore[var-annotated]
        with pytest.raises(ConfideError) as error:
            go(world, transport=enclave_transport(waiting.app, seen=seen), **changed)
        codes = (
            {r.code for r in error.value.reasons}
            if isinstance(error.value, AttestationError)
            else {error.value.code}
        )
        assert expected in codes or (
            expected == "not_acceptable.identity" and "not_acceptable.measurement" in codes
        )
        assert [request.url.path for request in seen] == [REQUEST_PATH]
        assert all(CANARY not in request.content for request in seen)
        assert not waiting.released


def test_a_policy_without_a_service_unlocks_nothing(world: ReleaseWorld) -> None:
    from confide.attestation.policy import AppraisalPolicy
    from confide.attestation.verifier import Verifier

    policy = AppraisalPolicy.from_table({"tees": ["snp"], "reference": {"snp": {"measurement": "ANY"}}})
    seen: list[httpx2.Request] = []
    with pytest.raises(AttestationError) as error:
        go(world, verifier=Verifier(policy), transport=enclave_transport(Waiting(world).app, seen=seen))
    assert error.value.code == "not_acceptable.empty_policy"
    assert not seen


def test_bnd_01_a_server_that_replays_old_evidence_gets_nothing(world: ReleaseWorld) -> None:
    recorded: list[bytes] = []

    def change(request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
        if request.url.path == REQUEST_PATH:
            recorded.append(response.read())
            return reply(200, response.headers, recorded[0])
        return response

    go(world, transport=enclave_transport(Waiting(world).app, change))
    posts: list[str] = []

    def replay(request: httpx2.Request) -> httpx2.Response:
        posts.append(request.url.path)
        return reply(200, {"content-type": EVIDENCE_TYPE}, recorded[0])

    with pytest.raises(AttestationError) as error:
        go(world, transport=httpx2.MockTransport(replay))
    assert "not_acceptable.nonce_mismatch" in {reason.code for reason in error.value.reasons}
    assert posts == [REQUEST_PATH]


def test_bnd_01_evidence_that_came_too_late_is_stale_by_the_owners_clock(world: ReleaseWorld) -> None:
    def slow(_: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
        world.clock.now += 45
        return response

    policy = world.policy(max_age="30s")
    from confide.attestation.verifier import Verifier

    verifier = Verifier(policy, extra_anchors=(world.chip.installation.anchor,), allow_simulated=True)
    with pytest.raises(AttestationError) as error:
        go(world, verifier=verifier, transport=enclave_transport(Waiting(world).app, slow))
    assert error.value.code == "not_acceptable.stale"


@pytest.mark.parametrize(
    "change",
    [
        lambda r: reply(200, r.headers, b"\x07" * 64),
        lambda r: reply(200, {"content-type": CONTENT_TYPE}),
        lambda r: reply(200, {"content-type": CONTENT_TYPE}, r.read() + b"\0"),
        lambda r: reply(200, {"content-type": "text/html"}, r.read()),
        lambda _: reply(204),
        lambda _: reply(500),
    ],
)
def test_only_the_enclaves_signature_says_that_the_secret_arrived(
    world: ReleaseWorld, change: Callable[[httpx2.Response], httpx2.Response]
) -> None:
    def operator(request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
        return change(response) if request.url.path == ANSWER_PATH else response

    with pytest.raises(ChannelError) as error:
        go(world, transport=enclave_transport(Waiting(world).app, operator))
    assert error.value.code == "channel.outcome_unknown"
    assert CANARY.decode() not in str(error.value)


def test_a_dropped_answer_is_an_unknown_outcome_and_can_be_tried_again(world: ReleaseWorld) -> None:
    waiting = Waiting(world)

    def drop(request: httpx2.Request) -> httpx2.Response:
        if request.url.path == ANSWER_PATH:
            raise httpx2.ConnectError("dropped")
        headers = list(request.headers.items())
        answer = asyncio.run(acall(waiting.app, "POST", request.url.path, request.content, headers))
        assert answer is not None
        return reply(answer.status, answer.headers, answer.body)

    with pytest.raises(ChannelError) as error:
        go(world, transport=httpx2.MockTransport(drop))
    assert (error.value.code, error.value.retryable) == ("channel.outcome_unknown", True)
    assert go(world, transport=enclave_transport(waiting.app)).names == (world.name,)


_BUNDLE = {"content-type": EVIDENCE_TYPE}


@pytest.mark.parametrize(
    ("status", "headers", "body", "expected"),
    [
        (302, {"location": "http://elsewhere.test/"}, b"", "channel.unauthenticated"),
        (200, {"content-type": "text/html"}, b"<b>canary</b>", "channel.unauthenticated"),
        (404, {}, b"canary", "channel.unauthenticated"),
        (503, {}, b"", "channel.unauthenticated"),
        (200, _BUNDLE, bytes(256 * 1024 + 1), "channel.too_large"),
        (200, _BUNDLE, b"", "malformed.truncated"),
        (200, _BUNDLE, b"\xa0", "malformed.non_canonical"),
        # Compressed bytes are not unpacked.
        (200, _BUNDLE | {"content-encoding": "gzip"}, gzip.compress(bytes(8 << 20)), "malformed"),
    ],
    ids=["redirect", "html", "404", "503", "large", "empty", "map", "gzip"],
)
def test_a_server_that_is_no_enclave_is_refused_by_type(
    world: ReleaseWorld, status: int, headers: dict[str, str], body: bytes, expected: str
) -> None:
    """Bodies, redirects and encodings of the server have no effect."""
    calls: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        calls.append(str(request.url))
        return reply(status, headers, body)

    with pytest.raises(ConfideError) as error:
        go(world, transport=httpx2.MockTransport(answer))
    assert error.value.code.startswith(expected)
    assert "canary" not in str(error.value)
    assert calls == [f"http://enclave.test{REQUEST_PATH}"]


def test_a_server_that_drips_forever_is_left_in_time(world: ReleaseWorld) -> None:
    class Drip(httpx2.SyncByteStream):
        def __iter__(self) -> Any:
            while True:
                world.clock.now += 1
                yield b"x"

    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers=_BUNDLE, stream=Drip())

    with pytest.raises(ChannelError) as error:
        go(world, transport=httpx2.MockTransport(answer))
    assert error.value.code == "channel.timeout"


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (httpx2.ConnectError("canary"), "channel.closed"),
        (httpx2.ReadTimeout("canary"), "channel.timeout"),
        (httpx2.RemoteProtocolError("canary"), "channel.closed"),
        (httpx2.ReadError("canary"), "channel.closed"),
    ],
)
def test_a_broken_connection_is_a_typed_error(world: ReleaseWorld, failure: Exception, expected: str) -> None:
    def answer(_: httpx2.Request) -> httpx2.Response:
        raise failure

    with pytest.raises(ChannelError) as error:
        go(world, transport=httpx2.MockTransport(answer))
    assert (error.value.code, error.value.retryable) == (expected, True)
    assert "canary" not in str(error.value)


@pytest.mark.parametrize(
    "url", ["", "ftp://a", "a.test:80", "http://", "http://user:pass@a.test", "http://a.test/?x=1", "http://a.test:99999", "\0"]
)  # fmt: skip
def test_what_is_no_address_is_refused(world: ReleaseWorld, url: str) -> None:
    with pytest.raises(ConfigurationError):
        go(world, url)


def test_nothing_to_release_is_an_error(world: ReleaseWorld) -> None:
    with pytest.raises(ConfigurationError):
        go(world, secrets={})


@pytest.mark.parametrize(
    "body", [b"", b"\xa0", b"\xff", bytes(64 * 1024 + 1)], ids=["empty", "map", "garbage", "large"]
)
def test_a_malformed_list_of_awaited_secrets_is_a_channel_error(body: bytes) -> None:
    transport = httpx2.MockTransport(
        lambda _: httpx2.Response(200, headers={"content-type": CONTENT_TYPE}, stream=httpx2.ByteStream(body))
    )
    with pytest.raises(ChannelError):
        awaited("http://a.test", transport=transport)


def test_a_lease_reaches_the_enclave(world: ReleaseWorld) -> None:
    waiting = Waiting(world)
    go(world, transport=enclave_transport(waiting.app), lease=90)
    assert [released.lease for released in waiting.released] == [90]
    # A leased secret can be renewed, so it stays awaited.
    assert dataclasses.replace(waiting.released[0])
    go(world, transport=enclave_transport(waiting.app), lease=90)
    assert len(waiting.released) == 2
