# SPDX-License-Identifier: Apache-2.0
"""The owner's keyring: versions rise, nothing is overwritten, one key never passes for another."""

from __future__ import annotations

import copy
import pickle  # noqa: TID251 - to show that it is refused
import threading
from pathlib import Path
from typing import Any

import pytest

from confide.crypto.secret import Secret
from confide.errors import BrokerError, ConfigurationError, SealingError
from confide.keys.keyring import Keyring, default_directory
from confide.keys.release import SecretName


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring(tmp_path / "keys")


def test_versions_rise_and_old_ones_stay(keyring: Keyring) -> None:
    assert keyring.names() == ()
    first, second = keyring.create("model"), keyring.create("model")
    assert (first.name, second.name) == (SecretName("model", 1), SecretName("model", 2))
    assert first.secret != second.secret
    assert keyring.get("model").secret == second.secret
    assert keyring.get("model", 1).secret == first.secret
    assert keyring.add("token", Secret(b"t")).name == SecretName("token", 1)
    assert keyring.names() == (first.name, second.name, SecretName("token", 1))


def test_names_that_begin_alike_are_kept_apart(keyring: Keyring) -> None:
    keyring.create("model")
    keyring.create("model-1")
    assert keyring.create("model").name.version == 2
    assert keyring.versions("model-1") == (1,)
    assert keyring.versions("mod") == ()


def test_what_is_absent_is_not_found(keyring: Keyring) -> None:
    keyring.create("model")
    absent: list[tuple[Any, ...]] = [("other",), ("model", 2), ("other", 1)]
    for arguments in absent:
        with pytest.raises(BrokerError) as error:
            keyring.get(*arguments)
        assert error.value.code == "broker.not_found"


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "a\\b", "a%2e", "a\0", "ü", "x" * 129, "a@1"])
def test_kb_03_a_name_that_is_a_path_touches_nothing(tmp_path: Path, keyring: Keyring, name: str) -> None:
    for attempt in (keyring.create, keyring.get, lambda n: keyring.get(n, 1)):
        with pytest.raises(BrokerError) as error:
            attempt(name)
        assert error.value.code == "broker.name_invalid"
    assert list(tmp_path.iterdir()) == []


def test_sea_04_a_renamed_key_file_is_refused(tmp_path: Path, keyring: Keyring) -> None:
    """Otherwise whoever can rename files chooses under which name a key is released."""
    keyring.create("secret")
    keyring.create("public")
    (tmp_path / "keys" / "secret@1.json").rename(tmp_path / "keys" / "public@2.json")
    with pytest.raises(SealingError) as error:
        keyring.get("public")
    assert error.value.code == "sealing.integrity"
    assert keyring.get("public", 1)


def test_sea_13_many_at_once_get_versions_of_their_own(tmp_path: Path) -> None:
    made: list[int] = []
    barrier = threading.Barrier(12)

    def work() -> None:
        barrier.wait(10)
        made.append(Keyring(tmp_path / "keys").create("model").name.version)

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == list(range(1, 13))


def test_secrets_have_a_size(keyring: Keyring) -> None:
    for size in (0, 64 * 1024 + 1):
        with pytest.raises(ConfigurationError):
            keyring.add("s", Secret(bytes(size)))
    assert keyring.add("s", Secret(bytes(64 * 1024)))
    assert len(keyring.get("s").secret) == 64 * 1024


def test_files_that_are_no_keys_are_not_listed(tmp_path: Path, keyring: Keyring) -> None:
    keyring.create("model")
    for name in ("model@0.json", "model@x.json", "a@b@1.json", "model@2.json.tmp", f"m@{'9' * 30}.json"):
        (tmp_path / "keys" / name).write_bytes(b"")
    assert keyring.names() == (SecretName("model", 1),)


def test_leak_03_a_data_key_neither_prints_nor_serialises(keyring: Keyring) -> None:
    key = keyring.create("model")
    for form in (repr(key), str(key), f"{key}", repr(keyring)):
        assert key.secret.reveal().hex() not in form
    for attempt in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError):
            attempt(key)


def test_the_default_place_follows_xdg() -> None:
    assert default_directory({"XDG_DATA_HOME": "/x"}) == Path("/x/confide/keys")
    assert default_directory({"XDG_DATA_HOME": ""}) == Path.home() / ".local/share/confide/keys"
