# SPDX-License-Identifier: Apache-2.0
"""The roots that confide ships are Google's, byte for byte, and what its certificates say is read strictly."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from confide.crypto import x509
from confide.crypto.x509 import Extension
from confide.tees.tpm import endorse
from support import tpm

if TYPE_CHECKING:
    from pathlib import Path

PINS = {
    "gcp": (
        "594759594b9b61524f6c8ef668f7177f7b9066bc0674f2f49fe9e052be78beb2",
        "c84de8116dfaf5a908f21e810487791f5437e206d00ad8025050cca6bd2ff627",
    ),
    "gcp_2018": (
        "9bd5285f8fb18502a7947e621ffd470266f49fcd3b73e19a190f690ad32a7caf",
        "5d8dbcf8c8053dd8ffad711b6219355032b7122c34cac0f90ccb49def69ec504",
    ),
}
FILES = {
    "gcp": ("gcp_ek_ak_ca_root.crt", "gcp_ek_ak_ca_intermediate_v3.crt"),
    "gcp_2018": ("tpm_ek_root_1.cer", "tpm_ek_intermediate_2.crt"),
}


def test_ev_17_the_pinned_roots_are_googles(shared: Path) -> None:
    shipped = {anchor.name: anchor.certificates for anchor in endorse.anchors()}
    assert {
        name: tuple(hashlib.sha256(der).hexdigest() for der in found) for name, found in shipped.items()
    } == PINS
    for name, files in FILES.items():
        folder = shared / "evidence" / "roots"
        assert shipped[name] == tuple(
            one.der for file in files for one in x509.parse_certificates((folder / file).read_bytes())
        )


def test_the_pinned_intermediates_lead_to_the_pinned_roots() -> None:
    for anchor in endorse.anchors():
        root, intermediate = (x509.Certificate.from_der(der) for der in anchor.certificates)
        assert root.subject_der == root.issuer_der
        root.signed.verify(root.public_key_der)
        intermediate.signed.verify(root.public_key_der)
        at = datetime(2026, 6, 1, tzinfo=UTC)
        assert root.not_before <= at <= intermediate.not_after
        assert not anchor.simulated


def _der(tag: int, content: bytes) -> bytes:
    assert len(content) < 128
    return bytes((tag, len(content))) + content


def instance(*, production: bool | None = True, zone: bytes = b"us-central1-a", project: int = 7) -> bytes:
    """Google's extension, in the form that its certificates of 2022 have."""
    flags = _der(0xA0, _der(2, b"\x00"))
    if production is not None:
        flags += _der(0xA1, _der(1, b"\xff" if production else b"\x00"))
    parts = (
        _der(0x0C, zone),
        _der(2, project.to_bytes(1, "big", signed=True)),
        _der(0x0C, b"my-project"),
        _der(2, b"\x01\x02"),
        _der(0x0C, b"instance-1"),
        _der(0xA0, _der(0x30, flags)),
    )
    return _der(0x30, b"".join(parts))


def test_the_machine_that_a_certificate_names_becomes_a_claim_that_policies_can_pin() -> None:
    change = {"extensions": {endorse.OID_GCE_INSTANCE: Extension(critical=False, value=instance())}}
    part, endorsements = tpm.platform().evidence(tpm.REPORT_DATA, certificate=change)
    found = tpm.verify(
        part,
        endorsements,
        reference={"projects": ["my-project"], "zones": ["us-central1-a"], "instance_ids": [258]},
    )
    assert found.claims.details.instance == endorse.GceInstance(  # type: ignore[attr-defined]
        "us-central1-a", 7, "my-project", 258, "instance-1"
    )
    for wrong in ({"projects": ["other"]}, {"zones": ["us-central1"]}, {"instance_ids": [1]}):
        assert tpm.codes(lambda ref=wrong: tpm.verify(part, endorsements, reference=ref)) == [  # type: ignore[misc]
            "not_acceptable.identity"
        ]


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (instance(production=False), "not_genuine.identity_mismatch"),
        (instance(production=None), "not_genuine.identity_mismatch"),
        (instance(zone=b"\x00"), "malformed.non_canonical"),
        (instance(zone=b"\xff"), "malformed.non_canonical"),
        (instance(project=-1), "malformed.limit_exceeded"),
        (b"\x30\x00", "malformed.non_canonical"),
        (instance()[:-1], "malformed.truncated"),
    ],
)
def test_an_instance_extension_of_another_form_is_refused(value: bytes, code: str) -> None:
    change = {"extensions": {endorse.OID_GCE_INSTANCE: Extension(critical=False, value=value)}}
    part, endorsements = tpm.platform().evidence(tpm.REPORT_DATA, certificate=change)
    assert tpm.refusal(part, endorsements) == [code]
