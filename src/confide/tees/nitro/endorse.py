# SPDX-License-Identifier: Apache-2.0
"""What AWS says about its hypervisors: the pinned root, and where its CAs publish what they have revoked.

Source: "AWS Nitro Enclaves User Guide", "Verifying the root of trust". A document brings its whole chain along, so that
the only thing to ask for are CRLs. AWS's guide says to validate without them; its CA certificates name them all the same.
"""

from __future__ import annotations

import functools
import re
from importlib import resources
from typing import TYPE_CHECKING, Final

from confide.attestation.anchors import TrustAnchor
from confide.crypto import x509
from confide.errors import MalformedError
from confide.tees.nitro import wire
from confide.wire import der

if TYPE_CHECKING:
    from confide.crypto.x509 import Certificate

__all__ = ["ARCHIVE", "anchors", "archive_anchors", "crl_url", "is_crl_host", "urls"]

PARTITIONS: Final = ("aws",)
ARCHIVE: Final = " (archive)"
OID_CRL_DISTRIBUTION_POINTS: Final = "2.5.29.31"
# The root's list lies in a bucket of its own, those of the regional CAs in one bucket for each region.
_ROOT_HOST: Final = "aws-nitro-enclaves-crl.s3.amazonaws.com"
_REGIONAL_HOST: Final = re.compile(
    r"crl-(?P<region>[a-z]{2}(?:-[a-z]{1,16}){1,3}-[0-9]{1,2})-aws-nitro-enclaves\.s3\.(?P=region)\.amazonaws\.com",
    re.ASCII,
)
_PATH: Final = re.compile(r"/crl/[0-9a-f-]{36}\.crl", re.ASCII)
_URI: Final = 0x86


@functools.cache
def anchors() -> tuple[TrustAnchor, ...]:
    """AWS's root, one anchor for each partition, as shipped in ``roots/``; certificates are judged at the given time."""
    return tuple(TrustAnchor("nitro", name, (_root(name).der,)) for name in PARTITIONS)


@functools.cache
def archive_anchors() -> tuple[TrustAnchor, ...]:
    """The same roots for policies that say ``time = "document"``: certificates are judged at the document's own time."""
    return tuple(
        TrustAnchor("nitro", name + ARCHIVE, (_root(name).der,), archival=True) for name in PARTITIONS
    )


def _root(partition: str) -> Certificate:
    pem = resources.files("confide.tees.nitro").joinpath("roots", f"{partition}.pem").read_bytes()
    return x509.parse_pem(pem)[0]


def is_crl_host(host: str) -> bool:
    """Whether AWS publishes CRLs of Nitro Enclaves on a host."""
    return host == _ROOT_HOST or _REGIONAL_HOST.fullmatch(host) is not None


def names_crl(certificate: Certificate) -> bool:
    """Whether a certificate says that its issuer publishes CRLs at all."""
    return OID_CRL_DISTRIBUTION_POINTS in certificate.extensions


def crl_url(certificate: Certificate) -> str | None:
    """Where the CRL for a certificate is, if the certificate names one place of AWS's, or None.

    Certificates say http; the same file is there over https, which is what comes out.
    """
    extension = certificate.extensions.get(OID_CRL_DISTRIBUTION_POINTS)
    if extension is None:
        return None
    try:
        uri = _only_uri(extension.value)
    except MalformedError:
        return None
    scheme, separator, rest = uri.partition("://")
    host, slash, path = rest.partition("/")
    if scheme not in {"http", "https"} or not separator:
        return None
    return f"https://{host}/{path}" if is_crl_host(host) and _PATH.fullmatch(slash + path) else None


def _only_uri(extension: bytes) -> str:
    """The URI of CRLDistributionPoints (RFC 5280, section 4.2.1.13) with one full name of one URI."""
    value = der.decode(extension, what="CRL distribution points", max_size=4096).expect(der.SEQUENCE)
    for tag in (der.SEQUENCE, 0xA0, 0xA0, _URI):
        children = value.children()
        if len(children) != 1:
            raise MalformedError("unknown_format", "CRL distribution points with more than one place")
        value = children[0].expect(tag)
    return value.content.decode("ascii", "replace")


def urls(data: bytes) -> tuple[str, ...]:
    """Where AWS publishes the CRLs for the chain of a document, each once, on AWS's own hosts only."""
    document = wire.decode_document(wire.unframe(data))
    certificates = [x509.Certificate.from_der(one) for one in (document.certificate, *document.cabundle)]
    found = [crl_url(certificate) for certificate in certificates]
    return tuple(dict.fromkeys(url for url in found if url is not None))
