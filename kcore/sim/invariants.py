"""What must hold at every revision, whatever goes wrong.

`Invariants.check(records)` holds each record against the world before it, and keeps what it found
broken as sentences. Each rule is one function from (world before, record, old, new) to complaints;
rules about numbers of pods ask only for what kcore does by its own act: people may scale at any
moment and machines may die, so limits are those that held at any time since the act's cause.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from google.protobuf.message import Message

from kcore.kernel.record import Record, Verb
from kcore.scheduler import demand
from kcore.sim import rules
from kcore.sim import world as worlds
from kcore.sim.rules.job import Rule
from kcore.sim.world import Deployment, Node, Pod, ReplicaSet, Service, World

# A pod that was ready so shortly ago may still have been so when the deletion of another was
# decided.
_READY_SECONDS = 60.0
_LONG_AGO = -1e9


class Invariants:
    """The world so far, and what was found wrong with it."""

    def __init__(self, ended: Callable[[str], int | None]) -> None:
        """An empty world; `ended` is with which code a pod's container ended, by its uid."""
        self.world = World()
        self.broken: list[str] = []
        self.checked = 0
        self._rules = (*RULES, *rules.every(ended))
        self._last: Record | None = None

    def check(self, records: Iterable[Record], seconds: float) -> None:
        """Follows the log by these records, `seconds` after the beginning."""
        self.world.seconds = seconds
        for record in records:
            old = self.world.objects.get(record.key)
            new = None if record.verb is Verb.DELETE else worlds.parse(record)
            complaints = list(_follows(self._last, record))
            for rule in self._rules:
                complaints += rule(self.world, record, old, new)
            who = record.manager or record.actor
            self.broken += [
                f"revision {record.revision}: {record.key} by {who}: {complaint}"
                for complaint in complaints
            ]
            self.world.apply(record, new)
            self._last = record
            self.checked += 1


def _follows(last: Record | None, record: Record) -> Iterator[str]:
    """Revisions grow by one, transactions share none, time does not go back."""
    if last is None:
        return
    same = record.revision == last.revision
    if same and record.request_id != last.request_id:
        yield f"revision used twice, by {last.request_id} and {record.request_id}"
    if same and record.ordinal <= last.ordinal:
        yield f"operation {record.ordinal} after {last.ordinal}"
    if not same and record.revision != last.revision + 1:
        yield f"revision follows {last.revision}"
    if record.time < last.time:
        yield f"time went back by {last.time - record.time} s"


def _caused(
    world: World, record: Record, old: Message | None, new: Message | None
) -> Iterator[str]:
    if record.because >= record.revision or record.because < 0:
        yield f"because of {record.because}, which is not before it"


def _same_object(
    world: World, record: Record, old: Message | None, new: Message | None
) -> Iterator[str]:
    """Nobody writes to what is gone, and no uid comes back."""
    if record.verb is Verb.CREATE:
        if old is not None:
            yield "created while it is there"
        if record.uid in world.uids:
            yield f"uid {record.uid} was used before"
    elif old is None:
        yield f"{record.verb.value} of what is not there"
    elif worlds.metadata(old).uid != record.uid:
        yield f"{record.verb.value} of uid {record.uid}, but there is {worlds.metadata(old).uid}"
    if new is not None:
        meta = worlds.metadata(new)
        if meta.uid != record.uid:
            yield f"uid {meta.uid} inside, {record.uid} outside"
        if meta.resource_version != str(record.revision):
            yield f"says it is of revision {meta.resource_version}"
        if old is not None and record.verb is Verb.UPDATE:
            before = worlds.metadata(old)
            if meta.generation < before.generation:
                yield f"generation went from {before.generation} to {meta.generation}"
            if before.HasField("deletion_timestamp") and not meta.HasField("deletion_timestamp"):
                yield "came back from its deletion"


def _finalized(
    world: World, record: Record, old: Message | None, new: Message | None
) -> Iterator[str]:
    if old is None:
        return
    before = worlds.metadata(old)
    if record.verb is Verb.DELETE and before.finalizers:
        # The last finalizer may be taken off by the very write that ends it.
        left = worlds.metadata(worlds.parse(record)).finalizers
        if left:
            yield f"gone in spite of {', '.join(left)}"
    if new is not None and before.HasField("deletion_timestamp"):
        added = sorted(set(worlds.metadata(new).finalizers) - set(before.finalizers))
        if added:
            yield f"finalizers {', '.join(added)} came while it is being deleted"


