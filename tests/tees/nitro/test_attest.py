# SPDX-License-Identifier: Apache-2.0
"""The Nitro Security Module's interface, by the exact bytes that go to the kernel, against an emulated driver.

The emulation is an ioctl that reads and writes the memory that the request names, as the driver does: it cuts an answer that
does not fit, and reports the length that it wrote.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import TYPE_CHECKING, Any

import pytest

from confide.attestation.attester import Attester
from confide.errors import ConfigurationError, EnclaveError, TeeUnavailable
from confide.simulator.nitro import Raw
from confide.tees.nitro import attest, wire
from confide.wire import cbor
from support import nitro

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RAW = 0xC0200A00


class Driver:
    """An emulated /dev/nsm: answers each request with what ``answer`` makes of it."""

    def __init__(self, answer: Callable[[bytes], Any]) -> None:
        self.answer = answer
        self.requests: list[bytes] = []

    def __call__(self, request: int, argument: bytearray) -> int:
        assert (request, len(argument)) == (RAW, 32)
        message = wire.NsmMessage.decode(argument)
        if message.request_length > 0x1000:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
        sent = ctypes.string_at(message.request_address, message.request_length)
        self.requests.append(sent)
        answer = self.answer(sent)
        data = answer.data if isinstance(answer, Raw) else cbor.encode(answer)
        written = min(len(data), message.response_length)
        ctypes.memmove(message.response_address, data, written)
        argument[24:32] = written.to_bytes(8, "little")
        return 0


def device(answer: Any) -> tuple[attest.Device, Driver]:
    driver = Driver(answer if callable(answer) else lambda _: answer)
    return attest.Device(driver), driver


def nsm(**overrides: Any) -> tuple[attest.Device, Driver]:
    """A module that signs what it is asked to sign, unless a field is overridden."""

    def answer(request: bytes) -> Any:
        fields = cbor.decode(request, what="request", max_size=0x1000, deterministic=False)["Attestation"]
        document = nitro.platform().document(None, **(fields | overrides))
        return {"Attestation": {"document": document}}

    return device(answer)


def refused(call: Callable[[], object]) -> EnclaveError:
    with pytest.raises(EnclaveError) as caught:
        call()
    assert caught.value.code == "enclave.bad_state"
    return caught.value


def test_a_document_is_asked_for_in_these_bytes_and_passes_verification() -> None:
    found, driver = nsm()

    evidence = found.attest(nitro.REPORT_DATA)

    assert driver.requests == [
        bytes.fromhex("a1")
        + b"\x6bAttestation"
        + bytes.fromhex("a3")
        + b"\x69user_data\x58\x40"
        + nitro.REPORT_DATA
        + b"\x65nonce\xf6"
        + b"\x6apublic_key\xf6"
    ]
    assert isinstance(found, Attester)
    assert (evidence.platform.format, evidence.devices) == ("nitro", ())
    assert nitro.verify(evidence.platform.data, report_data=nitro.REPORT_DATA)


def test_the_argument_of_the_ioctl_is_two_buffers_with_their_lengths() -> None:
    seen: list[bytes] = []

    def ioctl(request: int, argument: bytearray) -> int:
        seen.append(bytes(argument))
        raise OSError(errno.EINVAL, "")

    refused(lambda: attest.Device(ioctl).random())

    message = wire.NsmMessage.decode(seen[0])
    assert (message.request_length, message.response_length) == (len(b"\x69GetRandom"), 0x3000)
    assert 0 not in (message.request_address, message.response_address)


@pytest.mark.parametrize(
    ("call", "request_bytes", "answer", "result"),
    [
        (
            lambda found: found.extend_pcr(16, b"data"),
            b"\xa1\x69ExtendPCR\xa2\x65index\x10\x64data\x44data",
            {"ExtendPCR": {"data": b"\x01" * 48}},
            b"\x01" * 48,
        ),
        (lambda found: found.lock_pcr(31), b"\xa1\x67LockPCR\xa1\x65index\x18\x1f", "LockPCR", None),
        (lambda found: found.lock_pcrs(20), b"\xa1\x68LockPCRs\xa1\x65range\x14", "LockPCRs", None),
        (
            lambda found: found.describe_pcr(0),
            b"\xa1\x6bDescribePCR\xa1\x65index\x00",
            {"DescribePCR": {"lock": True, "data": b"\x02" * 48}},
            attest.Register(True, b"\x02" * 48),
        ),
        (
            lambda found: found.random(),
            b"\x69GetRandom",
            {"GetRandom": {"random": b"\x03" * 256}},
            b"\x03" * 256,
        ),
        (
            lambda found: found.describe(),
            b"\x6bDescribeNSM",
            {
                "DescribeNSM": {
                    "version_major": 1,
                    "version_minor": 0,
                    "version_patch": 0,
                    "module_id": "i-1-enc2",
                    "max_pcrs": 32,
                    "locked_pcrs": [0, 1, 2],
                    "digest": "SHA384",
                }
            },
            attest.Module((1, 0, 0), "i-1-enc2", 32, frozenset({0, 1, 2}), "SHA384"),
        ),
    ],
)
def test_each_request_has_its_bytes_and_each_answer_its_meaning(
    call: Callable[[attest.Device], object], request_bytes: bytes, answer: Any, result: object
) -> None:
    found, driver = device(answer)

    assert call(found) == result
    assert driver.requests == [request_bytes]


@pytest.mark.parametrize(
    "change",
    [
        {"user_data": bytes(64)},
        {"user_data": None},
        {"user_data": nitro.REPORT_DATA + b"\0"},
        {"user_data": nitro.REPORT_DATA[:32]},
        {"nonce": b"other"},
        {"public_key": b"other"},
    ],
)
def test_a_document_over_other_data_than_asked_for_is_refused(change: dict[str, Any]) -> None:
    found, _ = nsm(**change)

    assert "other data" in refused(lambda: found.attest(nitro.REPORT_DATA)).message


def test_a_nonce_and_a_key_of_the_callers_are_passed_on_and_compared() -> None:
    found, _ = nsm()
    document = wire.decode_document(found.document(user_data=b"u", nonce=b"n", public_key=b"k"))

    assert (document.user_data, document.nonce, document.public_key) == (b"u", b"n", b"k")
    with pytest.raises(ConfigurationError) as caught:
        found.document(nonce=bytes(1025))
    assert caught.value.code == "configuration.nsm"


def test_the_largest_request_that_the_fields_allow_is_taken_by_the_kernel() -> None:
    found, driver = nsm()

    found.document(user_data=bytes(1024), nonce=bytes(1024), public_key=b"\x01" * 1024)
    assert len(driver.requests[0]) < 0x1000


@pytest.mark.parametrize("size", [0, 32, 63, 65, 1024])
def test_report_data_is_64_bytes(size: int) -> None:
    with pytest.raises(ConfigurationError):
        nsm()[0].attest(bytes(size))


def test_a_request_that_is_too_large_is_not_sent() -> None:
    found, driver = device("ExtendPCR")

    with pytest.raises(ConfigurationError):
        found.extend_pcr(16, bytes(0x1000))
    assert driver.requests == []
    head = len(b"\xa1\x69ExtendPCR\xa2\x65index\x10\x64data\x59\x00\x00")
    refused(lambda: found.extend_pcr(16, bytes(0x1000 - head)))
    assert [len(request) for request in driver.requests] == [0x1000]


def test_an_answer_that_the_kernel_cut_off_is_refused() -> None:
    found, _ = device({"GetRandom": {"random": bytes(0x3000)}})

    assert "cut off" in refused(found.random).message


@pytest.mark.parametrize(
    "word",
    [
        "InvalidArgument",
        "InvalidIndex",
        "InvalidResponse",
        "ReadOnlyIndex",
        "InvalidOperation",
        "BufferTooSmall",
        "InputTooLarge",
        "InternalError",
    ],
)
def test_every_error_of_the_module_is_said_in_words(word: str) -> None:
    found, _ = device({"Error": word})

    message = refused(lambda: found.lock_pcr(3)).message
    assert message.startswith("the module refused: ")
    assert "not known" not in message


@pytest.mark.parametrize(
    "answer",
    [
        {"Error": "SomethingNew"},
        {"Error": 7},
        "Success",
        "LockPCR",
        {"GetRandom": {"random": b""}},
        {"GetRandom": {"random": "text"}},
        {"GetRandom": {}},
        {"GetRandom": {"random": b"1", "more": 1}},
        {"GetRandom": None},
        {"GetRandom": {"random": b"1"}, "Error": "InternalError"},
        {"DescribePCR": {"lock": True, "data": bytes(48)}},
        [],
        None,
        Raw(b""),
        Raw(b"\xa1\x69GetRandom\xa1\x66random\x58\xffab"),
        Raw(b"\xa1\x69GetRandom\xa1\x66random\x41a\x00"),
    ],
)
def test_any_other_answer_is_refused(answer: Any) -> None:
    refused(device(answer)[0].random)


@pytest.mark.parametrize("locked", [["0"], [-1], [1 << 16], [True], [[0]], {0: 1}, None])
def test_a_description_with_other_than_numbers_of_registers_is_refused(locked: Any) -> None:
    fields = {"version_major": 1, "version_minor": 0, "version_patch": 0, "module_id": "i-1", "max_pcrs": 32}
    good = {**fields, "digest": "SHA384", "locked_pcrs": [0]}

    assert device({"DescribeNSM": good})[0].describe().locked_pcrs == {0}
    refused(device({"DescribeNSM": {**good, "locked_pcrs": locked}})[0].describe)


def test_an_answer_with_fields_to_a_request_without_is_refused() -> None:
    refused(lambda: device({"LockPCR": {}})[0].lock_pcr(16))


@pytest.mark.parametrize(
    "document", [b"", b"not cose", nitro.document()[:-1], nitro.document(unprotected={4: b"x"})]
)
def test_an_answer_that_is_no_document_is_refused(document: bytes) -> None:
    found, _ = device({"Attestation": {"document": document}})

    assert "not an attestation document" in refused(lambda: found.attest(nitro.REPORT_DATA)).message


def test_a_length_beyond_the_buffer_is_refused() -> None:
    def ioctl(_: int, argument: bytearray) -> int:
        argument[24:32] = (0x3001).to_bytes(8, "little")
        return 0

    assert "longer" in refused(attest.Device(ioctl).random).message


@pytest.mark.parametrize(
    ("number", "retryable"),
    [
        (errno.ETIMEDOUT, True),
        (errno.EMSGSIZE, False),
        (errno.EINVAL, False),
        (errno.ENOTTY, False),
        (errno.EIO, False),
    ],
)
def test_a_failing_call_is_an_error_in_words(number: int, *, retryable: bool) -> None:
    def ioctl(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    error = refused(lambda: attest.Device(ioctl).attest(bytes(64)))
    assert (error.retryable, bool(error.hint)) == (retryable, True)


@pytest.mark.parametrize("index", [-1, 32, 1 << 16])
def test_registers_are_numbered_0_to_31(index: int) -> None:
    found, driver = device("LockPCR")

    for call in (found.lock_pcr, found.describe_pcr, lambda i: found.extend_pcr(i, b"x")):
        with pytest.raises(ConfigurationError) as caught:
            call(index)
        assert caught.value.code == "configuration.pcr"
    assert driver.requests == []


def test_there_is_no_derived_key_and_the_error_says_what_to_do() -> None:
    with pytest.raises(TeeUnavailable) as caught:
        nsm()[0].derive_key(b"label")

    assert "broker" in caught.value.hint
    assert "KMS" in caught.value.hint


def test_without_a_module_there_is_no_device_and_no_simulated_one(tmp_path: Path) -> None:
    with pytest.raises(TeeUnavailable) as caught:
        attest.Device.find(tmp_path / "nsm")

    assert caught.value.code == "enclave.tee"


def test_a_file_that_is_not_the_module_is_asked_by_a_real_system_call_and_refused(tmp_path: Path) -> None:
    (tmp_path / "nsm").write_bytes(b"")

    error = refused(attest.Device.find(tmp_path / "nsm").random)
    assert "not the Nitro Security Module" in error.hint


def test_nit_14_randomness_comes_from_the_module_or_not_at_all() -> None:
    """What the parent instance could pass in is no source: an empty or failing answer is an error, never a fallback."""
    assert device({"GetRandom": {"random": b"\x05" * 32}})[0].random() == b"\x05" * 32
    refused(device({"GetRandom": {"random": b""}})[0].random)
    refused(device({"Error": "InternalError"})[0].random)
