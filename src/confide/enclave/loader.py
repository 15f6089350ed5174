# SPDX-License-Identifier: Apache-2.0
"""The measured importer: inside an enclave a module is found by table, read once, hashed, compared, and then compiled.

It starts before anything is measured, so at the top of this module stand imports of the standard library alone, and as few as will do: without bytecode each one is compiled. A program
that must run measured code does this, in a file that is run by its path with ``python -I -S -B -X pycache_prefix=/dev/null``:

    package = Path(__file__).resolve().parents[1]
    spec = importlib.util.spec_from_file_location("confide.enclave.loader", package / "enclave" / "loader.py")
    loader = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    importer = loader.start(package)                         # from here on `import confide...` works, and is recorded
    manifest = confide.enclave.manifest.Manifest.decode(...)
    importer.seal(manifest, sites=..., code={"app": ...})    # from here on nothing but the manifest can be imported

Until ``seal`` only confide's own modules can be imported beside Python's, and each one's digest is kept; ``seal`` compares
them with the manifest. As in a measured boot, code that has run before it was compared can lie: the root of trust for
these first modules is the device (or the image) that measured the files.
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import CodeType, ModuleType

    from confide.enclave.manifest import Manifest
    from confide.enclave.measured_metadata import MeasuredDistribution

__all__ = ["Importer", "start"]

_EXTENSIONS = tuple(importlib.machinery.EXTENSION_SUFFIXES)
_LISTED_SUFFIXES = (".py", *_EXTENSIONS)


def _refuse(message: str, hint: str) -> NoReturn:
    from confide.errors import EnclaveError

    raise EnclaveError("unmeasured", message, hint=hint, stage="measure")


class _File(NamedTuple):
    """Where a listed file lies, and its digest; None while only confide is known and nothing is compared yet."""

    place: Path
    digest: bytes | None


class Importer:
    """Finds modules in the table of the manifest, and nowhere else."""

    def __init__(self, package: Path) -> None:
        self._package = package
        self._files: dict[str, _File] = {}
        self._folders: set[str] = set()
        self._metadata: dict[str, tuple[str, Path]] = {}
        self._loaded: dict[str, bytes] = {}
        self._paths: dict[str, str] = {}
        self._fingerprints: dict[str, tuple[int, ...]] = {}
        self._sealed = False
        self._list({f"confide/{path}": _File(package / path, None) for path in _sources(package)})

    @property
    def sealed(self) -> bool:
        """Whether the manifest is known, so that nothing unmeasured can be imported any more."""
        return self._sealed

    def seal(
        self, manifest: Manifest, *, sites: Sequence[Path], code: Mapping[str, Path], natives: bool = True
    ) -> None:
        """From now on import only what ``manifest`` lists; check what has been imported so far.

        ``sites`` are the folders with the installed distributions, ``code`` the place of each of the service's roots
        by import name. All native libraries are hashed here, once and on every core, since the dynamic loader finds
        some of them by itself; ``natives=False`` is for a process that has just hashed them. Raises
        ``enclave.unmeasured`` and leaves the importer as it was when anything differs.
        """
        from confide.enclave.distributions import Installed

        if self._sealed:
            _refuse("the importer has been sealed before", "one process runs one manifest")
        files: dict[str, _File] = {}
        for name, listed in manifest.code.items():
            root = self._package if name == "confide" else code.get(name)
            if root is None:
                _refuse(f"the place of the code {name} is not given", "name it in the service")
            for path, digest in listed.items():
                inner = path.partition("/")[2]
                files[path] = _File(root / inner if inner else root, digest)
        metadata: dict[str, tuple[str, Path]] = {}
        installed = Installed(sites)
        for name, dependency in manifest.dependencies.items():
            found = installed.get(name)
            if found is None or found.site is None or found.digest != dependency.digest:
                _refuse(
                    f"the installed distribution {name} is not the measured one",
                    "install the locked versions",
                )
            for path, digest in found.files.items():
                if path in files:
                    _refuse(f"{path} is listed twice in the manifest", "do without one of its owners")
                files[path] = _File(found.site / path, digest)
                if path.endswith(".dist-info/METADATA"):
                    metadata[name] = (path.partition("/")[0], found.site)
        for path, digest in {**self._loaded, **self._bootstrap()}.items():
            if path not in files or files[path].digest != digest:
                _refuse(
                    f"{path} has changed since it was measured", "launch again, and find out who changed it"
                )
        fingerprints = _hash_natives(files) if natives else {}
        self._files, self._metadata, self._fingerprints = {}, metadata, fingerprints
        self._folders, self._paths = set(), {}
        self._list(files)
        self._sealed = True

    def _bootstrap(self) -> dict[str, bytes]:
        """The digests of the files that ran before there was an importer: this one and the program itself."""
        main = getattr(sys.modules.get("__main__"), "__file__", None)
        places = [Path(__file__), *([Path(main)] if main else [])]
        found: dict[str, bytes] = {}
        for place in places:
            if place.is_relative_to(self._package):
                found[f"confide/{place.relative_to(self._package).as_posix()}"] = _digest(_read(place))
        return found

    def _list(self, files: Mapping[str, _File]) -> None:
        self._files.update(files)
        for path, file in files.items():
            self._paths[str(file.place)] = path
            if path.endswith(_LISTED_SUFFIXES):
                parts = path.split("/")[:-1]
                self._folders.update("/".join(parts[: i + 1]) for i in range(len(parts)))

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec of a listed module; None, and so an ImportError, for every other name."""
        del path, target
        base = fullname.replace(".", "/")
        for name in (*(f"{base}/__init__{suffix}" for suffix in _EXTENSIONS), f"{base}/__init__.py"):
            if name in self._files:
                return self._spec(fullname, name, package=True)
        for name in (*(base + suffix for suffix in _EXTENSIONS), f"{base}.py"):
            if name in self._files:
                return self._spec(fullname, name, package=False)
        if base in self._folders:
            spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = sorted(self._places(base))
            return spec
        return None

    def _places(self, base: str) -> set[str]:
        depth = base.count("/") + 1
        prefix = f"{base}/"
        return {
            str(file.place.parents[path.count("/") - depth])
            for path, file in self._files.items()
            if path.startswith(prefix)
        }

    def _spec(self, fullname: str, name: str, *, package: bool) -> importlib.machinery.ModuleSpec | None:
        place = str(self._files[name].place)
        loader = _Source(fullname, place, self) if name.endswith(".py") else _Extension(fullname, place, self)
        return importlib.util.spec_from_file_location(
            fullname,
            place,
            loader=loader,
            submodule_search_locations=[os.path.dirname(place)] if package else None,  # noqa: PTH120
        )

    def read(self, place: str) -> bytes:
        """The bytes of a listed file, compared with the manifest; the very bytes that were hashed.

        Raises ``FileNotFoundError`` for a file that is not listed and ``enclave.unmeasured`` for one that differs.
        """
        name = self._paths.get(place)
        if name is None:
            raise FileNotFoundError(f"{Path(place).name} is not in the manifest")
        data = _read(Path(place))
        digest = _digest(data)
        expected = self._files[name].digest
        if expected is None:
            self._loaded[name] = digest
        elif digest != expected:
            _refuse(f"{name} has changed since it was measured", "launch again, and find out who changed it")
        return data

    def check_native(self, place: str) -> None:
        """Refuse an extension module that is not listed, or whose file has been touched since it was hashed."""
        name = self._paths.get(place)
        if name is None or not self._sealed:
            _refuse(
                "an extension module is not in the manifest",
                "name its distribution in the service's `requires`",
            )
        known = self._fingerprints.get(name)
        if known is None:
            self.read(place)
        elif known != _fingerprint(place):
            _refuse(f"{name} has changed since it was measured", "launch again, and find out who changed it")

    def find_distributions(self, context: Any = None) -> Iterable[MeasuredDistribution]:
        """The listed distributions, for ``importlib.metadata``; their files are compared as they are read."""
        from confide.enclave.measured_metadata import MeasuredDistribution

        wanted = getattr(context, "name", None)
        if wanted is not None:
            from confide.enclave.markers import normalise

            names = [name for name in (normalise(wanted),) if name in self._metadata]
        else:
            names = list(self._metadata)
        return [MeasuredDistribution(self, *self._metadata[name]) for name in names]

    def invalidate_caches(self) -> None:
        """Nothing is cached: the table cannot change."""


