# SPDX-License-Identifier: Apache-2.0
"""A second reading of docs/spec/envelope.md: opens and seals messages, imports nothing of confide.

Plain and slow on purpose: whole messages in memory, one function for each section. `Refused` carries the code that the
specification names and, for a refusal in the frame layer, the index of the frame.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import math
import re
from dataclasses import dataclass, field
from typing import Any

import cbor2
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand


class Refused(Exception):
    """A message that the specification refuses."""

    def __init__(self, code: str, frame: int | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.frame = frame


# Section 0


def expand(secret: bytes, label: str, ctx: bytes, length: int) -> bytes:
    info = b"confide/1 " + label.encode() + b"\0" + ctx
    return HKDFExpand(SHA512(), length, info).derive(secret)


# Section 1


def leaf(nonce: bytes, material: bytes) -> bytes:
    inner = hashlib.sha512(material).digest()
    return hashlib.sha512(b"\0" + len(nonce).to_bytes(4, "big") + nonce + inner).digest()


def tree(leaves: list[bytes]) -> bytes:
    """RFC 9162 section 2.1.1, by its recursion."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha512(b"\x01" + tree(leaves[:split]) + tree(leaves[split:])).digest()


def inclusion(leaves: list[bytes], index: int) -> list[bytes]:
    """RFC 9162 section 2.1.3.1, by its recursion."""
    if len(leaves) == 1:
        return []
    split = 1 << (len(leaves) - 1).bit_length() - 1
    if index < split:
        return [*inclusion(leaves[:split], index), tree(leaves[split:])]
    return [*inclusion(leaves[split:], index - split), tree(leaves[:split])]


def report_data(root: bytes, devices: list[bytes]) -> bytes:
    evidence = cbor2.dumps(devices, canonical=True) if devices else b""
    return hashlib.sha512(b"confide/report-data/1" + root + hashlib.sha512(evidence).digest()).digest()


# Section 5: padding


def padme(length: int) -> int:
    e = math.floor(math.log2(length))
    s = math.floor(math.log2(e)) + 1
    mask = (1 << (e - s)) - 1
    return (length + mask) & ~mask


def known_plaintexts(length: int) -> list[tuple[int, int]]:
    """(content, plaintext) of each data frame for a body of known length."""
    frames = []
    while length > 1_048_572:
        frames.append((1_048_572, 1_048_576))
        length -= 1_048_572
    if length:
        frames.append((length, min(1_048_576, max(256, padme(4 + length)))))
    return frames


# Section 5: frames

HEAD, DATA, RECEIPT, ABORT, FINAL = 1, 2, 3, 4, 0x80


def seal(key_iv: bytes, index: int, kind: int, content: bytes, size: int) -> bytes:
    plaintext = (len(content).to_bytes(4, "big") + content).ljust(size, b"\0")
    nonce = (int.from_bytes(key_iv[32:], "big") ^ index).to_bytes(12, "big")
    sealed = AESGCM(key_iv[:32]).encrypt(nonce, plaintext, bytes([kind]))
    return len(sealed).to_bytes(4, "big") + bytes([kind]) + sealed


def open_frames(
    key_iv: bytes, data: bytes, *, response: bool, max_body: int | None = None
) -> list[tuple[int, bytes]]:
    """(kind without the final bit, content) of every frame of a whole message."""
    stream = io.BytesIO(data)
    frames: list[tuple[int, bytes]] = []
    body = 0
    index = 0
    while True:
        header = stream.read(5)
        if len(header) < 5:
            raise Refused("truncated", index)
        size, byte = int.from_bytes(header[:4], "big"), header[4]
        kind, final = byte & 0x7F, bool(byte & FINAL)
        if kind not in {HEAD, DATA, RECEIPT, ABORT} or not _in_place(
            kind, index, final=final, response=response
        ):
            raise Refused("protocol", index)
        limit = {HEAD: 65_552, DATA: 1_048_592, RECEIPT: 65_552, ABORT: 272}[kind]
        if not 20 <= size <= limit:
            raise Refused("frame_too_large", index)
        sealed = stream.read(size)
        if len(sealed) < size:
            raise Refused("truncated", index)
        nonce = (int.from_bytes(key_iv[32:], "big") ^ index).to_bytes(12, "big")
        try:
            plaintext = AESGCM(key_iv[:32]).decrypt(nonce, sealed, header[4:])
        except InvalidTag:
            raise Refused("record_auth", index) from None
        n = int.from_bytes(plaintext[:4], "big")
        if n > size - 20 or any(plaintext[4 + n :]) or (kind == DATA and not final and n == 0):
            raise Refused("protocol", index)
        content = plaintext[4 : 4 + n]
        if kind == DATA:
            body += n
            if max_body is not None and body > max_body:
                raise Refused("too_large", index)
        frames.append((kind, content))
        if final:
            if stream.read(1):
                raise Refused("protocol", index)
            return frames
        index += 1


