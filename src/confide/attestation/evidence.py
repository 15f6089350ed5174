# SPDX-License-Identifier: Apache-2.0
"""The evidence bundle: an RFC 9999 CMW collection in deterministic CBOR, at most 256 KiB.

Everything in a bundle came over an untrusted network. Decoding checks its form and nothing else; the parts stay bytes
until a TEE's ``authenticate`` has judged them. Source: ``docs/spec/evidence.md``, section 2.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final, Self

from confide.attestation.binding import NonceProof
from confide.errors import MalformedError
from confide.wire import cbor
from confide.wire.fields import Fields

__all__ = [
    "COLLECTION_TYPE",
    "ENDORSEMENTS_TYPE",
    "MAX_BUNDLE",
    "MAX_ENDORSEMENTS",
    "Endorsements",
    "Evidence",
    "EvidencePart",
    "is_bundle",
    "is_endorsements",
]

COLLECTION_TYPE: Final = "2.25.237816391168144612592645254221675215938"
ENDORSEMENTS_TYPE: Final = "2.25.52373543598585017472823962970512220301"
MAX_BUNDLE: Final = 256 * 1024
MAX_ENDORSEMENTS: Final = 1024 * 1024
MAX_PART: Final = 64 * 1024
MAX_DEVICES: Final = 16
MAX_CERTIFICATES: Final = 32
MAX_CRLS: Final = 16
MAX_DOCUMENTS: Final = 64  # Eight GPUs need an OCSP answer each, beside those they share and two RIMs.
MAX_MANIFEST: Final = 192 * 1024
MAX_CERTIFICATE: Final = 16 * 1024
MAX_CRL: Final = 128 * 1024
_MAX_KEY_MATERIAL: Final = 16 * 1024
_MAX_PROOF: Final = 1024

# The values of `ind` in a CMW record, RFC 9999 section 3.1: one bit for each kind of conceptual message.
_ENDORSEMENT: Final = 1 << 1
_EVIDENCE: Final = 1 << 2

_TYPE_KEY: Final = "__cmwc_t"
_TYPE_ENTRY: Final = cbor.encode(_TYPE_KEY) + cbor.encode(COLLECTION_TYPE)
_ENDORSEMENTS_ENTRY: Final = cbor.encode(_TYPE_KEY) + cbor.encode(ENDORSEMENTS_TYPE)
_VENDOR: Final = "application/vnd.confide."
_KEY_MATERIAL: Final = _VENDOR + "key-material"
_PROOF: Final = _VENDOR + "nonce-proof"
_MANIFEST: Final = _VENDOR + "manifest"
_CERTIFICATE: Final = "application/pkix-cert"
_CRL: Final = "application/pkix-crl"
_FORMAT = re.compile(r"[a-z][a-z0-9-]{0,31}", re.ASCII)
_RESERVED_FORMATS: Final = frozenset({"key-material", "nonce-proof", "manifest"})


@dataclass(frozen=True, slots=True)
class EvidencePart:
    """One vendor structure as it came: ``format`` names the TEE or document kind in lower case (``snp``)."""

    format: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Endorsements:
    """What vendors say: DER certificates, DER CRLs and other signed documents, all untrusted until a chain has been built."""

    certificates: tuple[bytes, ...] = ()
    crls: tuple[bytes, ...] = ()
    documents: tuple[EvidencePart, ...] = ()

    def merge(self, other: Endorsements | None) -> Endorsements:
        """Both together, without duplicates, this one's first."""
        if other is None:
            return self
        return Endorsements(
            tuple(dict.fromkeys(self.certificates + other.certificates)),
            tuple(dict.fromkeys(self.crls + other.crls)),
            tuple(dict.fromkeys(self.documents + other.documents)),
        )

    def encode(self) -> bytes:
        """A file of endorsements alone: a CMW collection of its own type. ``malformed`` if there is nothing in it, or if a
        part is beyond the limits that ``decode`` enforces.
        """
        data = cbor.encode({_TYPE_KEY: ENDORSEMENTS_TYPE, "endorsements": _collections(self)})
        self.decode(data)
        return data

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read what ``encode`` writes; ``malformed`` for every other encoding of it. At most 1 MiB."""
        what = "file of endorsements"
        fields = Fields(cbor.decode(data, what=what, max_size=MAX_ENDORSEMENTS, max_depth=6), what)
        if fields.text(_TYPE_KEY) != ENDORSEMENTS_TYPE:
            raise MalformedError("unknown_format", "the CMW collection is no file of endorsements of confide")
        read = _read_endorsements(fields.mapping("endorsements"))
        fields.end()
        return cls(read.certificates, read.crls, read.documents)


@dataclass(frozen=True, slots=True)
class Evidence:
    """A bundle: the platform's report, reports of devices in order, the exact bytes of the key material and manifest, the
    proof that the report answers a nonce, and stapled endorsements. Raw vendor files have a platform part only.
    """

    platform: EvidencePart
    devices: tuple[EvidencePart, ...] = ()
    key_material: bytes | None = None
    manifest: bytes | None = None
    proof: NonceProof | None = None
    endorsements: Endorsements = field(default_factory=Endorsements)

    def encode(self) -> bytes:
        """The bundle as bytes; ``malformed`` if a part is beyond the limits that ``decode`` enforces."""
        collection: dict[Any, Any] = {_TYPE_KEY: COLLECTION_TYPE, "platform": _part(self.platform, _EVIDENCE)}
        if self.devices:
            collection["device-evidence"] = _numbered([_part(part, _EVIDENCE) for part in self.devices])
        if self.key_material is not None:
            collection["key-material"] = [_KEY_MATERIAL, self.key_material, _EVIDENCE]
        if self.proof is not None:
            collection["nonce-proof"] = [_PROOF, self.proof.encode(), _EVIDENCE]
        if self.manifest is not None:
            collection["manifest"] = [_MANIFEST, self.manifest, _EVIDENCE]
        if stapled := _collections(self.endorsements):
            collection["endorsements"] = stapled
        data = cbor.encode(collection)
        self.decode(data)
        return data

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read a bundle; ``malformed`` for anything but the deterministic encoding of the parts named here."""
        what = "evidence bundle"
        fields = Fields(cbor.decode(data, what=what, max_size=MAX_BUNDLE, max_depth=6), what)
        if fields.text(_TYPE_KEY) != COLLECTION_TYPE:
            raise MalformedError("unknown_format", "the CMW collection is not an evidence bundle of confide")
        platform = _read_part(fields.list_("platform"), _EVIDENCE)
        devices = _read_numbered(fields.mapping("device-evidence", default=None), MAX_DEVICES, "devices")
        key_material = _optional(fields, "key-material", _KEY_MATERIAL, _MAX_KEY_MATERIAL)
        proof = _optional(fields, "nonce-proof", _PROOF, _MAX_PROOF)
        manifest = _optional(fields, "manifest", _MANIFEST, MAX_MANIFEST)
        stapled = fields.mapping("endorsements", default=None)
        fields.end()
        return cls(
            platform=platform,
            devices=tuple(_read_part(item, _EVIDENCE) for item in devices),
            key_material=key_material,
            manifest=manifest,
            proof=None if proof is None else NonceProof.decode(proof),
            endorsements=_read_endorsements(stapled),
        )


