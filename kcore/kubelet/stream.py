"""The kubelet's end of people's streams: logs, exec, attach, port-forward, over a link it dialled.

    await stream.run(link, "n1", runtime, resolve, clock, chance)

The link is held open, and dialled again when it breaks. For each stream that somebody wants a
session is dialled; it ends with the container's word (an exit code, the end of a log), with an
error that says what is wrong, or when the caller goes: then the runtime's stream is closed at once.
Frames wait for each other in both directions, one at a time: who does not read is not written to,
and no memory grows.

`resolve` says which container a target means. Nothing here knows pods, or who is at the other end.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from kcore_api.kcore.api.v1 import node_pb2, pod_stream_pb2
from kcore_api.runtime.v1 import api_pb2 as pb

from kcore.chance import Chance
from kcore.client.streams import NodeLink
from kcore.clock import Clock
from kcore.kubelet import cri, log, streaming
from kcore.tasks import Tasks
from kcore.wire import errors
from kcore.wire.errors import ApiError, Reason

logger = logging.getLogger(__name__)

FIRST_WAIT_SECONDS = 0.1
LONGEST_WAIT_SECONDS = 5.0
# A link that held so long was a good one.
STEADY_SECONDS = 10.0
# So long after its streams have ended a main process is asked how it did.
EXIT_SECONDS = 2.0
EXIT_LOOK_SECONDS = 0.05

Said = node_pb2.SessionRequest
Heard = node_pb2.SessionResponse


@dataclass(frozen=True, slots=True)
class Found:
    """What a target means now. `ended`: whether the container has, asked again and again."""

    container_id: str
    sandbox_id: str
    log_path: Path
    ended: Callable[[], bool]


# Of a target; whether the instance before the last restart is meant. Raises ApiError.
Resolve = Callable[[pod_stream_pb2.Target, bool], Found]


async def run(
    link: NodeLink,
    node: str,
    runtime: cri.Runtime,
    resolve: Resolve,
    clock: Clock,
    chance: Chance,
    *,
    docker: Path | None = None,
) -> None:
    """Serves streams for ever. `docker`: see `log.read`."""
    serving = Streams(link, runtime, resolve, clock, docker)
    wait = FIRST_WAIT_SECONDS
    async with Tasks() as tasks:
        while True:
            since = clock.monotonic()
            try:
                async with aclosing(link.link(node)) as wanted:
                    async for one in wanted:
                        tasks.supervise(serving.serve(one), _grumble, f"session of {node}")
                logger.info("link of %s has ended", node)
            except ApiError as error:
                logger.info("link of %s: %s", node, error)
            if clock.monotonic() - since > STEADY_SECONDS:
                wait = FIRST_WAIT_SECONDS
            await clock.sleep(wait * chance.uniform(0.5, 1.0))
            wait = min(wait * 2, LONGEST_WAIT_SECONDS)


def _grumble(error: Exception) -> None:
    logger.error("a stream broke off", exc_info=error)


class _Gone(Exception):
    """The caller has gone: nobody is there to be told anything."""


@dataclass(frozen=True, slots=True)
class Streams:
    """Serves what the link brings."""

    link: NodeLink
    runtime: cri.Runtime
    resolve: Resolve
    clock: Clock
    docker: Path | None = None

    async def serve(self, wanted: node_pb2.OpenSession) -> None:
        """One stream, from its dialling to its end."""
        session = _Session(wanted.session)
        with contextlib.suppress(_Gone):
            await session.run(self.link, self._serve(wanted.open, session))

    async def _serve(self, wanted: pod_stream_pb2.StreamOpen, session: "_Session") -> None:
        match wanted.WhichOneof("open"):
            case "logs":
                await self._logs(wanted.logs, session)
            case "exec":
                await self._exec(wanted.exec, session)
            case "attach":
                await self._attach(wanted.attach, session)
            case "port_forward":
                await self._port_forward(wanted.port_forward, session)
            case _:
                raise ApiError(Reason.UNIMPLEMENTED, "this kubelet does not know such streams")

    async def _logs(self, wanted: pod_stream_pb2.LogsRequest, session: "_Session") -> None:
        found = self.resolve(wanted.target, wanted.previous)
        responses = log.read(found.log_path, wanted, found.ended, self.clock, docker=self.docker)
        async with aclosing(responses):
            session.deaf()
            async for response in responses:
                await session.say(Said(logs=response))

    async def _exec(self, wanted: pod_stream_pb2.ExecOpen, session: "_Session") -> None:
        found = self.resolve(wanted.target, False)
        url = await self.runtime.exec(
            found.container_id, list(wanted.command), stdin=wanted.stdin, tty=wanted.tty
        )

        async with streaming.command(url, stdin=wanted.stdin, tty=wanted.tty) as process:
            with session.hearing(_Input(process, wanted.stdin, wanted.tty).exec):
                async for channel, data in process:
                    frame = pod_stream_pb2.ExecResponse()
                    setattr(frame, channel, data)
                    await session.say(Said(exec=frame))
        code = pod_stream_pb2.ExecResponse(exit_code=process.exit_code)
        await session.say(Said(exec=code))

    async def _attach(self, wanted: pod_stream_pb2.AttachOpen, session: "_Session") -> None:
        found = self.resolve(wanted.target, False)
        url = await self.runtime.attach(found.container_id, stdin=wanted.stdin, tty=wanted.tty)
        async with streaming.command(url, stdin=wanted.stdin, tty=wanted.tty) as process:
            with session.hearing(_Input(process, wanted.stdin, wanted.tty).attach):
                async for channel, data in process:
                    frame = pod_stream_pb2.AttachResponse()
                    setattr(frame, channel, data)
                    await session.say(Said(attach=frame))
        # How a main process did is not said on its streams.
        code = await self._exit_code(found.container_id)
        if code is not None:
            await session.say(Said(attach=pod_stream_pb2.AttachResponse(exit_code=code)))

    async def _exit_code(self, container_id: str) -> int | None:
        until = self.clock.monotonic() + EXIT_SECONDS
        while True:
            try:
                status = await self.runtime.container_status(container_id)
            except cri.CriError as error:
                if error.code is cri.Code.NOT_FOUND:
                    return None
                raise
            if status.state == pb.CONTAINER_EXITED:
                return int(status.exit_code)
            if self.clock.monotonic() >= until:
                return None
            await self.clock.sleep(EXIT_LOOK_SECONDS)

    async def _port_forward(
        self, wanted: pod_stream_pb2.PortForwardOpen, session: "_Session"
    ) -> None:
        found = self.resolve(wanted.target, False)
        url = await self.runtime.port_forward(found.sandbox_id, wanted.port)
        async with streaming.port(url, wanted.port) as connection:

            async def take(heard: Heard) -> None:
                frame = heard.port_forward
                match frame.WhichOneof("frame"):
                    case "data":
                        await connection.write(frame.data)
                    case "closed":
                        await connection.close_write()

            with session.hearing(take):
                async for data in connection:
                    frame = pod_stream_pb2.PortForwardResponse(data=data)
                    await session.say(Said(port_forward=frame))
        await session.say(Said(port_forward=pod_stream_pb2.PortForwardResponse(closed=True)))


@dataclass(slots=True)
class _Input:
    """What a caller says to a process."""

    process: streaming.Command
    stdin: bool
    tty: bool
    closed: bool = False

    async def exec(self, heard: Heard) -> None:
        """A frame of Exec's."""
        await self._take(heard.exec)

    async def attach(self, heard: Heard) -> None:
        """A frame of Attach's."""
        await self._take(heard.attach)

    async def _take(self, frame: pod_stream_pb2.ExecRequest | pod_stream_pb2.AttachRequest) -> None:
        match frame.WhichOneof("frame"):
            case "stdin" if self.stdin and not self.closed:
                await self.process.write(frame.stdin)
            case "stdin_closed" if self.stdin and not self.closed:
                self.closed = True
                await self.process.close_stdin()
            case "resize" if self.tty:
                await self.process.resize(frame.resize.width, frame.resize.height)


