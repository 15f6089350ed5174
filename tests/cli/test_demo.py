# SPDX-License-Identifier: Apache-2.0
"""What `confide demo` claims is so: one real run, its facts one by one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("magika", reason="the demo's model is not installed: pip install 'confide[demo]'")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The facts of one run, in a home of its own."""
    home = tmp_path_factory.mktemp("home")
    done = subprocess.run(
        [sys.executable, "-m", "confide.cli.main", "demo", "--json"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    facts: dict[str, Any] = json.loads(done.stdout)
    facts["left behind"] = sorted(path.name for path in _entries(home))
    return facts


def _entries(home: Path) -> list[Path]:
    return list(home.iterdir())


def test_it_says_that_it_is_simulated(demo: dict[str, Any]) -> None:
    assert demo["simulated"] is True
    assert demo["steps"]["ask"]["simulated"] is True


def test_the_protected_file_shows_no_layer_name_and_no_weight(demo: dict[str, Any]) -> None:
    assert demo["steps"]["protect"]["found_in_protected_file"] == 0
    assert demo["steps"]["protect"]["protected_bytes"] > demo["steps"]["protect"]["model_bytes"]


def test_the_broker_recorded_the_key_the_policy_and_the_release(demo: dict[str, Any]) -> None:
    assert demo["steps"]["start"]["audit"] == ["put", "policy", "release"]


def test_every_answer_equals_the_oracle_s_and_has_a_verified_receipt(demo: dict[str, Any]) -> None:
    ask = demo["steps"]["ask"]

    assert ask["answers"] > 0
    assert ask["equal"] == ask["answers"]
    assert ask["receipts"] == ask["answers"]
    assert ask["freshness"] == "fresh"


def test_leak_01_the_operator_finds_nothing_of_ours_and_everything_of_a_plain_server(
    demo: dict[str, Any],
) -> None:
    look = demo["steps"]["look"]

    assert look["found"] == {"memory": 0, "disk": 0, "network": 0}
    assert all(count > 0 for count in look["found_at_plain_server"].values())
    assert set(look["found_at_plain_server"]) == {"memory", "disk", "network"}


def test_a_changed_line_of_code_is_refused_and_named(demo: dict[str, Any]) -> None:
    attack = demo["steps"]["attack"]["changed_code"]

    assert attack["refused"] is True
    assert attack["code"] == "not_acceptable.measurement"
    assert attack["difference"] == ["changed: confide/serving/inference_app.py"]


def test_bnd_08_evidence_relayed_with_another_key_is_refused(demo: dict[str, Any]) -> None:
    attack = demo["steps"]["attack"]["relayed_evidence"]

    assert attack["refused"] is True
    assert attack["code"] in {"not_acceptable.nonce_mismatch", "not_acceptable.channel"}


def test_ch_17_a_replayed_request_is_refused(demo: dict[str, Any]) -> None:
    assert demo["steps"]["attack"]["replayed_request"] == {
        "refused": True,
        "code": "status 400",
        "difference": [],
    }


def test_it_leaves_nothing_behind(demo: dict[str, Any]) -> None:
    assert demo["left behind"] == []
