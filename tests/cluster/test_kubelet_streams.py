"""People's streams to real containers: the kubelet's end, a broker, and a containerd of its own."""

import asyncio
import os
import re
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from kcore_api.kcore.api.v1 import node_pb2
from kcore_api.kcore.api.v1 import pod_stream_pb2 as ps
from kcore_api.runtime.v1 import api_pb2 as pb

from kcore.apiserver.broker import Broker
from kcore.boot import containerd, images
from kcore.chance import Chance
from kcore.clock import SystemClock
from kcore.kubelet import cri, node, rotate, stream
from kcore.network import cni
from kcore.tasks import Tasks
from kcore.wire.errors import ApiError, Reason
from tests.kubelet.test_stream import Link

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("containerd") is None, reason="needs containerd"),
]

CLOCK = SystemClock()
HOME = Path("/tmp/kcore-streams-test")
MINE = containerd.Containerd(
    root=HOME / "containerd",
    state=HOME / "run",
    cni_config=HOME / "cni/net.d",
    program=os.environ.get("KCORE_TEST_CONTAINERD", "containerd"),
)
NETWORK = cni.PodNetwork("10.214.7.0/24", "10.214.0.0/16", HOME / "cni/state", bridge="kcstream0")
TARGET = ps.Target(namespace="test", pod="p", container="main", uid="u")


async def begin() -> None:
    await cni.up(NETWORK, MINE.cni_config)
    await containerd.start(MINE, CLOCK)
    for tar in (images.pause_image(), images.busybox_image()):
        await images.load(tar, MINE.socket)
    async with cri.Cri(MINE.endpoint) as runtime:
        for name in (images.PAUSE, images.BUSYBOX):
            while await runtime.image_status(pb.ImageSpec(image=name)) is None:
                await CLOCK.sleep(0.01)


async def end() -> None:
    await containerd.stop(MINE, CLOCK)
    await cni.down(NETWORK, MINE.cni_config)
    shutil.rmtree(HOME)


@pytest.fixture(scope="module", autouse=True)
def machine() -> Iterator[None]:
    """One containerd for this file."""
    asyncio.run(begin())
    yield
    asyncio.run(end())


@dataclass
class Pod:
    """A container that runs, and streams to it."""

    runtime: cri.Cri
    broker: Broker
    sandbox: str = ""
    container: str = ""
    logs: Path = field(default_factory=Path)
    code: int | None = None

    def resolve(self, target: ps.Target, previous: bool) -> stream.Found:
        if target.container != "main":
            said = f'container "{target.container}" in pod "p" is waiting to start: PodInitializing'
            raise ApiError(Reason.REFUSED, said)
        return stream.Found(
            self.container,
            self.sandbox,
            self.logs / "main" / "0.log",
            lambda: self.code is not None,
        )

    async def watch(self) -> None:
        """Learns how the container ended, as the kubelet's relist does."""
        while self.code is None:
            status = await self.runtime.container_status(self.container)
            if status.state == pb.CONTAINER_EXITED:
                self.code = status.exit_code
            await CLOCK.sleep(0.05)

    def call(
        self, wanted: ps.StreamOpen, frames: AsyncIterator[node_pb2.SessionResponse] | None = None
    ) -> AsyncGenerator[node_pb2.SessionRequest, None]:
        return self.broker.call("n1", node_pb2.OpenSession(open=wanted), frames or silence())

    async def exec(
        self, *command: str, stdin: bytes | None = None, tty: bool = False
    ) -> tuple[bytes, bytes, int]:
        """What a command printed, and its exit code; `stdin` is closed at its end."""

        async def frames() -> AsyncGenerator[node_pb2.SessionResponse, None]:
            for at in range(0, len(stdin or b""), 32_768):
                part = (stdin or b"")[at : at + 32_768]
                yield node_pb2.SessionResponse(exec=ps.ExecRequest(stdin=part))
            yield node_pb2.SessionResponse(exec=ps.ExecRequest(stdin_closed=True))

        opening = ps.ExecOpen(target=TARGET, command=command, stdin=stdin is not None, tty=tty)
        out, err, code = [], [], None
        async for frame in self.call(ps.StreamOpen(exec=opening), frames()):
            assert code is None
            out.append(frame.exec.stdout)
            err.append(frame.exec.stderr)
            if frame.exec.WhichOneof("frame") == "exit_code":
                code = frame.exec.exit_code
        assert code is not None
        return b"".join(out), b"".join(err), code

    async def log(self, **wanted: object) -> list[bytes]:
        """The lines of a log."""
        request = ps.LogsRequest(target=TARGET, **wanted)  # type: ignore[arg-type]
        found = []
        async for frame in self.call(ps.StreamOpen(logs=request)):
            found += [line.text for line in frame.logs.lines]
        return found