def is_bundle(data: bytes) -> bool:
    """Whether bytes begin like a bundle of confide, for telling formats apart; nothing is checked.

    The type is the first entry of every bundle: the other labels are longer than its key, or sort after it.
    """
    return data[1 : 1 + len(_TYPE_ENTRY)] == _TYPE_ENTRY


def is_endorsements(data: bytes) -> bool:
    """Whether bytes begin like a file of endorsements, for telling formats apart; nothing is checked."""
    return data[1 : 1 + len(_ENDORSEMENTS_ENTRY)] == _ENDORSEMENTS_ENTRY


def _collections(endorsements: Endorsements) -> dict[str, dict[int, Any]]:
    """A CMW collection must not be empty, so that what there is none of is left out."""
    stapled = {
        "certificates": [[_CERTIFICATE, der, _ENDORSEMENT] for der in endorsements.certificates],
        "crls": [[_CRL, der, _ENDORSEMENT] for der in endorsements.crls],
        "documents": [_part(part, _ENDORSEMENT) for part in endorsements.documents],
    }
    return {name: _numbered(items) for name, items in stapled.items() if items}


def _numbered(items: list[Any]) -> dict[int, Any]:
    return dict(enumerate(items))


def _part(part: EvidencePart, kind: int) -> list[Any]:
    return [_VENDOR + part.format, part.data, kind]


