# SPDX-License-Identifier: Apache-2.0
"""Writes docs/spec/vectors/envelope.json: `python tests/channel/make_vectors.py > docs/spec/vectors/envelope.json`.

All inputs are fixed but one: HPKE draws its own ephemeral keys, so each run makes other wraps, and everything below them changes.
What is refused was made with the second decoder's sealer, which seals whatever it is told to.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from confide.attestation.key_material import KeyMaterial, ServiceIdentity, kid
from confide.channel import binary_http, padding, receipt, schedule
from confide.channel.binary_http import RequestHead, ResponseHead
from confide.channel.head import Head, encode_response
from confide.channel.message import OutgoingMessage
from confide.crypto import hpke
from confide.crypto.signing import SigningKey
from support import envelope_decoder as plain
from support.envelope_decoder import ABORT, DATA, FINAL, HEAD, RECEIPT

SEED = bytes(range(64))
X25519 = bytes(range(100, 132))
RECEIPT_SEED = bytes(range(32))
SECRET = bytes(range(64))
OTHER_SECRET = bytes(range(64, 128))
SALT = b"\xbb" * 16
NONCE = b"\xcc" * 32
ID = "tenant-7/räume"
MAX_BODY = 4_000_000
AUTHORITY = binary_http.authority(ID)
PATH = b"/v1/score?x=1"


def material(epoch: int) -> bytes:
    """Key material of one fixed key; another epoch is another kid for the same key."""
    return KeyMaterial(
        purpose="channel",
        audience="",
        service=ServiceIdentity("echo", b"\x0d" * 32, ID, b"\x0e" * 16),
        key=hpke.PrivateKey.from_seeds(SEED, X25519).public,
        receipt_key=SigningKey.from_bytes(RECEIPT_SEED).public,
        epoch=epoch,
        lifetime=120,
        issued_at=1_780_272_000,
        at_most_once=True,
        content={"model": b"\x0c" * 32},
        max_body=MAX_BODY,
        max_session=3600,
    ).encode()


MATERIALS = (material(1), material(2))
KIDS = tuple(kid(one) for one in MATERIALS)
PUBLIC = hpke.PrivateKey.from_seeds(SEED, X25519).public


class Session:
    """A fixed secret under one wrap."""

    def __init__(self, secret: bytes, key: int = 0) -> None:
        self.secret = secret
        self.kid = KIDS[key]
        self.wrap = hpke.seal(PUBLIC, schedule.session_info(self.kid), secret)
        self.sid = schedule.sid(self.wrap)

    def head(self, seq: int, *, wanted: bool = False) -> Head:
        return Head(wanted, self.kid, self.wrap, seq, SALT)

    def key(self, seq: int, *, wanted: bool = False) -> bytes:
        return schedule.request_key(self.secret, self.head(seq, wanted=wanted).transcript(self.sid))

    def request(
        self,
        seq: int,
        body: bytes | list[bytes] = b"",
        *,
        wanted: bool = False,
        method: bytes = b"POST",
        fields: binary_http.Fields = ((b"content-type", b"text/plain"),),
        binder: bool = False,
    ) -> bytes:
        """An honest request; a list of pieces is a stream."""
        outer = self.head(seq, wanted=wanted)
        t = outer.transcript(self.sid)
        if binder:
            value = b":%s:" % base64.b64encode(schedule.binder(self.secret, t))
            fields = (*fields, (b"confide-binder", value))
        raw = binary_http.encode_request(RequestHead(method, AUTHORITY, PATH, fields))
        length = None if isinstance(body, list) else len(body)
        message = OutgoingMessage(outer.encode(), schedule.request_key(self.secret, t), raw, length=length)
        return whole(message, body)

    def raw(self, seq: int, frames: list[tuple[int, bytes, int]]) -> bytes:
        """A request of exactly these frames (kind byte, content, plaintext length)."""
        key = self.key(seq)
        return self.head(seq).encode() + b"".join(
            plain.seal(key, index, kind, content, size) for index, (kind, content, size) in enumerate(frames)
        )


def whole(message: OutgoingMessage, body: bytes | list[bytes]) -> bytes:
    out = [message.start()]
    if not message.ended:
        for piece in body if isinstance(body, list) else [body]:
            out += message.write(piece)
            out.append(message.flush())
        out.append(message.finish())
    return b"".join(out)


ONE = Session(SECRET)
TWO = Session(OTHER_SECRET)
RAW_HEAD = binary_http.encode_request(RequestHead(b"POST", AUTHORITY, PATH, ()))


def frames_of(data: bytes, prefix: int) -> list[bytes]:
    """The frames of a message, apart."""
    found = []
    at = prefix
    while at < len(data):
        end = at + 5 + int.from_bytes(data[at : at + 4], "big")
        found.append(data[at:end])
        at = end
    return found


def accepted_requests() -> list[dict[str, Any]]:
    cases = {
        "no body": ONE.request(0, b"", method=b"GET", fields=()),
        "one byte": ONE.request(1, b"x"),
        "a small body of known length": ONE.request(2, b"hello " * 100),
        "a stream": ONE.request(3, [b"one", b"two", b"three" * 300]),
        "a receipt wanted": ONE.request(4, b"signed?", wanted=True, fields=()),
        "a binder": ONE.request(5, b"bound", binder=True),
        "the largest number": TWO.request((1 << 63) - 1, b"last"),
        "a declared length": ONE.request(6, b"12345", fields=((b"content-length", b"5"),)),
        "more padding than asked for": ONE.raw(7, [(HEAD, RAW_HEAD, 4096), (DATA | FINAL, b"x", 65536)]),
        "OPTIONS *": ONE.head(8).encode()
        + plain.seal(
            ONE.key(8),
            0,
            HEAD | FINAL,
            binary_http.encode_request(RequestHead(b"OPTIONS", AUTHORITY, b"*", ())),
            256,
        ),
    }
    found = []
    for name, data in cases.items():
        opened = enclave().open(data)
        found.append(
            {
                "name": name,
                "message": data.hex(),
                "method": opened["head"]["method"].decode(),
                "path": opened["head"]["path"].decode(),
                "fields": [[key.hex(), value.hex()] for key, value in opened["head"]["fields"]],
                "head": opened["raw"].hex(),
                "body": opened["body"].hex(),
            }
        )
    return found


def enclave() -> plain.Enclave:
    key = plain.session_key(SEED, X25519)
    return plain.Enclave(dict.fromkeys(KIDS, key), AUTHORITY, MAX_BODY)


def bhttp(*, section: bytes = b"", tail: bytes = b"\0\0", start: bytes | None = None) -> bytes:
    """A request's Binary HTTP with a raw field section and end."""
    if start is None:
        start = RAW_HEAD[:-3]
    return start + bytes((len(section),)) + section + tail


