# SPDX-License-Identifier: Apache-2.0
"""Reference values come out of NVIDIA's documents, and only out of those whose signature holds."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from confide.errors import NotGenuine
from confide.tees.nvidia import measure
from support import nvidia
from support.refusal import code_of

if TYPE_CHECKING:
    from pathlib import Path

DEVICE = nvidia.device()
ANCHORS = (DEVICE.anchor,)
DOCUMENTS = [one.sign(DEVICE.signer) for one in DEVICE.manifests().values()]


def test_the_values_of_real_documents_are_those_of_the_report(shared: Path) -> None:
    folder = nvidia.folder(shared)
    documents = [
        (folder / "rim" / name).read_bytes()
        for name in ("NV_GPU_DRIVER_GH100_550.90.07.xml", "NV_GPU_VBIOS_1010_0200_882_96009F0001.xml")
    ]

    values = measure.golden_values(documents, at=datetime(2025, 10, 24, tzinfo=UTC))

    assert len(values.measurements) == 32
    assert values.origin == "RIM documents of GH100: driver 550.90.07, vbios 96.00.9F.00.01"
    report = (folder / "hopper-550.90.07-full.report.bin").read_bytes()
    assert all(
        any(value in report for value in alternatives) for alternatives in values.measurements.values()
    )


def test_the_values_make_a_policy_that_accepts_the_device_without_documents() -> None:
    values = measure.golden_values(DOCUMENTS, at=nvidia.AT, anchors=ANCHORS)
    table = {
        "rim": "ANY",
        "measurements": {index: [one.hex() for one in found] for index, found in values.measurements.items()},
    }

    assert nvidia.verify(nvidia.case(manifests={}), table).tee == "nvidia"
    changed = nvidia.case(manifests={}, measurements={12: b"\x01" * 48})
    assert nvidia.codes(changed, table) == ["not_acceptable.measurement"]


def test_documents_that_do_not_go_together_are_refused() -> None:
    driver, vbios = DEVICE.manifests().values()
    blackwell = nvidia.device("GB100").manifests()["driver"]
    overlap = replace(vbios, golden={7: (bytes(48),)})

    for documents in (
        [],
        [DOCUMENTS[0], driver.sign(DEVICE.signer)],
        [DOCUMENTS[1], blackwell.sign(DEVICE.signer)],
        [DOCUMENTS[0], overlap.sign(DEVICE.signer)],
    ):
        code = code_of(measure.golden_values, documents, at=nvidia.AT, anchors=ANCHORS)
        assert code == "configuration.documents"


def test_a_document_that_is_not_the_vendor_s_gives_no_values() -> None:
    with pytest.raises(NotGenuine) as caught:
        measure.golden_values(DOCUMENTS, at=nvidia.AT)
    assert caught.value.code == "not_genuine.untrusted_root"
