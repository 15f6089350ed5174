# SPDX-License-Identifier: Apache-2.0
"""T12: verifying SEV-SNP evidence against the signatures that it cannot do without.

The chain is minted here with RSA-4096 and P-384 keys, as AMD's are, under a root of the benchmark's own. *Cold* evidence has a
certificate that this process has never seen; *warm* evidence has been verified before. The peer is the library's bare
verification of the same signatures with keys that are already loaded.
"""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from benchmarks import harness
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from confide.attestation.anchors import TrustAnchor
from confide.attestation.evidence import Endorsements, Evidence, EvidencePart
from confide.attestation.policy import AppraisalPolicy
from confide.attestation.verifier import Verifier
from confide.crypto import x509
from confide.crypto.issue import IssuingKey, issue
from confide.crypto.x509 import Extension
from confide.tees.snp import endorse, wire

if TYPE_CHECKING:
    from collections.abc import Callable

AT = datetime(2026, 6, 1, tzinfo=UTC)
FIRST, LAST = datetime(2025, 1, 1, tzinfo=UTC), datetime(2033, 1, 1, tzinfo=UTC)
CA_USAGE = frozenset({"key_cert_sign"})
TCB = bytes((10, 0, 0, 0, 0, 0, 23, 84))
CHIPS = 600  # More than any cache of verified chains holds, and each is used once a round.


def _ca(name: str, key: IssuingKey, issuer: IssuingKey, serial: int, path_length: int | None) -> bytes:
    return issue(
        subject=f"{name}-Genoa",
        issuer="ARK-Genoa",
        public_key=key.public_key_der,
        signing_key=issuer,
        serial=serial,
        not_before=FIRST,
        not_after=LAST,
        is_ca=True,
        path_length=path_length,
        key_usage=CA_USAGE,
    )


def _certificate(ask: IssuingKey, key: IssuingKey, serial: int) -> bytes:
    chip = serial.to_bytes(64, "big")
    levels = {"BL": TCB[0], "TEE": TCB[1], "SNP": TCB[6], "UCODE": TCB[7]}
    values = {getattr(endorse, f"OID_{name}_SPL"): bytes((2, 1, level)) for name, level in levels.items()}
    values |= {
        endorse.OID_STRUCT_VERSION: b"\x02\x01\x00",
        endorse.OID_PRODUCT_NAME: b"\x16\x05Genoa",
        endorse.OID_HWID: chip,
    }
    return issue(
        subject="SEV-VCEK",
        issuer="SEV-Genoa",
        public_key=key.public_key_der,
        signing_key=ask,
        serial=serial,
        not_before=FIRST,
        not_after=LAST,
        is_ca=False,
        extensions={oid: Extension(critical=False, value=value) for oid, value in values.items()},
    )


def _report(key: IssuingKey, serial: int) -> bytes:
    firmware = wire.VersionNumber(build=1, minor=55, major=1)
    body = wire.ReportV3(
        version=3,
        guest_svn=0,
        policy=0x3001F,
        family_id=bytes(16),
        image_id=bytes(16),
        vmpl=0,
        signature_algo=1,
        current_tcb=TCB,
        platform_info=0x25,
        key_info=0,
        report_data=bytes(64),
        measurement=b"\x01" * 48,
        host_data=bytes(32),
        id_key_digest=bytes(48),
        author_key_digest=bytes(48),
        report_id=bytes(32),
        report_id_ma=bytes(32),
        reported_tcb=TCB,
        cpuid_fam_id=0x19,
        cpuid_mod_id=0x11,
        cpuid_step=1,
        chip_id=serial.to_bytes(64, "big"),
        committed_tcb=TCB,
        current_version=firmware,
        committed_version=firmware,
        launch_tcb=TCB,
        signature=wire.Signature(r=bytes(72), s=bytes(72)),
    ).encode()
    r, s = key.sign_ecdsa(body[: wire.SIGNED_BYTES])
    signature = r.to_bytes(72, "little") + s.to_bytes(72, "little")
    return body[: wire.SIGNED_BYTES] + signature + bytes(368)


def _raw(chain: list[bytes], key: IssuingKey, report: bytes) -> tuple[Callable[[], None], Callable[[], None]]:
    """The bare verifications: all four, and the report's alone."""
    certificates = [x509.Certificate.from_der(der) for der in chain]
    links: list[tuple[rsa.RSAPublicKey, bytes, bytes]] = []
    for signed, issuer in zip(certificates, (*certificates[1:], certificates[-1]), strict=True):
        public = serialization.load_der_public_key(issuer.public_key_der)
        if not isinstance(public, rsa.RSAPublicKey):
            raise TypeError("an AMD-shaped chain is signed with RSA")
        links.append((public, signed.signed.signature, signed.signed.tbs))
    pss = padding.PSS(padding.MGF1(hashes.SHA384()), 48)
    own = serialization.load_der_public_key(key.public_key_der)
    if not isinstance(own, ec.EllipticCurvePublicKey):
        raise TypeError("a report is signed with ECDSA")
    start = wire.SIGNED_BYTES
    r, s = (int.from_bytes(report[start + at : start + at + 72], "little") for at in (0, 72))
    signature, message = utils.encode_dss_signature(r, s), report[:start]

    def one() -> None:
        own.verify(signature, message, ec.ECDSA(hashes.SHA384()))

    def every() -> None:
        for public, value, tbs in links:
            public.verify(value, tbs, pss, hashes.SHA384())
        one()

    return every, one


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    options = harness.parser(__doc__ or "").parse_args(arguments)
    ark_key, ask_key, key = IssuingKey.generate_rsa(), IssuingKey.generate_rsa(), IssuingKey.generate_p384()
    ark = _ca("ARK", ark_key, ark_key, 1, None)
    ask = _ca("SEV", ask_key, ark_key, 2, 0)
    bundles = []
    for serial in range(1000, 1000 + CHIPS):
        certificate = _certificate(ask_key, key, serial)
        part = EvidencePart("snp", _report(key, serial))
        bundles.append(Evidence(part, endorsements=Endorsements((certificate,))))
    table = {"tees": ["snp"], "reference": {"snp": {"measurement": ["01" * 48]}}}
    anchor = TrustAnchor("snp", "Genoa", (ark, ask))
    verifier = Verifier(AppraisalPolicy.from_table(table), extra_anchors=(anchor,))
    first = bundles[0]
    every, one = _raw([first.endorsements.certificates[0], ask, ark], key, first.platform.data)
    unseen = itertools.cycle(bundles[1:])
    measured = harness.interleave(
        {
            "cold": lambda: verifier.verify(next(unseen), at=AT),
            "warm": lambda: verifier.verify(first, at=AT),
            "every": every,
            "one": one,
        },
        repetitions=options.repetitions,
        calls=60,
    )
    report = harness.Report("T12: verify SEV-SNP evidence, against its bare signature checks")
    report.ratio(
        "T12", "cold, against 3 RSA and 1 P-384", measured["cold"].cpu, measured["every"].cpu, at_most=1.35
    )
    report.ratio("T12", "warm, against 1 P-384", measured["warm"].cpu, measured["one"].cpu, at_most=1.15)
    report.show(as_json=options.json)


if __name__ == "__main__":
    main()
