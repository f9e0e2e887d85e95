"""Streams to pods: a caller, the apiserver, a kubelet; in process and over gRPC alike."""

import asyncio
import hashlib
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
from google.rpc import status_pb2
from kcore_api.kcore.api.v1 import node_pb2
from kcore_api.kcore.api.v1 import pod_stream_pb2 as ps

from kcore.apiserver import broker
from kcore.apiserver.identity import ADMIN, User
from kcore.client.streams import NodeLink, PodStreams
from kcore.tasks import Tasks
from kcore.wire.errors import ApiError, Reason
from tests.apiserver.world import NODE, POD, World, create, node, pod, soon, until, world

KUBELET = User("system:node:n1", ("system:nodes", "system:authenticated"))
Behaviour = Callable[["Talk"], Awaitable[None]]


class Talk:
    """A kubelet's end of one stream."""

    def __init__(self, link: NodeLink, wanted: node_pb2.OpenSession) -> None:
        self.open = wanted.open
        self._wanted = wanted
        self._link = link
        self._said: asyncio.Queue[node_pb2.SessionRequest | None] = asyncio.Queue(1)
        self._heard: asyncio.Queue[node_pb2.SessionResponse | None] = asyncio.Queue(1)
        self.dies = asyncio.Event()
        self.ended = asyncio.Event()
        self.error: ApiError | None = None

    async def run(self, behave: Behaviour) -> None:
        await self._said.put(node_pb2.SessionRequest(session=self._wanted.session))
        async with Tasks() as tasks:
            tasks.start(self._behave(behave))
            listening = tasks.start(self._listen())
            dying = tasks.start(self.dies.wait())
            await asyncio.wait([listening, dying], return_when=asyncio.FIRST_COMPLETED)
            tasks.cancel()
        self.ended.set()

    async def _listen(self) -> None:
        try:
            async with aclosing(self._link.session(self._requests())) as heard:
                async for frame in heard:
                    await self._heard.put(frame)
        except ApiError as error:
            self.error = error

    async def _behave(self, behave: Behaviour) -> None:
        await behave(self)
        await self._said.put(None)

    async def heard(self) -> AsyncGenerator[node_pb2.SessionResponse, None]:
        while (frame := await self._heard.get()) is not None:
            yield frame

    async def say(self, **frame: object) -> None:
        await self._said.put(node_pb2.SessionRequest(**frame))  # type: ignore[arg-type]

    async def _requests(self) -> AsyncGenerator[node_pb2.SessionRequest, None]:
        while (frame := await self._said.get()) is not None:
            yield frame


class Kubelet:
    """Answers every stream in the same way."""

    def __init__(self, link: NodeLink, behave: Behaviour, name: str = "n1") -> None:
        self.talks: list[Talk] = []
        self._link = link
        self._behave = behave
        self._name = name

    async def run(self) -> None:
        async with Tasks() as tasks, aclosing(self._link.link(self._name)) as wanted:
            async for one in wanted:
                talk = Talk(self._link, one)
                self.talks.append(talk)
                tasks.start(talk.run(self._behave))


@asynccontextmanager
async def cluster(
    directory: Path, how: str, behave: Behaviour
) -> AsyncIterator[tuple[World, PodStreams, Kubelet]]:
    """Node n1 with pod p, and its kubelet."""
    async with world(directory) as there:
        session = there.session()
        await session.commit(create(NODE, node("n1")))
        await session.commit(create(POD, pod("p", "n1", "main", "side")))
        link: NodeLink = there.channel
        people: PodStreams = there.channel
        if how == "in process":
            link, people = there.apiserver.streams(KUBELET), there.apiserver.streams(ADMIN)
        kubelet = Kubelet(link, behave)
        async with Tasks() as tasks:
            tasks.start(kubelet.run(), "kubelet")
            await until(lambda: bool(there.apiserver.broker.nodes))
            yield there, people, kubelet
            tasks.cancel()
        await until(lambda: not there.apiserver.broker.streams)


