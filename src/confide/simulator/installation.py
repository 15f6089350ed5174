# SPDX-License-Identifier: Apache-2.0
"""The root of one machine's simulated devices: random, made once, never shipped.

A folder with mode 0700 holds ``ark.der``, ``ask.der`` and ``crl.der`` (the public side, shaped like AMD's), ``ask.pem`` (the
key that certifies devices) and ``secret`` (32 B, from which keys are derived), all 0600. The root's own key signs the
intermediate and an empty CRL and is then forgotten. Dates are fixed: a simulated certificate says nothing about time.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Self

from confide.attestation.anchors import TrustAnchor
from confide.crypto.issue import IssuingKey, issue, issue_crl
from confide.crypto.secret import Secret
from confide.errors import EnclaveError
from confide.simulator.place import default_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["NOT_AFTER", "NOT_BEFORE", "PRODUCT", "Installation", "public_anchor", "subject"]

NOT_BEFORE = datetime(2024, 1, 1, tzinfo=UTC)
NOT_AFTER = datetime(2049, 12, 31, tzinfo=UTC)
PRODUCT = "Genoa"

_PUBLIC = ("ark.der", "ask.der", "crl.der")
_PRIVATE = ("ask.pem", "secret")
_MAX_FILE = 64 * 1024


def subject(name: str) -> tuple[tuple[str, str], ...]:
    """A distinguished name that nobody takes for AMD's."""
    return (("OU", "SIMULATED"), ("O", "confide simulated device"), ("CN", name))


def _bad(message: str, hint: str) -> EnclaveError:
    return EnclaveError("bad_state", message, hint=hint, stage="simulator")


@dataclass(frozen=True, slots=True, repr=False)
class Installation:
    """The opened root of this machine's simulated devices."""

    ark: bytes
    ask: bytes
    crl: bytes
    ask_key: IssuingKey
    secret: Secret

    @classmethod
    def open_or_create(
        cls, directory: Path | None = None, *, random: Callable[[int], bytes] = os.urandom
    ) -> Self:
        """Open the installation in ``directory`` (the user's own by default), making it if it is not there.

        Making it takes seconds (RSA-4096, twice). Processes that start together get the same one. Raises
        ``enclave.bad_state`` when it is damaged, incomplete, or not for its owner's eyes alone.
        """
        place = _made(directory, random)
        contents = {name: _read(place / name) for name in (*_PUBLIC, *_PRIVATE)}
        try:
            key = IssuingKey.from_pem(contents["ask.pem"])
        except (TypeError, ValueError) as error:
            raise _damaged() from error
        if len(contents["secret"]) != 32:
            raise _damaged()
        return cls(
            contents["ark.der"], contents["ask.der"], contents["crl.der"], key, Secret(contents["secret"])
        )

    @property
    def anchor(self) -> TrustAnchor:
        """The public side as a trust anchor, marked as simulated."""
        return _anchor(self.ark, self.ask)

    def __repr__(self) -> str:
        return "Installation(redacted)"

    def __reduce_ex__(self, _: object) -> NoReturn:
        raise TypeError("an installation holds keys and is neither copied nor serialised")


def public_anchor(
    directory: Path | None = None, *, random: Callable[[int], bytes] = os.urandom
) -> TrustAnchor:
    """The anchor of the installation in ``directory``, made if it is not there; whoever verifies needs no private file read.

    Raises as ``Installation.open_or_create`` does.
    """
    place = _made(directory, random)
    return _anchor(_read(place / "ark.der"), _read(place / "ask.der"))


def _anchor(ark: bytes, ask: bytes) -> TrustAnchor:
    return TrustAnchor("snp", PRODUCT, (ark, ask), simulated=True)


def _made(directory: Path | None, random: Callable[[int], bytes]) -> Path:
    """The installation's folder, made if it is not there, and for its owner's eyes alone."""
    place = default_directory() if directory is None else directory
    try:
        if not place.is_dir():
            with _lock(place):
                if not place.is_dir():
                    _create(place, random)
        status = place.lstat()
    except OSError as error:
        raise _bad(
            f"the simulated device cannot keep its root: {error.strerror}",
            "it lies below $XDG_DATA_HOME, by default ~/.local/share, which must be the user's own and writable",
        ) from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise _bad(
            "the folder of the simulated device is a link, another user's, or open to others",
            f"chmod 700 it, or remove the folder {place.name}: the next launch makes a new root",
        )
    return place


def _damaged() -> EnclaveError:
    return _bad(
        "the root of the simulated device is damaged", "remove its folder: the next launch makes a new root"
    )


def _read(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise _damaged() from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise _bad(
                f"{path.name} of the simulated device is another user's or open to others",
                "chmod 600 it, or remove its folder: the next launch makes a new root",
            )
        data = file.read(_MAX_FILE + 1)
    if not 0 < len(data) <= _MAX_FILE:
        raise _damaged()
    return data


@contextlib.contextmanager
def _lock(place: Path) -> Iterator[None]:
    """Keep other processes from making the same installation; the slow part is then done once."""
    import fcntl

    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(
        place.parent / f".{place.name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
    )
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _create(place: Path, random: Callable[[int], bytes]) -> None:
    with ThreadPoolExecutor(max_workers=2) as pool:
        ark_key, ask_key = pool.map(lambda _: IssuingKey.generate_rsa(4096), range(2))
    ark_name, ask_name = subject(f"ARK-{PRODUCT}"), subject(f"SEV-{PRODUCT}")
    certificates = [
        issue(
            subject=name,
            issuer=ark_name,
            public_key=key.public_key_der,
            signing_key=ark_key,
            serial=int.from_bytes(random(15), "big") + 1,
            not_before=NOT_BEFORE,
            not_after=NOT_AFTER,
            is_ca=True,
            path_length=path_length,
            key_usage=frozenset({"key_cert_sign", "crl_sign"})
            if key is ark_key
            else frozenset({"key_cert_sign"}),
        )
        for name, key, path_length in ((ark_name, ark_key, None), (ask_name, ask_key, 0))
    ]
    contents = {
        "ark.der": certificates[0],
        "ask.der": certificates[1],
        "crl.der": issue_crl(
            issuer=ark_name, signing_key=ark_key, this_update=NOT_BEFORE, next_update=NOT_AFTER, revoked=()
        ),
        "ask.pem": ask_key.to_pem(),
        "secret": random(32),
    }
    # The folder appears under its name complete or not at all.
    unfinished = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
    try:
        for name, data in contents.items():
            descriptor = os.open(
                unfinished / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
            )
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(descriptor)
        unfinished.rename(place)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        if not place.is_dir():
            raise _bad(
                f"the simulated device cannot keep its root: {error.strerror}", "free some space"
            ) from error
