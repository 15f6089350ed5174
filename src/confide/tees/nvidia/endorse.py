# SPDX-License-Identifier: Apache-2.0
"""What NVIDIA says about its devices: pinned roots, certificates of devices and their firmware, names of RIM documents.

Source: TCG, "DICE Attestation Architecture" 1.1, section 6.1.1 (TcbInfo), and "Implicit Identity Based Device Attestation" 1.0
(CompositeDeviceID); DMTF DSP0274, OtherName of device information; NVIDIA's attestation SDK for names and addresses.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from importlib import resources
from typing import Final

from confide.attestation.anchors import TrustAnchor
from confide.crypto import ocsp, x509
from confide.errors import MalformedError, NotGenuine
from confide.tees.nvidia import wire
from confide.wire import base64_text, der, strict_json
from confide.wire.fields import Fields

__all__ = [
    "ARCHITECTURES",
    "OCSP_URL",
    "RIM_HOST",
    "DeviceCertificate",
    "Model",
    "OcspQuestion",
    "anchors",
    "is_device_certificate",
    "model_of",
    "ocsp_questions",
    "read_device_certificate",
    "read_rim_answer",
    "rim_names",
    "urls",
]

RIM_HOST: Final = "rim.attestation.nvidia.com"
OCSP_HOST: Final = "ocsp.ndis.nvidia.com"
OCSP_URL: Final = f"https://{OCSP_HOST}/"

OID_COMPOSITE_DEVICE_ID: Final = "2.23.133.5.4.1"
OID_TCB_INFO: Final = "2.23.133.5.4.1.1"
OID_SUBJECT_ALT_NAME: Final = "2.5.29.17"
OID_DEVICE_INFO: Final = "1.3.6.1.4.1.412.274.1"
_SHA384: Final = "2.16.840.1.101.3.4.2.2"
_DEVICE_INFO = re.compile(r"NVIDIA:([A-Z][A-Z0-9_]{2,7}):([0-9A-F]{16})", re.ASCII)
# OperationalFlags, counted from the most significant bit. The first, notConfigured, is set on genuine Blackwell devices.
_DEBUG: Final = 1 << 28
_UNFIT: Final = {1 << 30: "not secure", 1 << 29: "in recovery"}


@dataclass(frozen=True, slots=True)
class Model:
    """One chip: its architecture, ``gpu`` or ``switch``, and whether a report of it is among the samples."""

    name: str
    architecture: str
    kind: str
    proven: bool = False


_PROVEN: Final = {
    "GH100": Model("GH100", "hopper", "gpu", proven=True),
    "LS_10": Model("LS_10", "ls10", "switch", proven=True),
}
_BLACKWELL = re.compile(r"GB[12]\d{2}", re.ASCII)
ARCHITECTURES: Final = ("hopper", "blackwell", "ls10")


def model_of(name: str) -> Model | None:
    """The chip of that name in device certificates; None for one that is not known here."""
    if _BLACKWELL.fullmatch(name):
        return Model(name, "blackwell", "gpu")
    return _PROVEN.get(name)


@dataclass(frozen=True, slots=True)
class DeviceCertificate:
    """The certificate of the key that signs reports: of one device with one version of its security processor's firmware.

    ``udi`` is the device's information as DMTF writes it ("NVIDIA:GH100:48B0..."), ``fwid`` SHA-384 of the firmware that the
    key belongs to, ``device_key`` the SubjectPublicKeyInfo of the device's own key where the certificate repeats it, ``debug``
    whether it says that the firmware is open to debugging, ``unfit`` what else it says against it: ``not secure``, ``in recovery``.
    """

    certificate: x509.Certificate
    model: Model
    udi: str
    fwid: bytes
    device_key: bytes | None
    debug: bool = False
    unfit: tuple[str, ...] = ()

    @property
    def ueid(self) -> str:
        """The id that NVIDIA's own verifiers report as ``ueid``: the certificate's serial number, in decimal."""
        return str(self.certificate.serial)


def is_device_certificate(certificate: x509.Certificate) -> bool:
    """Whether the certificate is that of a device's firmware: it carries one of the two DICE extensions and is no CA's."""
    oids = certificate.extensions
    return not certificate.is_ca and (OID_COMPOSITE_DEVICE_ID in oids or OID_TCB_INFO in oids)


def read_device_certificate(certificate: x509.Certificate) -> DeviceCertificate:
    """Read the extensions. Raises MalformedError for their form, ``not_genuine.unknown_product`` for an unknown chip."""
    udi = _device_info(certificate)
    found = _DEVICE_INFO.fullmatch(udi)
    if found is None:
        raise MalformedError("non_canonical", "the device's certificate does not name an NVIDIA device")
    model = model_of(found[1])
    if model is None:
        raise NotGenuine(
            "unknown_product",
            "the certificate is of a chip that is not known here",
            hint="GH100, GB1xx, GB2xx and LS_10 are",
            stage="identity",
        )
    composite = certificate.extensions.get(OID_COMPOSITE_DEVICE_ID)
    tcb_info = certificate.extensions.get(OID_TCB_INFO)
    fwid, device_key, flags = b"", None, 0
    if tcb_info is not None:
        fwid, flags = _tcb_info(tcb_info.value)
    if composite is not None:
        fwid, device_key = _composite_device_id(composite.value)
    unfit = tuple(word for bit, word in _UNFIT.items() if flags & bit)
    return DeviceCertificate(certificate, model, udi, fwid, device_key, bool(flags & _DEBUG), unfit)


def _device_info(certificate: x509.Certificate) -> str:
    what = "alternative name of the device's certificate"
    extension = certificate.extensions.get(OID_SUBJECT_ALT_NAME)
    if extension is None:
        raise MalformedError("non_canonical", f"{what}: absent")
    names = der.decode(extension.value, what=what, max_size=256).expect(der.SEQUENCE).children()
    parts = names[0].expect(0xA0).children() if len(names) == 1 else ()
    wrapped = parts[1].expect(0xA0).children() if len(parts) == 2 else ()
    if len(wrapped) != 1 or parts[0].oid() != OID_DEVICE_INFO:
        raise MalformedError("non_canonical", f"{what}: not DMTF's device information")
    return wrapped[0].expect(der.UTF8_STRING).content.decode("utf-8")


def _composite_device_id(data: bytes) -> tuple[bytes, bytes]:
    """FWID and device key of CompositeDeviceID ::= SEQUENCE { version, deviceID, fwid }."""
    what = "firmware extension of the device's certificate"
    parts = der.decode(data, what=what, max_size=512).expect(der.SEQUENCE).children()
    if len(parts) != 3 or parts[0].integer() != 1:
        raise MalformedError("unsupported_version", f"{what}: not a CompositeDeviceID of version 1")
    return _fwid(parts[2], what), parts[1].expect(der.SEQUENCE).encoded


def _tcb_info(data: bytes) -> tuple[bytes, int]:
    """Of DiceTcbInfo the first FWID, that of the firmware which holds the key (further ones are of later layers), and the
    OperationalFlags as a number of 32 bits.
    """
    what = "TCB info extension of the device's certificate"
    parts = der.decode(data, what=what, max_size=1024).expect(der.SEQUENCE).children()
    tags = [part.tag & 0x1F for part in parts]
    if tags != sorted(set(tags)) or any(part.tag & 0xC0 != 0x80 or part.tag & 0x1F > 9 for part in parts):
        raise MalformedError("non_canonical", f"{what}: parts out of order or unknown")
    fwids = next((part for part in parts if part.tag == 0xA6), None)
    if fwids is None or not fwids.children():
        raise MalformedError("non_canonical", f"{what}: no firmware is named")
    flags = next((part.content for part in parts if part.tag == 0x87), b"\x00")
    # A bit string: the number of unused bits, then the bits from the first one on.
    if not 1 <= len(flags) <= 5 or flags[0] > 7:
        raise MalformedError("non_canonical", f"{what}: flags that are not a bit string of 32 bits at most")
    return _fwid(fwids.children()[0], what), int.from_bytes(flags[1:].ljust(4, b"\x00"), "big")


def _fwid(element: der.Element, what: str) -> bytes:
    parts = element.expect(der.SEQUENCE).children()
    if len(parts) != 2 or parts[0].oid() != _SHA384 or len(parts[1].octets()) != 48:
        raise MalformedError("non_canonical", f"{what}: a firmware id that is not one of SHA-384")
    return parts[1].octets()


@functools.cache
def anchors() -> tuple[TrustAnchor, ...]:
    """NVIDIA's two roots: ``device`` for devices, ``rim`` for the signers of RIM documents."""
    found = []
    for name, file in (("device", "device_identity.pem"), ("rim", "rim.pem")):
        pem = resources.files("confide.tees.nvidia").joinpath("roots", file).read_bytes()
        found.append(TrustAnchor("nvidia", name, tuple(one.der for one in x509.parse_pem(pem))))
    return tuple(found)


