"""The world as the log says it is: objects parsed, and how some numbers were before.

`World.apply(record)` follows the log. It is the simulation's own copy, made from nothing but the
records, so that what the kernel and the feed show can be held against it.
"""

from dataclasses import dataclass, field
from typing import TypeVar

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message
from kcore_api.kcore.apps.v1 import (
    controller_revision_pb2,
    daemon_set_pb2,
    deployment_pb2,
    replica_set_pb2,
    stateful_set_pb2,
)
from kcore_api.kcore.batch.v1 import cron_job_pb2, job_pb2
from kcore_api.kcore.core.v1 import namespace_pb2, node_pb2, pod_pb2, service_pb2
from kcore_api.kcore.discovery.v1 import endpoint_slice_pb2
from kcore_api.kcore.meta.v1 import meta_pb2
from kcore_api.kcore.policy.v1 import pod_disruption_budget_pb2

from kcore.kernel.record import Key, Record

Pod = pod_pb2.Pod
Node = node_pb2.Node
Namespace = namespace_pb2.Namespace
Deployment = deployment_pb2.Deployment
ReplicaSet = replica_set_pb2.ReplicaSet

StatefulSet = stateful_set_pb2.StatefulSet
DaemonSet = daemon_set_pb2.DaemonSet
ControllerRevision = controller_revision_pb2.ControllerRevision
Job = job_pb2.Job
CronJob = cron_job_pb2.CronJob
Budget = pod_disruption_budget_pb2.PodDisruptionBudget
Service = service_pb2.Service
EndpointSlice = endpoint_slice_pb2.EndpointSlice

POD = Pod.DESCRIPTOR.full_name
NODE = Node.DESCRIPTOR.full_name
NAMESPACE = Namespace.DESCRIPTOR.full_name
DEPLOYMENT = Deployment.DESCRIPTOR.full_name
REPLICA_SET = ReplicaSet.DESCRIPTOR.full_name

_CLASSES: dict[str, type[Message]] = {
    kind.DESCRIPTOR.full_name: kind
    for kind in (
        Pod,
        Node,
        Namespace,
        Deployment,
        ReplicaSet,
        StatefulSet,
        DaemonSet,
        ControllerRevision,
        Job,
        CronJob,
        Budget,
        Service,
        EndpointSlice,
    )
}

M = TypeVar("M", bound=Message)


def _bare() -> type[Message]:
    """A message that has nothing but metadata: enough of all other kinds."""
    file = descriptor_pb2.FileDescriptorProto(
        name="kcore/sim/bare.proto",
        package="kcore.sim",
        syntax="proto3",
        dependency=[meta_pb2.DESCRIPTOR.name],
    )
    type_ = meta_pb2.ObjectMeta.DESCRIPTOR.full_name
    file.message_type.add(name="Bare").field.add(
        name="metadata", number=1, label=1, type=11, type_name=f".{type_}"
    )
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("kcore.sim.Bare"))


Bare = _bare()


@dataclass(frozen=True, slots=True)
class Limits:
    """How many pods a workload allows itself."""

    replicas: int
    most: int
    least: int


@dataclass(frozen=True, slots=True)
class Loss:
    """A ready pod that was deleted, or ended."""

    revision: int
    # Its owner's uid, its own, and what it was.
    owner: str
    uid: str
    pod: Pod
    # By whom, and through which subresource.
    by: str
    subresource: str


