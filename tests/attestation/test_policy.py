# SPDX-License-Identifier: Apache-2.0
"""Policies: nothing absent means "any", nothing unknown is ignored."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from confide.attestation.policy import AppraisalPolicy
from confide.attestation.reference import ReferenceValues
from confide.errors import ConfideError, ConfigurationError, NotAcceptable

if TYPE_CHECKING:
    from pathlib import Path

MEASUREMENT = "ab" * 48
GOOD = f"""
tees = ["snp"]
max_age = "1h"
allow_debug = false
require_revocation = false
tcb_status = ["UpToDate"]
min_tcb_evaluation = 17
[service]
kind = "model"
manifest = ["{"cd" * 32}"]
id = "acme"
[reference.snp]
measurement = ["{MEASUREMENT}", "{"ac" * 48}"]
vmpl = [0]
min_tcb = {{ bootloader = 4, tee = 0, snp = 23, microcode = 72 }}
"""


def code(text: str) -> str:
    with pytest.raises(ConfideError) as caught:
        AppraisalPolicy.from_toml(text)
    assert isinstance(caught.value, ConfigurationError | NotAcceptable)
    return caught.value.code


def test_the_example_of_the_specification_is_read() -> None:
    policy = AppraisalPolicy.from_toml(GOOD)

    assert policy.tees == ("snp",)
    assert policy.max_age == timedelta(hours=1)
    assert policy.min_tcb_evaluation == 17
    assert policy.service is not None
    assert policy.service.manifest == (b"\xcd" * 32,)
    assert policy.reference["snp"].measured
    assert policy.digest == hashlib.sha256(GOOD.encode()).digest()
    assert policy.to_toml() == GOOD


def test_the_defaults_are_the_strict_ones() -> None:
    policy = AppraisalPolicy.from_table(
        {"tees": ["snp"], "reference": {"snp": {"measurement": [MEASUREMENT]}}}
    )

    assert (policy.max_age, policy.allow_debug, policy.require_revocation) == (None, False, False)
    assert (policy.tcb_status, policy.service) == (("UpToDate",), None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tees = []",
        'tees = ["snp"]',
        'tees = ["snp"]\n[reference.snp]',
        'tees = ["snp"]\n[reference.snp]\nvmpl = [0]',
        'tees = ["snp"]\n[reference.snp]\nmeasurement = []',
        'tees = ["snp"]\n[reference.snp]\nmeasurement = "ANY"\nvmpl = []',
        'tees = ["snp"]\n[reference.snp]\nmeasurement = "ANY"\nhost_data = []',
        'tees = ["snp"]\n[reference.snp]\nmeasurement = "ANY"\nproducts = []',
        'tees = ["snp"]\n[reference.snp]\nmeasurement = "ANY"\nmin_tcb = {}',
        'tees = ["snp"]\n[reference.snp]\nmeasurement = "ANY"\ndeny_products = ["Milan", "Genoa", "Turin"]',
        GOOD.replace(f'manifest = ["{"cd" * 32}"]\n', ""),
        GOOD.replace(f'manifest = ["{"cd" * 32}"]', "manifest = []"),
    ],
)
def test_ev_28_a_policy_that_pins_nothing_does_not_exist(text: str) -> None:
    assert code(text) == "not_acceptable.empty_policy"


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace("measurement =", "mesurement ="),
        GOOD.replace("allow_debug", "alow_debug"),
        GOOD.replace('kind = "model"', 'kind = "model"\nname = "x"'),
        GOOD.replace("snp = 23", "smp = 23"),
        GOOD + "guest_policy = { smtt = true }\n",
        GOOD + "platform_info = { alias = true }\n",
        GOOD + "mr_enclav = 1\n",
        GOOD + "[reference]\nother = 1\n",
        GOOD + "[extra]\n",
    ],
)
def test_ev_28_a_misspelt_or_unknown_key_is_an_error(text: str) -> None:
    assert code(text) in {"configuration.invalid", "configuration.tee", "not_acceptable.empty_policy"}


def test_ev_28_a_misspelt_key_is_met_with_the_right_word() -> None:
    with pytest.raises(ConfigurationError) as caught:
        AppraisalPolicy.from_toml(GOOD.replace("allow_debug", "alow_debug"))

    assert "allow_debug" in caught.value.hint


@settings(max_examples=150, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "vmpl": st.just([0]),
            "min_guest_svn": st.integers(0, 5),
            "host_data": st.just(["aa" * 32]),
            "id_key_digest": st.just(["aa" * 48]),
            "products": st.just(["Genoa"]),
            "min_abi": st.just("1.55"),
            "min_tcb": st.just({"snp": 1}),
            "allow_migrate_ma": st.booleans(),
            "measurement": st.sampled_from(["any", "", "*", ["ANY"], "ANY ", [MEASUREMENT.upper()], 1, True]),
        },
    )
)
def test_ev_28_no_other_value_stands_for_a_measurement(table: dict[str, Any]) -> None:
    with pytest.raises((ConfigurationError, NotAcceptable)):
        AppraisalPolicy.from_table({"tees": ["snp"], "reference": {"snp": table}})


@pytest.mark.parametrize(
    "value", [f'["{"ab" * 47}"]', f'["{"ab" * 49}"]', f'["{"AB" * 48}"]', '["zz"]', "[1]", "[[]]", "1"]
)
def test_a_measurement_in_another_form_is_refused(value: str) -> None:
    assert code(f'tees = ["snp"]\n[reference.snp]\nmeasurement = {value}') == "configuration.invalid"


def test_any_is_accepted_where_it_is_spelled_and_shows() -> None:
    policy = AppraisalPolicy.from_toml('tees = ["snp"]\n[reference.snp]\nmeasurement = "ANY"')

    assert policy.reference["snp"].wildcards == ("measurement",)
    assert not policy.reference["snp"].measured


def test_a_service_counts_only_under_a_pinned_measurement() -> None:
    text = GOOD.replace(f'measurement = ["{MEASUREMENT}", "{"ac" * 48}"]', 'measurement = "ANY"')

    assert code(text) == "not_acceptable.unmeasured_runtime"


@pytest.mark.parametrize("tee", ["sev", "trustzone", "SNP", "x"])
def test_a_tee_that_is_not_known_is_refused_by_name(tee: str) -> None:
    for text in (
        GOOD + f"[reference.{tee}]\nx = 1\n",
        GOOD.replace('["snp"]', f'["snp", "{tee}"]'),
        f'tees = ["{tee}"]',
    ):
        with pytest.raises(ConfigurationError) as caught:
            AppraisalPolicy.from_toml(text)
        assert caught.value.code == "configuration.tee"


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace('["snp"]', '["snp", "snp"]'),
        GOOD.replace('["snp"]', '["SNP"]'),
        GOOD.replace('["snp"]', '"snp"'),
        GOOD.replace('["snp"]', "[1]"),
        GOOD.replace('"1h"', '"1 h"'),
        GOOD.replace('"1h"', '"0h"'),
        GOOD.replace('"1h"', '"-1h"'),
        GOOD.replace('"1h"', "3600"),
        GOOD.replace('"1h"', '"9999999d"'),
        GOOD.replace("allow_debug = false", 'allow_debug = "no"'),
        GOOD.replace("allow_debug = false", "allow_debug = 0"),
        GOOD.replace('["UpToDate"]', '["Fine"]'),
        GOOD.replace('["UpToDate"]', '["Revoked"]'),
        GOOD.replace('["UpToDate"]', "[]"),
        GOOD.replace("= 17", "= -1"),
        GOOD.replace("vmpl = [0]", "vmpl = [4]"),
        GOOD.replace("vmpl = [0]", "vmpl = 0"),
        GOOD.replace("vmpl = [0]", "vmpl = [true]"),
        GOOD.replace("snp = 23", "snp = 256"),
        GOOD.replace("snp = 23", 'snp = "23"'),
        GOOD + 'min_abi = "1"\n',
        GOOD + 'products = ["Rome"]\n',
        GOOD + f'chip_ids = ["{"00" * 64}"]\n',
        GOOD + "mitigations = [64]\n",
        GOOD + "guest_policy = { smt = 1 }\n",
        GOOD.replace('id = "acme"', ""),
        GOOD.replace('"acme"', '""'),
        GOOD.replace('kind = "model"', 'kind = ""'),
        GOOD + "tees = 1\n[",
        "\ufeff" + GOOD,
        "x = " + "[" * 5000,
        "#" * (256 * 1024 + 1),
    ],
)
def test_what_is_written_wrongly_is_refused(text: str) -> None:
    assert code(text) in {"configuration.invalid", "configuration.tee", "not_acceptable.empty_policy"}


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just("ANY") | st.just(MEASUREMENT),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_keys = st.sampled_from(
    [
        "measurement",
        "vmpl",
        "min_tcb",
        "min_launch_tcb",
        "min_guest_svn",
        "host_data",
        "chip_ids",
        "products",
        "deny_products",
        "signing_keys",
        "min_abi",
        "guest_policy",
        "platform_info",
        "mitigations",
        "allow_migrate_ma",
    ]
)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(_keys, _values, max_size=4),
    st.dictionaries(
        st.sampled_from(["tees", "max_age", "service", "tcb_status", "allow_debug", "x"]), _values, max_size=2
    ),
)
def test_whatever_a_policy_says_it_is_read_or_refused_in_words(
    table: dict[str, Any], top: dict[str, Any]
) -> None:
    try:
        policy = AppraisalPolicy.from_table({"tees": ["snp"], **top, "reference": {"snp": table}})
    except (ConfigurationError, NotAcceptable):
        return
    assert table["measurement"] == "ANY" or MEASUREMENT in table["measurement"]
    assert policy.tees == ("snp",)


@pytest.mark.parametrize("text", ["a = " + "1" * 5000, 'a = "\ud800"', "a = " + "[" * 100_000])
def test_ev_24_text_that_the_reader_of_toml_stumbles_over_is_refused_in_words(text: str) -> None:
    assert code(text) == "configuration.invalid"


def test_ev_14_a_key_of_very_many_parts_is_refused_before_it_takes_minutes() -> None:
    assert code(".".join(["a"] * 100_000) + " = 1") == "configuration.invalid"
    assert code(GOOD + "a" + ".a" * 256 + " = 1\n") == "configuration.invalid"
    assert AppraisalPolicy.from_toml(GOOD + "# " + "." * 256 + "\n").tees == ("snp",)


def test_ev_28_an_unknown_key_that_is_not_one_word_is_not_repeated() -> None:
    with pytest.raises(ConfigurationError) as caught:
        AppraisalPolicy.from_toml('"\\u001b[2J" = 1\n' + GOOD)

    assert "unknown key" in str(caught.value)
    assert "[2J" not in str(caught.value)


def test_bytes_that_are_not_utf_8_are_refused() -> None:
    with pytest.raises(ConfigurationError):
        AppraisalPolicy.from_toml(b"\xff\xfe")


def test_a_table_and_its_toml_are_the_same_policy() -> None:
    table: dict[str, Any] = {
        "tees": ["snp"],
        "max_age": "30m",
        "service": {
            "kind": 'a "quoted" \\ name\t',
            "manifest": ["cd" * 32],
            "id": "ä\u007f".replace("\x7f", ""),
        },
        "reference": {
            "snp": {"measurement": [MEASUREMENT], "min_tcb": {"Genoa": {"snp": 1}}, "vmpl": (0, 1)}
        },
    }
    table["service"]["kind"] = table["service"]["kind"].replace("\t", " ")

    policy = AppraisalPolicy.from_table(table)

    assert policy.service is not None
    assert policy.service.kind == 'a "quoted" \\ name '
    assert AppraisalPolicy.from_toml(policy.to_toml()) == policy


def test_a_value_that_no_policy_has_is_not_written() -> None:
    with pytest.raises(ConfigurationError):
        AppraisalPolicy.from_table({"tees": ["snp"], "max_age": 1.5})


def test_a_policy_is_read_from_a_file_and_a_missing_file_is_the_callers_error(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(GOOD)

    assert AppraisalPolicy.from_file(path).to_toml() == GOOD
    with pytest.raises(ConfigurationError):
        AppraisalPolicy.from_file(tmp_path / "absent.toml")


def test_reference_values_are_frozen_when_they_are_made() -> None:
    values = {"measurement": [b"a"]}
    reference = ReferenceValues("snp", values, "test")  # type: ignore[arg-type]
    values["measurement"].append(b"b")

    assert reference.measurements["measurement"] == (b"a",)