both = pytest.mark.parametrize("how", ["gRPC", "in process"])


async def requests(frames: Iterable[ps.ExecRequest]) -> AsyncGenerator[ps.ExecRequest, None]:
    for frame in frames:
        yield frame


def opening(**more: object) -> ps.ExecRequest:
    target = ps.Target(namespace="default", pod=str(more.pop("pod", "p")))
    target.container = str(more.pop("container", ""))
    command = ps.ExecOpen(target=target, command=["cat"], **more)  # type: ignore[arg-type]
    return ps.ExecRequest(open=command)


async def cat(talk: Talk) -> None:
    """What comes in goes out; exits with 7 when standard input ends."""
    async for frame in talk.heard():
        if frame.exec.stdin_closed:
            await talk.say(exec=ps.ExecResponse(exit_code=7))
            return
        await talk.say(exec=ps.ExecResponse(stdout=frame.exec.stdin))


@both
async def test_a_command_takes_input_to_its_end_and_gives_its_exit_code(
    tmp_path: Path, how: str
) -> None:
    data = random.Random(3).randbytes(3 << 20)
    frames = [opening(stdin=True)]
    size = 32 << 10
    frames += [ps.ExecRequest(stdin=data[at : at + size]) for at in range(0, len(data), size)]
    frames += [ps.ExecRequest(stdin_closed=True)]
    async with cluster(tmp_path, how, cat) as (_, people, kubelet):
        out = hashlib.sha256()
        last = ps.ExecResponse()
        async for response in people.exec(requests(frames)):
            out.update(response.stdout)
            last = response
        assert out.digest() == hashlib.sha256(data).digest()
        assert last.exit_code == 7
        asked = kubelet.talks[0].open.exec
        assert asked.target.container == "main"
        assert asked.target.uid
        assert list(asked.command) == ["cat"]


@both
async def test_a_caller_who_just_stops_has_closed_standard_input(tmp_path: Path, how: str) -> None:
    async with cluster(tmp_path, how, cat) as (_, people, _kubelet):
        frames = [opening(stdin=True), ps.ExecRequest(stdin=b"x")]
        got = [response async for response in people.exec(requests(frames))]
        assert [one.WhichOneof("frame") for one in got] == ["stdout", "exit_code"]


@both
async def test_a_caller_who_leaves_ends_the_session(tmp_path: Path, how: str) -> None:
    async def silent(talk: Talk) -> None:
        await talk.say(exec=ps.ExecResponse(stdout=b"ready"))
        async for _ in talk.heard():
            pass

    async def patient() -> AsyncGenerator[ps.ExecRequest, None]:
        yield opening(stdin=True)
        await asyncio.Event().wait()

    async with cluster(tmp_path, how, silent) as (_, people, kubelet):
        async with aclosing(people.exec(patient())) as responses:
            assert (await anext(responses)).stdout == b"ready"
        await soon(kubelet.talks[0].ended.wait())
        assert kubelet.talks[0].error is not None
        assert kubelet.talks[0].error.reason is Reason.UNAVAILABLE


@both
async def test_requests_are_not_waited_for_when_the_call_has_ended(
    tmp_path: Path, how: str
) -> None:
    closed = asyncio.Event()

    async def patient() -> AsyncGenerator[ps.ExecRequest, None]:
        try:
            yield opening(stdin=True)
            await asyncio.Event().wait()
        finally:
            closed.set()

    async def exits(talk: Talk) -> None:
        await talk.say(exec=ps.ExecResponse(exit_code=1))

    async with cluster(tmp_path, how, exits) as (_, people, _kubelet):
        got = [response async for response in people.exec(patient())]
        assert got[-1].exit_code == 1
        await soon(closed.wait())


