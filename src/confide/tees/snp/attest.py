# SPDX-License-Identifier: Apache-2.0
"""Ask the SEV-SNP firmware, from inside a guest: reports through configfs-tsm or /dev/sev-guest, keys through the latter.

Source: Linux, Documentation/ABI/testing/configfs-tsm-report and include/uapi/linux/sev-guest.h. What the host adds to a
report (certificates) is passed on untrusted. No hardware is simulated here and nothing falls back to a simulation.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from confide.attestation.attester import PlatformEvidence
from confide.attestation.binding import REPORT_DATA_BYTES
from confide.attestation.evidence import Endorsements, EvidencePart
from confide.crypto import kdf, x509
from confide.crypto.secret import Secret
from confide.errors import ConfideError, ConfigurationError, EnclaveError, TeeUnavailable
from confide.tees._tsm import device_file
from confide.tees._tsm.reports import REPORTS, ConfigfsReports, TsmReport, failed
from confide.tees.snp import wire

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Device", "GuestDevice"]

SEV_GUEST: Final = Path("/dev/sev-guest")
PROVIDER: Final = "sev_guest"

SNP_GET_REPORT: Final = 0xC0205300
SNP_GET_DERIVED_KEY: Final = 0xC0205301
SNP_GET_EXT_REPORT: Final = 0xC0205302
_CERTIFICATE_PAGES: Final = 16 * 1024
# The key depends on the guest's policy, measurement, security version and TCB version, so that a changed guest, or older
# firmware, derives another one.
_GUEST_FIELDS: Final = 1 << 0 | 1 << 3 | 1 << 4 | 1 << 5


@dataclass(frozen=True, slots=True)
class GuestDevice:
    """/dev/sev-guest by its ioctls. ``ioctl(request, argument)`` changes ``argument`` in place and raises OSError."""

    ioctl: Callable[[int, bytearray], object]

    @classmethod
    def at(cls, path: Path = SEV_GUEST) -> GuestDevice | None:
        """The device at ``path``, or None if it is not there or not open to this process."""
        ioctl = device_file.ioctl_of(path)
        return None if ioctl is None else cls(ioctl)

    def report(self, report_data: bytes, *, privilege: int | None = None) -> TsmReport:
        """The report over 64 bytes, and the host's certificate table (empty if it is larger than 16 KiB or absent)."""
        pages = ctypes.create_string_buffer(_CERTIFICATE_PAGES)
        request = wire.ReportRequest(user_data=report_data, vmpl=privilege or 0)
        extended = wire.ExtendedReportRequest(
            data=request, certs_address=ctypes.addressof(pages), certs_len=_CERTIFICATE_PAGES
        )
        try:
            response = self._ask(SNP_GET_EXT_REPORT, extended.encode(), wire.RESPONSE_BYTES)
        except EnclaveError:
            # The host's certificates are a convenience, and a host that cannot deliver them may still give the report.
            response = self._ask(SNP_GET_REPORT, request.encode(), wire.RESPONSE_BYTES)
            return TsmReport(wire.decode_report_response(response), b"")
        return TsmReport(wire.decode_report_response(response), pages.raw if any(pages.raw[:24]) else b"")

    def derived_key(self) -> Secret:
        """32 bytes derived from the chip's VCEK for this guest: its policy, measurement and SVN, and the committed TCB.

        The firmware mixes in the SVN and TCB that are asked for, up to those in force, so that they are taken from a report:
        asking for zeros would give the same key to every older version.
        """
        report = wire.decode_report(self.report(bytes(REPORT_DATA_BYTES)).report)
        request = wire.DerivedKeyRequest(
            root_key_select=0,
            guest_field_select=_GUEST_FIELDS,
            vmpl=0,
            guest_svn=report.guest_svn,
            tcb_version=int.from_bytes(report.committed_tcb, "little"),
        )
        response = wire.DerivedKeyResponse.decode(
            self._ask(SNP_GET_DERIVED_KEY, request.encode(), wire.DerivedKeyResponse.SIZE)
        )
        if response.status != 0 or not any(response.data):
            raise EnclaveError("bad_state", "the firmware refused to derive a key", stage="attest")
        return Secret(response.data)

    def _ask(self, request: int, data: bytes, response_bytes: int) -> bytes:
        # The argument holds addresses of these buffers, which must live until the call has returned.
        question = ctypes.create_string_buffer(data, len(data))
        answer = ctypes.create_string_buffer(response_bytes)
        argument = bytearray(
            wire.GuestRequest(
                msg_version=1,
                req_data=ctypes.addressof(question),
                resp_data=ctypes.addressof(answer),
                fw_error=0,
                vmm_error=0,
            ).encode()
        )
        try:
            self.ioctl(request, argument)
        except OSError as error:
            raise failed(error) from error
        result = wire.GuestRequest.decode(argument)
        if result.fw_error or result.vmm_error:
            raise EnclaveError(
                "bad_state", "the firmware or the hypervisor refused the request", stage="attest"
            )
        return answer.raw


