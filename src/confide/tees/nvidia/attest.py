# SPDX-License-Identifier: Apache-2.0
"""Ask the GPUs of a confidential VM for their reports, through NVML as ``nvidia-ml-py`` offers it.

Source: NVIDIA, NVML API reference, "Confidential Computing": nvmlConfComputeSystemState_t, nvmlConfComputeGpuAttestationReport_t,
nvmlConfComputeGpuCertificate_t. A GPU answers a nonce; it knows nothing of the CPU beside it. Whether confidential computing is on,
and without DevTools, is only NVML's word to this VM and is in no report: it is checked here, by code that the VM's own evidence
measures, and a party that trusts that evidence trusts this check with it. Nothing here falls back to a simulation.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from confide.attestation.attester import DeviceEvidence
from confide.attestation.evidence import Endorsements, EvidencePart
from confide.crypto import x509
from confide.errors import ConfideError, ConfigurationError, EnclaveError, TeeUnavailable
from confide.tees.nvidia import wire

if TYPE_CHECKING:
    from confide.attestation.attester import Attester, PlatformEvidence

__all__ = ["Beside", "Device", "Nvml"]

NONCE_BYTES: Final = 32
MAX_DEVICES: Final = 16
MAX_CHAIN: Final = 0x1400
MAX_CEC_REPORT: Final = 0x1000
_SIMULATION: Final = 1


class Nvml(Protocol):
    """The functions of the module ``pynvml`` that are used, replaceable because no machine without a GPU has what they call."""

    @property
    def NVMLError(self) -> type[Exception]:  # noqa: N802
        """What its functions raise."""

    def nvmlInit(self) -> object:  # noqa: N802
        """Load the library."""

    def nvmlSystemGetConfComputeState(self) -> Any:  # noqa: N802
        """A structure of ``environment``, ``ccFeature`` and ``devToolsMode``."""

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        """How many GPUs there are."""

    def nvmlDeviceGetHandleByIndex(self, index: int, /) -> Any:  # noqa: N802
        """The handle of one."""

    def nvmlDeviceGetConfComputeGpuCertificate(self, handle: Any, /) -> Any:  # noqa: N802
        """A structure with ``attestationCertChain`` (PEM) and ``attestationCertChainSize``."""

    def nvmlDeviceGetConfComputeGpuAttestationReport(self, handle: Any, nonce: bytes, /) -> Any:  # noqa: N802
        """A structure with ``attestationReport``, its size, and the same of the CEC if there is one."""

    def nvmlSystemSetConfComputeGpusReadyState(self, state: int, /) -> object:  # noqa: N802
        """Let the GPUs take work, or not."""


class Device:
    """The GPUs of this machine."""

    __slots__ = ("_nvml",)

    def __init__(self, nvml: Nvml) -> None:
        self._nvml = nvml

    @classmethod
    def find(cls, nvml: Nvml | None = None) -> Device:
        """The GPUs of this machine, with confidential computing on.

        Raises TeeUnavailable without ``nvidia-ml-py``, its driver or a GPU, and ``enclave.gpu_mode`` if confidential computing
        is off or in DevTools mode, in which the host can read what the GPU holds.
        """
        device = cls(_pynvml() if nvml is None else nvml)
        try:
            device._nvml.nvmlInit()
            count = device._nvml.nvmlDeviceGetCount()
        except device._nvml.NVMLError as error:
            raise TeeUnavailable(
                "tee",
                "NVIDIA's driver does not answer on this machine",
                hint="load the driver, and give this user access to /dev/nvidiactl",
                stage="attest",
            ) from error
        if count < 1:
            raise TeeUnavailable("tee", "this machine has no NVIDIA GPU", stage="attest")
        device.check_mode()
        return device

    def check_mode(self) -> None:
        """``enclave.gpu_mode`` unless confidential computing is on, without DevTools and not simulated."""
        try:
            state = self._nvml.nvmlSystemGetConfComputeState()
        except self._nvml.NVMLError as error:
            raise _failed("the state of confidential computing cannot be read") from error
        if state.ccFeature == 0:
            raise EnclaveError(
                "gpu_mode",
                "confidential computing is off on this machine's GPUs",
                hint="the host has to set the mode of the GPU to on and reset it",
                stage="attest",
            )
        if state.devToolsMode != 0:
            raise EnclaveError(
                "gpu_mode",
                "the GPUs are in DevTools mode, in which their memory is open to the host",
                hint="the host has to set the mode of the GPU to on, not to devtools",
                stage="attest",
            )
        if state.environment == _SIMULATION:
            raise EnclaveError(
                "gpu_mode", "the driver says that its confidential computing is simulated", stage="attest"
            )

    def device_evidence(self, nonce: bytes) -> DeviceEvidence:
        """A report of every GPU over exactly these 32 bytes, in the driver's order, with their certificates.

        Raises ``enclave.gpu_mode`` as ``find``, ``enclave.bad_state`` if a GPU fails or answers another nonce.
        """
        if len(nonce) != NONCE_BYTES:
            raise ConfigurationError("report_data", f"the nonce for a GPU is exactly {NONCE_BYTES} bytes")
        self.check_mode()
        parts: list[EvidencePart] = []
        endorsements = Endorsements()
        try:
            count = self._nvml.nvmlDeviceGetCount()
            if not 1 <= count <= MAX_DEVICES:
                raise _failed(f"there are no GPUs, or more than {MAX_DEVICES}")
            for index in range(count):
                handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
                report = self._nvml.nvmlDeviceGetConfComputeGpuAttestationReport(handle, bytes(nonce))
                parts.append(EvidencePart("nvidia", _report(report, nonce)))
                chain = self._nvml.nvmlDeviceGetConfComputeGpuCertificate(handle)
                endorsements = endorsements.merge(Endorsements(_chain(chain)))
        except self._nvml.NVMLError as error:
            raise _failed("a GPU gave no report, or no certificates") from error
        return DeviceEvidence(tuple(parts), endorsements)

    def set_ready(self, *, ready: bool) -> None:
        """Let the GPUs take work, or not. Only for a caller that has verified their evidence: the driver asks nobody."""
        try:
            self._nvml.nvmlSystemSetConfComputeGpusReadyState(int(ready))
        except self._nvml.NVMLError as error:
            raise _failed("the GPUs' ready state cannot be set") from error


@dataclass(frozen=True, slots=True)
class Beside:
    """A CPU's TEE with this machine's GPUs: the Attester of a confidential VM that uses them."""

    cpu: Attester
    gpus: Device

    def attest(self, report_data: bytes) -> PlatformEvidence:
        """Evidence of the CPU's TEE over exactly these 64 bytes."""
        return self.cpu.attest(report_data)

    def derive_key(self, label: bytes) -> bytes:
        """As the CPU's TEE derives it."""
        return self.cpu.derive_key(label)

    def device_evidence(self, nonce: bytes) -> DeviceEvidence:
        """Evidence of the GPUs over exactly these 32 bytes."""
        return self.gpus.device_evidence(nonce)


