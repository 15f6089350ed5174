# SPDX-License-Identifier: Apache-2.0
"""What a TPM signs, and the evidence part `tpm` that carries it. Reading decides nothing about trust.

Source: "Trusted Platform Module Library, Part 2: Structures" (TCG, family 2.0, revision 1.59): TPMS_ATTEST (10.12.12),
TPMS_QUOTE_INFO (10.12.4), TPMT_SIGNATURE (11.3.4), TPMT_PUBLIC (12.2.4), TPML_PCR_SELECTION (10.9.7). All of it is big-endian.

The part is deterministic CBOR of ours, version 1:

    { "version": 1, "attest": bytes, "signature": bytes, "pcrs": { bank: { index: bytes } },
      ? "ak": TPMT_PUBLIC, ? "parent": qualified name of the AK's parent, ? "spki": DER, ? "hcl": Azure's HCL report, whole }

`bank` is a TPM_ALG_ID. The AK's certificates are endorsements and travel there.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Self

from confide.errors import MalformedError, NotGenuine
from confide.tees.tpm import hcl as hcl_
from confide.tees.tpm import public as public_
from confide.wire import cbor
from confide.wire.cursor import Cursor
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ALGORITHMS",
    "BANKS",
    "DIGEST_BYTES",
    "Attest",
    "ClockInfo",
    "Selection",
    "Signature",
    "TpmEvidence",
    "decode_attest",
    "decode_signature",
    "explain",
    "pcr_digest",
    "recognises",
]

MAX_PART: Final = 64 * 1024
MAX_HCL: Final = 16 * 1024
MAX_ATTEST: Final = 2048
MAX_PCRS: Final = 24
VERSION: Final = 1

MAGIC: Final = 0xFF544347
TAG_QUOTE: Final = 0x8018

ALG_SHA1: Final = 0x0004
ALG_SHA256: Final = 0x000B
ALG_SHA384: Final = 0x000C
ALG_SHA512: Final = 0x000D
ALG_RSASSA: Final = 0x0014
ALG_RSAPSS: Final = 0x0016
ALG_ECDSA: Final = 0x0018

ALGORITHMS: Final = MappingProxyType({ALG_SHA256: "sha256", ALG_SHA384: "sha384", ALG_SHA512: "sha512"})
"""Hashes that are accepted in signatures and names."""

BANKS: Final = MappingProxyType({ALG_SHA1: "sha1", **ALGORITHMS})
"""Banks that a quote may cover; what SHA-1 says is decoded, since the digest covers it, and never relied on."""

DIGEST_BYTES: Final = MappingProxyType({"sha1": 20, "sha256": 32, "sha384": 48, "sha512": 64})


@dataclass(frozen=True, slots=True)
class ClockInfo:
    """TPMS_CLOCK_INFO (10.11.1): milliseconds powered on, resets, restarts, and whether the clock may have gone back."""

    clock: int
    reset_count: int
    restart_count: int
    safe: bool


@dataclass(frozen=True, slots=True)
class Selection:
    """TPMS_PCR_SELECTION (10.6.2): the PCRs of one bank, in rising order."""

    bank: str
    pcrs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Attest:
    """TPMS_ATTEST of a quote."""

    qualified_signer: bytes
    extra_data: bytes
    clock_info: ClockInfo
    firmware_version: int
    selections: tuple[Selection, ...]
    pcr_digest: bytes

    def encode(self, *, magic: int = MAGIC, tag: int = TAG_QUOTE) -> bytes:
        """The bytes that a TPM signs."""
        clock = self.clock_info
        return b"".join(
            (
                magic.to_bytes(4, "big"),
                tag.to_bytes(2, "big"),
                sized(self.qualified_signer),
                sized(self.extra_data),
                clock.clock.to_bytes(8, "big"),
                clock.reset_count.to_bytes(4, "big"),
                clock.restart_count.to_bytes(4, "big"),
                bytes((clock.safe,)),
                self.firmware_version.to_bytes(8, "big"),
                encode_selections(self.selections),
                sized(self.pcr_digest),
            )
        )


@dataclass(frozen=True, slots=True)
class Signature:
    """TPMT_SIGNATURE: ``scheme`` is "rsassa", "rsapss" or "ecdsa"; ``values`` the RSA signature, or r and s."""

    scheme: str
    hash_name: str
    values: tuple[bytes, ...]

    def encode(self) -> bytes:
        """The structure's bytes."""
        scheme = {name: number for number, name in _SCHEMES.items()}[self.scheme]
        chosen = {name: number for number, name in ALGORITHMS.items()}[self.hash_name]
        head = scheme.to_bytes(2, "big") + chosen.to_bytes(2, "big")
        return head + b"".join(sized(value) for value in self.values)


_SCHEMES: Final = {ALG_RSASSA: "rsassa", ALG_RSAPSS: "rsapss", ALG_ECDSA: "ecdsa"}


def sized(value: bytes) -> bytes:
    """A TPM2B: two bytes of length and the value."""
    return len(value).to_bytes(2, "big") + value


