"""`kcore logs` and `exec` against containers that are data: streams as kubelets give them."""

import asyncio
import json
import os
import pty
import termios
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
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


DEFAULTED = 'Defaulted container "main" out of: main, side, init (init)\n'


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
        opening = (await anext(requests)).open
        self.asked.append(opening)
        yield ps.AttachResponse(stdout=b"here\n")
        if opening.stdin:
            async for request in requests:
                if request.HasField("resize"):
                    self.sizes.append((request.resize.width, request.resize.height))
                elif request.stdin_closed:
                    break
                else:
                    yield ps.AttachResponse(stderr=request.stdin)
        yield ps.AttachResponse(exit_code=3)

    async def port_forward(
        self, requests: AsyncIterator[ps.PortForwardRequest]
    ) -> AsyncGenerator[ps.PortForwardResponse, None]:
        opening = (await anext(requests)).open
        self.asked.append(opening)
        if opening.port == 81:
            said = "failed to connect to localhost:81 inside namespace: connection refused"
            raise ApiError(Reason.REFUSED, said)
        took = 0
        async for request in requests:
            if request.closed:
                break
            took += len(request.data)
            yield ps.PortForwardResponse(data=request.data)
        # Only one who hears the caller's end can count to it.
        yield ps.PortForwardResponse(data=b" %d" % took)
        yield ps.PortForwardResponse(closed=True)


@pytest.fixture
async def containers(run: Run) -> Containers:
    run.streams = made = Containers()
    for name in ("a", "b"):
        await run.apply(POD % name)
        await run.status("Pod", name, STARTED)
    await run.apply(WEB)
    return made


async def test_logs_of_one_pod(run: Run, containers: Containers) -> None:
    assert await run("logs a") == (0, "a main 1\na main 2\n", DEFAULTED)
    assert await run("logs a side --timestamps") == (
        0,
        "2026-01-01T00:00:01.000000000Z a side 1\n2026-01-01T00:00:02.000000000Z a side 2\n",
        "",
    )
    assert await run("logs pod/a --all-containers --prefix") == (
        0,
        "".join(f"[pod/a/{c}] a {c} {n}\n" for n in (1, 2) for c in ("init", "main", "side")),
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
    # In the order of time, not of pods.
    both = "".join(f"[pod/{p}/main] {p} main {n}\n" for n in (1, 2) for p in ("a", "b"))
    assert await run("logs -l app=web") == (0, both, "")
    assert {r.tail_lines for r in containers.asked} == {10}
    assert await run("logs deploy/web") == (0, both, "")
    assert (await run("logs deploy/web --no-prefix"))[
        1
    ] == "a main 1\nb main 1\na main 2\nb main 2\n"
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
    assert await run("exec a -- true") == (0, "", DEFAULTED)
    assert await run("exec -q a -- true") == (0, "", "")
    assert await run("exec a -c side -- fail -x --yes") == (7, "", "it failed\n")
    assert list(containers.asked[-1].command) == ["fail", "-x", "--yes"]
    assert containers.asked[-1].target.container == "side"
    data = bytes(range(32, 127)) * 3000
    code, out, _ = await run("exec -i a -- cat", stdin=data)
    assert (code, out.encode()) == (0, data)
    assert (await run("exec deploy/web -- true"))[0] == 0
    assert containers.asked[-1].target.pod == "a"
    assert await run("exec -q a -- vanish") == (
        1,
        "",
        "error: the stream ended before the command did\n",
    )
    assert (await run("exec a"))[0] == 2
    code, _, err = await run("exec -it a -c main -- cat", stdin=b"x")
    said = "Unable to use a TTY - input is not a terminal or the right kind of file\n"
    assert (code, err) == (0, said)
    assert not containers.asked[-1].tty


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


SHELL = """\
apiVersion: v1
kind: Pod
metadata: {name: shell}
spec: {containers: [{name: main, image: i, stdin: true, tty: true}]}
"""


async def test_attach(run: Run, containers: Containers) -> None:
    assert await run("attach a") == (3, "here\n", DEFAULTED)
    asked = containers.asked[-1]
    assert (asked.target.pod, asked.target.container, asked.stdin) == ("a", "main", False)
    assert await run("attach -q -i deploy/web", stdin=b"x") == (3, "here\n", "x")
    _, _, err = await run("attach -it a -c side", stdin=b"")
    assert err.startswith("Unable to use a TTY - container side did not allocate one\n")
    assert not containers.asked[-1].tty
    await run.apply(SHELL)
    _, _, err = await run("attach -i shell", stdin=b"")
    assert containers.asked[-1].tty
    assert err.endswith(
        "Session ended, resume using 'kcore attach shell -c main -i -t' command when the pod is"
        " running\n"
    )


async def test_a_terminal_that_joins_asks_to_be_drawn_to(run: Run, containers: Containers) -> None:
    await run.apply(SHELL)
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    termios.tcsetwinsize(theirs, (40, 120))
    session = run.session()
    with os.fdopen(theirs, "rb", buffering=0, closefd=False) as terminal:
        session.stdin = terminal  # type: ignore[assignment]
        running = asyncio.ensure_future(root.call(["attach", "-it", "shell"], session))
        while not containers.sizes[1:]:
            await asyncio.sleep(0.001)
        assert containers.sizes == [(121, 41), (120, 40)]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)


