# SPDX-License-Identifier: Apache-2.0
"""Certificates for simulators are reproducible, so that a local root need not be stored."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from confide.crypto.issue import IssuingKey, issue


@pytest.mark.parametrize("curve", ["p256", "p384"])
def test_the_same_inputs_give_the_same_certificate(curve: str) -> None:
    def made(scalar: int) -> bytes:
        key = IssuingKey.from_scalar(scalar, curve=curve)
        return issue(
            subject="root",
            issuer="root",
            public_key=key.public_key_der,
            signing_key=key,
            serial=1,
            not_before=datetime(2026, 1, 1, tzinfo=UTC),
            not_after=datetime(2027, 1, 1, tzinfo=UTC),
            is_ca=True,
        )

    assert made(5) == made(5)
    assert made(5) != made(6)