class _Source(importlib.machinery.SourceFileLoader):
    """Compiles the bytes that were hashed; never looks for bytecode."""

    def __init__(self, fullname: str, path: str, importer: Importer) -> None:
        super().__init__(fullname, path)
        self._importer = importer

    def get_code(self, fullname: str) -> CodeType | None:
        del fullname
        return self.source_to_code(self._importer.read(self.path), self.path)

    def get_data(self, path: str) -> bytes:
        return self._importer.read(str(path))


class _Extension(importlib.machinery.ExtensionFileLoader):
    """Maps a native module whose file has been compared."""

    def __init__(self, fullname: str, path: str, importer: Importer) -> None:
        super().__init__(fullname, path)
        self._importer = importer

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        self._importer.check_native(self.path)
        return super().create_module(spec)

    def get_data(self, path: str) -> bytes:
        return self._importer.read(str(path))


class _StandardLibrary:
    """Finds Python's own modules, by the interpreter's list of their names, in its own folders."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec of a module of the standard library; None for every other name."""
        if fullname.partition(".")[0] not in sys.stdlib_module_names:
            return None
        return importlib.machinery.PathFinder.find_spec(fullname, path, target)


def start(package: Path) -> Importer:
    """Take over the imports of this process; ``package`` is the folder of confide.

    Afterwards ``sys.path`` holds the standard library alone, and only confide's modules are found beside it. Raises
    ``enclave.unmeasured`` when the interpreter was not started isolated, without site, and with a ``pycache_prefix`` below
    which nothing is (an empty folder, or better the null device: nobody can put bytecode there): then bytecode, ``.pth`` files and variables could have steered it already.
    """
    importer = Importer(package)
    standard = _StandardLibrary()
    kept = [finder for finder in sys.meta_path if finder is not importlib.machinery.PathFinder]
    sys.meta_path[:] = [*kept, importer, standard]
    sys.path[:] = [entry for entry in sys.path if _is_standard(entry)]
    sys.path_importer_cache.clear()
    prefix = sys.pycache_prefix or ""
    if not (sys.flags.isolated and sys.flags.no_site and sys.flags.dont_write_bytecode):
        _refuse("the interpreter is not isolated", "start it with -I -S -B")
    if prefix != os.devnull and not (prefix and Path(prefix).is_dir() and not any(Path(prefix).iterdir())):
        _refuse(
            "the interpreter could run bytecode that nobody measured",
            "start it with -X pycache_prefix=/dev/null",
        )
    return importer


