"""Three nodes: pods, services and nodes reach one another, whatever dies or is taken away.

Pods are real; who talks and who answers are small programs of the test's in their network
namespaces, so that everything can be asked of them.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.machine import HERE

NODES = 3
PORT = 8080
NAMESPACES = Path("/run/netns")

SERVER = """
import socket, sys, threading

name, port = sys.argv[1], int(sys.argv[2])

def talk(connection, peer):
    with connection:
        while connection.recv(65536):
            connection.sendall(f"{name} {peer[0]}\\n".encode())

def flows():
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("", port))
    while True:
        _, peer = server.recvfrom(65536)
        server.sendto(f"{name} {peer[0]}\\n".encode(), peer)

threading.Thread(target=flows, daemon=True).start()
server = socket.create_server(("", port), backlog=64)
print("ready", flush=True)
while True:
    threading.Thread(target=talk, args=server.accept(), daemon=True).start()
"""

# Asks several times, of several; each answer is "name address-that-it-saw", or what went wrong.
CLIENT = """
import json, socket, sys, time

def ask(protocol, address, port):
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as one:
        one.settimeout(5)
        try:
            one.connect((address, port))
            one.send(b"?")
            return one.recv(999).decode().strip()
        except (ConnectionRefusedError, PermissionError):
            return "refused"
        except OSError as error:
            return repr(error)

print(json.dumps([ask(*one) for one in json.loads(sys.argv[1])]))
"""

# Keeps one connection, and says a line for each that it was answered.
KEEPER = """
import socket, sys, time

one = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
one.settimeout(5)
while True:
    one.send(b"?")
    print(one.recv(999).decode().strip(), flush=True)
    time.sleep(0.1)
"""

PODS = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {name: main, image: "kcore.local/busybox:1", command: [sleep, "100000"]}
"""
SERVICES = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports:
  - {name: tcp, port: 80, targetPort: 8080, nodePort: 30080}
  - {name: udp, protocol: UDP, port: 80, targetPort: 8080, nodePort: 30080}
---
apiVersion: v1
kind: Service
metadata: {name: sticky}
spec:
  selector: {app: web}
  sessionAffinity: ClientIP
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: nobody}
spec:
  type: NodePort
  selector: {app: nobody}
  ports: [{port: 80, nodePort: 30081}]
"""
MIRROR = """
apiVersion: v1
kind: Service
metadata: {name: mirror}
spec:
  selector: {only: me}
  ports: [{port: 80, targetPort: 8080}]
