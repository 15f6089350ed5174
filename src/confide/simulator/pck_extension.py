# SPDX-License-Identifier: Apache-2.0
"""Intel's extension of a PCK certificate, each part of which can be set, left out or written twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from confide.crypto.x509 import Extension

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["COMPONENTS", "FMSPC", "PCESVN", "extension", "integer", "part", "tagged"]

FMSPC: Final = bytes.fromhex("00906ed50000")
COMPONENTS: Final = (6, 6, 2, 2, 3, 1, 0, 3) + (0,) * 8
PCESVN: Final = 11


def tagged(tag: int, content: bytes) -> bytes:
    """One DER element of less than 64 KiB."""
    size = len(content)
    head = bytes((tag, size)) if size < 0x80 else bytes((tag, 0x82, size >> 8, size & 0xFF))
    if 0x80 <= size < 0x100:
        head = bytes((tag, 0x81, size))
    return head + content


def integer(value: int) -> bytes:
    """A DER INTEGER that is not negative."""
    return tagged(2, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _oid(last: tuple[int, ...]) -> bytes:
    # 1.2.840.113741.1.13.1 and what follows it, each number below 128.
    return tagged(6, bytes.fromhex("2a864886f84d010d01") + bytes(last))


def part(last: tuple[int, ...], value: bytes) -> bytes:
    """One named part of the extension: the numbers after its OID, and the encoded value."""
    return tagged(0x30, _oid(last) + value)


def extension(
    *,
    ppid: bytes = b"\x11" * 16,
    components: tuple[int, ...] = COMPONENTS,
    pcesvn: int = PCESVN,
    cpusvn: bytes | None = None,
    pceid: bytes = bytes(2),
    fmspc: bytes = FMSPC,
    sgx_type: int = 1,
    platform_instance_id: bytes | None = b"\x22" * 16,
    replace: Mapping[tuple[int, ...], bytes | None] | None = None,
    extra: tuple[bytes, ...] = (),
    extra_tcb: tuple[bytes, ...] = (),
) -> Extension:
    """Intel's extension of a PCK certificate. ``replace`` sets the encoded value of a part, or leaves it out (None);
    ``extra`` and ``extra_tcb`` add encoded parts to the whole and to its TCB.
    """
    changed = dict(replace or {})

    def one(last: tuple[int, ...], value: bytes) -> bytes:
        found = changed.pop(last, value)
        return b"" if found is None else part(last, found)

    tcb = b"".join(one((2, number), integer(svn)) for number, svn in enumerate(components, start=1))
    tcb += one((2, 17), integer(pcesvn))
    tcb += one((2, 18), tagged(4, bytes(components) if cpusvn is None else cpusvn)) + b"".join(extra_tcb)
    whole = one((1,), tagged(4, ppid)) + one((2,), tagged(0x30, tcb))
    whole += one((3,), tagged(4, pceid)) + one((4,), tagged(4, fmspc))
    whole += one((5,), tagged(10, bytes((sgx_type,))))
    if platform_instance_id is not None:
        whole += one((6,), tagged(4, platform_instance_id))
        flags = b"".join(part((7, number), b"\x01\x01\xff") for number in (1, 2, 3))
        whole += one((7,), tagged(0x30, flags))
    return Extension(critical=False, value=tagged(0x30, whole + b"".join(extra)))
