# SPDX-License-Identifier: Apache-2.0
"""The same quotes through `dcap-qvl`: the same verdict, or a difference that is written down with its reason."""

from __future__ import annotations

import hashlib
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from confide.errors import ConfideError
from confide.simulator import dcap as simulator
from support import dcap

if TYPE_CHECKING:
    from datetime import datetime

qvl = pytest.importorskip("dcap_qvl", reason="dcap-qvl is not installed")

DIFFERENCES = tomllib.loads((Path(__file__).parent / "differences.toml").read_text(encoding="utf-8"))
REFUSED = "refused"
SVNS = ("tee_tcb_svn", "tee_tcb_svn_2")
Verdict = tuple[str, tuple[str, ...]]


def theirs(data: bytes, collateral: bytes, at: datetime, root: bytes | None) -> Verdict:
    try:
        parsed = qvl.QuoteCollateralV3.from_json(collateral.decode())
        seconds = int(at.timestamp())
        if root is None:
            report = qvl.verify(data, parsed, seconds)
        else:
            report = qvl.verify_with_root_ca(data, parsed, root, seconds)
    except ValueError:
        return REFUSED, ()
    return report.status, tuple(sorted(set(report.advisory_ids)))


def ours(tee: str, data: bytes, collateral: bytes, at: datetime, anchors: Any) -> Verdict:
    try:
        details: Any = dcap.authenticate(tee, data, dcap.document(collateral), anchors, at).details
    except ConfideError:
        return REFUSED, ()
    return details.tcb_status, details.advisory_ids


def compare(name: str, own: Verdict, other: Verdict) -> None:
    difference = DIFFERENCES.get(name)
    if difference is None:
        assert own == other, name
        return
    assert difference["why"].endswith(".")
    assert (own[0], other[0]) == (difference["ours"], difference["theirs"]), name
    assert own[0] != other[0], name


def test_dcap_24_real_quotes_have_the_verdict_of_dcap_qvl(shared: Path) -> None:
    for run in dcap.runs(shared):
        own = ours(run.tee, run.data, run.collateral, run.at, dcap.intel(run.tee))
        other = theirs(run.data, run.collateral, run.at, None)
        compare(f"real {run.name}", own, other)
        documented = REFUSED if run.dcap_qvl.startswith("error") else run.dcap_qvl
        assert other[0] == documented, run.name


def stranger_signs(made: simulator.Platform) -> dict[str, Any]:
    return {
        "signers": {"tcb_info": made.keys["pck"]},
        "document": {"tcb_info_issuer_chain": simulator.pem(*made.chain).decode()},
    }


def digest_and_tail(made: simulator.Platform) -> bytes:
    whole = made.qe_report(simulator.point(made.keys["attestation"]), bytes(range(32)))
    return whole[-64:-1] + b"\x01"


