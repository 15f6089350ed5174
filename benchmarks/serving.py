# SPDX-License-Identifier: Apache-2.0
"""T5: a model in an enclave, through the envelope, against the same model behind plain HTTP on the same uvicorn.

Both servers are processes of their own and run the same application; the plain one has no envelope, no confinement and
no measured imports. Server CPU is the time of all threads of the serving process, by the kernel's scheduler.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import numpy as np
from benchmarks import harness

from confide import simulator
from confide.attestation.verifier import Verifier
from confide.frameworks import onnx
from confide.host.enclave import Enclave
from confide.keys.identity import Identity
from confide.keys.keyring import Keyring
from confide.keys.unlock import unlock
from confide.serving import open_inference as oip
from confide.serving.inference_app import InferenceApp, Served
from confide.serving.model_service import ModelService
from confide.serving.protecting import protect_for_service
from confide.serving.worker_pool import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME = "magika"
INPUT = np.random.default_rng(5).integers(0, 257, (1, 2048)).astype(np.int32)


def model_path() -> Path:
    import magika

    return Path(magika.__file__).parent / "models" / "standard_v3_3" / "model.onnx"


def plain_server(path: Path) -> None:
    """Serve a model over plain HTTP until standard input ends; the port is the first line of output."""
    import socket
    import threading

    import uvicorn

    model = onnx.load({"model.onnx": path.read_bytes()})
    app = InferenceApp(
        {NAME: Served(model, "1", "onnx", oip.Signature.of(model.description))},
        WorkerPool(workers=1, waiting=32),
        limits=oip.InferLimits(),
        deadline=54.0,
        max_body=64 * 1024 * 1024,
        version="0",
    )
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="off",
            access_log=False,
            log_level="critical",
            server_header=False,
            date_header=False,
        )
    )

    def watch() -> None:
        sys.stdin.read()
        server.should_exit = True

    threading.Thread(target=watch, daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    server.run(sockets=[listener])


def cpu_seconds(pid: int) -> float:
    """CPU time of all threads that a process has now; none of the servers here ends a thread."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


@dataclass
class Contender:
    """One server: how to call it, whose CPU to count, and what was measured."""

    call: Callable[[], Any]
    pid: int
    cpu: list[float]
    wall: list[float]

    def measure(self, calls: int) -> None:
        start = cpu_seconds(self.pid)
        for _ in range(calls):
            began = time.perf_counter()
            self.call()
            self.wall.append(time.perf_counter() - began)
        self.cpu.append((cpu_seconds(self.pid) - start) / calls)


@contextlib.contextmanager
def plain() -> Iterator[Contender]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.serving", "--plain-server", str(model_path())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:

            def call() -> Any:
                parts, length = oip.compose_request({"bytes": INPUT})
                answer = client.post(
                    f"/v2/models/{NAME}/infer",
                    content=b"".join(parts),
                    headers={"content-type": "application/octet-stream", oip.HEADER_LENGTH: str(length)},
                )
                return oip.read_response(memoryview(answer.content), answer.headers[oip.HEADER_LENGTH])

            yield Contender(call, process.pid, [], [])
    finally:
        process.communicate(timeout=20)


@contextlib.contextmanager
def enclave(report: harness.Report) -> Iterator[Contender]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        identity = Identity.open_or_create("bench", folder / "identities")
        keyring = Keyring(folder / "keys")
        service = ModelService(NAME, owner=identity.public, fast=True)
        (folder / "service.toml").write_text(service.to_toml())
        protected = protect_for_service(
            model_path(),
            service_path=folder / "service.toml",
            output=folder / "model.confide",
            policy_path=folder / "policy.toml",
            identity=identity,
            keyring=keyring,
        )
        anchor = simulator.anchor(folder / "simulator")
        verifier = Verifier(protected.policy, extra_anchors=(anchor,), allow_simulated=True)
        key = keyring.get(NAME)
        began = time.perf_counter()
        with Enclave.launch(
            service,
            tee="simulated",
            data={NAME: folder / "model.confide"},
            simulator_directory=folder / "simulator",
            state_directory=folder / "state",
        ) as running:
            unlock(running.url, verifier=verifier, secrets={key.name: key.secret}, identity=identity)
            running.wait_until("running", timeout=60)
            with ModelService.connect(running.url, verifier) as model:
                model.predict({"bytes": INPUT})
                cold = time.perf_counter() - began
                ceiling(report, "cold launch, unlock and attestation to the first prediction", cold, 3.0, "s")
                ceiling(
                    report, "attested session set-up, client CPU", setup(running.url, verifier), 0.020, "ms"
                )
                yield Contender(lambda: model.predict({"bytes": INPUT}), running.worker_pid, [], [])


def setup(url: str, verifier: Verifier) -> float:
    """Median CPU time of this process for one attested session."""
    spent = []
    for _ in range(9):
        began = time.process_time()
        ModelService.connect(url, verifier).close()
        spent.append(time.process_time() - began)
    return statistics.median(spent)


def ceiling(report: harness.Report, what: str, reached: float, wanted: float, unit: str) -> None:
    """A row that is held against a number and has no peer."""
    scale = {"s": 1.0, "ms": 1e3}[unit]
    text = f"{reached * scale:.2f} {unit}"
    report.rows.append(
        harness.Row("issue", what, text, "-", text, f"<= {wanted * scale:.0f} {unit}", reached <= wanted)
    )


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser: argparse.ArgumentParser = harness.parser(__doc__ or "")
    parser.add_argument("--calls", type=int, default=60, help="requests per repetition")
    parser.add_argument("--plain-server", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.plain_server is not None:
        plain_server(options.plain_server)
        return
    report = harness.Report("T5: magika served from an enclave through the envelope, against plain HTTP")
    with plain() as theirs, enclave(report) as ours:
        assert ours.call()["target_label"].tobytes() == theirs.call()["target_label"].tobytes()
        for repetition in range(-1, options.repetitions):
            for contender in (theirs, ours):
                contender.measure(options.calls)
            if repetition < 0:
                for contender in (theirs, ours):
                    contender.cpu.clear()
                    contender.wall.clear()
        cpu = [statistics.median(contender.cpu) for contender in (ours, theirs)]
        wall = [statistics.median(contender.wall) for contender in (ours, theirs)]
    report.ratio("T5", "server CPU per request", *cpu, at_most=1.05, unit="ms")
    report.ratio("T5", "p50 of one client", *wall, at_most=1.05, unit="ms")
    report.show(as_json=options.json)


if __name__ == "__main__":
    main()
