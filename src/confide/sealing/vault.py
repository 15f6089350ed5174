# SPDX-License-Identifier: Apache-2.0
"""A vault: small durable state sealed to one key.

One file holds all of it, so that several values can change together and a store learns neither their number nor their
names. Each write is a new file under a key of its own, so no nonce is ever used twice, whatever is cloned or restored.
The format is ``docs/spec/vault.md``.

A store that brings back an older file of the same vault is noticed while this object lives (``sealing.rollback``). After
a restart it is not: ``freshness`` is "none" until there is an anchor.
"""

from __future__ import annotations

import fcntl
import glob
import hmac
import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from confide.crypto import kdf
from confide.crypto.aead import Aead, AuthenticationFailed
from confide.errors import ConfideError, ConfigurationError, SealingError
from confide.sealing.durable import (
    TEMPORARY_SUFFIX,
    DurableFile,
    make_private_directory,
    read_private,
    storage_errors,
    write_all,
)
from confide.sealing.names import MAX_VERSION, is_name
from confide.wire import cbor
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from confide.crypto.secret import Secret

__all__ = ["Vault"]

MAGIC: Final = b"CFDVLT01"
HEADER: Final = 80
MAX_BYTES: Final = 16 << 20
MAX_KEY: Final = 512
_CONTEXT = b"confide/1 vault\x00"
_PAD = 1024
_ZERO_NONCE = bytes(12)


@dataclass(frozen=True, slots=True)
class _State:
    version: int
    values: dict[str, bytes] = field(repr=False)


