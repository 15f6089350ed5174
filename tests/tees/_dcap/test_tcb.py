# SPDX-License-Identifier: Apache-2.0
"""TCB levels: every component counts, the order of the list does not, and every word is either exposed or refused."""

from __future__ import annotations

import hashlib
import itertools
from datetime import UTC, datetime
from typing import Any

import pytest

from confide.errors import NotGenuine
from confide.simulator import dcap as simulator
from confide.tees._dcap import tcb
from support import dcap

WHEN = datetime(2026, 2, 11, tzinfo=UTC)
WORDS = sorted(tcb.STATUSES - {"Revoked", "TDRelaunchAdvised", "TDRelaunchAdvisedConfigurationNeeded"})


def levels(tee: str, *made: dict[str, Any]) -> dict[str, Any]:
    return {"tcb_info": {"tcbLevels": list(made)}}


def level(
    tee: str, first: tuple[int, ...], status: str = "UpToDate", pcesvn: int = 11, **tcb_changes: Any
) -> dict[str, Any]:
    made = dcap.platform(tee).level((*first, *simulator.COMPONENTS[len(first) :]), pcesvn, status)
    return made | {"tcb": made["tcb"] | tcb_changes}


def status(tee: str, *made: dict[str, Any]) -> str:
    details: Any = dcap.accepted(dcap.platform(tee), collateral=levels(tee, *made)).details
    return str(details.platform.status)


@pytest.mark.parametrize("tee", dcap.TEES)
def test_dcap_11_one_component_below_is_below(tee: str) -> None:
    """SVNs (6, 6, 2, ...) do not meet (6, 7, 0, ...), although they come after it in no order of words."""
    for index in range(16):
        higher = tuple(svn + 1 if place == index else svn for place, svn in enumerate(simulator.COMPONENTS))
        found = dcap.refused(dcap.platform(tee), collateral=levels(tee, level(tee, higher)))
        assert found == ["not_genuine.unknown_status"], index


def test_dcap_11_components_are_compared_one_by_one_and_not_in_order() -> None:
    """A platform at (1, 3, 2) is not at a level of (1, 2, 3)."""
    made = dcap.changed("sgx", sgx={"components": (1, 3, 2) + (0,) * 13})
    want = dcap.platform("sgx").level((1, 2, 3) + (0,) * 13, 11, "UpToDate")
    have = dcap.platform("sgx").level((1, 2, 2) + (0,) * 13, 11, "OutOfDate")

    assert dcap.refused(made, collateral=levels("sgx", want)) == ["not_genuine.unknown_status"]
    details: Any = dcap.accepted(made, collateral=levels("sgx", want, have)).details
    assert details.tcb_status == "OutOfDate"


@pytest.mark.parametrize("tee", dcap.TEES)
def test_dcap_11_pcesvn_counts(tee: str) -> None:
    assert status(tee, level(tee, (), pcesvn=11)) == "UpToDate"
    found = dcap.refused(dcap.platform(tee), collateral=levels(tee, level(tee, (), pcesvn=12)))
    assert found == ["not_genuine.unknown_status"]


@pytest.mark.parametrize("tee", dcap.TEES)
def test_dcap_11_the_order_of_the_list_does_not_matter(tee: str) -> None:
    made = [
        level(tee, (7,), "UpToDate"),
        level(tee, (6,), "ConfigurationNeeded"),
        level(tee, (5,), "SWHardeningNeeded"),
        level(tee, (1,), "OutOfDate"),
    ]
    for order in itertools.permutations(made):
        assert status(tee, *order) == "ConfigurationNeeded"


def test_dcap_11_levels_are_ordered_as_intels_library_orders_them() -> None:
    """SGX components first, then PCESVN, then TDX components, each in the order of numbers."""
    digests = [hashlib.sha512(bytes((index,))).digest() for index in range(200)]
    made = [
        tcb.PlatformLevel(
            # Most components are alike, so that the later parts of the order decide, too.
            sgx_components=tuple(byte % 2 for byte in digest[:4]) + (0,) * 12,
            pcesvn=digest[16] % 3,
            tdx_components=tuple(byte % 3 for byte in digest[20:36]),
            evaluation=tcb.TcbEvaluation("UpToDate", WHEN),
        )
        for digest in digests
    ]
    ordered = sorted(made, key=lambda one: one.order, reverse=True)
    for higher, lower in itertools.pairwise(ordered):
        if higher.sgx_components != lower.sgx_components:
            assert higher.sgx_components > lower.sgx_components
        elif higher.pcesvn != lower.pcesvn:
            assert higher.pcesvn > lower.pcesvn
        else:
            assert higher.tdx_components >= lower.tdx_components


