# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from confide.errors import MalformedError
from confide.wire import der
from support import der_bytes
from support.refusal import code_of, only_typed_errors


def decode(data: bytes) -> der.Element:
    return der.decode(data, what="structure", max_size=1 << 16)


@pytest.mark.parametrize(
    ("data", "value"),
    [("020100", 0), ("02017f", 127), ("02020080", 128), ("0201ff", -1), ("0202ff7f", -129)],
)
def test_integers(data: str, value: int) -> None:
    assert decode(bytes.fromhex(data)).integer() == value


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("06092b0601040190780101", "1.3.6.1.4.1.2168.1.1"),
        ("0603551d13", "2.5.29.19"),
        ("06092a864886f70d01010a", "1.2.840.113549.1.1.10"),
        ("06028837", "2.999"),
        ("060100", "0.0"),
    ],
)
def test_object_identifiers(data: str, text: str) -> None:
    assert decode(bytes.fromhex(data)).oid() == text


@pytest.mark.parametrize("size", [65, 3000, 60_000])
def test_ev_13_an_object_identifier_longer_than_any_in_use_is_refused(size: int) -> None:
    longest, longer = (der_bytes.tagged(6, b"\xff" * (count - 1) + b"\x7f") for count in (64, size))

    assert decode(longest).oid().startswith("2.")
    assert code_of(lambda: decode(longer).oid()) == "malformed.limit_exceeded"


def test_an_enumerated_is_no_integer() -> None:
    assert decode(bytes.fromhex("0a0105")).enumerated() == 5
    assert code_of(decode(bytes.fromhex("0a0105")).integer) == "malformed.non_canonical"
    assert code_of(decode(bytes.fromhex("020105")).enumerated) == "malformed.non_canonical"


def test_the_parts_of_a_sequence() -> None:
    top = decode(bytes.fromhex("30100101ff04036162630302000f16026869"))

    flag, octets, bits, text = top.expect(der.SEQUENCE).children()
    assert flag.boolean() is True
    assert octets.octets() == b"abc"
    assert bits.bits() == b"\x0f"
    assert text.ia5() == "hi"
    assert b"".join(part.encoded for part in (flag, octets, bits, text)) == top.content


EV_22 = {
    "indefinite length": "30800000",
    "length in the long form": "308103020100",
    "length with a leading zero": "30820003020100",
    "length of five bytes": "308500000000030201000000",
    "length octet 0xff": "30ff",
    "long tag number": "1f8101020100",
    "long tag number that reads as a short one": "1f0100",
    "empty integer": "0200",
    "integer with a leading zero": "02020001",
    "integer with a leading 0xff": "0202ff80",
    "boolean that is neither": "010101",
    "boolean of two bytes": "0102ffff",
    "empty bit string": "0300",
    "bit string with nine unused bits": "03020900",
    "bit string with unused bits set": "03020101",
    "null with contents": "050100",
    "identifier that does not end": "060181",
    "identifier with a padded number": "06032a8001",
    "identifier with a padded first number": "06028001",
    "empty identifier": "0600",
    "octet string in pieces": "2403040100",
    "UTF-8 string that is not": "0c01ff",
    "IA5 string that is not": "1601ff",
    "printable string that is not": "130140",
    "UTCTime without Z": "170c" + b"200101000000".hex(),
    "UTCTime with an offset": "1711" + b"200101000000+0100".hex(),
    "GeneralizedTime with a fraction": "1811" + b"20500101000000.5Z".hex(),
    "set out of order": "3106020102020101",
    "set with the same twice": "3106020101020101",
    "primitive sequence": "1000",
}


@pytest.mark.parametrize("data", EV_22.values(), ids=EV_22.keys())
def test_ev_22_ber_that_is_not_der_is_refused(data: str) -> None:
    assert decode(bytes.fromhex("3003020100")).children()[0].integer() == 0
    raw = bytes.fromhex(data)

    assert code_of(decode, raw) == "malformed.non_canonical"
    # And the same below the top, where it is not asked for.
    assert code_of(decode, b"\x30" + bytes([len(raw)]) + raw) == "malformed.non_canonical"


