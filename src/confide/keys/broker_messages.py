# SPDX-License-Identifier: Apache-2.0
"""What a broker and its clients say to each other: deterministic CBOR inside the attested envelope.

Specification: docs/spec/broker.md section 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from confide.errors import (
    BrokerError,
    ConfideError,
    ConfigurationError,
    EnclaveError,
    KeyRefused,
    MalformedError,
    NotAcceptable,
    NotGenuine,
    SealingError,
)
from confide.keys.signed_policy import OWNER_BYTES, check_name
from confide.sealing.names import is_version
from confide.wire import cbor
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "MAX_REQUEST_BODY",
    "MAX_RESPONSE_BODY",
    "MEDIA_TYPE",
    "STATUS_OF",
    "Wanted",
    "broker_audience",
    "decode",
    "encode",
    "error_body",
    "read_error",
    "read_wanted",
]

MEDIA_TYPE: Final = "application/confide-broker"
VERSION: Final = 1
MAX_REQUEST_BODY: Final = 512 * 1024
MAX_RESPONSE_BODY: Final = 16 * 1024 * 1024
MAX_WANTED: Final = 32

STATUS_OF: Final[Mapping[str, int]] = {
    "broker.denied": 403,
    "broker.not_attested": 403,
    "broker.not_found": 404,
    "broker.conflict": 409,
    "broker.too_large": 413,
    "broker.rate_limited": 429,
    "broker.unanchored": 503,
    "broker.integrity": 503,
    "broker.rollback": 503,
    "sealing.storage_full": 503,
    "sealing.storage_io": 503,
    "enclave.bad_state": 500,
}
"""HTTP status by error code; every other code is 400."""

_FAMILIES: Final[Mapping[str, type[ConfideError]]] = {
    cls.family: cls
    for cls in (
        BrokerError,
        ConfigurationError,
        EnclaveError,
        MalformedError,
        NotAcceptable,
        NotGenuine,
        SealingError,
    )
}


def broker_audience(service_id: str) -> str:
    """The audience that evidence for a release by a broker names: the broker's measured service id."""
    return "broker:" + check_name(service_id, "service id")


@dataclass(frozen=True, slots=True, order=True)
class Wanted:
    """A secret that an enclave asks for; version 0 is the newest that the policy allows."""

    name: str
    version: int = 0


def read_wanted(items: list[Any]) -> tuple[Wanted, ...]:
    """Read 1 to 32 pairs of name and version, sorted, no name twice."""
    if not 1 <= len(items) <= MAX_WANTED:
        raise MalformedError("limit_exceeded", f"the number of secrets is not from 1 to {MAX_WANTED}")
    wanted = []
    for item in items:
        if not isinstance(item, list) or len(item) != 2 or type(item[1]) is not int:
            raise MalformedError("non_canonical", "a wanted secret is not a pair of name and version")
        if item[1] != 0 and not is_version(item[1]):
            raise BrokerError("name_invalid", "the version of a wanted secret is out of range")
        wanted.append(Wanted(check_name(item[0]), item[1]))
    if wanted != sorted(wanted) or len({w.name for w in wanted}) != len(wanted):
        raise MalformedError("non_canonical", "the wanted secrets are not sorted and distinct")
    return tuple(wanted)


def encode(**body: object) -> bytes:
    """A message: its version and what else it says."""
    return cbor.encode({"v": VERSION, **body})


def decode(data: bytes, what: str, max_size: int = MAX_REQUEST_BODY) -> Fields:
    """The fields of a message; the caller reads each and calls ``end()``."""
    fields = Fields(cbor.decode(data, what=what, max_size=max_size), what)
    if fields.integer("v", 0, 2**32) != VERSION:
        raise MalformedError("unsupported_version", f"{what}: a version that is not supported")
    return fields


def read_owner(fields: Fields) -> bytes:
    """The public key (32 bytes) of the owner that a message is about."""
    return fields.bytes_("owner", OWNER_BYTES)


def error_body(error: ConfideError) -> tuple[int, bytes]:
    """The status and body by which the broker refuses; messages of confide hold no values."""
    body = encode(code=error.code, message=error.message, hint=error.hint, retryable=error.retryable)
    return STATUS_OF.get(error.code, 400), body


def read_error(status: int, data: bytes) -> ConfideError:
    """The error that a broker answered with, as the class of its family."""
    try:
        fields = decode(data, "broker error", 16 * 1024)
        family, _, leaf = fields.text("code", 64).partition(".")
        message = fields.text("message", 1024)
        hint = fields.text("hint", 1024)
        retryable = fields.boolean("retryable")
        fields.end()
    except ConfideError:
        return BrokerError("integrity", f"the broker answered with status {status} and no reason")
    cls = _FAMILIES.get(family, BrokerError)
    if family == "broker" and leaf in {"denied", "not_attested"}:
        cls = KeyRefused
    return cls(leaf, message, hint=hint, retryable=retryable)
