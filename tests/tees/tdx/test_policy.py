# SPDX-License-Identifier: Apache-2.0
"""Which TDs a policy admits. Each refusal starts from a case that passes and changes one thing."""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import pytest

from confide.attestation.evidence import Endorsements, EvidencePart
from confide.attestation.policy import AppraisalPolicy
from confide.attestation.result import Tier
from confide.errors import ConfigurationError, MalformedError, NotAcceptable
from confide.simulator import dcap
from confide.simulator.tdx import Platform
from confide.tees._tcg import dstack, events, log
from confide.tees.tdx import appraise, authenticate, endorse, logs
from support import boot_logs

if TYPE_CHECKING:
    from pathlib import Path

DATA = bytes(range(64))
MRTD = bytes(range(48)).hex()
ATTRIBUTES = 1 << 28
ROWS = {
    1: ((1, 0x80000001, b"firmware", b"told"), (1, 4, bytes(4), bytes(4))),
    2: ((2, 0x80000003, b"kernel", b"path"),),
    3: ((3, 13, b"command line", b"text"),),
    4: ((4, 6, b"application", b"text"),),
}
RTMRS = tuple(boot_logs.extended(*(row[2] for row in ROWS[index])) for index in (1, 2, 3, 4))
LOG = boot_logs.log([row for index in (1, 2, 3, 4) for row in ROWS[index]])


@functools.cache
def platform() -> Platform:
    return Platform.create(seed=3)


def policy(reference: dict[str, Any] | None = None, **keys: Any) -> AppraisalPolicy:
    table = {"mrtd": [MRTD]} | (reference or {})
    return AppraisalPolicy.from_table({"tees": ["tdx"], **keys, "reference": {"tdx": table}})


def claims(*documents: bytes, collateral: dict[str, Any] | None = None, version: int = 4, **body: Any) -> Any:
    data, endorsements = platform().evidence(DATA, collateral=collateral, version=version, body=body)
    logs = tuple(EvidencePart("event-log", document) for document in documents)
    return authenticate.authenticate(
        data,
        endorsements=endorsements.merge(Endorsements(documents=logs)),
        anchors=(platform().anchor,),
        at=dcap.AT,
        require_revocation=False,
    )


def findings(
    *documents: bytes,
    reference: dict[str, Any] | None = None,
    keys: dict[str, Any] | None = None,
    **made: Any,
) -> list[str]:
    wanted = policy(reference, **(keys or {}))
    found = appraise.appraise(claims(*documents, **made), wanted.reference["tdx"], wanted)
    return [reason.code.removeprefix("not_acceptable.") for reason in found]


@pytest.mark.parametrize("version", [4, 5])
def test_minted_cases_pass(version: int) -> None:
    assert findings(version=version) == []
    wanted = policy({"rtmr1": [(b"\x11" * 48).hex()], "rtmr2": [(b"\x12" * 48).hex()]})
    vector = appraise.trustworthiness(claims(version=version), wanted.reference["tdx"])
    assert vector.tier == Tier.AFFIRMING
    json.dumps(appraise.describe(claims(version=version)))


@pytest.mark.parametrize(
    ("bit", "code"),
    [
        (0, "debug"),
        (4, "debug"),
        (5, "debug"),
        (6, "debug"),
        (1, "attributes"),
        (8, "attributes"),
        (16, "attributes"),
        (27, "attributes"),
        (29, "attributes"),
        (30, "attributes"),
        (31, "attributes"),
        (32, "attributes"),
        (61, "attributes"),
        (62, "attributes"),
        (63, "attributes"),
    ],
)
def test_dcap_14_an_attribute_that_opens_the_td_is_refused(bit: int, code: str) -> None:
    assert findings(td_attributes=ATTRIBUTES | 1 << bit) == [code]


def test_dcap_14_sept_ve_disable_is_asked_for_unless_the_policy_does_not() -> None:
    assert findings(td_attributes=0) == ["attributes"]
    assert findings(td_attributes=0, reference={"sept_ve_disable": False}) == []
    wanted = policy({"sept_ve_disable": False}).reference["tdx"]
    assert appraise.trustworthiness(claims(td_attributes=0), wanted).configuration == 32


