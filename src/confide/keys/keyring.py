# SPDX-License-Identifier: Apache-2.0
"""The owner's own data keys, by name and version: what ``protect`` makes and ``unlock`` hands over.

A key for a protected file is *prepared* before the file is written and *settled* when the file is in its place. A prepared
key is not the newest: a ``protect`` that was killed leaves the newest key the one of the file that is there. Killed between
the file and settling, the next look finds that the file was made with the prepared key, and settles it.
"""

from __future__ import annotations

import hmac
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from confide.crypto.secret import Secret
from confide.errors import BrokerError, ConfideError, ConfigurationError, SealingError
from confide.keys.release import SecretName
from confide.sealing import layout
from confide.sealing.durable import (
    DurableFile,
    make_private_directory,
    open_regular,
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

    def prepare(self, name: str, file: Path) -> DataKey:
        """A new random key for the protected file that is about to be written to ``file``; durable before this returns.

        It is not the newest version before ``settle``.
        """
        return self._add(name, Secret(self._random(32)), file=file)

    def settle(self, key: DataKey) -> None:
        """The file of a prepared key is in its place: from now on the key counts. Idempotent."""
        self._write(key, None, replace=True)

    def discard(self, key: DataKey) -> None:
        """Writing the file of a prepared key has failed: forget the key, unless the file was made with it after all."""
        found = self._read(key.name)
        if found is None or found[1] is None:
            return
        if _made_with(*found):
            self.settle(key)
            return
        with storage_errors("remove the key"):
            self._path(key.name).unlink(missing_ok=True)

    def _add(self, name: str, secret: Secret, *, file: Path | None = None) -> DataKey:
        SecretName(name, 1)  # Refuses a bad name before anything is made.
        make_private_directory(self._directory)
        for _ in range(100):
            key = DataKey(SecretName(name, max(self.versions(name), default=0) + 1), secret)
            if self._write(key, file, replace=False):
                return key
        raise SealingError("storage_io", "another process keeps making keys of this name", retryable=True)

    def _write(self, key: DataKey, file: Path | None, *, replace: bool) -> bool:
        content = {
            "type": _TYPE, "v": 1, "name": key.name.name, "version": key.name.version, "key": key.secret.reveal().hex(),
            **({} if file is None else {"prepared_for": os.fsencode(file.absolute()).hex()}),
        }  # fmt: skip
        with DurableFile(self._path(key.name), replace=replace) as new:
            with storage_errors("write the key"):
                write_all(new.descriptor, strict_json.encode(content))
            return new.commit()

    def get(self, name: str, version: int | None = None) -> DataKey:
        """A key; the newest settled one unless ``version`` is given. Raises ``broker.not_found``."""
        if version is not None:
            # Whoever names a prepared version knows that its file was written, and may have moved it away since.
            found = self._read(SecretName(name, version))
            if found is not None:
                return found[0]
            raise _absent()
        SecretName(name, 1)
        for candidate in reversed(self.versions(name)):
            found = self._read(SecretName(name, candidate))
            if found is None:
                continue
            key, file = found
            if file is None:
                return key
            if _made_with(key, file):
                self.settle(key)
                return key
        raise _absent()

    def _read(self, wanted: SecretName) -> tuple[DataKey, Path | None] | None:
        """A key, and the file that it is prepared for; None if there is no such key."""
        data = read_private(self._path(wanted), max_bytes=MAX_BYTES, what="the key")
        if data is None:
            return None
        try:
            fields = Fields(strict_json.decode(data, what="key", max_size=MAX_BYTES), "key")
            if fields.text("type") == _TYPE and fields.integer("v", 1, 1):
                found = SecretName(fields.text("name"), fields.integer("version", 1, MAX_VERSION))
                secret = hexadecimal.decode(fields.text("key", 128 * 1024), what="key")
                prepared_for = fields.text("prepared_for", 16 * 1024, default=None)
                fields.end()
                file = None
                if prepared_for is not None:
                    file = Path(os.fsdecode(hexadecimal.decode(prepared_for, what="file")))
                # A renamed file, or a file system that folds case, must not pass off one key as another.
                if found == wanted and secret:
                    return DataKey(found, Secret(secret)), file
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

    def _path(self, name: SecretName) -> Path:
        return self._directory / f"{name.name}@{name.version}.json"

    def __repr__(self) -> str:
        return "Keyring(redacted)"


def _made_with(key: DataKey, path: Path | None) -> bool:
    """Whether the protected file at ``path`` was made with this very key: its header's commitment says so."""
    try:
        if path is None:
            return False
        descriptor = open_regular(path)
        try:
            with storage_errors("read the protected file"):
                block = os.pread(descriptor, layout.HEADER_BLOCK, 0)
        finally:
            os.close(descriptor)
        header, _, _ = layout.Header.split(block)
        if SecretName(header.name, header.version) != key.name:
            return False
        keys = layout.file_keys(key.secret, file=header.file, name=header.name, version=header.version)
        return hmac.compare_digest(keys.commitment, header.commitment)
    except ConfideError:
        return False


def _absent() -> BrokerError:
    return BrokerError(
        "not_found", "the keyring has no such key", hint="`confide protect` makes a key on its first use"
    )
