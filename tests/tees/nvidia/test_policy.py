# SPDX-License-Identifier: Apache-2.0
"""The table [reference.nvidia]: every key, what it refuses, and what is written wrongly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from confide.attestation.evidence import Endorsements
from confide.tees.nvidia import appraise, authenticate
from support import nvidia
from support.refusal import code_of

MEASURED = {str(index): [value.hex()] for index, value in nvidia.device().measurements.items() if index < 3}


def parsed(**table: Any) -> appraise.NvidiaReference:
    return appraise.parse_reference(table)


def test_the_defaults_compare_documents_and_demand_binding() -> None:
    reference = parsed()

    assert (reference.rim, reference.measured, reference.wildcards) == (True, True, ())
    assert (reference.required, reference.require_binding, reference.count) == (True, True, None)
    assert (reference.anchors, reference.kinds) == ((), None)


def test_any_is_spelled_and_shown() -> None:
    reference = parsed(rim="ANY")

    assert (reference.measured, reference.wildcards) == (False, ("rim",))
    notes = [reason.code for reason in nvidia.verify(nvidia.case(), {"rim": "ANY"}).reasons]
    assert "note.wildcard" in notes
    assert "note.wildcard" not in [reason.code for reason in nvidia.verify(nvidia.case()).reasons]
    assert parsed(rim="ANY", measurements=MEASURED).measured


@pytest.mark.parametrize(
    ("table", "code"),
    [
        ({"rim": "any"}, "configuration.invalid"),
        ({"rim": "optional"}, "configuration.invalid"),
        ({"rim": True}, "configuration.invalid"),
        ({"rims": "ANY"}, "configuration.invalid"),
        ({"count": 0}, "configuration.invalid"),
        ({"count": 17}, "configuration.invalid"),
        ({"count": True}, "configuration.invalid"),
        ({"required": "yes"}, "configuration.invalid"),
        ({"require_binding": 1}, "configuration.invalid"),
        ({"kinds": []}, "not_acceptable.empty_policy"),
        ({"kinds": ["cpu"]}, "configuration.invalid"),
        ({"architectures": []}, "not_acceptable.empty_policy"),
        ({"architectures": ["ampere"]}, "configuration.invalid"),
        ({"modes": ["on"]}, "configuration.invalid"),
        ({"modes": []}, "not_acceptable.empty_policy"),
        ({"device_ids": []}, "not_acceptable.empty_policy"),
        ({"device_ids": ["41ab"]}, "configuration.invalid"),
        ({"device_ids": [41]}, "configuration.invalid"),
        ({"device_ids": ["0"]}, "configuration.invalid"),
        ({"drivers": []}, "not_acceptable.empty_policy"),
        ({"drivers": ["550.90.07 "]}, "configuration.invalid"),
        ({"vbios": ["96.00.9f.00.01"]}, "configuration.invalid"),
        ({"min_driver": "550.x"}, "configuration.invalid"),
        ({"min_driver": ""}, "configuration.invalid"),
        ({"min_vbios": "96.00"}, "configuration.invalid"),
        ({"protected_pcie": "on"}, "configuration.invalid"),
        ({"measurements": {"7": []}}, "not_acceptable.empty_policy"),
        ({"measurements": {"7": ["00"]}}, "configuration.invalid"),
        ({"measurements": {"07": ["00" * 48]}}, "configuration.invalid"),
        ({"measurements": {"255": ["00" * 48]}}, "configuration.invalid"),
        ({"measurements": {"-1": ["00" * 48]}}, "configuration.invalid"),
        ({"measurements": {"a": ["00" * 48]}}, "configuration.invalid"),
        ({"measurements": ["00" * 48]}, "configuration.invalid"),
    ],
)
def test_ev_28_what_is_written_wrongly_is_refused(table: dict[str, Any], code: str) -> None:
    assert code_of(parsed, **table) == code


def test_own_values_are_compared_with_or_without_documents() -> None:
    case, bare = nvidia.case(), nvidia.case(manifests={})
    own = {"measurements": MEASURED}

    assert nvidia.verify(case, own).tier.name == "AFFIRMING"
    assert nvidia.verify(bare, own | {"rim": "ANY"}).tier.name == "WARNING"
    other = {"measurements": MEASURED | {"2": ["00" * 48, "11" * 48]}}
    assert nvidia.codes(case, other) == ["not_acceptable.measurement"]
    assert nvidia.codes(bare, other | {"rim": "ANY"}) == ["not_acceptable.measurement"]
    absent = {"measurements": {"64": ["00" * 48]}}
    assert nvidia.codes(case, absent) == ["not_acceptable.measurement"]


def test_versions_may_be_pinned() -> None:
    case = nvidia.case()

    assert nvidia.verify(case, {"drivers": ["1.2", "575.57.08"]}).tier.name == "AFFIRMING"
    assert nvidia.verify(case, {"vbios": ["96.00.CC.00.02"]}).tier.name == "AFFIRMING"
    assert nvidia.codes(case, {"drivers": ["575.57"]}) == ["not_acceptable.measurement"]
    assert nvidia.codes(case, {"vbios": ["96.00.CC.00.03"]}) == ["not_acceptable.measurement"]


def test_gpu_03_a_report_without_a_driver_satisfies_no_demand_on_drivers() -> None:
    switch = nvidia.case(nvidia.device("LS_10"))

    assert nvidia.verify(switch).claims.details.driver_version is None  # type: ignore[attr-defined]
    assert nvidia.codes(switch, {"min_driver": "1"}) == ["not_acceptable.below_minimum"]
    assert nvidia.codes(switch, {"drivers": ["575.57.08"]}) == ["not_acceptable.measurement"]


def test_kinds_and_architectures() -> None:
    gpu, switch, blackwell = (nvidia.case(nvidia.device(model)) for model in ("GH100", "LS_10", "GB100"))

    assert nvidia.verify(switch).tier.name == "AFFIRMING"
    assert nvidia.codes(switch, {"kinds": ["gpu"]}) == ["not_acceptable.attributes"]
    assert nvidia.codes(gpu, {"kinds": ["switch"]}) == ["not_acceptable.attributes"]
    assert nvidia.codes(blackwell, {"architectures": ["hopper"]}) == ["not_acceptable.attributes"]
    assert nvidia.verify(blackwell, {"architectures": ["blackwell"]}).tier.name == "AFFIRMING"


def test_gpu_06_beside_a_platform_a_switch_counts_for_no_gpu_unless_the_policy_says_so() -> None:
    switch = nvidia.case(nvidia.device("LS_10"))
    lone = nvidia.verify(nvidia.case()).claims

    def appraised(**table: Any) -> list[str]:
        claims = authenticate.authenticate(
            switch.report,
            endorsements=switch.endorsements,
            anchors=(switch.anchor,),
            at=nvidia.AT,
            require_revocation=False,
            platform=lone,
        )
        policy = nvidia.policy(table)
        return [reason.code for reason in appraise.appraise(claims, policy.reference["nvidia"], policy)]

    assert appraised() == ["not_acceptable.attributes"]
    assert appraised(kinds=["gpu", "switch"]) == []


def test_every_finding_is_reported_at_once() -> None:
    case = nvidia.case(measurements={7: b"\x01" * 48}, fields={"feature_flag": b"\x02"})
    table = {"modes": ["spt"], "min_driver": "999", "architectures": ["blackwell"], "device_ids": ["1"]}

    assert nvidia.codes(case, table) == [
        "not_acceptable.attributes",
        "not_acceptable.identity",
        "not_acceptable.gpu_mode",
        "not_acceptable.below_minimum",
        "not_acceptable.measurement",
    ]


def test_ev_31_what_is_not_genuine_is_said_before_what_is_not_wanted() -> None:
    case = nvidia.case(fields={"fwid": bytes(48)}, measurements={7: b"\x01" * 48})

    assert nvidia.codes(case, {"device_ids": ["1"]}) == ["not_genuine.identity_mismatch"]


def test_ev_31_a_wrong_document_is_said_only_where_documents_are_asked_for() -> None:
    stranger = nvidia.device(world="another")
    case = nvidia.case()
    documents = tuple(part for part in stranger.documents(nvidia.device().manifests()))

    given = nvidia.Case(case.platform, case.report, case.certificates, documents)
    assert nvidia.codes(given)[0] == "not_genuine.untrusted_root"
    assert nvidia.verify(given, {"rim": "ANY"}).tier.name == "WARNING"


def test_the_description_is_json_and_names_the_documents() -> None:
    shown: Any = nvidia.verify(nvidia.case()).to_json()["claims"]

    assert shown["rim"]["matched"] == "0-3, 7-8, 12, 21-22"
    assert shown["rim"]["skipped"] == "35"
    assert [one["kind"] for one in shown["rim"]["documents"]] == ["driver", "vbios"]
    assert shown["measurements"]["7"] == nvidia.device().measurements[7].hex()


def test_claims_of_another_tee_are_a_defect() -> None:
    claims = nvidia.verify(nvidia.case()).claims

    assert code_of(appraise.appraise, claims, object(), nvidia.policy()) == "attestation.internal"


def test_the_simulator_s_evidence_is_simulated() -> None:
    case = nvidia.case()

    assert nvidia.codes(case, anchors=(case.platform.anchor,)) == ["not_acceptable.simulated"]
    assert isinstance(case.platform.evidence(nvidia.NONCE)[1], Endorsements)


def test_a_comparison_is_complete_only_if_nothing_is_missing_different_or_contradictory() -> None:
    device = nvidia.device()
    both = device.manifests()
    conflict = replace(both["driver"], golden={**both["driver"].golden, 0: (device.measurements[0],)})
    silent = {kind: replace(one, inactive=tuple(one.golden)) for kind, one in both.items()}

    def outcome(case: nvidia.Case) -> tuple[bool, str]:
        result = nvidia.verify(case, {"rim": "ANY"})
        shown: Any = result.to_json()["claims"]
        checks = {check.name: check.outcome for check in result.claims.checks}
        return shown["rim"]["complete"], checks["rim"]

    assert outcome(nvidia.case()) == (True, "passed")
    for case in (
        nvidia.case(manifests={"driver": both["driver"]}),
        nvidia.case(measurements={7: b"\x01" * 48}),
        nvidia.case(manifests={**both, "driver": conflict}),
        nvidia.case(manifests=silent),
        nvidia.case(manifests={}),
    ):
        assert outcome(case) == (False, "not checked")
