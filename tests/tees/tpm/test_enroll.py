# SPDX-License-Identifier: Apache-2.0
"""Enrolling a TPM: an owner learns which key to pin from a certified endorsement key, and from nothing that a machine says."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from confide.attestation.anchors import TrustAnchor
from confide.crypto.issue import IssuingKey, issue
from confide.simulator.tpm import Platform
from confide.tees.tpm import attest, client, enroll, public
from confide.tees.tpm.attest import Device
from confide.tees.tpm.client import TpmRefused
from support import swtpm, tpm
from support.refusal import code_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from confide.tees.tpm.client import Tpm

NOW = datetime(2026, 6, 1, tzinfo=UTC)
ROOT = IssuingKey.from_scalar(11)
NAME = (("O", "tests"), ("CN", "maker of TPMs"))
REPORT_DATA = bytes(range(64))
IDENTITY = "not_genuine.identity_mismatch"


def certificate(key: bytes, *, ca: bool = False, **changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "subject": NAME if ca else "EK",
        "issuer": NAME,
        "signing_key": ROOT,
        "public_key": key,
        "serial": 1 if ca else 2,
        "not_before": datetime(2026, 1, 1, tzinfo=UTC),
        "not_after": datetime(2027, 1, 1, tzinfo=UTC),
        "is_ca": ca,
        "key_usage": frozenset({"key_cert_sign"} if ca else {"key_encipherment"}),
    }
    return issue(**(fields | changes))


ANCHOR = TrustAnchor("tpm", "maker", (certificate(ROOT.public_key_der, ca=True),))


@pytest.fixture(scope="module")
def software(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tpm]:
    with swtpm.running(tmp_path_factory.mktemp("swtpm")) as made:
        yield made


@pytest.fixture
def device(software: Tpm) -> Device:
    return Device(software, event_log=None)


@pytest.fixture
def enrolled(device: Device) -> enroll.Enrollment:
    """What the machine says, with the certificate that its TPM's maker would have put into it."""
    found = device.enrollment()
    assert found.certificates == ()
    key = public.decode_public(found.ek).spki()
    return replace(found, certificates=(certificate(key),))


def challenge(enrollment: enroll.Enrollment, **changes: Any) -> enroll.Challenge:
    arguments: dict[str, Any] = {"anchors": (ANCHOR,), "at": NOW, "random": os.urandom}
    return enroll.challenge(enrollment, **(arguments | changes))


def test_a_tpm_that_holds_both_keys_answers_and_its_key_can_be_pinned(
    device: Device, enrolled: enroll.Enrollment
) -> None:
    asked = challenge(enroll.Enrollment.decode(enrolled.encode()))
    fingerprint = asked.confirm(device.activate(asked.credential))
    assert fingerprint == device.fingerprint()
    found = device.attest(REPORT_DATA)
    pin = TrustAnchor("tpm", "enrolled", (), keys=(fingerprint,))
    assert tpm.authenticate(found.platform.data, anchors=(pin,))


def test_the_certificate_is_read_from_the_tpms_memory(
    software: Tpm, device: Device, enrolled: enroll.Enrollment
) -> None:
    padded = enrolled.certificates[0] + bytes(64)  # Makers define the index larger than the certificate.
    software.nv_define(attest.EK_CERTIFICATE, len(padded), attest.NV_OWNER_READ | attest.NV_OWNER_WRITE)
    try:
        software.nv_write(attest.EK_CERTIFICATE, padded)
        assert device.enrollment() == enrolled
    finally:
        software.nv_undefine(attest.EK_CERTIFICATE)


def test_tpm_04_a_key_outside_of_the_tpm_is_not_enrolled(device: Device, enrolled: enroll.Enrollment) -> None:
    """An attacker with a certified TPM cannot have a key of software pinned: the TPM holds no object of its name."""
    forged = replace(enrolled, ak=Platform.create(seed=1).area())
    asked = challenge(forged)
    with pytest.raises(TpmRefused):
        device.activate(asked.credential)
    assert code_of(asked.confirm, bytes(32)) == IDENTITY
    assert code_of(asked.confirm, b"") == IDENTITY


def test_tpm_04_another_tpm_cannot_answer(
    enrolled: enroll.Enrollment, tmp_path_factory: pytest.TempPathFactory
) -> None:
    asked = challenge(enrolled)
    with swtpm.running(tmp_path_factory.mktemp("other")) as other, pytest.raises(TpmRefused):
        Device(other, event_log=None).activate(asked.credential)


