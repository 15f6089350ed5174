# SPDX-License-Identifier: Apache-2.0
"""Source trees as a manifest measures them: every regular file by its path and SHA-256, and nothing else may be there.

Neither times, owners, modes nor the order of a folder count. A name that two file systems could spell or fold differently
is refused, as is everything that could steer code without standing in the list: links, devices, hidden files, bytecode.
"""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

from confide.enclave.distributions import hash_files
from confide.errors import EnclaveError

__all__ = ["confide_root", "measure"]

MAX_FILES = 1500
MAX_DEPTH = 32


def confide_root() -> Path:
    """The folder of the running confide package."""
    return Path(__file__).parents[1]


def _unmeasured(message: str, hint: str) -> EnclaveError:
    return EnclaveError("unmeasured", message, hint=hint, stage="measure")


def measure(path: Path, name: str) -> dict[str, bytes]:
    """The files of the package folder or module file at ``path``, as ``name/...`` or ``name.py`` -> SHA-256 (32 B).

    ``__pycache__`` folders are left out: an enclave's interpreter never looks there. Raises ``enclave.unmeasured`` for
    whatever else is not a plain source or data file.
    """
    if path.is_symlink():
        raise _unmeasured(f"the code {name} is a symbolic link", "give the real path")
    if path.is_file():
        if path.suffix != ".py":
            raise _unmeasured(
                f"the code {name} is not a .py file", "give a module's file or a package's folder"
            )
        return {f"{name}.py": hash_files([path])[0]}
    if not path.is_dir():
        raise _unmeasured(f"the code {name} is not there", "give a module's file or a package's folder")
    places = sorted(_walk(path, name, 0))
    if not places:
        raise _unmeasured(f"the code {name} is an empty folder", "give a package's folder")
    folded: dict[str, str] = {}
    for relative, _ in places:
        other = folded.setdefault(relative.casefold(), relative)
        if other != relative:
            raise _unmeasured(
                f"{other} and {relative} differ only in case, so they are one file on other machines",
                "rename one",
            )
    digests = hash_files([place for _, place in places])
    return {relative: digest for (relative, _), digest in zip(places, digests, strict=True)}


def _walk(folder: Path, prefix: str, depth: int) -> list[tuple[str, Path]]:
    if depth > MAX_DEPTH:
        raise _unmeasured(f"{prefix} is nested deeper than {MAX_DEPTH} folders", "move code up")
    found: list[tuple[str, Path]] = []
    try:
        with os.scandir(folder) as opened:
            entries = list(opened)
    except OSError as error:
        raise _unmeasured(f"{prefix} cannot be read: {error.strerror}", "make it readable") from error
    for entry in entries:
        relative = f"{prefix}/{entry.name}"
        if entry.name == "__pycache__" and entry.is_dir(follow_symlinks=False):
            continue
        _check_name(entry.name, relative)
        if entry.is_dir(follow_symlinks=False):
            found += _walk(Path(entry.path), relative, depth + 1)
        elif entry.is_file(follow_symlinks=False):
            found.append((relative, Path(entry.path)))
        else:
            raise _unmeasured(f"{relative} is a link or not a regular file", "put the file itself there")
        if len(found) > MAX_FILES:
            raise _unmeasured(
                f"{prefix} holds more than {MAX_FILES} files",
                "measure only code; data travels in protected files",
            )
    return found


def _check_name(name: str, relative: str) -> None:
    if name.startswith("."):
        raise _unmeasured(
            f"{relative} is hidden", "move it out of the measured code, or give it a visible name"
        )
    if name.endswith((".pyc", ".pyo", ".pth")):
        raise _unmeasured(f"{relative} is bytecode or a path file, which is never run inside", "delete it")
    if (
        not name.isprintable()
        or any(c in name for c in '\\:*?"<>|')
        or len(name.encode("utf-8", "replace")) > 255
        or unicodedata.normalize("NFC", name) != name
    ):
        raise _unmeasured(
            f"{relative.rpartition('/')[0]} holds a name that other file systems cannot spell",
            "use printable characters in composed form (NFC)",
        )
