# SPDX-License-Identifier: Apache-2.0
"""Attacks on a TPM's evidence alone, each one field away from a case that passes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from confide.attestation import binding
from confide.crypto.issue import IssuingKey
from confide.crypto.x509 import Extension
from confide.simulator.tpm import AT, Platform, boot_pcrs
from confide.tees.tpm import public, wire
from confide.wire import cbor
from support import tpm
from support.refusal import code_of

BAD = "not_genuine.bad_signature"
IDENTITY = "not_genuine.identity_mismatch"
MEASUREMENT = "not_acceptable.measurement"
AIK = bytes.fromhex("300706056781050803")
EK = bytes.fromhex("300706056781050801")
CLIENT = bytes.fromhex("300a06082b06010505070302")


@pytest.mark.parametrize(
    ("scheme", "hash_name", "curve"),
    [
        ("ecdsa", "sha256", "p256"),
        ("ecdsa", "sha384", "p384"),
        ("rsassa", "sha256", "p256"),
        ("rsassa", "sha512", "p256"),
        ("rsapss", "sha384", "p256"),
    ],
)
@pytest.mark.parametrize("trust", ["certificate", "pinned"])
def test_a_quote_by_a_trusted_key_passes(scheme: str, hash_name: str, curve: str, trust: str) -> None:
    made = tpm.platform(1, scheme, hash_name, curve)
    part, endorsements = made.evidence(tpm.REPORT_DATA)
    claims = tpm.authenticate(
        part, endorsements, anchors=(made.anchor if trust == "certificate" else made.pin,)
    )
    assert claims.details.trust == trust  # type: ignore[attr-defined]
    assert (claims.tee, claims.simulated, claims.report_data) == ("tpm", True, tpm.REPORT_DATA)
    assert claims.measurements["pcr4"] == made.pcrs["sha256"][4]
    assert claims.chain[0].fingerprint == made.fingerprint
    assert len(claims.chain) == (3 if trust == "certificate" else 1)
    assert bool(claims.unproven) == (scheme != "rsassa")


@pytest.mark.parametrize("magic", [0, 0xFF544348, 0x474354FF])
def test_tpm_01_a_structure_that_no_tpm_generated_is_refused(magic: int) -> None:
    made = tpm.platform()
    part, endorsements = made.evidence(b"", attest=made.attest(tpm.REPORT_DATA).encode(magic=magic))
    assert tpm.refusal(part, endorsements) == ["malformed.unknown_format"]


@pytest.mark.parametrize("tag", [0x8014, 0x8015, 0x8016, 0x8017, 0x8019, 0x801A, 0x801C, 0, 0x1880])
def test_tpm_01_what_is_no_quote_is_refused(tag: int) -> None:
    """Certifications, session audits, NV certifications and time attestations are signed by the same keys."""
    made = tpm.platform()
    part, endorsements = made.evidence(b"", attest=made.attest(tpm.REPORT_DATA).encode(tag=tag))
    assert tpm.refusal(part, endorsements) == ["malformed.unknown_format"]


@pytest.mark.parametrize(
    "extra_data", [b"", tpm.REPORT_DATA[:31], tpm.REPORT_DATA + b"\x00", bytes(32), tpm.REPORT_DATA[::-1]]
)
def test_tpm_02_qualifying_data_other_than_asked_for_is_refused(extra_data: bytes) -> None:
    """Nothing is padded or cut for the comparison."""
    asked = bytes(64)
    right, endorsements = tpm.platform().evidence(binding.tpm_qualifying_data(asked))
    assert tpm.verify(right, endorsements, report_data=asked).verdict == "accepted"
    other, _ = tpm.platform().evidence(extra_data)
    found = tpm.codes(lambda: tpm.verify(other, endorsements, report_data=asked))
    assert found == ["not_acceptable.channel"]


def test_tpm_02_qualifying_data_longer_than_any_hash_is_malformed() -> None:
    part, endorsements = tpm.platform().evidence(bytes(66))
    assert tpm.authenticate(part, endorsements).report_data == bytes(66)
    made = tpm.platform()
    longer = (
        made.attest(b"")
        .encode()
        .replace(
            b"\x00\x00" + (41_000).to_bytes(8, "big"), b"\x00\x43" + bytes(67) + (41_000).to_bytes(8, "big")
        )
    )
    part = cbor.encode(cbor.decode(part, what="part", max_size=1 << 16) | {"attest": longer})
    assert tpm.refusal(part, endorsements) == ["malformed.limit_exceeded"]


def test_tpm_03_a_selection_smaller_than_the_policy_is_refused() -> None:
    selection = (wire.Selection("sha256", (0, 1, 2, 3, 4)),)
    part, endorsements = tpm.platform().evidence(tpm.REPORT_DATA, fields={"selections": selection})
    assert tpm.authenticate(part, endorsements)
    assert tpm.codes(lambda: tpm.verify(part, endorsements)) == [MEASUREMENT]
    wanted = {"pcr": {"4": [tpm.platform().pcrs["sha256"][4].hex()]}}
    assert tpm.verify(part, endorsements, reference=wanted).verdict == "accepted"


def test_tpm_03_a_quote_of_no_pcr_meets_no_policy_that_pins_one() -> None:
    fields: dict[str, Any] = {"selections": (wire.Selection("sha256", ()),)}
    part, endorsements = tpm.platform().evidence(tpm.REPORT_DATA, fields=fields)
    assert tpm.codes(lambda: tpm.verify(part, endorsements)) == [MEASUREMENT, MEASUREMENT]


def test_tpm_03_a_quote_of_the_sha1_bank_alone_is_weak() -> None:
    pcrs = {"sha1": {index: bytes([index]) * 20 for index in range(24)}}
    made = Platform.create(seed=1, pcrs=pcrs)
    part, endorsements = made.evidence(tpm.REPORT_DATA)
    assert tpm.refusal(part, endorsements) == ["not_genuine.unsupported_algorithm"]
    both = Platform.create(seed=1, pcrs=pcrs | {"sha256": boot_pcrs()})
    part, endorsements = both.evidence(tpm.REPORT_DATA)
    claims = tpm.authenticate(part, endorsements)
    assert sorted(claims.measurements) == sorted(f"pcr{index}" for index in range(24))


def test_tpm_03_no_policy_can_ask_for_the_sha1_bank() -> None:
    assert code_of(tpm.policy, {"bank": "sha1", "pcr": {"4": ["00" * 20]}}) == "configuration.invalid"


def test_tpm_03_pcr_values_that_the_tpm_did_not_sign_are_refused() -> None:
    made = tpm.platform()
    for index in range(24):
        values = dict(made.pcrs["sha256"])
        values[index] = bytes(31) + b"\x01"
        part, endorsements = made.evidence(tpm.REPORT_DATA, pcrs={"sha256": values})
        assert tpm.refusal(part, endorsements) == [BAD], index


def test_tpm_03_pcr_values_beside_those_that_were_quoted_are_refused() -> None:
    """An unsigned value must not be taken for a signed one, nor a signed one be left out."""
    made = tpm.platform()
    few = {"selections": (wire.Selection("sha256", (0, 4)),)}
    for values in ({0: 0, 4: 4, 9: 9}, {0: 0}, {0: 0, 9: 9}):
        given = {"sha256": {index: made.pcrs["sha256"][index] for index in values}}
        part, endorsements = made.evidence(tpm.REPORT_DATA, fields=few, pcrs=given)
        assert tpm.refusal(part, endorsements) == ["malformed.non_canonical"]


def test_tpm_03_the_values_of_another_bank_are_not_those_of_this_one() -> None:
    made = Platform.create(seed=1, pcrs={"sha384": boot_pcrs("sha384")})
    part, endorsements = made.evidence(tpm.REPORT_DATA)
    assert tpm.codes(lambda: tpm.verify(part, endorsements)) == [MEASUREMENT, MEASUREMENT]
    wanted = {"bank": "sha384", "pcr": {"4": [boot_pcrs("sha384")[4].hex()]}}
    assert tpm.verify(part, endorsements, reference=wanted).claims.measurements["pcr4.sha384"]


def test_tpm_03_a_pcr_beyond_the_24th_is_refused() -> None:
    made = tpm.platform()
    part, endorsements = made.evidence(tpm.REPORT_DATA)
    content = cbor.decode(part, what="part", max_size=1 << 16)
    content["pcrs"][0x000B][24] = bytes(32)
    assert tpm.refusal(cbor.encode(content), endorsements) == ["malformed.limit_exceeded"]
    attest = made.attest(tpm.REPORT_DATA).encode()
    wide = attest.replace(b"\x00\x0b\x03\xff\xff\xff", b"\x00\x0b\x04\xff\xff\xff\x01")
    assert len(wide) == len(attest) + 1
    part, endorsements = made.evidence(b"", attest=wide)
    assert tpm.refusal(part, endorsements) == ["malformed.limit_exceeded"]


def test_tpm_03_a_bank_that_is_selected_twice_is_refused() -> None:
    twice = (wire.Selection("sha256", (0,)), wire.Selection("sha256", (4,)))
    part, endorsements = tpm.platform().evidence(tpm.REPORT_DATA, fields={"selections": twice[:1]})
    assert tpm.authenticate(part, endorsements)
    attest = replace(tpm.platform().attest(tpm.REPORT_DATA), selections=twice).encode()
    part, endorsements = tpm.platform().evidence(b"", attest=attest)
    assert tpm.refusal(part, endorsements) == ["malformed.non_canonical"]


def test_tpm_04_a_quote_by_another_key_is_refused() -> None:
    made, other = tpm.platform(), tpm.platform(2)
    attest = made.attest(tpm.REPORT_DATA).encode()
    part, endorsements = made.evidence(tpm.REPORT_DATA, signature=other.sign(attest).encode())
    assert tpm.refusal(part, endorsements) == [BAD]


@pytest.mark.parametrize("missing", ["restricted", "sign", "fixedTPM"])
def test_tpm_04_a_key_without_the_attributes_of_an_attestation_key_is_refused(missing: str) -> None:
    made = tpm.platform()
    names = {"fixedTPM", "fixedParent", "sensitiveDataOrigin", "userWithAuth", "restricted", "sign"}
    area = made.area(attributes=public.attributes(*(names - {missing})))
    name = public.decode_public(area).name
    signer = public.qualified_name((0x4000000B).to_bytes(4, "big"), name)
    part, endorsements = made.evidence(tpm.REPORT_DATA, ak=area, fields={"qualified_signer": signer})
    assert tpm.refusal(part, endorsements) == [IDENTITY]
    both = made.area(attributes=public.attributes(*names, "decrypt"))
    signer = public.qualified_name((0x4000000B).to_bytes(4, "big"), public.decode_public(both).name)
    part, endorsements = made.evidence(tpm.REPORT_DATA, ak=both, fields={"qualified_signer": signer})
    assert tpm.refusal(part, endorsements) == [IDENTITY]


def test_tpm_04_a_public_area_whose_name_the_tpm_did_not_sign_is_refused() -> None:
    """Attributes that are made up for the key's own bytes do not help."""
    made = tpm.platform()
    area = made.area(auth_policy=bytes(32))
    part, endorsements = made.evidence(tpm.REPORT_DATA, ak=area)
    assert tpm.refusal(part, endorsements) == [IDENTITY]


