# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
import py_compile
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from confide.enclave import manifest as manifests
from confide.enclave import tree
from confide.enclave.distributions import Installed
from confide.enclave.service import CodeRoot, Service
from confide.simulator.process import ISOLATED
from support.installed import core_site, install

PROGRAM = Path(__file__).parents[1] / "support" / "measured_program.py"


class World:
    """A machine in a folder: a copy of confide, a site folder, user code, and a manifest of all three."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requires: tuple[str, ...] = ("library",)
        self.package = folder / "library" / "confide"
        shutil.copytree(tree.confide_root(), self.package, ignore=shutil.ignore_patterns("__pycache__"))
        self.site = core_site(folder / "site")
        install(
            self.site,
            "library",
            files={
                "library/__init__.py": b"VALUE = 'library'\n",
                "library/inner.py": b"VALUE = 'inner'\n",
                "shared/one/part.py": b"VALUE = 'part of a namespace'\n",
            },
        )
        install(self.site, "unlisted", files={"unlisted.py": b"VALUE = 'unlisted'\n"})
        self.app = folder / "app_v2"
        self.app.mkdir()
        (self.app / "__init__.py").write_text("VALUE = 'app'\n")
        (self.app / "model.py").write_text("import library\nVALUE = 'model and ' + library.VALUE\n")
        self.place = folder / "manifest"
        self.measure()

    def measure(self) -> None:
        service = Service("application", "a", code=(CodeRoot(self.app, "app"),), requires=self.requires)
        with mock.patch.object(tree, "confide_root", return_value=self.package):
            built = manifests.build(service, distributions=Installed([self.site]))
        self.place.write_bytes(built.encode())

    def run(
        self, *modules: str, flags: tuple[str, ...] = ISOLATED, env: dict[str, str] | None = None, **task: Any
    ) -> dict[str, Any]:
        question = {
            "package": str(self.package),
            "manifest": str(self.place),
            "sites": [str(self.site)],
            "code": {"app": str(self.app)},
            "modules": modules,
            **task,
        }
        done = subprocess.run(
            [sys.executable, *flags, str(PROGRAM)],
            input=json.dumps(question),
            cwd=self.folder,
            env=env or {},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        result: dict[str, Any] = json.loads(done.stdout)
        return result


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_what_the_manifest_lists_can_be_imported_and_nothing_else(world: World) -> None:
    result = world.run(
        "app", "app.model", "library.inner", "shared.one.part", "unlisted", "pytest", "app.absent", "json"
    )
    assert result["modules"] == {
        "app": "app",
        "app.model": "model and library",
        "library.inner": "inner",
        "shared.one.part": "part of a namespace",
        "unlisted": "ModuleNotFoundError",
        "pytest": "ModuleNotFoundError",
        "app.absent": "ModuleNotFoundError",
        "json": "imported",
    }
    assert not [entry for entry in result["path"] if "site-packages" in entry or not entry]


PLANTED = {
    "json.py": "json",
    "string.py": "string",
    "planted_here.py": "planted_here",
    "planted_folder/inside.py": "planted_folder.inside",
    "sitecustomize.py": "sitecustomize",
    "usercustomize.py": "usercustomize",
    "site/heapq.py": "heapq",
    "site/planted_site.py": "planted_site",
    "site/library/planted.py": "library.planted",
    "site/shared/one/planted.py": "shared.one.planted",
    "site/planted_namespace/inside.py": "planted_namespace.inside",
    "app_v2/planted.py": "app.planted",
    "library/planted_beside.py": "planted_beside",
    "library/confide/planted.py": "confide.planted",
}


def test_rt_12_a_module_planted_after_the_measurement_is_never_found(world: World) -> None:
    """In the working folder, beside the packages, inside them, and in the names of Python's own modules."""
    for path in PLANTED:
        place = world.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("VALUE = 'planted'\n")
    result = world.run(*PLANTED.values(), "library", "app.model", env={"PYTHONPATH": str(world.folder)})
    found = result["modules"]
    own = {"json": "imported", "string": "imported", "heapq": "imported", "library": "library"}
    assert found.pop("app.model") == "model and library"
    assert {name: found.pop(name) for name in own} == own
    assert found == dict.fromkeys(found, "ModuleNotFoundError")
    assert len(found) == len(PLANTED) - 3


