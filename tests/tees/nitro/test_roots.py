# SPDX-License-Identifier: Apache-2.0
"""The pinned root of AWS, byte for byte."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from confide.crypto import x509
from confide.tees.nitro import endorse

if TYPE_CHECKING:
    from pathlib import Path

ROOT = "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b"


def test_the_pinned_root_is_the_one_that_aws_publishes() -> None:
    (anchor,) = endorse.anchors()
    (der,) = anchor.certificates
    root = x509.Certificate.from_der(der)

    assert hashlib.sha256(der).hexdigest() == ROOT
    assert (anchor.tee, anchor.name, anchor.simulated, anchor.archival) == ("nitro", "aws", False, False)
    assert (root.subject_der == root.issuer_der, root.key_kind) == (True, "p384")


def test_the_archive_has_the_same_root_and_says_so() -> None:
    (current,), (archive,) = endorse.anchors(), endorse.archive_anchors()

    assert archive.certificates == current.certificates
    assert (archive.archival, archive.simulated) == (True, False)


def test_the_pinned_root_is_the_shared_one(shared: Path) -> None:
    (certificate,) = x509.parse_pem((shared / "evidence" / "roots" / "aws_nitro_root_g1.pem").read_bytes())

    assert endorse.anchors()[0].certificates == (certificate.der,)
