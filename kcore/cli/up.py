"""`kcore up` and `kcore down`: a one-node cluster on this machine, from nothing and to nothing.

The work is kcore/boot's. This shows progress, writes the kubeconfig, waits for the API and the
node, and applies the manifests that were given until what they run answers.
"""

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import click
from google.protobuf.message import Message
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import node_pb2, pod_pb2, service_pb2

from kcore.boot import containerd, images, parent, place, stores
from kcore.boot import up as boot
from kcore.boot.setup import ERROR, Setup, node_name
from kcore.cli import root as cli
from kcore.cli import submit
from kcore.cli.session import FAILED, NOT_READY, Exit, Session
from kcore.client import kubeconfig, manifest
from kcore.clock import Clock
from kcore.network import cni
from kcore.wire.errors import ApiError

ANSWER_SECONDS = 60.0
# By then the parent has its lock, or it has failed.
START_SECONDS = 5.0
READY_SECONDS = 180.0
AGAIN_SECONDS = 0.1


class Progress:
    """A line for each step that is done, with the seconds it took."""

    def __init__(self, session: Session, as_json: bool) -> None:
        """`as_json`: a line of JSON on stdout instead, for programs."""
        self._session = session
        self._json = as_json
        self._since = session.clock.monotonic()

    def done(self, step: str, said: str) -> None:
        """The step that ran until now has ended."""
        now = self._session.clock.monotonic()
        seconds, self._since = now - self._since, now
        if self._json:
            line = {"step": step, "seconds": round(seconds, 2), "said": said}
            self._session.out(json.dumps(line))
        else:
            self._session.say(f"✓ {step:<13} {seconds:5.1f} s  {said}")


@click.command()
@click.option("-f", "--filename", "files", multiple=True, help="Manifests to apply once it is up.")
@click.option("--node", help="The node's name; this machine's unless given.")
@click.option("--root", type=click.Path(path_type=Path), help="Keep everything below DIR.")
@click.option("--port", type=int, default=6443, show_default=True, help="Port of the TLS listener.")
@click.option("--store", default="", metavar="STORE",
              help="Where the log is: sqlite:PATH or etcd:https://HOST:PORT[,...]; a database of "
              "its own unless given.")  # fmt: skip
@click.option("--foreground", is_flag=True, help="Stay in the foreground, for a supervisor.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
@click.pass_obj
async def up(
    session: Session,
    files: tuple[str, ...],
    node: str | None,
    root: Path | None,
    port: int,
    store: str,
    foreground: bool,
    output: str,
) -> int:
    """Make this machine a one-node cluster. Repeating it does no harm.

    \b
    kcore up
    kcore up -f examples/web.yaml
    """
    where = place.Place.under(root)
    setup = Setup(where, node or node_name(), port, store, dns=boot.dns_address())
    progress = Progress(session, output == "json")
    try:
        if store:
            # Said here, rather than by an apiserver that does not come up.
            stores.store_of(store, session.clock, session.chance)
        for step in boot.steps(setup, session.clock, session.chance):
            if foreground and step.name == "kcore":
                break
            progress.done(step.name, await step.work())
        kubeconfig.write(str(setup.place.kubeconfig), _kubeconfig(setup))
    except (
        boot.BootError,
        containerd.ContainerdError,
        images.ImageError,
        cni.NetworkError,
        stores.StoreError,
    ) as error:
        raise Exit(FAILED, f"error: {error}") from error
    if foreground:
        # The parent takes this process's place: it waits for signals, not on an event loop.
        os.execv(sys.executable, setup.arguments("parent"))
    session.config_path = str(setup.place.kubeconfig)
    progress.done("api", await _answering(session, setup))
    progress.done("node", await _node_ready(session, setup))
    await add_ons(session, setup)
    for file in files:
        await _apply(session, file, progress)
    progress.done("dns", await _naming(session, setup))
    if output == "text":
        _say_next(session, setup, root, bool(files))
    return 0


@click.command()
@click.option("--root", type=click.Path(path_type=Path), help="As given to `kcore up`.")
@click.pass_obj
async def down(session: Session, root: Path | None) -> int:
    """Take away all that `kcore up` made, data included. Repeating it does no harm.

    \b
    kcore down
    """
    setup = Setup(place.Place.under(root), node_name())
    try:
        removed = await boot.down(setup, session.clock)
    except (boot.BootError, containerd.ContainerdError, cni.NetworkError) as error:
        raise Exit(FAILED, f"error: {error}") from error
    for thing in removed:
        session.say(f"removed {thing}")
    if not removed:
        session.say("nothing to remove")
    return 0


def _kubeconfig(setup: Setup) -> dict[str, Any]:
    where = setup.place
    endpoint = {"grpc": f"127.0.0.1:{setup.port}", "unix": str(where.socket)}
    cluster = {
        "server": f"https://127.0.0.1:{setup.port + 1}",
        "certificate-authority": str(where.ca),
        "extensions": [{"name": kubeconfig.EXTENSION, "extension": endpoint}],
    }
    context = {"cluster": "kcore", "user": "kcore-admin", "namespace": "default"}
    user = {"tokenFile": str(where.admin_token)}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "kcore", "cluster": cluster}],
        "contexts": [{"name": "kcore", "context": context}],
        "users": [{"name": "kcore-admin", "user": user}],
        "current-context": "kcore",
    }


