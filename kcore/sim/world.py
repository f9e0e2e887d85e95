"""The world as the log says it is: objects parsed, and how some numbers were before.

`World.apply(record)` follows the log. It is the simulation's own copy, made from nothing but the
records, so that what the kernel and the feed show can be held against it.
"""

from dataclasses import dataclass, field

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message
from kcore_api.kcore.apps.v1 import deployment_pb2, replica_set_pb2
from kcore_api.kcore.core.v1 import namespace_pb2, node_pb2, pod_pb2
from kcore_api.kcore.meta.v1 import meta_pb2

from kcore.kernel.record import Key, Record, Verb

Pod = pod_pb2.Pod
Node = node_pb2.Node
Namespace = namespace_pb2.Namespace
Deployment = deployment_pb2.Deployment
ReplicaSet = replica_set_pb2.ReplicaSet

POD = Pod.DESCRIPTOR.full_name
NODE = Node.DESCRIPTOR.full_name
NAMESPACE = Namespace.DESCRIPTOR.full_name
DEPLOYMENT = Deployment.DESCRIPTOR.full_name
REPLICA_SET = ReplicaSet.DESCRIPTOR.full_name

_CLASSES: dict[str, type[Message]] = {
    POD: Pod,
    NODE: Node,
    NAMESPACE: Namespace,
    DEPLOYMENT: Deployment,
    REPLICA_SET: ReplicaSet,
}


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
    """What a deployment allows itself."""

    replicas: int
    most: int
    least: int


@dataclass(slots=True)
class World:
    """Objects by key, at one revision."""

    revision: int = 0
    # Since the beginning, by a clock that nobody sets.
    seconds: float = 0.0
    objects: dict[Key, Message] = field(default_factory=dict)
    uids: set[str] = field(default_factory=set)
    # By uid of a deployment, or of a replica set: (revision, limits), oldest first.
    limits: dict[str, list[tuple[int, Limits]]] = field(default_factory=dict)
    # By the same: when it was last given fewer replicas.
    shrunk_at: dict[str, float] = field(default_factory=dict)
    # By the same: what made it have the limits that it has.
    causes: dict[str, int] = field(default_factory=dict)
    # By uid of a pod: when it was last seen ready, and since which revision it is.
    ready_at: dict[str, float] = field(default_factory=dict)
    ready_since: dict[str, int] = field(default_factory=dict)
    # Ready pods that were deleted or ended: (revision, uid of the owner, by whom).
    losses: list[tuple[int, str, str]] = field(default_factory=list)

    def apply(self, record: Record) -> None:
        """What the record says has happened."""
        self.revision = record.revision
        self._lose(record)
        if record.verb is Verb.DELETE:
            self.objects.pop(record.key, None)
            return
        new, old = parse(record), self.objects.get(record.key)
        self.objects[record.key] = new
        self.uids.add(record.uid)
        if isinstance(new, Deployment | ReplicaSet):
            self._limit(record, limits_of(new))
        elif is_ready(new) or is_ready(old):
            self.ready_at[record.uid] = self.seconds
            if not is_ready(old):
                self.ready_since[record.uid] = record.revision

    def get(self, kind: str, namespace: str, name: str) -> Message | None:
        """One object."""
        return self.objects.get(Key(kind, namespace, name))

    def pods(self) -> list[Pod]:
        """All pods, by name."""
        return [o for _, o in sorted(self.objects.items()) if isinstance(o, Pod)]

    def owned(self, uid: str, kind: str) -> list[Message]:
        """The objects of a kind that this one manages, by name."""
        return [
            found
            for key, found in sorted(self.objects.items())
            if key.kind == kind and manager(found) == uid
        ]

    def limits_since(self, uid: str, revision: int) -> list[Limits]:
        """All limits that held at this revision or later."""
        history = self.limits.get(uid, [])
        start = 0
        for index, (since, _) in enumerate(history):
            if since <= revision:
                start = index
        return [limits for _, limits in history[start:]]

    def _lose(self, record: Record) -> None:
        old = self.objects.get(record.key)
        if isinstance(old, Pod) and is_ready(old) and is_active(old):
            new = None if record.verb is Verb.DELETE else parse(record)
            if not isinstance(new, Pod) or not is_active(new):
                by = record.manager or record.actor
                self.losses.append((record.revision, manager(old), by))

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


def is_active(pod: Pod) -> bool:
    """Whether it counts as one of its owner's."""
    over = pod.status.phase in ("Succeeded", "Failed")
    return not over and not pod.metadata.HasField("deletion_timestamp")


def is_ready(obj: Message | None) -> bool:
    """Whether it is a pod that is ready."""
    return isinstance(obj, Pod) and any(
        c.type == "Ready" and c.status == "True" for c in obj.status.conditions
    )


def limits_of(obj: Deployment | ReplicaSet) -> Limits:
    """How many pods it may have at most, and must have at least."""
    replicas = obj.spec.replicas if obj.spec.HasField("replicas") else 1
    if isinstance(obj, ReplicaSet):
        return Limits(replicas, replicas, 0)
    if obj.spec.strategy.type == "Recreate":
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
