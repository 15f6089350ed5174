# SPDX-License-Identifier: Apache-2.0
"""`confide serve MODEL`: one command for a first try."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import click

from confide.cli import output, trust
from confide.cli.addresses import host_port


@click.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--into",
    "folder",
    default="served",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where service.toml, policy.toml and the protected model are written.",
)
@click.option(
    "--listen",
    default="127.0.0.1:0",
    show_default=True,
    metavar="HOST:PORT",
    help="Loopback only, while simulated.",
)
@click.option("--name", help="The model's name; by default its file's.")
@click.option(
    "--ready-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the URL here once the model answers.",
)
def serve(model: Path, *, folder: Path, listen: str, name: str | None, ready_file: Path | None) -> None:
    """Protect MODEL, run it in a simulated enclave on this machine, unlock it, and print how to call it.

    Owner, operator and client are all on this machine for once; what lies in the folder afterwards is what three parties
    would exchange.
    """
    from confide.serving import first_try

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with (
        output.progress(f"protecting {model.name}", model.stat().st_size) as show,
        first_try.serve(
            model,
            folder=folder,
            name=name,
            listen=host_port(listen),
            progress=lambda done, _total: show(done),
        ) as served,
    ):
        if served.identity.created:
            output.talk(
                f"made the identity `{served.identity.name}`; its fingerprint is {served.identity.fingerprint}"
            )
        output.talk(output.paint(trust.SIMULATED_NOTICE, "warn"))
        output.talk(
            f"{served.name} in an attested enclave, level {served.enclave.level.name}, key version {served.protected.key.version}"
        )
        output.talk(f"written: {served.service_path}, {served.policy_path}, {served.protected_path}")
        output.talk("")
        output.talk(output.paint("call it from Python:", "bold"))
        for line in served.client_lines:
            output.talk(f"    {line}")
        output.talk(output.paint("or from the shell:", "bold"))
        for line in served.shell_lines:
            output.talk(f"    {line}")
        output.talk("")
        output.data(served.url)
        if ready_file is not None:
            ready_file.write_text(served.url + "\n")
        while not stop.wait(0.2) and not served.enclave.state.final:
            pass
        served.enclave.raise_for_state()
    output.talk("stopped")
