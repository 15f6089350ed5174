# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N802 - the names are the library's.
"""NVML through an object in its place, which answers in the driver's structures and keeps what it was asked."""

from __future__ import annotations

import base64
import ctypes
import importlib
from dataclasses import dataclass, field
from typing import Any

import pytest

from confide.attestation import binding
from confide.attestation.attester import DeviceAttester, PlatformEvidence, quote
from confide.attestation.evidence import Evidence, EvidencePart
from confide.attestation.verifier import Verifier
from confide.crypto import x509
from confide.errors import ConfigurationError, EnclaveError, TeeUnavailable
from confide.tees.nvidia import attest
from support import nvidia
from support.refusal import code_of

NONCE = bytes(range(32))


class SystemState(ctypes.Structure):
    """nvmlConfComputeSystemState_t"""

    _fields_ = [("environment", ctypes.c_uint), ("ccFeature", ctypes.c_uint), ("devToolsMode", ctypes.c_uint)]


class Certificate(ctypes.Structure):
    """nvmlConfComputeGpuCertificate_t"""

    _fields_ = [
        ("certChainSize", ctypes.c_uint),
        ("attestationCertChainSize", ctypes.c_uint),
        ("certChain", ctypes.c_uint8 * 0x1000),
        ("attestationCertChain", ctypes.c_uint8 * 0x1400),
    ]


class AttestationReport(ctypes.Structure):
    """nvmlConfComputeGpuAttestationReport_t"""

    _fields_ = [
        ("isCecAttestationReportPresent", ctypes.c_uint),
        ("attestationReportSize", ctypes.c_uint),
        ("cecAttestationReportSize", ctypes.c_uint),
        ("nonce", ctypes.c_uint8 * 32),
        ("attestationReport", ctypes.c_uint8 * 0x2000),
        ("cecAttestationReport", ctypes.c_uint8 * 0x1000),
    ]


class NvmlFailed(Exception):
    """What the library raises."""


def wrapped(chain: tuple[bytes, ...]) -> bytes:
    """PEM in lines of 64 characters."""
    found = b""
    for der in chain:
        text = base64.b64encode(der)
        lines = b"\n".join(text[start : start + 64] for start in range(0, len(text), 64))
        found += b"-----BEGIN CERTIFICATE-----\n" + lines + b"\n-----END CERTIFICATE-----\n"
    return found


@dataclass
class Emulated:
    """A driver with one GPU or more; ``changes`` are fields of its structures, ``fail`` the call that fails."""

    count: int = 1
    state: dict[str, int] = field(default_factory=dict)
    report: dict[str, int] = field(default_factory=dict)
    certificate: dict[str, int] = field(default_factory=dict)
    fail: str = ""
    answer: bytes | None = None
    chain: bytes | None = None
    asked: list[Any] = field(default_factory=list)

    @property
    def NVMLError(self) -> type[Exception]:
        return NvmlFailed

    def _call(self, name: str, *arguments: Any) -> None:
        self.asked.append((name, *arguments))
        if name == self.fail:
            raise NvmlFailed

    def device(self, index: int) -> Any:
        return nvidia.device(serial=0x41AB_0000_0000_0000_01 + index)

    def nvmlInit(self) -> None:
        self._call("init")

    def nvmlSystemGetConfComputeState(self) -> SystemState:
        self._call("state")
        return SystemState(**({"environment": 2, "ccFeature": 1, "devToolsMode": 0} | self.state))

    def nvmlDeviceGetCount(self) -> int:
        self._call("count")
        return self.count

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        self._call("handle", index)
        return index

    def nvmlDeviceGetConfComputeGpuAttestationReport(self, handle: int, nonce: bytes) -> AttestationReport:
        self._call("report", handle, nonce)
        data = self.device(handle).report(nonce) if self.answer is None else self.answer
        made = AttestationReport()
        made.nonce[:] = list(nonce)
        made.attestationReport[: len(data)] = list(data)
        made.attestationReportSize = len(data)
        for name, value in self.report.items():
            setattr(made, name, value)
        return made

    def nvmlDeviceGetConfComputeGpuCertificate(self, handle: int) -> Certificate:
        self._call("certificate", handle)
        data = wrapped(self.device(handle).certificates) if self.chain is None else self.chain
        made = Certificate()
        made.attestationCertChain[: len(data)] = list(data)
        made.attestationCertChainSize = len(data)
        for name, value in self.certificate.items():
            setattr(made, name, value)
        return made

    def nvmlSystemSetConfComputeGpusReadyState(self, state: int) -> None:
        self._call("ready", state)


