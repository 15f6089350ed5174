# SPDX-License-Identifier: Apache-2.0
"""TPM 2.0 quotes: of Azure's and Google's virtual TPMs, of swtpm and of chips."""

from __future__ import annotations
