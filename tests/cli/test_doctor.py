# SPDX-License-Identifier: Apache-2.0
"""`confide doctor` says what an enclave on this machine really gets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from confide import Application, Enclave
from confide.cli import doctor
from confide.enclave.service import CodeRoot

if TYPE_CHECKING:
    from pathlib import Path

    from support.command_line import Confide


def test_doctor_names_the_confinement_that_an_enclave_reaches(confide: Confide, tmp_path: Path) -> None:
    """The trial runs without site-packages, and has to find the package all the same."""
    answer = confide("doctor", "--json")

    assert answer.code == 0, answer.err
    module = tmp_path / "quiet.py"
    module.write_text("async def app(scope, receive, send):\n    pass\n")
    service = Application("quiet:app", code=(CodeRoot(module, "quiet"),))
    with Enclave.launch(service, tee="simulated") as enclave:
        assert json.loads(answer.out)["level"] == enclave.confinement.level.name


@pytest.mark.parametrize(
    ("status", "name"), [(0, None), (1, "SEV"), (3, "SEV-ES"), (7, None), (5, None), (2, None), (4, None)]
)
def test_sev_without_snp_is_told_by_the_guests_own_register(
    tmp_path: Path, status: int, name: str | None
) -> None:
    """SEV_STATUS: bit 0 SEV, bit 1 SEV-ES, bit 2 SNP; the driver shows registers as a file, by number."""
    msr = tmp_path / "msr"
    with msr.open("wb") as file:
        file.seek(0xC0010131)
        file.write(status.to_bytes(8, "little"))

    assert doctor._sev_without_snp(msr) == name
    assert doctor._sev_without_snp(tmp_path / "absent") is None


def test_doctor_names_every_tee_and_sev_without_snp_as_refused(
    confide: Confide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_sev_without_snp", lambda: "SEV-ES")

    found = json.loads(confide("doctor", "--json").out)["tees"]

    assert [one["tee"] for one in found] == [
        "AMD SEV-SNP",
        "AMD SEV-ES without SNP",
        "Intel TDX",
        "Intel SGX (Gramine)",
        "AWS Nitro",
        "vTPM",
        "NVIDIA confidential GPU",
    ]
    assert found[1]["state"] == "refused"
    assert all(one["detail"] for one in found if one["state"] == "absent")