@pytest.mark.parametrize(
    ("bit", "name"),
    [(63, "perfmon"), (30, "pks"), (31, "kl"), (29, "migratable"), (16, "icssd"), (27, "lass"), (62, "tpa")],
)
def test_dcap_14_each_attribute_is_allowed_by_its_own_name_alone(bit: int, name: str) -> None:
    attributes = ATTRIBUTES | 1 << bit
    others = [word for word in ("perfmon", "pks", "kl", "migratable", "icssd", "lass", "tpa") if word != name]

    assert findings(td_attributes=attributes, reference={"allow_attributes": [name]}) == []
    assert findings(td_attributes=attributes, reference={"allow_attributes": others}) == ["attributes"]


def test_dcap_14_debug_is_never_affirming() -> None:
    open_td = claims(td_attributes=ATTRIBUTES | 1)
    assert findings(td_attributes=ATTRIBUTES | 1, keys={"allow_debug": True}) == []
    assert appraise.trustworthiness(open_td, policy().reference["tdx"]).tier == Tier.CONTRAINDICATED


@pytest.mark.parametrize(
    ("field", "key"),
    [
        ("mrtd", "mrtd"),
        ("mrconfigid", "mrconfigid"),
        ("mrowner", "mrowner"),
        ("mrownerconfig", "mrownerconfig"),
    ],
)
def test_dcap_18_a_pinned_register_that_differs_is_refused(field: str, key: str) -> None:
    pinned = b"\x77" * 48
    set_, unset, other = (
        cast("dict[str, Any]", {field: value}) for value in (pinned, bytes(48), pinned[:-1] + b"\x76")
    )
    assert findings(**set_, reference={key: [pinned.hex()]}) == []
    # Zero stands for "not set", and does not match what is pinned.
    assert findings(**unset, reference={key: [pinned.hex()]}) == ["measurement"]
    assert findings(**other, reference={key: [pinned.hex()]}) == ["measurement"]


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_dcap_18_a_pinned_rtmr_that_differs_is_refused(number: int) -> None:
    right = bytes((16 + number,)) * 48
    assert findings(reference={f"rtmr{number}": [right.hex()]}) == []
    assert findings(reference={f"rtmr{number}": "ANY"}) == []
    assert findings(reference={f"rtmr{number}": [bytes(48).hex()]}) == ["measurement"]


def test_dcap_18_a_service_td_needs_an_opt_in() -> None:
    bound = b"\x05" * 48
    assert findings(version=5, mrservicetd=bound) == ["attributes"]
    assert findings(version=5, mrservicetd=bound, reference={"allow_service_td": True}) == []
    assert findings(version=5, mrservicetd=bound, reference={"mrservicetd": [bound.hex()]}) == []
    assert findings(version=5, mrservicetd=bound, reference={"mrservicetd": [MRTD]}) == ["measurement"]
    assert findings(version=5, mrservicetd=bound, reference={"mrservicetd": "ANY"}) == []
    # A body of version 1.0 does not say, which is not the same as saying "none".
    assert findings(version=4, reference={"mrservicetd": [bytes(48).hex()]}) == ["measurement"]


def test_dcap_19_collateral_below_the_floor_is_refused() -> None:
    for collateral in (
        {"tcb_info": {"tcbEvaluationDataNumber": 16}},
        {"identity": {"tcbEvaluationDataNumber": 16}},
    ):
        assert findings(collateral=collateral, keys={"min_tcb_evaluation": 17}) == ["below_minimum"]
        assert findings(collateral=collateral, keys={"min_tcb_evaluation": 16}) == []
        assert findings(collateral=collateral) == []


