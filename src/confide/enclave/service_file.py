# SPDX-License-Identifier: Apache-2.0
"""``service.toml``: a service as a file that a person writes, read strictly and written back."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from confide.enclave.service import BrokerAddress, CodeRoot, Limits, SecretPin
from confide.errors import ConfigurationError, MalformedError
from confide.wire import hexadecimal
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from confide.enclave.service import Service

__all__ = ["parse_size", "read", "write"]

MAX_FILE = 1024 * 1024
_SIZE = re.compile(r"(?P<number>[0-9]{1,15}) ?(?P<unit>B|KiB|MiB|GiB|TiB)\Z")
_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_SIZES = ("memory", "max_body")
_COUNTS = ("processes", "open_files", "deadline")


def _refuse(message: str, hint: str = "") -> ConfigurationError:
    return ConfigurationError("invalid", message, hint=hint, stage="service")


def parse_size(value: object, what: str) -> int:
    """Bytes from text with a binary unit (``"1 GiB"``, ``"512 MiB"``) or from a plain number of bytes.

    Raises ``ConfigurationError`` for anything else.
    """
    if type(value) is int:
        return value
    match = _SIZE.match(value) if isinstance(value, str) else None
    if match is None:
        raise _refuse(f"{what} is not a size", 'write "512 MiB", "1 GiB" or a number of bytes')
    return int(match["number"]) * _UNITS[match["unit"]]


def read(path: Path) -> dict[str, Any]:
    """The arguments of ``Service`` that the file at ``path`` spells.

    Raises ``ConfigurationError`` for a file that is not there, not TOML, or says what a service cannot say.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise _refuse(
            f"{path.name} cannot be read: {error.strerror}", "give the path of a service.toml"
        ) from error
    if len(data) > MAX_FILE:
        raise _refuse(f"{path.name} is longer than 1 MiB")
    try:
        table = tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _refuse(
            f"{path.name} is not TOML", str(error) if isinstance(error, ValueError) else ""
        ) from error
    return _read_table(Fields(table, path.name, ConfigurationError), path.parent, path.name)


def _read_table(fields: Fields, folder: Path, name: str) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "kind": fields.text("kind"),
        "id": fields.text("id"),
        "options": fields.mapping("options", default={}),
        "code": tuple(
            _code(_section(entry, f"{name}: code"), folder) for entry in fields.list_("code", 64, default=[])
        ),
        "requires": tuple(fields.list_("requires", 256, default=[])),
        "environment": fields.mapping("environment", default={}),
        "limits": _limits(
            Fields(fields.mapping("limits", default={}), f"{name}: limits", ConfigurationError)
        ),
        "egress": tuple(fields.list_("egress", 256, default=[])),
        "debug": fields.boolean("debug", default=False),
        "secrets": _pins(fields, "secrets", name),
        "models": _pins(fields, "models", name),
        "broker": _broker(fields, name),
        "at_most_once": fields.boolean("at_most_once", default=False),
        "max_session": fields.integer("max_session", 1, 86_400, default=3600),
        "evidence": fields.text("evidence", default="fresh"),
    }
    fields.end()
    return arguments


def _section(value: object, what: str) -> Fields:
    if not isinstance(value, dict):
        raise _refuse(f"{what} is not a table", "write it under [[...]]")
    return Fields(value, what, ConfigurationError)


def _code(fields: Fields, folder: Path) -> CodeRoot:
    text = fields.text("path", 1024)
    relative = PurePosixPath(text)
    if relative.is_absolute() or "\\" in text or ".." in relative.parts or not relative.parts:
        raise _refuse(
            "a path of code leaves the folder of the service file",
            "put the code beside or below service.toml and write the path relative to it",
        )
    place = folder.joinpath(*relative.parts)
    if not place.resolve().is_relative_to(folder.resolve()):
        raise _refuse("a path of code leaves the folder of the service file through a symbolic link")
    root = CodeRoot(place, fields.text("name", default=relative.name.removesuffix(".py")))
    fields.end()
    return root


