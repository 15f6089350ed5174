# SPDX-License-Identifier: Apache-2.0
"""What AMD says about its chips: pinned roots, product lines, TCB versions, certificate extensions, and where to ask.

Source: "Versioned Chip Endorsement Key (VCEK) Certificate and KDS Interface Specification" (57230). Nothing here asks;
the addresses are for ``tees.fetch``.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Final

from confide.attestation.anchors import TrustAnchor
from confide.crypto import x509
from confide.errors import ConfigurationError, MalformedError, NotGenuine
from confide.tees.snp import wire

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "KDS_HOST",
    "PRODUCTS",
    "KeyCertificate",
    "Product",
    "Tcb",
    "anchors",
    "certificate_url",
    "crl_url",
    "explain",
    "product_of_processor",
    "read_key_certificate",
    "read_tcb",
]

KDS_HOST: Final = "kdsintf.amd.com"

_OID: Final = "1.3.6.1.4.1.3704.1"
OID_STRUCT_VERSION: Final = f"{_OID}.1"
OID_PRODUCT_NAME: Final = f"{_OID}.2"
OID_BL_SPL: Final = f"{_OID}.3.1"
OID_TEE_SPL: Final = f"{_OID}.3.2"
OID_SNP_SPL: Final = f"{_OID}.3.3"
OID_UCODE_SPL: Final = f"{_OID}.3.8"
OID_FMC_SPL: Final = f"{_OID}.3.9"
OID_HWID: Final = f"{_OID}.4"
OID_CSP_ID: Final = f"{_OID}.5"


@dataclass(frozen=True, slots=True)
class Tcb:
    """Security patch levels, 0 to 255 each. ``fmc`` exists on Turin only and is None elsewhere."""

    bootloader: int
    tee: int
    snp: int
    microcode: int
    fmc: int | None = None

    def to_json(self) -> dict[str, int]:
        """The levels by name, without those that the product does not have."""
        values = {
            "bootloader": self.bootloader,
            "tee": self.tee,
            "snp": self.snp,
            "microcode": self.microcode,
        }
        if self.fmc is not None:
            values["fmc"] = self.fmc
        return values

    def below(self, floor: Mapping[str, int]) -> tuple[str, ...]:
        """The names of the levels that are lower than in ``floor``, each compared for itself. A level that this product
        does not have is below every floor.
        """
        own = self.to_json()
        return tuple(name for name, least in floor.items() if own.get(name, -1) < least)


@dataclass(frozen=True, slots=True)
class Product:
    """A product line: AMD's name for it, the processors (family and ranges of models) that belong to it, the layout of its
    TCB_VERSION, and the length of its hardware id in bytes.
    """

    name: str
    family: int
    models: tuple[range, ...]
    has_fmc: bool
    hwid_bytes: int


PRODUCTS: Final[Mapping[str, Product]] = {
    product.name: product
    for product in (
        Product("Milan", 0x19, (range(0x10),), has_fmc=False, hwid_bytes=64),
        # Models 0xA0 to 0xAF are the parts with Zen 4c cores, whose keys AMD certifies as Genoa.
        Product("Genoa", 0x19, (range(0x10, 0x20), range(0xA0, 0xB0)), has_fmc=False, hwid_bytes=64),
        Product("Turin", 0x1A, (range(0x20),), has_fmc=True, hwid_bytes=8),
    )
}


def product_of_processor(family: int, model: int) -> Product | None:
    """The product line of a processor, by the combined family and model of CPUID; None if it is not known here."""
    for product in PRODUCTS.values():
        if family == product.family and any(model in models for models in product.models):
            return product
    return None


def read_tcb(data: bytes, product: Product) -> Tcb:
    """The 8 bytes of a TCB_VERSION in the layout of ``product``; ``malformed.reserved_not_zero`` if they are of another."""
    if product.has_fmc:
        turin = wire.TcbVersionTurin.decode(data)
        return Tcb(turin.boot_loader, turin.tee, turin.snp, turin.microcode, turin.fmc)
    other = wire.TcbVersion.decode(data)
    return Tcb(other.boot_loader, other.tee, other.snp, other.microcode)


@dataclass(frozen=True, slots=True)
class KeyCertificate:
    """A certificate of a VCEK or VLEK and what its extensions say.

    ``hwid`` is the chip's id for a VCEK and None for a VLEK; ``csp_id`` names the cloud of a VLEK and is None for a VCEK.
    """

    certificate: x509.Certificate
    kind: str
    product: Product
    tcb: Tcb
    hwid: bytes | None
    csp_id: str | None


def is_key_certificate(certificate: x509.Certificate) -> bool:
    """Whether a certificate has AMD's extensions at all, so that it can be a VCEK or VLEK."""
    return OID_PRODUCT_NAME in certificate.extensions


