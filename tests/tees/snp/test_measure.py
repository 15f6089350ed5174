# SPDX-License-Identifier: Apache-2.0
"""Predicted launch measurements, against those of an independent tool for the same firmware and kernels."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from confide.errors import ConfigurationError, MalformedError
from confide.tees.snp import measure, wire

if TYPE_CHECKING:
    from pathlib import Path


def firmware(shared: Path, name: str = "ovmf_AmdSev_suffix.bin") -> measure.Firmware:
    return measure.Firmware.parse((shared / "evidence" / "measurements" / "snp" / name).read_bytes())


def vectors(shared: Path, name: str) -> list[dict[str, Any]]:
    return json.loads((shared / "evidence" / "measurements" / "snp" / name).read_text())  # type: ignore[no-any-return]


def test_predictions_equal_those_of_an_independent_tool(shared: Path) -> None:
    checked = 0
    for vector in vectors(shared, "vectors_sev_snp_measure_0.0.13.json"):
        if vector["mode"] != "SEV_SNP":
            continue
        digest = measure.launch_digest(
            firmware(shared, vector["ovmf"]),
            vcpus=vector["vcpus"],
            cpu_signature=measure.CPU_TYPES[vector["vcpu_type"]],
            vmm=measure.Vmm(vector["vmm"].lower()),
            guest_features=int(vector["guest_features"], 16),
            kernel=None if vector["kernel"] is None else vector["kernel"].encode(),
            initrd=(vector["initrd"] or "").encode(),
            command_line=vector["append"] or "",
        )
        assert digest.hex() == vector["launch_digest"], vector
        checked += 1
    assert checked == 59


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("test_snp_default", {"kernel": b"", "command_line": "console=ttyS0 loglevel=7", "guest_features": 0x21}),
        ("test_snp_guest_feature_snp_only", {"kernel": b"", "command_line": "console=ttyS0 loglevel=7"}),
        ("test_snp_without_kernel_default", {"guest_features": 0x21}),
        ("test_snp_without_kernel_feature_snp_only", {}),
        ("test_snp_with_multiple_vcpus_default", {"kernel": b"", "vcpus": 4, "guest_features": 0x21}),
        ("test_snp_with_multiple_vcpus_feature_snp_only", {"kernel": b"", "vcpus": 4}),
        ("test_snp_ec2_default", {"kernel": b"", "vmm": measure.Vmm.EC2, "guest_features": 0x21}),
        ("test_snp_ec2_feature_snp_only", {"kernel": b"", "vmm": measure.Vmm.EC2}),
        ("test_snp_with_ovmfx64_without_kernel_feature_snp_only", {"ovmf": "ovmf_OvmfX64_suffix.bin"}),
        ("test_snp_ovmf_hash_gen_default", {"kernel": b"", "guest_features": 0x21, "hash": True}),
        ("test_snp_ovmf_hash_full_default", {"kernel": b"", "command_line": "console=ttyS0 loglevel=7", "guest_features": 0x21, "hash": True}),
    ],
)  # fmt: skip
def test_predictions_equal_those_in_the_tests_of_that_tool(
    shared: Path, name: str, options: dict[str, Any]
) -> None:
    literals = next(
        one["hex_literals"] for one in vectors(shared, "vectors_upstream.json") if one["name"] == name
    )
    together = "".join(literals)
    start = bytes.fromhex(together[:-96]) if options.pop("hash", False) else None

    digest = measure.launch_digest(
        firmware(shared, options.pop("ovmf", "ovmf_AmdSev_suffix.bin")),
        **({"vcpus": 1, "cpu_signature": measure.CPU_TYPES["EPYC-v4"], "firmware_digest": start} | options),
    )

    assert digest.hex() == together[-96:]


def test_every_input_is_in_the_measurement(shared: Path) -> None:
    base: dict[str, Any] = {
        "vcpus": 2,
        "cpu_signature": measure.CPU_TYPES["EPYC-Genoa"],
        "kernel": b"k",
        "initrd": b"i",
    }
    changes: list[dict[str, Any]] = [
        {},
        {"vcpus": 3},
        {"cpu_signature": measure.CPU_TYPES["EPYC-Milan"]},
        {"kernel": b"K"},
        {"initrd": b"I"},
        {"command_line": "init=/bin/sh"},
        {"guest_features": 0x21},
        {"vmm": measure.Vmm.EC2},
        {"kernel": None},
    ]
    image = firmware(shared)
    changed = measure.Firmware(
        bytes((image.data[0] ^ 1,)) + image.data[1:], image.sections, image.hash_table, image.ap_start
    )

    digests = [measure.launch_digest(image, **(base | change)) for change in changes]
    digests.append(measure.launch_digest(changed, **base))

    assert len(set(digests)) == len(digests)


def test_a_kernel_under_a_firmware_that_does_not_check_it_is_refused(shared: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        measure.launch_digest(
            firmware(shared, "ovmf_OvmfX64_suffix.bin"),
            vcpus=1,
            cpu_signature=0,
            kernel=b"kernel",
            command_line="",
        )

    assert caught.value.code == "configuration.firmware"
    assert "AmdSev" in caught.value.hint


@pytest.mark.parametrize("vcpus", [0, -1, 513])
def test_another_number_of_processors_is_the_callers_error(shared: Path, vcpus: int) -> None:
    with pytest.raises(ConfigurationError) as caught:
        measure.launch_digest(firmware(shared), vcpus=vcpus, cpu_signature=0)

    assert caught.value.code == "configuration.vcpus"


def test_a_firmware_digest_of_another_length_is_the_callers_error(shared: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        measure.launch_digest(firmware(shared), vcpus=1, cpu_signature=0, firmware_digest=bytes(32))

    assert caught.value.code == "configuration.firmware_digest"


@pytest.mark.parametrize("data", [b"", bytes(4095), bytes(4096), bytes(8192), b"\xff" * 4096])
def test_a_file_that_is_no_firmware_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        measure.Firmware.parse(data)


def test_no_damage_to_a_firmwares_tables_gives_anything_but_an_error_of_confide(shared: Path) -> None:
    genuine = firmware(shared).data
    read = 0
    for position in range(len(genuine) - 600, len(genuine)):
        for value in (0x00, 0xFF, genuine[position] ^ 1):
            damaged = genuine[:position] + bytes((value,)) + genuine[position + 1 :]
            try:
                image = measure.Firmware.parse(damaged)
                measure.launch_digest(image, vcpus=1, cpu_signature=0)
            except MalformedError:
                continue
            read += 1
    assert read > 0  # Bytes outside the tables are code, which is measured and not parsed.


def test_a_processor_is_named_by_its_signature() -> None:
    assert measure.cpu_signature(23, 1, 2) == 0x00800F12
    assert measure.cpu_signature(25, 17, 0) == 0x00A10F10
    assert measure.cpu_signature(6, 0x8F, 8) == 0x000806F8


def test_a_prediction_becomes_reference_values() -> None:
    values = measure.reference_values([b"\x01" * 48], origin="ovmf 2026.05")

    assert (values.tee, values.origin) == ("snp", "ovmf 2026.05")
    assert values.measurements["measurement"] == (b"\x01" * 48,)
    assert wire.REPORT_BYTES == 1184
