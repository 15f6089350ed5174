# SPDX-License-Identifier: Apache-2.0
"""Every sample of real evidence through the command line: its documented verdict, exit code and reason.

SEV-SNP's are in ``test_verify.py``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from support.command_line import Confide

TDX = 'tees = ["tdx"]\n[reference.tdx]\nmrtd = "ANY"\n'
SGX = 'tees = ["sgx"]\n[reference.sgx]\nmrenclave = "ANY"\n'
NITRO = 'tees = ["nitro"]\n[reference.nitro]\npcr0 = "ANY"\n'
ARCHIVE = NITRO + 'time = "document"\n'
AZURE_SNP = 'tees = ["snp", "tpm"]\n[reference.snp]\nmeasurement = "ANY"\n[reference.tpm]\npcr = "ANY"\n'
AZURE_TDX = 'tees = ["tdx", "tpm"]\n[reference.tdx]\nmrtd = "ANY"\nsept_ve_disable = false\n[reference.tpm]\npcr = "ANY"\n'
GPU = 'tees = ["nvidia"]\n[reference.nvidia]\n'
GPU_ANY = GPU + 'rim = "ANY"\n'
OUTDATED = 'tcb_status = ["UpToDate", "OutOfDate"]\n'
EVAL = ".collateral-eval"


@dataclass(frozen=True)
class Sample:
    """A file, what goes with it, and what comes out."""

    file: str
    at: str
    policy: str
    code: int
    reason: str | None = None
    endorsements: tuple[str, ...] = ()
    more: tuple[str, ...] = field(default=())


def tdx(
    name: str, evaluation: int, at: str, code: int, reason: str | None = None, policy: str = TDX
) -> Sample:
    return Sample(f"tdx/{name}.quote.bin", at, policy, code, reason, (f"tdx/{name}{EVAL}{evaluation}.json",))


def sgx(name: str, at: str, code: int, reason: str | None = None, policy: str = SGX) -> Sample:
    return Sample(f"sgx/{name}.quote.bin", at, policy, code, reason, (f"sgx/{name}{EVAL}17.json",))


def nitro(name: str, at: str, code: int, reason: str | None = None, policy: str = NITRO) -> Sample:
    return Sample(f"nitro/{name}.cose.bin", at, policy, code, reason)


def gpu(name: str, at: str, code: int, reason: str | None, policy: str, *more: str) -> Sample:
    return Sample(f"nvidia/{name}.report.bin", at, policy, code, reason, (f"nvidia/{name}.chain.pem", *more))


FULL = (
    "nvidia/rim/NV_GPU_DRIVER_GH100_550.90.07.xml",
    "nvidia/rim/NV_GPU_VBIOS_1010_0200_882_96009F0001.xml",
)
SAMPLES = [
    tdx("v4-uptodate", 17, "2025-07-04T10:16:31Z", 0),
    tdx("v4-uptodate", 18, "2026-03-11T00:00:00Z", 0),
    tdx("v4-gcp-cos113", 17, "2025-06-26T22:12:02Z", 0),
    tdx("v4-gcp-cos113", 21, "2026-06-27T12:00:00Z", 4, "not_acceptable.out_of_date"),
    tdx("v4-gcp-cos113", 21, "2026-06-27T12:00:00Z", 0, None, 'tcb_status = ["UpToDate", "OutOfDate"]\n' + TDX),
    tdx("v4-gcp-cos113", 17, "2025-06-26T22:12:02Z", 4, "not_acceptable.below_minimum", "min_tcb_evaluation = 18\n" + TDX),
    tdx("v4-no-matching-tcb", 15, "2023-06-28T08:03:58Z", 3, "malformed.trailing_data"),
    tdx("v4-no-matching-tcb", 18, "2026-03-18T00:00:00Z", 3, "malformed.trailing_data"),
    tdx("v4-debug-td", 15, "2023-06-28T08:03:58Z", 4, "not_acceptable.debug"),
    tdx("v4-debug-td", 18, "2026-03-18T00:00:00Z", 4, "not_acceptable.debug"),
    tdx("v5-uptodate", 18, "2026-03-05T10:50:03Z", 0),
    tdx("v5-no-matching-tcb", 17, "2025-06-27T07:08:06Z", 3, "not_genuine.unknown_status"),
    tdx("v4-azure-attr0", 17, "2025-06-26T22:12:02Z", 4, "not_acceptable.attributes"),
    tdx("v4-azure-attr0", 17, "2025-06-26T22:12:02Z", 0, None, OUTDATED + TDX + "sept_ve_disable = false\n"),
    tdx("v4-dstack-eventlog", 17, "2025-10-01T00:46:36Z", 0),
    tdx("v4-dstack-eventlog", 18, "2026-03-05T00:00:00Z", 0),
    sgx("v3-config-and-hardening", "2025-07-04T10:28:44Z", 4, "not_acceptable.tcb_status"),
    sgx("v3-config-and-hardening", "2025-07-04T10:28:44Z", 0, None, 'tcb_status = ["UpToDate", "ConfigurationAndSWHardeningNeeded"]\n' + SGX),
    sgx("v3-debug-occlum", "2025-09-08T05:50:18Z", 4, "not_acceptable.debug"),
    sgx("v3-debug-solana", "2025-07-04T10:28:44Z", 4, "not_acceptable.debug"),
    Sample("sgx/v3-fortanix-2020.quote.bin", "2021-01-01T00:00:00Z", SGX, 5, "endorsements_missing.collateral"),
    Sample("sgx/v3-fortanix-corrupted.quote.bin", "2021-01-01T00:00:00Z", SGX, 3, "not_genuine.bad_signature"),
    Sample("sgx/v3-certtype-not5.quote.bin", "2021-01-01T00:00:00Z", SGX, 5, "endorsements_missing.certificate"),
    nitro("prod-1k-fields", "2024-09-07T14:37:39Z", 0),
    nitro("prod-1k-fields", "2024-09-08T14:37:39Z", 3, "not_genuine.expired"),
    nitro("prod-1k-fields", "2026-01-01T00:00:00Z", 0, None, ARCHIVE),
    nitro("debug-1k-fields", "2024-09-07T14:38:06Z", 4, "not_acceptable.debug"),
    nitro("debug-1k-fields", "2024-09-07T14:38:06Z", 0, None, "allow_debug = true\n" + NITRO),
    nitro("selfsigned", "1970-01-20T19:56:19Z", 3, "malformed.unknown_format"),
    nitro("prod-dstack", "2025-12-25T16:04:19Z", 0),
    nitro("debug-2021", "2021-09-09T10:19:20Z", 4, "not_acceptable.debug"),
    nitro("tampered-signature", "2021-09-09T10:19:20Z", 3, "not_genuine.bad_signature"),
    nitro("tampered-certificate", "2021-09-09T10:19:20Z", 3),
    nitro("prod-nitriding", "2022-07-27T02:02:42Z", 0),
    nitro("prod-pcr8", "2022-10-13T08:58:02Z", 0),
    Sample("azure-vtpm/snp-v1.json", "2026-06-01T00:00:00Z", AZURE_SNP, 0),
    Sample("azure-vtpm/snp-genoa.json", "2026-06-01T00:00:00Z", AZURE_SNP, 0),
    Sample("azure-vtpm/snp-v1.json", "2026-06-01T00:00:00Z", AZURE_SNP.split("[reference.tpm]", maxsplit=1)[0].replace(', "tpm"', ""), 4, "not_acceptable.tee"),
    Sample("azure-vtpm/snp-v1.json", "2026-06-01T00:00:00Z", 'tees = ["tpm"]\n[reference.tpm]\npcr = "ANY"\n', 4, "not_acceptable.tee"),
    Sample("azure-vtpm/tdx-v1.json", "2025-06-26T22:12:02Z", AZURE_TDX, 5, "endorsements_missing.collateral"),
    Sample("azure-vtpm/tdx-v1.json", "2025-06-26T22:12:02Z", OUTDATED + AZURE_TDX, 0, None, ("tdx/v4-azure-attr0.collateral-eval17.json",)),
    gpu("hopper-550.90.07-full", "2025-10-24T12:00:00Z", 0, None, GPU, *FULL),
    gpu("hopper-550.90.07-full", "2025-10-24T12:00:00Z", 5, "endorsements_missing.rim", GPU),
    gpu("hopper-550.90.07-full", "2025-10-24T12:00:00Z", 0, None, GPU_ANY),
    gpu("hopper-535", "2026-01-01T00:00:00Z", 0, None, GPU_ANY),
    gpu("hopper-580", "2026-01-01T00:00:00Z", 0, None, GPU_ANY),
    gpu("hopper-bad-signature", "2026-01-01T00:00:00Z", 3, "not_genuine.bad_signature", GPU_ANY),
    gpu("switch-ls10", "2026-01-01T00:00:00Z", 0, None, GPU_ANY),
]  # fmt: skip


@pytest.mark.parametrize(
    "sample",
    SAMPLES,
    ids=lambda one: f"{one.file.partition('/')[2].partition('.')[0]}-{one.at[:10]}-{one.code}",
)
def test_each_sample_gets_its_documented_verdict(
    confide: Confide, shared: Path, tmp_path: Path, sample: Sample
) -> None:
    folder = shared / "evidence"
    policy = tmp_path / "policy.toml"
    policy.write_text(sample.policy)
    endorsements = [part for name in sample.endorsements for part in ("--endorsements", folder / name)]

    answer = confide(
        "verify", folder / sample.file, "--policy", policy, "--at", sample.at, "--json", *endorsements, *sample.more
    )  # fmt: skip

    verdict = json.loads(answer.out)
    codes = [reason["code"] for reason in verdict["reasons"]]
    assert answer.code == sample.code, codes
    assert (
        verdict["verdict"]
        == {0: "accepted", 3: "not_genuine", 4: "not_acceptable", 5: "undecided"}[sample.code]
    )
    if sample.reason is not None:
        assert sample.reason in codes


def test_every_raw_file_can_be_inspected(confide: Confide, shared: Path) -> None:
    folder = shared / "evidence"
    for sample in {one.file: one for one in SAMPLES}.values():
        if sample.reason is not None and sample.reason.startswith("malformed."):
            continue
        answer = confide("inspect", folder / sample.file, "--json")

        assert answer.code == 0, (sample.file, answer.err)
        assert json.loads(answer.out)["trusted"] is False
