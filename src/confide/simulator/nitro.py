# SPDX-License-Identifier: Apache-2.0
"""A simulated Nitro hypervisor: attestation documents as AWS writes them, under a root that is not AWS's.

The chain has AWS's shape (root, regional, zonal and instance CA, leaf; all P-384). Every field of the document, of its COSE
wrapping and of its certificates can be set, so that a bad example is one field away from a good one.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Self

from confide.attestation.anchors import TrustAnchor
from confide.attestation.evidence import Endorsements
from confide.crypto import cose
from confide.crypto.issue import IssuingKey, issue, issue_crl
from confide.crypto.x509 import Extension
from confide.tees.nitro import endorse
from confide.wire import cbor

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ABSENT",
    "AT",
    "ROLES",
    "Authority",
    "Platform",
    "Raw",
    "distribution_point",
    "encode_fields",
    "name",
]

AT: Final = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
ABSENT: Final = object()
"""As the value of a field: leave it out."""

_CAS: Final = ("root", "regional", "zonal", "instance")
ROLES: Final = (*_CAS, "leaf")
_LIVES: Final = {
    "root": timedelta(days=3652),
    "regional": timedelta(days=20),
    "zonal": timedelta(days=6),
    "instance": timedelta(days=1),
    "leaf": timedelta(hours=3),
}
_CA_USAGE: Final = frozenset({"key_cert_sign", "crl_sign"})
_USAGES: Final = {
    "instance": frozenset({"key_cert_sign"}),
    "leaf": frozenset({"digital_signature", "content_commitment"}),
}
_CRLS: Final = {
    "regional": "http://aws-nitro-enclaves-crl.s3.amazonaws.com/crl/00000000-0000-4000-8000-000000000001.crl",
    "zonal": (
        "http://crl-xx-sim-1-aws-nitro-enclaves.s3.xx-sim-1.amazonaws.com/crl/00000000-0000-4000-8000-000000000002.crl"
    ),
}


def name(role: str) -> tuple[tuple[str, str], ...]:
    """A distinguished name that nobody takes for AWS's."""
    return (("OU", "SIMULATED"), ("O", "confide simulated device"), ("CN", f"{role}.nitro-enclaves"))


def distribution_point(uri: str) -> Extension:
    """The extension that names one place of a CRL."""
    value = uri.encode("ascii")
    for tag in (0x86, 0xA0, 0xA0, 0x30, 0x30):
        head = bytes((tag, len(value))) if len(value) < 0x80 else bytes((tag, 0x81, len(value)))
        value = head + value
    return Extension(critical=False, value=value)


@dataclass(frozen=True, slots=True, repr=False)
class Authority:
    """One certificate of the chain with its key."""

    role: str
    der: bytes
    key: IssuingKey


