# SPDX-License-Identifier: Apache-2.0
"""Predict PCRs without a TPM: from digests in the order in which they are extended, or from an event log that you trust.

A PCR of the bank of hash H starts as zeros (17 to 22 as ones, until a dynamic launch) and becomes H(PCR || digest) with each
extension. No image is measured here: which digests a boot extends is decided by its firmware and boot loader, and differs between
machines. Take a log of a boot that you trust, and pin the PCRs that your images decide (4, 8, 9, 11, 12), not all.
Source: "Trusted Platform Module Library", Part 1, 17 (PCR); TCG PC Client Platform Firmware Profile, sections 3.3.4 and 10.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from confide.attestation.reference import ReferenceValues
from confide.errors import ConfigurationError, MalformedError
from confide.tees._tcg import log as tcg
from confide.tees.tpm import boot, wire

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["extend", "from_event_log", "initial", "predict"]

_DYNAMIC: Final = range(17, 23)
_BANKS: Final = frozenset({"sha256", "sha384", "sha512"})


def initial(index: int, bank: str = "sha256") -> bytes:
    """The value of PCR ``index`` (0 to 23) after a reset of the machine, at startup locality 0."""
    size = _size(bank)
    if not 0 <= index < wire.MAX_PCRS:
        raise ConfigurationError("register", f"PCRs are numbered from 0 to {wire.MAX_PCRS - 1}")
    return (b"\xff" if index in _DYNAMIC else b"\x00") * size


def extend(value: bytes, digest: bytes, bank: str = "sha256") -> bytes:
    """A PCR after TPM2_PCR_Extend with a digest; both have the length of the bank's hash."""
    if len(value) != _size(bank) or len(digest) != _size(bank):
        raise ConfigurationError("register", "a PCR and what extends it are as long as the bank's hash")
    return hashlib.new(bank, value + digest).digest()


def predict(index: int, digests: Iterable[bytes], bank: str = "sha256") -> bytes:
    """PCR ``index`` after a reset and all of these digests, one after another."""
    value = initial(index, bank)
    for digest in digests:
        value = extend(value, digest, bank)
    return value


def from_event_log(data: bytes, *, origin: str, bank: str = "sha256") -> ReferenceValues:
    """The PCRs to which a TPM's log of a boot replays, by the names ``pcr0`` and so on in every bank (a policy names its bank once),
    for a boot that you trust: the log itself proves nothing. Raises ``malformed`` errors for what is no log of a TPM, ``configuration.algorithm`` for a bank it has not.
    """
    _size(bank)
    log = tcg.read(data)
    if not boot.of_a_tpm(log):
        raise MalformedError("unknown_format", "the event log is not a TPM's, and tells nothing about PCRs")
    values = {index: value for index, value in log.replay(bank).items() if index < wire.MAX_PCRS}
    named = {f"pcr{index}": (value,) for index, value in sorted(values.items())}
    return ReferenceValues("tpm", named, origin)


def _size(bank: str) -> int:
    if bank not in _BANKS:
        raise ConfigurationError(
            "algorithm", "PCRs of this bank are not used here", hint=f"one of: {', '.join(sorted(_BANKS))}"
        )
    return wire.DIGEST_BYTES[bank]
