# SPDX-License-Identifier: Apache-2.0
"""Ask for a TDX quote from inside a guest, through configfs-tsm; extend run-time registers; read the boot's event log.

/dev/tdx_guest gives a TDREPORT, which is authenticated with a key of this machine's CPU and proves nothing to anyone
elsewhere: it is offered under its own name and never as evidence. TDX has no keys for sealing.
Source: Linux, Documentation/ABI/testing/configfs-tsm-report, include/uapi/linux/tdx-guest.h, UEFI 2.10, section 38.4 (CCEL).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from confide.attestation.attester import PlatformEvidence
from confide.attestation.binding import REPORT_DATA_BYTES
from confide.attestation.evidence import MAX_PART, Endorsements, EvidencePart
from confide.errors import ConfideError, ConfigurationError, EnclaveError, MalformedError, TeeUnavailable
from confide.tees._tcg import log
from confide.tees._tsm import device_file
from confide.tees._tsm.registers import REGISTERS, MeasurementRegisters
from confide.tees._tsm.reports import REPORTS, ConfigfsReports, failed
from confide.tees.tdx import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Device", "GuestDevice"]

TDX_GUEST: Final = Path("/dev/tdx_guest")
EVENT_LOG: Final = Path("/sys/firmware/acpi/tables/data/CCEL")
PROVIDER: Final = "tdx_guest"

TDX_CMD_GET_REPORT0: Final = 0xC4405401
_TDREPORT_BYTES: Final = 1024
_REPORT_DATA_AT: Final = 128


@dataclass(frozen=True, slots=True)
class GuestDevice:
    """/dev/tdx_guest by its ioctl. ``ioctl(request, argument)`` changes ``argument`` in place and raises OSError."""

    ioctl: Callable[[int, bytearray], object]

    @classmethod
    def at(cls, path: Path = TDX_GUEST) -> GuestDevice | None:
        """The device at ``path``, or None if it is not there or not open to this process."""
        ioctl = device_file.ioctl_of(path)
        return None if ioctl is None else cls(ioctl)

    def tdreport(self, report_data: bytes) -> bytes:
        """1024 bytes of TDREPORT over these 64: only this machine can check them, and no verifier takes them."""
        if len(report_data) != REPORT_DATA_BYTES:
            raise ConfigurationError("report_data", "report data is exactly 64 bytes")
        argument = bytearray(report_data + bytes(_TDREPORT_BYTES))
        try:
            self.ioctl(TDX_CMD_GET_REPORT0, argument)
        except OSError as error:
            raise failed(error) from error
        report = bytes(argument[REPORT_DATA_BYTES:])
        if report[_REPORT_DATA_AT : _REPORT_DATA_AT + REPORT_DATA_BYTES] != report_data:
            raise _other_data()
        return report


class Device:
    """A TDX guest's own device: the Attester of code that runs in a confidential VM.

    ``event_log`` reads the firmware's log (b"" where there is none), which is handed on beside the quote.
    """

    __slots__ = ("_event_log", "_guest", "_registers", "_reports")

    def __init__(
        self,
        *,
        reports: ConfigfsReports,
        guest: GuestDevice | None = None,
        registers: MeasurementRegisters | None = None,
        event_log: Callable[[], bytes] = bytes,
    ) -> None:
        self._reports = reports
        self._guest = guest
        self._registers = registers
        self._event_log = event_log

    @classmethod
    def find(
        cls,
        *,
        reports: Path = REPORTS,
        guest: Path = TDX_GUEST,
        registers: Path = REGISTERS,
        event_log: Path = EVENT_LOG,
    ) -> Device:
        """The device of this machine. Raises TeeUnavailable where there is none: never a simulated one instead."""
        source, by_ioctl = ConfigfsReports.at(PROVIDER, reports), GuestDevice.at(guest)
        if source is None and by_ioctl is not None:
            raise TeeUnavailable(
                "tee",
                "this TDX guest has no configfs-tsm: its kernel gives local reports, which no verifier elsewhere can"
                " check",
                hint="use Linux 6.7 or later and mount configfs; the host must run a quote generation service",
                stage="attest",
            )
        if source is None:
            raise TeeUnavailable(
                "tee",
                "this machine is not a TDX guest, or its device is not open to this user",
                hint="run `confide doctor`; a simulated enclave vouches for itself through `Enclave.launch`",
                stage="attest",
            )
        return cls(
            reports=source,
            guest=by_ioctl,
            registers=MeasurementRegisters.at(registers),
            event_log=lambda: _read(event_log),
        )

    def attest(self, report_data: bytes) -> PlatformEvidence:
        """A quote over exactly these 64 bytes, and the boot's event log beside it.

        Raises ``enclave.bad_state`` if the device fails, answers another question, or returns what is no quote.
        """
        if len(report_data) != REPORT_DATA_BYTES:
            raise ConfigurationError("report_data", "report data is exactly 64 bytes")
        answer = self._reports.report(bytes(report_data))
        report = _decoded(answer.report)
        if report.report_data != report_data:
            raise _other_data()
        return PlatformEvidence(EvidencePart("tdx", answer.report), endorsements=self._log(report.rtmrs))

    def _log(self, rtmrs: Sequence[bytes]) -> Endorsements:
        """The boot's log without its padding, if it still tells all of the registers that it tells of.

        One that does not (since the kernel has extended a register after the boot), cannot be read, or is too long, would
        have a good quote refused, and is left out.
        """
        try:
            text = log.trimmed(self._event_log())
            told = log.read(text).rtmrs()
        except (MalformedError, ConfigurationError):
            return Endorsements()
        if len(text) > MAX_PART or any(
            rtmrs[number : number + 1] != (value,) for number, value in told.items()
        ):
            return Endorsements()
        return Endorsements(documents=(EvidencePart("event-log", text),))

    def derive_key(self, label: bytes) -> bytes:  # noqa: ARG002
        """Refused: TDX gives guests no key that outlives them."""
        raise TeeUnavailable(
            "tee",
            "TDX has no keys for sealing",
            hint="fetch keys from a broker, or seal to a vTPM",
            stage="attest",
        )

    def tdreport(self, report_data: bytes) -> bytes:
        """The local report over 64 bytes (see ``GuestDevice.tdreport``); TeeUnavailable without /dev/tdx_guest."""
        if self._guest is None:
            raise TeeUnavailable("tee", "this guest has no /dev/tdx_guest", stage="attest")
        return self._guest.tdreport(report_data)

    def extend(self, register: str, digest: bytes) -> None:
        """Extend ``rtmr2`` or ``rtmr3`` by 48 bytes, once and for ever; TeeUnavailable where the kernel shows no registers."""
        if self._registers is None:
            raise TeeUnavailable(
                "tee",
                "this kernel lets nobody extend the run-time registers",
                hint="use Linux 6.16 or later",
                stage="attest",
            )
        self._registers.extend(register, digest)


def _decoded(data: bytes) -> wire.TdReport10 | wire.TdReport15:
    try:
        return wire.decode(data)[1]
    except ConfideError as error:
        raise EnclaveError("bad_state", "the device returned what is no TDX quote", stage="attest") from error


def _other_data() -> EnclaveError:
    return EnclaveError("bad_state", "the device answered with a report over other data", stage="attest")


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(log.MAX_LOG)
    except OSError:
        return b""
