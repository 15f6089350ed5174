# SPDX-License-Identifier: Apache-2.0
"""What runs inside the enclave of `secure_data_processor.py`: keys that are derived in the TEE, and never leave it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from confide.enclave.context import Context

PURPOSE = "records"


def process(context: Context, action: str, data: bytes) -> bytes:
    """``encrypt`` records under this enclave's own key; ``summarise`` encrypted ones into an encrypted summary; ``reveal``
    a summary, and nothing else, to whoever has attested this code.
    """
    if action == "encrypt":
        return context.seal(data, purpose=PURPOSE)
    if action == "summarise":
        values = json.loads(context.open(data, purpose=PURPOSE))
        summary = {"count": len(values), "mean": sum(values) / len(values)}
        return context.seal(json.dumps(summary).encode(), purpose="summaries")
    if action == "reveal":
        return context.open(data, purpose="summaries")
    raise ValueError("no such action")
