# SPDX-License-Identifier: Apache-2.0
"""What code inside an enclave gets: keys made in the TEE, storage, what was lent and released, evidence, a log, a way out."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from confide.crypto import kdf
from confide.crypto.aead import Aead, AuthenticationFailed
from confide.crypto.secret import Secret
from confide.enclave.control import LOG_FIELDS
from confide.errors import ConfigurationError, EnclaveError, MalformedError, SealingError

if TYPE_CHECKING:
    from confide.attestation.attester import Attester
    from confide.enclave.egress import Egress
    from confide.enclave.service import Service
    from confide.sealing.protected_file import ProtectedFile
    from confide.sealing.vault import Vault

__all__ = ["Application", "Built", "Context"]

_MAGIC: Final = b"CFDSEAL1"
_SALT: Final = 32
_MAX_PURPOSE: Final = 128

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Built:
    """What a builder gives: the ASGI app, the digests (32 B) of what it loaded, and further facts for each receipt.

    ``lifespan`` says that the app wants ASGI lifespan events.
    """

    app: Application
    content: Mapping[str, bytes] = field(default_factory=dict)
    lifespan: bool = False
    receipt_extension: Callable[[], Mapping[str, str | bytes | int | bool]] | None = None


class Context:
    """The enclave, to the code that runs in it. Every method is safe to call from several threads."""

    def __init__(
        self,
        *,
        service: Service,
        attester: Attester,
        secrets: Mapping[str, Secret],
        data: Mapping[str, int],
        storage: int | None,
        egress: Egress,
        log: Callable[[str, Mapping[str, int | str]], None],
        evidence: Callable[[bytes], bytes] | None = None,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.service: Final = service
        self.egress: Final = egress
        self._attester = attester
        self._secrets = secrets
        self._data = data
        self._storage = storage
        self._log = log
        self._evidence = evidence
        self._random = random

    def key(self, purpose: str) -> Secret:
        """32 bytes that this TEE derives for this measurement and ``purpose``, and for no other; the same after a restart."""
        label = _purpose(purpose)
        root = self._attester.derive_key(b"confide/1 context")
        return Secret(kdf.hkdf(root, salt=b"", info=b"confide/1 context key\x00" + label, length=32))

    def seal(self, data: bytes | bytearray | memoryview, *, purpose: str) -> bytes:
        """Encrypt ``data`` (at most 1 GiB) to this TEE and measurement. Adds 56 bytes.

        magic "CFDSEAL1" | salt 32 | AES-256-GCM under a key and nonce of its own, HKDF(salt, key(purpose)), AAD = magic | purpose
        """
        label = _purpose(purpose)
        if len(data) > 1 << 30:
            raise ConfigurationError(
                "invalid", "sealed data has at most 1 GiB", hint="Use a protected file for more."
            )
        salt = self._random(_SALT)
        aead, nonce = self._sealing_key(purpose, salt)
        return _MAGIC + salt + aead.seal(nonce, data, _MAGIC + label)

    def open(self, sealed: bytes | bytearray | memoryview, *, purpose: str) -> bytes:
        """Decrypt what ``seal`` gave for the same purpose in the same TEE and measurement; else ``sealing.integrity``."""
        label = _purpose(purpose)
        view = memoryview(sealed).cast("B")
        if len(view) < len(_MAGIC) + _SALT + 16 or bytes(view[: len(_MAGIC)]) != _MAGIC:
            raise SealingError(
                "unsupported_version", "this is not sealed data of a version that is supported"
            )
        aead, nonce = self._sealing_key(purpose, bytes(view[len(_MAGIC) : len(_MAGIC) + _SALT]))
        try:
            return aead.open(nonce, view[len(_MAGIC) + _SALT :], _MAGIC + label)
        except AuthenticationFailed:
            raise SealingError(
                "integrity",
                "the sealed data was changed, or sealed for another purpose or enclave",
                hint="A changed service has another measurement, and so other keys.",
            ) from None

    def _sealing_key(self, purpose: str, salt: bytes) -> tuple[Aead, bytes]:
        # A salt of 32 bytes gives each message its own key, so that no number of messages makes a nonce repeat.
        block = kdf.hkdf(self.key(purpose), salt=salt, info=b"confide/1 context seal\x00", length=44)
        return Aead(block[:32]), block[32:]

    def vault(self, name: str) -> Vault:
        """Small durable state in the directory that the host lent, sealed to this TEE and measurement.

        Raises ``enclave.bad_state`` when no directory was lent (``storage=`` of ``Enclave.launch``).
        """
        from confide.sealing.vault import Vault

        return Vault(self.storage() / "vaults", self.key(f"vault/{name}"), name=name)

    def storage(self) -> Path:
        """The directory that the host lent: it keeps, reads, replaces and loses whatever is written there.

        Raises ``enclave.bad_state`` when none was lent.
        """
        if self._storage is None:
            raise EnclaveError(
                "bad_state",
                "the host has lent no directory",
                hint="Launch with storage=DIRECTORY, or `confide run --storage DIRECTORY`.",
            )
        return Path(f"/proc/self/fd/{self._storage}")

    def secret(self, name: str) -> Secret:
        """A secret that the service names and that its owner has released."""
        try:
            return self._secrets[name]
        except KeyError:
            raise EnclaveError(
                "key_missing",
                "the service names no such secret, or it has not been released",
                hint="Add it to the service's secrets or models; its owner then runs `confide unlock`.",
            ) from None

    def data(self, name: str) -> int:
        """A read-only descriptor of a file (ciphertext) that the host lent under ``name``; it stays the enclave's."""
        try:
            return self._data[name]
        except KeyError:
            raise EnclaveError(
                "bad_state",
                "the host has lent no such file",
                hint="Launch with data={name: path}, or `confide run --data NAME=PATH`.",
            ) from None

    def open_protected(self, name: str) -> ProtectedFile:
        """The protected file ``name`` of ``service.models``: lent by the host, opened with the released key, checked
        against the owner's public key that the manifest pins.
        """
        from confide.sealing.protected_file import ProtectedFile

        owners = {pin.name: pin.owner_public for pin in self.service.models}
        if name not in owners:
            raise EnclaveError(
                "bad_state",
                "the service pins no owner for a protected file of this name",
                hint="Name it in the service's models.",
            )
        return ProtectedFile.open(
            self.data(name), key=self.secret(name), owner_public=owners[name], name=name
        )

    def attest(self, nonce: bytes) -> bytes:
        """Fresh evidence for a verifier's nonce (32 bytes): the same bundle that its own request to the enclave would get."""
        if len(nonce) != 32:
            raise ConfigurationError("invalid", "a nonce has 32 bytes")
        if self._evidence is None:
            raise EnclaveError(
                "bad_state", "the channel is not open yet", hint="Attest while serving a request."
            )
        return self._evidence(bytes(nonce))

    def log(self, event: str, **fields: int | str) -> None:
        """Say something to the operator. **The operator reads it**: ``event`` is a lower-case identifier, ``fields`` are
        numbers or single words under the names of ``enclave.control.LOG_FIELDS``; anything else is a `ConfigurationError`.
        """
        unknown = sorted(fields.keys() - LOG_FIELDS)
        if unknown:
            raise ConfigurationError(
                "log",
                f"a log line has no field named {unknown[0]}",
                hint=f"The operator reads it, so the names are fixed: {', '.join(sorted(LOG_FIELDS))}.",
            )
        try:
            self._log(event, fields)
        except MalformedError as error:
            raise ConfigurationError(
                "log", error.message, hint='For example context.log("trained", count=3, state="done").'
            ) from None

    def __repr__(self) -> str:
        return f"Context(kind={self.service.kind!r}, id={self.service.id!r})"

    def __reduce_ex__(self, _protocol: Any) -> Any:
        raise TypeError("a context stays in its enclave")


def _purpose(purpose: str) -> bytes:
    label = purpose.encode("utf-8", "replace") if isinstance(purpose, str) else b""
    if not 0 < len(label) <= _MAX_PURPOSE or not purpose.isprintable():
        raise ConfigurationError(
            "invalid", f"a purpose is printable text of at most {_MAX_PURPOSE} bytes and not empty"
        )
    return label