def _in_place(kind: int, index: int, *, final: bool, response: bool) -> bool:
    if kind == HEAD:
        return index == 0
    if kind == DATA:
        return index > 0
    if kind == RECEIPT:
        return response and final and index > 0
    return final and (response or index > 0)


# Section 6

REFUSED_NAMES = {
    "connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "http2-settings", "host", "expect",
    "content-encoding", "accept-encoding",
}  # fmt: skip
TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+\Z")


def _varint(stream: io.BytesIO) -> int:
    first = stream.read(1)
    if not first:
        raise Refused("protocol")
    width = 1 << (first[0] >> 6)
    rest = stream.read(width - 1)
    if len(rest) < width - 1:
        raise Refused("protocol")
    value = (first[0] & 0x3F) << 8 * (width - 1) | int.from_bytes(rest, "big")
    shortest = 1 if value < 64 else 2 if value < 16384 else 4 if value < 2**30 else 8
    if width != shortest:
        raise Refused("protocol")
    return value


def _string(stream: io.BytesIO) -> bytes:
    length = _varint(stream)
    value = stream.read(length)
    if len(value) < length:
        raise Refused("protocol")
    return value


def read_head(content: bytes, *, response: bool) -> dict[str, Any]:
    if len(content) > 65_532:
        raise Refused("protocol")
    stream = io.BytesIO(content)
    head: dict[str, Any] = {}
    if _varint(stream) != (1 if response else 0):
        raise Refused("protocol")
    if response:
        head["status"] = _varint(stream)
        if not 200 <= head["status"] <= 599:
            raise Refused("protocol")
    else:
        head["method"], scheme, head["authority"], head["path"] = (_string(stream) for _ in range(4))
        if not re.fullmatch(rb"[A-Z-]{1,32}", head["method"]) or head["method"] in {b"CONNECT", b"TRACE"}:
            raise Refused("protocol")
        path = head["path"]
        plain = re.fullmatch(rb"/[\x21\x22\x24-\x7e]*", path)
        if scheme != b"https" or len(path) > 16_384:
            raise Refused("protocol")
        if not plain and (path, head["method"]) != (b"*", b"OPTIONS"):
            raise Refused("protocol")
    section = io.BytesIO(_string(stream))
    fields = []
    while section.tell() < len(section.getvalue()):
        name, value = _string(section), _string(section)
        _check_field(name, value, response=response)
        fields.append((name, value))
    if len(fields) > 256 or stream.read() != b"\0\0":
        raise Refused("protocol")
    lengths = [value for name, value in fields if name == b"content-length"]
    if len(lengths) > 1 or any(not re.fullmatch(rb"0|[1-9][0-9]*", value) for value in lengths):
        raise Refused("protocol")
    head["length"] = int(lengths[0]) if lengths else None
    head["fields"] = fields
    return head


def _check_field(name: bytes, value: bytes, *, response: bool) -> None:
    if not TOKEN.match(name):
        raise Refused("protocol")
    text = name.decode()
    binder = text == "confide-binder" and not response
    if text in REFUSED_NAMES or text.startswith("proxy-") or (text.startswith("confide-") and not binder):
        raise Refused("protocol")
    if any((byte < 0x20 and byte != 9) or byte == 0x7F for byte in value) or value != value.strip(b" \t"):
        raise Refused("protocol")


