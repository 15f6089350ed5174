# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import dataclasses
import io
import json
import logging
import pickle  # noqa: TID251 - to show that it is refused
import traceback
from typing import Any

import pytest

from confide.crypto.aead import Aead
from confide.crypto.hpke import PrivateKey
from confide.crypto.issue import IssuingKey
from confide.crypto.secret import Secret
from confide.crypto.signing import SigningKey
from support.refusal import code_of

CANARY = b"canary-0123456789-canary-0123456"
SPELLINGS = (CANARY.decode(), CANARY.hex(), repr(CANARY), str(list(CANARY))[1:-1])


@dataclasses.dataclass(frozen=True, slots=True)
class Holder:
    name: str
    key: Secret


def unreadable(text: str) -> bool:
    return not any(spelling in text for spelling in SPELLINGS)


def test_leak_03_no_way_of_printing_shows_the_bytes() -> None:
    secret = Secret(CANARY)
    assert not unreadable(f"{secret.reveal()!r}")

    printed = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!r:>40}",
        "%s %r" % (secret, secret),  # noqa: UP031 - the old operator is a way of printing too
        repr(Holder("k", secret)),
        repr({"k": [secret]}),
        ascii(secret),
    ]
    assert all(unreadable(text) and "redacted" in text for text in printed)


def test_leak_03_a_logged_exception_with_locals_shows_nothing() -> None:
    stream = io.StringIO()
    logger = logging.getLogger("confide.test.secret")
    logger.addHandler(handler := logging.StreamHandler(stream))
    secret = Secret(CANARY)
    try:
        raise RuntimeError(secret)
    except RuntimeError as error:
        logger.exception("failed with %s", secret)
        captured = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())

    logger.removeHandler(handler)
    assert "redacted" in stream.getvalue()
    assert "redacted" in captured
    assert unreadable(stream.getvalue() + captured)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_leak_03_a_secret_is_not_pickled(protocol: int) -> None:
    for value in (Secret(CANARY), Holder("k", Secret(CANARY)), {"k": Secret(CANARY)}):
        with pytest.raises(TypeError):
            pickle.dumps(value, protocol)


def test_leak_03_a_secret_is_not_copied_dumped_hashed_or_looked_into() -> None:
    secret: Any = Secret(CANARY)

    for attempt in (copy.copy, copy.deepcopy, json.dumps, hash, vars, bytes, list, iter, dataclasses.asdict):
        with pytest.raises(TypeError):
            attempt(secret)
    with pytest.raises(TypeError):
        dataclasses.asdict(Holder("k", secret))
    assert not hasattr(secret, "__dict__")


def test_leak_03_keys_are_redacted_and_not_serialised() -> None:
    for key in (
        SigningKey.from_bytes(CANARY),
        PrivateKey.from_seeds(CANARY * 2, CANARY),
        IssuingKey.from_scalar(int.from_bytes(CANARY, "big")),
        Aead(CANARY),
    ):
        assert unreadable(repr(key) + str(key))
        with pytest.raises(TypeError):
            pickle.dumps(key)
        with pytest.raises(TypeError):
            copy.deepcopy(key)


def test_secrets_compare_by_content_and_only_with_secrets() -> None:
    assert Secret(CANARY) == Secret(bytearray(CANARY))
    assert Secret(CANARY) != Secret(CANARY[:-1])
    assert Secret(CANARY) != Secret(CANARY[:-1] + b"7")
    assert Secret(CANARY) != CANARY
    assert Secret(b"") == Secret(b"")


def test_leak_03_the_comparison_is_the_constant_time_one(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, Any]] = []

    def record(left: Any, right: Any) -> bool:
        calls.append((bytes(left), bytes(right)))
        return True

    monkeypatch.setattr("confide.crypto.secret.hmac.compare_digest", record)

    assert Secret(b"one") == Secret(b"two")
    assert calls == [(b"one", b"two")]


def test_an_erased_secret_is_overwritten_and_unusable() -> None:
    secret = Secret(CANARY)
    held = secret._data
    secret.erase()

    assert held == bytes(len(CANARY))
    assert code_of(secret.reveal) == "enclave.key_missing"
    assert secret != Secret(bytes(len(CANARY)))
    assert secret != secret
    assert len(secret) == len(CANARY)
