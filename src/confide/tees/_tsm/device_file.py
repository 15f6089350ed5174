# SPDX-License-Identifier: Apache-2.0
"""A guest's character device, opened for each call."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["ioctl_of"]


def ioctl_of(path: Path) -> Callable[[int, bytearray], object] | None:
    """``ioctl(request, argument)`` on the device at ``path``, which changes ``argument`` in place and raises OSError.

    None if the device is not there or not open to this process.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return None

    def ioctl(request: int, argument: bytearray) -> object:
        import fcntl

        opened = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            # A bytearray of any length is changed in place; bytes would be limited to 1024.
            return fcntl.ioctl(opened, request, argument)
        finally:
            os.close(opened)

    return ioctl