def authority(service_id: str) -> bytes:
    safe = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
    return "".join(chr(b) if b in safe else f"%{b:02X}" for b in service_id.encode()).encode()


# Sections 3 and 4


@dataclass
class Session:
    kid: bytes
    secret: bytes
    seen: set[int] = field(default_factory=set)


def session_key(mlkem_seed: bytes, x25519_private: bytes) -> MLKEM768X25519PrivateKey:
    return MLKEM768X25519PrivateKey(
        MLKEM768PrivateKey.from_seed_bytes(mlkem_seed),
        X25519PrivateKey.from_private_bytes(x25519_private),
    )


def unwrap(private: MLKEM768X25519PrivateKey, kid: bytes, wrap: bytes) -> bytes | None:
    suite = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    try:
        return suite.decrypt(wrap, private, b"confide/1 session\0" + kid)
    except (InvalidTag, ValueError):
        return None


@dataclass
class Enclave:
    """What an enclave remembers: its keys by kid, its sessions by sid."""

    keys: dict[bytes, MLKEM768X25519PrivateKey]
    authority: bytes
    max_body: int
    sessions: dict[bytes, Session] = field(default_factory=dict)

    def open(self, data: bytes) -> dict[str, Any]:
        if len(data) < 1262:
            raise Refused("truncated")
        flags = data[5]
        if data[:5] != b"CFE1\x01" or flags & 0xFE:
            raise Refused("protocol")
        kid, wrap, salt = data[6:38], data[38:1238], data[1246:1262]
        seq = int.from_bytes(data[1238:1246], "big")
        if seq >= 2**63:
            raise Refused("protocol")
        sid = hashlib.sha256(wrap).digest()
        session = self.sessions.get(sid)
        if session is None:
            if kid not in self.keys:
                raise Refused("key_unknown")
            secret = unwrap(self.keys[kid], kid, wrap)
            if secret is None or len(secret) != 64:
                raise Refused("record_auth", 0)
            session = Session(kid, secret)
        elif session.kid != kid:
            raise Refused("key_unknown")
        t = bytes([flags]) + sid + seq.to_bytes(8, "big") + salt
        key_iv = expand(session.secret, "request", t, 44)
        first = _first_frame(key_iv, data[1262:])
        self.sessions.setdefault(sid, session)
        self._mark(session, seq)
        head = read_head(first, response=False)
        self._check(head, session, t)
        frames = open_frames(key_iv, data[1262:], response=False, max_body=self.max_body)
        if frames[-1][0] == ABORT:
            raise Refused("cancelled")
        body = b"".join(content for kind, content in frames if kind == DATA)
        if head["length"] is not None and head["length"] != len(body):
            raise Refused("protocol")
        return {
            "head": head,
            "raw": first,
            "body": body,
            "t": t,
            "secret": session.secret,
            "receipt": flags == 1,
        }

    @staticmethod
    def _mark(session: Session, seq: int) -> None:
        highest = max(session.seen, default=-1)
        if seq in session.seen or seq <= highest - 1024:
            raise Refused("sequence")
        session.seen.add(seq)

    def _check(self, head: dict[str, Any], session: Session, t: bytes) -> None:
        if head["authority"] != self.authority:
            raise Refused("protocol")
        binders = [value for name, value in head["fields"] if name == b"confide-binder"]
        right = b":" + base64.b64encode(expand(session.secret, "binder", t, 32)) + b":"
        if binders and binders != [right]:
            raise Refused("protocol")
        if head["length"] is not None and head["length"] > self.max_body:
            raise Refused("too_large")