def read_key_certificate(certificate: x509.Certificate) -> KeyCertificate:
    """Read AMD's extensions, each in its one DER form.

    Raises ``not_genuine.identity_mismatch`` for a product that is not known, ``malformed`` for extensions that are absent
    or of another form. What the certificate says is worth nothing until its chain has been verified.
    """
    name = _text(certificate, OID_PRODUCT_NAME)
    product = PRODUCTS.get(name.split("-", 1)[0])  # "Milan-B0" names a stepping of Milan.
    if product is None:
        raise NotGenuine(
            "identity_mismatch",
            "the chip's certificate names a product line that is not known",
            stage="identity",
        )
    if _integer(certificate, OID_STRUCT_VERSION) != (1 if product.has_fmc else 0):
        raise MalformedError(
            "unsupported_version", "the chip's certificate has another structure than its product"
        )
    tcb = Tcb(
        bootloader=_integer(certificate, OID_BL_SPL),
        tee=_integer(certificate, OID_TEE_SPL),
        snp=_integer(certificate, OID_SNP_SPL),
        microcode=_integer(certificate, OID_UCODE_SPL),
        fmc=_integer(certificate, OID_FMC_SPL) if product.has_fmc else None,
    )
    has_hwid, has_csp = OID_HWID in certificate.extensions, OID_CSP_ID in certificate.extensions
    if has_hwid == has_csp:
        raise MalformedError("unknown_format", "the certificate is neither that of a VCEK nor that of a VLEK")
    if has_csp:
        return KeyCertificate(certificate, "vlek", product, tcb, None, _text(certificate, OID_CSP_ID))
    return KeyCertificate(certificate, "vcek", product, tcb, _hwid(certificate, product), None)


def _extension(certificate: x509.Certificate, oid: str) -> bytes:
    extension = certificate.extensions.get(oid)
    if extension is None:
        raise MalformedError("unknown_format", f"the chip's certificate lacks the extension {oid}")
    return extension.value


def _integer(certificate: x509.Certificate, oid: str) -> int:
    """A DER INTEGER from 0 to 255 in its shortest form."""
    der = _extension(certificate, oid)
    if len(der) == 3 and der[:2] == b"\x02\x01" and der[2] < 0x80:
        return der[2]
    if len(der) == 4 and der[:3] == b"\x02\x02\x00" and der[3] >= 0x80:
        return der[3]
    raise MalformedError(
        "non_canonical", f"the extension {oid} of the chip's certificate is not a small integer"
    )


def _text(certificate: x509.Certificate, oid: str) -> str:
    """A DER IA5String of 1 to 127 printable characters."""
    der = _extension(certificate, oid)
    if len(der) < 3 or der[0] != 0x16 or der[1] >= 0x80 or len(der) != 2 + der[1]:
        raise MalformedError(
            "non_canonical", f"the extension {oid} of the chip's certificate is not a short text"
        )
    if any(not 0x20 <= byte < 0x7F for byte in der[2:]):
        raise MalformedError(
            "non_canonical", f"the extension {oid} of the chip's certificate is not printable text"
        )
    return der[2:].decode("ascii")


def _hwid(certificate: x509.Certificate, product: Product) -> bytes:
    """The hardware id: raw bytes in what AMD issues, an OCTET STRING in the specification. Both lengths are exact."""
    value = _extension(certificate, OID_HWID)
    length = product.hwid_bytes
    if len(value) == length + 2 and value[:2] == bytes((0x04, length)):
        return value[2:]
    if len(value) != length:
        raise MalformedError(
            "length_mismatch", "the hardware id in the chip's certificate has another length"
        )
    return value


