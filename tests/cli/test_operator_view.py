# SPDX-License-Identifier: Apache-2.0
"""The search for planted secrets finds them; otherwise its silence would prove nothing."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import urllib.parse
from typing import TYPE_CHECKING

import pytest

from confide.cli.operator_view import Finding, Search, Wiretap

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = b"canary-7f3a/91+ \xc3\xa9 tr\xc3\xa4ger-0042"
SEARCH = Search({"token": TOKEN})


def test_a_short_secret_is_refused_since_a_finding_could_be_a_coincidence() -> None:
    with pytest.raises(ValueError, match="too short"):
        Search({"pin": b"1234"})


@pytest.mark.parametrize("lead", range(7))
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_base64_is_found_at_every_alignment(lead: int, encode) -> None:  # type: ignore[no-untyped-def]
    assert SEARCH.content(encode(os.urandom(lead) + TOKEN + os.urandom(5)), "here") == {
        Finding("token", "here")
    }


@pytest.mark.parametrize(
    "leak",
    [
        TOKEN,
        TOKEN[::-1],
        TOKEN.hex().encode(),
        TOKEN.hex().upper().encode(),
        TOKEN.decode().encode("utf-16-le"),
        urllib.parse.quote(TOKEN.decode(), safe="").encode(),
        json.dumps({"text": TOKEN.decode()}).encode(),
    ],
    ids=["raw", "reversed", "hex", "HEX", "utf-16", "url", "json"],
)
def test_each_spelling_is_found(leak: bytes) -> None:
    assert SEARCH.content(b"before" + leak + b"after", "here") == {Finding("token", "here")}


def test_something_else_is_not_found() -> None:
    assert SEARCH.content(os.urandom(100_000) + TOKEN[:-1], "here") == set()


def test_files_and_their_names_are_searched(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "log").write_bytes(b"x" * 100_000 + TOKEN)

    assert SEARCH.files([tmp_path]) == {Finding("token", "file log")}


def test_the_memory_of_a_process_that_holds_the_secret_is_searched() -> None:
    program = (
        "import sys; kept = sys.stdin.buffer.readline().strip(); print('ready', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        if holder.stdin is None or holder.stdout is None:
            pytest.fail("the process has no pipes")
        holder.stdin.write(TOKEN + b"\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == b"ready\n"

        found = SEARCH.process(holder.pid, where="the holder")

    assert found == {Finding("token", "the holder")}


def test_a_wiretap_keeps_both_directions_and_passes_them_on() -> None:
    import socket
    import threading

    server = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"answer to " + connection.recv(100))

    thread = threading.Thread(target=answer)
    thread.start()
    with Wiretap(server.getsockname()) as tap:
        host, port = tap.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=5) as client:
            client.sendall(b"question")
            received = client.recv(100)
        thread.join(timeout=5)
    server.close()

    assert received == b"answer to question"
    assert bytes(tap.upward) == b"question"
    assert bytes(tap.downward) == b"answer to question"
