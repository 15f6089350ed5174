# SPDX-License-Identifier: Apache-2.0
"""The options with which a person says whom to trust, shared by every command that verifies."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from confide.errors import ConfigurationError, MalformedError, NotAcceptable, NotGenuine

if TYPE_CHECKING:
    from collections.abc import Callable

    from confide.attestation.anchors import TrustAnchor
    from confide.attestation.evidence import Endorsements
    from confide.attestation.reference import ReferenceValues
    from confide.attestation.result import AttestationResult
    from confide.attestation.verifier import Verifier

_MAX_KEY = 4096
_MAX_FILE = 1 << 20
SIMULATED_NOTICE = "SIMULATED: no hardware protects this enclave; whoever owns the machine can read it"


def describe_tee(result: AttestationResult) -> str:
    """The TEE and the tier in one line, which says so itself where nothing but software vouches."""
    return f"{result.tee}{' SIMULATED' if result.simulated else ''}, tier {result.tier.name.lower()}"


def now() -> datetime:
    """The time of day, which only a shell like this one may ask for."""
    return datetime.now(UTC)  # noqa: TID251


def parse_time(text: str | None) -> datetime:
    """An RFC 3339 time, or now. A time without an offset is refused, since its meaning depends on the machine."""
    if text is None:
        return now()
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError("time", "not a time", hint="write it like 2026-06-01T00:00:00Z") from None
    if at.tzinfo is None:
        raise ConfigurationError("time", "the time has no offset", hint="add Z for UTC: 2026-06-01T00:00:00Z")
    try:
        return at.astimezone(UTC)
    except OverflowError:
        raise ConfigurationError("time", "the time is before the year 1 or after 9999 in UTC") from None


@dataclass(frozen=True, slots=True)
class Trusted:
    """What a person said on the command line about whom to trust."""

    policy_path: Path
    endorsement_paths: tuple[Path, ...]
    reference_paths: tuple[Path, ...]
    reference_keys: tuple[Path, ...]
    allow_simulated: bool
    anchor: str | None

    def verifier(self, *, at: datetime | None = None) -> Verifier:
        """The Verifier that these options describe; reference values are read as of ``at``, by default now."""
        from confide.attestation.policy import AppraisalPolicy
        from confide.attestation.verifier import Verifier

        at = now() if at is None else at
        if self.allow_simulated != (self.anchor is not None):
            raise ConfigurationError(
                "consent",
                "simulated evidence needs two consents, and only one was given",
                hint="add both `--allow-simulated` and `--anchor FILE` (or `--anchor local`)",
            )
        if self.reference_keys and not self.reference_paths:
            raise ConfigurationError(
                "reference_key",
                "a key for reference values was given, and no reference values",
                hint="add `--reference-values FILE`, or leave out `--reference-key`",
            )
        try:
            policy = AppraisalPolicy.from_file(self.policy_path)
            if self.reference_paths:
                policy = policy.with_reference_values(
                    _reference_values(self.reference_paths, self.reference_keys, at)
                )
            return Verifier(
                policy,
                endorsements=endorsements(self.endorsement_paths),
                extra_anchors=() if self.anchor is None else _anchors(self.anchor, policy.tees),
                allow_simulated=self.allow_simulated,
            )
        except (MalformedError, NotAcceptable, NotGenuine) as error:
            # What the caller gave is wrong here; the exit codes 3 and 4 are kept for evidence.
            raise ConfigurationError(error.code.partition(".")[2], error.message, hint=error.hint) from None


def trust_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add --policy, --endorsements, --reference-values, --allow-simulated and --anchor; the command gets ``trusted``."""

    @functools.wraps(function)
    def command(
        *arguments: Any,
        policy_path: Path,
        endorsement_paths: tuple[Path, ...],
        reference_paths: tuple[Path, ...],
        reference_keys: tuple[Path, ...],
        allow_simulated: bool,
        anchor: str | None,
        **options: Any,
    ) -> None:
        trusted = Trusted(
            policy_path, endorsement_paths, reference_paths, reference_keys, allow_simulated, anchor
        )
        function(*arguments, trusted=trusted, **options)

    for option in reversed(
        (
            click.option(
                "--policy",
                "policy_path",
                required=True,
                type=click.Path(exists=True, dir_okay=False, path_type=Path),
                help="The appraisal policy (TOML) that says which enclave you accept.",
            ),
            click.option(
                "--endorsements",
                "endorsement_paths",
                multiple=True,
                type=click.Path(exists=True, path_type=Path),
                help="Certificates and CRLs (PEM or DER), collateral, RIMs, OCSP responses, key sets, event logs, what "
                "`confide endorse` wrote, or a folder of them; may be repeated.",
            ),
            click.option(
                "--reference-values",
                "reference_paths",
                multiple=True,
                type=click.Path(exists=True, dir_okay=False, path_type=Path),
                help='Measurements for the registers that the policy spells "FILES": TOML or CoRIM; may be repeated.',
            ),
            click.option(
                "--reference-key",
                "reference_keys",
                multiple=True,
                type=click.Path(exists=True, dir_okay=False, path_type=Path),
                help="Whose signature reference values must have: a public key (PEM); may be repeated.",
            ),
            click.option(
                "--allow-simulated",
                is_flag=True,
                help="One consent: accept a simulated TEE, which protects nothing. Needs --anchor too.",
            ),
            click.option(
                "--anchor",
                metavar="FILE|local",
                help="The other consent: the simulated root, as a PEM file, or `local` for this user's own.",
            ),
        )
    ):
        command = option(command)
    return command


