"""One pod's worker: does what `sync.plan` says, one plan after another.

    worker = Worker(pod, node);  await worker.run()      # until Finish is done
    worker.want(pod)        # it has changed
    worker.seen(observed)   # the runtime has changed

Kills run beside the plan, so that a deletion with less grace overtakes one with more. Everything
else happens in order. A failure is remembered and tried again after a while; the worker itself
never dies of one.
"""

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kcore_api.kcore.core.v1 import container_pb2, pod_pb2
from kcore_api.runtime.v1 import api_pb2 as pb

from kcore.clock import Clock
from kcore.kubelet import container, cri, env, status, sync, volume
from kcore.kubelet.observed import NOTHING, Observed, Reader
from kcore.tasks import Tasks
from kcore.wire.errors import ApiError

log = logging.getLogger(__name__)

AGAIN_SECONDS = 1.0
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Node:
    """What every worker of a node works with."""

    name: str
    runtime: cri.Runtime
    reader: Reader
    clock: Clock
    tasks: Tasks
    root: Path
    logs: Path
    around: status.Surroundings
    capacity_bytes: int
    dns: pb.DNSConfig
    # Allocatable of the node, as texts of quantities.
    allocatable: Mapping[str, str]
    # How many pods may have a start under way at once.
    starts: asyncio.Semaphore
    # The ConfigMaps and Secrets that a pod names.
    named: Callable[[pod_pb2.Pod], Awaitable[env.Named]]
    # (pod, type, reason, message)
    event: Callable[[pod_pb2.Pod, str, str, str], None]
    # The status as it is now.
    report: Callable[[pod_pb2.Pod, pod_pb2.PodStatus], None]
    # Nothing of the pod is left on this node: its last status.
    finished: Callable[[pod_pb2.Pod, pod_pb2.PodStatus], Awaitable[None]]