def test_an_answer_to_one_challenge_is_none_to_another(device: Device, enrolled: enroll.Enrollment) -> None:
    first, second = challenge(enrolled), challenge(enrolled)
    answer = device.activate(first.credential)
    assert code_of(second.confirm, answer) == IDENTITY
    assert "_secret" not in repr(first)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"key_usage": frozenset({"digital_signature"})}, "not_genuine.wrong_usage"),
        ({"key_usage": None}, "not_genuine.wrong_usage"),
        ({"not_after": datetime(2026, 5, 31, tzinfo=UTC)}, "not_genuine.expired"),
        ({"signing_key": IssuingKey.from_scalar(12)}, "not_genuine.untrusted_root"),
        ({"public_key": ROOT.public_key_der}, "not_genuine.untrusted_root"),
    ],
)
def test_tpm_04_an_endorsement_key_that_no_maker_certified_is_refused(
    enrolled: enroll.Enrollment, change: dict[str, Any], code: str
) -> None:
    key = public.decode_public(enrolled.ek).spki()
    other = certificate(key, **change) if "public_key" not in change else certificate(change["public_key"])
    assert code_of(challenge, replace(enrolled, certificates=(other,))) == code


def test_tpm_04_without_certificate_or_roots_nobody_vouches(enrolled: enroll.Enrollment) -> None:
    assert code_of(challenge, replace(enrolled, certificates=())) == "not_genuine.untrusted_root"
    assert code_of(challenge, enrolled, anchors=()) == "not_genuine.no_trusted_roots"
    elsewhere = replace(ANCHOR, tee="snp")
    assert code_of(challenge, enrolled, anchors=(elsewhere,)) == "not_genuine.no_trusted_roots"


@pytest.mark.parametrize("missing", ["fixedTPM", "fixedParent", "sensitiveDataOrigin", "restricted", "sign"])
def test_tpm_04_a_key_without_an_attestation_keys_attributes_is_not_challenged(
    enrolled: enroll.Enrollment, missing: str
) -> None:
    names = {"fixedTPM", "fixedParent", "sensitiveDataOrigin", "userWithAuth", "restricted", "sign"} - {
        missing
    }
    area = Platform.create(seed=1).area(attributes=public.attributes(*names))
    assert code_of(challenge, replace(enrolled, ak=area)) == IDENTITY


@pytest.mark.parametrize("at", [4, 7, 20, 44, 50])
def test_tpm_04_an_endorsement_key_of_another_form_is_refused(enrolled: enroll.Enrollment, at: int) -> None:
    """A key with the maker's certificate whose area says that it may be used without its policy, for instance."""
    area = bytearray(enrolled.ek)
    area[at] ^= 0x40 if at == 7 else 0x01
    assert code_of(challenge, replace(enrolled, ek=bytes(area))).partition(".")[0] in {
        "not_genuine",
        "malformed",
    }
    assert code_of(challenge, replace(enrolled, ek=Platform.create(seed=1).area())) == IDENTITY
    assert code_of(challenge, replace(enrolled, ek=enroll.ek_template()[:-258] + bytes(2))) == IDENTITY


def test_an_enrollment_of_another_form_is_malformed(enrolled: enroll.Enrollment) -> None:
    data = enrolled.encode()
    for size in range(0, len(data), 7):
        assert code_of(enroll.Enrollment.decode, data[:size]).startswith("malformed.")
    assert code_of(enroll.Enrollment.decode, data + b"\x00") == "malformed.trailing_data"
    many = replace(enrolled, certificates=(b"x",) * 9)
    assert code_of(enroll.Enrollment.decode, many.encode()) == "malformed.limit_exceeded"


def test_the_template_of_the_endorsement_key_is_tcgs(software: Tpm) -> None:
    """TCG EK Credential Profile, table 2, whose policy is PolicySecret(endorsement)."""
    with software.policy_session(trial=True) as session:
        software.policy_secret(session, client.ENDORSEMENT)
        digest = software.policy_digest(session)
    template = public.decode_public(enroll.ek_template())
    assert template.auth_policy == digest
    assert template.attributes == 0x000300B2
    assert enroll.ek_template()[:8] == bytes.fromhex("0001000b000300b2")
