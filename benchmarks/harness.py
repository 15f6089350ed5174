# SPDX-License-Identifier: Apache-2.0
"""Interleaved measurement: every repetition runs each contender once, in turn, and only ratios of medians are claimed.

A benchmark module has `main(arguments)`; it builds a `Report`, prints it as a table and, with `--json`, as JSON.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Sample:
    """One contender's medians over the repetitions, in seconds per call."""

    cpu: float
    wall: float


def interleave(
    contenders: Mapping[str, Callable[[], object]], *, repetitions: int, calls: int = 1, warm_up: int = 1
) -> dict[str, Sample]:
    """Measure each contender `repetitions` times, in turn; each measurement makes `calls` calls.

    CPU time is that of this process, all threads included.
    """
    cpu: dict[str, list[float]] = {name: [] for name in contenders}
    wall: dict[str, list[float]] = {name: [] for name in contenders}
    gc.collect()
    gc.disable()
    try:
        for repetition in range(-warm_up, repetitions):
            for name, call in contenders.items():
                cpu_start, wall_start = time.process_time(), time.perf_counter()
                for _ in range(calls):
                    call()
                cpu_end, wall_end = time.process_time(), time.perf_counter()
                if repetition >= 0:
                    cpu[name].append((cpu_end - cpu_start) / calls)
                    wall[name].append((wall_end - wall_start) / calls)
    finally:
        gc.enable()
    return {name: Sample(statistics.median(cpu[name]), statistics.median(wall[name])) for name in contenders}


@dataclass(frozen=True, slots=True)
class Row:
    """One claim: what was measured, against whom, the ratio (or difference) reached and the target beside it."""

    target: str
    what: str
    ours: str
    peer: str
    reached: str
    wanted: str
    met: bool


@dataclass
class Report:
    """The rows of one benchmark."""

    title: str
    rows: list[Row] = field(default_factory=list)

    def ratio(
        self,
        target: str,
        what: str,
        ours: float,
        peer: float,
        *,
        at_most: float | None = None,
        at_least: float | None = None,
        unit: str = "us",
    ) -> None:
        """Add `ours / peer` of two durations in seconds; with `at_least`, of their speeds (`peer / ours`)."""
        scale = {"us": 1e6, "ms": 1e3, "s": 1.0}[unit]
        ours_text, peer_text = f"{ours * scale:.2f} {unit}", f"{peer * scale:.2f} {unit}"
        if at_least is not None:
            reached = peer / ours
            self.rows.append(
                Row(
                    target,
                    what,
                    ours_text,
                    peer_text,
                    f"{reached:.2f}x speed",
                    f">= {at_least}x",
                    reached >= at_least,
                )
            )
        elif at_most is not None:
            reached = ours / peer
            self.rows.append(
                Row(
                    target,
                    what,
                    ours_text,
                    peer_text,
                    f"{reached:.2f}x",
                    f"<= {at_most}x",
                    reached <= at_most,
                )
            )
        else:
            raise ValueError("say at_most or at_least")

    def difference(
        self, target: str, what: str, ours: float, peer: float, *, at_most: float, unit: str = "us"
    ) -> None:
        """Add `ours - peer` of two durations in seconds; `at_most` is in `unit`."""
        scale = {"us": 1e6, "ms": 1e3, "s": 1.0}[unit]
        reached = (ours - peer) * scale
        self.rows.append(
            Row(
                target,
                what,
                f"{ours * scale:.2f} {unit}",
                f"{peer * scale:.2f} {unit}",
                f"+{reached:.2f} {unit}",
                f"<= +{at_most} {unit}",
                reached <= at_most,
            )
        )

    def show(self, *, as_json: bool) -> None:
        """Print the table, or JSON with the machine it was measured on."""
        if as_json:
            rows = [{name: getattr(row, name) for name in Row.__slots__} for row in self.rows]
            print(
                json.dumps(
                    {
                        "title": self.title,
                        "machine": platform.processor() or platform.machine(),
                        "python": platform.python_version(),
                        "rows": rows,
                    },
                    indent=2,
                )
            )
            return
        cells: list[Sequence[str]] = [("target", "what", "ours", "peer", "reached", "wanted", "")]
        cells += [
            (r.target, r.what, r.ours, r.peer, r.reached, r.wanted, "met" if r.met else "MISSED")
            for r in self.rows
        ]
        widths = [max(len(row[column]) for row in cells) for column in range(7)]
        print(f"\n{self.title}")
        for row in cells:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def parser(description: str) -> argparse.ArgumentParser:
    """Options that every benchmark has."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--json", action="store_true", help="print JSON instead of a table")
    made.add_argument("--repetitions", type=int, default=7)
    return made
