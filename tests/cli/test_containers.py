"""`kcore logs` and `exec` against containers that are data: streams as kubelets give them."""

import asyncio
import os
import pty
import termios
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from kcore_api.kcore.api.v1 import pod_stream_pb2 as ps

from kcore.cli import root
from kcore.wire.errors import ApiError, Reason
from tests.cli.cluster import Run

POD = """\
apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {app: web}}
spec:
  initContainers: [{name: init, image: i}]
  containers: [{name: main, image: i}, {name: side, image: i}]
"""
STARTED = {
    "phase": "Running",
    "containerStatuses": [
        {"name": name, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}
        for name in ("main", "side")
    ],
}
WEB = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: main, image: i}]}
"""


class Containers:
    """Streams to containers that say their own names, and echo what they are given."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.ended = asyncio.Event()
        self.sizes: list[tuple[int, int]] = []

    async def logs(self, request: ps.LogsRequest) -> AsyncGenerator[ps.LogsResponse, None]:
        self.asked.append(request)
        if request.target.container == "waiting":
            said = 'container "waiting" in pod "a" is waiting to start: ContainerCreating'
            raise ApiError(Reason.REFUSED, said)
        for number in (1, 2):
            text = f"{request.target.pod} {request.target.container or 'main'} {number}\n"
            line = ps.LogLine(time=Timestamp(seconds=1_767_225_600 + number), text=text.encode())
            yield ps.LogsResponse(lines=[line])
        if request.follow:
            await self.ended.wait()
            yield ps.LogsResponse(lines=[ps.LogLine(text=b"no newline \xff")])

    async def exec(
        self, requests: AsyncIterator[ps.ExecRequest]
    ) -> AsyncGenerator[ps.ExecResponse, None]:
        opening = (await anext(requests)).open
        self.asked.append(opening)
        if opening.stdin:
            async for request in requests:
                if request.HasField("resize"):
                    self.sizes.append((request.resize.width, request.resize.height))
                    continue
                if request.stdin_closed:
                    break
                yield ps.ExecResponse(stdout=request.stdin)
                if opening.tty:
                    await self.ended.wait()
                    break
        if opening.command[0] == "fail":
            yield ps.ExecResponse(stderr=b"it failed\n")
        if opening.command[0] != "vanish":
            yield ps.ExecResponse(exit_code=7 if opening.command[0] == "fail" else 0)

    async def attach(
        self, requests: AsyncIterator[ps.AttachRequest]
    ) -> AsyncGenerator[ps.AttachResponse, None]:
        raise AssertionError
        yield

    async def port_forward(
        self, requests: AsyncIterator[ps.PortForwardRequest]
    ) -> AsyncGenerator[ps.PortForwardResponse, None]:
        raise AssertionError
        yield


@pytest.fixture
async def containers(run: Run) -> Containers:
    run.streams = made = Containers()
    for name in ("a", "b"):
        await run.apply(POD % name)
        await run.status("Pod", name, STARTED)
    await run.apply(WEB)
    return made


async def test_logs_of_one_pod(run: Run, containers: Containers) -> None:
    assert await run("logs a") == (0, "a main 1\na main 2\n", "")
    assert await run("logs a side --timestamps") == (
        0,
        "2026-01-01T00:00:01.000000000Z a side 1\n2026-01-01T00:00:02.000000000Z a side 2\n",
        "",
    )
    assert await run("logs pod/a --all-containers --prefix") == (
        0,
        "".join(f"[pod/a/{c}] a {c} {n}\n" for c in ("init", "main", "side") for n in (1, 2)),
        "",
    )
    await run(
        "logs a -c main --previous --tail=5 --since=90s --limit-bytes=100",
    )
    asked = containers.asked[-1]
    assert asked.previous and asked.tail_lines == 5 and asked.limit_bytes == 100
    assert asked.since.seconds == 1_767_225_600 - 90
    assert asked.target.uid
    await run("logs a --tail=-1 --since-time=2026-01-01T00:00:00Z")
    assert not containers.asked[-1].HasField("tail_lines")
    assert containers.asked[-1].since.seconds == 1_767_225_600