class Vault:
    """A map from text to bytes in ``directory``, sealed to ``key`` (at least 32 bytes) under ``name``.

    All values together have at most 16 MiB. Every change is on disk, whole, before the call returns. Several threads,
    processes and objects may use one vault: a change is made on the newest version, under a lock.
    """

    freshness: Final = "none"
    """Nothing tells the newest state from an older one across restarts (no anchor yet)."""

    def __init__(
        self, directory: Path, key: Secret, *, name: str, random: Callable[[int], bytes] = os.urandom
    ) -> None:
        if not is_name(name) or len(key) < 32:
            raise ConfigurationError("invalid", "a vault has a name and a key of at least 32 bytes")
        make_private_directory(directory)
        self._path = directory / f"{name}.vault"
        self._lock_path = directory / f"{name}.lock"
        self._key = key
        self._name = name
        self._random = random
        self._seen = 0
        self._swept = False
        self._lock = threading.RLock()
        self._read()

    @property
    def version(self) -> int:
        """How often the vault has been changed; 0 for a new one."""
        return self._read().version

    def get(self, key: str) -> bytes | None:
        """The value of ``key``, None where there is none."""
        return self._read().values.get(_checked(key))

    def keys(self) -> tuple[str, ...]:
        """All keys, sorted."""
        return tuple(sorted(self._read().values))

    def put(self, key: str, value: bytes) -> int:
        """Set ``key``; the new version."""
        return self.update({key: value})

    def delete(self, key: str) -> int:
        """Remove ``key``, if it is there; the version after that."""
        return self.update({key: None})

    def update(self, changes: Mapping[str, bytes | None], *, expected_version: int | None = None) -> int:
        """Set several keys, and remove those whose value is None, in one step; the new version.

        With ``expected_version`` nothing changes unless the vault has that version (``sealing.policy_mismatch`` else), which
        makes read, decide, write safe against other writers.
        """
        for key, value in changes.items():
            _checked(key)
            if value is not None and not isinstance(value, bytes):
                raise ConfigurationError("invalid", "a vault holds bytes")
        with self._exclusive():
            state = self._read()
            if expected_version is not None and state.version != expected_version:
                raise SealingError(
                    "policy_mismatch", "the vault has been changed by somebody else", retryable=True
                )
            values = dict(state.values)
            for key, value in changes.items():
                if value is None:
                    values.pop(key, None)
                else:
                    values[key] = bytes(value)
            if values == state.values:
                return state.version
            self._write(_State(state.version + 1, values))
            return state.version + 1

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with self._lock:
            with storage_errors("lock the vault"):
                descriptor = os.open(
                    self._lock_path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
                )
            try:
                with storage_errors("lock the vault"):
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
                yield
            finally:
                os.close(descriptor)

    def _keys(self, salt: bytes, version: int) -> tuple[Aead, bytes]:
        name = self._name.encode()
        info = _CONTEXT + len(name).to_bytes(4, "big") + name + version.to_bytes(8, "big")
        root = kdf.hkdf(self._key.reveal(), salt=salt, info=info, length=64)
        return (
            Aead(kdf.expand(root, b"confide/1 vault key\x00", 32)),
            kdf.expand(root, b"confide/1 vault commitment\x00", 32),
        )

    def _read(self) -> _State:
        with self._lock:
            data = read_private(self._path, max_bytes=MAX_BYTES + HEADER + 16, what="the vault")
            state = _State(0, {}) if data is None else self._open(data)
            if state.version < self._seen:
                raise SealingError(
                    "rollback",
                    "the vault is older than it was before",
                    hint="somebody has put an older file in its place; nothing in it can be relied on",
                )
            self._seen = state.version
            return state

    def _open(self, data: bytes) -> _State:
        if data[:8] != MAGIC:
            raise SealingError("unsupported_version", "this is not a vault of a version that is supported")
        if len(data) < HEADER + 16:
            raise SealingError("integrity", "the vault is cut off")
        version = int.from_bytes(data[40:48], "big")
        if not 1 <= version <= MAX_VERSION:
            raise SealingError("integrity", "the vault's version is out of bounds")
        aead, commitment = self._keys(data[8:40], version)
        if not hmac.compare_digest(commitment, data[48:80]):
            raise SealingError(
                "policy_mismatch",
                "the vault was sealed to another key or under another name",
                hint="a new measurement or another machine derives other keys",
            )
        try:
            plaintext = aead.open(_ZERO_NONCE, data[HEADER:], data[:HEADER])
        except AuthenticationFailed:
            raise SealingError("integrity", "the vault does not authenticate") from None
        try:
            return self._decode(plaintext, version)
        except SealingError:
            raise
        except ConfideError:
            pass  # Raised below.
        raise SealingError("integrity", "the vault's content is malformed")

    def _decode(self, plaintext: bytes, version: int) -> _State:
        length = int.from_bytes(plaintext[:4], "big")
        if len(plaintext) % _PAD or 4 + length > len(plaintext) or any(plaintext[4 + length :]):
            raise SealingError("integrity", "the vault's padding is malformed")
        what = "vault"
        fields = Fields(
            cbor.decode(plaintext[4 : 4 + length], what=what, max_size=MAX_BYTES, max_depth=2), what
        )
        fields.integer("v", 1, 1)
        if fields.text("name", 128) != self._name or fields.integer("version", 1, MAX_VERSION) != version:
            raise SealingError("policy_mismatch", "the vault's content names another vault")
        values = fields.mapping("values")
        fields.end()
        reader = Fields(values, what)
        return _State(version, {_checked(key): reader.bytes_(key) for key in values})

    def _write(self, state: _State) -> None:
        content = cbor.encode({"v": 1, "name": self._name, "version": state.version, "values": state.values})
        plaintext = len(content).to_bytes(4, "big") + content
        plaintext += bytes(-len(plaintext) % _PAD)
        if len(plaintext) > MAX_BYTES:
            raise SealingError(
                "storage_full", f"a vault holds at most {MAX_BYTES} bytes", hint="use a protected file"
            )
        self._sweep()
        salt = self._random(32)
        aead, commitment = self._keys(salt, state.version)
        header = MAGIC + salt + state.version.to_bytes(8, "big") + commitment
        with DurableFile(self._path) as file:
            with storage_errors("write the vault"):
                write_all(file.descriptor, header + aead.seal(_ZERO_NONCE, plaintext, header))
            file.commit()
        self._seen = state.version

    def _sweep(self) -> None:
        """Once: remove what writers that were killed have left. The lock is held, so no writer is at work."""
        if self._swept:
            return
        with storage_errors("tidy the vault"):
            for left in self._path.parent.glob(f".{glob.escape(self._path.name)}.*{TEMPORARY_SUFFIX}"):
                left.unlink(missing_ok=True)
        self._swept = True

    def __repr__(self) -> str:
        return "Vault(redacted)"


def _checked(key: object) -> str:
    if not isinstance(key, str) or not 1 <= len(key) <= MAX_KEY:
        raise ConfigurationError("invalid", f"a key of a vault is text of 1 to {MAX_KEY} characters")
    return key
