# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import unicodedata
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from confide.enclave import manifest as manifests
from confide.enclave import tree
from confide.enclave.distributions import Installed
from confide.enclave.manifest import Dependency, Manifest, Target, build, check_installation, difference
from confide.enclave.service import BrokerAddress, CodeRoot, Limits, SecretPin, Service
from confide.errors import ConfigurationError, EnclaveError, MalformedError
from confide.wire import cbor
from support.installed import core_site, install
from support.refusal import code_of

if TYPE_CHECKING:
    from pathlib import Path

TARGET = Target("cpython", "3.11", "linux-x86_64")


def package(folder: Path, **files: str) -> Path:
    """A package folder ``app``; keys spell paths with ``__`` for a slash."""
    root = folder / "app"
    root.mkdir(parents=True)
    (root / "__init__.py").write_text("")
    for name, text in files.items():
        place = root / name.replace("__", "/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.with_suffix(".py").write_text(text)
    return root


def service(root: Path | None = None, **change: Any) -> Service:
    code = () if root is None else (CodeRoot(root, "app"),)
    return Service(
        **{"kind": "application", "id": "acme", "options": {"app": "app:app"}, "code": code, **change}
    )


@pytest.fixture
def site(tmp_path: Path) -> Installed:
    return Installed([core_site(tmp_path / "site")])


def small(**change: Any) -> Manifest:
    """A manifest without files of this machine in it."""
    base = Manifest(
        TARGET,
        service(),
        {"confide": {"confide/errors.py": bytes(32)}},
        {"click": Dependency("1.0", bytes(32))},
    )
    return dataclasses.replace(base, **change)


def test_a_manifest_holds_all_of_confide_the_code_and_what_both_require(
    tmp_path: Path, site: Installed
) -> None:
    made = build(service(package(tmp_path / "code", model="x = 1\n")), distributions=site)
    assert set(made.code) == {"confide", "app"}
    assert set(made.code["app"]) == {"app/__init__.py", "app/model.py"}
    assert {"confide/errors.py", "confide/enclave/manifest.py", "confide/py.typed"} <= made.code[
        "confide"
    ].keys()
    assert set(made.dependencies) == {"click", "cryptography", "httpx2", "uvicorn"}
    assert (made.service.code, made.service.requires) == ((), ())
    assert made.target == Target.current()
    assert Manifest.decode(made.encode()) == made
    assert len(made.digest) == 32


def test_a_single_module_can_be_the_code(tmp_path: Path, site: Installed) -> None:
    (tmp_path / "model_v2.py").write_text("x = 1\n")
    made = build(service(code=(CodeRoot(tmp_path / "model_v2.py", "model"),)), distributions=site)
    assert set(made.code["model"]) == {"model.py"}


SETTINGS: list[dict[str, Any]] = [
    {"kind": "model"},
    {"id": "other"},
    {"options": {"app": "app:other"}},
    {"environment": {"OMP_NUM_THREADS": "2"}},
    {"limits": Limits(memory=1 << 30)},
    {"egress": ("a.example:1",)},
    {"debug": True},
    {"secrets": (SecretPin("k", bytes(32)),)},
    {"models": (SecretPin("k", bytes(32)),)},
    {"broker": BrokerAddress("https://b.example", "x = 1")},
    {"at_most_once": True},
    {"max_session": 5},
    {"evidence": "cached"},
]


@pytest.mark.parametrize("change", SETTINGS, ids=lambda change: next(iter(change)))
def test_bnd_19_every_setting_is_in_the_measurement(change: dict[str, Any]) -> None:
    """What steers the enclave without being measured would be an attack, so each setting changes the digest and the diff."""
    changed = small(service=service(**change))
    assert changed.digest != small().digest
    assert any(next(iter(change)) in line for line in difference(small(), changed))


def test_every_field_of_a_service_is_among_the_measured_settings() -> None:
    measured = {next(iter(change)) for change in SETTINGS}
    assert {field.name for field in dataclasses.fields(Service)} - measured == {"code", "requires"}


def test_bnd_20_equal_settings_in_another_order_have_one_digest() -> None:
    a = service(
        options={"a": 1, "b": {"x": 1, "y": 2}}, environment={"A": "1", "B": "2"}, egress=("a.x:1", "b.x:2")
    )
    b = service(
        options={"b": {"y": 2, "x": 1}, "a": 1}, environment={"B": "2", "A": "1"}, egress=("b.x:2", "a.x:1")
    )
    assert small(service=a).encode() == small(service=b).encode()


def test_bnd_20_text_that_only_looks_alike_is_different() -> None:
    composed, decomposed = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))
    assert (
        small(service=service(options={"x": composed})).digest
        != small(service=service(options={"x": decomposed})).digest
    )
    assert (
        small(service=service(options={"x": 1})).digest != small(service=service(options={"x": True})).digest
    )
    assert (
        small(service=service(options={"x": "1"})).digest
        != small(service=service(options={"x": b"1"})).digest
    )


