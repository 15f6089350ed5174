# SPDX-License-Identifier: Apache-2.0
"""Collateral: signed by Intel, for this TEE and platform, valid now; CRLs of both CAs; JSON without ambiguities."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import Any

import pytest

from confide.attestation.evidence import Endorsements, EvidencePart
from confide.crypto.issue import IssuingKey
from confide.errors import ConfideError
from confide.simulator import dcap as simulator
from confide.tees._dcap import collateral
from support import dcap

SECOND = timedelta(seconds=1)
TEXTS = ("tcb_info", "qe_identity")
ARGUMENT = {"tcb_info": "tcb_info", "qe_identity": "identity"}


def texts(made: simulator.Platform) -> dict[str, dict[str, Any]]:
    return {"tcb_info": made.tcb_info(), "qe_identity": made.identity()}


@pytest.mark.parametrize("tee", dcap.TEES)
def test_without_collateral_the_verdict_is_undecided_and_says_what_to_do(tee: str) -> None:
    made = dcap.platform(tee)
    with pytest.raises(ConfideError) as caught:
        dcap.authenticate(tee, made.quote(dcap.REPORT_DATA), Endorsements(), (made.anchor,))

    found = dcap.codes(caught.value)
    assert found[0] == "endorsements_missing.collateral"
    assert set(found) == {"endorsements_missing.collateral", "endorsements_missing.crl"}
    assert "confide endorse" in caught.value.hint


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize("key", TEXTS)
def test_dcap_09_a_text_that_another_key_signed_is_refused(tee: str, key: str) -> None:
    made = dcap.platform(tee)
    strangers = [IssuingKey.from_scalar(3, curve="p256"), made.keys["root"], made.keys["pck"]]
    for stranger in strangers:
        found = dcap.refused(made, collateral={"signers": {key: stranger}})
        assert found == ["not_genuine.bad_signature"]


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize("key", TEXTS)
def test_dcap_09_a_text_with_one_byte_changed_is_refused(tee: str, key: str) -> None:
    made = dcap.platform(tee)
    document = json.loads(made.collateral())
    document[key] = document[key].replace('"tcbEvaluationDataNumber":20', '"tcbEvaluationDataNumber":21')

    data = made.quote(dcap.REPORT_DATA)
    found = dcap.judged(tee, data, dcap.document(json.dumps(document).encode()), (made.anchor,))
    assert found == ["not_genuine.bad_signature"]
    document[key] = json.dumps(texts(made)[key])  # The same values, spelled with spaces.
    found = dcap.judged(tee, data, dcap.document(json.dumps(document).encode()), (made.anchor,))
    assert found == ["not_genuine.bad_signature"]


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize("key", TEXTS)
def test_dcap_09_only_the_tcb_signing_key_may_sign(tee: str, key: str) -> None:
    """A platform's own key is certified under the same root, and so is each PCK CA: none of them speaks of TCBs."""
    made = dcap.platform(tee)
    for role, chain in (
        ("pck", made.chain),
        ("platform", made.chain[1:]),
        ("root", made.chain[2:]),
    ):
        changes = {
            "signers": {key: made.keys[role]},
            "document": {f"{key}_issuer_chain": simulator.pem(*chain).decode()},
        }
        assert dcap.refused(made, collateral=changes) == ["not_genuine.chain_invalid"], role


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"is_ca": True, "key_usage": frozenset({"key_cert_sign", "crl_sign"})}, "not_genuine.wrong_usage"),
        ({"key_usage": frozenset({"key_agreement"})}, "not_genuine.wrong_usage"),
        ({"not_after": dcap.AT - SECOND}, "not_genuine.expired"),
        ({"not_before": dcap.AT + SECOND}, "not_genuine.not_yet_valid"),
        ({"issuer": simulator.name("platform")}, "not_genuine.chain_invalid"),
    ],
)
def test_dcap_09_the_certificate_of_the_signing_key_must_be_good(
    tee: str, arguments: dict[str, Any], code: str
) -> None:
    assert set(dcap.refused(dcap.changed(tee, certificates={"signer": arguments}))) == {code}


