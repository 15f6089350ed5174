# SPDX-License-Identifier: Apache-2.0
"""Real quotes of real enclaves, at their recorded times, with their documented facts."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from confide.attestation.anchors import TrustAnchor
from confide.attestation.evidence import Endorsements
from confide.crypto import x509
from confide.errors import EndorsementsMissing, NotGenuine
from confide.tees import formats
from confide.tees.sgx import endorse, wire
from confide.tees.tdx import endorse as tdx_endorse
from support import dcap

if TYPE_CHECKING:
    from pathlib import Path

WITH_COLLATERAL = ("v3-config-and-hardening", "v3-debug-occlum", "v3-debug-solana")


def facts(shared: Path, name: str) -> dict[str, Any]:
    entries = json.loads((shared / "evidence" / "manifest.json").read_text())["entries"]
    found: dict[str, Any] = next(one for one in entries if one["id"] == name and one["tee"] == "sgx")["facts"]
    return found


def test_the_root_is_the_one_of_tdx() -> None:
    assert endorse.anchors()[0].certificates == tdx_endorse.anchors()[0].certificates
    assert endorse.anchors()[0].tee == "sgx"


@pytest.mark.parametrize("name", WITH_COLLATERAL)
def test_a_real_quote_gives_its_documented_facts_and_status(shared: Path, name: str) -> None:
    run, documented = dcap.run(shared, name), facts(shared, name)

    claims = run.claims()

    details: Any = claims.details
    assert details.quote_version == 3
    assert details.fmspc.hex() == documented["fmspc"]
    assert details.mrenclave.hex().startswith(documented["mrenclave"])
    assert details.mrsigner.hex().startswith(documented["mrsigner"])
    assert details.cpusvn.hex() == documented["cpusvn"]
    assert (details.isvprodid, details.isvsvn) == (documented["prodid"], documented["svn"])
    assert details.flags.has("debug") == documented["debug"]
    assert details.flags.has("init")
    assert details.flags.has("mode64bit")
    assert claims.report_data.hex().startswith(documented["report_data_prefix"])
    assert (details.platform.status, details.qe.status) == (
        run.independent["platform_tcb"],
        run.independent["qe"],
    )
    assert (claims.simulated, claims.unproven) == (False, ())
    if not run.dcap_qvl.startswith("error"):
        assert details.tcb_status == run.dcap_qvl
        assert details.advisory_ids == tuple(sorted(run.advisory_ids))


def test_without_collateral_a_real_quote_is_undecided_but_its_chain_is_good(shared: Path) -> None:
    """A quote of 2020, which holds another certificate of Intel's root than the pinned one, in another order."""
    data = dcap.quote_bytes(shared, "sgx/v3-fortanix-2020.quote.bin")
    with pytest.raises(EndorsementsMissing) as caught:
        dcap.authenticate("sgx", data, Endorsements(), endorse.anchors(), datetime(2021, 1, 1, tzinfo=UTC))

    found = dcap.codes(caught.value)
    assert set(found) == {"endorsements_missing.collateral", "endorsements_missing.crl"}
    after = datetime(2027, 5, 6, tzinfo=UTC)
    with pytest.raises(NotGenuine) as late:
        dcap.authenticate("sgx", data, Endorsements(), endorse.anchors(), after)
    assert late.value.code == "not_genuine.expired"


def test_a_corrupted_real_quote_is_not_genuine(shared: Path) -> None:
    data = dcap.quote_bytes(shared, "sgx/v3-fortanix-corrupted.quote.bin")
    with pytest.raises(NotGenuine) as caught:
        dcap.authenticate("sgx", data, Endorsements(), endorse.anchors(), datetime(2021, 1, 1, tzinfo=UTC))

    assert caught.value.code == "not_genuine.bad_signature"


def test_dcap_05_a_real_quote_that_only_names_its_platform_is_undecided(shared: Path) -> None:
    data = dcap.quote_bytes(shared, "sgx/v3-certtype-not5.quote.bin")
    with pytest.raises(EndorsementsMissing) as caught:
        dcap.authenticate("sgx", data, Endorsements(), endorse.anchors(), datetime(2021, 1, 1, tzinfo=UTC))

    assert caught.value.code == "endorsements_missing.certificate"
    assert "not embedded" in caught.value.message
    assert "--endorsements" in caught.value.hint


def test_intels_sample_verifies_under_its_test_root_and_no_other(shared: Path) -> None:
    """Intel's library ships it: TCB info of version 2, the answers of the service, the PCK certificate beside the quote."""
    folder = shared / "evidence" / "sgx" / "intel-testroot-sgx"
    data = (folder / "quote.dat").read_bytes()
    given = formats.read_endorsements([file for file in sorted(folder.iterdir()) if file.name != "quote.dat"])
    root = x509.parse_pem((folder / "trustedRootCaCert.pem").read_bytes())[0].der
    at = datetime(2025, 1, 1, tzinfo=UTC)

    claims = dcap.authenticate("sgx", data, given, (TrustAnchor("sgx", "Intel's test root", (root,)),), at)
    details: Any = claims.details
    assert (details.tcb_status, details.tcb_evaluation_data_number) == ("UpToDate", 3)
    with pytest.raises(NotGenuine) as caught:
        dcap.authenticate("sgx", data, given, endorse.anchors(), at)
    assert set(dcap.codes(caught.value)) == {"not_genuine.untrusted_root"}


def test_every_real_quote_of_an_enclave_is_recognised(shared: Path) -> None:
    for file in (shared / "evidence" / "sgx").glob("*.quote.bin"):
        assert wire.recognises(file.read_bytes()), file.name
        assert not wire.recognises(file.read_bytes()[:48])


def test_a_quote_is_explained_as_a_tree_of_json(shared: Path) -> None:
    tree = json.loads(json.dumps(wire.explain(dcap.run(shared, "v3-debug-occlum").data)))

    assert tree["enclave report"]["attributes"]["set"] == ["init", "debug", "mode64bit"]
    assert tree["certification"]["certificate 0"]["sgx extension"]["fmspc"] == "00606a000000"
    assert "unproven on real bytes" not in tree
    other = wire.explain(dcap.quote_bytes(shared, "sgx/v3-certtype-not5.quote.bin"))["certification"]
    assert isinstance(other, dict)
    assert other["meaning"] == "PPID encrypted to a key of 3072 bits"


@pytest.mark.parametrize("version", [4, 5])
def test_unproven_layouts_say_so_when_explained(version: int) -> None:
    data = dcap.platform("sgx").quote(dcap.REPORT_DATA, version=version)
    assert f"version {version} with a body of type 1" in str(wire.explain(data)["unproven on real bytes"])


def test_the_addresses_of_collateral_follow_from_the_certificate(shared: Path) -> None:
    urls = endorse.urls(dcap.run(shared, "v3-config-and-hardening").data)

    assert urls[0] == "https://api.trustedservices.intel.com/sgx/certification/v4/tcb?fmspc=00a067110000"
    assert "ca=processor" in urls[2]