def test_tpm_04_a_key_below_a_parent_needs_the_parents_name() -> None:
    made = tpm.platform()
    parent = b"\x00\x0b" + bytes(32)
    signer = public.qualified_name(parent, public.decode_public(made.area()).name)
    fields = {"qualified_signer": signer}
    part, endorsements = made.evidence(tpm.REPORT_DATA, fields=fields, parent=parent)
    assert tpm.authenticate(part, endorsements)
    part, endorsements = made.evidence(tpm.REPORT_DATA, fields=fields)
    assert tpm.refusal(part, endorsements) == [IDENTITY]
    part, endorsements = made.evidence(tpm.REPORT_DATA, fields=fields, parent=parent[:-1] + b"\x01")
    assert tpm.refusal(part, endorsements) == [IDENTITY]


def test_tpm_04_without_certificate_and_pin_nobody_vouches() -> None:
    made = tpm.platform()
    part, endorsements = made.evidence(tpm.REPORT_DATA)
    assert tpm.refusal(part) == ["not_genuine.untrusted_root"]
    assert tpm.refusal(part, endorsements, anchors=(tpm.platform(2).pin,)) == ["not_genuine.untrusted_root"]
    assert tpm.refusal(part, endorsements, anchors=()) == ["not_genuine.no_trusted_roots"]


