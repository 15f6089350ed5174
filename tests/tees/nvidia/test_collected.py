# SPDX-License-Identifier: Apache-2.0
"""The JSON file of NVIDIA's own tools, for one device and for several."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest

from confide.attestation.verifier import Verifier
from confide.tees import formats
from confide.tees.nvidia import collected
from support import nvidia
from support.refusal import code_of, only_typed_errors

if TYPE_CHECKING:
    from pathlib import Path


def pem(chain: tuple[bytes, ...]) -> bytes:
    found = b""
    for der in chain:
        text = base64.b64encode(der)
        lines = b"\n".join(text[start : start + 64] for start in range(0, len(text), 64))
        found += b"-----BEGIN CERTIFICATE-----\n" + lines + b"\n-----END CERTIFICATE-----\n"
    return found


def entry(case: nvidia.Case | None = None, **changes: Any) -> dict[str, Any]:
    given = case or nvidia.case()
    return {
        "arch": "HOPPER",
        "nonce": nvidia.NONCE.hex(),
        "evidence": base64.b64encode(given.report).decode(),
        "certificate": base64.b64encode(pem(given.certificates)).decode(),
    } | changes


def file(*entries: object) -> bytes:
    return json.dumps(list(entries), indent=2).encode()


def test_a_file_of_several_devices_is_evidence_of_all_of_them() -> None:
    cases = [nvidia.case(nvidia.device(serial=0x41AB_0000_0000_0000_01 + index)) for index in range(3)]

    evidence = collected.read(file(*(entry(case) for case in cases)))

    assert [part.data for part in (evidence.platform, *evidence.devices)] == [case.report for case in cases]
    assert len(evidence.endorsements.certificates) == 3 * 2 + 3
    verifier = Verifier(nvidia.policy({"rim": "ANY"}), extra_anchors=(cases[0].anchor,))
    assert len(verifier.verify(evidence, at=nvidia.AT).parts) == 2


def test_a_real_report_in_such_a_file_is_genuine(shared: Path) -> None:
    folder = nvidia.folder(shared)
    report = (folder / "hopper-580.report.bin").read_bytes()
    data = file(
        entry(
            nonce=report[4:36].hex(),
            evidence=base64.b64encode(report).decode(),
            certificate=base64.b64encode((folder / "hopper-580.chain.pem").read_bytes()).decode(),
        )
    )

    evidence = formats.read(data)
    assert evidence == formats.read(data, format="nvidia") == collected.read(data)
    result = Verifier(nvidia.policy({"rim": "ANY"})).verify(evidence, at=nvidia.AT)
    assert (result.simulated, result.claims.report_data) == (False, report[4:36])


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (file(), "malformed.limit_exceeded"),
        (file(*[{}] * 17), "malformed.limit_exceeded"),
        (file(1), "malformed.non_canonical"),
        (b"{}", "malformed.limit_exceeded"),
        (b"[", "malformed.non_canonical"),
        (file({}), "malformed.non_canonical"),
        (file(entry(extra=1)), "malformed.non_canonical"),
        (file(entry(arch="AMPERE")), "malformed.unsupported_version"),
        (file(entry(nonce="00" * 32)), "malformed.non_canonical"),
        (file(entry(nonce="00" * 31)), "malformed"),
        (file(entry(nonce=nvidia.NONCE.hex().upper())), "malformed"),
        (file(entry(evidence="")), "malformed"),
        (file(entry(evidence="AAAA")), "malformed.truncated"),
        (file(entry(evidence="A" * 20_000)), "malformed.limit_exceeded"),
        (file(entry(certificate="AAAA")), "malformed.non_canonical"),
        (b"[" * 100_000, "malformed.limit_exceeded"),
        (file(entry()) + b" " * 600_000, "malformed.limit_exceeded"),
    ],
)
def test_a_file_in_another_form_is_refused(data: bytes, code: str) -> None:
    assert code_of(collected.read, data).startswith(code)


def test_ev_01_a_file_cut_at_any_byte_is_refused() -> None:
    data = file(entry())
    for length in range(0, len(data) - 1, 5):
        assert only_typed_errors(collected.read, data[:length]) is None


def test_other_files_are_not_taken_for_one(shared: Path) -> None:
    others = [path.read_bytes() for path in (shared / "evidence").rglob("*") if path.is_file()]

    assert not any(collected.recognises(data) for data in others)
    assert not collected.recognises(b"")
