"""A world in memory: just enough of a server to see what transactions lead to.

It keeps objects of every kind, checks guards, knows uids, generations, finalizers, graceful
deletion of pods and foreground/orphan finalizers; nothing of defaults, rules or permission. The
conformance of the real kernel is proved elsewhere; here controllers' decisions are looked at, one
by one or until nothing changes. `step` makes one round of every controller, as the loop would.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.apps.v1 import (
    controller_revision_pb2,
    daemon_set_pb2,
    deployment_pb2,
    replica_set_pb2,
    stateful_set_pb2,
)
from kcore_api.kcore.batch.v1 import cron_job_pb2, job_pb2
from kcore_api.kcore.coordination.v1 import lease_pb2
from kcore_api.kcore.core.v1 import (
    config_map_pb2,
    event_pb2,
    namespace_pb2,
    node_pb2,
    persistent_volume_claim_pb2,
    pod_pb2,
    secret_pb2,
    service_account_pb2,
    service_pb2,
)
from kcore_api.kcore.discovery.v1 import endpoint_slice_pb2
from kcore_api.kcore.policy.v1 import pod_disruption_budget_pb2

from kcore.chance import Chance
from kcore.client import codec
from kcore.reconcile import owner, view
from kcore.reconcile.controller import EVERY_KIND, Controller, Result, Said
from kcore.reconcile.view import Batch, Name
from kcore.wire.errors import ApiError, Reason

CLASSES: dict[str, type[Message]] = {
    kind.DESCRIPTOR.full_name: kind
    for kind in (
        config_map_pb2.ConfigMap,
        controller_revision_pb2.ControllerRevision,
        cron_job_pb2.CronJob,
        daemon_set_pb2.DaemonSet,
        deployment_pb2.Deployment,
        endpoint_slice_pb2.EndpointSlice,
        event_pb2.Event,
        job_pb2.Job,
        lease_pb2.Lease,
        namespace_pb2.Namespace,
        node_pb2.Node,
        persistent_volume_claim_pb2.PersistentVolumeClaim,
        pod_disruption_budget_pb2.PodDisruptionBudget,
        pod_pb2.Pod,
        replica_set_pb2.ReplicaSet,
        secret_pb2.Secret,
        service_account_pb2.ServiceAccount,
        service_pb2.Service,
        stateful_set_pb2.StatefulSet,
    )
}
CLUSTER = ("Namespace", "Node")
BY_NAME = {
    (owner.api_version(kind.DESCRIPTOR), kind.DESCRIPTOR.name): kind for kind in CLASSES.values()
}
KINDS = tuple(
    view.Kind(
        name, owner.api_version(kind.DESCRIPTOR), kind.DESCRIPTOR.name,
        kind.DESCRIPTOR.name not in CLUSTER,
    )
    for name, kind in sorted(CLASSES.items())
)  # fmt: skip


def parse(plain: dict[str, Any]) -> Message:
    """An object in Kubernetes' form as a message of the generated classes."""
    kind = BY_NAME[plain["apiVersion"], plain["kind"]]
    return kind.FromString(codec.from_plain(kind.DESCRIPTOR, plain).SerializeToString())


def plain(obj: Message) -> dict[str, Any]:
    """The other way round."""
    return codec.to_plain(obj)


def name_of(obj: Message) -> Name:
    """How the view calls it."""
    meta = owner.metadata(obj)
    return Name(obj.DESCRIPTOR.full_name, meta.namespace, meta.name)


