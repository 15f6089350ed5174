# SPDX-License-Identifier: Apache-2.0
"""Owners' identities: made once, private, and told apart by whole keys."""

from __future__ import annotations

import copy
import hashlib
import json
import pickle  # noqa: TID251 - to show that it is refused
import threading
from pathlib import Path

import pytest

from confide.crypto.signing import verify
from confide.errors import ConfideError, ConfigurationError, SealingError
from confide.keys.identity import Identity, default_directory, fingerprint
from confide.keys.release import owner_audience


def test_it_is_made_on_first_use_and_found_again(tmp_path: Path) -> None:
    first = Identity.open_or_create("me", tmp_path / "ids")
    again = Identity.open_or_create("me", tmp_path / "ids")
    assert (first.created, again.created) == (True, False)
    assert first.public == again.public == Identity.open("me", tmp_path / "ids").public
    verify(first.public, again.key.sign(b"m"), b"m")
    assert Identity.open_or_create("you", tmp_path / "ids").public != first.public
    with pytest.raises(ConfigurationError):
        Identity.open("nobody", tmp_path / "ids")


def test_the_fingerprint_is_for_people_and_the_audience_is_whole() -> None:
    public = bytes(range(32))
    assert fingerprint(public) == "r3b3-hy3n-btns-2e5w-qhcy-ty4n-5mmi-mwnx"
    assert fingerprint(public) != fingerprint(bytes(32))
    assert owner_audience(public) == "owner:" + hashlib.sha256(public).hexdigest()
    with pytest.raises(ConfigurationError):
        fingerprint(bytes(31))


def test_the_default_place_follows_xdg_and_ignores_relative_paths() -> None:
    assert default_directory({"XDG_CONFIG_HOME": "/x"}) == Path("/x/confide/identities")
    assert default_directory({"XDG_CONFIG_HOME": "x"}) == Path.home() / ".config/confide/identities"
    assert default_directory({}) == Path.home() / ".config/confide/identities"


def test_sea_13_of_many_that_make_it_at_once_all_get_the_same(tmp_path: Path) -> None:
    found: list[bytes] = []
    barrier = threading.Barrier(16)

    def work() -> None:
        barrier.wait(10)
        found.append(Identity.open_or_create("me", tmp_path / "ids").public)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 16
    assert len(set(found)) == 1


@pytest.mark.parametrize("name", ["", "../me", "a/b", ".hidden", "a\0b", "x" * 129, "me\n"])
def test_a_name_that_is_a_path_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError):
        Identity.open_or_create(name, tmp_path)


def test_a_damaged_file_is_refused_and_not_replaced(tmp_path: Path) -> None:
    made = Identity.open_or_create("me", tmp_path / "ids")
    path = tmp_path / "ids" / "me.json"
    good = json.loads(path.read_bytes())
    for change in (
        {"private": "00" * 32},
        {"public": "00" * 32},
        {"v": 2},
        {"type": "x"},
        {"more": 1},
        {"private": "zz"},
    ):
        path.write_text(json.dumps(good | change))
        with pytest.raises(SealingError) as error:
            Identity.open_or_create("me", tmp_path / "ids")
        assert error.value.code == "sealing.integrity"
    path.write_bytes(b"\xff")
    with pytest.raises(SealingError):
        Identity.open_or_create("me", tmp_path / "ids")
    path.write_text(json.dumps(good))
    assert Identity.open_or_create("me", tmp_path / "ids").public == made.public


def test_sea_10_an_identity_behind_a_link_is_refused(tmp_path: Path) -> None:
    Identity.open_or_create("me", tmp_path / "ids")
    (tmp_path / "ids" / "you.json").symlink_to(tmp_path / "ids" / "me.json")
    with pytest.raises(SealingError) as error:
        Identity.open_or_create("you", tmp_path / "ids")
    assert error.value.code == "sealing.storage_io"


def test_leak_03_an_identity_neither_prints_nor_serialises_its_key(tmp_path: Path) -> None:
    identity = Identity.open_or_create("me", tmp_path / "ids")
    seed = identity.key.to_bytes()
    shown = repr(identity) + str(identity) + f"{identity}" + repr(identity.key)
    assert seed.hex() not in shown
    assert identity.fingerprint in shown
    for attempt in (pickle.dumps, copy.deepcopy, json.dumps):
        with pytest.raises(TypeError):
            attempt(identity)


def test_leak_02_errors_about_a_damaged_identity_carry_nothing_of_it(tmp_path: Path) -> None:
    Identity.open_or_create("me", tmp_path / "ids")
    path = tmp_path / "ids" / "me.json"
    path.write_text(path.read_text().replace('"v":1', '"v":"canary-value"'))
    with pytest.raises(ConfideError) as error:
        Identity.open("me", tmp_path / "ids")
    assert "canary" not in str(error.value) + repr(error.value)