def take_sized(cursor: Cursor, most: int, what: str) -> bytes:
    """The value of a TPM2B of at most ``most`` bytes."""
    length = cursor.u16()
    if length > most:
        raise MalformedError("limit_exceeded", f"{what} is longer than {most} bytes")
    return cursor.take(length)


def encode_selections(selections: tuple[Selection, ...]) -> bytes:
    """TPML_PCR_SELECTION, three bytes of bitmap for each bank."""
    parts = [len(selections).to_bytes(4, "big")]
    numbers = {name: number for number, name in BANKS.items()}
    for selection in selections:
        bitmap = sum(1 << index for index in selection.pcrs)
        parts.append(numbers[selection.bank].to_bytes(2, "big") + b"\x03" + bitmap.to_bytes(3, "little"))
    return b"".join(parts)


def decode_selections(cursor: Cursor) -> tuple[Selection, ...]:
    """TPML_PCR_SELECTION. A PC Client TPM has 24 PCRs, so that the bitmap is three bytes and nothing else."""
    count = cursor.u32()
    if count > len(BANKS):
        raise MalformedError("limit_exceeded", f"the quote selects more than {len(BANKS)} banks of PCRs")
    found: list[Selection] = []
    for _ in range(count):
        bank = BANKS.get(cursor.u16())
        if bank is None:
            raise MalformedError("unknown_format", "the quote selects a bank of an unknown hash algorithm")
        if cursor.u8() != 3:
            raise MalformedError("limit_exceeded", f"the quote's selection is not one of {MAX_PCRS} PCRs")
        bitmap = int.from_bytes(cursor.take(3), "little")
        if any(selection.bank == bank for selection in found):
            raise MalformedError("non_canonical", "the quote selects the same bank twice")
        found.append(Selection(bank, tuple(index for index in range(MAX_PCRS) if bitmap >> index & 1)))
    return tuple(found)


def decode_attest(data: bytes) -> Attest:
    """TPMS_ATTEST in ``data``, of type quote and nothing else. Raises MalformedError."""
    if len(data) > MAX_ATTEST:
        raise MalformedError("limit_exceeded", f"TPMS_ATTEST is longer than {MAX_ATTEST} bytes")
    cursor = Cursor(data, "TPMS_ATTEST")
    if cursor.u32() != MAGIC:
        raise MalformedError("unknown_format", "TPMS_ATTEST does not begin with TPM_GENERATED_VALUE")
    if cursor.u16() != TAG_QUOTE:
        raise MalformedError("unknown_format", "TPMS_ATTEST is no quote, but attests something else")
    signer = take_sized(cursor, 66, "the name of the signer")
    extra = take_sized(cursor, 66, "extraData")
    clock, reset, restart, safe = cursor.u64(), cursor.u32(), cursor.u32(), cursor.u8()
    if safe > 1:
        raise MalformedError("non_canonical", "TPMS_ATTEST: a truth value other than 0 and 1")
    firmware = cursor.u64()
    selections = decode_selections(cursor)
    digest = take_sized(cursor, 64, "pcrDigest")
    cursor.expect_end()
    return Attest(signer, extra, ClockInfo(clock, reset, restart, bool(safe)), firmware, selections, digest)


def decode_signature(data: bytes) -> Signature:
    """TPMT_SIGNATURE in ``data``. Raises MalformedError; NotGenuine (``unsupported_algorithm``) for SHA-1 and other schemes."""
    cursor = Cursor(data, "TPMT_SIGNATURE")
    scheme, hash_name = _SCHEMES.get(cursor.u16()), ALGORITHMS.get(cursor.u16())
    if scheme is None or hash_name is None:
        raise NotGenuine(
            "unsupported_algorithm", "the quote is signed with an algorithm that is not accepted"
        )
    values: tuple[bytes, ...]
    if scheme == "ecdsa":
        values = (take_sized(cursor, 66, "r"), take_sized(cursor, 66, "s"))
    else:
        values = (take_sized(cursor, 1024, "the RSA signature"),)
    cursor.expect_end()
    return Signature(scheme, hash_name, values)


def pcr_digest(
    selections: tuple[Selection, ...], pcrs: Mapping[str, Mapping[int, bytes]], hash_name: str
) -> bytes:
    """The digest over the selected values, bank by bank in the selection's order, each bank's in rising order.

    Source: Part 3, 18.4 (TPM2_Quote); the hash is that of the signing scheme. KeyError if a value is missing.
    """
    digest = hashlib.new(hash_name)
    for selection in selections:
        for index in selection.pcrs:
            digest.update(pcrs[selection.bank][index])
    return digest.digest()


