# SPDX-License-Identifier: Apache-2.0
"""Reports through configfs-tsm, which SEV-SNP and TDX guests share (Linux 6.7 and later).

The sequence: make an entry, note its generation, write inblob and close it, write the options, read the blobs, read the
generation again, remove the entry. A binary attribute takes effect when it is closed, and the kernel drops the result of
that: a lost or doubled write shows in the generation alone, which must have risen by the number of writes. What the report
says it is about is compared by the caller, who knows its layout.
Source: Linux, Documentation/ABI/testing/configfs-tsm-report, drivers/virt/coco/guest/report.c, fs/configfs/file.c.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from confide.errors import ConfigurationError, EnclaveError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["REPORTS", "REPORT_DATA_BYTES", "ConfigfsReports", "TsmFiles", "TsmReport", "failed"]

REPORTS: Final = Path("/sys/kernel/config/tsm/report")
REPORT_DATA_BYTES: Final = 64
_MAX_BLOB: Final = 256 * 1024
_CHUNK: Final = 16 * 1024
_MAX_PRIVILEGE: Final = 3


class TsmFiles(Protocol):
    """The few file operations on one entry of configfs-tsm, replaceable because no plain folder behaves like it."""

    def make(self) -> None:
        """Make the entry; its files appear by themselves."""

    def write(self, name: str, data: bytes) -> None:
        """Open, write once and close: a binary attribute takes effect at close, whose failure is not reported."""

    def read(self, name: str) -> bytes:
        """All bytes of a file."""

    def remove(self) -> None:
        """Remove the entry."""


@dataclass(frozen=True, slots=True)
class TsmReport:
    """What one question gave: the report (``outblob``) and what the host put beside it (``auxblob``, empty if nothing)."""

    report: bytes
    auxiliary: bytes


@dataclass(frozen=True, slots=True)
class _Entry:
    """A real entry below configfs."""

    path: Path

    def make(self) -> None:
        self.path.mkdir()

    def write(self, name: str, data: bytes) -> None:
        descriptor = os.open(self.path / name, os.O_WRONLY | os.O_CLOEXEC)
        try:
            written = os.write(descriptor, data)
        finally:
            os.close(descriptor)
        if written != len(data):
            raise OSError(errno.EIO, "the kernel took a part of an attribute")

    def read(self, name: str) -> bytes:
        descriptor = os.open(self.path / name, os.O_RDONLY | os.O_CLOEXEC)
        found = bytearray()
        try:
            # Attributes do not seek and tell no size: read on until there is nothing left.
            while chunk := os.read(descriptor, _CHUNK):
                found += chunk
                if len(found) > _MAX_BLOB:
                    raise OSError(errno.EFBIG, "the kernel returned more than a report can be")
        finally:
            os.close(descriptor)
        return bytes(found)

    def remove(self) -> None:
        # Not a recursive removal: the files of an entry cannot be unlinked.
        self.path.rmdir()


@dataclass(frozen=True, slots=True)
class ConfigfsReports:
    """Reports of one provider: ``"sev_guest"`` or ``"tdx_guest"``. Each call of ``entry`` names a new, unused entry."""

    provider: str
    entry: Callable[[], TsmFiles]

    @classmethod
    def at(
        cls, provider: str, root: Path = REPORTS, *, random: Callable[[int], bytes] = os.urandom
    ) -> ConfigfsReports | None:
        """The reports below ``root``, or None if the provider there is absent or another one."""
        reports = cls(provider, lambda: _Entry(root / f"confide-{random(8).hex()}"))
        return reports if root.is_dir() and reports.available() else None

    def available(self) -> bool:
        """Whether an entry can be made and names this provider."""
        entry = self.entry()
        try:
            entry.make()
        except OSError:
            return False
        try:
            return entry.read("provider") == f"{self.provider}\n".encode()
        except OSError:
            return False
        finally:
            with suppress(OSError):
                entry.remove()

    def report(self, report_data: bytes, *, privilege: int | None = None) -> TsmReport:
        """A report over 64 bytes, asked for at the SNP privilege level ``privilege`` (None: the lowest that this guest may ask for).

        Raises ``enclave.bad_state``, retryable where the device was busy or another process asked at the same time.
        """
        if len(report_data) != REPORT_DATA_BYTES:
            raise ConfigurationError("report_data", "report data is exactly 64 bytes")
        if privilege is not None and not 0 <= privilege <= _MAX_PRIVILEGE:
            raise ConfigurationError("privilege", "a privilege level is 0 to 3")
        try:
            return self._ask(report_data, privilege)
        except OSError as error:
            raise failed(error) from error

    def _ask(self, report_data: bytes, privilege: int | None) -> TsmReport:
        entry = self.entry()
        entry.make()
        try:
            if privilege is None:
                privilege = _floor(entry)
            before = _generation(entry)
            entry.write("inblob", report_data)
            if privilege is not None:
                # Decimal digits, not the number's byte: the kernel reads this attribute as text.
                entry.write("privlevel", str(privilege).encode())
            auxiliary = _optional(entry, "auxblob")
            report = entry.read("outblob")
            after = _generation(entry)
        finally:
            with suppress(OSError):
                entry.remove()
        if after != before + (1 if privilege is None else 2):
            raise EnclaveError(
                "bad_state",
                "the write of the report data was lost, or another process asked for a report at the same time",
                stage="attest",
                retryable=True,
            )
        if not report:
            # Kernels of before March 2026 report a failure of the TDX hypervisor as success with nothing in it.
            raise EnclaveError(
                "bad_state", "the device returned an empty report", stage="attest", retryable=True
            )
        return TsmReport(report, auxiliary)


def _floor(entry: TsmFiles) -> int | None:
    """The lowest privilege level that may be asked for, where it is not the 0 that the kernel starts with.

    Behind an SVSM the guest runs at a level of its own, and a report for level 0 would be refused.
    """
    text = _optional(entry, "privlevel_floor").strip()
    return int(text) if text in {b"1", b"2", b"3"} else None


def _generation(entry: TsmFiles) -> int:
    text = entry.read("generation").strip()
    if not text.isdigit() or len(text) > 20:
        raise EnclaveError("bad_state", "configfs-tsm shows no generation number", stage="attest")
    return int(text)


def _optional(entry: TsmFiles, name: str) -> bytes:
    try:
        return entry.read(name)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.EINVAL}:
            return b""
        raise


def failed(error: OSError) -> EnclaveError:
    """The error of a TEE's device for a failed system call."""
    hint = {
        errno.ENOTTY: "the guest's message key is wiped until the next boot of this machine",
        errno.EBUSY: "another request is under way; try again",
        errno.ETIMEDOUT: "the host did not answer in time; try again",
        errno.ENXIO: "the kernel has no provider of reports, or the firmware refused the request",
        errno.ENOENT: "the kernel has no configfs-tsm: load the module `tsm`, or use Linux 6.7 or later",
        errno.EINVAL: "the kernel refused the report data, or an option that this guest does not have",
        errno.EACCES: "give this user access to the device",
        errno.EPERM: "give this user access to the device",
    }.get(error.errno or 0, "see the kernel's log")
    return EnclaveError(
        "bad_state",
        "the TEE's device failed",
        hint=hint,
        stage="attest",
        retryable=error.errno in {errno.EBUSY, errno.ETIMEDOUT},
    )
