"""How the kubelet asks a container something: exec, httpGet, tcpSocket, grpc, sleep.

`ask` puts a probe's question once, `run` does what a lifecycle hook says; both end within the
seconds that they are given, whatever the other side does. Requests come from this machine to the
pod's address; certificates are not checked, redirects are followed on the same host only, and of a
body no more than 10 KiB is read.

It must not know thresholds, nor what follows from an answer.
"""

import asyncio
import ssl
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass

import grpc
import h11
from grpc_health.v1 import health_pb2, health_pb2_grpc
from kcore_api.kcore.core.v1 import container_pb2
from kcore_api.kcore.meta.v1 import meta_pb2

from kcore.clock import Clock
from kcore.kubelet import cri

MOST_BODY_BYTES = 10 * 1024
MOST_SAID = 1024
MOST_REDIRECTS = 10
_REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a container is found."""

    runtime: cri.Runtime
    id: str
    spec: container_pb2.Container
    # Of its pod.
    address: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of it; None: nothing, it could not be asked.

    `is_odd`: it succeeds, but people should know what was said.
    """

    is_success: bool | None
    said: str = ""
    is_odd: bool = False


@dataclass(frozen=True, slots=True)
class Response:
    """Of an HTTP server: its status, where it redirects to, and the first bytes of its body."""

    status: int
    location: str
    body: bytes


class _Unaskable(Exception):
    """The question leads nowhere."""


async def ask(handler: container_pb2.ProbeHandler, place: Place, seconds: int) -> Answer:
    """One answer to a probe's question."""
    try:
        async with asyncio.timeout(None if handler.HasField("exec") else seconds):
            if handler.HasField("exec"):
                return await _exec(list(handler.exec.command), place, seconds)
            if handler.HasField("http_get"):
                return _judge(await fetch(handler.http_get, place, "kube-probe"))
            if handler.HasField("tcp_socket"):
                socket = handler.tcp_socket
                return await _connect(
                    socket.host or place.address, port_number(socket.port, place.spec)
                )
            return await _check(handler.grpc, place, seconds)
    except TimeoutError:
        return Answer(False, f"no answer within {seconds} s")
    except _Unaskable as error:
        return Answer(None, str(error))
    except (OSError, ValueError, h11.ProtocolError) as error:
        return Answer(False, _words(error))


async def run(
    handler: container_pb2.LifecycleHandler, place: Place, clock: Clock, seconds: int
) -> Answer:
    """Does what a hook says; `seconds` 0: however long it takes."""
    try:
        async with asyncio.timeout(seconds or None):
            if handler.HasField("exec"):
                return await _exec(list(handler.exec.command), place, seconds)
            if handler.HasField("http_get"):
                # Any answer is one: it is there to be told, not to be asked.
                await fetch(handler.http_get, place, "kube-lifecycle")
            if handler.HasField("sleep"):
                await clock.sleep(float(handler.sleep.seconds))
            return Answer(True)
    except TimeoutError:
        return Answer(False, f"it took longer than {seconds} s")
    except _Unaskable as error:
        return Answer(None, str(error))
    except (OSError, ValueError, h11.ProtocolError) as error:
        return Answer(False, _words(error))


def port_number(port: meta_pb2.IntOrString, spec: container_pb2.Container) -> int:
    """The number of a port, which may be given by its name."""
    number, name = port.int_val, port.str_val
    if port.type:
        named = [one.container_port for one in spec.ports if one.name == name]
        if not named and not name.isdecimal():
            raise _Unaskable(f'container {spec.name} has no port named "{name}"')
        number = named[0] if named else int(name)
    if not 0 < number < 65536:
        raise _Unaskable(f"{number} is not a port")
    return number


