# SPDX-License-Identifier: Apache-2.0
"""Frames, padding and the replay window: properties, and what an attacker may try with whole frames."""

from __future__ import annotations

import itertools
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from confide.channel import frames, padding
from confide.channel.frames import FINAL, Direction, Frame, FrameOpener, FrameSealer, Kind
from confide.channel.message import OutgoingMessage
from confide.channel.window import WINDOW, ReplayWindow
from confide.errors import ChannelError

if TYPE_CHECKING:
    from collections.abc import Iterable

KEY = bytes(range(44))


def open_all(
    data: bytes, *, step: int | None = None, direction: Direction = Direction.REQUEST
) -> list[Frame]:
    opener = FrameOpener(KEY, direction)
    found: list[Frame] = []
    for at in range(0, len(data), step or max(1, len(data))):
        opener.push(data[at : at + (step or len(data))])
        while (frame := opener.next()) is not None:
            found.append(frame)
    opener.end()
    return found


def refusal(data: bytes, direction: Direction = Direction.REQUEST) -> str:
    with pytest.raises(ChannelError) as refused:
        open_all(data, direction=direction)
    return refused.value.code


def records(count: int = 5) -> list[bytes]:
    sealer = FrameSealer(KEY)
    made = [sealer.seal(Kind.HEAD, b"head", 256)]
    made += [sealer.seal(Kind.DATA, b"%d" % index, 256) for index in range(1, count - 1)]
    return [*made, sealer.seal(Kind.DATA, b"last", 256, final=True)]


@given(
    pieces=st.lists(st.binary(max_size=3000), max_size=6),
    known=st.booleans(),
    step=st.integers(1, 5000),
)
@settings(max_examples=150, deadline=None)
def test_what_was_written_is_read_however_it_is_cut(pieces: list[bytes], known: bool, step: int) -> None:
    body = b"".join(pieces)
    message = OutgoingMessage(b"", KEY, b"head", length=len(body) if known else None)
    out = [message.start()]
    if not message.ended:
        for piece in pieces:
            out += message.write(piece)
            out.append(message.flush())
        out.append(message.finish())
    opened = open_all(b"".join(out), step=step)

    assert opened[0].content == b"head"
    assert b"".join(frame.content for frame in opened[1:]) == body
    assert [frame.final for frame in opened] == [False] * (len(opened) - 1) + [True]


@given(st.integers(0, padding.MAX_CONTENT))
def test_padding_never_loses_content_and_stays_in_bounds(content: int) -> None:
    for pad in (padding.body, padding.stream):
        assert content + 4 <= pad(content) <= padding.MAX_PLAINTEXT
        assert pad(content) >= 256
    # Padmé costs at most 12 % (in truth 1/2^(floor(log2 log2 L) + 1)), plus the floor of 256.
    assert padding.body(content) <= max(256, (content + 4) * 1.12)


def test_ch_10_lengths_on_the_wire_say_little_about_contents() -> None:
    known = {padding.body(content) for content in range(0, padding.MAX_CONTENT, 37)}
    stream = {padding.stream(content) for content in range(0, padding.MAX_CONTENT, 37)}

    assert len(known) < 300, "a million lengths must look like a few hundred"
    assert len(stream) == 7


def test_ch_01_every_other_order_of_five_records_is_refused_at_the_record() -> None:
    made = records()
    for order in itertools.permutations(range(5)):
        if order == (0, 1, 2, 3, 4):
            assert [frame.content for frame in open_all(b"".join(made))] == [
                b"head",
                b"1",
                b"2",
                b"3",
                b"last",
            ]
            continue
        code = refusal(b"".join(made[index] for index in order))

        # The head has its place by the grammar, every other record by its nonce.
        assert code in {"channel.record_auth", "channel.protocol"}
        assert code == "channel.record_auth" or order[0] != 0 or 4 in order[:-1]


@pytest.mark.parametrize("edit", ["drop", "double"])
@pytest.mark.parametrize("index", [1, 2, 3])
def test_ch_01_a_dropped_or_doubled_record_is_refused(edit: str, index: int) -> None:
    made = records()
    made[index : index + 1] = [] if edit == "drop" else [made[index]] * 2

    assert refusal(b"".join(made)) == "channel.record_auth"


def test_ch_18_a_stream_without_its_final_marker_is_truncated_at_every_frame() -> None:
    made = records()
    for count in range(5):
        assert refusal(b"".join(made[:count])) == "channel.truncated"


@pytest.mark.parametrize("length", [0, 19, frames.MAX_CIPHERTEXT + 1, (1 << 31), (1 << 32) - 1])
def test_ch_07_a_length_outside_the_limits_is_refused_before_anything_is_allocated(length: int) -> None:
    made = records()
    opener = FrameOpener(KEY, Direction.REQUEST)
    opener.push(made[0])
    assert opener.next() is not None
    tracemalloc.start()
    try:
        opener.push(length.to_bytes(4, "big") + bytes((Kind.DATA,)) + bytes(64))
        with pytest.raises(ChannelError) as refused:
            opener.next()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert refused.value.code == "channel.frame_too_large"
    assert peak < 100_000


