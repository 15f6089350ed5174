# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from confide.errors import ConfigurationError, MalformedError
from confide.wire.fields import Fields
from support.refusal import code_of, only_typed_errors

if TYPE_CHECKING:
    from collections.abc import Callable

GOOD: dict[Any, Any] = {
    "key": b"12345678",
    "name": "caf\u00e9",
    "count": 7,
    "flag": True,
    "items": [1, 2],
    "table": {"a": 1},
    3: "three",
}


def fields(mapping: Any, **options: Any) -> Fields:
    return Fields(mapping, "thing", **options)


def read(mapping: dict[Any, Any]) -> tuple[Any, ...]:
    found = fields(mapping)
    values = (
        found.bytes_("key", length=8),
        found.text("name"),
        found.integer("count", 0, 9),
        found.boolean("flag"),
        found.list_("items", max_length=2),
        found.mapping("table"),
        found.text(3),
    )
    found.end()
    return values


def test_every_type_is_read() -> None:
    assert read(GOOD) == (b"12345678", "caf\u00e9", 7, True, [1, 2], {"a": 1}, "three")


@pytest.mark.parametrize("key", GOOD)
def test_a_missing_key_is_refused(key: Any) -> None:
    assert code_of(read, {k: v for k, v in GOOD.items() if k != key}) == "malformed.non_canonical"


@pytest.mark.parametrize("key", ["extra", 4, b"key", "Key"])
def test_an_unknown_key_is_refused_and_not_repeated(key: Any) -> None:
    with pytest.raises(MalformedError) as caught:
        read(GOOD | {key: 1})

    assert caught.value.code == "malformed.non_canonical"
    assert "extra" not in caught.value.message


@pytest.mark.parametrize(
    ("key", "value", "leaf"),
    [
        ("key", b"1234567", "length_mismatch"),
        ("key", b"123456789", "length_mismatch"),
        ("key", "12345678", "non_canonical"),
        ("key", [1] * 8, "non_canonical"),
        ("name", b"name", "non_canonical"),
        ("name", "n" * 257, "limit_exceeded"),
        ("name", "\u00e9" * 129, "limit_exceeded"),
        ("name", "a\0b", "non_canonical"),
        ("name", "a\x1b[2Jb", "non_canonical"),
        ("name", "a\nb", "non_canonical"),
        ("name", "a\ud800", "non_canonical"),
        ("count", -1, "limit_exceeded"),
        ("count", 10, "limit_exceeded"),
        ("count", True, "non_canonical"),
        ("count", 7.0, "non_canonical"),
        ("count", "7", "non_canonical"),
        ("flag", 1, "non_canonical"),
        ("flag", None, "non_canonical"),
        ("items", (1, 2), "non_canonical"),
        ("items", [1, 2, 3], "limit_exceeded"),
        ("items", "ab", "non_canonical"),
        ("table", [("a", 1)], "non_canonical"),
        ("table", None, "non_canonical"),
    ],
)
def test_another_type_or_size_is_refused(key: str, value: Any, leaf: str) -> None:
    assert code_of(read, GOOD | {key: value}) == f"malformed.{leaf}"


def test_a_default_stands_only_for_a_missing_key() -> None:
    found = fields({"count": None})

    assert found.text("name", default=None) is None
    assert found.integer("size", 0, 9, default=5) == 5
    assert found.bytes_("key", default=b"") == b""
    assert found.boolean("flag", default=False) is False
    assert found.list_("items", default=()) == ()
    assert found.mapping("table", default=None) is None
    assert code_of(found.integer, "count", 0, 9, default=5) == "malformed.non_canonical"


def test_text_of_several_lines_has_to_be_asked_for() -> None:
    found = fields({"text": "a\n\tb", "cr": "a\rb"})

    assert found.text("text", multiline=True) == "a\n\tb"
    assert code_of(found.text, "text") == "malformed.non_canonical"
    assert code_of(found.text, "cr", multiline=True) == "malformed.non_canonical"


@pytest.mark.parametrize("mapping", [None, [], "text", b"bytes", 5])
def test_what_is_no_mapping_is_refused(mapping: Any) -> None:
    assert code_of(fields, mapping) == "malformed.non_canonical"


def test_ev_28_a_misspelt_key_of_a_configuration_is_named_with_the_right_one() -> None:
    found = fields({"mesurement": 1}, error=ConfigurationError)
    found.integer("measurement", 0, 9, default=0)

    with pytest.raises(ConfigurationError) as caught:
        found.end()
    assert caught.value.code == "configuration.invalid"
    assert "`mesurement`" in caught.value.message
    assert "`measurement`" in caught.value.hint


@given(
    st.dictionaries(
        st.sampled_from(list(GOOD)),
        st.one_of(st.none(), st.integers(), st.text(), st.binary(), st.floats(), st.lists(st.integers())),
    )
)
def test_any_mapping_is_read_or_refused_with_a_typed_error(mapping: dict[Any, Any]) -> None:
    only_typed_errors(read, mapping)


@pytest.mark.parametrize("error", [MalformedError, ConfigurationError])
def test_the_error_class_is_the_callers(error: type[Any]) -> None:
    reader: Callable[..., Any] = fields({}, error=error).text

    with pytest.raises(error):
        reader("name")
