# SPDX-License-Identifier: Apache-2.0
"""T12: verifying an SEV-SNP report, against the sum of the signature checks that it cannot do without.

Cold: nothing is remembered; the floor is three RSA-4096 PSS checks (root, ASK, VCEK) and one ECDSA P-384 over the report. Warm:
the chain has been seen before; the floor is the report's signature alone. Both by the whole `Verifier.verify`, policy included. Peer:
the same signatures checked by calling `cryptography` directly. The report is a simulated one: AMD's format, RSA-4096 CAs.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import harness
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from confide.attestation.evidence import Endorsements, Evidence, EvidencePart
from confide.attestation.policy import AppraisalPolicy
from confide.attestation.verifier import Verifier
from confide.crypto import x509_path
from confide.simulator.installation import Installation
from confide.simulator.snp import Chip
from confide.tees.snp import authenticate, wire

AT = datetime(2026, 6, 1, tzinfo=UTC)


def _forget() -> None:
    for module in (authenticate, x509_path):
        for name in dir(module):
            clear = getattr(getattr(module, name), "cache_clear", None)
            if clear is not None:
                clear()


def _openssl_speed() -> float | None:
    """P-384 verifications a second by OpenSSL's own program, or None where it is not installed."""
    if shutil.which("openssl") is None:
        return None
    printed = subprocess.run(
        ["openssl", "speed", "-seconds", "2", "-mr", "ecdsap384"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    # A line of its machine-readable form has the key's index and bits, then signatures and verifications a second.
    found = re.search(r"^\+F4:\d+:384:[^:]+:([0-9.]+)$", printed, re.MULTILINE)
    return None if found is None else float(found[1])


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    options = harness.parser(__doc__ or "").parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        installation = Installation.open_or_create(Path(folder) / "simulator")
        chip = Chip.power_on(installation)
        manifest = b"a manifest"
        report = chip.report(os.urandom(64), manifest=manifest, debug=False, level=3)
    decoded = wire.decode_report(report)
    endorsements = Endorsements(certificates=(chip.vcek, installation.ask))
    evidence = Evidence(platform=EvidencePart("snp", report), endorsements=endorsements)
    verifier = Verifier(
        AppraisalPolicy.from_toml(
            f'tees = ["snp"]\n[reference.snp]\nmeasurement = ["{decoded.measurement.hex()}"]\n'
        ),
        extra_anchors=(installation.anchor,),
        allow_simulated=True,
    )
    root, ask, vcek = (
        x509.load_der_x509_certificate(der) for der in (installation.ark, installation.ask, chip.vcek)
    )
    signature = encode_dss_signature(
        int.from_bytes(decoded.signature.r, "little"), int.from_bytes(decoded.signature.s, "little")
    )

    def check(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
        key: Any = issuer.public_key()
        pss = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)
        key.verify(certificate.signature, certificate.tbs_certificate_bytes, pss, hashes.SHA384())

    chip_key: Any = vcek.public_key()

    def raw_report() -> None:
        chip_key.verify(signature, report[: wire.SIGNED_BYTES], ec.ECDSA(hashes.SHA384()))

    def raw_chain() -> None:
        check(root, root)
        check(ask, root)
        check(vcek, ask)
        raw_report()

    def cold() -> None:
        _forget()
        verifier.verify(evidence, at=AT)

    measured = harness.interleave(
        {
            "cold": cold,
            "raw chain": raw_chain,
            "warm": lambda: verifier.verify(evidence, at=AT),
            "raw report": raw_report,
        },
        repetitions=options.repetitions,
        calls=40,
        warm_up=2,
    )
    # "warm" runs right after "cold" and "raw chain", so its chain is remembered.
    result = harness.Report("T12: SEV-SNP verification, policy included")
    result.ratio("T12", "cold", measured["cold"].cpu, measured["raw chain"].cpu, at_most=1.35)
    result.ratio("T12", "warm", measured["warm"].cpu, measured["raw report"].cpu, at_most=1.15)
    speed = _openssl_speed()
    if speed is not None:
        # At least 1,000 a second where OpenSSL makes 3,000: at most three times as long.
        what = (
            f"warm, against `openssl speed ecdsap384` ({speed:.0f}/s); ours {1 / measured['warm'].cpu:.0f}/s"
        )
        result.ratio("speed", what, measured["warm"].cpu, 1 / speed, at_most=3.0)
    result.show(as_json=options.json)


if __name__ == "__main__":
    main()
