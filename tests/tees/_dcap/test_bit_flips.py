# SPDX-License-Identifier: Apache-2.0
"""Every single bit of a real quote counts: flipped, the quote is refused.

There is no list of bits that may change: all of header and body is signed, all of the quoting enclave's report and its
authentication data is signed or digested, all certificates are on the chain or signed by the root, and what is left are
lengths, types and one NUL. (The other encoding of an ECDSA signature, n - s, is far more than one bit away.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from confide.errors import ConfideError
from support import dcap

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

REAL = ("v3-config-and-hardening", "v4-debug-td", "v5-uptodate")


def survivors(run: dcap.Run, bits: Iterable[int]) -> list[int]:
    """The bits that may be flipped without anybody noticing."""
    found = []
    for bit in bits:
        forged = bytearray(run.data)
        forged[bit // 8] ^= 1 << bit % 8
        try:
            run.claims(bytes(forged))
        except ConfideError:
            continue
        found.append(bit)
    return found


@pytest.mark.parametrize("name", REAL)
def test_ev_03_one_flipped_bit_in_seventeen_is_refused(shared: Path, name: str) -> None:
    run = dcap.run(shared, name)
    run.claims()

    assert survivors(run, range(0, 8 * len(run.data), 17)) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_ev_03_every_flipped_bit_is_refused(shared: Path, name: str) -> None:
    run = dcap.run(shared, name)
    run.claims()

    assert survivors(run, range(8 * len(run.data))) == []


def test_ev_03_every_flipped_bit_of_the_padding_is_refused(shared: Path) -> None:
    run = dcap.run(shared, "v4-uptodate")
    padding = next(check for check in run.claims().checks if check.name == "padding")
    assert padding.detail.startswith("70 ")

    assert survivors(run, range(8 * (len(run.data) - 70), 8 * len(run.data))) == []
