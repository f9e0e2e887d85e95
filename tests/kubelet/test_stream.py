"""Streams from a caller through the broker and the kubelet to a runtime's end, and back."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from kcore_api.kcore.api.v1 import node_pb2
from kcore_api.kcore.api.v1 import pod_stream_pb2 as ps
from kcore_api.runtime.v1 import api_pb2 as cri_pb2

from kcore.apiserver.broker import Broker
from kcore.chance import Chance
from kcore.client.channel import Channel
from kcore.clock import SystemClock
from kcore.kubelet import cri, spdy, stream
from kcore.tasks import Tasks
from kcore.wire.errors import ApiError, Reason
from tests.apiserver.world import NODE, POD, create, node, pod, world
from tests.kubelet.test_streaming import SUCCESS, Peer, Serve, server

TARGET = ps.Target(namespace="default", pod="p", container="main", uid="u1")
CLOCK = SystemClock()
EXIT_7 = (
    b'{"status":"Failure","reason":"NonZeroExitCode","message":"",'
    b'"details":{"causes":[{"reason":"ExitCode","message":"7"}]}}'
)


@dataclass
class Runtime:
    """What is asked of a runtime here."""

    url: str = ""
    status: cri_pb2.ContainerStatus = field(default_factory=cri_pb2.ContainerStatus)
    refuse: cri.CriError | None = None
    asked: list[object] = field(default_factory=list)

    def _answer(self, *asked: object) -> str:
        self.asked.append(asked)
        if self.refuse is not None:
            raise self.refuse
        return self.url

    async def exec(self, id: str, command: Sequence[str], *, stdin: bool, tty: bool) -> str:
        return self._answer("exec", id, command, stdin, tty)

    async def attach(self, id: str, *, stdin: bool, tty: bool) -> str:
        return self._answer("attach", id, stdin, tty)

    async def port_forward(self, id: str, port: int) -> str:
        return self._answer("port_forward", id, port)

    async def container_status(self, id: str) -> cri_pb2.ContainerStatus:
        return self.status


@dataclass
class Link:
    """The broker, as a kubelet dials it; the first links break."""

    broker: Broker
    breaks: int = 0
    links: int = 0

    async def link(self, node: str) -> AsyncGenerator[node_pb2.OpenSession, None]:
        self.links += 1
        if self.links <= self.breaks:
            raise ApiError(Reason.UNAVAILABLE, "no server")
        async with aclosing(self.broker.link(node)) as wanted:
            async for one in wanted:
                yield one

    async def session(
        self, requests: AsyncIterator[node_pb2.SessionRequest]
    ) -> AsyncGenerator[node_pb2.SessionResponse, None]:
        async with aclosing(self.broker.session(requests, lambda node: None)) as responses:
            async for response in responses:
                yield response


@dataclass
class House:
    """A broker with a kubelet."""

    broker: Broker
    runtime: Runtime
    log: Path
    ended: bool = False
    missing: ApiError | None = None

    def resolve(self, target: ps.Target, previous: bool) -> stream.Found:
        assert target == TARGET
        if self.missing is not None:
            raise self.missing
        return stream.Found("c1", "s1", self.log, lambda: self.ended)

    def call(
        self, open_: ps.StreamOpen, frames: AsyncIterator[node_pb2.SessionResponse] | None = None
    ) -> AsyncGenerator[node_pb2.SessionRequest, None]:
        return self.broker.call("n1", node_pb2.OpenSession(open=open_), frames or silence())


async def silence() -> AsyncGenerator[node_pb2.SessionResponse, None]:
    await asyncio.Event().wait()
    yield node_pb2.SessionResponse()


@asynccontextmanager
async def house(
    tmp_path: Path, serve: Serve | None = None, breaks: int = 0
) -> AsyncIterator[House]:
    async def nobody(peer: Peer) -> None: ...

    async with server(serve or nobody) as url, asyncio.timeout(20), Tasks() as tasks:
        broker = Broker(tasks, Chance(1))
        made = House(broker, Runtime(url), tmp_path / "pod" / "main" / "0.log")
        made.log.parent.mkdir(parents=True)
        link = Link(broker, breaks)
        tasks.start(
            stream.run(link, "n1", made.runtime, made.resolve, CLOCK, Chance(2))  # type: ignore[arg-type]
        )
        while not broker.nodes:
            await CLOCK.sleep(0.001)
        yield made
        while broker.streams:
            await CLOCK.sleep(0.001)
        tasks.cancel()


def exec_open(**more: bool) -> ps.StreamOpen:
    return ps.StreamOpen(exec=ps.ExecOpen(target=TARGET, command=["cat", "-"], **more))


def stdin(data: bytes) -> node_pb2.SessionResponse:
    return node_pb2.SessionResponse(exec=ps.ExecRequest(stdin=data))


CLOSED = node_pb2.SessionResponse(exec=ps.ExecRequest(stdin_closed=True))


async def echo(peer: Peer) -> None:
    """Sends back what comes, until its end."""
    await peer.accept(4)
    out, err, error = (peer.streams[name] for name in ("stdout", "stderr", "error"))
    while True:
        frame = await peer.next()
        assert isinstance(frame, spdy.Data) and frame.stream == peer.streams["stdin"]
        if frame.data:
            peer.send(spdy.Data(out, frame.data))
            await peer.writer.drain()
        if frame.fin:
            break
    peer.send(spdy.Data(out, fin=True), spdy.Data(err, b"bye", fin=True))
    peer.send(spdy.Data(error, EXIT_7, fin=True))


async def test_three_megabytes_to_and_fro(tmp_path: Path) -> None:
    sent = os.urandom(3_000_000)

    async def frames() -> AsyncGenerator[node_pb2.SessionResponse, None]:
        for at in range(0, len(sent), 60_000):
            yield stdin(sent[at : at + 60_000])
        yield CLOSED

    async with house(tmp_path, echo) as here:
        heard = [frame.exec async for frame in here.call(exec_open(stdin=True), frames())]
        assert here.runtime.asked == [("exec", "c1", ["cat", "-"], True, False)]
    assert b"".join(one.stdout for one in heard) == sent
    assert b"".join(one.stderr for one in heard) == b"bye"
    assert heard[-1].exit_code == 7
    assert [one.WhichOneof("frame") for one in heard].count("exit_code") == 1


async def test_a_process_that_wants_no_input_still_tells_its_code(tmp_path: Path) -> None:
    async def serve(peer: Peer) -> None:
        await peer.accept(4)
        for name in ("stdout", "stderr"):
            peer.send(spdy.Data(peer.streams[name], b"x", fin=True))
        peer.send(spdy.Data(peer.streams["error"], SUCCESS, fin=True))
        await peer.writer.drain()

    async def frames() -> AsyncGenerator[node_pb2.SessionResponse, None]:
        while True:
            yield stdin(bytes(100_000))

    async with house(tmp_path, serve) as here:
        heard = [frame.exec async for frame in here.call(exec_open(stdin=True), frames())]
    assert heard[-1].WhichOneof("frame") == "exit_code" and heard[-1].exit_code == 0


async def test_terminals_are_resized_and_nothing_is_said_that_was_not_asked_for(
    tmp_path: Path,
) -> None:
    async def serve(peer: Peer) -> None:
        await peer.accept(3)
        assert list(peer.streams) == ["error", "stdout", "resize"]
        frame = await peer.next()
        assert isinstance(frame, spdy.Data) and frame.data == b'{"Width": 80, "Height": 24}\n'
        peer.send(spdy.Data(peer.streams["stdout"], b"ok", fin=True))
        peer.send(spdy.Data(peer.streams["error"], SUCCESS, fin=True))

    async def frames() -> AsyncGenerator[node_pb2.SessionResponse, None]:
        yield stdin(b"nobody asked for input")
        size = ps.TerminalSize(width=80, height=24)
        yield node_pb2.SessionResponse(exec=ps.ExecRequest(resize=size))

    async with house(tmp_path, serve) as here:
        heard = [frame.exec async for frame in here.call(exec_open(tty=True), frames())]
    assert [one.stdout for one in heard] == [b"ok", b""]


async def test_a_caller_that_goes_closes_the_runtimes_stream(tmp_path: Path) -> None:
    began, closed = asyncio.Event(), asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.accept(3)
        began.set()
        assert await peer.reader.read() == b""
        closed.set()

    async with house(tmp_path, serve) as here:
        call = here.call(exec_open())
        waiting = asyncio.create_task(anext(call))
        await began.wait()
        waiting.cancel()
        await asyncio.wait([waiting])
        await closed.wait()


async def test_a_caller_that_does_not_read_holds_the_process_up(tmp_path: Path) -> None:
    sent = 0

    async def serve(peer: Peer) -> None:
        nonlocal sent
        await peer.accept(3)
        with pytest.raises(ConnectionError):
            while True:
                peer.send(spdy.Data(peer.streams["stdout"], bytes(32_768)))
                sent += 32_768
                await peer.writer.drain()

    async with house(tmp_path, serve) as here:
        call = here.call(exec_open())
        await anext(call)
        before = -1
        while sent != before:
            before = sent
            await CLOCK.sleep(0.1)
        # What sockets and the pipe hold, and no more.
        assert sent < 16_000_000
        await call.aclose()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (ApiError(Reason.REFUSED, 'container "main" in pod "p" is waiting to start'), None),
        (cri.CriError(cri.Code.NOT_FOUND, "no container c1", "Exec"), Reason.NOT_FOUND),
        (cri.CriError(cri.Code.UNAVAILABLE, "connection refused", "Exec"), Reason.UNAVAILABLE),
        (cri.CriError(cri.Code.UNKNOWN, "it is not running", "Exec"), Reason.REFUSED),
    ],
)
async def test_errors_reach_the_caller(
    tmp_path: Path, said: ApiError | cri.CriError, reason: Reason | None
) -> None:
    async def eager() -> AsyncGenerator[node_pb2.SessionResponse, None]:
        while True:
            yield stdin(bytes(100_000))

    async with house(tmp_path) as here:
        if isinstance(said, cri.CriError):
            here.runtime.refuse = said
        else:
            here.missing = said
        with pytest.raises(ApiError) as caught:
            _ = [one async for one in here.call(exec_open(stdin=True), eager())]
        assert said.message in caught.value.message
        assert caught.value.reason is (reason or Reason.REFUSED)


async def test_a_stream_that_the_runtime_breaks_is_an_error(tmp_path: Path) -> None:
    async def serve(peer: Peer) -> None:
        await peer.accept(3)
        peer.send(spdy.Data(peer.streams["stdout"], b"some"))

    async with house(tmp_path, serve) as here:
        heard = []
        with pytest.raises(ApiError, match="before the exit code"):
            async for one in here.call(exec_open()):
                heard.append(one.exec.stdout)
        assert heard == [b"some"]


@pytest.mark.parametrize("exited", [True, False])
async def test_attach_tells_how_the_main_process_did(
    tmp_path: Path, exited: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "EXIT_SECONDS", 0.05)

    async def serve(peer: Peer) -> None:
        await peer.accept(4)
        frame = await peer.next()
        assert isinstance(frame, spdy.Data) and frame.data == b"hi"
        for name in ("stdout", "stderr"):
            peer.send(spdy.Data(peer.streams[name], b"out", fin=True))
        peer.send(spdy.Data(peer.streams["error"], b"", fin=True))

    async def frames() -> AsyncGenerator[node_pb2.SessionResponse, None]:
        yield node_pb2.SessionResponse(attach=ps.AttachRequest(stdin=b"hi"))

    async with house(tmp_path, serve) as here:
        state = cri_pb2.CONTAINER_EXITED if exited else cri_pb2.CONTAINER_RUNNING
        here.runtime.status = cri_pb2.ContainerStatus(state=state, exit_code=5)
        wanted = ps.StreamOpen(attach=ps.AttachOpen(target=TARGET, stdin=True))
        heard = [frame.attach async for frame in here.call(wanted, frames())]
        assert here.runtime.asked == [("attach", "c1", True, False)]
    codes = [one.exit_code for one in heard if one.WhichOneof("frame") == "exit_code"]
    assert codes == ([5] if exited else [])


async def test_ports_have_two_directions(tmp_path: Path) -> None:
    async def serve(peer: Peer) -> None:
        await peer.accept(2)
        data, error = peer.streams["data"], peer.streams["error"]
        assert await peer.next() == spdy.Data(data, b"ping")
        assert await peer.next() == spdy.Data(data, fin=True)
        peer.send(spdy.Data(data, b"pong", fin=True), spdy.Data(error, fin=True))

    async def frames() -> AsyncGenerator[node_pb2.SessionResponse, None]:
        yield node_pb2.SessionResponse(port_forward=ps.PortForwardRequest(data=b"ping"))
        yield node_pb2.SessionResponse(port_forward=ps.PortForwardRequest(closed=True))

    async with house(tmp_path, serve) as here:
        wanted = ps.StreamOpen(port_forward=ps.PortForwardOpen(target=TARGET, port=80))
        heard = [frame.port_forward async for frame in here.call(wanted, frames())]
        assert here.runtime.asked == [("port_forward", "s1", 80)]
    assert [one.data for one in heard] == [b"pong", b""] and heard[-1].closed


async def test_logs_are_followed_until_the_container_ends(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        here.log.write_text("2026-01-01T00:00:00Z stdout F one\n")
        wanted = ps.StreamOpen(logs=ps.LogsRequest(target=TARGET, follow=True))
        call = here.call(wanted)
        assert (await anext(call)).logs.lines[0].text == b"one\n"
        with here.log.open("a") as file:
            file.write("2026-01-01T00:00:01Z stdout F two\n")
        here.ended = True
        assert (await anext(call)).logs.lines[0].text == b"two\n"
        with pytest.raises(StopAsyncIteration):
            await anext(call)


async def test_a_follower_that_goes_is_not_followed_for(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        here.log.write_text("2026-01-01T00:00:00Z stdout F one\n")
        fds = len(os.listdir("/proc/self/fd"))
        tasks = len(asyncio.all_tasks())
        for _ in range(50):
            call = here.call(ps.StreamOpen(logs=ps.LogsRequest(target=TARGET, follow=True)))
            await anext(call)
            await call.aclose()
        while len(asyncio.all_tasks()) > tasks:
            await CLOCK.sleep(0.01)
        assert len(os.listdir("/proc/self/fd")) == fds


async def test_the_link_is_dialled_until_it_holds(tmp_path: Path) -> None:
    async with house(tmp_path, breaks=2) as here:
        with pytest.raises(ApiError) as caught:
            _ = [one async for one in here.call(ps.StreamOpen())]
        assert caught.value.reason is Reason.UNIMPLEMENTED


@asynccontextmanager
async def served(tmp_path: Path, serve: Serve) -> AsyncIterator[tuple[Channel, House]]:
    """The same through a real apiserver, over gRPC at both ends."""
    async with world(tmp_path) as there, server(serve) as url, asyncio.timeout(20):
        session = there.session()
        await session.commit(create(NODE, node("n1")))
        await session.commit(create(POD, pod("p", "n1", "main")))
        broker = there.apiserver.broker
        made = House(broker, Runtime(url), tmp_path / "pod" / "main" / "0.log")

        def resolve(target: ps.Target, previous: bool) -> stream.Found:
            assert (target.pod, target.container) == ("p", "main") and target.uid
            return made.resolve(TARGET, previous)

        async with Tasks() as tasks:
            link = there.channel
            tasks.start(
                stream.run(link, "n1", made.runtime, resolve, CLOCK, Chance(2))  # type: ignore[arg-type]
            )
            while not broker.nodes:
                await CLOCK.sleep(0.001)
            yield there.channel, made
            while broker.streams:
                await CLOCK.sleep(0.001)
            tasks.cancel()


def opening(**more: bool) -> ps.ExecRequest:
    target = ps.Target(namespace="default", pod="p")
    return ps.ExecRequest(open=ps.ExecOpen(target=target, command=["cat"], **more))


async def test_three_megabytes_over_grpc(tmp_path: Path) -> None:
    sent = os.urandom(3_000_000)

    async def requests() -> AsyncGenerator[ps.ExecRequest, None]:
        yield opening(stdin=True)
        for at in range(0, len(sent), 60_000):
            yield ps.ExecRequest(stdin=sent[at : at + 60_000])
        yield ps.ExecRequest(stdin_closed=True)

    async with served(tmp_path, echo) as (channel, _):
        heard = [one async for one in channel.exec(requests())]
    assert b"".join(one.stdout for one in heard) == sent
    assert heard[-1].exit_code == 7


async def test_callers_over_grpc_that_go_close_the_runtimes_stream(tmp_path: Path) -> None:
    closed = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.accept(4)
        peer.send(spdy.Data(peer.streams["stdout"], b"x"))
        # To its end; the caller's last word may come before.
        await peer.reader.read()
        closed.set()

    async def requests() -> AsyncGenerator[ps.ExecRequest, None]:
        yield opening(stdin=True)
        await asyncio.Event().wait()

    async with served(tmp_path, serve) as (channel, _):
        call = channel.exec(requests())
        assert (await anext(call)).stdout == b"x"
        await call.aclose()
        await closed.wait()


async def test_errors_over_grpc(tmp_path: Path) -> None:
    async def nobody(peer: Peer) -> None: ...

    async def requests() -> AsyncGenerator[ps.ExecRequest, None]:
        yield opening(stdin=True)
        while True:
            yield ps.ExecRequest(stdin=bytes(60_000))

    async with served(tmp_path, nobody) as (channel, here):
        here.missing = ApiError(Reason.REFUSED, 'container "main" in pod "p" is waiting to start')
        with pytest.raises(ApiError, match="is waiting to start") as caught:
            _ = [one async for one in channel.exec(requests())]
        assert caught.value.reason is Reason.REFUSED
