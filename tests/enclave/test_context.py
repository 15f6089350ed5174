# SPDX-License-Identifier: Apache-2.0
"""The context: keys by purpose, sealing that opens only where it should, and nothing that was not named."""

from __future__ import annotations

import copy
import hashlib
import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from confide.attestation.attester import PlatformEvidence
from confide.attestation.evidence import EvidencePart
from confide.crypto.secret import Secret
from confide.enclave.context import Context
from confide.enclave.control import LOG_FIELDS, LogLine
from confide.enclave.egress import Egress
from confide.enclave.service import SecretPin, Service
from confide.errors import ConfideError, ConfigurationError, EnclaveError, SealingError

if TYPE_CHECKING:
    from collections.abc import Mapping


class FixedDevice:
    """A device whose keys follow from one text, as real ones follow from chip and measurement."""

    def __init__(self, chip: str) -> None:
        self.chip = chip.encode()

    def attest(self, report_data: bytes) -> PlatformEvidence:
        return PlatformEvidence(EvidencePart("snp", report_data))

    def derive_key(self, label: bytes) -> bytes:
        return hashlib.sha256(self.chip + label).digest()


def context(chip: str = "chip", **options: Any) -> Context:
    values: dict[str, Any] = {
        "service": Service("function", "acme", models=(SecretPin("model", bytes(32)),)),
        "attester": FixedDevice(chip),
        "secrets": {},
        "data": {},
        "storage": None,
        "egress": Egress(None, ()),
        "log": lambda _event, _fields: None,
        **options,
    }
    return Context(**values)


@given(st.binary(max_size=300), st.text("abcdef/ é", min_size=1, max_size=20))
def test_what_is_sealed_opens_for_the_same_purpose(data: bytes, purpose: str) -> None:
    inside = context()
    sealed = inside.seal(data, purpose=purpose)
    assert len(sealed) == len(data) + 56
    assert inside.open(sealed, purpose=purpose) == data
    assert context().open(bytearray(sealed), purpose=purpose) == data


def test_sealing_twice_gives_nothing_alike() -> None:
    inside = context()
    first, second = inside.seal(b"x" * 64, purpose="p"), inside.seal(b"x" * 64, purpose="p")
    assert first[8:40] != second[8:40]
    assert first[40:] != second[40:]


def test_another_purpose_chip_or_byte_does_not_open() -> None:
    inside = context()
    sealed = inside.seal(b"data", purpose="p")
    for other, purpose in ((inside, "q"), (context("another chip"), "p")):
        with pytest.raises(SealingError) as caught:
            other.open(sealed, purpose=purpose)
        assert caught.value.code == "sealing.integrity"
    for index in range(len(sealed)):
        changed = bytearray(sealed)
        changed[index] ^= 1
        with pytest.raises(SealingError):
            inside.open(changed, purpose="p")
    for length in range(len(sealed)):
        with pytest.raises(SealingError):
            inside.open(sealed[:length], purpose="p")
    with pytest.raises(SealingError):
        inside.open(sealed + b"\0", purpose="p")


def test_keys_are_independent_of_the_sealing_keys() -> None:
    inside = context()
    keys = {inside.key(purpose).reveal() for purpose in ("a", "b", "a ", "vault/a")}
    assert len(keys) == 4
    assert all(len(key) == 32 for key in keys)
    assert context("another chip").key("a") != inside.key("a")


@pytest.mark.parametrize("purpose", ["", "x" * 129, "line\nbreak", b"bytes", None, 5])
def test_a_purpose_is_short_printable_text(purpose: Any) -> None:
    inside = context()
    for use in (inside.key, lambda p: inside.seal(b"", purpose=p), lambda p: inside.open(b"", purpose=p)):
        with pytest.raises(ConfideError):
            use(purpose)


def test_what_was_not_named_is_missing() -> None:
    inside = context(secrets={"given": Secret(b"s" * 32)})
    assert inside.secret("given").reveal() == b"s" * 32
    for use, code in (
        (lambda: inside.secret("other"), "enclave.key_missing"),
        (lambda: inside.data("other"), "enclave.bad_state"),
        (lambda: inside.open_protected("unpinned"), "enclave.bad_state"),
        (lambda: inside.open_protected("model"), "enclave.bad_state"),
        (lambda: inside.vault("x"), "enclave.bad_state"),
        (lambda: inside.storage(), "enclave.bad_state"),  # noqa: PLW0108
        (lambda: inside.attest(bytes(32)), "enclave.bad_state"),
    ):
        with pytest.raises(EnclaveError) as caught:
            use()
        assert caught.value.code == code
    with pytest.raises(ConfigurationError):
        inside.attest(bytes(31))


def test_leak_03_a_context_shows_and_gives_nothing_away() -> None:
    canary = os.urandom(16).hex()
    inside = context(secrets={"given": Secret(canary.encode())})
    assert canary not in repr(inside)
    assert canary not in repr(vars(inside))
    with pytest.raises(TypeError):
        copy.copy(inside)
    with pytest.raises(TypeError):
        copy.deepcopy(inside)
    with pytest.raises(TypeError):
        inside.__reduce_ex__(4)


def test_the_log_passes_on_exactly_what_was_said() -> None:
    said: list[tuple[str, Mapping[str, int | str]]] = []
    context(log=lambda event, fields: said.append((event, fields))).log("done", count=3)
    assert said == [("done", {"count": 3})]


def test_a_log_field_that_is_not_allowed_is_a_configuration_error_that_lists_what_is() -> None:
    said: list[LogLine] = []
    inside = context(log=lambda event, fields: said.append(LogLine(event, fields)))
    inside.log("done", count=3)
    with pytest.raises(ConfigurationError) as caught:
        inside.log("done", patients=3)
    assert caught.value.code == "configuration.log"
    assert all(name in caught.value.hint for name in LOG_FIELDS)
    with pytest.raises(ConfigurationError):
        inside.log("Not an event")
    with pytest.raises(ConfigurationError):
        inside.log("done", state="two words")
    assert len(said) == 1
