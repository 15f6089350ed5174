# SPDX-License-Identifier: Apache-2.0
"""The driver for a guest's device, against stand-ins for the kernel that behave as its documentation says."""

from __future__ import annotations

import ctypes
import errno
from typing import TYPE_CHECKING, Any

import pytest

from confide.attestation.attester import Attester
from confide.errors import ConfigurationError, EnclaveError, TeeUnavailable
from confide.tees._tsm.reports import ConfigfsReports
from confide.tees.snp import attest, wire
from support import snp

if TYPE_CHECKING:
    from pathlib import Path

DATA = bytes(range(64))


class Entry:
    """One entry of configfs-tsm: what is written takes effect at close, and a short inblob fails only at the read."""

    def __init__(self, **faults: Any) -> None:
        self.faults = faults
        self.made = self.removed = 0
        self.generation = 0
        self.inblob: bytes | None = None

    def make(self) -> None:
        if "mkdir" in self.faults:
            raise OSError(self.faults["mkdir"], "mkdir")
        self.made += 1

    def write(self, name: str, data: bytes) -> None:
        assert name == "inblob"
        if "lost" in self.faults:
            return
        self.inblob = data
        self.generation += 1 + self.faults.get("race", 0)

    def read(self, name: str) -> bytes:
        if name == "provider":
            return self.faults.get("provider", b"sev_guest\n")  # type: ignore[no-any-return]
        if name == "generation":
            return self.faults.get("text", f"{self.generation}\n".encode())  # type: ignore[no-any-return]
        if name == "auxblob":
            if "auxblob" in self.faults:
                raise OSError(self.faults["auxblob"], "auxblob")
            return self.faults.get("table", b"")  # type: ignore[no-any-return]
        if name == "privlevel_floor":
            return b"0\n"
        assert name == "outblob"
        if "outblob" in self.faults:
            raise OSError(self.faults["outblob"], "outblob")
        if self.inblob is None or len(self.inblob) != 64:
            raise OSError(errno.EINVAL, "outblob")
        return snp.mint(version=5, report={"report_data": self.faults.get("answer", self.inblob)}).report

    def remove(self) -> None:
        self.removed += 1


def device(entry: Entry) -> attest.Device:
    return attest.Device(reports=ConfigfsReports("sev_guest", lambda: entry))


def test_a_report_over_the_data_is_given_and_the_entry_removed() -> None:
    case = snp.mint()
    table = wire.encode_certificate_table(
        (
            wire.CertificateTableEntry(wire.VCEK_GUID, case.certificate),
            wire.CertificateTableEntry(wire.ASK_GUID, case.authority.ask),
        )
    )
    entry = Entry(table=table.ljust(4096, b"\0"))

    made = device(entry).attest(DATA)

    assert wire.decode_report(made.platform.data).report_data == DATA
    assert (made.platform.format, made.devices) == ("snp", ())
    assert made.endorsements.certificates == (case.certificate,)
    assert (entry.made, entry.removed) == (1, 1)
    assert isinstance(device(entry), Attester)


@pytest.mark.parametrize(
    ("faults", "retryable"),
    [
        ({"race": 1}, True),
        ({"answer": bytes(64)}, False),
        ({"outblob": errno.ENXIO}, False),
        ({"outblob": errno.EBUSY}, True),
        ({"outblob": errno.EINTR}, False),
        ({"auxblob": errno.EIO}, False),
        ({"mkdir": errno.ENXIO}, False),
        ({"text": b"none\n"}, False),
        ({"lost": True}, False),
    ],
)
def test_a_kernel_that_fails_or_answers_another_question_is_an_error(
    faults: dict[str, Any], retryable: bool
) -> None:
    entry = Entry(**faults)

    with pytest.raises(EnclaveError) as caught:
        device(entry).attest(DATA)

    assert (caught.value.code, caught.value.retryable) == ("enclave.bad_state", retryable)
    assert entry.removed == entry.made


