# SPDX-License-Identifier: Apache-2.0
"""Examples of every vendor's evidence under this machine's own roots, and those roots as trust anchors.

The roots follow from the installation's secret, so that they are the same at every call and on no other machine. An example is
about no program: whoever reads the secret can make it say anything. ``simulator.<tee>`` has the devices with all their knobs.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from confide.attestation.evidence import Endorsements, Evidence, EvidencePart
from confide.crypto import kdf
from confide.crypto.issue import IssuingKey
from confide.crypto.signing import CURVES
from confide.errors import ConfigurationError
from confide.simulator.installation import NOT_AFTER, NOT_BEFORE, Installation, public_anchor

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from datetime import datetime
    from pathlib import Path

    from confide.attestation.anchors import TrustAnchor

__all__ = ["TEES", "anchors", "example"]

TEES: Final = ("snp", "tdx", "sgx", "nitro", "tpm", "nvidia")
_MANIFEST: Final = b"an example of a simulated device, about no program"
# Roots do not follow the time that an example is made for.
_LASTING: Final = {"root": {"not_before": NOT_BEFORE, "not_after": NOT_AFTER}}


def anchors(directory: Path | None = None, *, tees: Collection[str] = TEES) -> tuple[TrustAnchor, ...]:
    """The roots of this machine's simulated devices, one for each of ``tees`` that is simulated, each marked as simulated.

    That of SNP is kept and read in a moment; the others are made anew, which takes a tenth of a second and more each.
    Raises ``enclave.bad_state`` as ``simulator.anchor`` does.
    """
    made = [public_anchor(directory)] if "snp" in tees else []
    others = [tee for tee in TEES if tee in tees and tee != "snp"]
    if others:
        installation = Installation.open_or_create(directory)
        made += [_DEVICES[tee](installation, NOT_BEFORE).anchor for tee in others]
    return tuple(made)


def example(tee: str, report_data: bytes, *, at: datetime, directory: Path | None = None) -> Evidence:
    """Evidence in a vendor's format over ``report_data`` (64 bytes; for ``nvidia`` the 32 bytes of a nonce), good at ``at``,
    with all that is needed to verify it.
    """
    installation = Installation.open_or_create(directory)
    if tee == "snp":
        return _snp(installation, report_data)
    make = _DEVICES.get(tee)
    if make is None:
        raise ConfigurationError("tee", "no such device is simulated", hint=f"simulated: {', '.join(TEES)}")
    device = make(installation, at)
    data, endorsements = device.evidence(report_data)
    chain = Endorsements(
        device.anchor.certificates
    )  # As real evidence mostly carries its root; it is trusted for nothing.
    return Evidence(EvidencePart(tee, data), endorsements=endorsements.merge(chain))


def _snp(installation: Installation, report_data: bytes) -> Evidence:
    from confide.simulator.snp import Chip

    chip = Chip.power_on(installation)
    report = chip.report(report_data, manifest=_MANIFEST, debug=False, level=0)
    endorsements = Endorsements((chip.vcek, installation.ask, installation.ark), (installation.crl,))
    return Evidence(EvidencePart("snp", report), endorsements=endorsements)


def _key(installation: Installation, tee: str, curve: str, role: str) -> IssuingKey:
    """The key of one role, from the installation's secret. FIPS 186-5, A.2.1: 64 bits more than the order, reduced to 1 .. n-1."""
    info = f"confide/simulated/{tee}/1\0{role}".encode("ascii")
    wide = kdf.hkdf(installation.secret, salt=b"", info=info, length=64)
    return IssuingKey.from_scalar(int.from_bytes(wide, "big") % (CURVES[curve][2] - 1) + 1, curve=curve)


def _intel(tee: str, installation: Installation, at: datetime) -> Any:
    from confide.simulator import dcap, sgx, tdx

    keys = {role: _key(installation, tee, "p256", role) for role in dcap.ROLES}
    module = {"sgx": sgx, "tdx": tdx}[tee]
    return module.Platform.create(at=at, keys=keys, certificates=_LASTING)


def _nitro(installation: Installation, at: datetime) -> Any:
    from confide.simulator import nitro

    keys = {role: _key(installation, "nitro", "p384", role) for role in nitro.ROLES}
    return nitro.Platform.create(at=at, keys=keys, certificates=_LASTING)


def _tpm(installation: Installation, _: datetime) -> Any:
    from confide.simulator import tpm

    keys = {role: _key(installation, "tpm", "p256" if role == "ak" else "p384", role) for role in tpm.ROLES}
    return tpm.Platform.create(keys=keys)


def _nvidia(installation: Installation, _: datetime) -> Any:
    from confide.simulator import nvidia

    return nvidia.Platform.create(key=lambda role: _key(installation, "nvidia", "p384", role))


_DEVICES: Final[dict[str, Callable[[Installation, datetime], Any]]] = {
    "tdx": functools.partial(_intel, "tdx"),
    "sgx": functools.partial(_intel, "sgx"),
    "nitro": _nitro,
    "tpm": _tpm,
    "nvidia": _nvidia,
}
