# SPDX-License-Identifier: Apache-2.0
"""Real documents of real enclaves, at their recorded times, with their documented verdicts.

These pin every field's name, type and size: a mistake made alike in reading and in minting shows only here.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from confide.attestation.evidence import Endorsements
from confide.attestation.policy import AppraisalPolicy
from confide.attestation.verifier import Verifier
from confide.crypto import x509
from confide.errors import ConfideError, MalformedError, NotAcceptable, NotGenuine
from confide.tees import formats
from confide.tees.nitro import appraise, authenticate, endorse, measure, wire

if TYPE_CHECKING:
    from pathlib import Path

    from confide.attestation.claims import Claims
    from confide.attestation.result import AttestationResult

PRODUCTION = ("prod-1k-fields", "prod-dstack", "prod-nitriding", "prod-pcr8")
DEBUG = ("debug-1k-fields", "debug-2021")
GENUINE = (*PRODUCTION, *DEBUG)
NOW = datetime(2026, 6, 1, tzinfo=UTC)

# Bits of the file around a real document (dstack's) that may be anything: nothing signs them, and reading the file drops
# them, so that evidence, claims and result are the same without them. [first, last) from the end of the document.
DROPPED = [
    (2, 8, "the name of a runtime event"),
    (9, 29, "the payload of a runtime event"),
    (95, 179, "dstack's configuration"),
]


def entry(shared: Path, name: str) -> dict[str, Any]:
    entries = json.loads((shared / "evidence" / "manifest.json").read_text())["entries"]
    return next(one for one in entries if one["id"] == name and one["tee"] == "nitro")


def at(shared: Path, name: str) -> datetime:
    return datetime.fromisoformat(entry(shared, name)["verify_at"])


def raw(shared: Path, name: str) -> bytes:
    return (shared / "evidence" / "nitro" / f"{name}.cose.bin").read_bytes()


def document(shared: Path, name: str) -> bytes:
    return wire.unframe(raw(shared, name))


def judge(data: bytes, when: datetime) -> Claims:
    return authenticate.authenticate(
        data, endorsements=Endorsements(), anchors=endorse.anchors(), at=when, require_revocation=False
    )


def verify(
    shared: Path,
    name: str,
    *,
    when: datetime | None = None,
    top: dict[str, Any] | None = None,
    **reference: Any,
) -> AttestationResult:
    table = {"pcr0": "ANY"} | reference
    policy = AppraisalPolicy.from_table({"tees": ["nitro"], **(top or {}), "reference": {"nitro": table}})
    evidence = formats.read(raw(shared, name), format="nitro")
    return Verifier(policy).verify(evidence, at=when or at(shared, name))


def codes(error: NotGenuine | NotAcceptable) -> list[str]:
    return [reason.code for reason in error.reasons]


@pytest.mark.parametrize("name", PRODUCTION)
def test_a_real_document_is_accepted_with_its_documented_facts(shared: Path, name: str) -> None:
    facts = entry(shared, name)["facts"]
    pins: dict[str, Any] = {f"pcr{index}": [facts["pcrs_nonzero"][index]] for index in ("0", "1", "2")}

    result = verify(shared, name, **pins)

    claims = appraise.describe(result.claims)
    shown = {
        index: claims[f"pcr{index}"]
        for index in map(str, range(facts["pcr_count"]))
        if set(str(claims[f"pcr{index}"])) != {"0"}
    }
    assert (result.tier.name, result.simulated) == ("AFFIRMING", False)
    assert shown == facts["pcrs_nonzero"]
    assert (claims["module_id"], claims["debug"], claims["digest"]) == (
        facts["module_id"],
        facts["debug_mode"],
        facts["digest"],
    )
    for field in ("public_key", "user_data", "nonce"):
        value = claims[field]
        assert (None if value is None else len(str(value)) // 2) == facts[f"{field}_len"]
    assert len(result.claims.chain) == facts["chain_len"]
    assert result.claims.unproven == ()


@pytest.mark.parametrize("name", DEBUG)
def test_nit_01_a_real_enclave_in_debug_mode_is_refused_for_being_so(shared: Path, name: str) -> None:
    with pytest.raises(NotAcceptable) as caught:
        verify(shared, name)

    assert codes(caught.value) == ["not_acceptable.debug"]
    allowed = verify(shared, name, top={"allow_debug": True})
    assert allowed.tier.name == "CONTRAINDICATED"


def test_a_real_document_with_another_signature_is_refused_for_its_signature(shared: Path) -> None:
    with pytest.raises(NotGenuine) as caught:
        verify(shared, "tampered-signature")

    assert codes(caught.value) == ["not_genuine.bad_signature"]


def test_a_real_document_with_a_damaged_certificate_is_refused_while_it_is_read(shared: Path) -> None:
    with pytest.raises(MalformedError) as caught:
        verify(shared, "tampered-certificate")

    assert caught.value.code == "malformed.truncated"


def test_a_self_signed_document_of_another_form_is_refused(shared: Path) -> None:
    """Its unprotected header and its bundle are null, and its timestamp is in seconds: no NSM wrote it."""
    with pytest.raises(MalformedError) as caught:
        verify(shared, "selfsigned")

    assert caught.value.code == "malformed.unknown_format"


@pytest.mark.parametrize("name", GENUINE)
def test_nit_07_a_real_document_lives_for_three_hours(shared: Path, name: str) -> None:
    data, signed = document(shared, name), at(shared, name)
    expires = judge(data, signed).expires

    assert timedelta(hours=3) - timedelta(seconds=5) < expires - signed <= timedelta(hours=3)
    assert judge(data, expires).expires == expires
    for when, code in (
        (expires + timedelta(seconds=1), "not_genuine.expired"),
        (signed - timedelta(minutes=4), "not_genuine.not_yet_valid"),
    ):
        with pytest.raises(NotGenuine) as caught:
            judge(data, when)
        assert codes(caught.value) == [code]


@pytest.mark.parametrize("name", PRODUCTION)
def test_nit_07_an_archive_is_judged_at_the_documents_own_time_and_says_so(shared: Path, name: str) -> None:
    with pytest.raises(NotGenuine) as caught:
        verify(shared, name, when=NOW)
    result = verify(shared, name, when=NOW, time="document")

    assert "not_genuine.expired" in codes(caught.value)
    assert [check.outcome for check in result.claims.checks if check.name == "validity now"] == [
        "not checked"
    ]
    assert any("validity now" in reason.message for reason in result.reasons)
    assert appraise.describe(result.claims)["judged_at_document_time"] is True


def test_nit_08_an_archive_holds_nothing_from_the_future(shared: Path) -> None:
    signed = at(shared, "prod-pcr8")

    assert verify(shared, "prod-pcr8", when=signed - timedelta(minutes=4), time="document")
    with pytest.raises(NotGenuine) as caught:
        verify(shared, "prod-pcr8", when=signed - timedelta(minutes=6), time="document")
    assert codes(caught.value) == ["not_genuine.from_future"]


@pytest.mark.parametrize("name", GENUINE)
def test_pcr_4_is_the_parent_instance_that_the_module_id_names(shared: Path, name: str) -> None:
    read = wire.decode_document(document(shared, name))

    assert measure.pcr4_of_instance(read.module_id.rpartition("-enc")[0]) == read.pcrs[4]


def test_the_regional_cas_name_crls_on_hosts_of_aws(shared: Path) -> None:
    assert endorse.urls(raw(shared, "prod-dstack")) == (
        "https://aws-nitro-enclaves-crl.s3.amazonaws.com/crl/ab4960cc-7d63-42bd-9e9f-59338cb67f84.crl",
        "https://crl-us-east-1-aws-nitro-enclaves.s3.us-east-1.amazonaws.com/crl/e7f1198f-2766-4ca0-85e5-7a75f05d9614.crl",
    )


def test_files_of_other_tees_are_not_taken_for_documents(shared: Path) -> None:
    found = {
        path.relative_to(shared / "evidence").parts[0]
        for path in (shared / "evidence").rglob("*")
        if path.is_file() and wire.recognises(path.read_bytes())
    }

    assert found == {"nitro"}


@pytest.mark.parametrize("name", [*GENUINE, "selfsigned", "tampered-signature", "tampered-certificate"])
def test_every_sample_is_recognised(shared: Path, name: str) -> None:
    assert wire.recognises(raw(shared, name))


@pytest.mark.parametrize("name", GENUINE)
def test_every_genuine_sample_is_explained_without_a_certificate_being_checked(
    shared: Path, name: str
) -> None:
    facts = entry(shared, name)["facts"]
    tree = wire.explain(document(shared, name))

    assert (tree["module_id"], tree["timestamp (ms since 1970)"]) == (
        facts["module_id"],
        facts["timestamp_ms"],
    )
    assert json.loads(json.dumps(tree)) == tree


def test_ev_01_a_real_document_cut_at_any_byte_is_refused(shared: Path) -> None:
    data, when = document(shared, "prod-nitriding"), at(shared, "prod-nitriding")

    for length in range(len(data)):
        with pytest.raises(MalformedError):
            judge(data[:length], when)


@pytest.mark.parametrize("name", ["prod-nitriding", "prod-dstack"])
@pytest.mark.parametrize(
    "tail", [b"\0", b"\xff", b"\xf6", bytes(16), b"\x80" * 64, bytes(2048), bytes(65536)]
)
def test_ev_02_bytes_after_a_real_document_are_refused(shared: Path, name: str, tail: bytes) -> None:
    when = at(shared, name)

    with pytest.raises(MalformedError) as alone:
        judge(document(shared, name) + tail, when)
    with pytest.raises(MalformedError) as file:
        judge(wire.unframe(raw(shared, name) + tail), when)

    assert {alone.value.code, file.value.code} <= {"malformed.trailing_data", "malformed.limit_exceeded"}


def test_ev_02_the_file_around_a_document_is_taken_off_only_in_its_own_form(shared: Path) -> None:
    data, inner = raw(shared, "prod-dstack"), document(shared, "prod-dstack")
    length = len(inner) << 2 | 1
    whole = b"\0\2" + length.to_bytes(2, "little") + data

    assert (len(data) - len(inner), wire.unframe(whole)) == (179, inner)
    assert wire.recognises(whole)
    for other in (whole[:-1], whole + b"\0", data[:-1], b"\0\2" + (length + 4).to_bytes(2, "little") + data):
        assert wire.unframe(other) == other
    # The tail of one document is no tail of another: it repeats the user data.
    foreign = document(shared, "prod-nitriding") + data[len(inner) :]
    assert wire.unframe(foreign) == foreign


def test_ev_14_the_file_around_a_document_is_small(shared: Path) -> None:
    inner = document(shared, "prod-dstack")
    user_data = wire.decode_document(inner).user_data or b""

    def framed(configuration: int) -> bytes:
        return (
            inner + b"\0" + user_data + (configuration << 2 | 2).to_bytes(4, "little") + bytes(configuration)
        )

    assert wire.unframe(framed(16_384)) == wire.unframe(framed(20_000)) == inner
    for file in (
        framed(16_000),
        framed(70_000),
    ):  # A length not in its shortest form; a file that is too long.
        assert wire.unframe(file) == file


def test_a_file_that_only_holds_a_document_somewhere_is_not_recognised(shared: Path) -> None:
    data = raw(shared, "prod-pcr8")

    assert not wire.recognises(b"\x30" + data)
    assert not wire.recognises(b"{" + data)
    assert not wire.recognises(data.replace(b"\x68cabundle", b"\x68cabundls"))
    assert not wire.recognises(data.replace(b"\x69module_id", b"\x69module_ie"))


def test_ev_03_bits_of_the_file_around_a_document_are_refused_or_dropped(shared: Path) -> None:
    data, inner = raw(shared, "prod-dstack"), document(shared, "prod-dstack")
    dropped = {offset for first, last, _ in DROPPED for offset in range(first, last)}

    for bit in range(8 * (len(data) - len(inner))):
        changed = bytearray(data)
        changed[len(inner) + bit // 8] ^= 1 << bit % 8
        is_dropped = wire.unframe(bytes(changed)) == inner
        assert is_dropped == (bit // 8 in dropped), bit // 8


def _malleable(shared: Path, name: str, step: int, first: int = 0) -> list[int]:
    data, when = document(shared, name), at(shared, name)
    found = []
    for bit in range(first, 8 * len(data), step):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            judge(bytes(changed), when)
        except ConfideError:
            continue
        found.append(bit)
    return found


def test_ev_03_no_sampled_bit_of_a_real_document_is_malleable(shared: Path) -> None:
    assert _malleable(shared, "prod-dstack", 17) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["prod-dstack", "prod-1k-fields"])
def test_ev_03_no_bit_of_a_real_document_is_malleable(shared: Path, name: str) -> None:
    assert _malleable(shared, name, 1) == []


def test_ev_10_the_other_signature_with_the_same_meaning_is_accepted(shared: Path) -> None:
    """ECDSA has two signatures for each message and key; a signature is therefore nobody's identifier."""
    from confide.crypto.signing import CURVES

    data, when = document(shared, "prod-pcr8"), at(shared, "prod-pcr8")
    s = CURVES["p384"][2] - int.from_bytes(data[-48:], "big")

    assert judge(data[:-48] + s.to_bytes(48, "big"), when).measurements == judge(data, when).measurements


def test_the_leaf_of_a_real_document_is_no_ca(shared: Path) -> None:
    read = wire.decode_document(document(shared, "prod-pcr8"))

    assert not x509.Certificate.from_der(read.certificate).is_ca
