# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's reference integrity manifests: SWID tags in XML that list the measurements of one driver or one VBIOS.

Source: ISO/IEC 19770-2:2015; TCG, "Reference Integrity Manifest Information Model"; W3C, "XML Signature Syntax and Processing"
1.1 and "Canonical XML" 1.0 and 1.1. XML is read by lxml without DTD, entities and network, in one fixed structure: the document
as NVIDIA signs it, or none. Comments, processing instructions, DOCTYPE and CDATA are refused before a parser sees them, a second
reference, another transform or another algorithm after. So there is one signed thing, and it is all of the document but its
signature; what this module hands out is read from the very bytes whose digest was compared.

lxml offers Canonical XML 1.0. Version 1.1, which the documents name, differs only in attributes of the namespace ``xml:``,
and a document that has one is refused.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from confide.crypto import signing, x509
from confide.errors import ConfigurationError, MalformedError, NotGenuine

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["Golden", "Rim", "parse", "recognises"]

MAX_RIM: Final = 64 * 1024
MAX_DEPTH: Final = 8
MAX_RESOURCES: Final = 256
MAX_ALTERNATIVES: Final = 16
MAX_CERTIFICATES: Final = 8

_SWID: Final = "{http://standards.iso.org/iso/19770/-2/2015/schema.xsd}"
_DSIG: Final = "{http://www.w3.org/2000/09/xmldsig#}"
_SHA384: Final = "{http://www.w3.org/2001/04/xmlenc#sha384}"
_XML: Final = "{http://www.w3.org/XML/1998/namespace}"
_CANONICAL: Final = "http://www.w3.org/2006/12/xml-c14n11"
_EXTENDED_KEY_USAGE: Final = "2.5.29.37"

# What NVIDIA's documents use, and nothing else: each element, the value of its one attribute, and its children in order.
_SIGNED_INFO: Final[tuple[tuple[str, dict[str, str]], ...]] = (
    ("CanonicalizationMethod", {"Algorithm": _CANONICAL}),
    ("SignatureMethod", {"Algorithm": "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"}),
    ("Reference", {"URI": ""}),
)
_TRANSFORMS: Final[tuple[tuple[str, dict[str, str]], ...]] = (
    ("Transform", {"Algorithm": "http://www.w3.org/2000/09/xmldsig#enveloped-signature"}),
    ("Transform", {"Algorithm": _CANONICAL}),
)
_REFERENCE: Final[tuple[tuple[str, dict[str, str]], ...]] = (
    ("Transforms", {}),
    ("DigestMethod", {"Algorithm": "http://www.w3.org/2001/04/xmldsig-more#sha384"}),
    ("DigestValue", {}),
)

_FETCH: Final = "fetch the document from NVIDIA again: `confide endorse EVIDENCE` does"

_DECLARATION = re.compile(rb'<\?xml version=["\']1\.0["\'](?: encoding=["\'][Uu][Tt][Ff]-8["\'])?\s*\?>\s*')
_REFERENCES = re.compile(rb"&(?!(?:amp|lt|gt|quot|apos|#\d{1,6}|#x[0-9A-Fa-f]{1,5});)")
_HEX = re.compile(r"(?:[0-9a-fA-F]{2}){1,64}", re.ASCII)
_NUMBER = re.compile(r"0|[1-9]\d{0,3}", re.ASCII)
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}", re.ASCII)
_VBIOS = re.compile(r"[0-9A-F]{2}(?:\.[0-9A-F]{2}){4}", re.ASCII)
_SPACE = re.compile(r"[ \t\r\n]*")
_NO_SPACE: Final = dict.fromkeys(
    b" \t\r\n"
)  # Without the spaces of Unicode, which ``str.split`` takes out as well.
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Golden:
    """The values that one measurement may have; ``index`` counts from 0. Values that are not ``active`` are not compared."""

    index: int
    name: str
    active: bool
    values: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Rim:
    """A manifest as its bytes say; ``verify`` says whose it is.

    ``version`` is that of the driver (``550.90.07``) or the VBIOS (``96.00.9F.00.01``), ``product`` the chip, ``edition`` ``GPU`` or
    ``SWITCH``. The document does not name the board (project and SKU): only its name at NVIDIA's service does.
    """

    tag_id: str
    version: str
    product: str
    edition: str
    golden: tuple[Golden, ...]
    certificates: tuple[x509.Certificate, ...]
    signed_info: bytes = field(repr=False)
    digest_matches: bool
    signature: bytes = field(repr=False)

    @property
    def kind(self) -> str:
        """``vbios`` or ``driver``, by the form of its version."""
        return "vbios" if _VBIOS.fullmatch(self.version) else "driver"

    @property
    def active(self) -> dict[int, Golden]:
        """The values to compare, by index."""
        return {one.index: one for one in self.golden if one.active}

    def verify(self, roots: tuple[x509.Certificate, ...], *, at: datetime) -> tuple[x509.Certificate, ...]:
        """The chain from the signer to one of ``roots``, every certificate of which is valid at ``at``.

        Raises ``NotGenuine``: ``bad_signature`` if the document or its SignedInfo is not what was signed, and what
        ``x509.verify_chain`` raises.
        """
        self.verify_signature()
        signer, *others = self.certificates
        if _EXTENDED_KEY_USAGE in signer.extensions:
            raise NotGenuine(
                "wrong_usage", "the RIM is signed with a key for something else", stage="endorsement"
            )
        return x509.verify_chain(signer, others, roots, at=at, max_depth=6, signatures=frozenset({"ecdsa"}))

    def verify_signature(self) -> None:
        """Check digest and signature under the first certificate of the document."""
        if not self.digest_matches:
            raise NotGenuine(
                "bad_signature",
                "the RIM is not the document that was signed",
                hint=_FETCH,
                stage="endorsement",
            )
        try:
            _verify(self.certificates[0].public_key_der, self.signature, self.signed_info)
        except NotGenuine as error:
            leaf = error.code.partition(".")[2]
            raise NotGenuine(
                leaf, "the signature of the RIM does not verify", hint=_FETCH, stage="endorsement"
            ) from None