class Breaking(Containers):
    """A log whose server goes away three times; each time some lines have the same time."""

    async def logs(self, request: ps.LogsRequest) -> AsyncGenerator[ps.LogsResponse, None]:
        self.asked.append(request)
        first = request.since.seconds
        for number in range(first, first + 4):
            lines = [
                ps.LogLine(time=Timestamp(seconds=number), text=b"%d %s\n" % (number, which))
                for which in (b"a", b"b")
            ]
            if number == first + 3 and len(self.asked) < 4:
                yield ps.LogsResponse(lines=lines[:1])
                raise ApiError(Reason.UNAVAILABLE, "the server is shutting down")
            yield ps.LogsResponse(lines=lines)


async def test_a_followed_log_goes_on_when_the_server_is_back(
    run: Run, containers: Containers
) -> None:
    run.streams = made = Breaking()
    code, out, err = await run("logs -f a -c main --tail=100")
    assert (code, err) == (0, "")
    assert out == "".join(f"{n} {which}\n" for n in range(13) for which in "ab")
    assert made.asked[0].tail_lines == 100 and not made.asked[1].HasField("tail_lines")
    # Not followed, it is an error.
    run.streams = Breaking()
    assert (await run("logs a -c main"))[0] == 1


async def test_a_container_that_starts_again_is_followed_again(
    run: Run, containers: Containers
) -> None:
    containers.ended.set()
    session = run.session()
    following = asyncio.ensure_future(root.call(["logs", "-f", "-l", "app=web"], session))

    async def asked(count: int) -> None:
        while len(containers.asked) < count:
            await asyncio.sleep(0.001)

    await asked(2)
    assert {r.tail_lines for r in containers.asked} == {10}
    again = {**STARTED["containerStatuses"][0], "restartCount": 1}  # type: ignore[dict-item]
    await run.status("Pod", "a", {"phase": "Running", "containerStatuses": [again]})
    await asked(3)
    # What began while we looked is shown from its beginning.
    assert not containers.asked[2].HasField("tail_lines")
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


