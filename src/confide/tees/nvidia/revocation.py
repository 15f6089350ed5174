# SPDX-License-Identifier: Apache-2.0
"""OCSP for NVIDIA's chains: which certificates were asked about, and what their issuers answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from confide.crypto.ocsp import Response
from confide.errors import EndorsementsMissing, MalformedError

if TYPE_CHECKING:
    from datetime import datetime

    from confide.attestation.evidence import Endorsements
    from confide.crypto import x509

__all__ = ["Revocation", "check_chain"]

FORMAT: Final = "ocsp"
MAX_RESPONSES: Final = 64


@dataclass(frozen=True, slots=True)
class Revocation:
    """The outcome for one chain: whether every certificate that a responder can know was good, a sentence, and until when."""

    checked: bool
    detail: str
    until: datetime | None = None


def check_chain(
    chain: tuple[x509.Certificate, ...],
    endorsements: Endorsements,
    at: datetime,
    *,
    required: bool,
    whose: str,
    skip: int = 0,
) -> Revocation:
    """Ask the responses given about every certificate of a verified chain but its root and its first ``skip`` ones.

    A response that says ``revoked`` counts however old it is. Raises ``not_genuine.revoked``, ``revocation_unknown`` and what an
    ill-signed response raises; ``endorsements_missing.ocsp`` or ``ocsp_expired`` if ``required`` and not all are covered.
    """
    given = [part.data for part in endorsements.documents if part.format == FORMAT]
    if len(given) > MAX_RESPONSES:
        raise MalformedError("limit_exceeded", f"more than {MAX_RESPONSES} OCSP responses were given")
    responses = [Response.from_der(data) for data in given]
    until: list[datetime] = []
    outdated = False
    asked = len(chain) - 1 - skip
    for certificate, issuer in zip(chain[skip:-1], chain[skip + 1 :], strict=True):
        good: list[datetime] = []
        for response in responses:
            if response.about(certificate, issuer) is None:
                continue
            try:
                good.append(response.check(certificate, issuer=issuer, at=at))
            except EndorsementsMissing:
                outdated = True
        if good:
            until.append(max(good))
    if len(until) == asked:
        return Revocation(True, f"OCSP: {asked} certificates of {whose} are good", min(until))  # noqa: FBT003
    detail = f"OCSP: {len(until)} of {asked} certificates of {whose} answered for"
    if outdated:
        detail += ", and a response is out of date"
    if required:
        raise EndorsementsMissing(
            "ocsp_expired" if outdated else "ocsp",
            f"the policy asks for revocation to be checked, and OCSP responses for {whose} are missing or out of date",
            hint="run `confide endorse EVIDENCE`, and give its output with --endorsements",
            stage="revocation",
        )
    return Revocation(False, detail)  # noqa: FBT003