def test_ch_07_an_unauthenticated_first_frame_is_held_to_64_kib() -> None:
    for length, code in ((frames.MAX_SMALL, None), (frames.MAX_SMALL + 1, "channel.frame_too_large")):
        opener = FrameOpener(KEY, Direction.REQUEST)
        opener.push(length.to_bytes(4, "big") + bytes((Kind.HEAD,)))
        if code is None:
            assert opener.next() is None
            continue
        with pytest.raises(ChannelError) as refused:
            opener.next()
        assert refused.value.code == code


def test_ch_05_the_frame_counter_ends_before_a_nonce_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    assert frames.MAX_FRAMES == 1 << 32
    monkeypatch.setattr(frames, "MAX_FRAMES", 3)
    sealer = FrameSealer(KEY)
    made = [sealer.seal(Kind.HEAD, b"", 256), *(sealer.seal(Kind.DATA, b"x", 256) for _ in range(2))]
    with pytest.raises(ChannelError) as sealing:
        sealer.seal(Kind.DATA, b"x", 256)
    monkeypatch.setattr(frames, "MAX_FRAMES", 4)
    made.append(sealer.seal(Kind.DATA, b"x", 256, final=True))
    monkeypatch.setattr(frames, "MAX_FRAMES", 3)

    assert sealing.value.code == "channel.protocol"
    assert refusal(b"".join(made)) == "channel.protocol"


def test_a_refused_opener_gives_nothing_any_more() -> None:
    made = records()
    broken = bytearray(made[1])
    broken[-1] ^= 1
    opener = FrameOpener(KEY, Direction.REQUEST)
    opener.push(made[0] + bytes(broken) + made[2])
    assert opener.next() is not None
    with pytest.raises(ChannelError):
        opener.next()
    with pytest.raises(ChannelError) as again:
        opener.next()

    assert again.value.code == "channel.closed"


def test_a_large_frame_that_does_not_authenticate_leaves_a_zeroed_buffer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lent: list[bytearray] = []
    borrow = frames._borrow

    def lend() -> bytearray:
        lent.append(borrow())
        return lent[-1]

    sealer = FrameSealer(KEY)
    size = 1 << 20
    data = sealer.seal(Kind.HEAD, b"", 256) + sealer.seal(Kind.DATA, b"\x5a" * (size - 4), size, final=True)
    broken = bytearray(data)
    broken[-1] ^= 1
    monkeypatch.setattr(frames, "_borrow", lend)
    with pytest.raises(ChannelError) as refused:
        open_all(bytes(broken), step=65536)

    assert refused.value.code == "channel.record_auth"
    (buffer,) = lent
    assert buffer.count(0x5A) < 20_000, "plaintext that did not authenticate stayed in memory"
    assert buffer not in frames._pool


@given(data=st.binary(max_size=400), direction=st.sampled_from(Direction))
def test_arbitrary_bytes_raise_nothing_but_channel_errors(data: bytes, direction: Direction) -> None:
    with pytest.raises(ChannelError):
        open_all(data, direction=direction)


def test_bytes_after_the_end_are_refused_also_when_they_come_later() -> None:
    made = b"".join(records())
    opener = FrameOpener(KEY, Direction.REQUEST)
    opener.push(made)
    while opener.next() is not None:
        pass
    with pytest.raises(ChannelError) as refused:
        opener.push(b"\x00")

    assert refused.value.code == "channel.protocol"


def test_a_message_keeps_to_its_declared_length() -> None:
    long = OutgoingMessage(b"", KEY, b"head", length=3)
    long.start()
    with pytest.raises(ChannelError):
        long.write(b"four")
    short = OutgoingMessage(b"", KEY, b"head", length=3)
    short.start()
    short.write(b"tw")
    with pytest.raises(ChannelError):
        short.finish()


def test_an_abort_is_an_authenticated_end() -> None:
    message = OutgoingMessage(b"", KEY, b"head", length=None)
    data = message.start() + message.abort(b"application")
    opened = open_all(data)

    assert (opened[-1].kind, opened[-1].final, opened[-1].content) == (Kind.ABORT, True, b"application")
    taken = data[:-273] + bytes((data[-273] & ~FINAL & 0xFF,)) + data[-272:]
    assert refusal(taken) in {"channel.protocol", "channel.record_auth", "channel.frame_too_large"}


def model(numbers: Iterable[int]) -> list[bool]:
    """The window as a set: slow and plain."""
    seen: set[int] = set()
    accepted = []
    for seq in numbers:
        highest = max(seen, default=-1)
        good = seq not in seen and seq > highest - WINDOW
        accepted.append(good)
        if good:
            seen.add(seq)
    return accepted


@given(st.lists(st.one_of(st.integers(0, 3000), st.integers(0, (1 << 63) - 1)), max_size=60))
def test_the_replay_window_is_the_model(numbers: list[int]) -> None:
    window = ReplayWindow()

    def mark(seq: int) -> str | None:
        try:
            window.mark(seq)
        except ChannelError as error:
            return error.code
        return None

    outcomes = [mark(seq) for seq in numbers]

    assert outcomes == [None if good else "channel.sequence" for good in model(numbers)]
