# SPDX-License-Identifier: Apache-2.0
"""A service: plain measured configuration that says what an enclave runs and what it may touch.

Everything here ends in the measured manifest (``confide.enclave.manifest``), except the places of code on this machine:
those are measured by content. A service holds no secret and no function, only names, numbers and text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from confide.enclave import registry
from confide.errors import ConfigurationError, MalformedError
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BrokerAddress", "CodeRoot", "Limits", "SecretPin", "Service"]

MIB = 1024 * 1024
GIB = 1024 * MIB

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?\Z")
_IMPORT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,126}\Z")
_DISTRIBUTION = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,126}[a-z0-9])?\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,126}\Z")
_HOST_PORT = re.compile(r"(?P<host>[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?):(?P<port>[1-9][0-9]{0,4})\Z")
_SAFE_INTEGER = 1 << 63

# What a variable of these names does happens before the first measured line runs (the loader, glibc, the interpreter),
# or redirects traffic and key logs. Being measured would not make them safe to set.
_STEERING_PREFIXES = ("PYTHON", "LD_", "DYLD_", "GLIBC_", "MALLOC_", "OPENSSL_", "CONFIDE_", "BASH_")
_STEERING_NAMES = frozenset(
    {
        "ALL_PROXY", "ENV", "FTP_PROXY", "GCONV_PATH", "GETCONF_DIR", "HOSTALIASES", "HTTP_PROXY", "HTTPS_PROXY", "IFS",
        "LOCALDOMAIN", "LOCPATH", "NIS_PATH", "NLSPATH", "NO_PROXY", "PATH", "REQUESTS_CA_BUNDLE", "RESOLV_HOST_CONF",
        "RES_OPTIONS", "SSL_CERT_DIR", "SSL_CERT_FILE", "SSLKEYLOGFILE", "TMPDIR", "TZDIR",
    }
)  # fmt: skip


def _refuse(leaf: str, message: str, hint: str = "") -> ConfigurationError:
    return ConfigurationError(leaf, message, hint=hint, stage="service")


@dataclass(frozen=True, slots=True)
class CodeRoot:
    """The user's own code: a package's folder or one module's file, and the name under which it is imported."""

    path: Path
    name: str

    def __post_init__(self) -> None:
        if _IMPORT_NAME.match(self.name) is None:
            raise _refuse(
                "code", "the import name of code is not an identifier", "use the name that `import` uses"
            )
        if self.name == "confide":
            raise _refuse("code", "confide itself is always measured", "remove it from the service's code")


