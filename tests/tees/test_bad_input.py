# SPDX-License-Identifier: Apache-2.0
"""What holds for every vendor's format alike: bad bytes, wrong names, broken checks, simulated roots.

Each case passes before one thing about it is changed. What is special to one vendor is tested beside it.
"""

from __future__ import annotations

import importlib
import itertools
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from confide.attestation import schemes
from confide.attestation.evidence import Endorsements, Evidence, EvidencePart
from confide.attestation.policy import AppraisalPolicy
from confide.errors import AttestationError, ConfideError, ConfigurationError, MalformedError, NotGenuine
from confide.tees import formats
from support import every_tee
from support.bounds import HUNDRED_MEGABYTES, bounded
from support.every_tee import AT, TEES

if TYPE_CHECKING:
    from pathlib import Path

EVERY = pytest.mark.parametrize("tee", TEES)
# Quotes and GPU reports come in buffers of a fixed size, whose rest is zero.
PADDED = frozenset({"tdx", "sgx", "nvidia"})


@EVERY
def test_the_case_passes_and_is_recognised(tee: str) -> None:
    evidence = formats.read(every_tee.data(tee))

    assert evidence.platform == every_tee.case(tee).platform
    assert every_tee.verify(tee).verdict == "accepted"
    assert formats.explain(evidence)["platform"]


@EVERY
def test_ev_01_evidence_cut_at_any_byte_is_refused(tee: str) -> None:
    data = every_tee.data(tee)

    for length in range(len(data)):
        for format_ in ("auto", tee):
            with pytest.raises(ConfideError) as caught:
                formats.read(data[:length], format=format_)
            assert isinstance(caught.value, MalformedError | NotGenuine)


@EVERY
@pytest.mark.parametrize("extra", [1, 16, 4096, 65536])
def test_ev_02_bytes_after_the_evidence_are_refused(tee: str, extra: int) -> None:
    for tail in (b"x" * extra, b"\xff" * extra, bytes(extra - 1) + b"\x01"):
        longer = every_tee.data(tee) + tail
        for format_ in ("auto", tee):
            with pytest.raises(MalformedError) as caught:
                formats.read(longer, format=format_)
            assert caught.value.code in {
                "malformed.trailing_data",
                "malformed.limit_exceeded",
                "malformed.unknown_format",
            }
        assert every_tee.refusal(tee, every_tee.with_data(tee, longer)) != []


@EVERY
def test_ev_02_zero_padding_passes_where_buffers_are_padded_and_is_said(tee: str) -> None:
    padded = every_tee.with_data(tee, every_tee.data(tee) + bytes(100))

    if tee in PADDED:
        result = every_tee.verify(tee, padded)
        assert [check.name for check in result.claims.checks if check.name == "padding"] == ["padding"]
        assert result.claims.measurements == every_tee.verify(tee).claims.measurements
    else:
        assert every_tee.refusal(tee, padded)[0].startswith("malformed.")


@EVERY
def test_ev_03_no_sampled_bit_can_be_flipped(tee: str) -> None:
    """One bit in 97; every bit is tried beside each vendor. A bit that is in the platform's padding would be refused too."""
    data = every_tee.data(tee)

    for bit in range(0, 8 * len(data), 97):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        codes = every_tee.refusal(tee, every_tee.with_data(tee, bytes(changed)))
        assert codes, f"bit {bit} may be flipped"
        assert not codes[0].startswith("attestation.")


@pytest.mark.parametrize(("tee", "other"), list(itertools.permutations((*TEES, "token"), 2)))
def test_ev_07_evidence_under_another_name_is_refused(tee: str, other: str) -> None:
    """Every format as every other one: on reading, and inside a bundle."""
    if tee == "token":
        data = b"eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJ4In0." + b"A" * 86
    else:
        data = every_tee.data(tee)
        assert formats.read(data).platform.format == tee

    with pytest.raises(ConfideError) as caught:
        formats.read(data, format=other)
    assert isinstance(caught.value, MalformedError | NotGenuine)
    if tee != "token" and other != "token":
        codes = every_tee.refusal(other, every_tee.with_data(tee, data, format_=other))
        assert codes
        assert codes[0].startswith(("malformed.", "not_genuine."))


@EVERY
def test_ev_07_a_tee_that_the_policy_does_not_name_is_refused(tee: str) -> None:
    other = "sgx" if tee != "sgx" else "tdx"

    codes = every_tee.refusal(other, every_tee.case(tee))

    assert "not_acceptable.tee" in codes


