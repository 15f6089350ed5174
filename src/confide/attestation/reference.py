# SPDX-License-Identifier: Apache-2.0
"""Reference values: named measurements, and where they come from; read from and written to files of their own.

A file is TOML, or CoRIM in CBOR (``attestation.corim``). In TOML it is a list of tables:

    [[reference_values]]
    tee = "snp"
    origin = "confide measure, service acme-scoring, release 7"
    [reference_values.registers]
    measurement = ["<96 hex digits>"]

Registers are those of the TEE's policy table that take a list of digests; ``pcr`` of a TPM is spelled by its number, as
``pcr4``. A policy admits any of the values of a register, whatever the values of the others: what belongs together in one
release is not held together. Who supplies such a file decides what runs, so it is believed like a policy.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from confide.errors import ConfideError, ConfigurationError, NotAcceptable
from confide.wire import hexadecimal
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

__all__ = ["PLACEHOLDER", "ReferenceValues", "fill", "read", "unfilled", "write"]

PLACEHOLDER: Final = "FILES"
"""How a policy spells a register whose values come from such files."""

MAX_FILE: Final = 256 * 1024
MAX_TABLES: Final = 256
MAX_VALUES: Final = 1024
MAX_VALUE: Final = 64
_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ReferenceValues:
    """Measurements that are acceptable, by the TEE's own register name; ``origin`` says for a person who computed them.

    For SNP there is one register, ``measurement`` (48 bytes each value). An empty tuple admits nothing.
    """

    tee: str
    measurements: Mapping[str, tuple[bytes, ...]]
    origin: str

    def __post_init__(self) -> None:
        frozen = {name: tuple(values) for name, values in self.measurements.items()}
        object.__setattr__(self, "measurements", MappingProxyType(frozen))


def read(
    data: bytes, *, at: datetime | None = None, keys: tuple[bytes, ...] = ()
) -> tuple[ReferenceValues, ...]:
    """The values in a file of at most 256 KiB, TOML or CoRIM.

    ``at`` and ``keys`` (DER SubjectPublicKeyInfo) are for CoRIMs that state a validity or are signed; with ``keys`` nothing
    else than a signed CoRIM is read. Raises ``configuration.invalid`` for TOML that is written wrongly, ``malformed`` for
    CBOR, ``not_genuine`` for a signature that is wrong or missing, ``not_acceptable.empty_policy`` for an empty list of values.
    """
    binary = data[:1] in {b"\xd2", b"\xd9"}  # Tag 18 or a tag of two bytes; no text in UTF-8 begins so.
    if binary or keys:
        from confide.attestation import corim

        if not binary:
            raise corim.unsigned()
        return corim.read(data, at=at, keys=keys)
    if len(data) > MAX_FILE:
        raise ConfigurationError(
            "invalid", f"the file of reference values is longer than {MAX_FILE // 1024} KiB"
        )
    table = None
    try:
        text = data.decode("utf-8")
        if max(line.count(".") for line in text.split("\n")) <= 256:  # As for policies: tomllib squares them.
            table = tomllib.loads(text)
    except (ValueError, RecursionError):
        pass  # Raised below, without the text.
    if table is None:
        raise ConfigurationError(
            "invalid", "the file of reference values is neither TOML in UTF-8 nor CoRIM in CBOR"
        )
    fields = Fields(table, "the file of reference values", ConfigurationError)
    entries = fields.list_("reference_values", MAX_TABLES)
    fields.end()
    if not entries:
        raise NotAcceptable("empty_policy", "the file of reference values has none")
    return tuple(_read(entry) for entry in entries)


def _read(entry: Any) -> ReferenceValues:
    fields = Fields(entry, "[[reference_values]]", ConfigurationError)
    tee, origin = fields.text("tee", 32), fields.text("origin", 1024)
    registers = fields.mapping("registers")
    fields.end()
    if not _NAME.fullmatch(tee) or not origin or not registers:
        raise ConfigurationError("invalid", "[[reference_values]] lacks its TEE, its origin or its registers")
    return ReferenceValues(tee, {name: _values(name, values) for name, values in registers.items()}, origin)


def _values(name: str, values: object) -> tuple[bytes, ...]:
    if not _NAME.fullmatch(name) or not isinstance(values, list) or len(values) > MAX_VALUES:
        raise ConfigurationError(
            "invalid", "a register of [[reference_values]] is not a name with a list of values"
        )
    if not values:
        raise NotAcceptable("empty_policy", f"`{name}` in [[reference_values]] is an empty list")
    found = []
    for value in values:
        try:
            found.append(hexadecimal.decode(value, what=name))
        except ConfideError:
            raise ConfigurationError(
                "invalid", f"`{name}` in [[reference_values]] has a value that is not lower-case hexadecimal"
            ) from None
        if not 1 <= len(found[-1]) <= MAX_VALUE:
            raise ConfigurationError("invalid", f"`{name}` in [[reference_values]] has a value of no length")
    return tuple(found)


def write(values: Iterable[ReferenceValues]) -> bytes:
    """The values as TOML, which ``read`` reads back; the same values give the same bytes."""
    lines: list[str] = []
    for one in values:
        if not _NAME.fullmatch(one.tee) or not one.origin or not one.measurements:
            raise ConfigurationError("invalid", "reference values without TEE, origin or registers")
        lines += ["[[reference_values]]", f"tee = {_text(one.tee)}", f"origin = {_text(one.origin)}"]
        lines.append("[reference_values.registers]")
        for name in sorted(one.measurements):
            listed = ", ".join(f'"{value.hex()}"' for value in one.measurements[name])
            lines.append(f"{name} = [{listed}]")
        lines.append("")
    data = "\n".join(lines).encode()
    read(data)
    return data


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def unfilled(references: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """TEE and register of every placeholder in the ``reference`` tables of a policy."""
    return tuple(
        (tee, register)
        for tee, table in references.items()
        if isinstance(table, Mapping)
        for register, _ in _placeholders(table)
    )


def _placeholders(table: Mapping[str, Any]) -> list[tuple[str, tuple[str, ...]]]:
    """Registers spelled ``FILES`` with their place: ``measurement``, or ``pcr4`` for ``pcr = { 4 = "FILES" }``."""
    found: list[tuple[str, tuple[str, ...]]] = []
    for key, value in table.items():
        if value == PLACEHOLDER:
            found.append((key, (key,)))
        elif key == "pcr" and isinstance(value, Mapping):
            found += [
                (f"{key}{index}", (key, index)) for index, inner in value.items() if inner == PLACEHOLDER
            ]
    return found


def fill(references: Mapping[str, Any], values: Iterable[ReferenceValues]) -> dict[str, Any]:
    """The ``reference`` tables with every placeholder replaced by all values given for its TEE and register.

    Raises ``not_acceptable.empty_policy`` naming the register for which there are none.
    """
    given = tuple(values)
    filled: dict[str, Any] = {}
    for tee, table in references.items():
        filled[tee] = table
        if not isinstance(table, Mapping):
            continue
        copy: dict[str, Any] = {
            key: dict(value) if isinstance(value, Mapping) else value for key, value in table.items()
        }
        for register, place in _placeholders(table):
            found = [one.measurements.get(register, ()) for one in given if one.tee == tee]
            listed = list(dict.fromkeys(value.hex() for several in found for value in several))
            if not listed:
                raise empty(tee, register)
            inner = copy if len(place) == 1 else copy[place[0]]
            inner[place[-1]] = listed
        filled[tee] = copy
    return filled


def empty(tee: str, register: str) -> NotAcceptable:
    """The refusal of a policy that waits for values which nobody has given."""
    return NotAcceptable(
        "empty_policy",
        f"`{register}` of [reference.{tee}] is to come from reference values, and none were given for it",
        hint="give them with --reference-values, or pin the register in the policy",
    )
