# SPDX-License-Identifier: Apache-2.0
"""The public vectors of the envelope, opened by the implementation and by the second decoder alike."""

from __future__ import annotations

import ast
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from confide.attestation import binding
from confide.attestation.key_material import KeyMaterial, kid
from confide.channel import head as heads
from confide.channel import padding, receipt, schedule
from confide.channel.client_session import Exchange
from confide.channel.frames import FrameSealer, Kind
from confide.channel.message import OutgoingMessage, sealed_length
from confide.channel.sessions import ChannelKey
from confide.channel.settings import ChannelSettings
from confide.crypto import hpke
from confide.crypto.signing import SigningKey
from confide.errors import ConfideError
from support import envelope_decoder as plain
from support.channel_world import Service, World, take

if TYPE_CHECKING:
    from confide.channel.instance import Instance

ROOT = Path(__file__).parents[2]
VECTORS: dict[str, Any] = json.loads((ROOT / "docs/spec/vectors/envelope.json").read_text("utf-8"))
SEED, X25519, RECEIPT_SEED = (
    bytes.fromhex(VECTORS["key"][name]) for name in ("mlkem_seed", "x25519", "receipt_seed")
)
MATERIALS = [bytes.fromhex(one) for one in VECTORS["key_materials"]]
SALT = bytes.fromhex(VECTORS["salt"])
SECRET = bytes.fromhex(VECTORS["sessions"][0]["secret"])
SID = hashlib.sha256(bytes.fromhex(VECTORS["sessions"][0]["wrap"])).digest()


def by_name(name: str, of: str = "requests") -> dict[str, Any]:
    found: list[dict[str, Any]] = [case for case in VECTORS[of] if case["name"] == name]
    (case,) = found
    return case


def instance() -> Instance:
    """An instance that has the vectors' key pair under both kids."""
    settings = ChannelSettings(max_body=VECTORS["max_body"], unwraps_per_second=1_000_000)
    made = World(settings=settings, service=Service(id=VECTORS["service_id"])).instance
    for material in MATERIALS:
        key = ChannelKey(
            kid=kid(material),
            material=material,
            content={},
            private=hpke.PrivateKey.from_seeds(SEED, X25519),
            receipt_key=SigningKey.from_bytes(RECEIPT_SEED),
            opens_until=1e12,
        )
        made.table.add_key(key, made.monotonic())
    return made


def enclave() -> plain.Enclave:
    key = plain.session_key(SEED, X25519)
    keys = {hashlib.sha256(material).digest(): key for material in MATERIALS}
    return plain.Enclave(keys, VECTORS["authority"].encode(), VECTORS["max_body"])


def ours(made: Instance, data: bytes) -> tuple[str | None, int]:
    """The code with which the implementation refuses a request, and the frame it was at."""
    request = made.open_request()
    try:
        request.push(data)
        while request.next() is not None:
            pass
        request.end()
    except ConfideError as error:
        return error.code.removeprefix("channel."), request.frame
    finally:
        request.close()
    return None, request.frame


def theirs(made: plain.Enclave, data: bytes) -> tuple[str | None, int | None]:
    try:
        made.open(data)
    except plain.Refused as refused:
        return refused.code, refused.frame
    return None, None


def exchange(case: dict[str, Any]) -> Exchange:
    """The client's half of the exchange that a vector's response belongs to."""
    wanted = case["request_body"] is not None
    t = heads.Head(wanted, kid(MATERIALS[0]), b"", case["seq"], SALT).transcript(SID)
    session: Any = SimpleNamespace(
        kid=kid(MATERIALS[0]),
        sid=SID,
        material=KeyMaterial.decode(MATERIALS[0]),
        result=None,
        end=lambda: None,
        prove=lambda: None,
    )
    secret = schedule.receipt_secret(SECRET, t) if wanted else b""
    raw = bytes.fromhex(VECTORS["plain_head"]) if wanted else b""
    hashed = receipt.Transcript(secret, b"request", raw) if wanted else None
    outgoing = OutgoingMessage(b"", schedule.request_key(SECRET, t), raw, length=None, transcript=hashed)
    if wanted:
        outgoing.write(bytes.fromhex(case["request_body"]))
    return Exchange(session, case["method"].encode(), case["seq"], outgoing, t, SECRET, secret, hashed)


