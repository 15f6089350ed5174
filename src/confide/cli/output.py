# SPDX-License-Identifier: Apache-2.0
"""How the command line speaks: data on stdout, talk on stderr, nothing decorated where nobody looks."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from confide.errors import (
    ConfideError,
    ConfigurationError,
    EndorsementsMissing,
    MalformedError,
    NotAcceptable,
    NotGenuine,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

ACCEPTED = 0
ERROR = 1
USAGE = 2
NOT_GENUINE = 3
NOT_ACCEPTABLE = 4
UNDECIDED = 5

_COLOURS = {"good": 32, "bad": 31, "warn": 33, "bold": 1, "dim": 2}


def exit_code(error: ConfideError) -> int:
    """The exit code that stands for an error (design: 3 not genuine, 4 not acceptable, 5 could not decide)."""
    match error:
        case NotGenuine() | MalformedError():
            return NOT_GENUINE
        case NotAcceptable():
            return NOT_ACCEPTABLE
        case EndorsementsMissing():
            return UNDECIDED
        case ConfigurationError():
            return USAGE
        case _:
            return ERROR


def verdict(error: ConfideError) -> str:
    """The verdict word of ``verify --json`` for a refusal."""
    return {NOT_GENUINE: "not_genuine", NOT_ACCEPTABLE: "not_acceptable", UNDECIDED: "undecided"}.get(
        exit_code(error), "error"
    )


def paint(text: str, style: str, *, stream_is_terminal: bool | None = None) -> str:
    """Colour ``text`` for stderr, unless ``NO_COLOR`` is set or stderr is not a terminal."""
    terminal = sys.stderr.isatty() if stream_is_terminal is None else stream_is_terminal
    if not terminal or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{_COLOURS[style]}m{text}\x1b[0m"


def talk(text: str = "") -> None:
    """Say something to the person at the terminal."""
    click.echo(text, err=True)


def data(text: str) -> None:
    """Write a line of the command's result."""
    click.echo(text)


def data_json(value: Mapping[str, object] | Sequence[object]) -> None:
    """Write the command's result for a machine."""
    # In ASCII, DEL too: what a terminal obeys, or shows in another order, is escaped, and no encoding of stdout is too small.
    click.echo(json.dumps(value, indent=2, sort_keys=False).replace("\x7f", "\\u007f"))


def data_bytes(content: bytes) -> None:
    """Write a binary result; a terminal is not a place for it."""
    if sys.stdout.isatty():
        raise ConfigurationError(
            "terminal",
            "binary output would go to the terminal",
            hint="redirect stdout to a file: `... > FILE`",
        )
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def report(error: ConfideError) -> None:
    """Print an error: what is wrong, its code, every further finding, and what to do."""
    talk(f"{paint('error:', 'bad')} {error.message} [{error.code}]")
    hints = [error.hint]
    for reason in getattr(error, "reasons", ())[1:]:
        talk(f"   and: {reason.message} [{reason.code}]")
        hints.append(reason.hint)
    for hint in dict.fromkeys(filter(None, hints)):
        talk(f"{paint('hint:', 'bold')} {hint}")


@contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr for work of ``total`` bytes; silent where stderr is not a terminal.

    The yielded function takes the number of bytes done so far.
    """
    if not sys.stderr.isatty() or total <= 0:
        yield lambda _done: None
        return
    width = 30
    last = 0.0

    def show(done: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done < total and now - last < 0.1:
            return
        last = now
        filled = width * min(done, total) // total
        sys.stderr.write(
            f"\r{label} [{'#' * filled}{'.' * (width - filled)}] {100 * min(done, total) // total:3d}%"
        )
        sys.stderr.flush()

    try:
        yield show
    finally:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


def size(count: int) -> str:
    """A byte count for a person."""
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def printable(text: str) -> str:
    """``text`` on one line: what would move the cursor, colour, or reverse the terminal's text is spelled out instead."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def table(rows: Sequence[Sequence[str]], headings: Sequence[str]) -> str:
    """Rows as left-aligned columns under their headings."""
    everything = [tuple(headings), *(tuple(printable(cell) for cell in row) for row in rows)]
    widths = [max(len(row[column]) for row in everything) for column in range(len(headings))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in everything
    )


def tree(value: Mapping[str, object], *, depth: int = 0) -> str:
    """Nested fields as an indented outline, one field a line."""
    width = max((len(printable(name)) for name, item in value.items() if not _nested(item)), default=0)
    lines: list[str] = []
    for name, item in value.items():
        label = "  " * depth + printable(name)
        if isinstance(item, dict):
            lines += [label, tree(item, depth=depth + 1)]
        elif _nested(item) and isinstance(item, list | tuple):
            for number, inner in enumerate(item):
                lines += [f"{label} {number}", tree(inner, depth=depth + 1)]
        else:
            lines.append(f"{label.ljust(2 * depth + width)}  {printable(shown(item))}".rstrip())
    return "\n".join(lines)


def _nested(value: object) -> bool:
    """Whether a value gets an outline of its own: a non-empty mapping, or a list of mappings."""
    if isinstance(value, dict):
        return True
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(one, dict) for one in value)


def shown(value: object) -> str:
    """A value for a person on one line: what is set, component by component, and a dash for what is not there."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case dict():
            flags = [name for name, item in value.items() if item is True]
            others = [f"{name} {shown(item)}" for name, item in value.items() if not isinstance(item, bool)]
            return ", ".join(others + flags) or "-"
        case list() | tuple():
            return ", ".join(shown(item) for item in value) or "-"
        case _:
            return str(value)