def test_an_old_platform_is_refused_with_status_date_and_advisories() -> None:
    collateral = {
        "tcb_info": {"tcbLevels": [platform().level((6, *(0,) * 15), 5, "OutOfDate", "INTEL-SA-00233")]}
    }
    wanted = policy()
    found = appraise.appraise(claims(collateral=collateral), wanted.reference["tdx"], wanted)

    assert [reason.code for reason in found] == ["not_acceptable.out_of_date"]
    assert all(word in found[0].message for word in ("OutOfDate", "2026-02-11", "INTEL-SA-00233", "UpToDate"))
    assert "tcb_status" in found[0].hint
    assert findings(collateral=collateral, keys={"tcb_status": ["UpToDate", "OutOfDate"]}) == []
    assert findings(collateral=collateral, keys={"tcb_status": ["UpToDate", "ConfigurationNeeded"]}) == [
        "out_of_date"
    ]


def test_a_platform_that_needs_hardening_is_not_called_old() -> None:
    collateral = {
        "tcb_info": {
            "tcbLevels": [platform().level((6, *(0,) * 15), 5, "SWHardeningNeeded", "INTEL-SA-00615")]
        }
    }
    keys = {"tcb_status": ["UpToDate", "SWHardeningNeeded"]}
    assert findings(collateral=collateral) == ["tcb_status"]
    assert findings(collateral=collateral, keys=keys) == []
    denied = {"deny_advisories": ["INTEL-SA-00615"]}
    assert findings(collateral=collateral, keys=keys, reference=denied) == ["advisory_denied"]
    assert findings(collateral=collateral, keys=keys, reference={"deny_advisories": ["INTEL-SA-00616"]}) == []
    wanted = policy(denied)
    codes = [
        reason.code
        for reason in appraise.appraise(claims(collateral=collateral), wanted.reference["tdx"], wanted)
    ]
    assert codes == ["not_acceptable.tcb_status", "not_acceptable.advisory_denied"]
    vector = appraise.trustworthiness(claims(collateral=collateral), policy().reference["tdx"])
    assert (vector.hardware, vector.tier) == (32, Tier.WARNING)


def test_a_td_that_was_launched_on_an_older_module_is_old_until_it_is_launched_again() -> None:
    """The module was updated while the TD ran, which only version 1.5 of the report can tell."""
    older = bytes((3, 1, 6)) + bytes(13)
    made: dict[str, Any] = {"version": 5, "tee_tcb_svn": older, "tee_tcb_svn_2": older}
    updated = {**made, "tee_tcb_svn_2": bytes((5, 1, 6)) + bytes(13)}
    assert claims(**made).details.tcb_status == "OutOfDate"
    assert claims(**updated).details.tcb_status == "TDRelaunchAdvised"
    cases: tuple[tuple[dict[str, Any], list[str]], ...] = (
        ({}, ["out_of_date"]),
        ({"tcb_status": ["UpToDate", "TDRelaunchAdvised"]}, []),
        ({"tcb_status": ["UpToDate", "OutOfDate"]}, []),
        ({"tcb_status": ["UpToDate", "OutOfDateConfigurationNeeded"]}, ["out_of_date"]),
    )
    for keys, expected in cases:
        assert findings(keys=keys, **updated) == expected
    assert findings(keys={"tcb_status": ["UpToDate", "TDRelaunchAdvised"]}, **made) == ["out_of_date"]


@pytest.mark.parametrize(
    ("reference", "code"),
    [
        ({"min_tcb_date": "2026-02-12"}, "below_minimum"),
        ({"fmspcs": ["000000000000"]}, "identity"),
        ({"ppids": ["22" * 16]}, "identity"),
        ({"xfam": [0xE7]}, "attributes"),
        ({"mrseam": [MRTD]}, "measurement"),
    ],
)
def test_a_platform_or_td_that_the_table_does_not_name_is_refused(
    reference: dict[str, Any], code: str
) -> None:
    assert findings(reference=reference) == [code]


