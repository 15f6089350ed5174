# SPDX-License-Identifier: Apache-2.0
"""Clients against a gateway behind a real uvicorn on loopback."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import openai
import pytest

from confide.channel.client import AsyncClient, Client
from confide.channel.flow import RequestOptions
from confide.channel.httpx_transport import AsyncAttestedTransport as AsyncHttpxTransport
from confide.channel.httpx_transport import AttestedTransport as HttpxTransport
from confide.channel.receipt import verify_receipt
from confide.channel.transport import AttestedTransport
from confide.crypto.signing import SigningKey, verify
from confide.errors import ChannelError, ConfigurationError, NotAcceptable
from support import snp
from support.channel_world import echo, verifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def client(service: Any, **options: Any) -> Client:
    return Client(service.url, verifier(), **{"clock": lambda: snp.AT, **options})


@pytest.mark.parametrize("implementation", ["h11", "httptools"])
def test_a_body_goes_up_and_comes_back_through_uvicorn(live: Callable[..., Any], implementation: str) -> None:
    service = live(server={"http": implementation})
    with client(service) as http:
        for size in (0, 1, 4096, 3_000_000):
            body = os.urandom(size)
            response = http.post("/echo", content=body)

            assert (response.status_code, response.content) == (200, body)
            assert response.headers["x-method"] == "POST"
    assert service.errors == []


def test_a_client_exists_only_with_accepted_evidence(live: Callable[..., Any]) -> None:
    service = live()
    with pytest.raises(NotAcceptable) as refused:
        Client(service.url, verifier(id="another tenant"), clock=lambda: snp.AT)

    assert refused.value.code == "not_acceptable.identity"
    with client(service) as http:
        assert http.attestation.freshness == "fresh"
        assert http.attestation.key_material is not None
        assert http.attestation.key_material.content == {"model": b"\x0c" * 32}


def test_a_stream_goes_up_in_pieces_and_comes_down_in_pieces(live: Callable[..., Any]) -> None:
    service = live()

    def pieces() -> Iterator[bytes]:
        for index in range(50):
            yield b"piece %d;" % index

    with client(service) as http:
        assert http.post("/echo", content=pieces()).content == b"".join(pieces())
        with http.stream("GET", "/stream") as response:
            received = list(response.iter_bytes())

    assert b"".join(received) == b"event 0;event 1;event 2;event 3;event 4;"
    assert len(received) > 1, "the stream came as one piece, so it was not streamed"


def test_requests_at_the_same_time_do_not_mix(live: Callable[..., Any]) -> None:
    service = live()
    with client(service) as http, ThreadPoolExecutor(8) as pool:
        bodies = [os.urandom(1 + 997 * index) for index in range(64)]
        answers = list(pool.map(lambda body: http.post("/echo", content=body).content, bodies))

    assert answers == bodies
    assert len(service.world.instance.table) == 1, "all of them belong to one session"


def test_the_asynchronous_client_attests_when_it_is_entered(live: Callable[..., Any]) -> None:
    service = live()

    async def talk() -> tuple[bytes, str, list[bytes]]:
        async with AsyncClient(service.url, verifier(), clock=lambda: snp.AT) as http:
            freshness = http.attestation.freshness
            answers = await asyncio.gather(*(http.post("/echo", content=b"%d" % n) for n in range(20)))
            async with http.stream("GET", "/stream") as response:
                streamed = [piece async for piece in response.aiter_bytes()]
        return b"".join(answer.content for answer in answers), freshness, streamed

    body, freshness, streamed = asyncio.run(talk())

    assert body == b"".join(b"%d" % n for n in range(20))
    assert freshness == "fresh"
    assert b"".join(streamed).startswith(b"event 0;")


def test_an_asynchronous_client_that_is_not_entered_attests_before_its_first_byte(
    live: Callable[..., Any],
) -> None:
    service = live()

    async def talk() -> None:
        http = AsyncClient(service.url, verifier(id="another tenant"), clock=lambda: snp.AT)
        try:
            with pytest.raises(ChannelError):
                _ = http.attestation
            with pytest.raises(NotAcceptable):
                await http.post("/echo", content=b"never sent")
        finally:
            await http.aclose()

    asyncio.run(talk())

    assert len(service.world.instance.table) == 0


def test_httpx_users_have_the_same_transports(live: Callable[..., Any]) -> None:
    service = live()
    transport = HttpxTransport(service.url, verifier(), clock=lambda: snp.AT)
    with httpx.Client(transport=transport, base_url="https://confide.invalid") as http:
        assert http.post("/echo", content=b"from httpx").content == b"from httpx"

    async def talk() -> bytes:
        inner = AsyncHttpxTransport(service.url, verifier(), clock=lambda: snp.AT)
        async with httpx.AsyncClient(transport=inner, base_url="https://confide.invalid") as http:
            return (await http.post("/echo", content=b"and again")).content

    assert asyncio.run(talk()) == b"and again"


async def completions(scope: Any, receive: Any, send: Any) -> None:
    """What the openai package needs of a chat model, plain and as an event stream."""
    if scope["type"] == "lifespan":
        await echo(scope, receive, send)
        return
    body = b""
    more = True
    while more:
        message = await receive()
        body += message["body"]
        more = message["more_body"]
    asked = json.loads(body)
    said = asked["messages"][-1]["content"][::-1]
    common = {"id": "c-1", "created": 1, "model": asked["model"]}
    if asked.get("stream"):
        fields = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        for piece in said:
            choice = {"index": 0, "delta": {"content": piece}, "finish_reason": None}
            event = {**common, "object": "chat.completion.chunk", "choices": [choice]}
            data = b"data: " + json.dumps(event).encode() + b"\n\n"
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})
        return
    choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
    answer = json.dumps({**common, "object": "chat.completion", "choices": [choice]}).encode()
    fields = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": answer})


def test_the_openai_package_works_over_the_envelope(live: Callable[..., Any]) -> None:
    service = live(completions)
    with openai.OpenAI(api_key="k", http_client=client(service), max_retries=0) as model:
        plain = model.chat.completions.create(model="m", messages=[{"role": "user", "content": "abc"}])
        stream = model.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "hello"}], stream=True
        )
        streamed = "".join(event.choices[0].delta.content or "" for event in stream)

    assert plain.choices[0].message.content == "cba"
    assert streamed == "olleh"


def test_a_receipt_is_verified_offline_with_the_archived_evidence(live: Callable[..., Any]) -> None:
    service = live()
    with client(service, receipts=True) as http:
        response = http.post("/echo", content=b"a question")
        facts = response.extensions["confide"]
        archived = http.attestation.evidence.key_material
    assert archived is not None
    shown: dict[str, Any] = {
        "key_material": archived,
        "secret": facts.receipt_secret,
        "request_head": facts.request_head,
        "request_body": b"a question",
        "response_head": facts.response_head,
        "response_body": response.content,
    }

    assert verify_receipt(facts.receipt.signed, **shown).kid == facts.kid
    for field in ("request_body", "response_body", "request_head", "secret"):
        with pytest.raises(ChannelError) as refused:
            verify_receipt(facts.receipt.signed, **{**shown, field: b"\x00" * 32})
        assert refused.value.code == "channel.receipt"


def test_a_callers_signature_covers_the_binder_of_its_request(live: Callable[..., Any]) -> None:
    key = SigningKey.generate()
    seen: list[tuple[bytes, bytes]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            fields = dict(scope["headers"])
            verify(key.public, bytes.fromhex(fields[b"x-signature"].decode()), fields[b"confide-binder"])
            seen.append((fields[b"confide-binder"], fields[b"x-signature"]))
        await echo(scope, receive, send)

    service = live(app)
    options = RequestOptions(sign=lambda binder, _: [(b"x-signature", key.sign(binder).hex().encode())])
    with client(service) as http:
        for _ in range(2):
            assert http.post("/echo", content=b"x", extensions={"confide": options}).status_code == 200

    assert len({binder for binder, _ in seen}) == 2, "each request has a binder of its own"


def test_nothing_of_the_inner_request_is_in_the_outer_one(live: Callable[..., Any]) -> None:
    service = live()
    outer: list[httpx2.Request] = []

    class Recorder(httpx2.BaseTransport):
        def __init__(self) -> None:
            self.inner = httpx2.HTTPTransport()

        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            outer.append(request)
            return self.inner.handle_request(request)

        def close(self) -> None:
            self.inner.close()

    with client(service, transport=Recorder(), cookies={"session": "canary"}) as http:
        http.post("/secret-path?q=canary", content=b"canary", headers={"authorization": "Bearer canary"})

    for request in outer:
        told = str(request.url) + repr(request.headers.raw)
        assert "canary" not in told
        assert "secret-path" not in told
        assert "cookie" not in request.headers
    assert {request.url.path for request in outer} == {"/.well-known/confide", "/confide"}


def test_an_exception_in_the_application_is_an_encrypted_constant(live: Callable[..., Any]) -> None:
    service = live()
    with client(service) as http:
        response = http.get("/fail")
        with pytest.raises(ChannelError) as broken:
            http.get("/fail-later")
        assert http.post("/echo", content=b"still").content == b"still"

    assert (response.status_code, response.content) == (500, b"internal error")
    assert broken.value.code == "channel.closed"
    assert [str(error) for error in service.errors] == ["a secret in an exception"] * 2


def test_ch_09_nothing_is_compressed_inside_or_outside(live: Callable[..., Any]) -> None:
    seen: list[list[tuple[bytes, bytes]]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            seen.append(scope["headers"])
            if scope["path"] == "/zip":
                fields = [(b"content-encoding", b"gzip")]
                await receive()
                await send({"type": "http.response.start", "status": 200, "headers": fields})
                await send({"type": "http.response.body", "body": b"\x1f\x8b"})
                return
        await echo(scope, receive, send)

    service = live(app)
    with client(service) as http:
        http.post("/echo", content=b"x", headers={"accept-encoding": "gzip"})
        zipped = http.get("/zip")
        with pytest.raises(ChannelError) as refused:
            http.post("/echo", content=b"x", headers={"content-encoding": "gzip"})

    assert all(name not in {b"accept-encoding", b"content-encoding"} for name, _ in seen[0])
    assert zipped.status_code == 500
    assert refused.value.code == "channel.protocol"


def test_the_application_sees_only_what_is_authenticated(live: Callable[..., Any]) -> None:
    scopes: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scopes.append(scope)
        await echo(scope, receive, send)

    service = live(app)
    transport = AttestedTransport(service.url, verifier(), clock=lambda: snp.AT)
    with httpx2.Client(transport=transport) as http:
        http.get("https://somewhere.example/a%20b?q=%C3%A4", headers={"x-forwarded-for": "10.0.0.1"})
    (scope,) = scopes
    fields = dict(scope["headers"])

    assert scope["client"] is None
    assert scope["root_path"] == ""
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/a b", b"/a%20b", b"q=%C3%A4")
    assert fields[b"host"] == b"tenant-7"
    assert fields[b"x-forwarded-for"] == b"10.0.0.1", "a field that the client sent is the client's word"
    assert b"user-agent" in fields


def test_head_and_not_modified_have_no_body(live: Callable[..., Any]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await echo(scope, receive, send)
            return
        fields = [(b"content-length", b"5")]
        status = 304 if scope["path"] == "/304" else 200
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send({"type": "http.response.body", "body": b"hello"})

    service = live(app)
    with client(service, receipts=True) as http:
        head = http.head("/")
        cached = http.get("/304")
        full = http.get("/")

    assert (head.content, head.headers["content-length"]) == (b"", "5")
    assert (cached.status_code, cached.content) == (304, b"")
    assert full.content == b"hello"
    assert all(response.extensions["confide"].receipt for response in (head, cached, full))


def test_an_application_that_answers_without_reading_is_heard_after_the_whole_request(
    live: Callable[..., Any],
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await echo(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body", "body": b"who are you?"})

    service = live(app)
    with client(service) as http:
        response = http.post("/", content=os.urandom(2_500_000))

    assert (response.status_code, response.content) == (401, b"who are you?")


def test_a_body_beyond_the_limit_is_refused_before_it_is_sent(live: Callable[..., Any]) -> None:
    service = live(max_body=1000)
    with client(service) as http:
        assert http.post("/echo", content=b"x" * 1000).content == b"x" * 1000
        with pytest.raises(ChannelError) as known:
            http.post("/echo", content=b"x" * 1001)
        with pytest.raises(ChannelError) as streamed:
            http.post("/echo", content=iter([b"x" * 600, b"x" * 600]))

    assert known.value.code == "channel.too_large"
    assert (streamed.value.code, "413" in streamed.value.message) == ("channel.unauthenticated", True)


def test_cached_evidence_must_be_offered_and_asked_for(live: Callable[..., Any]) -> None:
    service = live()
    with pytest.raises(ChannelError) as absent:
        client(service, fresh=False)
    offering = live(cached=True)
    with client(offering, fresh=False) as one, client(offering, fresh=False) as two:
        assert one.post("/echo", content=b"1").content == b"1"
        assert two.post("/echo", content=b"2").content == b"2"
        assert one.attestation.freshness == "claimed"
        assert one.attestation.kid == two.attestation.kid

    assert (absent.value.code, "404" in absent.value.message) == ("channel.unauthenticated", True)
    assert offering.world.attester.quotes == 1


def test_options_that_lead_around_the_envelope_do_not_exist() -> None:
    options: list[dict[str, Any]] = [{"mounts": {}}, {"proxy": None}, {"trust_env": True}, {"verify": False}]
    for option in options:
        with pytest.raises(TypeError):
            Client("http://127.0.0.1:1", verifier(), **option)


@pytest.mark.parametrize(
    "url", ["ftp://h", "http://", "http://u:p@h", "http://h/?q", "http://h/#f", "http://h:99999", "http://ä"]
)
def test_a_url_that_is_none_of_a_service_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        AttestedTransport(url, verifier())

    assert refused.value.code == "configuration.url"


def test_no_server_is_a_channel_error_that_may_be_repeated() -> None:
    with pytest.raises(ChannelError) as refused:
        Client("http://127.0.0.1:9", verifier())

    assert (refused.value.code, refused.value.retryable) == ("channel.closed", True)


def test_batches_answer_many_clients_with_few_quotes(live: Callable[..., Any]) -> None:
    service = live()
    slow = threading.Event()
    attest = service.world.attester.attest

    def slowly(report_data: bytes) -> Any:
        slow.wait(0.2)
        return attest(report_data)

    service.world.attester.attest = slowly
    with ThreadPoolExecutor(16) as pool:
        clients = list(pool.map(lambda _: client(service), range(16)))
    kids = {http.attestation.kid for http in clients}
    for http in clients:
        http.close()

    assert service.world.attester.quotes == len(kids) <= 4
