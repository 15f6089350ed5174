# SPDX-License-Identifier: Apache-2.0
"""Every code that evidence can be refused with is reached by a test that names it."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from confide import errors

if TYPE_CHECKING:
    from pathlib import Path

# The functions with which findings against a policy are made, and the place of the leaf among their arguments.
FINDINGS = {"unacceptable": 0, "refuse": 0, "need": 1, "note": 0}


def raised(folder: Path) -> set[str]:
    """The codes that stand literally in the modules below ``folder``."""
    codes: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            kind = getattr(errors, name, None)
            if isinstance(kind, type) and issubclass(kind, errors.ConfideError):
                family, place = kind.family, 0
            elif name in FINDINGS:
                family, place = "note" if name == "note" else "not_acceptable", FINDINGS[name]
            else:
                continue
            leaf = node.args[place]
            if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str):
                codes.add(f"{family}.{leaf.value}")
    return codes


def test_every_code_of_attestation_is_reached_by_a_test(repository: Path) -> None:
    codes = raised(repository / "src" / "confide" / "attestation") | raised(
        repository / "src" / "confide" / "tees"
    )
    tests = "".join(
        path.read_text()
        for part in ("attestation", "tees")
        for path in (repository / "tests" / part).rglob("test_*.py")
    )

    assert len(codes) > 40
    assert sorted(code for code in codes if f'"{code}"' not in tests) == []
