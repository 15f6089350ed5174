# SPDX-License-Identifier: Apache-2.0
"""Binary HTTP heads: round trips, hostile bytes, and agreement with the second decoder."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from confide.channel import binary_http
from confide.channel.binary_http import RequestHead, ResponseHead
from confide.errors import ChannelError
from support import envelope_decoder as plain

TOKEN = st.text(string.ascii_lowercase + string.digits + "!#$%&'*+-.^_`|~", min_size=1, max_size=12).map(
    str.encode
)
VALUE = st.binary(max_size=40).filter(
    lambda value: value == value.strip(b" \t") and not any((b < 0x20 and b != 9) or b == 0x7F for b in value)
)
FIELDS = st.lists(
    st.tuples(
        TOKEN.filter(
            lambda name: (
                name not in binary_http.REFUSED_FIELDS
                and not name.startswith((b"proxy-", b"confide-"))
                and name != b"content-length"
            )
        ),
        VALUE,
    ),
    max_size=8,
).map(tuple)


@given(
    method=st.sampled_from([b"GET", b"POST", b"M-SEARCH"]),
    path=st.text(string.ascii_letters + "/?=&%", max_size=200).map(lambda text: b"/" + text.encode()),
    fields=FIELDS,
)
def test_a_request_head_comes_back(method: bytes, path: bytes, fields: binary_http.Fields) -> None:
    head = RequestHead(method, b"tenant-7", path, fields)
    data = binary_http.encode_request(head)

    assert binary_http.decode_request(data) == head
    other = plain.read_head(data, response=False)
    assert (other["method"], other["path"], tuple(other["fields"])) == (method, path, fields)


@given(status=st.integers(200, 599), fields=FIELDS)
def test_a_response_head_comes_back(status: int, fields: binary_http.Fields) -> None:
    head = ResponseHead(status, fields)
    data = binary_http.encode_response(head)

    assert binary_http.decode_response(data) == head
    assert plain.read_head(data, response=True)["status"] == status


def _verdict(read: Any, data: bytes) -> bool:
    try:
        read(data)
    except (ChannelError, plain.Refused):
        return False
    return True


@given(st.data())
@settings(max_examples=400)
def test_mutated_heads_are_judged_alike_by_both_decoders(data: st.DataObject) -> None:
    fields = ((b"accept", b"*/*"), (b"content-length", b"5"))
    response = data.draw(st.booleans())
    good = (
        binary_http.encode_response(ResponseHead(200, fields))
        if response
        else binary_http.encode_request(RequestHead(b"POST", b"tenant-7", b"/v1", fields))
    )
    changed = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(changed) - 1))
        action = data.draw(st.sampled_from(["set", "cut", "insert"]))
        if action == "set":
            changed[at] = data.draw(st.integers(0, 255))
        elif action == "cut":
            del changed[at:]
            changed += b"\x00"
        else:
            changed.insert(at, data.draw(st.integers(0, 255)))
    ours = binary_http.decode_response if response else binary_http.decode_request
    accepted = _verdict(ours, bytes(changed))

    assert accepted == _verdict(lambda raw: plain.read_head(raw, response=response), bytes(changed))


@given(st.binary(max_size=300))
def test_arbitrary_bytes_raise_nothing_but_channel_errors(data: bytes) -> None:
    for read in (binary_http.decode_request, binary_http.decode_response):
        _verdict(read, data)


def test_what_may_not_be_sent_is_refused_by_the_sender_too() -> None:
    for head in (
        RequestHead(b"CONNECT", b"a", b"/", ()),
        RequestHead(b"GET", b"a", b"no-slash", ()),
        RequestHead(b"GET", b"a", b"/", ((b"Upper", b""),)),
        RequestHead(b"GET", b"a", b"/", ((b"a", b"x\r\ny: z"),)),
        RequestHead(b"GET", b"a", b"/", ((b"transfer-encoding", b"chunked"),)),
        RequestHead(b"GET", b"a", b"/", tuple((b"a", b"%d" % n) for n in range(257))),
        RequestHead(b"GET", b"a", b"/", tuple((b"a", b"x" * 1000) for _ in range(66))),
    ):
        with pytest.raises(ChannelError) as refused:
            binary_http.encode_request(head)
        assert refused.value.code == "channel.protocol"
    with pytest.raises(ChannelError):
        binary_http.encode_response(ResponseHead(103, ()))


@given(st.text(max_size=60))
def test_every_service_id_has_an_authority_that_only_it_has(service_id: str) -> None:
    made = binary_http.authority(service_id)

    assert made == plain.authority(service_id)
    assert bytes(made).isascii()
    assert not set(b"/?#@: ") & set(made)


def test_fields_of_one_hop_do_not_enter_the_envelope() -> None:
    kept = binary_http.without_hop_fields(
        [
            (b"Host", b"h"),
            (b"Connection", b"close"),
            (b"Proxy-Authorization", b"x"),
            (b"X-Yes", b" 1 "),
            (b"TE", b""),
        ]
    )

    assert kept == ((b"x-yes", b"1"),)
