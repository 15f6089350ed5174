# SPDX-License-Identifier: Apache-2.0
"""Keys and data that a TPM gives back only while its PCRs are what they were: TPM2_PolicyPCR, and no password beside it.

What is bound to the boot that made it is lost with the next update of what boots; keep a copy with a key broker. Source: "Trusted
Platform Module Library", Part 1, 19.7 (policies), 27 (hierarchies); Part 3, 23.7 (TPM2_PolicyPCR).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from confide.crypto import kdf
from confide.crypto.secret import Secret
from confide.errors import ConfigurationError, EnclaveError, MalformedError
from confide.tees.tpm import client, public, wire
from confide.wire import cbor
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from confide.tees.tpm.client import Tpm

__all__ = ["MAX_SEALED", "derive_key", "seal", "storage_root", "unseal"]

MAX_SEALED: Final = 128
_MAX_BLOB: Final = 4096
_VERSION: Final = 1
_KEYED_HASH: Final = 0x0008
_ALG_HMAC: Final = 0x0005
_ALG_SHA256: Final = 0x000B
_ALG_NULL: Final = 0x0010
_INFO: Final = b"confide/tpm/derived-key/1\x00"


def storage_root() -> bytes:
    """The template of the parent: a storage key on P-256 that follows from the owner's seed, and from nothing else."""
    return public.encode_public(
        attributes=public.attributes(
            "fixedTPM", "fixedParent", "sensitiveDataOrigin", "userWithAuth", "noDA", "restricted", "decrypt"
        ),
        scheme=None,
        curve="p256",
        storage=True,
    )


def derive_key(tpm: Tpm, label: bytes, selections: tuple[wire.Selection, ...]) -> bytes:
    """32 bytes for ``label`` that only this TPM gives, and only while the selected PCRs have the values of now.

    The key is an HMAC under a primary object whose template holds the policy: other PCRs are another policy, thus another object,
    and the object of these PCRs does nothing under others. It follows from the owner's seed: TPM2_Clear ends it.
    """
    policy = _policy(tpm, selections)
    template = _keyed_hash(
        policy,
        public.attributes("fixedTPM", "fixedParent", "sensitiveDataOrigin", "noDA", "sign"),
        _ALG_HMAC.to_bytes(2, "big") + _ALG_SHA256.to_bytes(2, "big"),
    )
    with tpm.primary(client.OWNER, template) as (key, _), tpm.policy_session() as session:
        tpm.policy_pcr(session, selections)
        root = Secret(tpm.hmac(key, hashlib.sha256(_INFO + label).digest(), session))
    try:
        return kdf.hkdf(root, salt=policy, info=_INFO + label, length=32)
    finally:
        root.erase()


def seal(tpm: Tpm, data: bytes, selections: tuple[wire.Selection, ...]) -> bytes:
    """``data`` (1 to 128 bytes) as a blob that ``unseal`` opens on this TPM while the selected PCRs have the values of now."""
    if not 1 <= len(data) <= MAX_SEALED:
        raise ConfigurationError("invalid", f"a TPM seals 1 to {MAX_SEALED} bytes")
    template = _keyed_hash(
        _policy(tpm, selections),
        public.attributes("fixedTPM", "fixedParent", "noDA"),
        _ALG_NULL.to_bytes(2, "big"),
    )
    with tpm.primary(client.OWNER, storage_root()) as (parent, _):
        private, area = tpm.create(parent, template, data=data)
    chosen = {one.bank: list(one.pcrs) for one in selections}
    return cbor.encode({"version": _VERSION, "private": private, "public": area, "pcrs": chosen})


def unseal(tpm: Tpm, blob: bytes) -> bytes:
    """The data in a blob of ``seal``. Raises MalformedError, or TpmRefused where the PCRs are others or the TPM is another one."""
    fields = Fields(cbor.decode(blob, what="sealed blob", max_size=_MAX_BLOB, max_depth=4), "sealed blob")
    if fields.integer("version", 0, 255) != _VERSION:
        raise MalformedError("unsupported_version", "the sealed blob is of an unknown version")
    private, area = fields.bytes_("private", max_length=1024), fields.bytes_("public", max_length=1024)
    selections = _read_selections(fields)
    fields.end()
    with tpm.primary(client.OWNER, storage_root()) as (parent, _):
        item = tpm.load(parent, private, area)
    try:
        with tpm.policy_session() as session:
            tpm.policy_pcr(session, selections)
            return tpm.unseal(item, session)
    finally:
        tpm.flush(item)


def _read_selections(fields: Fields) -> tuple[wire.Selection, ...]:
    found = []
    for bank, pcrs in fields.mapping("pcrs").items():
        if bank not in wire.DIGEST_BYTES or not isinstance(pcrs, list):
            raise MalformedError("non_canonical", "the sealed blob names PCRs of no bank")
        if any(type(one) is not int or not 0 <= one < wire.MAX_PCRS for one in pcrs):
            raise MalformedError("limit_exceeded", "the sealed blob names PCRs that there are not")
        found.append(wire.Selection(bank, tuple(pcrs)))
    return tuple(found)


def _policy(tpm: Tpm, selections: tuple[wire.Selection, ...]) -> bytes:
    chosen = [index for one in selections for index in one.pcrs]
    if (
        not chosen
        or any(one.bank == "sha1" for one in selections)
        or not set(chosen) <= set(range(wire.MAX_PCRS))
    ):
        raise ConfigurationError(
            "invalid",
            f"a key is bound to at least one PCR from 0 to {wire.MAX_PCRS - 1}, of a bank other than SHA-1's",
        )
    with tpm.policy_session(trial=True) as session:
        tpm.policy_pcr(session, selections)
        digest = tpm.policy_digest(session)
    if len(digest) != 32:
        raise EnclaveError("bad_state", "the TPM's policy is not a SHA-256 digest", stage="attest")
    return digest


def _keyed_hash(policy: bytes, attributes: int, scheme: bytes) -> bytes:
    """TPMT_PUBLIC of a keyed-hash object that is used through its policy alone."""
    return b"".join(
        (
            _KEYED_HASH.to_bytes(2, "big"),
            _ALG_SHA256.to_bytes(2, "big"),
            attributes.to_bytes(4, "big"),
            wire.sized(policy),
            scheme,
            wire.sized(b""),
        )
    )
