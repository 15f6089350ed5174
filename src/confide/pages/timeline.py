# SPDX-License-Identifier: Apache-2.0
"""When what a verdict rests on is valid, as a drawing and as rows of a table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from confide.pages.markup import Markup, element, join
from confide.pages.verified import subject_name

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["draw"]

# As `tees.formats.explain` lists certificates: "CN=..., 2024-01-01 to 2031-01-01".
_LISTED = re.compile(r"(.{1,512}), (\d{4}-\d{2}-\d{2}) to (\d{4}-\d{2}-\d{2})", re.ASCII | re.DOTALL)
_WIDTH: Final = 900
_LEFT: Final = 250
_RIGHT: Final = 30
_ROW: Final = 30
_MOST: Final = 12


@dataclass(frozen=True, slots=True)
class _Period:
    name: str
    begins: datetime
    ends: datetime
    class_: str = "bar"


def draw(
    certificates: Sequence[object], expires: object, at: datetime
) -> tuple[Markup, list[tuple[object, object, object]]]:
    """An SVG of the certificates listed with the evidence and of this verdict, and the same as rows: what, from, until."""
    periods = [period for one in certificates[:_MOST] if (period := _listed(one)) is not None]
    until = _moment(expires)
    if until is not None and until > at:
        periods.append(_Period("this verdict", at, until, "bar until"))
    rows: list[tuple[object, object, object]] = [
        (subject_name(one.name), f"{one.begins:%Y-%m-%d %H:%M}", f"{one.ends:%Y-%m-%d %H:%M} UTC")
        for one in periods
    ]
    return (_svg(periods, at), rows) if periods else (Markup(""), rows)


def _listed(value: object) -> _Period | None:
    match = _LISTED.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    begins, ends = (_moment(f"{match[number]}T00:00:00+00:00") for number in (2, 3))
    if begins is None or ends is None or begins > ends:
        return None
    return _Period(match[1], begins, ends)


def _moment(value: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return found.astimezone(UTC) if found.tzinfo is not None else None


def _svg(periods: Sequence[_Period], at: datetime) -> Markup:
    first = min(at, *(one.begins for one in periods))
    # A device's certificate that never expires ends in the year 9999, and would leave a dot of all others.
    last = min(max(at, *(one.ends for one in periods)), first + timedelta(days=365 * 40))
    span = max((last - first).total_seconds(), 1.0)

    def x(moment: datetime) -> float:
        share = min(max((moment - first).total_seconds() / span, 0.0), 1.0)
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)

    height = 44 + _ROW * len(periods)
    parts: list[Markup] = []
    for number in range(5):
        moment = first + (last - first) * number / 4
        place = f"{x(moment)}"
        parts.append(element("line", x1=place, x2=place, y1="22", y2=f"{height - 22}", class_="axis"))
        parts.append(
            element(
                "text",
                f"{moment:%Y-%m-%d}",
                x=place,
                y=f"{height - 6}",
                text_anchor=_anchor(number),
                class_="tick",
            )
        )
    for number, one in enumerate(periods):
        top = 26 + _ROW * number
        begin, end = x(one.begins), x(one.ends)
        parts.append(element("text", _short(one.name), x=f"{_LEFT - 12}", y=f"{top + 15}", text_anchor="end"))
        parts.append(
            element(
                "rect",
                element("title", f"{one.name}: {one.begins:%Y-%m-%d} to {one.ends:%Y-%m-%d}"),
                x=f"{begin}",
                y=f"{top + 3}",
                width=f"{max(end - begin, 3):.1f}",
                height="16",
                rx="4",
                class_=one.class_,
            )
        )
    now = f"{x(at)}"
    parts.append(element("line", x1=now, x2=now, y1="18", y2=f"{height - 22}", class_="now"))
    side = "start" if x(at) < _WIDTH / 2 else "end"
    parts.append(element("text", "judged for this time", x=now, y="13", text_anchor=side, class_="nowtext"))
    return element(
        "svg",
        join(*parts),
        viewBox=f"0 0 {_WIDTH} {height}",
        class_="timeline",
        role="img",
        aria_label="periods of validity; the table below has the same times",
    )


def _anchor(number: int) -> str:
    return {0: "start", 4: "end"}.get(number, "middle")


def _short(name: str) -> str:
    """The common name where there is one, and not more of it than fits."""
    common = next((part.strip()[3:] for part in name.split(",") if part.strip().startswith("CN=")), name)
    return common if len(common) <= 34 else common[:33] + "…"