async def test_logs_of_a_selector_and_an_owner(run: Run, containers: Containers) -> None:
    both = "".join(f"[pod/{p}/main] {p} main {n}\n" for p in ("a", "b") for n in (1, 2))
    assert await run("logs -l app=web") == (0, both, "")
    assert {r.tail_lines for r in containers.asked} == {10}
    assert await run("logs deploy/web") == (0, both, "")
    assert (await run("logs deploy/web --no-prefix"))[
        1
    ] == "a main 1\na main 2\nb main 1\nb main 2\n"
    assert (await run("--color=always logs -l app=web"))[1].startswith(
        "\x1b[36m[pod/a/main]\x1b[0m a"
    )
    assert await run("logs -l app=none") == (0, "", "No resources found in default namespace.\n")


async def test_logs_that_cannot_be_shown(run: Run, containers: Containers) -> None:
    assert await run("logs a -c waiting") == (
        1,
        "",
        'error: container "waiting" in pod "a" is waiting to start: ContainerCreating\n',
    )
    for line in ("logs", "logs a -l x=y", "logs a -c x --all-containers", "logs cm/x"):
        assert (await run(line))[0] in (1, 2)
    assert (await run("logs a --since=5s --since-time=2026-01-01T00:00:00Z"))[0] == 2
    assert (await run("logs a --since=soon"))[0] == 2
    assert (await run("logs a --since-time=soon"))[0] == 2
    assert (await run("logs c"))[2] == ('error: pod "c" not found in namespace "default"\n')


async def test_follow_ends_with_the_container(run: Run, containers: Containers) -> None:
    following = asyncio.ensure_future(run("logs a -f"))
    await asyncio.sleep(0.05)
    assert not following.done()
    containers.ended.set()
    code, out, _ = await following
    assert (code, out) == (0, "a main 1\na main 2\nno newline \ufffd")


async def test_follow_of_an_owner_takes_in_new_pods(run: Run, containers: Containers) -> None:
    session = run.session()
    following = asyncio.ensure_future(root.call(["logs", "deploy/web", "-f"], session))

    async def shown(text: str) -> None:
        for _ in range(500):
            if text in session.stdout.getvalue():  # type: ignore[attr-defined]
                return
            await asyncio.sleep(0.01)
        raise AssertionError(session.stdout.getvalue())  # type: ignore[attr-defined]

    await shown("[pod/b/main] b main 2\n")
    await run.apply(POD % "late")
    await run.status("Pod", "late", STARTED)
    await shown("[pod/late/main] late main 2\n")
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def test_exec(run: Run, containers: Containers) -> None:
    assert await run("exec a -- true") == (0, "", "")
    assert await run("exec a -c side -- fail -x --yes") == (7, "", "it failed\n")
    assert list(containers.asked[-1].command) == ["fail", "-x", "--yes"]
    assert containers.asked[-1].target.container == "side"
    data = bytes(range(32, 127)) * 3000
    code, out, _ = await run("exec -i a -- cat", stdin=data)
    assert (code, out.encode()) == (0, data)
    assert (await run("exec deploy/web -- true"))[0] == 0
    assert containers.asked[-1].target.pod == "a"
    assert await run("exec a -- vanish") == (
        1,
        "",
        "error: the stream ended before the command did\n",
    )
    assert (await run("exec a"))[0] == 2
    code, _, err = await run("exec -it a -- cat", stdin=b"x")
    assert (code, err) == (0, "Warning: standard input is no terminal; going on without -t.\n")


async def test_a_terminal_is_raw_while_the_command_runs(run: Run, containers: Containers) -> None:
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    termios.tcsetwinsize(theirs, (40, 120))
    session = run.session()
    with os.fdopen(theirs, "rb", buffering=0, closefd=False) as terminal:
        session.stdin = terminal  # type: ignore[assignment]
        running = asyncio.ensure_future(root.call(["exec", "-it", "a", "--", "cat"], session))
        for _ in range(500):
            if not termios.tcgetattr(theirs)[3] & termios.ECHO:
                break
            await asyncio.sleep(0.01)
        # What stops a command otherwise is only a byte to the other end.
        os.write(ours, b"\x03x")
        for _ in range(500):
            if "x" in session.stdout.getvalue():  # type: ignore[attr-defined]
                break
            await asyncio.sleep(0.01)
        assert session.stdout.getvalue() == "\x03x"  # type: ignore[attr-defined]
        assert containers.sizes == [(120, 40)]
        containers.ended.set()
        assert await running == 0
    assert termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)
