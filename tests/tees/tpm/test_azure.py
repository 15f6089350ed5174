# SPDX-License-Identifier: Apache-2.0
"""Azure's chain: hardware report, runtime claims, attestation key, quote. Every link is mandatory."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from confide.attestation import claims as claims_
from confide.attestation.evidence import Endorsements, Evidence, EvidencePart
from confide.attestation.policy import AppraisalPolicy
from confide.attestation.verifier import Verifier
from confide.simulator import tpm as simulator
from confide.tees.snp import authenticate as snp_authenticate
from confide.tees.snp import endorse as snp_endorse
from confide.tees.tdx import authenticate as tdx_authenticate
from confide.tees.tdx import endorse as tdx_endorse
from confide.tees.tpm import azure, endorse, hcl, wire
from confide.tees.tpm.authenticate import TpmDetails
from confide.wire import strict_json
from support import snp, tpm
from support.refusal import code_of

if TYPE_CHECKING:
    from pathlib import Path

    from confide.attestation.claims import Claims

IDENTITY = "not_genuine.identity_mismatch"
UNTRUSTED = "not_genuine.untrusted_root"
AT = datetime(2026, 6, 1, tzinfo=UTC)
AT_TDX = datetime(2025, 6, 26, 22, 12, 2, tzinfo=UTC)
TDX_REGISTERS = ("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3")
SAMPLES = ("snp-v1", "snp-genoa", "tdx-v1")
GENOA_NONCE = (
    "0218488bae25d2509232bf676f1a66a30d7372add909109b36016ef136f2938ca05475f8b46094de6b64270ea35d950f"
)


def sample(shared: Path, name: str) -> bytes:
    return (shared / "evidence" / "azure-vtpm" / f"{name}.json").read_bytes()


def stand_in(report: bytes, kind: str, **changes: Any) -> Claims:
    """Claims as the platform's own authenticate would make them of a hardware report, which is not verified here."""
    part = hcl.SnpPart.decode(report) if kind == "snp" else hcl.TdxPart.decode(report)
    names = ("measurement",) if kind == "snp" else TDX_REGISTERS
    fields: dict[str, Any] = {
        "tee": kind,
        "simulated": False,
        "report_data": part.report_data,
        "measurements": {name: getattr(part, name) for name in names},
        "details": None,
        "checks": (),
        "expires": datetime(2030, 1, 1, tzinfo=UTC),
    }
    return claims_.authenticated(**(fields | changes))


def details(claims: Claims) -> TpmDetails:
    assert isinstance(claims.details, TpmDetails)
    return claims.details


# Samples of real hardware.


@pytest.mark.parametrize(
    ("name", "nonce", "vm_id", "resets"),
    [
        ("snp-v1", b"challenge".hex(), "26F8BC30-774E-4290-8E7A-535F3B672AEE", 2),
        ("snp-genoa", GENOA_NONCE, "390CBCF5-6C67-4D9B-98EF-C3F1699CC8FC", 53),
    ],
)
def test_the_quotes_of_real_snp_machines_lead_to_amds_root(
    shared: Path, name: str, nonce: str, vm_id: str, resets: int
) -> None:
    evidence = azure.read_azure(sample(shared, name))
    platform = snp_authenticate.authenticate(
        evidence.platform.data,
        endorsements=evidence.endorsements,
        anchors=snp_endorse.anchors(),
        at=AT,
        require_revocation=False,
    )
    claims = tpm.authenticate(evidence.devices[0].data, anchors=endorse.anchors(), at=AT, beside=platform)
    assert claims.report_data.hex() == nonce
    found = details(claims)
    assert (found.trust, found.scheme, found.hash_name) == ("platform", "rsassa", "sha256")
    assert (found.clock.reset_count, found.clock.restart_count, found.clock.safe) == (resets, 0, True)
    assert found.azure is not None
    assert (found.azure.vm_id, found.azure.secure_boot, found.azure.user_data) == (vm_id, True, bytes(64))
    assert [one.name.rpartition("CN=")[2] for one in claims.chain][1] == "SEV-VCEK"
    assert len(claims.chain) == 4
    assert not claims.simulated
    assert not claims.unproven
    assert claims.expires == platform.expires


