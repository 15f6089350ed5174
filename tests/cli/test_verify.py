# SPDX-License-Identifier: Apache-2.0
"""`confide verify` on real evidence: the documented verdict and exit code of every SEV-SNP sample."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from confide.attestation import corim, ear, reference
from confide.attestation.evidence import Endorsements
from confide.attestation.reference import ReferenceValues
from confide.attestation.result import Tier
from confide.cli import output, trust
from confide.crypto import cose, jose
from confide.keys.identity import Identity
from confide.tees import endorsing, fetch, formats
from support import bundles, snp, vendors

if TYPE_CHECKING:
    from pathlib import Path

    from support.command_line import Confide

ANY = 'tees = ["snp"]\n[reference.snp]\nmeasurement = "ANY"\n'


def policy(folder: Path, text: str = ANY) -> Path:
    path = folder / "policy.toml"
    path.write_text(text)
    return path


# Sample, time, further lines of [reference.snp], further lines at the top; exit code, a code that must be among the reasons.
SAMPLES = [
    ("milan-v2-debug", "2024-01-01", "", "", 4, "not_acceptable.debug"),
    ("milan-v2-debug", "2024-01-01", "", "allow_debug = true\n", 0, None),
    ("milan-v2-azure", "2024-01-01", "", "", 0, None),
    ("milan-v2-azure", "2024-01-01", "min_tcb = { bootloader = 3, tee = 0, snp = 20, microcode = 115 }\n", "", 4, "not_acceptable.below_minimum"),
    ("milan-v2-aci", "2024-01-01", "", "", 0, None),
    ("milan-v3", "2026-06-01", "", "", 0, None),
    ("milan-v3", "2026-02-04", "", "", 3, "not_genuine.not_yet_valid"),
    ("milan-v3-vlek-aws", "2025-06-01", "vmpl = [1]\n", "", 0, None),
    ("milan-v3-vlek-aws", "2025-06-01", "", "", 4, "not_acceptable.vmpl"),
    ("milan-v3-vlek-aws", "2026-01-01", "vmpl = [1]\n", "", 3, "not_genuine.expired"),
    ("genoa-v3", "2026-06-01", "", "", 0, None),
    ("genoa-v5-zen4c", "2026-06-01", "", "", 0, None),
    ("turin-v5", "2026-06-01", "", "", 0, None),
    ("turin-v5", "2026-06-01", "", "require_revocation = true\n", 5, "endorsements_missing.crl"),
    ("bad-vcek-legacy", "2024-01-01", "", "", 3, "not_genuine.bad_signature"),
    ("bad-vcek-new", "2024-01-01", "", "", 3, "not_genuine.bad_signature"),
]  # fmt: skip


@pytest.mark.parametrize(("sample", "day", "reference", "top", "code", "reason"), SAMPLES)
def test_each_sample_gets_its_documented_verdict(
    confide: Confide,
    shared: Path,
    tmp_path: Path,
    sample: str,
    day: str,
    reference: str,
    top: str,
    code: int,
    reason: str | None,
) -> None:
    folder = shared / "evidence" / "sev-snp"
    certificate = next(folder.glob(f"{sample}.v[cl]ek.der"))

    answer = confide(
        "verify", folder / f"{sample}.report.bin", "--policy", policy(tmp_path, top + ANY + reference),
        "--endorsements", certificate, "--at", f"{day}T00:00:00Z", "--json",
    )  # fmt: skip

    verdict = json.loads(answer.out)
    assert answer.code == code
    assert verdict["verdict"] == {0: "accepted", 3: "not_genuine", 4: "not_acceptable", 5: "undecided"}[code]
    if reason is not None:
        assert reason in {found["code"] for found in verdict["reasons"]}
    else:
        assert verdict["tee"] == "snp"
        assert verdict["simulated"] is False
        assert verdict["claims"]["measurement"]


def test_every_sample_with_a_report_is_in_the_table(shared: Path) -> None:
    manifest = json.loads((shared / "evidence" / "manifest.json").read_text())
    with_report = {
        entry["id"]
        for entry in manifest["entries"]
        if entry["tee"] == "sev-snp" and any("report" in str(file) for file in entry["files"])
    }

    assert with_report == {sample for sample, *_ in SAMPLES}


def test_without_the_chip_s_certificate_nothing_is_decided(
    confide: Confide, shared: Path, tmp_path: Path
) -> None:
    report = shared / "evidence" / "sev-snp" / "genoa-v3.report.bin"

    answer = confide("verify", report, "--policy", policy(tmp_path), "--at", "2026-06-01T00:00:00Z")

    assert answer.code == 5
    assert "undecided" in answer.out
    assert "hint:" in answer.err


def test_a_refusal_is_said_in_words_with_its_code_and_a_hint_and_no_traceback(
    confide: Confide, shared: Path, tmp_path: Path
) -> None:
    folder = shared / "evidence" / "sev-snp"

    answer = confide(
        "verify", folder / "milan-v2-debug.report.bin", "--policy", policy(tmp_path),
        "--endorsements", folder / "milan-v2-debug.vcek.der", "--at", "2024-01-01T00:00:00Z",
    )  # fmt: skip

    assert answer.out.strip() == "not acceptable"
    assert "[not_acceptable.debug]" in answer.err
    assert "hint:" in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize("content", [b"", b"x", b"\0" * 1183, b"\0" * 1184, b"\xff" * 5000, b"\xa1" * 70_000])
def test_bytes_that_are_no_evidence_are_not_genuine(confide: Confide, tmp_path: Path, content: bytes) -> None:
    evidence = tmp_path / "evidence"
    evidence.write_bytes(content)

    answer = confide("verify", evidence, "--policy", policy(tmp_path), "--json")

    assert answer.code == 3
    assert json.loads(answer.out)["verdict"] == "not_genuine"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "empty_policy"),
        ("tees = []\n", "empty_policy"),
        ('tees = ["snp"]\n', "empty_policy"),
        (ANY + "measurment = []\n", "configuration."),
        (ANY + "[reference.tdx]\nmrtd = 'ANY'\n", "configuration."),
        ("\0", "configuration."),
    ],
)
def test_a_policy_that_says_nothing_or_something_unknown_is_refused(
    confide: Confide, tmp_path: Path, text: str, code: str
) -> None:
    evidence = tmp_path / "evidence"
    evidence.write_bytes(bytes(1184))

    answer = confide("verify", evidence, "--policy", policy(tmp_path, text))

    assert answer.code == 2
    assert code in answer.err


@pytest.mark.parametrize("given", [["--allow-simulated"], ["--anchor", "local"]])
def test_one_consent_to_simulation_is_not_enough(confide: Confide, tmp_path: Path, given: list[str]) -> None:
    evidence = tmp_path / "evidence"
    evidence.write_bytes(bytes(1184))

    answer = confide("verify", evidence, "--policy", policy(tmp_path), *given)

    assert answer.code == 2
    assert "two consents" in answer.err


@pytest.mark.parametrize(
    "at",
    ["yesterday", "2026-06-01T00:00:00", "2026-13-01T00:00:00Z", "0001-01-01T00:00:00+01:00"],
)
def test_a_time_that_means_nothing_certain_is_refused(confide: Confide, tmp_path: Path, at: str) -> None:
    evidence = tmp_path / "evidence"
    evidence.write_bytes(bytes(1184))

    assert confide("verify", evidence, "--policy", policy(tmp_path), "--at", at).code == 2


def test_inspect_decodes_and_says_that_it_trusts_nothing(confide: Confide, shared: Path) -> None:
    answer = confide("inspect", shared / "evidence" / "sev-snp" / "turin-v5.report.bin")

    assert answer.code == 0
    assert "not verified" in answer.err
    assert "verified" not in answer.out
    assert "6d6c354511d6f7c6d7504668903dc5bd" in answer.out


def test_attest_without_a_tee_is_an_error_and_never_simulated(confide: Confide) -> None:
    answer = confide("attest", "--report-data", "00" * 64)

    assert answer.code == 1
    assert "enclave." in answer.err
    assert answer.out == ""


def test_a_slip_in_an_option_or_in_a_file_of_the_caller_s_is_no_finding_about_the_evidence(
    confide: Confide, tmp_path: Path
) -> None:
    case = snp.mint()
    evidence, junk = tmp_path / "evidence", tmp_path / "junk.pem"
    evidence.write_bytes(case.evidence.encode())
    junk.write_bytes(b"junk")
    common = ("verify", evidence, "--policy", policy(tmp_path), "--json")

    assert confide(*common).code == 3
    for slip in (
        ("--report-data", "00" * 63),
        ("--report-data", "zz" * 64),
        ("--endorsements", junk),
        ("--allow-simulated", "--anchor", junk),
    ):
        assert confide(*common, *slip).code == 2


def test_a_file_beside_the_evidence_that_is_no_endorsement_is_a_slip_for_endorse_too(
    confide: Confide, tmp_path: Path
) -> None:
    evidence, junk = tmp_path / "evidence", tmp_path / "junk.pem"
    evidence.write_bytes(snp.mint().evidence.encode())
    junk.write_bytes(b"junk")

    assert confide("endorse", evidence, "--endorsements", junk, "--no-cache").code == 2
    assert confide("endorse", junk, "--no-cache").code == 3


def test_what_endorse_writes_is_what_verify_reads(
    confide: Confide, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shared / "evidence" / "sev-snp"
    crl = snp.authority().crl()
    answers = {"vcek": (folder / "genoa-v3.vcek.der").read_bytes(), "crl": crl}
    monkeypatch.setattr(
        fetch, "ask", lambda one: fetch.Answer(answers["crl" if one.url.endswith("/crl") else "vcek"])
    )
    report, written = folder / "genoa-v3.report.bin", tmp_path / "endorsements.pem"
    options = ("--policy", policy(tmp_path), "--at", "2026-06-01T00:00:00Z")

    written.write_text(confide("endorse", report).out)

    assert confide("verify", report, *options).code == 5
    assert confide("verify", report, *options, "--endorsements", written).code == 0


def test_endorse_asks_once_a_day_and_writes_one_file_where_there_is_more_than_certificates(
    confide: Confide, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shared / "evidence" / "tdx"
    document = json.loads((folder / "v4-uptodate.collateral-eval17.json").read_bytes())
    # What is cached must not have expired now, which the sample's own collateral has.
    monkeypatch.setattr(endorsing, "expires", lambda *_: trust.now() + timedelta(hours=1))
    log: list[str] = []
    monkeypatch.setattr(
        fetch, "ask", vendors.in_memory(vendors.pcs_pages("tdx", "b0c06f000000", "platform", document), log)
    )
    written: list[bytes] = []
    monkeypatch.setattr(output, "data_bytes", written.append)

    first = confide("endorse", folder / "v4-uptodate.quote.bin")
    assert first.code == 0, first.err
    assert "asking api.trustedservices.intel.com" in first.err
    assert len(log) == 4
    assert json.loads(Endorsements.decode(written[0]).documents[0].data) == document

    assert confide("endorse", folder / "v4-uptodate.quote.bin").code == 0
    assert len(log) == 4
    assert confide("endorse", folder / "v4-uptodate.quote.bin", "--no-cache").code == 0
    assert len(log) == 8
    assert written[0] == written[1] == written[2]

    file, accepting = tmp_path / "endorsements.cbor", tmp_path / "tdx.toml"
    file.write_bytes(written[0])
    accepting.write_text('tees = ["tdx"]\n[reference.tdx]\nmrtd = "ANY"\n')
    asked = (
        "verify",
        folder / "v4-uptodate.quote.bin",
        "--policy",
        accepting,
        "--at",
        "2025-06-19T12:00:00Z",
    )
    assert confide(*asked).code == 5
    assert confide(*asked, "--endorsements", file).code == 0


def test_endorse_asks_about_a_gpus_chain_that_is_given_beside_the_report(
    confide: Confide, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shared / "evidence" / "nvidia"
    name = "hopper-550.90.07-full"
    monkeypatch.setattr(fetch, "ask", vendors.nvidia(folder))
    written: list[bytes] = []
    monkeypatch.setattr(output, "data_bytes", written.append)

    answer = confide("endorse", folder / f"{name}.report.bin", "--endorsements", folder / f"{name}.chain.pem")

    assert answer.code == 0, answer.err
    assert "asking rim.attestation.nvidia.com" in answer.err
    assert "asking ocsp.ndis.nvidia.com" in answer.err
    kinds = [part.format for part in Endorsements.decode(written[0]).documents]
    assert kinds == ["nvidia-rim"] * 2 + ["ocsp"] * 7
    file, accepting = tmp_path / "endorsements.cbor", tmp_path / "gpu.toml"
    file.write_bytes(written[0])
    accepting.write_text('tees = ["nvidia"]\n[reference.nvidia]\nrim = "required"\n')
    asked = ("verify", folder / f"{name}.report.bin", "--policy", accepting, "--at", "2025-10-24T12:00:00Z")
    beside = ("--endorsements", folder / f"{name}.chain.pem")
    assert confide(*asked, *beside).code == 5
    assert confide(*asked, *beside, "--endorsements", file).code == 0


def test_the_answer_of_the_ioctl_can_be_named_as_the_hint_says(
    confide: Confide, shared: Path, tmp_path: Path
) -> None:
    report = (shared / "evidence" / "sev-snp" / "genoa-v3.report.bin").read_bytes()
    response = tmp_path / "response"
    response.write_bytes(bytes(4) + len(report).to_bytes(4, "little") + bytes(24) + report)

    unnamed = confide("inspect", response)

    assert unnamed.code == 3
    assert "snp-response" in unnamed.err
    assert confide("inspect", response, "--format", "snp-response").code == 0


def test_names_in_evidence_do_not_steer_the_terminal(confide: Confide, tmp_path: Path) -> None:
    hostile = "\x1b[2J\nverified  yes\u202e"
    bundle = bundles.cached(content={hostile: b"\x0c" * 32}, audience="\u202emoor")
    evidence = tmp_path / "evidence"
    evidence.write_bytes(bundle.encode())

    answer = confide("inspect", evidence)

    assert answer.code == 0
    assert "0c" * 32 in answer.out
    assert all(line.isprintable() for line in answer.out.splitlines())
    assert not any(line.startswith("verified") for line in answer.out.splitlines())


def test_an_accepted_result_is_written_as_an_ear_signed_by_the_identity(
    confide: Confide, shared: Path, tmp_path: Path
) -> None:
    folder = shared / "evidence" / "sev-snp"
    common = (
        "verify", folder / "genoa-v3.report.bin", "--policy", policy(tmp_path),
        "--endorsements", folder / "genoa-v3.vcek.der", "--at", "2026-06-01T00:00:00Z",
    )  # fmt: skip

    for name in ("result.jwt", "result.cwt"):
        assert confide(*common, "--ear", tmp_path / name).code == 0

    key = Identity.open("default").key
    token = jose.Jws.decode((tmp_path / "result.jwt").read_text().strip(), algorithms=frozenset({"EdDSA"}))
    token.verify(bytes.fromhex("302a300506032b6570032100") + key.public)
    assert ear.read(token.claims()).tier is Tier.WARNING
    payload = cose.verify1((tmp_path / "result.cwt").read_bytes(), key.public, content_type=ear.CWT_TYPE)
    assert ear.read(ear.from_cbor(payload)).tier is Tier.WARNING


def test_reference_values_from_files_fill_what_a_policy_leaves_to_them(
    confide: Confide, shared: Path, tmp_path: Path
) -> None:
    folder = shared / "evidence" / "sev-snp"
    left_open = policy(tmp_path, ANY.replace('"ANY"', '"FILES"'))
    measured = formats.read((folder / "genoa-v3.report.bin").read_bytes()).platform.data[0x90:0xC0]
    common = (
        "verify", folder / "genoa-v3.report.bin", "--policy", left_open, "--json",
        "--endorsements", folder / "genoa-v3.vcek.der", "--at", "2026-06-01T00:00:00Z",
    )  # fmt: skip
    right = [ReferenceValues("snp", {"measurement": (measured,)}, "the release notes")]
    wrong = [ReferenceValues("snp", {"measurement": (bytes(48),)}, "nobody")]
    for name, values in (("right", right), ("wrong", wrong)):
        (tmp_path / f"{name}.toml").write_bytes(reference.write(values))
        (tmp_path / f"{name}.corim").write_bytes(corim.write(values, identifier=name))

    assert confide(*common).code == 2
    for suffix in ("toml", "corim"):
        assert confide(*common, "--reference-values", tmp_path / f"right.{suffix}").code == 0
        assert confide(*common, "--reference-values", tmp_path / f"wrong.{suffix}").code == 4


def test_a_device_beside_a_raw_report_is_read_and_unproven(
    confide: Confide, shared: Path, tmp_path: Path
) -> None:
    folder = shared / "evidence"
    both = policy(
        tmp_path,
        'tees = ["snp", "nvidia"]\n[reference.snp]\nmeasurement = "ANY"\n[reference.nvidia]\nrim = "ANY"\n',
    )
    common = (
        "verify", folder / "sev-snp" / "genoa-v3.report.bin", "--policy", both, "--json", "--at", "2026-06-01T00:00:00Z",
        "--endorsements", folder / "sev-snp" / "genoa-v3.vcek.der",
    )  # fmt: skip
    gpu = (
        "--device", folder / "nvidia" / "hopper-535.report.bin",
        "--endorsements", folder / "nvidia" / "hopper-535.chain.pem",
    )  # fmt: skip

    alone, unbound = confide(*common), confide(*common, *gpu)
    both.write_text(both.read_text() + "require_binding = false\n")
    loose = confide(*common, *gpu)

    assert [answer.code for answer in (alone, unbound, loose)] == [4, 4, 0]
    assert json.loads(loose.out)["parts"][0]["binding"] == "unproven"


def test_a_report_of_sev_without_snp_has_a_code_of_its_own(confide: Confide, tmp_path: Path) -> None:
    report = tmp_path / "sev.bin"
    report.write_bytes(
        bytes(0x34) + (0x1002).to_bytes(4, "little") + (0x102).to_bytes(4, "little") + bytes(148)
    )

    answer = confide("verify", report, "--policy", policy(tmp_path), "--json")

    assert answer.code == 4
    assert [reason["code"] for reason in json.loads(answer.out)["reasons"]] == [
        "not_acceptable.sev_without_snp"
    ]


def test_the_verdict_is_written_as_a_page_for_a_reviewer_also_when_it_is_a_refusal(
    confide: Confide, shared: Path, tmp_path: Path
) -> None:
    folder = shared / "evidence" / "sev-snp"
    page = tmp_path / "verdict.html"
    for sample, code in (("genoa-v3", 0), ("milan-v2-debug", 4)):
        answer = confide(
            "verify", folder / f"{sample}.report.bin", "--policy", policy(tmp_path), "--html", page,
            "--endorsements", folder / f"{sample}.vcek.der", "--at", "2026-06-01T00:00:00Z",
        )  # fmt: skip
        text = page.read_text(encoding="utf-8")

        assert answer.code == code
        assert text.startswith("<!doctype html>")
        assert "<script" not in text
        assert ("not_acceptable.debug" in text) == (code == 4)


@pytest.mark.parametrize("option", ["--html", "--ear"])
def test_a_verdict_is_said_also_where_its_page_or_ear_cannot_be_written(
    confide: Confide, shared: Path, tmp_path: Path, option: str
) -> None:
    """The verdict comes first; what cannot be written is an error of its own, and no refusal's code gives way to it."""
    folder = shared / "evidence" / "sev-snp"
    for sample, verdict, code in (("genoa-v3", "accepted", 1), ("milan-v2-debug", "not_acceptable", 4)):
        answer = confide(
            "verify", folder / f"{sample}.report.bin", "--policy", policy(tmp_path), "--json",
            "--endorsements", folder / f"{sample}.vcek.der", "--at", "2026-06-01T00:00:00Z",
            option, tmp_path / "absent" / "result",
        )  # fmt: skip

        assert json.loads(answer.out)["verdict"] == verdict
        assert answer.code == code
        assert ("error: No such file or directory" in answer.err) == (option == "--html" or code == 1)


