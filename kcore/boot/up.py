"""`kcore up`: what makes a bare machine run kcore, step by step, and `kcore down`, which undoes it.

    for step in up.steps(setup, clock, chance): await step.work()   # each may be repeated
    await down.…

A step says what it did in a few words. When all are done, kcore's parent process runs in the
background and its apiserver is about to answer; waiting for it is the caller's part, who has a
client.
"""

import asyncio
import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from kcore.boot import certificates, containerd, images, parent
from kcore.boot.setup import CLUSTER_CIDR, NODE, Setup
from kcore.chance import Chance
from kcore.clock import Clock
from kcore.controllers import cluster
from kcore.network import cni, netlink, routes
from kcore.proxy import nft, ruleset

# What must be there, and the Debian package that has it.
PROGRAMS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "nft": "nftables",
    "ip": "iproute2",
    "iptables": "iptables",
    "busybox": "busybox-static",
    "catatonit": "catatonit",
}
CGROUPS = Path("/sys/fs/cgroup")
LOG_BYTES = 16 * 1024 * 1024


class BootError(Exception):
    """The machine cannot run kcore; the text says what to do about it."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do; `work` answers what was done, in a few words."""

    name: str
    work: Callable[[], Awaitable[str]]


def runtime_of(setup: Setup) -> containerd.Containerd:
    """This kcore's own container runtime."""
    return containerd.Containerd(
        root=setup.place.containerd_state,
        state=setup.place.containerd_run,
        cni_config=setup.place.cni_config,
    )


def coredns() -> Path | None:
    """CoreDNS, if this machine has it: beside this program, or where programs are found."""
    beside = Path(sys.executable).parent / "coredns"
    found = str(beside) if beside.exists() else shutil.which("coredns")
    return Path(found) if found else None


def dns_address() -> str:
    """Where pods find names; "": nobody could answer there."""
    return cluster.Cluster(CLUSTER_CIDR).dns_address if coredns() is not None else ""


def addons(setup: Setup) -> str:
    """Manifests of what a cluster runs for itself."""
    if not setup.dns:
        return ""
    template = jinja2.Template((Path(__file__).parent / "coredns.yaml.j2").read_text())
    said: str = template.render(
        address=setup.dns,
        node=json.dumps(setup.node),
        image=images.COREDNS,
        directory=json.dumps(str(setup.place.dns)),
    )
    return said


def steps(setup: Setup, clock: Clock, chance: Chance) -> Sequence[Step]:
    """What to do, in order; each finds out for itself what is there already."""

    async def machine() -> str:
        found = check()
        setup.place.make()
        return found

    async def runtime() -> str:
        await containerd.start(runtime_of(setup), clock)
        return f"containerd at {runtime_of(setup).socket}"

    async def load() -> str:
        made = {images.PAUSE: images.pause_image(), images.BUSYBOX: images.busybox_image()}
        program = coredns()
        if setup.dns and program is not None:
            made[images.COREDNS] = images.coredns_image(program)
        for tar in made.values():
            await images.load(tar, runtime_of(setup).socket)
        return ", ".join(made)

    async def identities() -> str:
        certificates.ensure(setup.place.pki, setup.place.ca, setup.node, clock, chance)
        if not setup.place.admin_token.exists():
            _write_secret(setup.place.admin_token, chance.token(40))
        return f"authority at {setup.place.ca}"

    async def processes() -> str:
        pid = parent.running(setup.place.pid)
        if pid is None:
            pid = start(setup)
        return f"process {pid}, log at {setup.place.log}"

    return (
        Step("machine", machine),
        *((Step("runtime", runtime), Step("images", load)) if NODE in setup.parts else ()),
        Step("certificates", identities),
        Step("kcore", processes),
    )


def _write_secret(path: Path, text: str) -> None:
    """Root's alone from its first byte, whole or not at all."""
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)


def check() -> str:
    """Refuses a machine that cannot run kcore, naming all that is missing at once."""
    if os.geteuid() != 0:
        raise BootError("kcore up needs root: it makes network and mount namespaces")
    missing = sorted({deb for program, deb in PROGRAMS.items() if not shutil.which(program)})
    if not any((path / "bridge").exists() for path in containerd.CNI_PROGRAMS):
        missing.append("containernetworking-plugins")
    if missing:
        raise BootError(f"not installed: try `apt-get install {' '.join(missing)}`")
    return f"{platform.system()} {platform.release()}"


def start(setup: Setup) -> int:
    """Starts kcore's parent in the background; answers its process id."""
    log = setup.place.log
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    with log.open("ab") as out:
        log.chmod(0o600)
        process = subprocess.Popen(
            setup.arguments("parent"),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            cwd="/",
        )
    return process.pid


async def down(setup: Setup, clock: Clock) -> list[str]:
    """Takes all of it away; answers what was there. May be repeated, also after a crash."""
    where = setup.place
    removed = []
    if parent.stop(where.pid, clock):
        removed.append("kcore's processes")
    if where.containerd_state.exists():
        await containerd.stop(runtime_of(setup), clock)
        removed.append("containers and their runtime")
        network = cni.PodNetwork(CLUSTER_CIDR, CLUSTER_CIDR, where.cni_state)
        await cni.down(network, where.cni_config)
        await asyncio.to_thread(_forget_routes)
        removed.append("the pod network")
        with nft.Nft() as library:
            library.run(f"add table {ruleset.WHERE}; delete table {ruleset.WHERE}")
        removed.append("the rules of services")
    _unmount_below(where.state)
    _remove_cgroups()
    for path in (where.run, where.state, where.config):
        if path.exists():
            shutil.rmtree(path)
            removed.append(str(path))
    return removed


def _forget_routes() -> None:
    netlink.carry_out(routes.difference(netlink.found(), routes.Plan()))


def _remove_cgroups() -> None:
    """Those that held pods; one that still holds another kcore's stays, since it is not empty."""
    for top in sorted(CGROUPS.glob("*/kcore")):
        for group in sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True):
            with contextlib.suppress(OSError):
                group.rmdir()
        with contextlib.suppress(OSError):
            top.rmdir()


def _unmount_below(directory: Path) -> None:
    """Lazily, deepest first: volumes in memory of pods that are gone."""
    prefix = f"{directory}/"
    lines = Path("/proc/self/mounts").read_text().splitlines()
    for point in sorted((line.split()[1] for line in lines), reverse=True):
        if point.startswith(prefix):
            subprocess.run(["umount", "--lazy", point], check=False)
