"""What is promised of every command: walked over the whole tree of commands.

Each has help with an example; each example can be run, and those that need no node are run, on a
kernel in this process; no ESC byte is written where no terminal is; an unknown flag is exit code 2.
"""

import asyncio
import json
import shlex
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import click
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from kcore.cli import root
from tests.cli.cluster import Run

# Their examples need a node, or would change this machine: they are parsed only.
PARSED = {
    "attach", "auth", "check", "completion", "cp", "create schema", "create token", "debug", "down",
    "exec", "init", "join", "lab", "logs", "plugin", "port-forward", "push", "reset", "store",
    "token", "trace", "up",
}  # fmt: skip

OBJECTS = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: nginx, image: "nginx:1.27"}]}
---
apiVersion: apps/v1
kind: ReplicaSet
metadata:
  name: web-1
  labels: {app: web, pod-template-hash: "1"}
  annotations: {deployment.kubernetes.io/revision: "1"}
spec:
  replicas: 1
  selector: {matchLabels: {app: web, pod-template-hash: "1"}}
  template:
    metadata: {labels: {app: web, pod-template-hash: "1"}}
    spec: {containers: [{name: nginx, image: "nginx:1.26"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-0, labels: {app: web}}
spec: {containers: [{name: nginx, image: "nginx:1.27"}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {a: x, old: y}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
"""
POOLS = """\
apiVersion: kcore.dev/v1
kind: Pool
metadata: {name: service-ips}
spec: {cidr: 10.96.0.0/24}
---
apiVersion: kcore.dev/v1
kind: Pool
metadata: {name: node-ports}
spec: {first: 30000, last: 30100}
---
apiVersion: kcore.dev/v1
kind: Pool
metadata: {name: pod-cidrs}
spec: {cidr: 10.244.0.0/16, blockSize: 24}
---
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {topology.kubernetes.io/zone: a}}
"""
# What an example needs to have been done before.
BEFORE = {
    "create job": "create cronjob nightly --image=busybox --schedule=@daily",
    "rollout resume": "rollout pause deploy/web",
    "taint": "taint nodes n1 dedicated=db:NoSchedule --overwrite",
}
POD = (
    "apiVersion: v1\nkind: Pod\nmetadata: {name: new}\nspec: {containers: [{name: a, image: b}]}\n"
)


def _key_pair(certificate: Path, key: Path) -> None:
    made = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "web")])
    start = datetime(2026, 1, 1)
    signed = (
        x509.CertificateBuilder(name, name, made.public_key(), 1, start, start + timedelta(1))
    ).sign(made, hashes.SHA256())
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        made.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by its words."""

    def below(group: click.Group, words: str) -> Iterator[tuple[str, click.Command]]:
        context = click.Context(group)
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            path = f"{words} {name}".strip()
            if isinstance(command, click.Group):
                yield from below(command, path)
            if not isinstance(command, click.Group) or command.invoke_without_command:
                yield path, command

    yield from below(root.root, "")


COMMANDS = dict(commands())


def examples(words: str) -> list[str]:
    """The command lines in a command's help."""
    help_text = COMMANDS[words].help or ""
    lines = [line.strip() for line in help_text.splitlines()]
    return [line for line in lines if f"kcore {words.split()[0]}" in line]


EXAMPLES = [(words, line) for words in COMMANDS for line in examples(words)]


def argv(line: str) -> tuple[list[str], dict[str, str], bytes]:
    """A line's arguments, its environment, and what is piped into it, as a shell would have it."""
    stdin = b""
    _before, pipe, after = line.partition(" | kcore ")
    if pipe:
        stdin, line = OBJECTS.encode(), f"kcore {after}"
    line = line.removeprefix("source <(").removesuffix(")")
    words = shlex.split(line, comments=True)
    at = words.index("kcore")
    environ = dict(word.split("=", 1) for word in words[:at])
    end = next((i for i, word in enumerate(words) if word in (">", "|", "<")), len(words))
    return words[at + 1 : end], environ, stdin


def parse(arguments: list[str]) -> None:
    """Parses a command line to its end, without running it."""
    context = root.root.make_context("kcore", list(arguments))
    while isinstance(context.command, click.Group):
        rest = [*context._protected_args, *context.args]
        if not rest and context.command.invoke_without_command:
            return
        _, command, rest = context.command.resolve_command(context, rest)
        assert command is not None
        context = command.make_context(command.name, rest, parent=context)


@pytest.fixture
async def ready(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """What the examples speak of: objects, files, contexts."""
    monkeypatch.chdir(tmp_path)
    await run.apply(POOLS)
    await run.apply(OBJECTS)
    _, uid, _ = await run("get deploy web -o jsonpath={.metadata.uid}")
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": uid}
    patch = {"metadata": {"ownerReferences": [{**owner, "controller": True}]}}
    older = OBJECTS.split("---\n")[1]
    newer = older.replace("web-1", "web-2").replace('"1"', '"2"').replace("1.26", "1.27")
    await run.apply(newer)
    for name in ("web-1", "web-2"):
        assert (await run(f"patch rs {name} -p", json.dumps(patch)))[0] == 0
    run.clock.seconds += 600
    await run.apply(OBJECTS.replace("nginx:1.27", "nginx:1.28"))
    status = {"observedGeneration": 9, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1}
    available = {"type": "Available", "status": "True"}
    await run.status(
        "Deployment", "web", {**status, "availableReplicas": 1, "conditions": [available]}
    )
    del status["updatedReplicas"]
    await run.status("ReplicaSet", "web-1", {**status, "availableReplicas": 1})
    await run.status("Pod", "web-0", {"phase": "Running", "podIP": "10.0.0.7"})
    (tmp_path / "manifests").mkdir()
    for name in ("web.yaml", "manifests/all.yaml"):
        (tmp_path / name).write_text(OBJECTS)
    (tmp_path / "pod.yaml").write_text(POD)
    _key_pair(tmp_path / "web.crt", tmp_path / "web.key")
    (tmp_path / "config").write_text(
        "current-context: one\ncontexts:\n- {name: one, context: {cluster: c, user: u}}\n"
        "- {name: production, context: {cluster: c, user: u}}\n"
        "clusters: [{name: c, cluster: {server: 'https://c'}}]\nusers: [{name: u, user: {}}]\n"
    )
    run.environ["KUBECONFIG"] = str(tmp_path / "config")
    # There is somewhere to go back to.
    for line in ("ctx production", "ctx one", "ns shop", "ns default"):
        assert (await run(line))[0] == 0
    return run


@pytest.mark.parametrize("words", COMMANDS)
async def test_it_has_help_with_an_example(run: Run, words: str) -> None:
    code, out, err = await run(f"{words} --help")
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: kcore {words}")
    assert examples(words), f"kcore {words} has no example in its help"
    assert (COMMANDS[words].get_short_help_str() or "").rstrip(".")


@pytest.mark.parametrize("words", COMMANDS)
async def test_an_unknown_flag_is_wrong_usage(run: Run, words: str) -> None:
    code, out, err = await run(f"{words} --no-such-flag")
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert "\x1b" not in err


@pytest.mark.parametrize(("words", "line"), EXAMPLES, ids=[line for _, line in EXAMPLES])
async def test_an_example(ready: Run, words: str, line: str) -> None:
    arguments, environ, stdin = argv(line)
    parse(arguments)
    if words in PARSED or words.split()[0] in PARSED:
        return
    # What follows changes for ever is only begun.
    arguments = [a for a in arguments if a not in ("-w", "--watch")]
    if words in BEFORE:
        assert (await ready(BEFORE[words]))[0] == 0
    ready.environ |= {**environ, "EDITOR": "true", "KUBE_EDITOR": "true"}
    async with asyncio.timeout(20):
        code, out, err = await ready("", *arguments, stdin=stdin)
    assert code == (1 if words == "diff" else 0), err
    assert out or err
    assert "\x1b" not in out + err


async def test_nothing_is_coloured_whatever_a_terminal_would_get(ready: Run) -> None:
    """Nor is anything on a terminal that does not want it."""
    ready.environ |= {"TERM": "xterm-256color"}
    for line in ("get all -A", "describe pod web-0", "diff -f web.yaml", "get pods --color=never"):
        _, out, err = await ready(line)
        assert out and "\x1b" not in out + err, line
