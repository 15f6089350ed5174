# SPDX-License-Identifier: Apache-2.0
"""Ask the Nitro Security Module, from inside an enclave: documents, registers and randomness through /dev/nsm.

Source: Linux, include/uapi/linux/nsm.h and drivers/misc/nsm.c; aws-nitro-enclaves-nsm-api, src/api and src/driver. Nothing
falls back to a simulation.
"""

from __future__ import annotations

import ctypes
import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from confide.attestation.attester import PlatformEvidence
from confide.attestation.binding import REPORT_DATA_BYTES
from confide.attestation.evidence import EvidencePart
from confide.errors import ConfideError, ConfigurationError, EnclaveError, MalformedError, TeeUnavailable
from confide.tees.nitro import wire
from confide.wire import cbor
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Device", "Module", "Register"]

_T = TypeVar("_T")

NSM: Final = Path("/dev/nsm")
NSM_IOCTL_RAW: Final = 0xC0200A00
MAX_REQUEST: Final = 0x1000
MAX_RESPONSE: Final = 0x3000
MAX_PCR: Final = 31
_WHAT: Final = "NSM response"
_STAGE: Final = "attest"
_ERRORS: Final = {
    "InvalidArgument": "an argument is not valid",
    "InvalidIndex": "there is no such PCR",
    "InvalidResponse": "the module answered another question",
    "ReadOnlyIndex": "this PCR is locked",
    "InvalidOperation": "the module cannot do this",
    "BufferTooSmall": "the answer does not fit the buffer",
    "InputTooLarge": "the request is too large",
    "InternalError": "the module failed",
}


@dataclass(frozen=True, slots=True)
class Module:
    """What the module says of itself (DescribeNSM)."""

    version: tuple[int, int, int]
    module_id: str
    max_pcrs: int
    locked_pcrs: frozenset[int]
    digest: str


@dataclass(frozen=True, slots=True)
class Register:
    """One PCR as the module shows it: its value (48 bytes), and whether it can no longer be extended."""

    locked: bool
    value: bytes


class Device:
    """A Nitro enclave's own module: the Attester of code that runs in the enclave.

    ``ioctl(request, argument)`` changes ``argument`` (32 bytes) in place and raises OSError.
    """

    __slots__ = ("_ioctl",)

    def __init__(self, ioctl: Callable[[int, bytearray], object]) -> None:
        self._ioctl = ioctl

    @classmethod
    def find(cls, path: Path = NSM) -> Device:
        """The module of this enclave. Raises TeeUnavailable where there is none: never a simulated one instead."""
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        except OSError:
            raise TeeUnavailable(
                "tee",
                "this is not a Nitro enclave, or its /dev/nsm is not open to this user",
                hint="run `confide doctor`; the device exists inside an enclave only, not in its parent instance",
                stage=_STAGE,
            ) from None

        def ioctl(request: int, argument: bytearray) -> object:
            import fcntl

            opened = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                return fcntl.ioctl(opened, request, argument)
            finally:
                os.close(opened)

        return cls(ioctl)

    def attest(self, report_data: bytes) -> PlatformEvidence:
        """A document whose `user_data` is exactly these 64 bytes, without nonce and public key.

        Raises ``enclave.bad_state`` if the module fails or answers another question.
        """
        if len(report_data) != REPORT_DATA_BYTES:
            raise ConfigurationError("report_data", "report data is exactly 64 bytes")
        return PlatformEvidence(EvidencePart("nitro", self.document(user_data=bytes(report_data))))

    def document(
        self, *, user_data: bytes | None = None, nonce: bytes | None = None, public_key: bytes | None = None
    ) -> bytes:
        """A signed document over up to 1024 bytes each; the fields of what comes back are compared with what was asked for."""
        asked = {"user_data": user_data, "nonce": nonce, "public_key": public_key}
        if any(value is not None and len(value) > wire.MAX_FIELD for value in asked.values()):
            raise ConfigurationError(
                "nsm", f"user data, nonce and public key have at most {wire.MAX_FIELD} bytes"
            )
        answer = self._ask("Attestation", asked)
        data = _read(answer, lambda fields: fields.bytes_("document", max_length=MAX_RESPONSE))
        try:
            document = wire.decode_document(data)
        except ConfideError as error:
            raise _bad("the module answered with something that is not an attestation document") from error
        if (document.user_data, document.nonce, document.public_key) != (user_data, nonce, public_key):
            raise _bad("the module answered with a document over other data")
        return data

    def derive_key(self, label: bytes) -> bytes:
        """Never: Nitro gives an enclave no key of its own that a later start could derive again."""
        del label
        raise TeeUnavailable(
            "tee",
            "Nitro enclaves have no key of their own that outlives them",
            hint="have a key broker release the key to this enclave's evidence (`confide broker`), or AWS KMS with a recipient",
            stage=_STAGE,
        )

    def describe(self) -> Module:
        """What the module says of itself."""
        answer = self._ask("DescribeNSM")

        def read(fields: Fields) -> Module:
            return Module(
                version=(
                    fields.integer("version_major", 0, 0xFFFF),
                    fields.integer("version_minor", 0, 0xFFFF),
                    fields.integer("version_patch", 0, 0xFFFF),
                ),
                module_id=fields.text("module_id", 256),
                max_pcrs=fields.integer("max_pcrs", 1, 0xFFFF),
                locked_pcrs=frozenset(_indices(fields.list_("locked_pcrs", 0xFFFF))),
                digest=fields.text("digest", 16),
            )

        return _read(answer, read)

    def random(self) -> bytes:
        """Random bytes of the module (up to 256 as of today); never of the parent instance."""
        found = _read(self._ask("GetRandom"), lambda fields: fields.bytes_("random", max_length=MAX_RESPONSE))
        if not found:
            raise _bad("the module gave no random bytes")
        return found

    def extend_pcr(self, index: int, data: bytes) -> bytes:
        """Extend PCR ``index`` (16 to 31 are open to enclaves) with ``data``; its new value (48 bytes)."""
        answer = self._ask("ExtendPCR", {"index": _index(index), "data": bytes(data)})
        return _read(answer, lambda fields: fields.bytes_("data", wire.PCR_BYTES))

    def lock_pcr(self, index: int) -> None:
        """Lock PCR ``index``: from now on it cannot be extended, and documents show it."""
        _nothing(self._ask("LockPCR", {"index": _index(index)}))

    def lock_pcrs(self, count: int) -> None:
        """Lock the PCRs 0 to ``count`` - 1."""
        _nothing(self._ask("LockPCRs", {"range": _index(count - 1) + 1}))

    def describe_pcr(self, index: int) -> Register:
        """Value and lock of PCR ``index``, 0 to 31."""
        answer = self._ask("DescribePCR", {"index": _index(index)})
        return _read(
            answer, lambda fields: Register(fields.boolean("lock"), fields.bytes_("data", wire.PCR_BYTES))
        )

    def _ask(self, name: str, fields: dict[str, Any] | None = None) -> Any:
        """What the module answers to one request: the fields of its answer, or None for an answer without."""
        response = self._exchange(_encode(name, fields))
        try:
            answer = cbor.decode(
                response, what=_WHAT, max_size=MAX_RESPONSE, max_depth=4, deterministic=False, open_map=True
            )
        except MalformedError as error:
            # The kernel cuts an answer that does not fit without saying so, which shows here.
            raise _bad("the module's answer is cut off or not CBOR") from error
        if answer == name:
            return None
        if isinstance(answer, dict) and set(answer) == {"Error"}:
            word = answer["Error"] if isinstance(answer["Error"], str) else ""
            raise _bad(f"the module refused: {_ERRORS.get(word, 'for a reason that is not known here')}")
        if not isinstance(answer, dict) or set(answer) != {name}:
            raise _bad("the module answered another question")
        return answer[name]

    def _exchange(self, request: bytes) -> bytes:
        if len(request) > MAX_REQUEST:
            raise ConfigurationError("nsm", f"a request to the module has at most {MAX_REQUEST} bytes")
        # The argument holds addresses of these buffers, which must live until the call has returned.
        question = ctypes.create_string_buffer(request, len(request))
        answer = ctypes.create_string_buffer(MAX_RESPONSE)
        argument = bytearray(
            wire.NsmMessage(
                request_address=ctypes.addressof(question),
                request_length=len(request),
                response_address=ctypes.addressof(answer),
                response_length=MAX_RESPONSE,
            ).encode()
        )
        try:
            self._ioctl(NSM_IOCTL_RAW, argument)
        except OSError as error:
            raise _failed(error) from error
        length = wire.NsmMessage.decode(argument).response_length
        if length > MAX_RESPONSE:
            raise _bad("the kernel names a longer answer than there was room for")
        return answer.raw[:length]


