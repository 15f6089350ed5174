# SPDX-License-Identifier: Apache-2.0
"""Registers that can be told without a TD's hardware."""

from __future__ import annotations

import gzip
import hashlib
from typing import TYPE_CHECKING

import pytest

from confide.attestation import reference
from confide.errors import ConfideError, ConfigurationError, MalformedError
from confide.tees.tdx import appraise, measure
from support import boot_logs

if TYPE_CHECKING:
    from pathlib import Path

TABLE = "evidence/measurements/tdx/secretvm_tdx.csv"
HEAD = b"release,mrtd,rtmr1\n"
ROW = b"one," + b"aa" * 48 + b"," + b"bb" * 48 + b"\n"


def test_extending_is_sha384_over_register_and_digest() -> None:
    digest = hashlib.sha384(b"event").digest()
    assert measure.extend(bytes(48), digest) == hashlib.sha384(bytes(48) + digest).digest()
    assert measure.replay([digest, digest]) == measure.extend(measure.extend(bytes(48), digest), digest)
    assert measure.replay([]) == bytes(48)
    for register, value in ((bytes(47), digest), (bytes(48), digest[:32]), (bytes(48), b"")):
        with pytest.raises(ConfigurationError):
            measure.extend(register, value)


def test_rtmr3_of_a_real_dstack_quote_follows_from_its_events(shared: Path) -> None:
    """From names and payloads alone, without the digests that the log names."""
    import json

    rows = json.loads((shared / "evidence/eventlogs/dstack-json-eventlog.json").read_text())
    quote = (shared / "evidence/tdx/v4-dstack-eventlog.quote.bin").read_bytes()
    told = measure.replay(
        measure.dstack_digest(row["event"], bytes.fromhex(row["event_payload"]))
        for row in rows
        if row["imr"] == 3
    )
    assert told == quote[48 + 328 + 144 :][:48]


def test_registers_come_out_of_a_boots_log(shared: Path) -> None:
    data = gzip.decompress((shared / "evidence/eventlogs/ccel-cos113.ccel.gz").read_bytes())
    quote = (shared / "evidence/tdx/v4-gcp-cos113.quote.bin").read_bytes()
    values = measure.from_event_log(data, origin="a golden boot")
    assert values.measurements == {
        f"rtmr{number}": (quote[48 + 328 + 48 * number :][:48],) for number in range(3)
    }
    assert (values.tee, values.origin) == ("tdx", "a golden boot")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        boot_logs.log([(0, 8, b"x", b"x"), (1, 4, b"x", b"x")], ("sha256", "sha384")),
        boot_logs.log([(1, 4, b"x", b"x")], ("sha256",)),
        boot_logs.log([(5, 4, b"x", b"x")]),
        boot_logs.log([]),
    ],
)
def test_a_log_that_tells_nothing_of_a_td_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        measure.from_event_log(data, origin="x")


def test_published_releases_become_a_policy(shared: Path) -> None:
    """A real registry: selected by release, written to a file, read back, and pinned."""
    table = (shared / TABLE).read_bytes()
    lines = table.decode().splitlines()
    first = dict(zip(lines[0].split(","), lines[1].split(","), strict=True))

    everything = measure.published(table, origin="the registry")
    chosen = measure.published(
        table,
        origin="the registry, one release",
        where={name: first[name] for name in ("template_name", "vm_type", "artifacts_ver", "host_id")},
    )

    assert {name: len(values) for name, values in chosen.measurements.items()} == dict.fromkeys(
        ("mrtd", "rtmr0", "rtmr1", "rtmr2"), 1
    )
    assert chosen.measurements["mrtd"] == (bytes.fromhex(first["mrtd"]),)
    assert set(everything.measurements["rtmr1"]) > set(chosen.measurements["rtmr1"])
    kept = reference.read(reference.write([chosen]))
    assert kept == (chosen,)
    filled = reference.fill({"tdx": dict.fromkeys(chosen.measurements, "FILES")}, kept)
    parsed = appraise.parse_reference(filled["tdx"])
    assert parsed.mrtd == chosen.measurements["mrtd"]
    assert (parsed.measured, parsed.wildcards) == (True, ())


@pytest.mark.parametrize(
    "table",
    [
        b"",
        b"\xff\xfe",
        b"release,rtmr1\none,two\n",
        b"mrtd,mrtd\n" + b"aa" * 48 + b"," + b"aa" * 48 + b"\n",
        HEAD + b"one,two\n",
        HEAD + ROW.replace(b"aa", b"AA"),
        HEAD + ROW.replace(b"aa" * 48, b"aa" * 47),
        HEAD + ROW.replace(b"bb" * 48, b""),
        HEAD + b'"one' + ROW,
        HEAD + ROW * 25_000,
        HEAD + b"," * 100 + b"\n",
        HEAD + b"x" * (5 << 20),
    ],
)
def test_what_is_no_table_of_releases_is_refused(table: bytes) -> None:
    with pytest.raises(ConfideError) as caught:
        measure.published(table, origin="x")
    assert caught.value.code.startswith("malformed.")


def test_a_selection_that_leaves_nothing_is_refused() -> None:
    assert measure.published(HEAD + ROW, origin="x", where={"release": "one"}).measurements["rtmr1"]
    for where in ({"release": "two"}, {"name": "one"}):
        with pytest.raises(ConfigurationError):
            measure.published(HEAD + ROW, origin="x", where=where)
