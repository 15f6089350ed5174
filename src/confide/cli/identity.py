# SPDX-License-Identifier: Apache-2.0
"""`confide identity`: the Ed25519 keys with which owners sign."""

from __future__ import annotations

import click

from confide.cli import output
from confide.errors import ConfigurationError
from confide.keys.identity import Identity


def announce(name: str = "default") -> Identity:
    """The identity `name`, made on first use, in which case its fingerprint is printed."""
    made = Identity.open_or_create(name)
    if made.created:
        output.talk(f"made the identity `{made.name}`; its fingerprint is {made.fingerprint}")
    return made


@click.group()
def identity() -> None:
    """Owner identities: Ed25519 keys, kept in files that only this user can read."""


@identity.command()
@click.argument("name", default="default")
def new(name: str) -> None:
    """Make the identity NAME and print its public key."""
    made = Identity.open_or_create(name)
    if not made.created:
        raise ConfigurationError(
            "exists", "there is an identity of this name", hint="`confide identity show` prints it"
        )
    output.talk(f"fingerprint: {made.fingerprint}")
    output.data(made.public.hex())


@identity.command()
@click.argument("name", default="default")
@click.option("--json", "as_json", is_flag=True, help="Name, key and fingerprint for machines.")
def show(name: str, *, as_json: bool) -> None:
    """Print the public key of the identity NAME, as services pin it."""
    found = Identity.open(name)
    if as_json:
        output.data_json(
            {"name": found.name, "public_key": found.public.hex(), "fingerprint": found.fingerprint}
        )
        return
    output.talk(f"fingerprint: {found.fingerprint}")
    output.data(found.public.hex())
