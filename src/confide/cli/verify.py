# SPDX-License-Identifier: Apache-2.0
"""`confide verify`, `inspect`, `endorse`, `attest`: evidence in files."""

from __future__ import annotations

import hashlib
import importlib
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from confide.attestation import schemes
from confide.cli import output, trust
from confide.errors import AttestationError, ConfideError, ConfigurationError, MalformedError, TeeUnavailable
from confide.wire import hexadecimal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from confide.attestation.claims import Claims
    from confide.attestation.evidence import Evidence
    from confide.attestation.policy import AppraisalPolicy
    from confide.attestation.result import AttestationResult

_FORMATS = (
    "auto",
    "bundle",
    "snp",
    "tdx",
    "sgx",
    "nitro",
    "tpm",
    "nvidia",
    "token",
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


def _report_data(text: str, length: int | None = None) -> bytes:
    """The option's bytes; a slip of the person who typed it is no finding about the evidence."""
    try:
        return hexadecimal.decode(text, what="--report-data", length=length)
    except MalformedError as error:
        raise ConfigurationError("report_data", error.message, hint=error.hint) from None


def _show(result: AttestationResult) -> None:
    facts = result.to_json()
    if result.simulated:
        output.data(trust.SIMULATED_NOTICE)
    label = "accepted" if not result.simulated else "accepted (SIMULATED)"
    output.data(
        f"{label}: {result.tee}, tier {result.tier.name.lower()}, verified at {result.verified_at:%Y-%m-%dT%H:%M:%SZ}"
    )
    output.data(f"freshness: {result.freshness}")
    _show_part(result.claims, facts)
    parts = facts["parts"]
    for part, shown in zip(result.parts, parts if isinstance(parts, list) else (), strict=True):
        output.data("")
        output.data(
            f"device: {part.tee}, tier {part.tier.name.lower()}, belongs to the platform: {part.binding}"
        )
        _show_part(part.claims, shown)
    for reason in result.reasons:
        output.data(f"note: {reason.message} [{reason.code}]")


def _show_part(claims: Claims, facts: Mapping[str, object]) -> None:
    if claims.chain:
        mark = " (SIMULATED)" if claims.simulated else ""
        output.data("vouched for by: " + " <- ".join(_common_name(one.name) for one in claims.chain) + mark)
    described = facts["claims"]
    if isinstance(described, dict):
        output.data(output.tree(described))


def _common_name(name: str) -> str:
    """The common name in a certificate's subject, or the whole of any other name."""
    found = [part.strip()[3:] for part in name.split(", ") if part.strip().startswith("CN=")]
    return output.printable(found[0] if len(found) == 1 else name)


@click.command()
@_evidence
@trust.trust_options
@_format
@click.option(
    "--device",
    "devices",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Evidence of a device beside a raw EVIDENCE, such as a GPU's report; may be repeated.",
)
@click.option("--report-data", metavar="HEX", help="The bytes that the evidence must carry, all of them.")
@click.option("--at", "at_text", metavar="TIME", help="Verify as of this time (RFC 3339) instead of now.")
@click.option("--json", "as_json", is_flag=True, help="The verdict for machines.")
@click.option(
    "--html",
    "html_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the verdict as a page for a reviewer.",
)
@click.option(
    "--ear",
    "ear_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write an accepted result as an EAR, signed by --identity: a CWT if the name ends in .cwt, else a JWT.",
)
@click.option(
    "--identity",
    "identity_name",
    default="default",
    show_default=True,
    help="The identity that signs the EAR.",
)
def verify(
    evidence: Path,
    *,
    trusted: trust.Trusted,
    format_: str,
    devices: tuple[Path, ...],
    report_data: str | None,
    at_text: str | None,
    as_json: bool,
    html_path: Path | None,
    ear_path: Path | None,
    identity_name: str,
) -> None:
    """Decide whether EVIDENCE is genuine and acceptable, offline.

    Exit codes: 0 accepted, 1 error, 2 usage, 3 not genuine (malformed included), 4 genuine but not acceptable, 5 could
    not decide because an endorsement is missing.
    """
    from confide.attestation.result import refusal

    at = trust.parse_time(at_text)
    verifier = trusted.verifier(at=at)
    bound_to = None if report_data is None else _report_data(report_data)
    content: bytes | None = None
    read: Evidence | None = None
    try:
        content = _read(evidence)
        read = _with_devices(content, format_, devices)
        result = verifier.verify(read, at=at, report_data=bound_to)
    except (AttestationError, MalformedError) as error:
        outcome = refusal(error)
        if as_json:
            output.data_json(outcome)
        else:
            output.data(f"{output.verdict(error).replace('_', ' ')}")
            output.report(error)
        try:
            _write_page(html_path, outcome, content, read, verifier.policy, at)
        except OSError as unwritten:
            # The refusal's exit code says more than that.
            output.talk(f"{output.paint('error:', 'bad')} {unwritten.strerror}: {html_path}")
        raise click.exceptions.Exit(output.exit_code(error)) from None
    # The verdict is said before anything is written: where that fails, it is an error beside the verdict.
    outcome = result.to_json()
    if as_json:
        output.data_json(outcome)
    else:
        _show(result)
    _write_ear(ear_path, result, identity_name)
    _write_page(html_path, outcome, content, read, verifier.policy, at)


def _write_ear(path: Path | None, result: AttestationResult, identity_name: str) -> None:
    if path is None:
        return
    from importlib.metadata import version

    from confide.attestation import ear
    from confide.keys.identity import Identity

    owner = Identity.open_or_create(identity_name)
    named = {"developer": "confide", "build": version("confide")}
    if path.suffix == ".cwt":
        path.write_bytes(ear.to_cwt(result, owner.key, **named))
    else:
        path.write_text(ear.to_jwt(result, owner.key, **named) + "\n", encoding="ascii")
    output.talk(f"the result as an EAR, signed by {owner.fingerprint}: {path}")


def _with_devices(content: bytes, format_: str, devices: tuple[Path, ...]) -> Evidence:
    from confide.tees import formats

    evidence = formats.read(content, format=format_)
    if not devices:
        return evidence
    if evidence.devices or evidence.key_material is not None:
        raise ConfigurationError(
            "device", "a bundle names its devices itself", hint="give --device beside a raw vendor file only"
        )
    read = [formats.read(_read(path)) for path in devices]
    endorsed = evidence.endorsements
    for one in read:
        endorsed = endorsed.merge(one.endorsements)
    return replace(evidence, devices=tuple(one.platform for one in read), endorsements=endorsed)


def _write_page(
    path: Path | None,
    outcome: Mapping[str, object],
    content: bytes | None,
    evidence: Evidence | None,
    policy: AppraisalPolicy,
    at: datetime,
) -> None:
    if path is None:
        return
    if content is None:
        output.talk("no page is written: the evidence was not read to its end, and a page names its digest")
        return
    from confide.pages import verification
    from confide.tees import formats

    try:
        fields = {} if evidence is None else formats.explain(evidence)
    except ConfideError:
        fields = {}  # What cannot be decoded cannot be shown; the outcome says why.
    page = verification.render(
        outcome,
        evidence_fields=fields,
        policy_text=policy.to_toml(),
        evidence_digest=hashlib.sha256(content).digest(),
        at=at,
    )
    path.write_text(page, encoding="utf-8")
    output.talk(f"the verdict as a page: {path}")


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
    output.data(output.tree(fields))


@click.command()
@_evidence
@_format
@click.option(
    "--product",
    type=click.Choice(("Milan", "Genoa", "Turin")),
    help="For reports that do not say it (version 2).",
)
@click.option(
    "--endorsements",
    "endorsement_paths",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="Certificates that came beside EVIDENCE, such as the chain of a GPU: what is asked depends on them.",
)
@click.option("--no-cache", is_flag=True, help="Ask the vendors for everything anew.")
def endorse(
    evidence: Path,
    *,
    format_: str,
    product: str | None,
    endorsement_paths: tuple[Path, ...],
    no_cache: bool,
) -> None:
    """Fetch what vendors say about EVIDENCE. The only command that asks a vendor.

    On stdout, for `verify --endorsements`: PEM where it is certificates and CRLs, else one binary file. Answers are kept below
    `$XDG_CACHE_HOME/confide/endorsements` for as long as they are good, and for a day at most.
    """
    from confide.tees import cache, endorsing, fetch, formats

    ask: fetch.Ask = fetch.ask
    if not no_cache:
        kept = cache.Cache(cache.default_directory(os.environ, Path.home()))
        ask = cache.cached(ask, kept, now=trust.now, expires=endorsing.expires)
    read = formats.read(_read(evidence), format=format_)
    try:
        beside = formats.read_endorsements(endorsement_paths)
    except MalformedError as error:
        # What the caller gave beside the evidence is wrong; the exit code 3 is kept for evidence.
        raise ConfigurationError("endorsements", error.message, hint=error.hint) from None
    read = replace(read, endorsements=read.endorsements.merge(beside))
    found = endorsing.collect(
        read, product=product, ask=ask, progress=lambda host: output.talk(f"asking {host}")
    )
    content = endorsing.as_file(found)
    if found.documents:
        output.data_bytes(content)
    else:
        output.data(content.decode("ascii").rstrip())


_REAL = ("snp", "tdx", "nitro", "sgx", "tpm", "nvidia")
_SIMULATED = tuple(f"simulated-{tee}" for tee in _REAL)
_NONCE_BYTES = {"nvidia": 32}


@click.command()
@click.option("--tee", type=click.Choice(("auto", *_REAL, *_SIMULATED)), default="auto", show_default=True)
@click.option(
    "--report-data",
    metavar="HEX",
    required=True,
    help="The 64 bytes to bind the evidence to; for GPUs the 32 bytes of their nonce.",
)
def attest(*, tee: str, report_data: str) -> None:
    """Ask this machine's TEE for evidence over REPORT-DATA; the bundle goes to stdout.

    Never falls back to a simulated TEE. `simulated-TEE` makes an example in that TEE's format under this user's local root, for
    trying out policies: it is about no program at all.
    """
    from confide.attestation.evidence import Evidence

    name = tee.removeprefix("simulated-")
    bound = _report_data(report_data, _NONCE_BYTES.get(name, 64))
    if name != tee:
        from confide.simulator import devices

        output.talk(output.paint(trust.SIMULATED_NOTICE, "warn"))
        output.data_bytes(devices.example(name, bound, at=trust.now()).encode())
        return
    if name == "nvidia":
        found = _find((name,)).device_evidence(bound)
        bundle = Evidence(found.devices[0], found.devices[1:], endorsements=found.endorsements)
    else:
        made = _find(_REAL[:-1] if tee == "auto" else (tee,)).attest(bound)
        bundle = Evidence(made.platform, made.devices, endorsements=made.endorsements)
    output.data_bytes(bundle.encode())


def _find(tees: tuple[str, ...]) -> Any:
    """The device of the first of ``tees`` that this machine has; the last one's error where it has none."""
    missing: ConfideError | None = None
    for tee in tees:
        try:
            return importlib.import_module(f"{schemes.PACKAGES[tee]}.attest").Device.find()
        except ConfideError as error:
            missing = missing or error
    if len(tees) > 1 or missing is None:
        raise TeeUnavailable(
            "bad_state",
            "no TEE was found on this machine",
            hint="`confide doctor` says what is missing; `--tee simulated-snp` makes an example that proves nothing",
        )
    raise missing
