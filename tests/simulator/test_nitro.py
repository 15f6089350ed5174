# SPDX-License-Identifier: Apache-2.0
"""The simulated Nitro hypervisor: same bytes as AWS's, another root, two consents."""

from __future__ import annotations

from datetime import timedelta

import pytest

from confide.attestation.evidence import Evidence, EvidencePart
from confide.attestation.verifier import Verifier
from confide.errors import NotAcceptable, NotGenuine
from confide.simulator.nitro import AT, Platform
from confide.tees.nitro import endorse, wire
from support import nitro


def verify(*, anchors: bool, consent: bool) -> None:
    data, endorsements = nitro.platform().evidence(nitro.REPORT_DATA)
    Verifier(
        nitro.policy(),
        extra_anchors=(nitro.platform().anchor,) if anchors else (),
        allow_simulated=consent,
    ).verify(Evidence(EvidencePart("nitro", data), endorsements=endorsements), at=AT)


def test_sim_01_simulated_evidence_needs_its_root_and_a_consent() -> None:
    verify(anchors=True, consent=True)
    with pytest.raises(NotGenuine) as unknown:
        verify(anchors=False, consent=True)
    with pytest.raises(NotAcceptable) as unwanted:
        verify(anchors=True, consent=False)

    assert unknown.value.code == "not_genuine.untrusted_root"
    assert unwanted.value.code == "not_acceptable.simulated"


def test_simulated_evidence_is_never_affirming() -> None:
    assert nitro.verify(nitro.document()).tier.name == "CONTRAINDICATED"


def test_the_simulated_root_is_nobody_elses() -> None:
    first, second = Platform.create(), Platform.create()

    assert first.anchor.simulated
    assert first.anchor.certificates != second.anchor.certificates
    assert first.anchor.certificates[0] not in endorse.anchors()[0].certificates


def test_a_seed_reproduces_keys_and_names_but_no_signature_is_needed_to_be_equal() -> None:
    one, other = Platform.create(seed=5), Platform.create(seed=5)

    assert [link.key.public_key_der for link in one.chain] == [
        link.key.public_key_der for link in other.chain
    ]


def test_a_document_has_the_shape_of_a_real_one() -> None:
    document = wire.decode_document(nitro.document())

    assert (len(document.cabundle), sorted(document.pcrs)) == (4, list(range(16)))
    assert (document.tagged, document.indefinite) == (False, False)
    assert wire.recognises(nitro.document())


def test_another_image_has_other_registers_and_its_documents_say_so() -> None:
    changed = nitro.platform().with_pcrs(pcr0=b"\x55" * 48)

    assert wire.decode_document(changed.document(nitro.REPORT_DATA)).pcrs[0] == b"\x55" * 48
    assert nitro.refusal(changed.document(nitro.REPORT_DATA)) == ["not_acceptable.measurement"]


def test_documents_are_of_the_platforms_own_time() -> None:
    later = Platform.create(at=AT + timedelta(days=30), seed=1)
    data = later.document(nitro.REPORT_DATA)

    assert nitro.verify(
        data, anchors=(later.anchor,), endorsements=later.endorsements, at=AT + timedelta(days=30)
    )
    assert nitro.refusal(data, anchors=(later.anchor,), endorsements=later.endorsements)


def test_keys_are_not_shown() -> None:
    assert "IssuingKey" not in repr(nitro.platform())