@pytest.mark.parametrize("table", [b"junk", bytes(4096), b"\x01" * 48])
def test_a_certificate_table_that_cannot_be_read_is_left_out(table: bytes) -> None:
    assert device(Entry(table=table)).attest(DATA).endorsements.certificates == ()
    assert device(Entry(auxblob=errno.ENOENT)).attest(DATA).endorsements.certificates == ()


@pytest.mark.parametrize("length", [0, 32, 63, 65])
def test_report_data_is_64_bytes(length: int) -> None:
    with pytest.raises(ConfigurationError):
        device(Entry()).attest(bytes(length))


def test_another_tees_provider_is_not_taken_for_this_one() -> None:
    assert ConfigfsReports("sev_guest", Entry).available()
    assert not ConfigfsReports("sev_guest", lambda: Entry(provider=b"tdx_guest\n")).available()
    assert not ConfigfsReports("sev_guest", lambda: Entry(mkdir=errno.ENXIO)).available()


def test_a_machine_without_the_device_is_told_so_and_nothing_is_simulated(tmp_path: Path) -> None:
    with pytest.raises(TeeUnavailable) as caught:
        attest.Device.find(reports=tmp_path / "absent", guest=tmp_path / "absent")
    assert caught.value.code == "enclave.tee"
    with pytest.raises(TeeUnavailable):
        attest.Device.find(reports=tmp_path, guest=tmp_path / "absent")
    assert list(tmp_path.iterdir()) == []


class Firmware:
    """/dev/sev-guest: reads the request at its address and writes the answer to its own."""

    def __init__(self, **faults: Any) -> None:
        self.faults = faults
        self.asked: list[int] = []
        self.keys: list[wire.DerivedKeyRequest] = []

    def ioctl(self, request: int, argument: bytearray) -> int:
        self.asked.append(request)
        if error := self.faults.get(hex(request)):
            raise OSError(error, "ioctl")
        asked = wire.GuestRequest.decode(argument)
        assert asked.msg_version == 1
        if request == attest.SNP_GET_DERIVED_KEY:
            answer = self._key(ctypes.string_at(asked.req_data, 32))
        else:
            answer = self._report(request, asked.req_data)
        ctypes.memmove(asked.resp_data, answer, len(answer))
        argument[24:32] = self.faults.get("errors", bytes(8))
        return 0

    def _report(self, request: int, address: int) -> bytes:
        if request == attest.SNP_GET_EXT_REPORT:
            extended = wire.ExtendedReportRequest.decode(ctypes.string_at(address, 112))
            assert extended.certs_len % 4096 == 0
            table = self.faults.get("table", b"")
            ctypes.memmove(extended.certs_address, table, len(table))
            question = extended.data
        else:
            question = wire.ReportRequest.decode(ctypes.string_at(address, 96))
        report = snp.mint(version=5, report={"report_data": question.user_data}).report
        return (bytes(4) + len(report).to_bytes(4, "little") + bytes(24) + report).ljust(4000, b"\0")

    def _key(self, request: bytes) -> bytes:
        self.keys.append(wire.DerivedKeyRequest.decode(request))
        key = self.faults.get("key", b"\x5a" * 32)
        return wire.DerivedKeyResponse(status=self.faults.get("status", 0), data=key).encode()


def by_ioctl(firmware: Firmware) -> attest.Device:
    return attest.Device(guest=attest.GuestDevice(firmware.ioctl))


def test_the_numbers_of_the_ioctls_are_those_of_the_kernel() -> None:
    """_IOWR('S', n, struct of 32 bytes), computed once more here."""
    for number, value in enumerate(
        (attest.SNP_GET_REPORT, attest.SNP_GET_DERIVED_KEY, attest.SNP_GET_EXT_REPORT)
    ):
        assert value == 3 << 30 | 32 << 16 | ord("S") << 8 | number