def _in_a_living_namespace(
    world: World, record: Record, old: Message | None, new: Message | None
) -> Iterator[str]:
    if record.verb is Verb.CREATE and record.key.namespace:
        namespace = world.get(worlds.NAMESPACE, "", record.key.namespace)
        if namespace is None:
            yield "created in a namespace that is not there"
        elif worlds.metadata(namespace).HasField("deletion_timestamp"):
            yield "created in a namespace that ends"
    if record.verb is Verb.DELETE and record.key.kind == worlds.NAMESPACE:
        left = [str(key) for key in sorted(world.objects) if key.namespace == record.key.name]
        if left:
            yield f"gone before {', '.join(left)}"


def _drawn_once(
    world: World, record: Record, old: Message | None, new: Message | None
) -> Iterator[str]:
    """No two nodes have the same addresses for their pods, no two services the same address."""
    if isinstance(new, Node) and new.spec.pod_cidr:
        for node in world.all(Node):
            if node.spec.pod_cidr == new.spec.pod_cidr and node.metadata.name != record.key.name:
                yield f"{new.spec.pod_cidr} is {node.metadata.name}'s"
    if isinstance(new, Service) and new.spec.cluster_ip not in ("", "None"):
        for other in world.all(Service):
            same = other.spec.cluster_ip == new.spec.cluster_ip
            if same and other.metadata.uid != new.metadata.uid:
                yield f"{new.spec.cluster_ip} is {other.metadata.name}'s"


def _bound_once(
    world: World, record: Record, old: Message | None, new: Message | None
) -> Iterator[str]:
    if not isinstance(new, Pod):
        return
    if isinstance(old, Pod):
        was, is_ = old.spec.node_name, new.spec.node_name
        if was and is_ != was:
            yield f"moved from {was} to {is_ or 'nowhere'}"
        if not was and is_:
            yield from _fits(world, new)
        if old.status.phase in ("Succeeded", "Failed") and new.status.phase != old.status.phase:
            yield f"went from {old.status.phase} to {new.status.phase}"


def _fits(world: World, pod: Pod) -> Iterator[str]:
    """The node exists and has room."""
    node = world.get(worlds.NODE, "", pod.spec.node_name)
    if not isinstance(node, Node):
        yield f"bound to {pod.spec.node_name}, which is not there"
        return
    there = [
        other
        for other in world.pods()
        if other.spec.node_name == pod.spec.node_name
        and other.status.phase not in ("Succeeded", "Failed")
    ]
    room = demand.amounts(node.status.allocatable)
    for resource in ("cpu", "memory"):
        asked = [demand.effective(each.spec, {}).get(resource, 0) for each in [*there, pod]]
        if asked[-1] and sum(asked) > room.get(resource, 0):
            yield f"{pod.spec.node_name} has not enough {resource}: {sum(asked)}"
    if len(there) + 1 > room.get(demand.PODS, 0):
        yield f"{pod.spec.node_name} has too many pods: {len(there) + 1}"


def _not_too_many_pods(
    world: World, record: Record, old: Message | None, new: Message | None
) -> Iterator[str]:
    """A set never creates a pod beyond its replicas, nor a job beyond its parallelism."""
    if record.verb is not Verb.CREATE or not isinstance(new, Pod):
        return
    owner = worlds.manager(new)
    allowed = [limits.replicas for limits in world.limits_since(owner, record.because)]
    if not owner or not allowed:
        return
    pods = [pod for pod in _pods_of(world, [owner]) if worlds.is_active(pod)]
    if len(pods) + 1 > max(allowed):
        yield f"pod {len(pods) + 1} of {max(allowed)}"


