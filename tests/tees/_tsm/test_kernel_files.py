# SPDX-License-Identifier: Apache-2.0
"""The drivers of SEV-SNP, TDX and Gramine guests, with real system calls on emulated kernel files."""

from __future__ import annotations

import errno
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from confide.attestation.attester import Attester
from confide.errors import ConfigurationError, EnclaveError, TeeUnavailable
from confide.tees._tsm.registers import MeasurementRegisters
from confide.tees._tsm.reports import ConfigfsReports
from confide.tees.sgx import attest as sgx
from confide.tees.snp import attest as snp_attest
from confide.tees.snp import wire as snp_wire
from confide.tees.tdx import attest as tdx
from support import intel_quote, kernel, snp

if TYPE_CHECKING:
    from pathlib import Path

DATA = bytes(range(64))
KEYS = {"keys/_sgx_mrenclave": "5a" * 16, "keys/_sgx_mrsigner": "a5" * 16}


def tsm(tee: str, **settings: Any) -> dict[str, Any]:
    if tee == "snp":
        template, offset = snp.mint(version=5).report, 0x50
    else:
        template, offset = intel_quote.unsigned("tdx"), intel_quote.REPORT_DATA_AT["tdx"]
    provider = {"snp": "sev_guest", "tdx": "tdx_guest"}[tee]
    return {"tsm": {"provider": provider, "template": template.hex(), "offset": offset, **settings}}


def gramine(**settings: Any) -> dict[str, Any]:
    return {
        "gramine": {
            "type": "dcap",
            "keys": KEYS,
            "template": intel_quote.unsigned("sgx").hex(),
            "offset": intel_quote.REPORT_DATA_AT["sgx"],
            **settings,
        }
    }


def snp_device(root: Path, **options: Any) -> snp_attest.Device:
    found = ConfigfsReports.at("sev_guest", root / "tsm")
    assert found is not None
    return snp_attest.Device(reports=found, **options)


def tdx_device(root: Path) -> tdx.Device:
    return tdx.Device.find(
        reports=root / "tsm", guest=root / "none", registers=root / "measurements", event_log=root / "none"
    )


def test_an_snp_report_is_asked_for_in_the_kernels_order(tmp_path: Path) -> None:
    case = snp.mint()
    table = snp_wire.encode_certificate_table(
        (snp_wire.CertificateTableEntry(snp_wire.VCEK_GUID, case.certificate),)
    )
    with kernel.running(tmp_path, **tsm("snp", auxblob=table.hex())) as machine:
        made = snp_device(machine.root).attest(DATA)
        journal = machine.journal[2:]  # The first entry only asks for the provider.

    assert snp_wire.decode_report(made.platform.data).report_data == DATA
    assert made.endorsements.certificates == (case.certificate,)
    assert journal == [
        {"do": "mkdir"},
        {"do": "write", "name": "inblob", "data": DATA.hex()},
        {"do": "close", "name": "inblob"},
        {"do": "rmdir"},
    ]


def test_a_tdx_quote_is_asked_for_in_the_kernels_order(tmp_path: Path) -> None:
    with kernel.running(tmp_path, **tsm("tdx")) as machine:
        device = tdx_device(machine.root)
        made = device.attest(DATA)
        journal = machine.journal[2:]

    assert isinstance(device, Attester)
    assert (made.platform.format, made.platform.data) == ("tdx", intel_quote.unsigned("tdx", DATA))
    assert journal == [
        {"do": "mkdir"},
        {"do": "write", "name": "inblob", "data": DATA.hex()},
        {"do": "close", "name": "inblob"},
        {"do": "rmdir"},
    ]


def test_behind_an_svsm_a_report_is_asked_for_at_the_guests_own_level(tmp_path: Path) -> None:
    """The kernel starts with level 0, which the firmware refuses to a guest that runs at level 2."""
    with kernel.running(tmp_path, **tsm("snp", floor=2)) as machine:
        made = snp_device(machine.root).attest(DATA)
        assert {"do": "write", "name": "privlevel", "data": b"2".hex()} in machine.journal
    assert snp_wire.decode_report(made.platform.data).report_data == DATA


