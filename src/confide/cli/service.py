# SPDX-License-Identifier: Apache-2.0
"""`confide measure`, `protect`, `run`, `unlock`, `ps`, `stop`, `logs`: the life of a service."""

from __future__ import annotations

import signal
import threading
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from confide.cli import output, secret_names, trust
from confide.cli.addresses import host_port
from confide.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from confide.attestation.policy import AppraisalPolicy
    from confide.enclave.service import Service

_service = click.argument(
    "service_path", metavar="SERVICE", type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
_measured_tee = click.option(
    "--tee", type=click.Choice(("simulated",)), default="simulated", show_default=True
)


@click.command()
@_service
@_measured_tee
@click.option(
    "-o",
    "--output",
    "output_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the policy here instead of to stdout.",
)
@click.option(
    "--reference-values",
    "values_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the measurement alone, with its origin: CoRIM if the name ends in .corim, else TOML.",
)
def measure(service_path: Path, *, tee: str, output_path: Path | None, values_path: Path | None) -> None:
    """Predict what the evidence of SERVICE will say, without running it, and write it as a policy."""
    from confide.enclave.measure import measure as predict
    from confide.enclave.service import Service
    from confide.sealing.durable import write_public

    policy = predict(Service.from_toml(service_path), tee=tee)
    if values_path is not None:
        _write_values(values_path, policy, service_path)
    text = policy.to_toml()
    if output_path is None:
        output.data(text.rstrip("\n"))
        return
    write_public(output_path, text)
    output.talk(f"policy: {output_path}")


def _write_values(path: Path, policy: AppraisalPolicy, service_path: Path) -> None:
    from confide.attestation import corim, reference

    origin = f"confide measure {service_path.name}"
    tables = tomllib.loads(policy.to_toml())["reference"]
    values = [
        reference.ReferenceValues(
            tee, {"measurement": tuple(bytes.fromhex(value) for value in table["measurement"])}, origin
        )
        for tee, table in tables.items()
    ]
    content = corim.write(values, identifier=origin) if path.suffix == ".corim" else reference.write(values)
    path.write_bytes(content)
    output.talk(f"reference values: {path}")


@click.command()
@click.argument("content", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--for",
    "service_path",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The service that may open it; written if it does not exist.",
)
@click.option(
    "-o",
    "--output",
    "output_path",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the protected file is written.",
)
@click.option(
    "--policy",
    "policy_path",
    default="policy.toml",
    show_default=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the policy of the measured service is written.",
)
@click.option("--name", help="The name under which the service knows it; by default the file's.")
@click.option(
    "--id",
    "service_id",
    default="default",
    show_default=True,
    help="The id of a service that is written anew.",
)
@click.option(
    "--identity", "identity_name", default="default", show_default=True, help="The owner identity that signs."
)
@_measured_tee
def protect(
    content: Path,
    *,
    service_path: Path,
    output_path: Path,
    policy_path: Path,
    name: str | None,
    service_id: str,
    identity_name: str,
    tee: str,
) -> None:
    """Encrypt CONTENT, a model or data, so that only enclaves of one measured service can open it.

    Measures the service by itself and writes the policy; the key goes into this user's keyring, from which `confide unlock` or
    `confide broker put` hands it over.
    """
    from confide.cli.identity import announce
    from confide.serving.protecting import protect_for_service

    owner = announce(identity_name)
    with output.progress(f"protecting {content.name}", content.stat().st_size) as show:
        done = protect_for_service(
            content,
            service_path=service_path,
            output=output_path,
            policy_path=policy_path,
            name=name,
            service_id=service_id,
            identity=owner,
            tee=tee,
            progress=lambda done, _total: show(done),
        )
    if done.service_written:
        output.talk(
            f"wrote {service_path}: {done.service.kind} `{done.service.id}`, owned by {owner.fingerprint}"
        )
    output.talk(
        f"protected {content.name} ({output.size(content.stat().st_size)}) as {output_path} under key {done.key.name}, version {done.key.version}"
    )
    output.talk(f"policy: {policy_path}")


@click.command()
@_service
@click.option(
    "--tee",
    type=click.Choice(("auto", "simulated", "snp")),
    default="auto",
    show_default=True,
    help="`auto` takes the TEE of this machine and never the simulated one; for that say `simulated`.",
)
@click.option("--listen", default="127.0.0.1:0", show_default=True, metavar="HOST:PORT")
@click.option(
    "--data",
    "data_options",
    multiple=True,
    metavar="NAME=FILE",
    help="A protected file that the service may read; may be repeated.",
)
@click.option(
    "--storage",
    type=click.Path(file_okay=False, path_type=Path),
    help="A folder that the service may keep its sealed state in.",
)
@click.option(
    "--require-level",
    type=click.Choice(("L0", "L1", "L2", "L3")),
    help="Refuse to run with less confinement.",
)
@click.option(
    "--ready-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the URL here once the enclave answers.",
)
def run(
    service_path: Path,
    *,
    tee: str,
    listen: str,
    data_options: tuple[str, ...],
    storage: Path | None,
    require_level: str | None,
    ready_file: Path | None,
) -> None:
    """Run SERVICE in an enclave until it is stopped; it waits for its keys first, if it needs any."""
    from confide.enclave.service import Service
    from confide.host.enclave import Enclave, State

    files = {}
    for option in data_options:
        data_name, found, file = option.partition("=")
        if not found or not Path(file).is_file():
            raise ConfigurationError("data", "--data is NAME=FILE with a file that exists")
        files[data_name] = Path(file)
    service = Service.from_toml(service_path)
    _check_files(service, files)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with Enclave.launch(
        service,
        tee=tee,
        data=files,
        storage=storage,
        listen=host_port(listen),
        require_level=require_level,
    ) as enclave:
        output.talk(enclave.describe())
        output.data(enclave.url)
        if ready_file is not None:
            ready_file.write_text(enclave.url + "\n")
        announced = False
        while not stop.is_set() and not enclave.state.final:
            if not announced and enclave.state is State.RUNNING:
                output.talk("running: its keys are there")
                announced = True
            stop.wait(0.1)
        enclave.stop()
        if enclave.error is not None:
            raise enclave.error
    output.talk("stopped")


def _check_files(service: Service, files: Mapping[str, Path]) -> None:
    """Say at once what would otherwise be noticed inside, where little is said."""
    pinned = {pin.name for pin in service.models}
    unknown, missing = sorted(files.keys() - pinned), sorted(pinned - files.keys())
    names = ", ".join(sorted(pinned)) or "none"
    if unknown:
        raise ConfigurationError(
            "data", f"the service names no file `{unknown[0]}`", hint=f"its protected files: {names}"
        )
    if missing:
        raise ConfigurationError(
            "data",
            f"the service needs the protected file `{missing[0]}`",
            hint=f"add --data {missing[0]}=FILE; its protected files: {names}",
        )


@click.command()
@click.argument("url")
@trust.trust_options
@click.option(
    "--secret",
    "names",
    multiple=True,
    metavar="NAME[:VERSION]",
    help="What to hand over; by default what the enclave waits for and you own.",
)
@click.option(
    "--lease",
    type=int,
    default=0,
    show_default=True,
    help="Seconds for which the enclave may use it; 0: until it ends.",
)
@click.option(
    "--identity", "identity_name", default="default", show_default=True, help="The owner identity that signs."
)
def unlock(
    url: str,
    *,
    trusted: trust.Trusted,
    names: tuple[str, ...],
    lease: int,
    identity_name: str,
) -> None:
    """Verify the enclave at URL against the policy, then hand it your keys from this user's keyring."""
    from confide.keys import unlock as unlocking
    from confide.keys.identity import Identity
    from confide.keys.keyring import Keyring

    owner, keyring = Identity.open(identity_name), Keyring()
    verifier = trusted.verifier()
    wanted = names or tuple(
        name for name, public in unlocking.awaited(url).owners.items() if public == owner.public
    )
    keys = []
    for text in wanted:
        name, version = secret_names.split(text)
        keys.append(keyring.get(name, version))
    if not keys:
        raise ConfigurationError(
            "nothing_awaited",
            "the enclave says that it waits for nothing of yours",
            hint="name the key with --secret",
        )
    done = unlocking.unlock(
        url, verifier=verifier, secrets={key.name: key.secret for key in keys}, identity=owner, lease=lease
    )
    if done.result.simulated:
        output.talk(output.paint(trust.SIMULATED_NOTICE, "warn"))
    output.talk(f"attested: {trust.describe_tee(done.result)}, fresh")
    output.talk(f"unlocked: {', '.join(f'{name.name}, version {name.version}' for name in done.names)}")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The list for machines.")
def ps(*, as_json: bool) -> None:
    """List the enclaves of this user."""
    from confide.host import directory

    found = directory.records()
    if not found and not as_json:
        output.talk("no enclave of this user is running")
        return
    if as_json:
        output.data_json([record.to_json() for record in found])
        return
    rows = [
        (
            record.id,
            f"{record.kind} {record.service}",
            record.state,
            f"{record.tee}{' SIMULATED' if record.simulated else ''}",
            record.level,
            record.url,
            f"{datetime.fromtimestamp(record.started, UTC):%Y-%m-%d %H:%M:%S}",
        )
        for record in found
    ]
    output.data(output.table(rows, ("enclave", "service", "state", "tee", "level", "url", "since (UTC)")))


@click.command()
@click.argument("enclave")
def stop(enclave: str) -> None:
    """Stop ENCLAVE: finish what is in flight, then end. A restart needs new keys."""
    from confide.host import directory

    directory.stop(enclave)
    output.talk(f"stopped {enclave}")


@click.command()
@click.argument("enclave")
def logs(enclave: str) -> None:
    """Print what ENCLAVE lets its host see: states and event names, never content."""
    from confide.host import directory

    for line in directory.logs(enclave):
        output.data(line)
