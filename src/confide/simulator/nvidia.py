# SPDX-License-Identifier: Apache-2.0
"""A simulated NVIDIA GPU or NVSwitch: reports, RIM documents and OCSP responses in the vendor's formats under local roots.

    device = Platform.create()
    report, endorsements = device.evidence(nonce)               # a passing case
    report, endorsements = device.evidence(nonce, fields={"chip_sku": None})

Every field of a report, every certificate and every part of a document can be set, so that a test is one change away from
what passes. RIM documents are written in canonical XML here and read by lxml there.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Self
from xml.sax.saxutils import quoteattr

from confide.attestation.anchors import TrustAnchor
from confide.attestation.evidence import Endorsements, EvidencePart
from confide.crypto.issue import IssuingKey, issue
from confide.crypto.issue_ocsp import OCSP_SIGNING, issue_ocsp
from confide.crypto.x509 import Certificate, Extension
from confide.tees.nvidia import endorse, wire
from confide.wire.der_write import integer, oid, sequence, tagged

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Authority", "Manifest", "Platform", "name"]

NOT_BEFORE: Final = datetime(2024, 1, 1, tzinfo=UTC)
NOT_AFTER: Final = datetime(2044, 1, 1, tzinfo=UTC)
CA_USAGE: Final = frozenset({"key_cert_sign", "crl_sign"})
DRIVER: Final = "575.57.08"
VBIOS: Final = "96.00.CC.00.02"
SWITCH_VBIOS: Final = "96.10.55.00.01"
_SHA384: Final = "2.16.840.1.101.3.4.2.2"
_SWID: Final = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd"
_DSIG: Final = "http://www.w3.org/2000/09/xmldsig#"
_C14N: Final = "http://www.w3.org/2006/12/xml-c14n11"
_NAMESPACES: Final = (
    f'xmlns="{_SWID}"',
    f'xmlns:ds="{_DSIG}"',
    f'xmlns:ns0="{_SWID}"',
    'xmlns:ns2="http://www.w3.org/2001/04/xmlenc#sha384"',
)


def name(common: str) -> tuple[tuple[str, str], ...]:
    """A distinguished name that nobody takes for NVIDIA's."""
    return (("O", "confide simulator"), ("CN", common))


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate with its key and the issuer above it; the root has none."""

    certificate: bytes
    key: IssuingKey = field(repr=False)
    issuer: Authority | None = None

    @property
    def chain(self) -> tuple[bytes, ...]:
        """The certificates up to the root, this one first."""
        return (self.certificate, *(() if self.issuer is None else self.issuer.chain))

    def certify(self, common: str, key: IssuingKey, serial: int, **changes: Any) -> Authority:
        """A certificate below this one, a CA's unless ``changes`` (arguments of ``issue``) say otherwise."""
        above = Certificate.from_der(self.certificate)
        arguments: dict[str, Any] = {
            "subject": name(common),
            "issuer": _pairs(above),
            "public_key": key.public_key_der,
            "signing_key": self.key,
            "serial": serial,
            "not_before": NOT_BEFORE,
            "not_after": NOT_AFTER,
            "is_ca": True,
            "key_usage": CA_USAGE,
        }
        return Authority(issue(**(arguments | changes)), key, self)

    @classmethod
    def root(cls, common: str, key: IssuingKey, **changes: Any) -> Authority:
        """A root that has signed itself."""
        arguments: dict[str, Any] = {
            "subject": name(common),
            "issuer": name(common),
            "public_key": key.public_key_der,
            "signing_key": key,
            "serial": 1,
            "not_before": NOT_BEFORE,
            "not_after": NOT_AFTER,
            "is_ca": True,
            "key_usage": CA_USAGE,
        }
        return cls(issue(**(arguments | changes)), key)

    def ocsp(
        self, certificate: bytes, *, at: datetime, responder: Authority | None = None, **changes: Any
    ) -> bytes:
        """A response about a certificate that this authority has issued, good for a day around ``at``; signed by a delegated
        ``responder``, or by the authority itself.
        """
        signer = responder or self
        day = at.replace(hour=0, minute=0, second=0, microsecond=0)
        arguments: dict[str, Any] = {
            "certificate": certificate,
            "issuer": self.certificate,
            "responder": signer.certificate,
            "signing_key": signer.key,
            "this_update": day,
            "next_update": day.replace(hour=23, minute=59, second=59),
        }
        return issue_ocsp(**(arguments | changes))

    def responder(self, key: IssuingKey, **changes: Any) -> Authority:
        """A certificate for signing OCSP responses in this authority's stead."""
        arguments: dict[str, Any] = {
            "is_ca": False,
            "key_usage": frozenset({"digital_signature"}),
            "extensions": {"2.5.29.37": Extension(critical=True, value=OCSP_SIGNING)},
        }
        return self.certify("OCSP responder", key, 77, **(arguments | changes))


