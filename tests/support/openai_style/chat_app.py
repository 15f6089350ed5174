# SPDX-License-Identifier: Apache-2.0
"""A small chat service in the style of OpenAI's API, as somebody would have written it without knowing confide."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

MODEL = "backwards-1"


def answer(messages: list[dict[str, Any]]) -> str:
    """The last message, its words in reverse: no other service would say that."""
    return " ".join(reversed(str(messages[-1]["content"]).split()))


def completion(identifier: str, kind: str, choice: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": identifier,
        "object": kind,
        "created": 0,
        "model": MODEL,
        "choices": [{"index": 0, "finish_reason": None, **choice}],
    }


async def models(request: Request) -> Response:
    return JSONResponse(
        {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": "us"}]}
    )


async def chat(request: Request) -> Response:
    if request.headers.get("authorization") != "Bearer inside-the-envelope":
        return JSONResponse({"error": {"message": "who are you?", "type": "invalid_request_error"}}, 401)
    wanted = await request.json()
    text = answer(wanted["messages"])
    if not wanted.get("stream"):
        message = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        return JSONResponse(completion("c-1", "chat.completion", message) | {"usage": usage})

    async def events() -> AsyncIterator[str]:
        for word in text.split():
            chunk = completion(
                "c-2", "chat.completion.chunk", {"delta": {"role": "assistant", "content": word + " "}}
            )
            yield f"data: {json.dumps(chunk)}\n\n"
            await asyncio.sleep(0.02)
        end = completion("c-2", "chat.completion.chunk", {"delta": {}, "finish_reason": "stop"})
        yield f"data: {json.dumps(end)}\n\ndata: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


app = Starlette(
    routes=[Route("/v1/models", models), Route("/v1/chat/completions", chat, methods=["POST"])],
)
