# SPDX-License-Identifier: Apache-2.0
"""Real enclaves for the tests of what runs inside."""

from __future__ import annotations

from support.enclaves import launcher

__all__ = ["launcher"]
