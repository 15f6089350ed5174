# SPDX-License-Identifier: Apache-2.0
"""Who vouches for a TPM's attestation key: Google's authorities, and what their certificates say.

Azure's keys are vouched for by the CPU (``hcl``) and keys of other TPMs are pinned in the policy, so that only Google's roots are
shipped. Source: TCG EK Credential Profile (extended key usages); go-tpm-tools for Google's extension 1.3.6.1.4.1.11129.2.1.21.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Final

from confide.attestation.anchors import TrustAnchor
from confide.crypto import x509
from confide.errors import MalformedError, NotGenuine
from confide.wire import der

if TYPE_CHECKING:
    from confide.wire.der import Element

__all__ = ["GceInstance", "anchors", "check_usage", "read_instance", "urls"]

OID_EXTENDED_KEY_USAGE: Final = "2.5.29.37"
OID_AK: Final = "2.23.133.8.3"
OID_EK: Final = "2.23.133.8.1"
OID_ANY_USAGE: Final = "2.5.29.37.0"
OID_SUBJECT_ALT_NAME: Final = "2.5.29.17"
OID_GCE_INSTANCE: Final = "1.3.6.1.4.1.11129.2.1.21"
_FILES: Final = ("gcp", "gcp_2018")
_MAX_EXTENSION: Final = 1024


@dataclass(frozen=True, slots=True)
class GceInstance:
    """The virtual machine that a key's certificate names, in Google's words."""

    zone: str
    project_number: int
    project_id: str
    instance_id: int
    instance_name: str


@functools.cache
def anchors() -> tuple[TrustAnchor, ...]:
    """Google's roots with their intermediate CAs, as shipped in ``roots/``: the one in use since 2022, and the older one."""
    found = []
    for name in _FILES:
        pem = resources.files("confide.tees.tpm").joinpath("roots", f"{name}.pem").read_bytes()
        found.append(TrustAnchor("tpm", name, tuple(one.der for one in x509.parse_pem(pem))))
    return tuple(found)


def check_usage(certificate: x509.Certificate) -> None:
    """``not_genuine.wrong_usage`` unless the certificate is one of a key that signs quotes.

    Google's certificates of AKs have the key usage digitalSignature and no extended one; those of 2018 have the EK's, and
    are told from certificates of EKs, which encrypt, by the key usage alone. TCG's own usage for AKs is accepted as well.
    """
    extension = certificate.extensions.get(OID_EXTENDED_KEY_USAGE)
    usages = (
        None
        if extension is None
        else {
            part.oid()
            for part in der.decode(extension.value, what="extended key usage", max_size=_MAX_EXTENSION)
            .expect(der.SEQUENCE)
            .children()
        }
    )
    signs = certificate.key_usage is not None and "digital_signature" in certificate.key_usage
    if certificate.is_ca or not signs or (usages is not None and not usages & {OID_AK, OID_EK}):
        raise NotGenuine(
            "wrong_usage", "the certificate is not one of a TPM's attestation key", stage="endorsement"
        )


def read_instance(certificate: x509.Certificate) -> GceInstance | None:
    """Google's extension about the virtual machine, None where there is none.

    Raises MalformedError for another structure; ``not_genuine.identity_mismatch`` where Google says that it is not of production.
    """
    extension = certificate.extensions.get(OID_GCE_INSTANCE)
    if extension is None:
        return None
    what = "Google's instance extension"
    parts = der.decode(extension.value, what=what, max_size=_MAX_EXTENSION).expect(der.SEQUENCE).children()
    if len(parts) not in {5, 6}:
        raise MalformedError("non_canonical", f"{what}: of other than five or six parts")
    instance = GceInstance(
        zone=_text(parts[0], what),
        project_number=_number(parts[1], what),
        project_id=_text(parts[2], what),
        instance_id=_number(parts[3], what),
        instance_name=_text(parts[4], what),
    )
    if len(parts) == 5 or not _is_production(parts[5], what):
        raise NotGenuine(
            "identity_mismatch",
            "Google's certificate is not one of its production machines",
            stage="identity",
        )
    return instance


def _is_production(element: Element, what: str) -> bool:
    """The security properties: [0] version, [1] whether of production, and others that say nothing about trust here."""
    inner = element.expect(0xA0).children()
    if len(inner) != 1:
        raise MalformedError("non_canonical", f"{what}: security properties that are not one sequence")
    flags = {part.tag: part.children() for part in inner[0].expect(der.SEQUENCE).children()}
    found = flags.get(0xA1, ())
    return len(found) == 1 and found[0].boolean()


def _text(element: Element, what: str) -> str:
    content = element.expect(0x0C).content
    if len(content) > 256:
        raise MalformedError("limit_exceeded", f"{what}: a text of more than 256 bytes")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = "\x00"  # Refused below without keeping the library's exception.
    if not text.isprintable():
        raise MalformedError("non_canonical", f"{what}: a text that does not print")
    return text


def _number(element: Element, what: str) -> int:
    value = element.expect(der.INTEGER).integer()
    if not 0 <= value < 1 << 64:
        raise MalformedError("limit_exceeded", f"{what}: a number that is negative or too large")
    return value


def urls(data: bytes) -> tuple[str, ...]:
    """Nothing is fetched for a TPM: Azure's key needs the CPU's endorsements only, and Google's certificates are read from the
    TPM's own memory by the attester.
    """
    del data
    return ()
