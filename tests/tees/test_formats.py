# SPDX-License-Identifier: Apache-2.0
"""Files of evidence and of endorsements, told apart and read strictly."""

from __future__ import annotations

import json
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from confide.attestation.evidence import Endorsements, Evidence, EvidencePart
from confide.errors import ConfideError, ConfigurationError, MalformedError, NotAcceptable
from confide.tees import fetch, formats
from confide.tees.snp import wire
from support import bundles, snp

if TYPE_CHECKING:
    from pathlib import Path

CASE = snp.mint(version=5)


def test_a_raw_report_and_a_bundle_are_told_apart() -> None:
    bundle = bundles.fresh(bytes(32))

    assert formats.read(CASE.report) == Evidence(EvidencePart("snp", CASE.report))
    assert formats.read(bundle.encode()) == bundle
    for format_ in ("auto", "snp"):
        assert formats.read(CASE.report, format=format_).platform.data == CASE.report
    for format_ in ("auto", "bundle"):
        assert formats.read(bundle.encode(), format=format_) == bundle


@pytest.mark.parametrize(
    "data",
    [b"", b"x", b"\x7fELF", b"{}", b"%PDF-1.7", bytes(1000), b"\x06" + CASE.report[1:-1], b"-----BEGIN"],
)
def test_a_file_of_another_kind_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError) as caught:
        formats.read(data)

    assert caught.value.code == "malformed.unknown_format"


@pytest.mark.parametrize("version", [0, 1, 6, 7, 0xFFFFFFFF])
def test_ev_05_a_version_that_is_not_known_is_refused(version: int) -> None:
    data = version.to_bytes(4, "little") + CASE.report[4:]

    with pytest.raises(MalformedError) as caught:
        formats.read(data)
    assert caught.value.code == "malformed.unsupported_version"


@pytest.mark.parametrize(
    ("offset", "size"),
    [(0x00, 4), (0x08, 8), (0x34, 4), (0x40, 8), (0x48, 4)],
    ids=["version", "policy", "signature_algo", "platform_info", "key_info"],
)
def test_ev_06_an_integer_in_the_other_byte_order_is_refused(offset: int, size: int) -> None:
    case = snp.mint(version=5, report={"key_info": 1})
    swapped = case.report[offset : offset + size][::-1]

    with pytest.raises(ConfideError) as caught:
        snp.verify(case.resigned({offset: swapped}))

    assert caught.value.code in {
        "malformed.unsupported_version",
        "malformed.reserved_not_zero",
        "not_genuine.unsupported_algorithm",
    }


@pytest.mark.parametrize("algorithm", [0, 2, 3, 0xFFFFFFFF])
def test_ev_08_another_signature_algorithm_is_refused(algorithm: int) -> None:
    with pytest.raises(ConfideError) as caught:
        snp.verify(snp.mint(report={"signature_algo": algorithm}))

    assert caught.value.code == "not_genuine.unsupported_algorithm"


@pytest.mark.parametrize("extra", [1, 16, 65536])
def test_ev_02_bytes_after_a_report_are_refused(extra: int) -> None:
    for fill in (b"\0", b"x"):
        with pytest.raises(MalformedError) as caught:
            formats.read(CASE.report + fill * extra)
        assert caught.value.code == "malformed.trailing_data"


def test_ev_01_a_report_cut_at_any_byte_is_refused() -> None:
    for length in range(len(CASE.report)):
        with pytest.raises(MalformedError):
            formats.read(CASE.report[:length])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_ev_04_spliced_doubled_deleted_and_swapped_parts_are_refused(data: Any) -> None:
    report = bytearray(CASE.report)
    first = data.draw(st.integers(0, len(report) - 1))
    last = data.draw(st.integers(first + 1, len(report)))
    what = data.draw(st.sampled_from(["splice", "double", "delete", "swap"]))
    if what == "splice":
        report[first:last] = data.draw(st.binary(min_size=last - first, max_size=last - first))
    elif what == "double":
        report[first:last] = bytes(report[first:last]) * 2
    elif what == "delete":
        del report[first:last]
    else:
        length = min(last - first, len(report) - last)
        one, other = bytes(report[first : first + length]), bytes(report[last : last + length])
        report[first : first + length], report[last : last + length] = other, one
    if bytes(report) == CASE.report:
        return

    with pytest.raises(ConfideError):
        snp.verify(Evidence(EvidencePart("snp", bytes(report)), endorsements=CASE.endorsements))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=3000))
def test_ev_04_random_bytes_give_errors_of_confide_only(data: bytes) -> None:
    for format_ in formats.FORMATS:
        with pytest.raises(ConfideError):
            formats.read(data, format=format_)
    for reader in (wire.read_certificate_table, formats.read_certificate_table, wire.decode_report_response):
        try:
            reader(data)
        except MalformedError:
            continue


