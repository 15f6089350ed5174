# SPDX-License-Identifier: Apache-2.0
"""The appraisal policy: which TEEs, which measurements and which service a relying party accepts.

A policy is TOML (``docs/spec/evidence.md``, section 6). Unknown keys are errors, nothing that is absent means "any", and a
policy that pins no measurement does not exist unless it spells ``ANY``. Its digest is SHA-256 over its exact bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Self, cast

from confide.attestation import reference as reference_
from confide.attestation import schemes
from confide.errors import ConfigurationError, NotAcceptable
from confide.wire import hexadecimal
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from confide.attestation.anchors import TrustAnchor

__all__ = ["AppraisalPolicy", "ServicePolicy", "digests"]

MAX_BYTES: Final = 256 * 1024
MAX_VALUES: Final = 1024
MAX_DOTS: Final = 256
_AGE = re.compile(r"([1-9][0-9]{0,5})([smhd])", re.ASCII)
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_TCB_STATUS: Final = (
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "TDRelaunchAdvised",
    "TDRelaunchAdvisedConfigurationNeeded",
)


@dataclass(frozen=True, slots=True)
class ServicePolicy:
    """The service that must speak: its kind, the SHA-256 digests of the manifests that are admitted, and its id."""

    kind: str
    manifest: tuple[bytes, ...]
    id: str


@dataclass(frozen=True, slots=True)
class AppraisalPolicy:
    """A checked policy; make one with ``from_toml``, ``from_file`` or ``from_table``.

    ``reference`` maps each TEE in ``tees`` to its parsed table. ``tcb_status`` and ``min_tcb_evaluation`` are for Intel's
    TEEs. ``max_age`` is None where no age is asked for.
    """

    source: bytes = field(repr=False)
    tees: tuple[str, ...]
    max_age: timedelta | None
    allow_debug: bool
    require_revocation: bool
    tcb_status: tuple[str, ...]
    min_tcb_evaluation: int | None
    service: ServicePolicy | None
    reference: Mapping[str, schemes.Reference]
    unfilled: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "reference", MappingProxyType(dict(self.reference)))
        if not self.tees or set(self.tees) != set(self.reference):
            raise _empty("the policy does not pin a measurement for each TEE that it admits")
        if self.service is not None and not all(
            table.measured for tee, table in self.reference.items() if tee != "nvidia"
        ):
            raise NotAcceptable(
                "unmeasured_runtime",
                "[service] names a manifest, but a platform whose measurement is ANY can claim every manifest",
                hint="pin the measurement of the platform, or remove [service]",
            )

    @classmethod
    def from_toml(cls, text: bytes | str) -> Self:
        """Read a policy. Raises ``configuration`` errors for what is written wrongly, ``not_acceptable.empty_policy`` for
        a policy that pins nothing, ``not_acceptable.unmeasured_runtime`` for ``[service]`` beside a measurement ``ANY``.
        """
        try:
            source = text.encode() if isinstance(text, str) else bytes(text)
            if len(source) > MAX_BYTES:
                raise ConfigurationError("invalid", f"the policy is longer than {MAX_BYTES // 1024} KiB")
            decoded = source.decode()
            _check_dots(decoded)
            table = tomllib.loads(decoded)
        except (ValueError, RecursionError):  # Of UTF-8, of TOML, and of integers with thousands of digits.
            raise ConfigurationError(
                "invalid", "the policy is not TOML in UTF-8", hint="check quotes, brackets and duplicate keys"
            ) from None
        return cls._from_table(table, source)

    @classmethod
    def from_file(cls, path: Path | str) -> Self:
        """Read a policy from a file."""
        try:
            with Path(path).open("rb") as file:
                source = file.read(MAX_BYTES + 1)
        except OSError:
            raise ConfigurationError(
                "invalid", "the policy file cannot be read", hint="check the path given"
            ) from None
        return cls.from_toml(source)

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Self:
        """A policy from the same keys and values as in TOML; its source is the TOML written from them."""
        return cls.from_toml(_write(table))

    @classmethod
    def _from_table(cls, table: dict[str, Any], source: bytes) -> Self:
        fields = Fields(table, "the policy", ConfigurationError)
        tees = tuple(_texts(fields.list_("tees", default=[]), "tees"))
        references = fields.mapping("reference", default={})
        # A TEE that this version does not know is refused first, whatever else may be wrong with the policy.
        for tee in (*tees, *references):
            schemes.configured(tee)
        if not tees:
            raise _empty("the policy admits no TEE")
        if len(set(tees)) != len(tees) or set(references) - set(tees):
            raise ConfigurationError(
                "invalid",
                "`tees` has duplicates or lacks a TEE that has a [reference] table",
                hint="list each TEE once",
            )
        missing = set(tees) - set(references)
        if missing:
            raise _empty("a TEE in `tees` has no [reference] table, so nothing of it is pinned")
        status = tuple(_texts(fields.list_("tcb_status", default=["UpToDate"]), "tcb_status"))
        if not status or set(status) - set(_TCB_STATUS):
            raise ConfigurationError(
                "invalid",
                "`tcb_status` has a word that is not one of Intel's",
                hint=f"known: {', '.join(_TCB_STATUS)}",
            )
        age = fields.text("max_age", 16, default=None)
        policy = cls(
            source=source,
            tees=tees,
            max_age=None if age is None else _age(age),
            allow_debug=fields.boolean("allow_debug", default=False),
            require_revocation=fields.boolean("require_revocation", default=False),
            tcb_status=status,
            min_tcb_evaluation=fields.integer("min_tcb_evaluation", 0, 1 << 31, default=None),
            service=_service(fields.mapping("service", default=None)),
            reference={
                tee: _waiting(tee, _table(references, tee))
                or schemes.configured(tee).appraise.parse_reference(_table(references, tee))
                for tee in tees
            },
            unfilled=reference_.unfilled(references),
        )
        fields.end()
        return policy

    def with_reference_values(self, values: Iterable[reference_.ReferenceValues]) -> Self:
        """The same policy with every register that it spells ``"FILES"`` filled in from ``values``.

        The new policy is TOML of its own, so that its digest covers the values; what it pins otherwise stays. Raises
        ``not_acceptable.empty_policy`` for a register that no value is given for, ``configuration.invalid`` where the
        policy waits for none, or a value is not of the register's length.
        """
        if not self.unfilled:
            raise ConfigurationError(
                "invalid",
                "reference values were given, and the policy has no register for them",
                hint='spell it "FILES", as in `measurement = "FILES"`',
            )
        table = tomllib.loads(self.source.decode())
        table["reference"] = reference_.fill(table["reference"], values)
        return type(self).from_table(table)

    def check_filled(self) -> None:
        """Refuse, as ``not_acceptable.empty_policy``, a policy with a register that is still spelled ``"FILES"``."""
        for tee, register in self.unfilled:
            raise reference_.empty(tee, register)

    @property
    def devices(self) -> Mapping[str, schemes.DeviceReference]:
        """The tables of the devices that the policy names."""
        return {
            tee: cast("schemes.DeviceReference", table)
            for tee, table in self.reference.items()
            if tee in schemes.DEVICES
        }

    @property
    def digest(self) -> bytes:
        """SHA-256 over the exact bytes that the policy was read from."""
        return hashlib.sha256(self.source).digest()

    def to_toml(self) -> str:
        """The policy as it was read."""
        return self.source.decode()


@dataclass(frozen=True, slots=True)
class _Waiting:
    """The table of a TEE that waits for reference values: no evidence can be judged by it, since no TEE knows it."""

    measured: bool = True
    wildcards: tuple[str, ...] = ()
    anchors: tuple[TrustAnchor, ...] = ()


def _waiting(tee: str, table: dict[str, Any]) -> schemes.Reference | None:
    return _Waiting() if reference_.unfilled({tee: table}) else None


def digests(
    fields: Fields, key: str, length: int, *, default: tuple[bytes, ...] | None
) -> tuple[bytes, ...] | None:
    """A non-empty list of hexadecimal values of ``length`` bytes each, or ``default`` where the key is absent."""
    values = fields.list_(key, MAX_VALUES, default=None)
    if values is None:
        return default
    if not values:
        raise _empty(f"`{key}` is an empty list, which admits nothing")
    return tuple(_hex(value, key, length) for value in values)


def _hex(value: object, key: str, length: int) -> bytes:
    if not isinstance(value, str):
        raise ConfigurationError(
            "invalid", f"`{key}` has a value that is not text", hint="write hexadecimal in quotes"
        )
    try:
        return hexadecimal.decode(value, what=key, length=length)
    except Exception as error:
        raise ConfigurationError(
            "invalid",
            f"`{key}` has a value that is not {length} bytes of hexadecimal",
            hint="lower case, two digits a byte",
        ) from error


def _check_dots(text: str) -> None:
    """Refuse keys of very many parts, for which `tomllib` takes time in the square of their number: minutes for a policy.

    Dots are counted wherever they stand, since telling keys from text would take a second reader of TOML to agree.
    """
    if any(line.count(".") > MAX_DOTS for line in text.split("\n")):
        raise ConfigurationError(
            "invalid", f"a line of the policy has more than {MAX_DOTS} dots", hint="break or shorten the line"
        )


def _empty(message: str) -> NotAcceptable:
    return NotAcceptable(
        "empty_policy",
        message,
        hint='pin `measurement` in a [reference] table, or spell "ANY" if you mean it',
    )


def _age(text: str) -> timedelta:
    found = _AGE.fullmatch(text)
    if found is None:
        raise ConfigurationError(
            "invalid", "`max_age` is not a duration", hint='write "45s", "30m", "1h" or "2d"'
        )
    return timedelta(seconds=int(found[1]) * _UNITS[found[2]])


def _service(table: dict[str, Any] | None) -> ServicePolicy | None:
    if table is None:
        return None
    fields = Fields(table, "[service]", ConfigurationError)
    manifest = digests(fields, "manifest", 32, default=None)
    service = ServicePolicy(kind=fields.text("kind", 64), manifest=manifest or (), id=fields.text("id", 256))
    fields.end()
    if not service.kind or not service.id:
        raise ConfigurationError(
            "invalid", "`kind` or `id` in [service] is empty", hint="name the service and its tenant"
        )
    if manifest is None:
        raise _empty("[service] pins no manifest")
    return service


def _table(references: dict[str, Any], tee: str) -> dict[str, Any]:
    table = references[tee]
    if not isinstance(table, dict):
        raise ConfigurationError("invalid", f"[reference.{tee}] is not a table")
    return table


def _texts(values: list[Any], key: str) -> list[str]:
    if any(not isinstance(value, str) for value in values):
        raise ConfigurationError("invalid", f"`{key}` has a value that is not text")
    return values


def _write(table: Mapping[str, Any]) -> str:
    """TOML of a policy's table: plain values first, then one header for each table."""
    lines: list[str] = []
    later: list[tuple[str, Mapping[str, Any]]] = []
    for key, value in table.items():
        if key == "reference" and isinstance(value, Mapping):
            later += [(f"reference.{_key(tee)}", inner) for tee, inner in value.items()]
        elif isinstance(value, Mapping):
            later.append((_key(key), value))
        else:
            lines.append(f"{_key(key)} = {_value(value)}")
    for name, inner in later:
        if not isinstance(inner, Mapping):
            raise ConfigurationError("invalid", "a [reference] entry is not a table")
        lines += ["", f"[{name}]", *(f"{_key(key)} = {_value(value)}" for key, value in inner.items())]
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name, re.ASCII) else _value(name)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items()) + " }"
    raise ConfigurationError("invalid", "a policy holds only text, integers, booleans, lists and tables")
