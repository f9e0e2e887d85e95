"""The pod network's files: what the plug-ins and nft are told."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcore.network import cni

NETWORK = cni.PodNetwork("10.244.1.0/24", "10.244.0.0/16", Path("/var/lib/kcore/cni/state"))


def test_the_conflist() -> None:
    assert json.loads(cni.conflist(NETWORK)) == {
        "cniVersion": "1.0.0",
        "name": "kcore0",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "kcore0",
                "isGateway": True,
                "ipMasq": False,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "dataDir": "/var/lib/kcore/cni/state",
                    "ranges": [[{"subnet": "10.244.1.0/24", "gateway": "10.244.1.1"}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
        ],
    }


def test_the_rules_replace_a_whole_table() -> None:
    lines = [line.strip() for line in cni.rules(NETWORK).splitlines()]
    assert lines[:3] == [
        "table ip kcore0-pods {}",
        "delete table ip kcore0-pods",
        "table ip kcore0-pods {",
    ]
    assert "ip saddr 10.244.1.0/24 ip daddr != { 10.244.0.0/16, 224.0.0.0/4 } masquerade" in lines


@pytest.mark.parametrize(
    ("pods", "cluster", "bridge"),
    [
        ("10.1.0.0/24", "10.244.0.0/16", "kcore0"),
        ("10.244.1.1/24", "10.244.0.0/16", "kcore0"),
        ("10.244.1.0/31", "10.244.0.0/16", "kcore0"),
        ("::/64", "::/48", "kcore0"),
        ("10.244.1.0/24; flush ruleset", "10.244.0.0/16", "kcore0"),
        ("10.244.1.0/24", "10.244.0.0/16 }", "kcore0"),
        ("10.244.1.0/24", "10.244.0.0/16", 'x" {}; flush'),
        ("10.244.1.0/24", "10.244.0.0/16", "kcore0\n"),
        ("10.244.1.0/24", "10.244.0.0/16", "../x"),
        ("10.244.1.0/24", "10.244.0.0/16", "sixteen-letters0"),
    ],
)
def test_what_is_refused(pods: str, cluster: str, bridge: str) -> None:
    with pytest.raises(cni.NetworkError):
        cni.PodNetwork(pods, cluster, Path("/x"), bridge=bridge)


@given(st.text(min_size=1).filter(lambda text: "\0" not in text and text == str(Path(text))))
def test_no_path_breaks_out_of_the_conflist(path: str) -> None:
    network = cni.PodNetwork("10.244.1.0/24", "10.244.0.0/16", Path(path))
    bridge = json.loads(cni.conflist(network))["plugins"][0]
    assert bridge["ipam"]["dataDir"] == path and bridge["type"] == "bridge"


def test_writing_is_at_one_blow_and_only_when_needed(tmp_path: Path) -> None:
    cni.write(NETWORK, tmp_path / "net.d")
    (file,) = (tmp_path / "net.d").iterdir()
    assert file.name == cni.CONF_NAME and file.read_text() == cni.conflist(NETWORK)
    before = file.stat().st_ino
    cni.write(NETWORK, tmp_path / "net.d")
    assert file.stat().st_ino == before


SAVED = """\
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:CNI-HOSTPORT-DNAT - [0:0]
:CNI-HOSTPORT-MASQ - [0:0]
:CNI-HOSTPORT-SETMARK - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A PREROUTING -j SOMEBODY-ELSE
-A POSTROUTING -m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ
-A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE
COMMIT
"""


SHARED = [
    "-D PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT",
    '-D POSTROUTING -m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ',
]
OURS = (
    r'-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"kcore0\" id: \"7f\""'
    " -j CNI-DN-1\n"
)
OTHERS = OURS.replace("kcore0", "podman").replace("DN-1", "DN-2")


def test_portmaps_chains_go_when_nobody_uses_them() -> None:
    chains = ["CNI-HOSTPORT-DNAT", "CNI-HOSTPORT-MASQ", "CNI-HOSTPORT-SETMARK"]
    flushed = [f"-F {chain}" for chain in chains]
    deleted = [f"-X {chain}" for chain in chains]
    expected = ["*nat", *SHARED, *flushed, *deleted, "COMMIT"]
    assert cni.portmap_removal(NETWORK, SAVED).splitlines() == expected


def test_a_host_port_that_was_left_behind_goes_with_its_chain() -> None:
    lines = cni.portmap_removal(NETWORK, SAVED.replace("COMMIT", OURS + "COMMIT")).splitlines()
    assert lines[:2] == ["*nat", OURS.strip().replace("-A", "-D")]
    assert "-X CNI-DN-1" in lines and "-X CNI-HOSTPORT-DNAT" in lines


def test_what_others_use_stays() -> None:
    assert cni.portmap_removal(NETWORK, SAVED.replace("COMMIT", OTHERS + "COMMIT")) == ""
    both = cni.portmap_removal(NETWORK, SAVED.replace("COMMIT", OURS + OTHERS + "COMMIT"))
    ours = OURS.strip().replace("-A", "-D")
    assert both.splitlines() == ["*nat", ours, "-F CNI-DN-1", "-X CNI-DN-1", "COMMIT"]
    assert cni.portmap_removal(NETWORK, "") == ""


def listed(*objects: dict) -> str:
    """As nft lists a table."""
    table = {"table": {"family": "ip", "name": "nat", "handle": 1}}
    return json.dumps({"nftables": [{"metainfo": {"version": "1"}}, table, *objects]})


BASE = {"chain": {"family": "ip", "table": "nat", "name": "OUTPUT", "hook": "output"}}


def test_a_table_that_says_nothing_is_bare() -> None:
    assert cni.is_bare(listed(BASE))
    assert not cni.is_bare(listed(BASE, {"rule": {"chain": "OUTPUT", "expr": []}}))
    assert not cni.is_bare(listed(BASE, {"chain": {"table": "nat", "name": "MINE"}}))
    assert not cni.is_bare(listed({"set": {"name": "addresses"}}))