def _optional(fields: Fields, key: str, media_type: str, max_length: int) -> bytes | None:
    record = fields.list_(key, default=None)
    return None if record is None else _record(record, media_type, _EVIDENCE, max_length)


def _record(record: object, media_type: str, kind: int, max_length: int) -> bytes:
    found, value = _open_record(record, kind, max_length)
    if found != media_type:
        raise MalformedError(
            "unknown_format", "a record of the evidence bundle has another media type than its place"
        )
    return value


def _open_record(record: object, kind: int, max_length: int) -> tuple[str, bytes]:
    """Type and value of a CMW record, which here always has its third member."""
    if not isinstance(record, list) or len(record) != 3:
        raise MalformedError(
            "non_canonical", "a record of the evidence bundle is not a CMW record of three members"
        )
    media_type, value, found = record
    if not isinstance(media_type, str) or not isinstance(value, bytes) or type(found) is not int:
        raise MalformedError(
            "non_canonical", "a CMW record of the evidence bundle has members of other types"
        )
    if found != kind:
        raise MalformedError(
            "non_canonical", "a CMW record of the evidence bundle says it is of another kind"
        )
    if len(value) > max_length:
        raise MalformedError(
            "limit_exceeded", f"a part of the evidence bundle is longer than {max_length} bytes"
        )
    if not value:
        raise MalformedError("truncated", "a part of the evidence bundle is empty")
    return media_type, value


def _read_part(record: object, kind: int) -> EvidencePart:
    media_type, value = _open_record(record, kind, MAX_PART)
    name = media_type.removeprefix(_VENDOR)
    if name == media_type or not _FORMAT.fullmatch(name) or name in _RESERVED_FORMATS:
        raise MalformedError("unknown_format", "a part of the evidence bundle has an unknown media type")
    return EvidencePart(name, value)


def _read_numbered(items: dict[Any, Any] | None, most: int, what: str) -> list[Any]:
    """The members of a collection whose labels are 0, 1, 2, ... without a gap; absent is empty, empty is refused."""
    if items is None:
        return []
    if not isinstance(items, dict) or not items:
        raise MalformedError(
            "non_canonical", f"{what} in the evidence bundle are not a filled CMW collection"
        )
    if len(items) > most:
        raise MalformedError("limit_exceeded", f"the evidence bundle has more than {most} {what}")
    if any(type(label) is not int for label in items) or sorted(items) != list(range(len(items))):
        raise MalformedError(
            "non_canonical", f"{what} in the evidence bundle are not numbered from 0 without a gap"
        )
    return [items[index] for index in range(len(items))]


def _read_endorsements(stapled: dict[Any, Any] | None) -> Endorsements:
    if stapled is None:
        return Endorsements()
    if not stapled:
        raise MalformedError("non_canonical", "endorsements in the evidence bundle are an empty collection")
    fields = Fields(stapled, "endorsements in the evidence bundle")
    certificates = _read_numbered(
        fields.mapping("certificates", default=None), MAX_CERTIFICATES, "certificates"
    )
    crls = _read_numbered(fields.mapping("crls", default=None), MAX_CRLS, "CRLs")
    documents = _read_numbered(fields.mapping("documents", default=None), MAX_DOCUMENTS, "documents")
    fields.end()
    return Endorsements(
        tuple(_record(item, _CERTIFICATE, _ENDORSEMENT, MAX_CERTIFICATE) for item in certificates),
        tuple(_record(item, _CRL, _ENDORSEMENT, MAX_CRL) for item in crls),
        tuple(_read_part(item, _ENDORSEMENT) for item in documents),
    )