def _is_standard(entry: str) -> bool:
    place = Path(entry)
    return (
        bool(entry) and place.is_dir() and (place == Path(os.__file__).parent or place.name == "lib-dynload")
    )


def _sources(package: Path) -> Iterable[str]:
    for folder, names, files in os.walk(package):
        names[:] = [name for name in names if name != "__pycache__"]
        for name in files:
            if name.endswith(".py"):
                yield Path(folder, name).relative_to(package).as_posix()


def _open(place: Path) -> int:
    # A FIFO would block without O_NONBLOCK, which means nothing to regular files.
    flags = os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(place, flags)
    except OSError as error:
        _refuse(
            f"{place.name} cannot be read: {error.strerror}",
            "only plain, readable files are measured, no links",
        )
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        _refuse(f"{place.name} is not a regular file", "remove it")
    return descriptor


def _read(place: Path) -> bytes:
    with os.fdopen(_open(place), "rb") as file:
        return file.read()


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _is_native(path: str) -> bool:
    name = path.rpartition("/")[2]
    return name.endswith((".so", ".dylib", ".pyd")) or ".so." in name


def _fingerprint(place: Path | str) -> tuple[int, ...]:
    """What changes when a file is exchanged or written to: its identity, size and times."""
    try:
        status = os.lstat(place)
    except OSError as error:
        _refuse(f"{Path(place).name} cannot be read: {error.strerror}", "reinstall the distribution")
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_mode,
    )


def _hash_natives(files: Mapping[str, _File]) -> dict[str, tuple[int, ...]]:
    from confide.enclave.distributions import hash_files

    natives = {name: file for name, file in sorted(files.items()) if _is_native(name)}
    places = [file.place for file in natives.values()]
    before = [_fingerprint(place) for place in places]
    digests = hash_files(places)
    after = [_fingerprint(place) for place in places]
    for (name, file), digest, one, other in zip(natives.items(), digests, before, after, strict=True):
        if digest != file.digest or one != other:
            _refuse(
                f"{name} is not the file of its wheel", "reinstall the distribution into a clean environment"
            )
    return dict(zip(natives, after, strict=True))