@dataclass(slots=True)
class World:
    """Objects by key, at one revision."""

    revision: int = 0
    # Since the beginning, by a clock that nobody sets.
    seconds: float = 0.0
    # How often somebody set the clock of those who read it.
    jumps: int = 0
    objects: dict[Key, Message] = field(default_factory=dict)
    uids: set[str] = field(default_factory=set)
    # By uid of a workload: (revision, limits), oldest first.
    limits: dict[str, list[tuple[int, Limits]]] = field(default_factory=dict)
    # By the same: when it was last given fewer replicas.
    shrunk_at: dict[str, float] = field(default_factory=dict)
    # By the same: what made it have the limits that it has.
    causes: dict[str, int] = field(default_factory=dict)
    # By uid of a pod: when it was last seen ready, since which revision it is, and which was the
    # first at which it was not so any more, or was on its way out.
    ready_at: dict[str, float] = field(default_factory=dict)
    ready_since: dict[str, int] = field(default_factory=dict)
    well_until: dict[str, int] = field(default_factory=dict)
    # By uid: at which revision it was created.
    created: dict[str, int] = field(default_factory=dict)
    # By uid of a budget: what it was last counted because of.
    counted: dict[str, int] = field(default_factory=dict)
    losses: list[Loss] = field(default_factory=list)
    _kinds: dict[str, dict[Key, Message]] = field(default_factory=dict)
    _owned: dict[str, dict[Key, Message]] = field(default_factory=dict)

    def apply(self, record: Record, new: Message | None) -> None:
        """What the record says has happened; `new` is what it holds, None for a deletion."""
        self.revision = record.revision
        old = self.objects.get(record.key)
        if isinstance(old, Pod) and is_well(old) and not is_well(new):
            self.well_until[record.uid] = record.revision
            if new is None or not is_active(new):
                by = record.manager or record.actor
                lost = Loss(record.revision, manager(old), record.uid, old, by, record.subresource)
                self.losses.append(lost)
        self._keep(record.key, old, new)
        if new is None:
            return
        if old is None:
            self.uids.add(record.uid)
            self.created[record.uid] = record.revision
        if isinstance(new, Budget) and record.manager == "disruption-controller":
            self.counted[record.uid] = record.because
        limits = limits_of(new)
        if limits is not None:
            self._limit(record, limits)
        elif is_ready(new) or is_ready(old):
            self.ready_at[record.uid] = self.seconds
            if not is_ready(old):
                self.ready_since[record.uid] = record.revision

    def get(self, kind: str, namespace: str, name: str) -> Message | None:
        """One object."""
        return self.objects.get(Key(kind, namespace, name))

    def all(self, kind: type[M]) -> list[M]:
        """All objects of a kind, by name."""
        found = self._kinds.get(kind.DESCRIPTOR.full_name, {})
        return [found[key] for key in sorted(found)]  # type: ignore[misc]

    def pods(self) -> list[Pod]:
        """All pods, by name."""
        return self.all(Pod)

    def owned(self, uid: str, kind: type[M]) -> list[M]:
        """The objects of a kind that this one manages, by name."""
        found = self._owned.get(uid, {})
        return [found[key] for key in sorted(found) if isinstance(found[key], kind)]  # type: ignore[misc]

    def limits_since(self, uid: str, revision: int) -> list[Limits]:
        """All limits that held at this revision or later."""
        history = self.limits.get(uid, [])
        start = 0
        for index, (since, _) in enumerate(history):
            if since <= revision:
                start = index
        return [limits for _, limits in history[start:]]

    def was_well(self, pod: Pod, revision: int) -> bool:
        """Whether it is ready and on no way out, or was so at this revision or later."""
        return is_well(pod) or self.well_until.get(pod.metadata.uid, 0) > revision

    def _keep(self, key: Key, old: Message | None, new: Message | None) -> None:
        if old is not None and (new is None or manager(new) != manager(old)):
            self._owned.get(manager(old), {}).pop(key, None)
        if new is None:
            self.objects.pop(key, None)
            self._kinds.get(key.kind, {}).pop(key, None)
            return
        self.objects[key] = self._kinds.setdefault(key.kind, {})[key] = new
        if uid := manager(new):
            self._owned.setdefault(uid, {})[key] = new

    def _limit(self, record: Record, limits: Limits) -> None:
        history = self.limits.setdefault(record.uid, [])
        if history and history[-1][1].replicas > limits.replicas:
            self.shrunk_at[record.uid] = self.seconds
        if not history or history[-1][1] != limits:
            history.append((self.revision, limits))
            self.causes[record.uid] = record.because


def parse(record: Record) -> Message:
    """The object of a record; of kinds that nobody asks about only the metadata means anything."""
    return _CLASSES.get(record.key.kind, Bare).FromString(record.body)


def metadata(obj: Message) -> meta_pb2.ObjectMeta:
    """The metadata of an object of any kind."""
    found: meta_pb2.ObjectMeta = obj.metadata  # type: ignore[attr-defined]
    return found


def manager(obj: Message) -> str:
    """Uid of the owner that manages it, or ""."""
    return next((o.uid for o in metadata(obj).owner_references if o.controller), "")


def is_over(pod: Pod) -> bool:
    """Whether it has ended."""
    return pod.status.phase in ("Succeeded", "Failed")


def is_active(obj: Message) -> bool:
    """Whether it is a pod that counts as one of its owner's."""
    going = isinstance(obj, Pod) and obj.metadata.HasField("deletion_timestamp")
    return isinstance(obj, Pod) and not is_over(obj) and not going


def is_well(obj: Message | None) -> bool:
    """Whether it is a pod that is ready, and to stay."""
    return obj is not None and is_ready(obj) and is_active(obj)


def is_ready(obj: Message | None) -> bool:
    """Whether it is a pod that is ready."""
    return isinstance(obj, Pod) and any(
        c.type == "Ready" and c.status == "True" for c in obj.status.conditions
    )


def finished(job: Job) -> str:
    """Complete, Failed or "": how it ended."""
    for each in job.status.conditions:
        if each.type in ("Complete", "Failed") and each.status == "True":
            return each.type
    return ""


def limits_of(obj: Message) -> Limits | None:
    """How many pods a workload may have at most, and must have at least; None: it is none."""
    if isinstance(obj, Job):
        spec = obj.spec
        count = 0 if spec.suspend else spec.parallelism if spec.HasField("parallelism") else 1
        return Limits(count, count, 0)
    if not isinstance(obj, Deployment | ReplicaSet | StatefulSet):
        return None
    replicas = obj.spec.replicas if obj.spec.HasField("replicas") else 1
    if not isinstance(obj, Deployment) or obj.spec.strategy.type == "Recreate":
        return Limits(replicas, replicas, 0)
    rolling = obj.spec.strategy.rolling_update
    surge = _count(rolling.max_surge, replicas, up=True)
    missing = _count(rolling.max_unavailable, replicas, up=False)
    if not surge and not missing:
        missing = 1
    return Limits(replicas, replicas + surge, replicas - missing)


def _count(amount: meta_pb2.IntOrString, replicas: int, *, up: bool) -> int:
    """A number, or a part of the replicas; 25 % where nothing is said."""
    if amount.HasField("int_val") and not amount.type:
        return amount.int_val
    percent = int((amount.str_val or "25%").removesuffix("%"))
    return -(-percent * replicas // 100) if up else percent * replicas // 100