@dataclass(frozen=True, slots=True, repr=False)
class Platform:
    """A simulated hypervisor. ``chain`` goes from the root to the leaf; ``at`` is when its documents are signed."""

    at: datetime
    chain: tuple[Authority, ...]
    pcrs: Mapping[int, bytes]
    module_id: str = "i-0123456789abcdef0-enc0123456789abcdef"
    crls: tuple[bytes, ...] = field(default=())

    @classmethod
    def create(
        cls,
        *,
        at: datetime = AT,
        seed: int | None = None,
        certificates: Mapping[str, Mapping[str, Any]] | None = None,
        keys: Mapping[str, IssuingKey] | None = None,
    ) -> Self:
        """A platform with keys of its own, or reproducible ones for a ``seed``.

        ``certificates`` overrides arguments of ``crypto.issue`` by role (root, regional, zonal, instance, leaf), ``keys`` the keys.
        """
        chain: list[Authority] = []
        for depth, role in enumerate(ROLES):
            scalar = None if seed is None else 7919 * seed + 31 * depth + 11
            key = (keys or {}).get(role) or (
                IssuingKey.generate_p384() if scalar is None else IssuingKey.from_scalar(scalar)
            )
            above = chain[-1] if chain else Authority(role, b"", key)
            arguments: dict[str, Any] = {
                "subject": name(role),
                "issuer": name(above.role),
                "public_key": key.public_key_der,
                "signing_key": above.key,
                "serial": depth + 1,
                "not_before": at - (_LIVES[role] / 2 if role != "leaf" else timedelta(seconds=3)),
                "not_after": at + (_LIVES[role] / 2 if role != "leaf" else _LIVES[role]),
                "is_ca": role != "leaf",
                "path_length": None if role in {"root", "leaf"} else len(_CAS) - 1 - depth,
                "key_usage": _USAGES.get(role, _CA_USAGE),
                "extensions": {endorse.OID_CRL_DISTRIBUTION_POINTS: distribution_point(_CRLS[role])}
                if role in _CRLS
                else {},
            }
            arguments |= (certificates or {}).get(role, {})
            chain.append(Authority(role, issue(**arguments), key))
        pcrs = {index: bytes(48) for index in range(16)}
        pcrs |= {index: bytes((0x10 + index,)) * 48 for index in (0, 1, 2, 4)}
        return cls(at, tuple(chain), pcrs)

    @property
    def anchor(self) -> TrustAnchor:
        """The root, marked as simulated."""
        return TrustAnchor("nitro", "simulated", (self.chain[0].der,), simulated=True)

    @property
    def endorsements(self) -> Endorsements:
        """Empty CRLs of the root and the regional CA, which cover the CAs that name one."""
        return Endorsements(crls=(self.crl("root"), self.crl("regional")))

    def crl(self, role: str, *, revoked: tuple[int, ...] = (), **overrides: Any) -> bytes:
        """A CRL of a CA; serials are 1 for the root to 5 for the leaf."""
        issuer = next(one for one in self.chain if one.role == role)
        arguments: dict[str, Any] = {
            "issuer": name(role),
            "signing_key": issuer.key,
            "this_update": self.at - timedelta(days=1),
            "next_update": self.at + timedelta(days=1),
            "revoked": revoked,
        }
        return issue_crl(**(arguments | overrides))

    def fields(self, report_data: bytes | None, **overrides: Any) -> dict[str, Any]:
        """The payload's map. An override is put as it is, whatever its type; ``ABSENT`` leaves a field out."""
        values: dict[str, Any] = {
            "module_id": self.module_id,
            "digest": "SHA384",
            "timestamp": int(self.at.timestamp() * 1000),
            "pcrs": dict(self.pcrs),
            "certificate": self.chain[-1].der,
            "cabundle": [one.der for one in self.chain[:-1]],
            "public_key": None,
            "user_data": report_data,
            "nonce": None,
        }
        return {name: value for name, value in (values | overrides).items() if value is not ABSENT}

    def document(
        self,
        report_data: bytes | None,
        *,
        payload: bytes | None = None,
        protected: bytes | None = None,
        unprotected: Any = None,
        attached: Any = ABSENT,
        signature: bytes | None = None,
        external_aad: bytes = b"",
        tag: int | None = None,
        indefinite: bool = False,
        key: IssuingKey | None = None,
        hash_name: str = "sha384",
        **overrides: Any,
    ) -> bytes:
        """A signed document. ``payload`` and ``protected`` replace encoded bytes before they are signed, ``attached``
        (the payload as it is sent), ``unprotected`` and ``signature`` what is sent beside the signature.
        """
        body = encode_fields(self.fields(report_data, **overrides), indefinite=indefinite)
        body = body if payload is None else payload
        header = cbor.encode({1: cose.ES384}) if protected is None else protected
        message = cbor.encode(["Signature1", header, external_aad, body])
        if signature is None:
            r, s = (key or self.chain[-1].key).sign_ecdsa(message, hash_name=hash_name)
            signature = r.to_bytes(48, "big") + s.to_bytes(48, "big")
        parts = [
            header,
            {} if unprotected is None else unprotected,
            body if attached is ABSENT else attached,
            signature,
        ]
        return cbor.encode(parts if tag is None else cbor.Tagged(tag, parts))

    def evidence(self, report_data: bytes | None, **overrides: Any) -> tuple[bytes, Endorsements]:
        """A document over ``report_data``, and the CRLs of its chain."""
        return self.document(report_data, **overrides), self.endorsements

    def with_pcrs(self, **pcrs: bytes) -> Self:
        """The same platform running another image: ``with_pcrs(pcr0=...)``."""
        changed = {int(name.removeprefix("pcr")): value for name, value in pcrs.items()}
        return dataclasses.replace(self, pcrs={**self.pcrs, **changed})


def encode_fields(values: Mapping[Any, Any], *, indefinite: bool = False) -> bytes:
    """CBOR of a payload in the order of its fields, as firmware writes it: of definite length, or of indefinite length."""
    inner = b"".join(cbor.encode(name) + _encode(value) for name, value in values.items())
    if indefinite:
        return b"\xbf" + inner + b"\xff"
    if len(values) > 23:
        raise ValueError("a payload of so many fields is not made here")
    return bytes((0xA0 | len(values),)) + inner


def _encode(value: Any) -> bytes:
    return value.data if isinstance(value, Raw) else cbor.encode(value)


@dataclass(frozen=True, slots=True)
class Raw:
    """CBOR bytes that stand for a value, to make what the encoder refuses to."""

    data: bytes
