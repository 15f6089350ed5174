# SPDX-License-Identifier: Apache-2.0
"""The table [reference.token] and the paths of its claims."""

from __future__ import annotations

from typing import Any

import pytest

from confide.attestation.policy import AppraisalPolicy
from confide.attestation.tokens import paths
from confide.attestation.tokens.appraise import parse_reference
from support.refusal import code_of
from support.tokens import KINDS, case

EMPTY, INVALID = "not_acceptable.empty_policy", "configuration.invalid"


def table(base: str = "ear", /, **changes: Any) -> dict[str, Any]:
    """A passing table with keys changed, or removed with None."""
    return {key: value for key, value in (case(base).table | changes).items() if value is not None}


@pytest.mark.parametrize("kind", KINDS)
def test_the_passing_table_is_measured(kind: str) -> None:
    reference = parse_reference(table(kind))
    assert reference.measured
    (anchor,) = reference.anchors
    assert (anchor.tee, anchor.name, anchor.certificates) == ("token", reference.issuer, ())
    assert anchor.keys == reference.keys
    assert reference.wildcards == (("audience",) if reference.audience is None else ())


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"keys": None}, EMPTY),
        ({"keys": []}, EMPTY),
        ({"claims": None}, EMPTY),
        ({"claims": {}}, EMPTY),
        ({"claims": {"a": []}}, EMPTY),
        ({"claims": "any"}, INVALID),
        ({"claims": {"a": "b"}}, INVALID),
        ({"claims": {"": ["b"]}}, INVALID),
        ({"claims": {"a..b": ["b"]}}, INVALID),
        ({"claims": {"[]": ["b"]}}, INVALID),
        ({"claims": {".".join("a" * 17): ["b"]}}, INVALID),
        ({"claims": {"a": [float("inf")]}}, INVALID),
        ({"claims": {f"a{number}": ["b"] for number in range(65)}}, INVALID),
        ({"claims": {"a": ["b"] * 257}}, INVALID),
        ({"kind": None}, INVALID),
        ({"kind": "jwt"}, INVALID),
        ({"issuer": None}, INVALID),
        ({"issuer": ""}, INVALID),
        ({"audience": ""}, INVALID),
        ({"keys": ["ab" * 31]}, INVALID),
        ({"keys": ["AB" * 32]}, INVALID),
        ({"roots": "google-confidential-space"}, INVALID),
        ({"roots": "ANY"}, INVALID),
        ({"tees": []}, INVALID),
        ({"tees": ["tdx", "mips"]}, INVALID),
        ({"tees": "tdx"}, INVALID),
        ({"tier": "none"}, INVALID),
        ({"tier": "contraindicated"}, INVALID),
        ({"max_age": "0s"}, INVALID),
        ({"max_age": 5}, INVALID),
        ({"isuer": "x"}, INVALID),
    ],
)
def test_ev_28_a_table_with_a_mistake_is_refused(changes: dict[str, Any], code: str) -> None:
    assert code_of(parse_reference, table(**changes)) == code


def test_ev_28_google_s_tokens_need_an_audience() -> None:
    assert code_of(parse_reference, table("google-confidential-space", audience=None)) == EMPTY


def test_the_built_in_root_must_be_named() -> None:
    google = table("google-confidential-space", keys=None)
    assert code_of(parse_reference, google) == EMPTY
    assert code_of(parse_reference, google | {"roots": []}) == EMPTY
    reference = parse_reference(google | {"roots": "google-confidential-space"})
    assert len(reference.anchors[0].certificates) == 1
    other = google | {"roots": "google-confidential-space", "issuer": "https://evil.example"}
    assert code_of(parse_reference, other) == INVALID


def test_a_table_that_pins_nothing_measuring_shows_it() -> None:
    reference = parse_reference(table(claims={"submods.cpu.ear_status": ["affirming"]}))
    assert not reference.measured
    assert reference.wildcards == ("measurement",)
    assert parse_reference(table(claims="ANY")).wildcards == ("claims",)


def test_a_service_needs_a_measuring_claim() -> None:
    policy = {
        "tees": ["token"],
        "service": {"kind": "model", "manifest": ["ab" * 32], "id": "acme"},
        "reference": {"token": table(claims={"submods.cpu.ear_status": ["affirming"]})},
    }
    assert code_of(AppraisalPolicy.from_table, policy) == "not_acceptable.unmeasured_runtime"
    policy["reference"] = {"token": table()}
    AppraisalPolicy.from_table(policy)


CLAIMS: dict[str, Any] = {
    "a": {"b": 1, "c.d": "x"},
    "ear.status": "affirming",
    "list": ["x", "y"],
    "many": {"one": {"v": 1}, "two": {"v": 1}},
    "none": {},
    "null": None,
    "p.q": {"r": 1},
    "p": {"q.r": 2, "q": {"s": 3}},
}


@pytest.mark.parametrize(
    ("path", "values", "found"),
    [
        ("a.b", [1], True),
        ("a.b", [2, 1], True),
        ("a.b", [True], False),
        ("a.b", [1.0], False),
        ("a.b", ["1"], False),
        ("a.c.d", ["x"], True),
        ("ear.status", ["affirming"], True),
        ("a", [{"b": 1, "c.d": "x"}], True),
        ("a", [{"b": 1}], False),
        ("list", ["x"], False),
        ("list", [["x", "y"]], True),
        ("list", [["y", "x"]], False),
        ("list[]", ["y"], True),
        ("list[]", ["z"], False),
        ("a.b[]", [1], False),
        ("many.*.v", [1], True),
        ("many.*.v", [2], False),
        ("many.*.w", [1], False),
        ("none.*.v", [1], False),
        ("none.*", [1], False),
        ("absent", [None], False),
        ("null", [None], True),
        ("p.q.r", [1, 2], False),
        ("p.q.s", [3], True),
        ("a.b.c", [1], False),
        ("list.0", ["x"], False),
    ],
)
def test_a_path_leads_to_one_claim_or_nowhere(path: str, values: list[Any], found: bool) -> None:
    paths.check_path(path)
    assert paths.allowed(CLAIMS, path, values) is found


def test_every_member_must_pass_a_star() -> None:
    claims = {"many": {"one": {"v": 1}, "two": {"v": 2}, "three": {}}}
    assert not paths.allowed(claims, "many.*.v", [1])
    assert not paths.allowed(claims, "many.*.v", [1, 2])
    del claims["many"]["three"]
    assert paths.allowed(claims, "many.*.v", [1, 2])
