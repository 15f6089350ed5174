# SPDX-License-Identifier: Apache-2.0
"""`confide verify`, `inspect`, `endorse`, `attest`: evidence in files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from confide.cli import output, trust
from confide.errors import AttestationError, ConfigurationError, MalformedError
from confide.wire import hexadecimal

if TYPE_CHECKING:
    from confide.attestation.result import AttestationResult

_FORMATS = (
    "auto",
    "bundle",
    "snp",
    "snp-response",
)  # As `tees.formats.FORMATS`, which `--help` need not import.
_evidence = click.argument("evidence", type=click.Path(exists=True, dir_okay=False, path_type=Path))
_format = click.option("--format", "format_", type=click.Choice(_FORMATS), default="auto", show_default=True)
_MAX_EVIDENCE = 1 << 20


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(_MAX_EVIDENCE + 1)
    if len(content) > _MAX_EVIDENCE:
        raise MalformedError("limit_exceeded", "the evidence file is larger than 1 MiB")
    return content


def _report_data(text: str) -> bytes:
    """The option's 64 bytes; a slip of the person who typed it is no finding about the evidence."""
    try:
        return hexadecimal.decode(text, what="--report-data", length=64)
    except MalformedError as error:
        raise ConfigurationError("report_data", error.message, hint=error.hint) from None


def _shown(value: object) -> str:
    """A claim for a person: what is set, component by component, and a dash for what is not there."""
    match value:
        case None:
            return "-"
        case dict():
            flags = [name for name, item in value.items() if item is True]
            others = [f"{name} {_shown(item)}" for name, item in value.items() if not isinstance(item, bool)]
            return ", ".join(others + flags) or "-"
        case list() | tuple():
            return ", ".join(_shown(item) for item in value) or "-"
        case _:
            return str(value)


def _show(result: AttestationResult) -> None:
    facts = result.to_json()
    if result.simulated:
        output.data(trust.SIMULATED_NOTICE)
    label = "accepted" if not result.simulated else "accepted (SIMULATED)"
    output.data(
        f"{label}: {result.tee}, tier {result.tier.name.lower()}, verified at {result.verified_at:%Y-%m-%dT%H:%M:%SZ}"
    )
    output.data(f"freshness: {result.freshness}")
    claims = facts["claims"]
    if isinstance(claims, dict):
        rows = [(str(name), _shown(value)) for name, value in claims.items()]
        output.data(output.table(rows, ("claim", "value")))
    for reason in result.reasons:
        output.data(f"note: {reason.message} [{reason.code}]")


@click.command()
@_evidence
@trust.trust_options
@_format
@click.option("--report-data", metavar="HEX", help="The 64 bytes that the evidence must be bound to.")
@click.option("--at", "at_text", metavar="TIME", help="Verify as of this time (RFC 3339) instead of now.")
@click.option("--json", "as_json", is_flag=True, help="The verdict for machines.")
def verify(
    evidence: Path,
    policy_path: Path,
    endorsement_paths: tuple[Path, ...],
    *,
    allow_simulated: bool,
    anchor: str | None,
    format_: str,
    report_data: str | None,
    at_text: str | None,
    as_json: bool,
) -> None:
    """Decide whether EVIDENCE is genuine and acceptable, offline.

    Exit codes: 0 accepted, 1 error, 2 usage, 3 not genuine (malformed included), 4 genuine but not acceptable, 5 could
    not decide because an endorsement is missing.
    """
    from confide.attestation.result import refusal
    from confide.tees import formats

    verifier = trust.verifier(policy_path, endorsement_paths, allow_simulated=allow_simulated, anchor=anchor)
    at = trust.parse_time(at_text)
    bound_to = None if report_data is None else _report_data(report_data)
    try:
        result = verifier.verify(formats.read(_read(evidence), format=format_), at=at, report_data=bound_to)
    except (AttestationError, MalformedError) as error:
        if as_json:
            output.data_json(refusal(error))
        else:
            output.data(f"{output.verdict(error).replace('_', ' ')}")
            output.report(error)
        raise click.exceptions.Exit(output.exit_code(error)) from None
    if as_json:
        output.data_json(result.to_json())
    else:
        _show(result)


@click.command()
@_evidence
@_format
@click.option("--json", "as_json", is_flag=True, help="The fields for machines.")
def inspect(evidence: Path, *, format_: str, as_json: bool) -> None:
    """Decode EVIDENCE and explain it. Nothing is checked: any of it may be a lie."""
    from confide.tees import formats

    fields = formats.explain(formats.read(_read(evidence), format=format_))
    if as_json:
        output.data_json({"trusted": False, "fields": fields})
        return
    output.talk(output.paint("decoded, not verified: anyone can write these bytes", "warn"))
    output.data(output.table([(name, _shown(value)) for name, value in fields.items()], ("field", "value")))


@click.command()
@_evidence
@_format
@click.option(
    "--product",
    type=click.Choice(("Milan", "Genoa", "Turin")),
    help="For reports that do not say it (version 2).",
)
def endorse(evidence: Path, *, format_: str, product: str | None) -> None:
    """Fetch the vendor's certificates for EVIDENCE, as PEM on stdout. The only command that asks a vendor."""
    from confide.tees import fetch, formats

    needed = formats.endorsement_urls(formats.read(_read(evidence), format=format_), product=product)
    if not needed:
        raise ConfigurationError(
            "nothing_to_fetch", "this evidence names no endorsement that a vendor publishes"
        )
    for url in needed:
        output.talk(f"asking {url.split('/')[2]}")
        output.data(fetch.certificate_pem(fetch.get(url)).rstrip())


@click.command()
@click.option("--tee", type=click.Choice(("auto", "snp")), default="auto", show_default=True)
@click.option("--report-data", metavar="HEX", required=True, help="The 64 bytes to bind the evidence to.")
def attest(*, tee: str, report_data: str) -> None:
    """Ask this machine's TEE for evidence over REPORT-DATA; the bundle goes to stdout.

    Never falls back to the simulated TEE: that one vouches only for enclaves that confide launched.
    """
    from confide.attestation.evidence import Evidence
    from confide.tees.snp import attest as snp

    bound = _report_data(report_data)
    if tee not in {"auto", "snp"}:
        raise ConfigurationError("tee", "unknown TEE")
    made = snp.Device.find().attest(bound)
    bundle = Evidence(platform=made.platform, devices=made.devices, endorsements=made.endorsements)
    output.data_bytes(bundle.encode())
