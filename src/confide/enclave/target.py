# SPDX-License-Identifier: Apache-2.0
"""What a manifest is for: an interpreter on a platform, named so that another machine can measure for it."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from typing import Self

from confide.errors import ConfigurationError

__all__ = ["Target"]

_PYTHON = re.compile(r"3\.[0-9]{1,2}\Z")
_PLATFORM = re.compile(r"[a-z0-9]+-[a-z0-9_]+\Z")
_SYSTEMS = {"linux": "Linux", "darwin": "Darwin"}
_WHEEL_SYSTEMS = {"linux": ("linux", "manylinux", "musllinux"), "darwin": ("macosx",)}


@dataclass(frozen=True, slots=True)
class Target:
    """What a manifest is for: the Python implementation, its major.minor version, and ``system-machine``."""

    implementation: str
    python: str
    platform: str

    def __post_init__(self) -> None:
        if (
            self.implementation != "cpython"
            or not _PYTHON.match(self.python)
            or not _PLATFORM.match(self.platform)
        ):
            raise ConfigurationError(
                "target",
                "a target is cpython, a version like 3.11 and a platform like linux-x86_64",
                stage="manifest",
            )

    @classmethod
    def current(cls) -> Self:
        """The running interpreter on its machine."""
        machine = os.uname().machine.lower()
        return cls(
            sys.implementation.name,
            f"{sys.version_info.major}.{sys.version_info.minor}",
            f"{sys.platform}-{'x86_64' if machine == 'amd64' else machine}",
        )

    @property
    def machine(self) -> str:
        """The processor, as wheels name it."""
        return self.platform.partition("-")[2]

    def markers(self) -> dict[str, str]:
        """The variables of PEP 508 that this target decides; what it leaves open is not among them."""
        system = self.platform.partition("-")[0]
        return {
            "implementation_name": self.implementation,
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_system": _SYSTEMS.get(system, ""),
            "python_full_version": self.python,
            "python_version": self.python,
            "sys_platform": system,
        }

    def fits(self, python: str, abi: str, platforms: str) -> bool:
        """Whether a wheel with these three tags of its name (PEP 425) can be installed on this target."""
        minor = int(self.python.partition(".")[2])
        stable = any(
            tag.startswith("cp3") and tag[3:].isdigit() and int(tag[3:]) <= minor for tag in python.split(".")
        )
        if not (
            "py3" in python.split(".") or f"cp3{minor}" in python.split(".") or (stable and abi == "abi3")
        ):
            return False
        system, _, machine = self.platform.partition("-")
        return any(
            tag == "any"
            or (
                tag.startswith(_WHEEL_SYSTEMS.get(system, ("?",)))
                and tag.endswith((f"_{machine}", "_universal2"))
            )
            for tag in platforms.split(".")
        )