async def test_how_the_server_ends_a_call_is_told_to_one_who_still_talks(tmp_path: Path) -> None:
    async def endless() -> AsyncGenerator[ps.ExecRequest, None]:
        yield opening(stdin=True)
        while True:
            yield ps.ExecRequest(stdin=bytes(1000))

    async def refuses(talk: Talk) -> None:
        status = status_pb2.Status(code=9, message="waiting")
        await talk.say(error=ps.StreamError(status=status))

    async with cluster(tmp_path, "gRPC", refuses) as (_, people, _kubelet):
        for _ in range(50):
            with pytest.raises(ApiError, match=r"^waiting$"):
                async for _response in people.exec(endless()):
                    pass


@both
async def test_a_caller_who_cannot_go_on_is_told_why(tmp_path: Path, how: str) -> None:
    async def breaks() -> AsyncGenerator[ps.ExecRequest, None]:
        yield opening(stdin=True)
        raise ApiError(Reason.INVALID, "standard input is a directory")

    async with cluster(tmp_path, how, cat) as (_, people, kubelet):
        with pytest.raises(ApiError, match="standard input is a directory"):
            async for _response in people.exec(breaks()):
                pass
        await until(lambda: all(talk.ended.is_set() for talk in kubelet.talks))


@both
async def test_a_cancelled_caller_ends_a_quiet_log(tmp_path: Path, how: str) -> None:
    async def quiet(talk: Talk) -> None:
        await talk.say(logs=ps.LogsResponse(lines=[ps.LogLine(text=b"one\n")]))
        async for _ in talk.heard():
            pass

    async with cluster(tmp_path, how, quiet) as (_, people, kubelet):
        read = asyncio.Event()

        async def follow() -> None:
            request = ps.LogsRequest(target=ps.Target(namespace="default", pod="p"), follow=True)
            async with aclosing(people.logs(request)) as responses:
                async for response in responses:
                    assert response.lines[0].text == b"one\n"
                    read.set()

        task = asyncio.create_task(follow())
        await soon(read.wait())
        task.cancel()
        await soon(kubelet.talks[0].ended.wait())


@both
async def test_a_kubelet_that_goes_is_told_to_the_caller(tmp_path: Path, how: str) -> None:
    async def breaks(talk: Talk) -> None:
        await talk.say(exec=ps.ExecResponse(stdout=b"x"))
        await got.wait()
        talk.dies.set()
        await asyncio.Event().wait()

    got = asyncio.Event()
    async with cluster(tmp_path, how, breaks) as (_, people, _kubelet):
        with pytest.raises(ApiError) as raised:
            async for _response in people.exec(requests([opening()])):
                got.set()
        assert raised.value.reason is Reason.UNAVAILABLE
        assert 'node "n1" broke the stream off' in raised.value.message


@both
async def test_an_end_without_an_exit_code_is_an_error(tmp_path: Path, how: str) -> None:
    async def forgets(talk: Talk) -> None:
        await talk.say(exec=ps.ExecResponse(stdout=b"x"))

    async with cluster(tmp_path, how, forgets) as (_, people, _kubelet):
        with pytest.raises(ApiError, match="without an exit code"):
            async for _ in people.exec(requests([opening()])):
                pass


@both
async def test_a_kubelets_refusal_reaches_the_caller(tmp_path: Path, how: str) -> None:
    async def refuses(talk: Talk) -> None:
        await talk.say(error=ps.StreamError(status=status_pb2.Status(code=9, message="waiting")))

    async with cluster(tmp_path, how, refuses) as (_, people, kubelet):
        with pytest.raises(ApiError) as raised:
            async for _ in people.exec(requests([opening()])):
                pass
        assert (raised.value.reason, raised.value.message) == (Reason.REFUSED, "waiting")
        await soon(kubelet.talks[0].ended.wait())
        assert kubelet.talks[0].error is None


