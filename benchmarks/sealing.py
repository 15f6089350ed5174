# SPDX-License-Identifier: Apache-2.0
"""T6 to T8: protected files against plain reading and writing, with the page cache warm.

Each mode of authentication has its own row: `owner` (the AEAD alone, when the owner handed the key over himself) and `many`,
the default (also the owner's SHA-256 of every chunk, which a broker that holds the key could not forge). The targets
were set for the first.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import harness

from confide.crypto.secret import Secret
from confide.crypto.signing import SigningKey
from confide.sealing.protected_file import Entry, ProtectedFile, write

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1 << 20
TENSOR = 16 * MIB
OWNER = SigningKey.from_bytes(bytes(32))
KEY = Secret(bytes(range(32)))


def open_file(path: Path, holders: Any) -> ProtectedFile:
    return ProtectedFile.open(path, key=KEY, owner_public=OWNER.public, name="bench", key_holders=holders)


def plain_read(path: Path, buffer: memoryview) -> None:
    """preadv in 1 MiB steps into memory that is there already."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        for offset in range(0, len(buffer), MIB):
            os.preadv(descriptor, [buffer[offset : offset + MIB]], offset)
    finally:
        os.close(descriptor)


def copy(source: Path, target: Path) -> None:
    """cp by read and write of 1 MiB; like the sealed peer, to a new name that then replaces the old one."""
    piece = bytearray(MIB)
    temporary = target.with_suffix(".new")
    with source.open("rb", buffering=0) as reader, temporary.open("wb", buffering=0) as writer:
        while count := reader.readinto(piece):
            writer.write(memoryview(piece)[:count])
    temporary.replace(target)


def pieces(path: Path) -> Any:
    """The file in reads of 1 MiB, each a view of one buffer that is used again."""
    piece = bytearray(MIB)
    with path.open("rb", buffering=0) as reader:
        while count := reader.readinto(piece):
            yield memoryview(piece)[:count]


