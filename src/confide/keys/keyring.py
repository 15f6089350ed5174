# SPDX-License-Identifier: Apache-2.0
"""The owner's own data keys, by name and version: what ``protect`` makes and ``unlock`` hands over."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from confide.crypto.secret import Secret
from confide.errors import BrokerError, ConfideError, ConfigurationError, SealingError
from confide.keys.release import SecretName
from confide.sealing.durable import (
    DurableFile,
    make_private_directory,
    read_private,
    storage_errors,
    write_all,
)
from confide.sealing.names import MAX_VERSION, is_name
from confide.wire import hexadecimal, strict_json
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["DataKey", "Keyring", "default_directory"]

MAX_BYTES: Final = 160 * 1024
_TYPE = "confide-data-key"
_FILE = re.compile(r"(?P<name>.+)@(?P<version>[1-9][0-9]{0,18})\.json", re.ASCII)


def default_directory(environment: Mapping[str, str] | None = None) -> Path:
    """Where keys are kept: ``$XDG_DATA_HOME/confide/keys``, below ``~/.local/share`` if that is unset."""
    environment = os.environ if environment is None else environment
    base = environment.get("XDG_DATA_HOME", "")
    root = Path(base) if base.startswith("/") else Path.home() / ".local" / "share"
    return root / "confide" / "keys"


@dataclass(frozen=True, slots=True)
class DataKey:
    """One version of one key."""

    name: SecretName
    secret: Secret = field(repr=False)


class Keyring:
    """Keys in ``directory`` (0700), one file each (0600), none of which is ever overwritten."""

    def __init__(self, directory: Path | None = None, *, random: Callable[[int], bytes] = os.urandom) -> None:
        self._directory = default_directory() if directory is None else Path(directory)
        self._random = random

    def create(self, name: str) -> DataKey:
        """A new random key of 32 bytes, as the next version of ``name``."""
        return self._add(name, Secret(self._random(32)))

    def add(self, name: str, secret: Secret) -> DataKey:
        """Keep a secret of the owner's own (1 to 65,536 bytes), as the next version of ``name``."""
        if not 1 <= len(secret) <= 64 * 1024:
            raise ConfigurationError("invalid", "a secret has 1 to 65536 bytes")
        return self._add(name, secret)

    def _add(self, name: str, secret: Secret) -> DataKey:
        SecretName(name, 1)  # Refuses a bad name before anything is made.
        make_private_directory(self._directory)
        for _ in range(100):
            version = max(self.versions(name), default=0) + 1
            content = strict_json.encode(
                {"type": _TYPE, "v": 1, "name": name, "version": version, "key": secret.reveal().hex()}
            )
            with DurableFile(self._path(name, version), replace=False) as file:
                with storage_errors("write the key"):
                    write_all(file.descriptor, content)
                if file.commit():
                    return DataKey(SecretName(name, version), secret)
        raise SealingError("storage_io", "another process keeps making keys of this name", retryable=True)

    def get(self, name: str, version: int | None = None) -> DataKey:
        """A key; the newest version unless ``version`` is given. Raises ``broker.not_found``."""
        if version is None:
            SecretName(name, 1)
            version = max(self.versions(name), default=0)
            if not version:
                raise _absent()
        wanted = SecretName(name, version)
        data = read_private(self._path(name, version), max_bytes=MAX_BYTES, what="the key")
        if data is None:
            raise _absent()
        try:
            fields = Fields(strict_json.decode(data, what="key", max_size=MAX_BYTES), "key")
            if fields.text("type") == _TYPE and fields.integer("v", 1, 1):
                found = SecretName(fields.text("name"), fields.integer("version", 1, MAX_VERSION))
                secret = hexadecimal.decode(fields.text("key", 128 * 1024), what="key")
                fields.end()
                # A renamed file, or a file system that folds case, must not pass off one key as another.
                if found == wanted and secret:
                    return DataKey(found, Secret(secret))
        except ConfideError:
            pass  # Raised below, without what was read.
        raise SealingError("integrity", "the file does not hold this key", hint="restore it from a backup")

    def versions(self, name: str) -> tuple[int, ...]:
        """The versions that there are of ``name``, ascending."""
        return tuple(found.version for found in self.names() if found.name == name)

    def names(self) -> tuple[SecretName, ...]:
        """All keys, sorted."""
        with storage_errors("list the keys"):
            try:
                files = os.listdir(self._directory)  # noqa: PTH208 - names only
            except FileNotFoundError:
                return ()
        found = []
        for file in files:
            match = _FILE.fullmatch(file)
            if match is not None and is_name(match["name"]) and int(match["version"]) <= MAX_VERSION:
                found.append(SecretName(match["name"], int(match["version"])))
        return tuple(sorted(found))

    def _path(self, name: str, version: int) -> Path:
        return self._directory / f"{name}@{version}.json"

    def __repr__(self) -> str:
        return "Keyring(redacted)"


def _absent() -> BrokerError:
    return BrokerError(
        "not_found", "the keyring has no such key", hint="`confide protect` makes a key on its first use"
    )