@dataclass(frozen=True, slots=True)
class SecretPin:
    """A secret or a protected file by name, with the Ed25519 public key (32 B) of the owner who alone may supply it."""

    name: str
    owner_public: bytes

    def __post_init__(self) -> None:
        if _NAME.match(self.name) is None:
            raise _refuse(
                "secret", "a secret's name is letters, digits, dot, dash and underscore, at most 128"
            )
        if not isinstance(self.owner_public, bytes) or len(self.owner_public) != 32:
            raise _refuse("secret", "an owner's public key is 32 bytes", "`confide identity show` prints it")


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where the enclave fetches its keys by itself, and the policy (TOML text) by which it attests that broker first."""

    url: str
    policy: str

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")) or len(self.url) > 2048 or not self.url.isascii():
            raise _refuse(
                "broker", "a broker's address is an http or https URL of at most 2048 ASCII characters"
            )
        if not self.policy.strip() or len(self.policy) > 64 * 1024:
            raise _refuse(
                "broker", "a broker is attested first, so its policy must be given (at most 64 KiB)"
            )


_LIMIT_RANGES: Mapping[str, tuple[int, int]] = {
    "memory": (64 * MIB, 1 << 44),
    "processes": (4, 65_536),
    "open_files": (32, 1_048_576),
    "max_body": (1024, 1 << 40),
    "deadline": (1, 86_400),
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What the enclave may use. Sizes are bytes, times are whole seconds, ``processes`` counts threads too."""

    memory: int = 4 * GIB
    processes: int = 64
    open_files: int = 256
    max_body: int = 64 * MIB
    deadline: int = 60

    def __post_init__(self) -> None:
        for name, (low, high) in _LIMIT_RANGES.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise _refuse("limit", f"the limit {name} is not between {low} and {high}")

    def to_plain(self) -> dict[str, int]:
        """The limits as they stand in the manifest."""
        return {name: getattr(self, name) for name in _LIMIT_RANGES}

    @classmethod
    def from_plain(cls, fields: Fields) -> Self:
        """Read what ``to_plain`` gives; absent limits are refused, since a manifest spells every one out."""
        values = {name: fields.integer(name, low, high) for name, (low, high) in _LIMIT_RANGES.items()}
        fields.end()
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Service:
    """Plain measured configuration of one enclave.

    ``kind`` is one of ``confide.enclave.registry``; ``id`` names the tenant, room or run; ``options`` is configuration
    for the kind's builder (text, bytes, integers, booleans, None, lists and maps; no floats, which have no single
    encoding); ``code`` is the user's own code; ``requires`` names distributions beyond those that confide itself
    needs; ``environment`` is the whole environment of the worker; ``egress`` is what may be reached, as ``host:port``;
    ``secrets`` and ``models`` pin owners; ``broker`` says where keys come from, if not from ``confide unlock``;
    ``at_most_once`` forbids retries of calls; ``max_session`` is in seconds; ``evidence`` is ``fresh`` or ``cached``.

    Raises ``ConfigurationError`` when a value is outside of what a manifest can say.
    """

    kind: str
    id: str
    options: Mapping[str, object] = field(default_factory=dict)
    code: tuple[CodeRoot, ...] = ()
    requires: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = Limits()
    egress: tuple[str, ...] = ()
    debug: bool = False
    secrets: tuple[SecretPin, ...] = ()
    models: tuple[SecretPin, ...] = ()
    broker: BrokerAddress | None = None
    at_most_once: bool = False
    max_session: int = 3600
    evidence: str = "fresh"

    def __post_init__(self) -> None:
        registry.builder_name(self.kind)
        if _NAME.match(self.id) is None:
            raise _refuse("id", "a service's id is letters, digits, dot, dash and underscore, at most 128")
        set_field = object.__setattr__
        set_field(self, "options", _plain_map(self.options, "options"))
        set_field(self, "environment", _environment(self.environment))
        set_field(self, "egress", tuple(sorted(_egress(entry) for entry in self.egress)))
        set_field(self, "requires", tuple(sorted({_distribution(name) for name in self.requires})))
        set_field(self, "code", tuple(sorted(self.code, key=lambda root: root.name)))
        set_field(self, "secrets", tuple(sorted(self.secrets, key=lambda pin: pin.name)))
        set_field(self, "models", tuple(sorted(self.models, key=lambda pin: pin.name)))
        for what, names in (
            ("code", [root.name for root in self.code]),
            ("secrets", [pin.name for pin in self.secrets]),
            ("models", [pin.name for pin in self.models]),
            ("egress", list(self.egress)),
        ):
            if len(set(names)) != len(names):
                raise _refuse("duplicate", f"{what} names one thing twice")
        if not isinstance(self.debug, bool) or not isinstance(self.at_most_once, bool):
            raise _refuse("flag", "debug and at_most_once are true or false")
        if not isinstance(self.max_session, int) or not 1 <= self.max_session <= 86_400:
            raise _refuse("limit", "max_session is between 1 and 86400 seconds")
        if self.evidence not in {"fresh", "cached"}:
            raise _refuse("evidence", "evidence is either fresh or cached")

    @classmethod
    def from_toml(cls, path: Path | str) -> Self:
        """Read a ``service.toml``; its paths are relative to its folder and stay below it.

        Raises ``ConfigurationError`` for unknown keys, wrong types, sizes without a unit, and paths that leave the folder.
        """
        from confide.enclave import service_file

        return cls(**service_file.read(Path(path)))

    def to_toml(self, folder: Path | str | None = None) -> str:
        """The service as a ``service.toml`` that will lie in ``folder``; only code needs the folder."""
        from confide.enclave import service_file

        return service_file.write(self, None if folder is None else Path(folder))

    def configuration(self) -> dict[str, object]:
        """What of this service stands in the manifest as it is: everything but ``code`` and ``requires``."""
        broker = (
            {} if self.broker is None else {"broker": {"url": self.broker.url, "policy": self.broker.policy}}
        )
        return {
            **broker,
            "at_most_once": self.at_most_once,
            "debug": self.debug,
            "egress": list(self.egress),
            "environment": dict(self.environment),
            "evidence": self.evidence,
            "id": self.id,
            "kind": self.kind,
            "limits": self.limits.to_plain(),
            "max_session": self.max_session,
            "models": {pin.name: pin.owner_public for pin in self.models},
            "options": dict(self.options),
            "secrets": {pin.name: pin.owner_public for pin in self.secrets},
        }

    @classmethod
    def from_configuration(cls, configuration: Mapping[Any, Any]) -> Self:
        """Read what ``configuration`` gives, strictly; the service has no code and requires nothing.

        Raises ``MalformedError`` for unknown, absent or wrongly typed fields.
        """
        fields = Fields(configuration, "service configuration")
        broker = None
        if fields.has("broker"):
            address = Fields(fields.mapping("broker"), "broker of a service")
            broker = (address.text("url", 2048), address.text("policy", 64 * 1024, multiline=True))
            address.end()
        try:
            service = cls(
                kind=fields.text("kind"),
                id=fields.text("id"),
                options=_text_keys(fields.mapping("options"), "options"),
                environment=_text_values(fields.mapping("environment"), "environment"),
                limits=Limits.from_plain(Fields(fields.mapping("limits"), "limits of a service")),
                egress=tuple(_texts(fields.list_("egress"), "egress")),
                debug=fields.boolean("debug"),
                secrets=_pins(fields.mapping("secrets"), "secrets"),
                models=_pins(fields.mapping("models"), "models"),
                broker=None if broker is None else BrokerAddress(*broker),
                at_most_once=fields.boolean("at_most_once"),
                max_session=fields.integer("max_session", 1, 86_400),
                evidence=fields.text("evidence"),
            )
        except ConfigurationError as error:
            raise MalformedError("non_canonical", f"service configuration: {error.message}") from error
        fields.end()
        return service

    def description(self) -> dict[str, object]:
        """The whole service as plain data, with the places of code on this machine: what the device is told."""
        return {
            "code": [{"name": root.name, "path": str(root.path)} for root in self.code],
            "configuration": self.configuration(),
            "requires": list(self.requires),
        }

    @classmethod
    def from_description(cls, description: Mapping[Any, Any]) -> Self:
        """Read what ``description`` gives, strictly.

        Raises ``MalformedError`` for unknown, absent or wrongly typed fields.
        """
        fields = Fields(description, "service description")
        roots: list[CodeRoot] = []
        try:
            for entry in fields.list_("code"):
                root = Fields(_map(entry, "code"), "code of a service")
                roots.append(CodeRoot(Path(root.text("path", max_length=4096)), root.text("name")))
                root.end()
            service = replace(
                cls.from_configuration(fields.mapping("configuration")),
                code=tuple(roots),
                requires=tuple(_texts(fields.list_("requires"), "requires")),
            )
        except ConfigurationError as error:
            raise MalformedError("non_canonical", f"service description: {error.message}") from error
        fields.end()
        return service


