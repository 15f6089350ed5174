# SPDX-License-Identifier: Apache-2.0
"""Real reports of real GPUs and of a switch, at their recorded times, with their documented verdicts.

These pin every offset and key: a mistake made alike in the layouts, the simulator and the verifying shows only here.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from confide.attestation.evidence import Endorsements, Evidence, EvidencePart
from confide.attestation.verifier import Verifier
from confide.crypto import ocsp, x509
from confide.errors import AttestationError, EndorsementsMissing, NotGenuine
from confide.tees import formats
from confide.tees.nvidia import endorse, rim, wire
from support import nvidia

if TYPE_CHECKING:
    from pathlib import Path

    from confide.attestation.result import AttestationResult

FULL = "hopper-550.90.07-full"
# Driver, VBIOS, board, device id (the serial number of the device's certificate), what the report says of its mode.
FACTS = {
    "hopper-535": ("535.86.09", "96.00.5E.00.01", "1010 0200 882", "416A5FAFCBD9FA5CA3", None),
    FULL: ("550.90.07", "96.00.9F.00.01", "1010 0200 882", "41431D480FE5E87274", None),
    "hopper-580": ("580.159.03", "96.00.74.00.20", "1010 0205 862", "41E23D711E1C4FBFAC", "spt"),
    "switch-ls10": (None, "96.10.55.00.01", None, "50203EB31AD9ED0008", None),
}


def entry(shared: Path, name: str) -> dict[str, Any]:
    entries = json.loads((shared / "evidence" / "manifest.json").read_text())["entries"]
    return next(one for one in entries if one["id"] == name and one["tee"] == "nvidia")


def documents(shared: Path, *names: str) -> tuple[EvidencePart, ...]:
    folder = nvidia.folder(shared)
    kinds = {"xml": "nvidia-rim", "der": "ocsp"}
    return tuple(EvidencePart(kinds[name.rpartition(".")[2]], (folder / name).read_bytes()) for name in names)


def sample(shared: Path, name: str, *more: str) -> Evidence:
    folder = nvidia.folder(shared)
    report = formats.read((folder / f"{name}.report.bin").read_bytes())
    chain = x509.parse_pem((folder / f"{name}.chain.pem").read_bytes())
    given = Endorsements(tuple(one.der for one in chain), (), documents(shared, *more))
    return Evidence(report.platform, endorsements=given)


def verify(
    evidence: Evidence, at: str, *, top: dict[str, Any] | None = None, **table: Any
) -> AttestationResult:
    return Verifier(nvidia.policy(table, **(top or {}))).verify(evidence, at=datetime.fromisoformat(at))


def whole(shared: Path) -> Evidence:
    """The sample with everything beside it that belongs to it."""
    files = [file.removeprefix("nvidia/") for file in entry(shared, FULL)["files"]]
    return sample(shared, FULL, *(file for file in files if file.startswith(("rim/", "ocsp/"))))


@pytest.mark.parametrize("name", sorted(nvidia.SAMPLES))
def test_a_real_report_is_genuine_and_says_its_documented_facts(shared: Path, name: str) -> None:
    facts = entry(shared, name)

    result = verify(sample(shared, name), facts["verify_at"], rim="ANY")

    claims = result.to_json()["claims"]
    assert isinstance(claims, dict)
    shown = tuple(claims[key] for key in ("driver_version", "vbios_version", "board", "device_id", "mode"))
    assert shown == FACTS[name]
    assert claims["nonce"] == facts["facts"]["nonce"]
    assert len(result.claims.measurements) == facts["facts"]["measurement_blocks"]
    assert (result.tee, result.simulated, result.tier.name) == ("nvidia", False, "WARNING")
    assert len(result.claims.chain) == facts["facts"]["chain_len"]


def test_the_complete_set_is_accepted_with_every_measurement_compared(shared: Path) -> None:
    result = verify(whole(shared), entry(shared, FULL)["verify_at"])

    claims: Any = result.to_json()["claims"]
    assert (result.tier.name, claims["rim"]["complete"]) == ("AFFIRMING", True)
    assert claims["rim"]["matched"] == "0-12, 21-34, 36-40"
    # NVDEC0 is disabled on this device, so that its measurement is not compared.
    assert claims["rim"]["skipped"] == "35"
    assert [document["version"] for document in claims["rim"]["documents"]] == ["550.90.07", "96.00.9F.00.01"]
    outcomes = {check.name: check.outcome for check in result.claims.checks}
    assert outcomes["driver RIM revocation"] == outcomes["vbios RIM revocation"] == "passed"
    # The responses about the device are of another day than the time given.
    assert outcomes["revocation"] == "not checked"


def test_the_device_s_own_responses_count_on_their_day(shared: Path) -> None:
    at = "2025-08-21T12:00:00+00:00"

    result = verify(whole(shared), at, top={"require_revocation": True}, rim="ANY")

    assert {check.name: check.outcome for check in result.claims.checks}["revocation"] == "passed"
    assert result.claims.expires == datetime(2025, 8, 22, 6, 47, 7, tzinfo=UTC)
    with pytest.raises(EndorsementsMissing) as caught:
        verify(whole(shared), at, top={"require_revocation": True})
    assert {reason.code for reason in caught.value.reasons} == {"endorsements_missing.ocsp_expired"}


@pytest.mark.parametrize(
    ("at", "code"),
    [
        ("2026-02-22T23:17:58+00:00", None),
        ("2026-02-22T23:17:59+00:00", "endorsements_missing.rim_expired"),
        ("2026-06-01T02:08:30+00:00", "endorsements_missing.rim_expired"),
        ("2024-02-23T00:00:00+00:00", "endorsements_missing.rim_expired"),
    ],
)
def test_documents_count_while_their_signers_are_valid(shared: Path, at: str, code: str | None) -> None:
    if code is None:
        assert verify(whole(shared), at).tier.name == "AFFIRMING"
        return
    with pytest.raises(EndorsementsMissing) as caught:
        verify(whole(shared), at)
    assert caught.value.code == code


def test_what_is_missing_is_named_as_the_vendor_names_it(shared: Path) -> None:
    with pytest.raises(EndorsementsMissing) as caught:
        verify(sample(shared, "hopper-580"), nvidia.SAMPLES["hopper-580"])

    assert {reason.code for reason in caught.value.reasons} == {"endorsements_missing.rim"}
    messages = " ".join(reason.message for reason in caught.value.reasons)
    assert "NV_GPU_DRIVER_GH100_580.159.03" in messages
    assert "NV_GPU_VBIOS_1010_0205_862_9600740020" in messages


def test_only_the_vbios_document_is_missing_where_the_driver_s_is_there(shared: Path) -> None:
    evidence = sample(shared, FULL, "rim/NV_GPU_DRIVER_GH100_550.90.07.xml")

    with pytest.raises(EndorsementsMissing) as caught:
        verify(evidence, nvidia.SAMPLES[FULL])

    assert [reason.code for reason in caught.value.reasons] == ["endorsements_missing.rim"]
    assert "NV_GPU_VBIOS_1010_0200_882_96009F0001" in caught.value.message


def test_a_document_that_was_altered_after_signing_is_refused(shared: Path) -> None:
    name = "rim/NV_GPU_DRIVER_GH100_535.86.09_measurement_mismatch.xml"

    with pytest.raises(NotGenuine) as caught:
        verify(sample(shared, "hopper-535", name), nvidia.SAMPLES["hopper-535"])

    assert (caught.value.code, caught.value.stage) == ("not_genuine.bad_signature", "endorsement")


def test_the_report_whose_signature_is_wrong_is_refused(shared: Path) -> None:
    with pytest.raises(NotGenuine) as caught:
        verify(sample(shared, "hopper-bad-signature"), "2026-01-01T00:00:00+00:00", rim="ANY")

    found = [reason.code for reason in caught.value.reasons]
    assert found == ["not_genuine.bad_signature", "not_genuine.identity_mismatch"]


def test_the_switch_is_accepted_while_its_document_is_in_force(shared: Path) -> None:
    evidence = sample(shared, "switch-ls10", "rim/NV_SWITCH_BIOS_5612_0002_890_9610550001.xml")

    result = verify(evidence, "2026-06-24T12:00:00+00:00")

    claims: Any = result.to_json()["claims"]
    assert (claims["device"], claims["rim"]["matched"]) == ("switch", "0-30")
    with pytest.raises(EndorsementsMissing) as caught:
        verify(evidence, nvidia.SAMPLES["switch-ls10"])
    assert caught.value.code == "endorsements_missing.rim_expired"


def rim_roots() -> tuple[x509.Certificate, ...]:
    return tuple(
        x509.Certificate.from_der(der)
        for anchor in endorse.anchors()
        if anchor.name == "rim"
        for der in anchor.certificates
    )


@pytest.mark.parametrize(
    ("file", "verdict"),
    [
        ("NV_GPU_DRIVER_GH100_550.90.07.xml", ""),
        ("NV_GPU_DRIVER_GH100_550.144.03.xml", ""),
        ("NV_GPU_VBIOS_1010_0200_882_96009F0001.xml", ""),
        ("NV_SWITCH_BIOS_5612_0002_890_9610550001.xml", ""),
        ("NV_GPU_DRIVER_GH100_535.86.09_measurement_mismatch.xml", "not_genuine.bad_signature"),
        ("incorrect_signature_driver_rim.xml", "not_genuine.bad_signature"),
        ("incorrect_cert_chain_driver_rim.xml", "not_genuine.chain_invalid"),
    ],
)
def test_a_real_document_has_its_documented_verdict(shared: Path, file: str, verdict: str) -> None:
    document = rim.parse((nvidia.folder(shared) / "rim" / file).read_bytes())
    at = max(one.not_before for one in document.certificates)

    if verdict:
        with pytest.raises(NotGenuine) as caught:
            document.verify(rim_roots(), at=at)
        assert caught.value.code == verdict
    else:
        assert len(document.verify(rim_roots(), at=at)) == 4
        with pytest.raises(NotGenuine) as early:
            document.verify(rim_roots(), at=at - timedelta(seconds=1))
        assert early.value.code == "not_genuine.not_yet_valid"


def test_the_altered_chain_carries_a_signature_that_verifies(shared: Path) -> None:
    """So that only the chain speaks against that document."""
    data = (nvidia.folder(shared) / "rim" / "incorrect_cert_chain_driver_rim.xml").read_bytes()

    rim.parse(data).verify_signature()


RESPONSES = [
    ("gpu_certificate_l2", None, 3, "2025-08-21T12:00:00+00:00"),
    ("gpu_certificate_l3", None, 2, "2025-08-21T12:00:00+00:00"),
    ("gpu_certificate_l4", None, 1, "2025-08-21T12:00:00+00:00"),
    ("gpu_rim_l2", "NV_GPU_DRIVER_GH100_550.90.07", 2, "2025-10-24T20:00:00+00:00"),
    ("gpu_driver_rim_l3", "NV_GPU_DRIVER_GH100_550.90.07", 1, "2025-10-24T20:00:00+00:00"),
    ("gpu_driver_rim_l4", "NV_GPU_DRIVER_GH100_550.90.07", 0, "2025-10-24T20:00:00+00:00"),
    ("gpu_vbios_l4", "NV_GPU_VBIOS_1010_0200_882_96009F0001", 0, "2025-10-24T20:00:00+00:00"),
]


@pytest.mark.parametrize(("name", "document", "position", "at"), RESPONSES)
def test_a_real_response_says_good_about_its_own_certificate_on_its_day(
    shared: Path, name: str, document: str | None, position: int, at: str
) -> None:
    folder = nvidia.folder(shared)
    response = ocsp.Response.from_der((folder / "ocsp" / f"{name}.ocsp.der").read_bytes())
    chain = (
        x509.parse_pem((folder / f"{FULL}.chain.pem").read_bytes())
        if document is None
        else rim.parse((folder / "rim" / f"{document}.xml").read_bytes()).certificates
    )
    time = datetime.fromisoformat(at)

    until = response.check(chain[position], issuer=chain[position + 1], at=time)

    assert time < until <= time + timedelta(days=1)
    for when in (time - timedelta(days=2), until + timedelta(seconds=1)):
        with pytest.raises(EndorsementsMissing) as caught:
            response.check(chain[position], issuer=chain[position + 1], at=when)
        assert caught.value.code == "endorsements_missing.ocsp_expired"


@pytest.mark.parametrize("name", sorted(nvidia.SAMPLES))
def test_zero_padding_after_a_real_report_is_accepted_and_reported(shared: Path, name: str) -> None:
    evidence = sample(shared, name)
    padded = Evidence(
        EvidencePart("nvidia", evidence.platform.data.ljust(wire.MAX_REPORT, b"\0")),
        endorsements=evidence.endorsements,
    )

    result = verify(padded, nvidia.SAMPLES[name], rim="ANY")

    padding = next(check for check in result.claims.checks if check.name == "padding")
    assert padding.detail == f"{wire.MAX_REPORT - len(evidence.platform.data)} zero bytes after the report"


def test_the_addresses_of_the_documents_are_those_of_the_files(shared: Path) -> None:
    folder = nvidia.folder(shared)
    for name, files in (
        (FULL, ["NV_GPU_DRIVER_GH100_550.90.07", "NV_GPU_VBIOS_1010_0200_882_96009F0001"]),
        ("switch-ls10", ["NV_SWITCH_BIOS_5612_0002_890_9610550001"]),
    ):
        chain = x509.parse_pem((folder / f"{name}.chain.pem").read_bytes())
        found = endorse.urls((folder / f"{name}.report.bin").read_bytes(), tuple(one.der for one in chain))
        assert found == tuple(f"https://rim.attestation.nvidia.com/v1/rim/{file}" for file in files)
        assert all((folder / "rim" / f"{file}.xml").is_file() for file in files)


def test_certificates_of_a_rim_given_beside_the_report_do_not_hide_its_addresses(shared: Path) -> None:
    """NVIDIA's RIM signers write their times in the long form, which verification admits; asking must, too."""
    report = (nvidia.folder(shared) / f"{FULL}.report.bin").read_bytes()
    signers = rim.parse(
        (nvidia.folder(shared) / "rim" / "NV_GPU_DRIVER_GH100_550.90.07.xml").read_bytes()
    ).certificates
    chain = x509.parse_pem((nvidia.folder(shared) / f"{FULL}.chain.pem").read_bytes())

    found = endorse.urls(report, tuple(one.der for one in (*signers, *chain)))

    assert found == endorse.urls(report, tuple(one.der for one in chain))


def test_reports_of_other_vendors_are_not_taken_for_a_gpu_s(shared: Path) -> None:
    others = [
        file
        for file in (shared / "evidence").rglob("*")
        if file.is_file()
        and file.parent.name != "nvidia"
        and file.suffix in {".bin", ".der", ".cbor", ".xml"}
    ]

    assert len(others) > 20
    assert not any(wire.recognises(file.read_bytes()) for file in others)


def test_a_gpu_s_report_beside_another_gpu_s_certificates_is_refused(shared: Path) -> None:
    mine, other = sample(shared, FULL), sample(shared, "hopper-580")
    swapped = Evidence(mine.platform, endorsements=other.endorsements)

    with pytest.raises(AttestationError) as caught:
        verify(swapped, nvidia.SAMPLES[FULL], rim="ANY")

    found = [reason.code for reason in caught.value.reasons]
    assert found == ["not_genuine.bad_signature", "not_genuine.identity_mismatch"]
    both = Evidence(mine.platform, endorsements=other.endorsements.merge(mine.endorsements))
    assert verify(both, nvidia.SAMPLES[FULL], rim="ANY").tee == "nvidia"
