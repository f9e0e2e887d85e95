"""SPDY frames: their bytes, the way back, and what is refused."""

import contextlib
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcore.kubelet import spdy

NUMBER = st.integers(0, 2**31 - 1)
WORD = st.integers(0, 2**32 - 1)
HEADERS = st.dictionaries(
    st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True), st.text(max_size=40), max_size=8
)
FRAMES = st.one_of(
    st.builds(spdy.SynStream, NUMBER, HEADERS, st.booleans()),
    st.builds(spdy.SynReply, NUMBER, HEADERS, st.booleans()),
    st.builds(spdy.Headers, NUMBER, HEADERS, st.booleans()),
    st.builds(spdy.RstStream, NUMBER, WORD),
    st.builds(
        spdy.Settings,
        st.lists(st.tuples(st.integers(0, 2**24 - 1), WORD), max_size=5).map(tuple),
    ),
    st.builds(spdy.Ping, WORD),
    st.builds(spdy.GoAway, NUMBER, WORD),
    st.builds(spdy.WindowUpdate, NUMBER, NUMBER),
    st.builds(spdy.Data, NUMBER, st.binary(max_size=300), st.booleans()),
)


def test_the_dictionary_is_the_protocols() -> None:
    # The checksum that every SPDY/3 connection begins its first header block with.
    assert zlib.adler32(spdy.DICTIONARY) == 0xE3C6A7C2


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (spdy.Data(3, b"hi"), "00000003 00000002 6869"),
        (spdy.Data(3, fin=True), "00000003 01000000"),
        (spdy.Ping(2), "80030006 00000004 00000002"),
        (spdy.RstStream(5, 5), "80030003 00000008 00000005 00000005"),
        (spdy.WindowUpdate(1, 4096), "80030009 00000008 00000001 00001000"),
        (spdy.GoAway(7, 0), "80030007 00000008 00000007 00000000"),
        (spdy.Settings(((4, 100),)), "80030004 0000000c 00000001 00000004 00000064"),
    ],
)
def test_frames_that_are_plain_numbers(frame: spdy.Frame, expected: str) -> None:
    assert spdy.Codec().encode(frame) == bytes.fromhex(expected)


def test_a_stream_opens_with_compressed_headers() -> None:
    sent = spdy.Codec().encode(spdy.SynStream(1, {"streamType": "stdin"}))
    assert sent[:8] == bytes.fromhex("80030001") + struct.pack(">I", len(sent) - 8)
    assert sent[8:18] == bytes.fromhex("00000001 00000000 0000")
    # zlib's header with "a dictionary is needed", then which one.
    assert sent[18] == 0x78 and sent[19] & 0x20 and sent[20:24] == bytes.fromhex("e3c6a7c2")
    block = zlib.decompressobj(zdict=spdy.DICTIONARY).decompress(sent[18:])
    assert block == b"\0\0\0\1" + b"\0\0\0\x0astreamtype" + b"\0\0\0\x05stdin"


@given(st.lists(FRAMES, max_size=12), st.data())
def test_frames_come_back_however_the_bytes_are_cut(
    frames: list[spdy.Frame], data: st.DataObject
) -> None:
    sender, receiver = spdy.Codec(), spdy.Codec()
    sent = b"".join(map(sender.encode, frames))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=6)))
    received: list[spdy.Frame] = []
    for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True):
        received += receiver.feed(sent[start:end])
    assert received == frames


@given(st.binary(max_size=200))
def test_any_bytes_give_frames_or_the_one_error(data: bytes) -> None:
    try:
        for frame in spdy.Codec().feed(data):
            assert frame is not None
    except spdy.SpdyError:
        pass


@given(FRAMES, st.data())
def test_a_damaged_frame_gives_frames_or_the_one_error(
    frame: spdy.Frame, data: st.DataObject
) -> None:
    sent = bytearray(spdy.Codec().encode(frame))
    at = data.draw(st.integers(0, len(sent) - 1))
    sent[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(spdy.SpdyError):
        spdy.Codec().feed(bytes(sent))


def test_a_frame_of_an_unknown_kind_is_passed_over() -> None:
    codec = spdy.Codec()
    assert codec.feed(bytes.fromhex("80030063 00000002 abcd 00000001 00000000")) == [spdy.Data(1)]


@pytest.mark.parametrize(
    "start",
    [
        pytest.param("00000001 00ffffff", id="data frame of 16 MiB"),
        pytest.param("80030001 00ffffff", id="control frame of 16 MiB"),
        pytest.param("80020006 00000004 00000001", id="version 2"),
        pytest.param("80030006 00000002 0000", id="ping cut short"),
        pytest.param("80030004 00000004 ffffffff", id="four thousand million settings"),
        pytest.param("80030001 0000000e 00000001 00000000 0000 12345678", id="no zlib"),
    ],
)
def test_what_is_refused(start: str) -> None:
    with pytest.raises(spdy.SpdyError):
        spdy.Codec().feed(bytes.fromhex(start))


def _opening(block: bytes) -> bytes:
    packer = zlib.compressobj(zdict=spdy.DICTIONARY)
    body = bytes.fromhex("00000001 00000000 0000")
    body += packer.compress(block) + packer.flush(zlib.Z_SYNC_FLUSH)
    return bytes.fromhex("80030001") + struct.pack(">I", len(body)) + body


def test_headers_that_blow_up_are_refused_before_they_do() -> None:
    bomb = _opening(bytes(50 * 1024 * 1024))
    assert len(bomb) < spdy.CONTROL_BYTES
    with pytest.raises(spdy.SpdyError, match="headers above"):
        spdy.Codec().feed(bomb)


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(struct.pack(">I", 65), id="too many"),
        pytest.param(struct.pack(">II", 1, 1000) + b"abc", id="cut short"),
        pytest.param(struct.pack(">I", 0) + b"more", id="bytes behind"),
        pytest.param(struct.pack(">II", 1, 1) + b"\xff" + struct.pack(">I", 0), id="no UTF-8"),
        pytest.param(b"\0\0", id="no count"),
    ],
)
def test_headers_that_are_refused(block: bytes) -> None:
    with pytest.raises(spdy.SpdyError):
        spdy.Codec().feed(_opening(block))
