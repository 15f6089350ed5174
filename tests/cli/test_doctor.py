# SPDX-License-Identifier: Apache-2.0
"""`confide doctor` says what an enclave on this machine really gets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from confide import Application, Enclave
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
