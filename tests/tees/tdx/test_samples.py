# SPDX-License-Identifier: Apache-2.0
"""Real quotes of real TDs, at their recorded times, with their documented facts.

These pin every offset and key: a mistake made alike in layouts, minting and verifying shows only here.
"""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from confide.attestation.anchors import TrustAnchor
from confide.attestation.evidence import Endorsements, EvidencePart
from confide.crypto import x509
from confide.errors import ConfideError, EndorsementsMissing, MalformedError, NotGenuine
from confide.tees import formats
from confide.tees.sgx import wire as sgx_wire
from confide.tees.tdx import endorse, wire
from support import dcap

if TYPE_CHECKING:
    from pathlib import Path

ROOT = "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"


def facts(shared: Path, name: str) -> dict[str, Any]:
    entries = json.loads((shared / "evidence" / "manifest.json").read_text())["entries"]
    found: dict[str, Any] = next(one for one in entries if one["id"] == name and one["tee"] == "tdx")["facts"]
    return found


def test_ev_17_the_pinned_root_is_intels(shared: Path) -> None:
    (anchor,) = endorse.anchors()
    (root,) = anchor.certificates

    assert hashlib.sha256(root).hexdigest() == ROOT
    assert root == (shared / "evidence" / "roots" / "intel_sgx_root_ca.der").read_bytes()
    assert (anchor.tee, anchor.simulated) == ("tdx", False)


def test_every_run_of_a_real_quote_gives_what_an_independent_evaluation_gave(shared: Path) -> None:
    runs = [run for run in dcap.runs(shared) if run.tee == "tdx" and "no-matching" not in run.name]
    for run in runs:
        claims = run.claims()
        details: Any = claims.details
        expected = run.independent
        assert not claims.simulated
        assert claims.unproven == ()
        assert (details.platform.status, details.qe.status) == (expected["platform_tcb"], expected["qe"]), (
            run.name
        )
        # The manifest leaves the module out where its version has no levels of its own.
        module = details.module.status if details.module else None
        assert module == expected["tdx_module"], run.name
        if not run.dcap_qvl.startswith("error"):
            assert details.tcb_status == run.dcap_qvl, run.name
            assert details.advisory_ids == tuple(sorted(run.advisory_ids)), run.name
    assert len(runs) == 10


@pytest.mark.parametrize(
    "name",
    ["v4-uptodate", "v4-gcp-cos113", "v4-debug-td", "v5-uptodate", "v4-azure-attr0", "v4-dstack-eventlog"],
)
def test_the_facts_of_a_real_quote_are_those_documented(shared: Path, name: str) -> None:
    run, documented = dcap.run(shared, name), facts(shared, name)

    claims = run.claims()

    details: Any = claims.details
    attributes = details.td_attributes
    assert details.quote_version == documented["quote_version"]
    assert f"tdx{details.body.replace('.', '')}" == documented["body"]
    assert details.fmspc.hex() == documented["fmspc"]
    assert details.mrtd.hex().startswith(documented["mrtd"])
    assert details.mrseam.hex().startswith(documented["mrseam"])
    assert details.rtmrs[0].hex().startswith(documented["rtmr0"])
    assert details.rtmrs[3].hex().startswith(documented["rtmr3"])
    assert details.tee_tcb_svn.hex() == documented["tee_tcb_svn"]
    assert attributes.value.to_bytes(8, "little").hex() == documented["tdattr"]
    assert attributes.has("debug") == documented["debug"]
    assert claims.report_data.hex().startswith(documented["report_data_prefix"])
    assert claims.measurements["rtmr3"] == details.rtmrs[3]
    padding = [check.detail for check in claims.checks if check.name == "padding"]
    expected = f"{documented['trailing_bytes']} zero bytes follow the quote"
    assert padding == ([expected] if documented["trailing_bytes"] else [])


def test_the_same_quote_grows_old_with_newer_collateral(shared: Path) -> None:
    runs = [run for run in dcap.runs(shared) if run.name.startswith("v4-gcp-cos113")]
    found: list[Any] = [run.claims().details for run in runs]

    assert [one.tcb_status for one in found] == ["UpToDate", "OutOfDate"]
    assert [one.tcb_evaluation_data_number for one in found] == [17, 21]
    assert "INTEL-SA-01397" in found[1].advisory_ids


def test_who_vouches_is_told_from_the_quote_to_the_root(shared: Path) -> None:
    chain = dcap.run(shared, "v5-uptodate").claims().chain

    assert chain[0].name == "attestation key of the quoting enclave"
    names = ("PCK Certificate", "PCK Platform CA", "Root CA")
    assert [f"CN=Intel SGX {name}" in one.name for name, one in zip(names, chain[1:], strict=True)] == [
        True
    ] * 3
    root = x509.Certificate.from_der(endorse.anchors()[0].certificates[0])
    assert chain[-1].fingerprint == root.spki_sha256
    assert all(len(one.fingerprint) == 32 for one in chain)


def test_a_platform_below_every_level_is_refused(shared: Path) -> None:
    for name in ("v5-no-matching-tcb", "v4-no-matching-tcb"):
        for run in (one for one in dcap.runs(shared) if one.name.startswith(name)):
            # The sample of version 4 has words behind it that are no padding; without them its TCB decides.
            data = run.data.removesuffix(b"\nextra bytes(only for testing purpose)\n")
            with pytest.raises(NotGenuine) as caught:
                run.claims(data)
            assert dcap.codes(caught.value) == ["not_genuine.unknown_status"], run.name
            if data != run.data:
                with pytest.raises(MalformedError, match="other than zero"):
                    run.claims()