def test_a_platform_and_td_that_the_table_names_pass_and_are_known() -> None:
    reference = {
        "min_tcb_date": "2026-02-11",
        "fmspcs": [dcap.FMSPC.hex()],
        "ppids": ["11" * 16],
        "xfam": [0xE7, 0x602E7],
        "mrseam": ["01" * 48],
    }
    assert findings(reference=reference) == []
    assert appraise.trustworthiness(claims(), policy(reference).reference["tdx"]).instance_identity == 2


def test_a_log_that_replays_is_accepted_and_shown() -> None:
    made = claims(LOG + b"\xff" * 64, rtmrs=RTMRS)
    for reference in ({}, {"event_log": "required"}):
        assert findings(LOG, rtmrs=RTMRS, reference=reference) == []
    shown = appraise.describe(made)["event_logs"]
    assert shown[0]["replays"] == {f"rtmr{number}": True for number in range(4)}  # type: ignore[index]
    assert "text" not in json.dumps(shown)  # No digest covers it.


def test_the_claims_show_of_a_real_log_what_its_digests_cover(shared: Path) -> None:
    evidence = shared / "evidence/eventlogs"
    of_dstack = log.read((evidence / "dstack-json-eventlog.json").read_bytes())
    ccel = gzip.decompress((evidence / "ccel-cos113.ccel.gz").read_bytes())
    shown = [
        line
        for text in (dstack.encode(of_dstack.events), ccel)
        for described in logs.describe([text], RTMRS)
        for name, line in described.items()
        if name.startswith("event ") and isinstance(line, str)
    ]
    compose = next(event for event in of_dstack.events if event.name == "compose-hash")
    assert (
        f"rtmr3 dstack runtime event {compose.digests['sha384'].hex()} compose-hash {compose.data.hex()}"
        in shown
    )
    assert any(line.endswith(" SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c 00") for line in shown)
    images = [line for line in shown if "EV_EFI_BOOT_SERVICES_APPLICATION" in line]
    assert images
    assert all(len(line.split()) == 3 for line in images)


def _changed(index: int, kind: str) -> bytes:
    """The log with one register told otherwise."""
    rows = {number: list(listed) for number, listed in ROWS.items()}
    if kind == "extra":
        rows[index].append((index, 4, b"one more", b""))
    elif kind == "missing":
        rows[index] = rows[index][:-1] or [(index, 4, b"another", b"")]
    elif kind == "changed":
        register, event_type, _, data = rows[index][0]
        rows[index][0] = (register, event_type, b"changed", data)
    else:
        rows[index] = [*rows[index], rows[index][0]]
    return boot_logs.log([row for number in (1, 2, 3, 4) for row in rows[number]])


@pytest.mark.parametrize("index", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["extra", "missing", "changed", "doubled"])
@pytest.mark.parametrize("mode", ["optional", "required"])
def test_dcap_17_a_log_that_replays_to_another_value_is_refused(index: int, kind: str, mode: str) -> None:
    found = findings(_changed(index, kind), rtmrs=RTMRS, reference={"event_log": mode})
    assert set(found) == {"measurement"}


def test_dcap_17_a_log_cut_between_two_events_is_refused() -> None:
    first = boot_logs.log(ROWS[1][:1])
    assert findings(first, rtmrs=RTMRS) == ["measurement"]


def test_dcap_17_a_register_that_no_log_tells_of_needs_a_pin_where_logs_are_required() -> None:
    told = boot_logs.log([row for index in (1, 2, 3) for row in ROWS[index]])
    required = {"event_log": "required"}
    assert findings(told, rtmrs=RTMRS, reference=required) == ["measurement"]
    assert findings(told, rtmrs=RTMRS, reference={**required, "rtmr3": [RTMRS[3].hex()]}) == []
    assert findings(told, rtmrs=RTMRS, reference={**required, "rtmr3": "ANY"}) == ["measurement"]
    assert findings(told, rtmrs=(*RTMRS[:3], bytes(48)), reference=required) == []
    assert findings(rtmrs=RTMRS, reference=required) == ["measurement"]
    assert findings(told, rtmrs=RTMRS) == []