def test_ev_17_a_root_of_the_same_name_and_another_key_is_refused() -> None:
    part, endorsements = tpm.platform().evidence(tpm.REPORT_DATA)
    assert tpm.refusal(part, endorsements, anchors=(tpm.platform(2).anchor,)) == [
        "not_genuine.untrusted_root"
    ]


def test_tpm_04_a_key_given_without_its_public_area_is_reported_so() -> None:
    made = tpm.platform()
    part, endorsements = made.evidence(tpm.REPORT_DATA, ak=None, spki=made.ak_key.public_key_der)
    claims = tpm.authenticate(part, endorsements)
    assert [one.outcome for one in claims.checks if one.name == "attributes"] == ["not checked"]
    part, endorsements = made.evidence(tpm.REPORT_DATA, ak=None)
    assert tpm.refusal(part, endorsements) == ["not_genuine.untrusted_root"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"key_usage": frozenset({"key_encipherment"})}, "not_genuine.wrong_usage"),
        ({"key_usage": None}, "not_genuine.wrong_usage"),
        ({"extensions": {"2.5.29.37": Extension(critical=False, value=CLIENT)}}, "not_genuine.wrong_usage"),
        (
            {"is_ca": True, "key_usage": frozenset({"key_cert_sign", "digital_signature"})},
            "not_genuine.wrong_usage",
        ),
        ({"extensions": {"1.2.3": Extension(critical=True, value=b"\x05\x00")}}, "not_genuine.wrong_usage"),
        ({"signing_key": IssuingKey.from_scalar(99)}, "not_genuine.bad_signature"),
        ({"not_after": AT - timedelta(seconds=1)}, "not_genuine.expired"),
        ({"not_before": AT + timedelta(seconds=1)}, "not_genuine.not_yet_valid"),
    ],
)
def test_tpm_04_a_certificate_that_does_not_certify_an_attestation_key_is_refused(
    change: dict[str, Any], code: str
) -> None:
    part, endorsements = tpm.platform().evidence(tpm.REPORT_DATA, certificate=change)
    assert tpm.refusal(part, endorsements) == [code]