@dataclass
class World:
    """Objects, and the controllers that look at them."""

    controllers: Sequence[Controller] = ()
    now: float = 1_767_225_600.0
    # By how much the controllers' wall clock is wrong.
    skew: float = 0.0
    revision: int = 0
    objects: dict[Name, Message] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    # What was accepted, as words: for goldens and for people who read failures.
    log: list[str] = field(default_factory=list)
    # All events there ever were: (kind, event).
    history: list[tuple[str, pb.Event]] = field(default_factory=list)

    def __post_init__(self) -> None:
        classes: dict[str, type[Message]] = {}
        indexes: dict[type[Message], dict[str, Any]] = {}
        for each in self.controllers:
            for kind in each.reads:
                if not isinstance(kind, str):
                    classes[kind.DESCRIPTOR.full_name] = kind
            for kind, more in each.indexes.items():
                indexes.setdefault(kind, {}).update(more)
        traits: dict[type[Message], dict[str, Any]] = {}
        for each in self.controllers:
            for kind, more in each.traits.items():
                traits.setdefault(kind, {}).update(more)
        self.view = view.View(classes.values(), indexes, traits)
        kinds = tuple(
            kind
            for kind in KINDS
            if kind.full_name in classes or any(EVERY_KIND in c.reads for c in self.controllers)
        )
        self.view.apply(Batch(0, fresh=True, synced=True, kinds=kinds))
        self._chance = Chance("world")
        self._pending: list[tuple[str, pb.Event]] = []
        self._queues: list[dict[tuple[str, ...], None]] = [{} for _ in self.controllers]
        self._outcomes: list[dict[Any, tuple[ApiError, ...]]] = [{} for _ in self.controllers]
        self._timers: dict[tuple[int, tuple[str, ...]], float] = {}

    # What others do.

    def add(self, *objs: Message) -> None:
        """Puts objects in, as a creation; what they say of uid and time stands."""
        for obj in objs:
            self.revision += 1
            fresh = type(obj)()
            fresh.CopyFrom(obj)
            self._create(fresh)
            self._publish()

    def change(self, obj: Message) -> None:
        """Replaces an object; the generation grows where the spec has changed."""
        self.revision += 1
        self._store(obj)
        self._publish()

    def get(self, kind: type[Message], namespace: str, name: str) -> Any:
        """A copy that may be changed."""
        found = self.objects[Name(kind.DESCRIPTOR.full_name, namespace, name)]
        copy = kind()
        copy.CopyFrom(found)
        return copy

    def all(self, kind: type[Message]) -> list[Any]:
        """Copies of all objects of a kind, in order of their names."""
        full_name = kind.DESCRIPTOR.full_name
        return [
            self.get(kind, *name[1:]) for name in sorted(self.objects) if name.kind == full_name
        ]

    def delete(self, obj: Message, propagation: int = pb.PROPAGATION_BACKGROUND) -> None:
        """Deletes it as a user would."""
        asked = pb.Delete(propagation=propagation)
        operation = pb.Operation(ref=name_of(obj).ref(), delete=asked)
        self.commit(pb.Transaction(operations=[operation]))

    def confirm(self, obj: Message) -> None:
        """A kubelet says that a pod is over: it is gone, once finalizers are."""
        asked = pb.Delete(grace_seconds=0)
        operation = pb.Operation(ref=name_of(obj).ref(), delete=asked)
        self.commit(pb.Transaction(operations=[operation]))

    # What controllers do.

    def step(self) -> int:
        """One round of every controller; how many transactions were accepted."""
        accepted = 0
        for index in range(len(self.controllers)):
            queue, self._queues[index] = self._queues[index], {}
            due = [k for (i, k), at in self._timers.items() if i == index and at <= self.now]
            keys = sorted({*queue, *due})
            results = []
            for key in keys:
                self._timers.pop((index, key), None)
                result = self.ask(index, key)
                if result.again_at is not None:
                    self._timers[index, key] = result.again_at - self.skew
                results.append((key, result))
            for key, result in results:
                accepted += self.carry_out(result, index, key)
        self._publish()
        return accepted

    def settle(self, rounds: int = 200) -> None:
        """Rounds until nobody wants anything."""
        for _ in range(rounds):
            if not self.step() and not any(self._queues):
                return
        raise AssertionError("never settles; last: " + "\n".join(self.log[-20:]))

    def ask(self, index: int, key: tuple[str, ...]) -> Result:
        """What a controller wants for one key, without doing it."""
        self.view.outcomes = self._outcomes[index]
        self.view.seconds = self.now
        return self.controllers[index].reconcile(self.view, key, self.now + self.skew)

    def carry_out(self, result: Result, index: int, key: tuple[str, ...]) -> int:
        """Commits what a reconcile wants; how much of it was accepted."""
        errors: dict[int, ApiError | None] = {}
        for wanted in result.transactions:
            for operation in wanted.operations:
                assert self.controllers[index].may_write(operation), operation
            try:
                self.commit(wanted, publish=False)
                errors[id(wanted)] = None
            except ApiError as error:
                errors[id(wanted)] = error
        failed = tuple(error for error in errors.values() if error is not None)
        if failed:
            self._outcomes[index][key] = failed
            self._queues[index][key] = None
        else:
            self._outcomes[index].pop(key, None)
        for each in result.events:
            if each.of is None or each.failed is (errors[id(each.of)] is not None):
                self.said.append(words(each, errors.get(id(each.of))))
        return len(errors) - len(failed)

    def commit(self, transaction: pb.Transaction, *, publish: bool = True) -> None:
        """All of it or nothing."""
        for guard in transaction.guards:
            self._check(guard)
        self.revision += 1
        for operation in transaction.operations:
            self._do(operation)
        if publish:
            self._publish()

    def _check(self, guard: pb.Guard) -> None:
        found = self.objects.get(Name(guard.ref.kind, guard.ref.namespace, guard.ref.name))
        which = guard.WhichOneof("guard")
        if which == "absent":
            holds = found is None
        elif found is None:
            holds = False
        elif which == "uid":
            holds = owner.metadata(found).uid == guard.uid
        elif which == "revision":
            holds = owner.metadata(found).resource_version == str(guard.revision)
        else:
            value: Any = plain(found)
            for part in guard.field.path.split("."):
                value = value.get(part, "")
            holds = str(value) == guard.field.value
        if not holds:
            raise ApiError(Reason.CONFLICT, f"guard failed: {guard}")

    def do(self, transaction: pb.Transaction) -> int:
        """The same, answering with the revision; for a server."""
        self.commit(transaction)
        return self.revision

    def _do(self, operation: pb.Operation) -> None:
        name = Name(operation.ref.kind, operation.ref.namespace, operation.ref.name)
        kind = CLASSES[name.kind]
        short = f"{kind.DESCRIPTOR.name} {name.name}"
        live = self.objects.get(name)
        which = operation.WhichOneof("do")
        if which == "create":
            if live is not None:
                raise ApiError(Reason.ALREADY_EXISTS, f"{short} already exists")
            self._create(kind.FromString(operation.create))
            self.log.append(f"create {short}")
            return
        if live is None:
            raise ApiError(Reason.NOT_FOUND, f"{short} not found")
        if which == "delete":
            asked = operation.delete
            meta = owner.metadata(live)
            if asked.uid and asked.uid != meta.uid:
                raise ApiError(Reason.CONFLICT, f"{short} is another one")
            if asked.revision and str(asked.revision) != meta.resource_version:
                raise ApiError(Reason.CONFLICT, f"{short} has changed")
            self._delete(name, live, asked)
            self.log.append(f"delete {short}")
            return
        assert which == "patch", which
        merge = operation.patch.merge
        given = kind.FromString(merge.object)
        fresh = kind()
        fresh.CopyFrom(live)
        for path in merge.mask.paths:
            _take(fresh, given, [_snake(part) for part in path.split(".")])
        self._store(fresh)
        self.log.append(f"patch {short}: {', '.join(merge.mask.paths)}")

    def _create(self, obj: Message) -> None:
        meta = owner.metadata(obj)
        if not meta.uid:
            meta.uid = f"uid-{obj.DESCRIPTOR.name.lower()}-{meta.name}-{self.revision}"
        if not meta.HasField("creation_timestamp"):
            meta.creation_timestamp.seconds = int(self.now)
        if not meta.generation:
            meta.generation = 1
        if obj.DESCRIPTOR.name == "Pod" and not obj.status.phase:  # type: ignore[attr-defined]
            obj.status.phase = "Pending"  # type: ignore[attr-defined]
        self._put(obj, pb.Event.ADDED)

    def _store(self, obj: Message) -> None:
        name = name_of(obj)
        live = self.objects[name]
        if _without_status(live) != _without_status(obj):
            owner.metadata(obj).generation += 1
        meta = owner.metadata(obj)
        if meta.HasField("deletion_timestamp") and not meta.finalizers:
            waits = obj.DESCRIPTOR.name == "Pod" and meta.deletion_grace_period_seconds > 0
            waits = waits or (obj.DESCRIPTOR.name == "Namespace" and self._within(meta.name))
            if not waits:
                self._drop(name)
                return
        if live != obj:
            self._put(obj, pb.Event.MODIFIED)

    def _delete(self, name: Name, live: Message, asked: pb.Delete) -> None:
        fresh = type(live)()
        fresh.CopyFrom(live)
        meta = owner.metadata(fresh)
        if not meta.HasField("deletion_timestamp"):
            if asked.propagation == pb.PROPAGATION_FOREGROUND:
                meta.finalizers.append("foregroundDeletion")
            elif asked.propagation == pb.PROPAGATION_ORPHAN:
                meta.finalizers.append("orphan")
        grace = 0
        if name.kind.endswith(".Pod") and fresh.spec.node_name:  # type: ignore[attr-defined]
            grace = asked.grace_seconds if asked.HasField("grace_seconds") else 30
        if name.kind.endswith(".Namespace") and self._within(name.name):
            grace = 1
        if not meta.finalizers and not grace:
            self._drop(name)
            return
        if not meta.HasField("deletion_timestamp"):
            meta.deletion_timestamp.seconds = int(self.now) + grace
        meta.deletion_grace_period_seconds = grace
        if fresh != live:
            self._put(fresh, pb.Event.MODIFIED)

    def _within(self, namespace: str) -> bool:
        return any(name.namespace == namespace for name in self.objects)

    def _put(self, obj: Message, type_: Any) -> None:
        owner.metadata(obj).resource_version = str(self.revision)
        self.objects[name_of(obj)] = obj
        self._tell(obj, type_)

    def _drop(self, name: Name) -> None:
        self._tell(self.objects.pop(name), pb.Event.DELETED)
        room = Name("kcore.core.v1.Namespace", "", name.namespace)
        parent = self.objects.get(room)
        if parent is not None and not self._within(name.namespace):
            meta = owner.metadata(parent)
            if meta.HasField("deletion_timestamp") and not meta.finalizers:
                self._drop(room)

    def _tell(self, obj: Message, type_: Any) -> None:
        event = pb.Event(type=type_, object=obj.SerializeToString(), revision=self.revision)
        self._pending.append((obj.DESCRIPTOR.full_name, event))
        self.history.append((obj.DESCRIPTOR.full_name, event))

    def _publish(self) -> None:
        """The view learns what has happened, and keys are queued."""
        events, self._pending = self._pending, []
        self.view.most_seconds = self.now
        for change in self.view.apply(Batch(self.revision, events)):
            for index, each in enumerate(self.controllers):
                for kind, keys in each.reads.items():
                    if kind == EVERY_KIND or (
                        not isinstance(kind, str) and kind.DESCRIPTOR.full_name == change.name.kind
                    ):
                        for key in keys(self.view, change.old, change.new):
                            self._queues[index][key] = None