"""

Ask = tuple[str, str, int]


@dataclass
class Lab:
    """A cluster of nodes in namespaces, and what runs in them for the test."""

    root: Path
    name: str
    nodes: int
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    def kcore(self, *words: str, input: str | None = None, check: bool = True) -> str:
        """The command line, as the lab's user has it."""
        done = subprocess.run(
            [sys.executable, "-m", "kcore", *words],
            input=input,
            capture_output=True,
            text=True,
            timeout=300,
            env={
                **os.environ,
                "KUBECONFIG": str(self.root / "kubeconfig"),
                "PYTHONPATH": f"{HERE}:{HERE / 'generated'}",
            },
            cwd="/",
        )
        if check and done.returncode:
            raise AssertionError(f"kcore {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def get(self, *words: str) -> dict:
        """An object, or a list of them."""
        return json.loads(self.kcore("get", *words, "-o", "json"))

    def node(self, number: int) -> Path:
        """A node's network namespace."""
        return NAMESPACES / f"kcore-{self.name}-{number}"

    def address(self, number: int) -> str:
        """A node's address."""
        return address_in(self.node(number))

    def pods(self) -> dict[str, tuple[str, Path]]:
        """Address and network namespace of each pod of the deployment that runs, by its name."""
        pods = self.get("pods", "-l", "app=web")["items"]
        # After them: one that comes meanwhile is left out, as one that has no container yet.
        spaces = {address_in(path): path for path in self.spaces()}
        found = {}
        for pod in pods:
            address = pod["status"].get("podIP")
            if "deletionTimestamp" not in pod["metadata"] and address in spaces:
                found[pod["metadata"]["name"]] = (address, spaces[address])
        return found

    def spaces(self) -> Iterator[Path]:
        """The network namespaces of all containers."""
        for number in range(1, self.nodes + 1):
            socket = self.root / str(number) / "run" / "containerd" / "containerd.sock"
            lines = run("ctr", "--address", str(socket), "-n", "k8s.io", "tasks", "ls")
            for line in lines.splitlines()[1:]:
                yield Path(f"/proc/{line.split()[1]}/ns/net")

    def serve(self, space: Path, name: str, port: int = PORT) -> None:
        """Somebody answers there, until the end."""
        started = self.start(space, SERVER, name, str(port))
        assert started.stdout is not None and started.stdout.readline() == "ready\n"

    def start(self, space: Path, program: str, *words: str) -> subprocess.Popen[str]:
        """Runs a program there."""
        one = subprocess.Popen(
            ["nsenter", f"--net={space}", sys.executable, "-c", program, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.running.append(one)
        return one

    def ask(self, space: Path, *asked: Ask) -> list[str]:
        """What is answered to whom is there."""
        done = run("nsenter", f"--net={space}", sys.executable, "-c", CLIENT, json.dumps(asked))
        return json.loads(done)

    def cluster_ip(self, name: str) -> str:
        """A service's address."""
        return self.get("service", name)["spec"]["clusterIP"]

    def kill(self, number: int) -> None:
        """Ends kcore's programs of a node (0: of the control plane) by SIGKILL; no parent."""
        killed = 0
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = path.read_bytes().decode().split("\0")
                own = str(self.root / str(number)) in words
                if own and words[1:3] == ["-m", "kcore"] and words[3] in ("rooms", "apiserver"):
                    os.kill(int(path.parent.name), signal.SIGKILL)
                    killed += 1
        assert killed


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def address_in(space: Path) -> str:
    """The address of a namespace's eth0; "" if it has none (any more)."""
    command = ["nsenter", f"--net={space}", "ip", "-4", "-j", "address", "show", "eth0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return ""
    found = [one for link in json.loads(done.stdout) for one in link.get("addr_info", ())]
    return str(found[0]["local"]) if found else ""


def eventually(true: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never comes"
        time.sleep(0.2)


@contextlib.contextmanager
def lab_of(nodes: int, letter: str, *more: str) -> Iterator[Lab]:
    root = Path(tempfile.mkdtemp(prefix="kl", dir="/tmp"))
    # Its own name and addresses: others may test on this machine, too.
    name = f"{letter}{os.getpid() % 1_000_000}"
    network = 60 + os.getpid() % 90 + (90 if more else 0)
    made = Lab(root, name, nodes)
    place = ("--root", str(root), "--name", name)
    try:
        made.kcore("lab", "up", str(nodes), *place, "--network", str(network), *more)
        made.kcore("apply", "-f", "-", "--wait", input=PODS)
        for pod, (_, space) in made.pods().items():
            made.serve(space, pod)
        yield made
    finally:
        for one in made.running:
            one.kill()
            one.wait()
        made.kcore("lab", "down", *place, check=False)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Three nodes on one link, each with a pod that answers, and services before them."""
    with lab_of(NODES, "t") as made:
        made.kcore("apply", "-f", "-", input=SERVICES)
        for number in range(1, NODES + 1):
            made.serve(made.node(number), f"node-{number}")
        address = made.cluster_ip("web")
        for space in [made.node(1), made.node(2), made.node(3)]:
            eventually(lambda space=space: made.ask(space, ("tcp", address, 80)) != ["refused"])
        yield made


def test_pods_are_on_several_nodes(lab: Lab) -> None:
    nodes = {pod["spec"]["nodeName"] for pod in lab.get("pods", "-l", "app=web")["items"]}
    assert len(nodes) > 1


def test_every_pod_reaches_every_pod_by_its_own_address(lab: Lab) -> None:
    pods = lab.pods()
    assert len(pods) == 3
    for _, (own, space) in pods.items():
        asked = [(how, address, PORT) for how in ("tcp", "udp") for address, _ in pods.values()]
        assert lab.ask(space, *asked) == [f"{name} {own}" for name in pods] * 2


def test_every_pod_reaches_every_node_and_every_node_every_pod(lab: Lab) -> None:
    nodes = range(1, NODES + 1)
    pods = lab.pods()
    for _, space in pods.values():
        found = lab.ask(space, *(("tcp", lab.address(number), PORT) for number in nodes))
        assert [each.split()[0] for each in found] == [f"node-{number}" for number in nodes]
    for number in nodes:
        found = lab.ask(lab.node(number), *(("tcp", address, PORT) for address, _ in pods.values()))
        assert [each.split()[0] for each in found] == list(pods)


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_service_is_reached_from_pods_and_nodes(lab: Lab, protocol: str) -> None:
    pods = lab.pods()
    address = lab.cluster_ip("web")
    for own, space in pods.values():
        found = lab.ask(space, *[(protocol, address, 80)] * 40)
        assert {each.split()[0] for each in found} == set(pods)
        # Whoever answers sees the pod itself; but where a pod has met itself.
        for name, (other, _) in pods.items():
            seen = {each.split()[1] for each in found if each.split()[0] == name}
            assert seen == {own} or other == own
    for number in range(1, NODES + 1):
        found = lab.ask(lab.node(number), *[(protocol, address, 80)] * 40)
        assert {each.split()[0] for each in found} == set(pods)


def test_services_have_names_on_every_node(lab: Lab) -> None:
    address = lab.cluster_ip("web")
    for name in lab.pods():
        for word in ("web", "web.default", "web.default.svc.cluster.local"):
            # It says whom it means before it sends anything. (nslookup of busybox asks for all
            # names of the search list at once, and waits for servers of the world outside.)
            found = lab.kcore("exec", name, "--", "ping", "-c1", "-W1", word, check=False)
            assert f"({address})" in found, found


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_node_port_answers_on_every_node(lab: Lab, protocol: str) -> None:
    pods = lab.pods()
    asked = [(protocol, lab.address(number), 30080) for number in range(1, NODES + 1)]
    # From outside, from a node, from a pod.
    spaces = [Path("/proc/self/ns/net"), lab.node(1), *(space for _, space in pods.values())]
    for space in spaces:
        assert {each.split()[0] for each in lab.ask(space, *asked)} <= set(pods)


def test_a_pod_reaches_itself_through_its_own_service(lab: Lab) -> None:
    name, (_, space) = next(iter(lab.pods().items()))
    lab.kcore("label", "pod", name, "only=me")
    lab.kcore("apply", "-f", "-", input=MIRROR)
    address = lab.cluster_ip("mirror")
    eventually(lambda: lab.ask(space, ("tcp", address, 80))[0].split()[0] == name)
    assert {each.split()[0] for each in lab.ask(space, *[("tcp", address, 80)] * 10)} == {name}


def test_a_client_stays_with_its_pod(lab: Lab) -> None:
    address = lab.cluster_ip("sticky")
    for _, space in lab.pods().values():
        found = lab.ask(space, *[("tcp", address, 80)] * 20)
        assert len(found) == 20 and len(set(found)) == 1


def test_where_nobody_is_it_is_refused(lab: Lab) -> None:
    address = lab.cluster_ip("nobody")
    asked = [("tcp", address, 80), ("udp", address, 80), ("tcp", "10.96.77.77", 80)]
    asked += [("tcp", lab.address(number), 30081) for number in range(1, NODES + 1)]
    for space in (lab.node(1), next(iter(lab.pods().values()))[1]):
        begun = time.monotonic()
        assert lab.ask(space, *asked) == ["refused"] * len(asked)
        # Else each had waited for five seconds.
        assert time.monotonic() - begun < 5 * len(asked)


def test_the_api_is_reached_through_its_service(lab: Lab) -> None:
    program = "import socket; socket.create_connection(('10.96.0.1', 443), 5)"
    for space in (lab.node(2), next(iter(lab.pods().values()))[1]):
        run("nsenter", f"--net={space}", sys.executable, "-c", program)


@pytest.mark.parametrize(
    "harm",
    [
        "nft flush ruleset",
        "nft delete table ip kcore",
        "nft flush chain ip kcore tcp-new",
        "ip route flush proto 107",
    ],
)
def test_what_a_hand_takes_away_comes_back(lab: Lab, harm: str) -> None:
    address = lab.cluster_ip("web")
    pods = lab.pods()
    run("nsenter", f"--net={lab.node(1)}", *harm.split())

    def is_whole() -> bool:
        asked = [("tcp", address, 80)] * 5 + [("tcp", pod, PORT) for pod, _ in pods.values()]
        return {each.split()[0] for each in lab.ask(lab.node(1), *asked)} == set(pods)

    eventually(is_whole)
    eventually(
        lambda: "masquerade" in run("nsenter", f"--net={lab.node(1)}", "nft", "list", "ruleset")
    )


def test_connections_outlive_all_of_kcore(lab: Lab) -> None:
    address = lab.cluster_ip("web")
    keepers = [lab.start(lab.node(number), KEEPER, address, "80") for number in range(1, NODES + 1)]
    for number in range(NODES + 1):
        lab.kill(number)
    for keeper in keepers:
        # Lines go on, from the same pod, for as long as it takes all to come back.
        assert keeper.stdout is not None
        lines = [keeper.stdout.readline() for _ in range(30)]
        assert len(set(lines)) == 1 and lines[0]
    # Rules are as they were, and follow what happens then.
    eventually(lambda: bool(lab.kcore("get", "nodes", check=False)))
    gone, _ = next(iter(lab.pods().items()))
    lab.kcore("delete", "pod", gone)
    eventually(lambda: len(lab.pods()) == 3 and gone not in lab.pods(), 120)
    pods = lab.pods()
    local = ("tcp", "127.0.0.1", PORT)
    (new,) = (name for name, (_, space) in pods.items() if lab.ask(space, local) == ["refused"])
    lab.serve(pods[new][1], new)
    for number in range(1, NODES + 1):
        eventually(
            lambda number=number: (
                {
                    each.split()[0]
                    for each in lab.ask(lab.node(number), *[("tcp", address, 80)] * 40)
                }
                == set(pods)
            )
        )
    for keeper in keepers:
        keeper.kill()


def test_nodes_on_links_of_their_own_use_a_tunnel() -> None:
    with lab_of(2, "a", "--apart") as made:
        pods = made.pods()
        link = run("nsenter", f"--net={made.node(1)}", "ip", "link", "show", "kcore-vxlan")
        assert "mtu 1450" in link
        for own, space in pods.values():
            asked = [("tcp", address, PORT) for address, _ in pods.values()]
            assert made.ask(space, *asked) == [f"{name} {own}" for name in pods]
        # More than a packet: what is too long for the tunnel finds out.
        program = (
            "import socket, sys\n"
            "one = socket.create_connection((sys.argv[1], 8080), 5)\n"
            "one.settimeout(5)\n"
            "one.sendall(b'x' * 1_000_000)\n"
            "assert one.recv(999)\n"
        )
        for _, space in pods.values():
            for address, _ in pods.values():
                run("nsenter", f"--net={space}", sys.executable, "-c", program, address)
