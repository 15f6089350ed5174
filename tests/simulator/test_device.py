# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import importlib
import os
import re
import socket
import subprocess
import sys
import threading
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from confide import simulator
from confide.attestation import binding
from confide.attestation.anchors import TrustAnchor
from confide.attestation.evidence import Endorsements, Evidence
from confide.attestation.key_material import HPKE_PUBLIC_BYTES, KeyMaterial, ServiceIdentity
from confide.attestation.policy import AppraisalPolicy
from confide.attestation.result import Tier
from confide.attestation.verifier import Verifier
from confide.enclave import manifest as manifests
from confide.enclave.manifest import Manifest, build
from confide.enclave.measure import measure, policy_for
from confide.enclave.service import CodeRoot, Service
from confide.errors import ConfideError, ConfigurationError, EnclaveError, TeeUnavailable
from confide.simulator import messages
from confide.simulator.client import SimulatedDevice
from confide.simulator.device import Device
from confide.simulator.measurement import measurement
from confide.simulator.process import DeviceProcess
from confide.simulator.snp import Chip
from confide.tees.snp.wire import GuestPolicy, ReportV5, decode_report
from support import simulated, snp
from support.refusal import code_of

if TYPE_CHECKING:
    from collections.abc import Iterator

AT = datetime(2026, 6, 1, tzinfo=UTC)
DATA = bytes(range(64))
NONCE = b"\x07" * 32


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return build(Service("application", "acme"))


@pytest.fixture(scope="module")
def chip() -> Chip:
    return Chip.power_on(simulated.installation())


def connected(device: Device) -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=device.serve, args=(theirs,))
    thread.start()
    yield ours
    ours.close()
    thread.join(timeout=10)
    theirs.close()
    assert not thread.is_alive()


@pytest.fixture
def line(chip: Chip, manifest: Manifest) -> Iterator[socket.socket]:
    """The worker's end of a device's socket."""
    yield from connected(Device(chip, manifest.encode(), debug=False))


def report_of(client: SimulatedDevice, data: bytes = DATA) -> ReportV5:
    report = decode_report(client.attest(data).platform.data)
    assert isinstance(report, ReportV5)
    return report


def bundle(
    client: SimulatedDevice, manifest: Manifest, *, shown: bytes | None = None, **identity: Any
) -> Evidence:
    """Evidence as an instance makes it: key material bound to a nonce, the report, the manifest beside it."""
    named = {
        "kind": "application",
        "manifest": manifest.digest,
        "id": "acme",
        "instance": bytes(16),
        **identity,
    }
    material = KeyMaterial(
        purpose="channel",
        audience="",
        service=ServiceIdentity(**named),
        key=bytes(HPKE_PUBLIC_BYTES),
        receipt_key=bytes(32),
        epoch=1,
        lifetime=60,
        issued_at=int(AT.timestamp()),
        at_most_once=False,
        content={},
        max_body=1 << 20,
        max_session=60,
    ).encode()
    leaves = [binding.leaf(NONCE, material)]
    platform = client.attest(binding.report_data(binding.batch_root(leaves)))
    return Evidence(
        platform.platform,
        (),
        material,
        manifest.encode() if shown is None else shown,
        binding.batch_proofs(leaves)[0],
        platform.endorsements,
    )


def verify(policy: AppraisalPolicy, evidence: Evidence, **options: Any) -> Any:
    consents = {
        "extra_anchors": [simulator.anchor(simulated.directory())],
        "allow_simulated": True,
        **options,
    }
    return Verifier(policy, **consents).verify(evidence, at=AT, nonce=NONCE, purpose="channel", audience="")


def test_a_report_of_the_simulated_device_has_the_real_layout_and_the_real_verifier_accepts_it(
    line: socket.socket, manifest: Manifest
) -> None:
    client = SimulatedDevice(line)
    client.claim_level(2)
    report = report_of(client)
    assert (report.report_data, report.measurement) == (DATA, measurement(manifest.encode()))
    assert report.host_data == hashlib.sha256(manifest.encode()).digest() == manifest.digest
    assert report.family_id.rstrip(b"\0") == b"confide-sim-L2"
    assert not GuestPolicy(report.policy).has("debug")
    result = verify(policy_for(manifest), bundle(client, manifest))
    assert result.verdict == "accepted"
    assert result.freshness == "fresh"


