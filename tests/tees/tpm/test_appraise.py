# SPDX-License-Identifier: Apache-2.0
"""The table [reference.tpm], and event logs beside quotes."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from confide.attestation import reference as reference_
from confide.attestation.evidence import Endorsements, EvidencePart
from confide.attestation.policy import AppraisalPolicy
from confide.simulator.tpm import Platform
from confide.tees._tcg import log as tcg
from confide.tees.tpm import appraise, boot, measure, wire
from support import boot_logs, tpm
from support.refusal import code_of

if TYPE_CHECKING:
    from pathlib import Path

MEASUREMENT = "not_acceptable.measurement"
PIN = "ab" * 32
SEPARATOR = b"\x00\x00\x00\x00"
GLOBAL = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")


def secure_boot(value: bytes = b"\x01", name: str = "SecureBoot", guid: bytes = GLOBAL) -> bytes:
    """UEFI_VARIABLE_DATA of a variable."""
    text = name.encode("utf-16-le")
    sizes = len(name).to_bytes(8, "little") + len(value).to_bytes(8, "little")
    return guid + sizes + text + value


def rows(**changes: list[boot_logs.Row]) -> list[boot_logs.Row]:
    """A small boot: the firmware into PCR 0, a loader into PCR 4, a kernel into PCR 9, secure boot into PCR 7."""
    parts: dict[str, list[boot_logs.Row]] = {
        "firmware": [(0, 0x08, b"firmware", b"firmware")],
        "state": [(7, 0x80000001, secure_boot(), secure_boot())],
        "separators": [(index, 0x04, SEPARATOR, SEPARATOR) for index in range(8)],
        "loader": [(4, 0x80000003, b"loader", b""), (4, 0x80000003, b"second loader", b"")],
        "kernel": [(9, 0x0D, b"kernel", b"kernel"), (9, 0x0D, b"initrd", b"initrd")],
    }
    return [row for part in (parts | changes).values() for row in part]


def quoted(
    log: bytes, *, given: bytes | None = None, bank: str = "sha256", runtime: bool = False
) -> tuple[bytes, Endorsements]:
    """A quote of the PCRs to which ``log`` replays, with the log ``given`` beside it. ``runtime`` extends PCR 10 and 4 after boot."""
    pcrs = {index: measure.initial(index, bank) for index in range(24)}
    pcrs |= tcg.read(log).replay(bank)
    if runtime:
        pcrs[10] = measure.extend(pcrs[10], bytes(32), bank)
    made = Platform.create(seed=1, pcrs={bank: pcrs})
    part, endorsements = made.evidence(tpm.REPORT_DATA)
    documents = (EvidencePart("event-log", log if given is None else given),)
    return part, endorsements.merge(Endorsements(documents=documents))


def verify(case: tuple[bytes, Endorsements], **reference: Any) -> Any:
    return tpm.verify(*case, reference={"pcr": "ANY"} | reference)


def log(**changes: list[boot_logs.Row]) -> bytes:
    return boot_logs.log(rows(**changes), ("sha256",), index=0)


def test_a_log_that_replays_is_accepted_and_reported() -> None:
    result = verify(quoted(log()), event_log="required", secure_boot=True)
    found = result.claims.details.boot_log
    assert (found.bank, found.agrees, found.differs) == ("sha256", (*range(8), 9), ())
    assert found.secure_boot is True
    shown: Any = appraise.describe(result.claims)["event_log"]
    assert shown["agrees"] == [*range(8), 9]
    assert json.dumps(appraise.describe(result.claims))


def test_pcrs_that_the_system_extends_after_boot_are_no_contradiction() -> None:
    assert verify(quoted(log(), runtime=True), event_log="required").verdict == "accepted"


def moved() -> bytes:
    other = rows()
    first, second = (index for index, row in enumerate(other) if row[0] == 4 and row[1] == 0x80000003)
    other[first], other[second] = other[second], other[first]
    return boot_logs.log(other, ("sha256",), index=0)


@pytest.mark.parametrize("event_log", ["optional", "required"])
@pytest.mark.parametrize(
    "given",
    [
        moved(),
        log(loader=[(4, 0x80000003, b"loader", b"")]),
        log(loader=[(4, 0x80000003, b"other", b""), (4, 0x80000003, b"second loader", b"")]),
        log(firmware=[(0, 0x08, b"firmware", b"firmware")] * 2),
    ],
    ids=["reordered", "one less", "another", "one more"],
)
def test_tpm_09_a_log_that_does_not_replay_to_the_quote_is_refused(given: bytes, event_log: str) -> None:
    assert tpm.codes(lambda: verify(quoted(log(), given=given), event_log=event_log)) == [MEASUREMENT]


def test_tpm_09_a_required_log_must_be_there_and_explain_what_is_pinned() -> None:
    part, endorsements = quoted(log())
    without = (part, Endorsements(endorsements.certificates))
    assert verify(without).verdict == "accepted"
    assert tpm.codes(lambda: verify(without, event_log="required")) == [MEASUREMENT]
    kernel = tcg.read(log()).replay("sha256")[9].hex()
    pinned = {"pcr": {"9": [kernel]}, "event_log": "required"}
    assert verify(quoted(log()), **pinned).verdict == "accepted"
    shorter = log(kernel=[(9, 0x0D, b"kernel", b"kernel")])
    assert tpm.codes(lambda: verify(quoted(log(), given=shorter), **pinned)) == [MEASUREMENT]
    silent = log(kernel=[])
    assert tpm.codes(lambda: verify(quoted(log(), given=silent), **pinned)) == [MEASUREMENT]


def test_a_log_of_another_bank_or_another_device_explains_nothing() -> None:
    only384 = boot_logs.log(rows(), ("sha384",), index=0)
    case = quoted(log(), given=only384)
    assert verify(case).claims.details.boot_log is None
    assert tpm.codes(lambda: verify(case, event_log="required")) == [MEASUREMENT]
    ccel = boot_logs.log([(1, 4, SEPARATOR, SEPARATOR)], ("sha256",))
    assert verify(quoted(log(), given=ccel)).claims.details.boot_log is None


def test_a_file_that_is_no_log_is_malformed() -> None:
    assert tpm.codes(lambda: verify(quoted(log(), given=b"garbage"))) == ["malformed.unknown_format"]


@pytest.mark.parametrize(
    ("state", "value"),
    [
        ([(7, 0x80000001, secure_boot(b"\x01"), secure_boot(b"\x01"))], True),
        ([(7, 0x80000001, secure_boot(b"\x00"), secure_boot(b"\x00"))], False),
        ([], None),
        # The text says 1, the digest is that of 0.
        ([(7, 0x80000001, secure_boot(b"\x00"), secure_boot(b"\x01"))], None),
        ([(7, 0x80000001, secure_boot(b"\x02"), secure_boot(b"\x02"))], None),
        ([(7, 0x80000001, secure_boot(b""), secure_boot(b""))], None),
        ([(7, 0x80000001, secure_boot(guid=bytes(16)), secure_boot(guid=bytes(16)))], None),
        ([(7, 0x80000001, secure_boot(name="SecureBoots"), secure_boot(name="SecureBoots"))], None),
        ([(6, 0x80000001, secure_boot(), secure_boot())], None),
        ([(7, 0x80000002, secure_boot(), secure_boot())], None),
        ([(7, 0x80000001, secure_boot(b"\x01"), secure_boot(b"\x01"))] * 2, None),
        (
            [
                (7, 0x80000001, secure_boot(b"\x00"), secure_boot(b"\x00")),
                (7, 0x80000001, secure_boot(b"\x01"), secure_boot(b"\x01")),
            ],
            None,
        ),
        # The true event is called something else, and the system has extended the other value after it.
        (
            [
                (7, 0x0000000D, secure_boot(b"\x00"), b"a loader"),
                (7, 0x80000001, secure_boot(b"\x01"), secure_boot(b"\x01")),
            ],
            None,
        ),
        # The true event keeps its bytes and is called another kind of variable, so that it would not be counted.
        (
            [
                (7, 0x800000E0, secure_boot(b"\x00"), secure_boot(b"\x00")),
                (7, 0x80000001, secure_boot(b"\x01"), secure_boot(b"\x01")),
            ],
            None,
        ),
        # The true event is shown as the value of a boot variable, whose name no digest covers.
        (
            [
                (7, 0x80000002, secure_boot(secure_boot(b"\x00")), secure_boot(b"\x00")),
                (7, 0x80000001, secure_boot(b"\x01"), secure_boot(b"\x01")),
            ],
            None,
        ),
        # The firmware's first variable is another vendor's of that name.
        (
            [
                (7, 0x80000001, secure_boot(guid=bytes(16)), secure_boot(guid=bytes(16))),
                (7, 0x80000001, secure_boot(b"\x01"), secure_boot(b"\x01")),
            ],
            None,
        ),
    ],
)
def test_secure_boot_is_what_the_firmware_measured_once_and_provably(
    state: list[boot_logs.Row], value: bool | None
) -> None:
    case = quoted(log(state=state))
    assert verify(case).claims.details.boot_log.secure_boot is value
    for wanted in (True, False):
        if value is wanted:
            assert verify(case, secure_boot=wanted).verdict == "accepted"
        else:
            refused = tpm.codes(lambda want=wanted: verify(case, secure_boot=want))  # type: ignore[misc]
            assert refused == ["not_acceptable.attributes"]


def test_secure_boot_measured_after_the_firmware_has_ended_is_not_believed() -> None:
    """After the separator anybody who runs may extend PCR 7."""
    late: list[boot_logs.Row] = [(7, 0x80000001, secure_boot(), secure_boot())]
    case = quoted(log(state=[], kernel=late))
    assert verify(case).claims.details.boot_log.secure_boot is None


def test_secure_boot_in_a_bank_that_the_policy_does_not_use_is_not_believed() -> None:
    """Firmware that leaves a bank at zeros leaves it to the system, which extends a whole boot of its own choice there."""
    forged = boot_logs.log(rows(), ("sha384",), index=0)
    zeros = {index: measure.initial(index) for index in range(24)}
    taken = {index: measure.initial(index, "sha384") for index in range(24)}
    taken |= dict(tcg.read(forged).replay("sha384"))
    made = Platform.create(seed=1, pcrs={"sha256": zeros, "sha384": taken})
    every = tuple(range(10))
    selections = (wire.Selection("sha256", every), wire.Selection("sha384", every))
    part, endorsements = made.evidence(tpm.REPORT_DATA, fields={"selections": selections})
    case = (part, endorsements.merge(Endorsements(documents=(EvidencePart("event-log", forged),))))
    pinned = {index: [taken[index].hex()] for index in (4,)}
    named = {"bank": "sha384", "pcr": {str(index): values for index, values in pinned.items()}}
    assert verify(case, secure_boot=True, **named).verdict == "accepted"
    assert tpm.codes(lambda: verify(case, secure_boot=True)) == ["not_acceptable.attributes"]


def test_a_log_of_two_quoted_banks_shows_secure_boot_to_a_policy_of_the_default_bank() -> None:
    both = boot_logs.log(rows(), ("sha256", "sha384"), index=0)
    pcrs = {
        bank: {index: measure.initial(index, bank) for index in range(24)} | dict(tcg.read(both).replay(bank))
        for bank in ("sha256", "sha384")
    }
    made = Platform.create(seed=1, pcrs=pcrs)
    selections = tuple(wire.Selection(bank, tuple(range(10))) for bank in pcrs)
    part, endorsements = made.evidence(tpm.REPORT_DATA, fields={"selections": selections})
    case = (part, endorsements.merge(Endorsements(documents=(EvidencePart("event-log", both),))))
    assert verify(case, secure_boot=True, event_log="required").verdict == "accepted"


def test_secure_boot_of_a_pcr_7_that_was_not_quoted_is_not_believed() -> None:
    pcrs = {index: measure.initial(index) for index in range(24)} | dict(tcg.read(log()).replay("sha256"))
    made = Platform.create(seed=1, pcrs={"sha256": pcrs})
    part, endorsements = made.evidence(
        tpm.REPORT_DATA, fields={"selections": (wire.Selection("sha256", (0, 4)),)}
    )
    case = (part, endorsements.merge(Endorsements(documents=(EvidencePart("event-log", log()),))))
    assert verify(case).claims.details.boot_log.secure_boot is None


@pytest.mark.parametrize("name", ["ubuntu-2404-amd-sevsnp", "cos-101-amd-sev", "rhel8-uefi"])
def test_real_logs_explain_the_pcrs_to_which_they_replay(shared: Path, name: str) -> None:
    folder = shared / "evidence" / "eventlogs"
    data = (folder / f"tpm-{name}.bin").read_bytes()
    result = verify(quoted(data), event_log="required")
    assert {0, 1, 2, 3, 4, 5, 6, 7} <= set(result.claims.details.boot_log.agrees)
    manifest = json.loads((shared / "evidence" / "manifest.json").read_text())
    facts = next(one for one in _entries(manifest) if f"eventlogs/tpm-{name}.bin" in one["files"])["facts"]
    values = measure.from_event_log(data, origin="a test").measurements
    assert {str(index): values[f"pcr{index}"][0].hex() for index in map(int, facts["pcr_sha256"])} == facts[
        "pcr_sha256"
    ]


def _entries(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        own = [value] if "files" in value and "facts" in value else []
        return own + [one for inner in value.values() for one in _entries(inner)]
    return [one for inner in value for one in _entries(inner)] if isinstance(value, list) else []


def parse(**table: Any) -> appraise.TpmReference:
    return appraise.parse_reference({"pcr": {"4": [PIN]}} | table)


@pytest.mark.parametrize(
    ("table", "code"),
    [
        ({"pcr": {}}, "not_acceptable.empty_policy"),
        ({"pcr": {"4": []}}, "not_acceptable.empty_policy"),
        ({"pcr": "any"}, "configuration.invalid"),
        ({"pcr": [PIN]}, "configuration.invalid"),
        ({"pcr": {"24": [PIN]}}, "configuration.invalid"),
        ({"pcr": {"04": [PIN]}}, "configuration.invalid"),
        ({"pcr": {"-1": [PIN]}}, "configuration.invalid"),
        ({"pcr": {"4": [PIN[:-2]]}}, "configuration.invalid"),
        ({"pcr": {"4": [PIN.upper()]}}, "configuration.invalid"),
        ({"pcr": {"4": PIN}}, "configuration.invalid"),
        ({"pcr": {"4": "ANY"}}, "configuration.invalid"),
        ({"bank": "sha384"}, "configuration.invalid"),
        ({"bank": "md5"}, "configuration.invalid"),
        ({"ak": []}, "not_acceptable.empty_policy"),
        ({"ak": ["00"]}, "configuration.invalid"),
        ({"event_log": "maybe"}, "configuration.invalid"),
        ({"secure_boot": 1}, "configuration.invalid"),
        ({"min_firmware": -1}, "configuration.invalid"),
        ({"last_seen": {}}, "configuration.invalid"),
        ({"last_seen": {"reset_count": 1, "boots": 2}}, "configuration.invalid"),
        ({"vm_ids": []}, "not_acceptable.empty_policy"),
        ({"vm_ids": [1]}, "configuration.invalid"),
        ({"instance_ids": ["1"]}, "configuration.invalid"),
        ({"instance_ids": []}, "not_acceptable.empty_policy"),
        ({"pcrs": {"4": [PIN]}}, "configuration.invalid"),
    ],
)
def test_ev_28_tables_that_are_written_wrongly_or_admit_nothing_are_refused(
    table: dict[str, Any], code: str
) -> None:
    assert code_of(parse, **table) == code


def test_ev_28_a_table_without_pcrs_is_no_policy() -> None:
    assert code_of(appraise.parse_reference, {"ak": [PIN]}) == "not_acceptable.empty_policy"


def test_what_a_table_says_of_itself() -> None:
    assert (parse().measured, parse().wildcards, parse().anchors) == (False, (), ())
    assert parse(pcr={"4": [PIN], "9": [PIN]}).measured
    assert not parse(pcr={"0": [PIN], "9": [PIN]}).measured
    anything = parse(pcr="ANY")
    assert (anything.measured, anything.wildcards) == (False, ("pcr",))
    assert (parse().required, parse().require_binding, parse().count) == (True, True, None)
    assert not parse(required=False).required
    (anchor,) = parse(ak=[PIN]).anchors
    assert (anchor.tee, anchor.keys, anchor.certificates) == ("tpm", (bytes.fromhex(PIN),), ())


def test_tpm_04_a_key_that_the_policy_pins_is_trusted_and_no_other() -> None:
    made = tpm.platform()
    part, endorsements = made.evidence(tpm.REPORT_DATA)
    pin = {"ak": [made.fingerprint.hex()]}
    result = tpm.verify(part, reference=pin, anchors=())
    assert result.claims.details.trust == "pinned"  # type: ignore[attr-defined]
    other = {"ak": [hashlib.sha256(b"another key").hexdigest()]}
    assert tpm.codes(lambda: tpm.verify(part, reference=other, anchors=())) == ["not_genuine.untrusted_root"]
    # A certificate does not make up for a pin that the policy has.
    assert tpm.codes(lambda: tpm.verify(part, endorsements, reference=other)) == ["not_acceptable.identity"]


def test_azure_machines_can_be_pinned() -> None:
    case = tpm.azure()
    own = case.claims().details.azure.vm_id  # type: ignore[attr-defined]
    for wanted, found in ((own, []), ("00000000-0000-4000-8000-000000000002", ["not_acceptable.identity"])):
        reference = parse(pcr="ANY", vm_ids=[wanted])
        reasons = appraise.appraise(case.claims(), reference, tpm.policy())
        assert [one.code for one in reasons] == found
    lone, endorsements = tpm.platform().evidence(tpm.REPORT_DATA)
    refused = tpm.codes(lambda: tpm.verify(lone, endorsements, reference={"vm_ids": [own]}))
    assert refused == ["not_acceptable.identity"]


def test_old_firmware_of_the_tpm_is_refused() -> None:
    part, endorsements = tpm.platform().evidence(tpm.REPORT_DATA)
    own = 0x2020031200120003
    assert tpm.verify(part, endorsements, reference={"min_firmware": own}).verdict == "accepted"
    assert tpm.codes(lambda: tpm.verify(part, endorsements, reference={"min_firmware": own + 1})) == [
        "not_acceptable.below_minimum"
    ]


def test_a_tpm_alone_is_never_affirming() -> None:
    """Nothing in its quote says that the host cannot read the machine's memory."""
    made = tpm.platform()
    part, endorsements = made.evidence(tpm.REPORT_DATA)
    claims = tpm.authenticate(part, endorsements)
    vector = appraise.trustworthiness(claims, parse())
    assert vector.tier.name == "WARNING"
    beside = appraise.trustworthiness(tpm.azure().claims(), parse(pcr={"4": [PIN], "9": [PIN]}))
    assert beside.tier.name == "AFFIRMING"


