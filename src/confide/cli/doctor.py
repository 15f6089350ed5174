# SPDX-License-Identifier: Apache-2.0
"""`confide doctor`: what this machine has, what is missing, what would be simulated."""

from __future__ import annotations

import importlib.util
import os
import platform
from dataclasses import dataclass
from pathlib import Path

import click

from confide.cli import output, trust

# What a guest sees of each TEE, in the order in which confide asks.
_DEVICES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("AMD SEV-SNP", "snp", ("/sys/kernel/config/tsm/report", "/dev/sev-guest")),
    ("Intel TDX", "tdx", ("/dev/tdx_guest",)),
    ("Intel SGX (Gramine)", "sgx", ("/dev/attestation/quote",)),
    ("AWS Nitro", "nitro", ("/dev/nsm",)),
    ("vTPM", "tpm", ("/dev/tpmrm0",)),
    ("NVIDIA confidential GPU", "nvidia", ("/dev/nvidiactl",)),
)
_SUPPORTED = frozenset({"snp"})
_EXTRAS = (
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
    found = []
    for label, name, paths in _DEVICES:
        there = [path for path in paths if Path(path).exists()]
        if not there:
            found.append(_Finding(label, "absent", ""))
        elif name in _SUPPORTED:
            usable = os.access(there[0], os.R_OK | os.W_OK)
            found.append(_Finding(label, "present" if usable else "no permission", there[0]))
        else:
            found.append(_Finding(label, "present, not supported yet", there[0]))
    return found


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
                "tees": [{"tee": f.what, "state": f.state, "device": f.detail} for f in tees],
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
    output.data(output.table([(f.what, f.state, f.detail) for f in tees], ("TEE", "state", "device")))
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
