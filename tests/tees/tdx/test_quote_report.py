# SPDX-License-Identifier: Apache-2.0
"""dstack's JSON around a quote is read as the quote and the log in it, and nothing else of it is believed."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from confide.attestation.evidence import Endorsements, EvidencePart
from confide.attestation.policy import AppraisalPolicy
from confide.attestation.verifier import Verifier
from confide.errors import MalformedError, NotAcceptable
from confide.tees import formats

if TYPE_CHECKING:
    from pathlib import Path

AT = datetime(2025, 10, 1, 0, 46, 36, tzinfo=UTC)


def test_a_real_report_is_verified_with_its_log(shared: Path) -> None:
    folder = shared / "evidence/tdx"
    raw = (folder / "v4-dstack-eventlog.report.json").read_bytes()
    quote = (folder / "v4-dstack-eventlog.quote.bin").read_bytes()
    collateral = (folder / "v4-dstack-eventlog.collateral-eval17.json").read_bytes()

    evidence = formats.read(raw)
    rows = json.loads(json.loads(raw)["event_log"])
    compose = next(row["event_payload"] for row in rows if row["event"] == "compose-hash")

    def verify(pinned: str) -> str:
        table = {
            "mrtd": [quote[48 + 136 :][:48].hex()],
            "event_log": "required",
            "events": {"compose-hash": [pinned]},
        }
        return (
            Verifier(
                AppraisalPolicy.from_table({"tees": ["tdx"], "reference": {"tdx": table}}),
                endorsements=Endorsements(documents=(EvidencePart("intel-collateral", collateral),)),
            )
            .verify(evidence, at=AT)
            .verdict
        )

    assert evidence.platform.data.rstrip(b"\0") == quote.rstrip(b"\0")
    assert verify(compose) == "accepted"
    with pytest.raises(NotAcceptable):
        verify("00" * 32)
    assert "event log 1" in json.dumps(formats.explain(evidence))


def test_members_that_nobody_signed_change_nothing(shared: Path) -> None:
    raw = (shared / "evidence/tdx/v4-dstack-eventlog.report.json").read_bytes()
    changed = {**json.loads(raw), "report_data": "ff" * 64, "vm_config": "{}", "more": [1]}
    assert formats.read(json.dumps(changed).encode()) == formats.read(raw)


@pytest.mark.parametrize(
    "table",
    [
        {"quote": "00", "event_log": 1},
        {"quote": ["00"], "event_log": "[]"},
        {"quote": "0", "event_log": "[]"},
        {"quote": "", "event_log": "[]"},
        {"quote": "00" * 100, "event_log": "[]"},
    ],
)
def test_what_is_no_quote_report_is_malformed(table: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        formats.read(json.dumps(table).encode())
    with pytest.raises(MalformedError):
        formats.read(b'{"quote": "00", "event_log": ' + b"[" * 5000)
