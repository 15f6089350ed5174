# SPDX-License-Identifier: Apache-2.0
"""Receipts: an enclave's signed statement of what it was asked and what it answered.

A receipt is verified offline, with the evidence that was accepted when it was made and the secret that blinds its hashes.
Source: ``docs/spec/envelope.md``, section 8.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from confide.attestation.key_material import KeyMaterial, kid
from confide.crypto import cose
from confide.errors import ChannelError, ConfideError
from confide.wire import cbor
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from confide.crypto.signing import SigningKey

__all__ = ["MAX_RECEIPT", "Receipt", "Transcript", "issue", "message_hash", "verify_receipt"]

MAX_RECEIPT = 65532
AAD = b"confide/1 receipt"
VERSION = 1
_U64 = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Receipt:
    """The verified statement. ``request`` and ``response`` are blinded SHA-256 hashes, ``time`` is claimed Unix seconds."""

    kid: bytes
    sid: bytes
    seq: int
    request: bytes
    response: bytes
    status: int
    content: Mapping[str, bytes]
    time: int
    ext: Mapping[str, str | bytes | int | bool]
    signed: bytes
    """The COSE_Sign1 as it came; keep it with the evidence and the secret."""


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def digest(self) -> bytes: ...


class Transcript:
    """The running hash over one message, blinded by the receipt's secret."""

    __slots__ = ("_hash",)

    def __init__(self, secret: bytes, label: bytes, head: bytes) -> None:
        self._hash: _Hash = hashlib.sha256(b"".join((secret, label, len(head).to_bytes(4, "big"), head)))

    def update(self, content: bytes) -> None:
        """Add bytes of the body."""
        self._hash.update(content)

    def digest(self) -> bytes:
        """The hash so far, 32 bytes."""
        return self._hash.digest()


def message_hash(secret: bytes, label: bytes, head: bytes, body: Iterable[bytes]) -> bytes:
    """The hash of one whole message; ``label`` is ``b"request"`` or ``b"response"``, ``head`` its Binary HTTP."""
    transcript = Transcript(secret, label, head)
    for part in body:
        transcript.update(part)
    return transcript.digest()


def issue(
    key: SigningKey,
    *,
    kid: bytes,
    sid: bytes,
    seq: int,
    request: bytes,
    response: bytes,
    status: int,
    content: Mapping[str, bytes],
    time: int,
    ext: Mapping[str, str | bytes | int | bool],
) -> bytes:
    """Sign a receipt; ``channel.receipt`` if what it says does not fit a frame."""
    payload = cbor.encode(
        {
            "v": VERSION,
            "kid": kid,
            "sid": sid,
            "seq": seq,
            "request": request,
            "response": response,
            "status": status,
            "content": dict(content),
            "time": time,
            "ext": dict(ext),
        }
    )
    signed = cose.sign1(key, payload, external_aad=AAD)
    if len(signed) > MAX_RECEIPT:
        raise ChannelError("receipt", "the receipt is larger than a frame for it")
    return signed


def read(signed: bytes, material: KeyMaterial, key_id: bytes) -> Receipt:
    """Check a receipt's form, signature and key; ``channel.receipt`` for every deviation."""
    try:
        payload = cose.verify1(signed, material.receipt_key, external_aad=AAD, max_size=MAX_RECEIPT)
        fields = Fields(cbor.decode(payload, what="receipt", max_size=MAX_RECEIPT), "receipt")
        version = fields.integer("v", 0, _U64)
        receipt = Receipt(
            kid=fields.bytes_("kid", 32),
            sid=fields.bytes_("sid", 32),
            seq=fields.integer("seq", 0, _U64),
            request=fields.bytes_("request", 32),
            response=fields.bytes_("response", 32),
            status=fields.integer("status", 200, 599),
            content=_digests(fields.mapping("content")),
            time=fields.integer("time", 0, _U64),
            ext=_extensions(fields.mapping("ext")),
            signed=signed,
        )
        fields.end()
    except ConfideError:
        raise ChannelError("receipt", "the receipt is malformed or not signed by the attested key") from None
    if version != VERSION or receipt.kid != key_id or receipt.content != material.content:
        raise ChannelError("receipt", "the receipt speaks of another key or of other content")
    return receipt


def check(receipt: Receipt, *, sid: bytes, seq: int, request: bytes, response: bytes, status: int) -> None:
    """Compare a receipt with the exchange that it must be about; ``channel.receipt`` if it is about another."""
    if not (
        hmac.compare_digest(receipt.sid, sid)
        and receipt.seq == seq
        and hmac.compare_digest(receipt.request, request)
        and hmac.compare_digest(receipt.response, response)
        and receipt.status == status
    ):
        raise ChannelError("receipt", "the receipt is about another exchange")


def verify_receipt(
    signed: bytes,
    *,
    key_material: bytes,
    secret: bytes,
    request_head: bytes,
    request_body: bytes,
    response_head: bytes,
    response_body: bytes,
) -> Receipt:
    """Verify an archived receipt against contents that are shown with it.

    ``key_material`` is the exact bytes out of evidence that a ``Verifier`` accepted (that is the caller's duty: without it
    the receipt proves nothing), ``secret`` the 32 bytes the client kept, heads and bodies the plaintext of both messages.
    Raises ``channel.receipt``.
    """
    receipt = read(signed, KeyMaterial.decode(key_material), kid(key_material))
    check(
        receipt,
        sid=receipt.sid,
        seq=receipt.seq,
        request=message_hash(secret, b"request", request_head, (request_body,)),
        response=message_hash(secret, b"response", response_head, (response_body,)),
        status=receipt.status,
    )
    return receipt


def _digests(value: Mapping[Any, Any]) -> Mapping[str, bytes]:
    fields = Fields(value, "receipt")
    digests = {str(name): fields.bytes_(name, 32) for name in value}
    if digests.keys() != value.keys():
        raise ChannelError("receipt", "the receipt names content by something else than text")
    return MappingProxyType(digests)


def _extensions(value: Mapping[Any, Any]) -> Mapping[str, str | bytes | int | bool]:
    for name, entry in value.items():
        if not isinstance(name, str) or not isinstance(entry, (str, bytes, int)):
            raise ChannelError("receipt", "the receipt has an extension of another type")
    return MappingProxyType(dict(value))
