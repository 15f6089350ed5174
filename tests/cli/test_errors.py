# SPDX-License-Identifier: Apache-2.0
"""Bad input at the command line: an exit code, two lines that teach, no traceback, nothing changed."""

from __future__ import annotations

import http.server
import threading
from typing import TYPE_CHECKING

import pytest

from support import onnx_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.command_line import Answer, Confide

POLICY = """
tees = ["snp"]
[service]
kind = "model"
manifest = ["{manifest}"]
id = "acme"
[reference.snp]
measurement = ["{measurement}"]
""".format(manifest="00" * 32, measurement="11" * 48)
SERVICE = """
kind = "model"
id = "acme"
requires = ["numpy", "onnxruntime"]
[options]
models = {{ m = {{ format = "onnx", version = "1" }} }}
workers = 1
threads = 1
waiting = 32
max_output = 1000000
max_json = 1000000
non_finite = false
[[models]]
name = "m"
owner = "{owner}"
""".format(owner="22" * 32)
CONSENT = ("--allow-simulated", "--anchor", "local")


def teaches(answer: Answer, *, code: int, says: str) -> None:
    """The exit code, the dotted code, and no traceback."""
    assert answer.code == code, answer.err
    assert says in answer.err
    assert "Traceback" not in answer.err
    assert answer.out == ""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.onnx"
    path.write_bytes(onnx_bytes.linear_model())
    return path


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("kind = ", "kid = "), "configuration."),
        (('kind = "model"', 'kind = "modle"'), "configuration."),
        (('id = "acme"', 'id = "../acme"'), "configuration."),
        (('id = "acme"', "id = 7"), "configuration."),
        (("[options]", '[environment]\nLD_PRELOAD = "x.so"\n[options]'), "configuration.environment"),
        (("[options]", '[environment]\nPYTHONPATH = "x"\n[options]'), "configuration.environment"),
        (("[options]", "[limits]\nmemory = 5\n[options]"), "configuration."),
        (("[options]", 'egress = ["*:443"]\n[options]'), "configuration."),
        ((f'owner = "{"22" * 32}"', 'owner = "22"'), "configuration."),
        (("[[models]]", "[[models"), "configuration."),
        (("[options]", '[[code]]\npath = "../.."\nname = "x"\n[options]'), "configuration."),
    ],
)
def test_a_service_that_says_something_wrong_is_refused(
    confide: Confide, tmp_path: Path, change: tuple[str, str], says: str
) -> None:
    path = tmp_path / "service.toml"
    path.write_text(SERVICE.replace(*change))

    teaches(confide("measure", path), code=2, says=says)


def test_a_service_as_it_should_be_is_measured(confide: Confide, tmp_path: Path) -> None:
    path = tmp_path / "service.toml"
    path.write_text(SERVICE)

    answer = confide("measure", path)

    assert answer.code == 0, answer.err
    assert 'kind = "model"' in answer.out


