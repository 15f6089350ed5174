# SPDX-License-Identifier: Apache-2.0
"""NAME and NAME:VERSION, as a person writes them."""

from __future__ import annotations

import pytest

from confide.cli import broker, secret_names
from confide.errors import ConfigurationError
from confide.keys.release import SecretName


def test_a_version_may_be_left_out() -> None:
    assert secret_names.split("weights") == ("weights", None)
    assert secret_names.split("weights:12") == ("weights", 12)


@pytest.mark.parametrize(
    "text", ["m:", "m:0", "m:-1", "m:01", "m:\u00b2", "m:\u0661", "m:1:2", "m:" + "9" * 5000]
)
def test_kb_03_what_is_no_version_is_a_typed_error(text: str) -> None:
    """Some digits of other scripts are digits to Python and no integers; thousands of digits are a ValueError."""
    with pytest.raises(ConfigurationError):
        secret_names.split(text)


def test_what_cannot_be_undone_asks_for_the_version() -> None:
    assert broker._exact_secret("weights:2") == SecretName("weights", 2)
    with pytest.raises(ConfigurationError):
        broker._exact_secret("weights")