class Device:
    """An SEV-SNP guest's own device: the Attester of code that runs in a confidential VM.

    ``privilege`` is the VMPL to ask for, 0 to 3; None is the lowest that the kernel says this guest may ask for (0 by ioctl).
    """

    __slots__ = ("_guest", "_privilege", "_reports")

    def __init__(
        self,
        *,
        reports: ConfigfsReports | None = None,
        guest: GuestDevice | None = None,
        privilege: int | None = None,
    ) -> None:
        if reports is None and guest is None:
            raise ConfigurationError("tee", "a device needs a source of reports")
        self._reports = reports
        self._guest = guest
        self._privilege = privilege

    @classmethod
    def find(cls, *, reports: Path = REPORTS, guest: Path = SEV_GUEST) -> Device:
        """The device of this machine. Raises TeeUnavailable where there is none: never a simulated one instead."""
        by_configfs, by_ioctl = ConfigfsReports.at(PROVIDER, reports), GuestDevice.at(guest)
        if by_configfs is None and by_ioctl is None:
            raise TeeUnavailable(
                "tee",
                "this machine is not an SEV-SNP guest, or its device is not open to this user",
                hint="run `confide doctor`; a simulated enclave vouches for itself through `Enclave.launch`",
                stage="attest",
            )
        return cls(reports=by_configfs, guest=by_ioctl)

    def attest(self, report_data: bytes) -> PlatformEvidence:
        """A report over exactly these 64 bytes. Raises ``enclave.bad_state`` if the device fails or answers another question."""
        if len(report_data) != REPORT_DATA_BYTES:
            raise ConfigurationError("report_data", "report data is exactly 64 bytes")
        source = self._reports or self._guest
        if source is None:
            raise ConfigurationError("tee", "a device needs a source of reports")
        answer = source.report(bytes(report_data), privilege=self._privilege)
        if wire.decode_report(answer.report).report_data != report_data:
            raise EnclaveError(
                "bad_state", "the device answered with a report over other data", stage="attest"
            )
        return PlatformEvidence(
            EvidencePart("snp", answer.report), endorsements=_endorsements(answer.auxiliary)
        )

    def derive_key(self, label: bytes) -> bytes:
        """32 bytes for ``label`` that only this guest on this chip can derive again; needs /dev/sev-guest."""
        if self._guest is None:
            raise TeeUnavailable(
                "tee", "this guest has no /dev/sev-guest to derive keys with", stage="attest"
            )
        with_label = b"confide/snp/derived-key/1\x00" + label
        root = self._guest.derived_key()
        try:
            return kdf.hkdf(root, salt=b"", info=with_label, length=32)
        finally:
            root.erase()


def _endorsements(table: bytes) -> Endorsements:
    """The certificates of the host's table; one that cannot be read is left out, since the report does not depend on it."""
    if not table:
        return Endorsements()
    found: list[bytes] = []
    with suppress(ConfideError):
        for entry in wire.read_certificate_table(table):
            if entry.guid in {wire.VCEK_GUID, wire.VLEK_GUID}:
                found += [certificate.der for certificate in x509.parse_certificates(entry.data)]
    return Endorsements(tuple(found))
