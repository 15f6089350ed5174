# SPDX-License-Identifier: Apache-2.0
"""The demo's three attacks, as a hostile operator would do them."""

from __future__ import annotations

import os
import shutil
import socket
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2

import confide
from confide.attestation.evidence import Evidence
from confide.attestation.key_material import KeyMaterial
from confide.channel.client import Client
from confide.channel.transport import utc_now
from confide.crypto import hpke
from confide.enclave import manifest as manifests
from confide.enclave.measure import measure
from confide.errors import AttestationError, ChannelError, ConfideError
from confide.keys.release import (
    CHALLENGE_BYTES,
    CONTENT_TYPE,
    EVIDENCE_TYPE,
    REQUEST_PATH,
    ReleaseRequest,
    admit,
)
from confide.wire import cbor

if TYPE_CHECKING:
    from collections.abc import Callable

    from confide.cli.demo_story import Story

_CHANGED = "serving/inference_app.py"
_LINE = "\n# A line that the owner did not measure: here the operator would copy every input to a file.\n"


@dataclass(frozen=True)
class Attack:
    """What was tried, whether it was refused, and for which reason."""

    key: str
    what: str
    refused: bool
    code: str
    lines: tuple[str, ...]
    difference: tuple[str, ...] = ()


def changed_code(story: Story) -> Attack:
    """Run the enclave from a copy of confide with one line more, and ask the owner for the key."""
    source = story.folder / "hostile"
    package = source / "confide"
    shutil.copytree(Path(next(iter(confide.__path__))), package, ignore=shutil.ignore_patterns("__pycache__"))
    with (package / _CHANGED).open("a") as file:
        file.write(_LINE)
    service = story.service_without_broker()
    with story.run_from(source, service) as actor:
        request = ReleaseRequest.new(service.id, [story.key], os.urandom(CHALLENGE_BYTES))
        evidence = Evidence.decode(_release_evidence(actor.url(), request, story.identity.public))
    failure = _failure(
        lambda: admit(
            evidence,
            request,
            verifier=story.verifier(measure(service)),
            audience=story.identity.audience,
            at=utc_now(),
        )
    )
    theirs = manifests.Manifest.decode(evidence.manifest or b"")
    difference = manifests.difference(manifests.build(service), theirs)
    return _attack(
        "changed_code",
        "the operator adds one line to the enclave's code and asks the owner for the key",
        failure,
        *(f"difference   {line}" for line in difference),
        difference=difference,
    )


def _release_evidence(url: str, request: ReleaseRequest, owner: bytes) -> bytes:
    message = cbor.encode({"v": 1, "owner": owner, "request": request.encode()})
    answer = httpx2.post(
        url + REQUEST_PATH,
        content=message,
        headers={"content-type": CONTENT_TYPE},
        timeout=30,
        trust_env=False,
    )
    answer.raise_for_status()
    return answer.content


class _Relay(httpx2.BaseTransport):
    """A man in the middle: genuine evidence passes through, but with his own key in the place of the enclave's."""

    def __init__(self) -> None:
        self._inner = httpx2.HTTPTransport(trust_env=False)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        response = self._inner.handle_request(request)
        if not request.url.path.startswith("/.well-known/"):
            return response
        evidence = Evidence.decode(response.read())
        if evidence.key_material is None:
            return response
        material = replace(KeyMaterial.decode(evidence.key_material), key=hpke.PrivateKey.generate().public)
        forged = replace(evidence, key_material=material.encode())
        return httpx2.Response(
            200, headers={"content-type": EVIDENCE_TYPE}, content=forged.encode(), request=request
        )

    def close(self) -> None:
        self._inner.close()


def relayed_evidence(story: Story) -> Attack:
    """Stand between client and enclave with the enclave's genuine evidence and a key of one's own."""

    def connect() -> None:
        with Client(story.enclave_url, story.client_verifier(), transport=_Relay()):
            pass

    return _attack(
        "relayed_evidence",
        "a man in the middle shows the enclave's genuine evidence with a key of his own",
        _failure(connect),
    )


def replayed_request(story: Story) -> Attack:
    """Send a recorded request once more, byte by byte."""
    recorded = last_request(story.captured)
    host, _, port = story.enclave_url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(recorded)
        answer = b""
        while chunk := connection.recv(1 << 16):
            answer += chunk
            if b"\r\n\r\n" in answer:
                break
    status = answer.split(b" ", 2)[1].decode("ascii", "replace")
    refused = status == "400" and answer.endswith(b"\r\n\r\n")
    return Attack(
        "replayed_request",
        "the operator sends a recorded request of the client once more",
        refused,
        f"status {status}",
        (
            f"{'refused' if refused else 'NOT REFUSED'}: status {status}, no body",
            "the number of a request is spent with its first use, so nothing is executed twice",
        ),
    )


def last_request(captured: bytes) -> bytes:
    """The last whole request to the envelope in a recording of one side of HTTP/1.1 connections."""
    start = captured.rfind(b"POST /confide HTTP/1.1\r\n")
    if start < 0:
        raise ChannelError("protocol", "the recording holds no request")
    return captured[start:]


def _failure(attempt: Callable[[], object]) -> ConfideError | None:
    try:
        attempt()
    except ConfideError as error:
        return error
    return None


def _attack(
    key: str, what: str, failure: ConfideError | None, *lines: str, difference: tuple[str, ...] = ()
) -> Attack:
    if failure is None:
        return Attack(key, what, refused=False, code="", lines=("NOT REFUSED", *lines), difference=difference)
    reasons = failure.reasons if isinstance(failure, AttestationError) else (failure.reason,)
    said = tuple(
        f"{'refused' if n == 0 else '    and'}: {r.message} [{r.code}]" for n, r in enumerate(reasons)
    )
    return Attack(key, what, refused=True, code=failure.code, lines=(*said, *lines), difference=difference)
