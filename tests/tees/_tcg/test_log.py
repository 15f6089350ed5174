# SPDX-License-Identifier: Apache-2.0
"""Event logs of measured boot: what is read, what is replayed, and what is refused."""

from __future__ import annotations

import gzip
import hashlib
import json
import time
from base64 import b64decode
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from confide.errors import ConfideError, ConfigurationError, MalformedError
from confide.tees._tcg import events, log
from support import boot_logs

if TYPE_CHECKING:
    from pathlib import Path

PARSED = ("ccel_data_ovmf", "ccel_data_grub", "ccel_aael_alibabacloud")
TPM_LOGS = ("tpm-ubuntu-2404-amd-sevsnp", "tpm-cos-101-amd-sev", "tpm-rhel8-uefi")
ACTION = 0x80000007
TWO = (
    (1, ACTION, b"first", b"first"),
    (2, 0x80000003, b"an image", b"where it lay"),
    (1, 4, bytes(4), bytes(4)),
)


def entry(shared: Path, name: str) -> dict[str, Any]:
    listed = json.loads((shared / "evidence" / "manifest.json").read_text())["entries"]
    return next(item for item in listed if item["id"] == name)


def content(shared: Path, file: str) -> bytes:
    data = (shared / "evidence" / file).read_bytes()
    return gzip.decompress(data) if file.endswith(".gz") else data


@pytest.mark.parametrize("name", TPM_LOGS)
def test_real_tpm_logs_replay_to_the_recorded_pcrs(shared: Path, name: str) -> None:
    item = entry(shared, name)
    read = log.read(content(shared, item["files"][0]))

    assert read.algorithms == ("sha1", "sha256", "sha384")
    assert len(read.events) == item["facts"]["events"] - 1  # The header is counted there.
    assert {str(index): value.hex() for index, value in read.replay("sha256").items()} == item["facts"][
        "pcr_sha256"
    ]


@pytest.mark.parametrize("name", [*PARSED, "ccel-cos113"])
def test_real_ccel_logs_replay_to_the_recorded_registers(shared: Path, name: str) -> None:
    item = entry(shared, name)
    facts = item["facts"]
    read = log.read(content(shared, item["files"][0]))

    assert read.algorithms == ("sha384",)
    assert {str(index): value.hex() for index, value in read.replay("sha384").items()} == (
        facts.get("replayed_sha384") or facts["replayed"]
    )
    assert {number + 1 for number in read.rtmrs()} == set(read.replay("sha384"))


def test_ccel_and_dstack_logs_replay_to_the_registers_in_their_quotes(shared: Path) -> None:
    for quote_file, log_file, told in (
        ("v4-gcp-cos113.quote.bin", "ccel-cos113.ccel.gz", 3),
        ("v4-dstack-eventlog.quote.bin", "dstack-json-eventlog.json", 4),
    ):
        quote = content(shared, f"tdx/{quote_file}")
        signed = [quote[48 + 328 + 48 * number :][:48] for number in range(4)]
        replayed = log.read(content(shared, f"eventlogs/{log_file}")).rtmrs()
        assert replayed == {number: signed[number] for number in range(told)}


@pytest.mark.parametrize("name", PARSED)
def test_events_are_those_that_another_parser_finds(shared: Path, name: str) -> None:
    """CoCo's parse, but for two things in which it departs from UEFI, the byte order of GUIDs and the order of device and
    function in a PCI node, and for two digests of parts, which it does not look for: those of EFI's boot variables and GRUB's
    commands."""
    item = entry(shared, name)
    read = log.read(content(shared, item["files"][0]))
    expected = json.loads((shared / "evidence" / item["files"][1]).read_text())["uefi_event_logs"]

    assert len(read.events) == len(expected)
    for event, other in zip(read.events, expected, strict=True):
        assert (event.index, event.type_name) == (other["index"], other["type_name"])
        assert event.data == b64decode(other["event"])
        assert {name: digest.hex() for name, digest in event.digests.items()} == {
            row["alg"].lower().replace("-", ""): row["digest"] for row in other["digests"]
        }
        if event.type_name not in {"EV_EFI_VARIABLE_BOOT", "EV_IPL"}:
            assert bool(event.covered) == other["digest_matches_event"]
        _same_details(event.details(), other["details"])


