# SPDX-License-Identifier: Apache-2.0
"""Answers of vendors on disk, each for as long as the document in it says that it is good, and for a day at most.

The cache is a convenience and decides nothing: what comes out of it is judged like what comes from the vendor. It holds
public documents only. An entry that is damaged, somebody else's, or for another question is as good as absent, and a cache
that cannot be used is left alone; neither is an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from confide.errors import MalformedError
from confide.tees.fetch import Answer, Ask, Request
from confide.wire import cbor
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Cache", "cached", "default_directory"]

MAX_ENTRY: Final = 2 * 1024 * 1024
MAX_ENTRIES: Final = 256
MAX_TOTAL: Final = 32 * 1024 * 1024
# A CRL or TCB statement is good for a month, but a vendor that revokes a key today issues another today.
LONGEST: Final = timedelta(days=1)
_SUFFIX: Final = ".endorsement"
_VERSION: Final = 1


def default_directory(environment: Mapping[str, str], home: Path) -> Path:
    """``$XDG_CACHE_HOME/confide/endorsements``; a relative ``$XDG_CACHE_HOME`` counts as none, as its specification says."""
    base = Path(environment.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else home / ".cache") / "confide" / "endorsements"


@dataclass(frozen=True, slots=True)
class Cache:
    """A folder of answers by question, 0700 and ours, at most 256 entries and 32 MiB of them."""

    directory: Path

    def find(self, request: Request, *, at: datetime) -> Answer | None:
        """The answer to ``request`` if there is one that is good at ``at``."""
        with self._open(make=False) as folder:
            if folder is None:
                return None
            data = _read(folder, _name(request))
        return None if data is None else _decode(data, request, at)

    def store(self, request: Request, answer: Answer, *, expires: datetime, at: datetime) -> None:
        """Keep an answer until ``expires``, and for a day at most. What was kept longest makes room."""
        until = min(expires, at + LONGEST)
        if until <= at:
            return
        data = _encode(request, answer, expires=until, fetched=at)
        if len(data) > MAX_ENTRY:
            return
        with contextlib.suppress(OSError), self._open(make=True) as folder:
            if folder is not None:
                _write(folder, _name(request), data)
                _make_room(folder)

    @contextlib.contextmanager
    def _open(self, *, make: bool) -> Any:
        """A descriptor of the folder, or None where it is absent, a link, somebody else's, or open to others."""
        folder = None
        try:
            if make:
                self.directory.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileExistsError):
                    self.directory.mkdir(mode=0o700)
            folder = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            status = os.fstat(folder)
            if status.st_uid != os.geteuid() or status.st_mode & 0o077:
                os.close(folder)
                folder = None
        except OSError:
            folder = None
        try:
            yield folder
        finally:
            if folder is not None:
                os.close(folder)


def cached(
    ask: Ask,
    cache: Cache,
    *,
    now: Callable[[], datetime],
    expires: Callable[[Request, Answer], datetime | None],
) -> Ask:
    """``ask``, of which ``cache`` remembers the answers. ``expires`` reads from a document how long it is good; None: not at all."""

    def asked(request: Request, /) -> Answer:
        at = now()
        found = cache.find(request, at=at)
        if found is not None:
            return found
        answer = ask(request)
        until = expires(request, answer)
        if until is not None:
            cache.store(request, answer, expires=until, at=at)
        return answer

    return asked


def _name(request: Request) -> str:
    key = cbor.encode([request.url, request.body, request.content_type, list(request.headers)])
    return hashlib.sha256(key).hexdigest() + _SUFFIX


def _encode(request: Request, answer: Answer, *, expires: datetime, fetched: datetime) -> bytes:
    entry = {
        "v": _VERSION,
        "url": request.url,
        "headers": dict(answer.headers),
        "body": answer.body,
        "fetched": int(fetched.timestamp()),
        "expires": int(expires.timestamp()),
    }
    if request.body is not None:
        entry["question"] = request.body
    data = cbor.encode(entry)
    # Against a damaged disk, not against an attacker: who can write here could also write another digest.
    return hashlib.sha256(data).digest() + data


def _decode(data: bytes, request: Request, at: datetime) -> Answer | None:
    digest, entry = data[:32], data[32:]
    if hashlib.sha256(entry).digest() != digest:
        return None
    what = "cached endorsement"
    try:
        fields = Fields(cbor.decode(entry, what=what, max_size=MAX_ENTRY), what)
        version = fields.integer("v", 0, 1 << 16)
        url = fields.text("url", max_length=4096)
        question = fields.bytes_("question", max_length=MAX_ENTRY, default=None)
        headers = fields.mapping("headers")
        body = fields.bytes_("body", max_length=MAX_ENTRY)
        fetched = datetime.fromtimestamp(fields.integer("fetched", 0, 1 << 40), UTC)
        expires = datetime.fromtimestamp(fields.integer("expires", 0, 1 << 40), UTC)
        fields.end()
    except (MalformedError, OverflowError, OSError, ValueError):
        return None
    fits = version == _VERSION and url == request.url and question == request.body
    wanted = set(headers) == set(request.headers) and all(isinstance(text, str) for text in headers.values())
    # An entry from the future was written under a clock that was wrong, and is no ground to skip asking.
    if not fits or not wanted or not fetched <= at < expires or expires - fetched > LONGEST:
        return None
    return Answer(body, headers)


def _read(folder: int, name: str) -> bytes | None:
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return None
    status = os.fstat(descriptor)
    mine = status.st_uid == os.geteuid() and not status.st_mode & 0o022
    if not stat.S_ISREG(status.st_mode) or not mine or status.st_size > MAX_ENTRY + 32:
        os.close(descriptor)  # Before `fdopen`, which raises for a folder.
        return None
    with os.fdopen(descriptor, "rb") as file:
        try:
            return file.read(MAX_ENTRY + 33)
        except OSError:
            return None


def _write(folder: int, name: str, data: bytes) -> None:
    temporary = f".{os.urandom(8).hex()}{_SUFFIX}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise


def _make_room(folder: int) -> None:
    """Remove the oldest entries until the rest is within both limits; other files in the folder are nobody's business."""
    entries = []
    with os.scandir(folder) as found:
        for entry in found:
            if entry.name.endswith(_SUFFIX):
                with contextlib.suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    entries.append((status.st_mtime_ns, entry.name, status.st_size))
    entries.sort(reverse=True)
    total = 0
    for index, (_, name, size) in enumerate(entries):
        total += size
        if index >= MAX_ENTRIES or total > MAX_TOTAL:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=folder)