async def silence() -> AsyncGenerator[node_pb2.SessionResponse, None]:
    await asyncio.Event().wait()
    yield node_pb2.SessionResponse()


@asynccontextmanager
async def running(*command: str, stdin: bool = False) -> AsyncIterator[Pod]:
    """A pod with one container, behind a kubelet's link."""
    name = os.urandom(4).hex()
    logs = HOME / "logs" / name
    (logs / "main").mkdir(parents=True)
    config = pb.PodSandboxConfig(
        metadata=pb.PodSandboxMetadata(name=name, uid=name, namespace="test"),
        log_directory=str(logs),
        linux=pb.LinuxPodSandboxConfig(cgroup_parent=f"/kcore-streams-{name}"),
    )
    async with cri.Cri(MINE.endpoint) as runtime, asyncio.timeout(60), Tasks() as tasks:
        here = Pod(runtime, Broker(tasks, Chance(1)), logs=logs)
        here.sandbox = await runtime.run_pod_sandbox(config)
        here.container = await runtime.create_container(
            here.sandbox,
            pb.ContainerConfig(
                metadata=pb.ContainerMetadata(name="main"),
                image=pb.ImageSpec(image=images.BUSYBOX),
                command=command or ("sleep", "1000"),
                stdin=stdin,
                log_path="main/0.log",
                linux=pb.LinuxContainerConfig(
                    security_context=pb.LinuxContainerSecurityContext(
                        namespace_options=pb.NamespaceOption(pid=pb.CONTAINER)
                    )
                ),
            ),
            config,
        )
        await runtime.start_container(here.container)
        tasks.start(here.watch())
        tasks.start(stream.run(Link(here.broker), "n1", runtime, here.resolve, CLOCK, Chance(2)))
        while not here.broker.nodes:
            await CLOCK.sleep(0.001)
        try:
            yield here
            while here.broker.streams:
                await CLOCK.sleep(0.001)
        finally:
            tasks.cancel()
            await runtime.stop_pod_sandbox(here.sandbox)
            await runtime.remove_pod_sandbox(here.sandbox)
            for path in Path("/sys/fs/cgroup").glob(f"*/kcore-streams-{name}"):
                path.rmdir()


async def test_the_runtime_says_what_it_is() -> None:
    async with cri.Cri(MINE.endpoint) as runtime:
        said = await node.ask(runtime)
    assert re.fullmatch(r"containerd://v?[0-9]+\.[0-9]+\.[0-9]+\S*", said.version), said
    assert said.trouble == ""
    async with cri.Cri(f"unix://{HOME}/nobody.sock") as runtime:
        said = await node.ask(runtime)
    assert said.version == "" and said.trouble.startswith("container runtime is down: ")


async def test_three_megabytes_through_cat() -> None:
    sent = os.urandom(3_000_000)
    async with running() as pod:
        assert await pod.exec("cat", stdin=sent) == (sent, b"", 0)


async def test_outputs_apart_and_exit_codes() -> None:
    async with running() as pod:
        command = ("sh", "-c", "echo out; echo err >&2; exit 42")
        assert await pod.exec(*command) == (b"out\n", b"err\n", 42)
        assert (await pod.exec("sh", "-c", "kill -9 $$"))[2] == 137
        assert await pod.exec("cat", stdin=b"") == (b"", b"", 0)
        out, _, code = await pod.exec("sh", "-c", "tty; exit 3", tty=True)
        assert out.startswith(b"/dev/") and out.endswith(b"\r\n") and code == 3


async def test_a_process_that_leaves_its_input_unread() -> None:
    async with running() as pod:
        out, _, code = await pod.exec("sh", "-c", "head -c 3; exit 9", stdin=b"abcdefgh")
        assert (out, code) == (b"abc", 9)
        # Much of it: containerd may never say how it ended, and then that is said.
        for size in (1_000_000, 20_000_000):
            try:
                out, _, code = await pod.exec("sh", "-c", "head -c 3; exit 9", stdin=bytes(size))
                assert (out, code) == (bytes(3), 9)
            except ApiError as error:
                assert "without its input" in error.message


