# SPDX-License-Identifier: Apache-2.0
"""A program on the measured importer, for tests: seals itself with a manifest, then imports what it is told to.

It reads one JSON object on standard input (package, manifest as a file, sites, code, modules, and what to do between
measuring and importing) and prints one: what each module's import gave.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    task: dict[str, Any] = json.load(sys.stdin)
    package = Path(task["package"])
    spec = importlib.util.spec_from_file_location("confide.enclave.loader", package / "enclave" / "loader.py")
    if spec is None or spec.loader is None:
        raise SystemExit("no loader")
    loader = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    result: dict[str, Any] = {"modules": {}}
    try:
        importer = loader.start(package)
        manifest = importlib.import_module("confide.enclave.manifest").Manifest.decode(
            Path(task["manifest"]).read_bytes()
        )
        for module in task.get("early", []):
            importlib.import_module(module)
        code = {name: Path(path) for name, path in task["code"].items()}
        importer.seal(manifest, sites=[Path(site) for site in task["sites"]], code=code)
    except Exception as error:  # noqa: BLE001 - the test judges what it was
        result["start"] = getattr(error, "code", type(error).__name__)
        result["message"] = str(error)
        sys.stdout.write(json.dumps(result))
        return
    for path, text in task.get("write", {}).items():
        Path(path).write_text(text)
    for name in task["modules"]:
        try:
            module = importlib.import_module(name)
            result["modules"][name] = str(getattr(module, "VALUE", "imported"))
        except Exception as error:  # noqa: BLE001 - the test judges what it was
            result["modules"][name] = getattr(error, "code", type(error).__name__)
    if task.get("metadata"):
        metadata = importlib.import_module("importlib.metadata")
        result["versions"] = {name: metadata.version(name) for name in task["metadata"]}
        result["entry_points"] = len(list(metadata.entry_points()))
        resources = importlib.import_module("importlib.resources")
        result["resource"] = resources.files("confide").joinpath("py.typed").is_file()
    result["path"] = sys.path
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main()
