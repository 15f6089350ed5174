# SPDX-License-Identifier: Apache-2.0
"""A simulated Intel platform: quotes, PCK certificates, collateral and CRLs as Intel makes them, under a root that is not Intel's.

Certificates have Intel's common names, by which they are told apart, and another organisation. Every field, extension,
certificate and text can be set, so that a bad example is one field away from a good one. ``tdx.Platform`` and ``sgx.Platform``
add the report that is quoted.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from confide.attestation.anchors import TrustAnchor
from confide.attestation.evidence import Endorsements, EvidencePart
from confide.crypto.issue import IssuingKey, issue, issue_crl
from confide.crypto.x509 import Extension
from confide.simulator.pck_extension import COMPONENTS, FMSPC, PCESVN, extension, integer, part, tagged
from confide.tees._dcap import pck
from confide.tees._dcap.quote import INTEL_QE_VENDOR, SGX, TDX, EnclaveReport, Header

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "AT",
    "COMPONENTS",
    "FMSPC",
    "MODULE_SIGNER",
    "QE_SIGNER",
    "Platform",
    "components",
    "extension",
    "name",
    "part",
    "pem",
    "point",
    "sign",
    "svn_level",
    "time",
]

AT: Final = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
QE_SIGNER: Final = hashlib.sha256(b"simulated signer of quoting enclaves").digest()
MODULE_SIGNER: Final = bytes(48)  # As on hardware: Intel's own modules have a signer of zeros.

_CA_USAGE: Final = frozenset({"key_cert_sign", "crl_sign"})
_LEAF_USAGE: Final = frozenset({"digital_signature", "content_commitment"})
_NAMES: Final = {
    "root": "Intel SGX Root CA",
    "platform": "Intel SGX PCK Platform CA",
    "processor": "Intel SGX PCK Processor CA",
    "signer": "Intel SGX TCB Signing",
    "pck": "Intel SGX PCK Certificate",
}
ROLES: Final = (*_NAMES, "attestation")


def name(role: str) -> tuple[tuple[str, str], ...]:
    """A distinguished name with the common name that Intel uses, which nobody takes for Intel's."""
    return (("CN", _NAMES[role]), ("O", "confide simulated device"), ("OU", "SIMULATED"))


