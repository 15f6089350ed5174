# SPDX-License-Identifier: Apache-2.0
"""The vault: small state that is whole, private, and not anybody else's."""

from __future__ import annotations

import copy
import dataclasses
import json
import multiprocessing
import pickle  # noqa: TID251 - to show that it is refused
import shutil
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from confide.crypto.secret import Secret
from confide.errors import ConfigurationError, SealingError
from confide.sealing.vault import Vault
from confide.simulator.installation import Installation
from confide.simulator.snp import Chip

KEY = bytes(range(64))


def make(folder: Path, name: str = "state", key: bytes = KEY) -> Vault:
    return Vault(folder / "vault", Secret(key), name=name)


def file(folder: Path, name: str = "state") -> Path:
    return folder / "vault" / f"{name}.vault"


def test_values_survive_and_the_version_counts_changes(tmp_path: Path) -> None:
    vault = make(tmp_path)
    assert (vault.version, vault.get("a"), vault.freshness) == (0, None, "none")
    assert vault.put("a", b"1") == 1
    assert vault.update({"b": b"2", "c": b"3"}) == 2
    assert vault.delete("b") == 3
    assert vault.delete("b") == 3  # Nothing changed, so nothing is written.
    again = make(tmp_path)
    assert (again.version, again.keys(), again.get("a"), again.get("b")) == (3, ("a", "c"), b"1", None)


