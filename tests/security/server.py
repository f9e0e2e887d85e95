"""A real apiserver in a process of its own, and what can be seen of it from outside."""

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import kcore_api
from kcore_api.kcore.api.v1 import auth_pb2

from kcore.boot import certificates, place
from kcore.boot.setup import Setup
from kcore.chance import Chance
from kcore.client.kubeconfig import Target
from kcore.clock import SystemClock

MIB = 1 << 20
WHO = "/kcore.api.v1.AuthService/WhoAmI"


@dataclass(frozen=True)
class Server:
    """The process, and how it is reached."""

    process: subprocess.Popen[bytes]
    setup: Setup

    @property
    def token(self) -> str:
        return self.setup.place.admin_token.read_text().strip()

    @property
    def where(self) -> str:
        return f"127.0.0.1:{self.setup.port}"

    @property
    def target(self) -> Target:
        """As the cluster's owner, over TLS."""
        ca = self.setup.place.ca.read_bytes()
        return Target(grpc=self.where, authority=ca, token=self.token)

    @property
    def rss(self) -> int:
        """Bytes of memory."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("the apiserver has died")

    @property
    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def dial(self) -> ssl.SSLSocket:
        """A TLS connection for HTTP/2, by hand."""
        context = ssl.create_default_context(cafile=str(self.setup.place.ca))
        context.set_alpn_protocols(["h2"])
        plain = socket.create_connection(("127.0.0.1", self.setup.port), timeout=5)
        return context.wrap_socket(plain, server_hostname="127.0.0.1")

    def ask(self) -> float:
        """Another user's call, over a connection of its own; seconds that it took."""
        started = time.monotonic()
        wrapped = grpc.ssl_channel_credentials(self.setup.place.ca.read_bytes())
        options = (
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.service_config", kcore_api.SERVICE_CONFIG.read_text()),
        )
        with grpc.secure_channel(self.where, wrapped, options=options) as channel:
            metadata = (
                ("authorization", f"Bearer {self.token}"),
                ("kcore-impersonate-user", "healthy"),
            )
            answer = channel.unary_unary(WHO)(b"", metadata=metadata, timeout=5)
        assert auth_pb2.WhoAmIResponse.FromString(answer).user == "healthy"
        return time.monotonic() - started


@contextmanager
def running(directory: Path, limit: str = "") -> Iterator[Server]:
    """An apiserver below `directory`; `limit`: a command that runs it, "prlimit --nofile=64"."""
    setup = Setup(place.Place.under(directory), "n1", _free_ports())
    setup.place.make()
    certificates.ensure(
        setup.place.pki, setup.place.ca, "n1", SystemClock(), Chance(), addresses=[]
    )
    log = (directory / "log").open("wb")
    root = Path(__file__).parent.parent.parent
    process = subprocess.Popen(
        [*limit.split(), sys.executable, *setup.arguments("apiserver")[1:]],
        stderr=log,
        cwd=root,
        env={**os.environ, "PYTHONPATH": f"{root}:{root / 'generated'}"},
    )
    server = Server(process, setup)
    try:
        for _ in range(200):
            try:
                server.ask()
                break
            except (grpc.RpcError, OSError):
                assert process.poll() is None, (directory / "log").read_text()
                time.sleep(0.05)
        yield server
        assert process.poll() is None, "the apiserver has died"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        log.close()


def _free_ports() -> int:
    """A port with its two neighbours free."""
    for port in range(20_000 + os.getpid() % 10_000, 60_000, 7):
        try:
            for number in (port - 1, port, port + 2):
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", number))
            return port
        except OSError:
            continue
    raise AssertionError("no ports are free")