def named(name: bytes, value: bytes = b"v") -> bytes:
    return bytes((len(name),)) + name + bytes((len(value),)) + value


def refused_heads() -> dict[str, bytes]:
    """Contents of a request's head frame that are refused, every one a change of a good one."""
    good = RAW_HEAD

    def other(**changes: bytes) -> bytes:
        parts = {"method": b"POST", "scheme": b"https", "authority": AUTHORITY, "path": PATH} | changes
        return b"\0" + b"".join(bytes((len(part),)) + part for part in parts.values()) + b"\0\0\0"

    heads = {
        "empty": b"",
        "a response": b"\x01" + good[1:],
        "an indeterminate-length request": b"\x02" + good[1:],
        "cut": good[:-1],
        "padded": good + b"\0",
        "with content": good[:-2] + b"\x01x\0",
        "with a trailer": good[:-1] + bytes((len(named(b"a")),)) + named(b"a"),
        "an integer not in its shortest form": b"\x40\x00" + good[1:],
        "scheme http": other(scheme=b"http"),
        "another authority": other(authority=b"tenant-8"),
        "an authority not encoded": other(authority=ID.encode()),
        "an empty authority": other(authority=b""),
        "CONNECT": other(method=b"CONNECT"),
        "TRACE": other(method=b"TRACE"),
        "a method in lower case": other(method=b"post"),
        "a method too long": other(method=b"M" * 33),
        "no path": other(path=b""),
        "a path without a slash": other(path=b"v1"),
        "a path with a fragment": other(path=b"/#x"),
        "a path with a space": other(path=b"/a b"),
        "a path with a line break": other(path=b"/a\r\nb"),
        "asterisk with POST": other(path=b"*"),
        "a field beyond its section": bhttp(section=b"\x05abc"),
        "a field without a value": bhttp(section=b"\x01a"),
        "two lengths": bhttp(section=named(b"content-length", b"1") * 2),
        "a length with a sign": bhttp(section=named(b"content-length", b"+1")),
        "a length with a leading zero": bhttp(section=named(b"content-length", b"01")),
        "a length without a body": bhttp(section=named(b"content-length", b"1")),
        "a false binder": bhttp(section=named(b"confide-binder", b":" + b"A" * 43 + b"=:")),
    }
    for name in [
        *sorted(plain.REFUSED_NAMES),
        "proxy-authorization",
        "confide-route",
        "Accept",
        "a b",
        "",
        "a:b",
    ]:
        heads[f"field {name!r}"] = bhttp(section=named(name.encode()))
    for label, value in (("a line break", b"a\r\nb"), ("NUL", b"a\0b"), ("a space at its end", b"a ")):
        heads[f"a value with {label}"] = bhttp(section=named(b"a", value))
    return heads


