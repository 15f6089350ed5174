# SPDX-License-Identifier: Apache-2.0
"""Intel's DCAP quotes, their certificates and their collateral: what SGX and TDX have in common."""

from __future__ import annotations