def swapped(data: bytes) -> bytes:
    """The same map with its first two keys in the other order."""
    first = cbor.encode("code") + cbor.encode({"confide": {"confide/errors.py": bytes(32)}})
    assert data[1 : 1 + len(first)] == first
    second_length = len(cbor.encode("format") + cbor.encode(manifests.FORMAT))
    second = data[1 + len(first) : 1 + len(first) + second_length]
    return data[:1] + second + first + data[1 + len(first) + second_length :]


def test_bnd_20_a_manifest_in_another_spelling_is_malformed() -> None:
    """Key order, duplicate keys, a longer integer and a float: the one accepted spelling is the one that was hashed."""
    data = small().encode()
    assert Manifest.decode(data) == small()
    ordered = cbor.decode(data, what="manifest", max_size=manifests.MAX_SIZE)
    shorter = {**ordered, "service": {**ordered["service"], "max_session": 3600.0}}
    assert code_of(Manifest.decode, swapped(data)).startswith("malformed.")
    assert code_of(Manifest.decode, data + b"\x00").startswith("malformed.")
    assert code_of(Manifest.decode, data[:-1]).startswith("malformed.")
    assert code_of(Manifest.decode, cbor.encode(shorter, floats=True)).startswith("malformed.")
    duplicate = bytes([data[0] + 1]) + cbor.encode("code") + cbor.encode({}) + data[1:]
    assert code_of(Manifest.decode, duplicate).startswith("malformed.")


@pytest.mark.parametrize(
    "change",
    [
        {"format": "confide/manifest/2"},
        {"unknown": 1},
        {"code": {"confide": {"confide/errors.py": bytes(31)}}},
        {"code": {"confide": {1: bytes(32)}}},
        {"code": {"confide": []}},
        {"dependencies": {"click": {"version": "1.0"}}},
        {"dependencies": {"click": {"version": "1.0", "digest": bytes(32), "more": 1}}},
        {"target": {"implementation": "pypy", "python": "3.11", "platform": "linux-x86_64"}},
        {"target": {"implementation": "cpython", "python": "3.11\n", "platform": "linux-x86_64"}},
    ],
    ids=str,
)
def test_a_hostile_manifest_is_malformed(change: dict[str, Any]) -> None:
    ordered = cbor.decode(small().encode(), what="manifest", max_size=manifests.MAX_SIZE)
    assert Manifest.decode(cbor.encode(ordered)) == small()
    assert code_of(Manifest.decode, cbor.encode({**ordered, **change})).startswith("malformed.")


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_manifest_with_one_byte_changed_is_refused_or_is_another_manifest(place: int, change: int) -> None:
    data = bytearray(small().encode())
    data[place % len(data)] ^= change
    try:
        decoded = Manifest.decode(bytes(data))
    except MalformedError:
        return
    assert decoded.encode() == data
    assert decoded.digest != small().digest


def test_bnd_21_paths_that_concatenate_alike_are_different(tmp_path: Path) -> None:
    a, b = package(tmp_path / "a", a__bc="x"), package(tmp_path / "b", ab__c="x")
    assert set(tree.measure(a, "app")) == {"app/__init__.py", "app/a/bc.py"}
    assert set(tree.measure(b, "app")) == {"app/__init__.py", "app/ab/c.py"}


names = st.text(st.sampled_from("ab_"), min_size=1, max_size=3)
trees = st.dictionaries(
    st.lists(names, min_size=1, max_size=3).map(tuple), st.binary(max_size=4), min_size=1, max_size=5
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trees, trees)
def test_bnd_21_two_trees_measure_alike_only_when_they_are_alike(
    tmp_path_factory: pytest.TempPathFactory,
    one: dict[tuple[str, ...], bytes],
    two: dict[tuple[str, ...], bytes],
) -> None:
    measured = []
    for files in (one, two):
        root = tmp_path_factory.mktemp("tree") / "app"
        for parts, data in files.items():
            place = root.joinpath(*(f"d{part}" for part in parts[:-1]), f"f{parts[-1]}.py")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        measured.append(tree.measure(root, "app"))
    encoded = [small(code={"app": files}).encode() for files in measured]
    assert (encoded[0] == encoded[1]) == (one == two)


def test_bnd_21_the_executable_bit_is_not_code(tmp_path: Path) -> None:
    """Python ignores it, and wheels, archives and file systems do not keep it, so it does not count."""
    root = package(tmp_path, model="x")
    before = tree.measure(root, "app")
    (root / "model.py").chmod(0o755)
    assert tree.measure(root, "app") == before


