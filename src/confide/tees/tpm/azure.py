# SPDX-License-Identifier: Apache-2.0
"""Evidence of Azure's confidential VMs in the JSON that guests there send, as Evidence.

Three shapes have been seen, all of CoCo's attesters: the first ones write lists of byte values (SNP: `quote`, `report` and a
VCEK in PEM; TDX: `tpm_quote`, `hcl_report`, `td_quote`), versions 1 and 2 write a number of version, hexadecimal and URL-safe
base64, with or without padding. Reading decides nothing about trust.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, Protocol

from confide.attestation.evidence import Endorsements, Evidence, EvidencePart
from confide.crypto import x509
from confide.errors import MalformedError
from confide.tees.tpm import hcl, wire
from confide.wire import base64_text, hexadecimal, strict_json
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["read_azure", "recognises"]

MAX_JSON: Final = 256 * 1024
MAX_TD_QUOTE: Final = 32 * 1024
MAX_VCEK: Final = 16 * 1024
VERSIONS: Final = frozenset({1, 2})
_START = re.compile(rb"\s*\{\s*\"", re.ASCII)
_HEAD: Final = 256


def recognises(data: bytes) -> bool:
    """Whether bytes look like this JSON: an object with a quote of a TPM and an HCL report or its older name."""
    if not _START.match(data[:_HEAD]) or len(data) > MAX_JSON:
        return False
    newer = b'"tpm_quote"' in data and b'"hcl_report"' in data
    older = b'"quote"' in data and b'"report"' in data and b'"pcrs"' in data
    return newer or older


def read_azure(data: bytes) -> Evidence:
    """The platform's report as platform, the TPM's quote with the HCL report as device, the VCEK as endorsement.

    Raises MalformedError for anything but the shapes named above.
    """
    what = "Azure's evidence"
    document = strict_json.decode(data, what=what, max_size=MAX_JSON, max_depth=6)
    fields = Fields(document, what)
    if fields.has("version"):
        if fields.integer("version", 0, (1 << 64) - 1) not in VERSIONS:
            raise MalformedError("unsupported_version", f"{what} is of an unknown version")
        reader: _Reader = _Text()
    else:
        reader = _Lists()
    older = fields.has("quote")
    quote = fields.mapping("quote" if older else "tpm_quote")
    report = reader.blob(fields, "report" if older else "hcl_report", hcl.MAX_HCL)
    if hcl.decode_hcl(report).tee == "snp":
        hardware = report[hcl.Header.SIZE : hcl.Header.SIZE + hcl.HARDWARE_REPORT]
        platform = EvidencePart("snp", hardware)
        endorsements = Endorsements(reader.certificates(fields, "vcek"))
    else:
        platform = EvidencePart("tdx", reader.blob(fields, "td_quote", MAX_TD_QUOTE))
        endorsements = Endorsements()
    fields.end()
    part = EvidencePart("tpm", _tpm(quote, report, reader).encode())
    return Evidence(platform, devices=(part,), endorsements=endorsements)


def _tpm(quote: Mapping[str, Any], report: bytes, reader: _Reader) -> wire.TpmEvidence:
    fields = Fields(quote, "the TPM's quote")
    attest = reader.octets(fields, "message", wire.MAX_ATTEST)
    signature = reader.octets(fields, "signature", 1024)
    values = fields.list_("pcrs", wire.MAX_PCRS)
    fields.end()
    selections = wire.decode_attest(attest).selections
    if [one.bank for one in selections] != ["sha256"] or len(selections[0].pcrs) != len(values):
        raise MalformedError(
            "length_mismatch", "Azure's evidence has not one value of SHA-256 for each PCR that was quoted"
        )
    pcrs = {
        index: reader.octets(Fields({"pcr": value}, "the TPM's quote"), "pcr", wire.DIGEST_BYTES["sha256"])
        for index, value in zip(selections[0].pcrs, values, strict=True)
    }
    # Azure's AK signs with RSASSA and SHA-256, and its evidence has the bare signature.
    signed = wire.Signature("rsassa", "sha256", (signature,))
    return wire.TpmEvidence(attest, signed.encode(), {"sha256": pcrs}, hcl=report)


class _Reader(Protocol):
    """How one shape spells byte strings: short ones, long ones, and the chip's certificate."""

    def octets(self, fields: Fields, key: str, most: int) -> bytes: ...
    def blob(self, fields: Fields, key: str, most: int) -> bytes: ...
    def certificates(self, fields: Fields, key: str) -> tuple[bytes, ...]: ...


class _Text:
    """Versions 1 and 2: hexadecimal, URL-safe base64, DER in that."""

    def octets(self, fields: Fields, key: str, most: int) -> bytes:
        return hexadecimal.decode(fields.text(key, 2 * most), what=f"`{key}` in Azure's evidence")

    def blob(self, fields: Fields, key: str, most: int) -> bytes:
        text = fields.text(key, 2 * most)
        bare = text.rstrip("=")
        if len(text) != len(bare) and (len(text) % 4 or len(text) - len(bare) > 2):
            raise MalformedError("non_canonical", f"`{key}` in Azure's evidence is padded wrongly")
        return base64_text.decode(bare, what=f"`{key}` in Azure's evidence", max_length=most, url=True)

    def certificates(self, fields: Fields, key: str) -> tuple[bytes, ...]:
        return (x509.Certificate.from_der(self.blob(fields, key, MAX_VCEK)).der,)


class _Lists:
    """The first shape: lists of byte values, and PEM."""

    def octets(self, fields: Fields, key: str, most: int) -> bytes:
        values = fields.list_(key, most)
        if any(type(value) is not int or not 0 <= value < 256 for value in values):
            raise MalformedError("non_canonical", f"`{key}` in Azure's evidence is not a list of bytes")
        return bytes(values)

    def blob(self, fields: Fields, key: str, most: int) -> bytes:
        return self.octets(fields, key, most)

    def certificates(self, fields: Fields, key: str) -> tuple[bytes, ...]:
        text = fields.text(key, 2 * MAX_VCEK, multiline=True)
        return tuple(one.der for one in x509.parse_pem(text.encode("utf-8")))