def refused_requests() -> list[dict[str, Any]]:
    stream = ONE.request(0, [b"one", b"two", b"three"])
    prefix, frames = stream[:1262], frames_of(stream, 1262)
    head, first, second, third, last = frames
    other_seq = frames_of(ONE.request(1, [b"one", b"two", b"three"]), 1262)
    other_session = frames_of(TWO.request(0, [b"one", b"two", b"three"]), 1262)
    t = ONE.head(0).transcript(ONE.sid)
    reflected = schedule.response_key(SECRET, t, NONCE)
    good = ONE.request(0, b"hello")
    low_order = bytearray(good)
    low_order[38 + 1088 : 38 + 1120] = bytes(32)

    def patched(at: int, value: bytes) -> bytes:
        return good[:at] + value + good[at + len(value) :]

    def length(value: int, of: int) -> bytes:
        changed = [*frames]
        changed[of] = value.to_bytes(4, "big") + frames[of][4:]
        return prefix + b"".join(changed)

    small = padding.small(len(RAW_HEAD))
    over = ((20).to_bytes(4, "big") + b"x").ljust(256, b"\0")

    def longer_than_frame() -> bytes:
        """A content length one byte beyond the frame, under a valid tag."""
        key = ONE.key(0)
        sealed = plain.seal(key, 1, DATA | FINAL, b"", 256)
        body = (253).to_bytes(4, "big") + bytes(252)
        nonce = (int.from_bytes(key[32:], "big") ^ 1).to_bytes(12, "big")
        ciphertext = AESGCM(key[:32]).encrypt(nonce, body, bytes((DATA | FINAL,)))
        return ONE.head(0).encode() + plain.seal(key, 0, HEAD, RAW_HEAD, small) + sealed[:5] + ciphertext

    def not_zero() -> bytes:
        key = ONE.key(0)
        nonce = (int.from_bytes(key[32:], "big") ^ 1).to_bytes(12, "big")
        body = (1).to_bytes(4, "big") + b"x" + bytes(250) + b"\x01"
        ciphertext = AESGCM(key[:32]).encrypt(nonce, body, bytes((DATA | FINAL,)))
        frame = len(ciphertext).to_bytes(4, "big") + bytes((DATA | FINAL,)) + ciphertext
        return ONE.head(0).encode() + plain.seal(key, 0, HEAD, RAW_HEAD, small) + frame

    cases: list[tuple[str, bytes, str, int | None]] = [
        ("another magic", patched(0, b"CFE2"), "protocol", None),
        ("type 2 sent to the enclave", patched(4, b"\x02"), "protocol", None),
        ("an unknown flag", patched(5, b"\x02"), "protocol", None),
        ("the receipt flag set by the host", patched(5, b"\x01"), "record_auth", 0),
        ("the top bit of the number", patched(1238, b"\x80"), "protocol", None),
        ("an unknown kid", patched(6, b"\0" * 32), "key_unknown", None),
        ("the kid of other key material with the same key", patched(6, KIDS[1]), "record_auth", 0),
        ("a wrap made for another kid", patched(38, Session(SECRET, 1).wrap), "record_auth", 0),
        ("a low-order X25519 share in the wrap", bytes(low_order), "record_auth", 0),
        ("the wrap of another session", patched(38, TWO.wrap), "record_auth", 0),
        ("another number", patched(1245, b"\x01"), "record_auth", 0),
        ("another salt", patched(1246, b"\0"), "record_auth", 0),
        ("frames swapped", prefix + head + second + first + third + last, "record_auth", 1),
        ("a frame dropped", prefix + head + first + third + last, "record_auth", 2),
        ("a frame doubled", prefix + head + first + first + second + third + last, "record_auth", 2),
        ("the head doubled", prefix + head + head + first + second + third + last, "protocol", 1),
        ("the head dropped", prefix + first + second + third + last, "protocol", 0),
        (
            "a frame of another request",
            prefix + head + other_seq[1] + second + third + last,
            "record_auth",
            1,
        ),
        (
            "a frame of another session",
            prefix + head + other_session[1] + second + third + last,
            "record_auth",
            1,
        ),
        (
            "a frame of the other direction",
            prefix + head + plain.seal(reflected, 1, DATA, b"one", 256) + second + third + last,
            "record_auth",
            1,
        ),
        ("the final frame missing", prefix + head + first + second + third, "truncated", 4),
        ("the final frame twice", stream + last, "protocol", 4),
        (
            "the final frame moved to the front",
            prefix + head + last + first + second + third,
            "record_auth",
            1,
        ),
        ("the final bit set by the host", prefix + head + first[:4] + b"\x82" + first[5:], "record_auth", 1),
        (
            "the final bit taken by the host",
            prefix + b"".join(frames[:4]) + last[:4] + b"\x02" + last[5:],
            "record_auth",
            4,
        ),
        ("one byte after the end", stream + b"\0", "protocol", 4),
        ("L = 0", length(0, 1), "frame_too_large", 1),
        ("L = 19", length(19, 1), "frame_too_large", 1),
        ("L = 1,048,593", length(1_048_593, 1), "frame_too_large", 1),
        ("L = 2^32 - 1", length((1 << 32) - 1, 1), "frame_too_large", 1),
        ("L = 65,553 in the first frame", length(65_553, 0), "frame_too_large", 0),
        ("a content longer than its frame", longer_than_frame(), "protocol", 1),
        ("padding that is not zero", not_zero(), "protocol", 1),
        (
            "an empty frame that is not final",
            ONE.raw(0, [(HEAD, RAW_HEAD, small), (DATA, b"", 256)]),
            "protocol",
            1,
        ),
        ("kind 0", prefix + head + first[:4] + b"\0" + first[5:], "protocol", 1),
        ("kind 0x42", prefix + head + first[:4] + b"\x42" + first[5:], "protocol", 1),
        ("kind 0x84 as the first frame", ONE.raw(0, [(ABORT | FINAL, b"cancelled", 256)]), "protocol", 0),
        (
            "a receipt in a request",
            ONE.raw(0, [(HEAD, RAW_HEAD, small), (RECEIPT | FINAL, b"r", 256)]),
            "protocol",
            1,
        ),
        (
            "an abort that is not final",
            ONE.raw(0, [(HEAD, RAW_HEAD, small), (ABORT, b"x", 256)]),
            "protocol",
            1,
        ),
        (
            "an abort of 257 bytes",
            ONE.raw(0, [(HEAD, RAW_HEAD, small), (ABORT | FINAL, over, 512)]),
            "frame_too_large",
            1,
        ),
        (
            "a body shorter than declared",
            ONE.request(0, b"1234", fields=((b"content-length", b"5"),)),
            "protocol",
            None,
        ),
        (
            "a body longer than declared",
            ONE.request(0, b"123456", fields=((b"content-length", b"5"),)),
            "protocol",
            None,
        ),
        (
            "a declared length beyond max_body",
            ONE.request(0, b"x", fields=((b"content-length", b"%d" % (MAX_BODY + 1)),)),
            "too_large",
            None,
        ),
    ]
    for name, content in refused_heads().items():
        data = ONE.raw(0, [(HEAD | FINAL, content, padding.small(len(content)))])
        cases.append((f"head: {name}", data, "protocol", None))
    return [
        {"name": name, "message": data.hex(), "code": code, "frame": frame}
        for name, data, code, frame in cases
    ]


