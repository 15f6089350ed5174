# SPDX-License-Identifier: Apache-2.0
"""What is remembered of chains: an answer serves its own question alone, and strangers' certificates are not kept."""

from __future__ import annotations

import dataclasses
import tracemalloc
from datetime import timedelta

import pytest

from confide.crypto.x509 import Certificate
from confide.errors import NotGenuine
from confide.simulator import sgx
from confide.tees._dcap import chain
from support import dcap

ROUNDS = 64
BESIDE = 16
FAT = 16 * 1024


def parts(made: sgx.Platform) -> tuple[Certificate, Certificate, chain.Anchors]:
    """The PCK certificate, its CA, and the root as the only anchor."""
    leaf, authority = (Certificate.from_der(made.certificates[role]) for role in ("pck", "platform"))
    return leaf, authority, chain.sort_anchors((made.anchor,), "sgx")


def test_a_remembered_path_does_not_pass_for_one_of_another_length() -> None:
    leaf, authority, anchored = parts(sgx.Platform.create(seed=1))

    assert len(chain.verify(leaf, (authority,), anchored, at=dcap.AT, length=3).path) == 3
    with pytest.raises(NotGenuine) as caught:
        chain.verify(leaf, (authority,), anchored, at=dcap.AT, length=2)
    assert caught.value.code == "not_genuine.chain_invalid"


def test_a_remembered_path_is_judged_anew_for_each_time_and_each_root() -> None:
    made, other = sgx.Platform.create(seed=1), sgx.Platform.create(seed=2)
    leaf, authority, anchored = parts(made)

    chain.verify(leaf, (authority,), anchored, at=dcap.AT, length=3)
    with pytest.raises(NotGenuine) as caught:
        chain.verify(leaf, (authority,), anchored, at=dcap.AT + timedelta(days=9999), length=3)
    assert caught.value.code == "not_genuine.expired"
    with pytest.raises(NotGenuine) as caught:
        chain.verify(leaf, (authority,), parts(other)[2], at=dcap.AT, length=3)
    assert caught.value.code == "not_genuine.untrusted_root"


def test_certificates_that_strangers_put_beside_a_chain_are_not_kept_in_memory() -> None:
    leaf, authority, anchored = parts(sgx.Platform.create(seed=1))

    def ask(number: int) -> None:
        beside = tuple(
            dataclasses.replace(leaf, der=(number * BESIDE + index).to_bytes(4, "big") * (FAT // 4))
            for index in range(BESIDE)
        )
        chain.verify(leaf, (authority, *beside), anchored, at=dcap.AT, length=3)

    ask(ROUNDS)
    tracemalloc.start()
    try:
        for number in range(ROUNDS):
            ask(number)
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert kept < ROUNDS * BESIDE * FAT // 16


@pytest.mark.parametrize("order", [1, -1])
def test_sim_03_a_root_that_is_pinned_and_simulated_is_simulated(order: int) -> None:
    made = sgx.Platform.create(seed=1)
    both = (made.anchor, dataclasses.replace(made.anchor, simulated=False))[::order]

    assert dcap.accepted(made, anchors=both).simulated
