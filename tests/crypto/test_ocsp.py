# SPDX-License-Identifier: Apache-2.0
"""OCSP responses: only the issuer and its delegate may speak, about one certificate, for a time."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.x509 import ocsp as library
from hypothesis import given, settings
from hypothesis import strategies as st

from confide.crypto import ocsp, x509
from confide.crypto.issue_ocsp import OCSP_SIGNING, issue_ocsp
from confide.crypto.x509 import Extension
from confide.errors import ConfideError, MalformedError, NotGenuine
from confide.wire.der_write import generalized_time, integer, oid, sequence, tagged
from support import nvidia, nvidia_permitted_bits, pki
from support.refusal import code_of, only_typed_errors

if TYPE_CHECKING:
    from pathlib import Path

CHAIN = pki.chain()
LEAF, ISSUER = CHAIN.leaf, CHAIN.intermediate
DAY = timedelta(days=1)
EXTENDED = {"2.5.29.37": Extension(critical=True, value=OCSP_SIGNING)}


def responder(signer: str = "intermediate", **changes: Any) -> x509.Certificate:
    """A certificate for a delegated responder."""
    arguments: dict[str, Any] = {"is_ca": False, "key_usage": None, "extensions": EXTENDED} | changes
    return pki.certificate("responder", signer, **arguments)


def response(**changes: Any) -> bytes:
    """A good response about the leaf, signed by the issuer itself unless something is changed."""
    arguments: dict[str, Any] = {
        "certificate": LEAF.der,
        "issuer": ISSUER.der,
        "responder": ISSUER.der,
        "signing_key": pki.key("intermediate"),
        "this_update": pki.AT - DAY,
        "next_update": pki.AT + DAY,
    }
    return issue_ocsp(**(arguments | changes))


def delegated(certificate: x509.Certificate | None = None, **changes: Any) -> bytes:
    own = {"responder": (certificate or responder()).der, "signing_key": pki.key("responder")}
    return response(**(own | changes))


def check(data: bytes, *, at: datetime = pki.AT, certificate: x509.Certificate = LEAF) -> datetime:
    return ocsp.Response.from_der(data).check(certificate, issuer=ISSUER, at=at)


def verdict(data: bytes, **options: Any) -> str:
    try:
        check(data, **options)
    except ConfideError as error:
        return error.code
    return ""


@pytest.mark.parametrize("hash_name", ["sha1", "sha256", "sha384"])
@pytest.mark.parametrize("by_name", [False, True])
def test_the_issuer_s_and_its_delegate_s_word_is_taken(hash_name: str, by_name: bool) -> None:
    for data in (
        response(hash_name=hash_name, by_name=by_name),
        delegated(hash_name=hash_name, by_name=by_name),
    ):
        assert check(data) == pki.AT + DAY


@pytest.mark.parametrize("data", [response(), delegated()], ids=["issuer", "delegate"])
def test_the_library_reads_what_is_written_here(data: bytes) -> None:
    read = library.load_der_ocsp_response(data)

    assert read.serial_number == LEAF.serial
    assert read.certificate_status is library.OCSPCertStatus.GOOD
    assert read.next_update_utc == pki.AT + DAY


def test_the_library_reads_the_request() -> None:
    read = library.load_der_ocsp_request(ocsp.request(LEAF, ISSUER))

    assert (read.serial_number, read.hash_algorithm.name) == (LEAF.serial, "sha384")
    entry = ocsp.Response.from_der(response()).entries[0]
    assert (read.issuer_name_hash, read.issuer_key_hash) == (entry.issuer_name_hash, entry.issuer_key_hash)


def test_ev_20_a_revoked_certificate_is_refused_however_old_the_response() -> None:
    for at in (pki.AT, pki.AT + 300 * DAY, pki.AT - 300 * DAY):
        assert verdict(response(status="revoked"), at=at) == "not_genuine.revoked"
        assert verdict(delegated(status="revoked"), at=at) == "not_genuine.revoked"


def test_ev_20_a_certificate_that_the_responder_does_not_know_is_refused() -> None:
    assert verdict(response(status="unknown")) == "not_genuine.revocation_unknown"


@pytest.mark.parametrize(
    ("at", "code"),
    [
        (pki.AT - DAY, ""),
        (pki.AT + DAY, ""),
        (pki.AT - DAY - timedelta(seconds=1), "endorsements_missing.ocsp_expired"),
        (pki.AT + DAY + timedelta(seconds=1), "endorsements_missing.ocsp_expired"),
    ],
)
def test_ev_20_a_good_response_holds_from_this_update_to_next_update(at: datetime, code: str) -> None:
    assert verdict(response(), at=at) == code
    assert verdict(delegated(), at=at) == code


def test_ev_20_a_response_without_an_end_never_holds() -> None:
    assert verdict(response(next_update=None)) == "endorsements_missing.ocsp_expired"
    assert verdict(response(next_update=None, status="revoked")) == "not_genuine.revoked"


def test_ev_20_a_response_about_another_certificate_says_nothing_about_this_one() -> None:
    assert verdict(response(serial=LEAF.serial + 1)) == "endorsements_missing.ocsp"
    other = pki.certificate("other", "root", is_ca=True)
    about = response(issuer=other.der, certificate=LEAF.der)
    assert verdict(about) == "endorsements_missing.ocsp"
    twin = pki.certificate("other", "root", subject=pki.NAMES["intermediate"], is_ca=True)
    # The same name with another key.
    assert verdict(response(issuer=twin.der)) == "endorsements_missing.ocsp"
    assert verdict(response(serial=ISSUER.serial), certificate=ISSUER) == "endorsements_missing.ocsp"


@pytest.mark.parametrize(
    "change",
    [
        {"issuer_name_hash": bytes(48)},
        {"issuer_key_hash": bytes(48)},
        {"serial": LEAF.serial + 1},
        {"hash_name": "sha512"},
    ],
)
def test_ev_20_every_part_of_a_certificate_s_name_in_a_response_counts(change: dict[str, Any]) -> None:
    entry = ocsp.Response.from_der(response()).entries[0]

    assert entry.names(LEAF, ISSUER)
    assert not dataclasses.replace(entry, **change).names(LEAF, ISSUER)
    assert not entry.names(LEAF, CHAIN.root)


def test_ev_20_a_response_signed_by_another_key_is_refused() -> None:
    assert verdict(response(signing_key=pki.key("other"))) == "not_genuine.bad_signature"
    assert verdict(delegated(signing_key=pki.key("other"))) == "not_genuine.bad_signature"
    assert verdict(delegated(signing_key=pki.key("other"), status="revoked")) == "not_genuine.bad_signature"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"extensions": {}}, "not_genuine.wrong_usage"),
        (
            {"extensions": {"2.5.29.37": Extension(critical=True, value=sequence(oid("1.3.6.1.5.5.7.3.1")))}},
            "not_genuine.wrong_usage",
        ),
        ({"key_usage": frozenset({"key_cert_sign"})}, "not_genuine.wrong_usage"),
        ({"is_ca": True}, "not_genuine.wrong_usage"),
        (
            {"extensions": EXTENDED | {"1.2.3": Extension(critical=True, value=b"\x05\x00")}},
            "not_genuine.wrong_usage",
        ),
        ({"extensions": EXTENDED | {"1.2.3": Extension(critical=False, value=b"\x05\x00")}}, ""),
        ({"key_usage": frozenset({"digital_signature"})}, ""),
        ({"issuer": "somebody"}, "not_genuine.chain_invalid"),
        ({"signing_key": pki.key("other")}, "not_genuine.bad_signature"),
    ],
)
def test_ev_20_only_a_delegate_of_the_issuer_may_speak_for_it(changes: dict[str, Any], code: str) -> None:
    assert verdict(delegated(responder(**changes))) == code


def test_ev_20_a_delegate_of_the_root_does_not_speak_for_the_intermediate() -> None:
    assert verdict(delegated(responder("root"))) == "not_genuine.chain_invalid"


def test_ev_20_the_delegate_s_certificate_must_be_there_and_valid() -> None:
    assert verdict(delegated(certificates=())) == "not_genuine.chain_invalid"
    assert verdict(delegated(certificates=(LEAF.der,))) == "not_genuine.chain_invalid"
    assert verdict(delegated(certificates=(LEAF.der, responder().der))) == ""
    ended = responder(not_after=pki.AT - timedelta(hours=1))
    assert verdict(delegated(ended)) == "endorsements_missing.ocsp_expired"
    assert verdict(delegated(ended, status="revoked")) == "not_genuine.revoked"
    assert verdict(delegated(ended, produced_at=pki.AT)) == "not_genuine.expired"
    short = responder(not_after=pki.AT + timedelta(hours=1))
    assert check(delegated(short)) == pki.AT + timedelta(hours=1)


@pytest.mark.parametrize("by_name", [False, True])
def test_ev_20_each_certificate_that_fits_the_responder_is_tried(by_name: bool) -> None:
    entitled = responder()
    others = (
        responder(signing_key=pki.key("other")),
        responder(extensions={}),
        responder(not_after=pki.AT - 2 * DAY),
    )
    for other in others:
        for certificates in ((other.der, entitled.der), (entitled.der, other.der)):
            assert verdict(delegated(certificates=certificates, by_name=by_name)) == ""
        assert verdict(delegated(certificates=(other.der,), by_name=by_name)).startswith("not_genuine.")
    # Two that are entitled, of which the one that lives longer counts, in whatever order.
    short = responder(not_after=pki.AT + timedelta(hours=1))
    for certificates in ((short.der, entitled.der), (entitled.der, short.der)):
        assert check(delegated(certificates=certificates, by_name=by_name)) == pki.AT + DAY


def test_ev_20_two_entries_about_one_certificate_count_by_the_worse() -> None:
    entry = ocsp.Response.from_der(response()).entries[0]
    worse = dataclasses.replace(entry, status="revoked")
    older = dataclasses.replace(entry, next_update=pki.AT - timedelta(hours=1))
    for entries in ((entry, worse), (worse, entry), (older, worse)):
        both = dataclasses.replace(ocsp.Response.from_der(response()), entries=entries)
        with pytest.raises(NotGenuine, match="revoked"):
            both.check(LEAF, issuer=ISSUER, at=pki.AT)


def test_a_naive_time_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="aware"):
        check(response(), at=datetime(2026, 1, 1))  # noqa: DTZ001


def _basic(data: bytes) -> bytes:
    return sequence(
        tagged(0x0A, b"\x00"),
        tagged(0xA0, sequence(oid("1.3.6.1.5.5.7.48.1.1"), tagged(0x04, data))),
    )


def _data(entries: bytes, *, version: bytes = b"", tail: bytes = b"", when: bytes | None = None) -> bytes:
    produced = generalized_time(pki.AT) if when is None else when
    return sequence(version + tagged(0xA2, tagged(0x04, bytes(20))) + produced + sequence(entries) + tail)


def _entry(
    status: bytes = b"\x80\x00", *, name: bytes | None = None, tail: bytes = b"", digest: int = 48
) -> bytes:
    algorithm = sequence(oid("2.16.840.1.101.3.4.2.2")) if name is None else name
    named = sequence(algorithm, tagged(0x04, bytes(digest)), tagged(0x04, bytes(48)), integer(1))
    return sequence(named, status, generalized_time(pki.AT) + tail)


def _signed(data: bytes) -> bytes:
    return _basic(sequence(data, sequence(oid("1.2.840.10045.4.3.3")), tagged(0x03, b"\x00" + bytes(8))))


ODD = {
    "no entry": (_signed(_data(b"")), "malformed.limit_exceeded"),
    "many entries": (_signed(_data(_entry() * 33)), "malformed.limit_exceeded"),
    "a version": (_signed(_data(_entry(), version=tagged(0xA0, integer(0)))), "malformed.unsupported_version"),
    "UTCTime": (_signed(_data(_entry(), when=tagged(0x17, b"260601120000Z"))), "malformed.non_canonical"),
    "fractions": (_signed(_data(_entry(), when=tagged(0x18, b"20260601120000.5Z"))), "malformed.non_canonical"),
    "a date that is none": (_signed(_data(_entry(), when=tagged(0x18, b"20260231120000Z"))), "malformed.non_canonical"),
    "an unknown hash": (_signed(_data(_entry(name=sequence(oid("1.2.3"))))), "malformed.non_canonical"),
    "no hash": (_signed(_data(_entry(name=sequence()))), "malformed.non_canonical"),
    "a short hash": (_signed(_data(_entry(digest=47))), "malformed.length_mismatch"),
    "another status": (_signed(_data(_entry(b"\x83\x00"))), "malformed.non_canonical"),
    "good with content": (_signed(_data(_entry(b"\x80\x01\x00"))), "malformed.non_canonical"),
    "revoked without a time": (_signed(_data(_entry(b"\xa1\x00"))), "malformed.non_canonical"),
    "two next updates": (
        _signed(_data(_entry(tail=tagged(0xA0, generalized_time(pki.AT) * 2)))),
        "malformed.non_canonical",
    ),
    "a critical extension": (
        _signed(
            _data(
                _entry(tail=tagged(0xA1, sequence(sequence(oid("1.2.3"), b"\x01\x01\xff", tagged(0x04, b"")))))
            )
        ),
        "malformed.unknown_format",
    ),
    "a critical extension of all": (
        _signed(
            _data(_entry(), tail=tagged(0xA1, sequence(sequence(oid("1.2.3"), b"\x01\x01\xff", tagged(0x04, b"")))))
        ),
        "malformed.unknown_format",
    ),
    "parts without a place": (
        _signed(_data(_entry(tail=tagged(0xA2, b"")))),
        "malformed.non_canonical",
    ),
    "data of two parts": (
        _signed(sequence(tagged(0xA2, tagged(0x04, bytes(20))), generalized_time(pki.AT))),
        "malformed.non_canonical",
    ),
    "data of five parts": (
        _signed(_data(_entry(), tail=tagged(0xA1, sequence()) * 2)),
        "malformed.non_canonical",
    ),
    "two names of the responder": (
        _signed(
            sequence(
                tagged(0xA1, sequence() * 2) + generalized_time(pki.AT) + sequence(_entry())
            )
        ),
        "malformed.non_canonical",
    ),
    "a short key hash": (
        _signed(
            sequence(
                tagged(0xA2, tagged(0x04, bytes(19))) + generalized_time(pki.AT) + sequence(_entry())
            )
        ),
        "malformed.non_canonical",
    ),
    "two parts": (_basic(sequence(_data(_entry()))), "malformed.non_canonical"),
    "another type": (
        sequence(tagged(0x0A, b"\x00"), tagged(0xA0, sequence(oid("1.2.3"), tagged(0x04, b"")))),
        "malformed.unknown_format",
    ),
    "success without an answer": (sequence(tagged(0x0A, b"\x00")), "malformed.unknown_format"),
    "nothing": (sequence(), "malformed.unknown_format"),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_a_response_in_another_form_is_refused(name: str) -> None:
    data, code = ODD[name]

    assert code_of(ocsp.Response.from_der, data) == code
    assert ocsp.Response.from_der(_signed(_data(_entry()))).entries[0].status == "good"


def test_an_error_with_an_answer_beside_it_is_no_answer() -> None:
    data = response()
    success = tagged(0x0A, b"\x00")
    assert data.count(success) == 1

    for status in (1, 2, 6):
        changed = data.replace(success, tagged(0x0A, bytes((status,))))
        assert code_of(ocsp.Response.from_der, changed) == "malformed.unknown_format"


def test_ev_20_the_delegate_s_validity_has_both_ends_included() -> None:
    exact = responder(not_before=pki.AT - DAY, not_after=pki.AT)

    assert verdict(delegated(exact)) == ""
    assert verdict(delegated(exact), at=pki.AT - DAY) == ""
    assert verdict(delegated(exact, produced_at=pki.AT)) == ""
    assert verdict(delegated(exact), at=pki.AT + timedelta(seconds=1)) == "endorsements_missing.ocsp_expired"
    assert verdict(delegated(exact, produced_at=pki.AT + timedelta(seconds=1))) == "not_genuine.expired"
    early = delegated(exact, produced_at=pki.AT - DAY - timedelta(seconds=1))
    assert verdict(early) == "not_genuine.expired"


@pytest.mark.parametrize("status", [1, 2, 3, 5, 6])
def test_an_error_of_the_responder_is_no_answer(status: int) -> None:
    assert code_of(ocsp.Response.from_der, response(status_code=status)) == "malformed.unknown_format"


@pytest.mark.parametrize("count", [5, 64])
def test_more_certificates_than_a_response_has_use_for_are_refused(count: int) -> None:
    assert code_of(ocsp.Response.from_der, delegated(certificates=(LEAF.der,) * count)).startswith(
        "malformed."
    )


def test_ev_14_a_large_response_is_refused() -> None:
    assert code_of(ocsp.Response.from_der, b"\x30" + bytes(1_000_000)) == "malformed.limit_exceeded"


def test_ev_01_a_response_cut_at_any_byte_is_refused() -> None:
    data = delegated()
    for length in range(len(data)):
        assert verdict(data[:length]).startswith("malformed."), length
    assert verdict(data + b"\x00") == "malformed.trailing_data"


def test_ev_03_no_bit_of_a_response_can_be_turned_over() -> None:
    data = delegated()
    passed = []
    for bit in range(8 * len(data)):
        try:
            check(nvidia.flipped(data, bit))
        except ConfideError:
            continue
        passed.append(bit)
    assert set(passed) <= nvidia_permitted_bits.OCSP


def test_ev_03_no_bit_of_a_real_response_can_be_turned_over(shared: Path) -> None:
    folder = nvidia.folder(shared)
    data = (folder / "ocsp" / "gpu_certificate_l4.ocsp.der").read_bytes()
    chain = x509.parse_pem((folder / "hopper-550.90.07-full.chain.pem").read_bytes())
    at = datetime(2025, 8, 21, 12, tzinfo=UTC)
    ocsp.Response.from_der(data).check(chain[1], issuer=chain[2], at=at)

    for bit in range(2, 8 * len(data), 17):
        with pytest.raises(ConfideError):
            ocsp.Response.from_der(nvidia.flipped(data, bit)).check(chain[1], issuer=chain[2], at=at)


@given(st.binary(max_size=40), st.integers(0, 700), st.integers(0, 40))
@settings(max_examples=200)
def test_ev_04_spliced_responses_raise_nothing_but_errors_of_confide(junk: bytes, at: int, gone: int) -> None:
    data = response()

    only_typed_errors(check, data[:at] + junk + data[at + gone :])


def _long_certificate() -> bytes:
    """The leaf with its times in the long form, signed again."""
    long = sequence(generalized_time(pki.FROM), generalized_time(pki.UNTIL))
    short = sequence(*(tagged(0x17, f"{when:%y%m%d%H%M%S}Z".encode()) for when in (pki.FROM, pki.UNTIL)))
    if short not in LEAF.signed.tbs:
        raise ValueError
    body = LEAF.signed.tbs.replace(short, long)
    body = tagged(0x30, body[4 if body[1] == 0x82 else 3 :])
    r, s = pki.key("intermediate").sign_ecdsa(body)
    return sequence(
        body, sequence(oid("1.2.840.10045.4.3.3")), tagged(0x03, b"\x00" + sequence(integer(r), integer(s)))
    )


def test_times_in_the_long_form_are_read_only_where_a_caller_says_so() -> None:
    data = _long_certificate()

    assert code_of(x509.Certificate.from_der, data) == "malformed.non_canonical"
    read = x509.Certificate.from_der(data, long_times=True)
    assert (read.not_before, read.not_after, read.serial) == (pki.FROM, pki.UNTIL, LEAF.serial)
    # What was read so is not remembered for callers that did not say so.
    assert code_of(x509.Certificate.from_der, data) == "malformed.non_canonical"
    assert x509.Certificate.from_der(LEAF.der, long_times=True).not_after == LEAF.not_after


def test_the_real_responders_that_the_strict_reader_refuses_are_those_of_the_documents(shared: Path) -> None:
    long = set()
    for file in sorted((nvidia.folder(shared) / "ocsp").iterdir()):
        for certificate in ocsp.Response.from_der(file.read_bytes()).certificates:
            try:
                x509.Certificate.from_der(certificate.der)
            except MalformedError:
                long.add(file.name.partition(".")[0])

    assert long == {"gpu_driver_rim_l3", "gpu_driver_rim_l4", "gpu_rim_l2", "gpu_vbios_l4"}


def test_ev_12_a_response_signed_with_a_weak_hash_is_refused() -> None:
    data = response()
    good, bad = sequence(oid("1.2.840.10045.4.3.3")), sequence(oid("1.2.840.10045.4.3.1"))
    assert len(good) == len(bad)

    with pytest.raises(NotGenuine) as caught:
        check(data.replace(good, bad))
    assert caught.value.code == "not_genuine.unsupported_algorithm"
