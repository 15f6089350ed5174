# SPDX-License-Identifier: Apache-2.0
"""A simulated TPM: quotes in the TPM's format, by a key under a root that is not Google's, and Azure's HCL report around a key.

Every field of TPMS_ATTEST, of the public area, of the certificates and of the HCL report can be set, so that a bad example is
one field away from a good one. It signs whatever it is told: that is what a TPM's restricted key never does.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Self

from confide.attestation.anchors import TrustAnchor
from confide.attestation.evidence import Endorsements
from confide.crypto.issue import IssuingKey, issue, issue_crl
from confide.tees.tpm import hcl, public, wire
from confide.wire import der, strict_json

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["AT", "ROLES", "Platform", "hcl_report", "runtime_claims"]

AT: Final = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
_NOT_BEFORE: Final = datetime(2024, 1, 1, tzinfo=UTC)
_NOT_AFTER: Final = datetime(2049, 12, 31, tzinfo=UTC)
_AK_ATTRIBUTES: Final = public.attributes(
    "fixedTPM", "fixedParent", "sensitiveDataOrigin", "userWithAuth", "noDA", "restricted", "sign"
)
_CA_USAGE: Final = frozenset({"key_cert_sign", "crl_sign"})
_FIRMWARE: Final = 0x2020_0312_0012_0003
_HASH_SIZE: Final = {"sha256": 32, "sha384": 48, "sha512": 64}


ROLES: Final = ("root", "ca", "ak")


def _name(common: str) -> tuple[tuple[str, str], ...]:
    """A distinguished name that nobody takes for Google's."""
    return (("OU", "SIMULATED"), ("O", "confide simulated device"), ("CN", common))


def boot_pcrs(bank: str = "sha256") -> dict[int, bytes]:
    """Values of PCR 0 to 23 as after a boot: 0 to 9 extended, 17 to 22 all ones, others zero."""
    size = _HASH_SIZE[bank]
    values = {index: bytes(size) for index in range(wire.MAX_PCRS)}
    for index in range(10):
        event = hashlib.new(bank, b"simulated boot %d" % index).digest()
        values[index] = hashlib.new(bank, values[index] + event).digest()
    values.update(dict.fromkeys(range(17, 23), b"\xff" * size))
    return values


def _keys(seed: int | None, curve: str) -> dict[str, IssuingKey]:
    if seed is not None:
        return {
            role: IssuingKey.from_scalar(1000 * seed + offset, curve=curve if role == "ak" else "p384")
            for offset, role in enumerate(ROLES, start=1)
        }
    new = {"p256": IssuingKey.generate_p256, "p384": IssuingKey.generate_p384}
    return {role: new[curve if role == "ak" else "p384"]() for role in ROLES}