def _pynvml() -> Nvml:
    try:
        return cast("Nvml", importlib.import_module("pynvml"))
    except ImportError:
        raise TeeUnavailable(
            "tee", "GPUs are asked through nvidia-ml-py", hint="pip install nvidia-ml-py", stage="attest"
        ) from None


def _failed(problem: str) -> EnclaveError:
    return EnclaveError("bad_state", problem, hint="see the driver's log (dmesg)", stage="attest")


def _sized(buffer: Any, size: int, most: int) -> bytes:
    """The first ``size`` bytes of a buffer of the driver; a size beyond the buffer is refused, not cut."""
    if not 1 <= size <= min(most, len(buffer)):
        raise _failed("the driver returned a size that is not one")
    return bytes(buffer[:size])


def _report(answer: Any, nonce: bytes) -> bytes:
    report = _sized(answer.attestationReport, answer.attestationReportSize, wire.MAX_REPORT)
    if answer.isCecAttestationReportPresent:
        # The report of the board's controller is not part of what is verified here; its size still has to be one.
        _sized(answer.cecAttestationReport, answer.cecAttestationReportSize, MAX_CEC_REPORT)
    try:
        answered = wire.decode_report(report).request.nonce
    except ConfideError as error:
        raise _failed("a GPU returned something other than a report") from error
    if answered != nonce:
        raise _failed("a GPU answered another nonce than it was asked")
    return report


def _chain(answer: Any) -> tuple[bytes, ...]:
    pem = _sized(answer.attestationCertChain, answer.attestationCertChainSize, MAX_CHAIN).rstrip(b"\x00")
    try:
        return tuple(certificate.der for certificate in x509.parse_pem(pem))
    except ConfideError as error:
        raise _failed("a GPU returned certificates that cannot be read") from error
