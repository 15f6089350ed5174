# SPDX-License-Identifier: Apache-2.0
"""Verifying TDX and SGX quotes, beside `dcap-qvl` (Rust) on the same quotes and collateral in the same run; one thread.

Known: collateral and platform have been seen before, as with every quote after the first of a machine; two signatures are
left. New platform: the collateral has been seen, the PCK certificate and the attestation key have not; three signatures are
left, and a certificate to read. Cold: nothing is remembered. `dcap-qvl` remembers nothing and gets the collateral
already parsed. Ours is the whole `Verifier.verify`, policy included, and `authenticate` alone. With ../shared beside the
checkout the known quotes are real ones, otherwise simulated.
"""

from __future__ import annotations

import functools
import importlib
import itertools
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks import harness

from confide.attestation.evidence import Endorsements, Evidence, EvidencePart
from confide.attestation.policy import AppraisalPolicy
from confide.attestation.verifier import Verifier
from confide.crypto import signing, x509, x509_path
from confide.simulator import dcap as simulator
from confide.simulator import sgx, tdx
from confide.tees._dcap import chain, collateral, pck, selection, verify
from confide.tees.sgx import authenticate as sgx_authenticate
from confide.tees.tdx import authenticate as tdx_authenticate

dcap_qvl: Any = importlib.import_module("dcap_qvl")

SHARED = Path(__file__).parents[2] / "shared" / "evidence"
REAL = {
    "tdx": ("v4-uptodate", "v4-uptodate.collateral-eval17", "2025-07-04T10:16:31+00:00"),
    "sgx": (
        "v3-config-and-hardening",
        "v3-config-and-hardening.collateral-eval17",
        "2025-07-04T10:28:44+00:00",
    ),
}
PLATFORMS: dict[str, type[simulator.Platform]] = {"tdx": tdx.Platform, "sgx": sgx.Platform}
AUTHENTICATE: dict[str, Any] = {"tdx": tdx_authenticate, "sgx": sgx_authenticate}
POLICIES = {
    "tdx": {"mrtd": "ANY"},
    "sgx": {"mrenclave": "ANY"},
}
MACHINES = 600


def _forget() -> None:
    for module in (chain, collateral, pck, selection, verify, signing, x509, x509_path):
        for entry in dir(module):
            clear = getattr(getattr(module, entry), "cache_clear", None)
            if clear is not None:
                clear()


def _verifier(tee: str, platform: simulator.Platform) -> Verifier:
    policy = AppraisalPolicy.from_table(
        {
            "tees": [tee],
            "tcb_status": ["UpToDate", "ConfigurationAndSWHardeningNeeded"],
            "reference": {tee: POLICIES[tee]},
        }
    )
    return Verifier(policy, extra_anchors=(platform.anchor,), allow_simulated=True)


def _known(tee: str, platform: simulator.Platform) -> tuple[bytes, bytes, datetime, bytes | None]:
    """Quote, collateral, time, and the root (None: Intel's)."""
    quote, document, moment = REAL[tee]
    if SHARED.is_dir():
        data = (SHARED / tee / f"{quote}.quote.bin").read_bytes()
        return data, (SHARED / tee / f"{document}.json").read_bytes(), datetime.fromisoformat(moment), None
    return platform.quote(bytes(64)), platform.collateral(), simulator.AT, platform.certificates["root"]


def _strangers(tee: str, platform: simulator.Platform) -> list[bytes]:
    """Quotes of machines that have nothing in common but the authority."""
    shared = {role: key for role, key in platform.keys.items() if role not in {"pck", "attestation"}}
    made = [PLATFORMS[tee].create(keys=shared) for _ in range(MACHINES)]
    return [one.quote(bytes(64), chain=(one.certificates["pck"], *platform.chain[1:])) for one in made]


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    options = harness.parser(__doc__ or "").parse_args(arguments)
    result = harness.Report("Verification of TDX and SGX quotes, beside dcap-qvl")
    for tee in ("tdx", "sgx"):
        platform = PLATFORMS[tee].create(seed=1)
        verifier = _verifier(tee, platform)
        data, document, at, root = _known(tee, platform)
        endorsements = Endorsements(documents=(EvidencePart("intel-collateral", document),))
        evidence = Evidence(EvidencePart(tee, data), endorsements=endorsements)
        peer = dcap_qvl.QuoteCollateralV3.from_json(document.decode())
        anchors = (*chain.anchors(tee), platform.anchor)
        authenticate = functools.partial(
            AUTHENTICATE[tee].authenticate,
            data,
            endorsements=endorsements,
            anchors=anchors,
            at=at,
            require_revocation=True,
        )

        def qvl(data: bytes = data, peer: Any = peer, root: bytes | None = root, at: datetime = at) -> object:
            if root is None:
                return dcap_qvl.verify(data, peer, int(at.timestamp()))
            return dcap_qvl.verify_with_root_ca(data, peer, root, int(at.timestamp()))

        simulated = platform.collateral()
        simulated_peer = dcap_qvl.QuoteCollateralV3.from_json(simulated.decode())
        beside = Endorsements(documents=(EvidencePart("intel-collateral", simulated),))
        strangers = _strangers(tee, platform)
        ours, theirs = itertools.cycle(strangers), itertools.cycle(strangers)

        def stranger(
            ours: Any = ours, tee: str = tee, beside: Endorsements = beside, verifier: Verifier = verifier
        ) -> object:
            evidence = Evidence(EvidencePart(tee, next(ours)), endorsements=beside)
            return verifier.verify(evidence, at=simulator.AT)

        def qvl_stranger(
            theirs: Any = theirs, peer: Any = simulated_peer, root: bytes = platform.certificates["root"]
        ) -> object:
            return dcap_qvl.verify_with_root_ca(next(theirs), peer, root, int(simulator.AT.timestamp()))

        def cold(verifier: Verifier = verifier, evidence: Evidence = evidence, at: datetime = at) -> object:
            _forget()
            return verifier.verify(evidence, at=at)

        measured = harness.interleave(
            {
                "known": functools.partial(verifier.verify, evidence, at=at),
                "authenticate": authenticate,
                "qvl": qvl,
                "new": stranger,
                "qvl new": qvl_stranger,
            },
            repetitions=options.repetitions,
            calls=40,
            warm_up=1,
        )
        kind = "real" if root is None else "simulated"
        name = tee.upper()
        for ours_name, peer_name, what in (
            ("known", "qvl", f"{name} known platform, {kind} quote, whole verify"),
            ("authenticate", "qvl", f"{name} known platform, {kind} quote, authenticate"),
            ("new", "qvl new", f"{name} new platform, simulated quotes, whole verify"),
        ):
            result.ratio("speed", what, measured[ours_name].cpu, measured[peer_name].cpu, at_least=0.5)
        once = harness.interleave({"cold": cold, "qvl": qvl}, repetitions=options.repetitions, calls=5)
        result.ratio("speed", f"{name} cold, {kind} quote", once["cold"].cpu, once["qvl"].cpu, at_least=0.1)
    result.show(as_json=options.json)


if __name__ == "__main__":
    main()
