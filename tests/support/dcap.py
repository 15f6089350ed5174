# SPDX-License-Identifier: Apache-2.0
"""Simulated and real quotes of SGX and TDX, and what `authenticate` says of them.

codes = dcap.refused(dcap.platform("tdx"), header={"version": 6})        # one field away from a case that passes
claims = dcap.accepted(dcap.platform("sgx"))
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from confide.attestation.evidence import Endorsements, EvidencePart
from confide.errors import AttestationError, ConfideError
from confide.simulator import dcap, sgx, tdx
from confide.tees.sgx import authenticate as sgx_authenticate
from confide.tees.sgx import endorse as sgx_endorse
from confide.tees.tdx import authenticate as tdx_authenticate
from confide.tees.tdx import endorse as tdx_endorse

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from confide.attestation.anchors import TrustAnchor
    from confide.attestation.claims import Claims

AT = dcap.AT
REPORT_DATA = bytes(range(64))
TEES = ("sgx", "tdx")

# Offsets in bytes: of the report data of an SGX quote (version 3) and of a TDX quote (version 4).
REPORT_DATA_OFFSET = {"sgx": 48 + 320, "tdx": 48 + 520}
SIGNED = {"sgx": 48 + 384, "tdx": 48 + 584}


@functools.cache
def platform(tee: str, seed: int = 1, ca: str = "platform") -> dcap.Platform:
    """A reproducible platform of one of the two TEEs."""
    made: type[dcap.Platform] = {"sgx": sgx.Platform, "tdx": tdx.Platform}[tee]
    return made.create(seed=seed, ca=ca)


def changed(tee: str, **arguments: Any) -> dcap.Platform:
    """The platform of seed 1, created with other arguments."""
    made: type[dcap.Platform] = {"sgx": sgx.Platform, "tdx": tdx.Platform}[tee]
    return made.create(seed=1, **arguments)


def authenticate(
    tee: str,
    data: bytes,
    endorsements: Endorsements,
    anchors: tuple[TrustAnchor, ...],
    at: datetime = AT,
) -> Claims:
    """`authenticate` of the named TEE."""
    check = {"sgx": sgx_authenticate.authenticate, "tdx": tdx_authenticate.authenticate}[tee]
    return check(data, endorsements=endorsements, anchors=anchors, at=at, require_revocation=False)


def intel(tee: str) -> tuple[TrustAnchor, ...]:
    """Intel's own root."""
    return sgx_endorse.anchors() if tee == "sgx" else tdx_endorse.anchors()


def accepted(
    made: dcap.Platform,
    *,
    at: datetime = AT,
    collateral: Mapping[str, Any] | None = None,
    endorsements: Endorsements | None = None,
    anchors: tuple[TrustAnchor, ...] | None = None,
    **quote: Any,
) -> Claims:
    """The claims over a minted quote."""
    data, own = made.evidence(REPORT_DATA, collateral=collateral, **quote)
    return authenticate(made.TEE, data, endorsements or own, anchors or (made.anchor,), at)


def codes(error: ConfideError) -> list[str]:
    """The codes of everything that was found, the first one first."""
    if isinstance(error, AttestationError):
        return [reason.code for reason in error.reasons]
    return [error.code]


def refused(made: dcap.Platform, **changes: Any) -> list[str]:
    """The codes of the refusal of a case that passes without ``changes`` (those of ``accepted``)."""
    accepted(platform(made.TEE))
    try:
        accepted(made, **changes)
    except ConfideError as error:
        return codes(error)
    return ["accepted"]


def judged(tee: str, data: bytes, endorsements: Endorsements, anchors: tuple[TrustAnchor, ...]) -> list[str]:
    """The codes of the refusal of given bytes, or ["accepted"]."""
    try:
        authenticate(tee, data, endorsements, anchors)
    except ConfideError as error:
        return codes(error)
    return ["accepted"]


def document(data: bytes) -> Endorsements:
    """One collateral document as endorsements."""
    return Endorsements(documents=(EvidencePart("intel-collateral", data),))


@dataclass(frozen=True)
class Run:
    """A real quote with its collateral at its documented time, and what was documented of it."""

    name: str
    tee: str
    data: bytes
    collateral: bytes
    at: datetime
    dcap_qvl: str
    advisory_ids: tuple[str, ...]
    independent: dict[str, str | None]

    def claims(self, data: bytes | None = None) -> Claims:
        """The claims over the quote, or over other bytes in its place."""
        return authenticate(
            self.tee, self.data if data is None else data, document(self.collateral), intel(self.tee), self.at
        )


def runs(shared: Path) -> tuple[Run, ...]:
    """Every run of a real quote with real collateral."""
    evidence = shared / "evidence"
    found: list[Run] = []
    for entry in json.loads((evidence / "manifest.json").read_text())["entries"]:
        for run in entry["facts"].get("collateral_runs", []):
            quote = next(name for name in entry["files"] if name.endswith(".quote.bin"))
            found.append(
                Run(
                    name=f"{entry['id']} {run['verify_at'][:10]}",
                    tee=entry["tee"],
                    data=(evidence / quote).read_bytes(),
                    collateral=(evidence / run["collateral"]).read_bytes(),
                    at=datetime.fromisoformat(run["verify_at"]),
                    dcap_qvl=run["dcap_qvl_0_7_0"],
                    advisory_ids=tuple(run["advisory_ids"]),
                    independent=run["independent"],
                )
            )
    return tuple(found)


def run(shared: Path, name: str) -> Run:
    """The first run whose name begins so."""
    return next(one for one in runs(shared) if one.name.startswith(name))


def quote_bytes(shared: Path, name: str) -> bytes:
    """The bytes of a real quote, by its path under the folder of evidence."""
    return (shared / "evidence" / name).read_bytes()
