# SPDX-License-Identifier: Apache-2.0
"""Fuzz one decoder, or each for a while: `python -m fuzz TARGET|all --seconds N`. Needs the dependency group `fuzz`.

New inputs go to a temporary folder, or to `--keep FOLDER`; an input that breaks a promise is written there as `crash-...`. What is
committed in `fuzz/corpus` was made by the simulators (`python -m fuzz.seeds`) or by hand.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from fuzz.targets import Target

CORPUS = Path(__file__).parent / "corpus"
# Under the fuzzer's own counting a target is several times slower than it is alone.
SECONDS_FOR_ONE = 4.0
MEGABYTES_FOR_ONE = 64


def main() -> int:
    """Run what was asked for; 0 if nothing was found."""
    parser = argparse.ArgumentParser(
        prog="python -m fuzz", description=(__doc__ or "").split("\n", maxsplit=1)[0]
    )
    parser.add_argument("target", help="a target, `all`, or `list`")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--keep", type=Path, help="folder for new inputs")
    asked = parser.parse_args()
    import atheris

    with atheris.instrument_imports(include=["confide"]):
        from fuzz.targets import TARGETS

    if asked.target == "list":
        print("\n".join(sorted(TARGETS)))
        return 0
    if asked.target != "all" and asked.target not in TARGETS:
        print(f"no such target; there are: {', '.join(sorted(TARGETS))}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        keep = asked.keep or Path(folder)
        if asked.target != "all":
            return _fuzz(asked.target, TARGETS[asked.target], asked.seconds, keep)
        return max(
            [
                _fuzz_apart(name, target, asked.seconds, keep / name)
                for name, target in sorted(TARGETS.items())
            ]
        )


def _fuzz_apart(name: str, target: Target, seconds: int, keep: Path) -> int:
    """One target in a process of its own, since the fuzzer ends its process; what it says is shown if it found something."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as said:
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            _run_and_exit(name, target, seconds, keep, said.fileno())
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(
            f"{name:20} {'FOUND SOMETHING' if status else 'nothing'} in {time.monotonic() - began:.0f} s",
            flush=True,
        )
        if status:
            said.seek(0)
            sys.stdout.write(said.read().decode("utf-8", "replace")[-4000:])
    return int(status != 0)


def _run_and_exit(name: str, target: Target, seconds: int, keep: Path, said: int) -> NoReturn:
    """What a child does, and nothing after it: whatever the fuzzer raises, the caller's own code is not run twice."""
    code = 1
    try:
        os.dup2(said, 1)
        os.dup2(said, 2)
        code = _fuzz(name, target, seconds, keep)
    except SystemExit as end:
        code = 1 if end.code else 0
    except BaseException:  # noqa: BLE001 - shown, and then the process ends.
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _fuzz(name: str, target: Target, seconds: int, keep: Path) -> int:
    """Returns nothing but ends the process, once something is found or the time is over."""
    import atheris

    from confide.errors import ConfideError

    def once(data: bytes) -> None:
        began = time.thread_time()
        try:
            with contextlib.suppress(ConfideError):
                target.run(data)
            if time.thread_time() - began > SECONDS_FOR_ONE:
                raise TimeoutError("one input took too long")
        except BaseException:
            # The fuzzer writes it too, but not after every kind of end.
            (keep / f"crash-{hashlib.sha256(data).hexdigest()[:40]}").write_bytes(data)
            raise

    keep.mkdir(parents=True, exist_ok=True)
    corpus = CORPUS / name
    arguments = [
        sys.argv[0],
        str(keep),
        *([str(corpus)] if corpus.is_dir() else []),
        f"-max_total_time={seconds}",
        f"-max_len={target.max_len}",
        f"-only_ascii={int(target.ascii)}",
        f"-malloc_limit_mb={MEGABYTES_FOR_ONE}",
        "-rss_limit_mb=1024",
        "-timeout=20",
        "-print_final_stats=1",
        f"-artifact_prefix={keep}/",
    ]
    atheris.Setup(arguments, once)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
