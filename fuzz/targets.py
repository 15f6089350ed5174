# SPDX-License-Identifier: Apache-2.0
"""What is fuzzed: every function that is given bytes by somebody who may be hostile.

A target takes any bytes and may raise ``ConfideError`` and nothing else, within a second of its thread's time. What it returns
is looked at where it promises something (``_same``: what is decoded encodes to the same bytes).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from confide.attestation import binding, corim, ear, reference
from confide.attestation.anchors import TrustAnchor
from confide.attestation.evidence import Endorsements, Evidence, EvidencePart
from confide.attestation.key_material import KeyMaterial
from confide.attestation.policy import AppraisalPolicy
from confide.attestation.result import Tier
from confide.attestation.tokens import wire as token
from confide.attestation.verifier import Verifier
from confide.crypto import cose, jose, ocsp, pem, x509
from confide.errors import ConfideError
from confide.tees import cache, fetch, formats, pcs
from confide.tees._dcap import collateral, pck
from confide.tees._tcg import dstack, log
from confide.tees.nitro import wire as nitro
from confide.tees.nvidia import endorse as nvidia_endorse
from confide.tees.nvidia import rim
from confide.tees.nvidia import wire as nvidia
from confide.tees.sgx import endorse as sgx_endorse
from confide.tees.sgx import wire as sgx
from confide.tees.snp import endorse as snp_endorse
from confide.tees.snp import wire as snp
from confide.tees.tdx import endorse as tdx_endorse
from confide.tees.tdx import wire as tdx
from confide.tees.tpm import azure, hcl
from confide.tees.tpm import wire as tpm
from confide.wire import cbor, der, strict_json

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TARGETS", "Target"]

AT: Final = datetime(2026, 6, 1, tzinfo=UTC)


class Wrong(Exception):
    """A target returned something that it must not return."""


@dataclass(frozen=True, slots=True)
class Target:
    """``run`` is given bytes of at most ``max_len``; ``ascii`` tells the fuzzer that text is more likely to get far."""

    run: Callable[[bytes], object]
    max_len: int = 4096
    ascii: bool = False


def _all(
    *functions: Callable[[bytes], object], also: Callable[[bytes], object] | None = None
) -> Callable[[bytes], object]:
    """Each of them in turn, whatever the others make of the bytes; refused if all of them refuse. ``also`` has no say in it."""

    def run(data: bytes) -> object:
        if also is not None:
            also(data)
        refusals: list[ConfideError] = []
        for function in functions:
            try:
                function(data)
            except ConfideError as error:
                refusals.append(error)
        if len(refusals) == len(functions):
            raise refusals[0]
        return None

    return run


def _same(data: bytes, encoded: bytes) -> None:
    if encoded != data:
        raise Wrong("what was decoded encodes to other bytes")


def _cbor(data: bytes) -> None:
    _same(data, cbor.encode(cbor.decode(data, what="fuzz", max_size=1 << 16)))
    cbor.decode(data, what="fuzz", max_size=1 << 16, deterministic=False, tags=frozenset({18}), floats=True)


def _der(data: bytes) -> None:
    pending = [der.decode(data, what="fuzz", max_size=1 << 16)]
    _same(data, pending[0].encoded)
    for _ in range(1000):
        if not pending:
            return
        element = pending.pop()
        for read in (
            element.integer,
            element.oid,
            element.octets,
            element.boolean,
            element.ia5,
            element.bits,
        ):
            try:
                read()
            except ConfideError:
                continue
        try:
            pending += element.children()
        except ConfideError:
            continue


def _bundle(data: bytes) -> None:
    evidence = Evidence.decode(data)
    _same(data, evidence.encode())
    formats.explain(evidence)


def _endorsements(data: bytes) -> None:
    _same(data, Endorsements.decode(data).encode())


def _key_material(data: bytes) -> None:
    _same(data, KeyMaterial.decode(data).encode())


def _snp(data: bytes) -> None:
    snp.decode_report(data)
    snp_endorse.explain(data)
    for product in ("Milan", "Genoa", "Turin"):
        snp_endorse.certificate_url(snp.decode_report(data), product=product)


def _certificate(data: bytes) -> None:
    certificate = x509.Certificate.from_der(data)
    _same(data, certificate.der)
    for read in (
        lambda: certificate.key_kind,
        lambda: certificate.spki_sha256,
        lambda: snp_endorse.read_key_certificate(certificate),
        lambda: pck.read_pck(certificate),
        lambda: nvidia_endorse.read_device_certificate(certificate),
        lambda: x509.verify_chain(certificate, (certificate,), (certificate,), at=AT),
    ):
        try:
            read()
        except ConfideError:
            continue


def _crl(data: bytes) -> None:
    x509.Crl.from_bytes(data)


def _pem(data: bytes) -> None:
    certificates, crls = x509.parse_documents(data)
    text = fetch.pem_text(tuple(one.der for one in certificates), tuple(one.der for one in crls))
    if x509.parse_documents(text.encode()) != (certificates, crls):
        raise Wrong("what was read is not what is written")


def _ear(data: bytes) -> None:
    claims = strict_json.decode(data, what="EAR", max_size=1 << 16)
    if isinstance(claims, dict):
        ear.read(claims)


def _ear_cbor(data: bytes) -> None:
    ear.read(ear.from_cbor(data))


def _policy(data: bytes) -> None:
    policy = AppraisalPolicy.from_toml(data)
    if AppraisalPolicy.from_toml(policy.to_toml()).digest != policy.digest:
        raise Wrong("a policy is not the one that was read")


def _collateral(data: bytes) -> None:
    collateral.read(data)


def _service(data: bytes) -> None:
    answer = fetch.Answer(
        data,
        {
            "tcb-info-issuer-chain": data.decode("latin-1"),
            "sgx-enclave-identity-issuer-chain": data.decode("latin-1"),
            "sgx-pck-crl-issuer-chain": data.decode("latin-1"),
        },
    )
    pcs.collateral(answer, answer, answer, answer)


def _next_update(data: bytes) -> None:
    _all(lambda one: pcs.next_update(one, "tcbInfo"), lambda one: pcs.next_update(one, "enclaveIdentity"))(
        data
    )


def _cached(data: bytes) -> None:
    cache._decode(data, fetch.Request("https://vendor.example/"), AT)  # noqa: SLF001


def _any(data: bytes) -> None:
    """Any file through everything that `confide verify` and `inspect` do with it."""
    evidence = formats.read(data)
    formats.explain(evidence)
    _VERIFIER.verify(evidence, at=AT)


def _part(format_: str) -> Callable[[bytes], object]:
    """One vendor's bytes through the whole of verification."""

    def run(data: bytes) -> object:
        return _VERIFIER.verify(Evidence(EvidencePart(format_, data)), at=AT)

    return run


