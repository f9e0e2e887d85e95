"""`kcore create role` and its like, `create token` and `auth can-i --list`, over gRPC."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import jwt
import pytest

from kcore.apiserver.run import Listeners
from kcore.boot import certificates
from kcore.chance import Chance
from kcore.clock import SystemClock
from tests.apiserver.world import world
from tests.cli.test_wire import CONFIG, call

Here = Callable[[str], Awaitable[tuple[int, str, str]]]


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Here]:
    """The command line against a server that has a key for tokens."""
    pki = tmp_path / "pki"
    certificates.ensure(pki, tmp_path / "ca", "n1", SystemClock(), Chance(), addresses=[])
    socket, config = tmp_path / "kcore.sock", tmp_path / "config"
    config.write_text((CONFIG % socket).replace("namespace: shop", "namespace: default"))
    listeners = Listeners(socket=socket, account_key=pki / certificates.ACCOUNT_KEY)
    async with world(tmp_path, listeners):
        yield lambda line: call(config, line)


async def test_a_role_of_a_few_words(here: Here) -> None:
    code, out, _ = await here(
        "create role reader --verb=get,list --verb=watch --resource=po,deployments/scale"
        " --resource-name=web -o yaml --dry-run=client"
    )
    assert code == 0
    assert "- get\n  - list\n  - watch\n" in out
    assert "- pods\n" in out
    assert "- deployments/scale\n" in out
    assert "- apps\n" in out
    assert "- web\n" in out
    assert await here("create role reader --verb=get --resource=pods") == (
        0,
        "role.rbac.authorization.k8s.io/reader created\n",
        "",
    )
    code, _, said = await here("create role x --verb=get")
    assert code == 2
    assert "at least one --resource must be specified" in said


async def test_bindings_of_a_few_words(here: Here) -> None:
    line = "create rolebinding b --clusterrole=view --user=u --group=g --serviceaccount=default:sa"
    assert await here(line) == (0, "rolebinding.rbac.authorization.k8s.io/b created\n", "")
    code, out, _ = await here("get rolebindings -o wide")
    assert code == 0
    assert out.splitlines()[1].split()[:2] == ["b", "ClusterRole/view"]
    assert out.splitlines()[1].split()[3:] == ["u", "g", "default/sa"]
    code, _, said = await here("create rolebinding b --role=a --clusterrole=b")
    assert code == 2
    assert "exactly one of --clusterrole or --role" in said
    line = "create clusterrolebinding b --clusterrole=view --serviceaccount=sa"
    code, _, said = await here(line)
    assert code == 2
    assert "must be NAMESPACE:NAME" in said


async def test_a_cluster_role_of_others(here: Here) -> None:
    code, out, _ = await here(
        "create clusterrole all --aggregation-rule=a/b=true -o yaml --dry-run=client"
    )
    assert code == 0
    assert "matchLabels:\n      a/b: " in out


async def test_a_token(here: Here) -> None:
    await here("create serviceaccount robot")
    code, out, _ = await here("create token robot --duration=10m")
    assert code == 0
    claims = jwt.decode(out.strip(), options={"verify_signature": False})
    assert claims["sub"] == "system:serviceaccount:default:robot"
    assert claims["exp"] - claims["iat"] == 600
    assert (await here("create token robot --duration=soon"))[0] == 2
    code, _, said = await here("create token nobody")
    assert (code, said) == (1, 'error: serviceaccounts "nobody" not found\n')


async def test_all_that_one_may(here: Here) -> None:
    code, out, _ = await here("auth can-i --list")
    assert code == 0
    assert out.splitlines()[1].split() == ["*.*", "[]", "[]", "[*]"]
    assert (await here("auth can-i"))[0] == 2
