# SPDX-License-Identifier: Apache-2.0
"""Measurements of a report against the RIM documents that NVIDIA has signed for its driver and its VBIOS.

The comparison is part of authentication, since it judges signatures; what follows from it is the policy's to say
(``appraise``). Source: NVIDIA's attestation SDK, whose rules about indexes are kept: SPDM's index less one is the
document's, only active values count, one of several alternatives is enough, an index in both documents is a conflict, and
index 35 is left out where the report says that NVDEC0 is disabled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from confide.errors import EndorsementsMissing, MalformedError, NotGenuine, Reason
from confide.tees.nvidia import rim
from confide.tees.nvidia.revocation import check_chain

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from confide.attestation.evidence import Endorsements
    from confide.crypto import x509
    from confide.tees.nvidia import wire
    from confide.tees.nvidia.revocation import Revocation

__all__ = ["Document", "RimComparison", "compare"]

FORMAT: Final = "nvidia-rim"
MAX_DOCUMENTS: Final = 32
_NVDEC0: Final = 35


@dataclass(frozen=True, slots=True)
class Document:
    """A RIM document whose signature and chain have been verified, and until when that holds."""

    kind: str
    version: str
    product: str
    tag_id: str
    signer: str
    expires: datetime
    revocation: Revocation


@dataclass(frozen=True, slots=True)
class RimComparison:
    """What the documents say about the measurements, by the documents' indexes.

    ``documents`` are those that counted; ``findings`` say why one that was needed did not (missing, out of date, not NVIDIA's,
    revoked) and are empty where all counted. ``uncovered`` are indexes that no document has a value for, ``skipped`` those left
    out because the unit that they measure is disabled, ``conflicts`` those that both documents claim. ``idle`` are the kinds whose
    document has no value that counts, and so vouches for nothing.
    """

    documents: tuple[Document, ...]
    matched: tuple[int, ...]
    mismatched: tuple[int, ...]
    skipped: tuple[int, ...]
    uncovered: tuple[int, ...]
    conflicts: tuple[int, ...]
    findings: tuple[Reason, ...]
    idle: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every document was there and has values that count, and all of these are the report's."""
        return bool(self.matched) and not (self.findings or self.mismatched or self.conflicts or self.idle)


@dataclass(frozen=True, slots=True)
class _Verified:
    document: Document
    golden: Mapping[int, rim.Golden]

    def idle(self, skipped: set[int]) -> bool:
        """Whether no value of the document counts."""
        return self.golden.keys() <= skipped


def compare(
    report: wire.Report,
    *,
    product: str,
    names: Mapping[str, str],
    endorsements: Endorsements,
    roots: tuple[x509.Certificate, ...],
    at: datetime,
    require_revocation: bool,
) -> RimComparison:
    """Compare. ``product`` is the chip by its certificate, ``names`` what NVIDIA calls the documents that are needed, by kind.

    A document counts for its kind if its version is the report's to the letter and its product is the chip. Of several that
    count, one that matches is enough: NVIDIA signs a document again when its signer's certificate expires. One without a value
    that counts is taken only where there is no other, so that it hides no difference. Raises MalformedError for a document that is not in the form of one, whatever it may be about.
    """
    given = [part.data for part in endorsements.documents if part.format == FORMAT]
    if len(given) > MAX_DOCUMENTS:
        raise MalformedError("limit_exceeded", f"more than {MAX_DOCUMENTS} RIM documents were given")
    manifests = [rim.parse(data) for data in dict.fromkeys(given)]
    measured = {one.index - 1: one.value for one in report.measurements}
    versions = {"driver": report.text("driver_version"), "vbios": report.vbios_version}
    # Documents write LS10 where certificates write LS_10. Blackwell's firmware names the chip of its documents itself.
    products = {product.replace("_", ""), report.text("chip_info")}
    skipped = {_NVDEC0} if report.flag("nvdec0_status") is False else set()
    chosen: list[_Verified] = []
    findings: list[Reason] = []
    for kind, name in names.items():
        fitting = [
            one
            for one in manifests
            if (one.kind, one.version, one.edition) == (kind, versions[kind], report.kind.upper())
            and one.product in products
        ]
        verified, refused = _verify(kind, fitting, endorsements, roots, at, require_revocation)
        if verified:
            # The one with the fewest differences; the order in which they came does not matter.
            chosen.append(
                min(
                    verified,
                    key=lambda one: (
                        one.idle(skipped),
                        len(_differences(one, measured, skipped)),
                        one.document.tag_id,
                    ),
                )
            )
        else:
            findings += refused or [_missing(kind, name)]
    seen = [index for one in chosen for index in one.golden]
    mismatched = {index for one in chosen for index in _differences(one, measured, skipped)}
    return RimComparison(
        documents=tuple(one.document for one in chosen),
        matched=tuple(sorted(set(seen) - mismatched - skipped)),
        mismatched=tuple(sorted(mismatched)),
        skipped=tuple(sorted(skipped & set(seen))),
        uncovered=tuple(sorted(set(measured) - set(seen))),
        conflicts=tuple(sorted({index for index in seen if seen.count(index) > 1})),
        findings=tuple(findings),
        idle=tuple(one.document.kind for one in chosen if one.idle(skipped)),
    )


def _verify(
    kind: str,
    fitting: list[rim.Rim],
    endorsements: Endorsements,
    roots: tuple[x509.Certificate, ...],
    at: datetime,
    require_revocation: bool,  # noqa: FBT001 - passed through
) -> tuple[list[_Verified], list[Reason]]:
    """The documents that are NVIDIA's and in force, and what is wrong with the others."""
    found: list[_Verified] = []
    refused: list[Reason] = []
    for one in fitting:
        try:
            chain = _chain(one, roots, at, kind)
            revocation = check_chain(
                chain, endorsements, at, required=require_revocation, whose=f"the {kind} RIM"
            )
        except (NotGenuine, EndorsementsMissing) as error:
            refused += error.reasons
            continue
        expires = min(certificate.not_after for certificate in chain)
        document = Document(kind, one.version, one.product, one.tag_id, chain[0].subject, expires, revocation)
        found.append(_Verified(document, one.active))
    return found, refused


def _chain(
    one: rim.Rim, roots: tuple[x509.Certificate, ...], at: datetime, kind: str
) -> tuple[x509.Certificate, ...]:
    """The verified chain. That a signer's certificate is out of date says nothing against the measurements: NVIDIA signs
    its documents anew, and a current one is what is missing.
    """
    try:
        return one.verify(roots, at=at)
    except NotGenuine as error:
        if error.code in {"not_genuine.expired", "not_genuine.not_yet_valid"}:
            raise EndorsementsMissing(
                "rim_expired",
                f"the certificates of the {kind} RIM are not valid at the time of verification",
                hint="run `confide endorse EVIDENCE` for a document that is signed anew, and give it with --endorsements",
            ) from None
        raise


def _differences(one: _Verified, measured: Mapping[int, bytes], skipped: set[int]) -> list[int]:
    return [
        index
        for index, golden in one.golden.items()
        if index not in skipped and measured.get(index) not in golden.values
    ]


def _missing(kind: str, name: str) -> Reason:
    return EndorsementsMissing(
        "rim",
        f"the RIM document of the device's {kind} is missing: {name}",
        hint="run `confide endorse EVIDENCE`, and give its output with --endorsements; where NVIDIA's service has no such "
        "document, the firmware is unknown and cannot be judged",
    ).reason
