"""A lab: a cluster of several nodes on one machine, for tests and for people who try things.

Each node is a network namespace with a runtime, a kubelet, a proxy and a network of its own; one
more namespace runs the apiserver, the controllers and the scheduler. All are joined by a bridge,
which the machine itself is on, too, so that node ports can be reached from it. With `apart`, every
node is on a link of its own, and the machine routes between them: then pods' packets go through
tunnels.

    lab = Lab(root, nodes=3)
    for machine in machines(lab): …            # names, namespaces, addresses, directories
    await make(lab, …); await start(lab, machine, …); await remove(lab, …)

It makes namespaces, files and processes; the rest is what every kcore does.
"""

import asyncio
import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kcore.boot import certificates, place, up
from kcore.boot.setup import APISERVER, CONTROL, NODE, Setup
from kcore.chance import Chance
from kcore.clock import Clock

MOST_NODES = 50
_NAMESPACES = Path("/run/netns")


class LabError(Exception):
    """The lab can't be made or taken away; the text says why."""


@dataclass(frozen=True, slots=True)
class Lab:
    """What was asked for. `network` is the second number of its addresses, 172.N.…."""

    root: Path
    nodes: int
    name: str = "lab"
    apart: bool = False
    network: int = 31

    def __post_init__(self) -> None:
        if not 1 <= self.nodes <= MOST_NODES:
            raise LabError(f"from 1 to {MOST_NODES} nodes, not {self.nodes}")
        # It is part of the names of devices, which have 15 letters.
        if not re.fullmatch(r"[a-z][a-z0-9]{0,7}", self.name):
            raise LabError(f"{self.name!r}: a name has up to 8 letters and digits")

    @property
    def bridge(self) -> str:
        """The device that joins all."""
        return f"kc-{self.name}"

    @property
    def kubeconfig(self) -> Path:
        """How its users reach it."""
        return self.root / "kubeconfig"


@dataclass(frozen=True, slots=True)
class Machine:
    """One namespace: number 0 runs what a cluster has once, the others are nodes."""

    number: int
    name: str
    namespace: str
    address: str
    gateway: str
    device: str
    setup: Setup


def machines(lab: Lab) -> Sequence[Machine]:
    """All of them, the apiserver's first."""
    server = _address(lab, 0)
    found = []
    for number in range(lab.nodes + 1):
        name = f"{lab.name}-{number}" if number else f"{lab.name}-control"
        parts = (NODE,) if number else (APISERVER, CONTROL)
        setup = Setup(
            place.Place.under(lab.root / str(number)),
            name,
            parts=parts,
            server=f"{server}:6442" if number else "",
            dns=up.dns_address(),
        )
        link = number if lab.apart else 0
        found.append(
            Machine(
                number,
                name,
                f"kcore-{name}",
                _address(lab, number),
                f"172.{lab.network}.{link}.1",
                f"kc{lab.name}{number}",
                setup,
            )
        )
    return found


async def make(lab: Lab, clock: Clock, chance: Chance) -> None:
    """Namespaces, the bridge, and certificates of one authority; may be repeated."""
    every = machines(lab)
    _check_place(lab)
    for machine in every:
        machine.setup.place.make()
    if not Path(f"/sys/class/net/{lab.bridge}").exists():
        await _ip("link", "add", lab.bridge, "type", "bridge")
        await _ip("link", "set", lab.bridge, "up")
    for gateway in sorted({machine.gateway for machine in every}):
        await _ip("address", "replace", f"{gateway}/24", "dev", lab.bridge)
    if lab.apart:
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1\n")
    for machine in every:
        if not await _is_joined(machine):
            await _join(lab, machine)
    home = every[0].setup.place
    addresses = [every[0].address]
    certificates.ensure(home.pki, home.ca, every[0].name, clock, chance, addresses)
    for machine in every[1:]:
        own = machine.setup.place
        for file in certificates.files(home.pki, certificates.AUTHORITY):
            shutil.copy(file, own.pki / file.name)
        certificates.ensure(own.pki, own.ca, machine.name, clock, chance, [machine.address])


