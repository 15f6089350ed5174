# SPDX-License-Identifier: Apache-2.0
"""`confide broker`: what an owner does with a key broker. The broker is attested before anything is sent."""

from __future__ import annotations

import json
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from confide.cli import output, secret_names, trust
from confide.errors import ConfigurationError
from confide.keys.broker_client import BrokerClient
from confide.keys.identity import Identity
from confide.keys.keyring import Keyring
from confide.keys.release import SecretName
from confide.wire import hexadecimal

if TYPE_CHECKING:
    from collections.abc import Iterator

_url = click.argument("url")
_identity = click.option(
    "--identity", "identity_name", default="default", show_default=True, help="The owner identity that signs."
)


@contextmanager
def _attested(
    url: str,
    *,
    trusted: trust.Trusted,
) -> Iterator[BrokerClient]:
    from confide.channel.client import Client

    verifier = trusted.verifier()
    with Client(url, verifier) as client:
        if client.attestation.simulated:
            output.talk(output.paint(trust.SIMULATED_NOTICE, "warn"))
        yield BrokerClient(client)


def _secret(text: str) -> SecretName:
    """NAME or NAME:VERSION; without a version, the newest in the keyring."""
    name, version = secret_names.split(text)
    return Keyring().get(name).name if version is None else SecretName(name, version)


def _exact_secret(text: str) -> SecretName:
    """NAME:VERSION: what cannot be undone is not done to a version that was guessed."""
    name, version = secret_names.split(text)
    if version is None:
        raise ConfigurationError(
            "secret", "a key is revoked by NAME:VERSION", hint="`confide broker list` shows them"
        )
    return SecretName(name, version)


@click.group()
def broker() -> None:
    """Keep keys in an attested broker, and say which enclaves may have them."""


@broker.command()
@_url
@click.argument("names", nargs=-1, required=True, metavar="NAME[:VERSION]...")
@trust.trust_options
@_identity
def put(url: str, names: tuple[str, ...], identity_name: str, **options: Any) -> None:
    """Hand keys of this user's keyring to the broker at URL."""
    owner, keyring = Identity.open(identity_name), Keyring()
    with _attested(url, **options) as client:
        for text in names:
            wanted = _secret(text)
            client.put(owner.key, wanted, keyring.get(wanted.name, wanted.version).secret)
            output.talk(f"kept: {wanted.name}, version {wanted.version}")


@broker.command()
@_url
@click.argument("names", nargs=-1, required=True, metavar="NAME[:VERSION]...")
@click.option(
    "--admit",
    "admitted",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The policy of the enclaves that may have these keys.",
)
@click.option(
    "--lease", type=int, default=3600, show_default=True, help="Seconds for which a released key may be used."
)
@click.option(
    "--instances",
    type=int,
    default=0,
    show_default=True,
    help="How many enclave instances may ever have them; 0: any number.",
)
@trust.trust_options
@_identity
def policy(
    url: str,
    names: tuple[str, ...],
    admitted: Path,
    lease: int,
    instances: int,
    identity_name: str,
    **options: Any,
) -> None:
    """Say, signed, which enclaves may have the keys NAMES."""
    from confide.attestation.policy import AppraisalPolicy

    owner, appraisal = Identity.open(identity_name), admitted.read_bytes()
    service = AppraisalPolicy.from_toml(appraisal).service
    if service is None:
        raise ConfigurationError(
            "empty_policy",
            "the admitted policy names no service",
            hint="`confide measure` writes one that does",
        )
    with _attested(url, **options) as client:
        client.set_policy(
            owner.key,
            tenant=service.id,
            secrets=[_secret(name) for name in names],
            appraisal=appraisal,
            lease_seconds=lease,
            max_instances=instances,
        )
    output.talk(f"enclaves of `{service.id}` may have {', '.join(names)} for {lease} s at a time")


@broker.command()
@_url
@click.option("--secret", "secret_name", metavar="NAME:VERSION")
@click.option("--tenant", help="Take back the policy for this service id.")
@click.option("--measurement", metavar="HEX")
@click.option("--manifest", metavar="HEX")
@trust.trust_options
@_identity
def revoke(
    url: str,
    secret_name: str | None,
    tenant: str | None,
    measurement: str | None,
    manifest: str | None,
    identity_name: str,
    **options: Any,
) -> None:
    """Take back one key, policy, measurement or manifest. A key that an enclave already has cannot be recalled."""
    owner = Identity.open(identity_name)
    with _attested(url, **options) as client:
        client.revoke(
            owner.key,
            secret=None if secret_name is None else _exact_secret(secret_name),
            tenant=tenant,
            measurement=None
            if measurement is None
            else hexadecimal.decode(measurement, what="--measurement"),
            manifest=None if manifest is None else hexadecimal.decode(manifest, what="--manifest", length=32),
        )
    output.talk("revoked: nothing more is released against it")


@broker.command(name="list")
@_url
@trust.trust_options
@_identity
def list_(url: str, identity_name: str, **options: Any) -> None:
    """Print, as JSON, what this owner keeps at the broker; never a key."""
    with _attested(url, **options) as client:
        output.data(json.dumps(_printable(client.list(Identity.open(identity_name).key)), indent=2))


@broker.command()
@_url
@click.option("--json", "as_json", is_flag=True, help="The records for machines.")
@trust.trust_options
@_identity
def audit(url: str, *, as_json: bool, identity_name: str, **options: Any) -> None:
    """Check the broker's whole ledger and print this owner's records."""
    with _attested(url, **options) as client:
        checked = client.audit(Identity.open(identity_name).key)
    if as_json:
        records = [
            {"seq": r.seq, "at": r.at, "kind": r.kind, "details": _printable(r.details)}
            for r in checked.records
        ]
        output.data_json({"length": checked.length, "head": checked.head.hex(), "records": records})
        return
    rows = [
        (str(r.seq), f"{datetime.fromtimestamp(r.at, UTC):%Y-%m-%d %H:%M:%S}", r.kind, _summary(r.details))
        for r in checked.records
    ]
    output.data(output.table(rows, ("seq", "time (claimed)", "what", "details")))
    output.talk(f"the chain of {checked.length} records is intact; head {checked.head.hex()[:16]}...")


def _printable(value: object) -> Any:
    match value:
        case bytes():
            return value.hex()
        case dict():
            return {_printable(key): _printable(item) for key, item in value.items()}
        case list() | tuple():
            return [_printable(item) for item in value]
        case SecretName():
            return f"{value.name}:{value.version}"
        case _:
            return value


def _summary(details: dict[str, Any]) -> str:
    shown = []
    for name, value in details.items():
        text = (
            json.dumps(_printable(value))
            if isinstance(value, dict | list | tuple)
            else str(_printable(value))
        )
        shown.append(f"{name}={text if len(text) <= 40 else text[:37] + '...'}")
    return " ".join(shown)
