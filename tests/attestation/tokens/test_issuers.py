# SPDX-License-Identifier: Apache-2.0
"""What each issuer holds against an attester is refused, and claims of another form than documented are no claims."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest

from confide.attestation.policy import AppraisalPolicy
from confide.attestation.result import Vector
from confide.attestation.tokens import appraise, nras
from support import snp, tokens
from support.refusal import code_of
from support.tokens import GPU, OVERALL, Case, Signer, case

ATTRIBUTES, MEASUREMENT = ["not_acceptable.attributes"], ["not_acceptable.measurement"]
NON_CANONICAL, IDENTITY = ["malformed.non_canonical"], ["not_genuine.identity_mismatch"]


def gpu(**changes: Any) -> Case:
    """NVIDIA's bundle with a change in its making."""
    given = case("nras")
    return given.token(tokens.bundle(given.signer, **changes))


# NVIDIA.


def test_gpu_07_the_bundle_passes() -> None:
    assert gpu().codes() == []


@pytest.mark.parametrize(("second", "codes"), [("478", []), ("477", ["not_acceptable.identity"])])
def test_gpu_07_one_device_in_two_parts_is_refused(second: str, codes: list[str]) -> None:
    """NVIDIA's service judges what it is sent, and one GPU's report can be sent twice."""
    signer = case("nras").signer
    header = {"alg": "ES384"}
    parts = {
        name: signer.jwt(tokens.GPU | {"ueid": device}, header=header)
        for name, device in (("GPU-0", "477"), ("GPU-1", second))
    }
    digests = {
        name: ["DIGEST", ["SHA-256", hashlib.sha256(text.encode()).hexdigest()]]
        for name, text in parts.items()
    }
    whole = signer.jwt(tokens.OVERALL | {"submods": digests}, header=header)
    assert case("nras").token(json.dumps([["JWT", whole], parts])).codes() == codes


@pytest.mark.parametrize("value", [False, None, "true", 1])
def test_gpu_07_an_overall_result_that_is_not_true_is_refused(value: object) -> None:
    assert gpu(overall={"x-nvidia-overall-att-result": value}).codes() == ATTRIBUTES


@pytest.mark.parametrize("name", nras._MUST_BE_TRUE)
@pytest.mark.parametrize("value", [False, None, "true"])
def test_gpu_07_a_check_of_a_device_that_is_not_true_is_refused(name: str, value: object) -> None:
    assert gpu(part={name: value}).codes() == ATTRIBUTES


@pytest.mark.parametrize("value", ["fail", "not-run", "absent", None, True])
def test_gpu_07_measurements_that_differ_are_refused(value: object) -> None:
    assert gpu(part={"measres": value}).codes() == MEASUREMENT


@pytest.mark.parametrize("chain", nras._CHAINS)
@pytest.mark.parametrize(
    "status",
    [
        None,
        {},
        {"x-nvidia-cert-status": "valid", "x-nvidia-cert-ocsp-status": "revoked"},
        {"x-nvidia-cert-status": "expired", "x-nvidia-cert-ocsp-status": "good"},
    ],
)
def test_gpu_07_a_chain_that_is_not_good_is_refused(chain: str, status: object) -> None:
    assert gpu(part={chain: status}).codes() == ATTRIBUTES


@pytest.mark.parametrize("status", ["enabled", "disabled-since-boot", None])
def test_gpu_07_a_device_that_can_be_debugged_is_refused(status: object) -> None:
    assert gpu(part={"dbgstat": status}).codes() == ["not_acceptable.debug"]


def test_gpu_07_a_part_from_another_bundle_is_refused() -> None:
    """The part of an older bundle, genuine, put in the place of this one's: the digest names another."""
    given = case("nras")
    old = json.loads(tokens.bundle(given.signer, part={"eat_nonce": "11" * 32}))
    new = json.loads(given.data)
    assert given.token(json.dumps([new[0], old[1]])).codes() == IDENTITY
    assert gpu(digest="00" * 32).codes() == IDENTITY


def test_gpu_07_a_part_that_answers_another_nonce_is_refused() -> None:
    assert gpu(part={"eat_nonce": "11" * 32}).codes() == IDENTITY
    assert gpu(overall={"eat_nonce": "11" * 32}).codes() == IDENTITY


