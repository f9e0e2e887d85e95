"""`kcore up`: what makes a bare machine run kcore, step by step, and `kcore down`, which undoes it.

    for step in up.steps(setup, clock, chance): await step.work()   # each may be repeated
    await down.…

A step says what it did in a few words. When all are done, kcore's parent process runs in the
background and its apiserver is about to answer; waiting for it is the caller's part, who has a
client.
"""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kcore.boot import certificates, containerd, images, parent, place
from kcore.chance import Chance
from kcore.clock import Clock
from kcore.network import cni

CLUSTER_CIDR = "10.244.0.0/16"
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
LOG_BYTES = 16 * 1024 * 1024


class BootError(Exception):
    """The machine cannot run kcore; the text says what to do about it."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What `up` was asked for. `port` is the TLS listener's; the mTLS one is just below it."""

    place: place.Place
    node: str
    port: int = 6443

    @property
    def mutual_port(self) -> int:
        """The mTLS listener's port."""
        return self.port - 1

    @property
    def probe_port(self) -> int:
        """The port for probes and metrics, on the loopback."""
        return self.port + 2

    @property
    def runtime(self) -> containerd.Containerd:
        """This kcore's own container runtime."""
        return containerd.Containerd(
            root=self.place.containerd_state,
            state=self.place.containerd_run,
            cni_config=self.place.cni_config,
        )

    def arguments(self, command: str) -> list[str]:
        """The command line of one of kcore's processes in this setup."""
        found = [sys.executable, "-m", "kcore", command]
        found += ["--node", self.node, "--port", str(self.port)]
        if self.place != place.Place():
            found += ["--root", str(self.place.state.parent)]
        return found


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do; `work` answers what was done, in a few words."""

    name: str
    work: Callable[[], Awaitable[str]]


def node_name() -> str:
    """This machine's name, as a node's."""
    return platform.node().split(".")[0].lower() or "node"


def steps(setup: Setup, clock: Clock, chance: Chance) -> Sequence[Step]:
    """What to do, in order; each finds out for itself what is there already."""

    async def machine() -> str:
        return check()

    async def runtime() -> str:
        setup.place.make()
        await containerd.start(setup.runtime, clock)
        return f"containerd at {setup.runtime.socket}"

    async def load() -> str:
        for tar in (images.pause_image(), images.busybox_image()):
            await images.load(tar, setup.runtime.socket)
        return f"{images.PAUSE}, {images.BUSYBOX}"

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
        Step("runtime", runtime),
        Step("images", load),
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


def keep(setup: Setup, clock: Clock) -> int:
    """Runs kcore's processes in the foreground until told to end."""
    commands = {name: setup.arguments(name) for name in ("apiserver", "rooms")}
    return parent.run(setup.place.pid, commands, clock)


async def down(setup: Setup, clock: Clock) -> list[str]:
    """Takes all of it away; answers what was there. May be repeated, also after a crash."""
    where = setup.place
    removed = []
    if parent.stop(where.pid, clock):
        removed.append("kcore's processes")
    if where.containerd_state.exists():
        await containerd.stop(setup.runtime, clock)
        removed.append("containers and their runtime")
        network = cni.PodNetwork(CLUSTER_CIDR, CLUSTER_CIDR, where.cni_state)
        await cni.down(network, where.cni_config)
        removed.append("the pod network")
    _unmount_below(where.state)
    for path in (where.run, where.state, where.config):
        if path.exists():
            shutil.rmtree(path)
            removed.append(str(path))
    return removed


def _unmount_below(directory: Path) -> None:
    """Lazily, deepest first: volumes in memory of pods that are gone."""
    prefix = f"{directory}/"
    lines = Path("/proc/self/mounts").read_text().splitlines()
    for point in sorted((line.split()[1] for line in lines), reverse=True):
        if point.startswith(prefix):
            subprocess.run(["umount", "--lazy", point], check=False)