def _first_frame(key_iv: bytes, data: bytes) -> bytes:
    """The content of the first frame alone, which must authenticate before the number is spent."""
    size = int.from_bytes(data[:4], "big")
    if len(data) >= 5 and data[4] in {HEAD, HEAD | FINAL} and 20 <= size <= 65_552 and len(data) >= 5 + size:
        # Closing the message here leaves the first frame's own checks and none of the later frames'.
        try:
            plaintext = AESGCM(key_iv[:32]).decrypt(key_iv[32:], data[5 : 5 + size], data[4:5])
        except InvalidTag:
            raise Refused("record_auth", 0) from None
        n = int.from_bytes(plaintext[:4], "big")
        if n > size - 20 or any(plaintext[4 + n :]):
            raise Refused("protocol", 0)
        if data[4] & FINAL and len(data) > 5 + size:
            raise Refused("protocol", 0)
        return plaintext[4 : 4 + n]
    open_frames(key_iv, data, response=False)
    raise AssertionError("a first frame that is neither good nor refused")


# Sections 7 and 8


def open_response(
    secret: bytes,
    t: bytes,
    data: bytes,
    *,
    method: bytes,
    request: tuple[bytes, bytes] | None = None,
    material: bytes = b"",
) -> dict[str, Any]:
    """``request`` is (head content, body) if a receipt was wanted, which ``material`` verifies."""
    if len(data) < 38:
        raise Refused("truncated")
    if data[:6] != b"CFE1\x02\x00":
        raise Refused("protocol")
    frames = open_frames(expand(secret, "response", t + data[6:38], 44), data[38:], response=True)
    if frames[-1][0] == ABORT:
        known = {
            b"application": "closed",
            b"timeout": "timeout",
            b"too_large": "too_large",
            b"cancelled": "closed",
        }
        raise Refused(known.get(frames[-1][1], "protocol"))
    head = read_head(frames[0][1], response=True)
    body = b"".join(content for kind, content in frames if kind == DATA)
    receipts = [content for kind, content in frames if kind == RECEIPT]
    if bool(receipts) != (request is not None):
        raise Refused("receipt")
    if receipts and request is not None:
        check_receipt(receipts[0], secret, t, request, (frames[0][1], body), head["status"], material)
    bodiless = method == b"HEAD" or head["status"] in {204, 205, 304}
    if bodiless and body:
        raise Refused("protocol")
    if not bodiless and head["length"] is not None and head["length"] != len(body):
        raise Refused("protocol")
    return {"head": head, "body": body}


def check_receipt(
    signed: bytes,
    secret: bytes,
    t: bytes,
    request: tuple[bytes, bytes],
    response: tuple[bytes, bytes],
    status: int,
    material: bytes,
) -> None:
    rs = expand(secret, "receipt", t, 32)

    def digest(label: bytes, message: tuple[bytes, bytes]) -> bytes:
        head, body = message
        return hashlib.sha256(rs + label + len(head).to_bytes(4, "big") + head + body).digest()

    keys = cbor2.loads(material)
    try:
        protected, unprotected, payload, signature = cbor2.loads(signed)
        to_be_signed = cbor2.dumps(["Signature1", protected, b"confide/1 receipt", payload], canonical=True)
        Ed25519PublicKey.from_public_bytes(keys["receipt_key"]).verify(signature, to_be_signed)
        said = cbor2.loads(payload)
    except (InvalidSignature, ValueError, TypeError, cbor2.CBORDecodeError):
        raise Refused("receipt") from None
    wanted = {
        "v": 1,
        "kid": hashlib.sha256(material).digest(),
        "sid": t[1:33],
        "seq": int.from_bytes(t[33:41], "big"),
        "request": digest(b"request", request),
        "response": digest(b"response", response),
        "status": status,
        "content": keys["content"],
        "time": said.get("time"),
        "ext": said.get("ext"),
    }
    canonical = cbor2.dumps([protected, {}, payload, signature], canonical=True)
    fits = (protected, unprotected, canonical) == (bytes.fromhex("a10132"), {}, signed)
    if not fits or said != wanted or not isinstance(said["time"], int):
        raise Refused("receipt")
    if not hmac.compare_digest(payload, cbor2.dumps(wanted, canonical=True)):
        raise Refused("receipt")
