"""SPDY/3.1 frames, the language of CRI's streaming URLs: bytes to frames and back.

A `Codec` serves one connection: `encode(frame)` gives the bytes to send, `feed(data)` the frames
that arrived. Headers are compressed with a state that lives as long as the connection, so frames
must be sent in the order of their encoding. What breaks the rules or the caps below raises
`SpdyError`, after which the connection is of no more use.

It must not know of sockets, of containers, nor which side it is on.
"""

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

VERSION = 3

# Caps on what the other side may make us hold. Known senders use data frames of 32 KiB.
DATA_BYTES = 1024 * 1024
CONTROL_BYTES = 64 * 1024
HEADER_BYTES = 64 * 1024
HEADER_PAIRS = 64

FIN = 0x01


class Kind(IntEnum):
    """Control frames."""

    SYN_STREAM = 1
    SYN_REPLY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    HEADERS = 8
    WINDOW_UPDATE = 9


# The protocol's own dictionary: words with their lengths before them, then bare text. Its Adler-32
# is written into every first header block, so a wrong one is refused by any peer.
_WORDS = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language "
    "accept-ranges age allow authorization cache-control connection content-base "
    "content-encoding content-language content-length content-location content-md5 "
    "content-range content-type date etag expect expires from host if-match if-modified-since "
    "if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer "
    "transfer-encoding upgrade user-agent vary via warning www-authenticate method get status"
)
_LATER_WORDS = (
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
)
_TEXT = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request"
    "401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented"
    "503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 "
    "Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,"
    "application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age="
    "gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY = (
    b"".join(
        struct.pack(">I", len(word)) + word.encode() for word in (*_WORDS.split(), *_LATER_WORDS)
    )
    + _TEXT.encode()
)


class SpdyError(Exception):
    """The other side broke the protocol, or a cap."""


@dataclass(frozen=True, slots=True)
class SynStream:
    """Opens a stream; odd numbers are the client's. `fin` half-closes the sender's side."""

    stream: int
    headers: Mapping[str, str] = field(default_factory=dict)
    fin: bool = False


@dataclass(frozen=True, slots=True)
class SynReply:
    """Accepts a stream."""

    stream: int
    headers: Mapping[str, str] = field(default_factory=dict)
    fin: bool = False


@dataclass(frozen=True, slots=True)
class Headers:
    """More headers on an open stream."""

    stream: int
    headers: Mapping[str, str] = field(default_factory=dict)
    fin: bool = False


@dataclass(frozen=True, slots=True)
class RstStream:
    """Ends a stream in both directions. Status 5 is "cancel"."""

    stream: int
    status: int


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings as (id, value); nothing here depends on them."""

    values: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Ping:
    """To be sent back as it is by who did not choose its number: odd ones are the client's."""

    number: int


@dataclass(frozen=True, slots=True)
class GoAway:
    """The sender takes no more streams."""

    last_stream: int
    status: int = 0


