# SPDX-License-Identifier: Apache-2.0
"""The `openai` package against somebody's own Starlette app in an enclave: only the HTTP client is another one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from confide import simulator
from confide.attestation.verifier import Verifier
from confide.channel.client import AsyncClient, Client
from confide.enclave.application import Application
from confide.enclave.measure import measure
from confide.host.enclave import Enclave

if TYPE_CHECKING:
    from collections.abc import Iterator

openai = pytest.importorskip("openai")
pytest.importorskip("starlette")

CODE = Path(__file__).parents[1] / "support" / "openai_style" / "chat_app.py"
KEY = "inside-the-envelope"
QUESTION = [{"role": "user", "content": "one two three"}]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("openai")


@pytest.fixture(scope="module")
def service() -> Application:
    return Application("chat_app:app", code=[CODE], requires=["starlette"])


@pytest.fixture(scope="module")
def verifier(service: Application, place: Path) -> Verifier:
    return Verifier(
        measure(service), extra_anchors=[simulator.anchor(place / "simulator")], allow_simulated=True
    )


@pytest.fixture(scope="module")
def url(service: Application, place: Path) -> Iterator[str]:
    with Enclave.launch(
        service, tee="simulated", simulator_directory=place / "simulator", state_directory=place / "state"
    ) as enclave:
        enclave.wait_until("running", timeout=30)
        yield enclave.url


def test_a_chat_completion(url: str, verifier: Verifier) -> None:
    with Client(url, verifier) as http:
        client = openai.OpenAI(api_key=KEY, base_url="https://confide.invalid/v1", http_client=http)
        answer = client.chat.completions.create(model="backwards-1", messages=QUESTION)

        assert answer.choices[0].message.content == "three two one"
        assert answer.usage is not None
        assert answer.usage.total_tokens == 2
        assert [model.id for model in client.models.list()] == ["backwards-1"]
        assert http.attestation.simulated


def test_a_streamed_chat_completion(url: str, verifier: Verifier) -> None:
    with Client(url, verifier) as http:
        client = openai.OpenAI(api_key=KEY, base_url="https://confide.invalid/v1", http_client=http)
        stream = client.chat.completions.create(model="backwards-1", messages=QUESTION, stream=True)
        words = [chunk.choices[0].delta.content for chunk in stream]

    assert words == ["three ", "two ", "one ", None]


def test_the_key_travels_inside_and_errors_come_back_as_the_packages_own(
    url: str, verifier: Verifier
) -> None:
    with Client(url, verifier) as http:
        client = openai.OpenAI(
            api_key="wrong", base_url="https://confide.invalid/v1", http_client=http, max_retries=0
        )
        with pytest.raises(openai.AuthenticationError):
            client.chat.completions.create(model="backwards-1", messages=QUESTION)


def test_the_asynchronous_client(url: str, verifier: Verifier) -> None:
    import asyncio

    async def scene() -> list[str | None]:
        async with AsyncClient(url, verifier) as http:
            client = openai.AsyncOpenAI(api_key=KEY, base_url="https://confide.invalid/v1", http_client=http)
            stream = await client.chat.completions.create(model="backwards-1", messages=QUESTION, stream=True)
            return [chunk.choices[0].delta.content async for chunk in stream]

    assert asyncio.run(scene()) == ["three ", "two ", "one ", None]


def test_receipts_are_one_option_away(url: str, verifier: Verifier) -> None:
    with Client(url, verifier, receipts=True) as http:
        client = openai.OpenAI(api_key=KEY, base_url="https://confide.invalid/v1", http_client=http)
        raw = client.chat.completions.with_raw_response.create(model="backwards-1", messages=QUESTION)

        assert raw.http_response.extensions["confide"].receipt.status == 200