def test_the_privilege_level_is_written_as_text_and_counted(tmp_path: Path) -> None:
    with kernel.running(tmp_path, **tsm("snp", floor=2)) as machine:
        snp_device(machine.root, privilege=2).attest(DATA)
        assert {"do": "write", "name": "privlevel", "data": b"2".hex()} in machine.journal
        with pytest.raises(EnclaveError):
            snp_device(machine.root, privilege=1).attest(DATA)
        with pytest.raises(ConfigurationError) as caught:
            snp_device(machine.root, privilege=4).attest(DATA)
        assert caught.value.code == "configuration.privilege"
        assert machine.journal[-1] == {"do": "rmdir"}


@pytest.mark.parametrize("tee", ["snp", "tdx"])
@pytest.mark.parametrize(
    ("faults", "retryable"),
    [
        ({"race": 1}, True),
        ({"lost": True}, False),
        ({"empty": True}, True),
        ({"busy": 1}, True),
        ({"outblob_error": errno.EIO}, False),
        ({"outblob_error": errno.ETIMEDOUT}, True),
    ],
)
def test_what_goes_wrong_in_the_kernel_is_an_error_and_leaves_no_entry(
    tmp_path: Path, tee: str, faults: dict[str, Any], retryable: bool
) -> None:
    with kernel.running(tmp_path, **tsm(tee, **faults)) as machine:
        device: Attester = snp_device(machine.root) if tee == "snp" else tdx_device(machine.root)
        with pytest.raises(EnclaveError) as caught:
            device.attest(DATA)
        done = [line["do"] for line in machine.journal]

    assert (caught.value.code, caught.value.retryable) == ("enclave.bad_state", retryable)
    assert done.count("mkdir") == done.count("rmdir") == 2


def test_report_data_of_another_length_is_refused_before_and_by_the_kernel(tmp_path: Path) -> None:
    with kernel.running(tmp_path, **tsm("tdx")) as machine:
        for length in (0, 63, 65):
            with pytest.raises(ConfigurationError):
                tdx_device(machine.root).attest(bytes(length))
        folder = machine.root / "tsm" / "short"
        folder.mkdir()
        (folder / "inblob").write_bytes(bytes(63))
        with pytest.raises(OSError, match="Invalid argument"):
            (folder / "outblob").read_bytes()
        with pytest.raises(OSError, match="too large"):
            (folder / "inblob").write_bytes(bytes(65))


def test_a_machine_without_a_provider_or_with_another_is_told_so(tmp_path: Path) -> None:
    with kernel.running(tmp_path, tsm={"provider": None}) as machine:
        with pytest.raises(TeeUnavailable):
            tdx_device(machine.root)
        assert ConfigfsReports.at("sev_guest", machine.root / "tsm") is None


def test_another_tees_provider_is_not_taken(tmp_path: Path) -> None:
    with kernel.running(tmp_path, **tsm("snp")) as machine:
        with pytest.raises(TeeUnavailable):
            tdx_device(machine.root)
        assert machine.journal == [{"do": "mkdir"}, {"do": "rmdir"}]


def test_run_time_registers_are_extended_by_exactly_48_bytes(tmp_path: Path) -> None:
    digest = hashlib.sha384(b"an event").digest()
    with kernel.running(tmp_path, measurements={}, **tsm("tdx")) as machine:
        registers = MeasurementRegisters.at(machine.root / "measurements")
        assert registers is not None
        tdx_device(machine.root).extend("rtmr3", digest)
        assert registers.read("rtmr3") == hashlib.sha384(bytes(48) + digest).digest()
        assert registers.read("mrtd") == registers.read("mrconfigid") == bytes(48)
        for register, value in (
            ("rtmr3", digest[:47]),
            ("rtmr0", digest),
            ("mrtd", digest),
            ("../x", digest),
        ):
            with pytest.raises(ConfigurationError):
                registers.extend(register, value)
        descriptor = os.open(machine.root / "measurements" / "rtmr3:sha384", os.O_WRONLY)
        with pytest.raises(OSError, match="Invalid argument"):
            os.write(descriptor, digest[:47])
        os.close(descriptor)