def test_the_ioctl_gives_report_and_certificates() -> None:
    case = snp.mint()
    table = wire.encode_certificate_table((wire.CertificateTableEntry(wire.VLEK_GUID, case.certificate),))
    firmware = Firmware(table=table)

    made = by_ioctl(firmware).attest(DATA)

    assert wire.decode_report(made.platform.data).report_data == DATA
    assert made.endorsements.certificates == (case.certificate,)
    assert firmware.asked == [attest.SNP_GET_EXT_REPORT]


def test_a_host_that_withholds_its_certificates_does_not_withhold_the_report() -> None:
    firmware = Firmware(**{hex(attest.SNP_GET_EXT_REPORT): errno.EIO})

    assert wire.decode_report(by_ioctl(firmware).attest(DATA).platform.data).report_data == DATA
    assert firmware.asked == [attest.SNP_GET_EXT_REPORT, attest.SNP_GET_REPORT]


@pytest.mark.parametrize("errors", [b"\x16" + bytes(7), bytes(4) + b"\x02" + bytes(3)])
def test_an_error_of_firmware_or_hypervisor_is_an_error(errors: bytes) -> None:
    with pytest.raises(EnclaveError):
        by_ioctl(Firmware(errors=errors)).attest(DATA)


def test_a_derived_key_depends_on_label_measurement_version_and_firmware() -> None:
    firmware = Firmware()
    made = by_ioctl(firmware)

    one, again, other = made.derive_key(b"one"), made.derive_key(b"one"), made.derive_key(b"other")

    assert one == again != other
    assert {len(one), len(other)} == {32}
    asked = firmware.keys[0]
    assert asked.guest_field_select == 0b111001
    assert asked.guest_svn == 1
    assert asked.tcb_version.to_bytes(8, "little") == snp.TCB["Genoa"]


@pytest.mark.parametrize(
    "faults", [{"status": 0x16}, {"key": bytes(32)}, {hex(attest.SNP_GET_DERIVED_KEY): errno.ENOTTY}]
)
def test_a_firmware_that_derives_nothing_is_an_error(faults: dict[str, Any]) -> None:
    with pytest.raises(EnclaveError):
        by_ioctl(Firmware(**faults)).derive_key(b"label")


def test_a_guest_without_the_ioctl_derives_no_key() -> None:
    with pytest.raises(TeeUnavailable):
        device(Entry()).derive_key(b"label")


def test_the_requests_to_the_firmware_are_these_bytes() -> None:
    """linux/sev-guest.h, written out: what reaches the kernel for a report, a report with certificates, and a key."""
    seen: list[tuple[int, bytes, bytes]] = []
    firmware = Firmware(**{hex(attest.SNP_GET_EXT_REPORT): errno.EIO})

    def ioctl(request: int, argument: bytearray) -> int:
        size = {attest.SNP_GET_REPORT: 96, attest.SNP_GET_EXT_REPORT: 112, attest.SNP_GET_DERIVED_KEY: 32}
        address = int.from_bytes(argument[8:16], "little")
        seen.append((request, bytes(argument), ctypes.string_at(address, size[request])))
        return firmware.ioctl(request, argument)

    device_ = attest.Device(guest=attest.GuestDevice(ioctl), privilege=2)
    device_.attest(DATA)
    device_.derive_key(b"label")

    assert [request for request, _, _ in seen] == [
        0xC0205302,
        0xC0205300,
        0xC0205302,
        0xC0205300,
        0xC0205301,
    ]
    for _, argument, _ in seen:
        # Version 1 and padding; two addresses; no error yet.
        assert (argument[:8], argument[24:], len(argument)) == (b"\x01" + bytes(7), bytes(8), 32)
    extended, plain, _, _, key = (question for _, _, question in seen)
    report = DATA + b"\x02\0\0\0" + bytes(28)
    assert plain == report
    assert (extended[:96], extended[104:]) == (report, b"\x00\x40\0\0" + bytes(4))
    assert key == bytes(8) + b"\x39" + bytes(7) + bytes(4) + b"\x01\0\0\0" + snp.TCB["Genoa"]
