# SPDX-License-Identifier: Apache-2.0
"""Files on a hostile and unreliable disk: old or new, never mixed; nobody else's name, nobody else's to read."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from confide.crypto.secret import Secret
from confide.errors import SealingError
from confide.keys.identity import Identity
from confide.keys.keyring import Keyring
from confide.sealing.durable import DurableFile, make_private_directory, read_private
from confide.sealing.protected_file import Entry, ProtectedFile, write
from confide.sealing.vault import Vault
from support.sealed import KEY, NAME, OWNER, WEIGHTS, Sealed, sealed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SUPPORT = Path(__file__).parents[1] / "support"


def run(
    script: str, *arguments: object, prefix: tuple[str, ...] = (), timeout: float = 100
) -> dict[str, Any]:
    command = [*prefix, sys.executable, str(SUPPORT / script), *(str(a) for a in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_sea_08_a_writer_killed_at_random_leaves_the_old_or_the_new_file(tmp_path: Path) -> None:
    """50 times SIGKILL, in the middle of some write; file and vault open each time and never go back."""
    found = run("crash_writer.py", tmp_path, 50, 1)
    assert found["kills"] == 50
    assert found["advanced"] > 25  # Else the kills came before anything was written, and nothing was tested.


@pytest.mark.slow
def test_sea_08_a_writer_killed_500_times(tmp_path: Path) -> None:
    assert run("crash_writer.py", tmp_path, 500, 2)["advanced"] > 250


_CALLS = ("open", "pwrite", "fsync", "rename", "fchmod")


def _crash_after(call: str, number: int, path: Path) -> bool:
    """In a child, die before the ``number``-th ``call`` while writing ``path``; whether it came to that."""
    child = os.fork()
    if child == 0:
        inner, seen = getattr(os, call), [0]

        def dying(*args: Any, **kwargs: Any) -> Any:
            seen[0] += 1
            if seen[0] == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return inner(*args, **kwargs)

        setattr(os, call, dying)
        if call == "fchmod":
            os.umask(0o200)  # Modes are changed only where the umask took something away.
        try:
            write(
                path,
                [Entry("a", b"new" * 5000)],
                key=Secret(KEY),
                signer=OWNER,
                name=NAME,
                version=4,
                chunk=4096,
            )
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("call", _CALLS)
def test_sea_08_a_crash_before_any_call_leaves_the_old_or_the_new_file(tmp_path: Path, call: str) -> None:
    """Each call of the sequence in turn; the new file is there only once the rename has happened."""
    path = tmp_path / "sealed.confide"
    old = sealed(tmp_path).data
    number = 0
    while True:
        number += 1
        path.write_bytes(old)
        died = _crash_after(call, number, path)
        with ProtectedFile.open(path, key=Secret(KEY), owner_public=OWNER.public, name=NAME) as file:
            if file.version == 4:
                assert bytes(file.read("a")) == b"new" * 5000
                # Renamed already: only the flush of the folder can have been missing.
                assert not died or (call, number) == ("fsync", 2)
            else:
                assert path.read_bytes() == old
        if not died:
            break
    assert number > 1, "the call never happened, so nothing was tested"


def test_sea_08_file_and_folder_are_flushed_before_and_after_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, rename = os.fsync, os.rename

    def watched_fsync(descriptor: int) -> None:
        calls.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def watched_rename(*args: Any, **kwargs: Any) -> None:
        calls.append("rename")
        rename(*args, **kwargs)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "rename", watched_rename)
    sealed(tmp_path)
    assert calls == ["file", "rename", "folder"]


def test_sea_09_a_full_disk_and_a_read_only_one(tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    prefix = (unshare or "unshare", "-Urm", "--")
    if unshare is None or subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        pytest.skip("user namespaces are not to be had here")
    found = run("full_disk.py", tmp_path, prefix=prefix)
    assert found["small"] == "written"
    assert found["vault"] == "written"
    assert found["large"] == "sealing.storage_full"
    assert found["vault_large"] == "sealing.storage_full"
    assert found["untouched"] is True
    assert found["left"] == ["file", "v", "v/s.lock", "v/s.vault"]
    assert found["read_only"] == "sealing.storage_io"


def test_sea_09_a_file_beyond_the_limit_is_storage_full_and_leaves_the_old_one(tmp_path: Path) -> None:
    good = sealed(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
        with pytest.raises(SealingError) as error:
            sealed(tmp_path, (Entry("a", bytes(100_000)),), threads=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert error.value.code == "sealing.storage_full"
    assert names(tmp_path) == ["sealed.confide"]
    assert (tmp_path / "sealed.confide").read_bytes() == good.data


@pytest.mark.parametrize("call", ["pwrite", "fsync", "rename", "fchmod"])
@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.EIO, "storage_io"), (errno.ENOSPC, "storage_full"), (errno.EDQUOT, "storage_full")],
)
def test_sea_09_an_error_of_any_call_is_typed_and_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, code: str
) -> None:
    good = sealed(tmp_path)

    def failing(*_args: object, **_kwargs: object) -> None:
        raise OSError(number, "canary-in-the-message", "canary-path")

    monkeypatch.setattr(os, call, failing)
    # Modes are changed only where the umask took something away.
    umask = os.umask(0o200 if call == "fchmod" else 0o077)
    try:
        with pytest.raises(SealingError) as error:
            sealed(tmp_path)
    finally:
        os.umask(umask)
        monkeypatch.undo()
    assert error.value.code == f"sealing.{code}"
    assert "canary" not in "".join(traceback.format_exception(error.value))
    assert names(tmp_path) == ["sealed.confide"]
    assert (tmp_path / "sealed.confide").read_bytes() == good.data


def test_sea_09_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, memoryview(data)[:100], at))
    made = sealed(tmp_path)
    monkeypatch.undo()
    assert made.read_all()["canary_layer_0.weight"] == WEIGHTS


def _symlink(target: Path, elsewhere: Path) -> None:
    target.symlink_to(elsewhere)


def _hardlink(target: Path, elsewhere: Path) -> None:
    target.hardlink_to(elsewhere)


def _dangling(target: Path, elsewhere: Path) -> None:
    target.symlink_to(elsewhere.with_name("absent"))


def _fifo(target: Path, _: Path) -> None:
    os.mkfifo(target)


def _folder(target: Path, _: Path) -> None:
    target.mkdir()


@pytest.mark.parametrize("plant", [_symlink, _hardlink, _dangling, _fifo, _folder])
def test_sea_10_a_target_that_is_not_our_regular_file_is_refused(
    tmp_path: Path, plant: Callable[[Path, Path], None]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"victim")
    folder = tmp_path / "folder"
    folder.mkdir()
    plant(folder / "sealed.confide", elsewhere)
    with pytest.raises(SealingError) as error:
        sealed(folder)
    assert error.value.code == "sealing.storage_io"
    assert elsewhere.read_bytes() == b"victim"
    assert names(folder) == ["sealed.confide"]
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("plant", [_symlink, _dangling, _fifo, _folder])
def test_sea_10_a_source_that_is_not_a_regular_file_is_refused_without_blocking(
    tmp_path: Path, plant: Callable[[Path, Path], None]
) -> None:
    real = tmp_path / "real"
    real.write_bytes(sealed(tmp_path).data)
    plant(tmp_path / "planted", real)
    with pytest.raises(SealingError) as error:
        ProtectedFile.open(tmp_path / "planted", key=Secret(KEY), owner_public=OWNER.public, name=NAME)
    assert error.value.code == "sealing.storage_io"


def test_sea_10_a_planted_temporary_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if the random name is guessed, what stands there is not opened (O_EXCL)."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"victim")
    monkeypatch.setattr(os, "urandom", bytes)
    planted = tmp_path / f".sealed.confide.{'00' * 16}.tmp"
    planted.symlink_to(victim)
    with pytest.raises(SealingError) as error:
        DurableFile(tmp_path / "sealed.confide")
    assert error.value.code == "sealing.storage_io"
    assert victim.read_bytes() == b"victim"
    assert planted.is_symlink()  # What is not ours is not removed either.


def test_sea_10_a_folder_swapped_during_the_write_changes_nothing(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    with DurableFile(ours / "f") as file:
        ours.rename(tmp_path / "moved")
        (tmp_path / "ours").symlink_to(theirs)
        os.write(file.descriptor, b"secret")
        file.commit()
    assert names(theirs) == []
    assert (tmp_path / "moved" / "f").read_bytes() == b"secret"


def test_sea_10_a_target_planted_during_the_write_is_refused(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"victim")
    with DurableFile(tmp_path / "f") as file:
        (tmp_path / "f").symlink_to(victim)
        with pytest.raises(SealingError):
            file.commit()
    assert victim.read_bytes() == b"victim"
    assert names(tmp_path) == ["f", "victim"]


def test_sea_10_a_folder_for_everybody_is_refused_unless_sticky(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(SealingError) as error:
        sealed(folder)
    assert error.value.code == "sealing.storage_io"
    folder.chmod(0o1777)
    assert sealed(folder).read_all()


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o777])
def test_sea_11_files_are_0600_and_folders_0700_under_any_umask(tmp_path: Path, mask: int) -> None:
    old = os.umask(mask)
    try:
        sealed(tmp_path)
        Vault(tmp_path / "a" / "vault", Secret(KEY), name="v").put("k", b"v")
        Identity.open_or_create("me", tmp_path / "b" / "identities")
        Keyring(tmp_path / "c" / "keys").create("model")
    finally:
        os.umask(old)
    found = [path for path in tmp_path.rglob("*") if path.suffix != ".lock"]
    assert len(found) == 10
    for path in found:
        status = path.lstat()
        assert stat.S_IMODE(status.st_mode) == (0o700 if path.is_dir() else 0o600), path.name
        assert status.st_uid == os.geteuid()


def test_sea_11_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"x")
    for mode in (0o644, 0o640, 0o602, 0o660):
        path.chmod(mode)
        with pytest.raises(SealingError) as error:
            read_private(path, max_bytes=10, what="the secret")
        assert error.value.code == "sealing.storage_io"
    path.chmod(0o600)
    assert read_private(path, max_bytes=10, what="the secret") == b"x"
    with pytest.raises(SealingError):
        read_private(path, max_bytes=0, what="the secret")
    assert read_private(tmp_path / "absent", max_bytes=10, what="the secret") is None


def test_sea_11_a_folder_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(SealingError):
        make_private_directory(tmp_path / "open")
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(SealingError):
        make_private_directory(tmp_path / "link")


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.parametrize("threads", [1, 2])
def test_sea_12_memory_does_not_grow_with_the_file(tmp_path: Path, threads: int) -> None:
    """200 MiB through a stream: less than 64 MiB of memory in all, and far less than the file beyond the start."""
    found = run("large_file.py", tmp_path / "large", 200, threads)
    assert found["size"] > 200 << 20
    assert found["before"] + found["grown"] < 64 << 20
    assert found["grown"] < 24 << 20


def test_sea_13_writers_of_one_name_never_tear_it(tmp_path: Path) -> None:
    """50 writers in 8 threads at a time; what is there afterwards is whole and one of theirs."""
    contents = {i: bytes([i]) * 30_000 for i in range(50)}
    path = tmp_path / "f"
    errors: list[BaseException] = []

    def work(numbers: Iterator[int]) -> None:
        for number in numbers:
            try:
                write(
                    path, [Entry("a", contents[number])],
                    key=Secret(KEY), signer=OWNER, name=NAME, version=1, chunk=4096, sync=False,
                )  # fmt: skip
                with ProtectedFile.open(path, key=Secret(KEY), owner_public=OWNER.public, name=NAME) as file:
                    assert bytes(file.read("a")) in contents.values()
            except BaseException as error:  # noqa: BLE001
                errors.append(error)

    threads = [threading.Thread(target=work, args=(iter(range(i, 50, 8)),)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert names(tmp_path) == ["f"]


def test_sea_13_only_one_of_many_makers_wins(tmp_path: Path) -> None:
    """``replace=False``: of 20 at once, one commits, and its content is what is there."""
    won: list[int] = []
    barrier = threading.Barrier(20)

    def work(number: int) -> None:
        with DurableFile(tmp_path / "f", replace=False) as file:
            os.write(file.descriptor, bytes([number]))
            barrier.wait(10)
            if file.commit():
                won.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert (tmp_path / "f").read_bytes() == bytes(won)
    assert names(tmp_path) == ["f"]


def test_the_sealed_file_of_these_tests_opens(tmp_path: Path) -> None:
    made: Sealed = sealed(tmp_path)
    assert made.read_all()["canary_layer_0.weight"] == WEIGHTS