@pytest.mark.parametrize("name", ["snp-v1", "snp-genoa"])
def test_the_real_snp_samples_are_accepted_as_documented_through_the_verifier(
    shared: Path, name: str
) -> None:
    evidence = azure.read_azure(sample(shared, name))
    part = wire.TpmEvidence.decode(evidence.devices[0].data)
    measurement = hcl.SnpPart.decode(evidence.platform.data).measurement.hex()

    def policy(**reference: Any) -> AppraisalPolicy:
        table = {"pcr": {str(index): [part.pcrs["sha256"][index].hex()] for index in (4, 7, 9)}} | reference
        return AppraisalPolicy.from_table(
            {"tees": ["snp", "tpm"], "reference": {"snp": {"measurement": [measurement]}, "tpm": table}}
        )

    result = Verifier(policy(secure_boot=True)).verify(evidence, at=AT)
    assert (result.verdict, result.tee, result.tier.name) == ("accepted", "snp", "AFFIRMING")
    assert [(one.tee, one.binding) for one in result.parts] == [("tpm", "bound")]
    wrong = policy(pcr={"9": ["00" * 32]})
    assert tpm.codes(lambda: Verifier(wrong).verify(evidence, at=AT)) == ["not_acceptable.measurement"]
    alone = replace(evidence, devices=())
    assert tpm.codes(lambda: Verifier(policy()).verify(alone, at=AT)) == ["not_acceptable.tee"]


def tdx_evidence(shared: Path) -> Evidence:
    """The sample, with the collateral of its FMSPC (00806f050000) that lies beside another quote."""
    collateral = (shared / "evidence" / "tdx" / "v4-azure-attr0.collateral-eval17.json").read_bytes()
    documents = (EvidencePart("intel-collateral", collateral),)
    return replace(azure.read_azure(sample(shared, "tdx-v1")), endorsements=Endorsements(documents=documents))


def test_the_quote_of_a_real_tdx_machine_leads_to_intels_root(shared: Path) -> None:
    evidence = tdx_evidence(shared)
    platform = tdx_authenticate.authenticate(
        evidence.platform.data,
        endorsements=evidence.endorsements,
        anchors=tdx_endorse.anchors(),
        at=AT_TDX,
        require_revocation=False,
    )
    claims = tpm.authenticate(evidence.devices[0].data, anchors=(), at=AT_TDX, beside=platform)
    assert claims.report_data == b"challenge"
    found = details(claims)
    assert found.azure is not None
    assert (found.trust, found.azure.vm_id) == ("platform", "6332533D-5649-4D02-8AA7-8F64B7C3EE21")
    assert claims.chain[1:] == platform.chain


def test_the_real_tdx_sample_is_accepted_as_documented_through_the_verifier(shared: Path) -> None:
    """Azure ran its TDs without SEPT_VE_DISABLE, and this one on an old TCB: a policy has to say that it admits both."""
    evidence = tdx_evidence(shared)
    pcrs = wire.TpmEvidence.decode(evidence.devices[0].data).pcrs["sha256"]
    table = {
        "tdx": {"mrtd": "ANY", "sept_ve_disable": False},
        "tpm": {"pcr": {"4": [pcrs[4].hex()]}, "secure_boot": True},
    }
    whole = {"tees": ["tdx", "tpm"], "reference": table, "tcb_status": ["UpToDate", "OutOfDate"]}
    policy = AppraisalPolicy.from_table(whole)
    result = Verifier(policy).verify(evidence, at=AT_TDX, report_data=b"challenge")
    assert (result.verdict, result.tee, [one.binding for one in result.parts]) == (
        "accepted",
        "tdx",
        ["bound"],
    )
    without = replace(evidence, endorsements=Endorsements())
    missing = tpm.codes(lambda: Verifier(policy).verify(without, at=AT_TDX))
    assert "endorsements_missing.collateral" in missing
    assert {code.partition(".")[0] for code in missing} == {"endorsements_missing"}


def test_tpm_05_a_tdreport_of_another_td_is_refused_register_by_register(shared: Path) -> None:
    part = azure.read_azure(sample(shared, "tdx-v1")).devices[0].data
    whole = wire.TpmEvidence.decode(part).hcl
    assert whole is not None
    report = hcl.decode_hcl(whole).hardware_report
    platform = stand_in(report, "tdx")
    assert tpm.authenticate(part, anchors=(), at=AT_TDX, beside=platform)
    for name in TDX_REGISTERS:
        changed = {**platform.measurements, name: b"\x01" * 48}
        other = stand_in(report, "tdx", measurements=changed)
        assert tpm.refusal(part, anchors=(), beside=other) == [IDENTITY], name
        del changed[name]
        other = stand_in(report, "tdx", measurements=changed)
        assert tpm.refusal(part, anchors=(), beside=other) == [IDENTITY], name


