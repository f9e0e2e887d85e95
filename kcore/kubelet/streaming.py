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

Reading and writing may be done by two tasks, which end before the block is left; whoever writes
much must have somebody read. What is
not read is not taken from the socket, so a slow reader slows the sender and no memory grows. A URL
is good for one connection. Leaving the block drops the connection; the process in the container
goes on, as in Kubernetes.

It must not know of pods, nor of who is at the other end of the command line.
"""

import asyncio
import contextlib
import ipaddress
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from enum import StrEnum
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from kcore.kubelet import spdy

DIAL_SECONDS = 30.0
# What is sent in one frame, and what is taken from the socket at once.
CHUNK_BYTES = 32 * 1024
READ_BYTES = 256 * 1024
# containerd (1.6 and 2.4) often never reports the end of a process that left much of its input
# unread: it goes on writing to a pipe that nobody reads any more. So long is waited once all output
# has ended, and either input is stuck or there was more of it than such a pipe holds.
STUCK_SECONDS = 5.0
PIPE_BYTES = 64 * 1024
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
    """One dialled URL: frames out, frames in.

    On the bare socket, since asyncio's streams throw away what was received once something cannot
    be sent: a server that has ended the process closes at once, whatever is still on its way to
    it, and the exit code would be lost.

    No windows: none of the runtimes' servers counts, or tells what it took. TCP alone holds a
    sender back, for all streams of a connection together.
    """

    def __init__(self, url: str, protocol: str) -> None:
        self._url = urlsplit(url if "://" in url else "http://" + url.removeprefix("//"))
        self._protocol = protocol
        self._codec = spdy.Codec()
        self._opened = 0
        self._sending = asyncio.Lock()
        self._receiving = asyncio.Lock()
        # Answers to pings, which must not make the reader wait for a writer.
        self._answers = bytearray()
        self._received = b""
        # Set when nothing but the end is waited for.
        self.ending = False
        self._written = 0
        self._socket: socket.socket

    async def dial(self) -> None:
        """Connects and asks for SPDY."""
        url = self._url
        if url.scheme != "http" or not url.hostname or not url.port:
            raise StreamError(f"cannot stream from {url.geturl()!r}")
        if not _is_here(url.hostname):
            # Whoever answers for the runtime shall not send the kubelet to somebody else.
            raise StreamError(f"the runtime is not to be reached at {url.netloc}: not this machine")
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(DIAL_SECONDS):
                found = await loop.getaddrinfo(url.hostname, url.port, type=socket.SOCK_STREAM)
                family, kind, number, _, address = found[0]
                self._socket = socket.socket(family, kind, number)
                try:
                    self._socket.setblocking(False)
                    self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    await loop.sock_connect(self._socket, address)
                    await self._upgrade()
                except BaseException:
                    self._socket.close()
                    raise
        except (OSError, TimeoutError) as error:
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
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self._socket, "\r\n".join((*lines, "", "")).encode("ascii"))
        answer = b""
        while b"\r\n\r\n" not in answer:
            more = await loop.sock_recv(self._socket, READ_BYTES)
            answer += more
            if not more or len(answer) > ANSWER_BYTES:
                raise StreamError("no answer to the upgrade")
        head, _, rest = answer.partition(b"\r\n\r\n")
        status, *fields = head.decode("latin-1").split("\r\n")
        if status.split(" ")[1:2] == ["101"]:
            self._received = rest
            return
        length = 0
        for line in fields:
            name, _, value = line.partition(":")
            if name.lower() == "content-length" and value.strip().isdecimal():
                length = min(int(value), ANSWER_BYTES)
        while len(rest) < length and (more := await loop.sock_recv(self._socket, READ_BYTES)):
            rest += more
        text = rest[:length].decode("utf-8", "replace").strip()
        raise StreamError(": ".join(filter(None, (status.partition(" ")[2], text))))

    async def open(self, headers: Mapping[str, str], *, fin: bool = False) -> int:
        """Opens a stream; its number. With `fin` nothing will be written to it."""
        number = self._opened * 2 + 1
        self._opened += 1
        try:
            await self._send(spdy.SynStream(number, headers, fin))
        except BrokenPipeError as error:
            raise StreamError("the runtime closed the connection") from error
        return number

    async def write(self, stream: int, data: bytes) -> None:
        """Sends bytes, waiting for room. BrokenPipeError if nobody is there any more."""
        view = memoryview(data)
        for at in range(0, len(data), CHUNK_BYTES):
            await self._send(spdy.Data(stream, bytes(view[at : at + CHUNK_BYTES])))
        self._written += len(data)

    async def half_close(self, stream: int) -> None:
        """No more will be written."""
        try:
            await self._send(spdy.Data(stream, fin=True))
        except BrokenPipeError:
            # The other side ended first: it needs to be told nothing any more.
            return

    async def _send(self, frame: spdy.Frame) -> None:
        async with self._sending:
            ready = bytes(self._answers) + self._codec.encode(frame)
            self._answers.clear()
            try:
                await asyncio.get_running_loop().sock_sendall(self._socket, ready)
            except OSError as error:
                raise BrokenPipeError("the stream has ended") from error

    def _answer(self, frame: spdy.Frame) -> None:
        self._answers += self._codec.encode(frame)
        if self._sending.locked():
            return
        try:
            sent = self._socket.send(self._answers)
        except OSError:
            # Full, or gone: then whoever sends next takes it along, or finds out.
            return
        del self._answers[:sent]

    async def frames(self) -> AsyncIterator[spdy.Frame]:
        """What arrives, until the connection ends. Pings are answered here."""
        data = self._received
        while True:
            try:
                arrived = self._codec.feed(data)
            except spdy.SpdyError as error:
                raise StreamError(str(error)) from error
            for frame in arrived:
                if isinstance(frame, spdy.Ping) and frame.number % 2 == 0:
                    self._answer(frame)
                yield frame
            try:
                async with self._receiving:
                    data = await self._receive()
            except OSError:
                return
            if not data:
                return

    async def _receive(self) -> bytes:
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.timeout(STUCK_SECONDS if self.ending else None):
                    return await loop.sock_recv(self._socket, READ_BYTES)
            except TimeoutError as error:
                if self._sending.locked() or self._written > PIPE_BYTES:
                    raise StreamError(
                        "the process ended without its input, and the runtime does not say how"
                    ) from error

    async def close(self) -> None:
        """Drops the connection. Who still reads or writes is told first."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        async with self._sending, self._receiving:
            self._socket.close()


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
        await self._connection.dial()
        try:
            await self._open()
        except BaseException:
            await self._connection.close()
            raise
        self._items = self._read()
        return self

    async def _open(self) -> None:
        connection = self._connection
        self._error = await connection.open({"streamtype": "error"})
        numbers = {
            name: await connection.open({"streamtype": name})
            for name, wanted in self._wanted.items()
            if wanted
        }
        self._stdin = numbers.pop("stdin", 0)
        self._outputs = {number: Channel(name) for name, number in numbers.items()}
        if self._tty:
            self._resize = await connection.open({"streamtype": "resize"})

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._connection.close()
        with contextlib.suppress(RuntimeError):  # Somebody is in it: it ends with his reading.
            await self._items.aclose()

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
                case spdy.RstStream(stream, _):
                    waiting.discard(stream)
            if not waiting:
                break
            self._connection.ending = waiting == {self._error} != {self._error, *self._outputs}
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
        await self._connection.dial()
        try:
            await self._open()
        except BaseException:
            await self._connection.close()
            raise
        self._items = self._read()
        return self

    async def _open(self) -> None:
        connection = self._connection
        common = {"port": str(self._number), "requestid": "0"}
        self._error = await connection.open({"streamtype": "error", **common}, fin=True)
        self._data = await connection.open({"streamtype": "data", **common})

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._connection.close()
        with contextlib.suppress(RuntimeError):  # Somebody is in it: it ends with his reading.
            await self._items.aclose()

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


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


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
