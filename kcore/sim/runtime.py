"""A CRI made of data: sandboxes and containers that exist only as values, in virtual time.

`Runtime` does what kcore/kubelet/cri.py's Protocol asks. What a container does is its `Behaviour`,
which a `Script` reads off its config; the script here obeys a few environment variables, so that a
manifest can say it. The runtime outlives kubelets, as a real one does: `crash` ends a container,
`reboot` all of them. Work that takes time is done by `run`, which must be started beside it.
It must not know what a pod is for.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from kcore_api.runtime.v1 import api_pb2 as pb

from kcore.chance import Chance
from kcore.clock import Clock
from kcore.kubelet.cri import Code, CriError
from kcore.tasks import Tasks

_NANO = 1_000_000_000
SIGTERM_CODE, SIGKILL_CODE = 143, 137


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a container does once it is started."""

    # None: it runs until it is stopped.
    runs_seconds: float | None = None
    exit_code: int = 0
    # After the stop signal; None: it ignores that.
    ends_seconds: float | None = 0.05


@dataclass(frozen=True, slots=True)
class Command:
    """What a command does that is run in a container."""

    exit_code: int = 0
    output: str = ""
    seconds: float = 0.0


Script = Callable[[pb.ContainerConfig], Behaviour]


def obey(config: pb.ContainerConfig) -> Behaviour:
    """What the container's environment says: SIM_RUNS_SECONDS, SIM_EXIT_CODE, SIM_IGNORES_TERM."""
    environment = {pair.key: pair.value.decode() for pair in config.envs}
    runs = environment.get("SIM_RUNS_SECONDS")
    return Behaviour(
        runs_seconds=None if runs is None else float(runs),
        exit_code=int(environment.get("SIM_EXIT_CODE", "0")),
        ends_seconds=None if "SIM_IGNORES_TERM" in environment else 0.05,
    )


@dataclass(frozen=True, slots=True)
class Speed:
    """How long things take, at least and at most."""

    sandbox_seconds: tuple[float, float] = (0.05, 0.2)
    container_seconds: tuple[float, float] = (0.02, 0.1)
    pull_seconds: tuple[float, float] = (0.5, 5.0)
    other_seconds: tuple[float, float] = (0.001, 0.005)


@dataclass(slots=True)
class _Sandbox:
    id: str
    config: pb.PodSandboxConfig
    handler: str
    created_at: int
    address: str
    ready: bool = True


