# SPDX-License-Identifier: Apache-2.0
"""A level is what its primitives add up to, and a shortfall is never silent."""

from __future__ import annotations

from typing import Any

import pytest

from confide.enclave.confinement.levels import PRIMITIVES, Confinement, Level, Primitive
from confide.errors import ConfigurationError, MalformedError, TeeUnavailable


def confinement(*missing: str) -> Confinement:
    return Confinement(tuple(Primitive(name, name not in missing) for name in PRIMITIVES))


@pytest.mark.parametrize(
    ("missing", "level"),
    [
        ((), Level.L3),
        (
            ("namespace.cgroup", "namespace.uts", "landlock.scope", "landlock.tcp", "write_xor_execute"),
            Level.L3,
        ),
        (("namespace.network",), Level.L2),
        (("namespace.user",), Level.L2),
        (("capabilities",), Level.L2),
        (("landlock.files",), Level.L1),
        (("seccomp",), Level.L0),
        (("not_dumpable",), Level.L0),
        (("limits",), Level.L0),
        (tuple(PRIMITIVES), Level.L0),
    ],
)
def test_a_level_needs_each_of_its_primitives(missing: tuple[str, ...], level: Level) -> None:
    assert confinement(*missing).level is level


def test_nothing_reported_is_level_0() -> None:
    assert Confinement(()).level is Level.L0


def test_a_shortfall_raises_and_names_what_is_missing() -> None:
    reached = confinement("namespace.network")
    reached.require(Level.L2)
    with pytest.raises(TeeUnavailable) as caught:
        reached.require(Level.L3)
    assert caught.value.code == "enclave.level"
    assert "namespace.network" in caught.value.hint


@pytest.mark.parametrize("value", ["L4", "l3", "", "3", 3, None])
def test_an_unknown_level_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError):
        Level.parse(value)


def test_a_report_survives_the_way_to_another_process() -> None:
    first = confinement("landlock.tcp")
    assert Confinement.from_value(first.to_value()) == first


@pytest.mark.parametrize(
    "value",
    [
        {"seccomp": True},
        {"seccomp": [True]},
        {"seccomp": [1, ""]},
        {"seccomp": [True, 5]},
        {"seccomp": [True, "x" * 129]},
        {"unheard-of": [True, ""]},
        {7: [True, ""]},
    ],
)
def test_a_report_of_any_other_form_is_malformed(value: Any) -> None:
    with pytest.raises(MalformedError):
        Confinement.from_value(value)


def test_describe_lists_every_primitive() -> None:
    text = confinement("landlock.tcp").describe()
    assert text.startswith("L3")
    assert "no  landlock.tcp" in text
    assert text.count("\n") == len(PRIMITIVES)