async def fetch(action: container_pb2.HTTPGetAction, place: Place, agent: str) -> Response:
    """What a server answers in the end, after redirects on its own host."""
    scheme = (action.scheme or "HTTP").lower()
    host, port = action.host or place.address, port_number(action.port, place.spec)
    path = action.path or "/"
    url = f"{scheme}://{_bracketed(host)}:{port}{path if path.startswith('/') else '/' + path}"
    headers = [(one.name, one.value) for one in action.http_headers]
    given = {name.lower() for name, _ in headers}
    for name, value in (("User-Agent", f"{agent}/kcore"), ("Accept", "*/*")):
        if name.lower() not in given:
            headers.append((name, value))
    for _ in range(MOST_REDIRECTS):
        try:
            response = await _get(url, headers)
        except (OSError, h11.ProtocolError) as error:
            raise ValueError(f'Get "{url}": {_words(error)}') from error
        if response.status not in _REDIRECTS or not response.location:
            return response
        there = urllib.parse.urljoin(url, response.location)
        if urllib.parse.urlsplit(there).hostname != urllib.parse.urlsplit(url).hostname:
            return response
        url = there
    raise ValueError(f'Get "{url}": stopped after {MOST_REDIRECTS} redirects')


async def _get(url: str, headers: Sequence[tuple[str, str]]) -> Response:
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    secure = parts.scheme == "https"
    reader, writer = await asyncio.open_connection(
        host, parts.port or (443 if secure else 80), ssl=_trusting() if secure else None
    )
    try:
        return await _exchange(reader, writer, parts, headers)
    finally:
        # Nobody waits for a farewell.
        writer.transport.abort()


async def _exchange(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    parts: urllib.parse.SplitResult,
    headers: Sequence[tuple[str, str]],
) -> Response:
    wire = h11.Connection(h11.CLIENT)
    target = urllib.parse.quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    sent = list(headers)
    if not any(name.lower() == "host" for name, _ in sent):
        sent.append(("Host", parts.netloc))
    request = h11.Request(
        method="GET",
        target=target + (f"?{parts.query}" if parts.query else ""),
        headers=[*sent, ("Connection", "close")],
    )
    writer.write((wire.send(request) or b"") + (wire.send(h11.EndOfMessage()) or b""))
    await writer.drain()
    status, location, body = 0, "", b""
    while len(body) < MOST_BODY_BYTES:
        event = wire.next_event()
        if event is h11.NEED_DATA:
            wire.receive_data(await reader.read(MOST_BODY_BYTES))
        elif isinstance(event, h11.Response):
            status = event.status_code
            location = next(
                (value.decode("latin-1") for name, value in event.headers if name == b"location"),
                "",
            )
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
            break
    return Response(status, location, bytes(body[:MOST_BODY_BYTES]))


def _judge(response: Response) -> Answer:
    if 200 <= response.status < 300:
        return Answer(True)
    if 300 <= response.status < 400:
        return Answer(True, "it redirects to another host, which is not followed", is_odd=True)
    return Answer(False, f"HTTP probe failed with statuscode: {response.status}")


def _trusting() -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    return made


async def _exec(command: list[str], place: Place, seconds: int) -> Answer:
    try:
        answer = await place.runtime.exec_sync(place.id, command, seconds)
    except cri.CriError as error:
        if error.code is cri.Code.DEADLINE_EXCEEDED:
            return Answer(False, f'command "{" ".join(command)}" took longer than {seconds} s')
        # That the runtime fails says nothing about the container.
        return Answer(None, error.message)
    said = (answer.stdout + answer.stderr)[:MOST_BODY_BYTES].decode(errors="replace")[:MOST_SAID]
    return Answer(answer.exit_code == 0, said.strip() or f"exit code {answer.exit_code}")


async def _connect(host: str, port: int) -> Answer:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError as error:
        return Answer(False, f"dial {_bracketed(host)}:{port}: {_words(error)}")
    writer.transport.abort()
    return Answer(True)


async def _check(action: container_pb2.GRPCAction, place: Place, seconds: int) -> Answer:
    address = f"{_bracketed(place.address)}:{action.port}"
    options = [
        ("grpc.enable_http_proxy", 0),
        # Each asks for itself: a refused connection must not hold up the next question.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.primary_user_agent", "kube-probe/kcore"),
    ]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        request = health_pb2.HealthCheckRequest(service=action.service)
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=seconds)
        except grpc.aio.AioRpcError as error:
            return Answer(False, f"{address}: {error.code().name}: {error.details()}")
    if answer.status == health_pb2.HealthCheckResponse.SERVING:
        return Answer(True)
    said = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return Answer(False, f'service unhealthy (responded with "{said}")')


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _words(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ConnectionResetError):
        return "connection reset"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