def seal(source: Path, target: Path, threads: int) -> None:
    write(
        target, [Entry("all", pieces(source))],
        key=KEY, signer=OWNER, name="bench", version=1, threads=threads, sync=False,
    )  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = harness.parser(__doc__ or "")
    parser.add_argument("--size-mb", type=int, default=64, help="MiB of content; the targets are for 1024")
    parser.add_argument("--directory", type=Path, help="where the files are written; the system's by default")
    options = parser.parse_args(arguments)
    count = max(2, options.size_mb * MIB // TENSOR)
    size = count * TENSOR
    report = harness.Report(f"T6 to T8: protected files of {size // MIB} MiB, page cache warm")
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        _measure(Path(folder), count, report, options.repetitions)
    report.show(as_json=options.json)


def _measure(folder: Path, count: int, report: harness.Report, repetitions: int) -> None:
    plain, sealed, tensors = folder / "plain", folder / "sealed", folder / "tensors"
    size = count * TENSOR
    piece = os.urandom(MIB)
    with plain.open("wb") as file:
        for _ in range(size // MIB):
            file.write(piece)
    # Written directly, and read before anything is timed: neither buffers nor pages may be touched for the first time.
    seal(plain, sealed, 1)
    write(
        tensors,
        [Entry(f"t{i}", memoryview(piece * 16), "tensor", "f32", (TENSOR // 4,)) for i in range(count)],
        key=KEY, signer=OWNER, name="bench", version=1, sync=False,
    )  # fmt: skip
    _warm(sealed, plain, size, report, repetitions)
    _lazy(sealed, tensors, size, report, repetitions)
    sealed.unlink()
    _fresh(tensors, folder, count, report, repetitions)
    tensors.unlink()
    _writing(plain, folder, report, repetitions)


def _warm(sealed: Path, plain: Path, size: int, report: harness.Report, repetitions: int) -> None:
    buffer = memoryview(bytearray(size))
    with open_file(sealed, "owner") as owner, open_file(sealed, "many") as many:
        found = harness.interleave(
            {
                "preadv": lambda: plain_read(plain, buffer),
                "owner": lambda: owner.read_into("all", buffer),
                "owner 2": lambda: owner.read_into("all", buffer, threads=2),
                "many": lambda: many.read_into("all", buffer),
                "many 2": lambda: many.read_into("all", buffer, threads=2),
            },
            repetitions=repetitions,
        )
    peer = found["preadv"]
    for mode in ("owner", "many"):
        report.ratio(
            "T6", f"unseal to warm memory, {mode}, CPU", found[mode].cpu, peer.cpu, at_least=0.95, unit="ms"
        )
        report.ratio(
            "T6",
            f"same, wall (for information), {mode}",
            found[mode].wall,
            peer.wall,
            at_least=0.95,
            unit="ms",
        )
        two = found[f"{mode} 2"]
        report.ratio(
            "T6", f"2 threads against 1, {mode}, wall", two.wall, found[mode].wall, at_least=1.6, unit="ms"
        )


def _lazy(sealed: Path, tensors: Path, size: int, report: harness.Report, repetitions: int) -> None:
    whole, one = memoryview(bytearray(size)), memoryview(bytearray(TENSOR))
    for mode in ("owner", "many"):
        with open_file(sealed, mode) as all_of_it:

            def lazily(mode: str = mode) -> None:
                with open_file(tensors, mode) as file:
                    file.read_into(file.names[-1], one)

            def everything(file: ProtectedFile = all_of_it) -> None:
                file.read_into("all", whole)

            found = harness.interleave({"all": everything, "one": lazily}, repetitions=repetitions)
        # The target is for 1 GiB: a 64th of the content, at most twice as dear as its share.
        share = size / TENSOR / (1024 / 16) / 30
        report.ratio(
            "T8", f"one 16 MiB tensor, opening included, {mode}, CPU", found["one"].cpu, found["all"].cpu,
            at_most=round(1 / 30 if share >= 1 / 30 else 2 * TENSOR / size, 4), unit="ms",
        )  # fmt: skip


def _fresh(tensors: Path, folder: Path, count: int, report: harness.Report, repetitions: int) -> None:
    if importlib.util.find_spec("safetensors") is None or importlib.util.find_spec("numpy") is None:
        return
    import numpy as np
    from safetensors.numpy import load_file, save_file

    peer = folder / "peer.safetensors"
    save_file({f"t{i}": np.zeros(TENSOR // 4, dtype=np.float32) for i in range(count)}, peer)

    def unseal(mode: str, threads: int) -> Callable[[], object]:
        def run() -> object:
            with open_file(tensors, mode) as file:
                return {
                    name: np.frombuffer(file.read(name, threads=threads), dtype=np.float32)
                    for name in file.names
                }

        return run

    found = harness.interleave(
        {
            "load_file": lambda: load_file(peer),
            "owner 1": unseal("owner", 1),
            "owner 2": unseal("owner", 2),
            "many 1": unseal("many", 1),
            "many 2": unseal("many", 2),
        },
        repetitions=repetitions,
    )
    for mode in ("owner", "many"):
        for threads in (1, 2):
            report.ratio(
                "T7", f"unseal to fresh tensors, {threads} thread(s), {mode}, wall", found[f"{mode} {threads}"].wall,
                found["load_file"].wall, at_least=0.90, unit="ms",
            )  # fmt: skip
    peer.unlink()


def _writing(plain: Path, folder: Path, report: harness.Report, repetitions: int) -> None:
    target, copied = folder / "target", folder / "copied"
    found = harness.interleave(
        {
            "cp": lambda: copy(plain, copied),
            "1": lambda: seal(plain, target, 1),
            "2": lambda: seal(plain, target, 2),
        },
        repetitions=repetitions,
    )
    for threads in ("1", "2"):
        report.ratio(
            "T7",
            f"seal and write, {threads} thread(s), wall",
            found[threads].wall,
            found["cp"].wall,
            at_least=0.8,
            unit="ms",
        )
        report.ratio(
            "T7",
            f"same, CPU (for information), {threads}",
            found[threads].cpu,
            found["cp"].cpu,
            at_least=0.8,
            unit="ms",
        )


if __name__ == "__main__":
    main()