def test_gpu_07_a_part_of_another_issuer_or_signer_is_refused() -> None:
    assert gpu(part={"iss": "https://evil.example"}).codes() == IDENTITY
    assert gpu(part_signer=Signer.of("ES384", 9)).codes() == ["not_genuine.bad_signature"]


def test_gpu_07_parts_are_those_that_are_named() -> None:
    given = case("nras")
    whole, parts = json.loads(given.data)
    assert gpu(names=("GPU-0", "GPU-1")).codes() == IDENTITY
    assert given.token(json.dumps([whole, {}])).codes() == IDENTITY
    assert given.token(json.dumps([whole, parts | {"GPU-1": parts["GPU-0"]}])).codes() == IDENTITY


@pytest.mark.parametrize(
    "submods",
    [
        None,
        {},
        {"GPU-0": "x"},
        {"GPU-0": ["DIGEST", ["SHA-1", "00" * 32]]},
        {"GPU-0": ["DIGEST", ["SHA-256"]]},
        {"GPU-0": ["JWT", ["SHA-256", "00" * 32]]},
        {"GPU-0": ["DIGEST", ["SHA-256", 7]]},
    ],
)
def test_gpu_07_parts_are_named_by_sha_256_only(submods: object) -> None:
    assert gpu(overall={"submods": submods}).codes() == NON_CANONICAL


def test_gpu_07_a_digest_of_another_length_is_refused() -> None:
    assert gpu(digest="00" * 31).codes() == ["malformed.length_mismatch"]


def test_gpu_07_one_part_or_the_whole_is_not_the_bundle() -> None:
    given = case("nras")
    assert given.token(given.signer.jwt(GPU, header={"alg": "ES384"})).codes() == ["malformed.unknown_format"]
    alone = given.signer.jwt(OVERALL | {"submods": {}}, header={"alg": "ES384"})
    assert given.token(alone).codes() == IDENTITY


@pytest.mark.parametrize("claim", ["exp", "iat", "nbf"])
def test_gpu_07_the_times_of_every_part_count(claim: str) -> None:
    value = tokens.NOW if claim == "exp" else tokens.NOW + 1
    codes = gpu(part={claim: value}).codes()
    assert codes == ["not_genuine.expired" if claim == "exp" else "not_genuine.not_yet_valid"]
    assert gpu(part={"exp": None}).codes() == NON_CANONICAL


@pytest.mark.parametrize("nonce", [None, 7, "11" * 31, "0x" + "11" * 31])
def test_gpu_07_a_bundle_without_a_nonce_is_refused(nonce: object) -> None:
    (code,) = gpu(overall={"eat_nonce": nonce}, part={"eat_nonce": nonce}).codes()
    assert code.startswith("malformed.")


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v[:1],
        lambda v: [*v, 1],
        lambda v: [["JWS", v[0][1]], v[1]],
        lambda v: [v[0], []],
        lambda v: [v[0], {"GPU-0": 1}],
        lambda v: [v[1], v[0]],
        lambda v: [v[0][1], v[1]],
    ],
)
def test_a_bundle_of_another_form_is_refused(change: Any) -> None:
    given = case("nras")
    (code,) = given.token(json.dumps(change(json.loads(given.data)))).codes()
    assert code in {"malformed.unknown_format", "malformed.limit_exceeded"}


def test_a_bundle_whose_whole_is_of_another_issuer_is_refused() -> None:
    text = case("ear").data.decode()
    assert case("ear").token(json.dumps([["JWT", text], {}])).codes() == ["malformed.unknown_format"]


# Google.


@pytest.mark.parametrize(
    ("claim", "value"), [("swname", "GCE"), ("secboot", False), ("secboot", None), ("secboot", 1)]
)
def test_google_s_image_must_be_confidential_space_booted_securely(claim: str, value: object) -> None:
    assert case("google-confidential-space").changed(claim, value).codes() == ATTRIBUTES