@both
async def test_logs_end_when_the_kubelet_ends_them(tmp_path: Path, how: str) -> None:
    async def three(talk: Talk) -> None:
        for text in (b"a\n", b"b\n", b"c\n"):
            await talk.say(logs=ps.LogsResponse(lines=[ps.LogLine(text=text)]))

    async with cluster(tmp_path, how, three) as (_, people, kubelet):
        request = ps.LogsRequest(target=ps.Target(namespace="default", pod="p", container="side"))
        got = [line.text async for one in people.logs(request) for line in one.lines]
        assert got == [b"a\n", b"b\n", b"c\n"]
        assert kubelet.talks[0].open.logs.target.container == "side"


@both
async def test_a_connection_has_two_halves(tmp_path: Path, how: str) -> None:
    async def upper(talk: Talk) -> None:
        heard = b""
        async for frame in talk.heard():
            if frame.port_forward.closed:
                break
            heard += frame.port_forward.data
        await talk.say(port_forward=ps.PortForwardResponse(data=heard.upper()))
        await talk.say(port_forward=ps.PortForwardResponse(closed=True))

    async def ask() -> AsyncGenerator[ps.PortForwardRequest, None]:
        target = ps.Target(namespace="default", pod="p")
        yield ps.PortForwardRequest(open=ps.PortForwardOpen(target=target, port=80))
        yield ps.PortForwardRequest(data=b"he")
        yield ps.PortForwardRequest(data=b"llo")
        yield ps.PortForwardRequest(closed=True)

    async with cluster(tmp_path, how, upper) as (there, people, _kubelet):
        with pytest.raises(ApiError, match=r"pod is not running. Current status=Pending"):
            async for _ in people.port_forward(ask()):
                pass
        running = pod("p")
        running.status.phase, running.status.pod_ip = "Running", "10.244.0.2"
        request = create(POD, running)
        operation = request.transactions[0].operations[0]
        operation.update, operation.subresource = running.SerializeToString(), "status"
        await there.session().commit(request)
        got = [one async for one in people.port_forward(ask())]
        assert b"".join(one.data for one in got) == b"HELLO"
        assert got[-1].closed


@both
async def test_who_does_not_read_holds_up_who_writes(tmp_path: Path, how: str) -> None:
    said = 0

    async def floods(talk: Talk) -> None:
        nonlocal said
        for _ in range(1000):
            await talk.say(exec=ps.ExecResponse(stdout=bytes(64 << 10)))
            said += 1
        await talk.say(exec=ps.ExecResponse(exit_code=0))

    async with (
        cluster(tmp_path, how, floods) as (_, people, _kubelet),
        aclosing(people.exec(requests([opening()]))) as responses,
    ):
        got = len((await anext(responses)).stdout)
        before = -1
        while before != said:
            before = said
            await asyncio.sleep(0.1)
        # gRPC's windows and a pipe hold some megabytes; 64 were to be said.
        assert said < 300
        async for response in responses:
            got += len(response.stdout)
        assert got == 1000 * (64 << 10)


@pytest.mark.parametrize(
    ("frame", "reason", "message"),
    [
        (opening(pod="nobody"), Reason.NOT_FOUND, 'pods "nobody" not found'),
        (opening(pod="loose"), Reason.REFUSED, 'pod "loose" does not have a host assigned'),
        (opening(pod="lost"), Reason.UNAVAILABLE, 'kubelet of node "n2" is not connected'),
        (opening(container="nope"), Reason.INVALID, "container nope is not valid for pod p"),
        (ps.ExecRequest(stdin=b"x"), Reason.INVALID, "the first request opens"),
        (opening(pod=""), Reason.INVALID, "target.pod: is required"),
    ],
)
async def test_what_cannot_be_opened(
    tmp_path: Path, frame: ps.ExecRequest, reason: Reason, message: str
) -> None:
    async with cluster(tmp_path, "gRPC", cat) as (there, people, _):
        await there.session().commit(create(POD, pod("loose"), pod("lost", "n2")))
        with pytest.raises(ApiError) as raised:
            async for _ in people.exec(requests([frame])):
                pass
        assert raised.value.reason is reason
        assert message in raised.value.message