def rim_names(report: wire.Report, model: Model | None = None) -> dict[str, str]:
    """The names under which NVIDIA's service keeps the documents for a report, by kind: ``driver`` and ``vbios``.

    ``model`` is the chip by its certificate; without it the field ``chip_info`` decides, and the lack of it means GH100.
    """
    vbios = (report.vbios_version or "").replace(".", "")
    if report.kind == "switch":
        # The report does not name its board; NVIDIA's verifiers know one board of LS10.
        return {"vbios": f"NV_SWITCH_BIOS_5612_0002_890_{vbios}"}
    board = "_".join(report.text(name) or "" for name in ("project", "project_sku", "chip_sku"))
    chip = report.text("chip_info")
    blackwell = chip is not None if model is None else model.architecture == "blackwell"
    prefix = f"NV_GPU_CC_DRIVER_{chip or 'GB100'}" if blackwell else "NV_GPU_DRIVER_GH100"
    return {
        "driver": f"{prefix}_{report.text('driver_version')}",
        "vbios": f"NV_GPU_VBIOS_{board}_{vbios}",
    }


def urls(data: bytes, certificates: tuple[bytes, ...] = ()) -> tuple[str, ...]:
    """Where NVIDIA's service keeps the RIM documents for the report in ``data``; answers are for ``read_rim_answer``.

    ``certificates`` are those given with the report; the device's tells Hopper from Blackwell.
    """
    model: Model | None = None
    for encoded in certificates:
        certificate = x509.Certificate.from_der(encoded, long_times=True)
        if is_device_certificate(certificate):
            model = read_device_certificate(certificate).model
            break
    names = rim_names(wire.decode_report(data), model)
    return tuple(f"https://{RIM_HOST}/v1/rim/{name}" for name in names.values())


