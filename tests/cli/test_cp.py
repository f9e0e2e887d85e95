"""`kcore cp` against commands that run here, as they would in a container."""

import asyncio
import os
import shutil
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from kcore_api.kcore.api.v1 import pod_stream_pb2 as ps

from kcore.cli import cp
from kcore.cli.cp import Spec
from kcore.wire.errors import ApiError, Reason
from tests.cli.cluster import Run
from tests.cli.test_containers import DEFAULTED, POD, STARTED, Containers


class Machine(Containers):
    """Runs commands on this machine, in a directory."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory = directory
        # After so many bytes an output breaks off; a program that is missing.
        self.breaks: list[int] = []
        self.missing = ""

    async def exec(
        self, requests: AsyncIterator[ps.ExecRequest]
    ) -> AsyncGenerator[ps.ExecResponse, None]:
        opening = (await anext(requests)).open
        self.asked.append(opening)
        if opening.command[0] == self.missing:
            said = f'exec: "{self.missing}": executable file not found in $PATH'
            raise ApiError(Reason.REFUSED, said)
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *opening.command, cwd=self.directory, stdin=pipe, stdout=pipe, stderr=pipe
        )
        assert process.stdin and process.stdout and process.stderr
        if opening.stdin:
            async for request in requests:
                if request.stdin_closed:
                    break
                process.stdin.write(request.stdin)
                await process.stdin.drain()
        process.stdin.close()
        breaks = self.breaks.pop(0) if self.breaks and opening.command[0] != "test" else None
        took = 0
        while data := await process.stdout.read(10_000):
            if breaks is not None and took + len(data) > breaks:
                process.kill()
                await process.communicate()
                raise ApiError(Reason.UNAVAILABLE, "the kubelet broke the stream off")
            took += len(data)
            yield ps.ExecResponse(stdout=data)
        error = await process.stderr.read()
        if error:
            yield ps.ExecResponse(stderr=error)
        yield ps.ExecResponse(exit_code=await process.wait())


@pytest.fixture
async def machine(run: Run, tmp_path: Path) -> Machine:
    there = tmp_path / "there"
    there.mkdir()
    made = Machine(there)
    run.streams = made
    await run.apply(POD % "a")
    await run.status("Pod", "a", STARTED)
    return made


def tree(path: Path) -> dict[str, Any]:
    """All that is there, by name."""
    return {
        str(one.relative_to(path)): os.readlink(one)
        if one.is_symlink()
        else (one.stat().st_mode, one.read_bytes())
        if one.is_file()
        else one.stat().st_mode
        for one in path.rglob("*")
    }


def plant(path: Path) -> None:
    (path / "sub" / "deep").mkdir(parents=True)
    (path / "sub" / "big").write_bytes(os.urandom(200_000))
    (path / "-dash").write_bytes(b"dash")
    (path / "run").write_bytes(b"#!")
    (path / "run").chmod(0o750)
    (path / "way").symlink_to("sub/big")


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs tar")
async def test_trees_go_out_and_in(run: Run, machine: Machine, tmp_path: Path) -> None:
    plant(machine.directory / "tree")
    want = tree(machine.directory / "tree")
    out = tmp_path / "out"
    assert await run(f"cp a:tree {out}") == (0, "", DEFAULTED)
    assert tree(out) == want
    # Again, into what is there: the content of a directory goes into the target.
    assert (await run(f"cp a:./tree/ {out} -c main"))[0] == 0
    assert tree(out) == want
    # Inwards a directory that is there gets it as one of its own.
    (machine.directory / "in").mkdir()
    assert await run(f"cp {out} a:in -c main") == (0, "", "")
    assert tree(machine.directory / "in" / "out") == want
    assert await run(f"cp {out} default/a:new/ -c side --no-preserve") == (0, "", "")
    assert tree(machine.directory / "new").keys() == want.keys()
    assert machine.asked[-1].target.container == "side"
    assert list(machine.asked[-1].command) == [
        "tar", "--no-same-permissions", "--no-same-owner", "-xmf", "-", "-C", ".",
    ]  # fmt: skip


async def test_single_files(run: Run, machine: Machine, tmp_path: Path) -> None:
    (machine.directory / "f").write_bytes(b"one")
    here = tmp_path / "here"
    here.mkdir()
    assert (await run(f"cp -c main a:{machine.directory}/f {here}/g"))[0] == 0
    assert (await run(f"cp -c main a:f {here}"))[0] == 0
    assert [(here / name).read_bytes() for name in ("f", "g")] == [b"one", b"one"]
    (here / "g").write_bytes(b"two")
    (here / "l").symlink_to("g")
    assert (await run(f"cp -c main {here}/l a:f"))[0] == 0
    assert (machine.directory / "f").read_bytes() == b"two"
    assert (await run(f"cp -c main {here}/g a:{machine.directory}"))[0] == 0
    assert (machine.directory / "g").read_bytes() == b"two"


async def test_a_copy_that_breaks_off_is_gone_on_with(
    run: Run, machine: Machine, tmp_path: Path
) -> None:
    data = os.urandom(500_000)
    (machine.directory / "f").write_bytes(data)
    machine.breaks = [60_000, 150_000]
    code, _, err = await run(f"cp -c main --retries=2 a:f {tmp_path}/g")
    assert code == 0 and err.count("going on at byte") == 2
    assert (tmp_path / "g").read_bytes() == data
    machine.breaks = [60_000, 150_000]
    code, _, err = await run(f"cp -c main --retries=1 a:f {tmp_path}/h")
    assert code == 1 and err.endswith("error: the kubelet broke the stream off\n")
    assert not (tmp_path / "h").exists()


async def test_what_cannot_be_copied(run: Run, machine: Machine, tmp_path: Path) -> None:
    code, _, err = await run(f"cp -c main a:nope {tmp_path}/x")
    assert code == 1 and "nope" in err and err.startswith("error: tar: ")
    code, _, err = await run(f"cp -c main {tmp_path}/nope a:x")
    assert (code, err) == (1, f"error: {tmp_path}/nope doesn't exist in local filesystem\n")
    machine.missing = "tar"
    code, _, err = await run(f"cp -c main a:f {tmp_path}/x")
    assert (code, err) == (1, "error: container main has no `tar`, which cp needs\n")
    for line in ("cp a b", "cp a:b c:d", "cp a: b", "cp a:x ''", "cp x/y/z:b c"):
        assert (await run(line))[0] == 2, line
    assert (await run(f"cp c:f {tmp_path}/x"))[2].startswith('error: pod "c" not found')
    # A hostile container's link is told of, and what lies behind it is not touched.
    machine.missing = ""
    (machine.directory / "tree").mkdir()
    (machine.directory / "tree" / "evil").symlink_to("/etc")
    code, _, err = await run(f"cp -c main a:tree {tmp_path}/got")
    assert code == 0 and "skipping symlink: './tree/evil' -> '/etc'" in err


def test_paths_here_and_there() -> None:
    assert cp.parse("a:b") == Spec("b", "a")
    assert cp.parse("ns/a:/b:c") == Spec("/b:c", "a", "ns")
    assert cp.parse("./a:b") == Spec("./a:b")
    assert cp.parse("/a:b") == Spec("/a:b")
    assert cp.parse("plain") == Spec("plain")
