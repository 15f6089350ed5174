# SPDX-License-Identifier: Apache-2.0
"""Key bytes that do not print, copy, pickle or compare in variable time by accident."""

from __future__ import annotations

import hmac
from typing import Any, NoReturn

from confide.errors import EnclaveError

__all__ = ["Secret"]


class Secret:
    """A secret byte string.

    ``reveal()`` is the only way to its bytes, so every use can be searched for. ``erase()`` overwrites the copy held here;
    copies that ``reveal()`` gave out are the interpreter's and cannot be wiped (docs/security/limitations.md).
    """

    __slots__ = ("_data", "_erased")

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._data = bytearray(data)
        self._erased = False

    def reveal(self) -> bytes:
        """The bytes; ``enclave.key_missing`` after ``erase()``."""
        if self._erased:
            raise EnclaveError("key_missing", "this secret has been erased")
        return bytes(self._data)

    def erase(self) -> None:
        """Overwrite the bytes with zeros; the secret cannot be used afterwards."""
        self._data[:] = bytes(len(self._data))
        self._erased = True

    def __len__(self) -> int:
        return len(self._data)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        if self._erased or other._erased:
            return False
        return hmac.compare_digest(self._data, other._data)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "Secret(redacted)"

    def _refuse(self) -> NoReturn:
        raise TypeError("a secret is neither copied nor serialised; pass the object itself")

    def __reduce_ex__(self, _: object) -> NoReturn:
        self._refuse()

    def __getstate__(self) -> NoReturn:
        self._refuse()

    def __copy__(self) -> NoReturn:
        self._refuse()

    def __deepcopy__(self, _: dict[int, Any]) -> NoReturn:
        self._refuse()