@pytest.mark.parametrize("length", [0, 0x49F, 0x4A1, 1 << 31, (1 << 32) - 1])
def test_ev_13_an_inner_length_that_lies_allocates_nothing(length: int) -> None:
    response = (bytes(4) + length.to_bytes(4, "little") + bytes(24) + CASE.report).ljust(4000, b"\0")
    table = (
        wire.VCEK_GUID.bytes + (48).to_bytes(4, "little") + length.to_bytes(4, "little") + bytes(24) + b"abcd"
    )

    tracemalloc.start()
    try:
        for reader, data in ((wire.decode_report_response, response), (wire.read_certificate_table, table)):
            with pytest.raises(MalformedError) as caught:
                reader(data)
            assert caught.value.code == "malformed.length_mismatch"
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 1_000_000


def test_ev_14_a_file_beyond_the_limit_is_refused_unread() -> None:
    for fill in (b"\0", b"\x81"):
        with pytest.raises(MalformedError) as caught:
            formats.read(fill * (formats.MAX_EVIDENCE + 1))
        assert caught.value.code == "malformed.limit_exceeded"


def test_an_unknown_format_is_the_callers_error() -> None:
    with pytest.raises(ConfigurationError) as caught:
        formats.read(CASE.report, format="sev")

    assert caught.value.code == "configuration.format"


def write(folder: Path, **files: bytes) -> None:
    for name, data in files.items():
        (folder / name.replace("_", ".")).write_bytes(data)


def test_endorsements_are_read_from_files_and_folders_in_both_encodings(tmp_path: Path) -> None:
    root = CASE.authority
    pem = fetch.certificate_pem(root.ask) + fetch.certificate_pem(root.ark)
    crl = root.crl()
    write(
        tmp_path,
        key_der=CASE.certificate,
        cas_pem=pem.encode(),
        list_crl=crl,
        list_pem=fetch.certificate_pem(crl).encode(),
        notes_txt=b"not read",
    )

    found = formats.read_endorsements([tmp_path])

    assert set(found.certificates) == {CASE.certificate, root.ask, root.ark}
    assert found.crls == (crl,)
    assert formats.read_endorsements([tmp_path / "key.der", tmp_path / "list.crl"]) == Endorsements(
        (CASE.certificate,), (crl,)
    )
    assert formats.read_endorsements([]) == Endorsements()


@pytest.mark.parametrize(
    "data", [b"", b"junk", b"\x30\x03\x02\x01\x00", b"\x30", b"-----BEGIN CERTIFICATE-----\n"]
)
def test_ev_21_a_file_that_is_no_endorsement_is_refused(tmp_path: Path, data: bytes) -> None:
    write(tmp_path, bad_pem=data)

    with pytest.raises(MalformedError):
        formats.read_endorsements([tmp_path])
    with pytest.raises(MalformedError):
        formats.read_endorsements([tmp_path / "bad.pem"])


def test_a_file_that_is_not_there_is_the_callers_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        formats.read_endorsements([tmp_path / "absent.pem"])

    assert caught.value.code == "configuration.endorsements"


def test_ev_14_more_or_larger_files_than_anybody_needs_are_refused(tmp_path: Path) -> None:
    for index in range(formats.MAX_FILES + 1):
        (tmp_path / f"{index}.der").write_bytes(CASE.certificate)

    with pytest.raises(MalformedError) as many:
        formats.read_endorsements([tmp_path])
    (tmp_path / "0.der").write_bytes(bytes(formats.MAX_FILE + 1))
    with pytest.raises(MalformedError) as large:
        formats.read_endorsements([tmp_path / "0.der"])

    assert (many.value.code, large.value.code) == ("malformed.limit_exceeded",) * 2


def test_explaining_evidence_shows_its_fields_and_trusts_nothing() -> None:
    forged = CASE.tamper(0x2A0, bytes(96))

    shown = formats.explain(forged.evidence)
    bundle = formats.explain(bundles.fresh(bytes(32)))

    platform, material, old = (
        shown["platform"],
        bundle["key material"],
        formats.explain(snp.mint(version=2).evidence)["platform"],
    )
    assert isinstance(platform, dict)
    assert isinstance(material, dict)
    assert isinstance(old, dict)
    assert (platform["measurement"], platform["product"]) == (snp.MEASUREMENT.hex(), "Genoa")
    assert material["purpose"] == "channel"
    assert "product" not in old
    json.dumps([shown, bundle])


@pytest.mark.parametrize("usage", [0x1001, 0x1002, 0x1003])
@pytest.mark.parametrize("algorithm", [0x0002, 0x0102])
def test_a_report_of_sev_without_snp_is_refused_by_a_code_of_its_own(usage: int, algorithm: int) -> None:
    report = bytes(0x34) + usage.to_bytes(4, "little") + algorithm.to_bytes(4, "little") + bytes(148)

    with pytest.raises(NotAcceptable) as caught:
        formats.read(report)
    assert caught.value.code == "not_acceptable.sev_without_snp"
    for other in (report + b"\0", report[:-1], report.replace(usage.to_bytes(4, "little"), bytes(4))):
        with pytest.raises(MalformedError):
            formats.read(other)
