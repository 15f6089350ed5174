# SPDX-License-Identifier: Apache-2.0
"""The words for how well a worker is confined: primitives, and the level that they add up to.

    L3  namespaces, Landlock and seccomp
    L2  Landlock and seccomp
    L1  seccomp, resource limits, not dumpable
    L0  a plain subprocess

The host and the worker both speak these words; this module does nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final, Self

from confide.errors import ConfigurationError, MalformedError, TeeUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PRIMITIVES", "REQUIRED_NAMESPACES", "Confinement", "Level", "Primitive"]

REQUIRED_NAMESPACES: Final = ("user", "network", "mount", "pid", "ipc")
"""Without one of these a worker can see or reach other processes, so it does not count as L3."""

PRIMITIVES: Final = (
    *(f"namespace.{name}" for name in ("user", "network", "mount", "pid", "ipc", "uts", "cgroup")),
    "capabilities",
    "limits",
    "not_dumpable",
    "no_new_privileges",
    "write_xor_execute",
    "landlock.files",
    "landlock.tcp",
    "landlock.scope",
    "seccomp",
)
_MAX_DETAIL: Final = 128


class Level(IntEnum):
    """How much of the confinement holds; a higher level includes every lower one."""

    L0 = 0
    L1 = 1
    L2 = 2
    L3 = 3

    @classmethod
    def parse(cls, value: Level | str) -> Level:
        """Read ``"L2"``; `ConfigurationError` for anything else."""
        if isinstance(value, Level):
            return value
        if isinstance(value, str) and value in cls.__members__:
            return cls[value]
        raise ConfigurationError(
            "invalid", "a confinement level is L0, L1, L2 or L3", hint='Write require_level="L3".'
        )

    @property
    def meaning(self) -> str:
        """One line for a person."""
        return _MEANING[self]


_MEANING: Final = {
    Level.L0: "a plain subprocess, not confined",
    Level.L1: "seccomp, resource limits, not dumpable",
    Level.L2: "Landlock and seccomp",
    Level.L3: "namespaces, Landlock and seccomp",
}


@dataclass(frozen=True, slots=True)
class Primitive:
    """One thing that the kernel was asked for: whether it holds, and what exactly (or why not)."""

    name: str
    applied: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Confinement:
    """What the worker applied to itself. The level is derived from the primitives and never stated apart."""

    primitives: tuple[Primitive, ...]

    def holds(self, name: str) -> bool:
        """Whether the primitive was applied; one that is not listed was not."""
        return any(primitive.applied for primitive in self.primitives if primitive.name == name)

    @property
    def level(self) -> Level:
        """The highest level whose every primitive holds."""
        first = all(self.holds(name) for name in ("seccomp", "limits", "not_dumpable", "no_new_privileges"))
        if not first:
            return Level.L0
        if not self.holds("landlock.files"):
            return Level.L1
        if not all(self.holds(f"namespace.{name}") for name in REQUIRED_NAMESPACES):
            return Level.L2
        return Level.L3 if self.holds("capabilities") else Level.L2

    def require(self, level: Level) -> None:
        """Refuse a shortfall: `TeeUnavailable` ``enclave.level`` names what is missing."""
        if self.level >= level:
            return
        missing = ", ".join(item.name for item in self.primitives if not item.applied)
        raise TeeUnavailable(
            "level",
            f"confinement level {level.name} was required and {self.level.name} was reached",
            hint=f"Not available here: {missing or 'every primitive'}. Run `confide doctor` to see why.",
            stage="confinement",
        )

    def describe(self) -> str:
        """Several lines for a person: the level, then each primitive."""
        lines = [f"{self.level.name}: {self.level.meaning}"]
        for item in self.primitives:
            mark = "yes" if item.applied else "no "
            lines.append(f"  {mark} {item.name}" + (f" ({item.detail})" if item.detail else ""))
        return "\n".join(lines)

    def to_value(self) -> dict[object, object]:
        """As a CBOR-able value: name to [applied, detail]."""
        return {item.name: [item.applied, item.detail] for item in self.primitives}

    @classmethod
    def from_value(cls, value: Mapping[object, object]) -> Self:
        """Read what another process says; `MalformedError` for any name or type that is not expected."""
        primitives: list[Primitive] = []
        for name, pair in value.items():
            if name not in PRIMITIVES or not isinstance(name, str):
                raise MalformedError("unknown_format", "a confinement report names an unknown primitive")
            if not isinstance(pair, list) or len(pair) != 2:
                raise MalformedError("unknown_format", "a primitive is reported as [applied, detail]")
            applied, detail = pair
            if not isinstance(applied, bool) or not isinstance(detail, str) or len(detail) > _MAX_DETAIL:
                raise MalformedError("unknown_format", "a primitive is reported as [applied, detail]")
            primitives.append(Primitive(name, applied, detail))
        order = {name: index for index, name in enumerate(PRIMITIVES)}
        return cls(tuple(sorted(primitives, key=lambda item: order[item.name])))