def test_gramine_gives_a_quote_over_the_data_and_keys_by_label(tmp_path: Path) -> None:
    with kernel.running(tmp_path, **gramine()) as machine:
        device = sgx.Device.find(root=machine.root / "gramine")
        made = device.attest(DATA)
        signer = sgx.Device.find(root=machine.root / "gramine", sealing="mrsigner")
        keys = [device.derive_key(b"one"), device.derive_key(b"one"), device.derive_key(b"two")]
        other = signer.derive_key(b"one")
        journal = machine.journal

    assert isinstance(device, Attester)
    assert (made.platform.format, made.platform.data) == ("sgx", intel_quote.unsigned("sgx", DATA))
    assert journal == [
        {"do": "write", "name": "user_report_data", "data": DATA.hex()},
        {"do": "close", "name": "user_report_data"},
    ]
    assert keys[0] == keys[1]
    assert len({*keys, other, bytes.fromhex("5a" * 32)}) == 4
    assert {len(key) for key in (*keys, other)} == {32}


@pytest.mark.parametrize(
    "faults", [{"fails": True}, {"stuck": True}, {"template": "00" * 500}, {"template": ""}]
)
def test_gramine_that_fails_or_answers_another_question_is_an_error(
    tmp_path: Path, faults: dict[str, Any]
) -> None:
    with kernel.running(tmp_path, **gramine(**faults)) as machine:
        device = sgx.Device.find(root=machine.root / "gramine")
        with pytest.raises(EnclaveError) as caught:
            device.attest(DATA)
    assert caught.value.code == "enclave.bad_state"


@pytest.mark.parametrize("key", ["", "5a" * 15, "5a" * 17, "00" * 16])
def test_a_sealing_key_of_another_length_or_of_zeros_is_an_error(tmp_path: Path, key: str) -> None:
    with kernel.running(tmp_path, **gramine(keys={"keys/_sgx_mrenclave": key})) as machine:
        device = sgx.Device.find(root=machine.root / "gramine")
        with pytest.raises(EnclaveError):
            device.derive_key(b"label")


def test_gramine_without_dcap_is_unavailable(tmp_path: Path) -> None:
    with kernel.running(tmp_path, **gramine(type="none")) as machine, pytest.raises(TeeUnavailable):
        sgx.Device.find(root=machine.root / "gramine")
    with pytest.raises(TeeUnavailable):
        sgx.Device.find(root=tmp_path / "absent")
    with pytest.raises(ConfigurationError) as caught:
        sgx.Device(sealing="both")  # type: ignore[arg-type]
    assert caught.value.code == "configuration.sealing"


def test_threads_that_ask_gramine_at_once_each_get_their_own_quote(tmp_path: Path) -> None:
    """The report data of a process are one file: without a lock a quote would be over another thread's."""
    with kernel.running(tmp_path, **gramine()) as machine, ThreadPoolExecutor(4) as threads:
        device = sgx.Device.find(root=machine.root / "gramine")
        asked = [bytes((number,)) * 64 for number in range(24)]
        made = list(threads.map(device.attest, asked))
    assert [one.platform.data for one in made] == [intel_quote.unsigned("sgx", data) for data in asked]


def test_processes_that_ask_the_kernel_at_once_have_entries_of_their_own(tmp_path: Path) -> None:
    with kernel.running(tmp_path, **tsm("tdx")) as machine, ThreadPoolExecutor(4) as threads:
        device = tdx_device(machine.root)
        asked = [bytes((number,)) * 64 for number in range(16)]
        made = list(threads.map(device.attest, asked))
    assert [one.platform.data for one in made] == [intel_quote.unsigned("tdx", data) for data in asked]