Take = Callable[[Heard], Awaitable[None]]


async def _nothing(heard: Heard) -> None:
    """For what is heard when nobody listens any more."""


class _Session:
    """One session: what is said, one frame at a time, and what is heard meanwhile."""

    def __init__(self, session: str) -> None:
        """`session`: its id."""
        self._id = session
        self._saying: asyncio.Queue[Said | None] = asyncio.Queue(1)
        self._take: Take = _nothing
        # Frames of the caller wait until somebody listens.
        self._listens = asyncio.Event()
        self._complete = False
        self._unheard = asyncio.Event()

    async def say(self, frame: Said) -> None:
        """Says a frame once the one before has been taken."""
        await self._saying.put(frame)

    @contextlib.contextmanager
    def hearing(self, take: Take) -> Iterator[None]:
        """Within, `take` gets the caller's frames; BrokenPipeError of it is nobody's harm."""
        self._take = take
        self._listens.set()
        try:
            yield
        finally:
            self.deaf()

    def deaf(self) -> None:
        """What the caller says is of no use, or not any more."""
        self._take = _nothing
        self._listens.set()

    async def run(self, link: NodeLink, serve: Awaitable[None]) -> None:
        """Serves, whatever comes of it. Raises `_Gone`."""
        try:
            async with Tasks() as tasks:
                listening = tasks.start(self._listen(link))
                watching = tasks.start(self._watch())
                error = await _outcome(serve)
                if error is not None:
                    failed = pod_stream_pb2.StreamError(status=errors.to_status(error))
                    await self.say(Said(error=failed))
                self.deaf()
                await self._saying.put(None)
                self._complete = True
                await listening
                watching.cancel()
        except BaseExceptionGroup as group:
            gone, others = group.split(_Gone)
            if others is not None:
                raise others from None
            raise _Gone from gone

    async def _requests(self) -> AsyncGenerator[Said, None]:
        try:
            yield Said(session=self._id)
            while (frame := await self._saying.get()) is not None:
                yield frame
        finally:
            # Nobody takes what is said any more.
            self._unheard.set()

    async def _listen(self, link: NodeLink) -> None:
        try:
            async with aclosing(link.session(self._requests())) as responses:
                async for heard in responses:
                    await self._listens.wait()
                    with contextlib.suppress(BrokenPipeError):
                        await self._take(heard)
        except ApiError as error:
            if self._complete:
                return
            raise _Gone from error
        if not self._complete:
            raise _Gone

    async def _watch(self) -> None:
        await self._unheard.wait()
        if not self._complete:
            raise _Gone


async def _outcome(serve: Awaitable[None]) -> ApiError | None:
    """What to tell the caller, where it went wrong."""
    try:
        await serve
    except ApiError as error:
        return error
    except streaming.StreamError as error:
        return ApiError(Reason.REFUSED, str(error))
    except cri.CriError as error:
        return _refusal(error)
    return None


def _refusal(error: cri.CriError) -> ApiError:
    """What the runtime said, as the API says it."""
    match error.code:
        case cri.Code.NOT_FOUND:
            reason = Reason.NOT_FOUND
        case cri.Code.UNAVAILABLE | cri.Code.DEADLINE_EXCEEDED | cri.Code.CANCELLED:
            reason = Reason.UNAVAILABLE
        case _:
            reason = Reason.REFUSED
    return ApiError(reason, f"the container runtime says: {error.message or error.code.name}")
