# SPDX-License-Identifier: Apache-2.0
"""Distributions as a manifest measures them: the files of a wheel by path and SHA-256, whatever installed them.

The digest of a distribution is ``SHA-256("confide/distribution/1" || 0x00 || CBOR({path: SHA-256 of the file}))`` over the
files of its wheel, without what installers write or rewrite. An installed distribution and the wheel that it came from
have the same digest, so a machine can measure a target that it is not (``confide.enclave.wheels``). Source of the formats: PyPA binary distribution
format and recording installed projects.
"""

from __future__ import annotations

import base64
import binascii
import csv
import hashlib
import os
import re
import stat
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from confide.enclave.markers import normalise, parse_requirement
from confide.errors import ConfigurationError, EnclaveError
from confide.wire import cbor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path


__all__ = [
    "CORE",
    "Distribution",
    "Installed",
    "Source",
    "check_path",
    "closure",
    "hash_file",
    "hash_files",
    "is_installers",
    "read_metadata",
    "read_record",
    "unmeasured",
]

CORE = ("click", "cryptography", "httpx2", "uvicorn")
"""What confide itself needs inside an enclave; each with everything that it requires."""

_DOMAIN = b"confide/distribution/1\x00"
MAX_FILES = 100_000
MAX_METADATA = 4 * 1024 * 1024
# Written by installers, so not the wheel's (PyPA: recording installed projects; uv_* are uv's).
_INSTALLER_FILES = frozenset(
    {
        "INSTALLER",
        "RECORD",
        "RECORD.jws",
        "RECORD.p7s",
        "REQUESTED",
        "direct_url.json",
        "uv_build.json",
        "uv_cache.json",
    }
)
_BYTECODE = (".pyc", ".pyo")


def unmeasured(message: str, hint: str) -> EnclaveError:
    """The error for what cannot be measured, or is not what it was measured as."""
    return EnclaveError("unmeasured", message, hint=hint, stage="measure")


_REINSTALL = "reinstall the distribution into a clean virtual environment"


@dataclass(frozen=True, slots=True)
class Distribution:
    """One distribution: its wheel's files by path below the site folder, and the folder where they are installed."""

    name: str
    version: str
    files: Mapping[str, bytes]
    requires: tuple[str, ...]
    site: Path | None = None

    @property
    def digest(self) -> bytes:
        """SHA-256 over the files' paths and digests (32 B)."""
        return hashlib.sha256(_DOMAIN + cbor.encode(dict(self.files))).digest()

    @property
    def top_level(self) -> frozenset[str]:
        """The first components of the files' paths: folders and modules in the site folder."""
        return frozenset(path.partition("/")[0] for path in self.files)


class Source(Protocol):
    """Where distributions come from: an installation or a folder of locked wheels."""

    def get(self, name: str) -> Distribution | None:
        """The distribution of this normalised name, or None."""

    def verify(self, distributions: Iterable[Distribution]) -> None:
        """Check that the files are what their tables say; raises ``enclave.unmeasured``."""


def hash_file(path: Path) -> bytes:
    """SHA-256 of a regular file, never through a symbolic link; raises ``enclave.unmeasured`` for anything else."""
    try:
        # A FIFO would block without O_NONBLOCK, which means nothing to regular files.
        flags = os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        descriptor = os.open(path, flags)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise unmeasured(f"{path.name} is not a regular file", "remove it")
            with open(descriptor, "rb", buffering=0, closefd=False) as file:
                return hashlib.file_digest(file, "sha256").digest()
        finally:
            os.close(descriptor)
    except OSError as error:
        raise unmeasured(
            f"{path.name} cannot be measured: {error.strerror}",
            "only plain, readable files are measured, no links",
        ) from error


