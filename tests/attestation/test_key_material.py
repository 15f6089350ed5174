# SPDX-License-Identifier: Apache-2.0
"""Key material: one encoding, every field bounded, nothing unknown."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import pytest

from confide.attestation.key_material import KeyMaterial, ServiceIdentity, kid
from confide.errors import MalformedError
from confide.wire import cbor
from support import bundles


def test_what_is_encoded_is_decoded() -> None:
    material = bundles.material()

    assert KeyMaterial.decode(material.encode()) == material
    assert kid(material.encode()) == hashlib.sha256(material.encode()).digest()


def test_every_field_is_in_the_bytes() -> None:
    base = bundles.material()
    changes: dict[str, Any] = {
        "purpose": "release",
        "audience": "another",
        "service": ServiceIdentity("model", b"\x01" * 32, "acme", b"\x0a" * 16),
        "key": b"\x01" * 1216,
        "receipt_key": b"\x01" * 32,
        "epoch": 2,
        "lifetime": 60,
        "issued_at": 1,
        "at_most_once": True,
        "content": {},
        "max_body": 1,
        "max_session": 1,
    }

    assert changes.keys() == {field.name for field in dataclasses.fields(base)}
    encodings = {dataclasses.replace(base, **{name: value}).encode() for name, value in changes.items()}
    assert len(encodings | {base.encode()}) == len(changes) + 1


def test_the_keys_of_the_map_are_those_of_the_specification() -> None:
    decoded = cbor.decode(bundles.material().encode(), what="test", max_size=1 << 14)

    assert sorted(decoded) == sorted(
        [
            "v",
            "purpose",
            "audience",
            "service",
            "key",
            "receipt_key",
            "epoch",
            "lifetime",
            "issued_at",
            "at_most_once",
            "content",
            "max_body",
            "max_session",
        ]
    )
    assert sorted(decoded["service"]) == ["id", "instance", "kind", "manifest"]
    assert decoded["v"] == 1


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("purpose", "", "malformed.unknown_format"),
        ("purpose", "Channel", "malformed.unknown_format"),
        ("purpose", "x" * 33, "malformed.limit_exceeded"),
        ("audience", "x" * 257, "malformed.limit_exceeded"),
        ("key", bytes(1215), "malformed.length_mismatch"),
        ("key", bytes(1217), "malformed.length_mismatch"),
        ("receipt_key", bytes(31), "malformed.length_mismatch"),
        ("epoch", -1, "malformed.limit_exceeded"),
        ("epoch", 1 << 64, "malformed.limit_exceeded"),
        ("lifetime", 0, "malformed.limit_exceeded"),
        ("lifetime", 3601, "malformed.limit_exceeded"),
        ("issued_at", -1, "malformed.limit_exceeded"),
        ("at_most_once", 1, "malformed.non_canonical"),
        ("max_session", 0, "malformed.limit_exceeded"),
        ("max_session", 1 << 32, "malformed.limit_exceeded"),
        ("content", {"a": bytes(31)}, "malformed.length_mismatch"),
        ("content", {"": bytes(32)}, "malformed.unknown_format"),
        ("content", {str(index): bytes(32) for index in range(65)}, "malformed.limit_exceeded"),
        ("service", ServiceIdentity("model", bytes(31), "acme", bytes(16)), "malformed.length_mismatch"),
        ("service", ServiceIdentity("model", bytes(32), "acme", bytes(17)), "malformed.length_mismatch"),
    ],
)
def test_a_field_outside_its_bounds_is_not_written(field: str, value: Any, code: str) -> None:
    with pytest.raises(MalformedError) as caught:
        bundles.material(**{field: value}).encode()

    assert caught.value.code == code


def _changed(**changes: Any) -> bytes:
    decoded = cbor.decode(bundles.material().encode(), what="test", max_size=1 << 14)
    return cbor.encode({key: value for key, value in (decoded | changes).items() if value is not None})


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (_changed(v=2), "malformed.unsupported_version"),
        (_changed(v=0), "malformed.unsupported_version"),
        (_changed(v=None), "malformed.non_canonical"),
        (_changed(extra=1), "malformed.non_canonical"),
        (_changed(key=None), "malformed.non_canonical"),
        (_changed(audience=None), "malformed.non_canonical"),
        (_changed(service=1), "malformed.non_canonical"),
        (_changed(content={1: bytes(32)}), "malformed.unknown_format"),
        (_changed() + b"\x00", "malformed.trailing_data"),
        (b"\xa0", "malformed.non_canonical"),
        (b"", "malformed.truncated"),
        (b"\x80", "malformed.non_canonical"),
        (bytes(16385), "malformed.limit_exceeded"),
    ],
)
def test_other_bytes_are_refused(data: bytes, code: str) -> None:
    with pytest.raises(MalformedError) as caught:
        KeyMaterial.decode(data)

    assert caught.value.code == code


def test_an_encoding_that_is_not_deterministic_is_refused() -> None:
    data = bundles.material().encode()
    entries = cbor.decode(data, what="test", max_size=1 << 14)
    reversed_map = bytes((0xA0 | len(entries),)) + b"".join(
        cbor.encode(key) + cbor.encode(entries[key]) for key in reversed(list(entries))
    )
    assert len(reversed_map) == len(data)

    with pytest.raises(MalformedError) as caught:
        KeyMaterial.decode(reversed_map)
    assert caught.value.code == "malformed.non_canonical"


def test_the_content_cannot_be_changed_afterwards() -> None:
    content = {"weights": b"\x01" * 32}
    material = bundles.material(content=content)
    content["weights"] = b"\x02" * 32

    assert material.content["weights"] == b"\x01" * 32
    with pytest.raises(TypeError):
        material.content["other"] = b""  # type: ignore[index]


@pytest.mark.parametrize("digest", [b"\x0c" * 31, "text", None])
def test_a_refusal_of_a_content_does_not_repeat_its_name(digest: object) -> None:
    table = cbor.decode(bundles.material().encode(), what="test", max_size=1 << 14)
    table["content"] = {"\x1b[2Jsecret": digest}

    with pytest.raises(MalformedError) as caught:
        KeyMaterial.decode(cbor.encode(table))

    assert caught.value.code == "malformed.length_mismatch"
    assert "secret" not in str(caught.value)
