# SPDX-License-Identifier: Apache-2.0
"""The program of a worker, run by its path: ``python -I -S -B -X pycache_prefix=/dev/null worker_main.py``.

Descriptors are inherited under the numbers of ``confide.enclave.control``. It reads one `Start` message, seals its importer
with the manifest, confines itself, and only then runs anything of the service or holds anything secret:

    1  measured importer          confide alone can be imported; the interpreter's options are the expected ones
    2  Start                      the host's one instruction, read as hostile input; no descriptor beside the lent ones
    3  seal                       the manifest alone can be imported; what has been imported is compared with it
    4  environment                exactly the manifest's pairs, or an end
    5  enclose, seal off          the order of ``confide.enclave.confinement.apply``
    6  Runtime                    keys, evidence, the service
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from confide.enclave.confinement.landlock import Grants
    from confide.enclave.confinement.limits import ResourceLimits
    from confide.enclave.control import Connection, Failed, Start
    from confide.enclave.loader import Importer
    from confide.enclave.manifest import Manifest

_MAX_DESCRIPTOR = 1 << 20
"""Above what Linux gives to a process by default (``fs.nr_open``)."""


def _start_importer(package: Path) -> Importer:
    spec = importlib.util.spec_from_file_location("confide.enclave.loader", package / "enclave" / "loader.py")
    if spec is None or spec.loader is None:
        raise SystemExit("confide.enclave.loader is not beside this program")
    loader = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    importer: Importer = loader.start(package)
    return importer


def main() -> NoReturn:
    """Become the worker of one enclave; end with its exit status."""
    os.umask(0o077)
    os.chdir("/")
    package = Path(__file__).resolve().parents[1]
    importer = _start_importer(package)
    import socket

    from confide.enclave.control import CONTROL, Connection, Failed
    from confide.errors import ConfideError

    connection = Connection(socket.socket(fileno=CONTROL), start=True)
    try:
        _run(package, importer, connection)
    except ConfideError as error:
        _report(connection, Failed(error.code, error.message, error.hint))
    except MemoryError:
        _report(connection, Failed("enclave.out_of_memory", "the worker's memory does not suffice", ""))
    except Exception as error:  # noqa: BLE001 - the host learns the kind of error; its text may hold values
        kind = type(error).__name__
        hint = "Set debug = true in the service (which changes its measurement) to see the traceback."
        _report(connection, Failed("enclave.crashed", f"the worker ended with {kind}", hint))
        _traceback()
    # Threads of the service may still run and hold nothing that must be finished.
    os._exit(1)


def _run(package: Path, importer: Importer, connection: Connection) -> NoReturn:
    from confide.enclave.confinement.apply import enclose, seal_off
    from confide.enclave.control import Confined, Forked, Start
    from confide.enclave.manifest import Manifest
    from confide.errors import MalformedError

    _check_options()
    _warm_up()
    start = connection.receive()
    if not isinstance(start, Start):
        raise MalformedError("unknown_format", "the host's first message is not the start message")
    _close_others(start)
    manifest = Manifest.decode(start.manifest)
    _silence(manifest)
    code = {name: Path(place) for name, place in start.code.items()}
    sites = tuple(Path(site) for site in start.sites)
    # The device has hashed the native libraries just now; each is compared again when it is mapped.
    importer.seal(manifest, sites=sites, code=code)
    _check_environment(manifest)
    _close_doors(debug=manifest.service.debug)

    done = enclose(lambda pid: connection.send(Forked(pid)))
    confinement = seal_off(done, _limits(manifest), _grants(package, start))
    connection.send(Confined(confinement))

    from confide.enclave.runtime import Runtime

    Runtime(start=start, manifest=manifest, confinement=confinement, connection=connection).run()


def _check_options() -> None:
    """Refuse to run under options and arguments that nobody measured: ``-O`` strips the service's own checks, ``-X utf8=0``
    decodes its files otherwise, and an argument is input to whatever reads ``sys.argv``.
    """
    options: dict[str, str | bool] = {"pycache_prefix": os.devnull, "utf8": True}
    if sys.version_info >= (3, 14):
        options["disable-remote-debug"] = True
    strange = (
        sys._xoptions != options,  # noqa: SLF001 - where CPython documents -X options to be
        bool(sys.warnoptions),
        len(sys.argv) != 1,
        any(
            (sys.flags.optimize, sys.flags.debug, sys.flags.inspect, sys.flags.interactive, sys.flags.verbose)
        ),
        sys.flags.bytes_warning != 0,
    )
    if any(strange):
        from confide.errors import EnclaveError

        raise EnclaveError(
            "unmeasured",
            "the worker's interpreter was started with other options or arguments than a worker's",
            hint="Start it with -I -S -B -X pycache_prefix=/dev/null -X utf8 and nothing else.",
            stage="launch",
        )


def _warm_up() -> None:
    """Import, while the device still measures, what of Python and of confide every service needs.

    There is no bytecode for a worker, so compiling these is a good part of its start. Third parties' modules cannot be
    imported before the importer is sealed.
    """
    import asyncio
    import asyncio.unix_events
    import concurrent.futures.thread
    import email.message
    import importlib.metadata
    import ipaddress
    import logging.config
    import ssl
    import urllib.request

    from confide.attestation import key_material
    from confide.enclave import distributions, tree
    from confide.enclave.confinement import apply

    del asyncio, concurrent, email, importlib, ipaddress, logging, ssl, urllib, key_material
    del distributions, tree, apply


def _close_others(start: Start) -> None:
    import stat

    from confide.enclave.control import CONTROL, EGRESS
    from confide.errors import MalformedError

    kinds = {
        **dict.fromkeys(range(CONTROL, EGRESS + 1), stat.S_IFSOCK),
        **dict.fromkeys(start.data.values(), stat.S_IFREG),
        **({} if start.storage is None else {start.storage: stat.S_IFDIR}),
    }
    for descriptor, kind in kinds.items():
        # A number under which nothing was lent would later name whatever is opened next.
        try:
            found = stat.S_IFMT(os.fstat(descriptor).st_mode)
        except OSError:
            found = 0
        if found != kind:
            raise MalformedError("non_canonical", "a descriptor that the host lends is not what it should be")
    first = 3
    for descriptor in (*sorted(kinds), _MAX_DESCRIPTOR):
        os.closerange(first, descriptor)
        first = descriptor + 1


def _silence(manifest: Manifest) -> None:
    """Put the null device in place of the standard streams, whatever the host has put there: ``print`` and tracebacks of
    the service are not for the host. Only a measured ``debug`` leaves the outputs as they are.
    """
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for descriptor in (0,) if manifest.service.debug else (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)


def _check_environment(manifest: Manifest) -> None:
    from confide.errors import EnclaveError

    present = dict(os.environ)
    # A C locale makes Python set this one itself.
    if "LC_CTYPE" not in manifest.service.environment and present.get("LC_CTYPE") == "C.UTF-8":
        del os.environ["LC_CTYPE"]
        del present["LC_CTYPE"]
    if sys.platform == "darwin":
        present.pop("__CF_USER_TEXT_ENCODING", None)
    if present != dict(manifest.service.environment):
        raise EnclaveError(
            "unmeasured",
            "the worker's environment is not the one of the manifest",
            hint="The host sets exactly the measured variables; nothing else may steer an enclave.",
            stage="launch",
        )


def _close_doors(*, debug: bool) -> None:
    """No debugger, no trace function, and no words of the service on the host's side."""
    import logging

    def refuse(*_arguments: object, **_keywords: object) -> NoReturn:
        raise RuntimeError("breakpoints are not for enclaves")

    if not debug:
        sys.breakpointhook = refuse
        sys.excepthook = lambda *_error: None
        logging.raiseExceptions = False
        logging.getLogger().addHandler(logging.NullHandler())


def _limits(manifest: Manifest) -> ResourceLimits:
    from confide.enclave.confinement.limits import ResourceLimits

    limits = manifest.service.limits
    return ResourceLimits(
        memory=limits.memory,
        open_files=limits.open_files,
        threads=limits.processes,
        # A file in memory counts against it too, and nothing may write a longer one.
        file_size=limits.memory,
    )


def _grants(package: Path, start: Start) -> Grants:
    from confide.enclave.confinement.apply import interpreter_paths
    from confide.enclave.confinement.landlock import Grants

    places = (package, *(Path(place) for place in (*start.code.values(), *start.sites)))
    return Grants(
        read=(*interpreter_paths(), *places),
        read_write=(Path(os.devnull),),
        directories=() if start.storage is None else (start.storage,),
    )


def _report(connection: Connection, failed: Failed) -> None:
    import contextlib

    from confide.errors import ConfideError

    with contextlib.suppress(ConfideError):
        connection.send(failed)


def _traceback() -> None:
    import traceback

    # Goes to the null device, unless the measured service asked for debugging.
    traceback.print_exc()


if __name__ == "__main__":
    main()