@functools.lru_cache(maxsize=64)
def _verify(public_key_der: bytes, signature: bytes, signed_info: bytes) -> None:
    # The same few documents come with every report of a fleet, and a signature that verified stays verified.
    r, s = (int.from_bytes(part, "big") for part in (signature[:48], signature[48:]))
    signing.verify_ecdsa(public_key_der, r, s, signed_info, curve="p384", hash_name="sha384")


def recognises(data: bytes) -> bool:
    """Whether these bytes begin like a manifest."""
    return b"<SoftwareIdentity" in data[:256]


def parse(data: bytes) -> Rim:
    """The manifest in ``data``. Raises MalformedError for every other XML, ``configuration.missing_extra`` without lxml."""
    if len(data) > MAX_RIM:
        raise MalformedError("limit_exceeded", f"a RIM is at most {MAX_RIM // 1024} KiB")
    return _parsed(bytes(data))


def _refuse(problem: str, leaf: str = "non_canonical") -> MalformedError:
    return MalformedError(leaf, f"RIM: {problem}")


@functools.lru_cache(maxsize=64)
def _parsed(data: bytes) -> Rim:
    etree = _lxml()
    root = _read(etree, data)
    parts = list(root)
    if root.tag != f"{_SWID}SoftwareIdentity" or [part.tag for part in parts] != [
        f"{_SWID}Entity",
        f"{_SWID}Meta",
        f"{_SWID}Payload",
        f"{_DSIG}Signature",
    ]:
        raise _refuse("not a signed SWID tag of one entity, one meta and one payload", "unknown_format")
    _, meta, payload, signature = parts
    signed_info, digest, value, certificates = _read_signature(etree, signature)
    # The enveloped-signature transform: all of the document but the signature, with the text around it.
    payload.tail = (payload.tail or "") + (signature.tail or "")
    root.remove(signature)
    return Rim(
        tag_id=_word(root, "tagId", 128),
        version=_version(meta),
        product=_word(meta, "product", 32),
        edition=_word(meta, "edition", 32),
        golden=_read_payload(payload),
        certificates=certificates,
        signed_info=signed_info,
        digest_matches=hashlib.sha384(_canonical(etree, root)).digest() == digest,
        signature=value,
    )


def _lxml() -> Any:
    try:
        from lxml import etree
    except ImportError:
        raise ConfigurationError(
            "missing_extra", "RIM documents need lxml", hint="pip install 'confide[nvidia]'"
        ) from None
    return etree


def _read(etree: Any, data: bytes) -> Any:
    """The root element, after what no RIM contains has been refused by its bytes."""
    body = data
    if declaration := _DECLARATION.match(data):
        body = data[declaration.end() :]
    if b"<!" in body or b"<?" in body or b"\x00" in body:
        raise _refuse("a DOCTYPE, comment, CDATA section or processing instruction")
    if _REFERENCES.search(body):
        raise _refuse("an entity, or an ampersand that is not written as one")
    if body[:3] == b"\xef\xbb\xbf" or not _is_utf8(body):
        raise _refuse("not in UTF-8 without a byte-order mark")
    parser = etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        attribute_defaults=False,
        huge_tree=False,
        recover=False,
        remove_blank_text=False,
        strip_cdata=False,
    )
    try:
        root = etree.fromstring(body, parser)
    except (etree.LxmlError, ValueError):
        root = None
    if root is None:
        raise _refuse("not well-formed XML")
    _check_tree(root)
    return root


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _check_tree(root: Any) -> None:
    """Elements only, not deeper than the documents are, none with an attribute of the namespace ``xml:``."""
    level, depth = [root], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise _refuse("nested too deeply", "limit_exceeded")
        for element in level:
            if not isinstance(element.tag, str) or any(name.startswith(_XML) for name in element.attrib):
                raise _refuse("something other than elements, or an attribute of the namespace xml")
        level = [child for element in level for child in element]


def _canonical(etree: Any, element: Any) -> bytes:
    made: bytes | None = None
    with contextlib.suppress(
        etree.LxmlError, ValueError
    ):  # Canonical XML has no form for a relative namespace.
        made = etree.tostring(element, method="c14n", exclusive=False, with_comments=False, with_tail=False)
    if made is None:
        raise _refuse("XML that has no canonical form")
    return made