@dataclass
class Worker:
    """The life of one pod on this node."""

    pod: pod_pb2.Pod
    node: Node
    observed: Observed = NOTHING
    memory: sync.Memory = field(default_factory=sync.Memory)
    # When to ask again; for whoever decides how often to look at the runtime.
    again_at: float | None = None
    busy: bool = True
    _seen: Observed | None = None
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _volumes: dict[str, Path] | None = None

    def want(self, pod: pod_pb2.Pod) -> None:
        """The pod is wanted so now."""
        self.pod = pod
        self._wake.set()

    def seen(self, observed: Observed) -> None:
        """A look at all pods found this: if it is news, the worker looks for itself.

        It is never taken as it is: it may be older than what the worker has done since.
        """
        if observed != self._seen:
            self._seen = observed
            self._wake.set()

    async def run(self) -> None:
        """Until the pod is finished."""
        while True:
            self._wake.clear()
            self.busy = True
            try:
                if await self._round():
                    return
            except (cri.CriError, ApiError, OSError) as error:
                log.warning("%s: %s", self._name, error)
                self.again_at = self.node.clock.now() + AGAIN_SECONDS
            self.busy = bool(self.memory.killing)
            await self._wait()

    async def _round(self) -> bool:
        """Plans and works until nothing is left to do now; True when the pod is finished."""
        while True:
            self.observed = await self.node.reader.list_pod(self.pod.metadata.uid)
            now = self.node.clock.now()
            deadline = sync.deadline_at(self.pod)
            if self.memory.failed is None and deadline is not None and now >= deadline:
                said = "Pod was active on the node longer than the specified deadline"
                self.memory.failed = ("DeadlineExceeded", said)
            planned = sync.plan(self.pod, self.observed, self.memory, now)
            self.again_at = planned.again_at
            self._report()
            for step in planned.steps:
                if isinstance(step, sync.Finish):
                    await self._finish()
                    return True
                await self._do(step)
            if all(isinstance(step, sync.Kill) for step in planned.steps):
                return False

    async def _wait(self) -> None:
        if self.again_at is None:
            await self._wake.wait()
            return
        pause = max(0.0, self.again_at - self.node.clock.now())
        sleeper = asyncio.ensure_future(self.node.clock.sleep(pause))  # noqa: TID251
        waker = asyncio.ensure_future(self._wake.wait())  # noqa: TID251
        try:
            await asyncio.wait((sleeper, waker), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sleeper, waker):
                task.cancel()

    @property
    def _name(self) -> str:
        return f"{self.pod.metadata.namespace}/{self.pod.metadata.name}"

    def _report(self) -> None:
        node = self.node
        made = status.make(self.pod, self.observed, self.memory, node.around, node.clock.now())
        node.report(self.pod, made)

    async def _do(self, step: sync.Step) -> None:
        runtime = self.node.runtime
        match step:
            case sync.Kill():
                self._kill(step)
            case sync.StopSandbox():
                await runtime.stop_pod_sandbox(step.id)
            case sync.RemoveSandbox():
                await runtime.remove_pod_sandbox(step.id)
            case sync.RemoveContainer():
                await runtime.remove_container(step.id)
            case sync.RunSandbox():
                async with self.node.starts:
                    await self._sandbox(step)
            case sync.Start():
                async with self.node.starts:
                    await self._start(step)

    def _kill(self, step: sync.Kill) -> None:
        clock = self.node.clock
        until = clock.now() + step.grace_seconds
        if step.id not in self.memory.killing:
            self.node.event(self.pod, "Normal", "Killing", f"{step.why} {step.name}".strip())
        self.memory.killing[step.id] = until

        async def stop() -> None:
            try:
                await self.node.runtime.stop_container(step.id, step.grace_seconds)
            finally:
                if self.memory.killing.get(step.id) == until:
                    del self.memory.killing[step.id]
                self._wake.set()

        self.node.tasks.supervise(stop(), self._grumble, f"kill {step.name}")

    def _grumble(self, error: Exception) -> None:
        log.warning("%s: %s", self._name, error)

    async def _sandbox(self, step: sync.RunSandbox) -> None:
        node, now = self.node, self.node.clock.now()
        try:
            await self._make_volumes()
        except volume.VolumeError as error:
            node.event(self.pod, "Warning", "FailedMount", str(error))
            self._failed("", "ContainerCreating", str(error))
            return
        directory = container.log_directory(node.logs, self.pod)
        for one in (*self.pod.spec.init_containers, *self.pod.spec.containers):
            (directory / one.name).mkdir(parents=True, exist_ok=True)
        config = container.sandbox(self.pod, step.attempt, node.logs, node.dns)
        try:
            await node.runtime.run_pod_sandbox(config)
        except cri.CriError as error:
            said = f"Failed to create pod sandbox: {error.message}"
            node.event(self.pod, "Warning", "FailedCreatePodSandBox", said)
            # The network may just not be there yet: soon again, not after a long wait.
            self.memory.problems[""] = sync.Problem(
                "ContainerCreating", said, now + AGAIN_SECONDS, AGAIN_SECONDS
            )
            return
        self.memory.problems.pop("", None)

    async def _make_volumes(self) -> dict[str, Path]:
        if self._volumes is None:
            named = await self.node.named(self.pod)
            self._volumes = volume.make(self.pod, named, self._facts(), self.node.root)
        return self._volumes

    def _facts(self) -> env.Facts:
        box = next((one for one in self.observed.sandboxes if one.ready), None)
        hosts = self.node.around.addresses
        pods = hosts if self.pod.spec.host_network else (box.addresses if box else ())
        return env.Facts(pods, hosts, self.node.allocatable)

    async def _start(self, step: sync.Start) -> None:
        every = (*self.pod.spec.init_containers, *self.pod.spec.containers)
        spec = next(one for one in every if one.name == step.name)
        image = await self._image(spec)
        if image is None:
            return
        node = self.node
        try:
            named = await node.named(self.pod)
            variables = env.variables(self.pod, spec, named, self._facts())
            if not spec.security_context.HasField("run_as_user"):
                self._check_user(spec, image)
            places = await self._make_volumes()
            mounts = volume.mounts(spec, places, variables, self.pod.spec.volumes)
            self._hosts(spec, mounts)
        except (env.Missing, volume.VolumeError) as error:
            node.event(self.pod, "Warning", "Failed", f"Error: {error}")
            self._failed(step.name, "CreateContainerConfigError", str(error))
            return
        config = container.config(
            self.pod,
            spec,
            attempt=step.attempt,
            delay=step.delay,
            image=image.id,
            variables=variables,
            mounts=mounts,
            capacity_bytes=node.capacity_bytes,
        )
        config.annotations["io.kubernetes.container.hash"] = sync.fingerprint(spec)
        box = container.sandbox(self.pod, self.observed.sandboxes[0].attempt, node.logs, node.dns)
        try:
            made = await node.runtime.create_container(step.sandbox, config, box)
        except cri.CriError as error:
            node.event(self.pod, "Warning", "Failed", f"Error: {error.message}")
            self._failed(step.name, "CreateContainerError", error.message)
            return
        node.event(self.pod, "Normal", "Created", f"Created container: {step.name}")
        try:
            await node.runtime.start_container(made)
        except cri.CriError as error:
            node.event(self.pod, "Warning", "Failed", f"Error: {error.message}")
            self._failed(step.name, "RunContainerError", error.message)
            return
        self.memory.problems.pop(step.name, None)
        node.event(self.pod, "Normal", "Started", f"Started container {step.name}")

    def _check_user(self, spec: container_pb2.Container, image: pb.Image) -> None:
        """Refuses to run as root what must not."""
        pod = self.pod.spec.security_context
        must_not = (
            spec.security_context.run_as_non_root
            if spec.security_context.HasField("run_as_non_root")
            else pod.run_as_non_root
        )
        if not must_not or pod.run_as_user:
            return
        if image.HasField("uid") and 0 < image.uid.value < 2**32:
            return
        if image.username:
            raise env.Missing(
                f"container has runAsNonRoot and image has non-numeric user ({image.username}),"
                " cannot verify user is non-root"
            )
        raise env.Missing("container has runAsNonRoot and image will run as root")

    def _hosts(self, spec: container_pb2.Container, mounts: list[pb.Mount]) -> None:
        """The pod's /etc/hosts, unless it has the node's or brings its own."""
        if self.pod.spec.host_network or any(m.container_path == "/etc/hosts" for m in mounts):
            return
        path = volume.directory(self.node.root, self.pod.metadata.uid) / "etc-hosts"
        lines = [
            "# Kubernetes-managed hosts file.",
            "127.0.0.1\tlocalhost",
            "::1\tlocalhost ip6-localhost ip6-loopback",
        ]
        for address in self._facts().pod_addresses:
            lines.append(f"{address}\t{container.hostname(self.pod)}")
        for alias in self.pod.spec.host_aliases:
            lines.append(f"{alias.ip}\t{' '.join(alias.hostnames)}")
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        if not path.exists():
            path.write_text("\n".join(lines) + "\n")
            path.chmod(0o644)
        mounts.append(pb.Mount(container_path="/etc/hosts", host_path=str(path)))

    async def _image(self, spec: container_pb2.Container) -> pb.Image | None:
        """The container's image, pulled if its policy says so; None: it is not to be had now."""
        node, name = self.node, spec.image
        wanted = pb.ImageSpec(image=name, user_specified_image=name)
        there = await node.runtime.image_status(wanted)
        if spec.image_pull_policy == "Never" and there is None:
            said = f'Container image "{name}" is not present with pull policy of Never'
            node.event(self.pod, "Warning", "ErrImageNeverPull", said)
            self._failed(spec.name, "ErrImageNeverPull", said)
            return None
        if there is not None and spec.image_pull_policy != "Always":
            said = f'Container image "{name}" already present on machine'
            node.event(self.pod, "Normal", "Pulled", said)
            return there
        node.event(self.pod, "Normal", "Pulling", f'Pulling image "{name}"')
        try:
            await node.runtime.pull_image(wanted)
        except cri.CriError as error:
            said = f'Failed to pull image "{name}": {error.message}'
            node.event(self.pod, "Warning", "Failed", said)
            node.event(self.pod, "Warning", "Failed", "Error: ErrImagePull")
            before = self.memory.problems.get(spec.name)
            again = before is not None and before.reason in ("ErrImagePull", "ImagePullBackOff")
            self._failed(
                spec.name,
                "ImagePullBackOff" if again else "ErrImagePull",
                f'Back-off pulling image "{name}": {error.message}' if again else error.message,
            )
            if again:
                said = f'Back-off pulling image "{name}"'
                node.event(self.pod, "Normal", "BackOff", said)
            return None
        node.event(self.pod, "Normal", "Pulled", f'Successfully pulled image "{name}"')
        return await node.runtime.image_status(wanted)

    def _failed(self, name: str, reason: str, message: str) -> None:
        before, now = self.memory.problems.get(name), self.node.clock.now()
        found = sync.problem(before, reason, message, now)
        if reason == "CreateContainerConfigError" or not name:
            # What is missing is made by people: look often.
            found = sync.Problem(reason, message, now + 2.0, 2.0)
        self.memory.problems[name] = found

    async def _finish(self) -> None:
        """Takes away what the pod left, then lets its object go."""
        node, uid = self.node, self.pod.metadata.uid
        last = status.make(self.pod, self.observed, self.memory, node.around, node.clock.now())
        for box in self.observed.sandboxes:
            await node.runtime.stop_pod_sandbox(box.id)
            await node.runtime.remove_pod_sandbox(box.id)
        volume.remove(node.root, uid)
        shutil.rmtree(container.log_directory(node.logs, self.pod), ignore_errors=True)
        _remove_cgroups(uid)
        await node.finished(self.pod, last)


def _remove_cgroups(uid: str) -> None:
    """The runtime makes a pod's cgroups under every controller, and leaves them."""
    for found in sorted(_CGROUPS.glob(f"*/kcore/*/pod{uid}")):
        with contextlib.suppress(OSError):
            found.rmdir()