def hash_files(paths: Sequence[Path]) -> list[bytes]:
    """SHA-256 of each file, in order; hashing leaves the interpreter's lock, so threads use every core."""
    digests: dict[int, bytes] = {}
    refused: list[EnclaveError] = []
    count = min(8, os.cpu_count() or 1, len(paths))

    def work(first: int) -> None:
        try:
            for index in range(first, len(paths), count):
                digests[index] = hash_file(paths[index])
        except EnclaveError as error:
            refused.append(error)

    # concurrent.futures would do, and costs a launch a tenth of a second: it imports logging, which is then compiled.
    threads = [threading.Thread(target=work, args=(first,)) for first in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if refused:
        raise refused[0]
    return [digests[index] for index in range(len(paths))]


def closure(source: Source, names: Iterable[str], environment: Mapping[str, str]) -> dict[str, Distribution]:
    """The named distributions and all that they require in ``environment``, by name.

    Raises ``ConfigurationError`` when one is not in ``source`` or its requirements cannot be decided.
    """
    found: dict[str, Distribution] = {}
    asked: dict[str, frozenset[str]] = {}
    waiting = [(normalise(name), frozenset[str]()) for name in sorted(names)]
    while waiting:
        name, extras = waiting.pop()
        if name in found and extras <= asked[name]:
            continue
        distribution = found.get(name) or source.get(name)
        if distribution is None:
            raise ConfigurationError(
                "requires",
                f"the distribution {name} is needed and not installed",
                hint=f"install it: pip install {name}",
                stage="manifest",
            )
        found[name] = distribution
        asked[name] = asked.get(name, frozenset()) | extras
        for line in distribution.requires:
            requirement = parse_requirement(line)
            if requirement.holds(environment, asked[name]):
                waiting.append((requirement.name, requirement.extras))
    return found


class Installed:
    """Distributions installed in ``sites`` (site-packages folders, the first one wins), read from their RECORD files."""

    def __init__(self, sites: Sequence[Path]) -> None:
        self.sites = tuple(sites)
        self._info: dict[str, Path] = {}
        for site in self.sites:
            here: dict[str, Path] = {}
            for entry in sorted(_entries(site)):
                if entry.endswith(".dist-info"):
                    name = normalise(entry.removesuffix(".dist-info").partition("-")[0])
                    if name in here:
                        raise unmeasured(
                            f"the distribution {name} is installed twice in one folder", _REINSTALL
                        )
                    here[name] = site / entry
            self._info = {**here, **self._info}

    def get(self, name: str) -> Distribution | None:
        """The distribution of this normalised name with the table of its RECORD, not yet compared with its files."""
        info = self._info.get(name)
        if info is None:
            return None
        listed, version, requires = read_metadata(_read(info / "METADATA", f"METADATA of {name}"))
        if listed != name:
            raise unmeasured(f"the metadata of {name} names another distribution", _REINSTALL)
        files: dict[str, bytes] = {}
        for path, recorded in self.record(name).items():
            if path.startswith("/") or ".." in path.split("/") or is_installers(path):
                continue
            if recorded is None:
                raise unmeasured(f"RECORD of {name} lists a file without SHA-256", _REINSTALL)
            check_path(path, name)
            files[path] = recorded
        return Distribution(name, version, files, requires, info.parent)

    def record(self, name: str) -> dict[str, bytes | None]:
        """Every path in the RECORD of the distribution, with its SHA-256 or None."""
        return read_record(_read(self._info[name] / "RECORD", f"RECORD of {name}"), name)

    def names_in(self, site: Path) -> list[str]:
        """The names of the distributions whose metadata lies in ``site``."""
        return [name for name, info in self._info.items() if info.parent == site]

    def verify(self, distributions: Iterable[Distribution]) -> None:
        """Hash every file and compare it with its table; raises ``enclave.unmeasured``, naming the file."""
        paths: list[Path] = []
        expected: list[tuple[str, str, bytes]] = []
        for distribution in distributions:
            if distribution.site is None:
                raise unmeasured(f"{distribution.name} is not installed", _REINSTALL)
            for path, digest in distribution.files.items():
                paths.append(distribution.site / path)
                expected.append((distribution.name, path, digest))
        for (name, path, digest), actual in zip(expected, hash_files(paths), strict=True):
            if digest != actual:
                raise unmeasured(f"{path} of {name} is not the file of its wheel", _REINSTALL)


def _entries(site: Path) -> list[str]:
    try:
        return [entry.name for entry in site.iterdir()]
    except OSError as error:
        raise unmeasured("a folder of installed distributions cannot be read", _REINSTALL) from error


def _read(path: Path, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_METADATA + 1)
    except OSError as error:
        raise unmeasured(
            f"{what} cannot be read, so its files cannot be checked",
            "use a virtual environment; distributions of the operating system carry no hashes",
        ) from error
    if len(data) > MAX_METADATA:
        raise unmeasured(f"{what} is longer than 4 MiB", _REINSTALL)
    return data


def read_metadata(data: bytes) -> tuple[str, str, tuple[str, ...]]:
    """The normalised name, the version and the requirements in a METADATA file; raises ``enclave.unmeasured``."""
    try:
        head = data.decode("utf-8").replace("\r\n", "\n").partition("\n\n")[0]
    except UnicodeDecodeError as error:
        raise unmeasured("the metadata of a distribution is not UTF-8", _REINSTALL) from error
    values: dict[str, list[str]] = {}
    for line in re.sub(r"\n[ \t]+", " ", head).split("\n"):
        key, colon, value = line.partition(":")
        if colon:
            values.setdefault(key.strip().lower(), []).append(value.strip())
    names, versions = values.get("name", []), values.get("version", [])
    if len(names) != 1 or len(versions) != 1 or re.fullmatch(r"[A-Za-z0-9.!+_-]{1,128}", versions[0]) is None:
        raise unmeasured("the metadata of a distribution has no single name and version", _REINSTALL)
    return normalise(names[0]), versions[0], tuple(values.get("requires-dist", ()))


def read_record(data: bytes, name: str) -> dict[str, bytes | None]:
    """The paths of a RECORD file, each with its SHA-256, or None for one without; raises ``enclave.unmeasured``."""
    rows: dict[str, bytes | None] = {}
    try:
        for row in csv.reader(data.decode("utf-8").splitlines(), strict=True):
            if len(row) != 3 or row[0] in rows or len(rows) >= MAX_FILES:
                raise unmeasured(f"RECORD of {name} is malformed", _REINSTALL)
            algorithm, _, text = row[1].partition("=")
            digest = (
                base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)) if algorithm == "sha256" else None
            )
            if digest is not None and len(digest) != 32:
                raise unmeasured(f"RECORD of {name} holds a digest of a wrong length", _REINSTALL)
            rows[row[0]] = digest
    except (csv.Error, UnicodeDecodeError, binascii.Error, ValueError) as error:
        raise unmeasured(f"RECORD of {name} is malformed", _REINSTALL) from error
    return rows


def is_installers(path: str) -> bool:
    """Whether a path below a site folder is written by installers, so that it does not count."""
    parts = path.split("/")
    return path.endswith(_BYTECODE) or (
        len(parts) == 2 and parts[0].endswith(".dist-info") and parts[1] in _INSTALLER_FILES
    )


def check_path(path: str, name: str) -> None:
    """Refuse a path that leaves its folder, or that another file system would spell differently."""
    if not path or not path.isprintable() or any(c in path for c in '\\:*?"<>|') or len(path) > 1024:
        raise unmeasured(f"{name} holds a file whose path cannot be measured", _REINSTALL)
    if any(part in {"", ".", ".."} for part in path.split("/")):
        raise unmeasured(f"{name} holds a file whose path leaves its folder", _REINSTALL)
