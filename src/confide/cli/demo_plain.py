# SPDX-License-Identifier: Apache-2.0
"""The demo's plain peer: the same model behind the same protocol, in the clear, as one would serve it today."""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from confide.frameworks.table import adapter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Message = MutableMapping[str, Any]


class PlainServer:
    """Runs the model on raw int32 rows that come as bodies, and keeps an access log as servers do."""

    def __init__(self, model: bytes, log: Path) -> None:
        onnx = adapter("onnx")
        self._model = onnx.load({part.name: part.data for part in onnx.dump(model)})
        self._input, self._output = (
            specs[0].name for specs in (self._model.description.inputs, self._model.description.outputs)
        )
        self._log = log

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return
        import numpy as np

        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self._log.write_text(f"{scope['method']} {scope['path']}?{scope['query_string'].decode()}\n")
        row = np.frombuffer(body, dtype="<i4").reshape(1, -1)
        scores = self._model.prepare({self._input: row}, (self._output,))()[self._output]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(scores.tolist()).encode()})


def main() -> None:
    """Serve until ended by a signal."""
    import uvicorn

    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--ready-file", type=Path, required=True)
    options = parser.parse_args()
    listener = socket.create_server(("127.0.0.1", 0))
    application = PlainServer(options.model.read_bytes(), Path("access.log"))
    options.ready_file.write_text(f"http://127.0.0.1:{listener.getsockname()[1]}\n")
    server = uvicorn.Server(uvicorn.Config(application, log_level="error", access_log=False, lifespan="off"))
    asyncio.run(server.serve(sockets=[listener]))


if __name__ == "__main__":
    main()
