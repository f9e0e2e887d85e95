"""A real CoreDNS on the files that the room writes, asked over UDP and TCP."""

import asyncio
import contextlib
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import pytest
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import pool_pb2, service_pb2
from kcore_api.kcore.discovery.v1 import endpoint_slice_pb2

from kcore.chance import Chance
from kcore.clock import SystemClock
from kcore.dns import run as room
from tests.apiserver.world import World, world
from tests.kernel.world import namespace

BESIDE = Path(sys.executable).parent / "coredns"
PROGRAM = str(BESIDE) if BESIDE.exists() else shutil.which("coredns")
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="make coredns builds it")
DOMAIN = "cluster.local"


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Names:
    """What a server on this port answers."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, name: str, kind: str, tcp: bool = False) -> dns.message.Message:
        asked = dns.message.make_query(name, kind)
        answer = dns.query.tcp if tcp else dns.query.udp
        return answer(asked, "127.0.0.1", port=self.port, timeout=2)

    def get(self, name: str, kind: str = "A", tcp: bool = False) -> list[str] | str:
        """The answers as text, sorted; or the code where there is no such name."""
        answer = self.ask(name, kind, tcp)
        if answer.rcode():
            return dns.rcode.to_text(answer.rcode())
        return sorted(data.to_text() for found in answer.answer for data in found)

    async def until(self, name: str, kind: str, expected: list[str] | str) -> None:
        for _ in range(100):
            with contextlib.suppress(Exception):
                if await asyncio.to_thread(self.get, name, kind) == expected:
                    return
            await asyncio.sleep(0.05)
        raise AssertionError((name, kind, self.get(name, kind), expected))


@contextlib.asynccontextmanager
async def served(tmp_path: Path) -> AsyncIterator[tuple[World, Names, Path]]:
    """The room at work on a kernel, and a CoreDNS on what it writes."""
    directory = tmp_path / "dns"
    nothing = tmp_path / "resolv.conf"
    nothing.write_text("")
    async with world(tmp_path) as here:
        pool = pool_pb2.Pool(spec=pool_pb2.PoolSpec(cidr="10.96.0.0/16"))
        pool.metadata.name = "service-ips"
        await put(here, pool)
        await put(here, namespace("shop"))
        work = asyncio.create_task(
            room.run(
                here.session(),
                directory,
                str(directory),
                "10.96.0.10",
                SystemClock(),
                Chance(2),
                nothing,
            )
        )
        corefile = directory / "Corefile"
        while not corefile.exists():
            await asyncio.sleep(0.02)
        text = corefile.read_text()
        for line in ("health :8080", "ready :8181", "prometheus :9153"):
            # Ports that others may have.
            text = text.replace(f"    {line}\n", "")
        corefile = tmp_path / "Corefile"
        corefile.write_text(text)
        process, names = await started(corefile)
        try:
            await names.until("dns-version.cluster.local", "TXT", ['"1.1.0"'])
            yield here, names, directory
        finally:
            process.kill()
            process.wait()
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)


async def started(corefile: Path) -> tuple[subprocess.Popen[bytes], Names]:
    """A CoreDNS that answers; on another port where somebody was faster."""
    while True:
        names = Names(free_port())
        command = [str(PROGRAM), "-conf", str(corefile), "-dns.port", str(names.port)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            with contextlib.suppress(Exception):
                # It listens for both, or it ends.
                await asyncio.to_thread(names.get, "dns-version.cluster.local", "TXT", True)
                return process, names
            await asyncio.sleep(0.05)


async def put(here: World, obj: object, **delete: object) -> None:
    request = pb.CommitRequest()
    operation = request.transactions.add().operations.add()
    operation.ref.kind = obj.DESCRIPTOR.full_name  # type: ignore[attr-defined]
    operation.apply.object = obj.SerializeToString()  # type: ignore[attr-defined]
    operation.apply.force = True
    request.transactions[0].manager = "test"
    await here.session().commit(request)


async def remove(here: World, kind: str, name: str) -> None:
    request = pb.CommitRequest()
    operation = request.transactions.add().operations.add()
    operation.ref.CopyFrom(pb.Ref(kind=kind, namespace="shop", name=name))
    operation.delete.SetInParent()
    await here.session().commit(request)


def service(name: str, address: str, **ports: int) -> service_pb2.Service:
    made = service_pb2.Service()
    made.metadata.name, made.metadata.namespace = name, "shop"
    made.spec.cluster_ip = address
    made.spec.type = "ClusterIP"
    for port, number in ports.items():
        made.spec.ports.add(name=port, port=number, protocol="TCP")
    return made


def slice_of(name: str, *endpoints: tuple[str, str, bool]) -> endpoint_slice_pb2.EndpointSlice:
    made = endpoint_slice_pb2.EndpointSlice(address_type="IPv4")
    made.metadata.name, made.metadata.namespace = f"{name}-1", "shop"
    made.metadata.labels[room.SERVICE_NAME] = name
    for address, host, ready in endpoints:
        one = made.endpoints.add(addresses=[address])
        one.conditions.ready = ready
        if host:
            one.hostname = host
    made.ports.add(name="http", port=8080, protocol="TCP")
    return made


async def test_names_are_answered_as_the_specification_says(tmp_path: Path) -> None:
    async with served(tmp_path) as (here, names, _):
        await put(here, service("web", "10.96.1.2", http=80))
        await names.until("web.shop.svc.cluster.local", "A", ["10.96.1.2"])
        for tcp in (False, True):
            assert names.get("WEB.Shop.svc.CLUSTER.local", "A", tcp) == ["10.96.1.2"]
        assert names.get("_http._tcp.web.shop.svc.cluster.local", "SRV") == [
            "0 100 80 web.shop.svc.cluster.local."
        ]
        assert names.get("2.1.96.10.in-addr.arpa", "PTR") == ["web.shop.svc.cluster.local."]
        # The name is there, but has no such record; and a name that is not there.
        assert names.get("web.shop.svc.cluster.local", "AAAA") == []
        assert names.get("nobody.shop.svc.cluster.local") == "NXDOMAIN"
        assert names.get("9.9.96.10.in-addr.arpa", "PTR") == "NXDOMAIN"
        answer = names.ask("web.shop.svc.cluster.local", "A")
        assert 5 <= answer.answer[0].ttl <= 30 and answer.flags & dns.flags.AA


async def test_headless_services_follow_their_endpoints(tmp_path: Path) -> None:
    async with served(tmp_path) as (here, names, _):
        name = "db.shop.svc.cluster.local"
        await put(here, service("db", "None", http=80))
        await put(here, slice_of("db", ("10.244.1.2", "db-0", True), ("10.244.1.3", "", False)))
        await names.until(name, "A", ["10.244.1.2"])
        assert names.get(f"db-0.{name}") == ["10.244.1.2"]
        assert names.get("2.1.244.10.in-addr.arpa", "PTR") == [f"db-0.{name}."]
        assert names.get(f"_http._tcp.{name}", "SRV") == [f"0 100 8080 db-0.{name}."]
        await put(here, slice_of("db", ("10.244.1.2", "db-0", True), ("10.244.1.3", "", True)))
        await names.until(name, "A", ["10.244.1.2", "10.244.1.3"])
        await put(here, slice_of("db", ("10.244.1.2", "db-0", False)))
        await names.until(name, "A", "NXDOMAIN")


async def test_S79_what_is_deleted_is_no_name_and_nothing_is_listed(tmp_path: Path) -> None:
    async with served(tmp_path) as (here, names, _):
        await put(here, service("gone", "10.96.3.3", http=80))
        await names.until("gone.shop.svc.cluster.local", "A", ["10.96.3.3"])
        await remove(here, "kcore.core.v1.Service", "gone")
        await names.until("gone.shop.svc.cluster.local", "A", "NXDOMAIN")
        for name in (
            "*.svc.cluster.local",
            "any.any.svc.cluster.local",
            "*.shop.svc.cluster.local",
        ):
            assert names.get(name) == "NXDOMAIN", name
        asked = dns.message.make_query(DOMAIN, "AXFR")
        answer = await asyncio.to_thread(
            dns.query.tcp, asked, "127.0.0.1", port=names.port, timeout=2
        )
        assert answer.rcode() in (dns.rcode.REFUSED, dns.rcode.SERVFAIL, dns.rcode.NOTIMP)
        assert not answer.answer


async def test_another_name_is_an_alias(tmp_path: Path) -> None:
    async with served(tmp_path) as (here, names, _):
        made = service("out", "")
        made.spec.ClearField("cluster_ip")
        made.spec.type, made.spec.external_name = "ExternalName", "www.example.com"
        await put(here, made)
        await names.until("out.shop.svc.cluster.local", "CNAME", ["www.example.com."])
