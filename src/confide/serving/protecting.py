# SPDX-License-Identifier: Apache-2.0
"""``protect``: encrypt a model or data so that only enclaves of one measured service can open it.

    1. look at the content, and refuse a model that the enclave would refuse;
    2. read the service, or make one for this model;
    3. measure it: the policy that admits exactly this service is an output, not something to be typed;
    4. prepare a new version of the data key in the owner's keyring;
    5. write the protected file, signed by the owner;
    6. settle the key: from now on it is the newest, which ``unlock`` hands over.

Nothing is written before 1 to 3 have passed. Killed at any moment, the file that is there and the newest key fit each other. The plain content never leaves this process and is not copied to disk.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from confide.enclave.measure import measure
from confide.enclave.service import Service
from confide.errors import ConfigurationError, ModelError, SealingError
from confide.frameworks.table import adapter, recognise
from confide.keys.identity import Identity
from confide.keys.keyring import Keyring
from confide.sealing.durable import write_public
from confide.sealing.protected_file import Entry, write
from confide.serving.model_service import ModelService
from confide.serving.settings import ModelSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from confide.attestation.policy import AppraisalPolicy
    from confide.attestation.verifier import Verifier
    from confide.keys.keyring import DataKey
    from confide.keys.release import SecretName
    from confide.keys.unlock import UnlockResult
    from confide.sealing.protected_file import Progress

__all__ = ["DATA_ENTRY", "Protected", "name_of", "protect", "protect_for_service"]

DATA_ENTRY: Final = "data"
"""The one entry of a protected file that is not a model."""
_PIECE: Final = 4 * 1024 * 1024
_MAX_MODEL: Final = 2**31 - 1
_UNFIT: Final = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Protected:
    """What was made: ``output`` under ``data_key``, for ``service`` (new if ``service_written``), which ``policy`` admits."""

    service: Service
    service_written: bool
    policy: AppraisalPolicy
    output: Path
    data_key: DataKey
    identity: Identity

    @property
    def key(self) -> SecretName:
        """Name and version of the data key."""
        return self.data_key.name

    def unlock(self, url: str, verifier: Verifier, *, lease: int = 0) -> UnlockResult:
        """Hand the data key to the enclave at ``url`` if ``verifier`` accepts it; see ``confide.keys.unlock``."""
        from confide.keys.unlock import unlock

        return unlock(
            url,
            verifier=verifier,
            secrets={self.data_key.name: self.data_key.secret},
            identity=self.identity,
            lease=lease,
        )


def name_of(path: Path) -> str:
    """A name for a file: its own without the last suffix, with what names may not hold replaced."""
    name = _UNFIT.sub("-", path.stem).strip("._-")[:128].rstrip("._-")
    if not name:
        raise ConfigurationError(
            "invalid", "the file's name makes no name for the key", hint="choose one with --name"
        )
    return name


def protect(
    content: Path | str,
    service: Service,
    output: Path | str,
    *,
    name: str | None = None,
    identity: Identity | None = None,
    keyring: Keyring | None = None,
    tee: str = "simulated",
    progress: Progress | None = None,
) -> Protected:
    """Encrypt the file ``content`` into ``output``, so that only enclaves measured as ``service`` get its key.

    For a model service the content is a model of the format that its options say, checked as the enclave will check it;
    for any other kind it is data, and becomes the one entry ``data``. ``name`` is that of key and file, one of the
    service's ``models``; by default the only one that the service pins to this owner. ``identity`` and ``keyring`` are
    by default this user's own. ``progress`` is called with the bytes done and the total.

    Raises ModelError for a model that is refused, ConfigurationError for a service that does not fit, EnclaveError
    ``unmeasured`` for one that cannot be measured, SealingError for storage.
    """
    return _protect(
        *_entries(Path(content), as_model=service.kind == "model"),
        service,
        Path(output),
        name=name,
        identity=Identity.open_or_create() if identity is None else identity,
        keyring=Keyring() if keyring is None else keyring,
        tee=tee,
        progress=progress,
    )


def protect_for_service(
    content: Path,
    *,
    service_path: Path,
    output: Path,
    policy_path: Path,
    identity: Identity,
    name: str | None = None,
    service_id: str = "default",
    tee: str = "simulated",
    keyring: Keyring | None = None,
    progress: Progress | None = None,
) -> Protected:
    """``protect`` with service and policy as files: the service of ``service_path`` is read, or made for a model and written.

    Raises what ``protect`` raises; then neither file is written.
    """
    existing = service_path.exists()
    service = Service.from_toml(service_path) if existing else None
    entries, metadata = _entries(content, as_model=service is None or service.kind == "model")
    if service is None:
        service = ModelService(
            name or name_of(content), owner=identity.public, id=service_id, format=metadata["format"]
        )
    done = _protect(
        entries,
        metadata,
        service,
        output,
        name=name,
        identity=identity,
        keyring=Keyring() if keyring is None else keyring,
        tee=tee,
        progress=progress,
    )
    _write_text(policy_path, done.policy.to_toml())
    if not existing:
        _write_text(service_path, service.to_toml(service_path.parent))
    return replace(done, service_written=not existing)


def _protect(
    entries: list[Entry],
    metadata: dict[str, Any],
    service: Service,
    output: Path,
    *,
    name: str | None,
    identity: Identity,
    keyring: Keyring,
    tee: str,
    progress: Progress | None,
) -> Protected:
    name = _pinned(service, identity.public, name)
    if service.kind == "model":
        _same_format(service, name, metadata["format"])
    policy = measure(service, tee=tee)
    key = keyring.prepare(name, output)
    try:
        write(
            output,
            entries,
            key=key.secret,
            signer=identity.key,
            name=key.name.name,
            version=key.name.version,
            metadata=metadata,
            progress=progress,
        )
    except BaseException:
        keyring.discard(key)
        raise
    keyring.settle(key)
    return Protected(service, False, policy, output, key, identity)  # noqa: FBT003 - the field says what it is


def _entries(content: Path, *, as_model: bool) -> tuple[list[Entry], dict[str, Any]]:
    if not as_model:
        return [Entry(DATA_ENTRY, _pieces(content))], {"format": "data"}
    try:
        if content.stat().st_size > _MAX_MODEL:
            raise ModelError("limit", "the model is larger than a model of this format can be")
        data = content.read_bytes()
    except OSError:
        raise ConfigurationError("invalid", "the file to protect cannot be read") from None
    format_ = recognise(data)
    parts = adapter(format_).dump(data)
    return [Entry(part.name, part.data, part.kind, part.dtype, part.shape) for part in parts], {
        "format": format_
    }


def _pieces(content: Path) -> Iterator[bytes]:
    try:
        with content.open("rb") as file:
            while piece := file.read(_PIECE):
                yield piece
    except OSError:
        raise ConfigurationError("invalid", "the file to protect cannot be read") from None


def _pinned(service: Service, owner: bytes, name: str | None) -> str:
    """The name among the service's models that belongs to this owner."""
    mine = [pin.name for pin in service.models if pin.owner_public == owner]
    if name is None and len(mine) == 1:
        return mine[0]
    if name is not None and name in mine:
        return name
    raise ConfigurationError(
        "invalid",
        "the service does not expect a file of this name from this owner, or expects several",
        hint=f'add it to service.toml: [[models]], name = "{name or "NAME"}", owner = "{owner.hex()}"; or choose with --name',
    )


def _same_format(service: Service, name: str, format_: str) -> None:
    entries = {entry.name: entry for entry in ModelSettings.from_options(service.options).models}
    if name not in entries or entries[name].format != format_:
        raise ConfigurationError(
            "invalid",
            "the service serves no model of this name and format",
            hint=f'add it to the models in [options] of service.toml: {name} = {{ format = "{format_}" }}',
        )


def _write_text(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_public(path, text)
    except (OSError, SealingError):
        raise ConfigurationError("invalid", "a file beside the protected one cannot be written") from None