@pytest.mark.parametrize("name", SAMPLES)
def test_the_first_shape_of_lists_reads_like_the_later_ones(shared: Path, name: str) -> None:
    document = json.loads(sample(shared, name))
    del document["version"]
    quote = document["tpm_quote"]
    for key in ("message", "signature"):
        quote[key] = list(bytes.fromhex(quote[key]))
    quote["pcrs"] = [list(bytes.fromhex(value)) for value in quote["pcrs"]]
    document["hcl_report"] = list(_base64(document["hcl_report"]))
    if "td_quote" in document:
        document["td_quote"] = list(_base64(document["td_quote"]))
    else:
        pem = base64.encodebytes(_base64(document["vcek"])).decode()
        document = {
            "quote": quote,
            "report": document["hcl_report"],
            "vcek": f"-----BEGIN CERTIFICATE-----\n{_lines(pem)}-----END CERTIFICATE-----\n",
        }
    data = json.dumps(document).encode()
    assert azure.recognises(data)
    assert azure.read_azure(data) == azure.read_azure(sample(shared, name))


def _base64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _lines(pem: str) -> str:
    whole = pem.replace("\n", "")
    return "".join(f"{whole[start : start + 64]}\n" for start in range(0, len(whole), 64))


def test_only_azures_json_is_recognised(shared: Path) -> None:
    others = [
        path
        for path in sorted((shared / "evidence").rglob("*"))
        if path.is_file() and "azure-vtpm" not in path.parts and path.stat().st_size < 1 << 20
    ]
    assert len(others) > 60
    for path in others:
        data = path.read_bytes()
        assert not azure.recognises(data), path.name
        assert not wire.recognises(data), path.name
    for name in SAMPLES:
        evidence = azure.read_azure(sample(shared, name))
        assert azure.recognises(sample(shared, name))
        assert wire.recognises(evidence.devices[0].data)
        assert not wire.recognises(evidence.platform.data)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"version": 0}, "malformed.unsupported_version"),
        ({"version": 3}, "malformed.unsupported_version"),
        ({"version": 1 << 32}, "malformed.unsupported_version"),
        ({"version": "1"}, "malformed.non_canonical"),
        ({"extra": 1}, "malformed.non_canonical"),
        ({"hcl_report": ""}, "malformed.truncated"),
        ({"hcl_report": "AA=A"}, "malformed.non_canonical"),
        ({"hcl_report": "A+/A"}, "malformed.non_canonical"),
        ({"vcek": "AAAA"}, "malformed.trailing_data"),
        ({"tpm_quote": []}, "malformed.non_canonical"),
        ({"td_quote": "AAAA"}, "malformed.non_canonical"),
    ],
)
def test_json_of_another_form_is_malformed(shared: Path, change: dict[str, Any], code: str) -> None:
    document = json.loads(sample(shared, "snp-v1")) | change
    assert code_of(azure.read_azure, json.dumps(document).encode()) == code


def test_ev_23_a_duplicate_key_in_azures_json_is_refused(shared: Path) -> None:
    data = sample(shared, "snp-v1").strip()
    assert code_of(azure.read_azure, data[:-1] + b',"version":1}') == "malformed.non_canonical"


def test_tpm_03_a_quote_with_fewer_values_than_it_selects_is_malformed(shared: Path) -> None:
    document = json.loads(sample(shared, "snp-v1"))
    document["tpm_quote"]["pcrs"].pop()
    assert code_of(azure.read_azure, json.dumps(document).encode()) == "malformed.length_mismatch"
    document["tpm_quote"]["pcrs"] += ["00" * 32, "00" * 32]
    assert code_of(azure.read_azure, json.dumps(document).encode()) == "malformed.limit_exceeded"


# Attacks on a simulated case.