def _same_details(found: dict[str, Any], other: dict[str, Any]) -> None:
    for key, value in other.items():
        if key == "variable_name":
            assert found[key].replace("-", "")[16:] == value.replace("-", "")[16:]
            assert bytes.fromhex(found[key][:8])[::-1].hex() == value[:8]
        elif key == "variable_data":
            assert bytes.fromhex(found[key]) == b64decode(value)
        elif key == "device_paths":
            assert [_swapped(node) for node in found[key]] == value
        elif key == "data":
            content = value["content"]
            text = content if isinstance(content, str) else json.dumps(content)
            assert found[key] == {**value, "content": text}
        else:
            assert found[key] == value


def _swapped(node: str) -> str:
    if not node.startswith("Pci("):
        return node
    device, function = node[4:-1].split(",")
    return f"Pci({function},{device})"


def test_dstack_events_have_the_digest_that_dstack_computes(shared: Path) -> None:
    read = log.read(content(shared, "eventlogs/dstack-json-eventlog.json"))
    runtime = [event for event in read.events if event.type == events.DSTACK_RUNTIME]

    assert [event.name for event in runtime][:4] == [
        "system-preparing",
        "app-id",
        "compose-hash",
        "instance-id",
    ]
    assert all(event.covered and event.index == 4 for event in runtime)
    changed = json.loads(content(shared, "eventlogs/dstack-json-eventlog.json"))
    for row in changed:
        row["event_payload"] = "00" if row["event"] == "compose-hash" else row["event_payload"]
    other = log.read(json.dumps(changed).encode())
    assert [event.name for event in other.events if event.name and not event.covered] == ["compose-hash"]


def test_only_the_part_that_a_digest_is_of_is_proven(shared: Path) -> None:
    """EDK II measures the value of a boot variable and not its name, GRUB a command and not the word in front."""
    read = log.read(content(shared, "eventlogs/ccel-cos113.ccel.gz"))
    boot = [event for event in read.events if event.type_name == "EV_EFI_VARIABLE_BOOT"]
    assert boot
    assert all(event.covered and event.proven_details().keys() == {"variable_data"} for event in boot)
    loader = [event for event in read.events if event.type_name == "EV_IPL"]
    commands = [event for event in loader if event.covered]
    assert commands[0].data == b"grub_cmd: defaultA=2\x00"
    assert (commands[0].proven, commands[0].proven_details()) == (b"defaultA=2", {"string": "defaultA=2"})
    assert {event.data for event in loader if event.covered is None} >= {
        b"MokList\x00",
        b"/efi/boot/grub.cfg\x00",
    }
    assert all(event.proven_details() == {} for event in loader if not event.covered)


def test_a_variable_that_lies_about_its_name_is_not_shown_as_proven() -> None:
    value = b"\x01"
    data = bytes(16) + (1).to_bytes(8, "little") + len(value).to_bytes(8, "little") + "x".encode("utf-16-le")
    for kind, expected in ((0x80000002, {"variable_data": "01"}), (0x80000001, {})):
        event = log.read(boot_logs.log([(1, kind, value, data + value)])).events[0]
        assert event.proven_details() == expected
        assert event.details()["unicode_name"] == "x"


def test_replay_extends_each_register_in_the_order_of_the_log() -> None:
    read = log.read(boot_logs.log(TWO, ("sha256", "sha384", "sha512")))

    for algorithm in ("sha256", "sha384", "sha512"):
        assert read.replay(algorithm) == {
            1: boot_logs.extended(b"first", bytes(4), algorithm=algorithm),
            2: boot_logs.extended(b"an image", algorithm=algorithm),
        }
    assert read.rtmrs() == {0: read.replay("sha384")[1], 1: read.replay("sha384")[2]}
    assert [event.covered for event in read.events] == [True, None, True]


@pytest.mark.parametrize("algorithm", ["sha1", "sm3_256", "md5", "sha512"])
def test_only_strong_banks_that_the_log_has_are_replayed(algorithm: str) -> None:
    with pytest.raises(ConfigurationError):
        log.read(boot_logs.log(TWO, ("sha1", "sha256"))).replay(algorithm)