@pytest.mark.parametrize("digest", ["sha512:" + "ab" * 32, "ab" * 32, "sha256:AB" + "ab" * 31, 7])
def test_google_s_image_digest_has_one_form(digest: object) -> None:
    (code,) = case("google-confidential-space").changed("submods/container/image_digest", digest).codes()
    assert code.startswith("malformed.")


@pytest.mark.parametrize("nonce", [None, 7, [], [7], "short", "a" * 257])
def test_google_s_nonce_is_text(nonce: object) -> None:
    (code,) = case("google-confidential-space").changed("eat_nonce", nonce).codes()
    assert code.startswith("malformed.")


def test_google_s_token_that_nobody_asked_for_binds_nobody() -> None:
    given = case("google-confidential-space").changed("eat_nonce", remove=True)
    assert given.accept().claims.report_data == b""
    assert given.codes(report_data=tokens.NONCE) == ["not_acceptable.channel"]


def test_several_nonces_bind_nobody() -> None:
    given = case("google-confidential-space").changed("eat_nonce", [tokens.NONCE.hex(), "another-nonce"])
    assert given.accept().claims.report_data == b""
    assert given.codes(report_data=tokens.NONCE) == ["not_acceptable.channel"]
    one = case("google-confidential-space").changed("eat_nonce", ["a nonce in words"])
    assert one.accept().claims.report_data == b"a nonce in words"


# Azure.


@pytest.mark.parametrize(
    ("kind", "claims", "hardware", "registers"),
    [
        (
            "sgx",
            {
                "x-ms-sgx-is-debuggable": False,
                "x-ms-sgx-mrenclave": "ab" * 32,
                "x-ms-sgx-report-data": "01" * 64,
            },
            "sgx",
            {"mrenclave": b"\xab" * 32},
        ),
        (
            "tdxvm",
            {
                "tdx_td_attributes_debug": False,
                "tdx_mrtd": "ab" * 48,
                "tdx_rtmr2": "cd" * 48,
                "tdx_report_data": "01" * 64,
            },
            "tdx",
            {"mrtd": b"\xab" * 48, "rtmr2": b"\xcd" * 48},
        ),
    ],
)
def test_azure_s_other_tees_are_read_as_documented(
    kind: str, claims: dict[str, Any], hardware: str, registers: dict[str, bytes]
) -> None:
    base = case("maa")
    kept = {name: value for name, value in tokens.MAA.items() if not name.startswith("x-ms-sevsnp")}
    data = base.signer.jwt(kept | {"x-ms-attestation-type": kind} | claims)
    result = base.token(data).pinned(claims="ANY").accept(report_data=b"\1" * 64)
    assert result.claims.details.said.hardware == (hardware,)
    assert dict(result.claims.measurements) == registers
    assert "note.unproven" in {reason.code for reason in result.reasons}


def test_azure_s_vm_stands_on_its_isolating_tee() -> None:
    base = case("maa")
    tee = {name: value for name, value in tokens.MAA.items() if name.startswith("x-ms-sevsnp")}
    tee |= {"x-ms-attestation-type": "sevsnpvm", "x-ms-compliance-status": "azure-compliant-cvm"}
    common = {name: tokens.MAA[name] for name in ("iss", "iat", "exp", "x-ms-ver")}
    vm = common | {
        "x-ms-attestation-type": "azurevm",
        "x-ms-isolation-tee": tee,
        "x-ms-runtime": {"client-payload": {"nonce": base64.b64encode(tokens.NONCE).decode()}},
    }
    path = "x-ms-isolation-tee.x-ms-sevsnpvm-launchmeasurement"

    def codes(**changes: Any) -> list[str]:
        given = base.token(base.signer.jwt(vm | {k.replace("_", "-"): v for k, v in changes.items()}))
        return given.pinned(claims={path: ["cd" * 48]}).codes(report_data=tokens.NONCE)

    assert codes() == []
    assert codes(x_ms_isolation_tee=tee | {"x-ms-compliance-status": "none"}) == ATTRIBUTES
    assert codes(x_ms_isolation_tee=tee | {"x-ms-sevsnpvm-is-debuggable": True}) == ["not_acceptable.debug"]
    for name in ("bootdebug", "kerneldebug", "hypervisordebug"):
        assert codes(**{f"x-ms-azurevm-{name}-enabled": True}) == ["not_acceptable.debug"]
    assert codes(x_ms_runtime={}) == ["not_acceptable.channel"]
    bare = base.token(base.signer.jwt({k: v for k, v in vm.items() if k != "x-ms-isolation-tee"}))
    assert bare.pinned(claims="ANY").codes() == ["not_acceptable.debug", "not_acceptable.tee"]