def _limits(fields: Fields) -> Limits:
    standard = Limits().to_plain()
    values = {name: _size(fields, name, standard[name]) for name in _SIZES}
    values |= {name: fields.integer(name, 0, 1 << 44, default=standard[name]) for name in _COUNTS}
    fields.end()
    return Limits(**values)


def _size(fields: Fields, name: str, default: int) -> int:
    try:
        text: str | int = fields.text(name, 64, default=default)
    except ConfigurationError:
        return fields.integer(name, 0, 1 << 44)
    return parse_size(text, name)


def _pins(fields: Fields, key: str, name: str) -> tuple[SecretPin, ...]:
    pins: list[SecretPin] = []
    for entry in fields.list_(key, 256, default=[]):
        pin = _section(entry, f"{name}: {key}")
        secret = pin.text("name")
        try:
            owner = hexadecimal.decode(pin.text("owner"), what="an owner's public key", length=32)
        except MalformedError as error:
            raise _refuse(
                error.message, "64 lower-case hexadecimal digits; `confide identity show` prints them"
            ) from error
        pin.end()
        pins.append(SecretPin(secret, owner))
    return tuple(pins)


def _broker(fields: Fields, name: str) -> BrokerAddress | None:
    if not fields.has("broker"):
        return None
    section = Fields(fields.mapping("broker"), f"{name}: broker", ConfigurationError)
    address = BrokerAddress(section.text("url", 2048), section.text("policy", 64 * 1024, multiline=True))
    section.end()
    return address


def write(service: Service, folder: Path | None) -> str:
    """``service`` as TOML that ``read`` gives back; code must lie below ``folder``.

    Raises ``ConfigurationError`` for code elsewhere, and for options that TOML cannot say (bytes, None).
    """
    top: list[tuple[str, object]] = [("kind", service.kind), ("id", service.id)]
    optional: tuple[tuple[str, object, object], ...] = (
        ("requires", list(service.requires), []),
        ("egress", list(service.egress), []),
        ("debug", service.debug, False),
        ("at_most_once", service.at_most_once, False),
        ("max_session", service.max_session, 3600),
        ("evidence", service.evidence, "fresh"),
    )
    top += [(key, value) for key, value, default in optional if value != default]
    lines = [f"{key} = {_value(value, key)}" for key, value in top]
    sections: list[tuple[str, list[tuple[str, object]]]] = [
        ("[options]", list(service.options.items())),
        ("[environment]", list(service.environment.items())),
        ("[limits]", [(k, v) for k, v in service.limits.to_plain().items() if v != getattr(Limits(), k)]),
    ]
    if service.broker is not None:
        sections.append(("[broker]", [("url", service.broker.url), ("policy", service.broker.policy)]))
    for title, entries in sections:
        if entries:
            lines += ["", title, *(f"{_key(key)} = {_value(value, key)}" for key, value in entries)]
    for root in service.code:
        lines += [
            "",
            "[[code]]",
            f"path = {_value(_below(root.path, folder), 'path')}",
            f'name = "{root.name}"',
        ]
    for title, pins in (("secrets", service.secrets), ("models", service.models)):
        for pin in pins:
            lines += ["", f"[[{title}]]", f'name = "{pin.name}"', f'owner = "{pin.owner_public.hex()}"']
    return "\n".join(lines) + "\n"


def _below(path: Path, folder: Path | None) -> str:
    if folder is None or not path.resolve().is_relative_to(folder.resolve()):
        raise _refuse(
            "code lies outside of the folder of the service file",
            "write service.toml beside or above the code",
        )
    return path.resolve().relative_to(folder.resolve()).as_posix()


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _text(key)


def _text(text: str) -> str:
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return '"' + "".join(escapes.get(c, c if c.isprintable() else f"\\U{ord(c):08x}") for c in text) + '"'


def _value(value: object, where: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list):
        return "[" + ", ".join(_value(item, where) for item in value) + "]"
    if isinstance(value, dict):
        return (
            "{ " + ", ".join(f"{_key(k)} = {_value(v, where)}" for k, v in value.items()) + " }"
            if value
            else "{}"
        )
    raise _refuse(
        f"{where} holds a value that TOML cannot say", "use text, numbers, true, false, lists and tables"
    )
