# SPDX-License-Identifier: Apache-2.0
"""SEV-SNP reports of every version and product, with their certificates, under a local root; every field can be set.

``mint`` gives a case that passes unless something is overridden: ``report`` by AMD's names, ``patch`` by offset before the report is
signed, ``Minted.tamper`` after. The CAs' keys are P-384, where AMD's are RSA, so that minting is fast. The chip that
vouches for simulated enclaves is another: ``simulator.snp``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from confide.attestation.anchors import TrustAnchor
from confide.attestation.evidence import Endorsements, Evidence, EvidencePart
from confide.crypto.issue import IssuingKey, issue, issue_crl
from confide.crypto.x509 import Extension
from confide.tees.snp import endorse, wire

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["AT", "Authority", "Minted", "mint"]

AT = datetime(2026, 6, 1, tzinfo=UTC)
NOT_BEFORE = datetime(2024, 1, 1, tzinfo=UTC)
NOT_AFTER = datetime(2040, 1, 1, tzinfo=UTC)
MEASUREMENT = bytes(range(48))
REPORT_DATA = bytes(range(64, 128))
CPUID = {"Milan": (0x19, 0x01, 1), "Genoa": (0x19, 0x11, 1), "Turin": (0x1A, 0x02, 1)}
TCB = {
    "Milan": bytes((4, 0, 0, 0, 0, 0, 24, 219)),
    "Genoa": bytes((10, 0, 0, 0, 0, 0, 23, 84)),
    "Turin": bytes((1, 2, 3, 4, 0, 0, 0, 81)),
}
HWID = {"Milan": b"\x11" * 64, "Genoa": b"\x22" * 64, "Turin": b"\x33" * 8}
CA_USAGE = frozenset({"key_cert_sign", "crl_sign"})
ROLES = ("ark", "ask", "asvk")


def name(common: str) -> tuple[tuple[str, str], ...]:
    """A distinguished name that nobody takes for AMD's."""
    return (("OU", "SIMULATED"), ("O", "confide simulated device"), ("CN", common))


