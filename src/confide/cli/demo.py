# SPDX-License-Identifier: Apache-2.0
"""`confide demo`: the whole story on this machine, in steps, each with what it proved."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from confide.cli import output

if TYPE_CHECKING:
    from confide.cli.demo_story import Step

_SIMULATED = (
    "SIMULATED: there is no TEE on this machine that confide could use. The enclaves below are ordinary processes, and root",
    "could read them. Formats, checks and refusals are the real ones; the protection from the owner of the machine is not.",
)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Only the facts, for machines.")
def demo(*, as_json: bool) -> None:
    """Protect a real model, serve it from an attested enclave, use it, look at what the operator sees, attack it.

    Takes less than a minute, uses loopback only, and leaves nothing behind.
    """
    # The oracle loads onnxruntime into this process, which would open a telemetry database in the user's home.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    from confide.cli.demo_story import Story

    began = time.monotonic()
    if not as_json:
        for line in _SIMULATED:
            output.data(line)
    steps = []
    with tempfile.TemporaryDirectory(prefix="confide-demo-") as folder:
        story = Story(Path(folder))
        try:
            for number, act in enumerate(story.steps(), 1):
                start = time.monotonic()
                step = act()
                step.seconds = time.monotonic() - start
                steps.append(step)
                if not as_json:
                    _show(number, step)
        finally:
            story.close()
    took = time.monotonic() - began
    if as_json:
        output.data_json(
            {
                "simulated": True,
                "seconds": round(took, 1),
                "steps": {step.key: {"seconds": round(step.seconds, 1), **step.facts} for step in steps},
            }
        )
        return
    output.data("")
    output.data(f"Done in {took:.0f} s. Next: `confide serve MODEL` does this with a model of yours.")


def _show(number: int, step: Step) -> None:
    output.data("")
    output.data(output.paint(f"{number}  {step.title}", "bold"))
    for line in step.lines:
        output.data(f"   {line}")
    for line in step.proved:
        output.data(f"   {output.paint('proved:', 'good')} {line}")
