# SPDX-License-Identifier: Apache-2.0
"""Who an owner is: one Ed25519 key in a file of mode 0600, made when it is first needed."""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from confide.crypto.signing import SigningKey
from confide.errors import ConfideError, ConfigurationError, SealingError
from confide.keys.release import owner_audience
from confide.sealing.durable import (
    DurableFile,
    make_private_directory,
    read_private,
    storage_errors,
    write_all,
)
from confide.sealing.names import is_name
from confide.wire import hexadecimal, strict_json
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Identity", "default_directory", "fingerprint"]

MAX_BYTES: Final = 4096
_TYPE = "confide-identity"


def default_directory(environment: Mapping[str, str] | None = None) -> Path:
    """Where identities are kept: ``$XDG_CONFIG_HOME/confide/identities``, below ``~/.config`` if that is unset."""
    environment = os.environ if environment is None else environment
    base = environment.get("XDG_CONFIG_HOME", "")
    root = Path(base) if base.startswith("/") else Path.home() / ".config"
    return root / "confide" / "identities"


def fingerprint(public: bytes) -> str:
    """An owner's public key (32 bytes) for people to read out and compare: 160 bits of its SHA-256 as eight groups of
    base32. Programs compare whole public keys, never this.
    """
    if len(public) != 32:
        raise ConfigurationError("invalid", "an owner's public key has 32 bytes")
    text = base64.b32encode(hashlib.sha256(b"confide/1 identity\x00" + public).digest()[:20]).decode().lower()
    return "-".join(text[i : i + 4] for i in range(0, 32, 4))


class Identity:
    """An owner: ``name`` on this machine, the Ed25519 ``key``, and whether it has just been made (``created``)."""

    __slots__ = ("created", "key", "name")

    def __init__(self, name: str, key: SigningKey, *, created: bool = False) -> None:
        self.name = name
        self.key = key
        self.created = created

    @classmethod
    def open_or_create(cls, name: str = "default", directory: Path | None = None) -> Self:
        """The identity ``name``, made on first use. Two processes at once get the same one.

        Raises ``configuration.invalid`` for a bad name, ``sealing.storage_io`` for a file or folder that others can read,
        ``sealing.integrity`` for a file that is not an identity.
        """
        directory, path = _place(name, directory)
        existing = cls._read(name, path)
        if existing is not None:
            return existing
        make_private_directory(directory)
        key = SigningKey.generate()
        content = strict_json.encode(
            {"type": _TYPE, "v": 1, "private": key.to_bytes().hex(), "public": key.public.hex()}
        )
        with DurableFile(path, replace=False) as file:
            with storage_errors("write the identity"):
                write_all(file.descriptor, content)
            if file.commit():
                return cls(name, key, created=True)
        raced = cls._read(name, path)
        if raced is None:
            raise SealingError("storage_io", "the identity appeared and went away again", retryable=True)
        return raced

    @classmethod
    def open(cls, name: str = "default", directory: Path | None = None) -> Self:
        """The identity ``name``; ``configuration.invalid`` if there is none."""
        identity = cls._read(name, _place(name, directory)[1])
        if identity is None:
            raise ConfigurationError(
                "invalid", "there is no such identity", hint="make one with `confide identity new`"
            )
        return identity

    @classmethod
    def _read(cls, name: str, path: Path) -> Self | None:
        data = read_private(path, max_bytes=MAX_BYTES, what="the identity")
        if data is None:
            return None
        try:
            fields = Fields(strict_json.decode(data, what="identity", max_size=MAX_BYTES), "identity")
            if fields.text("type") == _TYPE and fields.integer("v", 1, 1):
                seed = hexadecimal.decode(fields.text("private"), what="identity", length=32)
                public = hexadecimal.decode(fields.text("public"), what="identity", length=32)
                fields.end()
                key = SigningKey.from_bytes(seed)
                if key.public == public:
                    return cls(name, key)
        except ConfideError:
            pass  # Raised below, without what was read.
        raise SealingError("integrity", "the file is not an identity", hint="restore it from a backup")

    @property
    def public(self) -> bytes:
        """The Ed25519 public key, 32 bytes: what a service's configuration pins."""
        return self.key.public

    @property
    def fingerprint(self) -> str:
        """For people; see ``fingerprint``."""
        return fingerprint(self.public)

    @property
    def audience(self) -> str:
        """How evidence names this owner."""
        return owner_audience(self.public)

    def __repr__(self) -> str:
        return f"Identity({self.name!r}, fingerprint={self.fingerprint!r})"


def _place(name: str, directory: Path | None) -> tuple[Path, Path]:
    if not is_name(name):
        raise ConfigurationError(
            "invalid", "an identity's name is letters, digits, dot, dash and underscore, at most 128"
        )
    directory = default_directory() if directory is None else directory
    return directory, directory / f"{name}.json"