def response(
    seq: int,
    body: bytes | list[bytes] = b"",
    *,
    status: int = 200,
    fields: binary_http.Fields = (),
    ask: bytes | None = None,
    signer: bytes = RECEIPT_SEED,
    said: dict[str, Any] | None = None,
) -> bytes:
    """An honest response to the request ``seq`` of the first session; ``ask`` is its body if a receipt was wanted."""
    wanted = ask is not None
    t = ONE.head(seq, wanted=wanted).transcript(ONE.sid)
    raw = binary_http.encode_response(ResponseHead(status, fields))
    rs = schedule.receipt_secret(SECRET, t)
    joined = b"".join(body) if isinstance(body, list) else body

    def sign() -> bytes:
        facts: dict[str, Any] = {
            "kid": KIDS[0],
            "sid": ONE.sid,
            "seq": seq,
            "request": receipt.message_hash(rs, b"request", REQUEST_HEAD, (ask or b"",)),
            "response": receipt.message_hash(rs, b"response", raw, (joined,)),
            "status": status,
            "content": {"model": b"\x0c" * 32},
            "time": 1_780_272_000,
            "ext": {"budget": 3},
        }
        return receipt.issue(SigningKey.from_bytes(signer), **(facts | (said or {})))

    message = OutgoingMessage(
        encode_response(NONCE),
        schedule.response_key(SECRET, t, NONCE),
        raw,
        length=None if isinstance(body, list) else len(body),
        receipt=sign if wanted else None,
    )
    return whole(message, body)


