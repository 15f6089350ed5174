# SPDX-License-Identifier: Apache-2.0
"""One event of a measured boot: its names, and what can be read out of its data.

Source: TCG PC Client Platform Firmware Profile, section 10.4 (event types), UEFI, section 10.3 (device paths). Only the digest
of an event is extended into a register. The type and the data are hints for a person, but for what ``proven`` gives: bytes
that the digest is of, so that a register that replays proves them too.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from confide.errors import MalformedError
from confide.tees._tcg import device_path
from confide.wire.cursor import Cursor

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DSTACK_RUNTIME", "NO_ACTION", "STRONG", "TYPE_NAMES", "Event"]

STRONG: Final = ("sha256", "sha384", "sha512")
"""The banks that are replayed. A log may carry SHA-1 and SM3 digests beside them, which prove nothing here."""

NO_ACTION: Final = 0x00000003
_SEPARATOR: Final = 0x00000004
_TAG: Final = 0x00000006
_IPL: Final = 0x0000000D
DSTACK_RUNTIME: Final = 0x08000001
_VARIABLES: Final = frozenset({0x80000001, 0x80000002, 0x8000000C, 0x800000E0, 0x800000E1, 0x800000E2})
_VARIABLE_BOOT: Final = 0x80000002
_BOOT_SERVICES: Final = frozenset({0x80000003, 0x80000004, 0x80000005})
_BLOB2: Final = 0x8000000A
_TABLES2: Final = 0x8000000B
_AAEL: Final = 0x4141454C
_MAX_TEXT: Final = 1024
_SHOWN: Final = 64

TYPE_NAMES: Final[Mapping[int, str]] = MappingProxyType(
    {
        0x00000000: "EV_PREBOOT_CERT",
        0x00000001: "EV_POST_CODE",
        0x00000002: "EV_UNUSED",
        0x00000003: "EV_NO_ACTION",
        0x00000004: "EV_SEPARATOR",
        0x00000005: "EV_ACTION",
        0x00000006: "EV_EVENT_TAG",
        0x00000007: "EV_S_CRTM_CONTENTS",
        0x00000008: "EV_S_CRTM_VERSION",
        0x00000009: "EV_CPU_MICROCODE",
        0x0000000A: "EV_PLATFORM_CONFIG_FLAGS",
        0x0000000B: "EV_TABLE_OF_DEVICES",
        0x0000000C: "EV_COMPACT_HASH",
        0x0000000D: "EV_IPL",
        0x0000000E: "EV_IPL_PARTITION_DATA",
        0x0000000F: "EV_NONHOST_CODE",
        0x00000010: "EV_NONHOST_CONFIG",
        0x00000011: "EV_NONHOST_INFO",
        0x00000012: "EV_OMIT_BOOT_DEVICE_EVENTS",
        0x00000013: "EV_POST_CODE2",
        0x08000001: "dstack runtime event",
        0x80000001: "EV_EFI_VARIABLE_DRIVER_CONFIG",
        0x80000002: "EV_EFI_VARIABLE_BOOT",
        0x80000003: "EV_EFI_BOOT_SERVICES_APPLICATION",
        0x80000004: "EV_EFI_BOOT_SERVICES_DRIVER",
        0x80000005: "EV_EFI_RUNTIME_SERVICES_DRIVER",
        0x80000006: "EV_EFI_GPT_EVENT",
        0x80000007: "EV_EFI_ACTION",
        0x80000008: "EV_EFI_PLATFORM_FIRMWARE_BLOB",
        0x80000009: "EV_EFI_HANDOFF_TABLES",
        0x8000000A: "EV_EFI_PLATFORM_FIRMWARE_BLOB2",
        0x8000000B: "EV_EFI_HANDOFF_TABLES2",
        0x8000000C: "EV_EFI_VARIABLE_BOOT2",
        0x8000000D: "EV_EFI_GPT_EVENT2",
        0x80000010: "EV_EFI_HCRTM_EVENT",
        0x800000E0: "EV_EFI_VARIABLE_AUTHORITY",
        0x800000E1: "EV_EFI_SPDM_FIRMWARE_BLOB",
        0x800000E2: "EV_EFI_SPDM_FIRMWARE_CONFIG",
    }
)

# The types whose digest the profile defines as the digest of the event's own data. EV_EFI_VARIABLE_BOOT is among them for the
# profile, but EDK II measures the variable's value alone; both are tried.
_OF_DATA: Final = frozenset(
    {
        _SEPARATOR,
        0x00000005,
        0x00000008,
        DSTACK_RUNTIME,
        0x80000001,
        _VARIABLE_BOOT,
        0x80000006,
        0x80000007,
        0x8000000C,
        0x8000000D,
        0x800000E0,
    }
)


@dataclass(frozen=True, slots=True)
class Event:
    """``index`` is the register as the log counts it, ``digests`` are by algorithm, ``name`` is set in dstack's logs only."""

    index: int
    type: int
    digests: Mapping[str, bytes]
    data: bytes
    name: str = ""

    @property
    def type_name(self) -> str:
        """The specification's name of the type, or the number."""
        return TYPE_NAMES.get(self.type, f"{self.type:#010x}")

    @property
    def extends(self) -> bool:
        """Whether the event was extended into its register: EV_NO_ACTION never is, and MRTD takes no events."""
        return self.type != NO_ACTION

    @property
    def covered(self) -> bool | None:
        """Whether every strong digest is that of the event's data; None where the type's digest may be that of something else.

        False is a log whose text is not what was measured. For what True makes trustworthy see ``proven``.
        """
        if self.proven is not None:
            return True
        return False if self.type in _OF_DATA else None

    @property
    def proven(self) -> bytes | None:
        """The bytes of the event that its digests are of, as trustworthy as the register; None if they are of none of them.

        That is all of ``data``, or a part: the value of an EFI variable without its name, the command of a boot loader
        without the word in front. For dstack it is type, name and payload.
        """
        if self.type not in _OF_DATA and self.type not in {_TAG, _IPL}:
            return None
        strong = [(name, digest) for name, digest in self.digests.items() if name in STRONG]
        for form in self._measured():
            if all(hmac.compare_digest(hashlib.new(name, form).digest(), digest) for name, digest in strong):
                return form
        return None

    def _measured(self) -> tuple[bytes, ...]:
        """The byte strings of which the digest may be taken, by the event's type."""
        if self.type == DSTACK_RUNTIME:
            return (self.type.to_bytes(4, "little") + b":" + self.name.encode() + b":" + self.data,)
        if self.type == _TAG and len(self.data) >= 8:
            # CoCo's AAEL hashes the tagged data without its head; Linux's EFI stub hashes what is not in the log at all.
            return self.data, self.data[8:]
        if self.type == _VARIABLE_BOOT:
            value = _variable_value(self.data)
            return (self.data,) if value is None else (self.data, value)
        if self.type == _IPL:
            # GRUB writes "grub_cmd: ls" with a NUL, and hashes "ls"; other loaders hash files and tell their names.
            return self.data, self.data.rstrip(b"\x00").partition(b": ")[2]
        return (self.data,)

    def proven_details(self) -> dict[str, object]:
        """What the proven bytes say, as JSON values; empty where there are none, or none of a known form."""
        proven = self.proven
        if proven is None:
            return {}
        if proven == self.data or self.type == DSTACK_RUNTIME:
            return self.details()
        if self.type == _VARIABLE_BOOT:
            return {"variable_data": proven.hex()}
        return {"string": _text(proven)}

    def details(self) -> dict[str, object]:
        """What the data says, as JSON values; empty where it is of no known form. Never raises for hostile data."""
        try:
            return _details(self)
        except MalformedError:
            return {}

    def summary(self, algorithm: str) -> str:
        """The event in one line: type, digest, and its text, which is the sender's word but for what the digest is of."""
        proven = self.proven_details()
        told = _line(proven or self.details())
        return " ".join(
            (
                self.type_name,
                self.digests[algorithm].hex(),
                *told,
                *(("(its digest is of this)",) if proven else ()),
            )
        )

    @property
    def proven_line(self) -> tuple[str, ...]:
        """What is proven of the text, as words for one line."""
        return _line(self.proven_details())


