# SPDX-License-Identifier: Apache-2.0
"""Attacks that every kind of evidence has to bear, on Nitro documents: bytes, signatures, keys, certificates, CRLs, failing checks."""

from __future__ import annotations

import tracemalloc
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from confide.attestation.anchors import TrustAnchor
from confide.attestation.evidence import Endorsements
from confide.crypto.issue import IssuingKey, issue
from confide.crypto.signing import CURVES
from confide.crypto.x509 import Extension
from confide.errors import ConfigurationError, NotAcceptable, NotGenuine
from confide.simulator.nitro import AT, Platform, Raw, encode_fields, name
from confide.tees.nitro import authenticate, endorse, wire
from confide.wire import cbor
from support import nitro

MALFORMED = "malformed.non_canonical"


ORDER = CURVES["p384"][2]


ZEROS = bytes(48)


@pytest.mark.parametrize(
    ("r", "s"),
    [
        (0, 1),
        (1, 0),
        (0, 0),
        (ORDER, 1),
        (1, ORDER),
        (1, 1),
        ((1 << 384) - 1, (1 << 384) - 1),
        (ORDER + 1, 1),
    ],
)
def test_ev_09_degenerate_signatures_are_refused(r: int, s: int) -> None:
    signature = r.to_bytes(48, "big") + s.to_bytes(48, "big")

    assert nitro.refused(nitro.document(signature=signature)) == ["not_genuine.bad_signature"]


def test_ev_10_the_other_s_is_accepted() -> None:
    data = nitro.document()
    other = (ORDER - int.from_bytes(data[-48:], "big")).to_bytes(48, "big")

    assert nitro.claims(data[:-48] + other).report_data == nitro.REPORT_DATA


@pytest.mark.parametrize("name", nitro.BOMBS)
@pytest.mark.parametrize("place", ["document", "payload", "header"])
def test_ev_25_a_bomb_in_the_place_of_a_part_is_refused(name: str, place: str) -> None:
    bomb = bytes.fromhex(nitro.BOMBS[name])
    data = {
        "document": lambda: bomb,
        "payload": lambda: nitro.document(payload=bomb),
        "header": lambda: nitro.document(protected=bomb),
    }[place]()

    (code,) = nitro.refused(data)
    assert code.startswith("malformed.") or (place, code) == ("header", "not_genuine.unsupported_algorithm")


def test_ev_01_a_document_cut_at_any_byte_is_refused() -> None:
    data = nitro.document()

    for length in range(len(data)):
        (code,) = nitro.refused(data[:length])
        assert code == "malformed.truncated"


@pytest.mark.parametrize("tail", [b"\0", b"\xff", bytes(16), bytes(4096), b"\x84\x40\xa0\x40\x40"])
def test_ev_02_bytes_after_a_document_are_refused(tail: bytes) -> None:
    assert nitro.refused(nitro.document() + tail) == ["malformed.trailing_data"]
    assert nitro.refused(nitro.document(tag=18) + tail) == ["malformed.trailing_data"]


def test_ev_02_bytes_after_the_payload_or_the_header_are_refused() -> None:
    payload = encode_fields(nitro.platform().fields(nitro.REPORT_DATA))

    assert nitro.refused(nitro.document(payload=payload + b"\0")) == ["malformed.trailing_data"]
    assert nitro.refused(nitro.document(protected=cbor.encode({1: -35}) + b"\0")) == [
        "malformed.trailing_data"
    ]