@pytest.mark.parametrize("tee", dcap.TEES)
def test_dcap_11_an_empty_list_is_no_status(tee: str) -> None:
    assert dcap.refused(dcap.platform(tee), collateral=levels(tee)) == ["not_genuine.unknown_status"]


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize("count", [0, 1, 15, 17, 32])
def test_dcap_11_there_are_sixteen_components(tee: str, count: int) -> None:
    wrong = [{"svn": 0}] * count
    found = dcap.refused(dcap.platform(tee), collateral=levels(tee, level(tee, (), sgxtcbcomponents=wrong)))
    assert found == ["malformed.length_mismatch"]
    if tee == "tdx":
        found = dcap.refused(
            dcap.platform(tee), collateral=levels(tee, level(tee, (), tdxtcbcomponents=wrong))
        )
        assert found == ["malformed.length_mismatch"]


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize("svn", [-1, 256, 65473, "6", True, None, 1.0])
def test_dcap_11_an_svn_is_a_byte(tee: str, svn: object) -> None:
    wrong = [{"svn": svn}, *({"svn": 0},) * 15]
    found = dcap.refused(dcap.platform(tee), collateral=levels(tee, level(tee, (), sgxtcbcomponents=wrong)))
    assert found[0] in {"malformed.non_canonical", "malformed.limit_exceeded"}


def test_dcap_11_tdx_components_count_from_the_third_on_where_the_module_has_levels_of_its_own() -> None:
    def asks(place: int) -> dict[str, Any]:
        have = (5, 1, 6) + (0,) * 13
        svns = [{"svn": svn + (index == place)} for index, svn in enumerate(have)]
        return levels("tdx", level("tdx", (), tdxtcbcomponents=svns))

    for place in range(16):
        if place < 2:
            assert dcap.accepted(dcap.platform("tdx"), collateral=asks(place)).tee == "tdx"
        else:
            found = dcap.refused(dcap.platform("tdx"), collateral=asks(place))
            assert found == ["not_genuine.unknown_status"], place
    version_0 = {"tee_tcb_svn": bytes((5, 0, 6)) + bytes(13)}
    found = dcap.refused(dcap.platform("tdx"), body=version_0, collateral=asks(0))
    assert found == ["not_genuine.unknown_status"]


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize("word", WORDS)
def test_dcap_12_every_word_of_intels_is_exposed(tee: str, word: str) -> None:
    made = level(tee, (), word) | {"advisoryIDs": ["INTEL-SA-00999", "INTEL-SA-00001"]}
    details: Any = dcap.accepted(dcap.platform(tee), collateral=levels(tee, made)).details

    assert (details.tcb_status, details.platform.status) == (word, word)
    assert details.advisory_ids == ("INTEL-SA-00001", "INTEL-SA-00999")
    assert details.tcb_date == WHEN


@pytest.mark.parametrize("tee", dcap.TEES)
def test_dcap_12_revoked_is_never_acceptable(tee: str) -> None:
    found = dcap.refused(dcap.platform(tee), collateral=levels(tee, level(tee, (), "Revoked")))
    assert found == ["not_genuine.revoked"]
    revoked = {"identity": {"tcbLevels": [simulator.svn_level(8, "Revoked")]}}
    assert dcap.refused(dcap.platform(tee), collateral=revoked) == ["not_genuine.revoked"]


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize("word", ["Fine", "uptodate", "UPTODATE", "TDRelaunchAdvised", "NotSupported"])
def test_dcap_12_unknown_words_are_never_acceptable(tee: str, word: str) -> None:
    found = dcap.refused(dcap.platform(tee), collateral=levels(tee, level(tee, (), word)))
    assert found == ["not_genuine.unknown_status"]
    identity = {"identity": {"tcbLevels": [simulator.svn_level(8, word)]}}
    assert dcap.refused(dcap.platform(tee), collateral=identity) == ["not_genuine.unknown_status"]


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize("word", ["", "Up To Date", "UpToDate\n", 1, None, ["UpToDate"]])
def test_dcap_12_a_status_that_is_no_word_is_malformed(tee: str, word: object) -> None:
    wrong = level(tee, ()) | {"tcbStatus": word}
    found = dcap.refused(dcap.platform(tee), collateral=levels(tee, wrong))
    assert found == ["malformed.non_canonical"]


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize(
    "advisories", [[1], [None], ["intel"], ["INTEL SA"], ["INTEL-SA-1\n"], [""], "INTEL-SA-1", [["A"]]]
)
def test_dcap_12_advisories_are_words(tee: str, advisories: object) -> None:
    wrong = level(tee, ()) | {"advisoryIDs": advisories}
    assert dcap.refused(dcap.platform(tee), collateral=levels(tee, wrong)) == ["malformed.non_canonical"]