def test_a_log_of_sha1_alone_is_refused() -> None:
    with pytest.raises(MalformedError) as caught:
        log.read(boot_logs.log(TWO, ("sha1",)))
    assert caught.value.code == "malformed.unsupported_version"


@pytest.mark.parametrize("locality", [0, 3, 4])
def test_pcr_0_starts_with_the_startup_locality(locality: int) -> None:
    rows = (
        (0, 3, b"", b"StartupLocality\x00" + bytes((locality,))),
        (0, 8, b"version", b"version"),
        (1, 4, bytes(4), bytes(4)),
    )
    read = log.read(boot_logs.log(rows, ("sha256",), index=0))

    start = bytes(31) + bytes((locality,))
    assert read.startup_locality == locality
    assert read.replay("sha256") == {
        0: boot_logs.extended(b"version", algorithm="sha256", start=start),
        1: boot_logs.extended(bytes(4), algorithm="sha256"),
    }


@pytest.mark.parametrize(("index", "tail"), [(0, b"\x01"), (0, b""), (0, b"\x00\x00"), (1, b"\x00")])
def test_a_startup_locality_that_cannot_be_is_refused(index: int, tail: bytes) -> None:
    with pytest.raises(MalformedError):
        log.read(boot_logs.log([(index, 3, b"", b"StartupLocality\x00" + tail)], ("sha256",)))


def test_events_that_are_no_action_extend_nothing() -> None:
    assert log.read(boot_logs.log([(1, 3, b"x", b"x")])).replay("sha384") == {}


@pytest.mark.parametrize("padding", [b"", b"\xff", b"\x00" * 5, b"\xff" * 4096, b"\x00" * 4096])
def test_padding_of_the_area_is_no_part_of_the_log(padding: bytes) -> None:
    data = boot_logs.log(TWO)

    assert log.read(data + padding) == log.read(data)
    assert log.trimmed(data + padding) == data


@pytest.mark.parametrize("tail", [b"\xff" * 64 + b"\x00", b"\x00" * 64 + b"\x01", b"\xff\x00" * 32, b"\x01"])
def test_other_bytes_after_the_log_are_refused(tail: bytes) -> None:
    with pytest.raises(MalformedError):
        log.read(boot_logs.log(TWO) + tail)


def test_truncation_at_every_length_is_refused_or_a_shorter_log() -> None:
    data = boot_logs.log(TWO)
    whole = log.read(data)
    shorter = set()
    for length in range(len(data)):
        try:
            found = log.read(data[:length])
        except MalformedError:
            continue
        assert found.events == whole.events[: len(found.events)]
        shorter.add(len(found.events))
    assert shorter == {0, 1, 2}  # Cut between events: the registers then replay to other values.


@pytest.mark.parametrize(
    "data",
    [
        boot_logs.header(kind=4),
        boot_logs.header(index=32),
        boot_logs.header(digest=b"\x01" * 20),
        boot_logs.header(tail=b""),
        boot_logs.header(tail=b"\x01"),
        boot_logs.header(tail=b"\x00\x00"),
        boot_logs.header(algorithms=()),
        boot_logs.header(("sha384", "sha384")),
        boot_logs.header(("sha384",) * 9),
        boot_logs.header() + boot_logs.event(1, 4, [], b""),
        boot_logs.header() + boot_logs.event(1, 4, [(0x0B, bytes(32))], b""),
        boot_logs.header() + boot_logs.event(1, 4, [(0x0C, bytes(48))] * 2, b""),
        boot_logs.header(("sha256", "sha384")) + boot_logs.event(1, 4, [(0x0B, bytes(32))] * 2, b""),
        boot_logs.header() + boot_logs.event(32, 4, [(0x0C, bytes(48))], b""),
        boot_logs.header() + boot_logs.event(1, 4, [(0x0C, bytes(48))], b"12345")[:-1],
        boot_logs.header(signature=b"Spec ID Event02\x00"),
        b"",
        b"[]",
        b'[{"imr": 0}]',
        b'[{"imr": "0", "event_type": 1, "digest": "", "event": "", "event_payload": ""}]',
        b'[{"imr": 4, "event_type": 1, "digest": "' + b"00" * 48 + b'", "event": "", "event_payload": ""}]',
        b'[{"imr": 1, "event_type": 1, "digest": "' + b"00" * 47 + b'", "event": "", "event_payload": ""}]',
        b'[{"imr": 1, "event_type": 1, "digest": "' + b"00" * 48 + b'", "event": [], "event_payload": ""}]',
        b'[{"imr":' + b"[" * 100_000,
        b'[{"imr": 1' + b" " * (5 << 20),
    ],
)
def test_what_is_no_log_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        log.read(data)


