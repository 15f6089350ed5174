# SPDX-License-Identifier: Apache-2.0
"""Key material: the statement about keys that evidence vouches for.

The bytes are deterministic CBOR (``docs/spec/evidence.md``, section 3) and are hashed exactly as they were sent: a
receiver keeps them and never encodes them again, so that no two encoders can disagree about what was attested.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

from confide.errors import MalformedError
from confide.wire import cbor
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["HPKE_PUBLIC_BYTES", "MAX_BYTES", "KeyMaterial", "ServiceIdentity", "kid"]

VERSION = 1
HPKE_PUBLIC_BYTES = 1216  # X-Wing: ML-KEM-768 public key (1184) and X25519 public key (32).
MAX_BYTES = 16 * 1024
MAX_CONTENT = 64
MAX_LIFETIME = 3600
_PURPOSE = re.compile(r"[a-z][a-z0-9-]{0,31}", re.ASCII)
_U32 = (1 << 32) - 1
_U64 = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class ServiceIdentity:
    """Which service speaks: its kind, the SHA-256 of its measured manifest, its id (tenant, room or run), and 16 random
    bytes that name this instance of it.
    """

    kind: str
    manifest: bytes
    id: str
    instance: bytes


@dataclass(frozen=True, slots=True)
class KeyMaterial:
    """Public keys of one instance and the terms of their use.

    ``key`` is the HPKE public key (1216 bytes), ``receipt_key`` an Ed25519 public key (32 bytes), ``purpose`` one word
    (``channel``, ``release``, ``member``), ``audience`` whom the statement is made for (empty: nobody in particular),
    ``epoch`` rises with each key of the instance, ``lifetime`` is in seconds (at most 3600), ``issued_at`` in Unix seconds
    and only a claim, since the host owns the clock. ``content`` maps names to the 32-byte digests of what was loaded,
    ``max_body`` is in bytes and ``max_session`` in seconds.
    """

    purpose: str
    audience: str
    service: ServiceIdentity
    key: bytes
    receipt_key: bytes
    epoch: int
    lifetime: int
    issued_at: int
    at_most_once: bool
    content: Mapping[str, bytes]
    max_body: int
    max_session: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "content", MappingProxyType(dict(self.content)))

    def encode(self) -> bytes:
        """The bytes to attest and to send. Raises ``malformed`` if a field is outside what ``decode`` admits."""
        data = cbor.encode(
            {
                "v": VERSION,
                "purpose": self.purpose,
                "audience": self.audience,
                "service": {
                    "kind": self.service.kind,
                    "manifest": self.service.manifest,
                    "id": self.service.id,
                    "instance": self.service.instance,
                },
                "key": self.key,
                "receipt_key": self.receipt_key,
                "epoch": self.epoch,
                "lifetime": self.lifetime,
                "issued_at": self.issued_at,
                "at_most_once": self.at_most_once,
                "content": dict(self.content),
                "max_body": self.max_body,
                "max_session": self.max_session,
            }
        )
        self.decode(data)
        return data

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read key material; ``malformed`` for anything but the deterministic encoding of exactly these fields."""
        what = "key material"
        fields = Fields(cbor.decode(data, what=what, max_size=MAX_BYTES, max_depth=4), what)
        if fields.integer("v", 0, _U64) != VERSION:
            raise MalformedError(
                "unsupported_version", "the key material has a version that is not supported"
            )
        purpose = fields.text("purpose", 32)
        if not _PURPOSE.fullmatch(purpose):
            raise MalformedError("unknown_format", "the purpose in the key material is not a lower-case word")
        service = Fields(fields.mapping("service"), "service in the key material")
        identity = ServiceIdentity(
            kind=service.text("kind", 64),
            manifest=service.bytes_("manifest", 32),
            id=service.text("id", 256),
            instance=service.bytes_("instance", 16),
        )
        service.end()
        content = fields.mapping("content")
        if len(content) > MAX_CONTENT:
            raise MalformedError("limit_exceeded", f"the key material names more than {MAX_CONTENT} contents")
        material = cls(
            purpose=purpose,
            audience=fields.text("audience", 256),
            service=identity,
            key=fields.bytes_("key", HPKE_PUBLIC_BYTES),
            receipt_key=fields.bytes_("receipt_key", 32),
            epoch=fields.integer("epoch", 0, _U64),
            lifetime=fields.integer("lifetime", 1, MAX_LIFETIME),
            issued_at=fields.integer("issued_at", 0, _U64),
            at_most_once=fields.boolean("at_most_once"),
            content={_content_name(name): _digest(digest) for name, digest in content.items()},
            max_body=fields.integer("max_body", 0, _U64),
            max_session=fields.integer("max_session", 1, _U32),
        )
        fields.end()
        return material


def kid(key_material: bytes) -> bytes:
    """The name of a key: SHA-256 over the key material's bytes, all 32 bytes of it, everywhere."""
    return hashlib.sha256(key_material).digest()


def _content_name(name: object) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= 256:
        raise MalformedError("unknown_format", "a content name in the key material is not a short text")
    return name


def _digest(value: object) -> bytes:
    # Not by Fields, whose messages would name the key: it is whatever the sender wrote.
    if not isinstance(value, bytes) or len(value) != 32:
        raise MalformedError("length_mismatch", "a digest in the key material is not 32 bytes")
    return value
