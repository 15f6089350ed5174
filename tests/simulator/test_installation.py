# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from confide import simulator
from confide.crypto import x509
from confide.simulator.installation import Installation
from confide.simulator.place import default_directory
from support import simulated
from support.refusal import code_of


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return Path(shutil.copytree(simulated.directory(), tmp_path / "simulator"))


def test_every_file_of_an_installation_is_for_its_owner_alone() -> None:
    folder = simulated.directory()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert files == dict.fromkeys(("ark.der", "ask.der", "crl.der", "ask.pem", "secret"), 0o600)


def test_the_anchor_is_shaped_like_amds_and_says_that_it_is_simulated() -> None:
    anchor = simulator.anchor(simulated.directory())
    assert anchor.simulated is True
    assert anchor.tee == "snp"
    ark, ask = (x509.Certificate.from_der(der) for der in anchor.certificates)
    assert (ark.key_kind, ask.key_kind) == ("rsa4096", "rsa4096")
    assert ark.subject_der == ark.issuer_der == ask.issuer_der
    assert b"SIMULATED" in ark.subject_der
    assert b"Advanced Micro Devices" not in ark.der + ask.der


def test_the_root_key_is_forgotten_after_it_has_signed() -> None:
    private = [path.name for path in simulated.directory().iterdir() if b"PRIVATE" in path.read_bytes()]
    assert private == ["ask.pem"]


def test_opening_again_gives_the_same_root(place: Path) -> None:
    assert Installation.open_or_create(place).anchor == Installation.open_or_create(place).anchor


PROGRAM = """
import pathlib, sys
from confide import simulator
print(simulator.anchor(pathlib.Path(sys.argv[1])).certificates[0].hex())
"""


def test_sim_06_machines_have_different_roots_and_processes_that_start_together_one(tmp_path: Path) -> None:
    """Four first launches at once make one installation, whole, with nothing left beside it; it is not this run's other one."""
    place = tmp_path / "data" / "simulator"
    started = [
        subprocess.Popen([sys.executable, "-c", PROGRAM, str(place)], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    roots = {process.communicate(timeout=100)[0].strip() for process in started}
    assert [process.returncode for process in started] == [0] * 4
    assert len(roots) == 1
    assert {path.name for path in place.parent.iterdir()} == {"simulator", ".simulator.lock"}
    other = simulated.installation()
    assert roots != {other.ark.hex()}
    assert Installation.open_or_create(place).secret.reveal() != other.secret.reveal()


@pytest.mark.parametrize("name", ["ark.der", "ask.der", "crl.der", "ask.pem", "secret"])
@pytest.mark.parametrize("damage", ["gone", "empty", "open to others", "link", "huge"])
def test_a_damaged_or_open_installation_is_refused_and_not_replaced(
    place: Path, name: str, damage: str
) -> None:
    file = place / name
    data = file.read_bytes()
    if damage == "gone":
        file.unlink()
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "open to others":
        file.chmod(0o644)
    elif damage == "huge":
        file.write_bytes(data + bytes(70_000))
    else:
        file.rename(place.parent / name)
        file.symlink_to(place.parent / name)
    before = sorted(path.name for path in place.iterdir())
    assert code_of(Installation.open_or_create, place) == "enclave.bad_state"
    assert sorted(path.name for path in place.iterdir()) == before


def test_a_folder_that_others_can_enter_is_refused(place: Path) -> None:
    place.chmod(0o755)
    assert code_of(Installation.open_or_create, place) == "enclave.bad_state"


@pytest.mark.parametrize("obstacle", ["a file in the way", "a file for the parent", "a link to nowhere"])
def test_a_place_where_no_root_can_be_kept_is_a_typed_error(tmp_path: Path, obstacle: str) -> None:
    if obstacle == "a link to nowhere":
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / ".simulator.lock").symlink_to(tmp_path / "lock-of-another")
    else:
        (tmp_path / "data").write_bytes(b"")
    place = tmp_path / "data" if obstacle == "a file in the way" else tmp_path / "data" / "simulator"
    if obstacle == "a file in the way":
        place = place / "simulator" / "deeper"
    assert code_of(Installation.open_or_create, place) == "enclave.bad_state"
    assert not (tmp_path / "lock-of-another").exists()


def test_a_key_that_is_no_key_is_refused(place: Path) -> None:
    (place / "ask.pem").write_bytes(b"no key")
    assert code_of(Installation.open_or_create, place) == "enclave.bad_state"


def test_an_installation_shows_nothing_and_is_not_copied() -> None:
    opened = simulated.installation()
    assert "redacted" in repr(opened)
    for action in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            action(opened)


@pytest.mark.parametrize("value", ["", "relative/folder"])
def test_the_default_folder_is_below_the_users_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", value)
    assert default_directory() == tmp_path / ".local" / "share" / "confide" / "simulator"
    monkeypatch.setenv("XDG_DATA_HOME", os.sep + "data")
    assert default_directory() == Path(os.sep) / "data" / "confide" / "simulator"