@pytest.mark.parametrize("value", [["sevsnpvm"], {}, 1, True])
def test_azure_s_type_that_is_no_text_is_refused(value: object) -> None:
    assert case("maa").changed("x-ms-attestation-type", value).codes() == NON_CANONICAL


@pytest.mark.parametrize("value", ["", "cd" * 47, "CD" * 48, 7, None])
def test_azure_s_measurement_has_one_form(value: object) -> None:
    codes = case("maa").changed("x-ms-sevsnpvm-launchmeasurement", value).codes()
    assert codes == MEASUREMENT if value is None else codes[0].startswith("malformed.")


def test_azure_s_policy_is_no_measurement() -> None:
    """A region's default policy has one hash for everybody's machines: pinned alone, it leaves open what runs."""
    pins = {"x-ms-policy-hash": ["hash"]}
    result = case("maa").changed("x-ms-policy-hash", "hash").pinned(claims=pins).accept()
    assert result.vector.executables == 33
    assert any("`measurement`" in reason.message for reason in result.reasons)
    pins["x-ms-sevsnpvm-launchmeasurement"] = ["cd" * 48]
    assert (
        case("maa").changed("x-ms-policy-hash", "hash").pinned(claims=pins).accept().vector.executables == 3
    )


# Intel.


def test_intel_s_flat_token_is_read_as_documented() -> None:
    base = case("ita")
    flat = (
        {name: tokens.ITA[name] for name in ("iss", "iat", "exp")}
        | tokens.ITA["tdx"]
        | {"attester_type": "TDX"}
    )
    given = base.token(base.signer.jwt(flat)).pinned(claims={"tdx_mrtd": ["ef" * 48]})
    assert given.codes(report_data=tokens.NONCE) == []
    del flat["attester_held_data"]
    given = given.token(base.signer.jwt(flat))
    assert given.codes(report_data=bytes(64)) == []
    assert given.codes(report_data=tokens.NONCE) == ["not_acceptable.channel"]
    other = given.token(base.signer.jwt(flat | {"attester_type": "CCA"}))
    assert "not_acceptable.tee" in other.codes()


def test_intel_s_composite_token_has_one_cpu() -> None:
    given = case("ita")
    both = given.changed("sgx", {"sgx_is_debuggable": False})
    assert both.codes() == ["malformed.unknown_format"]
    with_gpu = given.changed("nvgpu", {"dbgstat": "disabled", "measres": "success"})
    assert with_gpu.codes() == []
    assert with_gpu.accept().claims.details.said.hardware == ("tdx", "nvidia")
    assert with_gpu.pinned(tees=["tdx"]).codes() == ["not_acceptable.tee"]


GOOD_GPU: dict[str, Any] = {
    "dbgstat": "disabled",
    "measres": "comparison-successful",
    "secboot": True,
    "x-nvidia-gpu-arch-check": True,
}
DEBUG = ["not_acceptable.debug"]


@pytest.mark.parametrize("nest", [lambda one: one, lambda one: {"gpus": [GOOD_GPU, one]}])
@pytest.mark.parametrize(
    ("change", "codes"),
    [
        ({}, []),
        ({"dbgstat": "enabled"}, DEBUG),
        ({"dbgstat": None}, DEBUG),
        ({"measres": "fail"}, MEASUREMENT),
        ({"measres": []}, MEASUREMENT),
        ({"secboot": False}, ATTRIBUTES),
        ({"x-nvidia-gpu-arch-check": False}, ATTRIBUTES),
    ],
)
def test_gpu_07_a_gpu_in_a_composite_token_of_intel_s_is_judged_too(
    nest: Any, change: dict[str, Any], codes: list[str]
) -> None:
    assert case("ita").changed("nvgpu", nest(GOOD_GPU | change)).codes() == codes


