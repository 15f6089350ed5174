# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import subprocess
import sys
import tomllib
import zipfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from confide.enclave import manifest
from confide.enclave.distributions import CORE, Distribution, Installed, closure
from confide.enclave.manifest import Target
from confide.enclave.planted import refuse_planted
from confide.enclave.service import Service
from confide.enclave.wheels import Wheels, from_wheel
from confide.errors import ConfigurationError, EnclaveError
from support.installed import core_site, install, wheel
from support.refusal import code_of, only_typed_errors

if TYPE_CHECKING:
    from pathlib import Path

TARGET = Target("cpython", "3.11", "linux-x86_64")
FILES = {
    "small/__init__.py": b"VALUE = 1\n",
    "small/data.txt": b"data",
    "small_module.py": b"OTHER = 2\n",
    "small-1.0.data/purelib/late/__init__.py": b"",
    "small-1.0.data/scripts/small": b"#!python\n",
    "small-1.0.data/headers/small.h": b"/* */",
    "small-1.0.dist-info/entry_points.txt": b"[console_scripts]\nsmall-run = small:main\n",
    "small-1.0.dist-info/licenses/LICENSE": b"free",
}


def get(site: Path, name: str) -> Distribution:
    found = Installed([site]).get(name)
    assert found is not None
    return found