def test_the_measurement_is_the_documented_formula(manifest: Manifest) -> None:
    data = manifest.encode()
    assert measurement(data) == hashlib.sha384(b"confide/simulated/measurement/1" + b"\x00" + data).digest()


def test_evidence_with_revocation_required_is_accepted(line: socket.socket, manifest: Manifest) -> None:
    text = policy_for(manifest).to_toml().replace("allow_debug", "require_revocation = true\nallow_debug")
    assert (
        verify(AppraisalPolicy.from_toml(text), bundle(SimulatedDevice(line), manifest)).verdict == "accepted"
    )


def test_sim_01_simulated_evidence_is_not_genuine_under_the_pinned_roots(
    line: socket.socket, manifest: Manifest
) -> None:
    evidence = bundle(SimulatedDevice(line), manifest)
    assert verify(policy_for(manifest), evidence).verdict == "accepted"
    assert code_of(verify, policy_for(manifest), evidence, extra_anchors=[]) == "not_genuine.untrusted_root"
    other = Chip.power_on(simulated.installation())
    forged = Endorsements((*evidence.endorsements.certificates, other.vcek), evidence.endorsements.crls)
    stapled = Evidence(
        evidence.platform, (), evidence.key_material, evidence.manifest, evidence.proof, forged
    )
    assert code_of(verify, policy_for(manifest), stapled, extra_anchors=[]) == "not_genuine.untrusted_root"
    # The certificate of another start of the same chip does no harm, whichever of the two is tried.
    assert verify(policy_for(manifest), stapled).verdict == "accepted"


