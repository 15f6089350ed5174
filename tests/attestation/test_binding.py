# SPDX-License-Identifier: Apache-2.0
"""Report data: known values, and no two different inputs with one output."""

from __future__ import annotations

import hashlib
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from confide.attestation import binding
from confide.errors import MalformedError
from confide.ledger import merkle

KEY_MATERIAL = b"\xa0"
CACHED = (
    "a3751fb6269af7411b276a5905c786537c8b9e8fb7289deb02862a7e43704eb0"
    "72cf04fbc7dbe4fa8a60282ae710545d703f7be9f2fc35ecf2016a29b0201e5e"
)
BATCH = (
    "bedbcacfa3b310e3f5f91a984f0c57c59974c10ef239445d691ccb4d930142ef"
    "0a1e03b607589d8d3183129b8f2a438d57831d5e17b68fc1b92afb8327675c6f"
)


def test_the_report_data_of_a_cached_key_is_the_known_one() -> None:
    assert binding.report_data(binding.leaf(b"", KEY_MATERIAL)).hex() == CACHED


def test_the_report_data_of_a_batch_of_two_is_the_known_one() -> None:
    leaves = [binding.leaf(bytes(32), KEY_MATERIAL), binding.leaf(b"\x01" * 32, KEY_MATERIAL)]

    assert binding.report_data(binding.batch_root(leaves)).hex() == BATCH


def test_the_formula_is_that_of_the_specification() -> None:
    """Written out once more, by hand, from docs/spec/evidence.md."""
    nonce = b"\x42" * 32
    leaf = hashlib.sha512(b"\x00\x00\x00\x00\x20" + nonce + hashlib.sha512(KEY_MATERIAL).digest()).digest()
    devices = hashlib.sha512(b"\x82\x41a\x42bc").digest()

    assert binding.leaf(nonce, KEY_MATERIAL) == leaf
    expected = hashlib.sha512(b"confide/report-data/1" + leaf + devices).digest()
    assert binding.report_data(leaf, [b"a", b"bc"]) == expected
    assert binding.tpm_qualifying_data(expected) == hashlib.sha256(b"confide/tpm/1" + expected).digest()
    assert binding.gpu_nonce(leaf) == hashlib.sha256(b"confide/gpu/1" + leaf).digest()


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64, 65])
def test_every_proof_of_a_batch_leads_to_its_root(size: int) -> None:
    leaves = [binding.leaf(index.to_bytes(32, "big"), KEY_MATERIAL) for index in range(size)]
    root = binding.batch_root(leaves)

    for leaf, proof in zip(leaves, binding.batch_proofs(leaves), strict=True):
        assert binding.NonceProof.decode(proof.encode()) == proof
        assert proof.root(leaf) == root


@pytest.mark.slow
def test_every_proof_of_the_largest_batches_leads_to_its_root() -> None:
    for size in (4095, 4096):
        leaves = [binding.leaf(index.to_bytes(32, "big"), KEY_MATERIAL) for index in range(size)]
        root = binding.batch_root(leaves)
        for index in (0, 1, size // 2, size - 2, size - 1):
            proof = binding.NonceProof(size, index, tuple(merkle.path(leaves, index)))
            assert proof.root(leaves[index]) == root


def test_a_batch_has_at_least_one_nonce_and_at_most_4096() -> None:
    leaf = binding.leaf(b"", KEY_MATERIAL)

    for leaves in ([], [leaf] * 4097):
        with pytest.raises(MalformedError) as caught:
            binding.batch_root(leaves)
        assert caught.value.code == "malformed.limit_exceeded"


@settings(max_examples=200, deadline=None)
@given(
    st.tuples(st.sampled_from([b"", bytes(32), b"\x01" * 32]), st.binary(max_size=80)),
    st.tuples(st.sampled_from([b"", bytes(32), b"\x01" * 32]), st.binary(max_size=80)),
)
def test_bnd_07_two_different_pairs_of_nonce_and_key_have_two_leaves(
    one: tuple[bytes, bytes], other: tuple[bytes, bytes]
) -> None:
    assert (binding.leaf(*one) == binding.leaf(*other)) == (one == other)


def test_bnd_07_shifting_the_boundary_between_nonce_and_key_changes_the_leaf() -> None:
    nonce, rest = b"\x07" * 32, b"key material"

    assert binding.leaf(nonce, rest) != binding.leaf(b"", nonce + rest)
    for length in (1, 31, 33):
        with pytest.raises(MalformedError):
            binding.leaf(bytes(length), rest)


def test_bnd_07_device_evidence_is_delimited_and_ordered() -> None:
    root = binding.leaf(b"", KEY_MATERIAL)
    lists = [[], [b""], [b"", b""], [b"ab"], [b"a", b"b"], [b"b", b"a"], [b"", b"ab"], [b"ab", b""]]

    values = [binding.report_data(root, devices) for devices in lists]

    assert len(set(values)) == len(lists)


def test_a_leaf_an_inner_node_and_a_root_are_never_the_same() -> None:
    leaves = [binding.leaf(index.to_bytes(32, "big"), KEY_MATERIAL) for index in range(4)]
    nodes = {binding.batch_root(leaves[:size]) for size in range(2, 5)}

    assert nodes.isdisjoint(leaves)
    assert len(nodes) == 3


@pytest.mark.parametrize(
    ("proof", "code"),
    [
        (binding.NonceProof(0, 0, ()), "malformed.limit_exceeded"),
        (binding.NonceProof(4097, 0, ()), "malformed.limit_exceeded"),
        (binding.NonceProof(2, 2, ()), "malformed.limit_exceeded"),
        (binding.NonceProof(2, -1, ()), "malformed.limit_exceeded"),
        (binding.NonceProof(4096, 0, (bytes(64),) * 13), "malformed.limit_exceeded"),
        (binding.NonceProof(2, 0, (bytes(63),)), "malformed.length_mismatch"),
    ],
)
def test_a_proof_beyond_the_limits_is_neither_written_nor_read(proof: binding.NonceProof, code: str) -> None:
    with pytest.raises(MalformedError) as caught:
        proof.encode()

    assert caught.value.code == code


@pytest.mark.parametrize(("size", "index", "length"), [(1, 0, 1), (2, 0, 0), (2, 0, 2), (5, 4, 3), (5, 0, 2)])
def test_a_path_of_another_length_than_the_tree_gives_is_refused(size: int, index: int, length: int) -> None:
    with pytest.raises(MalformedError) as caught:
        binding.NonceProof(size, index, (bytes(64),) * length).root(bytes(64))

    assert caught.value.code == "malformed.length_mismatch"


def test_equality_is_over_all_bytes() -> None:
    for one, other in itertools.product([b"", b"a", b"ab", bytes(64), bytes(65)], repeat=2):
        assert binding.equal(one, other) == (one == other)
