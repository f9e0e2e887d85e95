"""Starts sandboxes and containers: all that has to be there before, then the runtime's calls.

`sandbox` and `container` each do one step of a plan for a pod. What cannot be done now is a
`Failure`, whose reason people see in the pod's status; an outcome that is not known is left to be
raised, as only another look at the runtime can tell.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from kcore_api.kcore.core.v1 import container_pb2, pod_pb2
from kcore_api.runtime.v1 import api_pb2 as pb

from kcore.clock import Clock
from kcore.kubelet import container as configs
from kcore.kubelet import (
    cri,
    env,
    hosts,
    observed,
    refusal,
    service_links,
    services,
    status,
    sync,
    termination,
    volume,
)
from kcore.kubelet.resolver import Resolver
from kcore.tasks import Tasks

PULLS_AT_ONCE = 4
TERMINATION_PATH = "/dev/termination-log"
_UNKNOWN = (cri.Code.UNAVAILABLE, cri.Code.DEADLINE_EXCEEDED, cri.Code.CANCELLED)
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Node:
    """What every worker of a node works with."""

    name: str
    runtime: cri.Runtime
    reader: observed.Reader
    clock: Clock
    tasks: Tasks
    root: Path
    logs: Path
    around: status.Surroundings
    capacity_bytes: int
    dns: Resolver
    # Allocatable of the node, as texts of quantities.
    allocatable: Mapping[str, str]
    # How many pods may have a start under way at once.
    starts: asyncio.Semaphore
    # The ConfigMaps and Secrets that a pod names.
    named: Callable[[pod_pb2.Pod], Awaitable[env.Named]]
    # The Services that its environment tells of.
    services: services.Services
    # (pod, type, reason, message)
    event: Callable[[pod_pb2.Pod, str, str, str], None]
    # The status as it is now.
    report: Callable[[pod_pb2.Pod, pod_pb2.PodStatus], None]
    # Nothing of the pod runs on this node any more: its last status.
    finished: Callable[[pod_pb2.Pod, pod_pb2.PodStatus], Awaitable[None]]
    # How many images may be pulled at once.
    pulls: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(PULLS_AT_ONCE))


class Failure(Exception):
    """A step that cannot be done now: `reason` as the status has it, `event` as events do."""

    def __init__(self, reason: str, message: str, event: str, *, is_taken: bool = False) -> None:
        """`is_taken`: the runtime has something of this name and attempt already."""
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.event = event
        self.is_taken = is_taken


async def on_disk(work: Callable[[], _Result]) -> _Result:
    """Does it in a thread. Who is cancelled meanwhile still waits for it: files have one writer."""
    doing = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(doing)
    except asyncio.CancelledError:
        await asyncio.wait([doing])
        raise


def facts(node: Node, pod: pod_pb2.Pod, seen: observed.Observed) -> env.Facts:
    """What the pod may know of itself."""
    hosts_own = node.around.addresses
    box = next((one for one in seen.sandboxes if one.ready), None)
    found = box.addresses if box is not None else ()
    return env.Facts(hosts_own if pod.spec.host_network else found, hosts_own, node.allocatable)


async def sandbox(node: Node, pod: pod_pb2.Pod, seen: observed.Observed, attempt: int) -> None:
    """Makes the pod's volumes and directories, and a sandbox."""
    try:
        config = configs.sandbox(pod, attempt, node.logs, node.dns)
    except ValueError as error:
        raise Failure("ContainerCreating", str(error), "FailedCreatePodSandBox") from error
    named = await node.named(pod)
    try:
        await on_disk(lambda: volume.make(pod, named, facts(node, pod, seen), node.root))
    except volume.VolumeError as error:
        raise Failure("ContainerCreating", str(error), "FailedMount") from error
    await on_disk(lambda: _make_log_directories(node, pod))
    try:
        await node.runtime.run_pod_sandbox(config)
    except cri.CriError as error:
        if error.code in _UNKNOWN:
            raise
        said = f"Failed to create pod sandbox: {error.message}"
        raise Failure(
            "ContainerCreating", said, "FailedCreatePodSandBox", is_taken=_is_taken(error)
        ) from error


