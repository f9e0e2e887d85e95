"""A machine for the tests: a network namespace in which one whole kcore is brought up.

Its files are below a temporary directory, its network is its own, so it neither meets nor disturbs
a kcore that runs on the machine. `Machine.kcore(…)` is the command line as a user has it.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Machine:
    """One node."""

    name: str
    root: Path

    def run(
        self, *command: str, check: bool = True, input: bytes | None = None, seconds: float = 180
    ) -> subprocess.CompletedProcess[bytes]:
        """Runs a program on this machine."""
        done = subprocess.run(
            # Not `ip netns exec`: that hides /sys/fs/cgroup, and containers need it.
            ["nsenter", f"--net=/run/netns/{self.name}", *command],
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            timeout=seconds,
            env={
                **os.environ,
                "KUBECONFIG": str(self.root / "config" / "kubeconfig"),
                "PYTHONPATH": f"{HERE}:{HERE / 'generated'}",
            },
            cwd="/",
        )
        if check and done.returncode:
            raise AssertionError(
                f"{' '.join(command)}: exit {done.returncode}\n"
                f"{done.stdout.decode('utf-8', 'replace')[-4000:]}"
                f"{done.stderr.decode('utf-8', 'replace')[-4000:]}"
            )
        return done

    def kcore(
        self, *words: str, check: bool = True, input: bytes | None = None, seconds: float = 180
    ) -> subprocess.CompletedProcess[bytes]:
        """The command line."""
        return self.run(
            sys.executable, "-m", "kcore", *words, check=check, input=input, seconds=seconds
        )

    def says(self, *words: str) -> str:
        """What `kcore …` writes to stdout."""
        return self.kcore(*words).stdout.decode()

    def apply(self, text: str, *words: str) -> str:
        """`kcore apply -f -`."""
        return self.kcore("apply", "-f", "-", *words, input=text.encode()).stdout.decode()

    def up(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        """`kcore up`."""
        return self.kcore("up", "--root", str(self.root), "--node", self.name, *words)

    def down(self) -> subprocess.CompletedProcess[bytes]:
        """`kcore down`."""
        return self.kcore("down", "--root", str(self.root))

    def containers(self) -> Sequence[str]:
        """Ids of the containers that run, by the runtime's own word."""
        socket = self.root / "run" / "containerd" / "containerd.sock"
        done = self.run("ctr", "--address", str(socket), "-n", "k8s.io", "tasks", "ls")
        lines = done.stdout.decode().splitlines()[1:]
        return sorted(line.split()[0] for line in lines if "RUNNING" in line)


def make_machine(name: str) -> Machine:
    """A network namespace with an address and a way out of it that leads nowhere."""
    with contextlib.suppress(subprocess.CalledProcessError):
        subprocess.run(["ip", "netns", "delete", name], check=True, capture_output=True)
    for command in (
        f"ip netns add {name}",
        f"ip -n {name} link set lo up",
        f"ip -n {name} link add uplink type veth peer name far",
        f"ip -n {name} address add 198.51.100.2/24 dev uplink",
        f"ip -n {name} link set uplink up",
        f"ip -n {name} link set far up",
        f"ip -n {name} route add default via 198.51.100.1",
    ):
        subprocess.run(command.split(), check=True, capture_output=True)
    # Short: socket paths have 100 bytes.
    return Machine(name, Path(tempfile.mkdtemp(prefix="kc-", dir="/tmp")))


def remove_machine(machine: Machine) -> None:
    """As if it had never been, whatever state it is in."""
    machine.kcore("down", "--root", str(machine.root), check=False)
    subprocess.run(["ip", "netns", "delete", machine.name], check=False, capture_output=True)
    shutil.rmtree(machine.root, ignore_errors=True)


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    """A one-node cluster that all tests share; each uses a namespace of its own in it."""
    made = make_machine(f"kct{os.getpid()}")
    try:
        made.up()
        yield made
    finally:
        log = made.root / "state" / "kcore.log"
        if log.exists():
            kept = Path(tempfile.gettempdir()) / "kcore-test.log"
            shutil.copy(log, kept)
        remove_machine(made)


@pytest.fixture
def space(machine: Machine, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the cluster for one test."""
    name = request.node.name.replace("test_", "").replace("_", "-")[:40].strip("-")
    machine.kcore("create", "namespace", name)
    yield name
    machine.kcore("delete", "namespace", name, "--wait=false", check=False)