def endorsements(paths: tuple[Path, ...]) -> Endorsements | None:
    """What the given files say, or nothing."""
    if not paths:
        return None
    from confide.tees import formats

    return formats.read_endorsements(paths)


def _read(path: Path) -> bytes:
    """A small file that the caller trusts; the wrong one may be a model, or have no end."""
    with path.open("rb") as file:
        content = file.read(_MAX_FILE + 1)
    if len(content) > _MAX_FILE:
        raise ConfigurationError(
            "limit_exceeded", "a file of keys, roots or reference values is larger than 1 MiB"
        )
    return content


def _reference_values(
    paths: tuple[Path, ...], keys: tuple[Path, ...], at: datetime
) -> tuple[ReferenceValues, ...]:
    from confide.attestation import reference
    from confide.crypto import pem

    trusted = tuple(
        block
        for path in keys
        for block in pem.blocks(_read(path), "PUBLIC KEY", max_size=_MAX_KEY, max_count=16)
    )
    if keys and not trusted:
        # Without a key nothing would have to be signed: the opposite of what was asked for.
        raise ConfigurationError(
            "reference_key",
            "no public key is in the files that --reference-key names",
            hint="give a file that begins with `-----BEGIN PUBLIC KEY-----`",
        )
    return tuple(values for path in paths for values in reference.read(_read(path), at=at, keys=trusted))


def _anchors(text: str, tees: tuple[str, ...]) -> tuple[TrustAnchor, ...]:
    """The simulated roots in a file, each for every TEE: which of them a chain ends at is for the chain to show."""
    if text == "local":
        from confide.simulator import devices

        return devices.anchors(tees=tees)
    from confide.attestation import schemes
    from confide.attestation.anchors import TrustAnchor
    from confide.crypto.x509 import parse_pem
    from confide.simulator.installation import PRODUCT

    certificates = tuple(certificate.der for certificate in parse_pem(_read(Path(text))))
    return tuple(
        TrustAnchor(tee, PRODUCT if tee == "snp" else "given", certificates, simulated=True)
        for tee in schemes.PACKAGES
    )


def local_anchor_pem() -> bytes:
    """The public side of this user's simulated roots, made on first use."""
    import base64

    from confide.simulator import devices

    def block(der: bytes) -> str:
        text = base64.encodebytes(der).decode()
        return f"-----BEGIN CERTIFICATE-----\n{text}-----END CERTIFICATE-----\n"

    return "".join(block(der) for anchor in devices.anchors() for der in anchor.certificates).encode()