@pytest.mark.parametrize("tee", dcap.TEES)
def test_dcap_09_a_signing_key_below_a_pck_ca_is_refused(tee: str) -> None:
    made = dcap.changed(
        tee,
        certificates={
            "signer": {
                "issuer": simulator.name("platform"),
                "signing_key": dcap.platform(tee).keys["platform"],
            }
        },
    )
    chain = simulator.pem(made.certificates["signer"], *made.chain[1:]).decode()
    document = {f"{key}_issuer_chain": chain for key in TEXTS}

    assert set(dcap.refused(made, collateral={"document": document})) == {"not_genuine.chain_invalid"}


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize("key", TEXTS)
def test_dcap_09_an_issuer_chain_without_the_signing_key_is_refused(tee: str, key: str) -> None:
    made = dcap.platform(tee)
    short = simulator.pem(made.certificates["root"]).decode()

    found = dcap.refused(made, collateral={"document": {f"{key}_issuer_chain": short}})
    assert found == ["not_genuine.chain_invalid"]
    only_signer = simulator.pem(made.certificates["signer"]).decode()  # The root is pinned here.
    assert dcap.accepted(made, collateral={"document": {f"{key}_issuer_chain": only_signer}}).tee == tee


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize("key", TEXTS)
def test_dcap_09_a_text_counts_from_its_issue_to_its_next_update(tee: str, key: str) -> None:
    made = dcap.platform(tee)
    now, second = simulator.time(dcap.AT), simulator.time(dcap.AT + SECOND)
    before = simulator.time(dcap.AT - SECOND)
    for issued, ends, code in (
        (now, second, "accepted"),
        (before, now, "accepted"),
        (second, simulator.time(dcap.AT + 2 * SECOND), "endorsements_missing.collateral_not_yet_valid"),
        (simulator.time(dcap.AT - 2 * SECOND), before, "endorsements_missing.collateral_expired"),
        (now, now, "malformed.non_canonical"),
        (second, now, "malformed.non_canonical"),
    ):
        changes = {ARGUMENT[key]: {"issueDate": issued, "nextUpdate": ends}}
        assert dcap.refused(made, collateral=changes) == [code], (issued, ends)


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize("key", TEXTS)
@pytest.mark.parametrize(
    "moment",
    [
        "2026-05-22",
        "2026-05-22T12:00:00",
        "2026-05-22T12:00:00+00:00",
        "2026-02-30T12:00:00Z",
        "",
        1779451200,
    ],
)
def test_dcap_09_times_have_one_form(tee: str, key: str, moment: object) -> None:
    found = dcap.refused(dcap.platform(tee), collateral={ARGUMENT[key]: {"issueDate": moment}})
    assert found == ["malformed.non_canonical"]


@pytest.mark.parametrize(("tee", "other"), [("sgx", "TDX"), ("tdx", "SGX")])
def test_dcap_09_tcb_info_for_the_other_tee_is_refused(tee: str, other: str) -> None:
    info = dcap.platform("tdx").tcb_info() | {"id": other}  # Has the members of both.
    found = dcap.refused(dcap.platform(tee), collateral={"texts": {"tcb_info": json.dumps(info)}})

    assert found[0] == "not_genuine.identity_mismatch"


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"id": "SEV"}, "malformed.unknown_format"),
        ({"id": "sgx"}, "malformed.unknown_format"),
        ({"version": 1}, "malformed.unsupported_version"),
        ({"version": 4}, "malformed.unsupported_version"),
        ({"version": "3"}, "malformed.non_canonical"),
        ({"version": True}, "malformed.non_canonical"),
        ({"tcbType": 1}, "malformed.unsupported_version"),
        ({"tcbLevels": {}}, "malformed.non_canonical"),
        ({"tcbLevels": ["UpToDate"]}, "malformed.non_canonical"),
        ({"tcbEvaluationDataNumber": -1}, "malformed.limit_exceeded"),
        ({"tcbEvaluationDataNumber": "20"}, "malformed.non_canonical"),
        ({"fmspc": "00906ED500"}, "malformed.length_mismatch"),
        ({"fmspc": "00906ED5000G"}, "malformed.length_mismatch"),
        ({"pceId": "00"}, "malformed.length_mismatch"),
    ],
)
def test_dcap_09_tcb_info_of_another_form_is_malformed(tee: str, changes: dict[str, Any], code: str) -> None:
    assert dcap.refused(dcap.platform(tee), collateral={"tcb_info": changes}) == [code]


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"version": 1}, "malformed.unsupported_version"),
        ({"version": 3}, "malformed.unsupported_version"),
        ({"mrsigner": "00" * 31}, "malformed.length_mismatch"),
        ({"mrsigner": ""}, "malformed.length_mismatch"),
        ({"attributes": "11" * 8}, "malformed.length_mismatch"),
        ({"attributesMask": "FF" * 17}, "malformed.length_mismatch"),
        ({"miscselectMask": "FFFFFF"}, "malformed.length_mismatch"),
        ({"isvprodid": 65536}, "malformed.limit_exceeded"),
        ({"isvprodid": "2"}, "malformed.non_canonical"),
        ({"tcbLevels": []}, "not_genuine.unknown_status"),
        ({"tcbLevels": [{"tcb": {"isvsvn": 1}}]}, "malformed.non_canonical"),
        ({"mrsigner": None}, "malformed.non_canonical"),
    ],
)
def test_dcap_09_an_enclave_identity_of_another_form_is_refused(
    tee: str, changes: dict[str, Any], code: str
) -> None:
    assert dcap.refused(dcap.platform(tee), collateral={"identity": changes}) == [code]


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize("changes", [{"fmspc": "00906ed50001"}, {"pceId": "0001"}, {"fmspc": "FFFFFFFFFFFF"}])
def test_dcap_10_collateral_for_another_kind_of_platform_is_refused(
    tee: str, changes: dict[str, Any]
) -> None:
    assert dcap.refused(dcap.platform(tee), collateral={"tcb_info": changes}) == [
        "not_genuine.identity_mismatch"
    ]


