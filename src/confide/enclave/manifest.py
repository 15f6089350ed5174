# SPDX-License-Identifier: Apache-2.0
"""The measured manifest: everything that can steer an enclave, as deterministic CBOR. `docs/spec/manifest.md` is its spec.

Same inputs give the same bytes in every folder, on every machine, for one target. The TEE measures the digest of these
bytes; a verifier that has the bytes can show a mismatch line by line (``difference``).
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from confide.enclave import tree
from confide.enclave.distributions import CORE, Distribution, Installed, Source, closure
from confide.enclave.planted import refuse_planted
from confide.enclave.service import Service
from confide.enclave.target import Target
from confide.errors import ConfigurationError, EnclaveError, MalformedError
from confide.wire import cbor
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = [
    "MAX_SIZE",
    "Dependency",
    "Manifest",
    "Target",
    "build",
    "check_installation",
    "difference",
    "measure_description",
    "sites",
]

FORMAT = "confide/manifest/1"
MAX_SIZE = 160 * 1024
"""Bytes of an encoded manifest; it travels in evidence, and a bundle of evidence has 256 KiB."""


@dataclass(frozen=True, slots=True)
class Dependency:
    """A distribution as the manifest holds it; ``digest`` is that of ``confide.enclave.distributions`` (32 B)."""

    version: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is measured. ``service`` has no code and requires nothing: those are ``code`` and ``dependencies`` by content.

    ``code``: import name -> path -> SHA-256 of the file, ``confide`` among them.
    """

    target: Target
    service: Service
    code: Mapping[str, Mapping[str, bytes]]
    dependencies: Mapping[str, Dependency]

    def encode(self) -> bytes:
        """Deterministic CBOR (RFC 8949 section 4.2.1); raises ``ConfigurationError`` beyond ``MAX_SIZE``."""
        data = cbor.encode(
            {
                "code": {name: dict(files) for name, files in self.code.items()},
                "dependencies": {
                    name: {"digest": found.digest, "version": found.version}
                    for name, found in self.dependencies.items()
                },
                "format": FORMAT,
                "service": self.service.configuration(),
                "target": {
                    "implementation": self.target.implementation,
                    "platform": self.target.platform,
                    "python": self.target.python,
                },
            }
        )
        if len(data) > MAX_SIZE:
            raise ConfigurationError(
                "manifest",
                f"the manifest has {len(data)} bytes, more than {MAX_SIZE}",
                hint="measure only code; data, tables and models travel in protected files",
                stage="manifest",
            )
        return data

    @property
    def digest(self) -> bytes:
        """SHA-256 of the encoded manifest (32 B)."""
        return hashlib.sha256(self.encode()).digest()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read an encoded manifest strictly: exactly the bytes that ``encode`` would give.

        Raises ``MalformedError`` for anything else.
        """
        fields = Fields(cbor.decode(data, what="manifest", max_size=MAX_SIZE), "manifest")
        if fields.text("format") != FORMAT:
            raise MalformedError("unsupported_version", "the manifest is of another version")
        target = Fields(fields.mapping("target"), "target of a manifest")
        code = {
            _text(name): {_text(path): _digest(digest) for path, digest in _map(files).items()}
            for name, files in fields.mapping("code").items()
        }
        dependencies: dict[str, Dependency] = {}
        for name, value in fields.mapping("dependencies").items():
            entry = Fields(_map(value), "dependency of a manifest")
            dependencies[_text(name)] = Dependency(entry.text("version"), entry.bytes_("digest", 32))
            entry.end()
        try:
            manifest = cls(
                Target(target.text("implementation"), target.text("python"), target.text("platform")),
                Service.from_configuration(fields.mapping("service")),
                code,
                dependencies,
            )
        except ConfigurationError as error:
            raise MalformedError("non_canonical", f"manifest: {error.message}") from error
        target.end()
        fields.end()
        if manifest.encode() != data:
            raise MalformedError("non_canonical", "the manifest spells its content in another order")
        return manifest


def _map(value: object) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise MalformedError("non_canonical", "a part of the manifest is not a map")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise MalformedError("non_canonical", "a name in the manifest is not printable text")
    return value


def _digest(value: object) -> bytes:
    if not isinstance(value, bytes) or len(value) != 32:
        raise MalformedError("non_canonical", "a digest in the manifest is not 32 bytes")
    return value


def sites() -> tuple[Path, ...]:
    """The folders on this interpreter's path that hold installed distributions, in order."""
    found = [Path(entry) for entry in sys.path if entry]
    return tuple(path for path in found if path.is_dir() and any(path.glob("*.dist-info")))


def build(service: Service, *, distributions: Source | None = None, target: Target | None = None) -> Manifest:
    """Measure ``service``: hash confide, the user's code, and everything that both require, from ``distributions``.

    ``distributions`` are those installed beside confide unless given (``Installed``, or ``Wheels`` for a target that this
    machine is not). Raises ``enclave.unmeasured`` for whatever could steer the enclave without being measured, and
    ``ConfigurationError`` for what is not installed.
    """
    target = target or Target.current()
    source = distributions or Installed(sites())
    found = closure(source, {*CORE, *service.requires}, target.markers())
    source.verify(found.values())
    if isinstance(source, Installed):
        refuse_planted(source, found.values())
    code = {"confide": tree.measure(tree.confide_root(), "confide")}
    code |= {root.name: tree.measure(root.path, root.name) for root in service.code}
    _refuse_shadowing(code, found)
    return Manifest(
        target,
        # Read back rather than copied: a subclass with a constructor of its own becomes the plain service it stands for.
        Service.from_configuration(service.configuration()),
        code,
        {name: Dependency(distribution.version, distribution.digest) for name, distribution in found.items()},
    )