@pytest.mark.parametrize("tee", dcap.TEES)
def test_dcap_12_a_status_of_platforms_is_none_of_an_enclave(tee: str) -> None:
    identity = {"identity": {"tcbLevels": [simulator.svn_level(8, "SWHardeningNeeded")]}}
    with pytest.raises(NotGenuine) as caught:
        dcap.accepted(dcap.platform(tee), collateral=identity)
    assert caught.value.code == "not_genuine.unknown_status"


# Platform, then module or quoting enclave out of date: Intel's library, convergeTcbStatusWithQeTcbStatus.
MERGED = {
    "UpToDate": "OutOfDate",
    "SWHardeningNeeded": "OutOfDate",
    "ConfigurationNeeded": "OutOfDateConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded": "OutOfDateConfigurationNeeded",
    "OutOfDate": "OutOfDate",
    "OutOfDateConfigurationNeeded": "OutOfDateConfigurationNeeded",
}


@pytest.mark.parametrize("word", WORDS)
def test_an_old_part_makes_the_whole_old(word: str) -> None:
    assert tcb.merge(word, None) == word
    assert tcb.merge(word, "UpToDate") == word
    assert tcb.merge(word, "OutOfDate") == MERGED[word]
    details: Any = dcap.accepted(
        dcap.platform("sgx"),
        collateral=levels("sgx", level("sgx", (), word)),
        qe_report={"isvsvn": 6},
    ).details
    assert details.tcb_status == MERGED[word]


def test_the_oldest_date_of_platform_module_and_quoting_enclave_is_the_date_of_all() -> None:
    old = {"tcbDate": "2021-11-10T00:00:00Z"}
    enclave = {"identity": {"tcbLevels": [simulator.svn_level(8, "UpToDate") | old]}}
    modules = dcap.platform("tdx").tcb_info()["tdxModuleIdentities"]
    aged = [one | {"tcbLevels": [simulator.svn_level(5, "UpToDate") | old]} for one in modules]
    module = {"tcb_info": {"tdxModuleIdentities": aged}}
    platform = levels("tdx", level("tdx", ()) | old)

    for collateral in (enclave, module, platform):
        details: Any = dcap.accepted(dcap.platform("tdx"), collateral=collateral).details
        assert details.tcb_date == datetime(2021, 11, 10, tzinfo=UTC)


OLD = bytes((3, 1, 6)) + bytes(13)
NEW = bytes((5, 1, 6)) + bytes(13)


@pytest.mark.parametrize(
    ("word", "running", "expected"),
    [
        ("UpToDate", NEW, "TDRelaunchAdvised"),
        ("SWHardeningNeeded", NEW, "TDRelaunchAdvised"),
        ("ConfigurationNeeded", NEW, "TDRelaunchAdvisedConfigurationNeeded"),
        ("ConfigurationAndSWHardeningNeeded", NEW, "TDRelaunchAdvisedConfigurationNeeded"),
        ("UpToDate", OLD, "OutOfDate"),
        ("UpToDate", bytes((5, 1, 5)) + bytes(13), "OutOfDate"),
        ("UpToDate", bytes((9, 3, 6)) + bytes(13), "TDRelaunchAdvised"),
        ("UpToDate", bytes((5, 0, 6)) + bytes(13), "TDRelaunchAdvised"),
        ("OutOfDate", NEW, "OutOfDate"),
    ],
)
def test_a_td_whose_module_was_updated_while_it_ran_is_advised_to_launch_again(
    word: str, running: bytes, expected: str
) -> None:
    """Intel's library, TDRelaunchCheck: only for TDX 1.5, only while everything but the TD's own module is current."""
    details: Any = dcap.accepted(
        dcap.platform("tdx"),
        version=5,
        body={"tee_tcb_svn": OLD, "tee_tcb_svn_2": running},
        collateral=levels("tdx", level("tdx", (), word), level("tdx", (5,), "OutOfDate")),
    ).details
    assert (details.module.status, details.tcb_status) == ("OutOfDate", expected)


