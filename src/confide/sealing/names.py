# SPDX-License-Identifier: Apache-2.0
"""The one grammar for names of keys, secrets and vaults.

A name is 1 to 128 characters of ``A-Z a-z 0-9 . _ -`` and begins and ends with a letter or a digit: one component of a path on
every file system, with one spelling in every encoding. Case counts; where a file system folds it, what was read says
its own name and is compared. A version is 1 to 2**63 - 1. Source: ``docs/spec/release.md``, section 1.
"""

from __future__ import annotations

import re

__all__ = ["MAX_NAME", "MAX_VERSION", "is_name", "is_version"]

MAX_NAME = 128
MAX_VERSION = (1 << 63) - 1
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", re.ASCII)


def is_name(value: object) -> bool:
    """Whether ``value`` is a name."""
    return isinstance(value, str) and len(value) <= MAX_NAME and _NAME.fullmatch(value) is not None


def is_version(value: object) -> bool:
    """Whether ``value`` is a version; a truth value is not one."""
    return type(value) is int and 1 <= value <= MAX_VERSION