@dataclass(frozen=True, slots=True, repr=False)
class Platform:
    """One simulated TPM with its attestation key, and the root and intermediate CA that certify the key."""

    ak_key: IssuingKey
    root_key: IssuingKey
    ca_key: IssuingKey
    root: bytes
    ca: bytes
    scheme: str
    hash_name: str
    pcrs: Mapping[str, Mapping[int, bytes]]

    @classmethod
    def create(
        cls,
        *,
        seed: int | None = None,
        keys: Mapping[str, IssuingKey] | None = None,
        scheme: str = "ecdsa",
        hash_name: str = "sha256",
        curve: str = "p256",
        ak_key: IssuingKey | None = None,
        pcrs: Mapping[str, Mapping[int, bytes]] | None = None,
        **ca: Any,
    ) -> Self:
        """A TPM with new keys, or with those that follow from ``seed``; ``keys`` gives single ones by role. ``scheme`` "rsassa" or
        "rsapss" needs an RSA ``ak_key``. ``ca`` overrides arguments of ``crypto.issue`` for the intermediate CA.
        """
        made = _keys(seed, curve) | dict(keys or {})
        root_key, ca_key = made["root"], made["ca"]
        shared: dict[str, Any] = {
            "issuer": _name("SIMULATED EK/AK CA Root"),
            "signing_key": root_key,
            "not_before": _NOT_BEFORE,
            "not_after": _NOT_AFTER,
            "is_ca": True,
            "key_usage": _CA_USAGE,
        }
        own = {"subject": shared["issuer"], "public_key": root_key.public_key_der, "serial": 1}
        below = {
            "subject": _name("SIMULATED EK/AK CA Intermediate"),
            "public_key": ca_key.public_key_der,
            "serial": 2,
        }
        return cls(
            ak_key=ak_key or made["ak"],
            root_key=root_key,
            ca_key=ca_key,
            root=issue(**(shared | own)),
            ca=issue(**(shared | below | ca)),
            scheme=scheme,
            hash_name=hash_name,
            pcrs=MappingProxyType({"sha256": boot_pcrs()} if pcrs is None else dict(pcrs)),
        )

    @property
    def anchor(self) -> TrustAnchor:
        """The root, simulated, with the CA below it."""
        return TrustAnchor("tpm", "simulated", (self.root, self.ca), simulated=True)

    @property
    def pin(self) -> TrustAnchor:
        """The attestation key itself, simulated."""
        return TrustAnchor("tpm", "simulated", (), simulated=True, keys=(self.fingerprint,))

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the attestation key's SubjectPublicKeyInfo."""
        return hashlib.sha256(self.ak_key.public_key_der).digest()

    def area(self, **overrides: Any) -> bytes:
        """The key's TPMT_PUBLIC; ``overrides`` are arguments of ``public.encode_public``."""
        rsa = self.scheme != "ecdsa"
        arguments: dict[str, Any] = {
            "attributes": _AK_ATTRIBUTES,
            "scheme": public.Scheme(self.scheme, self.hash_name),
            "unique": _modulus(self.ak_key) if rsa else _point(self.ak_key),
            "curve": "" if rsa else _curve(self.ak_key),
        }
        if rsa:
            arguments["bits"] = 8 * len(arguments["unique"])
        return public.encode_public(**(arguments | overrides))

    def certificate(self, **overrides: Any) -> bytes:
        """The key's certificate; ``overrides`` are arguments of ``crypto.issue``."""
        arguments: dict[str, Any] = {
            "subject": _name("SIMULATED AK"),
            "issuer": _name("SIMULATED EK/AK CA Intermediate"),
            "public_key": self.ak_key.public_key_der,
            "signing_key": self.ca_key,
            "serial": 77,
            "not_before": _NOT_BEFORE,
            "not_after": _NOT_AFTER,
            "is_ca": False,
            "key_usage": frozenset({"digital_signature"}),
        }
        return issue(**(arguments | overrides))

    def crls(self, *, revoked: tuple[int, ...] = (), **overrides: Any) -> tuple[bytes, bytes]:
        """The CRLs of the root and of the CA; serial 2 is the CA's, 77 the key's. ``overrides`` as of ``issue_crl``."""
        shared: dict[str, Any] = {
            "this_update": datetime(2026, 5, 1, tzinfo=UTC),
            "next_update": datetime(2026, 7, 1, tzinfo=UTC),
            "revoked": revoked,
        } | overrides
        return (
            issue_crl(issuer=_name("SIMULATED EK/AK CA Root"), signing_key=self.root_key, **shared),
            issue_crl(issuer=_name("SIMULATED EK/AK CA Intermediate"), signing_key=self.ca_key, **shared),
        )

    def attest(self, report_data: bytes, **overrides: Any) -> wire.Attest:
        """TPMS_ATTEST over every PCR; ``overrides`` are its fields."""
        selections = tuple(wire.Selection(bank, tuple(sorted(values))) for bank, values in self.pcrs.items())
        selections = overrides.pop("selections", selections)
        area = public.decode_public(self.area())
        made = wire.Attest(
            qualified_signer=public.qualified_name(
                public.HIERARCHIES["endorsement"].to_bytes(4, "big"), area.name
            ),
            extra_data=report_data,
            clock_info=wire.ClockInfo(clock=41_000, reset_count=3, restart_count=0, safe=True),
            firmware_version=_FIRMWARE,
            selections=selections,
            pcr_digest=wire.pcr_digest(selections, self.pcrs, self.hash_name),
        )
        return dataclasses.replace(made, **overrides)

    def sign(self, message: bytes) -> wire.Signature:
        """A signature over bytes, whatever they are."""
        if self.scheme == "rsassa":
            value = self.ak_key.sign_rsa_pkcs1(message, hash_name=self.hash_name)
            return wire.Signature("rsassa", self.hash_name, (value,))
        if self.scheme == "rsapss":
            value = self.ak_key.sign_rsa_pss(message, hash_name=self.hash_name)
            return wire.Signature("rsapss", self.hash_name, (value,))
        r, s = self.ak_key.sign_ecdsa(message, hash_name=self.hash_name)
        size = len(_point(self.ak_key)) // 2
        return wire.Signature("ecdsa", self.hash_name, (r.to_bytes(size, "big"), s.to_bytes(size, "big")))

    def evidence(
        self,
        report_data: bytes,
        *,
        attest: bytes | None = None,
        fields: Mapping[str, Any] | None = None,
        certificate: Mapping[str, Any] | None = None,
        crls: tuple[bytes, ...] = (),
        **overrides: Any,
    ) -> tuple[bytes, Endorsements]:
        """The evidence part and the endorsements of a case that passes unless something is overridden.

        ``attest`` are the bytes to sign instead, ``fields`` override those of TPMS_ATTEST, ``certificate`` arguments of ``issue``,
        ``overrides`` the fields of ``wire.TpmEvidence`` (``signature`` as bytes).
        """
        signed = self.attest(report_data, **dict(fields or {})).encode() if attest is None else attest
        selections = dict(fields or {}).get("selections")
        values: Mapping[str, Mapping[int, bytes]] = (
            self.pcrs
            if selections is None
            else {one.bank: {i: self.pcrs[one.bank][i] for i in one.pcrs} for one in selections if one.pcrs}
        )
        made = wire.TpmEvidence(
            attest=signed, signature=self.sign(signed).encode(), pcrs=values, ak=self.area()
        )
        part = dataclasses.replace(made, **overrides).encode()
        return part, Endorsements((self.certificate(**dict(certificate or {})), self.ca), crls)

    def __repr__(self) -> str:
        return "Platform(redacted)"