def read_rim_answer(data: bytes) -> bytes:
    """The XML document in the JSON that NVIDIA's RIM service answers with; nothing of it is trusted before its signature."""
    what = "answer of NVIDIA's RIM service"
    table = strict_json.decode(data, what=what, max_size=256 * 1024)
    if not isinstance(table, dict):
        raise MalformedError("non_canonical", f"{what}: not an object")
    text = Fields(table, what).text("rim", 256 * 1024)
    return base64_text.decode(text, what=what, max_length=64 * 1024)


@dataclass(frozen=True, slots=True)
class OcspQuestion:
    """One request to NVIDIA's responder: POST ``body`` to ``url`` with the type ``application/ocsp-request``."""

    url: str
    body: bytes


def ocsp_questions(certificates: tuple[bytes, ...]) -> tuple[OcspQuestion, ...]:
    """The requests about the CAs in a chain, each of which is asked for under its issuer if that is there or pinned.

    The leaf is left out: the device itself issues it, and no responder knows it.
    """
    known = {
        der_: x509.Certificate.from_der(der_, long_times=True)
        for der_ in (*certificates, *(root for anchor in anchors() for root in anchor.certificates))
    }
    found = []
    for certificate in known.values():
        if is_device_certificate(certificate) or certificate.subject_der == certificate.issuer_der:
            continue
        issuer = next((one for one in known.values() if one.subject_der == certificate.issuer_der), None)
        if issuer is not None:
            found.append(OcspQuestion(OCSP_URL, ocsp.request(certificate, issuer)))
    return tuple(found)