@dataclass(frozen=True, slots=True, repr=False)
class Authority:
    """A root (ARK) with the CAs below it: ASK for VCEKs and ASVK for VLEKs."""

    product: str
    ark_key: IssuingKey
    ask_key: IssuingKey
    asvk_key: IssuingKey
    ark: bytes
    ask: bytes
    asvk: bytes

    @classmethod
    def create(
        cls,
        product: str = "Genoa",
        *,
        keys: Mapping[str, IssuingKey] | None = None,
        changes: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Self:
        """An authority with new keys, or with those in ``keys`` by role (ark, ask, asvk). ``changes`` are arguments of
        ``crypto.issue`` by common name.
        """
        made = {role: IssuingKey.generate_p384() for role in ROLES} | dict(keys or {})

        def ca(common: str, role: str, serial: int, path_length: int | None) -> bytes:
            fields: dict[str, Any] = {
                "subject": name(common),
                "issuer": name(f"ARK-{product}"),
                "public_key": made[role].public_key_der,
                "signing_key": made["ark"],
                "serial": serial,
                "not_before": NOT_BEFORE,
                "not_after": NOT_AFTER,
                "is_ca": True,
                "path_length": path_length,
                "key_usage": CA_USAGE,
            }
            return issue(**(fields | dict((changes or {}).get(common, {}))))

        return cls(
            product,
            made["ark"],
            made["ask"],
            made["asvk"],
            ca(f"ARK-{product}", "ark", 1, None),
            ca(f"SEV-{product}", "ask", 2, 0),
            ca(f"SEV-VLEK-{product}", "asvk", 3, 0),
        )

    @property
    def certificates(self) -> tuple[bytes, ...]:
        """Root, ASK and ASVK."""
        return (self.ark, self.ask, self.asvk)

    @property
    def simulated_anchor(self) -> TrustAnchor:
        """The root as a trust anchor, marked as simulated."""
        return TrustAnchor("snp", self.product, self.certificates, simulated=True)

    def crl(
        self, *, revoked: tuple[int, ...] = (), key: IssuingKey | None = None, **times: datetime
    ) -> bytes:
        """A CRL of the root; serials 2 and 3 are those of the ASK and the ASVK."""
        return issue_crl(
            issuer=name(f"ARK-{self.product}"),
            signing_key=key or self.ark_key,
            this_update=times.get("this_update", datetime(2026, 5, 1, tzinfo=UTC)),
            next_update=times.get("next_update", datetime(2026, 7, 1, tzinfo=UTC)),
            revoked=revoked,
        )


_Authority = TypeVar("_Authority", bound=Authority)


@dataclass(frozen=True, slots=True)
class Minted(Generic[_Authority]):
    """A report, the certificate of its key, and the authority above both."""

    report: bytes
    certificate: bytes
    authority: _Authority
    key: IssuingKey = field(repr=False)
    crls: tuple[bytes, ...] = ()
    extra: tuple[bytes, ...] = ()

    @property
    def endorsements(self) -> Endorsements:
        """The certificate of the key, and what else was added."""
        return Endorsements((self.certificate, *self.extra), self.crls)

    @property
    def evidence(self) -> Evidence:
        """The raw report with its endorsements stapled."""
        return Evidence(EvidencePart("snp", self.report), endorsements=self.endorsements)

    def tamper(self, offset: int, value: bytes) -> Self:
        """The same with bytes overwritten and not signed again."""
        return replace(self, report=patched(self.report, {offset: value}))

    def resigned(self, patch: dict[int, bytes]) -> Self:
        """The same with bytes overwritten and signed again."""
        return replace(self, report=sign(self.key, patched(self.report, patch)))


def patched(data: bytes, patch: dict[int, bytes]) -> bytes:
    """Bytes overwritten by offset."""
    changed = bytearray(data)
    for offset, value in patch.items():
        changed[offset : offset + len(value)] = value
    return bytes(changed)


def sign(key: IssuingKey, report: bytes) -> bytes:
    """A report with its signature made anew; the bytes after r and s stay as they are."""
    r, s = key.sign_ecdsa(report[: wire.SIGNED_BYTES])
    signature = r.to_bytes(72, "little") + s.to_bytes(72, "little")
    return report[: wire.SIGNED_BYTES] + signature + report[wire.SIGNED_BYTES + 144 :]


def der_integer(value: int) -> bytes:
    """A DER INTEGER from 0 to 255."""
    return bytes((2, 1, value)) if value < 0x80 else bytes((2, 2, 0, value))


def der_text(value: str) -> bytes:
    """A short DER IA5String."""
    return bytes((0x16, len(value))) + value.encode("ascii")


def extensions(
    product: str, kind: str, tcb: bytes, hwid: bytes, product_name: str | None = None
) -> dict[str, Extension]:
    """AMD's extensions, for the TCB in the bytes of its product."""
    turin = product == "Turin"
    levels = dict(zip(("fmc", "bl", "tee", "snp"), tcb[:4], strict=True)) if turin else {
        "bl": tcb[0], "tee": tcb[1], "snp": tcb[6]
    }  # fmt: skip
    values = {
        endorse.OID_STRUCT_VERSION: der_integer(1 if turin else 0),
        endorse.OID_PRODUCT_NAME: der_text(product if product_name is None else product_name),
        endorse.OID_BL_SPL: der_integer(levels["bl"]),
        endorse.OID_TEE_SPL: der_integer(levels["tee"]),
        endorse.OID_SNP_SPL: der_integer(levels["snp"]),
        endorse.OID_UCODE_SPL: der_integer(tcb[7]),
    }
    if turin:
        values[endorse.OID_FMC_SPL] = der_integer(levels["fmc"])
    if kind == "vcek":
        values[endorse.OID_HWID] = hwid
    else:
        values[endorse.OID_CSP_ID] = der_text("CN=cc-nowhere-1.example.com")
    return {oid: Extension(critical=False, value=value) for oid, value in values.items()}


def mint(
    *,
    product: str = "Genoa",
    version: int = 3,
    kind: str = "vcek",
    root: _Authority,
    report: dict[str, Any] | None = None,
    patch: dict[int, bytes] | None = None,
    certificate: dict[str, Any] | None = None,
    oids: dict[str, Extension | None] | None = None,
    key: IssuingKey | None = None,
    crls: tuple[bytes, ...] = (),
    extra: tuple[bytes, ...] = (),
) -> Minted[_Authority]:
    """A case that passes unless something is overridden.

    ``certificate`` overrides arguments of ``crypto.issue``, ``oids`` replaces or removes (None) extensions of AMD's.
    """
    key = key or IssuingKey.generate_p384()
    tcb = TCB[product]
    found: dict[str, Any] = extensions(product, kind, tcb, HWID[product]) | (oids or {})
    ca_key, ca_name = (
        (root.ask_key, f"SEV-{root.product}")
        if kind == "vcek"
        else (root.asvk_key, f"SEV-VLEK-{root.product}")
    )
    arguments: dict[str, Any] = {
        "subject": name(f"SEV-{kind.upper()}"),
        "issuer": name(ca_name),
        "public_key": key.public_key_der,
        "signing_key": ca_key,
        "serial": 77,
        "not_before": NOT_BEFORE,
        "not_after": NOT_AFTER,
        "is_ca": False,
        "extensions": {oid: value for oid, value in found.items() if value is not None},
    }
    body = _body(product, version, kind, tcb) | (report or {})
    layout: Any = wire.ReportV2 if version == 2 else wire.ReportV5 if version == 5 else wire.ReportV3
    unsigned = layout(**body).encode()
    return Minted(
        report=sign(key, patched(unsigned, patch or {})),
        certificate=issue(**(arguments | (certificate or {}))),
        authority=root,
        key=key,
        crls=crls,
        extra=extra,
    )


def _body(product: str, version: int, kind: str, tcb: bytes) -> dict[str, Any]:
    firmware = wire.VersionNumber(build=1, minor=55, major=1)
    body: dict[str, Any] = {
        "version": version,
        "guest_svn": 1,
        "policy": 0x3001F,
        "family_id": b"\x01" * 16,
        "image_id": b"\x02" * 16,
        "vmpl": 0,
        "signature_algo": 1,
        "current_tcb": tcb,
        "platform_info": 0x25,
        "key_info": 0 if kind == "vcek" else 1 << 2,
        "report_data": REPORT_DATA,
        "measurement": MEASUREMENT,
        "host_data": b"\x05" * 32,
        "id_key_digest": b"\x06" * 48,
        "author_key_digest": b"\x07" * 48,
        "report_id": b"\x08" * 32,
        "report_id_ma": b"\xff" * 32,
        "reported_tcb": tcb,
        "chip_id": HWID[product].ljust(64, b"\x00") if kind == "vcek" else bytes(64),
        "committed_tcb": tcb,
        "current_version": firmware,
        "committed_version": firmware,
        "launch_tcb": tcb,
        "signature": wire.Signature(r=bytes(72), s=bytes(72)),
    }
    if version >= 3:
        family, model, step = CPUID[product]
        body |= {"cpuid_fam_id": family, "cpuid_mod_id": model, "cpuid_step": step}
    if version >= 5:
        body |= {"launch_mit_vector": 0x3F, "current_mit_vector": 0x3F}
    return body
