"""Streams, against a server that does what runtimes do, and what they should not."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from kcore.kubelet import spdy, streaming
from kcore.kubelet.streaming import Channel

SUCCESS = b'{"metadata":{},"status":"Success"}'
Serve = Callable[["Peer"], Awaitable[None]]


class Peer:
    """The server's end of one upgraded connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.codec = spdy.Codec()
        self.streams: dict[str, int] = {}
        self.frames: asyncio.Queue[spdy.Frame] = asyncio.Queue()

    async def next(self) -> spdy.Frame:
        """The next frame of the client."""
        while self.frames.empty():
            for frame in self.codec.feed(await self.reader.read(65536)):
                self.frames.put_nowait(frame)
        return self.frames.get_nowait()

    async def accept(self, count: int) -> None:
        """Takes so many streams."""
        for _ in range(count):
            frame = await self.next()
            assert isinstance(frame, spdy.SynStream)
            self.streams[frame.headers["streamtype"]] = frame.stream
            self.send(spdy.SynReply(frame.stream))

    def send(self, *frames: spdy.Frame) -> None:
        """Sends frames."""
        for frame in frames:
            self.writer.write(self.codec.encode(frame))


@asynccontextmanager
async def server(
    serve: Serve, status: bytes = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
) -> AsyncIterator[str]:
    """Serves one upgraded connection at the URL."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"POST /exec/token?a=b HTTP/1.1\r\n")
        assert b"\r\nUpgrade: SPDY/3.1\r\n" in head
        writer.write(status)
        await serve(Peer(reader, writer))
        writer.close()

    listening = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    async with listening:
        # Without a scheme, as some runtimes answer.
        yield f"//127.0.0.1:{port}/exec/token?a=b"


async def test_a_command_from_start_to_end() -> None:
    async def serve(peer: Peer) -> None:
        await peer.accept(4)
        assert list(peer.streams) == ["error", "stdin", "stdout", "stderr"]
        got = b""
        while True:
            frame = await peer.next()
            assert isinstance(frame, spdy.Data) and frame.stream == peer.streams["stdin"]
            got += frame.data
            if frame.fin:
                break
        peer.send(spdy.Ping(2))
        assert await peer.next() == spdy.Ping(2)
        out, err, error = (peer.streams[name] for name in ("stdout", "stderr", "error"))
        peer.send(spdy.Data(out, got.upper(), fin=True), spdy.Data(err, b"e", fin=True))
        peer.send(spdy.Data(error, SUCCESS[:5]), spdy.Data(error, SUCCESS[5:]))
        peer.send(spdy.RstStream(error, 5))

    async with server(serve) as url, streaming.command(url, stdin=True) as process:
        await process.write(b"hello ")
        await process.write(b"there")
        await process.close_stdin()
        printed = [item async for item in process]
        assert printed == [(Channel.STDOUT, b"HELLO THERE"), (Channel.STDERR, b"e")]
        assert process.exit_code == 0


async def test_a_terminal_has_a_resize_stream_and_no_stderr() -> None:
    async def serve(peer: Peer) -> None:
        await peer.accept(4)
        assert list(peer.streams) == ["error", "stdin", "stdout", "resize"]
        frame = await peer.next()
        assert isinstance(frame, spdy.Data) and frame.stream == peer.streams["resize"]
        assert frame.data == b'{"Width": 80, "Height": 24}\n'

    async with server(serve) as url, streaming.command(url, stdin=True, tty=True) as process:
        await process.resize(80, 24)
        with pytest.raises(streaming.StreamError, match="before the exit code"):
            _ = [item async for item in process]


async def test_a_refusal_tells_the_runtimes_words() -> None:
    async def serve(peer: Peer) -> None:
        return

    refusal = b"HTTP/1.1 404 Not Found\r\nContent-Length: 11\r\n\r\nno such one"
    async with server(serve, refusal) as url:
        with pytest.raises(streaming.StreamError, match="404 Not Found: no such one"):
            async with streaming.command(url, stdin=False):
                pass


@pytest.mark.parametrize(
    "url", ["https://127.0.0.1:1/x", "ftp://h:1/x", "http://127.0.0.1/x", "http://127.0.0.1:1/x"]
)
async def test_urls_that_lead_nowhere(url: str) -> None:
    with pytest.raises(streaming.StreamError):
        async with streaming.command(url, stdin=False):
            pass


async def test_a_server_that_breaks_the_protocol() -> None:
    async def serve(peer: Peer) -> None:
        await peer.accept(3)
        peer.writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with server(serve) as url, streaming.command(url, stdin=False) as process:
        with pytest.raises(streaming.StreamError, match="frame of"):
            _ = [item async for item in process]


async def test_a_status_without_end_is_refused() -> None:
    async def serve(peer: Peer) -> None:
        await peer.accept(3)
        for _ in range(10):
            peer.send(spdy.Data(peer.streams["error"], bytes(20_000)))

    async with server(serve) as url, streaming.command(url, stdin=False) as process:
        with pytest.raises(streaming.StreamError, match="too long"):
            _ = [item async for item in process]


async def test_leaving_ends_a_writer_that_waits() -> None:
    ended = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await ended.wait()

    async def feed(process: streaming.Command) -> None:
        while True:
            await process.write(bytes(1_000_000))

    async with server(serve) as url:
        async with streaming.command(url, stdin=True) as process:
            feeding = asyncio.create_task(feed(process))
            await asyncio.sleep(0.05)
        with pytest.raises(BrokenPipeError):
            await feeding
        ended.set()


async def test_a_port_and_its_error() -> None:
    async def serve(peer: Peer) -> None:
        await peer.accept(2)
        data, error = peer.streams["data"], peer.streams["error"]
        assert await peer.next() == spdy.Data(data, b"ping")
        assert await peer.next() == spdy.Data(data, fin=True)
        peer.send(spdy.Data(data, b"pong", fin=True))
        peer.send(spdy.Data(error, b"connection refused", fin=True))

    async with server(serve) as url, streaming.port(url, 80) as connection:
        await connection.write(b"ping")
        await connection.close_write()
        received = b""
        with pytest.raises(streaming.StreamError, match="connection refused"):
            async for data in connection:
                received += data
        assert received == b"pong"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (b"", 0),
        (SUCCESS, 0),
        (
            b'{"status":"Failure","reason":"NonZeroExitCode","message":"ended with 7",'
            b'"details":{"causes":[{"reason":"Other"},{"reason":"ExitCode","message":"7"}]}}',
            7,
        ),
    ],
)
def test_exit_codes(status: bytes, code: int) -> None:
    assert streaming.exit_code(status) == code


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (b'{"status":"Failure","reason":"InternalError","message":"no such file"}', "no such file"),
        (b'{"status":"Failure","reason":"NonZeroExitCode","details":{}}', "NonZeroExitCode"),
        (b"container not found", "container not found"),
        (b"[1]", "1"),
        (b"null", "null"),
        (b"\xff", "ended the command"),
    ],
)
def test_a_status_that_is_no_exit_code(status: bytes, text: str) -> None:
    with pytest.raises(streaming.StreamError, match=text):
        streaming.exit_code(status)