def test_every_gpu_answers_the_nonce_with_its_certificates() -> None:
    driver = Emulated(count=3)

    found = attest.Device.find(driver).device_evidence(NONCE)

    assert [part.format for part in found.devices] == ["nvidia"] * 3
    assert [call for call in driver.asked if call[0] == "report"] == [
        ("report", index, NONCE) for index in range(3)
    ]
    # The shared part of the three chains is there once.
    assert len(found.endorsements.certificates) == 3 * 2 + 3
    assert not any(call[0] == "ready" for call in driver.asked)
    case = nvidia.Case(
        driver.device(0), found.devices[0].data, found.endorsements.certificates, driver.device(0).documents()
    )
    assert nvidia.verify(case, report_data=NONCE).claims.report_data == NONCE


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_nonce_of_another_length_is_a_mistake_of_the_caller(length: int) -> None:
    driver = Emulated()
    with pytest.raises(ConfigurationError):
        attest.Device(driver).device_evidence(bytes(length))
    assert driver.asked == []


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"ccFeature": 0}, "is off"),
        ({"devToolsMode": 1}, "DevTools"),
        ({"devToolsMode": 2}, "DevTools"),
        ({"environment": 1}, "simulated"),
    ],
)
def test_gpu_02_a_gpu_whose_mode_is_not_on_gives_no_evidence(state: dict[str, int], words: str) -> None:
    for attempt in (
        lambda: attest.Device.find(Emulated(state=state)),
        lambda: attest.Device(Emulated(state=state)).device_evidence(NONCE),
    ):
        with pytest.raises(EnclaveError) as caught:
            attempt()
        assert (caught.value.code, words in caught.value.message) == ("enclave.gpu_mode", True)


def test_gpu_02_the_mode_is_asked_anew_for_each_evidence() -> None:
    driver = Emulated()
    device = attest.Device.find(driver)
    driver.state["devToolsMode"] = 1

    assert code_of(device.device_evidence, NONCE) == "enclave.gpu_mode"


@pytest.mark.parametrize("call", ["init", "count"])
def test_without_a_driver_the_gpu_is_unavailable(call: str) -> None:
    with pytest.raises(TeeUnavailable):
        attest.Device.find(Emulated(fail=call))
    with pytest.raises(TeeUnavailable):
        attest.Device.find(Emulated(count=0))


@pytest.mark.parametrize("call", ["state", "count", "handle", "report", "certificate"])
def test_a_call_that_fails_gives_no_evidence(call: str) -> None:
    assert code_of(attest.Device(Emulated(fail=call)).device_evidence, NONCE) == "enclave.bad_state"


@pytest.mark.parametrize(
    "changes",
    [
        {"report": {"attestationReportSize": 0}},
        {"report": {"attestationReportSize": 0x2001}},
        {"report": {"attestationReportSize": 0xFFFFFFFF}},
        {"report": {"attestationReportSize": 100}},
        {"report": {"isCecAttestationReportPresent": 1, "cecAttestationReportSize": 0}},
        {"report": {"isCecAttestationReportPresent": 1, "cecAttestationReportSize": 0x1001}},
        {"certificate": {"attestationCertChainSize": 0}},
        {"certificate": {"attestationCertChainSize": 0x1401}},
        {"certificate": {"attestationCertChainSize": 100}},
        {"answer": b"\x00" * 4000},
        {"chain": b"not a certificate"},
        {"count": 17},
        {"count": 0},
    ],
)
def test_sizes_and_structures_that_do_not_fit_are_refused(changes: dict[str, Any]) -> None:
    assert code_of(attest.Device(Emulated(**changes)).device_evidence, NONCE) == "enclave.bad_state"


