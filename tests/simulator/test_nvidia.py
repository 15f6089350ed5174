# SPDX-License-Identifier: Apache-2.0
"""The simulated GPU is a signer under its own root: same formats, and never taken for the vendor's."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
from lxml import etree

from confide.attestation.evidence import Evidence, EvidencePart
from confide.attestation.verifier import Verifier
from confide.crypto import x509
from confide.errors import NotAcceptable, NotGenuine
from confide.simulator.nvidia import Platform
from confide.tees.nvidia import endorse, wire
from support import nvidia

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("model", ["GH100", "GB100", "LS_10"])
def test_its_evidence_is_accepted_only_with_both_consents(model: str) -> None:
    device = nvidia.device(model)
    report, endorsements = device.evidence(nvidia.NONCE)
    evidence = Evidence(EvidencePart("nvidia", report), endorsements=endorsements)

    allowed = Verifier(nvidia.policy(), extra_anchors=(device.anchor,), allow_simulated=True)
    result = allowed.verify(evidence, at=nvidia.AT)
    assert (result.simulated, result.tier.name) == (True, "CONTRAINDICATED")
    with pytest.raises(NotAcceptable) as unasked:
        Verifier(nvidia.policy(), extra_anchors=(device.anchor,)).verify(evidence, at=nvidia.AT)
    assert unasked.value.code == "not_acceptable.simulated"
    with pytest.raises(NotGenuine) as unpinned:
        Verifier(nvidia.policy(), allow_simulated=True).verify(evidence, at=nvidia.AT)
    assert unpinned.value.code == "not_genuine.untrusted_root"


def test_two_devices_have_nothing_in_common_unless_it_is_given() -> None:
    first, second = Platform.create(), Platform.create()

    assert not set(first.certificates) & set(second.certificates)
    assert first.report(nvidia.NONCE) != second.report(nvidia.NONCE)


def test_no_name_in_its_certificates_is_the_vendor_s() -> None:
    device = nvidia.device()

    for der in (*device.certificates, *device.signer.chain):
        subject = x509.Certificate.from_der(der).subject
        assert "NVIDIA" not in subject
        assert "confide simulator" in subject


@pytest.mark.parametrize("name", ["hopper-580", "switch-ls10"])
def test_its_reports_have_the_shape_of_real_ones(shared: Path, name: str) -> None:
    real = wire.decode_report((nvidia.folder(shared) / f"{name}.report.bin").read_bytes())
    model = "LS_10" if "switch" in name else "GH100"
    minted = wire.decode_report(nvidia.device(model).report(nvidia.NONCE))

    assert minted.header == real.header
    assert dataclasses.replace(minted.request, nonce=real.request.nonce) == real.request
    fields = {one.number: len(one.data) for one in real.opaque}
    own = {one.number: len(one.data) for one in minted.opaque}
    assert set(own) <= set(fields)
    for number in ("nvdec0_status", "fwid", "board_id", "msrscnt", "feature_flag", "vbios_version"):
        at = next(key for key, word in wire.FIELDS.items() if word == number)
        assert own.get(at) == fields.get(at)


def test_its_certificates_have_the_extensions_of_real_ones(shared: Path) -> None:
    chain = x509.parse_pem((nvidia.folder(shared) / "hopper-580.chain.pem").read_bytes())
    real = endorse.read_device_certificate(chain[0])
    minted = endorse.read_device_certificate(x509.Certificate.from_der(nvidia.device().certificates[0]))

    assert len(chain) == len(nvidia.device().certificates)
    assert (minted.model, len(minted.fwid), len(minted.udi)) == (real.model, len(real.fwid), len(real.udi))
    assert real.device_key == chain[1].public_key_der
    assert minted.certificate.key_usage == real.certificate.key_usage
    sizes = {
        oid: len(real.certificate.extensions[oid].value)
        for oid in (endorse.OID_COMPOSITE_DEVICE_ID, endorse.OID_SUBJECT_ALT_NAME)
    }
    assert sizes == {oid: len(minted.certificate.extensions[oid].value) for oid in sizes}


def test_canonical_xml_written_by_hand_is_that_of_lxml() -> None:
    for manifest in nvidia.device().manifests().values():
        text = manifest._document()
        canonical = etree.tostring(etree.fromstring(text.encode()), method="c14n")
        assert canonical == text.encode()
