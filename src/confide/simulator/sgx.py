# SPDX-License-Identifier: Apache-2.0
"""Simulated SGX platforms: quotes of version 3 over enclaves that do not exist."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from confide.simulator import dcap

__all__ = ["Platform"]


@dataclass(frozen=True, slots=True, repr=False)
class Platform(dcap.Platform):
    """A platform whose quotes are of version 3 unless told otherwise."""

    TEE: ClassVar[str] = "sgx"
    VERSION: ClassVar[int] = 3

    def report(self, report_data: bytes, version: int, **overrides: Any) -> tuple[int, bytes]:  # noqa: ARG002
        """An enclave's report; it has one layout in quotes of every version."""
        fields = {
            "cpusvn": bytes(dcap.COMPONENTS),
            "flags": 0x05,  # INIT and MODE64BIT.
            "xfrm": 0xE7,
            "mrenclave": bytes(range(32)),
            "mrsigner": bytes(range(32, 64)),
            "isvprodid": 7,
            "isvsvn": 3,
            "report_data": report_data,
        }
        return 1, dcap.encoded_enclave(fields | overrides)
