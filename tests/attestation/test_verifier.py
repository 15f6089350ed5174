# SPDX-License-Identifier: Apache-2.0
"""The Verifier: what it refuses, in which order, and that it fails closed."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import itertools
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from confide.attestation import binding, result, schemes, verifier, vouching
from confide.attestation.claims import Claims
from confide.attestation.evidence import Endorsements, Evidence, EvidencePart
from confide.attestation.result import AttestationResult
from confide.attestation.verifier import Verifier
from confide.crypto.x509 import Extension
from confide.errors import (
    AttestationError,
    ConfideError,
    ConfigurationError,
    MalformedError,
    NotAcceptable,
    NotGenuine,
)
from confide.tees.snp import appraise, authenticate, endorse
from support import bundles, snp

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NONCE, OTHER = b"\x10" * 32, b"\x20" * 32
ASKED: dict[str, Any] = {
    "nonce": NONCE,
    "age": timedelta(seconds=2),
    "purpose": "channel",
    "audience": "client",
}


def refusal(evidence: Evidence | bytes, *, options: dict[str, Any] | None = None, **asked: Any) -> list[str]:
    """The codes with which a bundle is refused; fails the test if it is accepted."""
    with pytest.raises((AttestationError, MalformedError)) as caught:
        bundles.verifier(**(options or {})).verify(evidence, at=snp.AT, **(ASKED | asked))
    error = caught.value
    return snp.codes(error) if isinstance(error, AttestationError) else [error.code]


def test_a_fresh_bundle_is_accepted_with_everything_that_it_vouches_for() -> None:
    bundle = bundles.fresh(NONCE)

    result = bundles.verifier().verify(bundle.encode(), at=snp.AT, **ASKED)

    assert result.verdict == "accepted"
    assert (result.freshness, result.age) == ("fresh", timedelta(seconds=2))
    assert result.kid == hashlib.sha256(bundle.key_material or b"").digest()
    assert result.key_material == bundles.material()
    assert result.evidence == bundle
    assert result.tier.name == "AFFIRMING"


def test_a_cached_bundle_is_accepted_only_where_the_caller_opts_in() -> None:
    bundle = bundles.cached()

    result = bundles.verifier().verify(bundle, at=snp.AT, purpose="channel", audience="client", cached=True)

    assert (result.freshness, result.age) == ("claimed", timedelta(seconds=60))
    assert refusal(bundle, nonce=None) == ["not_acceptable.nonce_missing"]
    assert refusal(bundle) == ["not_acceptable.nonce_missing"]


def test_a_claimed_age_never_satisfies_max_age() -> None:
    options = {"top": {"max_age": "1h"}}

    assert refusal(bundles.cached(), options=options, nonce=None, cached=True) == ["not_acceptable.stale"]
    result = bundles.verifier(**options).verify(bundles.fresh(NONCE), at=snp.AT, **ASKED)
    assert result.freshness == "fresh"


def test_bnd_01_evidence_for_another_nonce_is_refused() -> None:
    old = bundles.fresh(OTHER)

    assert refusal(old) == ["not_acceptable.nonce_mismatch", "not_acceptable.channel"]
    assert refusal(bundles.cached()) == ["not_acceptable.nonce_missing"]


@pytest.mark.parametrize("length", [0, 1, 31, 33, 64])
def test_bnd_03_a_nonce_of_another_length_is_the_callers_error(length: int) -> None:
    with pytest.raises(ConfigurationError) as caught:
        bundles.verifier().verify(bundles.fresh(NONCE), at=snp.AT, nonce=bytes(length))

    assert caught.value.code == "configuration.nonce"


@pytest.mark.parametrize(
    ("age", "code"),
    [
        (timedelta(hours=1, seconds=1), "not_acceptable.stale"),
        (None, "not_acceptable.stale"),
        (timedelta(seconds=-1), "not_acceptable.from_future"),
    ],
)
def test_bnd_03_an_answer_that_took_too_long_is_refused(age: timedelta | None, code: str) -> None:
    assert refusal(bundles.fresh(NONCE), options={"top": {"max_age": "1h"}}, age=age) == [code]


def test_bnd_03_an_age_up_to_the_limit_is_accepted() -> None:
    asked = ASKED | {"age": timedelta(hours=1)}

    result = bundles.verifier(top={"max_age": "1h"}).verify(bundles.fresh(NONCE), at=snp.AT, **asked)

    assert result.age == timedelta(hours=1)


def test_bnd_03_a_proof_of_another_leaf_an_inner_node_or_another_size_is_refused() -> None:
    nonces = [bytes([index]) * 32 for index in range(5)]
    bundle = bundles.fresh(nonces[2], batch=nonces)
    asked = ASKED | {"nonce": nonces[2]}
    assert bundles.verifier().verify(bundle, at=snp.AT, **asked).freshness == "fresh"
    proof = bundle.proof
    assert proof is not None

    moved = dataclasses.replace(proof, index=3)
    shorter = binding.NonceProof(3, 1, proof.path[1:])
    inner = binding.NonceProof(proof.size, proof.index, (proof.path[1], proof.path[0], *proof.path[2:]))
    cut = binding.NonceProof(proof.size, proof.index, proof.path[:-1])
    for wrong in (moved, shorter, inner, cut):
        codes = refusal(dataclasses.replace(bundle, proof=wrong), nonce=nonces[2])
        assert codes[0] in {"not_acceptable.nonce_mismatch", "malformed.length_mismatch"}


@pytest.mark.parametrize("position", [0, 31, 32, 63])
def test_bnd_06_all_64_bytes_of_report_data_are_compared(position: int) -> None:
    genuine = binding.report_data(binding.leaf(b"", bundles.material().encode()))
    changed = bytearray(genuine)
    changed[position] ^= 1

    bundle = bundles.cached(report_data=bytes(changed))

    assert refusal(bundle, nonce=None, cached=True) == ["not_acceptable.channel"]


@pytest.mark.parametrize("position", [0, 31, 32, 63])
def test_bnd_06_report_data_that_the_caller_asks_for_is_compared_whole(position: int) -> None:
    changed = bytearray(snp.REPORT_DATA)
    changed[position] ^= 1

    assert snp.verify(snp.mint(), report_data=snp.REPORT_DATA).verdict == "accepted"
    with pytest.raises(NotAcceptable) as caught:
        snp.verify(snp.mint(), report_data=bytes(changed))
    assert snp.codes(caught.value) == ["not_acceptable.channel"]
    for length in (0, 32, 63, 65):
        with pytest.raises(ConfigurationError) as short:
            snp.verify(snp.mint(), report_data=snp.REPORT_DATA[:length].ljust(length, b"\0"))
        assert short.value.code == "configuration.report_data"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"kind": "broker"}, "not_acceptable.identity"),
        ({"id": "other"}, "not_acceptable.identity"),
        ({"manifest": b"\x77" * 32}, "not_acceptable.measurement"),
    ],
)
def test_bnd_10_genuine_evidence_of_another_service_is_refused(change: dict[str, Any], code: str) -> None:
    service = dataclasses.replace(bundles.material().service, **change)

    assert set(refusal(bundles.fresh(NONCE, service=service))) == {code}


@pytest.mark.parametrize("made_for", ["channel", "release", "member"])
@pytest.mark.parametrize("wanted", ["channel", "release", "member"])
def test_bnd_11_evidence_made_for_one_purpose_serves_no_other(made_for: str, wanted: str) -> None:
    bundle = bundles.fresh(NONCE, purpose=made_for)

    if made_for == wanted:
        assert (
            bundles.verifier().verify(bundle, at=snp.AT, **(ASKED | {"purpose": wanted})).verdict
            == "accepted"
        )
    else:
        assert refusal(bundle, purpose=wanted) == ["not_acceptable.purpose"]


@pytest.mark.parametrize(
    ("made_for", "wanted"), [("client", "broker"), ("client", None), ("", "client"), ("client", "")]
)
def test_bnd_11_evidence_made_for_one_audience_serves_no_other(made_for: str, wanted: str | None) -> None:
    assert refusal(bundles.fresh(NONCE, audience=made_for), audience=wanted) == ["not_acceptable.identity"]


def test_bnd_13_another_key_under_genuine_evidence_is_refused() -> None:
    genuine = bundles.fresh(NONCE)
    substituted = dataclasses.replace(genuine, key_material=bundles.material(key=b"\x99" * 1216).encode())
    cached = dataclasses.replace(bundles.cached(), key_material=substituted.key_material)

    assert "not_acceptable.channel" in refusal(substituted)
    assert refusal(cached, nonce=None, cached=True) == ["not_acceptable.channel"]


def test_evidence_without_a_key_vouches_for_none() -> None:
    raw = snp.mint().evidence

    assert set(refusal(raw)) == {
        "not_acceptable.channel",
        "not_acceptable.identity",
        "not_acceptable.nonce_missing",
    }


def test_every_use_needs_a_service_in_the_policy() -> None:
    assert refusal(bundles.fresh(NONCE), options={"top": {"service": None}}) == [
        "not_acceptable.empty_policy"
    ]


def test_a_policy_with_a_service_refuses_evidence_that_names_none() -> None:
    assert refusal(snp.mint().evidence, nonce=None, purpose=None, audience=None) == [
        "not_acceptable.identity"
    ]


def test_the_manifest_in_the_bundle_must_be_the_one_that_the_key_material_names() -> None:
    bundle = bundles.fresh(NONCE)

    assert bundle.manifest == bundles.MANIFEST
    assert refusal(dataclasses.replace(bundle, manifest=b"another")) == ["not_acceptable.measurement"]


@pytest.mark.parametrize(
    ("issued", "code"), [(-3600 - 61, "not_acceptable.stale"), (301, "not_acceptable.from_future")]
)
def test_a_cached_key_outside_its_own_lifetime_is_refused(issued: int, code: str) -> None:
    bundle = bundles.cached(issued_at=int(snp.AT.timestamp()) + issued)

    assert refusal(bundle, nonce=None, cached=True) == [code]


def test_the_clock_of_the_enclave_decides_nothing_about_fresh_evidence() -> None:
    bundle = bundles.fresh(NONCE, issued_at=0)

    assert bundles.verifier().verify(bundle, at=snp.AT, **ASKED).freshness == "fresh"


def test_bnd_13_a_result_names_no_key_and_no_service_that_the_report_was_not_seen_to_vouch_for() -> None:
    bundle = bundles.fresh(NONCE)
    stapled = dataclasses.replace(bundle, key_material=bundles.material(key=bytes(1216)).encode())
    without_service = bundles.verifier(top={"service": None})

    for given in (bundle, stapled):
        result = without_service.verify(given, at=snp.AT)
        assert result.freshness == "not checked"
        assert (result.key_material, result.kid) == (None, None)
    assert without_service.verify(bundle, at=snp.AT, nonce=NONCE).key_material == bundles.material()


@pytest.mark.parametrize(
    "asked", [{}, {"audience": "client"}, {"purpose": "channel", "audience": "client", "cached": True}]
)
def test_bnd_10_key_material_that_answers_an_unknown_nonce_names_no_service(asked: dict[str, Any]) -> None:
    stapled = dataclasses.replace(bundles.fresh(NONCE), key_material=bundles.material(epoch=2).encode())
    unasked: dict[str, Any] = {"nonce": None, "age": None, "purpose": None, "audience": None}

    assert refusal(stapled, **(unasked | asked)) == ["not_acceptable.nonce_missing"]


def test_a_time_that_does_not_exist_in_utc_is_refused() -> None:
    at = datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))

    with pytest.raises(ConfigurationError):
        snp.verify(snp.mint(), at=at)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ConfigurationError) as caught:
        snp.verify(snp.mint(), at=datetime(2026, 6, 1))  # noqa: DTZ001

    assert caught.value.code == "configuration.time"


@pytest.mark.parametrize("size", [100_000_000, 262_145])
@pytest.mark.parametrize("fill", [b"\x00", b"\x81"])
def test_ev_14_huge_evidence_is_refused_before_it_is_parsed(size: int, fill: bytes) -> None:
    data = fill * size
    tracemalloc.start()
    try:
        with pytest.raises(MalformedError) as caught:
            bundles.verifier().verify(data, at=snp.AT)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert caught.value.code == "malformed.limit_exceeded"
    assert peak < 1_000_000


def test_ev_14_deep_nesting_is_refused() -> None:
    with pytest.raises(MalformedError):
        bundles.verifier().verify(b"\x81" * 200_000, at=snp.AT)


def test_ev_07_evidence_under_a_name_that_is_not_known_is_refused() -> None:
    case = snp.mint()

    for tee in ("sev", "SNP", ""):
        labelled = Evidence(EvidencePart(tee, case.report), endorsements=case.endorsements)
        with pytest.raises(MalformedError) as caught:
            snp.verify(labelled, anchors=(case.authority.anchor(),))
        assert caught.value.code == "malformed.unknown_format"


def test_ev_07_evidence_of_other_tees_is_no_snp_report(shared: Path) -> None:
    folder = shared / "evidence"
    for path in (
        *folder.glob("tdx/*.quote.bin"),
        *folder.glob("sgx/*.quote.bin"),
        *folder.glob("nitro/*.bin"),
    ):
        with pytest.raises((MalformedError, NotGenuine)):
            snp.verify(Evidence(EvidencePart("snp", path.read_bytes())))


def test_ev_18_no_trusted_root_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endorse, "anchors", tuple)

    with pytest.raises(NotGenuine) as caught:
        snp.verify(snp.mint(), anchors=())
    assert caught.value.code == "not_genuine.no_trusted_roots"


def test_ev_18_anchors_without_a_root_or_of_another_tee_are_no_roots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endorse, "anchors", tuple)
    anchor = snp.authority().anchor()
    empty = dataclasses.replace(anchor, certificates=())
    only_ca = dataclasses.replace(anchor, certificates=anchor.certificates[1:])
    other = dataclasses.replace(anchor, tee="tdx")

    for useless in (empty, only_ca, other):
        with pytest.raises(NotGenuine) as caught:
            snp.verify(snp.mint(), anchors=(useless,))
        assert caught.value.code == "not_genuine.no_trusted_roots"


@pytest.mark.parametrize(
    ("family", "model"), [(0x17, 0x31), (0x19, 0x20), (0x19, 0xB0), (0x1A, 0x20), (0xFF, 0xFF), (0, 0)]
)
def test_ev_18_a_processor_without_a_pinned_root_is_refused(family: int, model: int) -> None:
    case = snp.mint(report={"cpuid_fam_id": family, "cpuid_mod_id": model})

    with pytest.raises(NotGenuine) as caught:
        snp.verify(case)
    assert snp.codes(caught.value) == ["not_genuine.no_trusted_roots"]


def test_ev_27_no_field_of_evidence_can_be_read_before_it_is_verified() -> None:
    evidence = snp.mint().evidence

    fields = {field.name for field in dataclasses.fields(evidence)} | {
        field.name for field in dataclasses.fields(evidence.platform)
    }
    assert fields.isdisjoint({"measurement", "measurements", "report_data", "host_data", "details", "claims"})
    with pytest.raises(AttributeError):
        _ = evidence.measurement  # type: ignore[attr-defined]


def test_ev_27_claims_and_results_cannot_be_made_by_hand() -> None:
    result: Any = snp.verify(snp.mint())
    claims: Any = result.claims
    values = {field.name: getattr(result.claims, field.name) for field in dataclasses.fields(Claims)}

    with pytest.raises(ConfigurationError) as no_claims:
        Claims(**values, witness=object())
    with pytest.raises((ConfigurationError, ValueError, TypeError)):
        dataclasses.replace(claims, simulated=False)
    made = {field.name: getattr(result, field.name) for field in dataclasses.fields(AttestationResult)}
    with pytest.raises(ConfigurationError) as no_result:
        AttestationResult(**made, witness=object())
    assert (no_claims.value.code, no_result.value.code) == ("configuration.claims", "configuration.result")
    with pytest.raises((ConfigurationError, ValueError, TypeError)):
        dataclasses.replace(result, simulated=False)


def test_ev_27_only_authentication_makes_claims_and_only_the_verifier_makes_results(repository: Path) -> None:
    makers: dict[str, set[str]] = {"authenticated": set(), "accepted": set()}
    for path in (repository / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in makers
            ):
                makers[node.func.attr].add(path.name)
            if isinstance(node, ast.ImportFrom):
                for name in node.names:
                    assert name.name != "_WITNESS"
                    if (node.module or "").endswith((".claims", ".result")) and name.name in makers:
                        makers[name.name].add(path.name)

    assert makers == {"authenticated": {"authenticate.py"}, "accepted": {"verifier.py"}}


CHECKS: list[tuple[Any, str]] = [
    (authenticate, "authenticate"),
    (authenticate, "_find_key_certificate"),
    (authenticate, "_verify_signature"),
    (authenticate, "_verify_chain"),
    (authenticate, "_check_revocation"),
    (authenticate, "_check_product_of_root"),
    (authenticate, "_check_processor"),
    (authenticate, "_read_tcbs"),
    (authenticate, "_compare_tcb"),
    (authenticate, "_check_identity"),
    (appraise, "appraise"),
    (appraise, "_signers"),
    (appraise, "_tcb"),
    (appraise, "trustworthiness"),
    (endorse, "anchors"),
    (vouching, "service"),
    (vouching, "bind"),
    (vouching, "_expected"),
    (vouching, "too_old"),
    (verifier, "_check_formats"),
    (verifier, "_simulated"),
    (verifier, "_composite_notes"),
    (binding, "equal"),
    (schemes, "scheme"),
]


@pytest.mark.parametrize(
    ("module", "name"), CHECKS, ids=lambda value: value if isinstance(value, str) else ""
)
@pytest.mark.parametrize(
    "error", [RuntimeError("secret"), KeyError("secret"), MemoryError(), RecursionError()]
)
def test_ev_29_a_check_that_cannot_run_refuses(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, error: Exception
) -> None:
    bundle = bundles.fresh(NONCE)
    assert bundles.verifier().verify(bundle, at=snp.AT, **ASKED).verdict == "accepted"
    ready = bundles.verifier()

    def broken(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(module, name, broken)
    with pytest.raises(AttestationError) as caught:
        ready.verify(bundle, at=snp.AT, **ASKED)

    assert caught.value.code == "attestation.internal"
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (authenticate, "_verify_chain"),
        (authenticate, "_check_revocation"),
        (authenticate, "_read_tcbs"),
        (authenticate, "_compare_tcb"),
        (appraise, "appraise"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_ev_29_a_check_that_gives_no_answer_refuses(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str
) -> None:
    bundle = bundles.fresh(NONCE)
    monkeypatch.setattr(module, name, lambda *_, **__: None)

    with pytest.raises(AttestationError):
        bundles.verifier().verify(bundle, at=snp.AT, **ASKED)


def _extension(value: bytes) -> Extension:
    return Extension(critical=False, value=value)


@pytest.mark.parametrize(
    ("module", "name", "harmless", "case"),
    [
        (authenticate, "_verify_signature", None, lambda: snp.mint().tamper(0x50, b"\xff")),
        (authenticate, "_check_product_of_root", None, lambda: snp.mint(root=snp.authority("Milan"))),
        (authenticate, "_check_processor", None, lambda: snp.mint(report={"cpuid_mod_id": 1})),
        (
            authenticate,
            "_compare_tcb",
            [],
            lambda: snp.mint(oids={endorse.OID_SNP_SPL: _extension(b"\2\1\1")}),
        ),
        (authenticate, "_check_identity", None, lambda: snp.mint(report={"chip_id": bytes(64)})),
        (appraise, "_signers", [], lambda: snp.mint(report={"key_info": 1, "author_key_digest": bytes(48)})),
        (appraise, "appraise", (), lambda: snp.mint(report={"policy": 0xB001F})),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_ev_30_each_check_alone_refuses_what_nothing_else_would(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, harmless: Any, case: Callable[[], snp.Minted]
) -> None:
    with pytest.raises(AttestationError):
        snp.verify(case())

    monkeypatch.setattr(module, name, lambda *_, **__: harmless)

    assert snp.verify(case()).verdict == "accepted"


def test_ev_31_the_policy_is_not_looked_at_before_the_signature() -> None:
    bad = snp.mint(report={"measurement": b"\xaa" * 48, "policy": 0xB001F}).tamper(0x90, b"\xab")

    with pytest.raises(NotGenuine) as caught:
        snp.verify(bad, report_data=bytes(64))

    assert {reason.stage for reason in caught.value.reasons} == {"signature"}


def test_ev_31_a_refusal_shows_neither_what_was_expected_nor_what_came() -> None:
    with pytest.raises(NotAcceptable) as caught:
        snp.verify(snp.mint(report={"measurement": b"\xaa" * 48}), report_data=b"\xbb" * 64)

    text = str(caught.value) + repr(caught.value.reasons)
    for value in (b"\xaa" * 48, b"\xbb" * 64, snp.MEASUREMENT, snp.REPORT_DATA):
        assert value.hex()[:16] not in text


def test_ev_32_threads_with_different_policies_do_not_disturb_each_other() -> None:
    cases = [snp.mint(product=product, version=5) for product in ("Milan", "Genoa", "Turin")]
    policies = [{}, {"products": ["Milan"]}, {"min_tcb": {"snp": 24}}, {"vmpl": [1]}]
    jobs: list[Any] = list(itertools.product(cases, policies)) * 6
    start = threading.Barrier(64)

    def run(job: tuple[snp.Minted, dict[str, Any]]) -> list[str]:
        case, reference = job
        try:
            return [snp.verify(case, reference=reference).tier.name]
        except NotAcceptable as error:
            return snp.codes(error)

    def together(job: tuple[snp.Minted, dict[str, Any]]) -> list[str]:
        start.wait(timeout=30)
        return run(job)

    serial = [run(job) for job in jobs[:64]]
    with ThreadPoolExecutor(64) as pool:
        parallel = list(pool.map(together, jobs[:64]))

    assert parallel == serial
    assert {code for found in serial for code in found} == {
        "AFFIRMING",
        "not_acceptable.attributes",
        "not_acceptable.below_minimum",
        "not_acceptable.vmpl",
    }


def test_ev_33_verification_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: Any, **__: Any) -> Any:
        raise AssertionError("verification opened a socket")

    monkeypatch.setattr("socket.socket", forbidden)
    monkeypatch.setattr("socket.getaddrinfo", forbidden)

    assert bundles.verifier().verify(bundles.fresh(NONCE), at=snp.AT, **ASKED).verdict == "accepted"


def test_ev_35_addresses_and_roots_in_evidence_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("socket.getaddrinfo", lambda *args, **_: asked.append(args))
    address = b"http://127.0.0.1:9/ask"
    general_name = bytes((0x86, len(address))) + address
    access = b"\x06\x08\x2b\x06\x01\x05\x05\x07\x30\x02" + general_name
    aia = bytes((0x30, len(access) + 2, 0x30, len(access))) + access
    forger = snp.authority("Genoa", seed=3)
    case = snp.mint(
        root=forger,
        oids={"1.3.6.1.5.5.7.1.1": _extension(aia)},
        extra=(forger.ask, forger.ark),
    )

    with pytest.raises(NotGenuine) as caught:
        snp.verify(case, anchors=(snp.authority().anchor(),))

    assert snp.codes(caught.value) == ["not_genuine.untrusted_root"]
    assert asked == []


def test_endorsements_given_and_stapled_are_both_used_and_both_untrusted() -> None:
    case = snp.mint()
    bare = Evidence(EvidencePart("snp", case.report))
    anchors = (case.authority.anchor(),)
    given = Verifier(snp.policy(), endorsements=case.endorsements, extra_anchors=anchors)
    forger = snp.authority("Genoa", seed=3)
    lying = Verifier(
        snp.policy(),
        endorsements=Endorsements((snp.mint(root=forger).certificate, forger.ask)),
        extra_anchors=anchors,
    )

    assert given.verify(bare, at=snp.AT).verdict == "accepted"
    with pytest.raises(NotGenuine):
        lying.verify(bare, at=snp.AT)


def test_sim_01_simulated_evidence_is_refused_without_its_anchor() -> None:
    case = snp.mint()

    for allow in (False, True):
        with pytest.raises(NotGenuine) as caught:
            snp.verify(case, anchors=(), allow_simulated=allow)
        assert snp.codes(caught.value) == ["not_genuine.untrusted_root"]


@pytest.mark.parametrize("stapled", [(), ("ask",), ("ask", "ark"), ("ark",)])
def test_sim_01_the_authorities_of_a_simulated_device_come_in_vain(stapled: tuple[str, ...]) -> None:
    root = snp.authority()
    case = snp.mint(extra=tuple(getattr(root, name) for name in stapled))

    with pytest.raises(NotGenuine) as caught:
        snp.verify(case, anchors=())

    assert snp.codes(caught.value) == ["not_genuine.untrusted_root"]


def test_sim_03_simulated_evidence_needs_both_consents_and_is_never_affirming() -> None:
    case = snp.mint()
    anchors = (case.authority.anchor(simulated=True),)

    with pytest.raises(NotAcceptable) as caught:
        snp.verify(case, anchors=anchors)
    result = snp.verify(case, anchors=anchors, allow_simulated=True)

    assert snp.codes(caught.value) == ["not_acceptable.simulated"]
    assert (result.simulated, result.tier.name) == (True, "CONTRAINDICATED")
    assert (result.vector.hardware, result.vector.instance_identity, result.vector.runtime_opaque) == (
        97,
        97,
        96,
    )
    shown = result.to_json()
    assert (shown["simulated"], shown["tier"]) == (True, "contraindicated")
    assert result.reasons[0].code == "note.simulated"


def test_sim_03_a_root_that_is_given_twice_is_simulated_if_one_of_them_says_so() -> None:
    root = snp.authority()

    for anchors in (
        (root.anchor(), root.anchor(simulated=True)),
        (root.anchor(simulated=True), root.anchor()),
    ):
        assert snp.verify(snp.mint(), anchors=anchors, allow_simulated=True).simulated


def test_sim_03_consent_to_simulation_changes_nothing_for_hardware() -> None:
    result = snp.verify(snp.mint(), allow_simulated=True)

    assert (result.simulated, result.tier.name) == (False, "AFFIRMING")


def test_a_tee_that_the_policy_does_not_admit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    case = snp.mint()
    ready = Verifier(snp.policy(), extra_anchors=(case.authority.anchor(),))
    monkeypatch.setattr(type(ready.policy), "__post_init__", lambda _: None)
    other = dataclasses.replace(ready.policy, tees=("tdx",), reference={})

    with pytest.raises(NotAcceptable) as caught:
        Verifier(other, extra_anchors=(case.authority.anchor(),)).verify(case.evidence, at=snp.AT)

    assert snp.codes(caught.value) == ["not_acceptable.tee"]


def test_nothing_but_errors_of_confide_leaves_the_verifier_for_damaged_bundles() -> None:
    data = bundles.fresh(NONCE).encode()
    ready = bundles.verifier()

    for position in range(0, len(data), 11):
        for value in (0x00, 0xFF, data[position] ^ 0x20):
            damaged = data[:position] + bytes((value,)) + data[position + 1 :]
            if damaged == data:
                continue
            with pytest.raises(ConfideError) as caught:
                ready.verify(damaged, at=snp.AT, **ASKED)
            assert caught.value.code != "attestation.internal", position


def test_what_is_genuine_and_not_acceptable_is_shown_and_what_is_not_genuine_is_not() -> None:
    debug = snp.mint(report={"policy": 0x30000 | 1 << 19})
    anchors = (debug.authority.anchor(),)

    with pytest.raises(NotAcceptable) as unacceptable:
        snp.verify(debug, anchors=anchors)
    with pytest.raises(NotGenuine) as forged:
        snp.verify(debug.tamper(0x2A0, bytes(48)), anchors=anchors)

    shown: Any = result.refusal(unacceptable.value)
    assert (shown["verdict"], shown["tee"]) == ("not_acceptable", "snp")
    assert shown["claims"]["guest_policy"]["debug"] is True
    assert shown["vouched_by"]
    assert result.refusal(forged.value)["claims"] == {}
    assert result.refusal(forged.value)["tee"] is None
