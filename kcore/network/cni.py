"""A node's pod network: CNI's bridge plug-in, told what to do, and the way out of the cluster.

    await up(PodNetwork(pod_cidr=…, cluster_cidr=…, state=…), conf_dir)
    await down(network, conf_dir)        # the bridge, addresses, rules: nothing stays

The runtime reads the one file in `conf_dir` and calls the plug-ins: `bridge` joins pods, and
`host-local` gives them addresses from this node's range, and `portmap` does host ports (by the
`iptables` program). What leaves the cluster takes the node's address, by one nftables table for
all pods: the bridge plug-in's own way is four rules a pod, made by spawning iptables, and would
hide pods from those of other nodes.

It must not know of services, nor of routes to other nodes (`routes`).
"""

import asyncio
import ipaddress
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What the plug-ins of Debian 12 (1.1.1) and later speak.
CNI_VERSION = "1.0.0"
CONF_NAME = "10-kcore.conflist"
# How iptables' chains of the portmap plug-in are called, and the built-in ones that lead there.
PORTMAP_CHAINS = ("CNI-HOSTPORT-DNAT", "CNI-HOSTPORT-MASQ", "CNI-HOSTPORT-SETMARK")
PORTMAP_ENTRANCES = ("PREROUTING", "OUTPUT", "POSTROUTING")

# Where the runtime's CNI library notes what it was answered; it cannot be told otherwise.
CNI_RESULTS = Path("/var/lib/cni/results")

SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    # A pod that reaches its neighbour by a Service: the answer goes over the bridge, and must
    # pass by the rules that turn the neighbour's address back into the Service's.
    "net/bridge/bridge-nf-call-iptables": "1",
}


class NetworkError(Exception):
    """The pod network cannot be made or removed; the text says why."""


@dataclass(frozen=True, slots=True)
class PodNetwork:
    """The pod network as one node has it.

    `pod_cidr` is this node's range, part of `cluster_cidr`, all nodes' range. `state` is where
    host-local notes the addresses it gave. `mtu` 0 is the uplink's.
    """

    pod_cidr: str
    cluster_cidr: str
    state: Path
    bridge: str = "kcore0"
    mtu: int = 0

    def __post_init__(self) -> None:
        try:
            pods = ipaddress.IPv4Network(self.pod_cidr)
            cluster = ipaddress.IPv4Network(self.cluster_cidr)
        except ValueError as error:
            raise NetworkError(f"pod network: {error}") from error
        if not pods.subnet_of(cluster):
            raise NetworkError(f"{pods} is no part of {cluster}")
        if pods.prefixlen > 30:
            raise NetworkError(f"{pods} has no room for a pod")
        # Nothing that ip, nft or a path could take for something else.
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,14}", self.bridge):
            raise NetworkError(f"{self.bridge!r} is no name for a bridge")

    @property
    def gateway(self) -> str:
        """The bridge's address, by which pods reach their node."""
        return str(ipaddress.IPv4Network(self.pod_cidr)[1])

    @property
    def table(self) -> str:
        """The nftables table, in family ip."""
        return f"{self.bridge}-pods"