_VERIFIER: Final = Verifier(
    AppraisalPolicy.from_table(
        {
            "tees": ["snp", "tdx", "sgx", "nitro"],
            "reference": {
                "snp": {"measurement": "ANY"},
                "tdx": {"mrtd": "ANY"},
                "sgx": {"mrenclave": "ANY"},
                "nitro": {"pcr0": "ANY"},
            },
        }
    )
)


def _simulated_roots() -> tuple[TrustAnchor, ...]:
    """The roots under which the seeds of ``verify`` were made; their keys were thrown away."""
    return tuple(
        TrustAnchor(one["tee"], one["name"], tuple(map(bytes.fromhex, one["certificates"])), simulated=True)
        for one in json.loads((Path(__file__).parent / "roots.json").read_text())
    )


_SIMULATED: Final = Verifier(
    AppraisalPolicy.from_table(
        {
            "tees": ["snp", "tdx", "sgx", "nitro"],
            "reference": {
                "snp": {"measurement": "ANY"},
                "tdx": {"mrtd": "ANY"},
                "sgx": {"mrenclave": "ANY"},
                "nitro": {"pcr0": "ANY"},
            },
        }
    ),
    extra_anchors=_simulated_roots(),
    allow_simulated=True,
)
_DEVICES: Final = Verifier(
    AppraisalPolicy.from_table(
        {"tees": ["tpm", "nvidia"], "reference": {"tpm": {"pcr": "ANY"}, "nvidia": {"rim": "required"}}}
    ),
    extra_anchors=_simulated_roots(),
    allow_simulated=True,
)
# All seeds are made over these bytes, of which a GPU's nonce takes the first 32.
REPORT_DATA: Final = bytes(range(64))