async def test_a_second_link_ends_the_first(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        first = there.channel.link("n1")
        waiting = asyncio.create_task(anext(first))
        await until(lambda: bool(there.apiserver.broker.nodes))
        async with aclosing(there.apiserver.streams(ADMIN).link("n1")) as second:
            other = asyncio.create_task(anext(second))
            with pytest.raises(ApiError) as raised:
                await soon(waiting)
            assert raised.value.reason is Reason.CONFLICT
            assert there.apiserver.broker.nodes == ["n1"]
            other.cancel()
            await asyncio.wait([other])


async def test_a_kubelet_speaks_for_its_own_node_alone(tmp_path: Path) -> None:
    async with cluster(tmp_path, "in process", cat) as (there, _, _kubelet):
        stranger = there.apiserver.streams(User("system:node:n2", ("system:nodes",)))
        with pytest.raises(ApiError) as raised:
            await anext(stranger.link("n1"))
        assert raised.value.reason is Reason.FORBIDDEN
        assert 'nodes "n1" is forbidden' in raised.value.message


async def test_a_session_is_for_its_node_and_serves_once(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        await there.session().commit(create(NODE, node("n1")))
        await there.session().commit(create(POD, pod("p", "n1")))
        mine = there.apiserver.streams(KUBELET)
        stranger = there.apiserver.streams(User("system:node:n2", ("system:nodes",)))
        async with aclosing(mine.link("n1")) as link:
            told = asyncio.create_task(anext(link))
            await asyncio.sleep(0)

            async def call() -> list[ps.ExecResponse]:
                calling = there.apiserver.streams(ADMIN).exec(requests([opening()]))
                return [one async for one in calling]

            answer = asyncio.create_task(call())
            wanted = await soon(told)
            assert isinstance(wanted, node_pb2.OpenSession)

            async def hello() -> AsyncGenerator[node_pb2.SessionRequest, None]:
                yield node_pb2.SessionRequest(session=wanted.session)
                yield node_pb2.SessionRequest(exec=ps.ExecResponse(exit_code=0))

            with pytest.raises(ApiError) as raised:
                await anext(stranger.session(hello()))
            assert raised.value.reason is Reason.FORBIDDEN
            async for _ in mine.session(hello()):
                pass
            assert [one.WhichOneof("frame") for one in await answer] == ["exit_code"]
            with pytest.raises(ApiError) as raised:
                await anext(mine.session(hello()))
            assert raised.value.reason is Reason.NOT_FOUND


async def test_a_kubelet_that_does_not_dial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "DIAL_SECONDS", 0.05)
    async with world(tmp_path) as there:
        await there.session().commit(create(NODE, node("n1")))
        await there.session().commit(create(POD, pod("p", "n1")))
        async with aclosing(there.apiserver.streams(KUBELET).link("n1")) as link:
            told = asyncio.create_task(anext(link))
            await asyncio.sleep(0)
            with pytest.raises(ApiError, match="did not answer within"):
                async for _ in there.channel.exec(requests([opening()])):
                    pass
            await told


async def test_commands_need_permission(tmp_path: Path) -> None:
    async with cluster(tmp_path, "in process", cat) as (there, _, _kubelet):
        alice = there.apiserver.streams(User("alice", ("system:authenticated",)))
        with pytest.raises(ApiError) as raised:
            await anext(alice.exec(requests([opening()])))
        assert raised.value.message == (
            'pods "p" is forbidden: User "alice" cannot create resource "pods/exec"'
            ' in API group "" in the namespace "default"'
        )
        request = ps.LogsRequest(target=ps.Target(namespace="default", pod="p"))
        with pytest.raises(ApiError, match='cannot get resource "pods/log"'):
            await anext(alice.logs(request))