@pytest.mark.parametrize("tee", dcap.TEES)
def test_dcap_10_the_case_of_hexadecimal_digits_does_not_matter(tee: str) -> None:
    made = dcap.platform(tee)
    for spelled in ("00906ed50000", "00906ED50000", "00906eD50000"):
        assert dcap.accepted(made, collateral={"tcb_info": {"fmspc": spelled}}).tee == tee


@pytest.mark.parametrize("tee", dcap.TEES)
def test_dcap_10_another_platform_under_the_same_authority_does_not_fit(tee: str) -> None:
    made = dcap.changed(tee, sgx={"fmspc": bytes.fromhex("50806f000000")})
    assert dcap.refused(made) == ["not_genuine.identity_mismatch"]
    made = dcap.changed(tee, sgx={"pceid": b"\x00\x01"})
    assert dcap.refused(made) == ["not_genuine.identity_mismatch"]


def with_crls(made: simulator.Platform, **crls: bytes | None) -> list[str]:
    document = {key: None if value is None else value.hex() for key, value in crls.items()}
    return dcap.refused(made, collateral={"document": document})


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize(
    ("key", "role", "serial"),
    [
        ("pck_crl", "platform", 5),
        ("root_ca_crl", "root", 2),
        ("root_ca_crl", "root", 4),
        ("root_ca_crl", "root", 1),
    ],
    ids=["PCK certificate", "PCK CA", "TCB signer", "root"],
)
def test_dcap_20_ev_20_a_revoked_certificate_is_refused(tee: str, key: str, role: str, serial: int) -> None:
    made = dcap.platform(tee)

    found = with_crls(made, **{key: made.crl(role, revoked=(serial,))})
    assert set(found) == {"not_genuine.revoked"}
    expired = made.crl(role, revoked=(serial,), next_update=dcap.AT - SECOND)
    data, own = made.evidence(dcap.REPORT_DATA)
    found = dcap.judged(tee, data, own.merge(Endorsements(crls=(expired,))), (made.anchor,))
    assert set(found) == {"not_genuine.revoked"}
    assert with_crls(made, **{key: made.crl(role, revoked=(77,))}) == ["accepted"]


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize(("key", "role"), [("pck_crl", "platform"), ("root_ca_crl", "root")])
def test_dcap_20_crls_count_from_this_update_to_the_next(tee: str, key: str, role: str) -> None:
    made = dcap.platform(tee)
    for begins, ends, code in (
        (dcap.AT, dcap.AT + SECOND, "accepted"),
        (dcap.AT - SECOND, dcap.AT, "accepted"),
        (dcap.AT + SECOND, dcap.AT + 2 * SECOND, "endorsements_missing.crl_expired"),
        (dcap.AT - 2 * SECOND, dcap.AT - SECOND, "endorsements_missing.crl_expired"),
    ):
        found = with_crls(made, **{key: made.crl(role, this_update=begins, next_update=ends)})
        assert set(found) == {code}