def test_sim_02_no_variable_file_or_folder_makes_the_simulated_root_trusted(
    line: socket.socket, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The root is where the simulator looks by default, in the working folder and named by variables, and nothing changes."""
    evidence = bundle(SimulatedDevice(line), manifest)
    monkeypatch.setenv("XDG_DATA_HOME", str(simulated.directory().parent))
    for name in ("CONFIDE_ALLOW_SIMULATED", "CONFIDE_EXTRA_ANCHORS", "CONFIDE_ANCHOR", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, str(simulated.directory() / "ark.der"))
    for name in ("ark.der", "genoa.pem", "anchors.toml"):
        (tmp_path / name).write_bytes((simulated.directory() / "ark.der").read_bytes())
    monkeypatch.chdir(tmp_path)
    policy = policy_for(manifest)
    assert code_of(verify, policy, evidence, extra_anchors=[]) == "not_genuine.untrusted_root"
    assert code_of(verify, policy, evidence, allow_simulated=False) == "not_acceptable.simulated"
    for line_ in ("allow_simulated = true", 'extra_anchors = ["ark.der"]', "simulated = true"):
        with pytest.raises(ConfigurationError):
            AppraisalPolicy.from_toml(f"{line_}\n{policy.to_toml()}")


def test_sim_03_both_consents_never_make_it_affirming_and_every_result_says_simulated(
    line: socket.socket, manifest: Manifest
) -> None:
    evidence = bundle(SimulatedDevice(line), manifest)
    assert (
        code_of(verify, policy_for(manifest), evidence, allow_simulated=False) == "not_acceptable.simulated"
    )
    result = verify(policy_for(manifest), evidence)
    assert result.simulated is True
    assert result.tier > Tier.of(2)
    shown = result.to_json()
    assert shown["simulated"] is True
    assert "SIMULATED" in str(shown["reasons"])
    assert "97" in str(shown)


def test_sim_04_an_owner_who_has_not_consented_releases_nothing_to_a_simulated_enclave(
    line: socket.socket, manifest: Manifest
) -> None:
    """Release, unlock and broker decide by this Verifier; without consent it raises before any key is touched."""
    evidence = bundle(SimulatedDevice(line), manifest)
    anchors = [simulator.anchor(simulated.directory())]
    for purpose in ("channel", "release"):
        with pytest.raises(ConfideError) as caught:
            Verifier(policy_for(manifest), extra_anchors=anchors).verify(
                evidence, at=AT, nonce=NONCE, purpose=purpose, audience=""
            )
        assert caught.value.code == "not_acceptable.simulated"


def test_sim_05_what_decides_trust_never_loads_the_simulator() -> None:
    packages = ["attestation", "tees", "channel", "keys", "sealing"]
    program = (
        "import importlib, pkgutil, sys\n"
        f"for package in {packages!r}:\n"
        "    root = importlib.import_module('confide.' + package)\n"
        "    for found in pkgutil.walk_packages(root.__path__, root.__name__ + '.'):\n"
        "        importlib.import_module(found.name)\n"
        "print([name for name in sys.modules if name.startswith('confide.simulator')])\n"
        "print(len([name for name in sys.modules if name.startswith('confide.')]) > 20)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.splitlines() == ["[]", "True"], done.stderr


def test_simulated_evidence_of_another_machine_is_not_genuine_here(
    line: socket.socket, manifest: Manifest
) -> None:
    evidence = bundle(SimulatedDevice(line), manifest)
    other = snp.authority()
    foreign = TrustAnchor("snp", "Genoa", (other.ark, other.ask), simulated=True)
    assert (
        code_of(verify, policy_for(manifest), evidence, extra_anchors=[foreign])
        == "not_genuine.untrusted_root"
    )


@pytest.mark.parametrize(
    "extra",
    [
        {"measurement": bytes(48)},
        {"manifest": b""},
        {"host_data": bytes(32)},
        {"debug": False},
        {"level": 3},
        {"vmpl": 0},
    ],
    ids=str,
)
def test_a_worker_cannot_ask_for_evidence_of_another_measurement(
    line: socket.socket, manifest: Manifest, extra: dict[str, Any]
) -> None:
    """Whatever a dishonest worker adds is refused, and what it gets when it asks plainly is its own measurement."""
    client = SimulatedDevice(line)
    question = {"ask": "attest", "report_data": DATA}
    with pytest.raises(EnclaveError):
        messages.call(line, {**question, **extra}, number=1, limit=messages.MAX_WORKER)
    assert report_of(client).measurement == measurement(manifest.encode())


def test_a_worker_that_shows_another_manifest_is_not_acceptable(
    line: socket.socket, manifest: Manifest
) -> None:
    """It puts the wanted manifest and service identity beside its own evidence: the policy pins what the device measured."""
    wanted = build(Service("application", "victim"))
    evidence = bundle(SimulatedDevice(line), wanted, id="victim")
    assert code_of(verify, policy_for(wanted), evidence) == "not_acceptable.measurement"


@pytest.mark.parametrize(
    "question",
    [
        {"ask": "sign", "data": DATA},
        {"ask": "attest"},
        {"ask": "attest", "report_data": DATA[:63]},
        {"ask": "attest", "report_data": DATA + b"\0"},
        {"ask": "attest", "report_data": "x" * 64},
        {"ask": "derive"},
        {"ask": "derive", "label": b"x" * 257},
        {"ask": "derive", "label": b"x", "measurement": bytes(48)},
        {"ask": "level", "level": 4},
        {"ask": "level", "level": True},
        {"ask": 1},
        {"service": {}},
        {},
    ],
    ids=str,
)
def test_a_question_that_is_not_exactly_one_of_three_is_refused_and_changes_nothing(
    line: socket.socket, question: dict[str, Any]
) -> None:
    with pytest.raises(EnclaveError):
        messages.call(line, question, number=1, limit=messages.MAX_WORKER)
    client = SimulatedDevice(line)
    client.claim_level(1)
    assert report_of(client).family_id.rstrip(b"\0") == b"confide-sim-L1"


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x00",
        b"\x00\x00\x00\x01\xff",
        b"\x00\x00\x00\x02\xa1",
        b"\x00\x00\x00\x01\x01",
        b"\x00\x00",
    ],
    ids=repr,
)
def test_what_is_no_message_ends_the_conversation(line: socket.socket, data: bytes) -> None:
    line.settimeout(10)
    line.sendall(data)
    line.shutdown(socket.SHUT_WR)
    assert line.recv(100) == b""


def test_the_level_is_claimed_once_and_before_any_evidence(line: socket.socket) -> None:
    client = SimulatedDevice(line)
    client.claim_level(3)
    assert code_of(client.claim_level, 2) == "enclave.bad_state"
    assert report_of(client).family_id.rstrip(b"\0") == b"confide-sim-L3"


def test_a_level_that_nobody_claimed_is_the_lowest_and_cannot_be_claimed_later(line: socket.socket) -> None:
    client = SimulatedDevice(line)
    assert report_of(client).family_id.rstrip(b"\0") == b"confide-sim-L0"
    assert code_of(client.claim_level, 3) == "enclave.bad_state"


def test_derived_keys_depend_on_label_measurement_and_machine_and_on_nothing_else(
    chip: Chip, manifest: Manifest
) -> None:
    data, other = manifest.encode(), build(Service("application", "other")).encode()
    key = chip.derive_key(b"vault", manifest=data)
    assert len(key) == 32
    assert Chip.power_on(simulated.installation()).derive_key(b"vault", manifest=data) == key
    assert (
        len({key, chip.derive_key(b"vaulx", manifest=data), chip.derive_key(b"vault", manifest=other)}) == 3
    )


def test_a_debug_service_is_reported_as_debug_and_refused_by_a_policy_that_does_not_allow_it(
    chip: Chip,
) -> None:
    made = build(Service("application", "acme", debug=True))
    for ours in connected(Device(chip, made.encode(), debug=made.service.debug)):
        evidence = bundle(SimulatedDevice(ours), made)
        assert verify(policy_for(made), evidence).verdict == "accepted"
        strict = AppraisalPolicy.from_toml(
            policy_for(made).to_toml().replace("allow_debug = true", "allow_debug = false")
        )
        assert code_of(verify, strict, evidence) == "not_acceptable.debug"


def test_a_device_that_is_gone_or_silent_is_a_typed_error() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert code_of(SimulatedDevice(ours, timeout=0.05).attest, DATA) == "enclave.deadline"
        assert code_of(SimulatedDevice(ours).attest, DATA[:10]) == "enclave.bad_state"
        theirs.close()
        assert code_of(SimulatedDevice(ours).attest, DATA) == "enclave.crashed"


@pytest.fixture
def app(tmp_path: Path) -> Service:
    root = tmp_path / "app"
    root.mkdir()
    (root / "__init__.py").write_text("x = 1\n")
    return Service("application", "acme", code=(CodeRoot(root, "app"),))


def spawn(service: Service, **options: Any) -> DeviceProcess:
    return DeviceProcess.spawn(
        service.description(), sites=manifests.sites(), directory=simulated.directory(), **options
    )


def test_the_device_process_measures_the_files_itself_and_signs_for_its_worker_alone(app: Service) -> None:
    """The prediction made here equals what the process measures; what the host sends afterwards changes nothing."""
    with spawn(app) as device:
        found = device.measured()
        device.ready()
        manifest = Manifest.decode(found.manifest)
        assert manifest == build(app)
        assert found.measurement == measurement(found.manifest)
        client = SimulatedDevice(device.worker)
        messages.send(device._host, {"ask": "attest", "report_data": DATA, "number": 1})
        messages.send(
            device._host, {"directory": "/", "service": Service("model", "other").description(), "sites": []}
        )
        assert verify(measure(app), bundle(client, manifest)).verdict == "accepted"
        device._host.settimeout(0.2)
        assert code_of(messages.receive, device._host, limit=messages.MAX_HOST) == "enclave.deadline"
        pid = device.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_changed_line_of_code_changes_the_measurement_and_the_evidence_is_refused(app: Service) -> None:
    policy = measure(app)
    (app.code[0].path / "__init__.py").write_text("x = 2\n")
    with spawn(app) as device:
        manifest = Manifest.decode(device.measured().manifest)
        evidence = bundle(SimulatedDevice(device.worker), manifest)
    assert code_of(verify, policy, evidence) == "not_acceptable.measurement"


def test_bnd_19_the_device_does_not_inherit_the_environment_of_its_host(
    app: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "sitecustomize.py").write_text("raise SystemExit(3)\n")
    for name in ("PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with spawn(app) as device:
        device.measured()
        device.ready()
        seen = Path(f"/proc/{device.pid}/environ")
        if seen.exists():
            assert seen.read_bytes() == b""


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        ("no code", "enclave.unmeasured"),
        ("planted", "enclave.unmeasured"),
        ("not installed", "configuration.requires"),
    ],
)
def test_what_the_device_cannot_measure_is_told_to_the_host_with_its_reason(
    app: Service, damage: str, code: str
) -> None:
    if damage == "no code":
        (app.code[0].path / "__init__.py").unlink()
    elif damage == "planted":
        (app.code[0].path / "__init__.pyc").write_bytes(b"")
    else:
        app = Service("application", "acme", requires=("no-such-distribution",))
    with spawn(app) as device, pytest.raises(ConfideError) as caught:
        device.measured()
    assert caught.value.code == code
    assert caught.value.hint


def test_a_device_that_cannot_be_started_is_a_typed_error(app: Service, tmp_path: Path) -> None:
    assert code_of(spawn, app, interpreter=str(tmp_path / "no-python")) == "enclave.crashed"


def test_a_device_that_dies_is_a_typed_error(app: Service) -> None:
    with spawn(app) as device:
        device._process.kill()
        assert code_of(device.measured) == "enclave.crashed"


def test_a_device_ends_when_its_worker_is_gone(app: Service) -> None:
    with spawn(app) as device:
        device.measured()
        device.ready()
        device.worker.close()
        assert device._process.wait(timeout=20) == 0


def test_the_part_that_the_host_uses_loads_no_key_and_no_cipher() -> None:
    program = (
        "import sys, confide.simulator.process, confide.enclave.service, confide.enclave.manifest, confide.enclave.registry\n"
        "print([n for n in sys.modules if n.startswith(('cryptography', 'confide.crypto', 'confide.keys'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.strip() == "[]"


def test_only_the_simulated_tee_can_be_predicted_from_a_manifest(manifest: Manifest) -> None:
    with pytest.raises(TeeUnavailable):
        policy_for(manifest, tee="snp")


def test_the_name_that_the_device_reaches_upward_exists() -> None:
    from confide.simulator import device_main

    module, name = device_main._MEASURER
    assert callable(getattr(importlib.import_module(module), name))


KEYS = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\r?\n[A-Za-z0-9+/=]")


def test_sim_06_no_private_key_is_in_the_tree(repository: Path) -> None:
    """Neither as a file nor inside one; the installation's own key file is what the pattern finds."""
    assert KEYS.search((simulated.directory() / "ask.pem").read_bytes())
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=repository,
        capture_output=True,
        check=False,
        timeout=30,
    )
    names = [name for name in listed.stdout.decode().split("\0") if name]
    places = [repository / name for name in names] or list((repository / "src").rglob("*"))
    checked = 0
    for place in places:
        if place.is_file():
            checked += 1
            assert not KEYS.search(place.read_bytes()), place
            assert place.suffix not in {".key", ".p12", ".pfx"}, place
    assert checked > 50


def test_sim_06_no_private_key_and_no_root_of_a_simulator_is_in_a_wheel(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = pytest.importorskip(
        "hatchling.build", reason="hatchling, which builds the wheel, is not installed"
    )
    monkeypatch.chdir(repository)
    name = backend.build_wheel(str(tmp_path))
    with zipfile.ZipFile(tmp_path / name) as archive:
        contents = {member: archive.read(member) for member in archive.namelist()}
    assert "confide/simulator/installation.py" in contents
    opened = simulated.installation()
    for member, data in contents.items():
        assert not KEYS.search(data), member
        assert not any(der in data for der in (opened.ark, opened.ask)), member
        assert member.endswith((".py", ".pem", ".md", ".css", "py.typed")) or ".dist-info/" in member, member
