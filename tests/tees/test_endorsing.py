# SPDX-License-Identifier: Apache-2.0
"""Everything that vendors say about evidence: asked at their addresses, checked for its form, written as one file."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from confide.attestation.evidence import Endorsements, Evidence, EvidencePart
from confide.attestation.policy import AppraisalPolicy
from confide.attestation.verifier import Verifier
from confide.crypto import pem, x509
from confide.errors import ConfideError, EndorsementsMissing, MalformedError, NotGenuine
from confide.tees import endorsing, fetch, formats
from confide.tees.cache import Cache, cached
from confide.tees.nitro import endorse as nitro_endorse
from confide.tees.snp import endorse, wire
from support import nitro, snp, vendor_service, vendors

if TYPE_CHECKING:
    from http.server import BaseHTTPRequestHandler
    from pathlib import Path

KDS = "kdsintf.amd.com"
SNP_CASES = [
    (
        snp.mint(product="Genoa"),
        f"{KDS}/vcek/v1/Genoa/{'22' * 64}?blSPL=10&teeSPL=00&snpSPL=23&ucodeSPL=84",
    ),
    (
        snp.mint(product="Turin", version=5),
        f"{KDS}/vcek/v1/Turin/{'33' * 8}?fmcSPL=01&blSPL=02&teeSPL=03&snpSPL=04&ucodeSPL=81",
    ),
    (
        snp.mint(product="Milan"),
        f"{KDS}/vcek/v1/Milan/{'11' * 64}?blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219",
    ),
]
QUOTES = [
    ("tdx", "v4-uptodate", "eval17", "2025-06-19T12:00:00Z"),
    ("tdx", "v4-gcp-cos113", "eval17", "2025-06-20T12:00:00Z"),
    ("sgx", "v3-config-and-hardening", "eval17", "2025-06-20T12:00:00Z"),
]


def raw(case: snp.Minted) -> Evidence:
    return Evidence(EvidencePart("snp", case.report))


def kds_pages(case: snp.Minted, address: str) -> dict[str, vendors.Page]:
    product = address.split("/")[3]
    return {address: (case.certificate, {}), f"{KDS}/vcek/v1/{product}/crl": (case.authority.crl(), {})}


def sample(shared: Path, tee: str, name: str, evaluation: str) -> tuple[bytes, dict[str, Any]]:
    folder = shared / "evidence" / tee
    document = json.loads((folder / f"{name}.collateral-{evaluation}.json").read_bytes())
    return (folder / f"{name}.quote.bin").read_bytes(), document


def quote_pages(tee: str, data: bytes, document: dict[str, Any]) -> dict[str, vendors.Page]:
    """The answers at the addresses where the FMSPC and the CA of the sample belong, found without the code under test."""
    chain = x509.parse_pem(data[data.index(b"-----BEGIN") :].rstrip(b"\0"))
    leaf = next(one for one in chain if "PCK Certificate" in one.subject)
    ca = "platform" if "Platform" in leaf.issuer else "processor"
    fmspc = json.loads(document["tcb_info"])["fmspc"].lower()
    return vendors.pcs_pages(tee, fmspc, ca, document)


@pytest.mark.parametrize(("case", "address"), SNP_CASES, ids=["Genoa", "Turin", "Milan"])
def test_the_address_of_a_certificate_is_made_from_chip_id_and_reported_tcb(
    case: snp.Minted, address: str
) -> None:
    log: list[str] = []
    product = address.split("/")[3]

    pages = kds_pages(case, address)

    found = endorsing.collect(raw(case), ask=vendors.in_memory(pages, log))

    assert log == [f"https://{address}", f"https://{KDS}/vcek/v1/{product}/crl"]
    assert found == Endorsements((case.certificate,), (pages[f"{KDS}/vcek/v1/{product}/crl"][0],))
    old = wire.decode_report(snp.mint(product=product, version=2).report)
    assert endorse.certificate_url(old, product=product) == f"https://{address}"


@pytest.mark.parametrize(
    ("case", "code"),
    [
        (snp.mint(version=2), "configuration.product"),
        (snp.mint(kind="vlek"), "configuration.endorsement"),
        (snp.mint(report={"chip_id": bytes(64)}), "configuration.endorsement"),
        (snp.mint(report={"cpuid_fam_id": 1}), "configuration.product"),
    ],
)
def test_evidence_for_which_nothing_can_be_asked_says_why(case: snp.Minted, code: str) -> None:
    with pytest.raises(ConfideError) as caught:
        endorsing.collect(raw(case), ask=vendors.in_memory({}))

    assert caught.value.code == code


def test_the_crl_alone_is_asked_for_where_the_certificate_came_with_the_evidence() -> None:
    """So that a VLEK, whose certificate nobody publishes, gets its CRL; the product is the certificate's."""
    case = snp.mint(kind="vlek", version=2, product="Milan")
    crl = case.authority.crl()
    log: list[str] = []

    found = endorsing.collect(
        case.evidence, ask=vendors.in_memory({f"{KDS}/vlek/v1/Milan/crl": (crl, {})}, log)
    )

    assert found == Endorsements(crls=(crl,))
    assert log == [f"https://{KDS}/vlek/v1/Milan/crl"]


