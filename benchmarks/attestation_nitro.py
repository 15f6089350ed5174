# SPDX-License-Identifier: Apache-2.0
"""Verifying a Nitro document, against the sum of the signature checks that it cannot do without; verifications a second.

Cold: nothing is remembered; the floor is five ECDSA P-384 checks (four links of the chain and the document). New leaf: the CAs
have been seen, the document's own certificate has not, as with each new enclave; the floor is two. Warm: another document of
the same enclave; the floor is one. All by the whole `Verifier.verify`, policy included. Peer: the same signatures checked by
calling `cryptography` directly. The documents are simulated ones: AWS's format and curve, 4 KB.
"""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

from benchmarks import harness
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from confide.attestation.evidence import Evidence, EvidencePart
from confide.attestation.policy import AppraisalPolicy
from confide.attestation.verifier import Verifier
from confide.crypto import x509_path
from confide.crypto.issue import IssuingKey, issue
from confide.simulator.nitro import AT, Platform, name
from confide.tees.nitro import authenticate, wire
from confide.wire import cbor

LEAVES = 400


def _forget() -> None:
    for module in (authenticate, x509_path):
        for entry in dir(module):
            clear = getattr(getattr(module, entry), "cache_clear", None)
            if clear is not None:
                clear()


def _other_leaf(platform: Platform, serial: int) -> bytes:
    """A document of another enclave on the same instance."""
    key = IssuingKey.from_scalar(100_000 + serial)
    certificate = issue(
        subject=name("leaf"),
        issuer=name("instance"),
        public_key=key.public_key_der,
        signing_key=platform.chain[-2].key,
        serial=1000 + serial,
        not_before=AT - timedelta(seconds=3),
        not_after=AT + timedelta(hours=3),
        is_ca=False,
        key_usage=frozenset({"digital_signature"}),
    )
    return platform.document(bytes(64), certificate=certificate, key=key)


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    options = harness.parser(__doc__ or "").parse_args(arguments)
    platform = Platform.create(seed=1)
    documents = itertools.cycle([platform.document(bytes(63) + bytes((index,))) for index in range(64)])
    # More leaves than any cache keeps, so that each comes back as a new one.
    leaves = itertools.cycle([_other_leaf(platform, serial) for serial in range(LEAVES)])
    verifier = Verifier(
        AppraisalPolicy.from_toml(
            f'tees = ["nitro"]\n[reference.nitro]\npcr0 = ["{platform.pcrs[0].hex()}"]\n'
        ),
        extra_anchors=(platform.anchor,),
        allow_simulated=True,
    )

    def verify(document: bytes) -> None:
        verifier.verify(Evidence(EvidencePart("nitro", document)), at=AT)

    first = wire.decode_document(next(documents))
    chain = [x509.load_der_x509_certificate(one.der) for one in reversed(platform.chain)]
    signature = encode_dss_signature(
        int.from_bytes(first.sign1.signature[:48], "big"), int.from_bytes(first.sign1.signature[48:], "big")
    )
    message = cbor.encode(["Signature1", first.sign1.protected_bytes, b"", first.sign1.payload])

    def raw_links(count: int) -> None:
        for certificate, issuer in itertools.islice(itertools.pairwise(chain), count):
            key: Any = issuer.public_key()
            key.verify(certificate.signature, certificate.tbs_certificate_bytes, ec.ECDSA(hashes.SHA384()))

    def raw_document(links: int) -> None:
        raw_links(links)
        leaf: Any = chain[0].public_key()
        leaf.verify(signature, message, ec.ECDSA(hashes.SHA384()))

    def cold() -> None:
        _forget()
        verify(next(documents))

    measured = harness.interleave(
        {
            "cold": cold,
            "raw chain": lambda: raw_document(4),
            "new leaf": lambda: verify(next(leaves)),
            "raw leaf": lambda: raw_document(1),
            "warm": lambda: verify(next(documents)),
            "raw document": lambda: raw_document(0),
        },
        repetitions=options.repetitions,
        calls=40,
        warm_up=2,
    )
    result = harness.Report("Nitro verification, policy included")
    result.ratio("cold", "cold", measured["cold"].cpu, measured["raw chain"].cpu, at_most=1.35)
    result.ratio("new leaf", "new leaf", measured["new leaf"].cpu, measured["raw leaf"].cpu, at_most=1.75)
    result.ratio("warm", "warm", measured["warm"].cpu, measured["raw document"].cpu, at_most=1.75)
    result.show(as_json=options.json)


if __name__ == "__main__":
    main()
