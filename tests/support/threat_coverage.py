# SPDX-License-Identifier: Apache-2.0
"""Which attack is performed by which test: reads the ids out of the tests' names and writes docs/security/coverage.md.

`python tests/support/threat_coverage.py` rewrites the generated part of the page; a test fails while it is not current.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "security" / "coverage.md"
BEGIN, END = "<!-- generated: begin -->", "<!-- generated: end -->"
_TEST = re.compile(r"^test_([a-z]{2,5})_(\d{2})(?:_|$)")
_LEFT_OUT = re.compile(r"^- ([A-Z]{2,5}-\d{2}): (.+)$", re.MULTILINE)

# The groups that have to be complete, with the highest number of each.
REQUIRED = {
    *(f"EV-{n:02}" for n in range(1, 36)),
    *(f"SNP-{n:02}" for n in range(1, 26)),
    *(f"DCAP-{n:02}" for n in range(1, 25)),
    *(f"NIT-{n:02}" for n in range(1, 15)),
    *(f"TPM-{n:02}" for n in range(1, 11)),
    *(f"GPU-{n:02}" for n in range(1, 8)),
    *(f"EAR-{n:02}" for n in range(1, 9)),
    *(f"SIM-{n:02}" for n in range(1, 7)),
    *(f"BND-{n:02}" for n in range(1, 23)),
    *(f"CH-{n:02}" for n in range(1, 22)),
    *(f"RT-{n:02}" for n in (1, 2, 3, 4, 5, 6, 11, 12)),
    *(f"LEAK-{n:02}" for n in (1, 2, 3)),
}


def performed() -> dict[str, list[str]]:
    """Attack id -> the tests named after it, as `file::test`."""
    found: dict[str, list[str]] = {}
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (match := _TEST.match(node.name)):
                name = f"{match[1].upper()}-{match[2]}"
                found.setdefault(name, []).append(f"{file.relative_to(ROOT / 'tests')}::{node.name}")
    return found


def left_out() -> dict[str, str]:
    """Attack id -> why no test performs it, from the page."""
    return dict(_LEFT_OUT.findall(PAGE.read_text()))


def table() -> str:
    """The generated part of the page."""
    rows = ["| attack | tests |", "| --- | --- |"]
    for name, tests in sorted(performed().items(), key=lambda item: (item[0].split("-")[0], item[0])):
        shown = "<br>".join(f"`{test}`" for test in tests[:4]) + (
            f"<br>and {len(tests) - 4} more" if len(tests) > 4 else ""
        )
        rows.append(f"| {name} | {shown} |")
    return "\n".join(rows)


def page() -> str:
    """The whole page, with its generated part made anew."""
    before, rest = PAGE.read_text().split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page())
    missing = sorted(REQUIRED - performed().keys() - left_out().keys())
    print("neither tested nor explained:", ", ".join(missing) or "none")  # noqa: T201
