# SPDX-License-Identifier: Apache-2.0
"""The driver of TDX guests by injected calls; the emulated kernel files are driven in tests/tees/_tsm."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import pytest

from confide.attestation.evidence import Endorsements, Evidence, EvidencePart
from confide.attestation.policy import AppraisalPolicy
from confide.attestation.verifier import Verifier
from confide.errors import ConfigurationError, EnclaveError, NotAcceptable, TeeUnavailable
from confide.simulator import dcap
from confide.simulator.tdx import Platform
from confide.tees._tsm.reports import ConfigfsReports
from confide.tees.tdx import attest
from support import boot_logs, intel_quote

if TYPE_CHECKING:
    from pathlib import Path

    from confide.attestation.result import AttestationResult

DATA = bytes(range(64))
LOG = boot_logs.log([(1, 4, bytes(4), bytes(4))])


class Entry:
    """One entry of configfs-tsm whose report is ``answer``."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.generation = 0

    def make(self) -> None:
        pass

    def write(self, name: str, data: bytes) -> None:
        assert (name, data) == ("inblob", DATA)
        self.generation += 1

    def read(self, name: str) -> bytes:
        if name in {"auxblob", "privlevel_floor"}:
            raise OSError(errno.ENOENT, name)
        return {"generation": str(self.generation).encode(), "outblob": self.answer}[name]

    def remove(self) -> None:
        pass


def device(answer: bytes | None = None, **options: Any) -> attest.Device:
    entry = Entry(intel_quote.unsigned("tdx", DATA) if answer is None else answer)
    return attest.Device(reports=ConfigfsReports("tdx_guest", lambda: entry), **options)


class Module:
    """/dev/tdx_guest: puts a TDREPORT behind the 64 bytes that it is asked about."""

    def __init__(self, **faults: Any) -> None:
        self.faults = faults
        self.asked: list[tuple[int, bytes]] = []

    def ioctl(self, request: int, argument: bytearray) -> int:
        self.asked.append((request, bytes(argument)))
        if "error" in self.faults:
            raise OSError(self.faults["error"], "ioctl")
        report = b"\x81" + bytes(127) + self.faults.get("answer", bytes(argument[:64])) + bytes(832)
        argument[64:] = report
        return 0


def test_the_number_of_the_ioctl_is_that_of_the_kernel() -> None:
    """_IOWR('T', 1, struct of 1088 bytes), computed once more here."""
    assert 3 << 30 | 1088 << 16 | ord("T") << 8 | 1 == attest.TDX_CMD_GET_REPORT0


def test_a_tdreport_is_asked_for_with_exact_bytes() -> None:
    module = Module()
    made = device(guest=attest.GuestDevice(module.ioctl))

    report = made.tdreport(DATA)

    assert module.asked == [(0xC4405401, DATA + bytes(1024))]
    assert (len(report), report[128:192]) == (1024, DATA)


@pytest.mark.parametrize("faults", [{"error": errno.EIO}, {"answer": bytes(64)}])
def test_a_module_that_fails_or_answers_another_question_is_an_error(faults: dict[str, Any]) -> None:
    with pytest.raises(EnclaveError):
        device(guest=attest.GuestDevice(Module(**faults).ioctl)).tdreport(DATA)


def test_a_local_report_is_never_evidence(tmp_path: Path) -> None:
    """A guest with /dev/tdx_guest alone has no quote, and is told so; a TDREPORT in place of a quote is refused."""
    node = tmp_path / "tdx_guest"
    node.touch()
    with pytest.raises(TeeUnavailable) as caught:
        attest.Device.find(reports=tmp_path / "none", guest=node)
    assert "local reports" in caught.value.message
    with pytest.raises(EnclaveError):
        device(b"\x81" + bytes(1023)).attest(DATA)


@pytest.mark.parametrize(
    "answer",
    [
        intel_quote.unsigned("tdx", bytes(64)),
        intel_quote.unsigned("sgx", DATA),
        intel_quote.unsigned("tdx", DATA)[:-1],
        intel_quote.unsigned("tdx", DATA) + b"\x01",
        b"\x00",
    ],
)
def test_another_answer_than_a_quote_over_the_data_is_an_error(answer: bytes) -> None:
    with pytest.raises(EnclaveError) as caught:
        device(answer).attest(DATA)
    assert caught.value.code == "enclave.bad_state"