def test_a_simulated_case_passes() -> None:
    case = tpm.azure()
    claims = case.claims()
    assert details(claims).trust == "platform"
    assert claims.chain[0].fingerprint == tpm.platform(scheme="rsassa").fingerprint
    assert claims.chain[1:] == case.platform.chain
    spki = tpm.platform(scheme="rsassa").ak_key.public_key_der
    assert details(case.claims(spki=spki)).trust == "platform"


def test_tpm_04_a_key_other_than_the_runtime_claims_name_is_refused() -> None:
    other = tpm.Platform.create(seed=2, scheme="rsassa", ak_key=tpm.rsa_key(2))
    case = tpm.azure()
    attest = other.attest(tpm.REPORT_DATA).encode()
    changed = {"attest": attest, "signature": other.sign(attest).encode()}
    assert case.refusal(**changed) == ["not_genuine.bad_signature"]
    assert IDENTITY in case.refusal(**changed, spki=other.ak_key.public_key_der)


def test_tpm_04_a_certified_or_pinned_key_does_not_stand_in_for_the_platforms_word() -> None:
    """A genuine TPM of another machine, relayed beside this machine's report, is refused even if its key is trusted alone."""
    case = tpm.azure()
    foreign = tpm.Platform.create(seed=2, scheme="rsassa", ak_key=tpm.rsa_key(2))
    part, endorsements = foreign.evidence(tpm.REPORT_DATA)
    for anchor in (foreign.anchor, foreign.pin):
        assert tpm.authenticate(part, endorsements, anchors=(anchor,))
        assert tpm.refusal(part, endorsements, anchors=(anchor,), beside=case.platform) == [UNTRUSTED]


def test_tpm_05_runtime_claims_that_the_hardware_did_not_sign_are_refused() -> None:
    case = tpm.azure()
    assert case.evidence.hcl is not None
    report = hcl.decode_hcl(case.evidence.hcl)
    changed = report.claims_json.replace(b'"tpm-enabled":true', b'"tpm-enabled": true')
    assert changed != report.claims_json
    assert case.refusal(hcl=simulator.hcl_report(case.report.report, changed)) == [IDENTITY]


def test_tpm_05_the_exact_bytes_are_hashed_and_not_the_json_written_anew() -> None:
    text = simulator.runtime_claims(tpm.platform(scheme="rsassa").ak_key)
    spaced = b" " + text.replace(b",", b" ,")
    case = tpm.azure(claims_json=spaced)
    assert details(case.claims()).trust == "platform"
    anew = strict_json.encode(strict_json.decode(spaced, what="claims", max_size=1 << 16))
    assert case.refusal(hcl=simulator.hcl_report(case.report.report, anew)) == [IDENTITY]


def test_tpm_05_report_data_with_a_tail_is_refused() -> None:
    text = simulator.runtime_claims(tpm.platform(scheme="rsassa").ak_key)
    for tail in (b"\x01" + bytes(31), bytes(31) + b"\x01", b"\xff" * 32):
        case = tpm.azure(report={"report_data": hashlib.sha256(text).digest() + tail})
        assert case.refusal() == [IDENTITY]


def test_tpm_05_a_hardware_report_other_than_the_platforms_is_refused() -> None:
    text = simulator.runtime_claims(tpm.platform(scheme="rsassa").ak_key)
    digest = hashlib.sha256(text).digest() + bytes(32)
    for changed in ({"measurement": b"\x09" * 48}, {"report_data": bytes(64)}):
        other = snp.mint(report={"report_data": digest} | changed)
        assert tpm.azure(hardware=other.report).refusal() == [IDENTITY]


@pytest.mark.parametrize("vmpl", [1, 2, 3])
def test_tpm_05_a_report_that_the_guest_itself_asked_for_vouches_for_nothing(vmpl: int) -> None:
    """Below VMPL 0 the guest chooses the report data, and could name a key of its own. No policy makes that trusted."""
    assert tpm.azure(report={"vmpl": vmpl}).refusal() == [IDENTITY]


@pytest.mark.parametrize("text", ["0", "AB" * 63 + "aB", "zz" * 64, "AB" * 65, "é" * 2])
def test_user_data_that_are_no_hexadecimal_are_refused(text: str) -> None:
    assert tpm.azure(claims={"user-data": text}).refusal()[0].startswith("malformed.")


@pytest.mark.parametrize("text", ["", "ab" * 64, "AB" * 64, "00" * 32])
def test_user_data_are_shown_in_either_case(text: str) -> None:
    found = details(tpm.azure(claims={"user-data": text}).claims()).azure
    assert found is not None
    assert found.user_data == bytes.fromhex(text)


