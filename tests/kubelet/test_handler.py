"""How containers are asked, against real servers on this machine."""

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from kcore_api.kcore.core.v1 import container_pb2
from kcore_api.kcore.meta.v1 import meta_pb2
from kcore_api.runtime.v1 import api_pb2 as pb

from kcore.chance import Chance
from kcore.clock import SystemClock
from kcore.kubelet import cri, handler
from kcore.sim.runtime import Command, Runtime, Speed

Handler = container_pb2.ProbeHandler
HOST = "127.0.0.1"


def place(
    port: int = 0, *, runtime: cri.Runtime | None = None, container: str = "none"
) -> handler.Place:
    """A container whose port "web" is this one."""
    spec = container_pb2.Container(name="a")
    if port:
        spec.ports.add(name="web", container_port=port)
    return handler.Place(runtime or Runtime(SystemClock(), Chance(1)), container, spec, HOST)


def number(port: int) -> meta_pb2.IntOrString:
    return meta_pb2.IntOrString(type=0, int_val=port)


def name(text: str) -> meta_pb2.IntOrString:
    return meta_pb2.IntOrString(type=1, str_val=text)


@asynccontextmanager
async def server(
    answer: Callable[[str], bytes | None], tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[int, list[str]]]:
    """An HTTP server: answers requests as told (None: never); its port, and the requests."""
    seen: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        seen.append(request)
        said = answer(request.split(" ")[1])
        if said is None:
            await reader.read()
        else:
            writer.write(said)
            await writer.drain()
        writer.close()

    made = await asyncio.start_server(serve, HOST, 0, ssl=tls)
    try:
        yield made.sockets[0].getsockname()[1], seen
    finally:
        made.close()


def http(status: int, *headers: str, body: bytes = b"hello") -> bytes:
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


async def get(port: int, seconds: int = 5, **action: object) -> handler.Answer:
    """A probe's HTTP request."""
    made = Handler()
    made.http_get.port.CopyFrom(number(port))
    for field, value in action.items():
        setattr(made.http_get, field, value)
    return await handler.ask(made, place(port), seconds)


@pytest.mark.parametrize(
    ("status", "is_success"),
    [(200, True), (204, True), (299, True), (304, True), (399, True), (400, False), (404, False),
     (500, False), (503, False)],
)  # fmt: skip
async def test_http_200_to_399_is_success(status: int, is_success: bool) -> None:
    async with server(lambda _: http(status, body=b"")) as (port, _):
        answer = await get(port)
        assert answer.is_success is is_success
        if not is_success:
            assert answer.said == f"HTTP probe failed with statuscode: {status}"


async def test_what_an_http_server_is_sent() -> None:
    async with server(lambda _: http(200)) as (port, seen):
        assert (await get(port)).is_success
        assert seen[0].splitlines()[0] == "GET / HTTP/1.1"
        assert f"Host: {HOST}:{port}" in seen[0]
        assert "User-Agent: kube-probe/" in seen[0]
        made = Handler()
        made.http_get.port.CopyFrom(name("web"))
        made.http_get.path = "/a b?c=d%20e"
        made.http_get.http_headers.add(name="Host", value="me.example")
        made.http_get.http_headers.add(name="X-Two", value="1")
        made.http_get.http_headers.add(name="X-Two", value="2")
        assert (await handler.ask(made, place(port), 5)).is_success
        assert seen[1].splitlines()[0] == "GET /a%20b?c=d%20e HTTP/1.1"
        assert "Host: me.example" in seen[1] and "127.0.0.1" not in seen[1]
        assert "X-Two: 1" in seen[1] and "X-Two: 2" in seen[1]


async def test_redirects_are_followed_on_the_same_host_only() -> None:
    def answer(path: str) -> bytes:
        match path:
            case "/here":
                return http(302, "Location: /there")
            case "/away":
                return http(302, "Location: http://elsewhere.invalid/")
            case "/round":
                return http(302, "Location: /round")
        return http(500)

    async with server(answer) as (port, _):
        assert (await get(port, path="/here")).said.endswith("statuscode: 500")
        away = await get(port, path="/away")
        assert away.is_success and away.is_odd
        assert (await get(port, path="/round")).said.endswith("stopped after 10 redirects")


async def test_a_body_without_end_is_left() -> None:
    def answer(path: str) -> bytes:
        return http(200, body=b"x" * 2_000_000)

    async with server(answer) as (port, _):
        action = container_pb2.HTTPGetAction(port=number(port))
        found = await handler.fetch(action, place(), "me")
        assert len(found.body) == handler.MOST_BODY_BYTES


async def test_certificates_are_not_checked(tmp_path: Path) -> None:
    async with server(lambda _: http(200), self_signed(tmp_path)) as (port, _):
        assert (await get(port, scheme="HTTPS")).is_success
        assert not (await get(port)).is_success


