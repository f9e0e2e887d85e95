"""The command line's streams, through an apiserver and a kubelet, to real containers."""

import asyncio
import hashlib
import io
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import pod_pb2

from kcore.chance import Chance
from kcore.cli import root
from kcore.cli.session import Session
from kcore.kubelet import log, rotate, stream
from kcore.tasks import Tasks
from tests.apiserver.world import NODE, POD, create, node, pod, ref, until, world
from tests.cluster.test_kubelet_streams import (  # noqa: F401 - a fixture
    CLOCK,
    Link,
    Pod,
    machine,
    running,
)

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("containerd") is None, reason="needs containerd"),
]

MEGABYTES = int(os.environ.get("KCORE_TEST_MEGABYTES", "3"))


@dataclass
class House:
    """A container that runs, and the command line."""

    container: Pod
    api: Any
    streams: Any

    def session(self, stdin: bytes = b"") -> Session:
        return Session(
            stdout=io.TextIOWrapper(io.BytesIO()),
            stderr=io.StringIO(),
            stdin=io.BytesIO(stdin),
            environ={},
            given_api=self.api,
            given_streams=self.streams,
        )

    async def __call__(self, *words: str, stdin: bytes = b"") -> tuple[int, bytes, str]:
        session = self.session(stdin)
        code = await root.call(words, session)
        return code, session.stdout.buffer.getvalue(), session.stderr.getvalue()  # type: ignore[attr-defined]


@asynccontextmanager
async def house(directory: Path, *command: str, stdin: bool = False) -> AsyncIterator[House]:
    """Pod p with container main, on node n1."""
    async with running(*command, stdin=stdin) as container, world(directory) as there, Tasks() as t:
        session = there.session()
        await session.commit(create(NODE, node("n1")))
        made = pod("p", "n1", "main")
        made.spec.containers[0].stdin = stdin
        await session.commit(create(POD, made))
        stored = pod_pb2.Pod.FromString(
            (await session.get(pb.GetRequest(ref=ref(POD, "p")))).object
        )
        stored.status.phase, stored.status.pod_ip = "Running", "10.214.7.2"
        update = pb.Operation(
            ref=ref(POD, "p"), subresource="status", update=stored.SerializeToString()
        )
        await session.commit(pb.CommitRequest(transactions=[pb.Transaction(operations=[update])]))
        link = Link(there.apiserver.broker)
        t.start(
            stream.run(link, "n1", container.runtime, container.resolve, CLOCK, Chance(3)),
            "kubelet",
        )
        await until(lambda: bool(there.apiserver.broker.nodes))
        yield House(container, session, there.channel)
        await until(lambda: not there.apiserver.broker.streams)
        t.cancel()


def rate(what: str, count: int, seconds: float) -> None:
    print(f"{what}: {count / 1e6 / seconds:.1f} MB/s")


async def test_exec_passes_streams_and_the_exit_code(tmp_path: Path) -> None:
    async with house(tmp_path) as run:
        assert await run("exec", "p", "--", "sh", "-c", "echo a; echo b >&2; exit 9") == (
            9, b"a\n", "b\n",
        )  # fmt: skip
        data = os.urandom(1_000_000)
        assert await run("exec", "-i", "p", "--", "cat", stdin=data) == (0, data, "")
        code, _, err = await run("exec", "p", "-c", "nope", "--", "true")
        assert code == 1 and "container nope is not valid for pod p; it has: main" in err
        code, _, err = await run("exec", "p", "--", "nothing-like-that")
        assert code == 1 and "executable file not found" in err


async def test_attach_joins_the_first_process(tmp_path: Path) -> None:
    async with house(tmp_path, "sh", "-c", "read x; echo got $x; exit 6", stdin=True) as run:
        # The end of standard input would be the end of all, as it is not once-only.
        ours, theirs = os.pipe()
        session = run.session()
        with os.fdopen(theirs, "wb", buffering=0) as typing, os.fdopen(ours, "rb") as session.stdin:
            typing.write(b"hello\n")
            assert await root.call(["attach", "-i", "p"], session) == 6
            # First the writing end: somebody still reads at the other.
            typing.close()
        assert session.stdout.buffer.getvalue() == b"got hello\n"  # type: ignore[attr-defined]