def test_tpm_06_user_data_of_the_boot_report_is_no_nonce() -> None:
    """The runtime claims of boot have zeros there; freshness comes from the quote's own qualifying data only."""
    case = tpm.azure(claims={"user-data": "AB" * 64}, extra_data=b"")
    claims = case.claims()
    assert claims.report_data == b""
    found = details(claims).azure
    assert found is not None
    assert found.user_data == b"\xab" * 64
    policy = AppraisalPolicy.from_table(
        {
            "tees": ["snp", "tpm"],
            "reference": {"snp": {"measurement": [snp.MEASUREMENT.hex()]}, "tpm": {"pcr": "ANY"}},
        }
    )
    verifier = Verifier(policy, extra_anchors=(case.report.authority.anchor(),))
    assert verifier.verify(case.bundle(), at=tpm.AT).verdict == "accepted"
    refused = tpm.codes(lambda: verifier.verify(case.bundle(), at=tpm.AT, report_data=b"\xab" * 64))
    assert refused == ["not_acceptable.channel"]
    fresh = tpm.azure(extra_data=b"\xab" * 64).bundle()
    assert verifier.verify(fresh, at=tpm.AT, report_data=b"\xab" * 64).verdict == "accepted"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"runtime": {"report_type": 4}}, "malformed.unknown_format"),
        ({"runtime": {"report_type": 0}}, "malformed.unknown_format"),
        ({"runtime": {"report_type": 3}}, "malformed.unknown_format"),
        ({"runtime": {"hash_type": 0}}, "malformed.unknown_format"),
        ({"runtime": {"hash_type": 2}}, "malformed.unknown_format"),
        ({"runtime": {"version": 0}}, "malformed.unsupported_version"),
        ({"runtime": {"version": 2}}, "malformed.unsupported_version"),
        ({"runtime": {"claims_size": 0}}, "malformed.length_mismatch"),
        ({"runtime": {"claims_size": (1 << 32) - 1}}, "malformed.length_mismatch"),
        ({"runtime": {"data_size": 0}}, "malformed.length_mismatch"),
        ({"header": {"report_size": 1}}, "malformed.length_mismatch"),
        ({"header": {"signature": 0x41434C49}}, "malformed.unknown_format"),
        ({"header": {"version": 0}}, "malformed.unsupported_version"),
        ({"header": {"version": 3}}, "malformed.unsupported_version"),
        ({"header": {"version": 0x02000000}}, "malformed.unsupported_version"),
        ({"header": {"request_type": 1}}, "malformed.non_canonical"),
        ({"header": {"status": 1}}, "malformed.non_canonical"),
    ],
)
def test_tpm_07_a_field_of_the_hcl_headers_changed_is_malformed(change: dict[str, Any], code: str) -> None:
    assert tpm.azure(hcl=change).refusal() == [code]


def test_tpm_07_a_report_that_ends_early_or_late_is_malformed() -> None:
    case = tpm.azure(hcl={"padding": 0})
    assert case.evidence.hcl is not None
    for size in range(0, len(case.evidence.hcl), 7):
        assert case.refusal(hcl=case.evidence.hcl[:size])[0].startswith("malformed."), size
    assert case.claims(hcl=case.evidence.hcl + bytes(64))
    assert case.refusal(hcl=case.evidence.hcl + bytes(63) + b"\x01") == ["malformed.trailing_data"]
    assert case.refusal(hcl=case.evidence.hcl + bytes(1 << 14)) == ["malformed.limit_exceeded"]


