"""The door of kubeconfig: what is not supported is refused, nothing is run, and no file is endless.

S84.
"""

from pathlib import Path

import pytest

from kcore.client import kubeconfig
from kcore.client.kubeconfig import Target, Unusable

CONFIG = """\
current-context: c
clusters:
- name: c
  cluster:
    {cluster}
    extensions:
    - name: kcore.dev/endpoint
      extension: {{grpc: "127.0.0.1:6443"}}
contexts:
- name: c
  context: {{cluster: c, user: u}}
users:
- name: u
  user:
    {user}
"""


def target(directory: Path, cluster: str = "server: x", user: str = "token: t") -> Target:
    path = directory / "config"
    path.write_text(CONFIG.format(cluster=cluster, user=user))
    return kubeconfig.target(kubeconfig.load([str(path)]), {})


@pytest.mark.parametrize(
    ("cluster", "user", "said"),
    [
        ("server: x", "exec: {command: touch, args: [CANARY]}", "has exec"),
        ("server: x", "auth-provider: {name: gcp}", "has auth-provider"),
        ("server: x", "{username: u, password: p}", "has username"),
        ("server: x", "{token: t, as: admin}", "has as"),
        ("server: x", "{token: t, as-groups: [a]}", "has as-groups"),
        ("proxy-url: http://evil", "token: t", "has proxy-url"),
        ("insecure-skip-tls-verify: true", "token: t", "has insecure-skip-tls-verify"),
        ("certificate-authority: /dev/zero", "token: t", "is not a regular file"),
        ("certificate-authority: /dev", "token: t", "certificate-authority: "),
        ("server: x", "client-certificate: /dev/zero", "is not a regular file"),
        ("server: x", "client-key: /dev/zero", "is not a regular file"),
        ("certificate-authority-data: '!!!'", "token: t", "is not base64"),
        ('certificate-authority: "a\\0b"', "token: t", "certificate-authority: "),
    ],
)
def test_s84_what_is_not_supported_is_refused(
    tmp_path: Path, cluster: str, user: str, said: str
) -> None:
    canary = tmp_path / "canary"
    with pytest.raises(Unusable, match=said):
        target(tmp_path, cluster, user.replace("CANARY", str(canary)))
    assert not canary.exists()


def test_s84_what_says_no_is_no(tmp_path: Path) -> None:
    assert target(tmp_path, "insecure-skip-tls-verify: false").token == "t"


@pytest.mark.parametrize("path", ["/dev/zero", "/dev", "/dev/null/x", "a\0b"])
def test_s84_a_kubeconfig_that_never_ends(path: str) -> None:
    with pytest.raises(Unusable):
        kubeconfig.load([path], required=True)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [*a]",
        "- 1",
        "clusters: 1",
        "users: [1]",
        "contexts: [{name: c, context: 1}]",
        "{" * 2000,
        "!!python/object/apply:os.system [id]",
        "current-context: {a: b}",
        "current-context: c\ncontexts: [{name: c, context: {cluster: {}, user: []}}]",
    ],
)
def test_s30_s32_what_is_no_kubeconfig_leads_nowhere(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(Unusable):
        kubeconfig.target(kubeconfig.load([str(path)]), {}, socket=str(tmp_path / "none"))
