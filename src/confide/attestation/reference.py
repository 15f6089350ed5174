# SPDX-License-Identifier: Apache-2.0
"""Reference values: named measurements, and where they come from."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ReferenceValues"]


@dataclass(frozen=True, slots=True)
class ReferenceValues:
    """Measurements that are acceptable, by the TEE's own register name; ``origin`` says for a person who computed them.

    For SNP there is one register, ``measurement`` (48 bytes each value). An empty tuple admits nothing.
    """

    tee: str
    measurements: Mapping[str, tuple[bytes, ...]]
    origin: str

    def __post_init__(self) -> None:
        frozen = {name: tuple(values) for name, values in self.measurements.items()}
        object.__setattr__(self, "measurements", MappingProxyType(frozen))
