# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from confide.wire import base64_text, hexadecimal
from support.refusal import code_of, only_typed_errors


@given(st.binary(max_size=64))
def test_hexadecimal_and_base64_round_trips(data: bytes) -> None:
    url = base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    assert hexadecimal.decode(data.hex(), what="digest") == data
    assert hexadecimal.decode(data.hex(), what="digest", length=len(data)) == data
    assert base64_text.decode(base64.b64encode(data).decode(), what="blob", max_length=64) == data
    assert base64_text.decode(url, what="blob", max_length=64, url=True) == data


@pytest.mark.parametrize(
    "text",
    [
        "AB",
        "abc",
        "a",
        "0xab",
        " ab",
        "ab ",
        "ab\n",
        "a b",
        "ag",
        "\uff11\uff12",
        "\u0661\u0662",
        "ab:cd",
        "-a",
        "+a",
    ],
)
def test_ev_26_hexadecimal_has_one_form(text: str) -> None:
    assert hexadecimal.decode("ab", what="digest") == b"\xab"

    assert code_of(hexadecimal.decode, text, what="digest") == "malformed.non_canonical"


def test_ev_26_hexadecimal_of_another_length_is_refused() -> None:
    for text in ("", "ab", "ab" * 31, "ab" * 33, "ab" * 32 + "a"):
        assert code_of(hexadecimal.decode, text, what="digest", length=32) == "malformed.length_mismatch"


@pytest.mark.parametrize(
    "text",
    [
        "QUI",
        "QUI=\n",
        " QUI=",
        "QU I=",
        "QUJ=",
        "QR==",
        "Q",
        "Q===",
        "QUI==",
        "====",
        "QUI-",
        "QU_=",
        "QUI=QUI=",
        "\u00e9\u00e9==",
    ],
)
def test_ev_26_standard_base64_has_one_form(text: str) -> None:
    assert base64_text.decode("QUI=", what="blob", max_length=99) == b"AB"

    assert code_of(base64_text.decode, text, what="blob", max_length=99) == "malformed.non_canonical"


@pytest.mark.parametrize("text", ["QUI=", "QUJ", "QR", "Q", "QU+/", "QUI\n", "Q UI", "\uff21\uff21"])
def test_ev_26_url_safe_base64_has_one_form(text: str) -> None:
    assert base64_text.decode("QUI", what="blob", max_length=99, url=True) == b"AB"

    assert (
        code_of(base64_text.decode, text, what="blob", max_length=99, url=True) == "malformed.non_canonical"
    )


def test_base64_is_bounded_before_it_is_decoded() -> None:
    for size in (4, 5, 6, 7, 3000):
        text = base64.b64encode(bytes(size)).decode()
        assert code_of(base64_text.decode, text, what="blob", max_length=3) == "malformed.limit_exceeded"


@pytest.mark.parametrize("value", [b"ab", None, 5, ["ab"]])
def test_what_is_no_text_is_refused(value: Any) -> None:
    assert code_of(hexadecimal.decode, value, what="digest") == "malformed.non_canonical"
    assert code_of(base64_text.decode, value, what="blob", max_length=9) == "malformed.non_canonical"


@given(st.text(max_size=30), st.booleans())
def test_any_text_is_decoded_to_its_one_source_or_refused(text: str, url: bool) -> None:
    digest = only_typed_errors(hexadecimal.decode, text, what="digest")
    blob = only_typed_errors(base64_text.decode, text, what="blob", max_length=64, url=url)

    assert digest is None or digest.hex() == text
    encode = base64.urlsafe_b64encode if url else base64.b64encode
    assert blob is None or encode(blob).decode().rstrip("=") == text.rstrip("=")