async def _answering(session: Session, setup: Setup) -> str:
    """Waits until the apiserver serves."""
    begun = session.clock.monotonic()
    deadline = begun + ANSWER_SECONDS
    said_before = setup.place.log.stat().st_size if setup.place.log.exists() else 0
    while True:
        try:
            api = await session.api()
            answer = await api.kinds(pb.KindsRequest())
            return f"cluster {answer.cluster_id}, socket {setup.place.socket}"
        except (ApiError, kubeconfig.Unusable) as error:
            started = session.clock.monotonic() > begun + START_SECONDS
            if started and parent.running(setup.place.pid) is None:
                raise Exit(FAILED, f"error: kcore ended; see {setup.place.log}") from error
            if started and (why := _last_error(setup.place.log, said_before)):
                goes_on = f"kcore goes on trying; `kcore down` ends it; see {setup.place.log}"
                raise Exit(FAILED, f"{why}\n{goes_on}") from error
            if session.clock.monotonic() > deadline:
                message = f"error: no answer after {ANSWER_SECONDS:.0f} s: {error}"
                raise Exit(NOT_READY, f"{message}; see {setup.place.log}") from error
        await session.clock.sleep(AGAIN_SECONDS)


def _last_error(log: Path, begin: int) -> str:
    """The last line from there on in which one of kcore's processes says why it cannot run."""
    with log.open("rb") as file:
        file.seek(begin)
        lines = file.read().decode(errors="replace").splitlines()
    return next((line for line in reversed(lines) if line.startswith(ERROR)), "")


async def _node_ready(session: Session, setup: Setup) -> str:
    """Waits until the node is Ready."""
    request = pb.WatchRequest(
        selections=[pb.Selection(kind=node_pb2.Node.DESCRIPTOR.full_name, names=[setup.node])]
    )
    last = "it has not registered"
    try:
        async with asyncio.timeout(READY_SECONDS):
            async for body in _objects(session, request):
                node = node_pb2.Node.FromString(body)
                for condition in node.status.conditions:
                    if condition.type == "Ready":
                        last = condition.message
                        if condition.status == "True":
                            return f"{setup.node} is Ready, pods get {node.spec.pod_cidr}"
    except TimeoutError:
        pass
    raise Exit(
        NOT_READY,
        f"error: node {setup.node} is not ready after {READY_SECONDS:.0f} s: {last};"
        f" see {setup.place.log}",
    )


async def add_ons(session: Session, setup: Setup) -> None:
    """Applies what the cluster runs for itself."""
    manifests = boot.addons(setup)
    if not manifests:
        return

    def apply(one: manifest.Manifest) -> pb.Operation:
        made = submit.operation_on(one)
        made.apply.object = one.message.SerializeToString(deterministic=True)
        made.apply.force = True
        return made

    read = manifest.read(manifests, "add-ons", await session.kinds())
    for outcome in await submit.submit(session, read, apply):
        if outcome.error is not None:
            raise outcome.error


async def _naming(session: Session, setup: Setup) -> str:
    """Waits until names are answered."""
    if not setup.dns:
        return "there is no CoreDNS: names of services are not answered (make coredns)"
    await _open([(setup.dns, 53)], session.clock)
    return f"names are answered at {setup.dns}"


async def _apply(session: Session, file: str, progress: Progress) -> None:
    """Applies a file and waits until every service in the namespace answers, or else every pod."""
    if code := await cli.call(["apply", "-f", file, "--wait"], session):
        raise Exit(code)
    doors = [
        (service.spec.cluster_ip, port.port)
        for service in map(
            service_pb2.Service.FromString, await _list(session, service_pb2.Service)
        )
        if service.spec.selector and service.spec.cluster_ip not in ("", "None")
        for port in service.spec.ports
        if (port.protocol or "TCP") == "TCP"
    ]
    doors = doors or [
        (pod.status.pod_ip, port.container_port)
        for pod in map(pod_pb2.Pod.FromString, await _list(session, pod_pb2.Pod))
        if pod.status.pod_ip and not pod.metadata.HasField("deletion_timestamp")
        for container in pod.spec.containers
        for port in container.ports
        if (port.protocol or "TCP") == "TCP"
    ]
    await _open(doors, session.clock)
    said = ", ".join(f"{address}:{port}" for address, port in doors)
    progress.done(Path(file).stem, f"answers on {said}" if doors else "is there")


async def _list(session: Session, kind: type[Message]) -> Sequence[bytes]:
    """The objects of a kind in the session's namespace."""
    selection = pb.Selection(kind=kind.DESCRIPTOR.full_name, namespace=session.namespace)
    return (await (await session.api()).list(pb.ListRequest(selection=selection))).items


async def _open(doors: Sequence[tuple[str, int]], clock: Clock) -> None:
    deadline = clock.monotonic() + ANSWER_SECONDS
    for address, port in doors:
        while True:
            try:
                _, writer = await asyncio.open_connection(address, port)
                writer.close()
                break
            except OSError as error:
                if clock.monotonic() > deadline:
                    raise Exit(NOT_READY, f"error: {address}:{port}: {error}") from error
                await clock.sleep(AGAIN_SECONDS)


async def _objects(session: Session, request: pb.WatchRequest) -> AsyncIterator[bytes]:
    """States of the selected objects, for ever."""
    while True:
        try:
            api = await session.api()
            async for response in api.watch(request):
                for event in response.events:
                    if event.type != pb.Event.DELETED:
                        yield event.object
        except ApiError:
            await session.clock.sleep(AGAIN_SECONDS)


def _say_next(session: Session, setup: Setup, root: Path | None, applied: bool) -> None:
    prefix = f"KUBECONFIG={setup.place.kubeconfig} " if root is not None else ""
    prefix += "kcore" if shutil.which("kcore") else os.path.relpath(sys.argv[0])
    tries = ["get nodes -o wide", "get pods -A"]
    if applied:
        tries = ["get pods -o wide", "get services", "logs deploy/web", "exec -it deploy/web -- sh"]
    session.say("\nkcore is up. Try:")
    for line in tries:
        session.say(f"  {prefix} {line}")
    session.say(f"  grpcurl -plaintext -unix {setup.place.socket} list")
