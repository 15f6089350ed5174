# SPDX-License-Identifier: Apache-2.0
"""Run-time measurement registers through sysfs (Linux 6.16 and later).

Each register is a file of 48 bytes. A write of exactly 48 bytes at offset 0 extends it: new = SHA-384(old || written).
Source: Linux, Documentation/ABI/testing/sysfs-devices-virtual-misc-tdx_guest, drivers/virt/coco/guest/tsm-mr.c.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from confide.errors import ConfigurationError, EnclaveError
from confide.tees._tsm.reports import failed

__all__ = ["REGISTER_BYTES", "MeasurementRegisters"]

REGISTERS: Final = Path("/sys/devices/virtual/misc/tdx_guest/measurements")
REGISTER_BYTES: Final = 48
# Registers of the firmware's and the loader's own story; an application has no business in them.
_EXTENSIBLE: Final = ("rtmr2", "rtmr3")
_FILES: Final = {
    "mrtd": "mrtd:sha384",
    "mrconfigid": "mrconfigid",
    "mrowner": "mrowner",
    "mrownerconfig": "mrownerconfig",
    **{f"rtmr{number}": f"rtmr{number}:sha384" for number in range(4)},
}


@dataclass(frozen=True, slots=True)
class MeasurementRegisters:
    """The registers below ``root``, by TDX's names: ``mrtd``, ``rtmr0`` ..., ``mrconfigid``, ``mrowner``, ``mrownerconfig``."""

    root: Path

    @classmethod
    def at(cls, root: Path = REGISTERS) -> MeasurementRegisters | None:
        """The registers below ``root``, or None if the kernel shows none."""
        return cls(root) if root.is_dir() else None

    def read(self, name: str) -> bytes:
        """The 48 bytes of a register as this kernel tells them: nothing that another party could check."""
        try:
            value = self._path(name).read_bytes()
        except OSError as error:
            raise failed(error) from error
        if len(value) != REGISTER_BYTES:
            raise EnclaveError("bad_state", "a measurement register is not 48 bytes long", stage="attest")
        return value

    def extend(self, name: str, digest: bytes) -> None:
        """Extend ``rtmr2`` or ``rtmr3`` by a SHA-384 digest, once and for ever; keep the digest for the event log."""
        if name not in _EXTENSIBLE:
            raise ConfigurationError("register", "only rtmr2 and rtmr3 are for software to extend")
        if len(digest) != REGISTER_BYTES:
            raise ConfigurationError("register", "a register is extended by exactly 48 bytes")
        try:
            descriptor = os.open(self._path(name), os.O_WRONLY | os.O_CLOEXEC)
            try:
                written = os.write(descriptor, digest)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise failed(error) from error
        if written != REGISTER_BYTES:
            raise EnclaveError("bad_state", "the kernel took a part of the digest", stage="attest")

    def _path(self, name: str) -> Path:
        try:
            return self.root / _FILES[name]
        except KeyError:
            raise ConfigurationError("register", "there is no register of this name") from None