@pytest.mark.parametrize(("days", "code"), [(-20, "not_yet_valid"), (60, "expired")])
def test_real_collateral_does_not_serve_at_another_time(shared: Path, days: int, code: str) -> None:
    run = dcap.run(shared, "v5-uptodate")
    with pytest.raises(EndorsementsMissing) as caught:
        dcap.authenticate(
            "tdx", run.data, dcap.document(run.collateral), dcap.intel("tdx"), run.at + timedelta(days=days)
        )
    assert f"endorsements_missing.collateral_{code}" in dcap.codes(caught.value)


def test_one_fmspcs_collateral_does_not_serve_another_platform(shared: Path) -> None:
    quote, other = dcap.run(shared, "v4-uptodate"), dcap.run(shared, "v4-azure-attr0")
    with pytest.raises(NotGenuine) as caught:
        dcap.authenticate("tdx", quote.data, dcap.document(other.collateral), dcap.intel("tdx"), other.at)
    assert dcap.codes(caught.value) == ["not_genuine.identity_mismatch"]
    assert "b0c06f000000" in caught.value.hint


def test_dcap_08_the_collateral_of_sgx_does_not_serve_tdx(shared: Path) -> None:
    sgx, tdx = dcap.run(shared, "v3-config-and-hardening"), dcap.run(shared, "v4-uptodate")
    with pytest.raises(NotGenuine) as caught:
        dcap.authenticate("tdx", tdx.data, dcap.document(sgx.collateral), dcap.intel("tdx"), sgx.at)
    assert "not_genuine.identity_mismatch" in dcap.codes(caught.value)
    assert "TCB info is for the other TEE" in str(caught.value)


def test_event_logs_are_handed_on_as_they_came(shared: Path) -> None:
    run = dcap.run(shared, "v4-dstack-eventlog")
    log = (shared / "evidence" / "eventlogs" / "dstack-json-eventlog.json").read_bytes()
    given = dcap.document(run.collateral).merge(Endorsements(documents=(EvidencePart("event-log", log),)))

    claims = dcap.authenticate("tdx", run.data, given, dcap.intel("tdx"), run.at)
    details: Any = claims.details
    assert details.event_logs == (log,)


def test_intels_test_root_vouches_for_nothing(shared: Path) -> None:
    """The set of Intel's library for TDX cannot be met: its SVNs go to 65527, and its chain is DER where PEM belongs."""
    folder = shared / "evidence" / "tdx" / "intel-testroot-tdx"
    data = (folder / "quote.dat").read_bytes()
    given = formats.read_endorsements([folder / "pckCert.pem", folder / "pckSignChain.pem"])
    test_root = x509.parse_pem((folder / "trustedRootCaCert.pem").read_bytes())[0].der
    own = (TrustAnchor("tdx", "Intel's test root", (test_root,)),)
    for anchors in (endorse.anchors(), own):
        with pytest.raises(ConfideError) as caught:
            dcap.authenticate("tdx", data, given, anchors)
        assert caught.value.code == "malformed.non_canonical"
    with pytest.raises(MalformedError, match="outside 0 to 255"):
        dcap.authenticate("tdx", data, formats.read_endorsements([folder / "tcbInfo.json"]), own)


def test_every_real_quote_of_a_td_is_told_apart_from_everything_else(shared: Path) -> None:
    recognised = set()
    for file in sorted((shared / "evidence").rglob("*")):
        if file.is_file():
            data = file.read_bytes()
            assert not (wire.recognises(data) and sgx_wire.recognises(data))
            if wire.recognises(data):
                recognised.add(file.name)
    quotes = {file.name for file in (shared / "evidence" / "tdx").glob("*.quote.bin")}
    assert recognised == quotes | {"quote.dat"}


@pytest.mark.parametrize("name", ["v4-gcp-cos113", "v5-uptodate"])
def test_a_quote_is_explained_as_a_tree_of_json(shared: Path, name: str) -> None:
    data = dcap.run(shared, name).data
    tree = json.loads(json.dumps(wire.explain(data)))

    assert tree["td report"]["td attributes"]["set"] == ["sept_ve_disable"]
    assert tree["certification"]["certificate 0"]["sgx extension"]["fmspc"] == facts(shared, name)["fmspc"]
    assert tree["zero bytes after the end"] == facts(shared, name)["trailing_bytes"]
    assert "unproven on real bytes" not in tree
    assert len(tree["td report"]["rtmr2"]) == 96
    assert ("mrservicetd" in tree["td report"]) == name.startswith("v5")


def test_unproven_layouts_say_so_when_explained() -> None:
    data = dcap.platform("tdx").quote(dcap.REPORT_DATA, version=5, body={"body": "1.0"})
    assert "version 5 with a body of type 2" in str(wire.explain(data)["unproven on real bytes"])


def test_the_addresses_of_collateral_follow_from_the_certificate(shared: Path) -> None:
    urls = endorse.urls(dcap.run(shared, "v4-gcp-cos113").data)

    assert urls == (
        "https://api.trustedservices.intel.com/tdx/certification/v4/tcb?fmspc=00806f050000",
        "https://api.trustedservices.intel.com/tdx/certification/v4/qe/identity",
        "https://api.trustedservices.intel.com/sgx/certification/v4/pckcrl?ca=platform&encoding=der",
        "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der",
    )
    with pytest.raises(EndorsementsMissing):
        endorse.urls(dcap.platform("tdx").quote(dcap.REPORT_DATA, certification=(3, bytes(404))))