def test_a_wheel_and_what_an_installer_made_of_it_have_the_same_digest(tmp_path: Path) -> None:
    """A machine can measure a target that it is not: from the wheel file, with scripts, headers and installers' files left out."""
    made = wheel(tmp_path, "small", files=FILES, requires=["other>=1; python_version < '3'"])
    site = tmp_path / "site"
    subprocess.run(
        [
            sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-index", "--no-deps", "--no-cache-dir",
            "--root-user-action=ignore", "--target", str(site), str(made),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )  # fmt: skip
    installed, packed = get(site, "small"), from_wheel(made)
    assert set(packed.files) >= {"late/__init__.py", "small/data.txt", "small-1.0.dist-info/entry_points.txt"}
    assert not {p for p in packed.files if p.endswith((".h", "RECORD", "INSTALLER", "bin/small", ".pyc"))}
    assert dict(installed.files) == dict(packed.files)
    assert installed.digest == packed.digest
    assert installed.requires == packed.requires
    Installed([site]).verify([installed])


def test_every_part_of_a_distribution_counts_for_its_digest(tmp_path: Path) -> None:
    before = from_wheel(wheel(tmp_path, "small", files=FILES)).digest
    for path, data in FILES.items():
        changed = from_wheel(wheel(tmp_path, "small", files={**FILES, path: data + b"#"})).digest
        assert (changed == before) == (path.endswith((".h", "scripts/small"))), path
    renamed = {("small/b.txt" if path == "small/data.txt" else path): data for path, data in FILES.items()}
    assert from_wheel(wheel(tmp_path, "small", files=renamed)).digest != before


def test_what_confide_needs_inside_is_what_its_project_file_declares(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    declared = {line.partition(">")[0].strip() for line in project["dependencies"]}
    assert declared - set(CORE) <= {"cbor2"}
    assert set(CORE) <= declared


def test_a_closure_follows_markers_and_extras(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    install(site, "top", requires=["mid[fast]>=2", "never; python_version < '3'", "opt; extra == 'x'"])
    install(site, "mid", requires=["top", "speed; extra == 'fast'", "slow; extra == 'slow'"])
    install(site, "speed")
    assert sorted(closure(Installed([site]), ["Top"], TARGET.markers())) == ["mid", "speed", "top"]


def test_a_requirement_that_is_not_installed_is_named(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    install(site, "top", requires=["absent"])
    with pytest.raises(ConfigurationError) as caught:
        closure(Installed([site]), ["top"], TARGET.markers())
    assert "absent" in caught.value.message


def test_the_installed_core_of_this_environment_is_what_its_wheels_say() -> None:
    source = Installed(manifest.sites())
    found = closure(source, CORE, Target.current().markers())
    assert {"cffi", "h11", "anyio"} <= found.keys()
    source.verify(found.values())


@pytest.mark.parametrize("change", ["edited", "deleted", "link", "folder"])
def test_sc_06_a_changed_file_of_a_distribution_is_refused_by_name(tmp_path: Path, change: str) -> None:
    site = core_site(tmp_path / "site")
    source = Installed([site])
    source.verify([get(site, "click")])
    place = site / "click" / "__init__.py"
    data = place.read_bytes()
    place.unlink()
    if change == "edited":
        place.write_bytes(data + b"#")
    elif change == "link":
        (tmp_path / "same.py").write_bytes(data)
        place.symlink_to(tmp_path / "same.py")
    elif change == "folder":
        place.mkdir()
    with pytest.raises(EnclaveError) as caught:
        source.verify([get(site, "click")])
    assert caught.value.code == "enclave.unmeasured"
    assert "__init__.py" in caught.value.message


def edit_record(site: Path, old: str, new: str) -> None:
    record = site / "click-1.0.dist-info" / "RECORD"
    assert old in record.read_text()
    record.write_text(record.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("click/__init__.py,sha256=", "click/__init__.py,md5="),
        ("click/__init__.py,sha256=", "click/__init__.py,sha256=AAAA"),
        ("click/__init__.py", "click/../../__init__.py,x"),
        ("click/__init__.py", "click//__init__.py"),
        ("click/__init__.py", "click/./__init__.py"),
        ("click/__init__.py", "click\\__init__.py"),
        ("click/__init__.py", '"click/__init__.py'),
        ("click/__init__.py,", "click-1.0.dist-info/METADATA,"),
    ],
)
def test_sc_06_a_record_that_says_nothing_firm_is_refused(tmp_path: Path, old: str, new: str) -> None:
    site = core_site(tmp_path / "site")
    Installed([site]).get("click")
    edit_record(site, old, new)
    assert code_of(Installed([site]).get, "click") == "enclave.unmeasured"


def test_a_distribution_without_a_record_is_refused(tmp_path: Path) -> None:
    site = core_site(tmp_path / "site")
    (site / "click-1.0.dist-info" / "RECORD").unlink()
    assert code_of(Installed([site]).get, "click") == "enclave.unmeasured"


def test_a_distribution_installed_twice_is_refused_and_the_first_folder_wins(tmp_path: Path) -> None:
    first, second = core_site(tmp_path / "a"), core_site(tmp_path / "b")
    install(second, "click", files={"click/__init__.py": b"other"})
    assert Installed([first, second]).get("click") == get(first, "click")
    install(second, "click", "2.0")
    assert code_of(Installed, [second]) == "enclave.unmeasured"


def test_metadata_of_another_distribution_is_refused(tmp_path: Path) -> None:
    site = core_site(tmp_path / "site")
    metadata = site / "click-1.0.dist-info" / "METADATA"
    metadata.write_bytes(metadata.read_bytes().replace(b"Name: click", b"Name: clack"))
    assert code_of(Installed([site]).get, "click") == "enclave.unmeasured"


PLANTED = [
    ("click/planted.py", b"", True),
    ("click/planted.so", b"", True),
    ("click/planted.pyc", b"", True),
    ("click/planted.txt", b"", True),
    ("click/inner/planted.py", b"", True),
    ("json.py", b"", True),
    ("sitecustomize.py", b"", True),
    ("usercustomize.py", b"", True),
    ("planted.pth", b"import os\n", True),
    ("planted.pyc", b"", True),
    ("planted.cpython-311-x86_64-linux-gnu.so", b"", True),
    ("planted/module.py", b"", True),
    ("planted/data.txt", b"", True),
    ("click/__pycache__/__init__.cpython-311.pyc", b"", False),
    ("__pycache__/json.cpython-311.pyc", b"", False),
    ("left_behind/__pycache__/x.cpython-311.pyc", b"", False),
    ("_virtualenv.py", b"", False),
    ("old.egg-info/PKG-INFO", b"", False),
    ("README.txt", b"", False),
]


@pytest.mark.parametrize(("path", "data", "refused"), PLANTED, ids=[path for path, *_ in PLANTED])
def test_rt_12_a_planted_file_refuses_the_launch_and_is_named(
    tmp_path: Path, path: str, data: bytes, refused: bool
) -> None:
    """What Python could import from a folder of distributions belongs to one of them; bytecode caches are never read."""
    site = core_site(tmp_path / "site")
    source = Installed([site])
    used = [get(site, name) for name in CORE]
    refuse_planted(source, used)
    (site / path).parent.mkdir(parents=True, exist_ok=True)
    (site / path).write_bytes(data)
    if refused:
        with pytest.raises(EnclaveError) as caught:
            refuse_planted(source, used)
        assert caught.value.code == "enclave.unmeasured"
        assert path.split("/", maxsplit=1)[0] in caught.value.message
    else:
        refuse_planted(source, used)


def test_rt_12_a_link_to_a_folder_of_code_is_refused(tmp_path: Path) -> None:
    site = core_site(tmp_path / "site")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "module.py").write_bytes(b"")
    (site / "click" / "inner").symlink_to(tmp_path / "elsewhere")
    assert code_of(refuse_planted, Installed([site]), [get(site, "click")]) == "enclave.unmeasured"


def test_rt_12_a_measured_package_that_is_a_link_is_refused(tmp_path: Path) -> None:
    site = core_site(tmp_path / "site")
    used = [get(site, "click")]
    refuse_planted(Installed([site]), used)
    (site / "click").rename(tmp_path / "elsewhere")
    (site / "click").symlink_to(tmp_path / "elsewhere")
    assert code_of(refuse_planted, Installed([site]), used) == "enclave.unmeasured"


def test_other_distributions_may_lie_beside_the_measured_ones(tmp_path: Path) -> None:
    site = core_site(tmp_path / "site")
    install(
        site,
        "unused",
        files={"unused/__init__.py": b"", "unused.pth": b"import unused\n", "click/extra.py": b""},
    )
    refuse_planted(Installed([site]), [get(site, "click")])


def lock_line(path: Path, name: str) -> str:
    return f"{name}==1.0 \\\n    --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


def test_a_manifest_from_locked_wheels_equals_that_of_the_installation(tmp_path: Path) -> None:
    site, folder = tmp_path / "site", tmp_path / "wheels"
    site.mkdir()
    folder.mkdir()
    lock = "# a lock\n"
    for name in CORE:
        files = {f"{name}/__init__.py": name.encode()}
        install(site, name, files=files)
        lock += lock_line(wheel(folder, name, files=files), name)
    wheels = Wheels(folder, lock, target=Target.current())
    service = Service("application", "a")
    assert (
        manifest.build(service, distributions=wheels).encode()
        == manifest.build(service, distributions=Installed([site])).encode()
    )


def test_a_wheel_that_the_lock_does_not_name_is_refused(tmp_path: Path) -> None:
    made = wheel(tmp_path, "small", files=FILES)
    lock = lock_line(made, "small")
    Wheels(tmp_path, lock, target=TARGET)
    wheel(tmp_path, "small", files={**FILES, "small/data.txt": b"other"})
    assert code_of(Wheels, tmp_path, lock, target=TARGET) == "configuration.lock"
    assert code_of(Wheels, tmp_path, "", target=TARGET) == "configuration.lock"


@pytest.mark.parametrize(
    "line",
    [
        "small",
        "small==1.0",
        "small>=1 --hash=sha256:" + "0" * 64,
        "small @ https://x --hash=sha256:" + "0" * 64,
        "small==1.0 --hash=md5:00",
    ],
)
def test_a_lock_without_versions_and_hashes_is_refused(tmp_path: Path, line: str) -> None:
    assert code_of(Wheels, tmp_path, line, target=TARGET) == "configuration.lock"


@pytest.mark.parametrize(
    ("tags", "fits"),
    [
        ("py3-none-any", True),
        ("py2.py3-none-any", True),
        ("cp311-cp311-manylinux_2_28_x86_64", True),
        ("cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64", True),
        ("cp38-abi3-musllinux_1_2_x86_64", True),
        ("cp311-cp311-manylinux_2_28_aarch64", False),
        ("cp312-cp312-manylinux_2_28_x86_64", False),
        ("cp312-abi3-manylinux_2_28_x86_64", False),
        ("cp310-cp310-manylinux_2_28_x86_64", False),
        ("cp311-cp311-macosx_11_0_x86_64", False),
        ("cp311-cp311-win_amd64", False),
        ("py2-none-any", False),
    ],
)
def test_a_wheel_counts_only_when_it_fits_the_target(tmp_path: Path, tags: str, fits: bool) -> None:
    made = wheel(tmp_path, "small", files=FILES)
    lock = lock_line(made, "small")
    made.rename(tmp_path / f"small-1.0-{tags}.whl")
    assert (Wheels(tmp_path, lock, target=TARGET).get("small") is not None) is fits


@pytest.mark.parametrize("cut", [0, 10, 200])
def test_a_truncated_wheel_is_refused(tmp_path: Path, cut: int) -> None:
    made = wheel(tmp_path, "small", files=FILES)
    made.write_bytes(made.read_bytes()[:cut])
    assert code_of(from_wheel, made) == "enclave.unmeasured"


def test_a_wheel_whose_content_is_not_what_its_record_says_is_refused(tmp_path: Path) -> None:
    made = wheel(tmp_path, "small", files=FILES)
    from_wheel(made)
    forged = tmp_path / "forged-1.0-py3-none-any.whl"
    with zipfile.ZipFile(forged, "w") as archive, zipfile.ZipFile(made) as source:
        for member in source.namelist():
            archive.writestr(member, b"other" if member == "small/data.txt" else source.read(member))
    assert code_of(from_wheel, forged) == "enclave.unmeasured"


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(1, 255)), min_size=1, max_size=4))
def test_a_damaged_wheel_is_refused_or_is_another_distribution(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    """Whatever bytes are changed, nothing but typed errors comes out, and never the digest with another content."""
    folder = tmp_path_factory.mktemp("damaged")
    made = wheel(folder, "small", files=FILES)
    honest = from_wheel(made)
    data = bytearray(made.read_bytes())
    for place, change in changes:
        data[place % len(data)] ^= change
    made.write_bytes(data)
    found = only_typed_errors(from_wheel, made)
    if found is not None and found.digest == honest.digest:
        assert dict(found.files) == dict(honest.files)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["RECORD", "METADATA"]), st.binary(max_size=80), st.integers(0, 400))
def test_damaged_metadata_raises_only_typed_errors(
    tmp_path_factory: pytest.TempPathFactory, name: str, junk: bytes, place: int
) -> None:
    site = core_site(tmp_path_factory.mktemp("site"))
    file = site / "click-1.0.dist-info" / name
    data = file.read_bytes()
    file.write_bytes(data[:place] + junk + data[place + len(junk) :])
    found = only_typed_errors(Installed([site]).get, "click")
    if found is not None:
        only_typed_errors(closure, Installed([site]), ["click"], TARGET.markers())