REQUEST_HEAD = binary_http.encode_request(RequestHead(b"POST", AUTHORITY, PATH, ()))


def responses() -> list[dict[str, Any]]:
    asked = b"signed?"
    t = ONE.head(0).transcript(ONE.sid)
    key = schedule.response_key(SECRET, t, NONCE)
    small = 256
    raw = binary_http.encode_response(ResponseHead(200, ()))
    prefix = encode_response(NONCE)
    good = response(0, b"hello")
    stream = response(0, [b"one", b"two", b"three"])
    head, first, second, third, last = frames_of(stream, 38)

    def made(*frames: tuple[int, bytes]) -> bytes:
        return prefix + b"".join(
            plain.seal(key, i, kind, content, small) for i, (kind, content) in enumerate(frames)
        )

    def of(section: bytes) -> bytes:
        return b"\x01\x40\xc8" + bytes((len(section),)) + section + b"\0\0"

    cases: list[tuple[str, int, bytes | None, str, bytes, str | None, int | None]] = [
        ("no body", 0, None, "POST", response(0, b"", status=204), None, None),
        ("one byte", 0, None, "POST", response(0, b"x"), None, None),
        ("a stream", 0, None, "POST", stream, None, None),
        ("a receipt", 4, asked, "POST", response(4, b"yes", ask=asked), None, None),
        ("a receipt after an empty body", 4, asked, "POST", response(4, b"", ask=asked), None, None),
        ("HEAD with a length", 0, None, "HEAD", response(0, fields=((b"content-length", b"5"),)), None, None),
        (
            "a declared length",
            0,
            None,
            "POST",
            response(0, b"hello", fields=((b"content-length", b"5"),)),
            None,
            None,
        ),
        ("another magic", 0, None, "POST", b"CFE2" + good[4:], "protocol", None),
        ("a request reflected as its response", 0, None, "POST", ONE.request(0, b"hello"), "protocol", None),
        (
            "the frames of the request under a response's head",
            0,
            None,
            "POST",
            prefix + b"".join(frames_of(ONE.request(0, b"hello"), 1262)),
            "record_auth",
            0,
        ),
        ("a flag", 0, None, "POST", good[:5] + b"\x01" + good[6:], "protocol", None),
        ("another nonce", 0, None, "POST", good[:6] + b"\xcd" + good[7:], "record_auth", 0),
        (
            "the response to number 1 given to number 2",
            2,
            None,
            "POST",
            response(1, b"hello"),
            "record_auth",
            0,
        ),
        ("a second response after the first", 0, None, "POST", good + good, "protocol", 1),
        ("frames swapped", 0, None, "POST", prefix + head + second + first + third + last, "record_auth", 1),
        ("the final frame missing", 0, None, "POST", prefix + head + first + second + third, "truncated", 4),
        ("one byte after the end", 0, None, "POST", stream + b"\0", "protocol", 4),
        ("no frame", 0, None, "POST", prefix, "truncated", 0),
        ("status 199", 0, None, "POST", made((HEAD | FINAL, b"\x01\x40\xc7\0\0\0")), "protocol", None),
        ("status 600", 0, None, "POST", made((HEAD | FINAL, b"\x01\x42\x58\0\0\0")), "protocol", None),
        (
            "a binder in a response",
            0,
            None,
            "POST",
            made((HEAD | FINAL, of(named(b"confide-binder")))),
            "protocol",
            None,
        ),
        (
            "content-encoding",
            0,
            None,
            "POST",
            made((HEAD | FINAL, of(named(b"content-encoding", b"gzip")))),
            "protocol",
            None,
        ),
        (
            "a body shorter than declared",
            0,
            None,
            "POST",
            response(0, b"hell", fields=((b"content-length", b"5"),)),
            "protocol",
            None,
        ),
        ("a body after HEAD", 0, None, "HEAD", response(0, b"hello"), "protocol", None),
        (
            "abort: application",
            0,
            None,
            "POST",
            made((HEAD, raw), (ABORT | FINAL, b"application")),
            "closed",
            None,
        ),
        ("abort: timeout", 0, None, "POST", made((HEAD, raw), (ABORT | FINAL, b"timeout")), "timeout", None),
        (
            "abort: too_large as the first frame",
            0,
            None,
            "POST",
            made((ABORT | FINAL, b"too_large")),
            "too_large",
            None,
        ),
        (
            "abort: a code that nobody knows",
            0,
            None,
            "POST",
            made((HEAD, raw), (ABORT | FINAL, b"?")),
            "protocol",
            None,
        ),
        ("a receipt wanted and absent", 4, asked, "POST", b"", "receipt", None),
        (
            "a receipt that nobody wanted",
            0,
            None,
            "POST",
            made((HEAD, raw), (RECEIPT | FINAL, b"r")),
            "receipt",
            None,
        ),
        ("a receipt that is not COSE", 4, asked, "POST", b"", "receipt", None),
        (
            "a receipt for another request",
            4,
            asked,
            "POST",
            response(4, b"yes", ask=b"another"),
            "receipt",
            None,
        ),
        (
            "a receipt for another response",
            4,
            asked,
            "POST",
            response(4, b"yes", ask=asked, said={"response": b"\0" * 32}),
            "receipt",
            None,
        ),
        (
            "a receipt with another number",
            4,
            asked,
            "POST",
            response(4, b"yes", ask=asked, said={"seq": 5}),
            "receipt",
            None,
        ),
        (
            "a receipt of another session",
            4,
            asked,
            "POST",
            response(4, b"yes", ask=asked, said={"sid": TWO.sid}),
            "receipt",
            None,
        ),
        (
            "a receipt of another kid",
            4,
            asked,
            "POST",
            response(4, b"yes", ask=asked, said={"kid": KIDS[1]}),
            "receipt",
            None,
        ),
        (
            "a receipt with another status",
            4,
            asked,
            "POST",
            response(4, b"yes", ask=asked, said={"status": 201}),
            "receipt",
            None,
        ),
        (
            "a receipt with other content",
            4,
            asked,
            "POST",
            response(4, b"yes", ask=asked, said={"content": {}}),
            "receipt",
            None,
        ),
        (
            "a receipt signed by another key",
            4,
            asked,
            "POST",
            response(4, b"yes", ask=asked, signer=b"\x07" * 32),
            "receipt",
            None,
        ),
    ]
    found = []
    for name, seq, wanted, method, given, code, frame in cases:
        t = ONE.head(seq, wanted=wanted is not None).transcript(ONE.sid)
        key = schedule.response_key(SECRET, t, NONCE)
        data = given
        if name == "a receipt wanted and absent":
            data = prefix + plain.seal(key, 0, HEAD | FINAL, raw, small)
        elif name == "a receipt that is not COSE":
            data = (
                prefix
                + plain.seal(key, 0, HEAD, raw, small)
                + plain.seal(key, 1, RECEIPT | FINAL, b"\xa0", small)
            )
        case: dict[str, Any] = {"name": name, "seq": seq, "method": method, "message": data.hex()}
        case["request_body"] = None if wanted is None else wanted.hex()
        if code is None:
            asked_for = None if wanted is None else (REQUEST_HEAD, wanted)
            opened = plain.open_response(
                SECRET, t, data, method=method.encode(), request=asked_for, material=MATERIALS[0]
            )
            case |= {"status": opened["head"]["status"], "body": opened["body"].hex()}
        else:
            case |= {"code": code, "frame": frame}
        found.append(case)
    return found


