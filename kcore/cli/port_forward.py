"""`kcore port-forward`: ports of this machine that lead to ports of a pod.

Each connection is a stream of its own, so one that fails harms no other; both directions end by
themselves. When the pod of an owner (deploy/web, svc/web) goes, the next one takes its place; the
end of a pod that was named is the end of the command.
"""

import asyncio
import ipaddress
import os
import socket
import struct
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from typing import Any, Final

import click
from kcore_api.kcore.api.v1 import pod_stream_pb2

from kcore.cli import follow, objects, options, pod, subject
from kcore.cli.session import FAILED, Exit, Session
from kcore.tasks import Tasks
from kcore.wire.errors import ApiError, Reason

CHUNK_BYTES: Final = 128 * 1024
# Linger for no time at all: what closes then is reset.
_AT_ONCE: Final = struct.pack("ii", 1, 0)
_LOCALHOST: Final = ("127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Pair:
    """A port here (0: any) and one there, by number or name."""

    local: int
    remote: str


@click.command(name="port-forward")
@click.argument("target", metavar="POD | KIND/NAME")
@click.argument("ports", nargs=-1, required=True, metavar="[LOCAL:]REMOTE...")
@options.namespace
@click.option("--address", default="localhost", show_default=True,
              help="Addresses to listen at, separated by commas.")  # fmt: skip
@click.option("--pod-running-timeout", "patience", type=options.SECONDS, default=60.0,
              help="How long to wait for the pod to run.")  # fmt: skip
@click.pass_obj
async def port_forward(
    session: Session, target: str, ports: tuple[str, ...], address: str, patience: float
) -> int:
    """Lead ports of this machine to ports of a pod.

    \b
    kcore port-forward web-0 8080:80
    kcore port-forward deploy/web :80 9090
    kcore port-forward svc/web 8080:http
    """
    pairs = [parse(one) for one in ports]
    addresses = _addresses(address)
    forward = _Forward(session, target, patience)
    await forward.find()
    wanted = await forward.numbers(pairs)
    async with AsyncExitStack() as stack, Tasks() as tasks:
        for pair, number in zip(pairs, wanted, strict=True):
            await _listen(session, stack, tasks, forward, addresses, pair, number)
        await forward.watch()
        tasks.cancel()
    raise Exit(FAILED, "error: lost connection to pod")


def parse(text: str) -> Pair:
    """8080:80, :80, 80, 8080:http."""
    local, colon, remote = text.partition(":")
    if not colon:
        remote = local
        local = local if local.isdecimal() else "0"
    if not remote or ":" in remote or (local and not local.isdecimal()):
        raise click.UsageError(f'"{text}" is not of the form [LOCAL:]REMOTE, such as 8080:80')
    if int(local or 0) > 65_535 or (remote.isdecimal() and not 0 < int(remote) < 65_536):
        raise click.UsageError(f'"{text}": ports are numbers from 1 to 65535')
    return Pair(int(local or 0), remote)


def _addresses(text: str) -> list[tuple[str, ...]]:
    """Groups of addresses; of each group one at least must be had."""
    found: list[tuple[str, ...]] = []
    for one in text.split(","):
        if one == "localhost":
            found.append(_LOCALHOST)
            continue
        try:
            found.append((str(ipaddress.ip_address(one)),))
        except ValueError:
            raise click.UsageError(f'--address: "{one}" is neither localhost nor an IP') from None
    return found


@dataclass(slots=True)
class _Forward:
    """Which pod connections go to, now."""

    session: Session
    target: str
    patience_seconds: float
    pod: Any = None
    service: Any = field(default=None, init=False)
    named: bool = field(default=True, init=False)

    async def find(self) -> None:
        """Takes the pod, once it runs."""
        session = self.session
        catalogue = await session.kinds()
        asked = subject.one(self.target, catalogue, "pods")
        pods = await pod.kind(session)
        self.named = asked.kind is pods
        if asked.kind.api_version == "v1" and asked.kind.name == "Service":
            self.service = await objects.get(session, asked.kind, session.namespace, asked.name)
        self.pod = await pod.find(session, self.target)
        metadata = objects.metadata(self.pod)

        def settled(now: Any) -> bool:
            return now is None or now.status.phase not in ("", "Pending")

        if not settled(self.pod):
            self.pod = await follow.within(
                follow.until(session, pods, metadata.namespace, metadata.name, settled),
                self.patience_seconds,
                lambda: f"error: timed out waiting for pod {metadata.name} to run",
            )
        if self.pod is None or self.pod.status.phase in pod.OVER:
            phase = self.pod.status.phase if self.pod is not None else "deleted"
            raise Exit(
                FAILED,
                f"error: unable to forward port because pod is not running. Current status={phase}",
            )

    async def numbers(self, pairs: Sequence[Pair]) -> list[int]:
        """The ports of the pod that are meant."""
        return [self._number(pair.remote) for pair in pairs]

    def _number(self, remote: str) -> int:
        if self.service is not None:
            return self._behind_service(remote)
        return int(remote) if remote.isdecimal() else self._of_container(remote)

    def _behind_service(self, remote: str) -> int:
        metadata, ports = self.service.metadata, self.service.spec.ports
        for port in ports:
            if remote in (port.name, str(port.port)):
                behind = port.target_port
                text = str(behind.str_val or behind.int_val or port.port)
                return int(text) if text.isdecimal() else self._of_container(text)
        have = ", ".join(f"{p.port} ({p.name})" if p.name else str(p.port) for p in ports)
        raise Exit(
            FAILED,
            f"error: Service {metadata.name} does not have a service port {remote};"
            f" it has: {have or 'none'}",
        )

    def _of_container(self, name: str) -> int:
        known = {
            port.name: int(port.container_port)
            for one in self.pod.spec.containers
            for port in one.ports
            if port.name
        }
        if name in known:
            return known[name]
        have = ", ".join(sorted(known)) or "none"
        raise Exit(
            FAILED,
            f"error: Pod '{self.pod.metadata.name}' does not have a named port '{name}';"
            f" it has: {have}",
        )

    async def watch(self) -> None:
        """Until the pod that was named has gone."""
        session = self.session
        pods = await pod.kind(session)
        while True:
            metadata = objects.metadata(self.pod)
            uid = metadata.uid

            def gone(now: Any, uid: str = uid) -> bool:
                return now is None or now.metadata.uid != uid or now.status.phase in pod.OVER

            try:
                await follow.until(session, pods, metadata.namespace, metadata.name, gone)
            except ApiError as error:
                if error.reason is not Reason.FORBIDDEN:
                    raise
                # Who may not look learns it from connections that fail.
                await asyncio.Event().wait()
            if self.named:
                return
            await self._replace(metadata.name)

    async def _replace(self, former: str) -> None:
        """Waits for another pod of the owner."""
        self.session.say(f"pod {former} has gone")
        while True:
            try:
                await self.find()
            except Exit:
                await self.session.clock.sleep(follow.RETRY_SECONDS)
                continue
            self.session.say(f"going on with pod {objects.metadata(self.pod).name}")
            return

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, local: int, remote: int
    ) -> None:
        """One connection from its beginning to its end."""
        session = self.session
        session.out(f"Handling connection for {local}")
        session.stdout.flush()
        metadata = objects.metadata(self.pod)
        opening = pod_stream_pb2.PortForwardOpen(
            target=pod_stream_pb2.Target(
                namespace=metadata.namespace, pod=metadata.name, uid=metadata.uid
            ),
            port=remote,
        )
        streams = await session.streams()
        try:
            async with aclosing(streams.port_forward(_said(reader, opening))) as responses:
                async for response in responses:
                    if response.WhichOneof("frame") == "data":
                        writer.write(response.data)
                        await writer.drain()
                    elif writer.can_write_eof():
                        writer.write_eof()
            writer.close()
            await writer.wait_closed()
        except ApiError as error:
            said = _clear(error, remote, metadata.name)
            session.say(f"error: an error occurred forwarding {local} -> {remote}: {said}")
        except OSError:
            # Who connected has gone.
            return
        finally:
            # A connection that failed must not look like one that ended: it is reset.
            if not writer.is_closing():
                handle = writer.get_extra_info("socket")
                handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            writer.transport.abort()