@dataclass(frozen=True, slots=True)
class TpmEvidence:
    """The evidence part `tpm`; see the module's description. ``pcrs`` maps a bank's name to values by index."""

    attest: bytes
    signature: bytes
    pcrs: Mapping[str, Mapping[int, bytes]]
    ak: bytes | None = None
    parent: bytes | None = None
    spki: bytes | None = None
    hcl: bytes | None = field(default=None, repr=False)

    def encode(self) -> bytes:
        """The part's bytes; ``malformed`` if ``decode`` would refuse them."""
        numbers = {name: number for number, name in BANKS.items()}
        content: dict[str, object] = {
            "version": VERSION,
            "attest": self.attest,
            "signature": self.signature,
            "pcrs": {numbers[bank]: dict(values) for bank, values in self.pcrs.items()},
        }
        for name in ("ak", "parent", "spki", "hcl"):
            value = getattr(self, name)
            if value is not None:
                content[name] = value
        data = cbor.encode(content)
        self.decode(data)
        return data

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read a part; ``malformed`` for anything but the one encoding of what is named here."""
        what = "TPM evidence"
        fields = Fields(cbor.decode(data, what=what, max_size=MAX_PART, max_depth=4), what)
        if fields.integer("version", 0, (1 << 64) - 1) != VERSION:
            raise MalformedError("unsupported_version", "this version of TPM evidence is not known")
        made = cls(
            attest=fields.bytes_("attest", max_length=MAX_ATTEST),
            signature=fields.bytes_("signature", max_length=2048),
            pcrs=_read_pcrs(fields.mapping("pcrs")),
            ak=fields.bytes_("ak", max_length=public_.MAX_PUBLIC, default=None),
            parent=fields.bytes_("parent", max_length=66, default=None),
            spki=fields.bytes_("spki", max_length=2048, default=None),
            hcl=fields.bytes_("hcl", max_length=MAX_HCL, default=None),
        )
        fields.end()
        if made.parent is not None and made.ak is None:
            raise MalformedError(
                "non_canonical", "TPM evidence names the parent of a key that it does not give"
            )
        if made.ak is not None and made.spki is not None:
            raise MalformedError("non_canonical", "TPM evidence gives the attestation key twice")
        return made


def _read_pcrs(banks: Mapping[object, object]) -> Mapping[str, Mapping[int, bytes]]:
    found: dict[str, Mapping[int, bytes]] = {}
    for number, values in banks.items():
        bank = BANKS.get(number) if isinstance(number, int) else None
        if bank is None or not isinstance(values, dict) or not values:
            raise MalformedError("non_canonical", "TPM evidence has a bank of PCRs that is unknown or empty")
        if len(values) > MAX_PCRS or any(type(i) is not int or not 0 <= i < MAX_PCRS for i in values):
            raise MalformedError("limit_exceeded", f"TPM evidence has PCRs other than 0 to {MAX_PCRS - 1}")
        if any(not isinstance(v, bytes) or len(v) != DIGEST_BYTES[bank] for v in values.values()):
            raise MalformedError("length_mismatch", "a PCR in TPM evidence is not as long as its bank's hash")
        found[bank] = MappingProxyType(dict(values))
    return MappingProxyType(found)


_MARK: Final = cbor.encode("attest")


def recognises(data: bytes) -> bool:
    """Whether bytes look like this evidence part: a small map of ours in which `attest` begins as a quote does."""
    at = data.find(_MARK, 0, 2 * MAX_HCL + MAX_PART)
    if at < 0 or not 0xA4 <= data[0] <= 0xA8:
        return False
    start = at + len(_MARK)
    return data[start : start + 1] in {b"\x58", b"\x59"} and b"\xff\x54\x43\x47" in data[start : start + 8]


def explain(data: bytes) -> dict[str, object]:
    """The part's fields for a person; nothing of it is checked."""
    evidence = TpmEvidence.decode(data)
    attest = decode_attest(evidence.attest)
    signature = decode_signature(evidence.signature)
    tree: dict[str, object] = {
        "TPMS_ATTEST": {
            "qualifiedSigner": attest.qualified_signer.hex(),
            "extraData": attest.extra_data.hex(),
            "clock": attest.clock_info.clock,
            "resetCount": attest.clock_info.reset_count,
            "restartCount": attest.clock_info.restart_count,
            "safe": attest.clock_info.safe,
            "firmwareVersion": f"{attest.firmware_version:#x}",
            "pcrSelect": {one.bank: list(one.pcrs) for one in attest.selections},
            "pcrDigest": attest.pcr_digest.hex(),
        },
        "signature": {"scheme": signature.scheme, "hash": signature.hash_name},
        "pcrs": {
            bank: {str(index): values[index].hex() for index in sorted(values)}
            for bank, values in evidence.pcrs.items()
        },
    }
    if evidence.ak is not None:
        key = public_.decode_public(evidence.ak)
        tree["ak"] = {
            "type": key.kind,
            "name": key.name.hex(),
            "attributes": [name for name in public_.ATTRIBUTES if key.has(name)],
        }
    if evidence.hcl is not None:
        tree["HCL report"] = hcl_.explain(evidence.hcl)
    if signature.scheme != "rsassa":
        tree["unproven on real bytes"] = (
            "quotes of this scheme have been seen from the software TPM swtpm only"
        )
    return tree
