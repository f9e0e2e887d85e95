"""`kcore config`, `ctx` and `ns`: the kubeconfig changed as scripts and hands do it."""

from pathlib import Path

import pytest

from tests.cli.cluster import NAMESPACE, Run


@pytest.fixture
async def config(run: Run, tmp_path: Path) -> Path:
    """A kubeconfig that is not there yet."""
    path = tmp_path / "home" / "config"
    run.environ["KUBECONFIG"] = str(path)
    return path


async def test_a_kubeconfig_is_made_by_commands(run: Run, config: Path, tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_bytes(b"authority")
    for line, said in (
        (f"config set-cluster c --grpc=10.0.0.1:6443 --certificate-authority={tmp_path}/ca.crt"
         " --embed-certs", 'Cluster "c" set.'),
        ("config set-cluster c --server=https://10.0.0.1:6444", 'Cluster "c" set.'),
        ("config set-credentials u --token=secret", 'User "u" set.'),
        ("config set-context one --cluster=c --user=u", 'Context "one" created.'),
        ("config set-context two --cluster=c --user=u -n shop", 'Context "two" created.'),
        ("config use-context one", 'Switched to context "one".'),
        ("config set-context --current --namespace=blue", 'Context "one" modified.'),
        ("config rename-context one uno", 'Context "one" renamed to "uno".'),
        ("config current-context", "uno"),
        ("config get-clusters", "NAME\nc"),
        ("config get-users", "NAME\nu"),
        ("config get-contexts -o name", "uno\ntwo"),
    ):  # fmt: skip
        assert await run(line) == (0, said + "\n", ""), line
    target = run.session().target()
    assert (target.grpc, target.token, target.namespace) == ("10.0.0.1:6443", "secret", "blue")
    assert target.authority == b"authority"
    assert config.stat().st_mode & 0o777 == 0o600
    assert "secret" not in (await run("config view"))[1]
    code, out, err = await run("config delete-context uno")
    assert (code, out) == (0, f"deleted context uno from {config}\n") and "active context" in err
    assert (await run("config delete-cluster c"))[0] == 0
    assert (await run("config delete-user x"))[0] == 1


async def test_contexts_are_switched_there_and_back(run: Run, config: Path) -> None:
    assert (await run("ctx -"))[2] == "error: no previous context found\n"
    for name in ("one", "two"):
        await run(f"config set-context {name} --cluster=c")
    assert await run("ctx one") == (0, 'Switched to context "one".\n', "")
    assert await run("ctx two") == (0, 'Switched to context "two".\n', "")
    assert await run("ctx -") == (0, 'Switched to context "one".\n', "")
    assert await run("ctx -") == (0, 'Switched to context "two".\n', "")
    assert await run("ctx") == (0, "one\ntwo\n", "")
    assert await run("ctx -c") == (0, "two\n", "")
    assert "\x1b[1;32mtwo\x1b[0m\n" in (await run("--color=always ctx"))[1]
    assert await run("ctx tow") == (
        1, "", 'error: there is no context "tow", did you mean "two"?\n'
    )  # fmt: skip


async def test_namespaces_are_switched_there_and_back(run: Run, config: Path) -> None:
    await run.apply(NAMESPACE % "shop")
    assert await run("ns") == (0, "default\nkube-system\nshop\n", "")
    assert (await run("ns shop"))[2].startswith("error: there is no context to keep")
    await run("config set-context one --cluster=c")
    await run("ctx one")
    said = 'Context "one" modified.\nActive namespace is "%s".\n'
    assert await run("ns shop") == (0, said % "shop", "")
    assert await run("ns -") == (0, said % "default", "")
    assert await run("ns -") == (0, said % "shop", "")
    assert await run("ns shpo") == (
        1, "", 'error: there is no namespace "shpo", did you mean "shop"?\n'
    )  # fmt: skip
    assert (await run("ns --force later"))[0] == 0