def _point(key: IssuingKey) -> bytes:
    """X || y: what a SubjectPublicKeyInfo on a curve ends in."""
    return key.public_key_der[-2 * (32 if _curve(key) == "p256" else 48) :]


def _curve(key: IssuingKey) -> str:
    return "p256" if len(key.public_key_der) < 100 else "p384"


def _modulus(key: IssuingKey) -> bytes:
    parts = der.decode(key.public_key_der, what="key", max_size=2048).children()
    numbers = der.decode(parts[1].bits(), what="key", max_size=2048).children()
    return numbers[0].content.lstrip(b"\x00")


def runtime_claims(ak: IssuingKey, **overrides: Any) -> bytes:
    """Azure's runtime claims in JSON for an RSA attestation key; ``overrides`` replace members of the object."""
    jwk = {
        "kid": hcl.AK_NAME,
        "key_ops": ["sign"],
        "kty": "RSA",
        "e": "AQAB",
        "n": _base64url(_modulus(ak)),
    }
    claims: dict[str, Any] = {
        "keys": [jwk],
        "vm-configuration": {
            "console-enabled": False,
            "secure-boot": True,
            "tpm-enabled": True,
            "vmUniqueId": "00000000-0000-4000-8000-000000000001",
        },
        "user-data": "00" * 64,
    }
    return strict_json.encode(claims | overrides)


def hcl_report(
    hardware_report: bytes,
    claims: bytes,
    *,
    tee: str = "snp",
    padding: int = 100,
    header: Mapping[str, Any] | None = None,
    runtime: Mapping[str, Any] | None = None,
) -> bytes:
    """Azure's HCL report around a hardware report of at most 1184 bytes; ``header`` and ``runtime`` override fields of its heads."""
    number = {name: number for number, name in hcl.REPORT_TYPES.items()}[tee]
    size = hcl.Header.SIZE + hcl.HARDWARE_REPORT + hcl.RuntimeHeader.SIZE + len(claims)
    head = hcl.Header(
        signature=hcl.SIGNATURE, version=2, report_size=size, request_type=hcl.REQUEST_TYPE, status=0
    )
    below = hcl.RuntimeHeader(
        data_size=hcl.RuntimeHeader.SIZE + len(claims),
        version=1,
        report_type=number,
        hash_type=hcl.HASH_SHA256,
        claims_size=len(claims),
    )
    return b"".join(
        (
            dataclasses.replace(head, **dict(header or {})).encode(),
            hardware_report.ljust(hcl.HARDWARE_REPORT, b"\x00"),
            dataclasses.replace(below, **dict(runtime or {})).encode(),
            claims,
            bytes(padding),
        )
    )


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