@EVERY
def test_ev_13_a_length_that_lies_allocates_nothing(tee: str) -> None:
    """Every fourth place is overwritten with the largest and other impossible lengths, in both byte orders."""
    data = every_tee.data(tee)
    values = [
        b"\xff\xff\xff\xff",
        b"\x7f\xff\xff\xff",
        b"\x00\x00\x00\x80",
        b"\x80\x00\x00\x00",
        b"\x00\x00\x00\x00",
    ]

    with bounded(seconds=20, megabytes=4):
        for place in range(0, len(data) - 4, 4):
            value = values[place // 4 % len(values)]
            changed = data[:place] + value + data[place + 4 :]
            try:
                formats.read(changed, format=tee)
            except ConfideError:
                continue


@pytest.mark.parametrize(
    "fill", [b"\x00", b"\x81", b"\x9f", b"[", b"{", b"\xff", b"-----BEGIN CERTIFICATE-----\n"]
)
def test_ev_14_a_hundred_megabytes_are_refused_before_they_are_looked_at(fill: bytes) -> None:
    data = (fill * (HUNDRED_MEGABYTES // len(fill) + 1))[:HUNDRED_MEGABYTES]

    for format_ in formats.FORMATS:
        with bounded(seconds=1, megabytes=64), pytest.raises(MalformedError) as caught:
            formats.read(data, format=format_)
        assert caught.value.code == "malformed.limit_exceeded"


@EVERY
@pytest.mark.parametrize("fill", [b"\x00", b"\x81", b"\xff"])
def test_ev_14_a_bundle_around_a_hundred_megabytes_is_refused_before_they_are_looked_at(
    tee: str, fill: bytes
) -> None:
    """A caller who builds Evidence from parts of its own is protected alike."""
    evidence = every_tee.with_data(tee, fill * HUNDRED_MEGABYTES)

    with bounded(seconds=1, megabytes=64):
        codes = every_tee.refusal(tee, evidence)

    assert codes
    assert codes[0].startswith(("malformed.", "not_genuine."))


@EVERY
def test_ev_14_endorsements_of_a_hundred_megabytes_are_refused_or_no_business_of_the_tees(tee: str) -> None:
    huge = b"\x30" * HUNDRED_MEGABYTES
    kinds = ("intel-collateral", "nvidia-rim", "ocsp", "event-log", "jwks", "unknown")

    for endorsements in (
        Endorsements((huge,)),
        Endorsements(crls=(huge,)),
        *(Endorsements(documents=(EvidencePart(kind, huge),)) for kind in kinds),
    ):
        evidence = Evidence(every_tee.case(tee).platform, endorsements=endorsements)
        with bounded(seconds=1, megabytes=64):
            codes = every_tee.refusal(tee, evidence)
        # A Nitro document needs nothing from beside it, and looks at nothing but CRLs.
        assert codes or tee == "nitro"
        assert not any(code.startswith("attestation.") for code in codes)


_BOMBS = (
    b"\x00", b"\x81", b"\x9f", b"\xa1\x00", b"\x5a\x00\x0f\xff\xff", b"\xd8\x23", b"[", b"[1e99,", b'{"a":', b'"\\u0041",',
    b'{"version":1,"x":[', b"A", b".", b"eyJhbGciOiJFUzI1NiJ9.", b"-----BEGIN CERTIFICATE-----\n", b"<a>", b"\xff",
)  # fmt: skip


@EVERY
@pytest.mark.parametrize("fill", _BOMBS)
def test_ev_14_a_megabyte_that_begins_well_is_refused_in_time(tee: str, fill: bytes) -> None:
    """As long as evidence may be, with the start of a good one or of none, and nesting, lists or text without end."""
    whole = every_tee.data(tee)
    for head in (whole, whole[: len(whole) // 2], b"", b'{"version":1,', b"eyJhbGciOiJFUzI1NiJ9."):
        data = (head + fill * (formats.MAX_EVIDENCE // len(fill) + 1))[: formats.MAX_EVIDENCE]
        for format_ in ("auto", tee, "token"):
            with bounded(seconds=1, megabytes=64), pytest.raises(ConfideError) as caught:
                formats.read(data, format=format_)
            assert isinstance(caught.value, MalformedError | NotGenuine)


@EVERY
@pytest.mark.parametrize("fill", _BOMBS)
def test_ev_14_a_document_that_begins_well_is_refused_in_time(tee: str, fill: bytes) -> None:
    """As long as a file of endorsements may be, in every place where documents are looked at."""
    case = every_tee.case(tee)
    own = {part.format: part.data for part in case.endorsements.documents}
    for kind in ("intel-collateral", "nvidia-rim", "ocsp", "event-log", "jwks"):
        for head in dict.fromkeys((own.get(kind, b""), b"")):
            huge = (head + fill * (formats.MAX_FILE // len(fill) + 1))[: formats.MAX_FILE]
            documents = (EvidencePart(kind, huge), *case.endorsements.documents)
            evidence = replace(case, endorsements=replace(case.endorsements, documents=documents))
            with bounded(seconds=1, megabytes=64):
                codes = every_tee.refusal(tee, evidence)
            assert not any(code.startswith("attestation.") for code in codes)


@EVERY
def test_ev_27_what_was_read_has_no_field_to_trust(tee: str) -> None:
    """Neither the part nor the bundle knows what the bytes say; claims do, and come only from a Verifier."""
    evidence = formats.read(every_tee.data(tee))
    claims = every_tee.verify(tee).claims

    public = {name for one in (evidence, evidence.platform) for name in dir(one) if not name.startswith("_")}
    assert public.isdisjoint(
        {"measurements", "report_data", "details", "claims", "tcb", "chain", *claims.measurements}
    )
    with pytest.raises(ConfigurationError):
        type(claims)(tee, False, b"", {}, None, (), AT, (), (), object())


@EVERY
def test_ev_28_a_table_that_pins_nothing_is_refused(tee: str) -> None:
    pinned = every_tee.REFERENCE[tee]
    assert AppraisalPolicy.from_table({"tees": [tee], "reference": {tee: pinned}})

    if tee != "nvidia":  # Whose default is to compare all firmware with NVIDIA's documents.
        with pytest.raises(ConfideError) as caught:
            AppraisalPolicy.from_table({"tees": [tee], "reference": {tee: {}}})
        assert caught.value.code == "not_acceptable.empty_policy"
        with pytest.raises(ConfideError) as caught:
            AppraisalPolicy.from_table({"tees": [tee], "reference": {tee: {next(iter(pinned)): []}}})
        assert caught.value.code in {"not_acceptable.empty_policy", "configuration.invalid"}
    with pytest.raises(ConfideError) as caught:
        AppraisalPolicy.from_table({"tees": [tee]})
    assert caught.value.code in {"not_acceptable.empty_policy", "configuration.invalid"}


@EVERY
def test_ev_28_a_misspelt_key_and_a_value_of_another_kind_are_errors(tee: str) -> None:
    pinned = every_tee.REFERENCE[tee]
    key = next(iter(pinned))

    wrongs: tuple[dict[str, Any], ...] = (
        pinned | {f"{key}x": "ANY"},
        pinned | {key.upper(): "ANY"},
        pinned | {"": 1},
        {key: "any"},
        {key: "*"},
        {key: True},
        {key: 0},
        {key: ["zz" * 48]},
        {key: ["00" * 47]},
        {key: [{}]},
        {key: {}},
    )
    for wrong in wrongs:
        with pytest.raises(ConfideError) as caught:
            AppraisalPolicy.from_table({"tees": [tee], "reference": {tee: wrong}})
        assert caught.value.code in {"configuration.invalid", "not_acceptable.empty_policy"}, wrong


@EVERY
@pytest.mark.parametrize("function", ["authenticate", "appraise", "trustworthiness"])
@pytest.mark.parametrize(
    "wrong",
    [
        ValueError("secret-canary"),
        KeyError("secret-canary"),
        RecursionError(),
        MemoryError(),
        AssertionError(),
    ],
)
def test_ev_29_a_check_that_cannot_run_refuses(
    tee: str, function: str, wrong: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "authenticate" if function == "authenticate" else "appraise"
    assert every_tee.refusal(tee) == []

    def broken(*_: object, **__: object) -> None:
        raise wrong

    monkeypatch.setattr(importlib.import_module(f"{schemes.PACKAGES[tee]}.{module}"), function, broken)
    with pytest.raises(AttestationError) as caught:
        every_tee.verify(tee)

    assert caught.value.code == "attestation.internal"
    assert "canary" not in str(caught.value)


@EVERY
def test_ev_31_the_policy_is_not_looked_at_before_the_signature(tee: str) -> None:
    """A forged report under a policy that it does not meet: nothing of the policy shows."""
    elsewhere = every_tee.ELSEWHERE[tee]
    wanted = every_tee.refusal(tee, reference=elsewhere)
    assert wanted
    assert all(code.startswith("not_acceptable.") for code in wanted)
    data = bytearray(every_tee.data(tee))
    codes: list[str] = []
    for place in range(
        len(data) - 1, 0, -1
    ):  # From the end, where signatures are: the first that is still well formed.
        changed = bytes((*data[:place], data[place] ^ 1, *data[place + 1 :]))
        codes = every_tee.refusal(tee, every_tee.with_data(tee, changed), reference=elsewhere)
        if not codes[0].startswith("malformed."):
            break

    assert codes[0].startswith("not_genuine.")
    assert not any(code.startswith("not_acceptable.") for code in codes)


def test_ev_32_threads_with_different_policies_do_not_disturb_each_other() -> None:
    """All formats at once, with policies that admit and that refuse, against what one thread says."""
    jobs: list[tuple[str, dict[str, Any] | None]] = [
        (tee, reference) for tee in TEES for reference in (None, every_tee.ELSEWHERE[tee])
    ] * 8
    expected = [every_tee.refusal(tee, reference=reference) for tee, reference in jobs]
    assert [] in expected
    assert any(expected)

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda job: every_tee.refusal(job[0], reference=job[1]), jobs))

    assert found == expected


@EVERY
def test_ev_33_verification_asks_nobody(tee: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("verification opened a socket")

    expected = every_tee.verify(tee).to_json()
    monkeypatch.setattr(socket, "socket", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.setattr(socket, "create_connection", refused)

    assert every_tee.verify(tee).to_json() == expected
    # And what is missing is missing, not skipped; a Nitro document carries everything.
    assert bool(every_tee.refusal(tee, Evidence(every_tee.case(tee).platform))) is (tee != "nitro")


@EVERY
def test_sim_01_simulated_evidence_is_refused_by_the_vendors_roots(tee: str) -> None:
    """With every certificate of its own at hand, the root included."""
    for options in ({"extra_anchors": ()}, {"extra_anchors": (), "allow_simulated": False}):
        assert set(every_tee.refusal(tee, **options)) == {"not_genuine.untrusted_root"}


@EVERY
def test_sim_03_both_consents_are_needed_and_the_result_never_affirms(tee: str) -> None:
    assert "not_acceptable.simulated" in every_tee.refusal(tee, allow_simulated=False)

    result = every_tee.verify(tee)
    assert result.simulated
    assert result.to_json()["simulated"] is True
    assert result.tier.name == "CONTRAINDICATED"
    assert "note.simulated" in {reason.code for reason in result.reasons}


def test_sim_05_reading_and_verifying_every_format_never_loads_the_simulator(tmp_path: Path) -> None:
    for tee in TEES:
        (tmp_path / tee).write_bytes(every_tee.case(tee).encode() if tee != "tpm" else every_tee.data(tee))
    program = """
import sys
from datetime import datetime, UTC
from pathlib import Path
from confide.attestation.policy import AppraisalPolicy
from confide.attestation.verifier import Verifier
from confide.errors import ConfideError
from confide.tees import endorsing, formats
reference = eval(sys.argv[2])
for tee in sorted(reference):
    policy = AppraisalPolicy.from_table({"tees": [tee], "reference": {tee: reference[tee]}})
    try:
        Verifier(policy).verify(formats.read((Path(sys.argv[1]) / tee).read_bytes()), at=datetime(2026, 6, 1, tzinfo=UTC))
    except ConfideError as error:
        print(tee, error.code)
assert not [name for name in sys.modules if name.startswith("confide.simulator")], sys.modules
"""
    ran = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), repr(every_tee.REFERENCE)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr
    assert [line.split()[0] for line in ran.stdout.splitlines()] == sorted(TEES)


def test_sim_06_no_seed_of_the_fuzzer_holds_a_private_key(repository: Path) -> None:
    """The corpus is made under keys of the moment, none of which may come along."""
    seeds = [path for path in (repository / "fuzz" / "corpus").rglob("*") if path.is_file()]
    assert seeds

    for seed in seeds:
        data = seed.read_bytes()
        assert b"PRIVATE KEY" not in data
        # ECPrivateKey (RFC 5915) and PKCS#8 begin with a version and then the key or its algorithm.
        assert b"\x02\x01\x01\x04\x30" not in data
        assert b"\x02\x01\x00\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01" not in data