def _not_too_many_replicas(
    world: World, record: Record, old: Message | None, new: Message | None
) -> Iterator[str]:
    """A deployment never raises its sets beyond replicas + surge."""
    if not isinstance(new, ReplicaSet) or record.manager != "deployment-controller":
        return
    before = old.spec.replicas if isinstance(old, ReplicaSet) else 0
    if new.spec.replicas <= before:
        return
    owner = worlds.manager(new)
    allowed = [limits.most for limits in world.limits_since(owner, record.because)]
    others = [
        found.spec.replicas
        for found in world.owned(owner, ReplicaSet)
        if isinstance(found, ReplicaSet) and found.metadata.name != new.metadata.name
    ]
    total = new.spec.replicas + sum(others)
    if allowed and total > max(allowed):
        yield f"{total} replicas, {max(allowed)} allowed"


def _not_too_few_pods(
    world: World, record: Record, old: Message | None, new: Message | None
) -> Iterator[str]:
    """kcore never takes ready pods of a deployment below replicas - unavailable by itself."""
    doomed = old is not None and (
        new is None or worlds.metadata(new).HasField("deletion_timestamp")
    )
    if record.manager != "replicaset-controller" or not isinstance(old, Pod) or not doomed:
        return
    if not worlds.is_active(old) or not worlds.is_ready(old):
        return
    # Sizes of sets were decided earlier than the deletion: look back further than its cause.
    cause = min(record.because, world.causes.get(worlds.manager(old), 0))
    if world.ready_since.get(old.metadata.uid, 0) > cause:
        # It was not when this was decided.
        return
    for deployment in _deployments_of(world, old):
        if deployment.metadata.HasField("deletion_timestamp"):
            continue
        if (
            world.seconds - world.shrunk_at.get(deployment.metadata.uid, _LONG_AGO)
            <= _READY_SECONDS
        ):
            # Scaled down amid a rollout: all sets shrink in proportion, as Kubernetes' do, also
            # the one that serves.
            continue
        limits = world.limits_since(deployment.metadata.uid, cause)
        least = min((each.least for each in limits), default=0)
        sets = [each.metadata.uid for each in world.owned(deployment.metadata.uid, ReplicaSet)]
        left = [
            pod
            for pod in _pods_of(world, sets)
            if worlds.is_active(pod)
            and pod.metadata.uid != old.metadata.uid
            and _was_ready(world, pod)
        ]
        # What others took away since then was still counted on.
        taken = sum(
            lost.revision >= cause and lost.owner in sets and lost.by != record.manager
            for lost in world.losses
        )
        if len(left) + taken < least:
            yield f"leaves {len(left)} ready pods, {least} are needed"


def _was_ready(world: World, pod: Pod) -> bool:
    """Whether it is ready, or was shortly ago."""
    last = world.ready_at.get(pod.metadata.uid, _LONG_AGO)
    return worlds.is_ready(pod) or world.seconds - last <= _READY_SECONDS


def _pods_of(world: World, owners: Sequence[str]) -> list[Pod]:
    return [pod for owner in owners for pod in world.owned(owner, Pod)]


def _deployments_of(world: World, pod: Pod) -> Iterator[Deployment]:
    for each in world.all(ReplicaSet):
        if each.metadata.uid == worlds.manager(pod):
            for found in world.all(Deployment):
                if found.metadata.uid == worlds.manager(each):
                    yield found


RULES: tuple[Rule, ...] = (
    _caused,
    _same_object,
    _finalized,
    _in_a_living_namespace,
    _drawn_once,
    _bound_once,
    _not_too_many_pods,
    _not_too_many_replicas,
    _not_too_few_pods,
)


def doubles(running: Iterable[tuple[str, str]]) -> list[str]:
    """Complaints where one container of one pod, as (pod uid, name), runs twice."""
    seen: set[tuple[str, str]] = set()
    found = []
    for who in running:
        if who in seen:
            found.append(f"container {who[1]} of pod {who[0]} runs twice")
        seen.add(who)
    return found


def twins(running: Iterable[tuple[str, str, str]]) -> list[str]:
    """Complaints where two pods of one name run, as (namespace, name, uid)."""
    seen: dict[tuple[str, str], str] = {}
    found = []
    for namespace, name, uid in running:
        other = seen.setdefault((namespace, name), uid)
        if other != uid:
            found.append(f"two pods {namespace}/{name} run: {other} and {uid}")
    return found