def sequences() -> list[dict[str, Any]]:
    """Several requests to one enclave; the code of each, or null."""

    def bad(seq: int) -> bytes:
        data = bytearray(ONE.request(seq, b"x"))
        data[1262 + 5 + 3] ^= 1
        return bytes(data)

    cases: list[tuple[str, list[tuple[bytes, str | None]]]] = [
        ("a replay", [(ONE.request(0, b"x"), None), (ONE.request(0, b"x"), "sequence")]),
        ("numbers out of order", [(ONE.request(n, b"x"), None) for n in (5, 2, 9, 0)]),
        ("1023 behind", [(ONE.request(1023, b"x"), None), (ONE.request(0, b"x"), None)]),
        ("1024 behind", [(ONE.request(1024, b"x"), None), (ONE.request(0, b"x"), "sequence")]),
        (
            "a high number burned with a bad frame does no harm",
            [(bad((1 << 63) - 1), "record_auth"), (ONE.request(0, b"x"), None)],
        ),
        (
            "a number burned with a bad frame is still good",
            [(bad(7), "record_auth"), (ONE.request(7, b"x"), None)],
        ),
        (
            "a request that was cut is spent",
            [(ONE.request(3, [b"one", b"two"])[:-1], "truncated"), (ONE.request(3, b"x"), "sequence")],
        ),
        ("two sessions count apart", [(ONE.request(0, b"x"), None), (TWO.request(0, b"x"), None)]),
        (
            "a session under the kid of other key material",
            [(ONE.request(0, b"x"), None), (KIDS_SWAPPED, "key_unknown")],
        ),
    ]
    return [
        {"name": name, "steps": [{"message": data.hex(), "code": code} for data, code in steps]}
        for name, steps in cases
    ]


