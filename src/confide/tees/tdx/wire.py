# SPDX-License-Identifier: Apache-2.0
"""TD reports inside a quote, and the registers that they carry.

Source: Intel, "TDX DCAP Quoting Library API", appendix A.3 (quote body descriptors); "Intel TDX Module Base Architecture
Specification", TD attributes and XFAM.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

from confide.tees._dcap import explain as explain_
from confide.tees._dcap import quote as quote_
from confide.wire.layout import U64, Array, Layout, Raw

if TYPE_CHECKING:
    from confide.tees._dcap.quote import Quote

__all__ = [
    "BODY_10",
    "BODY_15",
    "TdAttributes",
    "TdReport10",
    "TdReport15",
    "decode",
    "explain",
    "recognises",
]

BODY_10: Final = "1.0"
BODY_15: Final = "1.5"


class TdReport10(Layout, size=584):
    """The report of a TD in a quote, as TDX 1.0 gives it."""

    tee_tcb_svn: Annotated[bytes, Raw(16)]
    mrseam: Annotated[bytes, Raw(48)]
    mrsignerseam: Annotated[bytes, Raw(48)]
    seam_attributes: Annotated[bytes, Raw(8)]
    td_attributes: U64
    xfam: U64
    mrtd: Annotated[bytes, Raw(48)]
    mrconfigid: Annotated[bytes, Raw(48)]
    mrowner: Annotated[bytes, Raw(48)]
    mrownerconfig: Annotated[bytes, Raw(48)]
    rtmrs: Annotated[tuple[bytes, ...], Array(Raw(48), 4)]
    report_data: Annotated[bytes, Raw(64)]


class TdReport15(Layout, size=648):
    """The report of a TD in a quote, as TDX 1.5 gives it: with the TCB of the module that runs now, and service TDs."""

    tee_tcb_svn: Annotated[bytes, Raw(16)]
    mrseam: Annotated[bytes, Raw(48)]
    mrsignerseam: Annotated[bytes, Raw(48)]
    seam_attributes: Annotated[bytes, Raw(8)]
    td_attributes: U64
    xfam: U64
    mrtd: Annotated[bytes, Raw(48)]
    mrconfigid: Annotated[bytes, Raw(48)]
    mrowner: Annotated[bytes, Raw(48)]
    mrownerconfig: Annotated[bytes, Raw(48)]
    rtmrs: Annotated[tuple[bytes, ...], Array(Raw(48), 4)]
    report_data: Annotated[bytes, Raw(64)]
    tee_tcb_svn_2: Annotated[bytes, Raw(16)]
    mrservicetd: Annotated[bytes, Raw(48)]


@dataclass(frozen=True, slots=True)
class Bits:
    """One named bit of a register."""

    name: str
    position: int


@dataclass(frozen=True, slots=True)
class TdAttributes:
    """ATTRIBUTES of a TD (8 bytes, little-endian): bits 0 to 7 lay it open, 8 to 31 are security, 32 to 63 the rest."""

    value: int

    BITS = (
        Bits("debug", 0),
        Bits("hgs_plus_prof", 4),
        Bits("perf_prof", 5),
        Bits("pmt_prof", 6),
        Bits("icssd", 16),
        Bits("lass", 27),
        Bits("sept_ve_disable", 28),
        Bits("migratable", 29),
        Bits("pks", 30),
        Bits("kl", 31),
        Bits("tpa", 62),
        Bits("perfmon", 63),
    )

    def has(self, name: str) -> bool:
        """Whether the named bit is set."""
        return bool(self.value & _ATTRIBUTE_MASKS[name])

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the bits that are set, lowest first."""
        return tuple(bit.name for bit in self.BITS if self.value >> bit.position & 1)

    @property
    def reserved(self) -> int:
        """The bits that are set and have no name here."""
        return self.value & ~_ATTRIBUTES_KNOWN


_ATTRIBUTE_MASKS: Final = {bit.name: 1 << bit.position for bit in TdAttributes.BITS}
_ATTRIBUTES_KNOWN: Final = sum(_ATTRIBUTE_MASKS.values())


def decode(data: bytes) -> tuple[Quote, TdReport10 | TdReport15]:
    """A TD's quote of version 4 or 5, and the report in it; raises as ``tees._dcap.quote.decode`` does."""
    quote = quote_.decode(data, quote_.TDX)
    if len(quote.body) == TdReport15.SIZE:
        return quote, TdReport15.decode(quote.body)
    return quote, TdReport10.decode(quote.body)


def recognises(data: bytes) -> bool:
    """Whether a file begins like a TD's quote; nothing is checked."""
    return quote_.looks_like_quote(data, quote_.TDX)


def explain(data: bytes) -> dict[str, object]:
    """The quote as a readable tree, unverified: numbers, words, and byte strings as hex."""
    quote, report = decode(data)
    attributes = TdAttributes(report.td_attributes)
    body: dict[str, object] = {
        "version": BODY_15 if isinstance(report, TdReport15) else BODY_10,
        "tee tcb svn": report.tee_tcb_svn.hex(),
        "mrseam": report.mrseam.hex(),
        "mrsignerseam": report.mrsignerseam.hex(),
        "seam attributes": report.seam_attributes.hex(),
        "td attributes": {
            "value": f"{report.td_attributes:#018x}",
            "set": list(attributes.names),
            "reserved bits": f"{attributes.reserved:#x}",
        },
        "xfam": f"{report.xfam:#018x}",
        "mrtd": report.mrtd.hex(),
        "mrconfigid": report.mrconfigid.hex(),
        "mrowner": report.mrowner.hex(),
        "mrownerconfig": report.mrownerconfig.hex(),
        **{f"rtmr{index}": value.hex() for index, value in enumerate(report.rtmrs)},
        "report data": report.report_data.hex(),
    }
    if isinstance(report, TdReport15):
        body["tee tcb svn 2"] = report.tee_tcb_svn_2.hex()
        body["mrservicetd"] = report.mrservicetd.hex()
    return explain_.tree(quote, {"td report": body})