@pytest.mark.parametrize("tee", dcap.TEES)
def test_dcap_20_the_crl_of_the_other_pck_ca_does_not_count(tee: str) -> None:
    made = dcap.platform(tee)
    assert with_crls(made, pck_crl=made.crl("processor")) == ["endorsements_missing.crl"]
    assert with_crls(made, pck_crl=made.crl("root")) == ["endorsements_missing.crl"]
    assert set(with_crls(made, root_ca_crl=made.crl("platform"))) == {"endorsements_missing.crl"}
    processor = dcap.platform(tee, ca="processor")
    assert dcap.accepted(processor).tee == tee
    assert with_crls(processor, pck_crl=made.crl("platform")) == ["endorsements_missing.crl"]


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize(("key", "role"), [("pck_crl", "platform"), ("root_ca_crl", "root")])
def test_dcap_20_a_crl_that_another_key_signed_is_refused_unless_a_good_one_is_there(
    tee: str, key: str, role: str
) -> None:
    made = dcap.platform(tee)
    forged = made.crl(role, signing_key=IssuingKey.from_scalar(3, curve="p256"))

    assert set(with_crls(made, **{key: forged})) == {"not_genuine.bad_signature"}
    data, own = made.evidence(dcap.REPORT_DATA)
    beside = own.merge(Endorsements(crls=(forged,)))
    assert dcap.judged(tee, data, beside, (made.anchor,)) == ["accepted"]


@pytest.mark.parametrize("tee", dcap.TEES)
def test_dcap_20_crls_come_as_hexadecimal_der_or_pem_or_beside_the_document(tee: str) -> None:
    made = dcap.platform(tee)
    der = made.crl("platform")
    body = base64.b64encode(der).decode()
    lines = "\n".join(body[start : start + 64] for start in range(0, len(body), 64))
    armoured = f"-----BEGIN X509 CRL-----\n{lines}\n-----END X509 CRL-----\n"
    for spelled in (der.hex(), der.hex().upper(), armoured):
        assert dcap.accepted(made, collateral={"document": {"pck_crl": spelled}}).tee == tee
    for wrong in ("", "00", der.hex()[:-2], der.hex() + "00", "zz", base64.b64encode(der).decode()):
        found = dcap.refused(made, collateral={"document": {"pck_crl": wrong}})
        assert found[0].startswith("malformed."), wrong[:8]

    answers = raw_answers(made)
    data = made.quote(dcap.REPORT_DATA)
    with_them = answers.merge(Endorsements(crls=(der, made.crl("root"))))
    assert dcap.judged(tee, data, with_them, (made.anchor,)) == ["accepted"]
    assert "endorsements_missing.crl" in dcap.judged(tee, data, answers, (made.anchor,))


def raw_answers(made: simulator.Platform) -> Endorsements:
    """The answers of Intel's service as they came, and the chain of their signer beside them."""
    parts = []
    for member, value, name in (
        ("tcbInfo", made.tcb_info(), "intel-tcb-info"),
        ("enclaveIdentity", made.identity(), "intel-qe-identity"),
    ):
        text = json.dumps(value, separators=(",", ":"))
        signature = simulator.sign(made.keys["signer"], text.encode()).hex()
        parts.append(EvidencePart(name, f'{{"{member}":{text},"signature":"{signature}"}}'.encode()))
    return Endorsements((made.certificates["signer"],), documents=tuple(parts))


@pytest.mark.parametrize("tee", dcap.TEES)
def test_answers_of_the_service_are_read_to_the_byte(tee: str) -> None:
    made = dcap.platform(tee)
    data = made.quote(dcap.REPORT_DATA)
    crls = Endorsements(crls=(made.crl("platform"), made.crl("root")))
    answers = raw_answers(made).merge(crls)
    assert dcap.judged(tee, data, answers, (made.anchor,)) == ["accepted"]
    assert all(collateral.is_collateral(part.data) for part in answers.documents)

    no_signer = Endorsements(documents=answers.documents, crls=answers.crls)
    assert dcap.judged(tee, data, no_signer, (made.anchor,))[0] == "endorsements_missing.certificate"
    for old, new in ((b'"version":', b'"version": '), (b'"signature":"', b'"signature":"0'), (b"{", b"[")):
        spoiled = [EvidencePart(part.format, part.data.replace(old, new, 1)) for part in answers.documents]
        found = dcap.judged(
            tee, data, Endorsements(answers.certificates, answers.crls, tuple(spoiled)), (made.anchor,)
        )
        assert found[0].startswith(("malformed.", "not_genuine.bad_signature")), new