def quoted(*registers: bytes) -> bytes:
    """A quote over ``DATA`` with these RTMRs."""
    made = intel_quote.unsigned("tdx", DATA)
    values = b"".join(registers).ljust(4 * 48, b"\0")
    return made[: 48 + 328] + values + made[48 + 328 + len(values) :]


def test_the_boots_event_log_goes_with_the_quote_without_its_padding() -> None:
    right = boot_logs.extended(bytes(4))
    made = device(quoted(right), event_log=lambda: LOG + b"\xff" * 60_000).attest(DATA)
    assert [(part.format, part.data) for part in made.endorsements.documents] == [("event-log", LOG)]
    long = boot_logs.log([(1, 5, bytes(4), bytes(70_000))])
    for content in (b"", b"junk", LOG[:-1], long, boot_logs.log([(1, 4, b"", b"")], ("sha256",))):
        given = device(quoted(right), event_log=lambda content=content: content)
        assert given.attest(DATA).endorsements.documents == ()


def test_a_log_that_no_longer_tells_a_register_is_left_out() -> None:
    """A kernel may extend RTMR2 after the boot, of which the firmware's log knows nothing."""
    rows = [(1, 4, b"one", b""), (3, 4, b"two", b"")]
    first, third = boot_logs.extended(b"one"), boot_logs.extended(b"two")
    later = boot_logs.extended(b"two", b"three")

    def documents(*registers: bytes, told: list[boot_logs.Row] = rows) -> int:
        given = device(quoted(*registers), event_log=lambda: boot_logs.log(told))
        return len(given.attest(DATA).endorsements.documents)

    assert documents(first, bytes(48), third) == 1
    assert documents(first, bytes(48), later) == 0
    assert documents(first, bytes(48), third, told=[*rows, (5, 4, b"x", b"")]) == 0


def test_what_a_guest_lacks_is_named() -> None:
    with pytest.raises(TeeUnavailable):
        device().derive_key(b"label")
    with pytest.raises(TeeUnavailable):
        device().tdreport(DATA)
    with pytest.raises(TeeUnavailable):
        device().extend("rtmr3", bytes(48))


@pytest.mark.parametrize("length", [0, 63, 65])
def test_report_data_is_64_bytes(length: int) -> None:
    with pytest.raises(ConfigurationError):
        device().attest(bytes(length))
    with pytest.raises(ConfigurationError):
        attest.GuestDevice(Module().ioctl).tdreport(bytes(length))


def test_what_the_driver_collects_is_what_a_verifier_accepts() -> None:
    """Quote and event log out of a device, over the wire as a bundle, to a policy that asks for both."""
    platform = Platform.create(seed=5)
    rows = [(index, 4, bytes((index,)), bytes((index,))) for index in (1, 2, 3)]
    rtmrs = (*(boot_logs.extended(bytes((index,))) for index in (1, 2, 3)), bytes(48))

    class Answering(Entry):
        def read(self, name: str) -> bytes:
            if name != "outblob":
                return super().read(name)
            return platform.quote(DATA, version=5, body={"rtmrs": rtmrs})

    made = attest.Device(
        reports=ConfigfsReports("tdx_guest", lambda: Answering(b"")),
        event_log=lambda: boot_logs.log(rows) + b"\xff" * 4096,
    ).attest(DATA)
    collateral = Endorsements(documents=(EvidencePart("intel-collateral", platform.collateral()),))
    bundle = Evidence(made.platform, endorsements=made.endorsements.merge(collateral)).encode()

    def verify(**reference: Any) -> AttestationResult:
        table = {"mrtd": [bytes(range(48)).hex()]} | reference
        return Verifier(
            AppraisalPolicy.from_table({"tees": ["tdx"], "reference": {"tdx": table}}),
            extra_anchors=(platform.anchor,),
            allow_simulated=True,
        ).verify(bundle, at=dcap.AT, report_data=DATA)

    accepted = verify(event_log="required")
    assert (accepted.verdict, accepted.tee, accepted.simulated) == ("accepted", "tdx", True)
    logs = accepted.to_json()["claims"]["event_logs"]  # type: ignore[index]
    assert logs[0]["replays"] == {"rtmr0": True, "rtmr1": True, "rtmr2": True}
    with pytest.raises(NotAcceptable) as caught:
        verify(event_log="required", rtmr2=[bytes(48).hex()])
    assert [reason.code for reason in caught.value.reasons] == ["not_acceptable.measurement"]
