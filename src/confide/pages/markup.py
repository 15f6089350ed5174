# SPDX-License-Identifier: Apache-2.0
"""HTML from values, most of which somebody hostile wrote: everything is escaped, bounded and shown as what it is."""

from __future__ import annotations

import base64
import hashlib
import html
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

__all__ = ["Markup", "code", "document", "element", "join", "table", "text", "tree", "words"]

MAX_TEXT: Final = 4096
MAX_ROWS: Final = 1000
MAX_DEPTH: Final = 8
# Characters that are not seen, or that change how others are seen: a text must not look like another one.
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# The same among letters, signs and marks: fillers, a pattern without dots, and what chooses another form of a character.
_BLANK: Final = frozenset(
    map(
        chr,
        (
            0x34F,
            0x115F,
            0x1160,
            0x17B4,
            0x17B5,
            0x2800,
            0x3164,
            0xFFA0,
            *range(0xFE00, 0xFE10),
            *range(0xE0100, 0xE01F0),
        ),
    )
)
_MARKS: Final = frozenset({"Mn", "Me"})
# Marks stack, and a high enough stack is drawn over the lines around it. No script needs more of them on one letter.
MAX_STACK: Final = 3


class Markup(str):
    """Text that is HTML already. Only this module makes it, from escaped parts."""

    __slots__ = ()


def text(value: object) -> Markup:
    """A value as text: Markup as it is, all else escaped, without characters that hide or turn others, and not endless."""
    if isinstance(value, Markup):
        return value
    shown = {"None": "none", "True": "yes", "False": "no"}[str(value)] if _is_plain(value) else str(value)
    more = len(shown) - MAX_TEXT
    if more > 0:
        shown = shown[:MAX_TEXT]
    tail = f" … and {more} more characters" if more > 0 else ""
    return Markup(html.escape(_seen(shown) + tail, quote=True))


def _seen(value: str) -> str:
    if value.isascii() and value.isprintable():
        return value
    seen, stack = [], 0
    for one in value:
        category = unicodedata.category(one)
        stack = stack + 1 if category in _MARKS else 0
        hides = (category in _UNSEEN and one != "\n") or one in _BLANK or stack > MAX_STACK
        seen.append(f"\\u{{{ord(one):x}}}" if hides else one)
    return "".join(seen)


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, bool)


def element(tag: str, *content: object, **attributes: str) -> Markup:
    """One element. Tag and names of attributes are the caller's own words; a trailing underscore is for Python's keywords."""
    named = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{text(value)}"' for name, value in attributes.items()
    )
    return Markup(f"<{tag}{named}>{join(*content)}</{tag}>")


def join(*content: object) -> Markup:
    """Values one after another."""
    return Markup("".join(text(one) for one in content))


def code(value: object) -> Markup:
    """A value in the type of machines."""
    return element("code", value)


def table(head: Sequence[object], rows: Iterable[Sequence[object]], *, class_: str = "") -> Markup:
    """A table that says so where it leaves rows out."""
    shown = []
    for number, row in enumerate(rows):
        if number == MAX_ROWS:
            shown.append(element("tr", element("td", "more rows are not shown", colspan=str(len(head)))))
            break
        first, *rest = row
        shown.append(
            element(
                "tr",
                element("th", first, scope="row"),
                *(
                    element("td", cell, data_label=str(name))
                    for name, cell in zip(head[1:], rest, strict=True)
                ),
            )
        )
    header = element("thead", element("tr", *(element("th", cell, scope="col") for cell in head)))
    return element(
        "div", element("table", header, element("tbody", *shown), class_=class_), class_="wide", tabindex="0"
    )


def tree(value: object, depth: int = 0) -> Markup:
    """A JSON value for a person: maps as definition lists, lists as lists, switches that are on as words."""
    if depth >= MAX_DEPTH and isinstance(value, Mapping | list | tuple):
        return element("em", "nested more deeply than is shown")
    if isinstance(value, Mapping):
        return _map(value, depth)
    if isinstance(value, list | tuple):
        if not value:
            return element("span", "none", class_="faint")
        if len(value) == 1:
            return tree(value[0], depth + 1)
        items = [element("li", tree(item, depth + 1)) for item in value[:MAX_ROWS]]
        if len(value) > MAX_ROWS:
            items.append(element("li", f"{len(value) - MAX_ROWS} more are not shown"))
        return element("ul", *items)
    if isinstance(value, str) and len(value) > 12 and value.isalnum():
        return code(value)
    return text(value)


def _map(value: Mapping[Any, object], depth: int) -> Markup:
    if not value:
        return element("span", "none", class_="faint")
    switches = {name: item for name, item in value.items() if isinstance(item, bool)}
    if depth == 0 or len(switches) < 2:
        switches = {}
    pairs = []
    for number, (name, item) in enumerate(value.items()):
        if number == MAX_ROWS:
            pairs.append(element("dt", "more entries are not shown"))
            break
        if name not in switches:
            pairs += [element("dt", name), element("dd", tree(item, depth + 1))]
    return join(element("dl", *pairs) if pairs else "", _switches(switches) if switches else "")


def _switches(switches: Mapping[Any, bool]) -> Markup:
    """Those that are on first."""
    shown = sorted(list(switches.items())[:MAX_ROWS], key=lambda pair: not pair[1])
    marks = (
        element("span", str(name).replace("_", " "), class_=f"flag {'on' if is_on else 'off'}")
        for name, is_on in shown
    )
    return element("span", *marks, class_="flags")


def words(value: object) -> Markup:
    """A sentence in which words between backticks are in the type of machines."""
    parts = str(value).split("`") if value is not None else []
    if len(parts) % 2 == 0:
        return text(value)
    return join(*(code(part) if number % 2 else text(part) for number, part in enumerate(parts)))


def document(*body: object, title: str, style: str, description: str) -> str:
    """A whole page that loads nothing and runs nothing: its policy admits this one style sheet by its hash."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    head = element(
        "head",
        Markup('<meta charset="utf-8">'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{text(policy)}">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup('<meta name="referrer" content="no-referrer">'),
        Markup(f'<meta name="description" content="{text(description)}">'),
        element("title", title),
        element("style", Markup(style)),
    )
    return "<!doctype html>\n" + element("html", head, "\n", element("body", *body), lang="en") + "\n"