@functools.cache
def anchors() -> tuple[TrustAnchor, ...]:
    """AMD's roots, one anchor for each product line: ARK, ASK and ASVK as shipped in ``roots/``."""
    found = []
    for name in PRODUCTS:
        pem = resources.files("confide.tees.snp").joinpath("roots", f"{name.lower()}.pem").read_bytes()
        found.append(TrustAnchor("snp", name, tuple(certificate.der for certificate in x509.parse_pem(pem))))
    return tuple(found)


def certificate_url(report: wire.Report, *, product: str | None = None) -> str:
    """The address of the VCEK for a report, by CHIP_ID and REPORTED_TCB.

    ``product`` is needed for reports of version 2, which do not say it. Raises ``configuration`` errors for a report that
    no VCEK can be asked for: signed with a VLEK, with a masked chip id, or of an unknown product.
    """
    if wire.KeyInfo(report.key_info).signing_key != wire.KeyInfo.VCEK or not any(report.chip_id):
        raise ConfigurationError(
            "endorsement",
            "this report is not signed by a chip's own key, so that AMD's service has no certificate for it",
            hint="ask the cloud provider for the VLEK certificate",
        )
    found = (
        None
        if isinstance(report, wire.ReportV2)
        else product_of_processor(report.cpuid_fam_id, report.cpuid_mod_id)
    )
    if isinstance(report, wire.ReportV2):
        if product is None:
            raise ConfigurationError(
                "product",
                "reports of version 2 do not name their product",
                hint=f"give one of {', '.join(PRODUCTS)}",
            )
        found = PRODUCTS.get(product)
    if found is None:
        raise ConfigurationError("product", "this product line is not known here")
    tcb = read_tcb(report.reported_tcb, found)
    levels = [
        ("blSPL", tcb.bootloader),
        ("teeSPL", tcb.tee),
        ("snpSPL", tcb.snp),
        ("ucodeSPL", tcb.microcode),
    ]
    if tcb.fmc is not None:
        levels.insert(0, ("fmcSPL", tcb.fmc))
    query = "&".join(f"{name}={level:02d}" for name, level in levels)
    chip = report.chip_id[: found.hwid_bytes].hex()
    return f"https://{KDS_HOST}/vcek/v1/{found.name}/{chip}?{query}"


def crl_url(product: str, *, kind: str = "vcek") -> str:
    """The address of the CRL that covers a product's ASK (``vcek``) or ASVK (``vlek``)."""
    if product not in PRODUCTS or kind not in {"vcek", "vlek"}:
        raise ConfigurationError("product", "this product line is not known here")
    return f"https://{KDS_HOST}/{kind}/v1/{product}/crl"


def explain(data: bytes) -> dict[str, object]:
    """The fields of a report for a person, by AMD's names; nothing is checked. Raises MalformedError."""
    report = wire.decode_report(data)
    policy, platform = wire.GuestPolicy(report.policy), wire.PlatformInfo(report.platform_info)
    key = {wire.KeyInfo.VCEK: "VCEK", wire.KeyInfo.VLEK: "VLEK"}.get(
        wire.KeyInfo(report.key_info).signing_key, "none"
    )
    fields: dict[str, object] = {
        "version": report.version,
        "signing key": key,
        "vmpl": report.vmpl,
        "measurement": report.measurement.hex(),
        "report_data": report.report_data.hex(),
        "host_data": report.host_data.hex(),
        "guest policy": f"{report.policy:#x}: "
        + ", ".join(bit.name for bit in policy.BITS if policy.has(bit.name)),
        "platform": f"{report.platform_info:#x}: "
        + ", ".join(bit.name for bit in platform.BITS if platform.has(bit.name)),
        "guest_svn": report.guest_svn,
        "chip_id": report.chip_id.hex(),
        "report_id": report.report_id.hex(),
    }
    if report.version == 4:
        fields["unproven on real bytes"] = wire.UNPROVEN_V4
    if isinstance(report, wire.ReportV2):
        return fields
    product = product_of_processor(report.cpuid_fam_id, report.cpuid_mod_id)
    fields["product"] = "unknown" if product is None else product.name
    if product is not None:
        tcb = read_tcb(report.reported_tcb, product).to_json()
        fields["reported TCB"] = ", ".join(f"{name} {level}" for name, level in tcb.items())
    if isinstance(report, wire.ReportV5):
        fields["mitigations"] = f"{report.launch_mit_vector:#x} at launch, {report.current_mit_vector:#x} now"
    return fields