def test_dcap_17_a_register_that_no_td_has_is_refused() -> None:
    rows = [row for index in (1, 2, 3, 4) for row in ROWS[index]]
    assert findings(boot_logs.log([*rows, (5, 4, b"x", b"x")]), rtmrs=RTMRS) == ["measurement"]


def test_a_vtpms_log_is_left_to_the_vtpm_and_does_not_stand_in() -> None:
    of_tpm = boot_logs.log([(0, 8, b"version", b"version"), *ROWS[1]], ("sha256", "sha384"), index=0)
    assert findings(of_tpm, rtmrs=RTMRS) == []
    assert findings(of_tpm, rtmrs=RTMRS, reference={"event_log": "required"}) == ["measurement"]
    assert findings(of_tpm, LOG, rtmrs=RTMRS, reference={"event_log": "required"}) == []


def test_dcap_17_more_logs_than_a_td_can_have_are_refused() -> None:
    several = [boot_logs.log(ROWS[index], index=index) for index in (1, 2, 3, 4)]
    assert findings(*several, rtmrs=RTMRS, reference={"event_log": "required"}) == []
    with pytest.raises(MalformedError) as caught:
        findings(*several, LOG, rtmrs=RTMRS)
    assert caught.value.code == "malformed.limit_exceeded"


def test_dcap_17_a_log_without_sha384_is_refused() -> None:
    assert set(findings(boot_logs.log(ROWS[1], ("sha256",)), rtmrs=RTMRS)) == {"measurement"}


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{}",
        b"\x00" * 100,
        LOG[:-1],
        b'[{"imr": true}]',
        b'[{"imr":' + b"[" * 5000,
        b"\x01" * (64 << 20),
    ],
)
def test_dcap_17_what_is_no_log_is_malformed(document: bytes) -> None:
    with pytest.raises(MalformedError):
        findings(document, rtmrs=RTMRS)


def _runtime(name: str, payload: bytes) -> events.Event:
    text = (0x08000001).to_bytes(4, "little") + b":" + name.encode() + b":" + payload
    return events.Event(4, events.DSTACK_RUNTIME, {"sha384": hashlib.sha384(text).digest()}, payload, name)


def _dstack(*listed: events.Event) -> tuple[bytes, tuple[bytes, ...]]:
    document = dstack.encode(listed)
    rtmr3 = log.read(document).rtmrs().get(3, bytes(48))
    return document, (*RTMRS[:3], rtmr3)


GOOD = _runtime("compose-hash", b"\xaa" * 32)
PIN = {"events": {"compose-hash": ["aa" * 32]}}


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ((_runtime("app-id", b"\x01"), GOOD, _runtime("system-ready", b"")), []),
        ((GOOD, GOOD), []),
        ((_runtime("app-id", b"\x01"),), ["measurement"]),
        ((_runtime("compose-hash", b"\xbb" * 32),), ["measurement"]),
        # The image that was started, and then the event that the policy asks for.
        ((_runtime("compose-hash", b"\xbb" * 32), GOOD), ["measurement"]),
        ((GOOD, _runtime("compose-hash", b"\xbb" * 32)), ["measurement"]),
        # The same bytes are hashed for name "a:b", payload "c" and name "a", payload "b:c".
        ((GOOD, _runtime("compose-hash:x", b"y")), ["measurement"]),
    ],
)
def test_events_of_rtmr3_are_pinned_by_all_of_their_name(
    listed: tuple[events.Event, ...], expected: list[str]
) -> None:
    document, rtmrs = _dstack(*listed)
    assert findings(document, rtmrs=rtmrs, reference=PIN) == expected


def test_dcap_17_an_event_that_hides_its_name_cannot_hide_that_it_is_there() -> None:
    """Another compose-hash is passed off as bytes of some other type, and the right one follows it."""
    other = _runtime("compose-hash", b"\xbb" * 32)
    _, rtmrs = _dstack(other, GOOD)
    for hidden in (
        events.Event(4, 6, other.digests, b"", ""),
        events.Event(4, 6, other.digests, other.data, "something"),
        events.Event(4, events.DSTACK_RUNTIME, other.digests, b"", "something"),
    ):
        document, replayed = _dstack(hidden, GOOD)
        assert replayed == rtmrs  # The digests are those that were extended.
        assert "measurement" in findings(document, rtmrs=rtmrs, reference=PIN)