def test_rt_12_path_files_are_not_read(world: World) -> None:
    marker = world.folder / "has-run"
    (world.site / "evil.pth").write_text(f"import pathlib; pathlib.Path({str(marker)!r}).touch()\n")
    (world.folder / "evil.pth").write_text(f"import pathlib; pathlib.Path({str(marker)!r}).touch()\n")
    assert world.run("library")["modules"] == {"library": "library"}
    assert not marker.exists()


@pytest.mark.parametrize("where", ["cache beside the file", "sourceless"])
def test_rt_12_a_planted_pyc_is_not_run(world: World, where: str) -> None:
    """Bytecode with the right time and size beside an untouched source; the same file is seen to run without the importer."""
    source = world.site / "library" / "__init__.py"
    forged = world.folder / "forged.py"
    forged.write_text("VALUE = 'forged!'\n")
    assert forged.stat().st_size == source.stat().st_size
    os.utime(forged, ns=(source.stat().st_atime_ns, source.stat().st_mtime_ns))
    cache = Path(importlib.util.cache_from_source(str(source)))
    if where == "sourceless":
        cache = world.site / "other.pyc"
    cache.parent.mkdir(exist_ok=True)
    py_compile.compile(str(forged), cfile=str(cache), doraise=True)
    if where == "cache beside the file":
        naive = f"import sys; sys.path.insert(0, {str(world.site)!r}); import library; print(library.VALUE)"
        seen = subprocess.run(
            [sys.executable, "-I", "-S", "-B", "-c", naive],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        assert seen.stdout.strip() == "forged!"
    result = world.run("library", "other")
    assert result["modules"] == {"library": "library", "other": "ModuleNotFoundError"}


@pytest.mark.parametrize(
    ("path", "module"), [("site/library/inner.py", "library.inner"), ("app_v2/model.py", "app.model")]
)
def test_sc_06_a_file_changed_after_it_was_measured_is_not_compiled(
    world: World, path: str, module: str
) -> None:
    assert world.run(module)["modules"][module] in {"inner", "model and library"}
    (world.folder / path).write_text("VALUE = 'changed'\n")
    assert world.run(module)["modules"][module] == "enclave.unmeasured"


def test_sc_06_a_file_changed_after_the_importer_was_sealed_is_not_compiled(world: World) -> None:
    result = world.run(
        "library.inner", write={str(world.site / "library" / "inner.py"): "VALUE = 'changed'\n"}
    )
    assert result["modules"]["library.inner"] == "enclave.unmeasured"


def test_sc_06_a_link_or_a_missing_file_is_not_followed(world: World) -> None:
    place = world.site / "library" / "inner.py"
    place.rename(world.folder / "moved.py")
    assert world.run("library.inner")["modules"]["library.inner"] == "enclave.unmeasured"
    place.symlink_to(world.folder / "moved.py")
    assert world.run("library.inner")["modules"]["library.inner"] == "enclave.unmeasured"


@pytest.mark.parametrize("path", ["wire/cbor.py", "enclave/loader.py", "errors.py", "enclave/tree.py"])
def test_sc_06_a_changed_line_of_confide_itself_stops_the_start(world: World, path: str) -> None:
    """Also in what ran before there was anything to compare with, the importer included."""
    assert "start" not in world.run("confide.errors")
    place = world.package / path
    place.write_text(place.read_text() + "\n# changed\n")
    result = world.run("confide.errors")
    assert result["start"] == "enclave.unmeasured"
    assert path in result["message"]


@pytest.fixture
def native(world: World) -> Path:
    """A distribution with an extension module: one of Python's own, under another name."""
    found = sorted(
        Path(sysconfig.get_path("stdlib"), "lib-dynload").glob(
            f"*{importlib.machinery.EXTENSION_SUFFIXES[0]}"
        )
    )
    if not found:
        pytest.skip("this Python has no extension modules as files")
    source = min(found, key=lambda path: path.stat().st_size)
    files = {
        "native/__init__.py": b"",
        f"native/{source.name}": source.read_bytes(),
        "native.libs/libx.so.1": b"\x7fELF",
    }
    install(world.site, "native", files=files)
    world.requires = ("library", "native")
    world.measure()
    return world.site / "native" / source.name


def test_sc_06_a_changed_native_library_stops_the_start(world: World, native: Path) -> None:
    """Also one that only the dynamic loader would ever open."""
    module = f"native.{native.name.partition('.')[0]}"
    assert world.run(module)["modules"][module] == "imported"
    library = world.site / "native.libs" / "libx.so.1"
    library.write_bytes(b"\x7fELF changed")
    result = world.run(module)
    assert result["start"] == "enclave.unmeasured"
    assert "libx.so.1" in result["message"]
    library.unlink()
    assert world.run(module)["start"] == "enclave.unmeasured"


def test_sc_06_a_native_library_touched_after_it_was_hashed_is_not_mapped(world: World, native: Path) -> None:
    module = f"native.{native.name.partition('.')[0]}"
    assert world.run(module, write={str(native): "changed"})["modules"][module] == "enclave.unmeasured"


def test_a_distribution_of_another_version_stops_the_start(world: World) -> None:
    install(world.site, "library", files={"library/__init__.py": b"VALUE = 'other'\n"})
    assert world.run("library")["start"] == "enclave.unmeasured"


def test_nothing_but_confide_can_be_imported_before_the_manifest_is_known(world: World) -> None:
    assert world.run("library", early=["confide.wire.cursor"])["modules"] == {"library": "library"}
    assert world.run("library", early=["library"])["start"] == "ModuleNotFoundError"


@pytest.mark.parametrize(
    "flags",
    [
        ("-I", "-S", "-B"),
        ("-S", "-B", "-X", "pycache_prefix=/dev/null"),
        ("-I", "-B", "-X", "pycache_prefix=/dev/null"),
        ("-I", "-S", "-X", "pycache_prefix=/dev/null"),
        ("-I", "-S", "-B", "-X", "pycache_prefix=/nowhere"),
        ("-I", "-S", "-B", "-X", "pycache_prefix=."),
    ],
    ids=" ".join,
)
def test_bnd_19_an_interpreter_that_could_have_been_steered_is_refused(
    world: World, flags: tuple[str, ...]
) -> None:
    assert world.run("library", flags=ISOLATED)["modules"] == {"library": "library"}
    assert world.run("library", flags=flags)["start"] == "enclave.unmeasured"


def test_bnd_19_variables_of_python_do_not_steer_an_isolated_start(world: World) -> None:
    (world.folder / "json.py").write_text("VALUE = 'planted'\n")
    folder = str(world.folder)
    result = world.run(
        "json",
        "app.model",
        env={
            "PYTHONPATH": folder,
            "PYTHONHOME": folder,
            "PYTHONSTARTUP": f"{folder}/json.py",
            "PYTHONINSPECT": "1",
            "PYTHONBREAKPOINT": "json.x",
            "PYTHONPYCACHEPREFIX": folder,
            "PYTHONWARNINGS": "error::Warning:json",
            "PYTHONOPTIMIZE": "2",
            "PYTHONUSERBASE": folder,
            "PYTHONPLATLIBDIR": folder,
        },
    )
    assert result["modules"] == {"json": "imported", "app.model": "model and library"}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The distributions of this environment, measured and imported as an enclave imports them."""
    place = tmp_path_factory.mktemp("real") / "manifest"
    sites = manifests.sites()
    place.write_bytes(manifests.build(Service("model", "a", requires=("onnxruntime",))).encode())
    question = {
        "package": str(tree.confide_root()),
        "manifest": str(place),
        "sites": [str(site) for site in sites],
        "code": {},
        "modules": ["numpy", "onnxruntime", "cryptography.hazmat.bindings._rust", "httpx2", "uvicorn", "click",
                    "google.protobuf.message", "pytest"],
        "metadata": ["numpy", "click", "typing_extensions"],
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, *ISOLATED, str(PROGRAM)],
        input=json.dumps(question),
        env={},
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_native_libraries_namespaces_and_frameworks_work_on_the_measured_importer(
    real: dict[str, Any],
) -> None:
    assert "start" not in real, real
    assert real["modules"].pop("pytest") == "ModuleNotFoundError"
    assert set(real["modules"].values()) == {"imported"}


def test_metadata_and_resources_are_found_through_the_measured_importer(real: dict[str, Any]) -> None:
    import importlib.metadata

    assert real["versions"]["numpy"] == importlib.metadata.version("numpy")
    assert real["versions"]["click"] == importlib.metadata.version("click")
    assert real["entry_points"] > 0
    assert real["resource"] is True
