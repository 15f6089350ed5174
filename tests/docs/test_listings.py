# SPDX-License-Identifier: Apache-2.0
"""Every listing in the README and the docs is executed, page by page, in a fresh folder and a fresh home.

A page's listings run in order as one shell script that stops at the first failure:

- ``console`` blocks: each line that begins with ``$ `` (and its continuation lines, which end in a backslash) is run;
  the other lines show what it prints and are checked where they begin with ``=> `` nowhere else;
- ``python``, ``toml``, ``json`` blocks whose first line is a comment naming a file (``# app.py``) are written to that file;
- ``python`` blocks without a name are run as they stand.

A line of output shown in a console block is compared with what was printed when it contains no ``...``.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAME = re.compile(r"^# ([\w./-]+\.\w+)\n")
_RUNNABLE = {"console", "python", "toml", "json"}


@dataclass
class Page:
    """One document's listings as a shell script, and the output lines that it promises."""

    script: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)


def pages() -> list[Path]:
    """The documents whose listings are executed."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [page for page in found if any(kind in _RUNNABLE for kind, _ in _FENCE.findall(page.read_text()))]


def _write(name: str, content: str) -> str:
    return f"mkdir -p {shlex.quote(str(Path(name).parent))}; cat > {shlex.quote(name)} <<'END_OF_LISTING'\n{content}END_OF_LISTING"


def read(document: str) -> Page:
    """Turn a document into a script."""
    page = Page()
    for number, (kind, body) in enumerate(_FENCE.findall(document)):
        if kind == "console":
            continuing = False
            for line in body.splitlines():
                if line.startswith("$ ") or continuing:
                    command = line if continuing else line[2:]
                    page.script.append(command)
                    continuing = command.endswith("\\")
                elif line.strip() and "..." not in line:
                    page.expected.append(line.strip())
        elif named := _NAME.match(body) if kind in _RUNNABLE else None:
            page.script.append(_write(named[1], body))
        elif kind == "python":
            page.script.extend((_write(f"listing_{number}.py", body), f"python listing_{number}.py"))
    return page


@pytest.mark.timeout(300)
@pytest.mark.parametrize("document", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_listing_of_a_page_runs_and_prints_what_it_shows(document: Path, tmp_path: Path) -> None:
    page = read(document.read_text())
    work = tmp_path / "work"
    work.mkdir()
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path / "home"),
        "XDG_RUNTIME_DIR": str(tmp_path),
        "LANG": "C.UTF-8",
        "NO_COLOR": "1",
        "EXAMPLES": str(ROOT / "examples"),
    }
    (tmp_path / "home").mkdir()
    script = "\n".join(["set -eu", "set -m", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT", *page.script])

    done = subprocess.run(
        ["bash", "-c", script],
        cwd=work,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )

    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    printed = {line.strip() for line in (done.stdout + done.stderr).splitlines()}
    assert [line for line in page.expected if line not in printed] == []


def test_a_listing_that_fails_is_noticed() -> None:
    page = read("```console\n$ false\n```\n")

    assert page.script == ["false"]
    assert subprocess.run(["bash", "-c", "\n".join(["set -eu", *page.script])], check=False).returncode == 1


def test_every_relative_link_of_a_page_leads_somewhere() -> None:
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    links = [
        (document, target)
        for document in documents
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text())
    ]

    dead = [
        f"{document.relative_to(ROOT)}: {target}"
        for document, target in links
        if "://" not in target and not (document.parent / target).exists()
    ]

    assert dead == []