@pytest.mark.parametrize("usage", [AIK, EK])
def test_tpm_04_the_extended_usages_of_tpm_keys_are_accepted(usage: bytes) -> None:
    change = {"extensions": {"2.5.29.37": Extension(critical=False, value=usage)}}
    part, endorsements = tpm.platform().evidence(tpm.REPORT_DATA, certificate=change)
    assert tpm.authenticate(part, endorsements)


def test_ev_20_revoked_keys_and_missing_lists_are_refused() -> None:
    made = tpm.platform()

    def found(crls: tuple[bytes, ...], *, required: bool = True) -> list[str]:
        part, endorsements = made.evidence(tpm.REPORT_DATA, crls=crls)
        return tpm.refusal(part, endorsements, require_revocation=required)

    part, endorsements = made.evidence(tpm.REPORT_DATA, crls=made.crls())
    assert tpm.authenticate(part, endorsements, require_revocation=True)
    assert found(made.crls(revoked=(77,)), required=False) == ["not_genuine.revoked"]
    assert found(made.crls(revoked=(2,)), required=False) == ["not_genuine.revoked"]
    assert found(()) == ["endorsements_missing.crl"]
    assert found(made.crls()[:1]) == ["endorsements_missing.crl"]
    old = made.crls(next_update=AT - timedelta(seconds=1))
    assert found(old) == ["endorsements_missing.crl_expired"]
    assert found(made.crls(revoked=(77,), next_update=AT - timedelta(seconds=1)), required=False) == [
        "not_genuine.revoked"
    ]


