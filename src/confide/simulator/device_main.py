# SPDX-License-Identifier: Apache-2.0
"""The program of a simulated device, run by its path: ``python -I -S -B -X pycache_prefix=/dev/null device_main.py HOST WORKER``.

``HOST`` and ``WORKER`` are the numbers of two inherited sockets. The host describes a service, once; the device hashes the
files by itself and answers with the manifest and the measurement; from then on it listens to the worker alone. It runs on
the same measured importer as the worker, sealed with the manifest that it has just made.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any, Protocol


class _Importer(Protocol):
    """What this program needs of ``confide.enclave.loader.Importer``, which stands above it."""

    def seal(self, manifest: Any, *, sites: list[Path], code: dict[str, Path], natives: bool) -> None: ...


# The one name that this layer reaches upward, by name: how a described service is measured.
_MEASURER = ("confide.enclave.manifest", "measure_description")


def _start() -> _Importer:
    package = Path(__file__).resolve().parents[1]
    spec = importlib.util.spec_from_file_location("confide.enclave.loader", package / "enclave" / "loader.py")
    if spec is None or spec.loader is None:
        raise SystemExit("confide.enclave.loader is not beside this program")
    loader = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    importer: _Importer = loader.start(package)
    return importer


def main(host_number: int, worker_number: int) -> None:
    """Measure one service for the host, then serve its worker until either end is closed."""
    importer = _start()
    import contextlib
    import resource
    import socket
    import threading

    from confide.errors import ConfideError
    from confide.simulator import messages
    from confide.simulator.measurement import measurement

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    host = socket.socket(fileno=host_number)
    worker = socket.socket(fileno=worker_number)
    try:
        question = messages.receive(host, limit=messages.MAX_HOST)
        if question is None:
            return
        manifest, directory, code, sites = _measure(question)
        encoded = manifest.encode()
        importer.seal(manifest, sites=sites, code=code, natives=False)
        messages.send(host, {"manifest": encoded, "measurement": measurement(encoded)})

        from confide.simulator.device import Device
        from confide.simulator.installation import Installation
        from confide.simulator.snp import Chip

        chip = Chip.power_on(Installation.open_or_create(directory))
        messages.send(host, {"ready": True})
    except ConfideError as error:
        messages.send(host, messages.error_message(error))
        return

    def end_with_host() -> None:
        # Whatever the host sends now is ignored: nothing that it says can change what was measured.
        with contextlib.suppress(OSError):
            while host.recv(4096):
                pass
        with contextlib.suppress(OSError):
            worker.shutdown(socket.SHUT_RDWR)

    threading.Thread(target=end_with_host, daemon=True).start()
    Device(chip, encoded, debug=manifest.service.debug).serve(worker)


def _measure(question: dict[Any, Any]) -> tuple[Any, Path, dict[str, Path], list[Path]]:
    from confide.errors import MalformedError
    from confide.wire.fields import Fields

    fields = Fields(question, "device question")
    directory = Path(fields.text("directory", 4096))
    places = fields.list_("sites", 64)
    description = fields.mapping("service")
    fields.end()
    if not all(isinstance(place, str) for place in places):
        raise MalformedError("non_canonical", "a folder of distributions is not text")
    sites = [Path(place) for place in places]
    module, name = _MEASURER
    manifest = getattr(importlib.import_module(module), name)(description, sites)
    code = {root["name"]: Path(root["path"]) for root in description["code"]}
    return manifest, directory, code, sites


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