@asynccontextmanager
async def forwarding(run: Run, line: str) -> AsyncIterator[tuple[int, Any, Any]]:
    """The command while it runs, and the port that it listens at."""
    session = run.session()
    task = asyncio.ensure_future(root.call(line.split(), session))
    while "Forwarding from 127.0.0.1:" not in session.stdout.getvalue():  # type: ignore[attr-defined]
        assert not task.done(), (await task, session.stderr.getvalue())  # type: ignore[attr-defined]
        await asyncio.sleep(0.001)
    first = session.stdout.getvalue().split("\n")[0]  # type: ignore[attr-defined]
    yield int(first.split(":")[1].split(" ")[0]), session, task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def ask(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    writer.write_eof()
    try:
        return await reader.read()
    finally:
        writer.close()


async def test_connections_are_forwarded_in_both_directions(
    run: Run, containers: Containers
) -> None:
    async with forwarding(run, "port-forward a :80 :81") as (port, session, task):
        # Many at once, each with an end of its own; one that fails harms no other.
        answers = await asyncio.gather(*(ask(port, b"x" * n) for n in range(1, 100)))
        assert answers == [b"x" * n + b" %d" % n for n in range(1, 100)]
        lines = session.stdout.getvalue().splitlines()
        other = next(line for line in lines if line.endswith("-> 81"))
        with pytest.raises(ConnectionResetError):
            await ask(int(other.split(" ")[2].rpartition(":")[2]), b"x")
        assert "nothing listens on port 81 in pod a (connection refused)" in (
            session.stderr.getvalue()
        )
        assert await ask(port, b"y") == b"y 1"
        assert f"Handling connection for {port}" in session.stdout.getvalue()
        assert containers.asked[0].target.uid
        # The end of a pod that was named is the end.
        await run("delete pod a --grace-period=0 --force")
        assert await task == 1
        assert session.stderr.getvalue().endswith("error: lost connection to pod\n")


async def test_the_next_pod_of_an_owner_takes_over(run: Run, containers: Containers) -> None:
    async with forwarding(run, "port-forward deploy/web :80") as (port, session, _task):
        await run("delete pod a --grace-period=0 --force")
        while "going on with pod b" not in session.stderr.getvalue():
            await asyncio.sleep(0.001)
        assert await ask(port, b"z") == b"z 1"
        assert containers.asked[-1].target.pod == "b"


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("a 80:90:100", 2, "not of the form [LOCAL:]REMOTE"),
        ("a 0", 2, "ports are numbers from 1 to 65535"),
        ("a 70000:80", 2, "ports are numbers from 1 to 65535"),
        ("a x:80", 2, "not of the form"),
        ("a :http", 1, "does not have a named port 'http'; it has: none"),
        ("a 80 --address=there", 2, "neither localhost nor an IP"),
        ("c 80", 1, 'pod "c" not found'),
        ("over 80", 1, "pod is not running. Current status=Succeeded"),
    ],
)
async def test_what_cannot_be_forwarded(
    run: Run, containers: Containers, line: str, code: int, said: str
) -> None:
    await run.apply(POD % "over")
    await run.status("Pod", "over", {"phase": "Succeeded"})
    found, out, err = await run(f"port-forward {line}")
    assert (found, out) == (code, "") and said in err


async def test_a_port_that_is_taken(run: Run, containers: Containers) -> None:
    async with forwarding(run, "port-forward a :80") as (port, _session, _task):
        code, _, err = await run(f"port-forward a {port}:80")
        assert code == 1 and f"unable to listen on port {port}" in err


async def test_debug(run: Run, containers: Containers) -> None:
    async def debug(line: str, state: dict[str, Any] | None, **more: Any) -> tuple[int, str, str]:
        """The command, and what the kubelet makes of the container."""
        before = len(await added())
        running = asyncio.ensure_future(run(f"debug {line}", **more))
        while state is not None and len(await added()) == before:
            await asyncio.sleep(0.001)
        if state is not None:
            told = [{"name": one["name"], "state": state} for one in await added()]
            await run.status("Pod", "a", {**STARTED, "ephemeralContainerStatuses": told})
        return await running

    async def added() -> list[dict[str, Any]]:
        _, out, _ = await run("get pod a -o json")
        found: list[dict[str, Any]] = json.loads(out)["spec"].get("ephemeralContainers", [])
        return found

    code, out, err = await debug("a --image=box --target=side --env A=b -- ls /", None)
    assert (code, out) == (0, "")
    name = (await added())[0]["name"]
    assert err == (f"Targeting container 'side'.\nDefaulting debug container name to {name}.\n")
    one = (await added())[0]
    assert (one["image"], one["targetContainerName"]) == ("box", "side")
    assert one["command"] == ["ls", "/"]
    assert one["env"] == [{"name": "A", "value": "b"}]
    assert not containers.asked

    running = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    assert await debug("a -i -q -c two --image=box", running, stdin=b"x") == (3, "here\n", "x")
    asked = containers.asked[-1]
    assert (asked.target.container, asked.stdin, asked.tty) == ("two", True, False)

    ended = {"terminated": {"exitCode": 5}}
    code, out, err = await debug("a --attach -q -c three --image=box", ended)
    assert (code, out, err) == (5, "a three 1\na three 2\n", "")
    assert [one["name"] for one in await added()] == [name, "two", "three"]

    code, _, err = await run("debug a --image=box -c main")
    assert code == 1 and "names must be unique" in err
    code, _, err = await run("debug a --image=box -t")
    assert code == 2 and "-t needs -i" in err