def words(said: Said, error: ApiError | None = None) -> str:
    """An event as a line."""
    return f"{said.type} {said.reason} {said.message}{error or ''}"


def lines(transactions: Iterable[pb.Transaction]) -> list[dict[str, Any]]:
    """Transactions as plain values, for goldens; guards on the object itself are left out."""
    found = []
    for each in transactions:
        own = {operation.ref.SerializeToString() for operation in each.operations}
        guards = [
            condition(guard) for guard in each.guards if guard.ref.SerializeToString() not in own
        ]
        for operation in each.operations:
            which = operation.WhichOneof("do")
            kind = CLASSES[operation.ref.kind]
            target = f"{kind.DESCRIPTOR.name} {operation.ref.namespace}/{operation.ref.name}"
            line: dict[str, Any] = {which: target}
            if which == "create":
                line["object"] = plain(kind.FromString(operation.create))
            elif which == "patch":
                merge = operation.patch.merge
                line["mask"] = list(merge.mask.paths)
                fields = plain(kind.FromString(merge.object))
                line["to"] = {k: v for k, v in fields.items() if k not in ("apiVersion", "kind")}
                if operation.subresource:
                    line["subresource"] = operation.subresource
            elif operation.delete.propagation:
                line["propagation"] = pb.Propagation.Name(operation.delete.propagation)
            if guards:
                line["if"] = guards
            found.append(line)
    return found