def test_gpu_01_a_gpu_that_answers_another_nonce_is_refused() -> None:
    driver = Emulated(answer=nvidia.device().report(bytes(32)))

    assert code_of(attest.Device(driver).device_evidence, NONCE) == "enclave.bad_state"
    assert attest.Device(driver).device_evidence(bytes(32)).devices[0].data == driver.answer


def test_the_report_is_exactly_what_the_size_says() -> None:
    report = nvidia.device().report(NONCE)
    longer = Emulated(answer=report, report={"attestationReportSize": len(report) + 7})

    assert attest.Device(Emulated(answer=report)).device_evidence(NONCE).devices[0].data == report
    assert attest.Device(longer).device_evidence(NONCE).devices[0].data == report + bytes(7)
    present = Emulated(report={"isCecAttestationReportPresent": 1, "cecAttestationReportSize": 12})
    assert len(attest.Device(present).device_evidence(NONCE).devices) == 1


def test_zeros_after_the_certificates_are_the_buffer_s() -> None:
    chain = nvidia.device().certificates
    driver = Emulated(chain=wrapped(chain) + bytes(5))

    assert attest.Device(driver).device_evidence(NONCE).endorsements.certificates == chain
    assert x509.parse_pem(wrapped(chain))[0].der == chain[0]


@pytest.mark.parametrize("ready", [True, False])
def test_the_ready_state_is_set_only_when_it_is_asked_for(ready: bool) -> None:
    driver = Emulated()
    device = attest.Device.find(driver)
    device.device_evidence(NONCE)
    assert not any(call[0] == "ready" for call in driver.asked)

    device.set_ready(ready=ready)

    assert driver.asked[-1] == ("ready", int(ready))
    assert code_of(attest.Device(Emulated(fail="ready")).set_ready, ready=ready) == "enclave.bad_state"


def test_without_the_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    original = importlib.import_module

    def refuse(name: str, package: str | None = None) -> Any:
        if name == "pynvml":
            raise ImportError
        return original(name, package)

    monkeypatch.setattr(importlib, "import_module", refuse)

    with pytest.raises(TeeUnavailable) as caught:
        attest.Device.find()
    assert caught.value.hint == "pip install nvidia-ml-py"


@dataclass
class Cpu:
    """A CPU's TEE that keeps what it was asked."""

    asked: list[bytes] = field(default_factory=list)

    def attest(self, report_data: bytes) -> PlatformEvidence:
        self.asked.append(report_data)
        return PlatformEvidence(EvidencePart("snp", b"report"))

    def derive_key(self, label: bytes) -> bytes:
        return label


def test_gpu_05_the_gpus_answer_a_nonce_of_the_keys_and_the_cpu_covers_their_reports() -> None:
    cpu, driver = Cpu(), Emulated(count=2)
    attester = attest.Beside(cpu, attest.Device.find(driver))
    root = bytes(64)

    made = quote(attester, root)

    assert isinstance(attester, DeviceAttester)
    assert [part.format for part in made.devices] == ["nvidia", "nvidia"]
    nonces = [call[2] for call in driver.asked if call[0] == "report"]
    assert nonces == [binding.gpu_nonce(root)] * 2
    assert cpu.asked == [binding.report_data(root, [part.data for part in made.devices])]
    assert attester.derive_key(b"x") == b"x"


def test_evidence_of_several_gpus_is_accepted_as_a_whole() -> None:
    driver = Emulated(count=2)
    found = attest.Device.find(driver).device_evidence(NONCE)
    documents = driver.device(0).documents()
    evidence = Evidence(
        found.devices[0],
        found.devices[1:],
        endorsements=found.endorsements.merge(nvidia.Case(driver.device(0), b"", (), documents).endorsements),
    )
    anchor = nvidia.case(driver.device(0)).anchor

    result = Verifier(nvidia.policy(), extra_anchors=(anchor,)).verify(evidence, at=nvidia.AT)

    fingerprints = {claims.chain[1].fingerprint for claims in (result.claims, result.parts[0].claims)}
    assert len(fingerprints) == 2