def _pairs(certificate: Certificate) -> tuple[tuple[str, str], ...]:
    pairs = (part.partition("=") for part in certificate.subject.split(", "))
    return tuple((short, text) for short, _, text in pairs)


@dataclass(frozen=True, slots=True)
class Manifest:
    """A RIM document before it is signed; ``golden`` maps an index to the values that it may have.

    ``inactive`` are indexes that are listed and do not count; ``change`` may rewrite the canonical document before its digest is
    taken, ``forge`` the finished one after.
    """

    version: str
    product: str
    golden: Mapping[int, Sequence[bytes]]
    edition: str = "GPU"
    inactive: tuple[int, ...] = ()
    tag_id: str = "00" * 48
    change: Callable[[str], str] = str
    forge: Callable[[str], str] = str

    def sign(self, signer: Authority, *, certificates: Sequence[bytes] | None = None) -> bytes:
        """The document with its signature, and the signer's chain unless others are given."""
        document = self.change(self._document())
        canonical = document.encode("utf-8")
        info = _signed_info(base64.b64encode(hashlib.sha384(canonical).digest()).decode("ascii"))
        # What is signed has the namespaces of the elements around it written out; what stands in the file does not.
        r, s = signer.key.sign_ecdsa(info.replace("<ds:SignedInfo>", _apex(), 1).encode("utf-8"))
        value = base64.b64encode(r.to_bytes(48, "big") + s.to_bytes(48, "big")).decode("ascii")
        chain = signer.chain if certificates is None else tuple(certificates)
        carried = "".join(
            f"<ds:X509Certificate>{base64.encodebytes(one).decode('ascii')}</ds:X509Certificate>"
            for one in chain
        )
        signature = (
            f'<ds:Signature xmlns:ds="{_DSIG}">{info}<ds:SignatureValue>{value}</ds:SignatureValue>'
            f"<ds:KeyInfo><ds:X509Data>{carried}</ds:X509Data></ds:KeyInfo></ds:Signature>"
        )
        end = "</SoftwareIdentity>"
        return self.forge(document.removesuffix(end) + signature + end).encode("utf-8")

    def _document(self) -> str:
        lines = [
            self._resource(index, values, active=index not in self.inactive)
            for index, values in self.golden.items()
        ]
        # Canonical XML sorts attributes by namespace and name, and writes every element with an end tag.
        return (
            f"<SoftwareIdentity {_NAMESPACES[0]} {_NAMESPACES[2]} {_NAMESPACES[3]} name={quoteattr(self.product)} "
            f'tagId={quoteattr(self.tag_id)} version="1.0">\n'
            '    <ns0:Entity name="confide simulator" role="softwareCreator tagCreator"></ns0:Entity>\n'
            f"    <ns0:Meta colloquialVersion={quoteattr(self.version)} edition={quoteattr(self.edition)} "
            f"product={quoteattr(self.product)}></ns0:Meta>\n"
            f"    <ns0:Payload>\n{''.join(lines)}    </ns0:Payload>\n</SoftwareIdentity>"
        )

    def _resource(self, index: int, values: Sequence[bytes], *, active: bool) -> str:
        # By name as text, so that Hash10 comes before Hash2.
        named = sorted((f"Hash{number}", value) for number, value in enumerate(values))
        hashes = "".join(f' ns2:{word}="{value.hex()}"' for word, value in named)
        return (
            f'        <ns0:Resource active="{active}" alternatives="{len(values)}" index="{index}" '
            f'name="Measurement_{index}" size="{len(values[0])}" type="Measurement"{hashes}></ns0:Resource>\n'
        )


def _signed_info(digest: str) -> str:
    dsig = "http://www.w3.org/2001/04/xmldsig-more#"
    return (
        f'<ds:SignedInfo><ds:CanonicalizationMethod Algorithm="{_C14N}"></ds:CanonicalizationMethod>'
        f'<ds:SignatureMethod Algorithm="{dsig}ecdsa-sha384"></ds:SignatureMethod>'
        '<ds:Reference URI=""><ds:Transforms>'
        f'<ds:Transform Algorithm="{_DSIG}enveloped-signature"></ds:Transform>'
        f'<ds:Transform Algorithm="{_C14N}"></ds:Transform></ds:Transforms>'
        f'<ds:DigestMethod Algorithm="{dsig}sha384"></ds:DigestMethod>'
        f"<ds:DigestValue>{digest}</ds:DigestValue></ds:Reference></ds:SignedInfo>"
    )