class VaultMachine(RuleBasedStateMachine):
    """Two objects on one vault agree with a dictionary, whatever the order of calls."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.vaults = [make(Path(self.folder.name)) for _ in range(2)]
        self.model: dict[str, bytes] = {}

    @rule(which=st.integers(0, 1), key=st.sampled_from("abc"), value=st.binary(max_size=2000))
    def put(self, which: int, key: str, value: bytes) -> None:
        self.vaults[which].put(key, value)
        self.model[key] = value

    @rule(which=st.integers(0, 1), key=st.sampled_from("abc"))
    def delete(self, which: int, key: str) -> None:
        self.vaults[which].delete(key)
        self.model.pop(key, None)

    @invariant()
    def both_agree(self) -> None:
        for vault in self.vaults:
            assert {key: vault.get(key) for key in tuple(vault.keys())} == self.model

    def teardown(self) -> None:
        self.folder.cleanup()


VaultMachine.TestCase.settings = settings(max_examples=8, stateful_step_count=12, deadline=None)
TestVaultMachine = VaultMachine.TestCase


def test_the_store_sees_neither_keys_nor_values_nor_how_many(tmp_path: Path) -> None:
    vault = make(tmp_path)
    vault.put("canary-key", b"canary-value")
    first = file(tmp_path).read_bytes()
    vault.put("another", b"x" * 100)
    second = file(tmp_path).read_bytes()
    assert b"canary" not in first + second
    assert len(first) == len(second)  # Padded.


def test_sea_01_every_flipped_bit_and_truncation_is_refused(tmp_path: Path) -> None:
    vault = make(tmp_path)
    vault.put("a", b"1")
    data = file(tmp_path).read_bytes()
    for position in [*range(100), *range(100, len(data), 7)]:
        changed = bytearray(data)
        changed[position] ^= 1 << position % 8
        file(tmp_path).write_bytes(changed)
        with pytest.raises(SealingError):
            make(tmp_path)
    for length in range(0, len(data), 13):
        file(tmp_path).write_bytes(data[:length])
        with pytest.raises(SealingError):
            make(tmp_path)
    file(tmp_path).write_bytes(data + b"\0")
    with pytest.raises(SealingError) as error:
        make(tmp_path)
    assert error.value.code == "sealing.integrity"
    file(tmp_path).write_bytes(data)
    assert make(tmp_path).get("a") == b"1"


def test_sea_02_an_older_file_is_a_rollback_while_the_vault_lives_and_declared_afterwards(
    tmp_path: Path,
) -> None:
    vault = make(tmp_path)
    vault.put("a", b"old")
    old = file(tmp_path).read_bytes()
    vault.put("a", b"new")
    file(tmp_path).write_bytes(old)
    for attempt in (lambda: vault.get("a"), lambda: vault.put("b", b""), lambda: vault.version):
        with pytest.raises(SealingError) as error:
            attempt()
        assert error.value.code == "sealing.rollback"
    file(tmp_path).unlink()
    with pytest.raises(SealingError) as error:
        vault.get("a")
    assert error.value.code == "sealing.rollback"
    # After a restart nothing can tell, and the vault says so.
    file(tmp_path).write_bytes(old)
    file(tmp_path).chmod(0o600)
    assert make(tmp_path).get("a") == b"old"
    assert make(tmp_path).freshness == "none"


def test_sea_03_a_fork_is_declared_and_not_detected(tmp_path: Path) -> None:
    """Two copies go on from one state; each is whole, and each says that nothing anchors it."""
    make(tmp_path / "one").put("a", b"0")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    for fork in ("one", "two"):
        make(tmp_path / fork).put("a", fork.encode())
    for fork in ("one", "two"):
        vault = make(tmp_path / fork)
        assert (vault.get("a"), vault.version, vault.freshness) == (fork.encode(), 2, "none")


@pytest.fixture(scope="module")
def chip(tmp_path_factory: pytest.TempPathFactory) -> Chip:
    return Chip.power_on(Installation.open_or_create(tmp_path_factory.mktemp("simulated") / "device"))


def test_sea_06_another_measurement_does_not_open_what_this_one_sealed(tmp_path: Path, chip: Chip) -> None:
    """Keys as the TEE derives them: the same label, three manifests, each for itself."""
    manifests = [b"manifest", b"manifest 2", b"another"]
    keys = [chip.derive_key(b"vault", manifest=manifest) for manifest in manifests]
    make(tmp_path, key=keys[0]).put("a", b"1")
    for other in keys[1:]:
        with pytest.raises(SealingError) as error:
            make(tmp_path, key=other)
        assert error.value.code == "sealing.policy_mismatch"
    again = chip.derive_key(b"vault", manifest=manifests[0])
    assert make(tmp_path, key=again).get("a") == b"1"


def test_sea_17_another_machine_does_not_open_a_copy(tmp_path: Path, chip: Chip) -> None:
    """The same measurement on another installation of the simulated TEE derives another key."""
    machine = dataclasses.replace(chip.installation, secret=Secret(bytes(32)))
    other = dataclasses.replace(chip, installation=machine)
    make(tmp_path, key=chip.derive_key(b"vault", manifest=b"m")).put("a", b"1")
    with pytest.raises(SealingError) as error:
        make(tmp_path, key=other.derive_key(b"vault", manifest=b"m"))
    assert error.value.code == "sealing.policy_mismatch"


def test_sea_04_a_vault_under_another_name_or_key_is_refused(tmp_path: Path) -> None:
    """Each of two names and two keys' files, put in each other's place."""
    kinds = [(name, key) for name in ("state", "other") for key in (KEY, KEY[::-1])]
    files = {}
    for number, (name, key) in enumerate(kinds):
        folder = tmp_path / str(number)
        make(folder, name, key).put("a", str(number).encode())
        files[name, key] = file(folder, name).read_bytes()
    for made in kinds:
        for asked in kinds:
            folder = tmp_path / "x"
            folder.mkdir(exist_ok=True)
            (folder / "vault").mkdir(mode=0o700, exist_ok=True)
            path = file(folder, asked[0])
            path.write_bytes(files[made])
            path.chmod(0o600)
            if made == asked:
                assert make(folder, *asked).get("a") == str(kinds.index(made)).encode()
                continue
            with pytest.raises(SealingError) as error:
                make(folder, *asked)
            assert error.value.code == "sealing.policy_mismatch"


def test_sea_05_another_magic_is_another_version(tmp_path: Path) -> None:
    make(tmp_path).put("a", b"1")
    file(tmp_path).write_bytes(b"CFDVLT02" + file(tmp_path).read_bytes()[8:])
    with pytest.raises(SealingError) as error:
        make(tmp_path)
    assert error.value.code == "sealing.unsupported_version"


def _increment(folder: str, times: int) -> None:
    vault = Vault(Path(folder) / "vault", Secret(KEY), name="state")
    for _ in range(times):
        while True:
            version = vault.version
            count = int.from_bytes(vault.get("count") or b"", "big")
            try:
                vault.update({"count": (count + 1).to_bytes(4, "big")}, expected_version=version)
            except SealingError:
                continue
            break


def test_sea_13_processes_that_count_together_lose_nothing(tmp_path: Path) -> None:
    """Compare-and-swap by version: 4 processes, 25 increments each, 100 in all."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_increment, args=(str(tmp_path), 25)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert int.from_bytes(make(tmp_path).get("count") or b"", "big") == 100


