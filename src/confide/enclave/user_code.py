# SPDX-License-Identifier: Apache-2.0
"""Finding the files of a user's own code, so that they can be measured; importing them inside."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from confide.enclave.service import CodeRoot, SecretPin
from confide.errors import ConfigurationError, EnclaveError

__all__ = ["code_roots", "owner_pins", "resolve", "split_target"]

_TARGET: Final = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*\Z", re.ASCII)
_MAX_TARGET: Final = 512


def split_target(target: str) -> tuple[str, str]:
    """``"package.module:attribute"`` in two; `ConfigurationError` for anything else."""
    if not isinstance(target, str) or len(target) > _MAX_TARGET or _TARGET.match(target) is None:
        raise ConfigurationError(
            "code", "code is named as module:attribute", hint='For example Application("shop.web:app").'
        )
    module, _, attribute = target.partition(":")
    return module, attribute


def code_roots(module: str, further: Sequence[str | Path | CodeRoot] = ()) -> tuple[CodeRoot, ...]:
    """The root that holds ``module`` (found as ``import`` would find it, not imported), and ``further`` ones.

    A root is a package's whole folder or one module's file. Installed distributions are measured by ``requires`` instead.
    """
    roots = [item if isinstance(item, CodeRoot) else _root_of_path(Path(item)) for item in further]
    top = module.partition(".")[0]
    if all(root.name != top for root in roots):
        roots.append(_root_of_import(top))
    return tuple(roots)


def _root_of_path(path: Path) -> CodeRoot:
    place = path.resolve()
    if not place.exists():
        raise ConfigurationError("code", "a place of code does not exist", hint=str(path))
    return CodeRoot(place, place.stem if place.is_file() else place.name)


def _root_of_import(top: str) -> CodeRoot:
    loaded = sys.modules.get(top)
    spec = getattr(loaded, "__spec__", None) or (
        None if loaded is not None else importlib.util.find_spec(top)
    )
    origin = getattr(spec, "origin", None)
    if not isinstance(origin, str) or not origin.endswith(".py"):
        raise ConfigurationError(
            "code",
            f"the source of {top} was not found",
            hint="Give its file or package folder: code=[Path(...)], or run where it can be imported.",
        )
    place = Path(origin).resolve()
    if place.name == "__init__.py":
        place = place.parent
    if "site-packages" in place.parts or "dist-packages" in place.parts:
        raise ConfigurationError(
            "code",
            f"{top} belongs to an installed distribution",
            hint="Name the distribution in requires=[...] and give code that is yours.",
        )
    return CodeRoot(place, top)


def owner_pins(owners: Mapping[str, bytes] | Sequence[SecretPin]) -> tuple[SecretPin, ...]:
    """Secrets or models by name with their owners' public keys."""
    if isinstance(owners, Mapping):
        return tuple(SecretPin(name, public) for name, public in owners.items())
    return tuple(owners)


def resolve(target: object) -> Any:
    """Inside: import the measured module and give its attribute; ``enclave.unmeasured`` when the manifest has none."""
    if not isinstance(target, str):
        raise ConfigurationError("code", "the service's options do not name its code")
    module, attribute = split_target(target)
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        raise EnclaveError(
            "unmeasured",
            f"the service's code imports {missing if missing.isidentifier() else 'a module'}, which the manifest does not list",
            hint="Name its distribution in requires=[...], or its source in code=[...], and measure again.",
            stage="launch",
        ) from None
    if not callable(found):
        raise EnclaveError(
            "unmeasured", "the measured module has nothing callable of this name", stage="launch"
        )
    return found
