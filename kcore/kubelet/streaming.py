"""The door to what runs in containers: CRI's streaming URLs, for exec, attach and port-forward.

    async with streaming.command(url, stdin=True, tty=False) as process:
        await process.write(data)
        await process.close_stdin()
        async for channel, data in process:
            ...
    process.exit_code

    async with streaming.port(url, 8080) as connection:
        await connection.write(data)
        await connection.close_write()
        async for data in connection:
            ...

Reading and writing may be done by two tasks; whoever writes much must have somebody read. What is
not read is not taken from the socket, so a slow reader slows the sender and no memory grows. A URL
is good for one connection. Leaving the block drops the connection; the process in the container
goes on, as in Kubernetes.

It must not know of pods, nor of who is at the other end of the command line.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from enum import StrEnum
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from kcore.kubelet import spdy

DIAL_SECONDS = 30.0
# What is sent in one frame, and taken from the socket at once.
CHUNK_BYTES = 32 * 1024
READ_BYTES = 256 * 1024
# Caps on what the runtime says about itself: an answer to the upgrade, a status, an error.
ANSWER_BYTES = 64 * 1024
STATUS_BYTES = 64 * 1024

COMMAND_PROTOCOL = "v4.channel.k8s.io"
PORT_PROTOCOL = "portforward.k8s.io"


class StreamError(Exception):
    """The runtime refused or broke a stream; the text is its own."""


class Channel(StrEnum):
    """What a command prints to."""

    STDOUT = "stdout"
    STDERR = "stderr"


class _Connection:
    """One dialled URL: frames out, frames in."""

    def __init__(self, url: str, protocol: str) -> None:
        self._url = urlsplit(url if "://" in url else "http://" + url.removeprefix("//"))
        self._protocol = protocol
        self._codec = spdy.Codec()
        self._opened = 0
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def dial(self) -> None:
        """Connects and asks for SPDY."""
        url = self._url
        if url.scheme != "http" or not url.hostname or not url.port:
            raise StreamError(f"cannot stream from {url.geturl()!r}")
        try:
            async with asyncio.timeout(DIAL_SECONDS):
                self._reader, self._writer = await asyncio.open_connection(
                    url.hostname, url.port, limit=READ_BYTES
                )
                try:
                    await self._upgrade()
                except BaseException:
                    self._writer.close()
                    raise
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise StreamError(f"cannot reach {url.netloc}: {error!r}") from error

    async def _upgrade(self) -> None:
        path = self._url.path + (f"?{self._url.query}" if self._url.query else "")
        lines = (
            f"POST {path} HTTP/1.1",
            f"Host: {self._url.netloc}",
            "Connection: Upgrade",
            "Upgrade: SPDY/3.1",
            f"X-Stream-Protocol-Version: {self._protocol}",
            "Content-Length: 0",
        )
        self._writer.write("\r\n".join((*lines, "", "")).encode("ascii"))
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError as error:
            raise StreamError("the answer to the upgrade is too long") from error
        status, *fields = head.decode("latin-1").split("\r\n")
        if status.split(" ")[1:2] != ["101"]:
            length = 0
            for line in fields:
                name, _, value = line.partition(":")
                if name.lower() == "content-length" and value.strip().isdecimal():
                    length = min(int(value), ANSWER_BYTES)
            body = await self._reader.readexactly(length)
            text = body.decode("utf-8", "replace").strip()
            raise StreamError(f"{status.partition(' ')[2]}: {text}" if text else status)

    def open(self, headers: Mapping[str, str]) -> int:
        """Opens a stream; its number."""
        number = self._opened * 2 + 1
        self._opened += 1
        self.send(spdy.SynStream(number, headers))
        return number

    def send(self, frame: spdy.Frame) -> None:
        """Sends a frame, without waiting for room."""
        self._writer.write(self._codec.encode(frame))

    async def write(self, stream: int, data: bytes) -> None:
        """Sends bytes, waiting for room after each chunk. BrokenPipeError if nobody listens."""
        for at in range(0, len(data), CHUNK_BYTES):
            try:
                self.send(spdy.Data(stream, data[at : at + CHUNK_BYTES]))
                await self._writer.drain()
            except ConnectionError as error:
                raise BrokenPipeError("the stream has ended") from error

    async def half_close(self, stream: int) -> None:
        """No more will be written."""
        try:
            self.send(spdy.Data(stream, fin=True))
            await self._writer.drain()
        except ConnectionError:
            # The other side ended first: it needs to be told nothing any more.
            return

    async def frames(self) -> AsyncIterator[spdy.Frame]:
        """What arrives, until the connection ends. Pings are answered here.

        Windows: a peer that counts is told often enough of what we took. None of the runtimes'
        servers counts, or tells what it took, so our own sending leans on TCP alone.
        """
        while True:
            try:
                data = await self._reader.read(READ_BYTES)
            except ConnectionError:
                return
            if not data:
                return
            try:
                arrived = self._codec.feed(data)
            except spdy.SpdyError as error:
                raise StreamError(str(error)) from error
            for frame in arrived:
                match frame:
                    case spdy.Ping(number) if number % 2 == 0:
                        self.send(frame)
                    case spdy.Data(stream, body, _) if body:
                        self.send(spdy.WindowUpdate(stream, len(body)))
                yield frame

    async def close(self) -> None:
        """Drops the connection."""
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except (ConnectionError, TimeoutError):
            return


class Command:
    """A process in a container, with its streams. Made by `command`."""

    def __init__(
        self, url: str, *, stdin: bool, stdout: bool = True, stderr: bool = True, tty: bool = False
    ) -> None:
        """As `command`."""
        self._connection = _Connection(url, COMMAND_PROTOCOL)
        self._wanted = {"stdin": stdin, "stdout": stdout, "stderr": stderr and not tty}
        self._tty = tty
        self._stdin = 0
        self._resize = 0
        self._exit_code: int | None = None

    async def __aenter__(self) -> Self:
        connection = self._connection
        await connection.dial()
        self._error = connection.open({"streamtype": "error"})
        # In this order, whatever the order of the arguments: servers expect it.
        numbers = {
            name: connection.open({"streamtype": name})
            for name, wanted in self._wanted.items()
            if wanted
        }
        self._stdin = numbers.pop("stdin", 0)
        self._outputs = {number: Channel(name) for name, number in numbers.items()}
        if self._tty:
            self._resize = connection.open({"streamtype": "resize"})
        self._items = self._read()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._items.aclose()
        await self._connection.close()

    @property
    def exit_code(self) -> int:
        """How the process ended; known once the iteration has ended."""
        if self._exit_code is None:
            raise StreamError("the process has not ended")
        return self._exit_code

    async def write(self, data: bytes) -> None:
        """To the process's stdin. BrokenPipeError when the process has ended."""
        assert self._stdin, "opened without stdin"
        await self._connection.write(self._stdin, data)

    async def close_stdin(self) -> None:
        """End of file on the process's stdin."""
        assert self._stdin, "opened without stdin"
        await self._connection.half_close(self._stdin)

    async def resize(self, width: int, height: int) -> None:
        """The terminal's size, in characters."""
        assert self._resize, "opened without a terminal"
        size = json.dumps({"Width": width, "Height": height}) + "\n"
        await self._connection.write(self._resize, size.encode())

    def __aiter__(self) -> AsyncIterator[tuple[Channel, bytes]]:
        return self._items

    async def _read(self) -> AsyncGenerator[tuple[Channel, bytes], None]:
        status = bytearray()
        waiting = {self._error, *self._outputs}
        async for frame in self._connection.frames():
            match frame:
                case spdy.Data(stream, data, fin):
                    if stream == self._error:
                        status += data
                        if len(status) > STATUS_BYTES:
                            raise StreamError("the status is too long")
                    elif stream in self._outputs and data:
                        yield self._outputs[stream], data
                    if fin:
                        waiting.discard(stream)
                case spdy.SynReply(stream, _, True) | spdy.Headers(stream, _, True):
                    waiting.discard(stream)
                case spdy.RstStream(stream, _):
                    waiting.discard(stream)
            if not waiting:
                break
        if self._error in waiting and not status:
            raise StreamError("the stream broke off before the exit code")
        self._exit_code = exit_code(bytes(status))


