# SPDX-License-Identifier: Apache-2.0
"""How a nonce and key material become the 64 bytes of report data, and back.

    leaf = SHA-512(0x00 || u32 length of nonce || nonce || SHA-512(key material))
    root = Merkle root over the leaves of a batch (RFC 9162 shape, node = SHA-512(0x01 || left || right))
    D    = SHA-512("confide/report-data/1" || root || SHA-512(device evidence))

Device evidence is the CBOR array of the parts' bytes in bundle order, or the empty string where there is none. All 64
bytes of D are compared, in constant time. Source: ``docs/spec/evidence.md``, section 4.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from confide.errors import MalformedError
from confide.ledger import merkle
from confide.wire import cbor
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "MAX_BATCH",
    "NONCE_BYTES",
    "REPORT_DATA_BYTES",
    "NonceProof",
    "batch_proofs",
    "batch_root",
    "equal",
    "gpu_nonce",
    "leaf",
    "report_data",
    "tpm_qualifying_data",
]

NONCE_BYTES = 32
REPORT_DATA_BYTES = 64
HASH_BYTES = 64
MAX_BATCH = 4096
MAX_PATH = 12  # The depth of a tree of 4096 leaves.
MAX_PROOF_BYTES = 1024


@dataclass(frozen=True, slots=True)
class NonceProof:
    """Where in a batch of ``size`` leaves (1 to 4096) one nonce stands, and the hashes (64 bytes each, at most 12) that
    lead from its leaf to the root, the lowest first.
    """

    size: int
    index: int
    path: tuple[bytes, ...]

    def encode(self) -> bytes:
        """The proof as deterministic CBOR."""
        data = cbor.encode({"size": self.size, "index": self.index, "path": list(self.path)})
        self.decode(data)
        return data

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read a proof; ``malformed`` unless its size, index and path are within the limits."""
        what = "nonce proof"
        fields = Fields(cbor.decode(data, what=what, max_size=MAX_PROOF_BYTES, max_depth=3), what)
        size = fields.integer("size", 1, MAX_BATCH)
        index = fields.integer("index", 0, size - 1)
        path = fields.list_("path")
        fields.end()
        if len(path) > MAX_PATH:
            raise MalformedError("limit_exceeded", f"the nonce proof has more than {MAX_PATH} hashes")
        hashes = []
        for node in path:
            if not isinstance(node, bytes) or len(node) != HASH_BYTES:
                raise MalformedError("length_mismatch", "a hash in the nonce proof is not 64 bytes")
            hashes.append(node)
        return cls(size, index, tuple(hashes))

    def root(self, leaf_hash: bytes) -> bytes:
        """The root that this proof leads to from ``leaf_hash`` (64 bytes each)."""
        return merkle.root_from_path(leaf_hash, self.index, self.size, self.path)


def leaf(nonce: bytes, key_material: bytes) -> bytes:
    """The leaf for one nonce: 32 bytes in the fresh mode, empty in the cached mode; 64 bytes result."""
    if len(nonce) not in {0, NONCE_BYTES}:
        raise MalformedError("length_mismatch", "a nonce has 32 bytes, or none in the cached mode")
    inner = hashlib.sha512(key_material).digest()
    return hashlib.sha512(b"\x00" + len(nonce).to_bytes(4, "big") + nonce + inner).digest()


def batch_root(leaves: Sequence[bytes]) -> bytes:
    """The Merkle root (64 bytes) over 1 to 4096 leaves; the root of one leaf is the leaf."""
    if not 1 <= len(leaves) <= MAX_BATCH:
        raise MalformedError("limit_exceeded", f"a batch has 1 to {MAX_BATCH} nonces")
    return merkle.root(leaves)


def batch_proofs(leaves: Sequence[bytes]) -> tuple[NonceProof, ...]:
    """One proof for each leaf of the batch, in order."""
    paths = merkle.paths(leaves)
    return tuple(NonceProof(len(paths), index, path) for index, path in enumerate(paths))


def report_data(root: bytes, device_evidence: Sequence[bytes] = ()) -> bytes:
    """D: the 64 bytes that the platform's report carries for ``root`` (64 bytes) and the devices' evidence, in order."""
    if len(root) != HASH_BYTES:
        raise MalformedError("length_mismatch", "the root of a batch has 64 bytes")
    devices = cbor.encode([bytes(part) for part in device_evidence]) if device_evidence else b""
    return hashlib.sha512(b"confide/report-data/1" + root + hashlib.sha512(devices).digest()).digest()


def tpm_qualifying_data(data: bytes) -> bytes:
    """What a TPM quote carries instead of D, since 64 bytes do not fit every TPM: 32 bytes."""
    return hashlib.sha256(b"confide/tpm/1" + data).digest()


def gpu_nonce(root: bytes) -> bytes:
    """The 32-byte SPDM nonce that ties a GPU's evidence to the keys under ``root``; D covers that evidence in turn."""
    return hashlib.sha256(b"confide/gpu/1" + root).digest()


def equal(expected: bytes, actual: bytes) -> bool:
    """Constant-time equality over the whole of both, never over a prefix."""
    return hmac.compare_digest(expected, actual)
