# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib.metadata

import pytest
from packaging.requirements import Requirement as Oracle

from confide.enclave.manifest import Target
from confide.enclave.markers import normalise, parse_requirement
from confide.errors import ConfigurationError

TARGETS = [
    Target("cpython", python, platform)
    for python in ("3.11", "3.13")
    for platform in ("linux-x86_64", "darwin-aarch64")
]
INSTALLED = sorted(
    {
        line
        for found in importlib.metadata.distributions()
        for line in found.requires or ()
        if "platform_version" not in line
    }
)


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_every_requirement_installed_here_is_decided_as_packaging_decides_it(target: Target) -> None:
    assert len(INSTALLED) > 50
    environment = {**target.markers(), "python_full_version": f"{target.python}.0"}
    for line in INSTALLED:
        oracle = Oracle(line)
        ours = parse_requirement(line)
        assert ours.name == normalise(oracle.name)
        assert ours.extras == {normalise(extra) for extra in oracle.extras}
        for extra in ("", "test", "http"):
            expected = oracle.marker is None or oracle.marker.evaluate({**environment, "extra": extra})
            assert ours.holds(target.markers(), frozenset({extra})) == expected, line


@pytest.mark.parametrize(
    ("marker", "holds"),
    [
        ('python_version < "3.13"', True),
        ('python_version < "3.9"', False),
        ('"3.10" <= python_version', True),
        ('python_version == "3.11" and sys_platform == "linux"', True),
        ('python_version == "3.1"', False),
        ('sys_platform == "win32" or (platform_machine == "x86_64" and os_name != "nt")', True),
        ('sys_platform == "win32" or platform_machine == "x86_64" and os_name == "nt"', False),
        ('platform_machine in "x86_64 aarch64"', True),
        ('platform_machine not in "x86_64 aarch64"', False),
        ('python_full_version < "3.11"', False),
        ('python_full_version >= "3.10.2"', True),
        ('python_version ~= "3.8"', True),
        ('extra == "Some_Extra"', True),
        ("extra == 'other'", False),
        ("implementation_name == 'cpython'", True),
    ],
)
def test_a_marker_is_decided(marker: str, holds: bool) -> None:
    requirement = parse_requirement(f"thing>=1 ; {marker}")
    environment = Target("cpython", "3.11", "linux-x86_64").markers()
    assert requirement.holds(environment, frozenset({"some-extra"})) is holds


@pytest.mark.parametrize(
    "marker",
    [
        'python_full_version < "3.11.3"',
        'platform_release == "6.1"',
        'python_version < "3.11" extra',
        '(python_version < "3.11"',
        'python_version "3.11"',
        "python_version <",
        'sys_platform < "linux"',
        'python_version < "3.x"',
        'os.system("x")',
        "(" * 4000,
        '"a" == "a',
        'python_version < "3.11" and',
    ],
)
def test_a_marker_that_cannot_be_decided_is_refused_and_not_guessed(marker: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_requirement(f"thing ; {marker}").holds(
            Target("cpython", "3.11", "linux-x86_64").markers(), frozenset()
        )


def test_a_direct_reference_is_read_as_its_name() -> None:
    requirement = parse_requirement('Some.Thing[a, B_c] @ https://example.org/x;y ; python_version > "3"')
    assert (requirement.name, requirement.extras) == ("some-thing", frozenset({"a", "b-c"}))
    assert requirement.marker == 'python_version > "3"'


@pytest.mark.parametrize("line", ["", "==1", "\0", "x" * 5000])
def test_a_requirement_without_a_name_is_refused(line: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_requirement(line)
