# SPDX-License-Identifier: Apache-2.0
"""Wheel files as a manifest measures them, so that a machine can measure for a target that it is not.

Source: PyPA binary distribution format; PEP 425 for the tags in a wheel's name; pip's requirements with hashes for locks.
"""

from __future__ import annotations

import hashlib
import lzma
import re
import zipfile
import zlib
from typing import TYPE_CHECKING

from confide.enclave.distributions import (
    MAX_FILES,
    MAX_METADATA,
    Distribution,
    check_path,
    hash_file,
    is_installers,
    read_metadata,
    read_record,
    unmeasured,
)
from confide.enclave.markers import normalise
from confide.errors import ConfideError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from confide.enclave.target import Target

__all__ = ["Wheels", "from_wheel"]

_MAX_UNPACKED = 16 * 1024**3


class Wheels:
    """The wheel files in ``folder`` that fit ``target``, each of which ``lock`` (requirements with hashes) must name."""

    def __init__(self, folder: Path, lock: str, *, target: Target) -> None:
        pins = _parse_lock(lock)
        self._found: dict[str, Path] = {}
        for path in sorted(folder.glob("*.whl")):
            parts = path.name.removesuffix(".whl").split("-")
            if len(parts) not in {5, 6}:
                raise ConfigurationError("lock", f"{path.name} is not the name of a wheel", stage="manifest")
            if not target.fits(*parts[-3:]):
                continue
            name = normalise(parts[0])
            if hash_file(path) not in pins.get(name, frozenset()):
                raise ConfigurationError(
                    "lock",
                    f"the lock does not name the wheel {path.name} by its hash",
                    hint="download the wheels with `pip download --require-hashes -r` that lock",
                    stage="manifest",
                )
            if name in self._found:
                raise ConfigurationError("lock", f"two wheels of {name} fit the target", stage="manifest")
            self._found[name] = path

    def get(self, name: str) -> Distribution | None:
        """The distribution of this normalised name, hashed from its wheel."""
        path = self._found.get(name)
        return None if path is None else from_wheel(path)

    def verify(self, distributions: Iterable[Distribution]) -> None:
        """Nothing is left to check: the tables were made from the wheels' bytes."""


def from_wheel(path: Path) -> Distribution:
    """The distribution in a wheel file, its contents checked against its RECORD.

    Raises ``enclave.unmeasured`` for a file that is not a well-formed wheel.
    """
    # What zipfile and its decompressors raise for damaged and for foreign archives.
    damaged = (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        RuntimeError,
        ValueError,
        OverflowError,
    )
    try:
        with zipfile.ZipFile(path) as archive:
            return _from_archive(archive, path.name)
    except ConfideError:
        raise
    except (*damaged, OSError) as error:
        raise unmeasured(f"{path.name} is not a readable wheel", "download it again") from error


def _from_archive(archive: zipfile.ZipFile, where: str) -> Distribution:
    members = [member for member in archive.infolist() if not member.is_dir()]
    if len(members) > MAX_FILES or sum(member.file_size for member in members) > _MAX_UNPACKED:
        raise unmeasured(f"{where} holds too much", "download it again")
    digests: dict[str, bytes] = {}
    for member in members:
        if member.filename in digests:
            raise unmeasured(f"{where} holds one file twice", "download it again")
        with archive.open(member) as file:
            digests[member.filename] = hashlib.file_digest(file, "sha256").digest()  # type: ignore[arg-type]
    infos = {p.partition("/")[0] for p in digests if p.partition("/")[0].endswith(".dist-info")}
    if len(infos) != 1 or not {f"{min(infos)}/METADATA", f"{min(infos)}/RECORD"} <= digests.keys():
        raise unmeasured(f"{where} has no metadata of one distribution", "download it again")
    info = min(infos)
    if any(archive.getinfo(f"{info}/{name}").file_size > MAX_METADATA for name in ("METADATA", "RECORD")):
        raise unmeasured(f"{where} has metadata longer than 4 MiB", "download it again")
    name, version, requires = read_metadata(archive.read(f"{info}/METADATA"))
    for path, recorded in read_record(archive.read(f"{info}/RECORD"), name).items():
        if recorded is not None and digests.get(path) != recorded:
            raise unmeasured(f"{path} of {where} is not what its RECORD says", "download it again")
    data = f"{info.removesuffix('.dist-info')}.data/"
    files: dict[str, bytes] = {}
    for path, digest in digests.items():
        place = path
        if path.startswith(data):
            scheme, _, place = path.removeprefix(data).partition("/")
            if scheme not in {"purelib", "platlib"}:
                continue  # Scripts, headers and data files land outside of the site folder and are not importable.
        if is_installers(place):
            continue
        check_path(place, name)
        if place in files:
            raise unmeasured(f"{where} installs one file twice", "download it again")
        files[place] = digest
    return Distribution(name, version, files, requires)


def _parse_lock(lock: str) -> dict[str, frozenset[bytes]]:
    pins: dict[str, frozenset[bytes]] = {}
    for line in lock.replace("\\\r\n", " ").replace("\\\n", " ").splitlines():
        text = line.partition(" #")[0].strip()
        if not text or text.startswith("#"):
            continue
        requirement = text.partition(" --hash=")[0].partition(";")[0].strip()
        name, pinned, version = requirement.partition("==")
        hashes = re.findall(r"--hash=sha256:([0-9a-f]{64})(?=\s|\Z)", text)
        if not pinned or not version or not hashes or "@" in requirement:
            raise ConfigurationError(
                "lock",
                "a line of the lock is not name==version with --hash=sha256:...",
                hint="`uv pip compile --generate-hashes` writes such a lock",
                stage="manifest",
            )
        key = normalise(name.partition("[")[0].strip())
        pins[key] = pins.get(key, frozenset()) | {bytes.fromhex(digest) for digest in hashes}
    return pins