@pytest.mark.parametrize("format_", ["tpm", "token"])
def test_evidence_that_carries_its_certificates_needs_nothing(format_: str) -> None:
    with pytest.raises(ConfideError) as caught:
        endorsing.collect(Evidence(EvidencePart(format_, b"x")), ask=vendors.in_memory({}))

    assert caught.value.code == "configuration.nothing_to_fetch"


def test_evidence_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(MalformedError):
        endorsing.collect(Evidence(EvidencePart("sev", b"x")), ask=vendors.in_memory({}))


def test_what_amd_says_is_fetched_over_tls_and_makes_the_report_verify(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case, address = SNP_CASES[0]

    pages = kds_pages(case, address)
    with vendors.serving(pages) as service:
        told: list[str] = []
        found = endorsing.collect(raw(case), ask=vendors.asker(service, monkeypatch), progress=told.append)

    assert told == [KDS, KDS]
    assert found == Endorsements((case.certificate,), (pages[f"{KDS}/vcek/v1/Genoa/crl"][0],))
    text = endorsing.as_file(found)
    assert text.startswith(b"-----BEGIN CERTIFICATE-----")
    assert snp.verify(Evidence(EvidencePart("snp", case.report), endorsements=found)).verdict == "accepted"


@pytest.mark.parametrize(("tee", "name", "evaluation", "at"), QUOTES)
def test_what_intel_says_is_fetched_over_tls_and_put_together_byte_for_byte(
    shared: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    tee: str,
    name: str,
    evaluation: str,
    at: str,
) -> None:
    """The collateral of a real quote, served as Intel serves it, comes out as the document beside the sample."""
    del at
    data, document = sample(shared, tee, name, evaluation)

    with vendors.serving(quote_pages(tee, data, document)) as service:
        found = endorsing.collect(Evidence(EvidencePart(tee, data)), ask=vendors.asker(service, monkeypatch))

    (part,) = found.documents
    assert part.format == "intel-collateral"
    assert json.loads(part.data) == document
    assert len(service.asked) == 4
    file = tmp_path / "endorsements.cbor"
    file.write_bytes(endorsing.as_file(found))
    assert formats.read_endorsements([file]) == found


@pytest.mark.parametrize(("tee", "name", "evaluation", "at"), QUOTES)
def test_what_was_fetched_gives_the_verdict_of_the_sample_beside_it(
    shared: Path, tee: str, name: str, evaluation: str, at: str
) -> None:
    data, document = sample(shared, tee, name, evaluation)
    found = endorsing.collect(
        Evidence(EvidencePart(tee, data)), ask=vendors.in_memory(quote_pages(tee, data, document))
    )
    beside = Endorsements(documents=(EvidencePart("intel-collateral", json.dumps(document).encode()),))
    pinned = {"mrenclave": "ANY"} if tee == "sgx" else {"mrtd": "ANY"}
    policy = AppraisalPolicy.from_table(
        {
            "tees": [tee],
            "tcb_status": ["UpToDate", "ConfigurationAndSWHardeningNeeded", "SWHardeningNeeded", "OutOfDate"],
            "reference": {tee: pinned},
        }
    )

    def verdict(endorsements: Endorsements) -> str:
        try:
            return (
                Verifier(policy, endorsements=endorsements)
                .verify(
                    Evidence(EvidencePart(tee, data)),
                    at=datetime.strptime(at, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC),
                )
                .verdict
            )
        except ConfideError as error:
            return error.code

    assert verdict(found) == verdict(beside) == "accepted"
    assert verdict(Endorsements()).startswith("endorsements_missing.")


def pages_of(shared: Path) -> tuple[Evidence, dict[str, vendors.Page]]:
    data, document = sample(shared, "tdx", "v4-uptodate", "eval17")
    return Evidence(EvidencePart("tdx", data)), quote_pages("tdx", data, document)


def body(find: bytes, replace: bytes) -> Any:
    return lambda page: (page[0].replace(find, replace), page[1])


@pytest.mark.parametrize(
    ("where", "change"),
    [
        ("/tcb", lambda page: (b"<html>maintenance</html>", page[1])),
        ("/tcb", lambda page: (b"", page[1])),
        ("/tcb", lambda page: (page[0] + b"x", page[1])),
        ("/tcb", lambda page: (b" " + page[0], page[1])),
        ("/tcb", lambda page: (page[0][:-3] + b'"}', page[1])),
        ("/tcb", body(b'{"tcbInfo":', b'{"TCBInfo":')),
        ("/tcb", body(b'{"tcbInfo":{', b'{"tcbInfo":{{')),
        ("/tcb", lambda page: (b'{"tcbInfo":' + b"[" * 100_000 + page[0][-200:], page[1])),
        ("/tcb", lambda page: (b'{"tcbInfo":' + b" " * 600_000 + page[0][11:], page[1])),
        ("/tcb", lambda page: (page[0], {"TCB-Info-Issuer-Chain": "%00%ff"})),
        ("/tcb", lambda page: (page[0], {"TCB-Info-Issuer-Chain": "-----BEGIN%20PRIVATE%20KEY-----"})),
        ("/identity", lambda page: (page[0].replace(b"enclaveIdentity", b"tcbInfo"), page[1])),
        ("/pckcrl", lambda page: (page[0][:-1], page[1])),
        ("/pckcrl", lambda page: (b"<html>", page[1])),
        ("RootCA.der", lambda page: (page[0] + b"\0", page[1])),
    ],
)
def test_ev_34_an_answer_of_another_form_is_refused(shared: Path, where: str, change: Any) -> None:
    evidence, pages = pages_of(shared)
    (address,) = [one for one in pages if where in one]

    with pytest.raises(EndorsementsMissing) as caught:
        endorsing.collect(evidence, ask=vendors.in_memory(pages | {address: change(pages[address])}))

    assert caught.value.code == "endorsements_missing.collateral"


def test_ev_34_each_answer_that_does_not_come_is_named(shared: Path) -> None:
    evidence, pages = pages_of(shared)

    codes = set()
    for address in pages:
        fewer = {one: page for one, page in pages.items() if one != address}
        with pytest.raises(EndorsementsMissing) as caught:
            endorsing.collect(evidence, ask=vendors.in_memory(fewer))
        codes.add(caught.value.code)

    assert codes == {"endorsements_missing.collateral", "endorsements_missing.crl"}


@pytest.mark.parametrize("page", [b"<html>Sorry</html>", b"", b"\x30\x00", b"{}"])
def test_ev_34_amds_answer_of_another_form_is_refused(page: bytes) -> None:
    case, address = SNP_CASES[0]
    pages = kds_pages(case, address)

    for one in pages:
        with pytest.raises(EndorsementsMissing):
            endorsing.collect(raw(case), ask=vendors.in_memory(pages | {one: (page, {})}))


def test_ev_35_addresses_inside_evidence_are_not_asked(shared: Path) -> None:
    """PCK certificates, CRLs and TCB signers all name addresses; everything asked is among the vendors' own all the same."""
    evidence, pages = pages_of(shared)
    log: list[str] = []

    endorsing.collect(evidence, ask=vendors.in_memory(pages, log))

    assert {url.split("/")[2] for url in log} <= fetch.ALLOWED_HOSTS
    assert len(log) == 4


def test_vendors_are_asked_once_while_their_documents_are_good(shared: Path, tmp_path: Path) -> None:
    evidence, pages = pages_of(shared)
    log: list[str] = []
    at = datetime(2025, 6, 19, 12, tzinfo=UTC)
    ask = cached(
        vendors.in_memory(pages, log), Cache(tmp_path / "cache"), now=lambda: at, expires=endorsing.expires
    )

    first = endorsing.collect(evidence, ask=ask)
    assert len(log) == 4
    assert endorsing.collect(evidence, ask=ask) == first
    assert len(log) == 4


def test_a_document_is_good_for_as_long_as_it_says(shared: Path) -> None:
    _, document = sample(shared, "tdx", "v4-uptodate", "eval17")
    _, pages = pages_of(shared)
    case = snp.mint()
    request = fetch.Request(f"https://{KDS}/x")

    def until(data: bytes) -> datetime | None:
        return endorsing.expires(request, fetch.Answer(data))

    ends = [until(page[0]) for page in pages.values()]
    assert ends[0] is not None
    assert ends[0].strftime("%Y-%m-%dT%H:%M:%SZ") == json.loads(document["tcb_info"])["nextUpdate"]
    assert ends[1] is not None
    assert ends[1].strftime("%Y-%m-%dT%H:%M:%SZ") == json.loads(document["qe_identity"])["nextUpdate"]
    assert ends[2] == x509.Crl.from_bytes(bytes.fromhex(document["pck_crl"])).next_update
    assert until(case.certificate) == snp.NOT_AFTER
    assert until(case.authority.crl()) == datetime(2026, 7, 1, tzinfo=UTC)
    for page in (b"", b"<html>", b'{"tcbInfo":{},"signature":"' + b"0" * 128 + b'"}'):
        assert until(page) is None


def gpu(shared: Path) -> Evidence:
    folder = shared / "evidence" / "nvidia"
    chain = pem.blocks(
        (folder / "hopper-550.90.07-full.chain.pem").read_bytes(), "CERTIFICATE", max_size=4096, max_count=8
    )
    report = (folder / "hopper-550.90.07-full.report.bin").read_bytes()
    return Evidence(EvidencePart("nvidia", report), endorsements=Endorsements(tuple(chain)))


def nvidia_service(shared: Path, log: list[str] | None = None) -> Any:
    return vendors.nvidia(shared / "evidence" / "nvidia", log)


def test_what_nvidia_says_is_both_rims_and_the_status_of_every_ca(shared: Path, tmp_path: Path) -> None:
    """The same documents as beside the sample: two RIMs, and seven responses about the CAs of three chains."""
    folder = shared / "evidence" / "nvidia"
    log: list[str] = []

    found = endorsing.collect(gpu(shared), ask=nvidia_service(shared, log))

    rims = [part.data for part in found.documents if part.format == "nvidia-rim"]
    statuses = [part.data for part in found.documents if part.format == "ocsp"]
    assert rims == [(folder / "rim" / f"{name}.xml").read_bytes() for name in vendors.RIMS]
    assert sorted(statuses) == sorted(path.read_bytes() for path in (folder / "ocsp").iterdir())
    assert {url.split("/")[2] for url in log} == {"rim.attestation.nvidia.com", "ocsp.ndis.nvidia.com"}
    file = tmp_path / "endorsements.cbor"
    file.write_bytes(endorsing.as_file(found))
    assert formats.read_endorsements([file]) == found


def test_what_nvidia_says_is_fetched_over_tls(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = nvidia_service(shared)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        url = f"https://{handler.headers['host']}{handler.path}"
        posted = handler.command == "POST"
        request = fetch.Request(
            url,
            body=service.bodies[-1] if posted else None,
            content_type=handler.headers.get("content-type") or "application/octet-stream",
        )
        vendor_service.respond(200, inner(request).body)(handler)

    with vendor_service.serving(answer, hosts=vendors.HOSTS) as service:
        over_tls = endorsing.collect(gpu(shared), ask=vendors.asker(service, monkeypatch))

    assert over_tls == endorsing.collect(gpu(shared), ask=inner)
    assert [line.split()[0] for line in service.asked] == ["GET"] * 2 + ["POST"] * 7


@pytest.mark.parametrize(
    ("page", "leaf"),
    [
        (b"<html>", "rim"),
        (b'{"rim": "PGE+"}', "rim"),
        (b'{"rim": 1}', "rim"),
        (b'{"id": "x"}', "rim"),
        (b"\x30\x03\x0a\x01\x06", "ocsp"),
        (b"", "ocsp"),
    ],
)
def test_ev_34_nvidias_answer_of_another_form_is_refused(shared: Path, page: bytes, leaf: str) -> None:
    inner = nvidia_service(shared)

    def ask(request: fetch.Request, /) -> fetch.Answer:
        is_status = request.body is not None
        return fetch.Answer(page) if is_status == (leaf == "ocsp") else inner(request)

    with pytest.raises(EndorsementsMissing) as caught:
        endorsing.collect(gpu(shared), ask=ask)

    assert caught.value.code == f"endorsements_missing.{leaf}"


def test_a_gpu_beside_a_cpu_is_asked_about_too(shared: Path) -> None:
    """And the CPU's certificates are no business of NVIDIA's."""
    case, address = SNP_CASES[0]
    alone = gpu(shared)
    beside = Evidence(
        EvidencePart("snp", case.report),
        devices=(alone.platform,),
        endorsements=alone.endorsements.merge(case.endorsements),
    )
    nvidia, amd = nvidia_service(shared), vendors.in_memory(kds_pages(case, address))

    def ask(request: fetch.Request, /) -> fetch.Answer:
        return amd(request) if KDS in request.url else nvidia(request)

    found = endorsing.collect(beside, ask=ask)

    assert len(found.crls) == 1
    assert found.documents == endorsing.collect(alone, ask=nvidia).documents


def test_what_aws_says_is_the_crl_of_every_ca_that_publishes_one(shared: Path) -> None:
    data = (shared / "evidence" / "nitro" / "prod-dstack.cose.bin").read_bytes()
    pages: dict[str, vendors.Page] = {
        address: (snp.authority(product).crl(), {})
        for product, address in (
            (
                "Milan",
                "aws-nitro-enclaves-crl.s3.amazonaws.com/crl/ab4960cc-7d63-42bd-9e9f-59338cb67f84.crl",
            ),
            (
                "Genoa",
                (
                    "crl-us-east-1-aws-nitro-enclaves.s3.us-east-1.amazonaws.com"
                    "/crl/e7f1198f-2766-4ca0-85e5-7a75f05d9614.crl"
                ),
            ),
        )
    }

    found = endorsing.collect(Evidence(EvidencePart("nitro", data)), ask=vendors.in_memory(pages))

    assert found == Endorsements(crls=tuple(page[0] for page in pages.values()))


def test_ev_35_a_document_that_is_not_awss_asks_nobody() -> None:
    """Its certificates name places of the right form, but no pinned root stands behind them."""
    data = nitro.document()
    assert nitro_endorse.urls(data)
    log: list[str] = []

    with pytest.raises(NotGenuine):
        endorsing.collect(Evidence(EvidencePart("nitro", data)), ask=vendors.in_memory({}, log))

    assert log == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("snp-v1", ["https://kdsintf.amd.com/vcek/v1/Milan/crl"]),
        (
            "tdx-v1",
            [
                "https://api.trustedservices.intel.com/tdx/certification/v4/tcb",
                "https://api.trustedservices.intel.com/tdx/certification/v4/qe/identity",
            ],
        ),
    ],
)
def test_of_azures_evidence_the_cpus_report_is_asked_about(
    shared: Path, name: str, expected: list[str]
) -> None:
    """The VCEK comes with an SNP report there, and the TPM's key is vouched for by the report."""
    evidence = formats.read((shared / "evidence" / "azure-vtpm" / f"{name}.json").read_bytes())
    assert [part.format for part in evidence.devices] == ["tpm"]
    log: list[str] = []

    def ask(request: fetch.Request, /) -> fetch.Answer:
        log.append(request.url.split("?")[0])
        return fetch.Answer(snp.authority("Milan").crl(), dict.fromkeys(request.headers, "x"))

    # Intel's documents are no CRLs; that they were asked for is enough here.
    with contextlib.suppress(EndorsementsMissing):
        endorsing.collect(evidence, ask=ask)

    assert log[:2] == expected