def _environment(environment: Mapping[str, str]) -> dict[str, str]:
    for name, value in environment.items():
        if not isinstance(name, str) or not isinstance(value, str) or _VARIABLE.match(name) is None:
            raise _refuse("environment", "an environment variable is a name and a text")
        if name.upper().startswith(_STEERING_PREFIXES) or name.upper() in _STEERING_NAMES:
            raise _refuse(
                "environment",
                f"the variable {name} steers the loader, the interpreter or the network before anything is measured",
                "remove it; settings of the service belong into its options",
            )
        if len(value) > 4096 or "\0" in value or not value.isprintable():
            raise _refuse(
                "environment", f"the value of {name} is not printable text of at most 4096 characters"
            )
    return dict(environment)


def _egress(entry: str) -> str:
    match = _HOST_PORT.match(entry) if isinstance(entry, str) else None
    if match is None or int(match["port"]) > 65_535 or ".." in match["host"]:
        raise _refuse(
            "egress", "an egress entry is host:port in lower case", 'for example "broker.example:443"'
        )
    return entry


def _distribution(name: str) -> str:
    normalised = re.sub(r"[-_.]+", "-", name).lower() if isinstance(name, str) else ""
    if _DISTRIBUTION.match(normalised) is None:
        raise _refuse(
            "requires",
            "a required distribution is a name without version or extra",
            "versions come from the lock",
        )
    return normalised


def _plain_map(value: object, where: str) -> dict[str, object]:
    plain = _plain(value, where, 0)
    if not isinstance(plain, dict):
        raise _refuse("options", f"{where} is not a map")
    return plain


def _plain(value: object, where: str, depth: int) -> object:
    if depth > 8:
        raise _refuse("options", f"{where} is nested deeper than eight")
    if value is None or isinstance(value, (bool, bytes, str)):
        return value
    if isinstance(value, int):
        if not -_SAFE_INTEGER <= value < _SAFE_INTEGER:
            raise _refuse("options", f"{where} holds an integer beyond 64 bits")
        return int(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item, where, depth + 1) for item in value]
    if hasattr(value, "items"):
        plain: dict[str, object] = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise _refuse("options", f"{where} holds a key that is not text")
            plain[key] = _plain(item, where, depth + 1)
        return plain
    raise _refuse(
        "options",
        f"{where} holds a {type(value).__name__}, which has no single encoding",
        "write a fraction or a date as text",
    )


def _map(value: object, what: str) -> Mapping[Any, Any]:
    if not isinstance(value, dict):
        raise MalformedError("non_canonical", f"{what} is not a map")
    return value


def _texts(values: object, what: str) -> list[str]:
    texts = [value for value in values if isinstance(value, str)] if isinstance(values, (list, tuple)) else []
    if not isinstance(values, (list, tuple)) or len(texts) != len(values):
        raise MalformedError("non_canonical", f"{what} is not a list of texts")
    return texts


def _text_keys(mapping: Mapping[Any, Any], what: str) -> dict[str, object]:
    _texts(list(mapping), what)
    return {str(key): value for key, value in mapping.items()}


def _text_values(mapping: Mapping[Any, Any], what: str) -> dict[str, str]:
    return dict(zip(_texts(list(mapping), what), _texts(list(mapping.values()), what), strict=True))


def _pins(mapping: Mapping[Any, Any], what: str) -> tuple[SecretPin, ...]:
    pins: list[SecretPin] = []
    for name, public in _text_keys(mapping, what).items():
        if not isinstance(public, bytes):
            raise MalformedError("non_canonical", f"an owner's key in {what} is not bytes")
        pins.append(SecretPin(name, public))
    return tuple(pins)
