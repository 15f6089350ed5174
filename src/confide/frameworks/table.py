# SPDX-License-Identifier: Apache-2.0
"""The one table of model formats. A format that is not here is refused; nothing registers itself."""

from __future__ import annotations

import importlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, cast

from confide.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from confide.frameworks.contract import Adapter

__all__ = ["FORMATS", "adapter", "recognise"]

FORMATS: Final[Mapping[str, str]] = MappingProxyType({"onnx": "confide.frameworks.onnx"})


def adapter(format_: str) -> Adapter:
    """The adapter of a format, by its exact name. Raises ModelError ``unsafe_format`` for any other name."""
    module = FORMATS.get(format_)
    if module is None:
        raise ModelError(
            "unsafe_format",
            "the model format is not one that confide loads",
            hint=f"formats: {', '.join(sorted(FORMATS))}",
        )
    return cast("Adapter", importlib.import_module(module))


def recognise(data: bytes | memoryview) -> str:
    """The format that these bytes are, judged by content and never by a file's name. Raises ModelError."""
    found = [name for name in FORMATS if adapter(name).recognises(data)]
    if len(found) != 1:
        raise ModelError(
            "unsafe_format",
            "the file's content is not that of a model format that confide loads",
            hint="models are data here: export to ONNX; pickle, joblib and .pt files are refused because loading "
            "them runs code",
        )
    return found[0]