async def _said(
    reader: asyncio.StreamReader, opening: pod_stream_pb2.PortForwardOpen
) -> AsyncGenerator[pod_stream_pb2.PortForwardRequest, None]:
    yield pod_stream_pb2.PortForwardRequest(open=opening)
    try:
        while data := await reader.read(CHUNK_BYTES):
            yield pod_stream_pb2.PortForwardRequest(data=data)
    except OSError as error:
        raise ApiError(Reason.UNAVAILABLE, f"the connection broke: {error}") from error
    yield pod_stream_pb2.PortForwardRequest(closed=True)


def _clear(error: ApiError, port: int, name: str) -> str:
    """The runtime's many words for what happens most."""
    if "connection refused" in error.message:
        return f"nothing listens on port {port} in pod {name} (connection refused)"
    return error.message


async def _listen(
    session: Session,
    stack: AsyncExitStack,
    tasks: Tasks,
    forward: _Forward,
    addresses: Sequence[tuple[str, ...]],
    pair: Pair,
    remote: int,
) -> None:
    local = pair.local

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def broke(error: Exception) -> None:
            session.say(f"error: {error}")

        tasks.supervise(forward.serve(reader, writer, local, remote), broke)

    for group in addresses:
        refused: list[str] = []
        for address in group:
            try:
                server = await asyncio.start_server(
                    connected, address, local, limit=2 * CHUNK_BYTES
                )
            except OSError as error:
                refused.append(f"{address}: {os.strerror(error.errno or 0)}")
                continue
            stack.callback(server.close)
            local = server.sockets[0].getsockname()[1]
            shown = f"[{address}]" if ":" in address else address
            session.out(f"Forwarding from {shown}:{local} -> {remote}")
            session.stdout.flush()
        if len(refused) == len(group):
            raise Exit(FAILED, f"error: unable to listen on port {local}: {'; '.join(refused)}")