def _jwk(**changes: Any) -> dict[str, Any]:
    text = simulator.runtime_claims(tpm.platform(scheme="rsassa").ak_key)
    key: dict[str, Any] = strict_json.decode(text, what="claims", max_size=1 << 16)["keys"][0]
    return {name: value for name, value in (key | changes).items() if value is not None}


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        ([], "malformed.non_canonical"),
        ([_jwk(kid="HCLEkPub")], "malformed.non_canonical"),
        ([_jwk(), _jwk()], "malformed.non_canonical"),
        ([_jwk(kty="EC")], "malformed.non_canonical"),
        ([_jwk(key_ops=["encrypt"])], "malformed.non_canonical"),
        ([_jwk(key_ops=["sign", "encrypt"])], "malformed.non_canonical"),
        ([_jwk(key_ops=None)], "malformed.non_canonical"),
        ([_jwk(x5u="https://example.com/")], "malformed.non_canonical"),
        ([_jwk(e="AQ")], "not_genuine.weak_key"),
        ([_jwk(e="AAEAAQ")], "malformed.non_canonical"),
        ([_jwk(n="_w")], "not_genuine.weak_key"),
        ([_jwk(n=_jwk()["n"] + "=")], "malformed.non_canonical"),
        ([_jwk(n="AA" + _jwk()["n"])], "not_genuine.weak_key"),
    ],
)
def test_tpm_04_runtime_claims_without_exactly_one_usable_key_are_refused(keys: list[Any], code: str) -> None:
    assert tpm.azure(claims={"keys": keys}).refusal()[0] == code


def test_ev_23_duplicate_names_in_the_runtime_claims_are_refused() -> None:
    """The hardware signed them all the same: two readers could take two different keys from them."""
    text = simulator.runtime_claims(tpm.platform(scheme="rsassa").ak_key)
    assert tpm.azure(claims_json=text[:-1] + b',"keys":[]}').refusal() == ["malformed.non_canonical"]
    assert tpm.azure(claims_json=text + b"{}").refusal() == ["malformed.non_canonical"]


def test_tpm_10_without_the_hcl_report_no_platform_vouches_for_a_tpm() -> None:
    """Neither a label nor a report of some confidential VM makes a TPM's key trusted."""
    case = tpm.azure(anchors=(tpm.platform().anchor,))
    assert case.refusal(hcl=None) == [UNTRUSTED]
    assert case.refusal(hcl=None, spki=tpm.platform(scheme="rsassa").ak_key.public_key_der) == [UNTRUSTED]


@pytest.mark.parametrize("tee", ["sgx", "nitro", "tdx", "tpm", "nvidia"])
def test_tpm_10_evidence_of_another_tee_vouches_for_no_azure_tpm(tee: str) -> None:
    case = tpm.azure()
    beside = stand_in(case.report.report, "snp", tee=tee)
    code = "malformed.unknown_format" if tee == "tdx" else UNTRUSTED
    assert tpm.refusal(case.evidence.encode(), anchors=(), beside=beside) == [code]


def test_tpm_10_an_hcl_report_alone_proves_nothing() -> None:
    """Without a platform whose report was verified, what the HCL report says is nobody's word."""
    case = tpm.azure()
    part = case.evidence.encode()
    assert tpm.refusal(part, anchors=(tpm.platform().anchor,)) == [UNTRUSTED]
    pin = tpm.platform(scheme="rsassa").pin
    spki = tpm.platform(scheme="rsassa").ak_key.public_key_der
    claims = tpm.authenticate(replace(case.evidence, spki=spki).encode(), anchors=(pin,))
    assert (details(claims).trust, details(claims).azure) == ("pinned", None)


def test_platform_report_data_of_another_length_is_refused() -> None:
    case = tpm.azure()
    beside = stand_in(case.report.report, "snp", report_data=case.platform.report_data[:32])
    assert tpm.refusal(case.evidence.encode(), anchors=(), beside=beside) == [IDENTITY]


def test_a_composite_verdict_names_both_parts() -> None:
    case = tpm.azure()
    policy = AppraisalPolicy.from_table(
        {
            "tees": ["snp", "tpm"],
            "reference": {
                "snp": {"measurement": [snp.MEASUREMENT.hex()]},
                "tpm": {"pcr": {"4": [tpm.platform().pcrs["sha256"][4].hex()]}},
            },
        }
    )
    verifier = Verifier(policy, extra_anchors=(case.report.authority.anchor(),))
    result = verifier.verify(Evidence.decode(case.bundle().encode()), at=tpm.AT)
    assert [one.tee for one in result.parts] == ["tpm"]
    swapped = replace(
        case.bundle(),
        devices=(
            EvidencePart(
                "tpm",
                tpm.azure(
                    tpm=tpm.Platform.create(seed=2, scheme="rsassa", ak_key=tpm.rsa_key(2))
                ).evidence.encode(),
            ),
        ),
    )
    assert tpm.codes(lambda: verifier.verify(swapped, at=tpm.AT)) == [IDENTITY]