def test_events_without_a_log_of_rtmr3_are_refused() -> None:
    assert findings(reference=PIN, rtmrs=RTMRS) == ["measurement"]
    assert findings(LOG, reference=PIN, rtmrs=RTMRS) == ["measurement"]
    document, _ = _dstack(GOOD)
    assert findings(document, reference=PIN, rtmrs=RTMRS) == ["measurement"] * 2


def test_dcap_17_a_dstack_event_with_another_digest_than_its_text_is_refused() -> None:
    document, rtmrs = _dstack(events.Event(4, events.DSTACK_RUNTIME, GOOD.digests, b"\x00", "compose-hash"))
    assert findings(document, rtmrs=rtmrs) == ["measurement"]


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"mrtd": []},
        {"rtmr1": "ANY"},
        {"mrtd": "ANY", "events": {"compose-hash": []}},
    ],
)
def test_a_table_that_pins_nothing_is_an_empty_policy(table: dict[str, Any]) -> None:
    with pytest.raises(NotAcceptable) as caught:
        appraise.parse_reference(table)
    assert caught.value.code == "not_acceptable.empty_policy"


@pytest.mark.parametrize(
    "change",
    [
        {"mrtd": "any"},
        {"mrtd": [MRTD.upper()]},
        {"mrtd": [MRTD[:-2]]},
        {"mrtd": MRTD},
        {"rtmr0": "any"},
        {"rtmr4": [MRTD]},
        {"event_log": "always"},
        {"events": {"a:b": ["00"]}},
        {"events": {"compose-hash": ["0x00"]}},
        {"events": {"compose-hash": [1]}},
        {"allow_attributes": ["debug"]},
        {"allow_attributes": "pks"},
        {"xfam": []},
        {"xfam": [True]},
        {"xfam": [-1]},
        {"sept_ve_disable": 1},
        {"min_tcb_date": "2026-2-1"},
        {"min_tcb_date": "2026-02-30"},
        {"deny_advisories": ["sa-1"]},
        {"fmspcs": ["00"]},
        {"ppids": ["00" * 15]},
    ],
)
def test_a_table_that_is_written_wrongly_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        appraise.parse_reference({"mrtd": [MRTD]} | change)


def test_wildcards_and_measured_tell_what_is_left_open() -> None:
    def parsed(**table: Any) -> appraise.TdxReference:
        return appraise.parse_reference({"mrtd": [MRTD]} | table)

    assert parsed().wildcards == ("rtmr0", "rtmr1", "rtmr2")
    assert parsed(mrtd="ANY", rtmr3="ANY").wildcards == ("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3")
    assert parsed(rtmr0=[MRTD], rtmr1=[MRTD], rtmr2=[MRTD]).wildcards == ()
    assert parsed(rtmr1=[MRTD], rtmr2=[MRTD]).measured
    assert not parsed(rtmr1=[MRTD]).measured
    assert not parsed(mrtd="ANY", rtmr1=[MRTD], rtmr2=[MRTD]).measured
    assert parsed().anchors == ()


def test_every_finding_is_told_at_once() -> None:
    found = findings(
        td_attributes=1,
        mrconfigid=b"\x01" * 48,
        reference={"mrtd": [bytes(48).hex()], "mrconfigid": [MRTD], "event_log": "required"},
        keys={"min_tcb_evaluation": 21},
    )
    assert set(found) == {"measurement", "debug", "attributes", "below_minimum"}


def test_the_time_of_a_level_is_compared_by_the_day() -> None:
    day = (dcap.AT - timedelta(days=110)).date()
    assert day.isoformat() == "2026-02-11"
    assert findings(reference={"min_tcb_date": day.isoformat()}) == []