def test_cuts_and_additions_are_refused() -> None:
    data = bytes.fromhex("300a02010504036162630500")

    for size in range(len(data)):
        assert code_of(decode, data[:size]) == "malformed.truncated"
    assert code_of(decode, data + b"\0") == "malformed.trailing_data"


@pytest.mark.parametrize("size", [0, 1, 127, 128, 255, 256, 65535, 65536])
def test_lengths_in_their_shortest_form_are_read(size: int) -> None:
    spelled = size.to_bytes((size.bit_length() + 7) // 8 or 1, "big")
    head = spelled if size < 128 else bytes([0x80 | len(spelled)]) + spelled
    data = b"\x04" + head + bytes(size)

    found = der.decode(data, what="structure", max_size=len(data))
    assert found.octets() == bytes(size)
    assert found.encoded == data
    assert code_of(der.decode, data, what="structure", max_size=len(data) - 1) == "malformed.limit_exceeded"


@pytest.mark.parametrize(
    "data",
    [
        "030201fe",
        "03020780",
        "030100",
        "0101ff",
        "010100",
        "0c0161",
        "3106020101020102",
        "a003020101",
        "8000",
    ],
)
def test_what_der_allows_at_its_edges_is_read(data: str) -> None:
    assert decode(bytes.fromhex(data)).encoded.hex() == data


def test_a_bit_string_of_loose_bits_is_not_bytes() -> None:
    assert decode(bytes.fromhex("0302000f")).bits() == b"\x0f"
    assert code_of(decode(bytes.fromhex("03020780")).bits) == "malformed.non_canonical"


def test_a_context_tag_may_hold_elements_and_a_string_may_not() -> None:
    assert len(decode(bytes.fromhex("a103020101")).children()) == 1
    assert code_of(decode, bytes.fromhex("2c030c0161")) == "malformed.non_canonical"


def test_the_depth_is_counted_exactly() -> None:
    data = b"\x05\x00"
    for _ in range(23):
        data = bytes([0x30, len(data)]) + data

    assert decode(data).encoded == data
    assert code_of(decode, bytes([0x30, len(data)]) + data) == "malformed.limit_exceeded"


def test_the_number_of_elements_is_counted_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(der, "_MAX_ELEMENTS", 4)

    assert len(decode(bytes.fromhex("3006050005000500")).children()) == 3
    assert code_of(decode, bytes.fromhex("30080500050005000500")) == "malformed.limit_exceeded"


def test_depth_and_size_are_limited() -> None:
    data = b""
    for _ in range(30):
        data = b"\x30" + bytes([len(data)]) + data

    assert code_of(decode, data) == "malformed.limit_exceeded"
    assert code_of(decode, bytes(1 << 17)) == "malformed.limit_exceeded"


@pytest.mark.parametrize("data", ["0500", "020101", "3000", "040101"])
def test_another_type_than_the_one_asked_for_is_refused(data: str) -> None:
    element = decode(bytes.fromhex(data))
    questions = {
        "integer": {2},
        "enumerated": {10},
        "octets": {4},
        "bits": {3},
        "boolean": {1},
        "oid": {6},
        "ia5": {22},
        "children": {0x30},
    }

    for name, tags in questions.items():
        if element.tag not in tags:
            assert code_of(getattr(element, name)) == "malformed.non_canonical"


@given(st.binary(max_size=80))
@settings(max_examples=400)
def test_any_bytes_are_read_whole_or_refused(data: bytes) -> None:
    try:
        top = decode(data)
    except MalformedError:
        return

    assert top.encoded == data
    for name in ("integer", "enumerated", "octets", "bits", "boolean", "oid", "ia5", "children"):
        only_typed_errors(getattr(top, name))