@pytest.mark.parametrize("tee", dcap.TEES)
def test_of_several_documents_the_newest_valid_one_for_the_platform_counts(tee: str) -> None:
    made = dcap.platform(tee)
    quote = made.quote(dcap.REPORT_DATA)

    def document(number: int, status: str, **changes: Any) -> EvidencePart:
        level = made.level(simulator.COMPONENTS, 11, status)
        info = {"tcbEvaluationDataNumber": number, "tcbLevels": [level], **changes}
        return EvidencePart("intel-collateral", made.collateral(tcb_info=info))

    old, new = document(17, "UpToDate"), document(20, "OutOfDate")
    future = document(21, "ConfigurationNeeded", issueDate=simulator.time(dcap.AT + SECOND))
    other = document(22, "SWHardeningNeeded", fmspc="00806f050000")
    for given in ((old, new), (new, old), (other, old, future, new)):
        claims = dcap.authenticate(tee, quote, Endorsements(documents=given), (made.anchor,))
        details: Any = claims.details
        assert (details.tcb_status, details.tcb_evaluation_data_number) == ("OutOfDate", 20)
    forged = EvidencePart(
        "intel-collateral",
        made.collateral(
            tcb_info={"tcbEvaluationDataNumber": 99},
            signers={"tcb_info": IssuingKey.from_scalar(3, curve="p256")},
        ),
    )
    claims = dcap.authenticate(tee, quote, Endorsements(documents=(forged, old)), (made.anchor,))
    assert claims.details.tcb_evaluation_data_number == 17  # type: ignore[attr-defined]


@pytest.mark.parametrize("tee", dcap.TEES)
def test_claims_expire_with_the_first_thing_that_does(tee: str) -> None:
    made = dcap.platform(tee)
    soon = dcap.AT + timedelta(hours=1)
    for changes in (
        {"tcb_info": {"nextUpdate": simulator.time(soon)}},
        {"identity": {"nextUpdate": simulator.time(soon)}},
        {"document": {"pck_crl": made.crl("platform", next_update=soon).hex()}},
        {"document": {"root_ca_crl": made.crl("root", next_update=soon).hex()}},
    ):
        claims = dcap.accepted(made, collateral=changes)
        assert claims.expires == soon
        assert claims.details.collateral_expires == soon  # type: ignore[attr-defined]
    for role in ("pck", "platform", "signer"):
        shorter = dcap.changed(tee, certificates={role: {"not_after": soon}})
        assert dcap.accepted(shorter).expires == soon


@pytest.mark.parametrize("tee", dcap.TEES)
def test_what_is_remembered_is_judged_anew_at_another_time(tee: str) -> None:
    made = dcap.platform(tee)
    data, own = made.evidence(dcap.REPORT_DATA)

    for _ in range(2):
        assert dcap.authenticate(tee, data, own, (made.anchor,)).tee == tee
        for at, code in (
            (dcap.AT + timedelta(days=21), "endorsements_missing.collateral_expired"),
            (dcap.AT - timedelta(days=11), "endorsements_missing.collateral_not_yet_valid"),
            (dcap.AT + timedelta(days=3651), "not_genuine.expired"),
            (dcap.AT - timedelta(days=366), "not_genuine.not_yet_valid"),
        ):
            with pytest.raises(ConfideError) as caught:
                dcap.authenticate(tee, data, own, (made.anchor,), at)
            assert dcap.codes(caught.value)[0] == code


def document(made: simulator.Platform) -> str:
    return made.collateral().decode()


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text + " {}",
        lambda text: text + "x",
        lambda text: text[:-1],
        lambda text: text[:-1] + ', "pck_crl": "00"}',
        lambda text: text[:-1] + ', "more": 1}',
        lambda text: text[:-1] + ', "n": NaN}',
        lambda text: "[" * 50 + text,
        lambda text: "\ufeff" + text,
        lambda text: text.replace('"root_ca_crl"', '"root_crl"'),
        lambda text: "",
    ],
)
def test_ev_23_ev_24_the_bundle_is_one_unambiguous_json_text(tee: str, spoil: Any) -> None:
    made = dcap.platform(tee)
    given = dcap.document(spoil(document(made)).encode())

    found = dcap.judged(tee, made.quote(dcap.REPORT_DATA), given, (made.anchor,))
    assert found[0] in {"malformed.non_canonical", "malformed.limit_exceeded"}


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize("key", TEXTS)
@pytest.mark.parametrize("ending", [" {}", ',"id":"SGX"}', "\x00", "]"])
def test_ev_23_signed_texts_are_unambiguous_json_too(tee: str, key: str, ending: str) -> None:
    """Even what Intel's key has signed must have one meaning."""
    made = dcap.platform(tee)
    text = json.dumps(texts(made)[key])
    text = text[:-1] + ending if ending.startswith(",") else text + ending

    found = dcap.refused(made, collateral={"texts": {key: text}})
    assert found == ["malformed.non_canonical"]


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize("key", TEXTS)
def test_members_that_intel_may_add_do_no_harm(tee: str, key: str) -> None:
    found = dcap.accepted(dcap.platform(tee), collateral={ARGUMENT[key]: {"somethingNew": {"a": [1]}}})
    assert found.tee == tee