async def container(
    node: Node,
    pod: pod_pb2.Pod,
    seen: observed.Observed,
    step: sync.Start,
    spec: container_pb2.Container,
    image: pb.Image,
) -> None:
    """Makes a container and starts it."""
    config = await _config(node, pod, seen, step, spec, image)
    attempt = next((box.attempt for box in seen.sandboxes if box.id == step.sandbox), 0)
    box = configs.sandbox(pod, attempt, node.logs, node.dns)
    try:
        made = await node.runtime.create_container(step.sandbox, config, box)
    except cri.CriError as error:
        if error.code in _UNKNOWN:
            raise
        raise Failure(
            "CreateContainerError", error.message, "Failed", is_taken=_is_taken(error)
        ) from error
    node.event(pod, "Normal", "Created", f"Created container: {step.name}")
    try:
        await node.runtime.start_container(made)
    except cri.CriError as error:
        if error.code in _UNKNOWN:
            raise
        raise Failure("RunContainerError", error.message, "Failed") from error
    node.event(pod, "Normal", "Started", f"Started container {step.name}")


async def _config(
    node: Node,
    pod: pod_pb2.Pod,
    seen: observed.Observed,
    step: sync.Start,
    spec: container_pb2.Container,
    image: pb.Image,
) -> pb.ContainerConfig:
    named = await node.named(pod)
    known = facts(node, pod, seen)
    links = service_links.variables(await node.services.beside(pod))
    try:
        # Of what was added since the pod began, nothing has been looked at yet.
        refusal.names(pod)
        refusal.container(pod, spec, image)
        variables = env.variables(pod, spec, named, known, links)
        mounts = await on_disk(lambda: _mounts(node, pod, spec, named, known, variables, step))
        return configs.config(
            pod,
            spec,
            attempt=step.attempt,
            delay=step.delay,
            image=image,
            variables=variables,
            mounts=mounts,
            capacity_bytes=node.capacity_bytes,
            target=_target(pod, seen, step.name),
        )
    except (env.Missing, volume.VolumeError, refusal.Refused, ValueError) as error:
        raise Failure("CreateContainerConfigError", str(error), "Failed") from error


def _target(pod: pod_pb2.Pod, seen: observed.Observed, name: str) -> str:
    """The instance whose processes an ephemeral container wants to see; "": none."""
    for one in pod.spec.ephemeral_containers:
        wanted = one.target_container_name
        if one.ephemeral_container_common.name == name and wanted:
            found = seen.newest(wanted)
            if found is None or found.state != "running":
                raise refusal.Refused(f'targetContainerName: "{wanted}" does not run')
            return found.id
    return ""


def _mounts(
    node: Node,
    pod: pod_pb2.Pod,
    spec: container_pb2.Container,
    named: env.Named,
    known: env.Facts,
    variables: Mapping[str, str],
    step: sync.Start,
) -> list[pb.Mount]:
    """All that the container sees of this machine."""
    _make_log_directories(node, pod)
    places = volume.make(pod, named, known, node.root)
    found = volume.mounts(pod, spec, places, variables, node.root)
    taken = {one.container_path for one in found}
    if not pod.spec.host_network and "/etc/hosts" not in taken:
        path = volume.directory(node.root, pod.metadata.uid) / "etc-hosts"
        # Written anew each time: the pod's address may be another one. In place, as it is mounted.
        path.write_text(hosts.text(pod, known.pod_addresses))
        path.chmod(0o644)
        found.append(pb.Mount(container_path="/etc/hosts", host_path=str(path)))
    last_words = spec.termination_message_path or TERMINATION_PATH
    if last_words not in taken:
        refusal.mount_path(last_words, privileged=False)
        place = termination.prepare(node.root, pod, spec, step.attempt)
        found.append(pb.Mount(container_path=last_words, host_path=str(place)))
    return found


def _make_log_directories(node: Node, pod: pod_pb2.Pod) -> None:
    directory = configs.log_directory(node.logs, pod)
    for one in sync.every(pod):
        (directory / one.name).mkdir(parents=True, exist_ok=True)


def _is_taken(error: cri.CriError) -> bool:
    return error.code is cri.Code.ALREADY_EXISTS or "is reserved for" in error.message