def test_a_quote_that_only_names_its_platform_cannot_be_endorsed(shared: Path) -> None:
    data = (shared / "evidence" / "sgx" / "v3-certtype-not5.quote.bin").read_bytes()
    log: list[str] = []

    with pytest.raises(EndorsementsMissing) as caught:
        endorsing.collect(Evidence(EvidencePart("sgx", data)), ask=vendors.in_memory({}, log))

    assert caught.value.code == "endorsements_missing.certificate"
    assert log == []


@pytest.mark.parametrize(
    ("name", "product"),
    [
        ("milan-v3", None),
        ("genoa-v3", None),
        ("genoa-v5-zen4c", None),
        ("turin-v5", None),
        ("milan-v2-azure", "Milan"),
    ],
)
def test_the_address_for_a_real_report_names_the_certificate_that_amd_issued(
    shared: Path, name: str, product: str | None
) -> None:
    """Chip and TCB in the address are those in AMD's certificate beside the sample."""
    folder = shared / "evidence" / "sev-snp"
    certificate = x509.Certificate.from_der((folder / f"{name}.vcek.der").read_bytes())
    issued = endorse.read_key_certificate(certificate)
    report = wire.decode_report((folder / f"{name}.report.bin").read_bytes())

    address = endorse.certificate_url(report, product=product)

    head, _, query = address.partition("?")
    assert issued.hwid is not None
    assert head == f"https://{KDS}/vcek/v1/{issued.product.name}/{issued.hwid.hex()}"
    asked = dict(pair.split("=") for pair in query.split("&"))
    words = {
        "bootloader": "blSPL",
        "tee": "teeSPL",
        "snp": "snpSPL",
        "microcode": "ucodeSPL",
        "fmc": "fmcSPL",
    }
    assert {words[level]: f"{value:02d}" for level, value in issued.tcb.to_json().items()} == asked
