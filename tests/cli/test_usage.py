"""The command line itself: help, typing errors, exit codes, no colour where no terminal is."""

import re

import click
import pytest

from kcore.apiserver.session import Session
from kcore.cli import root
from kcore.wire.errors import ApiError, Reason
from tests.cli.cluster import Run

COMMANDS = [name for section in root.LAZY.values() for name in section]


def test_help_lists_every_command_by_section() -> None:
    text = root.root.get_help(click.Context(root.root))
    for section, commands in root.LAZY.items():
        assert f"{section}:\n" in text
        for name, (_, words) in commands.items():
            assert re.search(rf"^  {name} +{words}$", text, re.MULTILINE)


@pytest.mark.parametrize("name", COMMANDS)
async def test_every_command_has_help(run: Run, name: str) -> None:
    code, out, err = await run(f"{name} --help")
    assert (code, err) == (0, "")
    assert out.startswith("Usage: kcore")


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("gte pods", 2, 'error: there is no command "gte", did you mean "get"?\n'),
        ("get pods --wacth", 2, "error: No such option '--wacth'"),
        ("--namespce x get pods", 2, "error: No such option '--namespce'"),
        ("rollout stauts x", 2, "error: No such command 'stauts'"),
        ("logs a --tail=x", 2, "error: Invalid value for '--tail'"),
    ],
)
async def test_typing_errors(run: Run, line: str, code: int, said: str) -> None:
    found = await run(line)
    assert found[:2] == (code, "")
    assert found[2].startswith(said)
    assert "help: kcore" in found[2]


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (Reason.UNAUTHENTICATED, 4),
        (Reason.FORBIDDEN, 4),
        (Reason.UNAVAILABLE, 1),
        (Reason.INVALID, 1),
    ],
)
async def test_the_servers_errors_have_codes(
    run: Run, reason: Reason, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(self: object, request: object) -> None:
        raise ApiError(reason, "it may not be")

    monkeypatch.setattr(Session, "list", refuse)
    assert await run("get pods") == (code, "", "error: it may not be\n")


async def test_without_a_cluster_it_says_what_to_do(run: Run) -> None:
    session = run.session()
    session.given_api = None
    session.environ = {"HOME": "/nothing"}
    assert await root.call(["--kubeconfig=/nothing/config", "get", "pods"], session) == 1
    assert session.stderr.getvalue() == "error: /nothing/config: no such file\n"  # type: ignore[attr-defined]


async def test_nothing_is_coloured_off_a_terminal(run: Run) -> None:
    """Every command, run with stdout piped: no ESC byte."""
    await run.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: b}\n")
    for line in (
        "get all,cm -A", "get cm c -o yaml", "describe cm c", "events -A", "api-resources -o wide",
        "explain pod.spec", "version", "config view", "label cm c a=b", "annotate cm c a=b",
        "create configmap d", "delete cm d", "wait cm/c --for=create", "logs nothing",
        "exec nothing -- true", "scale deploy/x --replicas=1", "rollout status deploy/x",
        "apply -f /nothing", "up --help", "down --help",
    ):  # fmt: skip
        _, out, err = await run(line)
        assert "\x1b" not in out + err, line


async def test_about(run: Run) -> None:
    code, out, _ = await run("api-resources --api-group=coordination.k8s.io")
    assert (code, out) == (
        0,
        "NAME     SHORTNAMES   APIVERSION               NAMESPACED   KIND\n"
        "leases                coordination.k8s.io/v1   true         Lease\n",
    )
    assert "pods\n" in (await run("api-resources -o name"))[1]
    code, out, _ = await run("explain deploy.spec.replicas")
    assert out == (
        "KIND:       Deployment\nVERSION:    apps/v1\nFIELD:      spec.replicas <integer>\n\n"
        "DESCRIPTION:\n    How many pods; 0: none.\n"
        "    At least: 0\n    Default: 1\n"
    )
    code, out, _ = await run("explain pod.spec.volumes")
    assert "FIELD:      spec.volumes <[]Volume>\n" in out
    # Inline fields stand where people write them.
    assert re.search(r"^  configMap <ConfigMapVolumeSource>", out, re.MULTILINE)
    assert (await run("explain pod --recursive"))[0] == 0
    _, out, _ = await run("explain pool.spec")
    assert "\nRULES:\n    either cidr, or first and last\n    last: must not be less" in out
    _, out, _ = await run("explain pod.spec.restartPolicy")
    assert "    One of: Always, OnFailure, Never\n" in out
    assert await run("explain pod.spec.containerz") == (
        1,
        "",
        'error: Pod.spec has no field "containerz", did you mean "containers"?\n',
    )
    code, out, _ = await run("version -o json")
    assert code == 0
    assert '"clusterId"' in out


async def test_config(run: Run) -> None:
    file = run.directory / "config"
    run.environ["KUBECONFIG"] = str(file)
    assert await run("config current-context") == (1, "", "error: there is no current context\n")
    file.write_text(
        "current-context: a\ncontexts:\n- name: a\n  context: {cluster: c, user: u}\n"
        "- name: b\n  context: {cluster: c, user: u, namespace: n}\n"
        "clusters: [{name: c, cluster: {server: x}}]\nusers: [{name: u, user: {token: secret}}]\n"
    )
    assert (await run("config use-context b"))[1] == 'Switched to context "b".\n'
    assert (await run("config current-context"))[1] == "b\n"
    assert (await run("config set-context --current -n shop"))[0] == 0
    assert (await run("config get-contexts"))[1] == (
        "CURRENT   NAME   CLUSTER   AUTHINFO   NAMESPACE\n"
        "          a      c         u\n"
        "*         b      c         u          shop\n"
    )
    _, out, _ = await run("config view")
    assert "REDACTED" in out and "secret" not in out
    assert "secret" in (await run("config view --raw"))[1]
    assert "name: a" not in (await run("config view --minify"))[1]
    assert await run("config use-context c") == (1, "", 'error: there is no context "c"\n')
