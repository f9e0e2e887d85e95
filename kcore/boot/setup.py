"""What `up` was asked for, and the processes that it becomes.

Light to import: the parent of kcore's processes needs no more than this.
"""

import platform
import sys
from dataclasses import dataclass

from kcore.boot import parent, place
from kcore.clock import Clock

# What a machine may run: the kernel's face; controllers and scheduler; kubelet, network and proxy.
APISERVER, CONTROL, NODE = PARTS = ("apiserver", "control", "node")
CLUSTER_CIDR = "10.244.0.0/16"
# So begins the line in the log that says why one of kcore's processes cannot run.
ERROR = "error: "


@dataclass(frozen=True, slots=True)
class Setup:
    """What `up` was asked for. `port` is the TLS listener's; the mTLS one is just below it."""

    place: place.Place
    node: str
    port: int = 6443
    # Where the log is kept (kcore/boot/stores.py); "": in the place's own database.
    store: str = ""
    # What of it runs here, and where the apiserver's mTLS listener is if that runs elsewhere.
    parts: tuple[str, ...] = PARTS
    server: str = ""
    # Where pods find names; "": this cluster has no DNS of its own.
    dns: str = ""

    @property
    def endpoint(self) -> str:
        """Where components dial the apiserver."""
        return self.server or f"127.0.0.1:{self.mutual_port}"

    @property
    def mutual_port(self) -> int:
        """The mTLS listener's port."""
        return self.port - 1

    @property
    def probe_port(self) -> int:
        """The port for probes and metrics, on the loopback."""
        return self.port + 2

    @property
    def runtime_endpoint(self) -> str:
        """The container runtime's socket."""
        return f"unix://{self.place.containerd_run}/containerd.sock"

    def arguments(self, command: str) -> list[str]:
        """The command line of one of kcore's processes in this setup."""
        found = [sys.executable, "-m", "kcore", command]
        found += ["--node", self.node, "--port", str(self.port)]
        for option, value in (("--store", self.store), ("--dns", self.dns)):
            if value:
                found += [option, value]
        if self.parts != PARTS:
            found += [word for part in self.parts for word in ("--part", part)]
        if self.server:
            found += ["--server", self.server]
        if self.place != place.Place():
            found += ["--root", str(self.place.state.parent)]
        return found


def node_name() -> str:
    """This machine's name, as a node's."""
    return platform.node().split(".")[0].lower() or "node"


def keep(setup: Setup, clock: Clock) -> int:
    """Runs kcore's processes in the foreground until told to end."""
    names = [APISERVER] if APISERVER in setup.parts else []
    if {CONTROL, NODE} & set(setup.parts):
        names.append("rooms")
    commands = {name: setup.arguments(name) for name in names}
    return parent.run(setup.place.pid, commands, clock)