def _encode(name: str, fields: dict[str, Any] | None) -> bytes:
    """A request as AWS's library writes it: a text alone, or a map of one entry, fields in the order given."""
    if fields is None:
        return cbor.encode(name)
    inner = b"".join(cbor.encode(key) + cbor.encode(value) for key, value in fields.items())
    return b"\xa1" + cbor.encode(name) + bytes((0xA0 | len(fields),)) + inner


def _read(answer: Any, read: Callable[[Fields], _T]) -> _T:
    try:
        fields = Fields(answer, _WHAT)
        found = read(fields)
        fields.end()
    except MalformedError as error:
        raise _bad("the module's answer has other fields than its interface names") from error
    return found


def _nothing(answer: Any) -> None:
    if answer is not None:
        raise _bad("the module's answer has fields where its interface names none")


def _indices(values: list[Any]) -> list[int]:
    if any(type(value) is not int or not 0 <= value <= 0xFFFF for value in values):
        raise MalformedError("non_canonical", f"{_WHAT}: an index that is not a number")
    return values


def _index(index: int) -> int:
    if not 0 <= index <= MAX_PCR:
        raise ConfigurationError("pcr", f"PCRs are numbered 0 to {MAX_PCR}")
    return index


def _bad(message: str) -> EnclaveError:
    return EnclaveError("bad_state", message, stage=_STAGE)


def _failed(error: OSError) -> EnclaveError:
    hint = {
        errno.EMSGSIZE: "the request is longer than the module takes",
        errno.ETIMEDOUT: "the hypervisor did not answer for two minutes; try again",
        errno.EINVAL: "the kernel's driver does not know this request",
        errno.ENOTTY: "this device is not the Nitro Security Module",
        errno.EACCES: "give this user access to the device",
    }.get(error.errno or 0, "see the kernel's log")
    return EnclaveError(
        "bad_state",
        "the Nitro Security Module failed",
        hint=hint,
        stage=_STAGE,
        retryable=error.errno in {errno.ETIMEDOUT, errno.EINTR},
    )