def _children(element: Any, expected: tuple[tuple[str, dict[str, str]], ...]) -> tuple[Any, ...]:
    """The children, which are exactly these elements with exactly these attributes, and white space."""
    found = tuple(element)
    if [(child.tag, dict(child.attrib)) for child in found] != [
        (_DSIG + name, attributes) for name, attributes in expected
    ]:
        raise _refuse(
            "a signature of another structure, or with other algorithms, than NVIDIA's", "unknown_format"
        )
    _only_space(element)
    return found


def _only_space(element: Any) -> None:
    texts = [element.text, *(child.tail for child in element)]
    if any(text and not _SPACE.fullmatch(text) for text in texts):
        raise _refuse("text where only elements belong")


def _read_signature(etree: Any, signature: Any) -> tuple[bytes, bytes, bytes, tuple[x509.Certificate, ...]]:
    """Canonical SignedInfo, digest, signature value and certificates of the one structure that is accepted."""
    if signature.attrib:
        raise _refuse("a signature with an attribute", "unknown_format")
    signed_info, value, key_info = _children(
        signature, (("SignedInfo", {}), ("SignatureValue", {}), ("KeyInfo", {}))
    )
    _, _, reference = _children(signed_info, _SIGNED_INFO)
    transforms, _, digest = _children(reference, _REFERENCE)
    _children(transforms, _TRANSFORMS)
    (x509_data,) = _children(key_info, (("X509Data", {}),))
    count = len(x509_data)
    if not 1 <= count <= MAX_CERTIFICATES:
        raise _refuse(f"no certificate, or more than {MAX_CERTIFICATES}", "limit_exceeded")
    certificates = _children(x509_data, (("X509Certificate", {}),) * count)
    for empty in (*signed_info[:2], *transforms, reference[1]):
        if len(empty) or (empty.text and not _SPACE.fullmatch(empty.text)):
            raise _refuse("an algorithm with parameters", "unknown_format")
    return (
        _canonical(etree, signed_info),
        _base64(digest, 48),
        _base64(value, 96),
        tuple(x509.Certificate.from_der(_base64(one, None), long_times=True) for one in certificates),
    )


def _base64(element: Any, length: int | None) -> bytes:
    """The bytes that an element's text spells; lines may be broken, and nothing else may deviate from the one form."""
    text = (element.text or "").translate(_NO_SPACE)
    if len(element) or not text.isascii() or not _BASE64.fullmatch(text):
        raise _refuse("base64 that is none")
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        data = b""
    if not data or base64.b64encode(data) != text.encode("ascii"):
        raise _refuse("base64 that is not in its one form")
    if length is not None and len(data) != length:
        raise _refuse("a digest or signature of another length", "length_mismatch")
    return data


def _word(element: Any, name: str, longest: int) -> str:
    text: str = element.attrib.get(name, "")
    if not 1 <= len(text) <= longest or not text.isascii() or not text.isprintable():
        raise _refuse(f"no attribute {name} of plain text")
    return text


def _version(meta: Any) -> str:
    text = _word(meta, "colloquialVersion", 32)
    if not _VERSION.fullmatch(text):
        raise _refuse("a version that is not a word")
    return text


def _read_payload(payload: Any) -> tuple[Golden, ...]:
    _only_space(payload)
    resources = list(payload)
    if not 1 <= len(resources) <= MAX_RESOURCES:
        raise _refuse(f"no measurement, or more than {MAX_RESOURCES}", "limit_exceeded")
    found = {golden.index: golden for golden in map(_read_resource, resources)}
    if len(found) != len(resources):
        raise _refuse("the same measurement twice")
    return tuple(found.values())


def _read_resource(resource: Any) -> Golden:
    attributes: dict[str, str] = dict(resource.attrib)
    if resource.tag != f"{_SWID}Resource" or len(resource) or (resource.text or "").strip():
        raise _refuse("something other than measurements in the payload")
    active = {"True": True, "False": False}.get(attributes.pop("active", ""))
    if attributes.pop("type", "") != "Measurement" or active is None:
        raise _refuse("a resource that is not a measurement, or does not say whether it counts")
    index, count, size = (_number(attributes.pop(name, "")) for name in ("index", "alternatives", "size"))
    if index > 255 or not 1 <= count <= MAX_ALTERNATIVES:
        raise _refuse("a measurement with an index or a number of values out of range", "limit_exceeded")
    name = attributes.pop("name", "")
    values = tuple(attributes.pop(f"{_SHA384}Hash{number}", "") for number in range(count))
    if attributes or len(name) > 64:
        raise _refuse("a measurement with attributes that are not known")
    if any(not _HEX.fullmatch(value) or len(value) != 2 * size for value in values):
        raise _refuse("a measurement whose value is absent or of another length", "length_mismatch")
    return Golden(index, name, active, tuple(bytes.fromhex(value) for value in values))


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise _refuse("a measurement with a number that is none")
    return int(text)