async def test_copies_in_both_directions(tmp_path: Path) -> None:
    here = tmp_path / "here"
    (here / "sub").mkdir(parents=True)
    data = os.urandom(MEGABYTES * 1_000_000)
    (here / "big").write_bytes(data)
    (here / "sub" / "run").write_text("#!")
    (here / "sub" / "run").chmod(0o750)
    (here / "way").symlink_to("sub/run")
    async with house(tmp_path) as run:
        began = CLOCK.monotonic()
        assert await run("cp", str(here), "p:/tmp/there") == (0, b"", "")
        rate("cp into", len(data), CLOCK.monotonic() - began)
        # What is there already takes it in.
        assert (await run("cp", str(here / "sub"), "p:/tmp/there"))[0] == 0
        _, out, _ = await run(
            "exec", "p", "--", "sh", "-c", "cd /tmp/there; ls; stat -c %a sub/run"
        )
        assert out == b"big\nsub\nway\n750\n"
        _, out, _ = await run("exec", "p", "--", "sha256sum", "/tmp/there/big")
        assert out.decode().split()[0] == hashlib.sha256(data).hexdigest()
        began = CLOCK.monotonic()
        assert await run("cp", "p:/tmp/there", str(tmp_path / "back")) == (0, b"", "")
        rate("cp out of", len(data), CLOCK.monotonic() - began)
        assert (tmp_path / "back" / "big").read_bytes() == data
        assert (tmp_path / "back" / "sub" / "run").stat().st_mode & 0o777 == 0o750
        assert os.readlink(tmp_path / "back" / "way") == "sub/run"
        assert await run("cp", "--no-preserve", str(here / "big"), "p:/tmp/name") == (0, b"", "")
        code, _, err = await run("cp", "p:/nothing", str(tmp_path / "x"))
        assert code == 1 and "nothing" in err


async def fetch(port: int, sent: bytes, *, ends: bool = True) -> bytes:
    """What comes back; `ends`: our end is said before that.

    Then containerd gives the other side a second.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def send() -> None:
        writer.write(sent)
        await writer.drain()
        if ends:
            writer.write_eof()

    sending = asyncio.ensure_future(send())
    try:
        return await reader.read()
    finally:
        writer.close()
        await asyncio.gather(sending, return_exceptions=True)


async def test_ports_are_forwarded(tmp_path: Path) -> None:
    size = MEGABYTES * 1_000_000
    serve = f"nc -ll -p 8080 -e cat & exec nc -ll -p 8081 -e head -c {size} /dev/zero"
    async with house(tmp_path, "sh", "-c", serve) as run:
        session = run.session()
        words = ["port-forward", "p", ":8080", ":8081", ":9"]
        forwarding = asyncio.ensure_future(root.call(words, session))

        def ports() -> list[int]:
            text = session.stdout.buffer.getvalue().decode()  # type: ignore[attr-defined]
            lines = [line for line in text.splitlines() if "from 127.0.0.1:" in line]
            return [int(line.split(":")[1].split(" ")[0]) for line in lines]

        await until(lambda: len(ports()) == 3)
        echo, zeros, nobody = ports()
        sent = os.urandom(3_000_000)
        while True:
            try:
                # Its end is said while answers still come.
                assert await fetch(echo, sent) == sent
                assert len(await fetch(zeros, b"", ends=False)) == size
                break
            except ConnectionResetError:
                # It does not listen yet.
                assert "nothing listens on port 808" in session.stderr.getvalue()  # type: ignore[attr-defined]
                await CLOCK.sleep(0.05)
        began = CLOCK.monotonic()
        assert len(await fetch(zeros, b"", ends=False)) == size
        rate("port-forward", size, CLOCK.monotonic() - began)
        with pytest.raises(ConnectionResetError):
            await fetch(nobody, b"")
        assert "nothing listens on port 9 in pod p" in session.stderr.getvalue()  # type: ignore[attr-defined]
        answers = await asyncio.gather(*(fetch(echo, b"%d" % n * 1000) for n in range(50)))
        assert answers == [b"%d" % n * 1000 for n in range(50)]
        forwarding.cancel()
        await asyncio.gather(forwarding, return_exceptions=True)


async def test_a_log_at_full_speed_over_many_rotations(tmp_path: Path) -> None:
    """S89: each numbered line comes once."""
    script = "i=0; while [ $i -lt 300000 ]; do echo $i; i=$((i+1)); done"
    async with house(tmp_path, "sh", "-c", f"sleep 0.5; {script}") as run:
        pod = run.container
        rotation = rotate.Rotation(pod.runtime, most_bytes=100_000, most_files=20)
        path = pod.logs / "main" / "0.log"

        async def rotating() -> int:
            while pod.code is None:
                await rotation.look([rotate.Written(pod.container, path)], CLOCK.monotonic())
                await CLOCK.sleep(0.005)
            return max(log.rotated(directory, path.name))

        directory = os.open(path.parent, os.O_RDONLY)
        try:
            shown, rotations = await asyncio.gather(run("logs", "-f", "p"), rotating())
        finally:
            os.close(directory)
        print(f"{rotations} rotations")
        # How many depends on who is faster, the writer or who rotates; some there must be.
        assert shown[0] == 0 and rotations >= 5
        assert shown[1] == b"".join(b"%d\n" % i for i in range(300_000))
