# SPDX-License-Identifier: Apache-2.0
"""Attacks on Nitro documents. Each starts from a case that passes, changes one thing, and names the code of the refusal."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta
from typing import Any

import pytest

from confide.crypto import cose
from confide.crypto.issue import IssuingKey
from confide.crypto.signing import CURVES
from confide.errors import ConfigurationError, NotAcceptable
from confide.simulator.nitro import ABSENT, AT, Platform, Raw, encode_fields
from confide.tees.nitro import wire
from confide.wire import cbor
from support import nitro

MALFORMED = "malformed.non_canonical"


ORDER = CURVES["p384"][2]


ZEROS = bytes(48)
PCRS: dict[Any, Any] = dict(nitro.platform().pcrs)


def test_a_minted_document_passes() -> None:
    result = nitro.verify(nitro.document(), report_data=nitro.REPORT_DATA)

    assert (result.tee, result.simulated, result.claims.report_data) == ("nitro", True, nitro.REPORT_DATA)
    assert [reason.code for reason in result.reasons] == ["note.simulated", "note.freshness"]


@pytest.mark.parametrize("registers", [(0, 1, 2), (0,), (1,), (2,)])
def test_nit_01_registers_of_zeros_are_debug_mode_even_if_nothing_is_pinned(
    registers: tuple[int, ...],
) -> None:
    data = nitro.document(pcrs=PCRS | dict.fromkeys(registers, ZEROS))
    anything = {f"pcr{index}": "ANY" for index in range(3)}

    assert nitro.refusal(data, reference=anything) == ["not_acceptable.debug"]
    allowed = nitro.verify(data, reference=anything, top={"allow_debug": True})
    assert (allowed.vector.configuration, allowed.vector.runtime_opaque) == (96, 96)


@pytest.mark.parametrize("name", ["pcr0", "pcr1", "pcr2"])
def test_nit_01_a_policy_that_pins_zeros_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        nitro.policy({name: [ZEROS.hex()]})

    assert caught.value.code == "configuration.invalid"


def test_nit_02_a_policy_that_pins_only_the_image_is_told_what_it_leaves_open() -> None:
    result = nitro.verify(nitro.document(), reference={"pcr1": None, "pcr2": None})

    open_registers = [reason.message for reason in result.reasons if reason.code == "note.wildcard"]
    assert [
        name for name in ("pcr0", "pcr1", "pcr2") if any(f"`{name}`" in text for text in open_registers)
    ] == [
        "pcr1",
        "pcr2",
    ]
    with pytest.raises(NotAcceptable) as caught:
        nitro.policy({"pcr0": None})
    assert caught.value.code == "not_acceptable.empty_policy"


@pytest.mark.parametrize("index", [0, 1, 2])
def test_nit_02_each_register_of_the_launch_is_compared_for_itself(index: int) -> None:
    data = nitro.document(pcrs={**PCRS, index: b"\x77" * 48})

    assert nitro.refusal(data) == ["not_acceptable.measurement"]


def _without(index: int) -> dict[int, bytes]:
    return {key: value for key, value in PCRS.items() if key != index}


TWICE = Raw(
    b"\xb1" + b"".join(cbor.encode(k) + cbor.encode(v) for k, v in PCRS.items())
    + cbor.encode(0) + cbor.encode(b"\x10" * 48)
)  # fmt: skip


@pytest.mark.parametrize(
    ("pcrs", "code"),
    [
        *[(_without(index), MALFORMED) for index in (0, 1, 2, 4, 8, 15)],
        ({}, MALFORMED),
        ({**PCRS, 32: ZEROS}, MALFORMED),
        ({**PCRS, -1: ZEROS}, MALFORMED),
        ({**PCRS, "16": ZEROS}, MALFORMED),
        ({**PCRS, b"\x10": ZEROS}, MALFORMED),
        ({**PCRS, 0: b"\x10" * 16}, "malformed.length_mismatch"),
        ({**PCRS, 0: b"\x10" * 32}, "malformed.length_mismatch"),
        ({**PCRS, 0: b"\x10" * 64}, "malformed.length_mismatch"),
        ({**PCRS, 0: b""}, "malformed.length_mismatch"),
        ({**PCRS, 0: "10" * 48}, "malformed.length_mismatch"),
        ({**PCRS, 3: None}, "malformed.length_mismatch"),
        (TWICE, MALFORMED),
        ([ZEROS] * 16, MALFORMED),
        (None, MALFORMED),
    ],
)
def test_nit_03_registers_that_are_not_0_to_31_with_48_bytes_each_are_refused(pcrs: Any, code: str) -> None:
    assert nitro.refused(nitro.document(pcrs=pcrs)) == [code]


def test_nit_03_a_locked_register_of_the_enclaves_own_is_read_and_can_be_pinned() -> None:
    data = nitro.document(pcrs={**PCRS, 16: b"\x20" * 48})

    result = nitro.verify(data, reference={"pcr16": ["20" * 48]})
    assert any(reason.code == "note.unproven" for reason in result.reasons)
    assert nitro.refusal(nitro.document(), reference={"pcr16": ["20" * 48]}) == ["not_acceptable.measurement"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        *[({name: ABSENT}, MALFORMED) for name in ("module_id", "digest", "timestamp", "pcrs")],
        *[({name: ABSENT}, MALFORMED) for name in ("certificate", "cabundle")],
        *[({name: None}, MALFORMED) for name in ("module_id", "digest", "timestamp", "pcrs")],
        *[({name: None}, MALFORMED) for name in ("certificate", "cabundle")],
        ({"digest": "SHA256"}, MALFORMED),
        ({"digest": "sha384"}, MALFORMED),
        ({"digest": "SHA512"}, MALFORMED),
        ({"digest": b"SHA384"}, MALFORMED),
        ({"module_id": ""}, MALFORMED),
        ({"module_id": b"i-1"}, MALFORMED),
        ({"module_id": "i-\x1b[2J"}, MALFORMED),
        ({"module_id": "i" * 257}, "malformed.limit_exceeded"),
        ({"extra": 1}, MALFORMED),
        ({"": b""}, MALFORMED),
        ({"user_data": "text"}, MALFORMED),
        ({"user_data": [1]}, MALFORMED),
        ({"nonce": 7}, MALFORMED),
        ({"public_key": True}, MALFORMED),
        ({"public_key": b""}, "malformed.length_mismatch"),
        ({"user_data": bytes(1025)}, "malformed.limit_exceeded"),
        ({"nonce": bytes(1025)}, "malformed.limit_exceeded"),
        ({"public_key": bytes(1025)}, "malformed.limit_exceeded"),
        ({"certificate": bytes(1025)}, "malformed.limit_exceeded"),
        ({"certificate": b""}, "malformed.limit_exceeded"),
        ({"certificate": "pem"}, MALFORMED),
        ({"cabundle": []}, MALFORMED),
        ({"cabundle": [b""]}, "malformed.limit_exceeded"),
        ({"cabundle": [bytes(1025)]}, "malformed.limit_exceeded"),
        ({"cabundle": ["pem"]}, MALFORMED),
        ({"cabundle": {0: b"x"}}, MALFORMED),
        ({"cabundle": [b"\x30"] * 17}, "malformed.limit_exceeded"),
        ({"cabundle": [b"\x30\x00"]}, "malformed.unknown_format"),
        ({"timestamp": "now"}, MALFORMED),
        ({"timestamp": True}, MALFORMED),
        ({"timestamp": Raw(b"\xfb" + bytes(8))}, MALFORMED),
    ],
)
def test_nit_04_a_payload_of_other_fields_types_or_sizes_is_refused(
    change: dict[str, Any], code: str
) -> None:
    assert nitro.refused(nitro.document(**change)) == [code]


@pytest.mark.parametrize("name", ["user_data", "nonce", "public_key"])
def test_nit_04_optional_fields_have_up_to_1024_bytes_or_are_null_or_absent(name: str) -> None:
    assert getattr(nitro.claims(nitro.document(**{name: bytes(1024)})).details, name) == bytes(1024)
    assert getattr(nitro.claims(nitro.document(**{name: None})).details, name) is None
    assert getattr(nitro.claims(nitro.document(**{name: ABSENT})).details, name) is None


def test_nit_04_a_duplicate_field_is_refused() -> None:
    fields = nitro.platform().fields(nitro.REPORT_DATA)
    inner = encode_fields(fields)[1:] + cbor.encode("user_data") + cbor.encode(b"other")

    assert nitro.refused(nitro.document(payload=b"\xaa" + inner)) == [MALFORMED]
    assert nitro.refused(nitro.document(payload=b"\xbf" + inner + b"\xff")) == [MALFORMED]


def test_nit_04_a_document_of_a_nitrotpm_is_not_one_of_an_enclave_although_the_same_cas_sign_it() -> None:
    """An EC2 instance's registers are under another name; beside an enclave's they are as wrong as in their place."""
    alone, beside = {"pcrs": ABSENT, "nitrotpm_pcrs": PCRS}, {"nitrotpm_pcrs": PCRS}

    for change in (alone, beside):
        assert nitro.refused(nitro.document(**change)) == ["malformed.unknown_format"]


def test_both_forms_of_the_payload_are_read_and_mean_the_same() -> None:
    definite, indefinite = nitro.document(), nitro.document(indefinite=True)

    assert definite != indefinite
    assert nitro.claims(definite).measurements == nitro.claims(indefinite).measurements


def _header(value: Any) -> bytes:
    return cbor.encode(value)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"protected": _header({1: -7})}, "not_genuine.unsupported_algorithm"),
        ({"protected": _header({1: -257})}, "not_genuine.unsupported_algorithm"),
        ({"protected": _header({1: -36})}, "not_genuine.unsupported_algorithm"),
        ({"protected": _header({1: -8})}, "not_genuine.unsupported_algorithm"),
        ({"protected": _header({1: -19})}, "not_genuine.unsupported_algorithm"),
        ({"protected": _header({1: 0})}, "not_genuine.unsupported_algorithm"),
        ({"protected": _header({1: "ES384"})}, "not_genuine.unsupported_algorithm"),
        ({"protected": _header({})}, "not_genuine.unsupported_algorithm"),
        ({"protected": b""}, "malformed.truncated"),
        ({"protected": _header([1, -35])}, "malformed.unknown_format"),
        ({"protected": _header({}), "unprotected": {1: -35}}, MALFORMED),
        ({"unprotected": {1: -35}}, MALFORMED),
        ({"unprotected": {4: b"kid"}}, MALFORMED),
        ({"unprotected": {33: b"certificate"}}, MALFORMED),
        ({"unprotected": []}, "malformed.unknown_format"),
        ({"unprotected": b""}, "malformed.unknown_format"),
        ({"protected": _header({1: -35, 4: b"kid"})}, MALFORMED),
        ({"protected": _header({1: -35, 33: b"x5chain"})}, MALFORMED),
        ({"protected": _header({1: -35, 2: [1]})}, MALFORMED),
        ({"protected": b"\xa1\x01\x39\x00\x22"}, MALFORMED),
        ({"protected": b"\xa1\x18\x01\x38\x22"}, MALFORMED),
        ({"protected": b"\xbf\x01\x38\x22\xff"}, MALFORMED),
        ({"protected": b"\xa2\x01\x38\x22\x01\x38\x22"}, MALFORMED),
        ({"attached": None}, "malformed.unknown_format"),
        ({"attached": b""}, "malformed.truncated"),
        ({"attached": {}}, "malformed.unknown_format"),
        ({"tag": 17}, MALFORMED),
        ({"tag": 98}, MALFORMED),
        ({"tag": 55799}, MALFORMED),
        ({"external_aad": b"x"}, "not_genuine.bad_signature"),
        ({"payload": b"\x01"}, "malformed.unknown_format"),
        ({"payload": cbor.encode([1])}, "malformed.unknown_format"),
        ({"payload": cbor.encode({})}, MALFORMED),
    ],
)
def test_nit_05_another_cose_structure_is_refused(change: dict[str, Any], code: str) -> None:
    assert nitro.refused(nitro.document(**change)) == [code]


def test_nit_05_the_tag_is_accepted_once_and_reported_as_never_seen() -> None:
    data = nitro.document(tag=18)

    assert any(reason.code == "note.unproven" for reason in nitro.verify(data).reasons)
    assert "unproven on real bytes" in wire.explain(data)
    assert "unproven on real bytes" not in wire.explain(nitro.document())
    assert nitro.refused(b"\xd2" + data) == ["malformed.unknown_format"]
    assert nitro.refused(b"\xd8\x12" + data[1:]) == [MALFORMED]


@pytest.mark.parametrize("count", [0, 3, 5])
def test_nit_05_an_array_of_other_than_four_is_refused(count: int) -> None:
    parts = [cbor.encode({1: cose.ES384}), {}, b"payload", bytes(96), b"more"]

    assert nitro.refused(cbor.encode(parts[:count])) == ["malformed.unknown_format"]


def test_nit_06_the_order_of_the_bundle_decides_nothing() -> None:
    wanted = nitro.claims(nitro.document()).chain
    stranger = Platform.create(seed=9)
    for bundle in (
        nitro.bundle(3, 2, 1, 0),
        nitro.bundle(2, 0, 3, 1),
        nitro.bundle(1, 2, 3),  # The root is pinned and need not come.
        nitro.bundle(0, 1, 1, 2, 2, 3, 3),
        [*nitro.bundle(0, 1, 2, 3), nitro.platform().chain[-1].der],
        [stranger.chain[0].der, *nitro.bundle(0, 1, 2, 3)],
        [one.der for one in stranger.chain[:-1]] + nitro.bundle(0, 1, 2, 3),
    ):
        assert nitro.claims(nitro.document(cabundle=bundle)).chain == wanted


@pytest.mark.parametrize(
    ("bundle", "code"),
    [
        (nitro.bundle(0, 1, 2), "not_genuine.chain_invalid"),
        (nitro.bundle(0, 2, 3), "not_genuine.chain_invalid"),
        (nitro.bundle(0), "not_genuine.chain_invalid"),
        (nitro.bundle(4), "not_genuine.chain_invalid"),
    ],
)
def test_nit_06_a_chain_with_a_gap_is_refused(bundle: list[bytes], code: str) -> None:
    assert nitro.refused(nitro.document(cabundle=bundle)) == [code]


def test_nit_06_the_pinned_root_decides_and_not_the_one_that_comes_along() -> None:
    attacker = Platform.create(seed=2)
    data = attacker.document(nitro.REPORT_DATA)
    with_real_root = attacker.document(
        nitro.REPORT_DATA, cabundle=[nitro.platform().chain[0].der, *(one.der for one in attacker.chain[:-1])]
    )

    assert nitro.claims(data, attacker).tee == "nitro"
    assert nitro.refused(data) == ["not_genuine.untrusted_root"]
    assert nitro.refused(with_real_root) == ["not_genuine.untrusted_root"]


def test_nit_06_a_self_signed_certificate_is_refused() -> None:
    key = IssuingKey.from_scalar(4711)
    leaf = Platform.create(
        seed=1, certificates={"leaf": {"signing_key": key, "issuer": (("CN", "self"),), "subject": (("CN", "self"),)}},
        keys={"leaf": key},
    )  # fmt: skip
    data = leaf.document(nitro.REPORT_DATA, cabundle=[leaf.chain[-1].der])

    assert nitro.refused(data) == ["not_genuine.untrusted_root"]


def test_nit_07_a_document_is_judged_now_unless_the_anchor_is_archival() -> None:
    data, later = nitro.document(), AT + timedelta(days=400)
    archival = dataclasses.replace(nitro.platform().anchor, archival=True)

    assert nitro.refused(data, at=later) == ["not_genuine.expired"]
    found = nitro.claims(data, at=later, anchors=(archival,))
    assert found.details.archival
    assert [check.outcome for check in found.checks if check.name == "validity now"] == ["not checked"]
    # One anchor for the archive is enough, whatever the others say of the same root.
    both = (nitro.platform().anchor, dataclasses.replace(archival, simulated=False))
    mixed = nitro.claims(data, at=later, anchors=both)
    assert (mixed.simulated, mixed.details.archival) == (True, True)


def test_nit_07_an_archival_anchor_is_archival_for_its_own_root_only() -> None:
    other = dataclasses.replace(Platform.create(seed=2).anchor, archival=True)
    anchors = (nitro.platform().anchor, other)

    assert nitro.claims(nitro.document(), anchors=anchors).details.archival is False
    assert nitro.refused(nitro.document(), anchors=anchors, at=AT + timedelta(hours=4)) == [
        "not_genuine.expired"
    ]


def test_nit_07_in_an_archive_the_certificate_is_valid_when_the_document_was_signed() -> None:
    archival = dataclasses.replace(nitro.platform().anchor, archival=True)
    late = nitro.document(timestamp=int((AT + timedelta(hours=3, seconds=1)).timestamp() * 1000))

    assert nitro.refused(late, anchors=(archival,), at=AT + timedelta(days=1)) == ["not_genuine.expired"]
    # Of two kinds of roots, the refusal of the one that the chain leads to is told.
    stranger = Platform.create(seed=2).anchor
    for anchors in ((archival, stranger), (stranger, archival)):
        assert nitro.refused(late, anchors=anchors, at=AT + timedelta(days=1)) == ["not_genuine.expired"]


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (0, "malformed.limit_exceeded"),
        (-1, "malformed.limit_exceeded"),
        (int(AT.timestamp()), "malformed.limit_exceeded"),
        (1 << 63, "malformed.limit_exceeded"),
        ((1 << 64) - 1, "malformed.limit_exceeded"),
        (wire.FIRST_TIMESTAMP - 1, "malformed.limit_exceeded"),
        (wire.LAST_TIMESTAMP + 1, "malformed.limit_exceeded"),
        (wire.LAST_TIMESTAMP, "not_genuine.from_future"),
        (int((AT + timedelta(minutes=5, seconds=1)).timestamp() * 1000), "not_genuine.from_future"),
        (int(AT.timestamp() * 1_000_000), "malformed.limit_exceeded"),
    ],
)
def test_nit_08_a_time_that_is_no_time_or_lies_ahead_is_refused(value: int, code: str) -> None:
    assert nitro.refused(nitro.document(timestamp=value))[0] == code


def test_nit_08_a_clock_that_is_five_minutes_ahead_is_admitted() -> None:
    assert nitro.claims(nitro.document(timestamp=int((AT + timedelta(minutes=5)).timestamp() * 1000)))


def test_nit_08_a_time_outside_the_life_of_the_documents_own_certificate_is_refused() -> None:
    begin, end = AT - timedelta(seconds=3), AT + timedelta(hours=3)

    def signed(at: datetime) -> bytes:
        return nitro.document(timestamp=int(at.timestamp() * 1000))

    assert nitro.claims(signed(begin - timedelta(minutes=5)))
    assert nitro.refused(signed(begin - timedelta(minutes=5, seconds=1))) == ["not_genuine.chain_invalid"]
    # After its end the certificate is expired in any case; that the document lies outside, too, is said besides.
    later = AT + timedelta(days=1)
    assert nitro.refused(signed(end + timedelta(minutes=5)), at=later) == ["not_genuine.expired"]
    assert nitro.refused(signed(end + timedelta(minutes=5, seconds=1)), at=later) == [
        "not_genuine.expired",
        "not_genuine.chain_invalid",
    ]


@pytest.mark.parametrize("name", ["nonce", "public_key", "user_data"])
def test_nit_09_a_field_that_the_policy_asks_for_and_that_is_null_is_missed(name: str) -> None:
    wanted = {name: ["aabb"]}
    other = "not_acceptable.nonce_mismatch" if name == "nonce" else "not_acceptable.channel"

    assert nitro.verify(nitro.document(**{name: b"\xaa\xbb"}), reference=wanted)
    assert nitro.refusal(nitro.document(**{name: None}), reference=wanted) == ["not_acceptable.nonce_missing"]
    assert nitro.refusal(nitro.document(**{name: b"\xaa\xbb\0"}), reference=wanted) == [other]
    assert nitro.refusal(nitro.document(**{name: b"\xaa"}), reference=wanted) == [other]
    if name != "public_key":
        assert nitro.refusal(nitro.document(**{name: b""}), reference=wanted) == [
            "not_acceptable.nonce_missing"
        ]


def test_nit_09_user_data_that_is_null_is_not_the_data_asked_for() -> None:
    data = nitro.document(user_data=None)

    assert nitro.claims(data).report_data == b""
    assert nitro.refusal(data, report_data=nitro.REPORT_DATA) == ["not_acceptable.channel"]
    assert nitro.refusal(data, report_data=bytes(64)) == ["not_acceptable.channel"]


def _der_signature(data: bytes) -> bytes:
    r, s = (int.from_bytes(part, "big") for part in (data[-96:-48], data[-48:]))
    parts = b"".join(bytes((2, 49)) + value.to_bytes(49, "big") for value in (r, s))
    return bytes((0x30, len(parts))) + parts


@pytest.mark.parametrize("length", [0, 1, 48, 64, 95, 97, 132])
def test_nit_10_a_signature_of_another_length_is_refused(length: int) -> None:
    good = nitro.document()[-96:]

    assert nitro.refused(nitro.document(signature=(good * 2)[:length])) == ["not_genuine.bad_signature"]


def test_nit_10_a_signature_in_der_is_refused() -> None:
    assert nitro.refused(nitro.document(signature=_der_signature(nitro.document()))) == [
        "not_genuine.bad_signature"
    ]


@pytest.mark.parametrize("order", ["little", "swapped"])
def test_nit_10_r_and_s_in_another_order_are_refused(order: str) -> None:
    r, s = nitro.document()[-96:-48], nitro.document()[-48:]
    changed = r[::-1] + s[::-1] if order == "little" else s + r

    assert nitro.refused(nitro.document(signature=changed)) == ["not_genuine.bad_signature"]


def test_nit_11_a_module_id_is_no_identity_and_cannot_be_made_one() -> None:
    elsewhere = nitro.document(module_id="i-ffffffffffffffff0-enc0000000000000000")
    result = nitro.verify(elsewhere, reference={"pcr4": "ANY"})

    assert result.vector.instance_identity == 97  # Simulated; on hardware nothing is claimed.
    with pytest.raises(ConfigurationError):
        nitro.policy({"module_id": ["i-0123456789abcdef0-enc0123456789abcdef"]})


@pytest.mark.parametrize(
    ("index", "leaf"),
    [(3, "identity"), (4, "identity"), (8, "signer"), (5, "measurement"), (15, "measurement")],
)
def test_nit_11_where_an_enclave_runs_counts_only_if_the_policy_pins_it(index: int, leaf: str) -> None:
    data = nitro.document(pcrs={**PCRS, index: b"\x44" * 48})

    assert nitro.verify(data)
    assert nitro.verify(data, reference={f"pcr{index}": ["44" * 48]})
    assert nitro.refusal(data, reference={f"pcr{index}": ["45" * 48]}) == [f"not_acceptable.{leaf}"]


def test_nit_12_a_document_that_the_parent_instance_relays_vouches_for_no_other_key() -> None:
    """The parent sees every document and may hand one out for another key: the data asked for is compared whole."""
    mine, relayed = nitro.document(), nitro.platform().document(bytes(64))

    assert nitro.verify(mine, report_data=nitro.REPORT_DATA)
    for data in (
        relayed,
        nitro.platform().document(nitro.REPORT_DATA + b"\0"),
        nitro.platform().document(b""),
    ):
        assert nitro.refusal(data, report_data=nitro.REPORT_DATA) == ["not_acceptable.channel"]
    assert nitro.refusal(
        nitro.platform().document(nitro.REPORT_DATA[:32]), report_data=nitro.REPORT_DATA
    ) == ["not_acceptable.channel"]


@pytest.mark.parametrize("name", nitro.BOMBS)
@pytest.mark.parametrize("field", ["user_data", "module_id", "pcrs", "cabundle", "extra"])
def test_nit_13_a_bomb_inside_the_payload_is_refused(name: str, field: str) -> None:
    (code,) = nitro.refused(nitro.document(**{field: Raw(bytes.fromhex(nitro.BOMBS[name]))}))

    assert code.startswith("malformed.")


def test_everything_that_a_policy_refuses_is_named_at_once() -> None:
    found = nitro.refusal(
        nitro.document(pcrs={**PCRS, 0: ZEROS}, nonce=b"\x01"),
        reference={"pcr3": ["11" * 48], "nonce": ["02"]},
    )

    assert found == [
        "not_acceptable.debug",
        "not_acceptable.measurement",
        "not_acceptable.identity",
        "not_acceptable.nonce_mismatch",
    ]