def conflist(network: PodNetwork) -> str:
    """The file that the runtime reads. Pure."""
    bridge: dict[str, Any] = {
        "type": "bridge",
        "bridge": network.bridge,
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "dataDir": str(network.state),
            "ranges": [[{"subnet": network.pod_cidr, "gateway": network.gateway}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    if network.mtu:
        bridge["mtu"] = network.mtu
    # The loopback plug-in is not named: the runtime itself calls it for every pod.
    plugins = [bridge, {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}]
    value = {"cniVersion": CNI_VERSION, "name": network.bridge, "plugins": plugins}
    return json.dumps(value, indent=2) + "\n"


def rules(network: PodNetwork) -> str:
    """The nftables table, replaced as a whole. Pure.

    The second chain: portmap lets the bridge route 127.0.0.0/8, so that host ports answer on
    localhost; without it, a neighbour or a pod could reach what listens on the node's localhost.
    """
    return f"""\
table ip {network.table} {{}}
delete table ip {network.table}
table ip {network.table} {{
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {network.pod_cidr} ip daddr != {{ {network.cluster_cidr}, 224.0.0.0/4 }} masquerade
  }}
  chain prerouting {{
    type filter hook prerouting priority raw; policy accept;
    iifname != "lo" ip daddr 127.0.0.0/8 drop
  }}
}}
"""


async def up(network: PodNetwork, conf_dir: Path, proc_sys: Path = Path("/proc/sys")) -> None:
    """Makes or changes the network; may be repeated. The bridge comes with the first pod."""
    if not (proc_sys / "net/bridge").exists():
        await _run("modprobe", "br_netfilter", may_fail=True)
    for name, value in SYSCTLS.items():
        path = proc_sys / name
        try:
            if path.read_text().strip() != value:
                path.write_text(value)
        except OSError as error:
            raise NetworkError(f"cannot set {name.replace('/', '.')} = {value}: {error}") from error
    await _run("nft", "-f", "-", text=rules(network))
    write(network, conf_dir)


async def is_whole(network: PodNetwork) -> bool:
    """Whether the nftables table is as `up` made it, as far as one can see."""
    listed = await _run("nft", "list", "table", "ip", network.table, may_fail=True)
    return " masquerade" in listed and " drop" in listed


def write(network: PodNetwork, conf_dir: Path) -> None:
    """Writes the runtime's file, at one blow: the runtime watches the directory."""
    conf_dir.mkdir(parents=True, exist_ok=True)
    path, text = conf_dir / CONF_NAME, conflist(network)
    if path.exists() and path.read_text() == text:
        return
    # A name that CNI does not read.
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


async def down(network: PodNetwork, conf_dir: Path, results: Path = CNI_RESULTS) -> None:
    """Removes what `up` and the plug-ins made. To be called when no pod is left; repeatable.

    Where pods ended without the plug-ins being asked (a runtime that could not be reached), their
    traces in iptables and in CNI's own notes go, too.
    """
    (conf_dir / CONF_NAME).unlink(missing_ok=True)
    await _run("ip", "link", "delete", network.bridge, may_fail=True)
    await _run("nft", "delete", "table", "ip", network.table, may_fail=True)
    shutil.rmtree(network.state, ignore_errors=True)
    _forget(network, results)
    if shutil.which("iptables-save"):
        script = portmap_removal(network, await _run("iptables-save", "-t", "nat", may_fail=True))
        if script:
            await _run("iptables-restore", "--noflush", text=script)
    for family in ("ip", "ip6"):
        listed = await _run("nft", "--json", "list", "table", family, "nat", may_fail=True)
        if listed and is_bare(listed):
            await _run("nft", "delete", "table", family, "nat", may_fail=True)


def is_bare(listed: str) -> bool:
    """Whether a table, as `nft --json list table` shows it, has base chains only and no rule.

    iptables makes such a table when it is first asked, and again when it is needed.
    """
    found = [next(iter(one.items())) for one in json.loads(listed)["nftables"]]
    return all(
        kind in ("metainfo", "table") or (kind == "chain" and "hook" in one) for kind, one in found
    )


def _forget(network: PodNetwork, results: Path) -> None:
    for note in sorted(results.glob(f"{network.bridge}-*-eth0")):
        sandbox = note.name.removeprefix(f"{network.bridge}-").removesuffix("-eth0")
        (results / f"cni-loopback-{sandbox}-lo").unlink(missing_ok=True)
        note.unlink(missing_ok=True)


def portmap_removal(network: PodNetwork, saved: str) -> str:
    """What to give iptables-restore so that this network's host ports go. Pure.

    `saved` is what iptables-save says of the table nat. The chains that all networks on a machine
    share go with the last one that uses them; empty if there is nothing to do.
    """
    lines = saved.splitlines()
    uses = [line for line in lines if line.startswith("-A CNI-HOSTPORT-DNAT ")]
    # As the plug-in's comments have it, in iptables-save's quotes.
    ours = [line for line in uses if f'"dnat name: \\"{network.bridge}\\" id: ' in line]
    removed = ["-D" + line.removeprefix("-A") for line in ours]
    chains = sorted({line.rpartition(" -j ")[2] for line in ours})
    if len(ours) == len(uses):
        leads_there = re.compile(rf"-A ({'|'.join(PORTMAP_ENTRANCES)}) .*-j CNI-HOSTPORT-")
        removed += ["-D" + line.removeprefix("-A") for line in lines if leads_there.match(line)]
        chains += [name for name in PORTMAP_CHAINS if any(f":{name} " in line for line in lines)]
    if not removed and not chains:
        return ""
    flushed = [f"-F {name}" for name in chains]
    deleted = [f"-X {name}" for name in chains]
    return "\n".join(["*nat", *removed, *flushed, *deleted, "COMMIT", ""])


async def _run(*command: str, text: str = "", may_fail: bool = False) -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            # A program that reads nothing may be gone before nothing could be written.
            stdin=subprocess.PIPE if text else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    except FileNotFoundError as error:
        if may_fail:
            return ""
        raise NetworkError(f"{command[0]} is not installed") from error
    output, errors = await process.communicate(text.encode() if text else None)
    if process.returncode and not may_fail:
        said = errors.decode("utf-8", "replace").strip()
        raise NetworkError(f"{' '.join(command)}: {said}")
    return output.decode("utf-8", "replace")