@pytest.mark.parametrize("silent", [{}, {"x": 1}])
def test_gpu_07_a_gpu_of_which_intel_says_nothing_is_refused(silent: dict[str, Any]) -> None:
    assert case("ita").changed("nvgpu", silent).codes() == [*DEBUG, *MEASUREMENT]


@pytest.mark.parametrize(
    "claim", ["tdx_is_debuggable", "attester_tcb_status", "attester_held_data", "tdx_mrtd"]
)
def test_intel_s_claims_of_another_type_are_refused(claim: str) -> None:
    (code,) = case("ita").changed(f"tdx/{claim}", 7).codes()
    assert code.startswith("malformed.")


# EAR.


def test_an_ear_without_iss_is_its_developer_s() -> None:
    given = case("ear").changed("iss", remove=True)
    assert given.codes() == []
    assert given.pinned(issuer="https://other.example").codes() == IDENTITY


@pytest.mark.parametrize(
    ("extension", "codes"),
    [
        ({"tee": "snp", "simulated": False}, []),
        ({"tee": "snp", "simulated": True}, ["not_acceptable.tee"]),
        ({"tee": "snp"}, ["not_acceptable.tee"]),
        ({"tee": "cca", "simulated": False}, ["not_acceptable.tee"]),
    ],
)
def test_confide_s_own_extension_names_the_hardware(extension: dict[str, Any], codes: list[str]) -> None:
    assert case("ear").changed("submods/cpu/confide", extension).codes() == codes


@pytest.mark.parametrize(
    ("evidence", "codes"),
    [
        ({"az-snp-vtpm": {}}, []),
        ({"sample": {}}, ["not_acceptable.tee"]),
        ({"tdx": {}, "snp": {}}, ["not_acceptable.tee"]),
        ({}, ["not_acceptable.tee"]),
    ],
)
def test_trustee_s_evidence_names_the_hardware(evidence: dict[str, Any], codes: list[str]) -> None:
    given = case("ear").changed("submods/cpu/ear_veraison_annotated_evidence", evidence)
    assert given.codes() == codes


def test_an_unaffirmed_configuration_counts_as_debugging() -> None:
    vector = {"hardware": 2, "configuration": 96}
    given = case("ear").changed("submods/cpu/ear_trustworthiness_vector", vector)
    assert given.codes() == ["malformed.non_canonical"]  # The status would be better than the claim.
    submod = tokens.EAR["submods"]["cpu"] | {
        "ear_status": "contraindicated",
        "ear_trustworthiness_vector": vector,
    }
    assert case("ear").changed("submods", {"cpu": submod}).codes() == [
        "not_acceptable.attributes",
        "not_acceptable.debug",
    ]


def test_an_ear_s_own_vector_is_the_result_s() -> None:
    submod = tokens.EAR["submods"]["cpu"] | {
        "ear_status": "warning",
        "ear_trustworthiness_vector": {"hardware": 2, "executables": 33, "storage-opaque": 2},
    }
    result = case("ear").changed("submods", {"cpu": submod}).pinned(tier="warning").accept()
    assert result.vector == Vector(hardware=2, executables=33, storage_opaque=2)


def test_of_several_attesters_the_worst_claims_count() -> None:
    good = tokens.EAR["submods"]["cpu"]
    bad = good | {"ear_status": "warning", "ear_trustworthiness_vector": {"hardware": 32, "executables": 2}}
    result = case("ear").changed("submods", {"cpu": good, "gpu": bad}).pinned(tier="warning").accept()
    assert result.vector == Vector(instance_identity=2, executables=3, hardware=32)


def test_claims_of_another_tee_are_no_token_s() -> None:
    other = snp.verify(snp.mint(version=5)).claims
    reference = appraise.parse_reference(case("ear").table)
    policy = AppraisalPolicy.from_table({"tees": ["token"], "reference": {"token": case("ear").table}})
    for function, arguments in (
        (appraise.appraise, (other, reference, policy)),
        (appraise.trustworthiness, (other, reference)),
        (appraise.describe, (other,)),
        (appraise.appraise, (case("ear").accept().claims, object(), policy)),
    ):
        assert code_of(function, *arguments) == "attestation.internal"
