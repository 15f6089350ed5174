# SPDX-License-Identifier: Apache-2.0
"""Typed reading of mappings that came from CBOR, JSON or TOML: what is not asked for by name is refused."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any, Final, TypeVar, overload

from confide.errors import ConfideError, ConfigurationError, MalformedError

__all__ = ["Fields"]

_T = TypeVar("_T")
Key = int | str | bytes
# A key that may stand in a message: callers that read whatever keys came would put a sender's text there otherwise.
_WORD = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)


class _Missing:
    """The default of a key that must be there."""


_MISSING: Final = _Missing()


class Fields:
    """The keys of ``mapping``, each read once with its type and bounds; ``end()`` refuses the ones never asked for.

    ``what`` names the structure in messages. Without ``default`` a missing key is an error. Errors are ``error`` (normally
    ``MalformedError``: ``non_canonical`` for missing, unknown and mistyped keys, ``length_mismatch``, ``limit_exceeded``).
    With ``ConfigurationError``, for files that a person wrote, the leaf is ``invalid`` and unknown keys are named.
    """

    __slots__ = ("_asked", "_error", "_mapping", "_what")

    def __init__(
        self, mapping: Mapping[Any, Any], what: str, error: type[ConfideError] = MalformedError
    ) -> None:
        self._error = error
        self._what = what
        self._asked: set[Key] = set()
        self._mapping = mapping
        if not isinstance(mapping, Mapping):
            raise self._refuse("non_canonical", f"{what} is not a map")

    def _refuse(self, leaf: str, message: str, hint: str = "") -> ConfideError:
        if issubclass(self._error, MalformedError):
            return self._error(leaf, message, hint=hint)
        return self._error("invalid", message, hint=hint)

    def _get(self, key: Key, default: Any) -> Any:
        self._asked.add(key)
        value = self._mapping.get(key, _MISSING)
        if value is not _MISSING:
            return value
        if isinstance(default, _Missing):
            raise self._refuse("non_canonical", f"{self._what} has no {self._name(key)}")
        return _MISSING

    def _name(self, key: Key) -> str:
        if isinstance(key, str):
            return f"`{key}`" if _WORD.fullmatch(key) else "a key that is not one word"
        return f"key {key!r}" if isinstance(key, int) else "a key of bytes"

    def _mistyped(self, key: Key, wanted: str) -> ConfideError:
        return self._refuse("non_canonical", f"{self._what}: {self._name(key)} is not {wanted}")

    def has(self, key: Key) -> bool:
        """Whether the key is there, without counting as having read it."""
        return key in self._mapping

    @overload
    def bytes_(self, key: Key, length: int | None = None, max_length: int | None = None) -> bytes: ...
    @overload
    def bytes_(
        self, key: Key, length: int | None = None, max_length: int | None = None, *, default: _T
    ) -> bytes | _T: ...
    def bytes_(
        self, key: Key, length: int | None = None, max_length: int | None = None, *, default: Any = _MISSING
    ) -> Any:
        """A byte string of exactly ``length`` or at most ``max_length`` bytes."""
        value = self._get(key, default)
        if value is _MISSING:
            return default
        if not isinstance(value, bytes):
            raise self._mistyped(key, "a byte string")
        if length is not None and len(value) != length:
            raise self._refuse(
                "length_mismatch", f"{self._what}: {self._name(key)} is not {length} bytes long"
            )
        if max_length is not None and len(value) > max_length:
            raise self._refuse(
                "limit_exceeded", f"{self._what}: {self._name(key)} is longer than {max_length} bytes"
            )
        return value

    @overload
    def text(self, key: Key, max_length: int = 256, *, multiline: bool = False) -> str: ...
    @overload
    def text(self, key: Key, max_length: int = 256, *, multiline: bool = False, default: _T) -> str | _T: ...
    def text(
        self, key: Key, max_length: int = 256, *, multiline: bool = False, default: Any = _MISSING
    ) -> Any:
        """Text of at most ``max_length`` bytes in UTF-8, without control characters (``multiline``: but tab and newline)."""
        value = self._get(key, default)
        if value is _MISSING:
            return default
        if not isinstance(value, str):
            raise self._mistyped(key, "text")
        if len(value) > max_length or len(value.encode("utf-8", "replace")) > max_length:
            raise self._refuse(
                "limit_exceeded", f"{self._what}: {self._name(key)} is longer than {max_length} bytes"
            )
        allowed = "\t\n" if multiline else ""
        # No control character is printable, so that of most texts not every character has to be asked for its category.
        plain = value.replace("\t", "").replace("\n", "") if multiline else value
        if not plain.isprintable() and any(
            unicodedata.category(c) in {"Cc", "Cs"} and c not in allowed for c in value
        ):
            raise self._refuse("non_canonical", f"{self._what}: {self._name(key)} has control characters")
        return value

    @overload
    def integer(self, key: Key, low: int, high: int) -> int: ...
    @overload
    def integer(self, key: Key, low: int, high: int, *, default: _T) -> int | _T: ...
    def integer(self, key: Key, low: int, high: int, *, default: Any = _MISSING) -> Any:
        """An integer from ``low`` to ``high``, both included; a boolean is not one."""
        value = self._get(key, default)
        if value is _MISSING:
            return default
        if type(value) is not int:
            raise self._mistyped(key, "an integer")
        if not low <= value <= high:
            raise self._refuse(
                "limit_exceeded", f"{self._what}: {self._name(key)} is outside {low} to {high}"
            )
        return value

    @overload
    def boolean(self, key: Key) -> bool: ...
    @overload
    def boolean(self, key: Key, *, default: _T) -> bool | _T: ...
    def boolean(self, key: Key, *, default: Any = _MISSING) -> Any:
        """True or false, spelled as such."""
        value = self._get(key, default)
        if value is _MISSING:
            return default
        if type(value) is not bool:
            raise self._mistyped(key, "true or false")
        return value

    @overload
    def list_(self, key: Key, max_length: int | None = None) -> list[Any]: ...
    @overload
    def list_(self, key: Key, max_length: int | None = None, *, default: _T) -> list[Any] | _T: ...
    def list_(self, key: Key, max_length: int | None = None, *, default: Any = _MISSING) -> Any:
        """A list of at most ``max_length`` elements, whose types the caller checks."""
        value = self._get(key, default)
        if value is _MISSING:
            return default
        if not isinstance(value, list):
            raise self._mistyped(key, "a list")
        if max_length is not None and len(value) > max_length:
            raise self._refuse(
                "limit_exceeded", f"{self._what}: {self._name(key)} has more than {max_length} elements"
            )
        return value

    @overload
    def mapping(self, key: Key) -> dict[Any, Any]: ...
    @overload
    def mapping(self, key: Key, *, default: _T) -> dict[Any, Any] | _T: ...
    def mapping(self, key: Key, *, default: Any = _MISSING) -> Any:
        """A map, to be read with ``Fields`` of its own."""
        value = self._get(key, default)
        if value is _MISSING:
            return default
        if not isinstance(value, dict):
            raise self._mistyped(key, "a map")
        return value

    def end(self) -> None:
        """Refuse the mapping if it has a key that was never asked for."""
        unknown = [key for key in self._mapping if key not in self._asked]
        if not unknown:
            return
        if not issubclass(self._error, ConfigurationError):
            raise self._refuse("non_canonical", f"{self._what} has {len(unknown)} unknown keys")
        # A person wrote this file and is helped best by seeing the word that is wrong.
        word = str(unknown[0])
        if not _WORD.fullmatch(word):
            raise self._refuse("non_canonical", f"{self._what} has an unknown key that is not one word")
        import difflib

        near = difflib.get_close_matches(word, [str(key) for key in self._asked], n=1)
        raise self._refuse(
            "non_canonical",
            f"{self._what} has an unknown key `{word}`",
            f"did you mean `{near[0]}`?" if near else "remove it, or correct its spelling",
        )
