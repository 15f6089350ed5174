# SPDX-License-Identifier: Apache-2.0
"""Reading the vector files of `tests/vectors`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "vectors"


def document(name: str) -> dict[str, Any]:
    """The whole file, which names its source."""
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    assert found["source"]
    return found


def rows(name: str, at_least: int) -> list[dict[str, Any]]:
    """The vectors by field name; at least so many, so that a test over them cannot pass by having none."""
    found = document(name)
    vectors = [dict(zip(found["fields"], row, strict=True)) for row in found["vectors"]]
    assert len(vectors) >= at_least
    return vectors
