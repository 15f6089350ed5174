# SPDX-License-Identifier: Apache-2.0
"""Files of a hundred megabytes on the command line: refused before they are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from confide.errors import MalformedError
from confide.tees import formats
from support.bounds import HUNDRED_MEGABYTES, bounded

if TYPE_CHECKING:
    from pathlib import Path

    from support.command_line import Confide


@pytest.mark.parametrize("fill", [b"\x00", b"\x81", b"[", b"<", b"0"])
def test_ev_14_a_file_of_a_hundred_megabytes_is_refused_before_it_is_read(
    confide: Confide, tmp_path: Path, fill: bytes
) -> None:
    """Through the command line, as evidence and as endorsements."""
    file, policy = tmp_path / "huge.bin", tmp_path / "policy.toml"
    if fill == b"\x00":
        with file.open("wb") as sparse:
            sparse.truncate(HUNDRED_MEGABYTES)
    else:
        file.write_bytes(fill * HUNDRED_MEGABYTES)
    policy.write_text('tees = ["snp"]\n[reference.snp]\nmeasurement = "ANY"\n')

    with bounded(seconds=1, megabytes=64):
        for command in (("verify", file, "--policy", policy), ("inspect", file), ("endorse", file)):
            answer = confide(*command)
            assert answer.code == 3, answer.err
            assert "limit_exceeded" in answer.out + answer.err
        with pytest.raises(MalformedError) as caught:
            formats.read_endorsements([file])
        assert caught.value.code == "malformed.limit_exceeded"


def test_ev_14_what_is_trusted_is_not_read_without_end_either(confide: Confide, tmp_path: Path) -> None:
    """Reference values, their keys and the simulated root: a slip such as naming the model file must not take the memory."""
    evidence, huge, policy = tmp_path / "evidence", tmp_path / "huge.bin", tmp_path / "policy.toml"
    evidence.write_bytes(b"evidence")
    policy.write_text('tees = ["snp"]\n[reference.snp]\nmeasurement = "FILES"\n')
    with huge.open("wb") as sparse:
        sparse.truncate(HUNDRED_MEGABYTES)
    common = ("verify", evidence, "--policy", policy)

    with bounded(seconds=1, megabytes=16):
        for option in (
            ("--reference-values", huge),
            ("--reference-values", policy, "--reference-key", huge),
            ("--anchor", huge, "--allow-simulated"),
        ):
            answer = confide(*common, *option)
            assert answer.code == 2, answer.err
            assert "[configuration." in answer.err