@pytest.mark.parametrize("tee", dcap.TEES)
def test_ev_14_oversized_and_numerous_documents_are_refused_before_they_are_read(tee: str) -> None:
    made = dcap.platform(tee)
    data = made.quote(dcap.REPORT_DATA)
    big = dcap.document(b"{" + b" " * (1 << 20) + b"}")
    assert dcap.judged(tee, data, big, (made.anchor,)) == ["malformed.limit_exceeded"]
    many = Endorsements(documents=tuple(EvidencePart("intel-collateral", b"%d" % n) for n in range(17)))
    assert dcap.judged(tee, data, many, (made.anchor,)) == ["malformed.limit_exceeded"]
    _, own = made.evidence(dcap.REPORT_DATA)
    lists = tuple(made.crl("processor", this_update=dcap.AT - n * SECOND) for n in range(33))
    few, more = Endorsements(crls=lists[:30]), Endorsements(crls=lists)
    assert dcap.judged(tee, data, own.merge(few), (made.anchor,)) == ["accepted"]
    assert dcap.judged(tee, data, own.merge(more), (made.anchor,)) == ["malformed.limit_exceeded"]
    sixteen = [made.collateral(tcb_info={"tcbEvaluationDataNumber": n}) for n in range(17)]
    for count, code in ((16, "accepted"), (17, "malformed.limit_exceeded")):
        documents = tuple(EvidencePart("intel-collateral", one) for one in sixteen[:count])
        # Each has the same two CRLs.
        assert dcap.judged(tee, data, Endorsements(documents=documents), (made.anchor,)) == [code]


@pytest.mark.parametrize("tee", dcap.TEES)
def test_ev_35_addresses_in_documents_lead_nowhere(tee: str) -> None:
    found = dcap.refused(
        dcap.platform(tee), collateral={"document": {"pccs_url": "https://canary.example.org/"}}
    )
    assert found == ["malformed.non_canonical"]


def version_2(tee: str, components: tuple[int, ...] = simulator.COMPONENTS) -> str:
    info = dcap.platform(tee).tcb_info(version=2)
    del info["id"]
    level = info["tcbLevels"][0]
    del level["tcb"]["sgxtcbcomponents"]
    level["tcb"] |= {f"sgxtcbcomp{number:02}svn": svn for number, svn in enumerate(components, start=1)}
    return json.dumps(info | {"tcbLevels": [level]})


def test_tcb_info_of_version_2_is_read_for_sgx_and_never_for_tdx() -> None:
    claims = dcap.accepted(dcap.platform("sgx"), collateral={"texts": {"tcb_info": version_2("sgx")}})
    assert claims.details.tcb_status == "UpToDate"  # type: ignore[attr-defined]
    found = dcap.refused(dcap.platform("tdx"), collateral={"texts": {"tcb_info": version_2("tdx")}})
    assert found[0] == "not_genuine.identity_mismatch"


def test_dcap_11_each_component_of_version_2_counts() -> None:
    for index in range(16):
        higher = tuple(svn + (place == index) for place, svn in enumerate(simulator.COMPONENTS))
        texts = {"texts": {"tcb_info": version_2("sgx", higher)}}
        assert dcap.refused(dcap.platform("sgx"), collateral=texts) == ["not_genuine.unknown_status"], index
    short = {"texts": {"tcb_info": version_2("sgx", simulator.COMPONENTS[:15])}}
    assert dcap.refused(dcap.platform("sgx"), collateral=short) == ["malformed.non_canonical"]


