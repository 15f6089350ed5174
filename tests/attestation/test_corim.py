# SPDX-License-Identifier: Apache-2.0
"""Reference values from and to CoRIM: examples in the shapes of the drafts, round trips, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from confide.attestation import corim, reference
from confide.attestation.reference import ReferenceValues
from confide.crypto import cose
from confide.crypto.signing import SigningKey
from confide.wire import cbor
from confide.wire.cbor import Tagged
from support.refusal import code_of, only_typed_errors
from support.tokens import ED25519_SPKI, Signer

A, B, C = b"\xaa" * 48, b"\xbb" * 48, b"\xcc" * 32
AT = datetime(2026, 6, 1, tzinfo=UTC)
SNP = {0: {0: Tagged(111, bytes.fromhex("06092b060104019c780301"))}}
SGX = {0: {0: Tagged(111, bytes.fromhex("6086480186f84d0102030501"))}}
TD = {0: {1: "Intel Corporation", 2: "TDX TD"}}
MEASUREMENT = {0: 641, 1: {2: [[7, A]]}}
UNKNOWN, NON_CANONICAL = "malformed.unknown_format", "malformed.non_canonical"
KEY = SigningKey.from_bytes(b"\x09" * 32)
SPKI = ED25519_SPKI + KEY.public


def comid(triples: Any, **more: Any) -> Tagged:
    return Tagged(506, cbor.encode({1: {0: "tag"}, 4: triples} | {int(k[1:]): v for k, v in more.items()}))


def document(*records: Any, triples: Any = None, **more: Any) -> bytes:
    """A CoRIM with these reference triples; `_4=...` adds or replaces a member by number."""
    tag = comid({0: list(records)} if triples is None else triples)
    members: dict[int, Any] = {0: "acme", 1: [tag], 3: Tagged(32, "tag:amd.com,2025:snp-corim-profile")}
    return cbor.encode(Tagged(501, members | {int(k[1:]): v for k, v in more.items()}))


def registers(data: bytes, **options: Any) -> dict[str, Any]:
    """The registers of the one entry that there is."""
    (one,) = corim.read(data, **options)
    return dict(one.measurements)


# Examples in the shapes of the drafts, made by hand.


def test_a_measurement_of_an_snp_guest() -> None:
    """draft-deeglaze-amd-sev-snp-corim-profile: mkey 641, SHA-384, class by chip."""
    (one,) = corim.read(document([SNP, [MEASUREMENT]]))
    assert (one.tee, dict(one.measurements)) == ("snp", {"measurement": (A,)})
    assert one.origin == "CoRIM acme, CoMID tag"


def test_the_same_bytes_written_out_by_hand() -> None:
    inner = (
        "a2" + "01a100" + "63746167"  # tag identity: "tag"
        "04a100" + "81" + "82" + "a100a100d86f4b06092b060104019c780301"  # one triple, class id under tag 111
        "81a200"
        + "190281"
        + "01a102"
        + "8182"
        + "07"
        + "5830"
        + "aa" * 48  # mkey 641, digests [[7, h'aa..']]
    )
    body = bytes.fromhex(inner)
    data = bytes.fromhex("d901f5a200" + "6461636d65" + "0181d901fa58" + f"{len(body):02x}" + inner)
    assert registers(data) == {"measurement": (A,)}


def test_every_snp_register_and_both_spellings_of_the_oid() -> None:
    rest = [
        {0: 642, 1: {2: [[7, C]]}},
        {0: 643, 1: {2: [[7, A]]}},
        {0: 644, 1: {2: [[7, B]]}},
        {0: 3, 1: {4: Tagged(560, b"f" * 16)}},
        {0: 4, 1: {4: Tagged(560, b"i" * 16)}},
    ]
    for oid in ("06092b060104019c780301", "06092b060104019c780302", "2b060104019c780301"):
        environment = {0: {0: Tagged(111, bytes.fromhex(oid))}}
        assert registers(document([environment, [MEASUREMENT, *rest]])) == {
            "measurement": (A,),
            "host_data": (C,),
            "id_key_digest": (A,),
            "author_key_digest": (B,),
            "family_id": (b"f" * 16,),
            "image_id": (b"i" * 16,),
        }


def test_an_sgx_enclave_and_a_set_of_digests() -> None:
    """draft-cds-rats-intel-corim-profile: tee.mrtee -83, tee.mrsigner -84, expression 60020 with operator member."""
    many = Tagged(60020, [6, [[1, C], [1, b"\xdd" * 32]]])
    assert registers(document([SGX, [{1: {-83: [1, C]}}]])) == {"mrenclave": (C,)}
    assert registers(document([SGX, [{1: {-83: [[1, C]], -84: many}}]])) == {
        "mrenclave": (C,),
        "mrsigner": (C, b"\xdd" * 32),
    }


def test_a_td_with_its_registers() -> None:
    found = registers(document([TD, [{1: {-83: [7, A], 14: {0: [[7, B]], 3: [[7, A]]}}}]]))
    assert found == {"mrtd": (A,), "rtmr0": (B,), "rtmr3": (A,)}


def test_values_of_several_triples_come_together_and_other_parts_are_passed_over() -> None:
    other = [{0: {0: Tagged(111, b"\x2a\x03")}}, [{1: {-73: Tagged(60010, [2, 6])}}]]
    data = document(
        triples={
            0: [[SNP, [MEASUREMENT]], other, [SNP, [{0: 641, 1: {2: [[7, B]]}}]]],
            1: [[SNP, [{1: {11: "endorsed"}}]]],
        },
        _2=[{0: Tagged(32, "https://example/rim")}],
        _5=[{0: "Acme", 2: [1]}],
    )
    assert registers(data) == {"measurement": (A, B)}


def test_a_maps_order_does_not_matter_when_reading() -> None:
    """Other tools do not sort: the map of the CoRIM begins with its tags."""
    tag = comid({0: [[SNP, [MEASUREMENT]]]})
    data = bytes.fromhex("d901f5a2") + b"\x01\x81" + cbor.encode(tag) + b"\x00" + cbor.encode("acme")
    assert registers(data) == {"measurement": (A,)}


@pytest.mark.parametrize("wrap", [lambda raw: raw, lambda raw: Tagged(37, raw)])
def test_an_id_may_be_a_uuid(wrap: Any) -> None:
    (one,) = corim.read(document([SNP, [MEASUREMENT]], _0=wrap(bytes(range(16)))))
    assert one.origin == "CoRIM 000102030405060708090a0b0c0d0e0f, CoMID tag"
    assert code_of(corim.read, document([SNP, [MEASUREMENT]], _0=wrap(bytes(15)))) == NON_CANONICAL


@pytest.mark.parametrize(
    "environment", [{1: Tagged(560, bytes(64))}, {0: 1}, {0: {}}, {0: {0: Tagged(37, bytes(16))}}]
)
def test_an_environment_of_no_known_class_is_passed_over(environment: Any) -> None:
    assert registers(
        document(
            [environment, [{1: {1: 1}}]],
            _0="a",
            _1=[comid({0: [[environment, [{1: {1: 1}}]], [SNP, [MEASUREMENT]]]})],
        )
    ) == {"measurement": (A,)}


# What would be weaker than what is written, or is ambiguous, is refused.


@pytest.mark.parametrize(
    "record",
    [
        [SNP | {1: Tagged(560, bytes(64))}, [MEASUREMENT]],
        [SNP | {2: Tagged(560, b"group")}, [MEASUREMENT]],
        [{0: SNP[0] | {2: "Milan"}}, [MEASUREMENT]],
        [SNP, [MEASUREMENT, {0: 1, 1: {1: 3}}]],
        [SNP, [MEASUREMENT, {0: 5, 1: {15: 0}}]],
        [SNP, [MEASUREMENT, {1: {3: {-49: True}}}]],
        [SNP, [MEASUREMENT | {2: [Tagged(554, "key")]}]],
        [SNP, [{0: 641, 1: {2: [[7, A]], 1: 3}}]],
        [SNP, [{0: 641, 1: {2: [[7, A], [7, B]]}}]],
        [SNP, [{0: 641, 1: {2: [[1, A]]}}]],
        [SNP, [{0: 641, 1: {4: Tagged(560, A)}}]],
        [SNP, [{0: 4, 1: {4: Tagged(560, b"i" * 16), 5: b"m" * 16}}]],
        [SNP, [{0: 4, 1: {4: Tagged(563, [b"i" * 16, b"m" * 16])}}]],
        [SNP, [{0: "641", 1: {2: [[7, A]]}}]],
        [SGX, [{1: {-83: [1, C], -85: 1}}]],
        [SGX, [{1: {-83: [1, C], -73: Tagged(60010, [2, 6])}}]],
        [SGX, [{1: {-83: Tagged(60020, [7, [[1, C]]])}}]],
        [SGX, [{1: {-83: Tagged(60020, [6, []])}}]],
        [SGX, [{1: {-83: [[1, C], [1, C]]}}]],
        [SGX, [{0: 83, 1: {-83: [1, C]}}]],
        [TD, [{1: {14: {4: [[7, A]]}}}]],
        [TD, [{1: {14: {"0": [[7, A]]}}}]],
        [TD, [{1: {-83: [1, C]}}]],
    ],
)
def test_a_triple_that_asks_for_more_than_registers_is_refused(record: list[Any]) -> None:
    assert code_of(corim.read, document(record)) == UNKNOWN


@pytest.mark.parametrize(
    "record",
    [
        [SNP, [{0: 641, 1: {2: [[7, C]]}}]],
        [SNP, [{0: 3, 1: {4: Tagged(560, b"f" * 15)}}]],
        [SGX, [{1: {-83: [1, A]}}]],
        [TD, [{1: {14: {0: [[7, C]]}}}]],
    ],
)
def test_a_value_of_another_length_is_refused(record: list[Any]) -> None:
    assert code_of(corim.read, document(record)) == "malformed.length_mismatch"


@pytest.mark.parametrize(
    "record",
    [
        [SNP],
        [SNP, []],
        [SNP, [MEASUREMENT], 1],
        [SNP, MEASUREMENT],
        [1, [MEASUREMENT]],
        [SNP, [{0: 641, 1: {}}]],
        [SNP, [{0: 641, 1: {2: []}}]],
        [TD, [{1: {14: {}}}]],
    ],
)
def test_a_triple_of_another_form_is_refused(record: list[Any]) -> None:
    assert code_of(corim.read, document(record)) == NON_CANONICAL


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "malformed.truncated"),
        (cbor.encode({0: "acme"}), UNKNOWN),
        (cbor.encode(Tagged(506, b"")), UNKNOWN),
        (cbor.encode(Tagged(501, [])), NON_CANONICAL),
        (document([SNP, [MEASUREMENT]]) + b"\0", "malformed.trailing_data"),
        (document([SNP, [MEASUREMENT]])[:-1], "malformed.truncated"),
        (document([SNP, [MEASUREMENT]], _9=1), UNKNOWN),
        (document([SNP, [MEASUREMENT]], _0=7), NON_CANONICAL),
        (document([SNP, [MEASUREMENT]], _0="a\nb"), NON_CANONICAL),
        (document([SNP, [MEASUREMENT]], _1=[1]), NON_CANONICAL),
        (document([SNP, [MEASUREMENT]], _1=[Tagged(505, b"a")]), "not_acceptable.empty_policy"),
        (document([SNP, [MEASUREMENT]], _1=[]), "not_acceptable.empty_policy"),
        (document([{0: {0: Tagged(111, b"\x2a\x03")}}, [MEASUREMENT]]), "not_acceptable.empty_policy"),
        (document(triples={1: []}), "not_acceptable.empty_policy"),
        (b"\xd9\x01\xf5" + b"\x81" * 200, "malformed.limit_exceeded"),
    ],
)
def test_a_document_of_another_form_is_refused(data: bytes, code: str) -> None:
    assert code_of(corim.read, data) == code


def test_ev_23_a_key_that_is_there_twice_is_refused() -> None:
    data = document([SNP, [MEASUREMENT]], _0="acme")
    twice = data.replace(b"\xd9\x01\xf5\xa3\x00\x64acme", b"\xd9\x01\xf5\xa4\x00\x64acme\x00\x64evil", 1)
    assert twice != data
    assert code_of(corim.read, twice) == NON_CANONICAL


def seconds(at: datetime) -> Tagged:
    return Tagged(1, int(at.timestamp()))


def test_a_validity_is_judged_at_the_time_given_and_needs_one() -> None:
    day = timedelta(days=1)
    data = document([SNP, [MEASUREMENT]], _4={0: seconds(AT - day), 1: seconds(AT + day)})
    assert registers(data, at=AT) == {"measurement": (A,)}
    assert code_of(corim.read, data) == "configuration.time"
    assert code_of(corim.read, data, at=AT - 2 * day) == "not_acceptable.from_future"
    assert code_of(corim.read, data, at=AT + 2 * day) == "not_acceptable.stale"
    for validity in ({0: seconds(AT)}, {1: 5}, {1: Tagged(1, "x")}, {1: seconds(AT), 2: 0}):
        code = code_of(corim.read, document([SNP, [MEASUREMENT]], _4=validity), at=AT - day)
        assert code.startswith("malformed.")


# Signed.


def test_a_signed_corim_is_read_under_its_signer_s_key_and_no_other() -> None:
    plain = document([SNP, [MEASUREMENT]])
    signed = corim.sign(plain, KEY, signer="Acme")
    assert signed[:1] == b"\xd2"
    assert corim.read(signed, keys=(SPKI,)) == corim.read(plain)
    other = ED25519_SPKI + SigningKey.from_bytes(b"\x0a" * 32).public
    assert corim.read(signed, keys=(other, SPKI)) == corim.read(plain)
    assert code_of(corim.read, signed, keys=(other,)) == "not_genuine.bad_signature"
    assert code_of(corim.read, signed, keys=(Signer.of("ES256").spki,)) == "not_genuine.algorithm_mismatch"
    assert code_of(corim.read, signed) == "configuration.invalid"


def test_an_algorithm_that_is_true_is_not_number_1() -> None:
    environment = {0: {0: Tagged(111, corim._SGX_CLASS)}}
    for named, code in ((1, None), (True, UNKNOWN)):
        data = document([environment, [{1: {-83: [[named, bytes(32)]]}}]])
        assert (code_of(corim.read, data) if code else corim.read(data)[0].tee) == (code or "sgx")


@pytest.mark.parametrize(
    ("new", "refused"),
    [
        ({1: {0: "new"}}, False),
        ({1: {0: "new"}, 3: [{0: "old", 1: 0}]}, False),
        ({1: {0: "new"}, 3: [{0: "elsewhere", 1: 1}]}, False),
        ({1: {0: "new"}, 3: [{0: "elsewhere", 1: 1}, {0: "old", 1: 1}]}, True),
        ({1: {0: "old", 1: 2}}, True),
    ],
)
@pytest.mark.parametrize("newest_first", [True, False])
def test_values_that_are_replaced_in_the_same_file_do_not_count(
    new: dict[int, Any], *, refused: bool, newest_first: bool
) -> None:
    old = {1: {0: "old"}, 4: {0: [[SNP, [MEASUREMENT]]]}}
    both = [new | {4: {0: [[SNP, [MEASUREMENT]]]}}, old][:: 1 if newest_first else -1]
    data = cbor.encode(Tagged(501, {0: "x", 1: [Tagged(506, cbor.encode(one)) for one in both]}))
    if refused:
        assert code_of(corim.read, data) == UNKNOWN
    else:
        assert len(corim.read(data)) == 2


@pytest.mark.parametrize(
    "links", [5, [5], [{}], [{0: "a"}], [{0: "a", 1: 2}], [{0: 1, 1: 1}], [{0: "a", 1: True}]]
)
def test_links_that_are_none_are_refused(links: Any) -> None:
    comid = cbor.encode({1: {0: "c"}, 3: links, 4: {0: [[SNP, [MEASUREMENT]]]}})
    assert code_of(corim.read, cbor.encode(Tagged(501, {0: "x", 1: [Tagged(506, comid)]}))).startswith(
        "malformed."
    )


def test_a_signature_that_is_stripped_is_missed() -> None:
    """Whoever gives a key asks for a signature; a file without one is not read, in whatever form it comes."""
    plain = document([SNP, [MEASUREMENT]])
    text = reference.write(corim.read(plain))
    assert reference.read(corim.sign(plain, KEY, signer="Acme"), keys=(SPKI,)) == corim.read(plain)
    for stripped in (plain, text):
        assert reference.read(stripped)
        assert code_of(reference.read, stripped, keys=(SPKI,)) == "not_genuine.bad_signature"
    assert code_of(corim.read, plain, keys=(SPKI,)) == "not_genuine.bad_signature"


def test_one_changed_bit_of_a_signed_corim_is_refused() -> None:
    signed = corim.sign(document([SNP, [MEASUREMENT]]), KEY, signer="Acme")
    for bit in range(8, 8 * len(signed), 31):
        changed = bytearray(signed)
        changed[bit // 8] ^= 1 << bit % 8
        code = code_of(corim.read, bytes(changed), keys=(SPKI,))
        assert code.startswith(("malformed.", "not_genuine.")), bit


@pytest.mark.parametrize(
    ("content", "parameters"),
    [("application/cbor", {8: b"\xa0"}), (None, {8: b"\xa0"}), ("application/rim+cbor", {})],
)
def test_a_signed_file_that_is_not_said_to_be_a_corim_is_refused(content: Any, parameters: Any) -> None:
    signed = cose.sign1(KEY, document([SNP, [MEASUREMENT]]), content_type=content, parameters=parameters)
    assert code_of(corim.read, b"\xd2" + signed, keys=(SPKI,)) == UNKNOWN


def test_the_validity_of_a_signature_counts() -> None:
    plain = document([SNP, [MEASUREMENT]])
    ends = int((AT + timedelta(days=1)).timestamp())
    for parameters in (
        {8: cbor.encode({0: {0: "Acme"}, 1: {1: Tagged(1, ends)}})},
        {15: {1: "Acme", 4: ends}},
    ):
        signed = b"\xd2" + cose.sign1(KEY, plain, content_type=corim.MEDIA_TYPE, parameters=parameters)
        assert corim.read(signed, keys=(SPKI,), at=AT)
        assert code_of(corim.read, signed, keys=(SPKI,), at=AT + timedelta(days=2)) == "not_acceptable.stale"
        assert code_of(corim.read, signed, keys=(SPKI,)) == "configuration.time"


# Round trips.

_SNP = st.fixed_dictionaries(
    {},
    optional={
        name: st.lists(st.binary(min_size=size, max_size=size), min_size=1, max_size=3, unique=True).map(
            tuple
        )
        for name, size in (("measurement", 48), ("host_data", 32), ("id_key_digest", 48), ("image_id", 16))
    },
).filter(bool)
_TDX = st.fixed_dictionaries(
    {},
    optional={
        name: st.lists(st.binary(min_size=48, max_size=48), min_size=1, max_size=3, unique=True).map(tuple)
        for name in ("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3")
    },
).filter(bool)


@given(st.lists(_SNP, min_size=1, max_size=3))
def test_snp_values_survive_corim(given_: list[dict[str, tuple[bytes, ...]]]) -> None:
    values = [ReferenceValues("snp", one, "x") for one in given_]
    found = corim.read(corim.write(values, identifier="acme"))
    assert [dict(one.measurements) for one in found] == [dict(one.measurements) for one in values]


@given(_TDX)
def test_tdx_values_survive_corim(given_: dict[str, tuple[bytes, ...]]) -> None:
    data = corim.write([ReferenceValues("tdx", given_, "x")], identifier="acme")
    assert registers(data) == given_
    assert b"\xd8\x6f\x4a" + bytes.fromhex("6086480186f84d011001") in data


@pytest.mark.parametrize(
    "values",
    [
        [],
        [ReferenceValues("nitro", {"pcr0": (A,)}, "x")],
        [ReferenceValues("snp", {"measurement": (A,)}, "x"), ReferenceValues("tdx", {"mrtd": (A,)}, "x")],
        [ReferenceValues("snp", {"measurement": (C,)}, "x")],
        [ReferenceValues("snp", {"chip_ids": (bytes(64),)}, "x")],
        [ReferenceValues("tdx", {"mrconfigid": (A,)}, "x")],
        [ReferenceValues("tdx", {"rtmr4": (A,)}, "x")],
        [ReferenceValues("sgx", {"mrenclave": (A,)}, "x")],
    ],
)
def test_what_a_profile_has_no_place_for_is_not_written(values: list[ReferenceValues]) -> None:
    assert code_of(corim.write, values, identifier="acme") == "configuration.invalid"


@given(
    st.binary(max_size=120),
    st.sampled_from([b"", b"\xd2", b"\xd9\x01\xf5", b"\xd9\x01\xf5\xa2\x00\x61a\x01"]),
)
def test_nothing_but_typed_errors_comes_out_of_any_bytes(data: bytes, start: bytes) -> None:
    only_typed_errors(corim.read, start + data, at=AT, keys=(SPKI,) if start == b"\xd2" else ())


_CBOR = st.recursive(
    st.none() | st.booleans() | st.integers(-90, 700) | st.binary(max_size=4) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.integers(-90, 20), inner, max_size=3)
        | st.builds(Tagged, st.sampled_from([1, 32, 111, 560, 60020]), inner)
    ),
    max_leaves=6,
)


@given(_CBOR, st.sampled_from(["record", "environment", "measurements", "triples", "validity", "tags"]))
def test_nothing_but_typed_errors_comes_out_of_any_structure(value: Any, where: str) -> None:
    data = {
        "record": lambda: document(value),
        "environment": lambda: document([value, [MEASUREMENT]]),
        "measurements": lambda: document([SNP, value]),
        "triples": lambda: document(triples=value),
        "validity": lambda: document([SNP, [MEASUREMENT]], _4=value),
        "tags": lambda: document([SNP, [MEASUREMENT]], _1=value),
    }[where]()
    only_typed_errors(corim.read, data, at=AT)
