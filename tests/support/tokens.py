# SPDX-License-Identifier: Apache-2.0
"""Issuers of tokens for attack tests: a passing token of each kind, of which a test changes one thing."""

from __future__ import annotations

import base64
import copy
import functools
import hashlib
import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from confide.attestation.evidence import Endorsements, Evidence, EvidencePart
from confide.attestation.policy import AppraisalPolicy
from confide.attestation.verifier import Verifier
from confide.crypto.issue import IssuingKey, issue
from confide.crypto.signing import SigningKey
from confide.errors import ConfideError

AT = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)
NOW = int(AT.timestamp())
NONCE = bytes(range(32))
ED25519_SPKI = bytes.fromhex("302a300506032b6570032100")
SIZES = {"ES256": 32, "ES384": 48}


def b64(data: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@functools.cache
def rsa_key(number: int = 0) -> IssuingKey:
    """An RSA key, the same one for the same number in one run."""
    _ = number
    return IssuingKey.generate_rsa(2048)


@dataclass(frozen=True)
class Signer:
    """A key that signs with one algorithm."""

    algorithm: str
    key: Any

    @classmethod
    def of(cls, algorithm: str, number: int = 1) -> Signer:
        """The same key for the same number in every run (RSA: in one run)."""
        if algorithm == "EdDSA":
            return cls(algorithm, SigningKey.from_bytes(bytes([number]) * 32))
        if algorithm.startswith("ES"):
            curve = {"ES256": "p256", "ES384": "p384"}[algorithm]
            return cls(algorithm, IssuingKey.from_scalar(7000 + number, curve=curve))
        return cls(algorithm, rsa_key(number))

    @property
    def spki(self) -> bytes:
        """The SubjectPublicKeyInfo."""
        if isinstance(self.key, SigningKey):
            return ED25519_SPKI + self.key.public
        return bytes(self.key.public_key_der)

    @property
    def pin(self) -> str:
        """What a policy pins."""
        return hashlib.sha256(self.spki).hexdigest()

    def sign(self, message: bytes) -> bytes:
        """The signature as it stands in a JWS."""
        if self.algorithm == "EdDSA":
            return bytes(self.key.sign(message))
        hash_name = "sha" + self.algorithm[2:]
        if self.algorithm.startswith("ES"):
            size = SIZES[self.algorithm]
            r, s = self.key.sign_ecdsa(message, hash_name=hash_name)
            return int(r).to_bytes(size, "big") + int(s).to_bytes(size, "big")
        if self.algorithm.startswith("PS"):
            return bytes(self.key.sign_rsa_pss(message, hash_name=hash_name))
        return bytes(self.key.sign_rsa_pkcs1(message, hash_name=hash_name))

    def jwt(self, claims: Any, *, header: Any = None, payload: bytes | None = None, **more: Any) -> str:
        """A compact JWS; ``header`` replaces the header (bytes: as they are), ``more`` adds to it."""
        head = {"alg": self.algorithm, "typ": "JWT", **more} if header is None else header
        head_bytes = head if isinstance(head, bytes) else json.dumps(head).encode()
        body = json.dumps(claims).encode() if payload is None else payload
        signing_input = f"{b64(head_bytes)}.{b64(body)}"
        return f"{signing_input}.{b64(self.sign(signing_input.encode()))}"

    def jwk(self, **more: Any) -> dict[str, Any]:
        """The public key as a JWK."""
        key = serialization.load_der_public_key(self.spki)
        if isinstance(key, ed25519.Ed25519PublicKey):
            return {"kty": "OKP", "crv": "Ed25519", "x": b64(key.public_bytes_raw()), **more}
        if isinstance(key, ec.EllipticCurvePublicKey):
            size, numbers = SIZES[self.algorithm], key.public_numbers()
            crv = {32: "P-256", 48: "P-384"}[size]
            x, y = (b64(n.to_bytes(size, "big")) for n in (numbers.x, numbers.y))
            return {"kty": "EC", "crv": crv, "x": x, "y": y, **more}
        assert isinstance(key, rsa.RSAPublicKey)
        numbers_ = key.public_numbers()
        n = numbers_.n.to_bytes((numbers_.n.bit_length() + 7) // 8, "big")
        return {"kty": "RSA", "n": b64(n), "e": b64(numbers_.e.to_bytes(3, "big")), **more}

    def jwks(self, **more: Any) -> bytes:
        """A set with this one key."""
        return json.dumps({"keys": [self.jwk(**more)]}).encode()


EAR: dict[str, Any] = {
    "eat_profile": "tag:ietf.org,2026:rats/ear#03",
    "iss": "https://verifier.example",
    "aud": "https://me.example",
    "iat": NOW - 10,
    "exp": NOW + 300,
    "eat_nonce": b64(NONCE),
    "ear_verifier_id": {"developer": "https://verifier.example", "build": "1.2.3"},
    "submods": {
        "cpu": {
            "ear_status": "affirming",
            "ear_trustworthiness_vector": {"instance-identity": 2, "executables": 3, "hardware": 2},
            "ear_appraisal_policy_ids": ["policy://acme/7"],
            "ear_veraison_annotated_evidence": {"tdx": {"quote": {"body": {"mr_td": "aa"}}}},
        }
    },
}
GPU: dict[str, Any] = {
    "iss": "https://nras.attestation.nvidia.com",
    "iat": NOW - 10,
    "nbf": NOW - 10,
    "exp": NOW + 3600,
    "eat_nonce": NONCE.hex(),
    "hwmodel": "GH100 A01 GSP BROM",
    "dbgstat": "disabled",
    "measres": "success",
    "secboot": True,
    "x-nvidia-gpu-driver-version": "550.90.07",
    "x-nvidia-gpu-vbios-version": "96.00.9F.00.01",
    **{
        f"x-nvidia-gpu-{name}": True
        for name in (
            "attestation-report-cert-chain-fwid-match",
            "attestation-report-nonce-match",
            "attestation-report-parsed",
            "attestation-report-signature-verified",
            "arch-check",
            "driver-rim-signature-verified",
            "driver-rim-version-match",
            "vbios-rim-signature-verified",
            "vbios-rim-version-match",
            "vbios-index-no-conflict",
        )
    },
    **{
        f"x-nvidia-gpu-{name}-cert-chain": {
            "x-nvidia-cert-status": "valid",
            "x-nvidia-cert-ocsp-status": "good",
        }
        for name in ("attestation-report", "driver-rim", "vbios-rim")
    },
}
OVERALL: dict[str, Any] = {
    "iss": "https://nras.attestation.nvidia.com",
    "sub": "NVIDIA-PLATFORM-ATTESTATION",
    "iat": NOW - 10,
    "nbf": NOW - 10,
    "exp": NOW + 3600,
    "eat_nonce": NONCE.hex(),
    "x-nvidia-ver": "3.0",
    "x-nvidia-overall-att-result": True,
}
GOOGLE: dict[str, Any] = {
    "aud": "https://me.example",
    "iss": "https://confidentialcomputing.googleapis.com",
    "iat": NOW - 10,
    "nbf": NOW - 10,
    "exp": NOW + 3600,
    "eat_nonce": NONCE.hex(),
    "swname": "CONFIDENTIAL_SPACE",
    "secboot": True,
    "hwmodel": "GCP_INTEL_TDX",
    "dbgstat": "disabled-since-boot",
    "submods": {
        "confidential_space": {"support_attributes": ["LATEST", "STABLE", "USABLE"]},
        "container": {"image_digest": "sha256:" + "ab" * 32, "args": ["/app"], "env": {"A": "b"}},
    },
    "tdx": {"gcp_attester_tcb_status": "UpToDate"},
}
SNP_REPORT_DATA = bytes(range(64))
MAA: dict[str, Any] = {
    "iss": "https://sharedeus.eus.attest.azure.net",
    "iat": NOW - 10,
    "nbf": NOW - 10,
    "exp": NOW + 3600,
    "x-ms-ver": "1.0",
    "x-ms-attestation-type": "sevsnpvm",
    "x-ms-sevsnpvm-is-debuggable": False,
    "x-ms-sevsnpvm-launchmeasurement": "cd" * 48,
    "x-ms-sevsnpvm-reportdata": SNP_REPORT_DATA.hex(),
}
ITA: dict[str, Any] = {
    "iss": "https://portal.trustauthority.intel.com",
    "iat": NOW - 10,
    "nbf": NOW - 10,
    "exp": NOW + 300,
    "ver": "2.0.0",
    "tdx": {
        "tdx_mrtd": "ef" * 48,
        "tdx_is_debuggable": False,
        "attester_tcb_status": "UpToDate",
        "attester_held_data": base64.b64encode(NONCE).decode(),
        "tdx_report_data": "00" * 64,
    },
}
_TABLES: dict[str, dict[str, Any]] = {
    "ear": {
        "issuer": EAR["iss"],
        "audience": EAR["aud"],
        "claims": {"submods.*.ear_appraisal_policy_ids": [["policy://acme/7"]]},
    },
    "nras": {"issuer": GPU["iss"], "claims": {"submods.*.x-nvidia-gpu-driver-version": ["550.90.07"]}},
    "google-confidential-space": {
        "issuer": GOOGLE["iss"],
        "audience": GOOGLE["aud"],
        "claims": {"submods.container.image_digest": ["sha256:" + "ab" * 32]},
    },
    "maa": {"issuer": MAA["iss"], "claims": {"x-ms-sevsnpvm-launchmeasurement": ["cd" * 48]}},
    "ita": {"issuer": ITA["iss"], "claims": {"tdx.tdx_mrtd": ["ef" * 48]}},
}
_ALGORITHMS = {
    "ear": "ES256",
    "nras": "ES384",
    "google-confidential-space": "RS256",
    "maa": "RS256",
    "ita": "PS384",
}
_CLAIMS = {"ear": EAR, "google-confidential-space": GOOGLE, "maa": MAA, "ita": ITA}


@dataclass(frozen=True)
class Case:
    """One passing token with the policy that accepts it; ``replace`` and ``changed`` give the failing ones."""

    kind: str
    signer: Signer
    data: bytes
    table: dict[str, Any]
    endorsements: Endorsements
    policy: dict[str, Any]
    at: datetime = AT

    def accept(self, **options: Any) -> Any:
        """The result of the Verifier."""
        table = {"tees": ["token"], **self.policy, "reference": {"token": self.table}}
        verifier = Verifier(AppraisalPolicy.from_table(table), endorsements=self.endorsements)
        return verifier.verify(Evidence(EvidencePart("token", self.data)), at=self.at, **options)

    def codes(self, **options: Any) -> list[str]:
        """The codes of a refusal, sorted; ``[]`` where it is accepted."""
        try:
            self.accept(**options)
        except ConfideError as error:
            reasons = getattr(error, "reasons", (error.reason,))
            return sorted({reason.code for reason in reasons})
        return []

    def pinned(self, **changes: Any) -> Case:
        """The same token under another table; None removes a key."""
        table = {key: value for key, value in (self.table | changes).items() if value is not None}
        return replace(self, table=table)

    def token(self, token: str | bytes) -> Case:
        """Another token under the same policy."""
        return replace(self, data=token.encode() if isinstance(token, str) else token)

    def changed(self, path: str = "", value: Any = None, *, remove: bool = False, **header: Any) -> Case:
        """The token with one claim changed (``/`` between names), signed anew by its own issuer."""
        claims = copy.deepcopy(_CLAIMS[self.kind])
        if path:
            *names, last = path.split("/")
            inner: Any = claims
            for name in names:
                inner = inner[name]
            if remove:
                del inner[last]
            else:
                inner[last] = value
        return self.token(self.signer.jwt(claims, **header))


def bundle(
    signer: Signer,
    *,
    overall: dict[str, Any] | None = None,
    part: dict[str, Any] | None = None,
    part_signer: Signer | None = None,
    digest: str | None = None,
    names: tuple[str, str] = ("GPU-0", "GPU-0"),
) -> bytes:
    """A detached bundle as NVIDIA's service makes it."""
    text = (part_signer or signer).jwt(GPU | (part or {}), header={"alg": "ES384", "kid": "a"})
    sha = digest or hashlib.sha256(text.encode()).hexdigest()
    whole = signer.jwt(
        OVERALL | {"submods": {names[0]: ["DIGEST", ["SHA-256", sha]]}} | (overall or {}),
        header={"alg": "ES384", "kid": "a"},
    )
    return json.dumps([["JWT", whole], {names[1]: text}]).encode()


def case(kind: str, *, algorithm: str | None = None) -> Case:
    """The passing case of a kind of issuer."""
    signer = Signer.of(algorithm or _ALGORITHMS[kind])
    data = bundle(signer) if kind == "nras" else signer.jwt(_CLAIMS[kind]).encode()
    table = {"kind": kind, "keys": [signer.pin], **_TABLES[kind]}
    documents = (EvidencePart("jwks", signer.jwks()),)
    return Case(kind, signer, data, table, Endorsements(documents=documents), {})


KINDS = tuple(_ALGORITHMS)


def chain(signer: Signer, **changes: Any) -> tuple[bytes, bytes, bytes]:
    """Leaf, intermediate and root in DER for a signer; ``changes`` are of the leaf's certificate."""
    root, middle = (IssuingKey.from_scalar(8000 + number, curve="p256") for number in (1, 2))
    year = timedelta(days=365)

    def make(subject: str, issuer: str, public: bytes, by: IssuingKey, **more: Any) -> bytes:
        options: dict[str, Any] = {
            "subject": subject,
            "issuer": issuer,
            "public_key": public,
            "signing_key": by,
            "serial": 1 + sum(subject.encode()),
            "not_before": AT - year,
            "not_after": AT + year,
            "hash_name": "sha256",
        }
        return issue(**(options | more))

    usage = frozenset({"key_cert_sign", "crl_sign"})
    return (
        make("Leaf", "Middle", signer.spki, middle, **({"is_ca": False} | changes)),
        make("Middle", "Root", middle.public_key_der, root, is_ca=True, key_usage=usage),
        make("Root", "Root", root.public_key_der, root, is_ca=True, key_usage=usage),
    )