async def start(machine: Machine) -> None:
    """Makes a machine run its parts; may be repeated."""
    await _run(*inside(machine), *machine.setup.arguments("machine"))


async def remove(lab: Lab) -> list[str]:
    """Takes all of it away, whatever state it is in; answers what was there."""
    _check_place(lab)
    removed = []
    for machine in reversed(machines(lab)):
        root = machine.setup.place.state.parent
        if (_NAMESPACES / machine.namespace).exists():
            if root.exists():
                arguments = [sys.executable, "-m", "kcore", "down", "--root", str(root)]
                await _run(*inside(machine), *arguments)
            # First, and waited for: with its namespace it goes only some time later.
            with contextlib.suppress(LabError):
                await _ip("link", "delete", machine.device)
            await _ip("netns", "delete", machine.namespace)
            removed.append(machine.name)
    with contextlib.suppress(LabError):
        await _ip("link", "delete", lab.bridge)
    if lab.root.exists():
        shutil.rmtree(lab.root)
        removed.append(str(lab.root))
    return removed


def _check_place(lab: Lab) -> None:
    """Refuses to touch a lab of the same name that is somebody else's."""
    here = machines(lab)[0]
    if (_NAMESPACES / here.namespace).exists() and not here.setup.place.pki.exists():
        said = f'there is a lab "{lab.name}" already, and not at {lab.root}'
        raise LabError(f"{said}: name another with --name, or that one's place with --root")


def known(root: Path, name: str) -> Lab | None:
    """The lab that is there; None: there is none."""
    numbers = [
        int(path.name.rpartition("-")[2])
        for path in _NAMESPACES.glob(f"kcore-{name}-*")
        if path.name.rpartition("-")[2].isdecimal()
    ]
    if not numbers and not root.exists() and not (_NAMESPACES / f"kcore-{name}-control").exists():
        return None
    return Lab(root, max(numbers, default=1), name)


def inside(machine: Machine) -> list[str]:
    """What to put before a command so that it runs on the machine.

    Not `ip netns exec`: that hides /sys/fs/cgroup, and containers need it.
    """
    return ["nsenter", f"--net={_NAMESPACES / machine.namespace}"]


def _address(lab: Lab, number: int) -> str:
    """Of one machine; where they are apart, each is on a link of its own."""
    link = number if lab.apart else 0
    return f"172.{lab.network}.{link}.{10 + number}"


async def _is_joined(machine: Machine) -> bool:
    """Whether its namespace is there, whole: the way out is made last."""
    try:
        await _ip("-n", machine.namespace, "route", "get", "192.0.2.1")
    except LabError:
        return False
    return True


async def _join(lab: Lab, machine: Machine) -> None:
    """A namespace on the bridge, with the machine itself for a way out."""
    name = machine.namespace
    for left in (("link", "delete", machine.device), ("netns", "delete", name)):
        with contextlib.suppress(LabError):
            await _ip(*left)
    await _ip("netns", "add", name)
    await _ip("-n", name, "link", "set", "lo", "up")
    peer = ("type", "veth", "peer", "name", machine.device)
    await _ip("-n", name, "link", "add", "eth0", *peer)
    # Its other end comes to where the bridge is: here.
    await _ip("-n", name, "link", "set", machine.device, "netns", str(os.getpid()))
    await _ip("link", "set", machine.device, "master", lab.bridge, "up")
    await _ip("-n", name, "address", "add", f"{machine.address}/24", "dev", "eth0")
    await _ip("-n", name, "link", "set", "eth0", "up")
    await _ip("-n", name, "route", "add", "default", "via", machine.gateway)


async def _ip(*words: str) -> None:
    await _run("ip", *words)


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd="/",
    )
    _, errors = await process.communicate()
    if process.returncode:
        said = errors.decode("utf-8", "replace").strip()
        raise LabError(f"{' '.join(command[:4])}: {said or process.returncode}")
