# SPDX-License-Identifier: Apache-2.0
"""Records of enclaves: whole, private, and never mistaken for another process."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from confide.errors import ConfigurationError, EnclaveError, MalformedError
from confide.host import directory
from confide.host.directory import Record
from confide.host.processes import start_time

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(start_time(os.getpid()) is None, reason="there is no /proc here")


@pytest.fixture
def record() -> Record:
    return Record(
        id="0123456789ab",
        pid=os.getpid(),
        pid_started=start_time(os.getpid()) or 0,
        host_pid=os.getpid(),
        url="http://127.0.0.1:1",
        kind="function",
        service="acme",
        tee="snp",
        simulated=True,
        level="L3",
        state="running",
        measurement="00",
        started=1_800_000_000,
    )


def test_a_record_is_listed_while_its_process_runs(tmp_path: Path, record: Record) -> None:
    folder = tmp_path / "enclaves"
    directory.write(record, folder)
    assert directory.records(folder) == (record,)
    assert (folder / "0123456789ab.json").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not [path for path in folder.iterdir() if path.name.startswith(".")], "no temporary file is left"


@pytest.mark.parametrize("change", [{"pid_started": 1}, {"pid": 2**31 - 1}])
def test_a_number_that_names_another_process_now_is_stale(
    tmp_path: Path, record: Record, change: dict[str, int]
) -> None:
    directory.write(replace(record, **change), tmp_path)  # type: ignore[arg-type]
    assert directory.records(tmp_path) == ()
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"\xff", b'{"id": 5}', b"{" * 10_000, b'{"id":"0123456789ab","id":"0123456789ab"}'],
)
def test_a_file_that_is_no_record_is_removed_and_not_believed(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "0123456789ab.json").write_bytes(content)
    assert directory.records(tmp_path) == ()
    assert not list(tmp_path.glob("*.json"))


def test_a_record_under_another_name_is_not_believed(tmp_path: Path, record: Record) -> None:
    (tmp_path / "other.json").write_bytes(record.encode())
    assert directory.records(tmp_path) == ()


def test_unknown_and_missing_fields_are_malformed(record: Record) -> None:
    value: dict[str, Any] = json.loads(record.encode())
    assert Record.decode(record.encode()) == record
    for name in value:
        with pytest.raises(MalformedError):
            Record.decode(json.dumps({k: v for k, v in value.items() if k != name}).encode())
    with pytest.raises(MalformedError):
        Record.decode(json.dumps(value | {"more": 1}).encode())


def test_finding_needs_exactly_one_match(tmp_path: Path, record: Record) -> None:
    directory.write(record, tmp_path)
    directory.write(replace(record, id="01ffffffffff"), tmp_path)
    assert directory.find("0123456789ab", tmp_path) == record
    assert directory.find("0123", tmp_path) == record
    for name in ("", "01", "acme", "zz", "../0123456789ab"):
        with pytest.raises(EnclaveError) as caught:
            directory.find(name, tmp_path)
        assert caught.value.code == "enclave.bad_state"


def test_a_folder_that_others_can_write_in_is_refused(tmp_path: Path, record: Record) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(ConfigurationError):
        directory.write(record, tmp_path)


def test_a_log_has_an_end(tmp_path: Path) -> None:
    log = directory.Log("0123456789ab", tmp_path)
    for _ in range(30):
        log.write("x" * 100_000)
    log.close()
    log.write("after the end")
    assert (tmp_path / "0123456789ab.log").stat().st_size <= 1 << 20


def test_the_default_folder_follows_the_state_home() -> None:
    assert str(directory.default_directory({"XDG_STATE_HOME": "/state"})) == "/state/confide/enclaves"
    assert directory.default_directory({"XDG_STATE_HOME": "relative"}).parts[-4:] == (
        *(".local", "state"),
        *("confide", "enclaves"),
    )


def test_records_that_another_user_could_have_written_are_not_believed(
    tmp_path: Path, record: Record
) -> None:
    """``stop`` would end whatever process such a record names."""
    folder = tmp_path / "enclaves"
    directory.write(record, folder)
    folder.chmod(0o777)
    for look in (directory.records, lambda place: directory.stop("acme", place)):
        with pytest.raises(ConfigurationError):
            look(folder)
    folder.chmod(0o700)
    assert directory.records(folder) == (record,)