async def test_what_cannot_be_run_says_why() -> None:
    async with running() as pod:
        with pytest.raises(ApiError, match="no-such-program") as caught:
            await pod.exec("no-such-program")
        assert caught.value.reason is Reason.REFUSED
        target = ps.Target(namespace="test", pod="p", container="other", uid="u")
        wanted = ps.StreamOpen(exec=ps.ExecOpen(target=target, command=["true"]))
        with pytest.raises(ApiError, match="is waiting to start: PodInitializing"):
            _ = [one async for one in pod.call(wanted)]


async def test_callers_that_go_leave_nothing_behind() -> None:
    async with running() as pod:
        await pod.exec("true")
        before = len(os.listdir("/proc/self/fd"))
        opening = ps.ExecOpen(target=TARGET, command=["sh", "-c", "echo x; sleep 1000"])
        for _ in range(20):
            async with aclosing(pod.call(ps.StreamOpen(exec=opening))) as frames:
                assert (await anext(frames)).exec.stdout == b"x\n"
        while len(os.listdir("/proc/self/fd")) > before:
            await CLOCK.sleep(0.01)


async def test_a_log_is_followed_to_the_containers_end() -> None:
    script = "for i in 1 2 3 4 5; do echo line $i; sleep 0.1; done; echo done >&2; exit 7"
    async with running("sh", "-c", script) as pod:
        lines = await pod.log(follow=True)
        assert lines == [*(f"line {i}\n".encode() for i in range(1, 6)), b"done\n"]
        assert pod.code == 7
        assert await pod.log(tail_lines=2) == [b"line 5\n", b"done\n"]
        assert await pod.log(limit_bytes=9) == [b"line 1\n", b"li"]


async def test_long_lines_are_whole_again() -> None:
    script = "head -c 50000 /dev/zero | tr '\\0' x; echo; echo short"
    async with running("sh", "-c", script) as pod:
        assert await pod.log(follow=True) == [b"x" * 50_000 + b"\n", b"short\n"]


async def test_following_goes_on_over_rotation() -> None:
    script = "i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done"
    async with running("sh", "-c", f"sleep 0.3; {script}") as pod:
        rotation = rotate.Rotation(pod.runtime, most_bytes=50_000, most_files=1000)
        path = pod.logs / "main" / "0.log"

        async def rotating() -> int:
            while pod.code is None:
                await rotation.look([rotate.Written(pod.container, path)], CLOCK.monotonic())
                await CLOCK.sleep(0.02)
            return len(os.listdir(path.parent))

        lines, files = await asyncio.gather(pod.log(follow=True), rotating())
        assert lines == [b"%d\n" % i for i in range(20_000)]
        assert files > 1
        assert await pod.log() == lines
        assert await pod.log(tail_lines=5000) == lines[-5000:]


async def test_attach_reaches_the_first_process_and_tells_its_end() -> None:
    async with running("sh", "-c", "read x; echo got $x; exit 6", stdin=True) as pod:

        async def frames() -> AsyncGenerator[node_pb2.SessionResponse, None]:
            yield node_pb2.SessionResponse(attach=ps.AttachRequest(stdin=b"hello\n"))

        wanted = ps.StreamOpen(attach=ps.AttachOpen(target=TARGET, stdin=True))
        heard = [frame.attach async for frame in pod.call(wanted, frames())]
        assert b"".join(one.stdout for one in heard) == b"got hello\n"
        assert heard[-1].exit_code == 6


async def test_a_port_of_a_pod() -> None:
    async with running("nc", "-ll", "-p", "8080", "-e", "cat") as pod:
        sent = os.urandom(500_000)

        async def talk(port: int) -> Sequence[ps.PortForwardResponse]:
            async def frames() -> AsyncGenerator[node_pb2.SessionResponse, None]:
                for at in range(0, len(sent), 32_768):
                    data = ps.PortForwardRequest(data=sent[at : at + 32_768])
                    yield node_pb2.SessionResponse(port_forward=data)
                closed = ps.PortForwardRequest(closed=True)
                yield node_pb2.SessionResponse(port_forward=closed)

            opening = ps.PortForwardOpen(target=TARGET, port=port)
            wanted = ps.StreamOpen(port_forward=opening)
            return [frame.port_forward async for frame in pod.call(wanted, frames())]

        while True:
            try:
                heard = await talk(8080)
                break
            except ApiError as error:
                # It does not listen yet.
                assert "refused" in error.message
                await CLOCK.sleep(0.05)
        assert b"".join(one.data for one in heard) == sent and heard[-1].closed
        with pytest.raises(ApiError, match="refused"):
            await talk(9)