def minted(tee: str) -> dict[str, dict[str, Any]]:
    """Cases by name: the changes to a quote and its collateral."""
    made = dcap.platform(tee)
    flags = 0x13 if tee == "tdx" else 0x07
    cases: dict[str, dict[str, Any]] = {
        "unchanged": {},
        "padding": {"padding": bytes(64)},
        "bytes after the quote": {"padding": b"\x01"},
        "version 2": {"header": {"version": 2}},
        "another vendor": {"header": {"qe_vendor_id": bytes(16)}},
        "another kind of key": {"header": {"attestation_key_type": 3}},
        "a bad signature": {"signature": b"\x01" * 64},
        "a bad signature of the report": {"report_signature": b"\x01" * 64},
        "the report of another platform": {"sign_report": dcap.platform(tee, 2).keys["pck"]},
        "another authority": {"chain": dcap.platform(tee, 2).chain},
        "no digest": {"qe_report": {"report_data": bytes(64)}},
        "non-zero bytes behind the digest": {"qe_report": {"report_data": digest_and_tail(made)}},
        "authentication data of 0 bytes": {"auth_data": b""},
        "another quoting enclave": {"qe_report": {"mrsigner": bytes(32)}},
        "another product": {"qe_report": {"isvprodid": 9}},
        "other attributes": {"qe_report": {"flags": 0x21}},
        "a quoting enclave in debug mode": {"qe_report": {"flags": flags}},
        "MISCSELECT": {"qe_report": {"miscselect": 1}},
        "an old quoting enclave": {"qe_report": {"isvsvn": 7}},
        "too old a quoting enclave": {"qe_report": {"isvsvn": 1}},
        "another FMSPC": {"collateral": {"tcb_info": {"fmspc": "00906ED50001"}}},
        "another PCE": {"collateral": {"tcb_info": {"pceId": "0001"}}},
        "no levels": {"collateral": {"tcb_info": {"tcbLevels": []}}},
        "expired TCB info": {"collateral": {"tcb_info": {"nextUpdate": "2026-05-30T00:00:00Z"}}},
        "TCB info of tomorrow": {"collateral": {"tcb_info": {"issueDate": "2026-06-02T00:00:00Z"}}},
        "expired identity": {"collateral": {"identity": {"nextUpdate": "2026-05-30T00:00:00Z"}}},
        "another identity": {"collateral": {"identity": {"id": "QVE"}}},
        "TCB info signed by the PCK of a platform": {"collateral": stranger_signs(made)},
        "TCB info signed by another key": {"collateral": {"signers": {"tcb_info": made.keys["root"]}}},
        "a revoked PCK": {"collateral": {"document": {"pck_crl": made.crl("platform", revoked=(5,)).hex()}}},
        "a revoked CA": {"collateral": {"document": {"root_ca_crl": made.crl("root", revoked=(2,)).hex()}}},
        "a revoked TCB signer": {
            "collateral": {"document": {"root_ca_crl": made.crl("root", revoked=(4,)).hex()}}
        },
        "an old CRL": {
            "collateral": {
                "document": {"pck_crl": made.crl("platform", next_update=dcap.AT - timedelta(days=1)).hex()}
            }
        },
        "the CRL of the other CA": {"collateral": {"document": {"pck_crl": made.crl("processor").hex()}}},
    }
    if tee == "sgx":
        cases |= {"version 4": {"version": 4}, "version 5": {"version": 5}}
    else:
        old, new = bytes((3, 1, 6)) + bytes(13), bytes((5, 1, 6)) + bytes(13)
        asks = made.level(simulator.COMPONENTS, 11, "UpToDate")
        asks["tcb"]["tdxtcbcomponents"] = simulator.components((9, 0, 6, *(0,) * 13))
        revoked = made.level(simulator.COMPONENTS, 11, "Revoked")
        revoked["tcb"]["tdxtcbcomponents"] = simulator.components((5, 0, 7, *(0,) * 13))
        below = made.level(simulator.COMPONENTS, 11, "OutOfDate")
        cases |= {
            "revoked but for its TDX components": {
                "collateral": {"tcb_info": {"tcbLevels": [revoked, below]}}
            },
            "version 5": {"version": 5},
            "a module of another signer": {"body": {"mrsignerseam": b"\x01" * 48}},
            "a module with attributes": {"body": {"seam_attributes": b"\x01" + bytes(7)}},
            "an unknown module": {"body": {"tee_tcb_svn": bytes((5, 2, 6)) + bytes(13)}},
            "an old module": {"body": {"tee_tcb_svn": old}},
            "a revoked module": {"body": {"tee_tcb_svn": bytes((1, 1, 6)) + bytes(13)}},
            "too old a module": {"body": {"tee_tcb_svn": bytes((0, 1, 6)) + bytes(13)}},
            "old microcode": {"body": {"tee_tcb_svn": bytes((5, 1, 4)) + bytes(13)}},
            "a relaunch would do": {"version": 5, "body": {"tee_tcb_svn": old, "tee_tcb_svn_2": new}},
            "components of a module of version 1": {"collateral": {"tcb_info": {"tcbLevels": [asks]}}},
        }
    if tee == "tdx":
        # The module that a TD was launched with, and the one that runs now.
        for first in ((5, 1), (3, 1)):
            for second in ((5, 1), (9, 9), (1, 1), (0, 1), (3, 1), (5, 0), (4, 0), (9, 3), (1, 3)):
                pair = {
                    name: bytes((*svn, 6)) + bytes(13)
                    for name, svn in zip(SVNS, (first, second), strict=True)
                }
                cases[f"modules {first} and {second}"] = {"version": 5, "body": pair}
    words: tuple[str, ...] = (
        "UpToDate",
        "SWHardeningNeeded",
        "ConfigurationNeeded",
        "OutOfDate",
        "Revoked",
        "Fine",
    )
    words += ("ConfigurationAndSWHardeningNeeded", "OutOfDateConfigurationNeeded")
    for word in words:
        level = made.level(simulator.COMPONENTS, 11, word) | {"advisoryIDs": ["INTEL-SA-00001"]}
        info = {"collateral": {"tcb_info": {"tcbLevels": [level]}}}
        cases[f"platform {word}"] = info
        cases[f"platform {word}, old quoting enclave"] = info | {"qe_report": {"isvsvn": 6}}
    return cases


@pytest.mark.parametrize("tee", dcap.TEES)
def test_dcap_24_minted_quotes_have_the_verdict_of_dcap_qvl(tee: str) -> None:
    made = dcap.platform(tee)
    for name, changes in minted(tee).items():
        data, endorsements = made.evidence(dcap.REPORT_DATA, **changes)
        collateral = endorsements.documents[0].data
        own = ours(tee, data, collateral, dcap.AT, (made.anchor,))
        other = theirs(data, collateral, dcap.AT, made.certificates["root"])
        compare(f"minted {tee} {name}", own, other)


@pytest.mark.parametrize("tee", dcap.TEES)
def test_dcap_24_platforms_at_any_level_have_the_status_of_dcap_qvl(tee: str) -> None:
    """Levels and platforms drawn from a digest, so that they are many and always the same."""
    made = dcap.platform(tee)
    words = ("UpToDate", "SWHardeningNeeded", "ConfigurationNeeded", "OutOfDate")
    met = 0
    for index in range(60):
        draw = hashlib.sha512(f"{tee} {index}".encode()).digest()
        levels = []
        for number in range(2):
            drawn = draw[number * 16 : number * 16 + 16]
            svns = tuple(
                max(0, svn - drawn[place] % 3 + (drawn[15 - place] % 29 == 0))
                for place, svn in enumerate(simulator.COMPONENTS)
            )
            levels.append(made.level(svns, 11 - drawn[0] % 2 + (drawn[1] % 9 == 0), words[drawn[2] % 4]))
        data, endorsements = made.evidence(dcap.REPORT_DATA, collateral={"tcb_info": {"tcbLevels": levels}})
        collateral = endorsements.documents[0].data
        own = ours(tee, data, collateral, dcap.AT, (made.anchor,))
        assert own == theirs(data, collateral, dcap.AT, made.certificates["root"]), index
        met += own[0] != REFUSED
    assert 10 < met < 60


def test_dcap_24_the_list_of_differences_names_no_case_that_is_not_tried() -> None:
    tried = {f"minted {tee} {name}" for tee in dcap.TEES for name in minted(tee)}
    listed = {name for name in DIFFERENCES if name.startswith("minted ")}

    assert listed <= tried
    assert all(set(entry) == {"ours", "theirs", "why"} for entry in DIFFERENCES.values())
