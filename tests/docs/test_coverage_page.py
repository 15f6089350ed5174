# SPDX-License-Identifier: Apache-2.0
"""The page of covered attacks says what is so."""

from __future__ import annotations

from support import threat_coverage


def test_every_required_attack_is_tested_or_left_out_with_a_reason() -> None:
    known = threat_coverage.performed().keys() | threat_coverage.left_out().keys()

    assert sorted(threat_coverage.REQUIRED - known) == []


def test_nothing_is_both_tested_and_called_left_out() -> None:
    assert sorted(threat_coverage.performed().keys() & threat_coverage.left_out().keys()) == []


def test_the_generated_table_is_current() -> None:
    assert threat_coverage.PAGE.read_text() == threat_coverage.page()
