"""What the runtime has of a pod, as values.

Read by `list_all` for every pod at once (two calls, whatever their number) or `list_pod` for one.
Ended containers and ready sandboxes are asked for details once; those do not change any more.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kcore_api.runtime.v1 import api_pb2 as pb

from kcore.kubelet import cri

POD_NAME = "io.kubernetes.pod.name"
POD_NAMESPACE = "io.kubernetes.pod.namespace"
POD_UID = "io.kubernetes.pod.uid"
CONTAINER_NAME = "io.kubernetes.container.name"
HASH = "io.kubernetes.container.hash"
# Seconds that were waited before this start: what the next wait is reckoned from.
DELAY = "kcore.dev/restart-delay"

_STATES = {
    pb.CONTAINER_CREATED: "created",
    pb.CONTAINER_RUNNING: "running",
    pb.CONTAINER_EXITED: "exited",
}


@dataclass(frozen=True, slots=True)
class Sandbox:
    """One sandbox; times are seconds since 1970."""

    id: str
    attempt: int
    ready: bool
    created_at: float
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Container:
    """One instance of a container; `state` is created, running, exited or unknown."""

    id: str
    name: str
    attempt: int
    sandbox: str
    state: str
    created_at: float
    started_at: float = 0.0
    finished_at: float = 0.0
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    image: str = ""
    image_id: str = ""
    hash: str = ""
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Observed:
    """All that the runtime has of one pod, newest first."""

    sandboxes: tuple[Sandbox, ...] = ()
    containers: tuple[Container, ...] = ()

    def newest(self, name: str) -> Container | None:
        """The latest instance of a container."""
        return next((one for one in self.containers if one.name == name), None)

    def before(self, name: str) -> Container | None:
        """The instance before that."""
        return next((one for one in self.containers if one.name == name
                     and one is not self.newest(name)), None)  # fmt: skip

    @property
    def running(self) -> tuple[Container, ...]:
        """Containers that have a process."""
        return tuple(one for one in self.containers if one.state == "running")


NOTHING = Observed()


@dataclass
class Reader:
    """Reads the runtime, remembering what cannot change any more."""

    runtime: cri.Runtime
    # Pods' (name, namespace), by uid.
    names: dict[str, tuple[str, str]] = field(default_factory=dict)
    _ended: dict[str, pb.ContainerStatus] = field(default_factory=dict)
    _addresses: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _started: dict[str, float] = field(default_factory=dict)

    async def list_all(self) -> dict[str, Observed]:
        """Every pod's, by uid. What cannot be read of one thing leaves its state unknown."""
        sandboxes = await self.runtime.list_pod_sandboxes()
        containers = await self.runtime.list_containers()
        found = await self._assemble(sandboxes, containers, lenient=True)
        self._forget({one.id for one in containers}, {one.id for one in sandboxes})
        self.names = {uid: name for uid, name in self.names.items() if uid in found}
        return found

    async def list_pod(self, uid: str) -> Observed:
        """One pod's."""
        labels = {POD_UID: uid}
        sandboxes = await self.runtime.list_pod_sandboxes(labels)
        containers = await self.runtime.list_containers(labels)
        found = await self._assemble(sandboxes, containers, lenient=False)
        return found.get(uid, NOTHING)

    async def _assemble(
        self, sandboxes: Iterable[pb.PodSandbox], containers: Iterable[pb.Container], lenient: bool
    ) -> dict[str, Observed]:
        mine: dict[str, tuple[list[Sandbox], list[Container]]] = {}
        for raw in sandboxes:
            if uid := raw.labels.get(POD_UID):
                self.names[uid] = (raw.labels.get(POD_NAME, ""), raw.labels.get(POD_NAMESPACE, ""))
                boxes, _ = mine.setdefault(uid, ([], []))
                if (box := await self._sandbox(raw, lenient)) is not None:
                    boxes.append(box)
        for one in containers:
            if uid := one.labels.get(POD_UID):
                _, inside = mine.setdefault(uid, ([], []))
                if (found := await self._container(one, lenient)) is not None:
                    inside.append(found)
        return {
            uid: Observed(
                tuple(sorted(boxes, key=lambda box: (-box.attempt, -box.created_at))),
                tuple(sorted(inside, key=lambda one: (-one.attempt, -one.created_at, one.name))),
            )
            for uid, (boxes, inside) in mine.items()
        }

    async def _sandbox(self, raw: pb.PodSandbox, lenient: bool) -> Sandbox | None:
        """None: it is gone by now."""
        ready = raw.state == pb.SANDBOX_READY
        if ready and not self._addresses.get(raw.id):
            try:
                status = await self.runtime.pod_sandbox_status(raw.id)
            except cri.CriError as error:
                if error.code is cri.Code.NOT_FOUND:
                    return None
                if not lenient:
                    raise
            else:
                more = [each.ip for each in status.network.additional_ips]
                self._addresses[raw.id] = tuple(ip for ip in (status.network.ip, *more) if ip)
        return Sandbox(
            id=raw.id,
            attempt=raw.metadata.attempt,
            ready=ready,
            created_at=raw.created_at / 1e9,
            addresses=self._addresses.get(raw.id, ()),
        )

    async def _container(self, raw: pb.Container, lenient: bool) -> Container | None:
        """None: it is gone by now. Without its end nobody may believe that it ended well."""
        state = _STATES.get(raw.state, "unknown")
        status = self._ended.get(raw.id)
        if status is None and (
            state == "exited" or (state == "running" and raw.id not in self._started)
        ):
            try:
                status = await self.runtime.container_status(raw.id)
            except cri.CriError as error:
                if error.code is cri.Code.NOT_FOUND:
                    return None
                if not lenient:
                    raise
            else:
                if status.state == pb.CONTAINER_EXITED:
                    self._ended[raw.id] = status
                if status.started_at:
                    self._started[raw.id] = status.started_at / 1e9
        ended = status if status is not None and status.state == pb.CONTAINER_EXITED else None
        if ended is None and state == "exited":
            state = "unknown"
        return Container(
            id=raw.id,
            name=raw.labels.get(CONTAINER_NAME, raw.metadata.name),
            attempt=raw.metadata.attempt,
            sandbox=raw.pod_sandbox_id,
            state="exited" if ended is not None else state,
            created_at=raw.created_at / 1e9,
            started_at=self._started.get(raw.id, 0.0),
            finished_at=ended.finished_at / 1e9 if ended is not None else 0.0,
            exit_code=ended.exit_code if ended is not None else 0,
            reason=ended.reason if ended is not None else "",
            message=ended.message if ended is not None else "",
            image=raw.image.user_specified_image or raw.image.image,
            image_id=raw.image_ref,
            hash=raw.annotations.get(HASH, ""),
            delay=_number(raw.annotations, DELAY),
        )

    def _forget(self, containers: set[str], sandboxes: set[str]) -> None:
        for known, alive in (
            (self._ended, containers),
            (self._started, containers),
            (self._addresses, sandboxes),
        ):
            for gone in [key for key in known if key not in alive]:
                del known[gone]


def _number(annotations: Mapping[str, str], key: str) -> float:
    try:
        return float(annotations.get(key, "0"))
    except ValueError:
        return 0.0
