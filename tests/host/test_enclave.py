# SPDX-License-Identifier: Apache-2.0
"""Launching, using, crashing and stopping real enclaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from confide.attestation.evidence import Evidence
from confide.channel.client import Client
from confide.crypto.secret import Secret
from confide.enclave.confinement.levels import Level
from confide.enclave.measure import measure
from confide.enclave.service import Limits, SecretPin
from confide.errors import (
    ChannelError,
    ConfideError,
    ConfigurationError,
    EnclaveError,
    NotAcceptable,
    TeeUnavailable,
)
from confide.host import directory
from confide.host.enclave import Enclave, State
from confide.keys.identity import Identity
from confide.keys.release import SecretName
from confide.keys.unlock import unlock
from support.enclaves import SAMPLES, sample_application

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.enclaves import Launcher

MIB = 1 << 20


@pytest.fixture(scope="module")
def running(launcher: Launcher) -> Iterator[tuple[Enclave, Client]]:
    """One enclave for the tests that leave it as it was."""
    service = sample_application(
        limits=Limits(memory=512 * MIB, processes=32, deadline=20), environment={"MEASURED": "yes"}
    )
    with launcher.launch(service) as enclave, launcher.connect(enclave) as client:
        yield enclave, client


def test_a_launched_enclave_answers_an_attested_client(running: tuple[Enclave, Client]) -> None:
    enclave, client = running
    assert enclave.state is State.RUNNING
    assert client.post("/echo", content=b"through the envelope").content == b"through the envelope"
    assert client.attestation.simulated
    assert enclave.simulated
    assert "SIMULATED" in enclave.describe()


def test_the_measurement_is_what_measure_predicts_without_launching(running: tuple[Enclave, Client]) -> None:
    enclave, _client = running
    predicted = measure(
        sample_application(
            limits=Limits(memory=512 * MIB, processes=32, deadline=20), environment={"MEASURED": "yes"}
        )
    )
    assert enclave.measurement.hex() in predicted.to_toml()
    assert enclave.manifest is not None
    assert enclave.manifest.digest.hex() in predicted.to_toml()


def test_the_level_reached_is_in_the_evidence(running: tuple[Enclave, Client]) -> None:
    enclave, client = running
    report = client.attestation.evidence.platform.data
    assert f"confide-sim-{enclave.level.name}".encode() in report


def test_nothing_but_the_envelope_answers(running: tuple[Enclave, Client]) -> None:
    """The application cannot be reached in the clear, whatever is asked."""
    enclave, _client = running
    with httpx2.Client(base_url=enclave.url, timeout=10) as plain:
        for method, path in (
            ("GET", "/echo"),
            ("POST", "/echo"),
            ("GET", "/"),
            ("GET", "/docs"),
            ("PUT", "/confide"),
        ):
            answer = plain.request(method, path, content=b"plain" if method != "GET" else None)
            assert answer.status_code in {400, 404, 405}, path
            assert answer.content == b""


def test_bnd_19_unmeasured_variables_do_not_reach_the_worker(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """BND-19: the host's environment steers loaders, interpreters and proxies; the worker has the manifest's pairs only."""
    for name in (
        *("LD_PRELOAD", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONHOME", "PYTHONBREAKPOINT", "PYTHONINSPECT"),
        *("OMP_NUM_THREADS", "HTTPS_PROXY", "SSLKEYLOGFILE", "MALLOC_PERTURB_", "TZ", "LANG", "LC_ALL"),
    ):
        monkeypatch.setenv(name, str(tmp_path / "planted"))
    with (
        launcher.launch(sample_application(environment={"A": "1"})) as enclave,
        launcher.connect(enclave) as client,
    ):
        facts = client.post("/facts").json()
    assert facts["environment"] == {"A": "1"}


@pytest.mark.parametrize("name", ["LD_PRELOAD", "PYTHONPATH", "SSLKEYLOGFILE", "HTTPS_PROXY"])
def test_bnd_19_a_service_cannot_even_measure_a_variable_that_steers_the_loader(name: str) -> None:
    with pytest.raises(ConfigurationError):
        sample_application(environment={name: "x"})


def test_the_inside_inherits_nothing_else(running: tuple[Enclave, Client]) -> None:
    _enclave, client = running
    facts = client.post("/facts").json()
    assert facts["environment"] == {"MEASURED": "yes"}
    assert facts["arguments"] == []
    assert facts["directory"] == "/"
    assert facts["flags"] == [1, 1, 1, 1]
    assert facts["umask"] == 0o077
    assert not [entry for entry in facts["path"] if "site-packages" in entry]
    kinds = {number: target.split(":")[0] for number, target in facts["descriptors"].items()}
    assert {kinds[str(number)] for number in (0, 1, 2)} == {"/dev/null"}
    assert {kinds[str(number)] for number in (3, 4, 5, 6)} == {"socket"}
    others = {target for number, target in kinds.items() if int(number) > 6}
    assert all(target in {"socket", "anon_inode"} or target.startswith("/proc/") for target in others), others


def test_rt_12_files_planted_beside_the_code_are_not_imported(launcher: Launcher, tmp_path: Path) -> None:
    """RT-12: a module that shadows one of Python's, a sitecustomize and a .pth in the working directory change nothing."""
    marker = tmp_path / "ran"
    planted = f"open({str(marker)!r}, 'w').close()\n"
    for name in ("json.py", "sitecustomize.py", "usercustomize.py", "asyncio.py", "x.pth", "confide.py"):
        (tmp_path / name).write_text(("import json;" if name.endswith(".pth") else "") + planted)
    code = (
        "import sys; from pathlib import Path; sys.path.append(sys.argv[1])\n"
        "from support.enclaves import Launcher, sample_application\n"
        "launcher = Launcher(Path(sys.argv[2]), Path(sys.argv[3]))\n"
        "with launcher.launch(sample_application()) as enclave, launcher.connect(enclave) as client:\n"
        "    print(client.post('/echo', content=b'unharmed').text)\n"
    )
    tests = Path(__file__).parents[1]
    done = subprocess.run(
        [
            sys.executable,
            "-P",
            "-c",
            code,
            str(tests),
            str(launcher.simulator_directory),
            str(launcher.state_directory),
        ],
        cwd=tmp_path,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == b"unharmed\n", done.stderr.decode()[-2000:]
    assert not marker.exists()


def test_rt_12_a_changed_line_of_code_is_another_measurement(launcher: Launcher, tmp_path: Path) -> None:
    """A policy for the original refuses an enclave whose code differs in one byte."""
    original = (SAMPLES / "confidential_app.py").read_bytes()
    changed = tmp_path / "confidential_app.py"
    changed.write_bytes(original.replace(b'return b"kept"', b'return b"Kept"'))
    from confide.enclave.application import Application

    service = Application("confidential_app:app", code=[changed])
    with launcher.launch(sample_application()) as honest:
        verifier = launcher.verifier(honest)
    with launcher.launch(service) as enclave:
        with pytest.raises(NotAcceptable) as caught:
            Client(enclave.url, verifier)
        assert caught.value.code == "not_acceptable.measurement"


# Crashes and limits


def _in_background(call: Any) -> tuple[threading.Thread, list[BaseException | Any]]:
    outcome: list[BaseException | Any] = []

    def run() -> None:
        try:
            outcome.append(call())
        except BaseException as error:  # noqa: BLE001
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, outcome


def test_rt_01_a_killed_worker_is_a_typed_error_at_once_and_needs_attestation_again(
    launcher: Launcher,
) -> None:
    """RT-01 and BND-15: SIGKILL in the middle of a request; then the same port, another instance, the old session."""
    with launcher.launch(sample_application()) as enclave:
        port = int(enclave.url.rpartition(":")[2])
        client = launcher.connect(enclave)
        thread, outcome = _in_background(lambda: client.post("/slow", content=b"60"))
        time.sleep(0.3)
        began = time.monotonic()
        os.kill(enclave.worker_pid, signal.SIGKILL)
        thread.join(10)
        assert not thread.is_alive()
        assert isinstance(outcome[0], ChannelError | httpx2.TransportError), outcome
        assert enclave.wait(timeout=5)
        assert time.monotonic() - began < 5
        assert enclave.state is State.FAILED
        assert enclave.error is not None
        assert enclave.error.code == "enclave.crashed"
        with pytest.raises(EnclaveError):
            enclave.raise_for_state()
        with pytest.raises((ChannelError, httpx2.TransportError)):
            client.post("/echo", content=b"nobody is there")
    instance = client.attestation.key_material
    with launcher.launch(sample_application(), listen=("127.0.0.1", port)) as again:
        assert client.post("/echo", content=b"back").content == b"back"
        assert client.attestation.key_material != instance, (
            "the client attested the new instance before it spoke"
        )
        assert again.state is State.RUNNING
    client.close()


def test_rt_01_a_segmentation_fault_inside_is_seen_as_a_crash(launcher: Launcher) -> None:
    with launcher.launch(sample_application()) as enclave, launcher.connect(enclave) as client:
        with pytest.raises((ChannelError, httpx2.TransportError)):
            client.post("/segfault")
        assert enclave.wait(timeout=5)
        assert enclave.error is not None
        assert enclave.error.code == "enclave.crashed"
        assert any("crashed status=139" in line for line in enclave.logs())


def test_the_death_of_the_device_is_noticed_by_the_next_client(launcher: Launcher) -> None:
    with launcher.launch(sample_application()) as enclave:
        verifier = launcher.verifier(enclave)
        os.kill(enclave.device_pid, signal.SIGKILL)
        with pytest.raises(ConfideError):
            Client(enclave.url, verifier)


def test_rt_02_a_request_beyond_the_memory_limit_fails_alone(running: tuple[Enclave, Client]) -> None:
    enclave, client = running
    with pytest.raises((ChannelError, httpx2.TransportError, httpx2.HTTPStatusError)):
        client.post("/allocate", content=str(4096 * MIB).encode()).raise_for_status()
    assert client.post("/allocate", content=str(MIB).encode()).content == str(MIB).encode()
    assert enclave.state is State.RUNNING
    assert any("request_failed code=enclave.out_of_memory" in line for line in enclave.logs())


def test_rt_03_threads_and_recursion_are_bounded(running: tuple[Enclave, Client]) -> None:
    _enclave, client = running
    assert client.post("/threads").json() < 128
    assert client.post("/recurse").content == b"bounded"
    assert client.post("/echo", content=b"alive").content == b"alive"


def test_rt_06_many_requests_leave_no_descriptor_behind(running: tuple[Enclave, Client]) -> None:
    _enclave, client = running
    for _ in range(20):
        client.post("/echo", content=b"warm")
    before = len(client.post("/facts").json()["descriptors"])
    for _ in range(300):
        client.post("/echo", content=b"again")
    assert abs(len(client.post("/facts").json()["descriptors"]) - before) <= 2


def test_leak_02_what_the_application_raises_stays_inside(running: tuple[Enclave, Client]) -> None:
    enclave, client = running
    canary = os.urandom(24).hex()
    with pytest.raises((ChannelError, httpx2.HTTPError)) as caught:
        client.post("/fail", content=canary.encode()).raise_for_status()
    assert canary not in str(caught.value)
    assert canary not in "\n".join(enclave.logs())


def test_only_identifiers_and_numbers_leave_by_the_log(running: tuple[Enclave, Client]) -> None:
    enclave, client = running

    def say(event: str, **fields: object) -> bytes:
        return client.post("/say", content=json.dumps({"event": event, "fields": fields}).encode()).content

    assert say("batch_done", count=3, state="ready") == b"said"
    for event, fields in (
        ("patient Smith", {}),
        ("ok", {"patient": 7}),
        ("ok", {"code": "two words"}),
        ("ok", {"count": 1.5}),
        ("ok", {"count": None}),
        ("x" * 65, {}),
        ("ok\n2026-01-01T00:00:00Z forged", {}),
    ):
        assert say(event, **fields) in {b"MalformedError", b"ConfigurationError"}, event
    deadline = time.monotonic() + 5
    while not any("batch_done count=3 state=ready" in line for line in enclave.logs()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not any("Smith" in line or "forged" in line for line in enclave.logs())


# What is refused before anything runs


def test_another_address_than_loopback_is_refused(launcher: Launcher) -> None:
    for host in (
        "0.0.0.0",  # noqa: S104
        "192.0.2.1",
        "::",
        "example.org",
        "",
    ):
        with (
            pytest.raises(ConfigurationError) as caught,
            launcher.launch(sample_application(), listen=(host, 0)),
        ):
            pass
        assert caught.value.code == "configuration.listen"


@pytest.mark.parametrize("tee", ["auto", "snp", "tdx", "sgx", "nitro"])
def test_a_real_tee_that_is_not_here_is_never_replaced_by_a_simulated_one(
    launcher: Launcher, tee: str
) -> None:
    with pytest.raises(TeeUnavailable) as caught, launcher.launch(sample_application(), tee=tee):
        pass
    assert caught.value.code == "enclave.tee"
    assert "simulated" in caught.value.hint


def test_an_unknown_tee_is_a_configuration_error(launcher: Launcher) -> None:
    with pytest.raises(ConfigurationError), launcher.launch(sample_application(), tee="simulate"):
        pass


def test_a_required_level_that_is_not_reached_ends_the_launch(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker reports less than L3 (here the report is cut on its way); the launch fails and nothing is left running."""
    from confide.enclave.confinement.levels import Confinement
    from confide.host.supervise import Supervisor

    confined = Supervisor._confined

    def cut(self: Supervisor, confinement: Confinement) -> None:
        confined(self, Confinement(tuple(p for p in confinement.primitives if p.name != "namespace.network")))

    monkeypatch.setattr(Supervisor, "_confined", cut)
    before = {record.id for record in directory.records(launcher.state_directory)}
    with pytest.raises(TeeUnavailable) as caught, launcher.launch(sample_application(), require_level="L3"):
        pass
    assert caught.value.code == "enclave.level"
    # Enclaves of other tests may end meanwhile, and those that run change their state; none may have come.
    assert {record.id for record in directory.records(launcher.state_directory)} <= before
    with launcher.launch(sample_application(), require_level=Level.L2) as enclave:
        assert enclave.level is Level.L2


def test_a_file_that_is_not_there_is_refused_before_anything_starts(
    launcher: Launcher, tmp_path: Path
) -> None:
    with (
        pytest.raises(ConfigurationError),
        launcher.launch(sample_application(), data={"x": tmp_path / "absent"}),
    ):
        pass
    with pytest.raises(ConfigurationError), launcher.launch(sample_application(), data={"x": tmp_path}):
        pass


def test_code_that_imports_what_is_not_measured_does_not_start(launcher: Launcher, tmp_path: Path) -> None:
    from confide.enclave.application import Application

    (tmp_path / "needy.py").write_text("import hypothesis\napp = None\n")
    with (
        pytest.raises(EnclaveError) as caught,
        launcher.launch(Application("needy:app", code=[tmp_path / "needy.py"])),
    ):
        pass
    assert caught.value.code == "enclave.unmeasured"
    assert "hypothesis" in caught.value.message


# Life


def test_stopping_finishes_what_is_in_flight(launcher: Launcher) -> None:
    with launcher.launch(sample_application()) as enclave, launcher.connect(enclave) as client:
        thread, outcome = _in_background(lambda: client.post("/slow", content=b"0.7").content)
        time.sleep(0.3)
        enclave.stop(grace=10)
        thread.join(10)
        assert outcome == [b"done"]
        assert enclave.state is State.STOPPED
        enclave.stop()


def test_stopping_does_not_wait_longer_than_its_grace(launcher: Launcher) -> None:
    with launcher.launch(sample_application()) as enclave, launcher.connect(enclave) as client:
        thread, _outcome = _in_background(lambda: client.post("/slow", content=b"15"))
        time.sleep(0.3)
        began = time.monotonic()
        enclave.stop(grace=1)
        assert time.monotonic() - began < 6
        thread.join(10)
        assert enclave.state.final


def test_an_enclave_ends_when_its_host_is_killed(launcher: Launcher) -> None:
    code = (
        "import sys, time; from pathlib import Path; sys.path.append(sys.argv[1])\n"
        "from support.enclaves import Launcher, sample_application\n"
        "launcher = Launcher(Path(sys.argv[2]), Path(sys.argv[3]))\n"
        "with launcher.launch(sample_application()) as enclave:\n"
        "    print(enclave.worker_pid, enclave.device_pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    tests = Path(__file__).parents[1]
    command = [
        sys.executable,
        "-c",
        code,
        str(tests),
        str(launcher.simulator_directory),
        str(launcher.state_directory),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as host:
        assert host.stdout is not None
        pids = [int(number) for number in host.stdout.readline().split()]
        assert len(pids) == 2
        host.kill()
    deadline = time.monotonic() + 10
    while any(_running(pid) for pid in pids):
        assert time.monotonic() < deadline, pids
        time.sleep(0.02)
    listed = {record.pid for record in directory.records(launcher.state_directory)}
    assert not listed & set(pids), "its record is stale and not listed"


def _running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in {b"Z", b"X"}
    except OSError:
        return False


def test_a_running_enclave_is_listed_and_stopped_by_its_record(launcher: Launcher) -> None:
    with launcher.launch(sample_application(id="listed")) as enclave:
        (record,) = (r for r in directory.records(launcher.state_directory) if r.service == "listed")
        assert (record.id, record.url, record.state, record.level) == (
            enclave.id,
            enclave.url,
            "running",
            enclave.level.name,
        )
        assert record.simulated
        path = launcher.state_directory / f"{record.id}.json"
        assert path.stat().st_mode & 0o777 == 0o600
        assert "confined" in "\n".join(directory.logs("listed", launcher.state_directory))
        directory.stop("listed", launcher.state_directory)
        assert enclave.wait(timeout=5)
        assert enclave.state is State.STOPPED
        with pytest.raises(EnclaveError):
            directory.find("listed", launcher.state_directory)


def test_an_enclave_that_misses_a_key_waits_and_says_so(launcher: Launcher) -> None:
    service = sample_application(secrets=[SecretPin("password", bytes(range(32)))])
    with launcher.launch(service) as enclave:
        assert enclave.state is State.WAITING
        assert httpx2.post(f"{enclave.url}/.well-known/confide", content=bytes(32)).status_code == 503
        assert httpx2.get(f"{enclave.url}/.well-known/confide/release").status_code == 200
        with pytest.raises(ConfideError):
            launcher.connect(enclave)


# Context


def test_keys_of_the_context_depend_on_purpose_and_measurement_and_survive_a_restart(
    launcher: Launcher, running: tuple[Enclave, Client]
) -> None:
    _enclave, client = running
    first = client.post("/context", content=b"x").json()
    assert first["key"] != first["other"]
    assert len(bytes.fromhex(first["key"])) == 32
    with launcher.launch(sample_application()) as other, launcher.connect(other) as same:
        second = same.post("/context", content=b"x").json()
        assert second["key"] != first["key"], "another measurement has other keys"
        sealed = bytes.fromhex(second["sealed"])
    with launcher.launch(sample_application()) as again, launcher.connect(again) as client_again:
        assert client_again.post("/context", content=b"x").json()["key"] == second["key"]
        assert client_again.post("/open", content=sealed).content == b"x"


def test_the_context_attests_a_nonce_of_its_caller(
    launcher: Launcher, running: tuple[Enclave, Client]
) -> None:
    enclave, client = running
    bundle = bytes.fromhex(client.post("/context", content=b"x").json()["evidence"])
    from datetime import UTC, datetime, timedelta

    result = launcher.verifier(enclave).verify(
        Evidence.decode(bundle),
        at=datetime.now(UTC),  # noqa: TID251
        nonce=bytes(range(32)),
        age=timedelta(seconds=1),
        purpose="channel",
    )
    assert result.freshness == "fresh"


def test_a_vault_in_a_lent_directory_survives_a_restart_and_holds_no_plaintext(
    launcher: Launcher, tmp_path: Path
) -> None:
    canary = os.urandom(24).hex().encode()
    for expected, written in ((b"nothing", canary), (canary, b"second")):
        with (
            launcher.launch(sample_application(), storage=tmp_path / "lent") as enclave,
            launcher.connect(enclave) as client,
        ):
            assert client.post("/vault", content=written).content == expected
    files = [path for path in (tmp_path / "lent").rglob("*") if path.is_file()]
    assert files
    assert not any(canary in path.read_bytes() for path in files)


def test_a_lease_that_ends_erases_the_key_and_ends_the_enclave(launcher: Launcher, tmp_path: Path) -> None:
    """Also while another secret is still waited for: a lease runs from its release, whatever the enclave is doing."""
    owner = Identity.open_or_create("owner", tmp_path / "identities")
    service = sample_application(
        secrets=[SecretPin("leased", owner.key.public), SecretPin("awaited", owner.key.public)]
    )
    with launcher.launch(service) as enclave:
        leased = {SecretName("leased", 1): Secret(bytes(32))}
        unlock(enclave.url, verifier=launcher.verifier(enclave), secrets=leased, identity=owner, lease=1)
        assert enclave.state is State.WAITING
        assert enclave.wait(timeout=10)
        assert enclave.error is not None
        assert enclave.error.code == "broker.lease_expired"


def test_rt_05_what_has_ended_is_used_no_more(launcher: Launcher) -> None:
    with launcher.launch(sample_application()) as enclave:
        client = launcher.connect(enclave)
        verifier = launcher.verifier(enclave)
        enclave.stop()
        enclave.stop()
        assert enclave.state is State.STOPPED
        assert enclave.wait(timeout=1)
        enclave.raise_for_state()
        with pytest.raises(EnclaveError) as caught:
            enclave.wait_until("running", timeout=1)
        assert caught.value.code == "enclave.bad_state"
        with pytest.raises((ChannelError, httpx2.TransportError)):
            client.post("/echo")
        with pytest.raises((ChannelError, httpx2.TransportError)):
            Client(enclave.url, verifier)
        client.close()


@pytest.mark.slow
def test_rt_01_a_kill_at_any_moment_is_a_typed_error(launcher: Launcher) -> None:
    """RT-01: SIGKILL at moments from the launch through the handshake to the middle of requests."""
    for step in range(8):
        delay = step * 0.08
        with launcher.launch(sample_application()) as enclave:
            pid = enclave.worker_pid

            def use(enclave: Enclave = enclave) -> None:
                with launcher.connect(enclave) as client:
                    for _ in range(1000):
                        client.post("/echo", content=b"x" * 50_000)

            thread, outcome = _in_background(use)
            time.sleep(delay)
            os.kill(pid, signal.SIGKILL)
            thread.join(20)
            assert not thread.is_alive(), delay
            assert isinstance(outcome[0], ConfideError | httpx2.TransportError), (delay, outcome)
            assert enclave.wait(timeout=5)
            assert enclave.state is State.FAILED


@pytest.mark.slow
def test_rt_06_memory_does_not_grow_with_requests(launcher: Launcher) -> None:
    """After a warm-up, 5000 requests add less than 4 MiB to the worker and no descriptor."""
    with launcher.launch(sample_application()) as enclave, launcher.connect(enclave) as client:

        def resident() -> int:
            status = Path(f"/proc/{enclave.worker_pid}/status").read_text(encoding="ascii")
            return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])

        for _ in range(1000):
            client.post("/echo", content=b"x" * 1000)
        before, descriptors = resident(), len(client.post("/facts").json()["descriptors"])
        for _ in range(5000):
            client.post("/echo", content=b"x" * 1000)
        assert resident() - before < 4096
        assert abs(len(client.post("/facts").json()["descriptors"]) - descriptors) <= 2


def test_the_simulated_tee_is_never_used_unless_it_is_named(launcher: Launcher) -> None:
    with pytest.raises(TeeUnavailable) as caught:
        Enclave.launch(sample_application(), state_directory=launcher.state_directory)

    assert caught.value.code == "enclave.tee"
    assert "simulated" in caught.value.hint