def test_a_damaged_identity_is_no_finding_about_the_evidence(
    confide: Confide, shared: Path, tmp_path: Path
) -> None:
    folder = shared / "evidence" / "sev-snp"
    common = (
        "verify", folder / "genoa-v3.report.bin", "--policy", policy(tmp_path), "--json",
        "--endorsements", folder / "genoa-v3.vcek.der", "--at", "2026-06-01T00:00:00Z", "--ear", tmp_path / "ear.jwt",
    )  # fmt: skip
    assert confide(*common).code == 0
    for file in (tmp_path / "home" / "config").rglob("*"):
        if file.is_file():
            file.write_bytes(b"damaged")

    answer = confide(*common)

    assert json.loads(answer.out)["verdict"] == "accepted"
    assert answer.code == 1
    assert "[sealing.integrity]" in answer.err


def test_evidence_that_is_too_large_has_a_verdict_for_machines(confide: Confide, tmp_path: Path) -> None:
    evidence = tmp_path / "evidence"
    evidence.write_bytes(bytes((1 << 20) + 1))

    answer = confide("verify", evidence, "--policy", policy(tmp_path), "--json")

    assert answer.code == 3
    assert json.loads(answer.out)["reasons"][0]["code"] == "malformed.limit_exceeded"


def test_a_file_of_reference_keys_without_a_key_does_not_admit_unsigned_values(
    confide: Confide, shared: Path, tmp_path: Path
) -> None:
    """Nor does a key without values to be signed pass in silence."""
    folder = shared / "evidence" / "sev-snp"
    measured = formats.read((folder / "genoa-v3.report.bin").read_bytes()).platform.data[0x90:0xC0]
    values, keys = tmp_path / "values.toml", tmp_path / "keys.pem"
    values.write_bytes(reference.write([ReferenceValues("snp", {"measurement": (measured,)}, "anybody")]))
    keys.write_bytes(b"")
    common = (
        "verify", folder / "genoa-v3.report.bin", "--json",
        "--endorsements", folder / "genoa-v3.vcek.der", "--at", "2026-06-01T00:00:00Z",
    )  # fmt: skip
    left_open = ("--policy", policy(tmp_path, ANY.replace('"ANY"', '"FILES"')), "--reference-values", values)

    assert confide(*common, *left_open).code == 0
    assert confide(*common, *left_open, "--reference-key", keys).code == 2
    assert confide(*common, "--policy", policy(tmp_path), "--reference-key", keys).code == 2


def test_json_about_hostile_evidence_does_not_steer_the_terminal(confide: Confide, tmp_path: Path) -> None:
    hostile = "\x9b2J\x7f\u202e"
    evidence = tmp_path / "evidence"
    evidence.write_bytes(bundles.cached(content={hostile: b"\x0c" * 32}).encode())

    answer = confide("inspect", evidence, "--json")

    assert answer.code == 0
    assert "0c" * 32 in answer.out
    assert hostile in json.dumps(json.loads(answer.out), ensure_ascii=False)
    assert all(line.isprintable() for line in answer.out.splitlines())