def ours_response(case: dict[str, Any], data: bytes) -> tuple[str | None, int, bytes]:
    made = exchange(case)
    body = b""
    try:
        for piece in made.feed(data):
            body += piece
        made.end()
    except ConfideError as error:
        return error.code.removeprefix("channel."), made.frame, body
    return None, made.frame, body


def theirs_response(case: dict[str, Any], data: bytes) -> tuple[str | None, int | None]:
    wanted = case["request_body"]
    t = heads.Head(wanted is not None, b"", b"", case["seq"], SALT).transcript(SID)
    asked = None
    if wanted is not None:
        asked = (bytes.fromhex(VECTORS["plain_head"]), bytes.fromhex(wanted))
    try:
        plain.open_response(
            SECRET, t, data, method=case["method"].encode(), request=asked, material=MATERIALS[0]
        )
    except plain.Refused as refused:
        return refused.code, refused.frame
    return None, None


def test_the_second_decoder_imports_nothing_of_confide() -> None:
    tree = ast.parse((ROOT / "tests/support/envelope_decoder.py").read_text("utf-8"))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }

    assert "confide" not in imported
    assert "support" not in imported


def test_the_key_schedule_of_the_specification() -> None:
    vector = {name: bytes.fromhex(value) for name, value in VECTORS["schedule"].items()}
    t, secret = vector["t"], vector["secret"]

    assert t == schedule.transcript(1, b"\xaa" * 32, 7, SALT)
    assert schedule.request_key(secret, t) == vector["request"]
    assert schedule.response_key(secret, t, vector["response_nonce"]) == vector["response"]
    assert schedule.binder(secret, t) == vector["binder"]
    assert schedule.receipt_secret(secret, t) == vector["receipt"]
    assert FrameSealer(vector["request"]).seal(Kind.HEAD, b"hi", 256, final=True) == vector["frame"]
    # Digits that were published before this implementation existed.
    assert vector["request"].hex().startswith("1e49e5bf9f0fcb3df027a7071ee299ba649888d1")
    assert vector["response"].hex().startswith("9156b23581d31e56cc661d99bc5185b157da9f6a")
    assert hashlib.sha256(vector["frame"]).hexdigest().startswith("549f2fbaf1a6888f3083f2456d4750df")


def test_the_binding_of_the_specification() -> None:
    for vector in VECTORS["binding"][:-1]:
        proof = binding.NonceProof(
            vector["size"], vector["index"], tuple(bytes.fromhex(node) for node in vector["path"])
        )
        leaf = binding.leaf(bytes.fromhex(vector["nonce"]), bytes.fromhex(vector["key_material"]))

        assert binding.report_data(proof.root(leaf)).hex() == vector["report_data"]
    last = VECTORS["binding"][-1]

    assert last["cached"].startswith("a3751fb6269af741")
    assert last["pair"].startswith("bedbcacfa3b310e3")


