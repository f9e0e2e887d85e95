"""The kubelet: one node's pods, by the API and by a directory, through one runtime.

    await run(api, link, runtime, Settings(…), clock, chance)

It has two inputs, manifests in a directory and the apiserver, and opens no port. Its parts run side
by side: the Node and its lease (node), pods and their workers (pods, worker), their statuses
(reporter), static pods and what the API shows of them (manifests, mirror), people's streams
(stream), rotation of logs (rotate).
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kcore_api.kcore.core.v1 import node_pb2, pod_pb2
from kcore_api.runtime.v1 import api_pb2 as cri_pb

from kcore.chance import Chance
from kcore.client.streams import NodeLink
from kcore.clock import Clock
from kcore.kubelet import (
    config_objects,
    container,
    cri,
    env,
    machine,
    manifests,
    mirror,
    node,
    observed,
    reporter,
    rotate,
    services,
    status,
    stream,
    target,
    worker,
)
from kcore.kubelet.pods import Pods
from kcore.kubelet.resolver import Resolver
from kcore.reconcile import owner, recorder
from kcore.tasks import Tasks
from kcore.wire.api import Api

STARTS_AT_ONCE = 8
RESOLV_CONF = Path("/etc/resolv.conf")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a kubelet is told."""

    node: node.Settings
    # Where containers' logs are.
    logs: Path
    # Static pods; None: there are none.
    manifests: Path | None = None
    # What pods resolve names with; None: as this machine does.
    dns: cri_pb.DNSConfig | None = None
    # Where the cluster's own DNS is; empty: it has none.
    cluster_dns: tuple[str, ...] = ()
    # The door to the machine.
    look: Callable[[Path], machine.Machine] = field(default=machine.look)


async def run(
    api: Api,
    link: NodeLink | None,
    runtime: cri.Runtime,
    settings: Settings,
    clock: Clock,
    chance: Chance,
) -> None:
    """Until cancelled. Containers are left as they are: the next kubelet finds them."""
    name = settings.node.name
    found = settings.look(settings.node.root)
    teller = recorder.Recorder(api, "kubelet", clock, chance.fork("events"), name)
    words = reporter.Reporter(api, clock, chance.fork("statuses"))

    async def named(pod: pod_pb2.Pod) -> env.Named:
        return await config_objects.fetch(api, pod)

    def event(pod: pod_pb2.Pod, kind: str, reason: str, message: str) -> None:
        about = pods.mirrors.get(pod.metadata.uid, pod)
        teller.tell(owner.about(about), kind, reason, message)

    def complain(file: str, said: str) -> None:
        about = node_pb2.Node()
        about.metadata.name = name
        teller.tell(owner.about(about), "Warning", "FailedStaticPod", f"{file}: {said}")

    async with Tasks() as tasks:
        # First: a node whose runtime does not answer is shown as not ready, not absent.
        tasks.start(
            node.run(
                api,
                runtime,
                settings.node,
                clock,
                chance.fork("node"),
                look=settings.look,
                recorder=teller,
            ),
            "node",
        )
        tasks.start(teller.run(), "events")
        pods = Pods(
            worker.Node(
                name=name,
                runtime=runtime,
                reader=observed.Reader(runtime),
                clock=clock,
                tasks=tasks,
                root=settings.node.root,
                logs=settings.logs,
                around=status.Surroundings(
                    addresses=settings.node.addresses or found.addresses,
                    runtime=await _runtime_name(runtime, clock),
                ),
                capacity_bytes=found.memory,
                dns=Resolver(settings.dns or _dns(RESOLV_CONF), settings.cluster_dns),
                allocatable={"cpu": str(found.cpus), "memory": str(found.memory)},
                starts=asyncio.Semaphore(STARTS_AT_ONCE),
                named=named,
                services=services.Services(api),
                event=event,
                report=words.put,
                finished=words.finish,
            )
        )
        if settings.manifests is None:
            pods.set_static({})
        else:
            reading = manifests.run(settings.manifests, name, pods.set_static, clock, complain)
            tasks.start(reading, "manifests")
            mirrors = mirror.run(
                api,
                name,
                lambda: pods.static,
                lambda: pods.mirrors if pods.is_complete else None,
                clock,
                chance.fork("mirrors"),
            )
            tasks.start(mirrors, "mirrors")
        tasks.start(pods.run_bound(api), "bound pods")
        tasks.start(pods.run_relist(), "relist")
        tasks.start(pods.run_workers(), "workers")
        tasks.start(words.run(), "statuses")
        tasks.start(rotate.run(runtime, lambda: _written(pods, settings.logs), clock), "logs")
        if link is not None:
            targets = target.Targets(pods, settings.logs)
            streams = stream.run(link, name, runtime, targets, clock, chance.fork("streams"))
            tasks.start(streams, "streams")


def _written(pods: Pods, logs: Path) -> Iterator[rotate.Written]:
    """The logs that grow."""
    for worker_ in pods.workers.values():
        directory = container.log_directory(logs, worker_.pod)
        for one in worker_.observed.running:
            path = directory / container.log_path(one.name, one.attempt)
            yield rotate.Written(one.id, path)


async def _runtime_name(runtime: cri.Runtime, clock: Clock) -> str:
    """Prefix of container ids. Waits for the runtime: there is nothing to do without it."""
    while True:
        try:
            return (await runtime.version()).runtime_name
        except cri.CriError:
            await clock.sleep(1.0)


def _dns(path: Path) -> cri_pb.DNSConfig:
    """What this machine resolves names with, less what only leads to itself."""
    made = cri_pb.DNSConfig()
    text = path.read_text() if path.exists() else ""
    for words in (line.split() for line in text.splitlines()):
        match words:
            case ["nameserver", server] if not server.startswith("127."):
                made.servers.append(server)
            case ["search", *domains]:
                made.searches[:] = domains
            case ["options", *options]:
                made.options.extend(options)
    return made