@dataclass(slots=True)
class _Container:
    id: str
    sandbox: _Sandbox
    config: pb.ContainerConfig
    behaviour: Behaviour
    created_at: int
    state: pb.ContainerState = pb.CONTAINER_CREATED
    started_at: int = 0
    finished_at: int = 0
    exit_code: int = 0
    reason: str = ""
    # Moment of the clock and code of its end, where that is decided.
    ends: tuple[float, int] | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Runtime:
    """What runs on one node."""

    def __init__(
        self,
        clock: Clock,
        chance: Chance,
        *,
        subnet: str = "10.244.0",
        script: Script = obey,
        speed: Speed | None = None,
    ) -> None:
        """`subnet`: the first three numbers of its pods' addresses."""
        self.sandboxes: dict[str, _Sandbox] = {}
        self.containers: dict[str, _Container] = {}
        self.images: dict[str, str] = {}
        # Images that can't be pulled.
        self.missing: frozenset[str] = frozenset()
        # What commands do, by their words; the others succeed and say nothing.
        self.commands: dict[str, Command] = {}
        # Moments, containers' names and words of all that were run: for tests.
        self.executed: list[tuple[float, str, str]] = []
        # How often each container, by pod and name, was started: for tests.
        self.starts: dict[tuple[str, str], int] = {}
        # With which code a container of each pod ended last, by the pod's uid.
        self.ends: dict[str, int] = {}
        self._clock = clock
        self._chance = chance
        self._subnet = subnet
        self._script = script
        self._speed = speed or Speed()
        self._listeners: list[asyncio.Queue[pb.ContainerEventResponse]] = []
        self._tasks: Tasks | None = None
        self._ids = 0

    async def run(self) -> None:
        """Ends containers when their time has come."""
        async with Tasks() as tasks:
            self._tasks = tasks
            for container in self.containers.values():
                if container.ends is not None and container.state == pb.CONTAINER_RUNNING:
                    tasks.start(self._end_at(container, container.ends[0]))
            await asyncio.Event().wait()

    # What happens to a node.

    def crash(self, container_id: str, exit_code: int, reason: str = "") -> None:
        """The container ends by itself, now."""
        container = self.containers.get(container_id)
        if container is not None and container.state == pb.CONTAINER_RUNNING:
            self._finish(container, exit_code, reason)

    def reboot(self) -> None:
        """All that ran has ended; what is known of it remains."""
        for container in self.containers.values():
            if container.state == pb.CONTAINER_RUNNING:
                self._finish(container, 255, "Unknown")
        for sandbox in self.sandboxes.values():
            sandbox.ready = False

    def running(self) -> list[str]:
        """Ids of the containers that run, in the order of their creation."""
        return [c.id for c in self.containers.values() if c.state == pb.CONTAINER_RUNNING]

    def running_who(self) -> list[tuple[str, str]]:
        """The same, as (pod uid, container name)."""
        return [(whose.uid, container) for whose, container in self._running()]

    def running_pods(self) -> list[tuple[str, str, str]]:
        """Pods of which something runs, as (namespace, name, uid), once for each container."""
        return [(whose.namespace, whose.name, whose.uid) for whose, _ in self._running()]

    def _running(self) -> Iterator[tuple[pb.PodSandboxMetadata, str]]:
        for each in self.containers.values():
            if each.state == pb.CONTAINER_RUNNING:
                yield each.sandbox.config.metadata, each.config.metadata.name

    # The protocol.

    async def version(self) -> pb.VersionResponse:
        """It has a name."""
        await self._take(self._speed.other_seconds)
        return pb.VersionResponse(
            version="0.1.0",
            runtime_name="sim",
            runtime_version="1.0.0",
            runtime_api_version="v1",
        )

    async def status(self) -> pb.StatusResponse:
        """Always ready."""
        await self._take(self._speed.other_seconds)
        ready = [pb.RuntimeCondition(type=t, status=True) for t in ("RuntimeReady", "NetworkReady")]
        return pb.StatusResponse(status=pb.RuntimeStatus(conditions=ready))

    async def cgroup_driver(self) -> "pb.CgroupDriver | None":
        """It has no cgroups."""
        return None

    async def run_pod_sandbox(self, config: pb.PodSandboxConfig, handler: str = "") -> str:
        """Makes one. Its name, uid and attempt are reserved while it is there."""
        await self._take(self._speed.sandbox_seconds)
        for other in self.sandboxes.values():
            if other.config.metadata == config.metadata:
                raise CriError(
                    Code.ALREADY_EXISTS, f"name is reserved for {other.id}", "RunPodSandbox"
                )
        kept = pb.PodSandboxConfig()
        kept.CopyFrom(config)
        number = self._next()
        address = f"{self._subnet}.{2 + number % 250}"
        sandbox = _Sandbox(self._id("s", number), kept, handler, self._now(), address)
        self.sandboxes[sandbox.id] = sandbox
        return sandbox.id

    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        """Ends all in it."""
        await self._take(self._speed.sandbox_seconds)
        sandbox = self.sandboxes.get(sandbox_id)
        if sandbox is not None:
            for container in self._within(sandbox):
                if container.state == pb.CONTAINER_RUNNING:
                    self._finish(container, SIGKILL_CODE, "Error")
            sandbox.ready = False

    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        """Removes it and all in it."""
        await self.stop_pod_sandbox(sandbox_id)
        sandbox = self.sandboxes.get(sandbox_id)
        if sandbox is not None:
            for container in self._within(sandbox):
                del self.containers[container.id]
            del self.sandboxes[sandbox_id]

    async def pod_sandbox_status(self, sandbox_id: str) -> pb.PodSandboxStatus:
        """State and address."""
        await self._take(self._speed.other_seconds)
        return self._sandbox_status(self._sandbox(sandbox_id, "PodSandboxStatus"))

    async def list_pod_sandboxes(
        self, labels: Mapping[str, str] | None = None
    ) -> list[pb.PodSandbox]:
        """All of them."""
        await self._take(self._speed.other_seconds)
        return [
            pb.PodSandbox(
                id=sandbox.id,
                metadata=sandbox.config.metadata,
                state=_sandbox_state(sandbox),
                created_at=sandbox.created_at,
                labels=sandbox.config.labels,
                annotations=sandbox.config.annotations,
                runtime_handler=sandbox.handler,
            )
            for sandbox in self.sandboxes.values()
            if _has(sandbox.config.labels, labels)
        ]

    async def create_container(
        self, sandbox_id: str, config: pb.ContainerConfig, sandbox: pb.PodSandboxConfig
    ) -> str:
        """Makes one in a sandbox that is ready, of an image that is there."""
        await self._take(self._speed.container_seconds)
        found = self._sandbox(sandbox_id, "CreateContainer")
        if not found.ready:
            raise CriError(Code.UNKNOWN, f"sandbox {found.id} is not running", "CreateContainer")
        if self._image(config.image.image) is None:
            said = f"image {config.image.image} is not here"
            raise CriError(Code.NOT_FOUND, said, "CreateContainer")
        for other in self._within(found):
            if other.config.metadata == config.metadata:
                raise CriError(
                    Code.ALREADY_EXISTS, f"name is reserved for {other.id}", "CreateContainer"
                )
        kept = pb.ContainerConfig()
        kept.CopyFrom(config)
        behaviour = self._script(kept)
        container = _Container(self._id("c", self._next()), found, kept, behaviour, self._now())
        self.containers[container.id] = container
        self._tell(container, pb.CONTAINER_CREATED_EVENT)
        return container.id

    async def start_container(self, container_id: str) -> None:
        """Starts one that was created and never started."""
        await self._take(self._speed.container_seconds)
        container = self._container(container_id, "StartContainer")
        if container.state != pb.CONTAINER_CREATED or not container.sandbox.ready:
            said = f"container {container.id} is not in created state"
            raise CriError(Code.FAILED_PRECONDITION, said, "StartContainer")
        container.state = pb.CONTAINER_RUNNING
        container.started_at = self._now()
        who = (container.sandbox.config.metadata.uid, container.config.metadata.name)
        self.starts[who] = self.starts.get(who, 0) + 1
        self._tell(container, pb.CONTAINER_STARTED_EVENT)
        behaviour = container.behaviour
        if behaviour.runs_seconds is not None:
            self._end_in(container, behaviour.runs_seconds, behaviour.exit_code)

    async def stop_container(self, container_id: str, grace_seconds: int) -> None:
        """Stop signal, then the end."""
        await self._take(self._speed.other_seconds)
        container = self.containers.get(container_id)
        if container is None or container.state != pb.CONTAINER_RUNNING:
            return
        takes = container.behaviour.ends_seconds
        if takes is not None and takes < grace_seconds:
            self._end_in(container, takes, SIGTERM_CODE)
        else:
            self._end_in(container, float(max(0, grace_seconds)), SIGKILL_CODE)
        await container.ended.wait()

    async def remove_container(self, container_id: str) -> None:
        """Removes it, running or not."""
        await self._take(self._speed.other_seconds)
        container = self.containers.get(container_id)
        if container is None:
            return
        if container.state == pb.CONTAINER_RUNNING:
            self._finish(container, SIGKILL_CODE)
        del self.containers[container_id]
        self._tell(container, pb.CONTAINER_DELETED_EVENT)

    async def list_containers(
        self, labels: Mapping[str, str] | None = None, sandbox_id: str = ""
    ) -> list[pb.Container]:
        """All of them."""
        await self._take(self._speed.other_seconds)
        return [
            pb.Container(
                id=container.id,
                pod_sandbox_id=container.sandbox.id,
                metadata=container.config.metadata,
                image=container.config.image,
                image_ref=self._reference(container),
                image_id=self._reference(container),
                state=container.state,
                created_at=container.created_at,
                labels=container.config.labels,
                annotations=container.config.annotations,
            )
            for container in self.containers.values()
            if sandbox_id in ("", container.sandbox.id) and _has(container.config.labels, labels)
        ]

    async def container_status(self, container_id: str) -> pb.ContainerStatus:
        """All that is known of it."""
        await self._take(self._speed.other_seconds)
        return self._container_status(self._container(container_id, "ContainerStatus"))

    async def update_container_resources(
        self, container_id: str, resources: pb.LinuxContainerResources
    ) -> None:
        """There are none."""
        self._container(container_id, "UpdateContainerResources")

    async def reopen_container_log(self, container_id: str) -> None:
        """There is none."""
        self._container(container_id, "ReopenContainerLog")

    async def exec_sync(
        self, container_id: str, command: Sequence[str], limit_seconds: int
    ) -> pb.ExecSyncResponse:
        """Does what `commands` says."""
        await self._take(self._speed.other_seconds)
        container = self._container(container_id, "ExecSync")
        if container.state != pb.CONTAINER_RUNNING:
            said = f"container {container.id} is not running"
            raise CriError(Code.FAILED_PRECONDITION, said, "ExecSync")
        words = " ".join(command)
        self.executed.append((self._clock.monotonic(), container.config.metadata.name, words))
        does = self.commands.get(words, Command())
        if limit_seconds and does.seconds > limit_seconds:
            await self._clock.sleep(limit_seconds)
            raise CriError(Code.DEADLINE_EXCEEDED, "timeout exceeded", "ExecSync")
        await self._clock.sleep(does.seconds)
        return pb.ExecSyncResponse(stdout=does.output.encode(), exit_code=does.exit_code)

    async def exec(
        self, container_id: str, command: Sequence[str], *, stdin: bool, tty: bool
    ) -> str:
        """There are no streams."""
        raise CriError(Code.UNIMPLEMENTED, "a simulation has no streams", "Exec")

    async def attach(self, container_id: str, *, stdin: bool, tty: bool) -> str:
        """There are no streams."""
        raise CriError(Code.UNIMPLEMENTED, "a simulation has no streams", "Attach")

    async def port_forward(self, sandbox_id: str, port: int) -> str:
        """There are no streams."""
        raise CriError(Code.UNIMPLEMENTED, "a simulation has no streams", "PortForward")

    async def container_stats(self, container_id: str) -> pb.ContainerStats:
        """It uses nothing."""
        container = self._container(container_id, "ContainerStats")
        return _stats(container)

    async def list_container_stats(
        self, labels: Mapping[str, str] | None = None
    ) -> list[pb.ContainerStats]:
        """They use nothing."""
        return [_stats(c) for c in self.containers.values() if _has(c.config.labels, labels)]

    async def events(self) -> AsyncIterator[pb.ContainerEventResponse]:
        """What happens to containers, from now on."""
        queue: asyncio.Queue[pb.ContainerEventResponse] = asyncio.Queue()
        self._listeners.append(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._listeners.remove(queue)

    async def list_images(self) -> list[pb.Image]:
        """What was pulled."""
        await self._take(self._speed.other_seconds)
        return [_image(name, self.images[name]) for name in sorted(self.images)]

    async def image_status(self, image: pb.ImageSpec) -> pb.Image | None:
        """One image, by name or id."""
        await self._take(self._speed.other_seconds)
        found = self._image(image.image)
        return None if found is None else _image(*found)

    async def pull_image(
        self,
        image: pb.ImageSpec,
        auth: pb.AuthConfig | None = None,
        sandbox: pb.PodSandboxConfig | None = None,
    ) -> str:
        """Takes a while; whatever is not declared missing is there."""
        await self._take(self._speed.pull_seconds)
        if image.image in self.missing:
            raise CriError(Code.NOT_FOUND, f"{image.image}: not found", "PullImage")
        self.images[image.image] = f"sha256:{image.image}"
        return self.images[image.image]

    async def remove_image(self, image: pb.ImageSpec) -> None:
        """Forgets it."""
        found = self._image(image.image)
        if found is not None:
            del self.images[found[0]]

    async def image_fs_info(self) -> list[pb.FilesystemUsage]:
        """Nothing lies on any disk."""
        return []

    # Inside.

    async def _take(self, seconds: tuple[float, float]) -> None:
        await self._clock.sleep(self._chance.uniform(*seconds))

    def _now(self) -> int:
        return int(self._clock.now() * _NANO)

    def _next(self) -> int:
        self._ids += 1
        return self._ids

    def _id(self, letter: str, number: int) -> str:
        return f"{letter}{number:04d}{self._chance.token(59)}"

    def _sandbox(self, sandbox_id: str, call: str) -> _Sandbox:
        found = self.sandboxes.get(sandbox_id)
        if found is None:
            raise CriError(Code.NOT_FOUND, f"sandbox {sandbox_id} not found", call)
        return found

    def _container(self, container_id: str, call: str) -> _Container:
        found = self.containers.get(container_id)
        if found is None:
            raise CriError(Code.NOT_FOUND, f"container {container_id} not found", call)
        return found

    def _within(self, sandbox: _Sandbox) -> list[_Container]:
        return [c for c in self.containers.values() if c.sandbox is sandbox]

    def _image(self, name: str) -> tuple[str, str] | None:
        for known in sorted(self.images):
            if name in (known, self.images[known]):
                return known, self.images[known]
        return None

    def _reference(self, container: _Container) -> str:
        found = self._image(container.config.image.image)
        return container.config.image.image if found is None else found[1]

    def _end_in(self, container: _Container, seconds: float, exit_code: int) -> None:
        moment = self._clock.monotonic() + seconds
        if container.ends is None or moment < container.ends[0]:
            container.ends = (moment, exit_code)
            assert self._tasks is not None, "a runtime must be run"
            self._tasks.start(self._end_at(container, moment))

    async def _end_at(self, container: _Container, moment: float) -> None:
        await self._clock.sleep(moment - self._clock.monotonic())
        # It may have ended sooner, or been told to.
        running = container.state == pb.CONTAINER_RUNNING
        if running and container.ends is not None and container.ends[0] <= moment:
            self._finish(container, container.ends[1])

    def _finish(self, container: _Container, exit_code: int, reason: str = "") -> None:
        container.state = pb.CONTAINER_EXITED
        container.exit_code = exit_code
        container.reason = reason or ("Completed" if exit_code == 0 else "Error")
        container.finished_at = self._now()
        self.ends[container.sandbox.config.metadata.uid] = exit_code
        container.ended.set()
        self._tell(container, pb.CONTAINER_STOPPED_EVENT)

    def _tell(self, container: _Container, what: pb.ContainerEventType) -> None:
        if self._listeners:
            event = pb.ContainerEventResponse(
                container_id=container.id,
                container_event_type=what,
                created_at=self._now(),
                pod_sandbox_status=self._sandbox_status(container.sandbox),
                containers_statuses=[
                    self._container_status(other) for other in self._within(container.sandbox)
                ],
            )
            for queue in self._listeners:
                queue.put_nowait(event)

    def _sandbox_status(self, sandbox: _Sandbox) -> pb.PodSandboxStatus:
        return pb.PodSandboxStatus(
            id=sandbox.id,
            metadata=sandbox.config.metadata,
            state=_sandbox_state(sandbox),
            created_at=sandbox.created_at,
            network=pb.PodSandboxNetworkStatus(ip=sandbox.address),
            labels=sandbox.config.labels,
            annotations=sandbox.config.annotations,
            runtime_handler=sandbox.handler,
        )

    def _container_status(self, container: _Container) -> pb.ContainerStatus:
        return pb.ContainerStatus(
            id=container.id,
            metadata=container.config.metadata,
            state=container.state,
            created_at=container.created_at,
            started_at=container.started_at,
            finished_at=container.finished_at,
            exit_code=container.exit_code,
            reason=container.reason,
            image=container.config.image,
            image_ref=self._reference(container),
            image_id=self._reference(container),
            labels=container.config.labels,
            annotations=container.config.annotations,
            log_path=container.config.log_path,
        )


def _sandbox_state(sandbox: _Sandbox) -> pb.PodSandboxState:
    return pb.SANDBOX_READY if sandbox.ready else pb.SANDBOX_NOTREADY


def _image(name: str, id_: str) -> pb.Image:
    return pb.Image(id=id_, repo_tags=[name], size=1 << 20)


def _stats(container: _Container) -> pb.ContainerStats:
    return pb.ContainerStats(
        attributes=pb.ContainerAttributes(
            id=container.id,
            metadata=container.config.metadata,
            labels=container.config.labels,
            annotations=container.config.annotations,
        )
    )


def _has(labels: Mapping[str, str], wanted: Mapping[str, str] | None) -> bool:
    return all(labels.get(key) == value for key, value in (wanted or {}).items())
