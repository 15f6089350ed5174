# SPDX-License-Identifier: Apache-2.0
"""What an operator can see of a running enclave: searched for secrets in every spelling, beside a server that leaks them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import httpx2
import pytest

from confide import simulator
from confide.attestation.verifier import Verifier
from confide.channel.client import Client
from confide.cli.operator_view import Search, Wiretap
from confide.enclave.manifest import Manifest
from confide.enclave.measure import policy_for
from confide.errors import ChannelError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.enclaves import Launcher

TESTS = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Host:
    """A host process, and what it says about its enclave."""

    process: subprocess.Popen[bytes]
    known: dict[str, Any]
    folder: Path

    def end(self) -> bytes:
        """Let it stop its enclave; everything that it printed."""
        out, err = self.process.communicate(b"\n", timeout=30)
        return out + err


@contextmanager
def host(launcher: Launcher, folder: Path) -> Iterator[Host]:
    state, storage = folder / "state", folder / "storage"
    command = [
        sys.executable,
        str(TESTS / "support" / "host_script.py"),
        *(str(launcher.simulator_directory), str(state), str(storage)),
    ]
    environment = {**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    pipe: int | IO[bytes] = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, cwd=folder, env=environment)
    try:
        if process.stdout is None:
            pytest.fail("no output")
        line = process.stdout.readline()
        if not line:
            pytest.fail(process.communicate()[1].decode()[-2000:])
        yield Host(process, json.loads(line), folder)
    finally:
        process.kill()
        process.communicate()


def connect(launcher: Launcher, known: dict[str, Any], url: str) -> Client:
    policy = policy_for(Manifest.decode(bytes.fromhex(known["manifest"])))
    anchor = simulator.anchor(launcher.simulator_directory)
    return Client(url, Verifier(policy, extra_anchors=[anchor], allow_simulated=True))


def test_leak_01_the_operator_finds_no_plaintext_anywhere(launcher: Launcher, tmp_path: Path) -> None:
    """LEAK-01: a request is answered, kept, logged, raised and sealed inside; the host's and the device's memory, every file,
    all output and the traffic hold none of it. The same search of a process that does hold it finds it.
    """
    canaries = {name: os.urandom(16).hex().encode() for name in ("body", "raised", "sealed", "header")}
    search = Search(canaries)
    with host(launcher, tmp_path) as running:
        address = httpx2.URL(running.known["url"])
        with (
            Wiretap((address.host, address.port or 0)) as tap,
            connect(launcher, running.known, tap.url) as client,
        ):
            header = {"x": canaries["header"].decode()}
            assert client.post("/keep", content=canaries["body"], headers=header).content
            assert client.post("/echo", content=canaries["body"]).content == canaries["body"]
            client.post("/vault", content=canaries["sealed"])
            with pytest.raises((ChannelError, httpx2.HTTPError)):
                client.post("/fail", content=canaries["raised"]).raise_for_status()
        pids = {"host": running.process.pid, "device": running.known["device"]}
        for name, pid in pids.items():
            try:
                assert search.process(pid, where=name) == set()
            except PermissionError:
                pytest.skip("this user may not read the memory of its own processes here")
        assert search.content(bytes(tap.upward), "traffic up") == set()
        assert search.content(bytes(tap.downward), "traffic down") == set()
        assert len(tap.upward) > 4 * 1200, "the requests did go through the tap"
        printed = running.end()
    assert b"state=running" in printed
    assert search.content(printed, "output of the host") == set()
    assert search.files([tmp_path]) == set()
    assert any((tmp_path / "storage").rglob("*.vault")), "something was written, sealed"
    # The search works: this process, which is the client, does hold the secrets.
    assert {finding.secret for finding in search.process(os.getpid())} == set(canaries)


def test_leak_07_the_worker_of_a_real_enclave_cannot_be_read_by_its_user(
    launcher: Launcher, tmp_path: Path
) -> None:
    """LEAK-07: the user who launched it can neither trace nor read it. (The machine's administrator can: see limitations.)"""
    if os.geteuid() == 0:
        pytest.skip(
            "root may trace everything; tests/enclave/confinement attacks a worker of an ordinary user"
        )
    with host(launcher, tmp_path) as running:
        attack = [sys.executable, str(TESTS / "support" / "attacker.py"), str(running.known["worker"])]
        done = subprocess.run(attack, capture_output=True, timeout=30, check=True)
        assert set(json.loads(done.stdout).values()) <= {"EACCES", "EPERM"}


def test_leak_06_a_worker_cannot_leave_a_core_and_is_not_dumpable(launcher: Launcher, tmp_path: Path) -> None:
    with host(launcher, tmp_path) as running:
        limits = Path(f"/proc/{running.known['worker']}/limits").read_text(encoding="ascii")
        core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
        assert core.split()[4:6] == ["0", "0"]
        status = Path(f"/proc/{running.known['worker']}/status").read_text(encoding="ascii")
        facts = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        assert facts["NoNewPrivs"].strip() == "1"
        assert facts["Seccomp"].strip() == "2"
        for name in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"):
            assert int(facts[name], 16) == 0
        with (
            connect(launcher, running.known, running.known["url"]) as client,
            pytest.raises((ChannelError, httpx2.TransportError)),
        ):
            client.post("/segfault")
        running.end()
    assert not [path for path in tmp_path.rglob("core*") if path.is_file()]
