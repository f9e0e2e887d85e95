"""kubeconfig: files merged, the context's server found, switching kept in the file."""

import os
from pathlib import Path
from typing import Any

import pytest

from kcore.client import kubeconfig

ONE = """\
apiVersion: v1
kind: Config
current-context: kcore
clusters:
- name: kcore
  cluster:
    server: https://127.0.0.1:6444
    certificate-authority: ca.crt
    extensions:
    - name: other.dev/x
      extension: {a: b}
    - name: kcore.dev/endpoint
      extension: {grpc: "127.0.0.1:6443", unix: /run/kcore/kcore.sock}
- name: elsewhere
  cluster: {server: "https://example.com"}
contexts:
- name: kcore
  context: {cluster: kcore, user: admin, namespace: shop}
- name: elsewhere
  context: {cluster: elsewhere, user: admin}
- name: broken
  context: {cluster: nothing, user: admin}
users:
- name: admin
  user:
    client-certificate-data: Y2VydA==
    client-key-data: a2V5
    token: secret
"""
TWO = """\
current-context: other
contexts:
- name: other
  context: {cluster: kcore, user: nobody}
- name: kcore
  context: {cluster: taken, user: taken}
users:
- name: nobody
  user: {tokenFile: token}
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "one" / "config").write_text(ONE)
    (tmp_path / "one" / "ca.crt").write_bytes(b"authority")
    (tmp_path / "two" / "config").write_text(TWO)
    files = [tmp_path / "one" / "config", tmp_path / "missing", tmp_path / "two" / "config"]
    return {"KUBECONFIG": os.pathsep.join(map(str, files)), "HOME": str(tmp_path)}


def load(environ: dict[str, str]) -> kubeconfig.Config:
    return kubeconfig.load(kubeconfig.paths(environ))


def test_the_first_file_to_say_something_wins(environ: dict[str, str], tmp_path: Path) -> None:
    found = kubeconfig.target(load(environ), environ)
    assert found == kubeconfig.Target(
        grpc="127.0.0.1:6443",
        unix="/run/kcore/kcore.sock",
        authority=b"authority",
        client_certificate=b"cert",
        client_key=b"key",
        token="secret",
        namespace="shop",
        context="kcore",
    )
    other = kubeconfig.target(load(environ), environ, context="other")
    assert other.token_file == str(tmp_path / "two" / "token")
    assert other.namespace == "default"
    assert other.client_key is None


@pytest.mark.parametrize(
    ("context", "said"),
    [
        ("kcoer", 'there is no context "kcoer", did you mean "kcore"?'),
        ("elsewhere", "has no extension kcore.dev/endpoint"),
        ("broken", 'names cluster "nothing", which is not there'),
    ],
)
def test_what_leads_nowhere(environ: dict[str, str], context: str, said: str) -> None:
    with pytest.raises(kubeconfig.Unusable, match=said.replace("?", r"\?")):
        kubeconfig.target(load(environ), environ, context=context)


def test_without_configuration_the_local_socket_is_used(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    socket = tmp_path / "kcore.sock"
    with pytest.raises(kubeconfig.Unusable, match="start one with `kcore up`"):
        kubeconfig.target(load(environ), environ, socket=str(socket))
    socket.touch()
    found = kubeconfig.target(load(environ), environ, socket=str(socket))
    assert found == kubeconfig.Target(unix=str(socket))


def test_another_clusters_context_gives_way_to_the_local_socket(
    environ: dict[str, str], tmp_path: Path
) -> None:
    socket = tmp_path / "kcore.sock"
    socket.touch()
    config = load(environ)
    config.current_context = "elsewhere"
    found = kubeconfig.target(config, environ, socket=str(socket))
    assert found.unix == str(socket)
    with pytest.raises(kubeconfig.Unusable):
        kubeconfig.target(config, environ, context="elsewhere", socket=str(socket))


def test_switching_changes_one_file_and_keeps_the_rest(
    environ: dict[str, str], tmp_path: Path
) -> None:
    kubeconfig.use_context(load(environ), "other")
    assert load(environ).current_context == "other"
    file = tmp_path / "one" / "config"
    assert file.stat().st_mode & 0o777 == 0o600
    again = kubeconfig.load([str(file)])
    assert again.clusters["kcore"]["extensions"][0] == {
        "name": "other.dev/x",
        "extension": {"a": "b"},
    }
    kubeconfig.set_namespace(load(environ), "other", "blue")
    assert kubeconfig.target(load(environ), environ).namespace == "blue"
    assert "blue" in (tmp_path / "two" / "config").read_text()


def test_secrets_are_covered(environ: dict[str, str]) -> None:
    shown = kubeconfig.plain(load(environ))
    assert shown["users"][0]["user"] == {
        "client-certificate-data": "DATA+OMITTED",
        "client-key-data": "DATA+OMITTED",
        "token": "REDACTED",
    }
    assert kubeconfig.plain(load(environ), secrets=True)["users"][0]["user"]["token"] == "secret"


@pytest.mark.parametrize("text", ["[]", "a: [", "contexts: 3", "contexts: [3]", "users: {a: b}"])
def test_what_is_no_kubeconfig_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(text)
    with pytest.raises(kubeconfig.Unusable):
        kubeconfig.load([str(tmp_path / "config")])


def test_entries_are_put_renamed_and_removed_where_they_stand(
    environ: dict[str, str], tmp_path: Path
) -> None:
    two = tmp_path / "two" / "config"
    assert kubeconfig.put(load(environ), "users", "nobody", {"token": "t"}) == str(two)
    assert kubeconfig.put(load(environ), "clusters", "new", {"server": "s"}) == str(two)
    kubeconfig.put(load(environ), "users", "nobody", {"tokenFile": None})
    config = load(environ)
    assert config.users["nobody"] == {"token": "t"} and config.clusters["new"] == {"server": "s"}
    kubeconfig.rename_context(config, "kcore", "main")
    config = load(environ)
    # The other file has one of that name, too, which was hidden.
    assert config.current_context == "main" and config.contexts["main"]["namespace"] == "shop"
    kubeconfig.remove(config, "clusters", "new")
    assert "new" not in load(environ).clusters
    with pytest.raises(kubeconfig.Unusable, match='no cluster "kcor", did you mean "kcore"'):
        kubeconfig.remove(config, "clusters", "kcor")
    with pytest.raises(kubeconfig.Unusable, match='a context "main" already'):
        kubeconfig.rename_context(load(environ), "other", "main")


def test_what_was_before_is_kept_in_the_formats_own_place(environ: dict[str, str]) -> None:
    kubeconfig.use_context(load(environ), "other")
    assert load(environ).previous_context == "kcore"
    kubeconfig.use_context(load(environ), "other")
    assert load(environ).previous_context == "kcore"
    kubeconfig.set_namespace(load(environ), "kcore", "blue")
    kubeconfig.set_namespace(load(environ), "other", "red")
    assert load(environ).previous_namespaces == {"kcore": "shop", "other": "default"}
    assert kubeconfig.target(load(environ), environ, context="kcore").grpc


def test_a_link_to_a_kubeconfig_stays_one(environ: dict[str, str], tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "one" / "config")
    kubeconfig.use_context(kubeconfig.load([str(link)]), "elsewhere")
    assert link.is_symlink()
    assert load(environ).current_context == "elsewhere"


@pytest.mark.parametrize(
    ("plural", "name", "values", "said"),
    [
        ("users", "admin", {"exec": {"command": "/bin/touch", "args": ["RAN"]}}, "has exec"),
        ("users", "admin", {"auth-provider": {"name": "gcp"}}, "has auth-provider"),
        ("users", "admin", {"username": "u", "password": "p"}, "has username"),
        ("users", "admin", {"as": "root"}, "has as,"),
        ("clusters", "kcore", {"proxy-url": "http://proxy"}, "has proxy-url"),
        ("clusters", "kcore", {"insecure-skip-tls-verify": True}, "insecure-skip-tls-verify"),
        ("clusters", "kcore", {"certificate-authority": "/dev/zero"}, "not a regular file"),
        ("clusters", "kcore", {"certificate-authority": "PIPE"}, "not a regular file"),
        ("clusters", "kcore", {"certificate-authority": "HUGE"}, "too long"),
        ("clusters", "kcore", {"certificate-authority": "/nothing"}, "No such file"),
    ],
)
def test_s84_what_is_not_supported_is_refused_and_never_run(
    environ: dict[str, str],
    tmp_path: Path,
    plural: str,
    name: str,
    values: dict[str, Any],
    said: str,
) -> None:
    os.mkfifo(tmp_path / "one" / "PIPE")
    with open(tmp_path / "one" / "HUGE", "wb") as file:
        file.truncate(1 << 40)
    ran = tmp_path / "ran"
    if "exec" in values:
        values["exec"]["args"] = [str(ran)]
    kubeconfig.put(load(environ), plural, name, values)
    with pytest.raises(kubeconfig.Unusable, match=said):
        kubeconfig.target(load(environ), environ, context="kcore")
    assert not ran.exists()


def test_s84_a_kubeconfig_without_end_is_refused() -> None:
    with pytest.raises(kubeconfig.Unusable, match="longer than a kubeconfig can be"):
        kubeconfig.load(["/dev/zero"])
    assert kubeconfig.load(["/dev/null"]).contexts == {}