@dataclass(frozen=True, slots=True)
class WindowUpdate:
    """`delta` more bytes may be sent on a stream; stream 0 is the connection."""

    stream: int
    delta: int


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes of a stream."""

    stream: int
    data: bytes = b""
    fin: bool = False


Frame = SynStream | SynReply | Headers | RstStream | Settings | Ping | GoAway | WindowUpdate | Data


class Codec:
    """The state of one connection: two compressors, and the bytes of an unfinished frame."""

    def __init__(self) -> None:
        """Of a connection on which no frame was sent yet."""
        self._deflate = zlib.compressobj(zdict=DICTIONARY)
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._pending = bytearray()

    def encode(self, frame: Frame) -> bytes:
        """The bytes of a frame; to be sent in the order of the calls."""
        match frame:
            case Data(stream, data, fin):
                if len(data) > DATA_BYTES:
                    raise SpdyError(f"data frame of {len(data)} bytes")
                return struct.pack(">II", stream, _flagged(fin, len(data))) + data
            case SynStream(stream, headers, fin):
                body = struct.pack(">IIH", stream, 0, 0) + self._pack(headers)
                return _control(Kind.SYN_STREAM, body, fin)
            case SynReply(stream, headers, fin):
                return _control(
                    Kind.SYN_REPLY, struct.pack(">I", stream) + self._pack(headers), fin
                )
            case Headers(stream, headers, fin):
                body = struct.pack(">I", stream) + self._pack(headers)
                return _control(Kind.HEADERS, body, fin)
            case RstStream(stream, status):
                return _control(Kind.RST_STREAM, struct.pack(">II", stream, status))
            case Settings(values):
                pairs = b"".join(struct.pack(">II", number, value) for number, value in values)
                return _control(Kind.SETTINGS, struct.pack(">I", len(values)) + pairs)
            case Ping(number):
                return _control(Kind.PING, struct.pack(">I", number))
            case GoAway(last_stream, status):
                return _control(Kind.GOAWAY, struct.pack(">II", last_stream, status))
            case WindowUpdate(stream, delta):
                return _control(Kind.WINDOW_UPDATE, struct.pack(">II", stream, delta))

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes; what is left waits for more."""
        self._pending += data
        frames: list[Frame] = []
        start = 0
        while len(self._pending) - start >= 8:
            first, second = struct.unpack_from(">II", self._pending, start)
            size = second & 0xFFFFFF
            control = bool(first & 0x80000000)
            if size > (CONTROL_BYTES if control else DATA_BYTES):
                raise SpdyError(f"frame of {size} bytes")
            end = start + 8 + size
            if len(self._pending) < end:
                break
            body = bytes(memoryview(self._pending)[start + 8 : end])
            fin = bool((second >> 24) & FIN)
            start = end
            if control:
                if (first >> 16) & 0x7FFF != VERSION:
                    raise SpdyError(f"version {(first >> 16) & 0x7FFF}")
                frame = self._control(first & 0xFFFF, body, fin)
                if frame is not None:
                    frames.append(frame)
            else:
                frames.append(Data(first, body, fin))
        if start:
            del self._pending[:start]
        return frames

    def _control(self, kind: int, body: bytes, fin: bool) -> Frame | None:
        try:
            match kind:
                case Kind.SYN_STREAM:
                    stream, _, _ = struct.unpack_from(">IIH", body)
                    return SynStream(stream & 0x7FFFFFFF, self._unpack(body[10:]), fin)
                case Kind.SYN_REPLY:
                    (stream,) = struct.unpack_from(">I", body)
                    return SynReply(stream & 0x7FFFFFFF, self._unpack(body[4:]), fin)
                case Kind.RST_STREAM:
                    stream, status = struct.unpack(">II", body)
                    return RstStream(stream & 0x7FFFFFFF, status)
                case Kind.SETTINGS:
                    (count,) = struct.unpack_from(">I", body)
                    flat = struct.unpack(f">{2 * count}I", body[4:])
                    pairs = zip(flat[::2], flat[1::2], strict=True)
                    return Settings(tuple((number & 0xFFFFFF, value) for number, value in pairs))
                case Kind.PING:
                    return Ping(*struct.unpack(">I", body))
                case Kind.GOAWAY:
                    last_stream, status = struct.unpack(">II", body)
                    return GoAway(last_stream & 0x7FFFFFFF, status)
                case Kind.HEADERS:
                    (stream,) = struct.unpack_from(">I", body)
                    return Headers(stream & 0x7FFFFFFF, self._unpack(body[4:]), fin)
                case Kind.WINDOW_UPDATE:
                    stream, delta = struct.unpack(">II", body)
                    return WindowUpdate(stream & 0x7FFFFFFF, delta & 0x7FFFFFFF)
                case _:
                    # The protocol says to ignore kinds that one does not know.
                    return None
        except (struct.error, zlib.error, UnicodeDecodeError) as error:
            raise SpdyError(f"control frame {kind}: {error}") from error

    def _pack(self, headers: Mapping[str, str]) -> bytes:
        block = bytearray(struct.pack(">I", len(headers)))
        for name, value in headers.items():
            for text in (name.lower(), value):
                encoded = text.encode()
                block += struct.pack(">I", len(encoded)) + encoded
        return self._deflate.compress(bytes(block)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)

    def _unpack(self, packed: bytes) -> dict[str, str]:
        block = self._inflate.decompress(packed, HEADER_BYTES)
        if self._inflate.unconsumed_tail:
            raise SpdyError(f"headers above {HEADER_BYTES} bytes")
        (count,) = struct.unpack_from(">I", block)
        if count > HEADER_PAIRS:
            raise SpdyError(f"{count} headers")
        texts: list[str] = []
        at = 4
        for _ in range(2 * count):
            (size,) = struct.unpack_from(">I", block, at)
            at += 4 + size
            if at > len(block):
                raise SpdyError("headers cut short")
            texts.append(block[at - size : at].decode())
        if at != len(block):
            raise SpdyError("headers with bytes behind them")
        return dict(zip(texts[::2], texts[1::2], strict=True))


def _flagged(fin: bool, size: int) -> int:
    return (FIN << 24 if fin else 0) | size


def _control(kind: Kind, body: bytes, fin: bool = False) -> bytes:
    if len(body) > CONTROL_BYTES:
        raise SpdyError(f"control frame of {len(body)} bytes")
    first = 0x80000000 | VERSION << 16 | kind
    return struct.pack(">II", first, _flagged(fin, len(body))) + body