def test_claims_and_tables_of_another_tee_are_a_defect_and_no_verdict() -> None:
    claims = tpm.azure().platform
    assert code_of(appraise.appraise, claims, parse(), tpm.policy()) == "attestation.internal"
    assert code_of(appraise.trustworthiness, tpm.azure().claims(), None) == "attestation.internal"


def test_predicted_registers_are_those_of_the_tpm() -> None:
    digests = [hashlib.sha256(bytes([number])).digest() for number in range(3)]
    expected = bytes(32)
    for digest in digests:
        expected = hashlib.sha256(expected + digest).digest()
    assert measure.predict(4, digests) == expected
    assert measure.predict(17, ()) == b"\xff" * 32
    assert measure.predict(23, (), "sha384") == bytes(48)
    assert code_of(measure.predict, 24, ()) == "configuration.register"
    assert code_of(measure.predict, 0, (), "sha1") == "configuration.algorithm"
    assert code_of(measure.extend, bytes(32), bytes(48)) == "configuration.register"
    assert code_of(measure.extend, bytes(48), bytes(48)) == "configuration.register"


def test_reference_values_of_a_log_fill_a_policy() -> None:
    values = measure.from_event_log(log(), origin="a boot that was watched")
    assert values.tee == "tpm"
    assert values.measurements["pcr4"] == (tcg.read(log()).replay("sha256")[4],)
    with384 = boot_logs.log(rows(), ("sha256", "sha384"), index=0)
    predicted = measure.from_event_log(with384, origin="a watched boot", bank="sha384")
    assert len(predicted.measurements["pcr4"][0]) == 48
    left_open = AppraisalPolicy.from_table(
        {"tees": ["tpm"], "reference": {"tpm": {"bank": "sha384", "pcr": {"4": "FILES"}}}}
    )
    filled = left_open.with_reference_values(reference_.read(reference_.write([predicted])))
    assert predicted.measurements["pcr4"][0].hex() in filled.to_toml()
    ccel = boot_logs.log([(1, 4, SEPARATOR, SEPARATOR)])
    assert code_of(measure.from_event_log, ccel, origin="") == "malformed.unknown_format"
    assert not boot.of_a_tpm(tcg.read(ccel))
