"""Pairs people's streams with sessions that kubelets dial.

A kubelet holds a link (`link`), over which it is told of each stream that somebody wants (`call`);
it answers by a session (`session`) that carries the stream's id, and from then on frames go both
ways. An id is drawn for one caller, one pod and one node, serves once, and is void after thirty
seconds. Frames wait in a `Pipe` of some kilobytes a direction: who does not read holds up who
writes, through the transports at both ends, and no memory grows. When one end goes, the other is
told at once.

Plain asyncio, so that kubelets of the same process use it as those behind gRPC do. It must not know
who may do what, nor what frames say.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from google.protobuf.message import Message
from kcore_api.kcore.api.v1 import node_pb2

from kcore.chance import Chance
from kcore.tasks import Tasks
from kcore.wire import errors
from kcore.wire.errors import ApiError, Reason, Violation

# Until the kubelet has dialled.
DIAL_SECONDS = 30.0
# What waits in one direction of a stream; a frame is always let in when nothing waits.
PIPE_BYTES = 256 << 10
# Streams of a node that wait for its kubelet to dial.
WAITING_STREAMS = 256
_ID_LETTERS = 40

Frame = TypeVar("Frame", bound=Message)


class Pipe(Generic[Frame]):
    """Frames from one writer to one reader, few at a time."""

    def __init__(self) -> None:
        """Open and empty."""
        self._frames: deque[Frame] = deque()
        self._bytes = 0
        self._ended = False
        self._error: ApiError | None = None
        self._moved: asyncio.Future[None] | None = None

    @property
    def broken(self) -> ApiError | None:
        """What it was broken off with."""
        return self._error

    async def put(self, frame: Frame) -> None:
        """Adds a frame once there is room. Raises what the pipe was broken with."""
        size = frame.ByteSize()
        while self._error is None and self._bytes and self._bytes + size > PIPE_BYTES:
            await self._wait()
        if self._error is not None:
            raise self._error
        assert not self._ended, "a frame after the end"
        self._frames.append(frame)
        self._bytes += size
        self._wake()

    def end(self) -> None:
        """No frame follows; what waits is still read."""
        self._ended = True
        self._wake()

    def break_off(self, error: ApiError) -> None:
        """Drops what waits and fails both ends; without effect once the pipe has ended."""
        if self._ended or self._error is not None:
            return
        self._error = error
        self._frames.clear()
        self._bytes = 0
        self._wake()

    async def get(self) -> Frame | None:
        """The next frame; None after the last one."""
        while True:
            if self._error is not None:
                raise self._error
            if self._frames:
                frame = self._frames.popleft()
                self._bytes -= frame.ByteSize()
                self._wake()
                return frame
            if self._ended:
                return None
            await self._wait()

    async def _wait(self) -> None:
        # Reader and writer never wait both: one waits for frames, the other for their going. But
        # one that was woken may not have run yet when the other begins to wait.
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._moved = mine
        try:
            await mine
        finally:
            if self._moved is mine:
                self._moved = None

    def _wake(self) -> None:
        if self._moved is not None and not self._moved.done():
            self._moved.set_result(None)


@dataclass(slots=True, eq=False)
class _Line:
    """One stream between a caller and a kubelet."""

    session: str
    node: str
    # Raises what its caller is told who may no longer have it.
    permit: Callable[[], object]
    # To the kubelet, and from it.
    down: Pipe[node_pb2.SessionResponse] = field(default_factory=Pipe)
    up: Pipe[node_pb2.SessionRequest] = field(default_factory=Pipe)
    joined: asyncio.Event = field(default_factory=asyncio.Event)

    def break_off(self, error: ApiError) -> None:
        self.down.break_off(error)
        self.up.break_off(error)
        # Who waits for the kubelet to dial waits no longer.
        self.joined.set()


@dataclass(slots=True, eq=False)
class _Link:
    """A kubelet that listens."""

    wanted: deque[node_pb2.OpenSession] = field(default_factory=deque)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    error: ApiError | None = None


class Broker:
    """All links and streams of one apiserver."""

    def __init__(self, tasks: Tasks, chance: Chance) -> None:
        """`tasks`: where frames are read from the ends."""
        self._tasks = tasks
        self._chance = chance
        self._links: dict[str, _Link] = {}
        # Streams whose kubelet has not dialled yet, by session id.
        self._waiting: dict[str, _Line] = {}
        self._open: dict[_Line, None] = {}

    @property
    def nodes(self) -> list[str]:
        """Nodes whose kubelets are linked."""
        return sorted(self._links)

    @property
    def streams(self) -> int:
        """How many streams are open or about to be."""
        return len(self._open)

    def close(self) -> None:
        """Ends all links and streams."""
        error = ApiError(Reason.UNAVAILABLE, "the server is shutting down")
        for link in self._links.values():
            link.error = error
            link.changed.set()
        for line in list(self._open):
            line.break_off(error)

    def recheck(self) -> None:
        """Ends the streams whose callers may no longer have them."""
        for line in list(self._open):
            try:
                line.permit()
            except ApiError as error:
                line.break_off(error)

    async def link(self, node: str) -> AsyncGenerator[node_pb2.OpenSession, None]:
        """What the node's kubelet is asked for. Ends by ApiError when another link replaces it."""
        mine = _Link()
        former = self._links.get(node)
        if former is not None:
            said = f"node {node} has linked again: this link is not used any more"
            former.error = ApiError(Reason.CONFLICT, said)
            former.changed.set()
            mine.wanted.extend(former.wanted)
            former.wanted.clear()
        self._links[node] = mine
        try:
            while True:
                if mine.error is not None:
                    raise mine.error
                while mine.wanted:
                    yield mine.wanted.popleft()
                    if mine.error is not None:
                        raise mine.error
                mine.changed.clear()
                await mine.changed.wait()
        finally:
            if self._links.get(node) is mine:
                del self._links[node]
                self._give_up(node)

    async def call(
        self,
        node: str,
        wanted: node_pb2.OpenSession,
        frames: AsyncIterator[node_pb2.SessionResponse],
        permit: Callable[[], object] = lambda: None,
    ) -> AsyncGenerator[node_pb2.SessionRequest, None]:
        """A stream to a node: `frames` go to its kubelet, what the kubelet answers is given.

        `wanted` says what is wanted; its session id is drawn here. `permit` raises when the caller
        may no longer.
        """
        link = self._links.get(node)
        if link is None:
            raise ApiError(
                Reason.UNAVAILABLE,
                f'the kubelet of node "{node}" is not connected: is it running there?',
                retry_seconds=1.0,
            )
        if sum(line.node == node for line in self._waiting.values()) >= WAITING_STREAMS:
            said = f'{WAITING_STREAMS} streams wait for the kubelet of node "{node}"'
            raise ApiError(Reason.EXHAUSTED, said, retry_seconds=1.0)
        line = _Line(self._chance.token(_ID_LETTERS), node, permit)
        self._waiting[line.session] = line
        self._open[line] = None
        asked = node_pb2.OpenSession()
        asked.CopyFrom(wanted)
        asked.session = line.session
        link.wanted.append(asked)
        link.changed.set()
        reading: asyncio.Task[None] | None = None
        refused: ApiError | None = None
        try:
            await self._dialled(line)
            reading = self._tasks.start(self._say(frames, line), f"stream to {node}")
            while (frame := await line.up.get()) is not None:
                if frame.WhichOneof("frame") == "error":
                    refused = errors.from_status(frame.error.status)
                    break
                yield frame
            reading.cancel()
            line.down.end()
            if refused is not None:
                raise refused
        finally:
            self._waiting.pop(line.session, None)
            self._open.pop(line, None)
            line.break_off(ApiError(Reason.UNAVAILABLE, "the caller has gone"))
            if reading is not None:
                reading.cancel()

    async def session(
        self,
        requests: AsyncIterator[node_pb2.SessionRequest],
        permit: Callable[[str], None],
    ) -> AsyncGenerator[node_pb2.SessionResponse, None]:
        """The kubelet's end of a stream; `permit` raises unless it may speak for the node."""
        first = await _first(requests)
        line = self._waiting.get(first.session)
        if line is None:
            said = "there is no such session: it was used, is void, or its caller has gone"
            raise ApiError(Reason.NOT_FOUND, said)
        permit(line.node)
        del self._waiting[line.session]
        line.joined.set()
        reading = self._tasks.start(self._answer(first, requests, line), f"stream of {line.node}")
        try:
            while (frame := await line.down.get()) is not None:
                yield frame
        finally:
            reading.cancel()
            line.break_off(_gone(line))

    async def _dialled(self, line: _Line) -> None:
        try:
            async with asyncio.timeout(DIAL_SECONDS):
                await line.joined.wait()
        except TimeoutError:
            raise ApiError(
                Reason.UNAVAILABLE,
                f'the kubelet of node "{line.node}" did not answer within {DIAL_SECONDS:.0f} s',
                retry_seconds=1.0,
            ) from None
        if line.up.broken is not None:
            raise line.up.broken

    async def _say(self, frames: AsyncIterator[node_pb2.SessionResponse], line: _Line) -> None:
        """Hands the caller's frames on. That they end says nothing: the stream is the kubelet's."""
        try:
            async for frame in frames:
                await line.down.put(frame)
        except ApiError as error:
            line.break_off(error)
        except Exception as error:
            line.break_off(
                ApiError(Reason.UNAVAILABLE, f"the caller broke the stream off: {error}")
            )

    async def _answer(
        self,
        first: node_pb2.SessionRequest,
        requests: AsyncIterator[node_pb2.SessionRequest],
        line: _Line,
    ) -> None:
        """Hands the kubelet's frames on; when they end, so does the stream."""
        try:
            if first.WhichOneof("frame") is not None:
                await line.up.put(first)
            async for frame in requests:
                await line.up.put(frame)
            line.up.end()
        except Exception:
            line.break_off(_gone(line))

    def _give_up(self, node: str) -> None:
        """Fails the streams that wait for a kubelet that has gone."""
        error = ApiError(
            Reason.UNAVAILABLE,
            f'the kubelet of node "{node}" has gone: is it running there?',
            retry_seconds=1.0,
        )
        for line in [line for line in self._waiting.values() if line.node == node]:
            line.break_off(error)


async def _first(requests: AsyncIterator[node_pb2.SessionRequest]) -> node_pb2.SessionRequest:
    try:
        async with asyncio.timeout(DIAL_SECONDS):
            return await anext(requests)
    except (StopAsyncIteration, TimeoutError):
        said = "the first request carries the session's id"
        raise ApiError(Reason.INVALID, said, [Violation("session", said)]) from None


def _gone(line: _Line) -> ApiError:
    return ApiError(Reason.UNAVAILABLE, f'the kubelet of node "{line.node}" broke the stream off')