def time(moment: datetime) -> str:
    """A time as Intel's texts write it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def sign(key: IssuingKey, message: bytes) -> bytes:
    """An ECDSA signature with SHA-256 as r || s, 64 bytes big-endian."""
    r, s = key.sign_ecdsa(message, hash_name="sha256")
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def point(key: IssuingKey) -> bytes:
    """The public key as x || y, 64 bytes."""
    return key.public_key_der[-64:]


def pem(*certificates: bytes) -> bytes:
    """Certificates in PEM, one after another, without a newline at the end of the last one."""
    text = b""
    for der in certificates:
        body = base64.b64encode(der)
        lines = b"\n".join(body[start : start + 64] for start in range(0, len(body), 64))
        text += b"-----BEGIN CERTIFICATE-----\n" + lines + b"\n-----END CERTIFICATE-----\n"
    return text


def components(values: tuple[int, ...]) -> list[dict[str, int]]:
    """The SVNs of a TCB level as TCB info writes them."""
    return [{"svn": value} for value in values]


def svn_level(isvsvn: int, status: str, *advisories: str) -> dict[str, Any]:
    """A TCB level of a quoting enclave or a TDX module."""
    level = {"tcb": {"isvsvn": isvsvn}, "tcbDate": "2026-02-11T00:00:00Z", "tcbStatus": status}
    return level | ({"advisoryIDs": list(advisories)} if advisories else {})


@dataclass(frozen=True, slots=True, repr=False)
class Platform:
    """One platform with its provisioning authority. ``keys`` and ``certificates`` (DER) are by role: root, platform and
    processor (the PCK CAs), signer (of TCB info and identities), pck, and the key "attestation". ``ca`` is the CA of the PCK.
    """

    at: datetime
    ca: str
    keys: dict[str, IssuingKey]
    certificates: dict[str, bytes]
    changes: dict[str, Any] = field(default_factory=dict)

    TEE: ClassVar[str] = ""
    VERSION: ClassVar[int] = 0

    @classmethod
    def create(
        cls,
        *,
        at: datetime = AT,
        seed: int | None = None,
        ca: str = "platform",
        certificates: Mapping[str, Mapping[str, Any]] | None = None,
        sgx: Mapping[str, Any] | None = None,
        keys: Mapping[str, IssuingKey] | None = None,
    ) -> Self:
        """A platform with new keys, or with those that follow from ``seed``.

        ``certificates`` overrides arguments of ``crypto.issue`` by role, ``sgx`` those of ``extension`` in the PCK certificate,
        ``keys`` single keys by role.
        """
        made = _keys(seed) | dict(keys or {})
        issuers = {"root": "root", "platform": "root", "processor": "root", "signer": "root", "pck": ca}
        found: dict[str, bytes] = {}
        for serial, (role, issuer) in enumerate(issuers.items(), start=1):
            is_ca = role in {"root", "platform", "processor"}
            arguments: dict[str, Any] = {
                "subject": name(role),
                "issuer": name(issuer),
                "public_key": made[role].public_key_der,
                "signing_key": made[issuer],
                "serial": serial,
                "not_before": at - timedelta(days=365),
                "not_after": at + timedelta(days=3650),
                "is_ca": is_ca,
                "path_length": {"root": 1, "platform": 0, "processor": 0}.get(role),
                "key_usage": _CA_USAGE if is_ca else _LEAF_USAGE,
                "hash_name": "sha256",
            }
            if role == "pck":
                arguments["extensions"] = {pck.EXTENSION: extension(**dict(sgx or {}))}
            found[role] = issue(**(arguments | dict((certificates or {}).get(role, {}))))
        return cls(at, ca, made, found)

    @property
    def anchor(self) -> TrustAnchor:
        """The platform's own root."""
        return TrustAnchor(self.TEE, "simulated Intel root", (self.certificates["root"],), simulated=True)

    def report(self, report_data: bytes, version: int, **overrides: Any) -> tuple[int, bytes]:
        """Type and bytes of the body of a quote; each TEE has its own."""
        raise NotImplementedError

    def evidence(
        self, report_data: bytes, *, collateral: Mapping[str, Any] | None = None, **overrides: Any
    ) -> tuple[bytes, Endorsements]:
        """A quote over 64 bytes and its endorsements; ``overrides`` are those of ``quote``, ``collateral`` those of
        ``collateral``.
        """
        document = self.collateral(**dict(collateral or {}))
        endorsements = Endorsements(documents=(EvidencePart("intel-collateral", document),))
        return self.quote(report_data, **overrides), endorsements

    def quote(
        self,
        report_data: bytes,
        *,
        version: int | None = None,
        header: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        descriptor: bytes | None = None,
        qe_report: Mapping[str, Any] | None = None,
        auth_data: bytes = bytes(range(32)),
        attestation_point: bytes | None = None,
        sign_quote: IssuingKey | None = None,
        sign_report: IssuingKey | None = None,
        signature: bytes | None = None,
        report_signature: bytes | None = None,
        chain: tuple[bytes, ...] | None = None,
        certification: tuple[int, bytes] | None = None,
        outer_type: int = 6,
        padding: bytes = b"",
    ) -> bytes:
        """A quote; everything that is not overridden is consistent with everything that is."""
        version = self.VERSION if version is None else version
        body_type, report = self.report(report_data, version, **dict(body or {}))
        fields: dict[str, Any] = {
            "version": version,
            "attestation_key_type": 2,
            "tee_type": {"sgx": SGX, "tdx": TDX}[self.TEE],
            "qe_svn": 0,
            "pce_svn": 0,
            "qe_vendor_id": INTEL_QE_VENDOR,
            "user_data": bytes(20),
        }
        signed = Header(**(fields | dict(header or {}))).encode()
        if version >= 5:
            short = body_type.to_bytes(2, "little") + len(report).to_bytes(4, "little")
            signed += short if descriptor is None else descriptor
        signed += report
        key = point(self.keys["attestation"]) if attestation_point is None else attestation_point
        enclave = self.qe_report(key, auth_data, **dict(qe_report or {}))
        vouched = (
            sign(sign_report or self.keys["pck"], enclave) if report_signature is None else report_signature
        )
        kind, data = certification or (pck.CHAIN_TYPE, pem(*(chain or self.chain)) + b"\x00")
        inner = enclave + vouched + len(auth_data).to_bytes(2, "little") + auth_data
        inner += kind.to_bytes(2, "little") + len(data).to_bytes(4, "little") + data
        if version >= 4:
            inner = outer_type.to_bytes(2, "little") + len(inner).to_bytes(4, "little") + inner
        own = sign(sign_quote or self.keys["attestation"], signed) if signature is None else signature
        inner = own + key + inner
        return signed + len(inner).to_bytes(4, "little") + inner + padding

    @property
    def chain(self) -> tuple[bytes, ...]:
        """The certificates that a quote holds: PCK, its CA, the root."""
        return self.certificates["pck"], self.certificates[self.ca], self.certificates["root"]

    def qe_report(self, key: bytes, auth_data: bytes, **overrides: Any) -> bytes:
        """The report of the quoting enclave over an attestation key."""
        return encoded_enclave(
            {
                "mrsigner": QE_SIGNER,
                "isvprodid": 2 if self.TEE == "tdx" else 1,
                "isvsvn": 8,
                "flags": 0x11 if self.TEE == "tdx" else 0x05,
                "xfrm": 0xE7,
                "report_data": hashlib.sha256(key + auth_data).digest() + bytes(32),
            }
            | overrides
        )

    def tcb_info(self, **changes: Any) -> dict[str, Any]:
        """TCB info of version 3 with three levels, the highest of which this platform meets."""
        moments = {
            "issueDate": time(self.at - timedelta(days=10)),
            "nextUpdate": time(self.at + timedelta(days=20)),
        }
        levels = [
            self.level(COMPONENTS, PCESVN, "UpToDate"),
            self.level((5, *COMPONENTS[1:]), PCESVN, "SWHardeningNeeded", "INTEL-SA-00615"),
            self.level((1,) * 2 + (0,) * 14, 5, "OutOfDate", "INTEL-SA-00233", "INTEL-SA-00615"),
        ]
        info: dict[str, Any] = {
            "id": self.TEE.upper(),
            "version": 3,
            **moments,
            "fmspc": FMSPC.hex().upper(),
            "pceId": "0000",
            "tcbType": 0,
            "tcbEvaluationDataNumber": 20,
            "tcbLevels": levels,
        }
        return info | changes

    def level(self, sgx: tuple[int, ...], pcesvn: int, status: str, *advisories: str) -> dict[str, Any]:
        """One TCB level; ``advisories`` are those that still concern a platform at it."""
        tcb: dict[str, Any] = {"sgxtcbcomponents": components(sgx), "pcesvn": pcesvn}
        level: dict[str, Any] = {"tcb": tcb, "tcbDate": "2026-02-11T00:00:00Z", "tcbStatus": status}
        return level | ({"advisoryIDs": list(advisories)} if advisories else {})

    def identity(self, **changes: Any) -> dict[str, Any]:
        """The identity of this TEE's quoting enclave."""
        tdx = self.TEE == "tdx"
        found: dict[str, Any] = {
            "id": "TD_QE" if tdx else "QE",
            "version": 2,
            "issueDate": time(self.at - timedelta(days=10)),
            "nextUpdate": time(self.at + timedelta(days=20)),
            "tcbEvaluationDataNumber": 20,
            "miscselect": "00000000",
            "miscselectMask": "FFFFFFFF",
            "attributes": ("11" if tdx else "05") + "00" * 15,
            "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000" if tdx else "FF" * 8 + "00" * 8,
            "mrsigner": QE_SIGNER.hex().upper(),
            "isvprodid": 2 if tdx else 1,
            "tcbLevels": [svn_level(8, "UpToDate"), svn_level(6, "OutOfDate", "INTEL-SA-00477")],
        }
        return found | changes

    def crl(self, role: str, *, revoked: tuple[int, ...] = (), **changes: Any) -> bytes:
        """The CRL of one of the CAs, valid a month; serials are 1 root, 2 and 3 the PCK CAs, 4 the signer, 5 the PCK."""
        key_id = hashlib.sha256(self.keys[role].public_key_der).digest()[:20]
        extensions = {
            "2.5.29.20": Extension(critical=False, value=integer(1)),
            "2.5.29.35": Extension(critical=False, value=tagged(0x30, tagged(0x80, key_id))),
        }
        arguments: dict[str, Any] = {
            "issuer": name(role),
            "signing_key": self.keys[role],
            "extensions": extensions,
            "this_update": self.at - timedelta(days=10),
            "next_update": self.at + timedelta(days=20),
            "revoked": revoked,
            "hash_name": "sha256",
        }
        return issue_crl(**(arguments | changes))

    def collateral(
        self,
        *,
        tcb_info: Mapping[str, Any] | None = None,
        identity: Mapping[str, Any] | None = None,
        texts: Mapping[str, str] | None = None,
        signers: Mapping[str, IssuingKey] | None = None,
        document: Mapping[str, Any] | None = None,
    ) -> bytes:
        """The collateral of this platform as one JSON document.

        ``tcb_info`` and ``identity`` change members of the signed texts, ``texts`` replaces these whole (and signs them),
        ``signers`` the keys that sign, ``document`` members of the result (None leaves one out).
        """
        issuer_chain = pem(self.certificates["signer"], self.certificates["root"]).decode("ascii")
        found: dict[str, Any] = {
            "pck_crl_issuer_chain": pem(self.certificates[self.ca], self.certificates["root"]).decode(
                "ascii"
            ),
            "root_ca_crl": self.crl("root").hex(),
            "pck_crl": self.crl(self.ca).hex(),
        }
        values = {
            "tcb_info": self.tcb_info(**dict(tcb_info or {})),
            "qe_identity": self.identity(**dict(identity or {})),
        }
        for key, value in values.items():
            text = (texts or {}).get(key) or json.dumps(value, separators=(",", ":"))
            signer = (signers or {}).get(key, self.keys["signer"])
            found[f"{key}_issuer_chain"] = issuer_chain
            found[key] = text
            found[f"{key}_signature"] = sign(signer, text.encode("utf-8")).hex()
        found |= dict(document or {})
        return json.dumps({key: value for key, value in found.items() if value is not None}).encode("utf-8")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(redacted)"


def encoded_enclave(fields: Mapping[str, Any]) -> bytes:
    """An enclave's report (384 bytes) of ``fields``; the rest is zero."""
    blank = EnclaveReport.decode(bytes(EnclaveReport.SIZE))
    return dataclasses.replace(blank, **dict(fields)).encode()


@functools.lru_cache(maxsize=64)
def _seeded(seed: int, role: str) -> IssuingKey:
    wide = hashlib.sha256(f"confide/simulated/dcap/{seed}/{role}".encode("ascii")).digest()
    # The top bit cleared keeps the number below the order of P-256; these keys are for examples and hold no secret.
    return IssuingKey.from_scalar((int.from_bytes(wide, "big") >> 1) + 1, curve="p256")


def _keys(seed: int | None) -> dict[str, IssuingKey]:
    if seed is None:
        return {role: IssuingKey.generate_p256() for role in ROLES}
    return {role: _seeded(seed, role) for role in ROLES}