def _verify(data: bytes) -> None:
    """Bundles under roots that are trusted: what is accepted must still say what the seeds say."""
    evidence = Evidence.decode(data)
    verifier = _DEVICES if evidence.platform.format in {"tpm", "nvidia"} else _SIMULATED
    result = verifier.verify(evidence, at=AT)
    expected = {
        "tpm": binding.tpm_qualifying_data(REPORT_DATA),
        "nvidia": REPORT_DATA[:32],
    }.get(result.tee, REPORT_DATA)
    if result.claims.report_data not in {expected, REPORT_DATA} or result.tier is not Tier.CONTRAINDICATED:
        raise Wrong("evidence was accepted that nobody made")


TARGETS: Final[dict[str, Target]] = {
    "any": Target(_any, 8192),
    "azure": Target(_all(azure.read_azure, also=azure.recognises), 16384, ascii=True),
    "bundle": Target(_bundle, 8192),
    "cache": Target(_cached),
    "cbor": Target(_cbor),
    "certificate": Target(_certificate),
    "certificate_table": Target(_all(snp.read_certificate_table, formats.read_certificate_table)),
    "collateral": Target(_collateral, 32768, ascii=True),
    "corim": Target(_all(lambda data: corim.read(data, at=AT), lambda data: reference.read(data, at=AT))),
    "cose": Target(
        lambda data: cose.Sign1.decode(
            data,
            algorithms=frozenset({cose.ES256, cose.ES384, cose.PS256}),
            what="fuzz",
            max_size=1 << 16,
            vendor=True,
            allow_tag=True,
            allow_unprotected=True,
        )
    ),
    "crl": Target(_crl),
    "der": Target(_der),
    "dstack_log": Target(lambda data: dstack.read(data, max_size=1 << 16, max_events=1000), ascii=True),
    "ear": Target(_all(_ear, _ear_cbor)),
    "endorsements": Target(_endorsements, 8192),
    "event_log": Target(log.read, 8192),
    "hcl": Target(_all(hcl.decode_hcl, hcl.decode_claims, hcl.explain)),
    "jwks": Target(jose.read_jwks, ascii=True),
    "json": Target(lambda data: strict_json.decode(data, what="fuzz", max_size=1 << 16), ascii=True),
    "key_material": Target(_key_material),
    "nitro": Target(
        _all(
            nitro.explain,
            lambda data: nitro.decode_document(nitro.unframe(data)),
            _part("nitro"),
            also=nitro.recognises,
        ),
        16384,
    ),
    "nvidia": Target(_all(nvidia.explain, nvidia_endorse.urls, also=nvidia.recognises), 8192),
    "nvidia_rim": Target(_all(rim.parse, also=rim.recognises), 32768, ascii=True),
    "ocsp": Target(ocsp.Response.from_der),
    "pcs": Target(_all(_service, _next_update, nvidia_endorse.read_rim_answer), ascii=True),
    "pem": Target(
        _all(_pem, lambda data: pem.blocks(data, "CERTIFICATE", max_size=4096, max_count=8)), 8192, ascii=True
    ),
    "policy": Target(_policy, ascii=True),
    "quote_sgx": Target(_all(sgx.explain, sgx_endorse.urls, _part("sgx"), also=sgx.recognises), 8192),
    "quote_tdx": Target(_all(tdx.explain, tdx_endorse.urls, _part("tdx"), also=tdx.recognises), 8192),
    "snp": Target(_all(_snp, snp.decode_report_response, _part("snp")), 4096),
    "token": Target(_all(token.decode, token.explain, also=token.recognises), 8192, ascii=True),
    "verify": Target(_verify, 24576),
    "tpm": Target(_all(tpm.explain, tpm.decode_attest, tpm.decode_signature, also=tpm.recognises), 8192),
}
