# SPDX-License-Identifier: Apache-2.0
"""Where the simulated device of a machine keeps its root."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["default_directory"]


def default_directory() -> Path:
    """``$XDG_DATA_HOME/confide/simulator``, or the same below ``~/.local/share``. It chooses no trust: see ``anchor``."""
    base = os.environ.get("XDG_DATA_HOME", "")
    root = Path(base) if base and Path(base).is_absolute() else Path.home() / ".local" / "share"
    return root / "confide" / "simulator"
