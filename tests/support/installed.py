# SPDX-License-Identifier: Apache-2.0
"""Small site folders with installed distributions, as an installer leaves them, and wheels of the same content."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def record_line(path: str, data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{path},sha256={digest},{len(data)}"


def _metadata(name: str, version: str, requires: Sequence[str]) -> bytes:
    lines = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {requirement}" for requirement in requires]
    return ("\n".join(lines) + "\n\nA distribution for tests.\n").encode()


WHEEL = b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def install(
    site: Path,
    name: str,
    version: str = "1.0",
    *,
    files: Mapping[str, bytes] | None = None,
    requires: Sequence[str] = (),
) -> None:
    """Lay a distribution into ``site``: its files, its metadata, and what installers add."""
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    listed = dict(files if files is not None else {f"{name.replace('-', '_')}/__init__.py": b"VALUE = 1\n"})
    listed[f"{info}/METADATA"] = _metadata(name, version, requires)
    listed[f"{info}/WHEEL"] = WHEEL
    listed[f"{info}/INSTALLER"] = b"tests\n"
    for path, data in listed.items():
        place = site / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    lines = [record_line(path, data) for path, data in listed.items()]
    lines += [f"../../../bin/{name},,", f"{name}/__pycache__/__init__.cpython-311.pyc,,", f"{info}/RECORD,,"]
    (site / info / "RECORD").write_text("\n".join(lines) + "\n")


def core_site(site: Path) -> Path:
    """A site folder with stand-ins of what confide itself needs inside an enclave."""
    site.mkdir(parents=True, exist_ok=True)
    for name in ("click", "cryptography", "httpx2", "uvicorn"):
        install(site, name)
    return site


def wheel(
    folder: Path, name: str, version: str = "1.0", *, files: Mapping[str, bytes], requires: Sequence[str] = ()
) -> Path:
    """A wheel file with these files, well-formed enough for pip."""
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    listed = {**files, f"{info}/METADATA": _metadata(name, version, requires), f"{info}/WHEEL": WHEEL}
    lines = [record_line(path, data) for path, data in listed.items()] + [f"{info}/RECORD,,"]
    listed[f"{info}/RECORD"] = ("\n".join(lines) + "\n").encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in listed.items():
            archive.writestr(path, data)
    place = folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    place.write_bytes(buffer.getvalue())
    return place