@given(bit=st.integers(0, 8 * len(nitro.document()) - 1))
@settings(max_examples=200)
def test_ev_03_a_flipped_bit_is_refused(bit: int) -> None:
    data = bytearray(nitro.document())
    data[bit // 8] ^= 1 << bit % 8

    assert nitro.refused(bytes(data))


@pytest.mark.parametrize(
    "head", ["5a7fffffff", "5affffffff", "5b7fffffffffffffff", "9a7fffffff", "ba7fffffff"]
)
def test_ev_13_a_declared_length_allocates_nothing(head: str) -> None:
    data = b"\x84" + bytes.fromhex(head) + bytes(64)
    inside = nitro.document(user_data=Raw(bytes.fromhex(head)))
    tracemalloc.start()
    try:
        assert nitro.refused(data) == ["malformed.truncated"]
        assert nitro.refused(inside)[0].startswith("malformed.")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("start", [b"", b"\x84", b"\xd2\x84\x44\xa1\x01\x38\x22"])
@pytest.mark.parametrize("filling", [b"\x00", b"\x81", b"\x84", b"\xa1", b"\xd2", b"\xff"])
def test_ev_14_a_hundred_megabytes_are_refused_before_they_are_read(start: bytes, filling: bytes) -> None:
    data = start + filling * 100_000_000
    tracemalloc.start()
    try:
        assert nitro.refused(data) == ["malformed.limit_exceeded"]
        assert wire.recognises(data) is False
        assert wire.unframe(data) is data
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def _p384_key(scalar: int) -> bytes:
    return IssuingKey.from_scalar(scalar).public_key_der


def _with_leaf_key(spki: bytes) -> bytes:
    """A document whose certificate has another public key put into its bytes, and is then signed again by the CA."""
    key = IssuingKey.from_scalar(99)
    platform = Platform.create(seed=1, keys={"leaf": key})
    leaf, instance = platform.chain[-1], platform.chain[-2]
    body = leaf.der.replace(key.public_key_der, spki)
    # The three parts of a certificate: the signed part has a two-byte length after its tag.
    length = int.from_bytes(body[6:8], "big") + 4
    tbs = body[4 : 4 + length]
    r, s = instance.key.sign_ecdsa(tbs)
    numbers = b"".join(_integer(value) for value in (r, s))
    signature = bytes((0x30, len(numbers))) + numbers
    inner = tbs + bytes.fromhex("300a06082a8648ce3d040303") + bytes((3, len(signature) + 1, 0)) + signature
    der = bytes((0x30, 0x82)) + len(inner).to_bytes(2, "big") + inner
    return platform.document(nitro.REPORT_DATA, certificate=der, key=key)


def _integer(value: int) -> bytes:
    encoded = value.to_bytes(value.bit_length() // 8 + 1, "big")
    return bytes((2, len(encoded))) + encoded


def _point(prefix: int, x: bytes, y: bytes) -> bytes:
    spki = _p384_key(99)
    return spki[:-97] + bytes((prefix,)) + x + y


@pytest.mark.parametrize(
    "spki",
    [
        _point(4, bytes(48), bytes(48)),
        _point(4, b"\x01" * 48, b"\x02" * 48),
        _point(4, b"\xff" * 48, b"\xff" * 48),
        _point(0, bytes(48), bytes(48)),
        _point(2, _p384_key(99)[-96:-48], bytes(48)),
        _point(6, _p384_key(99)[-96:-48], _p384_key(99)[-48:]),
    ],
)
def test_ev_11_a_key_that_is_no_point_of_its_curve_is_refused(spki: bytes) -> None:
    assert nitro.claims(_with_leaf_key(_p384_key(99)), Platform.create(seed=1))
    assert set(nitro.refused(_with_leaf_key(spki))) == {"not_genuine.weak_key"}


def test_ev_12_a_document_signed_with_another_curve_is_refused() -> None:
    key = IssuingKey.from_scalar(5, curve="p256")
    platform = Platform.create(seed=1, keys={"leaf": key})

    found = nitro.refused(platform.document(nitro.REPORT_DATA, signature=bytes(95) + b"\x01"))
    assert found == ["not_genuine.algorithm_mismatch"] * 2


def test_ev_12_a_ca_on_another_curve_is_refused() -> None:
    platform = Platform.create(seed=1, keys={"zonal": IssuingKey.from_scalar(5, curve="p256")})

    assert nitro.refused(platform.document(nitro.REPORT_DATA)) == ["not_genuine.algorithm_mismatch"]


def test_ev_12_an_rsa_ca_is_refused() -> None:
    key = IssuingKey.generate_rsa(2048)
    platform = Platform.create(seed=1, keys={"instance": key})

    (code,) = nitro.refused(platform.document(nitro.REPORT_DATA))
    assert code in {"not_genuine.unsupported_algorithm", "malformed.limit_exceeded"}


@pytest.mark.parametrize("role", ["regional", "zonal", "instance", "leaf"])
@pytest.mark.parametrize("hash_name", ["sha256", "sha512"])
def test_ev_12_a_certificate_signed_with_another_hash_is_refused(role: str, hash_name: str) -> None:
    platform = Platform.create(seed=1, certificates={role: {"hash_name": hash_name}})

    assert nitro.refused(platform.document(nitro.REPORT_DATA)) == ["not_genuine.unsupported_algorithm"]


def test_ev_12_a_document_signed_over_another_hash_is_refused() -> None:
    assert nitro.refused(nitro.document(hash_name="sha256")) == ["not_genuine.bad_signature"]


@pytest.mark.parametrize(
    ("role", "change", "code"),
    [
        ("leaf", {"is_ca": True}, "not_genuine.wrong_usage"),
        ("leaf", {"key_usage": frozenset({"key_agreement"})}, "not_genuine.wrong_usage"),
        ("leaf", {"key_usage": None}, "not_genuine.wrong_usage"),
        ("instance", {"is_ca": False, "path_length": None}, "not_genuine.wrong_usage"),
        ("instance", {"basic_constraints": False}, "not_genuine.wrong_usage"),
        ("instance", {"key_usage": frozenset({"digital_signature"})}, "not_genuine.wrong_usage"),
        ("instance", {"key_usage": None}, "not_genuine.wrong_usage"),
        ("zonal", {"path_length": 0}, "not_genuine.chain_invalid"),
        ("regional", {"path_length": 1}, "not_genuine.chain_invalid"),
        (
            "zonal",
            {"extensions": {"1.2.3.4": Extension(critical=True, value=b"\x05\x00")}},
            "not_genuine.wrong_usage",
        ),
        ("root", {"key_usage": frozenset({"digital_signature"})}, "not_genuine.wrong_usage"),
    ],
)
def test_ev_16_a_certificate_that_is_not_for_its_use_is_refused(
    role: str, change: dict[str, Any], code: str
) -> None:
    platform = Platform.create(seed=1, certificates={role: change})

    assert nitro.refused(platform.document(nitro.REPORT_DATA), platform) == [code]


def test_ev_16_a_ca_does_not_sign_documents() -> None:
    platform = nitro.platform()
    instance = platform.chain[-2]
    data = platform.document(nitro.REPORT_DATA, certificate=instance.der, key=instance.key)

    assert "not_genuine.wrong_usage" in nitro.refused(data)


def test_ev_15_a_path_that_is_too_long_or_goes_in_a_circle_is_refused() -> None:
    platform = nitro.platform()
    looped = issue(
        subject=(("OU", "SIMULATED"), ("O", "confide simulated device"), ("CN", "regional.nitro-enclaves")),
        issuer=(("OU", "SIMULATED"), ("O", "confide simulated device"), ("CN", "zonal.nitro-enclaves")),
        public_key=platform.chain[1].key.public_key_der,
        signing_key=platform.chain[2].key,
        serial=77,
        not_before=AT - timedelta(days=1),
        not_after=AT + timedelta(days=1),
        is_ca=True,
        key_usage=frozenset({"key_cert_sign"}),
    )

    assert nitro.refused(nitro.document(cabundle=[looped, *nitro.bundle(2, 3)]))[0] in {
        "not_genuine.untrusted_root",
        "not_genuine.chain_invalid",
    }
    assert nitro.claims(nitro.document(cabundle=[looped, *nitro.bundle(0, 1, 2, 3)]))


@pytest.mark.parametrize(
    "anchors", [(), (TrustAnchor("snp", "Genoa", (b"x",)),), (TrustAnchor("nitro", "x", ()),)]
)
def test_ev_18_without_a_root_nothing_is_trusted(anchors: tuple[TrustAnchor, ...]) -> None:
    assert nitro.refused(nitro.document(), anchors=anchors) == ["not_genuine.no_trusted_roots"]


def test_ev_17_a_root_of_the_same_name_and_another_key_is_not_the_root() -> None:
    assert nitro.refused(Platform.create(seed=3).document(nitro.REPORT_DATA)) == [
        "not_genuine.untrusted_root"
    ]


@pytest.mark.parametrize("role", ["root", "regional", "zonal", "instance", "leaf"])
@pytest.mark.parametrize(
    ("name", "delta", "code"),
    [
        ("not_after", -1, "not_genuine.expired"),
        ("not_after", 0, None),
        ("not_before", 1, "not_genuine.not_yet_valid"),
        ("not_before", 0, None),
    ],
)
def test_ev_19_each_certificate_counts_from_its_first_second_to_its_last(
    role: str, name: str, delta: int, code: str | None
) -> None:
    platform = Platform.create(seed=1, certificates={role: {name: AT + timedelta(seconds=delta)}})
    data = platform.document(nitro.REPORT_DATA)

    if code is None:
        assert nitro.claims(data, platform)
    else:
        assert nitro.refused(data, platform) == [code]


def test_ev_20_revocation_is_reported_and_refused_only_where_the_policy_asks() -> None:
    data, platform = nitro.document(), nitro.platform()
    none, root_only = Endorsements(), Endorsements(crls=(platform.crl("root"),))

    for given_crls, outcome in (
        (platform.endorsements, "passed"),
        (none, "not checked"),
        (root_only, "not checked"),
    ):
        found = nitro.claims(data, endorsements=given_crls)
        assert [check.outcome for check in found.checks if check.name == "revocation"] == [outcome]
    assert nitro.claims(data, endorsements=platform.endorsements, require_revocation=True)
    for missing in (none, root_only):
        assert nitro.refused(data, endorsements=missing, require_revocation=True) == [
            "endorsements_missing.crl"
        ]


@pytest.mark.parametrize(("issuer", "serial"), [("root", 2), ("regional", 3), ("zonal", 4)])
def test_ev_20_a_revoked_ca_is_refused_also_by_a_list_of_yesterday(issuer: str, serial: int) -> None:
    data, platform = nitro.document(), nitro.platform()
    fresh = platform.crl(issuer, revoked=(serial,))
    old = platform.crl(issuer, revoked=(serial,), next_update=AT - timedelta(seconds=1))

    assert nitro.refused(data, endorsements=Endorsements(crls=(fresh,))) == ["not_genuine.revoked"]
    assert nitro.refused(data, endorsements=Endorsements(crls=(old,))) == ["not_genuine.revoked"]
    assert nitro.refused(data, endorsements=Endorsements(crls=(platform.crl(issuer), fresh))) == [
        "not_genuine.revoked"
    ]


def test_ev_20_a_list_out_of_date_clears_nothing() -> None:
    data, platform = nitro.document(), nitro.platform()
    old = platform.crl("root", next_update=AT - timedelta(seconds=1))
    crls = Endorsements(crls=(old, platform.crl("regional")))

    assert [
        check.detail for check in nitro.claims(data, endorsements=crls).checks if check.name == "revocation"
    ] == ["the CRLs given are out of date"]
    assert nitro.refused(data, endorsements=crls, require_revocation=True) == [
        "endorsements_missing.crl_expired"
    ]


def test_ev_20_every_list_that_is_out_of_date_counts() -> None:
    data, platform = nitro.document(), nitro.platform()
    old = platform.crl("regional", next_update=AT - timedelta(seconds=1))
    crls = Endorsements(crls=(platform.crl("root"), old))

    assert nitro.refused(data, endorsements=crls, require_revocation=True) == [
        "endorsements_missing.crl_expired"
    ]


def test_ev_20_where_no_certificate_names_a_list_one_is_asked_for_each_ca() -> None:
    platform = Platform.create(
        seed=1, certificates={role: {"extensions": {}} for role in ("regional", "zonal")}
    )
    data = platform.document(nitro.REPORT_DATA)
    two = Endorsements(crls=(platform.crl("root"), platform.crl("regional")))
    three = Endorsements(crls=(*two.crls, platform.crl("zonal")))
    four = Endorsements(crls=(*three.crls, platform.crl("instance")))

    assert nitro.refused(data, platform, endorsements=two, require_revocation=True) == [
        "endorsements_missing.crl"
    ]
    found = nitro.claims(data, platform, endorsements=three, require_revocation=True)
    assert [check.outcome for check in found.checks if check.name == "revocation"] == ["passed"]
    # The CA of an instance may not sign lists.
    assert nitro.refused(data, platform, endorsements=four) == ["not_genuine.wrong_usage"]


def test_ev_20_a_document_right_below_the_root_has_no_ca_to_revoke() -> None:
    root = nitro.platform().chain[0]
    leaf = Platform.create(seed=1, certificates={"leaf": {"signing_key": root.key, "issuer": name("root")}})
    data = leaf.document(nitro.REPORT_DATA)

    found = nitro.claims(data, leaf)
    assert [check.outcome for check in found.checks if check.name == "revocation"] == ["not checked"]
    assert nitro.refused(data, leaf, require_revocation=True) == ["endorsements_missing.crl"]


def test_ev_20_a_list_of_another_key_is_refused_and_of_another_issuer_passed_over() -> None:
    data, platform, stranger = nitro.document(), nitro.platform(), Platform.create(seed=2)
    forged = Endorsements(crls=(stranger.crl("root"),))
    foreign = Endorsements(crls=(platform.crl("root", issuer=(("CN", "someone else"),)),))

    assert nitro.refused(data, endorsements=forged) == ["not_genuine.bad_signature"]
    assert nitro.refused(data, endorsements=foreign, require_revocation=True) == ["endorsements_missing.crl"]
    assert nitro.claims(data, endorsements=Endorsements(crls=(platform.crl("root"),) * 32))
    assert nitro.refused(data, endorsements=Endorsements(crls=(platform.crl("root"),) * 33)) == [
        "malformed.limit_exceeded"
    ]


def test_ev_32_a_chain_that_another_thread_remembers_meanwhile_is_not_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The memory of a chain changes between any two readings of it; what was judged is what is returned."""
    leaf, *others = (authenticate._parsed(one.der) for one in reversed(nitro.platform().chain))
    right, wrong = (leaf, *others), (others[-1],)
    year = timedelta(days=365)

    class Shifting(list[Any]):
        def __getitem__(self, index: Any) -> Any:
            found = super().__getitem__(index)
            self[:] = [(wrong, AT + year, AT + 2 * year)]
            return found

    monkeypatch.setattr(authenticate, "_known", lambda *_: Shifting([(right, AT, AT + year)]))
    assert authenticate._cached_chain(leaf, tuple(others), (others[-1],), AT) == right


def test_the_claims_expire_with_the_shortest_lived_of_what_was_used() -> None:
    data, platform = nitro.document(), nitro.platform()
    soon = platform.crl("root", next_update=AT + timedelta(minutes=10))

    assert nitro.claims(data).expires == AT + timedelta(hours=3)
    assert nitro.claims(data, endorsements=Endorsements(crls=(soon, platform.crl("regional")))).expires == (
        AT + timedelta(minutes=10)
    )


def test_one_failure_does_not_hide_another() -> None:
    data = nitro.document(hash_name="sha256")

    assert nitro.refused(data, at=AT + timedelta(days=1)) == [
        "not_genuine.bad_signature",
        "not_genuine.expired",
    ]


CHECKS = ("_verify_chain", "_check_time", "_check_revocation", "_check_keys", "_validity")


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize(
    "error", [ValueError("x"), RuntimeError("x"), KeyError("x"), AssertionError(), RecursionError()]
)
def test_ev_29_a_check_that_cannot_run_refuses(
    monkeypatch: pytest.MonkeyPatch, name: str, error: Exception
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise error

    authenticate._known.cache_clear()  # A chain that is known is not judged again.
    monkeypatch.setattr(authenticate, name, broken)

    assert nitro.refusal(nitro.document()) == ["attestation.internal"]


@pytest.mark.parametrize("name", ["_verify_chain", "_check_revocation"])
def test_ev_29_a_check_without_a_result_has_not_passed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(authenticate, name, lambda *_, **__: None)

    assert nitro.refused(nitro.document()) == ["not_genuine.chain_invalid"]


def test_ev_27_what_is_decoded_has_no_fields_of_claims() -> None:
    decoded = wire.decode_document(nitro.document())

    assert not any(
        hasattr(decoded, name) for name in ("report_data", "measurements", "details", "checks", "simulated")
    )


def test_ev_35_addresses_in_certificates_are_followed_to_hosts_of_aws_only() -> None:
    platform = nitro.platform()
    good = endorse.urls(nitro.document())
    evil = [
        "http://example.com/crl/00000000-0000-4000-8000-000000000001.crl",
        "http://aws-nitro-enclaves-crl.s3.amazonaws.com.example.com/crl/00000000-0000-4000-8000-000000000001.crl",
        "http://user@aws-nitro-enclaves-crl.s3.amazonaws.com/crl/00000000-0000-4000-8000-000000000001.crl",
        "http://aws-nitro-enclaves-crl.s3.amazonaws.com:8080/crl/00000000-0000-4000-8000-000000000001.crl",
        "http://aws-nitro-enclaves-crl.s3.amazonaws.com/other/00000000-0000-4000-8000-000000000001.crl",
        "http://aws-nitro-enclaves-crl.s3.amazonaws.com/crl/00000000-0000-4000-8000-000000000001.crl?x=1",
        "http://crl-us-east-1-aws-nitro-enclaves.s3.us-west-1.amazonaws.com/crl/00000000-0000-4000-8000-000000000001.crl",
        "file:///etc/passwd",
        "ldap://aws-nitro-enclaves-crl.s3.amazonaws.com/crl/00000000-0000-4000-8000-000000000001.crl",
    ]
    from confide.simulator.nitro import distribution_point

    assert len(good) == 2
    assert all(url.startswith("https://") for url in good)
    for uri in evil:
        changed = Platform.create(
            seed=1,
            certificates={
                role: {"extensions": {endorse.OID_CRL_DISTRIBUTION_POINTS: distribution_point(uri)}}
                for role in ("regional", "zonal")
            },
        )
        assert endorse.urls(changed.document(nitro.REPORT_DATA)) == ()
    assert platform.endorsements.crls


@given(data=st.binary(max_size=300))
@settings(max_examples=300)
def test_ev_04_any_bytes_are_refused_in_words(data: bytes) -> None:
    for given_bytes in (data, b"\x84" + data, nitro.document(payload=data), nitro.document(protected=data)):
        assert nitro.refused(given_bytes)


@given(st.data())
@settings(max_examples=200)
def test_ev_04_spliced_documents_are_refused(draw: st.DataObject) -> None:
    good = nitro.document()
    start = draw.draw(st.integers(0, len(good)))
    end = draw.draw(st.integers(start, min(len(good), start + 64)))
    filling = draw.draw(st.binary(max_size=64))
    changed = good[:start] + filling + good[end:]
    if changed != good:
        assert nitro.refused(changed)


def test_a_document_of_another_time_of_day_is_the_same_on_every_clock() -> None:
    """The time of verification is an argument; naive times are nitro.refused by the Verifier before they come here."""
    with pytest.raises(ConfigurationError):
        nitro.verify(nitro.document(), at=datetime(2026, 6, 1, 12))  # noqa: DTZ001
    assert nitro.verify(nitro.document(), at=AT.astimezone(UTC))


def test_errors_are_of_the_right_family() -> None:
    with pytest.raises(NotGenuine):
        nitro.verify(nitro.document(hash_name="sha256"))
    with pytest.raises(NotAcceptable):
        nitro.verify(nitro.document(), reference={"pcr0": ["22" * 48]})
