# SPDX-License-Identifier: Apache-2.0
"""The registers of an SGX enclave's report inside a quote; the report's layout is in `tees._dcap.quote`.

Source: Intel SDM, volume 3D, sections 36.7 (SECS, ATTRIBUTES, MISCSELECT) and 36.16 (REPORT).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["SgxFlags"]


@dataclass(frozen=True, slots=True)
class Bits:
    """One named bit of a register."""

    name: str
    position: int


@dataclass(frozen=True, slots=True)
class SgxFlags:
    """The first 8 bytes of ATTRIBUTES (little-endian); the other 8 are XFRM."""

    value: int

    BITS = (
        Bits("init", 0),
        Bits("debug", 1),
        Bits("mode64bit", 2),
        Bits("provision_key", 4),
        Bits("einittoken_key", 5),
        Bits("cet", 6),
        Bits("kss", 7),
        Bits("aex_notify", 10),
    )

    def has(self, name: str) -> bool:
        """Whether the named bit is set."""
        return bool(self.value & _MASKS[name])

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the bits that are set, lowest first."""
        return tuple(bit.name for bit in self.BITS if self.value >> bit.position & 1)

    @property
    def reserved(self) -> int:
        """The bits that are set and have no name here."""
        return self.value & ~_KNOWN


_MASKS: Final = {bit.name: 1 << bit.position for bit in SgxFlags.BITS}
_KNOWN: Final = sum(_MASKS.values())
