# SPDX-License-Identifier: Apache-2.0
"""Dotted paths into claims: the language in which a policy pins what a token must say.

A path names members of nested objects, joined by dots. Names of claims have dots themselves (``ear.status``), so that every
division into names is tried and exactly one may lead somewhere: where two do, nobody can say which was meant. ``*`` stands
for every member of an object, of which there must be one, and each must pass. ``[]`` at the end means that the claim is a
list and that one of its elements is allowed; without it the whole claim is compared. Comparison is of JSON: 1 is not true,
and not 1.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from confide.errors import ConfigurationError
from confide.wire import strict_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["MAX_NAMES", "allowed", "check_path", "last_name"]

MAX_NAMES: Final = 16
_ELEMENT: Final = "[]"


def check_path(path: str) -> None:
    """Refuse, as ``configuration.invalid``, what is no path."""
    names = path.removesuffix(_ELEMENT).split(".")
    if not 1 <= len(names) <= MAX_NAMES or not all(names):
        raise ConfigurationError(
            "invalid",
            "a path in `claims` of [reference.token] is empty, has an empty name, or is too long",
            hint='write "submods.container.image_digest"',
        )


def last_name(path: str) -> str:
    """What a path ends with, by which one sees whether it names a measurement: the last name, dots included."""
    return path.removesuffix(_ELEMENT)


def allowed(claims: Mapping[str, Any], path: str, values: Sequence[Any]) -> bool:
    """Whether the claim at ``path`` is there and has one of ``values``."""
    wanted = {strict_json.encode(value) for value in values}
    found = list(_resolve(claims, path.removesuffix(_ELEMENT).split(".")))
    if not found or any(value is _AMBIGUOUS for value in found):
        return False
    if path.endswith(_ELEMENT):
        return all(
            isinstance(value, list) and any(strict_json.encode(item) in wanted for item in value)
            for value in found
        )
    return all(value is not _ABSENT and strict_json.encode(value) in wanted for value in found)


_ABSENT: Final = object()
_AMBIGUOUS: Final = object()


def _resolve(value: Any, names: Sequence[str]) -> Iterator[Any]:
    """What a path leads to: one value, or for each ``*`` one for every member; a marker where it leads nowhere."""
    if not names:
        yield value
        return
    if not isinstance(value, Mapping):
        yield _ABSENT
        return
    if names[0] == "*":
        if not value:
            yield _ABSENT
        for inner in value.values():
            yield from _resolve(inner, names[1:])
        return
    ways = [
        list(_resolve(value[".".join(names[:count])], names[count:]))
        for count in range(1, len(names) + 1)
        if ".".join(names[:count]) in value
    ]
    leading = [way for way in ways if any(item is not _ABSENT for item in way)]
    if len(leading) > 1:
        yield _AMBIGUOUS
    elif leading:
        yield from leading[0]
    else:
        yield _ABSENT
