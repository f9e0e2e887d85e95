"""Sessions between people and kubelets: whom they are for, how often, and what is left of them."""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.api.v1 import node_pb2
from kcore_api.kcore.api.v1 import pod_stream_pb2 as ps

from kcore.apiserver.identity import User
from kcore.kubelet import spdy, streaming
from kcore.wire.errors import ApiError, Reason
from tests.apiserver.test_streams import Talk, cat, cluster, opening
from tests.apiserver.world import NODE, POD, create, node, pod, soon
from tests.kubelet.test_stream import TARGET as KNOWN
from tests.kubelet.test_stream import House, house, served
from tests.kubelet.test_streaming import Peer

# It may get pods, and nothing in them.
GETTER = User("system:kube-scheduler", ("system:authenticated",))
TARGET = ps.Target(namespace="default", pod="p")


def one(request: Any) -> AsyncGenerator[Any, None]:
    async def requests() -> AsyncGenerator[Any, None]:
        yield request

    return requests()


@pytest.mark.parametrize(("how", "times"), [("in process", 1000), ("gRPC", 100)])
async def test_s20_a_thousand_streams_that_are_given_up_leave_nothing(
    tmp_path: Path, how: str, times: int
) -> None:
    async def serve(peer: Peer) -> None:
        await peer.accept(4)
        peer.send(spdy.Data(peer.streams["stdout"], b"x"))
        # Until the kubelet hangs up.
        while await peer.reader.read(65_536):
            pass

    async def patient() -> AsyncGenerator[ps.AttachRequest, None]:
        yield ps.AttachRequest(open=ps.AttachOpen(target=TARGET, stdin=True))
        await asyncio.Event().wait()

    async def measure(here: House, call: Callable[[], Any]) -> None:
        async def abort() -> None:
            async with aclosing(call()) as responses:
                assert (await anext(responses)).WhichOneof("frame")

        async def settled() -> tuple[int, int]:
            while here.broker.streams:
                await asyncio.sleep(0.001)
            # What hangs up does so in a few steps of the loop.
            await asyncio.sleep(0.05)
            return len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())

        await abort()
        before = await settled()
        for _ in range(times // 50):
            await asyncio.gather(*(abort() for _ in range(50)))
        after = await settled()
        assert len(here.runtime.asked) == times + 1
        assert abs(after[0] - before[0]) <= 5 and abs(after[1] - before[1]) <= 5, (before, after)

    if how == "gRPC":
        async with served(tmp_path, serve) as (channel, here):
            await measure(here, lambda: channel.attach(patient()))
        return
    wanted = ps.StreamOpen(attach=ps.AttachOpen(target=KNOWN, stdin=True))
    async with house(tmp_path, serve) as here:
        await measure(here, lambda: here.call(wanted))


async def test_s25_a_stream_that_was_refused_is_no_way_to_the_node(tmp_path: Path) -> None:
    sent = 0

    async def goes_on() -> AsyncGenerator[ps.ExecRequest, None]:
        nonlocal sent
        yield opening(stdin=True, container="missing")
        while sent < 1000:
            sent += 1
            yield ps.ExecRequest(stdin=b"GET / HTTP/1.1\r\n\r\n")
            await asyncio.sleep(0)

    async with cluster(tmp_path, "gRPC", cat) as (there, people, kubelet):
        with pytest.raises(ApiError) as raised:
            async for _ in people.exec(goes_on()):
                pass
        assert raised.value.reason is Reason.INVALID
        assert "container missing is not valid for pod p" in raised.value.message
        assert kubelet.talks == [] and not there.apiserver.broker.streams
        # A second opening on a stream that is open is refused, too.

        async def twice() -> AsyncGenerator[ps.ExecRequest, None]:
            yield opening(stdin=True)
            yield opening(stdin=True, pod="other")

        with pytest.raises(ApiError, match="only the first request opens"):
            async for _ in people.exec(twice()):
                pass
        assert len(kubelet.talks) == 1


@pytest.mark.parametrize("how", ["gRPC", "in process"])
async def test_s25_what_a_kubelet_says_after_the_end_is_refused(tmp_path: Path, how: str) -> None:
    async def babbles(talk: Talk) -> None:
        await talk.say(exec=ps.ExecResponse(exit_code=0))
        await talk.say(exec=ps.ExecResponse(stdout=b"and another thing"))

    async def errs(talk: Talk) -> None:
        error = ps.StreamError()
        error.status.code, error.status.message = Reason.REFUSED.value, "no"
        await talk.say(error=error)
        await talk.say(exec=ps.ExecResponse(stdout=b"and another thing"))

    for behave, said in ((babbles, "went on after the end"), (errs, "^no$")):
        directory = tmp_path / behave.__name__
        directory.mkdir()
        async with cluster(directory, how, behave) as (_, people, _kubelet):
            heard = []
            with pytest.raises(ApiError, match=said):
                async for response in people.exec(one(opening())):
                    heard.append(response)
            assert all(not response.stdout for response in heard)


async def test_s26_a_node_cannot_answer_for_another(tmp_path: Path) -> None:
    async with cluster(tmp_path, "in process", cat) as (there, people, _kubelet):
        await there.session().commit(create(NODE, node("b")))
        await there.session().commit(create(POD, pod("q", "b")))
        theirs = there.apiserver.streams(User("system:node:b", ("system:nodes",)))
        ours = there.apiserver.streams(User("system:node:n1", ("system:nodes",)))
        with pytest.raises(ApiError) as raised:
            await anext(ours.link("b"))
        assert raised.value.reason is Reason.FORBIDDEN
        async with aclosing(theirs.link("b")) as link:
            told = asyncio.ensure_future(anext(link))
            await asyncio.sleep(0)

            async def call() -> list[ps.ExecResponse]:
                return [response async for response in people.exec(one(opening(pod="q")))]

            calling = asyncio.ensure_future(call())
            wanted = await soon(told)
            assert isinstance(wanted, node_pb2.OpenSession)
            assert wanted.open.exec.target.uid and len(wanted.session) >= 32

            def hello() -> AsyncGenerator[node_pb2.SessionRequest, None]:
                answer = ps.ExecResponse(exit_code=7)
                return one(node_pb2.SessionRequest(session=wanted.session, exec=answer))

            with pytest.raises(ApiError) as raised:
                await anext(ours.session(hello()))
            assert raised.value.reason is Reason.FORBIDDEN
            assert not calling.done()
            # It was not used up: the right node can still serve it, once.
            async for _ in theirs.session(hello()):
                pass
            assert [response.exit_code for response in await calling] == [7]
            with pytest.raises(ApiError) as raised:
                await anext(theirs.session(hello()))
            assert raised.value.reason is Reason.NOT_FOUND
        assert there.apiserver.broker.nodes == ["n1"]


@pytest.mark.parametrize("host", ["10.96.0.1", "[2001:db8::1]", "example.com", "0.0.0.0"])
async def test_s26_a_runtime_cannot_send_the_kubelet_elsewhere(host: str) -> None:
    with pytest.raises(streaming.StreamError, match="not this machine"):
        async with streaming.command(f"http://{host}:443/exec/x", stdin=False):
            pass


@pytest.mark.parametrize(
    ("call", "resource"),
    [
        (lambda s: s.exec(one(opening())), "pods/exec"),
        (
            lambda s: s.attach(one(ps.AttachRequest(open=ps.AttachOpen(target=TARGET)))),
            "pods/attach",
        ),
        (
            lambda s: s.port_forward(
                one(ps.PortForwardRequest(open=ps.PortForwardOpen(target=TARGET, port=80)))
            ),
            "pods/portforward",
        ),
        (lambda s: s.logs(ps.LogsRequest(target=TARGET)), "pods/log"),
        (lambda s: s.link("n1"), "nodes/link"),
    ],
)
async def test_s29_who_may_only_get_pods_looks_into_none(
    tmp_path: Path, call: Callable[[Any], Any], resource: str
) -> None:
    async with cluster(tmp_path, "in process", cat) as (there, _, kubelet):
        streams = there.apiserver.streams(GETTER)
        got = await there.session(GETTER).get(
            pb.GetRequest(ref=pb.Ref(kind=POD, namespace="default", name="p"))
        )
        assert got.object
        with pytest.raises(ApiError) as raised:
            await anext(call(streams))
        assert raised.value.reason is Reason.FORBIDDEN
        assert f'resource "{resource}"' in raised.value.message
        # Nor by writing what is no object.
        for subresource in ("exec", "attach", "ephemeralcontainers"):
            operation = pb.Operation(
                ref=pb.Ref(kind=POD, namespace="default", name="p"),
                subresource=subresource,
                update=got.object,
            )
            with pytest.raises(ApiError) as raised:
                await there.session(GETTER).commit(
                    pb.CommitRequest(transactions=[pb.Transaction(operations=[operation])])
                )
            assert raised.value.reason is Reason.FORBIDDEN
        assert kubelet.talks == []