def test_a_log_of_too_many_events_or_bytes_is_refused_quickly() -> None:
    many = boot_logs.header(("sha256",)) + boot_logs.event(1, 4, [(0x0B, bytes(32))], b"") * (
        log.MAX_EVENTS + 1
    )
    rows = {"imr": 1, "event_type": 1, "digest": "00" * 48, "event": "", "event_payload": ""}
    # Every record begins like padding, and a long tail would have to be looked at for each of them.
    zeros = boot_logs.event(0, 0, [(0x0B, bytes(32))], b"") * (log.MAX_EVENTS - 1)
    began = time.process_time()
    for data in (
        many,
        boot_logs.header(("sha256",)) + zeros + bytes(2 << 20) + b"\x01",
        boot_logs.header() + bytes(log.MAX_LOG),
        b"\x01" * (500 << 16),
        json.dumps([rows] * (log.MAX_EVENTS + 1)).encode(),
    ):
        with pytest.raises(MalformedError):
            log.read(data)
    assert time.process_time() - began < 3


def test_an_event_that_claims_four_gigabytes_is_cut_off_not_allocated() -> None:
    data = boot_logs.header() + boot_logs.event(1, 4, [(0x0C, bytes(48))], b"")[:-4] + b"\xff\xff\xff\x7f"
    with pytest.raises(MalformedError) as caught:
        log.read(data)
    assert caught.value.code == "malformed.truncated"


@given(st.binary(max_size=200), st.sampled_from(sorted(events.TYPE_NAMES)), st.text(max_size=20))
def test_details_of_hostile_data_never_raise_and_hold_no_control_characters(
    data: bytes, kind: int, name: str
) -> None:
    event = events.Event(1, kind, {"sha384": hashlib.sha384(data).digest()}, data, name)

    text = json.dumps([event.details(), event.proven_details()], ensure_ascii=False) + event.summary("sha384")
    assert all(character.isprintable() for character in text)
    assert event.covered in {True, None} or kind == events.DSTACK_RUNTIME


@given(st.binary(max_size=400))
def test_hostile_bytes_after_a_header_raise_nothing_else(tail: bytes) -> None:
    for data in (boot_logs.header() + tail, tail, b'[{"imr":' + tail):
        try:
            log.read(data)
        except ConfideError:
            continue


def test_logs_are_told_from_other_files() -> None:
    assert log.recognises(boot_logs.log(TWO))
    assert log.recognises(b' [ {"imr": 1}]')
    assert not log.recognises(b"[1]")
    assert not log.recognises(b'{"imr": 1}')
    assert not log.recognises(bytes(1184))


def test_a_dstack_log_is_written_as_it_is_read(shared: Path) -> None:
    from confide.tees._tcg import dstack

    read = log.read(content(shared, "eventlogs/dstack-json-eventlog.json"))
    assert log.read(dstack.encode(read.events)) == read


def test_a_log_is_explained_line_by_line(shared: Path) -> None:
    told = log.read(content(shared, "eventlogs/ccel-cos113.ccel.gz")).explain()
    lines = [value for key, value in told.items() if key.startswith("event ")]

    assert (told["form"], told["banks"], len(lines)) == ("tcg", ["sha384"], 43)
    assert any(str(line).endswith("defaultA=2 (its digest is of this)") for line in lines)
    assert any("EV_IPL" in str(line) and str(line).endswith("MokList") for line in lines)
    assert any(
        str(line).endswith("00 (its digest is of this)") and "SecureBoot-8be4df61" in str(line)
        for line in lines
    )