def _line(details: dict[str, object]) -> tuple[str, ...]:
    found: list[str] = []
    if "variable_name" in details:
        # By its name alone another vendor's variable would pass for UEFI's.
        found.append(f"{details['unicode_name']}-{details['variable_name']}")
    found += [str(details[key]) for key in ("name", "string") if key in details]
    for key in ("variable_data", "payload"):
        if key in details:
            value = str(details[key])
            found.append(value if len(value) <= 2 * _SHOWN else f"{len(value) // 2} bytes")
    paths = details.get("device_paths")
    if isinstance(paths, list):
        found.append("/".join(paths))
    return tuple(found)


def _details(event: Event) -> dict[str, object]:
    if event.type == DSTACK_RUNTIME:
        return {"name": _printable(event.name), "payload": event.data.hex()}
    if event.type in _VARIABLES:
        return _variable(event.data)
    if event.type in _BOOT_SERVICES:
        return _image(event.data)
    if event.type in {_BLOB2, _TABLES2}:
        cursor = Cursor(event.data, "event")
        return {"string": _text(cursor.take(cursor.u8()))}
    if event.type == _TAG:
        return _tagged(event.data)
    if event.type in {0x01, 0x05, 0x0A, _IPL, 0x80000007}:
        return {"string": _text(event.data)}
    if event.type == 0x00000008:
        return {"string": _text16(event.data)}
    return {}