def _apex() -> str:
    return f"<ds:SignedInfo {' '.join(_NAMESPACES)}>"


@dataclass(frozen=True, slots=True)
class Platform:
    """A simulated device with its two hierarchies: ``firmware`` is the key that signs reports, ``signer`` that of RIM documents."""

    model: endorse.Model
    firmware: Authority
    signer: Authority
    fwid: bytes
    measurements: Mapping[int, bytes]

    @classmethod
    def create(
        cls,
        model: str = "GH100",
        *,
        key: Callable[[str], IssuingKey] = lambda _: IssuingKey.generate_p384(),
        serial: int = 0x41AB_0000_0000_0000_01,
        udi: str | None = None,
        fwid: bytes | None = None,
        changes: Mapping[str, Mapping[str, Any]] | None = None,
        extensions: Mapping[str, Extension | None] | None = None,
    ) -> Self:
        """A device under new roots; ``key`` makes the key of each certificate by its name, ``serial`` is the device's.

        ``changes`` are arguments of ``issue`` by certificate: "root", "identity", "provisioner", "device", "firmware", "rim root",
        "rim ca", "rim signer". ``extensions`` replaces extensions of the firmware's certificate; None leaves one out.
        """
        chip = endorse.model_of(model)
        if chip is None:
            raise ValueError("an unknown chip")
        changed = changes or {}

        def below(above: Authority, role: str, number: int, **own: Any) -> Authority:
            return above.certify(role, key(role), number, **(own | dict(changed.get(role, {}))))

        root = Authority.root("root", key("root"), **changed.get("root", {}))
        identity = below(root, "identity", 2)
        provisioner = below(identity, "provisioner", 3)
        device = below(provisioner, "device", serial)
        own = hashlib.sha384(b"simulated firmware").digest() if fwid is None else fwid
        found = _extensions(chip, device.key.public_key_der, own, udi) | dict(extensions or {})
        firmware = below(
            device,
            "firmware",
            serial ^ 0xF0,
            is_ca=False,
            key_usage=frozenset({"digital_signature"}),
            extensions={dotted: one for dotted, one in found.items() if one is not None},
        )
        rim_root = Authority.root("rim root", key("rim root"), **changed.get("rim root", {}))
        rim_ca = below(rim_root, "rim ca", 12)
        signer = below(rim_ca, "rim signer", 13, is_ca=False, key_usage=frozenset({"digital_signature"}))
        count = 31 if chip.kind == "switch" else 64
        values = {index: hashlib.sha384(b"measurement %d" % index).digest() for index in range(count)}
        return cls(chip, firmware, signer, own, values)

    @property
    def anchor(self) -> TrustAnchor:
        """Both local roots as one anchor, marked as simulated."""
        roots = (self.firmware.chain[-1], self.signer.chain[-1])
        return TrustAnchor("nvidia", "simulated", roots, simulated=True)

    @property
    def vbios(self) -> str:
        """The VBIOS version that reports name."""
        return SWITCH_VBIOS if self.model.kind == "switch" else VBIOS

    def fields(self) -> dict[str, bytes]:
        """The opaque fields of a report, by name, in their order."""
        if self.model.kind == "switch":
            return {
                "vbios_version": self.vbios.encode("ascii"),
                "switch_pdi": bytes.fromhex("203eb31ad9ed0008"),
                "msrscnt": bytes(104),
                "switch_gpu_pdis": bytes(128),
                "floorswept_ports": b"\xec\x00",
                "position_id": b"\x02\x00",
                "lock_switch_status": b"\x01\x00",
            }
        parts = [int(part, 16) for part in self.vbios.split(".")]
        return {
            "vbios_version": bytes(reversed(parts[:4])) + bytes((parts[4], 0, 0, 0)),
            "board_id": b"\xb1\x03\x00\x00",
            "chip_sku": b"882\x00",
            "project": b"1010\x00",
            "project_sku": b"0200\x00",
            "driver_version": DRIVER.encode("ascii") + b"\x00",
            "msrscnt": bytes(256),
            "nvdec0_status": b"\x55",
            "fwid": self.fwid,
            "protected_pcie_status": b"\x55",
            "opaque_data_version": b"\x01\x00",
            "feature_flag": b"\x00\x00",
        }

    def report(
        self,
        nonce: bytes,
        *,
        request: Mapping[str, Any] | None = None,
        header: Mapping[str, Any] | None = None,
        fields: Mapping[str, bytes | None] | None = None,
        measurements: Mapping[int, bytes] | None = None,
        opaque: bytes | None = None,
        device_nonce: bytes = bytes(range(32)),
        key: IssuingKey | None = None,
    ) -> bytes:
        """A signed report over ``nonce`` (32 bytes).

        ``request`` and ``header`` replace fields of the two messages, ``fields`` opaque ones by name (None leaves one out),
        ``measurements`` single values by index, ``opaque`` all opaque bytes.
        """
        numbers = {word: number for number, word in wire.FIELDS.items()}
        chosen = self.fields() | dict(fields or {})
        if opaque is None:
            opaque = b"".join(
                numbers[word].to_bytes(2, "little") + len(data).to_bytes(2, "little") + data
                for word, data in chosen.items()
                if data is not None
            )
        values = dict(self.measurements) | dict(measurements or {})
        record = wire.encode_record(tuple(wire.Measurement(i + 1, 1, value) for i, value in values.items()))
        asked = wire.Request(nonce=nonce)
        answer = wire.ResponseHeader(blocks=len(values), record_length=len(record).to_bytes(3, "little"))
        signed = (
            replace(asked, **(request or {})).encode()
            + replace(answer, **(header or {})).encode()
            + record
            + device_nonce
            + len(opaque).to_bytes(2, "little")
            + opaque
        )
        return self.sign(signed, key=key)

    def sign(self, signed: bytes, *, key: IssuingKey | None = None) -> bytes:
        """The bytes of a report up to its signature, with one."""
        r, s = (key or self.firmware.key).sign_ecdsa(signed)
        return signed + r.to_bytes(48, "big") + s.to_bytes(48, "big")

    def manifests(self, **changes: Any) -> dict[str, Manifest]:
        """The documents of this device by kind, with the halves of its measurements; ``changes`` apply to each."""
        common: dict[str, Any] = {
            "product": self.model.name.replace("_", ""),
            "edition": self.model.kind.upper(),
        }
        if self.model.kind == "switch":
            golden = {index: (value,) for index, value in self.measurements.items()}
            return {"vbios": replace(Manifest(self.vbios, golden=golden, **common), **changes)}
        low = {index: (self.measurements[index],) for index in (0, 1, 2, 3, 8, 12)}
        high = {index: (bytes(48), self.measurements[index]) for index in (7, 21, 22, 35, 40)}
        return {
            "driver": replace(Manifest(DRIVER, golden=high, inactive=(40,), **common), **changes),
            "vbios": replace(Manifest(self.vbios, golden=low, **common), **changes),
        }

    def documents(self, manifests: Mapping[str, Manifest] | None = None) -> tuple[EvidencePart, ...]:
        """Signed RIM documents as endorsements."""
        chosen = self.manifests() if manifests is None else manifests
        return tuple(EvidencePart("nvidia-rim", one.sign(self.signer)) for one in chosen.values())

    def ocsp(self, at: datetime, **changes: Any) -> tuple[EvidencePart, ...]:
        """A good response about every certificate of both hierarchies that a responder can know."""
        found = []
        for leaf in (self.firmware.issuer, self.signer):
            one = leaf
            while one is not None and one.issuer is not None:
                response = one.issuer.ocsp(one.certificate, at=at, **changes)
                found.append(EvidencePart("ocsp", response))
                one = one.issuer
        return tuple(found)

    @property
    def certificates(self) -> tuple[bytes, ...]:
        """The chain as NVML gives it, the firmware's first and the root last."""
        return self.firmware.chain

    def evidence(self, report_data: bytes, **overrides: Any) -> tuple[bytes, Endorsements]:
        """A report over a nonce of 32 bytes and all that is needed to judge it; ``overrides`` are those of ``report``."""
        return self.report(report_data, **overrides), Endorsements(self.certificates, (), self.documents())


def _extensions(
    model: endorse.Model, device_key: bytes, fwid: bytes, udi: str | None
) -> dict[str, Extension | None]:
    text = f"NVIDIA:{model.name}:48B02D0000000001" if udi is None else udi
    other_name = tagged(0xA0, oid(endorse.OID_DEVICE_INFO) + tagged(0xA0, tagged(0x0C, text.encode("utf-8"))))
    firmware = sequence(oid(_SHA384), tagged(0x04, fwid))
    dice = (
        (
            endorse.OID_TCB_INFO,
            sequence(tagged(0x80, b"NVIDIA"), tagged(0xA6, firmware), tagged(0x87, bytes(5))),
        )
        if model.architecture == "blackwell"
        else (endorse.OID_COMPOSITE_DEVICE_ID, sequence(integer(1), device_key, firmware))
    )
    return {
        endorse.OID_SUBJECT_ALT_NAME: Extension(critical=False, value=sequence(other_name)),
        dice[0]: Extension(critical=False, value=dice[1]),
    }