def test_sea_13_a_change_on_an_old_version_is_refused(tmp_path: Path) -> None:
    one, two = make(tmp_path), make(tmp_path)
    one.put("a", b"1")
    with pytest.raises(SealingError) as error:
        two.update({"a": b"2"}, expected_version=0)
    assert error.value.code == "sealing.policy_mismatch"
    assert one.get("a") == b"1"


def test_sea_08_what_a_killed_writer_left_is_removed_by_the_next(tmp_path: Path) -> None:
    make(tmp_path).put("a", b"1")
    make(tmp_path, "other").put("a", b"1")
    left, kept = (
        file(tmp_path, name).with_name(f".{name}.vault.{'0' * 32}.tmp") for name in ("state", "other")
    )
    left.write_bytes(b"half")
    kept.write_bytes(b"half")
    make(tmp_path).put("a", b"2")
    assert (left.exists(), kept.exists()) == (False, True)
    assert make(tmp_path).get("a") == b"2"


def test_sea_14_every_write_has_a_key_of_its_own(tmp_path: Path) -> None:
    """Also when a clone of the folder goes on from the same version: the salt is fresh, so the nonce of zeros is safe."""
    vault = make(tmp_path)
    vault.put("a", b"0")
    before = file(tmp_path).read_bytes()
    salts = set()
    for number in range(40):
        file(tmp_path).write_bytes(before)
        make(tmp_path).put("a", str(number + 1).encode())
        salts.add(file(tmp_path).read_bytes()[8:40])
    assert len(salts) == 40


def test_bad_arguments_are_refused(tmp_path: Path) -> None:
    for name, key in (("../x", KEY), ("", KEY), ("a", KEY[:31])):
        with pytest.raises(ConfigurationError):
            make(tmp_path, name, key)
    vault = make(tmp_path)
    for bad in ("", "x" * 513, 7):
        with pytest.raises(ConfigurationError):
            vault.get(bad)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError):
        vault.put("a", "text")  # type: ignore[arg-type]
    with pytest.raises(SealingError) as error:
        vault.put("a", bytes(17 << 20))
    assert error.value.code == "sealing.storage_full"
    assert vault.version == 0


def test_leak_03_a_vault_neither_prints_nor_serialises_what_it_holds(tmp_path: Path) -> None:
    vault = make(tmp_path)
    vault.put("canary", b"canary-value")
    assert "canary" not in repr(vault) + str(vault)
    assert KEY.hex()[:16] not in repr(vault.__dict__)
    for attempt in (pickle.dumps, copy.deepcopy, json.dumps):
        with pytest.raises(TypeError):
            attempt(vault)


def test_a_lock_file_that_is_a_link_is_refused(tmp_path: Path) -> None:
    vault = make(tmp_path)
    (tmp_path / "victim").write_bytes(b"")
    (tmp_path / "vault" / "state.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(SealingError) as error:
        vault.put("a", b"1")
    assert error.value.code == "sealing.storage_io"
