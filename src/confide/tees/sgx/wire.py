# SPDX-License-Identifier: Apache-2.0
"""The registers of an SGX enclave's report inside a quote; the report's layout is in `tees._dcap.quote`.

Source: Intel SDM, volume 3D, sections 36.7 (SECS, ATTRIBUTES, MISCSELECT) and 36.16 (REPORT).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from confide.tees._dcap import explain as explain_
from confide.tees._dcap import quote as quote_
from confide.tees._dcap.quote import EnclaveReport

if TYPE_CHECKING:
    from confide.tees._dcap.quote import Quote

__all__ = ["EnclaveReport", "SgxFlags", "decode", "explain", "recognises"]


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


def decode(data: bytes) -> tuple[Quote, EnclaveReport]:
    """An enclave's quote of version 3, 4 or 5, and the report in it; raises as ``tees._dcap.quote.decode`` does."""
    quote = quote_.decode(data, quote_.SGX)
    return quote, EnclaveReport.decode(quote.body)


def recognises(data: bytes) -> bool:
    """Whether a file begins like an enclave's quote; nothing is checked."""
    return quote_.looks_like_quote(data, quote_.SGX)


def explain(data: bytes) -> dict[str, object]:
    """The quote as a readable tree, unverified: numbers, words, and byte strings as hex."""
    quote, report = decode(data)
    return explain_.tree(quote, {"enclave report": explain_.enclave(report, SgxFlags(report.flags).names)})