@pytest.mark.parametrize(
    "arguments",
    [
        ("--data", f"m={__file__}", "--listen", "127.0.0.1"),
        ("--data", f"m={__file__}", "--listen", "127.0.0.1:99999"),
        ("--data", f"m={__file__}", "--listen", "0.0.0.0:0"),
        ("--data", "m"),
        ("--data", "m=/nowhere"),
        ("--data", f"other={__file__}"),
        (),
    ],
)
def test_a_run_with_a_wrong_option_starts_nothing(
    confide: Confide, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    path = tmp_path / "service.toml"
    path.write_text(SERVICE)

    teaches(confide("run", path, "--tee", "simulated", *arguments), code=2, says="configuration.")
    assert not list((tmp_path / "home").rglob("*.json"))


@pytest.mark.parametrize("tee", ["auto", "snp"])
def test_a_tee_that_is_not_here_is_never_replaced_by_the_simulated_one(
    confide: Confide, tmp_path: Path, tee: str
) -> None:
    path = tmp_path / "service.toml"
    path.write_text(SERVICE)

    answer = confide("run", path, "--tee", tee, "--data", f"m={__file__}")

    teaches(answer, code=1, says="enclave.tee")
    assert "simulated" in answer.err.split("hint:")[1]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x04\x95pickle", bytes(5000)])
def test_what_is_no_model_is_not_protected_and_leaves_nothing(
    confide: Confide, tmp_path: Path, content: bytes
) -> None:
    model = tmp_path / "model.bin"
    model.write_bytes(content)
    service, output = tmp_path / "service.toml", tmp_path / "model.confide"

    answer = confide("protect", model, "--for", service, "-o", output, "--policy", tmp_path / "policy.toml")

    assert answer.code == 1
    assert "[model." in answer.err
    assert not service.exists()
    assert not output.exists()
    assert not (tmp_path / "policy.toml").exists()


def test_a_service_of_another_owner_is_not_protected_for(
    confide: Confide, tmp_path: Path, model: Path
) -> None:
    service = tmp_path / "service.toml"
    service.write_text(SERVICE)

    answer = confide("protect", model, "--for", service, "-o", tmp_path / "out.confide")

    teaches(answer, code=2, says="configuration.")
    assert not (tmp_path / "out.confide").exists()


class _Plain(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/plain")
        self.end_headers()
        self.wfile.write(b"secret words of a hostile server")

    do_POST = do_GET  # noqa: N815 - the name that the library calls

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def plain_server() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Plain)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(timeout=5)
    server.server_close()


def test_a_plain_server_is_not_talked_to_and_its_words_are_not_repeated(
    confide: Confide, policy: Path, plain_server: str, tmp_path: Path
) -> None:
    request = tmp_path / "request.json"
    request.write_text('{"canary": "plaintext"}')

    answer = confide("call", plain_server, "/", "--policy", policy, "--input", request, *CONSENT)

    teaches(answer, code=1, says="channel.unauthenticated")
    assert "secret words" not in answer.err


def test_a_plain_server_is_not_given_a_key(confide: Confide, policy: Path, plain_server: str) -> None:
    confide("identity", "new")

    teaches(confide("unlock", plain_server, "--policy", policy, *CONSENT), code=1, says="channel.")


@pytest.mark.parametrize("command", ["call", "unlock"])
def test_nobody_at_the_address_is_said(confide: Confide, policy: Path, command: str) -> None:
    confide("identity", "new")

    answer = confide(command, "http://127.0.0.1:9", "--policy", policy, *CONSENT)

    assert answer.code == 1
    assert "channel." in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize(
    "url", ["", "ftp://x", "127.0.0.1:80", "http://", "http://[::1", "file:///etc/passwd"]
)
def test_what_is_no_address_is_said(confide: Confide, policy: Path, url: str) -> None:
    answer = confide("call", url, "--policy", policy, *CONSENT)

    assert answer.code in {1, 2}
    assert "Traceback" not in answer.err


def test_an_identity_is_made_once(confide: Confide) -> None:
    assert confide("identity", "new").code == 0
    teaches(confide("identity", "new"), code=2, says="configuration.exists")


@pytest.mark.parametrize("name", ["../x", "a/b", "", "x" * 200, "\0"])
def test_an_identity_s_name_stays_in_its_folder(confide: Confide, tmp_path: Path, name: str) -> None:
    answer = confide("identity", "new", name)

    assert answer.code == 2
    assert "Traceback" not in answer.err
    assert not list((tmp_path / "home").rglob("*.json"))


def test_an_enclave_that_is_not_there_cannot_be_stopped(confide: Confide) -> None:
    teaches(confide("stop", "nothing"), code=1, says="enclave.bad_state")


def test_an_unknown_command_is_a_usage_error(confide: Confide) -> None:
    assert confide("protekt").code == 2


def test_without_colour_nothing_is_painted(confide: Confide, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    answer = confide("doctor")

    assert answer.code == 0
    assert "\x1b" not in answer.out + answer.err
    assert "SIMULATED" in answer.out
