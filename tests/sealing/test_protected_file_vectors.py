# SPDX-License-Identifier: Apache-2.0
"""The published protected file, read by the implementation and by the second reader, and its refusals."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature, InvalidTag

from confide.crypto.secret import Secret
from confide.errors import SealingError
from confide.sealing.protected_file import ProtectedFile
from support import protected_file_decoder, protected_file_vectors

VECTOR: dict[str, Any] = json.loads(protected_file_vectors.PLACE.read_text())
FILE = bytes.fromhex(VECTOR["file"])
CONTENTS = {entry["name"]: bytes.fromhex(entry["data"]) for entry in VECTOR["entries"]}


def read(data: bytes) -> dict[str, bytes]:
    with ProtectedFile.open(
        data,
        key=Secret(bytes.fromhex(VECTOR["data_key"])),
        owner_public=bytes.fromhex(VECTOR["owner_public"]),
        name=VECTOR["name"],
        version=VECTOR["version"],
    ) as file:
        return {name: bytes(file.read(name)) for name in file.names}


def read_independently(data: bytes) -> dict[str, bytes]:
    return protected_file_decoder.read(
        data, bytes.fromhex(VECTOR["data_key"]), bytes.fromhex(VECTOR["owner_public"]), VECTOR["name"]
    )[1]


def test_both_readers_read_the_published_file() -> None:
    assert read(FILE) == CONTENTS
    assert read_independently(FILE) == CONTENTS


def test_the_writer_makes_the_published_file_again_byte_for_byte() -> None:
    assert protected_file_vectors.make() == VECTOR


@pytest.mark.parametrize("case", VECTOR["refuse"], ids=lambda case: case["what"])
def test_both_readers_refuse_what_the_vectors_refuse(case: dict[str, Any]) -> None:
    piece = bytes.fromhex(case["bytes"])
    data = FILE[: case["at"]] + piece + FILE[case["at"] + len(piece) :]
    data = data[: case["size"]].ljust(case["size"], b"\0")
    with pytest.raises(SealingError) as error:
        read(data)
    assert error.value.code == case["code"]
    with pytest.raises((ValueError, KeyError, InvalidTag, InvalidSignature)):
        read_independently(data)