class Port:
    """One connection to a port in a pod. Made by `port`."""

    def __init__(self, url: str, number: int) -> None:
        """As `port`."""
        self._connection = _Connection(url, PORT_PROTOCOL)
        self._number = number

    async def __aenter__(self) -> Self:
        connection = self._connection
        await connection.dial()
        common = {"port": str(self._number), "requestid": "0"}
        self._error = connection.open({"streamtype": "error", **common})
        await connection.half_close(self._error)
        self._data = connection.open({"streamtype": "data", **common})
        self._items = self._read()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._items.aclose()
        await self._connection.close()

    async def write(self, data: bytes) -> None:
        """To the port. BrokenPipeError when the other side has gone."""
        await self._connection.write(self._data, data)

    async def close_write(self) -> None:
        """No more will be written; what the other side says can still be read."""
        await self._connection.half_close(self._data)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._items

    async def _read(self) -> AsyncGenerator[bytes, None]:
        problem = bytearray()
        waiting = {self._error, self._data}
        async for frame in self._connection.frames():
            match frame:
                case spdy.Data(stream, data, fin):
                    if stream == self._error:
                        problem += data[: STATUS_BYTES - len(problem)]
                    elif stream == self._data and data:
                        yield data
                    if fin:
                        waiting.discard(stream)
                case spdy.RstStream(stream, _):
                    waiting.discard(stream)
            if not waiting:
                break
        if problem:
            raise StreamError(problem.decode("utf-8", "replace").strip())


def command(
    url: str, *, stdin: bool, stdout: bool = True, stderr: bool = True, tty: bool = False
) -> Command:
    """The streams of an exec or attach URL; ask for what the URL was made for, no more or less.

    With a terminal there is no stderr: the terminal mixes the two.
    """
    return Command(url, stdin=stdin, stdout=stdout, stderr=stderr, tty=tty)


def port(url: str, number: int) -> Port:
    """One connection to a port, by a port-forward URL."""
    return Port(url, number)


def exit_code(status: bytes) -> int:
    """The exit code in the status that ends a command: metav1.Status as JSON, or nothing."""
    if not status.strip():
        return 0
    try:
        parsed: Any = json.loads(status)
        if parsed.get("status") == "Success":
            return 0
        if parsed.get("reason") == "NonZeroExitCode":
            for cause in parsed["details"]["causes"]:
                if cause["reason"] == "ExitCode":
                    return int(cause["message"])
        message = str(parsed["message"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        text = status.decode("utf-8", "replace")
        raise StreamError(f"the runtime ended the command with {text!r}") from error
    raise StreamError(message)
