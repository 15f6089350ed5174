# SPDX-License-Identifier: Apache-2.0
"""T2 to T4: the envelope against pyhpke, and against the same uvicorn in plaintext.

T2 compares opening a session with pyhpke's contexts; ours is post-quantum hybrid (X-Wing), pyhpke's X25519 only. T3 and T4
have one server process with two doors to one application: `/plain` and the envelope. Their requests alternate, and what counts is
the CPU time of the server process, all threads. The plain application takes the large body and drops it, so its cost is uvicorn's alone; T4's
other bound (0.35x) is for a server without ASGI, which there is not. Peers: pyhpke, and bare ASGI on uvicorn with httptools where it is installed.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import harness

from confide.attestation.attester import PlatformEvidence
from confide.attestation.evidence import Endorsements, EvidencePart
from confide.attestation.policy import AppraisalPolicy
from confide.attestation.verifier import Verifier
from confide.channel import schedule
from confide.channel.client_session import ClientSession
from confide.channel.gateway import Gateway
from confide.channel.instance import Instance
from confide.channel.settings import ChannelSettings
from confide.crypto import hpke
from confide.simulator.installation import Installation
from confide.simulator.measurement import measurement
from confide.simulator.snp import Chip

if TYPE_CHECKING:
    from collections.abc import Iterator

AT = datetime(2026, 6, 1, tzinfo=UTC)
MANIFEST = b"a manifest"
SMALL = 4096
LARGE = 16 << 20
CONNECTIONS = 16


@dataclass(frozen=True)
class Service:
    kind: str = "echo"
    id: str = "bench"


class Attester:
    """The simulated chip, without a process around it."""

    def __init__(self, installation: Installation) -> None:
        self.chip = Chip.power_on(installation)
        self.endorsements = Endorsements(certificates=(self.chip.vcek, installation.ask))

    def attest(self, report_data: bytes) -> PlatformEvidence:
        report = self.chip.report(report_data, manifest=MANIFEST, debug=False, level=3)
        return PlatformEvidence(platform=EvidencePart("snp", report), endorsements=self.endorsements)

    def derive_key(self, label: bytes) -> bytes:
        return hashlib.sha256(label).digest()


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Echo small bodies, swallow large ones."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    kept: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        size += len(message["body"])
        if size <= SMALL:
            kept.append(message["body"])
        more = message["more_body"]
    body = b"".join(kept) if size <= SMALL else b"ok"
    fields = [(b"content-type", b"application/octet-stream"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": body})


def serve(folder: str) -> None:
    """The server process: the port is the first line of its output; it ends with its standard input."""
    import threading

    import uvicorn

    instance = Instance(
        Service(),
        MANIFEST,
        Attester(Installation.open_or_create(Path(folder))),
        settings=ChannelSettings(max_body=2 * LARGE),
        random=os.urandom,
        monotonic=time.monotonic,
        wall_clock=lambda: AT,
    )
    gateway = Gateway(application, instance)

    async def doors(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == "/plain":
            await application(scope, receive, send)
        elif scope["type"] == "http" and scope["path"] == "/cpu":
            body = json.dumps(time.process_time()).encode()
            fields = [(b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": 200, "headers": fields})
            await send({"type": "http.response.body", "body": body})
        else:
            await gateway(scope, receive, send)

    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(doors, log_level="error", access_log=False))

    def watch() -> None:
        sys.stdin.read()
        server.should_exit = True

    threading.Thread(target=watch, daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    server.run(sockets=[listener])


class Wire:
    """One kept-alive connection that sends prepared bytes and reads whole answers: a client that costs little."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def exchange(self, request: bytes) -> bytes:
        self.socket.sendall(request)
        return self.answer()

    def answer(self) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._more()
        head, _, body = data.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError("the server refused a request of the benchmark")
        (length,) = (
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length")
        )
        while len(body) < length:
            body += self._more()
        return body

    def _more(self) -> bytes:
        data = self.socket.recv(1 << 20)
        if not data:
            raise RuntimeError("the server closed the connection of the benchmark")
        return data

    def cpu(self) -> float:
        return float(json.loads(self.exchange(outer(b"/cpu", b"", b"text/plain", method=b"GET"))))


def outer(path: bytes, body: bytes, kind: bytes, *, method: bytes = b"POST") -> bytes:
    return (
        b"%s %s HTTP/1.1\r\nhost: x\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n"
        % (
            method,
            path,
            kind,
            len(body),
        )
        + body
    )


def session(wire: Wire, verifier: Verifier) -> ClientSession:
    nonce = os.urandom(32)
    bundle = wire.exchange(outer(b"/.well-known/confide", nonce, b"application/confide-nonce"))
    result = verifier.verify(bundle, at=AT, nonce=nonce, age=timedelta(0), purpose="channel")
    return ClientSession(result, random=os.urandom, monotonic=time.monotonic)


def sealed(made: ClientSession, body: bytes) -> tuple[Any, bytes]:
    """An exchange and the bytes of its whole outer request."""
    fields = ((b"content-type", b"application/octet-stream"), (b"content-length", b"%d" % len(body)))
    exchange = made.request(b"POST", b"/echo", fields)
    message = exchange.outgoing
    data = b"".join([message.start(), *message.write(body), message.finish()])
    return exchange, outer(b"/confide", data, b"application/confide-request")


def rounds(wires: list[Wire], requests: list[bytes]) -> list[bytes]:
    """Send as many requests at a time as there are connections, so that the server works on them in one go."""
    answers = []
    for at in range(0, len(requests), len(wires)):
        some = list(zip(wires, requests[at : at + len(wires)], strict=False))
        for wire, request in some:
            wire.socket.sendall(request)
        answers += [wire.answer() for wire, _ in some]
    return answers