def test_no_relaunch_is_advised_while_the_quoting_enclave_is_old() -> None:
    details: Any = dcap.accepted(
        dcap.platform("tdx"),
        version=5,
        body={"tee_tcb_svn": OLD, "tee_tcb_svn_2": NEW},
        qe_report={"isvsvn": 6},
    ).details
    assert details.tcb_status == "OutOfDate"


@pytest.mark.parametrize("launched", [OLD, NEW])
@pytest.mark.parametrize(
    ("running", "code"),
    [
        (bytes((9, 9, 6)), "not_genuine.identity_mismatch"),
        (bytes((2, 1, 6)), "not_genuine.revoked"),
        (bytes((1, 3, 6)), "not_genuine.revoked"),
        (bytes((0, 1, 6)), "not_genuine.unknown_status"),
        (bytes((4, 0, 6)), "not_genuine.unknown_status"),
        (bytes((5, 1, 0)), "not_genuine.unknown_status"),
        (bytes((5, 1, 6)), "accepted"),
        (bytes((3, 1, 6)), "accepted"),
    ],
)
def test_dcap_13_the_module_that_runs_now_must_be_known_and_not_revoked(
    launched: bytes, running: bytes, code: str
) -> None:
    body = {"tee_tcb_svn": launched, "tee_tcb_svn_2": running + bytes(13)}
    assert dcap.refused(dcap.platform("tdx"), version=5, body=body) == [code]


@pytest.mark.parametrize(
    ("merged", "by_certificate", "module", "expected"),
    [
        ("OutOfDate", "UpToDate", "OutOfDate", "TDRelaunchAdvised"),
        ("OutOfDate", "ConfigurationNeeded", "OutOfDate", "TDRelaunchAdvisedConfigurationNeeded"),
        ("OutOfDateConfigurationNeeded", "UpToDate", "OutOfDate", "TDRelaunchAdvisedConfigurationNeeded"),
        ("OutOfDate", "UpToDate", "UpToDate", "OutOfDate"),
        ("OutOfDate", "UpToDate", None, "OutOfDate"),
        ("OutOfDate", "OutOfDate", "OutOfDate", "OutOfDate"),
        ("UpToDate", "UpToDate", "OutOfDate", "UpToDate"),
    ],
)
def test_a_relaunch_is_advised_where_platform_and_components_tell_different_stories(
    merged: str, by_certificate: str, module: str | None, expected: str
) -> None:
    level_ = tcb.PlatformLevel(
        simulator.COMPONENTS, 11, (5, 0, 6, *(0,) * 13), tcb.TcbEvaluation("UpToDate", WHEN)
    )
    found = merged
    if tcb.old_module_alone(merged, by_certificate=by_certificate, module=module):
        found = tcb.relaunch(
            merged, by_certificate=by_certificate, running=NEW, newest=level_, newest_module_svn=5
        )
    assert found == expected


def test_dcap_11_lists_of_different_lengths_are_never_compared() -> None:
    for sgx, tdx in (
        ((1,) * 15, (1,) * 16),
        ((1,) * 17, (1,) * 16),
        ((1,) * 16, (1,) * 15),
        ((), ()),
        ((1,) * 16, ()),
    ):
        short = tcb.PlatformLevel(sgx, 1, tdx, tcb.TcbEvaluation("UpToDate", WHEN))
        with pytest.raises(NotGenuine) as caught:
            tcb.match_platform((short,), cpusvn=(9,) * 16, pcesvn=9, tee_tcb_svn=b"\x09\x00" + b"\x09" * 14)
        assert caught.value.code == "not_genuine.unknown_status"
