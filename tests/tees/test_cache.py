# SPDX-License-Identifier: Apache-2.0
"""The cache of vendors' answers: for as long as they are good, ours alone, bounded, and absent when in doubt."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from confide.tees import cache
from confide.tees.cache import Cache, cached
from confide.tees.fetch import Answer, Request

AT = datetime(2026, 6, 1, 12, tzinfo=UTC)
LATER = AT + timedelta(hours=6)
REQUEST = Request("https://vendor.example/crl", ("x-chain",))
ANSWER = Answer(b"document", {"x-chain": "chain"})


@pytest.fixture
def kept(tmp_path: Path) -> Cache:
    store = Cache(tmp_path / "confide" / "endorsements")
    store.store(REQUEST, ANSWER, expires=LATER, at=AT)
    return store


def entry(store: Cache) -> Path:
    (found,) = store.directory.iterdir()
    return found


def test_an_answer_is_found_until_it_expires(kept: Cache) -> None:
    assert kept.find(REQUEST, at=AT) == ANSWER
    assert kept.find(REQUEST, at=LATER - timedelta(seconds=1)) == ANSWER
    assert kept.find(REQUEST, at=LATER) is None


def test_an_answer_from_the_future_is_not_used(kept: Cache) -> None:
    assert kept.find(REQUEST, at=AT - timedelta(seconds=1)) is None


def test_an_answer_is_not_kept_for_longer_than_a_day(kept: Cache) -> None:
    kept.store(REQUEST, ANSWER, expires=AT + timedelta(days=400), at=AT)

    assert kept.find(REQUEST, at=AT + timedelta(hours=23)) == ANSWER
    assert kept.find(REQUEST, at=AT + timedelta(hours=24)) is None


def test_an_answer_that_has_expired_is_not_kept(tmp_path: Path) -> None:
    store = Cache(tmp_path / "cache")
    store.store(REQUEST, ANSWER, expires=AT, at=AT)

    assert not store.directory.exists()


@pytest.mark.parametrize(
    "other",
    [
        replace(REQUEST, url="https://vendor.example/crl?x"),
        replace(REQUEST, body=b"question"),
        replace(REQUEST, headers=()),
        replace(REQUEST, content_type="text/plain"),
    ],
)
def test_another_question_is_another_entry(kept: Cache, other: Request) -> None:
    assert kept.find(other, at=AT) is None


def test_a_question_with_a_body_is_kept(tmp_path: Path) -> None:
    store, request = Cache(tmp_path / "cache"), Request("https://vendor.example/", body=b"question")
    store.store(request, Answer(b"x"), expires=LATER, at=AT)

    assert store.find(request, at=AT) == Answer(b"x", {})


def test_the_folder_and_its_files_are_ours_alone(kept: Cache) -> None:
    assert kept.directory.stat().st_mode & 0o777 == 0o700
    assert entry(kept).stat().st_mode & 0o777 == 0o600


def test_every_damaged_byte_makes_an_entry_absent(kept: Cache) -> None:
    path = entry(kept)
    data = path.read_bytes()

    for offset in range(len(data)):
        path.write_bytes(data[:offset] + bytes((data[offset] ^ 1,)) + data[offset + 1 :])
        assert kept.find(REQUEST, at=AT) is None
    for length in range(len(data)):
        path.write_bytes(data[:length])
        assert kept.find(REQUEST, at=AT) is None
    path.write_bytes(data)
    assert kept.find(REQUEST, at=AT) == ANSWER


def test_an_entry_under_another_name_is_not_used(kept: Cache) -> None:
    other = replace(REQUEST, url="https://vendor.example/other")
    data = entry(kept).read_bytes()
    kept.store(other, Answer(b"y", {"x-chain": "z"}), expires=LATER, at=AT)
    for path in kept.directory.iterdir():
        path.write_bytes(data)

    assert kept.find(other, at=AT) is None


@pytest.mark.parametrize("mode", [0o666, 0o620])
def test_an_entry_that_others_may_write_is_not_used(kept: Cache, mode: int) -> None:
    entry(kept).chmod(mode)

    assert kept.find(REQUEST, at=AT) is None


def test_a_folder_in_an_entrys_place_is_as_good_as_absent_and_leaks_no_descriptor(kept: Cache) -> None:
    place = entry(kept)
    place.unlink()
    place.mkdir()
    open_before = len(list(Path("/proc/self/fd").iterdir()))

    assert all(kept.find(REQUEST, at=AT) is None for _ in range(8))
    kept.store(REQUEST, ANSWER, expires=LATER, at=AT)

    assert len(list(Path("/proc/self/fd").iterdir())) == open_before
    assert [one.name for one in kept.directory.iterdir()] == [place.name]


def test_an_entry_that_is_a_link_or_no_file_is_not_used(kept: Cache, tmp_path: Path) -> None:
    path = entry(kept)
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    assert kept.find(REQUEST, at=AT) is None

    path.unlink()
    os.mkfifo(path)
    assert kept.find(REQUEST, at=AT) is None


@pytest.mark.parametrize("mode", [0o755, 0o777, 0o710])
def test_a_folder_that_is_open_to_others_is_left_alone(kept: Cache, mode: int) -> None:
    kept.directory.chmod(mode)
    kept.store(Request("https://vendor.example/new"), Answer(b"x"), expires=LATER, at=AT)

    assert kept.find(REQUEST, at=AT) is None
    assert len(list(kept.directory.iterdir())) == 1


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_what_belongs_to_another_user_is_left_alone(kept: Cache) -> None:
    os.chown(entry(kept), 65534, 65534)
    assert kept.find(REQUEST, at=AT) is None

    os.chown(entry(kept), 0, 0)
    os.chown(kept.directory, 65534, 65534)
    assert kept.find(REQUEST, at=AT) is None


def test_a_folder_that_is_a_link_is_left_alone(kept: Cache, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(kept.directory)

    assert Cache(link).find(REQUEST, at=AT) is None


def test_a_cache_that_cannot_be_made_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = Cache(tmp_path / "file" / "cache")

    store.store(REQUEST, ANSWER, expires=LATER, at=AT)
    assert store.find(REQUEST, at=AT) is None


def test_the_oldest_entries_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MAX_ENTRIES", 3)
    store = Cache(tmp_path / "cache")
    (tmp_path / "cache").mkdir(mode=0o700)
    (tmp_path / "cache" / "notes.txt").write_text("somebody's")
    requests = [Request(f"https://vendor.example/{index}") for index in range(5)]
    for index, request in enumerate(requests):
        store.store(request, Answer(b"x"), expires=LATER, at=AT)
        for path in store.directory.glob(f"{cache._name(request)}"):
            os.utime(path, (index, index))

    assert [store.find(request, at=AT) is None for request in requests] == [True, True, False, False, False]
    assert (store.directory / "notes.txt").exists()


def test_all_entries_together_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MAX_TOTAL", 10_000)
    store = Cache(tmp_path / "cache")
    for index in range(10):
        store.store(Request(f"https://vendor.example/{index}"), Answer(bytes(3000)), expires=LATER, at=AT)

    assert 0 < sum(path.stat().st_size for path in store.directory.iterdir()) <= 10_000


def test_an_answer_that_is_too_large_is_not_kept(tmp_path: Path) -> None:
    store = Cache(tmp_path / "cache")
    store.store(REQUEST, Answer(bytes(3 << 20)), expires=LATER, at=AT)

    assert store.find(REQUEST, at=AT) is None


def test_a_vendor_is_asked_once_while_its_answer_is_good(tmp_path: Path) -> None:
    asked: list[str] = []
    clock = [AT]

    def vendor(request: Request, /) -> Answer:
        asked.append(request.url)
        return ANSWER

    ask = cached(vendor, Cache(tmp_path / "cache"), now=lambda: clock[0], expires=lambda *_: LATER)
    assert [ask(REQUEST), ask(REQUEST)] == [ANSWER, ANSWER]
    assert asked == [REQUEST.url]

    clock[0] = LATER
    ask(REQUEST)
    assert asked == [REQUEST.url] * 2


def test_an_answer_that_does_not_say_how_long_it_is_good_is_asked_for_again(tmp_path: Path) -> None:
    asked: list[str] = []

    def vendor(request: Request, /) -> Answer:
        asked.append(request.url)
        return ANSWER

    ask = cached(vendor, Cache(tmp_path / "cache"), now=lambda: AT, expires=lambda *_: None)
    ask(REQUEST)
    ask(REQUEST)
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({}, "/home/someone/.cache/confide/endorsements"),
        ({"XDG_CACHE_HOME": "/somewhere"}, "/somewhere/confide/endorsements"),
        ({"XDG_CACHE_HOME": ""}, "/home/someone/.cache/confide/endorsements"),
        ({"XDG_CACHE_HOME": "relative"}, "/home/someone/.cache/confide/endorsements"),
    ],
)
def test_the_folder_is_where_caches_are(environment: dict[str, str], folder: str) -> None:
    assert cache.default_directory(environment, Path("/home/someone")) == Path(folder)