@pytest.mark.parametrize("name", ["SEAM_01", "TDX_1", "TDX_001", "TDX_0G", "tdx_01", "TDX_01 ", 1])
def test_dcap_13_names_of_modules_have_one_form(name: object) -> None:
    info = dcap.platform("tdx").tcb_info()
    renamed = [one | {"id": name} for one in info["tdxModuleIdentities"][1:]]
    found = dcap.refused(dcap.platform("tdx"), collateral={"tcb_info": {"tdxModuleIdentities": renamed}})
    assert found[0] in {"malformed.unknown_format", "malformed.non_canonical"}


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize("role", ["platform", "root"])
def test_ev_16_a_ca_that_may_not_sign_crls_has_none(tee: str, role: str) -> None:
    made = dcap.changed(tee, certificates={role: {"key_usage": frozenset({"key_cert_sign"})}})
    assert set(dcap.refused(made)) == {"not_genuine.wrong_usage"}


@pytest.mark.parametrize("tee", dcap.TEES)
def test_chains_may_end_in_a_nul_or_have_the_other_line_ends(tee: str) -> None:
    made = dcap.platform(tee)
    chain = simulator.pem(made.certificates["signer"], made.certificates["root"]).decode()
    for spelled in (chain + "\x00", chain.replace("\n", "\r\n"), chain.rstrip("\n")):
        assert dcap.accepted(made, collateral={"document": {"tcb_info_issuer_chain": spelled}}).tee == tee
    for wrong in (chain + "\x00\x00", chain.replace("\n", "\r"), "x" + chain, chain + "x", ""):
        found = dcap.refused(made, collateral={"document": {"tcb_info_issuer_chain": wrong}})
        assert found[0].startswith("malformed."), wrong[-5:]


@pytest.mark.parametrize("tee", dcap.TEES)
def test_the_pck_certificate_may_come_in_the_document(tee: str) -> None:
    made = dcap.platform(tee)
    document = {"pck_certificate_chain": simulator.pem(*made.chain).decode()}

    claims = dcap.accepted(made, certification=(1, bytes(34)), collateral={"document": document})
    assert claims.tee == tee


@pytest.mark.parametrize("tee", dcap.TEES)
def test_of_several_documents_none_of_which_serves_the_nearest_one_is_spoken_of(tee: str) -> None:
    """A folder of everybody's collateral must not hide that this platform's own is out of date."""
    made = dcap.platform(tee)
    past = {"nextUpdate": simulator.time(dcap.AT - SECOND)}
    other_tee = dcap.platform("tdx").tcb_info() | {"id": "SGX" if tee == "tdx" else "TDX"}
    given = [
        made.collateral(texts={"tcb_info": json.dumps(other_tee)}, identity={"id": "QVE"}),
        made.collateral(tcb_info={"fmspc": "00806f050000"}),
        made.collateral(tcb_info=past, identity=past),
    ]
    for order in (given, given[::-1]):
        documents = tuple(EvidencePart("intel-collateral", one) for one in order)
        endorsements = Endorsements(documents=documents)
        found = dcap.judged(tee, made.quote(dcap.REPORT_DATA), endorsements, (made.anchor,))
        # The second document's identity is good; its TCB info is for another platform.
        assert found == ["endorsements_missing.collateral_expired"]


def test_more_signing_keys_than_intel_can_have_are_refused_before_they_are_tried() -> None:
    """16 texts under 1024 certificates of a stranger's key took seconds."""
    made = dcap.platform("tdx")
    key = made.keys["attestation"]

    def certificates(first: int, count: int) -> bytes:
        return simulator.pem(
            *(
                dcap.changed(
                    "tdx", certificates={"signer": {"public_key": key.public_key_der, "serial": serial}}
                ).certificates["signer"]
                for serial in range(first, first + count)
            )
        )

    def beside(count: int) -> dict[str, Any]:
        return {"document": {"pck_crl_issuer_chain": certificates(100, count).decode()}}

    assert dcap.refused(made, collateral=beside(7)) == ["accepted"]
    assert dcap.refused(made, collateral=beside(8)) == ["malformed.limit_exceeded"]
    others = simulator.pem(
        made.certificates["signer"],
        *(
            dcap.changed("tdx", certificates={"root": {"serial": serial}}).certificates["root"]
            for serial in range(50, 59)
        ),
    )
    roots = {"document": {"tcb_info_issuer_chain": others.decode()}}
    assert dcap.refused(made, collateral=roots) == ["malformed.limit_exceeded"]