def condition(guard: pb.Guard) -> str:
    """A guard as words."""
    subject = f"{guard.ref.kind.rpartition('.')[2]} {guard.ref.namespace}/{guard.ref.name}"
    which = guard.WhichOneof("guard")
    if which == "absent":
        return f"{subject} is not there"
    if which == "field":
        return f"{subject} has {guard.field.path} {guard.field.value}"
    return f"{subject} has {which} {getattr(guard, str(which))}"


def _without_status(obj: Message) -> bytes:
    copy = type(obj)()
    copy.CopyFrom(obj)
    copy.ClearField("metadata")
    if "status" in obj.DESCRIPTOR.fields_by_name:
        copy.ClearField("status")
    return copy.SerializeToString(deterministic=True)


def _take(into: Any, given: Any, path: list[str]) -> None:
    """One masked field becomes as given."""
    if len(path) > 1:
        _take(getattr(into, path[0]), getattr(given, path[0]), path[1:])
        return
    into.ClearField(path[0])
    descriptor = into.DESCRIPTOR.fields_by_name[path[0]]
    value = getattr(given, path[0])
    if descriptor.is_repeated:
        mapped = descriptor.message_type and descriptor.message_type.GetOptions().map_entry
        if mapped:
            getattr(into, path[0]).MergeFrom(value)
        else:
            getattr(into, path[0]).extend(value)
    elif descriptor.message_type is not None:
        if given.HasField(path[0]):
            getattr(into, path[0]).CopyFrom(value)
    elif given.HasField(path[0]):
        setattr(into, path[0], value)


def _snake(part: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in part)
