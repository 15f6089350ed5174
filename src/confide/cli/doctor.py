# SPDX-License-Identifier: Apache-2.0
"""`confide doctor`: what this machine has, what is missing, what would be simulated."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
from dataclasses import dataclass
from pathlib import Path

import click

from confide.cli import output, trust
from confide.errors import ConfideError

_TEES: tuple[tuple[str, str], ...] = (
    ("AMD SEV-SNP", "snp"),
    ("Intel TDX", "tdx"),
    ("Intel SGX (Gramine)", "sgx"),
    ("AWS Nitro", "nitro"),
    ("vTPM", "tpm"),
    ("NVIDIA confidential GPU", "nvidia"),
)
# What AMD's SEV_STATUS register says of the guest that reads it (APM volume 2, 15.34.10); the driver `msr` shows it to root.
_MSR = Path("/dev/cpu/0/msr")
_SEV_STATUS = 0xC0010131
_EXTRAS = (
    ("nvidia", ("lxml",), "reference values of NVIDIA GPUs"),
    ("nvml", ("pynvml",), "evidence of this machine's GPUs"),
    ("onnx", ("numpy", "onnxruntime"), "serving ONNX models"),
    ("httpx", ("httpx",), "clients built on httpx"),
    ("fast", ("uvloop", "httptools"), "a faster server"),
    ("demo", ("magika",), "`confide demo`"),
)


@dataclass(frozen=True, slots=True)
class _Finding:
    what: str
    state: str
    detail: str


def _tees() -> list[_Finding]:
    from confide.attestation import schemes

    found = [_finding(label, schemes.PACKAGES[tee]) for label, tee in _TEES]
    generation = _sev_without_snp()
    if generation is not None:
        found.insert(
            1,
            _Finding(
                f"AMD {generation} without SNP",
                "refused",
                "memory has no integrity and the guest cannot ask for a report: use a machine with SEV-SNP",
            ),
        )
    return found


def _finding(label: str, package: str) -> _Finding:
    """Whether the TEE's device is there and answers to its driver."""
    device = importlib.import_module(f"{package}.attest").Device
    try:
        device.find()
    except ConfideError as error:
        return _Finding(label, "absent", error.message)
    return _Finding(label, "present", "")


def _sev_without_snp(msr: Path = _MSR) -> str | None:
    """The name of an older generation of SEV that this machine runs under, or None; also where it cannot be told."""
    try:
        with msr.open("rb") as file:
            status = int.from_bytes(os.pread(file.fileno(), 8, _SEV_STATUS), "little")
    except OSError:
        return None
    if not status & 1 or status & 4:
        return None
    return "SEV-ES" if status & 2 else "SEV"


def _extras() -> list[_Finding]:
    found = []
    for name, modules, purpose in _EXTRAS:
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        detail = f"pip install 'confide[{name}]'" if missing else ""
        found.append(_Finding(f"{name} ({purpose})", "missing" if missing else "installed", detail))
    return found


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The findings for machines.")
@click.option(
    "--export-anchor",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write this user's simulated root as PEM, for `--anchor FILE` on another machine.",
)
def doctor(*, as_json: bool, export_anchor: Path | None) -> None:
    """Say which TEE is here, which confinement a simulated enclave reaches, and what is not installed."""
    from confide.enclave.confinement.probe import probe

    if export_anchor is not None:
        export_anchor.write_bytes(trust.local_anchor_pem())
        output.talk(f"the simulated root is in {export_anchor}; it vouches for nothing but tests and demos")
        return
    tees, extras, confinement = _tees(), _extras(), probe()
    real = [finding for finding in tees if finding.state == "present"]
    if as_json:
        output.data_json(
            {
                "machine": platform.machine(),
                "system": f"{platform.system()} {platform.release()}",
                "tees": [{"tee": f.what, "state": f.state, "detail": f.detail} for f in tees],
                "simulated": not real,
                "level": confinement.level.name,
                "primitives": {
                    p.name: {"applied": p.applied, "detail": p.detail} for p in confinement.primitives
                },
                "extras": [{"extra": f.what, "state": f.state, "install": f.detail} for f in extras],
            }
        )
        return
    output.data(
        f"machine: {platform.system()} {platform.release()}, {platform.machine()}, Python {platform.python_version()}"
    )
    output.data("")
    output.data(output.table([(f.what, f.state, f.detail) for f in tees], ("TEE", "state", "why")))
    output.data("")
    if real:
        output.data(f"`--tee auto` would use {real[0].what}.")
    else:
        output.data(
            "No TEE is here: enclaves would be SIMULATED, which protects nothing from the owner of this machine."
        )
    output.data("")
    output.data("confinement of a simulated enclave on this machine:")
    output.data(confinement.describe())
    output.data("")
    output.data(output.table([(f.what, f.state, f.detail) for f in extras], ("extra", "state", "install")))
