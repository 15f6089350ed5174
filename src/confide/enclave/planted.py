# SPDX-License-Identifier: Apache-2.0
"""Files that Python could import and that no distribution lists: a launch beside one of them is refused.

The measured importer would not load them anyway (it knows modules by table, not by folder); that they are there at all
says that someone tries, or that the installation is not what it seems.
"""

from __future__ import annotations

import os
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import TYPE_CHECKING

from confide.errors import EnclaveError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from confide.enclave.distributions import Distribution, Installed

__all__ = ["refuse_planted"]

_IMPORTABLE = (".py", ".pyc", ".pyo", ".pth", ".so", ".pyd", ".dylib", *EXTENSION_SUFFIXES)
# virtualenv and uv put these two into every environment without listing them anywhere; -S and the importer pass them by.
_ENVIRONMENT_FILES = frozenset({"_virtualenv.py", "_virtualenv.pth"})


def _planted(path: str) -> EnclaveError:
    return EnclaveError(
        "unmeasured",
        f"{path} lies where Python could import it and belongs to no installed distribution",
        hint="find out who put it there; delete it, or launch from a clean virtual environment",
        stage="measure",
    )


def refuse_planted(installed: Installed, used: Iterable[Distribution]) -> None:
    """Refuse what is importable in the site folders of ``used`` without being listed by a distribution there.

    At the top of a site folder everything importable must be listed by some distribution; inside the folders of ``used``
    every file must be. ``__pycache__`` is passed by, since no interpreter of an enclave looks into it. Raises
    ``enclave.unmeasured``, naming the file.
    """
    by_site: dict[Path, set[str]] = {}
    for distribution in used:
        if distribution.site is not None:
            by_site.setdefault(distribution.site, set()).update(distribution.top_level)
    for site, tops in by_site.items():
        listed: set[str] = set()
        for name in installed.names_in(site):
            listed.update(installed.record(name))
        folders = {path.partition("/")[0] for path in listed if "/" in path}
        with os.scandir(site) as entries:
            present = list(entries)
        for entry in present:
            if entry.name == "__pycache__" and entry.is_dir(follow_symlinks=False):
                continue
            if entry.name in tops and entry.is_symlink():
                raise _planted(entry.name)
            if entry.name in tops and entry.is_dir():
                _check_folder(site, Path(entry.path), listed)
            elif entry.is_dir():
                # A name that is no identifier ("old.egg-info") is nothing that `import` could say.
                if entry.name.isidentifier() and entry.name not in folders and _holds_files(Path(entry.path)):
                    raise _planted(entry.name)
            elif (
                entry.name.endswith(_IMPORTABLE)
                and entry.name not in listed
                and entry.name not in _ENVIRONMENT_FILES
            ):
                raise _planted(entry.name)


def _check_folder(site: Path, folder: Path, listed: set[str]) -> None:
    for place, names, files in os.walk(folder):
        names[:] = [name for name in names if name != "__pycache__"]
        prefix = Path(place).relative_to(site).as_posix()
        for name in names:
            if Path(place, name).is_symlink():
                raise _planted(f"{prefix}/{name}")
        for name in files:
            if f"{prefix}/{name}" not in listed:
                raise _planted(f"{prefix}/{name}")


def _holds_files(folder: Path) -> bool:
    """Whether an unlisted folder is more than what an uninstalled distribution leaves behind."""
    for _, names, files in os.walk(folder):
        names[:] = [name for name in names if name != "__pycache__"]
        if files:
            return True
    return False