def _refuse_shadowing(code: Mapping[str, object], found: Mapping[str, Distribution]) -> None:
    owners: dict[str, str] = dict.fromkeys(code, "the service's code")
    files: dict[str, str] = {}
    for name in code:
        if name in sys.stdlib_module_names:
            raise EnclaveError(
                "unmeasured",
                f"the service's code {name} has the name of a module of Python itself",
                hint="rename it",
                stage="measure",
            )
    for name, distribution in found.items():
        for top in distribution.top_level:
            module = top.partition(".")[0]
            if module in owners or module in sys.stdlib_module_names:
                raise EnclaveError(
                    "unmeasured",
                    f"the distribution {name} installs {module}, which is {owners.get(module, 'a module of Python itself')}",
                    hint="rename the service's code, or do without that distribution",
                    stage="measure",
                )
        for path in distribution.files:
            if files.setdefault(path, name) != name:
                raise EnclaveError(
                    "unmeasured",
                    f"{files[path]} and {name} install the same file {path}",
                    hint="do without one of the two",
                    stage="measure",
                )


def check_installation(
    manifest: Manifest, *, code: Mapping[str, Path], distributions: Installed, contents: bool = True
) -> None:
    """Check that what ``manifest`` lists, and nothing else that Python could import, lies on this machine.

    ``code`` gives the place of each import name in the manifest. With ``contents=False`` only tables, names and planted
    files are checked, for a worker whose importer hashes every file as it loads it. Raises ``enclave.unmeasured``.
    """
    if manifest.target != Target.current():
        raise EnclaveError(
            "unmeasured",
            "the manifest is for another interpreter or platform",
            hint="measure the service for this target",
            stage="measure",
        )
    found: list[Distribution] = []
    for name, dependency in manifest.dependencies.items():
        distribution = distributions.get(name)
        if distribution is None or (distribution.version, distribution.digest) != (
            dependency.version,
            dependency.digest,
        ):
            raise EnclaveError(
                "unmeasured",
                f"the installed distribution {name} is not the measured one",
                hint="install the versions of the lock, or measure again",
                stage="measure",
            )
        found.append(distribution)
    if contents:
        distributions.verify(found)
    refuse_planted(distributions, found)
    for name, files in manifest.code.items():
        present = tree.measure(code[name], name) if name in code else {}
        lines = tuple(_difference(files, present))
        if lines:
            raise EnclaveError(
                "unmeasured",
                f"the code {name} is not the measured one: {lines[0]}",
                hint="measure again",
                stage="measure",
            )


def measure_description(description: Mapping[Any, Any], folders: Sequence[Path]) -> Manifest:
    """The manifest of a described service, with the distributions in ``folders``: what a device calls to measure."""
    return build(Service.from_description(description), distributions=Installed(folders))


def difference(a: Manifest, b: Manifest) -> tuple[str, ...]:
    """What changed from ``a`` to ``b``, one line for a person each; empty when they are equal."""
    lines = [
        f"target {field}: {getattr(a.target, field)} -> {getattr(b.target, field)}"
        for field in ("implementation", "python", "platform")
        if getattr(a.target, field) != getattr(b.target, field)
    ]
    for name in sorted(a.code.keys() | b.code.keys()):
        lines += _difference(a.code.get(name, {}), b.code.get(name, {}))
    for name in sorted(a.dependencies.keys() | b.dependencies.keys()):
        before, after = a.dependencies.get(name), b.dependencies.get(name)
        if before is None and after is not None:
            lines.append(f"dependency {name}: added {after.version}")
        elif before is not None and after is None:
            lines.append(f"dependency {name}: removed {before.version}")
        elif before is not None and after is not None and before != after:
            same = " (other files)" if before.version == after.version else ""
            lines.append(f"dependency {name} {before.version} -> {after.version}{same}")
    lines += _settings("", a.service.configuration(), b.service.configuration())
    return tuple(lines)


def _difference(a: Mapping[str, bytes], b: Mapping[str, bytes]) -> Iterator[str]:
    for path in sorted(a.keys() | b.keys()):
        if path not in b:
            yield f"removed: {path}"
        elif path not in a:
            yield f"added: {path}"
        elif a[path] != b[path]:
            yield f"changed: {path}"


def _settings(prefix: str, a: Mapping[str, object], b: Mapping[str, object]) -> list[str]:
    lines: list[str] = []
    for key in sorted(a.keys() | b.keys()):
        before, after = a.get(key), b.get(key)
        name = f"{prefix}{_shown(key)}"
        if isinstance(before, dict) and isinstance(after, dict):
            lines += _settings(f"{name}: " if not prefix else f"{name}.", before, after)
        elif key not in a:
            lines.append(f"{name} added: {_shown(after)}")
        elif key not in b:
            lines.append(f"{name} removed: {_shown(before)}")
        elif before != after or type(before) is not type(after):
            lines.append(f"{name} {_shown(before)} -> {_shown(after)}")
    return lines


def _shown(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex()[:16] + "..." if len(value) > 8 else value.hex()
    text = str(value) if isinstance(value, (str, int)) else repr(value)
    return "".join(c if c.isprintable() else "?" for c in text)[:120]