@pytest.mark.parametrize(
    "kind", ["file link", "folder link", "fifo", "hidden", "pyc", "pth", "nfd", "colon", "root link"]
)
def test_bnd_21_what_is_no_plain_file_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    root = package(tmp_path / "code", model="x")
    tree.measure(root, "app")
    if kind == "file link":
        (root / "other.py").symlink_to(root / "model.py")
    elif kind == "folder link":
        (root / "other").symlink_to(tmp_path)
    elif kind == "fifo":
        os.mkfifo(root / "pipe.py")
    elif kind == "root link":
        (tmp_path / "link").symlink_to(root)
        root = tmp_path / "link"
    else:
        name = {"hidden": ".env", "pyc": "x.pyc", "pth": "x.pth", "nfd": "cafe\u0301.py", "colon": "a:b.py"}[
            kind
        ]
        (root / name).write_text("")
    with pytest.raises(EnclaveError) as caught:
        tree.measure(root, "app")
    assert caught.value.code == "enclave.unmeasured"
    assert "app" in caught.value.message


def test_bnd_21_names_that_differ_only_in_case_are_refused(tmp_path: Path) -> None:
    root = package(tmp_path, model="x")
    (root / "Model.py").write_text("y")
    if len({entry.name for entry in root.iterdir()} & {"model.py", "Model.py"}) < 2:
        pytest.skip("this file system folds case")
    assert code_of(tree.measure, root, "app") == "enclave.unmeasured"


BUILD = """
import sys, pathlib
from confide.enclave.distributions import Installed
from confide.enclave.manifest import build
from confide.enclave.service import CodeRoot, Service
folder = pathlib.Path(sys.argv[1])
service = Service("application", "a", options={"b": 1, "a": "x"}, code=(CodeRoot(folder / sys.argv[2], "app"),))
print(build(service, distributions=Installed([folder / "site"])).digest.hex())
"""


