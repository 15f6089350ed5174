# SPDX-License-Identifier: Apache-2.0
"""``importlib.metadata`` inside an enclave: the metadata of measured distributions, compared as it is read."""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from os import PathLike
    from pathlib import Path

    from confide.enclave.loader import Importer

__all__ = ["MeasuredDistribution"]


class MeasuredDistribution(importlib.metadata.Distribution):
    """A distribution in the manifest; what installers wrote beside it (RECORD, INSTALLER) does not exist here."""

    def __init__(self, importer: Importer, info: str, site: Path) -> None:
        self._importer = importer
        self._info = info
        self._site = site

    def read_text(self, filename: str) -> str | None:
        """The text of a metadata file, or None when the wheel has none of this name."""
        try:
            return self._importer.read(str(self._site / self._info / filename)).decode("utf-8")
        except FileNotFoundError:
            return None

    def locate_file(self, path: str | PathLike[str]) -> Path:
        """Where a file of the distribution lies."""
        return self._site / path