def test_ev_08_a_signature_of_another_scheme_than_the_keys_area_has_is_refused() -> None:
    """A good signature by the right key, made in a way that the TPM's key cannot sign."""
    made = tpm.platform()
    area = made.area(scheme=public.Scheme("ecdsa", "sha384"))
    signer = public.qualified_name((0x4000000B).to_bytes(4, "big"), public.decode_public(area).name)
    part, endorsements = made.evidence(tpm.REPORT_DATA, ak=area, fields={"qualified_signer": signer})
    assert tpm.refusal(part, endorsements) == ["not_genuine.algorithm_mismatch"]
    area = made.area(scheme=None)
    signer = public.qualified_name((0x4000000B).to_bytes(4, "big"), public.decode_public(area).name)
    part, endorsements = made.evidence(tpm.REPORT_DATA, ak=area, fields={"qualified_signer": signer})
    assert tpm.refusal(part, endorsements) == ["not_genuine.algorithm_mismatch"]


def test_ev_08_the_scheme_that_a_signature_names_is_the_keys_own() -> None:
    made = tpm.platform(1, "rsassa")
    attest = made.attest(tpm.REPORT_DATA).encode()
    for scheme, hash_name in (("rsapss", "sha256"), ("rsassa", "sha384"), ("rsassa", "sha512")):
        signature = replace(made.sign(attest), scheme=scheme, hash_name=hash_name).encode()
        part, endorsements = made.evidence(tpm.REPORT_DATA, signature=signature)
        assert tpm.refusal(part, endorsements)[0] == BAD


@pytest.mark.parametrize(
    "head",
    [
        b"\x00\x18\x00\x04",  # ECDSA with SHA-1
        b"\x00\x10\x00\x0b",  # no scheme
        b"\x00\x1a\x00\x0b",  # ECDAA
        b"\x00\x1b\x00\x12",  # SM2 with SM3
        b"\x00\x05\x00\x0b",  # HMAC
        b"\x00\x00\x00\x00",
        b"\x18\x00\x0b\x00",  # EV-06, the other byte order
    ],
)
def test_ev_08_other_algorithms_are_refused(head: bytes) -> None:
    made = tpm.platform()
    signature = made.sign(made.attest(tpm.REPORT_DATA).encode()).encode()
    part, endorsements = made.evidence(tpm.REPORT_DATA, signature=head + signature[4:])
    assert tpm.refusal(part, endorsements) == ["not_genuine.unsupported_algorithm"]


N256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@pytest.mark.parametrize("r", [0, 1, N256, N256 + 1, (1 << 256) - 1])
@pytest.mark.parametrize("s", [0, N256, (1 << 528) - 1])
def test_ev_09_r_and_s_out_of_range_are_refused(r: int, s: int) -> None:
    values = tuple(value.to_bytes(66, "big") for value in (r, s))
    signature = wire.Signature("ecdsa", "sha256", values).encode()
    part, endorsements = tpm.platform().evidence(tpm.REPORT_DATA, signature=signature)
    assert tpm.refusal(part, endorsements) == [BAD]


def test_tpm_08_a_policy_refuses_counters_that_went_back() -> None:
    part, endorsements = tpm.platform().evidence(tpm.REPORT_DATA)  # reset 3, restart 0, clock 41000
    for seen, goes in (
        ({"reset_count": 3, "restart_count": 0, "clock": 41000}, True),
        ({"reset_count": 2, "restart_count": 9, "clock": 99999}, True),
        ({"reset_count": 3, "restart_count": 0, "clock": 41001}, False),
        ({"reset_count": 3, "restart_count": 1}, False),
        ({"reset_count": 4}, False),
    ):
        reference = {"last_seen": seen}
        if goes:
            assert tpm.verify(part, endorsements, reference=reference).verdict == "accepted"
        else:
            assert tpm.codes(lambda ref=reference: tpm.verify(part, endorsements, reference=ref)) == [  # type: ignore[misc]
                "not_acceptable.rollback"
            ]


def test_ev_31_nothing_is_said_about_the_policy_before_the_signature_is_good() -> None:
    made = tpm.platform()
    attest = made.attest(tpm.REPORT_DATA).encode()
    part, endorsements = made.evidence(tpm.REPORT_DATA, signature=tpm.platform(2).sign(attest).encode())
    wrong = {"pcr": {"4": ["00" * 32]}}
    assert tpm.codes(lambda: tpm.verify(part, endorsements, reference=wrong)) == [BAD]