async def test_servers_that_do_not_answer() -> None:
    async with server(lambda _: None) as (port, _):
        assert (await get(port, seconds=1)) == handler.Answer(False, "no answer within 1 s")
    refused = await get(port)
    assert refused == handler.Answer(False, f'Get "http://{HOST}:{port}/": connection refused')
    async with server(lambda _: b"what?\r\n\r\n") as (port, _):
        assert (await get(port)).is_success is False
    unknown = await handler.ask(
        Handler(http_get=container_pb2.HTTPGetAction(port=name("nope"))), place(), 1
    )
    assert unknown == handler.Answer(None, 'container a has no port named "nope"')


async def test_tcp() -> None:
    async with server(lambda _: http(200)) as (port, _):
        made = Handler(tcp_socket=container_pb2.TCPSocketAction(port=name("web")))
        assert (await handler.ask(made, place(port), 1)).is_success
    refused = await handler.ask(made, place(port), 1)
    assert refused == handler.Answer(False, f"dial {HOST}:{port}: connection refused")


async def test_grpc() -> None:
    serving = health.aio.HealthServicer()
    here = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(serving, here)
    port = here.add_insecure_port(f"{HOST}:0")
    await here.start()
    states = health_pb2.HealthCheckResponse
    await serving.set("", states.SERVING)
    await serving.set("broken", states.NOT_SERVING)
    said = {}
    for service in ("", "broken", "unknown"):
        made = Handler(grpc=container_pb2.GRPCAction(port=port, service=service))
        said[service] = await handler.ask(made, place(), 2)
    assert said[""] == handler.Answer(True)
    assert said["broken"].said == 'service unhealthy (responded with "NOT_SERVING")'
    assert "NOT_FOUND" in said["unknown"].said and said["unknown"].is_success is False
    await here.stop(None)
    made = Handler(grpc=container_pb2.GRPCAction(port=port))
    assert (await handler.ask(made, place(), 1)).is_success is False


async def test_exec() -> None:
    now = (0.0, 0.0)
    runtime = Runtime(SystemClock(), Chance(1), speed=Speed(now, now, now, now))
    runtime.commands |= {
        "well done": Command(0, "fine\n"),
        "badly": Command(1, "bad\n"),
        "mute": Command(2),
        "slow": Command(seconds=9),
    }
    box = pb.PodSandboxConfig()
    await runtime.pull_image(pb.ImageSpec(image="a:1"))
    config = pb.ContainerConfig(image=pb.ImageSpec(image="a:1"))
    there = await runtime.create_container(await runtime.run_pod_sandbox(box), config, box)
    made = Handler(exec=container_pb2.ExecAction(command=["well", "done"]))
    # That the runtime fails says nothing about the container.
    early = await handler.ask(made, place(runtime=runtime, container=there), 1)
    assert early.is_success is None and "not running" in early.said
    await runtime.start_container(there)
    said = []
    for words in (["well", "done"], ["badly"], ["mute"], ["slow"]):
        made = Handler(exec=container_pb2.ExecAction(command=words))
        said.append(await handler.ask(made, place(runtime=runtime, container=there), 1))
    assert said == [
        handler.Answer(True, "fine"),
        handler.Answer(False, "bad"),
        handler.Answer(False, "exit code 2"),
        handler.Answer(False, 'command "slow" took longer than 1 s'),
    ]


async def test_hooks() -> None:
    clock = SystemClock()
    made = container_pb2.LifecycleHandler()
    made.sleep.seconds = 0
    assert (await handler.run(made, place(), clock, 1)).is_success
    made = container_pb2.LifecycleHandler()
    made.sleep.seconds = 5
    late = await handler.run(made, place(), clock, 1)
    assert late == handler.Answer(False, "it took longer than 1 s")
    # Whatever a server answers, it has been told.
    async with server(lambda _: http(500)) as (port, seen):
        made = container_pb2.LifecycleHandler()
        made.http_get.port.CopyFrom(number(port))
        assert (await handler.run(made, place(), clock, 1)).is_success
        assert "User-Agent: kube-lifecycle/" in seen[0]
    assert (await handler.run(made, place(), clock, 1)).is_success is False


def self_signed(directory: Path) -> ssl.SSLContext:
    """A server's TLS, of a certificate that nobody trusts and that is over."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "nobody")])
    day = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    cert = (
        x509.CertificateBuilder().subject_name(who).issuer_name(who).public_key(key.public_key())
        .serial_number(1).not_valid_before(day).not_valid_after(day + datetime.timedelta(1))
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = directory / "pem"
    pem.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + cert.public_bytes(serialization.Encoding.PEM)
    )
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(pem)
    return made