def _variable(data: bytes) -> dict[str, object]:
    """UEFI_VARIABLE_DATA: GUID, u64 characters of the name, u64 bytes of the value, name, value."""
    cursor = Cursor(data, "UEFI variable")
    guid = cursor.take(16)
    characters, size = cursor.u64_le(), cursor.u64_le()
    name, value = cursor.take(2 * characters), cursor.take(size)
    return {
        "unicode_name": _text16(name),
        "unicode_name_length": characters,
        "variable_name": device_path.guid(guid),
        "variable_data": value.hex(),
        "variable_data_length": size,
    }


def _variable_value(data: bytes) -> bytes | None:
    try:
        cursor = Cursor(data, "UEFI variable")
        cursor.take(16)
        characters, size = cursor.u64_le(), cursor.u64_le()
        cursor.take(2 * characters)
        value = cursor.take(size)
        cursor.expect_end()
    except MalformedError:
        return None
    return value


def _image(data: bytes) -> dict[str, object]:
    """UEFI_IMAGE_LOAD_EVENT: where an image lay, and the device path that it came from."""
    cursor = Cursor(data, "UEFI image")
    location, length, linked, size = (cursor.u64_le() for _ in range(4))
    return {
        "location": f"{location:#x}",
        "length": length,
        "link_time_address": f"{linked:#x}",
        "device_paths": device_path.nodes(cursor.take(size)),
    }


def _tagged(data: bytes) -> dict[str, object]:
    """TCG_PCClientTaggedEvent: u32 tag, u32 size, data. AAEL, CoCo's, is "domain operation content"."""
    cursor = Cursor(data, "tagged event")
    tag, content = cursor.u32_le(), cursor.take(cursor.u32_le())
    text = _text(content)
    if tag != _AAEL:
        return {"tag": f"{tag:#010x}", "string": text}
    domain, _, rest = text.partition(" ")
    operation, _, body = rest.partition(" ")
    return {
        "unicode_name": "AAEL",
        "string": text,
        "data": {"domain": domain, "operation": operation, "content": body},
    }


def _text(data: bytes) -> str:
    """Text up to the first NUL, with what a terminal would act on replaced."""
    return _printable(data[:_MAX_TEXT].split(b"\x00", 1)[0].decode("utf-8", "replace"))


def _text16(data: bytes) -> str:
    return _printable(data[: 2 * _MAX_TEXT].decode("utf-16-le", "replace").rstrip("\x00"))


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
