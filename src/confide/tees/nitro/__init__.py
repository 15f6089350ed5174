# SPDX-License-Identifier: Apache-2.0
"""AWS Nitro Enclaves."""

from __future__ import annotations
