"""What the shell is offered, by the program itself as shells call it; plugins likewise."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.apiserver.world import NODE, POD, create, node, pod, world
from tests.cli.cluster import Run

Environ = dict[str, str]


async def program(environ: Environ, *arguments: str) -> tuple[int, str, str]:
    """The program, as somebody starts it."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kcore", *arguments, env=environ, stdout=pipe, stderr=pipe
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def offered(environ: Environ, line: str) -> list[str]:
    """The words that bash is offered at the line's end."""
    words = line.split(" ")
    asked = {
        "_KCORE_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    _, out, err = await program(environ | asked)
    assert err == ""
    return [one.partition(",")[2] for one in out.splitlines() if one]


@pytest.fixture
async def environ(tmp_path: Path) -> AsyncIterator[Environ]:
    """A server with a node and two pods, and a kubeconfig that leads to it."""
    (tmp_path / "config").write_text(
        "current-context: here\n"
        "clusters: [{name: c, cluster: {extensions: [{name: kcore.dev/endpoint,"
        f" extension: {{unix: {tmp_path}/kcore.sock}}}}]}}}}]\n"
        "contexts: [{name: here, context: {cluster: c}}, {name: there, context: {cluster: c}}]\n"
    )
    async with world(tmp_path) as there:
        session = there.session()
        await session.commit(create(NODE, node("n1")))
        await session.commit(create(POD, pod("web-0", "n1", "main", "side"), pod("web-1")))
        yield {"PATH": os.environ["PATH"], "KUBECONFIG": str(tmp_path / "config")}


OFFERED = {
    "ex": ["exec", "explain", "expose"],
    "get config": ["configmaps"],
    "get pods w": ["web-0", "web-1"],
    "get pods web-0 w": ["web-1"],
    "delete pod/w": ["pod/web-0", "pod/web-1"],
    "logs web": ["web-0", "web-1"],
    "logs web-0 -c ": ["main", "side"],
    "exec web-1 --container m": ["main"],
    "get pods -n de": ["default"],
    "-n de": ["default"],
    "get pods -n nothing w": [],
    "--context t": ["there"],
    "ctx ": ["here", "there"],
    "ns d": ["default"],
    "cp web-0": ["web-0:"],
    "rollout re": ["restart", "resume"],
}
# All in one process, since a process takes a second to begin.
ASK = """
import json, sys
from click.shell_completion import ShellComplete
from kcore.cli import complete, root
complete.attach(root.root)
# What is late is left out; how fast this machine is, is not the question.
complete.DEADLINE_SECONDS = 20.0
for line in json.loads(sys.argv[1]):
    *words, last = line.split(" ")
    found = ShellComplete(root.root, {}, "kcore", "_KCORE_COMPLETE").get_completions(words, last)
    print(json.dumps([one.value for one in found]))
"""


async def test_names_come_from_the_server(environ: Environ) -> None:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ASK, json.dumps(list(OFFERED)), env=environ, stdout=pipe, stderr=pipe
    )
    out, err = await process.communicate()
    assert err == b""
    found = [sorted(json.loads(line)) for line in out.splitlines()]
    assert dict(zip(OFFERED, found, strict=True)) == OFFERED
    # As the shell itself asks.
    assert sorted(await offered(environ, "kcore ex")) == ["exec", "explain", "expose"]


async def test_without_a_server_nothing_is_said(tmp_path: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "KUBECONFIG": str(tmp_path / "none"), "HOME": "/none"}
    assert "configmaps" in await offered(environ, "kcore get con")
    assert await offered(environ, "kcore logs w") == []
    assert await offered(environ, "kcore gte nothing") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_scripts_for_shells(run: Run, shell: str) -> None:
    code, out, err = await run(f"completion {shell}")
    assert (code, err) == (0, "") and f"_KCORE_COMPLETE={shell}_complete" in out
    assert (await run("completion tcsh"))[0] == 2


async def test_programs_on_path_are_commands(run: Run, tmp_path: Path) -> None:
    for name in ("kcore-hello", "kcore-hello-big_world", "kcore-get"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho {name} "$@"\nexit 5\n')
        (tmp_path / name).chmod(0o755)
    (tmp_path / "kcore-plain").touch()
    environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": "/none"}
    assert await program(environ, "hello", "a", "-x") == (5, "kcore-hello a -x\n", "")
    assert await program(environ, "hello", "big-world", "b") == (5, "kcore-hello-big_world b\n", "")
    # What is built in, or no program, is no plugin.
    assert "kcore-get" not in (await program(environ, "get", "--help"))[1]
    code, _, err = await program(environ, "plain")
    assert code == 2 and 'there is no command "plain"' in err
    run.environ["PATH"] = str(tmp_path)
    assert await run("plugin list --name-only") == (
        0, "kcore-get\nkcore-hello\nkcore-hello-big_world\n", ""
    )  # fmt: skip
    run.environ["PATH"] = ""
    assert (await run("plugin list"))[0] == 1


async def test_identity_and_versions_over_the_wire(environ: Environ) -> None:
    code, out, _ = await program(environ, "auth", "whoami")
    assert code == 0 and out.startswith("ATTRIBUTE   VALUE\nUsername ")
    assert "system:masters" in out
    assert (await program(environ, "auth", "can-i", "delete", "pods"))[:2] == (0, "yes\n")
    code, out, err = await program(environ, "version", "-o", "json")
    assert (code, err) == (0, "") and '"serverVersion"' in out
    code, out, _ = await program(environ, "cluster-info")
    assert code == 0 and "0 of 1 nodes are ready\n" in out