def test_padding_is_that_of_the_specification() -> None:
    for vector in VECTORS["padding"]:
        content = vector["content"]

        assert padding.small(content) == vector["small"] == -(-(content + 4) // 256) * 256
        assert padding.body(content) == vector["body"] == min(1 << 20, max(256, plain.padme(content + 4)))
        assert padding.stream(content) == vector["stream"]


@pytest.mark.parametrize("case", [c for c in VECTORS["requests"] if "code" not in c], ids=lambda c: c["name"])
def test_a_request_is_accepted(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["message"])
    for chunk in (None, 1, 1000):
        request, body = take(instance(), data, chunk=chunk)

        assert request.head is not None
        assert body.hex() == case["body"]
        assert [request.head.method, request.head.path] == [case["method"].encode(), case["path"].encode()]
        assert [[name.hex(), value.hex()] for name, value in request.head.fields] == case["fields"]
    assert enclave().open(data)["body"].hex() == case["body"]


@pytest.mark.parametrize("case", [c for c in VECTORS["requests"] if "code" in c], ids=lambda c: c["name"])
def test_a_request_is_refused(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["message"])
    code, frame = ours(instance(), data)

    assert code == case["code"]
    assert theirs(enclave(), data) == (case["code"], case["frame"])
    if case["frame"] is not None:
        assert frame == case["frame"]


@pytest.mark.parametrize("case", VECTORS["responses"], ids=lambda c: c["name"])
def test_a_response_is_accepted_or_refused(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["message"])
    code, frame, body = ours_response(case, data)

    assert code == case.get("code")
    assert theirs_response(case, data) == (case.get("code"), case.get("frame"))
    if case.get("frame") is not None:
        assert frame == case["frame"]
    if code is None:
        assert body.hex() == case["body"]


@pytest.mark.parametrize("case", VECTORS["sequences"], ids=lambda c: c["name"])
def test_a_sequence_of_requests(case: dict[str, Any]) -> None:
    made, other = instance(), enclave()
    wanted = [step["code"] for step in case["steps"]]
    messages = [bytes.fromhex(step["message"]) for step in case["steps"]]

    assert [ours(made, data)[0] for data in messages] == wanted
    assert [theirs(other, data)[0] for data in messages] == wanted


@pytest.mark.parametrize("case", VECTORS["long"], ids=lambda c: str(c["length"]))
def test_a_body_of_several_frames(case: dict[str, Any]) -> None:
    unit = bytes((7 * i + 3) % 251 for i in range(251))
    body = (unit * (case["length"] // 251 + 1))[: case["length"]]
    session = VECTORS["sessions"][0]
    outer = heads.Head(False, bytes.fromhex(session["kid"]), bytes.fromhex(session["wrap"]), 0, SALT)
    key = schedule.request_key(SECRET, outer.transcript(SID))
    raw = bytes.fromhex(VECTORS["plain_head"])
    message = OutgoingMessage(outer.encode(), key, raw, length=len(body))
    whole = b"".join([message.start(), *message.write(body), message.finish()])
    frames = [outer.encode(), plain.seal(key, 0, plain.HEAD, raw, 256)]
    at = 0
    layout = plain.known_plaintexts(len(body))
    for index, (content, size) in enumerate(layout, 1):
        kind = plain.DATA | (plain.FINAL if index == len(layout) else 0)
        frames.append(plain.seal(key, index, kind, body[at : at + content], size))
        at += content

    assert hashlib.sha256(whole).hexdigest() == case["sha256"]
    assert b"".join(frames) == whole
    assert len(whole) == case["size"] == sealed_length(1262, len(raw), len(body))
    assert take(instance(), whole, chunk=65536)[1] == body


def test_ch_02_a_request_cut_before_each_byte_is_truncated() -> None:
    data = bytes.fromhex(by_name("a stream")["message"])
    made = instance()
    for end in range(len(data)):
        # After the first frame the number is spent: every cut gets an instance of its own.
        if end > 1262 + 277:
            made = instance()

        assert ours(made, data[:end])[0] == "truncated", end


def test_ch_02_a_response_cut_before_each_byte_is_truncated_and_never_complete() -> None:
    case = by_name("a stream", "responses")
    data = bytes.fromhex(case["message"])
    whole = bytes.fromhex(case["body"])
    for end in range(len(data)):
        code, _, body = ours_response(case, data[:end])

        assert (code, theirs_response(case, data[:end])[0]) == ("truncated", "truncated"), end
        assert whole.startswith(body)


@pytest.mark.parametrize("step", [9, pytest.param(1, marks=pytest.mark.slow)])
def test_ch_04_each_bit_flipped_in_a_request_is_refused_and_costs_nothing(step: int) -> None:
    data = bytes.fromhex(by_name("a small body of known length")["message"])
    made = instance()
    for bit in range(0, len(data) * 8, step):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        if bit // 8 >= 1262 + 277:
            made = instance()

        assert ours(made, bytes(changed))[0] is not None, bit
    assert ours(instance(), data)[0] is None


def test_ch_04_each_bit_flipped_in_a_response_is_refused() -> None:
    case = by_name("a stream", "responses")
    data = bytes.fromhex(case["message"])
    for bit in range(len(data) * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8

        assert ours_response(case, bytes(changed))[0] is not None, bit