def compare(
    wires: list[Wire], made: ClientSession, body: bytes, *, calls: int, repetitions: int
) -> tuple[float, float, float]:
    """Median server CPU seconds of one request, plain and in the envelope, and of the client's own work on it."""
    plain_request = outer(b"/plain", body, b"application/octet-stream")
    plain, envelope, client = [], [], []
    for repetition in range(-1, repetitions):
        before = time.process_time()
        prepared = [sealed(made, body) for _ in range(calls)]
        own = time.process_time() - before
        start = wires[0].cpu()
        rounds(wires, [plain_request] * calls)
        middle = wires[0].cpu()
        answers = rounds(wires, [request for _, request in prepared])
        end = wires[0].cpu()
        before = time.process_time()
        for (exchange, _), answer in zip(prepared, answers, strict=True):
            got = b"".join(exchange.feed(answer))
            exchange.end()
            if got not in {body, b"ok"}:
                raise RuntimeError("the enclave answered something else")
        own += time.process_time() - before
        if repetition >= 0:
            plain.append((middle - start) / calls)
            envelope.append((end - middle) / calls)
            client.append(own / calls)
    return statistics.median(plain), statistics.median(envelope), statistics.median(client)


def sessions(report: harness.Report, repetitions: int) -> None:
    """T2."""
    from pyhpke import AEADId, CipherSuite, KDFId, KEMId

    suite = CipherSuite.new(KEMId.DHKEM_X25519_HKDF_SHA256, KDFId.HKDF_SHA256, AEADId.AES256_GCM)
    pair = suite.kem.derive_key_pair(os.urandom(32))
    encapsulated, _ = suite.create_sender_context(pair.public_key, info=b"session")
    private = hpke.PrivateKey.generate()
    info = schedule.session_info(bytes(32))
    secret = os.urandom(64)
    wrap = hpke.seal(private.public, info, secret)
    t = schedule.transcript(0, bytes(32), 0, bytes(16))

    def their_sender() -> None:
        suite.create_sender_context(pair.public_key, info=b"session")[1].export(b"response", 32)

    def their_recipient() -> None:
        suite.create_recipient_context(encapsulated, pair.private_key, info=b"session").export(
            b"response", 32
        )

    def our_sender() -> None:
        schedule.sid(hpke.seal(private.public, info, secret))
        schedule.request_key(secret, t)

    def our_recipient() -> None:
        schedule.sid(wrap)
        schedule.request_key(private.open(info, wrap), t)

    samples = harness.interleave(
        {"us": our_sender, "us r": our_recipient, "pyhpke": their_sender, "pyhpke r": their_recipient},
        repetitions=repetitions,
        calls=200,
    )
    report.ratio(
        "T2",
        "open a session, client (X-Wing) vs pyhpke sender (X25519)",
        samples["us"].cpu,
        samples["pyhpke"].cpu,
        at_most=0.85,
    )
    report.ratio(
        "T2",
        "open a session, enclave (X-Wing) vs pyhpke recipient (X25519)",
        samples["us r"].cpu,
        samples["pyhpke r"].cpu,
        at_most=0.75,
    )


def server(folder: str) -> Iterator[int]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.channel", "--serve", folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
        text=True,
    )
    try:
        if process.stdout is None or process.stdin is None:
            raise RuntimeError("the server has no pipes")
        yield int(process.stdout.readline())
    finally:
        process.communicate(timeout=20)


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = harness.parser(__doc__ or "")
    parser.add_argument("--serve", metavar="FOLDER", help="be the server (used by the benchmark itself)")
    options = parser.parse_args(arguments)
    if options.serve:
        serve(options.serve)
        return
    report = harness.Report(
        "Envelope (server CPU time of one request; 16 connections for 4 KB, one for 16 MB)"
    )
    sessions(report, options.repetitions)
    with tempfile.TemporaryDirectory() as folder:
        installation = Installation.open_or_create(Path(folder) / "simulator")
        policy = AppraisalPolicy.from_table(
            {
                "tees": ["snp"],
                "service": {
                    "kind": "echo",
                    "id": "bench",
                    "manifest": [hashlib.sha256(MANIFEST).hexdigest()],
                },
                "reference": {"snp": {"measurement": [measurement(MANIFEST).hex()]}},
            }
        )
        verifier = Verifier(policy, extra_anchors=(installation.anchor,), allow_simulated=True)
        for port in server(str(Path(folder) / "simulator")):
            wires = [Wire(port) for _ in range(CONNECTIONS)]
            made = session(wires[0], verifier)
            plain, envelope, client = compare(
                wires, made, os.urandom(SMALL), calls=320, repetitions=options.repetitions
            )
            report.difference(
                "T3",
                f"4 KB echo, envelope vs plain, same uvicorn (client's own share: {client * 1e6:.0f} us)",
                envelope,
                plain,
                at_most=12,
            )
            plain, envelope, client = compare(
                wires[:1], made, os.urandom(LARGE), calls=2, repetitions=options.repetitions
            )
            what = (
                f"16 MB upload, envelope vs plain, same uvicorn (client's own share: {client * 1e3:.1f} ms)"
            )
            report.ratio("T4", what, envelope, plain, at_most=1.5, unit="ms")
            for wire in wires:
                wire.socket.close()
    report.show(as_json=options.json)


if __name__ == "__main__":
    main()