_NEXT = ONE.request(1, b"x")
KIDS_SWAPPED = _NEXT[:6] + KIDS[1] + _NEXT[38:]


def long_bodies() -> list[dict[str, Any]]:
    """Bodies too long to print: byte i is (7 i + 3) mod 251; the hash is over the whole message with number 0."""
    found = []
    for length in (1_048_571, 1_048_572, 1_048_573, 2_097_144, 2_500_000):
        data = ONE.request(0, long_body(length), fields=())
        found.append({"length": length, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()})
    return found


def long_body(length: int) -> bytes:
    unit = bytes((7 * i + 3) % 251 for i in range(251))
    return (unit * (length // 251 + 1))[:length]


def schedule_vectors() -> dict[str, str]:
    t = schedule.transcript(1, b"\xaa" * 32, 7, SALT)
    key = plain.expand(SECRET, "request", t, 44)
    return {
        "secret": SECRET.hex(),
        "t": t.hex(),
        "response_nonce": NONCE.hex(),
        "request": key.hex(),
        "response": plain.expand(SECRET, "response", t + NONCE, 44).hex(),
        "binder": plain.expand(SECRET, "binder", t, 32).hex(),
        "receipt": plain.expand(SECRET, "receipt", t, 32).hex(),
        "frame": plain.seal(key, 0, HEAD | FINAL, b"hi", 256).hex(),
    }


def binding_vectors() -> list[dict[str, Any]]:
    found = []
    for count in (1, 2, 3, 4095, 4096):
        leaves = [plain.leaf(index.to_bytes(32, "big"), b"\xa0") for index in range(count)]
        index = count - 1
        found.append(
            {
                "key_material": "a0",
                "size": count,
                "index": index,
                "nonce": index.to_bytes(32, "big").hex(),
                "path": [node.hex() for node in plain.inclusion(leaves, index)],
                "report_data": plain.report_data(plain.tree(leaves), []).hex(),
            }
        )
    cached = plain.report_data(plain.leaf(b"", b"\xa0"), []).hex()
    two = [plain.leaf(bytes((value,)) * 32, b"\xa0") for value in (0, 1)]
    pair = plain.report_data(plain.tree(two), []).hex()
    return [*found, {"cached": cached, "pair": pair}]


def main() -> None:
    lengths = sorted(
        {*range(40), *(1 << n for n in range(6, 20)), *((1 << n) + 1 for n in range(6, 20)), 1_048_572}
    )
    vectors = {
        "about": "docs/spec/envelope.md, section 12; byte strings in hexadecimal",
        "key": {"mlkem_seed": SEED.hex(), "x25519": X25519.hex(), "receipt_seed": RECEIPT_SEED.hex()},
        "service_id": ID,
        "authority": AUTHORITY.decode(),
        "max_body": MAX_BODY,
        "key_materials": [one.hex() for one in MATERIALS],
        "sessions": [
            {"secret": s.secret.hex(), "kid": s.kid.hex(), "wrap": s.wrap.hex()} for s in (ONE, TWO)
        ],
        "salt": SALT.hex(),
        "plain_head": RAW_HEAD.hex(),
        "schedule": schedule_vectors(),
        "binding": binding_vectors(),
        "padding": [
            {"content": n, "small": padding.small(n), "body": padding.body(n), "stream": padding.stream(n)}
            for n in lengths
        ],
        "requests": [*accepted_requests(), *refused_requests()],
        "responses": responses(),
        "sequences": sequences(),
        "long": long_bodies(),
        "edits": [
            {"of": "requests", "name": "a stream", "edit": "cut before each byte", "code": "truncated"},
            {"of": "responses", "name": "a stream", "edit": "cut before each byte", "code": "truncated"},
            {"of": "requests", "name": "a small body of known length", "edit": "flip each bit", "code": None},
            {"of": "responses", "name": "a stream", "edit": "flip each bit", "code": None},
        ],
    }
    print(json.dumps(vectors, indent=1, ensure_ascii=False))  # noqa: T201


if __name__ == "__main__":
    main()