def test_bnd_22_nothing_but_content_changes_the_measurement(tmp_path: Path, repository: Path) -> None:
    """Built twice: other folders, order of creation, times, umask, modes, time zone, locale, hash seed, bytecode, working folder."""
    digests = []
    for number, (zone, locale, seed, umask) in enumerate(
        [("UTC", "C.UTF-8", "0", 0o022), ("Asia/Kathmandu", "POSIX", "12345", 0o077)]
    ):
        folder = tmp_path / f"machine-{number}"
        core_site(folder / "site")
        files = {"alpha": "a = 1\n", "beta": "b = 2\n", "inner__gamma": "c = 3\n"}
        previous = os.umask(umask)
        try:
            root = package(folder, **dict(reversed(files.items()) if number else files.items()))
        finally:
            os.umask(previous)
        if number:
            root = root.rename(folder / "renamed")
            (root / "__pycache__").mkdir()
            (root / "__pycache__" / "alpha.cpython-311.pyc").write_bytes(b"anything")
            for place in root.rglob("*.py"):
                os.utime(place, (1, 1))
                place.chmod(0o700)
        done = subprocess.run(
            [sys.executable, *(["-O"] if number else []), "-c", BUILD, str(folder), root.name],
            env={"TZ": zone, "LC_ALL": locale, "PYTHONHASHSEED": seed, "PYTHONPATH": str(repository / "src")},
            cwd=folder if number else tmp_path,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        digests.append(done.stdout.strip())
    assert len(digests[0]) == 64
    assert digests[0] == digests[1]


def test_a_target_that_this_machine_is_not_changes_only_the_target(tmp_path: Path, site: Installed) -> None:
    here = build(service(), distributions=site)
    there = build(service(), distributions=site, target=Target("cpython", "3.13", "darwin-aarch64"))
    assert there.digest != here.digest
    assert all(line.startswith("target ") for line in difference(here, there))
    assert len(difference(here, there)) >= 1


@pytest.mark.parametrize(
    "arguments",
    [("pypy", "3.11", "linux-x86_64"), ("cpython", "3.11.7", "linux-x86_64"), ("cpython", "3.11", "linux")],
)
def test_a_target_that_no_manifest_can_name_is_refused(arguments: tuple[str, str, str]) -> None:
    with pytest.raises(ConfigurationError):
        Target(*arguments)


def test_rt_12_code_that_shadows_a_module_of_python_is_refused(tmp_path: Path, site: Installed) -> None:
    root = package(tmp_path, model="x")
    build(service(code=(CodeRoot(root, "app"),)), distributions=site)
    assert code_of(build, service(code=(CodeRoot(root, "json"),)), distributions=site) == "enclave.unmeasured"
    assert (
        code_of(build, service(code=(CodeRoot(root, "click"),)), distributions=site) == "enclave.unmeasured"
    )


def test_rt_12_a_distribution_that_shadows_a_module_of_python_or_another_is_refused(tmp_path: Path) -> None:
    folder = core_site(tmp_path / "site")
    install(folder, "evil", files={"json.py": b""})
    assert (
        code_of(build, service(requires=("evil",)), distributions=Installed([folder])) == "enclave.unmeasured"
    )
    install(folder, "evil", files={"click/__init__.py": b"VALUE = 1\n"})
    assert (
        code_of(build, service(requires=("evil",)), distributions=Installed([folder])) == "enclave.unmeasured"
    )


def check(made: Manifest, root: Path, distributions: Installed, **options: Any) -> None:
    check_installation(
        made, code={"confide": tree.confide_root(), "app": root}, distributions=distributions, **options
    )


@pytest.mark.parametrize(
    "change",
    [
        "edited code",
        "added code",
        "removed code",
        "no code",
        "edited distribution",
        "other version",
        "planted",
    ],
)
def test_sc_06_an_installation_that_is_not_the_measured_one_is_refused(tmp_path: Path, change: str) -> None:
    root = package(tmp_path / "code", model="x = 1\n", other="y = 2\n")
    folder = core_site(tmp_path / "site")
    made = build(service(root), distributions=Installed([folder]))
    check(made, root, Installed([folder]))
    if change == "edited code":
        (root / "model.py").write_text("x = 2\n")
    elif change == "added code":
        (root / "more.txt").write_text("")
    elif change == "removed code":
        (root / "other.py").unlink()
    elif change == "no code":
        root = tmp_path / "nothing"
    elif change == "edited distribution":
        (folder / "click" / "__init__.py").write_text("VALUE = 2\n")
    elif change == "other version":
        install(folder, "click", "1.0", files={"click/__init__.py": b"VALUE = 2\n"})
    else:
        (folder / "planted.pth").write_text("import os\n")
    with pytest.raises(EnclaveError) as caught:
        check(made, root, Installed([folder]))
    assert caught.value.code == "enclave.unmeasured"
    assert caught.value.hint


def test_an_installation_for_another_target_is_refused(tmp_path: Path, site: Installed) -> None:
    root = package(tmp_path / "code")
    other = Target("cpython", "3.99", "linux-x86_64")
    assert (
        code_of(check, build(service(root), distributions=site, target=other), root, site)
        == "enclave.unmeasured"
    )


def test_a_difference_reads_like_a_change_list(tmp_path: Path) -> None:
    root = package(tmp_path / "code", model="x = 1\n", gone="")
    folder = core_site(tmp_path / "site")
    before = build(service(root, environment={"OMP_NUM_THREADS": "1"}), distributions=Installed([folder]))
    (root / "model.py").write_text("x = 2\n")
    (root / "gone.py").unlink()
    (root / "new.py").write_text("")
    install(folder, "extra")
    (folder / "click-1.0.dist-info" / "RECORD").unlink()
    (folder / "click-1.0.dist-info" / "METADATA").unlink()
    for leftover in (folder / "click-1.0.dist-info").iterdir():
        leftover.unlink()
    (folder / "click-1.0.dist-info").rmdir()
    install(folder, "click", "2.0")
    install(folder, "uvicorn", files={"uvicorn/__init__.py": b"VALUE = 2\n"})
    changed = service(root, environment={"OMP_NUM_THREADS": "2"}, requires=("extra",), debug=True)
    after = build(changed, distributions=Installed([folder]))
    assert difference(before, after) == (
        "removed: app/gone.py",
        "changed: app/model.py",
        "added: app/new.py",
        "dependency click 1.0 -> 2.0",
        "dependency extra: added 1.0",
        "dependency uvicorn 1.0 -> 1.0 (other files)",
        "debug False -> True",
        "environment: OMP_NUM_THREADS 1 -> 2",
    )
    assert difference(after, after) == ()


def test_a_difference_shows_no_control_characters() -> None:
    lines = difference(small(), small(service=service(options={"app": "a\x1b[2Jb\n", "k\x1b[2J\n": 1})))
    assert all(line.isprintable() for line in lines)
    assert lines


def test_code_too_large_for_a_manifest_is_refused_with_what_to_do() -> None:
    files = {f"app/{number:060}.py": bytes(32) for number in range(1499)}
    small(code={"app": files}).encode()
    with pytest.raises(ConfigurationError) as caught:
        small(code={"app": files, "more": files}).encode()
    assert "protected files" in caught.value.hint
