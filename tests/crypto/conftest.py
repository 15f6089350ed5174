# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from confide.crypto.issue import IssuingKey


@pytest.fixture(scope="session")
def rsa_key() -> IssuingKey:
    """An RSA key of 2048 bits, made once for all tests: a key of 4096 bits takes seconds."""
    return IssuingKey.generate_rsa(2048)