def test_real_quotes_and_their_logs_agree(shared: Path) -> None:
    """dstack's and Google's quotes with the logs of the same boots; the log of the other boot does not replay."""
    evidence = shared / "evidence"
    dstack_log = (evidence / "eventlogs/dstack-json-eventlog.json").read_bytes()
    ccel = gzip.decompress((evidence / "eventlogs/ccel-cos113.ccel.gz").read_bytes())
    for name, collateral, at, own, other in (
        ("v4-dstack-eventlog", "eval17", datetime(2025, 10, 1, 0, 46, 36, tzinfo=UTC), dstack_log, ccel),
        ("v4-gcp-cos113", "eval17", datetime(2025, 6, 26, 22, 12, 2, tzinfo=UTC), ccel, dstack_log),
    ):
        data = (evidence / f"tdx/{name}.quote.bin").read_bytes()
        document = EvidencePart(
            "intel-collateral", (evidence / f"tdx/{name}.collateral-{collateral}.json").read_bytes()
        )
        for text, expected in ((own, []), (other, ["measurement"])):
            authenticated = authenticate.authenticate(
                data,
                endorsements=Endorsements(documents=(document, EvidencePart("event-log", text))),
                anchors=endorse.anchors(),
                at=at,
                require_revocation=False,
            )
            wanted = policy({"mrtd": [authenticated.measurements["mrtd"].hex()], "event_log": "required"})
            found = appraise.appraise(authenticated, wanted.reference["tdx"], wanted)
            assert sorted({reason.code.partition(".")[2] for reason in found}) == expected


def test_the_compose_hash_of_a_real_dstack_quote_can_be_pinned(shared: Path) -> None:
    evidence = shared / "evidence"
    text = (evidence / "eventlogs/dstack-json-eventlog.json").read_bytes()
    shown = {row["event"]: row["event_payload"] for row in json.loads(text) if row["event"]}
    data = (evidence / "tdx/v4-dstack-eventlog.quote.bin").read_bytes()
    document = (evidence / "tdx/v4-dstack-eventlog.collateral-eval17.json").read_bytes()
    authenticated = authenticate.authenticate(
        data,
        endorsements=Endorsements(
            documents=(EvidencePart("intel-collateral", document), EvidencePart("event-log", text))
        ),
        anchors=endorse.anchors(),
        at=datetime(2025, 10, 1, 0, 46, 36, tzinfo=UTC),
        require_revocation=False,
    )
    mrtd = authenticated.measurements["mrtd"].hex()
    for pinned, expected in ((shown["compose-hash"], []), (shown["app-id"], ["not_acceptable.measurement"])):
        wanted = policy({"mrtd": [mrtd], "events": {"compose-hash": [pinned]}})
        found = appraise.appraise(authenticated, wanted.reference["tdx"], wanted)
        assert [reason.code for reason in found] == expected


def test_dcap_14_azures_td_without_sept_ve_disable_needs_the_flag(shared: Path) -> None:
    """A real quote whose TD attributes are zero: a paravisor that handles #VE runs first in it."""
    evidence = shared / "evidence"
    authenticated = authenticate.authenticate(
        (evidence / "tdx/v4-azure-attr0.quote.bin").read_bytes(),
        endorsements=Endorsements(
            documents=(
                EvidencePart(
                    "intel-collateral",
                    (evidence / "tdx/v4-azure-attr0.collateral-eval17.json").read_bytes(),
                ),
            )
        ),
        anchors=endorse.anchors(),
        at=datetime(2025, 6, 26, 22, 12, 2, tzinfo=UTC),
        require_revocation=False,
    )
    mrtd = [authenticated.measurements["mrtd"].hex()]
    for reference, expected in (
        ({"mrtd": mrtd}, {"out_of_date", "attributes"}),
        ({"mrtd": mrtd, "sept_ve_disable": False}, {"out_of_date"}),
    ):
        wanted = policy(reference)
        found = appraise.appraise(authenticated, wanted.reference["tdx"], wanted)
        assert {reason.code.partition(".")[2] for reason in found} == expected
