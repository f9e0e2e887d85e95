"""Deployments: replica sets that hand over to one another.

A deployment has one ReplicaSet for each template it ever had (within the history limit); the one
of the present template is the new one. What sizes they get is `rollout`, what is said of it
`progress`; here is who is who: claiming sets, finding or making the new one, its name and revision,
pausing, recreation, and clearing old sets away. It writes sets' sizes and never touches a pod.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.apps.v1 import deployment_pb2, replica_set_pb2
from kcore_api.kcore.core.v1 import pod_pb2, pod_spec_pb2
from kcore_api.kcore.meta.v1 import meta_pb2

from kcore.controllers import adoption, pod, progress, replicaset, rollout
from kcore.reconcile import name, owner, transaction
from kcore.reconcile.controller import NOTHING, Controller, Key, Result, Said, itself
from kcore.reconcile.view import View

Deployment = deployment_pb2.Deployment
ReplicaSet = replica_set_pb2.ReplicaSet
Pod = pod_pb2.Pod

HASH = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MOST = "deployment.kubernetes.io/max-replicas"
# Notes on a deployment that mean nothing on its sets.
_OWN_NOTES = (
    "kubectl.kubernetes.io/last-applied-configuration",
    "deprecated.deployment.rollback.to",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MOST,
)
_HASH_LETTERS = 10
_DEFAULT_HISTORY = 10
# The hash and a dash have to fit behind the name.
_NAME_LENGTH = 253 - _HASH_LETTERS - 1


@dataclass(frozen=True, slots=True)
class _Seen:
    """A deployment and its sets."""

    live: Deployment
    new: ReplicaSet | None
    old: tuple[ReplicaSet, ...]
    limits: rollout.Bounds
    revision: int

    @property
    def sets(self) -> tuple[ReplicaSet, ...]:
        """All of them, the new one last."""
        return self.old if self.new is None else (*self.old, self.new)


def reconcile(view: View, key: Key, now: float) -> Result:
    """What is to be done for one Deployment."""
    live = view.get(Deployment, *key)
    if live is None:
        return NOTHING
    matching = adoption.selects(live.spec.selector)
    if matching is None:
        return NOTHING
    claimed = adoption.claim(view, live, matching, ReplicaSet)
    if claimed.transactions:
        return Result(claimed.transactions)
    seen = _look(live, claimed.children)
    if live.metadata.HasField("deletion_timestamp"):
        return _finish(seen, now, (), (), only_scaled=True)
    numbers = [_numbers(view, each, live, now) for each in seen.sets]
    if live.spec.paused or rollout.needs_scaling(seen.limits.replicas, numbers):
        return _resize(seen, numbers, now)
    if not _is_rolling(live) and not _old_is_gone(view, seen):
        return _empty_old(seen, now)
    if seen.new is None:
        return _begin(view, seen, numbers, now)
    return _proceed(seen, numbers, now)


# Four ways to go on.


def _resize(seen: _Seen, numbers: list[rollout.Set], now: float) -> Result:
    """The size has changed, or the rollout rests: sizes only."""
    old, new = numbers[: len(seen.old)], None if seen.new is None else numbers[-1]
    sizes = rollout.scale(seen.limits, new, old, rolling=_is_rolling(seen.live))
    transactions, events = _sized(seen, sizes, all_active=True)
    if seen.live.spec.paused:
        transactions += _cleared(seen)
    return _finish(seen, now, transactions, events, only_scaled=True)


def _empty_old(seen: _Seen, now: float) -> Result:
    """Recreate: first all old pods have to go."""
    sizes = {each.metadata.name: 0 for each in seen.old if replicaset.replicas(each)}
    transactions, events = _sized(seen, sizes)
    return _finish(seen, now, transactions, events)


def _begin(view: View, seen: _Seen, old: list[rollout.Set], now: float) -> Result:
    """A template that has no set yet."""
    live = seen.live
    letters = template_letters(live.spec.template, live.status.collision_count)
    named = f"{live.metadata.name[:_NAME_LENGTH]}-{letters}"
    if view.get(ReplicaSet, live.metadata.namespace, named) is not None:
        # Somebody else's set has the name, or the letters met: take others.
        return _finish(seen, now, (), (), collisions=live.status.collision_count + 1)
    size = seen.limits.replicas
    if _is_rolling(live):
        size = rollout.grow(seen.limits, rollout.Set(named, now, 0), old)
    fresh = ReplicaSet()
    fresh.metadata.name = named
    fresh.metadata.namespace = live.metadata.namespace
    fresh.metadata.owner_references.append(owner.reference(live))
    fresh.metadata.labels.update(live.spec.template.metadata.labels)
    fresh.metadata.labels[HASH] = letters
    fresh.metadata.annotations.update(_notes(seen, None))
    fresh.spec.replicas = size
    if live.spec.min_ready_seconds:
        fresh.spec.min_ready_seconds = live.spec.min_ready_seconds
    fresh.spec.selector.CopyFrom(live.spec.selector)
    fresh.spec.selector.match_labels[HASH] = letters
    fresh.spec.template.CopyFrom(live.spec.template)
    fresh.spec.template.metadata.labels[HASH] = letters
    alive = transaction.same(transaction.ref(live), live.metadata)
    asked = transaction.create(fresh, guards=alive)
    events = [Said(live, "ScalingReplicaSet", _scaled(named, 0, size), of=asked)] if size else []
    failed = f'Failed to create new replica set "{named}": '
    events.append(Said(live, "ReplicaSetCreateError", failed, "Warning", asked, failed=True))
    return _finish(seen, now, [asked], events, created=named)


def _proceed(seen: _Seen, numbers: list[rollout.Set], now: float) -> Result:
    """On with the rollout, or all is done."""
    *old, new = numbers
    if _is_rolling(seen.live):
        sizes = {new.name: rollout.grow(seen.limits, new, old)}
        sizes |= rollout.shrink(seen.limits, new, old)
    else:
        sizes = {new.name: seen.limits.replicas}
    transactions, events = _sized(seen, sizes)
    return _finish(seen, now, transactions, events, clear=True)


# What all of them need.


def _look(live: Deployment, sets: Sequence[ReplicaSet]) -> _Seen:
    plain = _plain(live.spec.template)
    same = [each for each in sets if _plain(each.spec.template) == plain]
    # Should there be two, the older one: it is not replaced by its double.
    new = min(same, key=_age, default=None)
    old = sorted((each for each in sets if each is not new), key=_age)
    revision = max((_revision(each) for each in old), default=0) + 1
    if new is not None:
        revision = max(revision, _revision(new))
    return _Seen(live, new, tuple(old), _bounds(live), revision)


def _finish(
    seen: _Seen,
    now: float,
    transactions: Iterable[pb.Transaction],
    events: Iterable[Said],
    *,
    created: str = "",
    only_scaled: bool = False,
    clear: bool = False,
    collisions: int | None = None,
) -> Result:
    """With what is written on the deployment itself: its revision and its status."""
    live = seen.live
    wanted = list(transactions)
    if (created or seen.new is not None) and not live.metadata.HasField("deletion_timestamp"):
        wanted += _revised(seen)
    known = live.status.collision_count
    rolled = progress.Rollout(
        live,
        seen.new,
        seen.sets,
        seen.limits,
        created=created,
        reused=seen.new is not None and _revision(seen.new) not in (0, seen.revision),
        only_scaled=only_scaled,
        collisions=known if collisions is None else collisions,
    )
    status = progress.status(rolled, now)
    if clear and progress.is_complete(live, status, seen.limits.replicas):
        wanted += _cleared(seen)
    if status != live.status:
        wanted.append(transaction.status(live, status))
    again_at = None if only_scaled else progress.look_again_at(live, status, seen.limits.replicas)
    return Result(tuple(wanted), again_at, tuple(events))


def _sized(
    seen: _Seen, sizes: rollout.Scale, *, all_active: bool = False
) -> tuple[list[pb.Transaction], list[Said]]:
    """Sets as they are to be: the new one first, so that it grows before others shrink."""
    transactions: list[pb.Transaction] = []
    events: list[Said] = []
    for each in reversed(seen.sets):
        before = replicaset.replicas(each)
        size = sizes.get(each.metadata.name, before)
        is_new = each is seen.new
        fresh = ReplicaSet()
        notes = dict(_notes(seen, each)) if is_new else dict(each.metadata.annotations)
        if size != before or is_new or (all_active and before):
            notes[DESIRED] = str(seen.limits.replicas)
            notes[MOST] = str(seen.limits.most)
        mask = []
        if size != before:
            fresh.spec.replicas = size
            mask.append("spec.replicas")
        if notes != dict(each.metadata.annotations):
            fresh.metadata.annotations.update(notes)
            mask.append("metadata.annotations")
        least = seen.live.spec.min_ready_seconds
        if is_new and each.spec.min_ready_seconds != least:
            fresh.spec.min_ready_seconds = least
            mask.append("spec.minReadySeconds")
        if not mask:
            continue
        asked = transaction.patch(each, fresh, mask, unchanged=True)
        transactions.append(asked)
        if size != before:
            said = _scaled(each.metadata.name, before, size)
            events.append(Said(seen.live, "ScalingReplicaSet", said, of=asked))
    return transactions, events


def _notes(seen: _Seen, new: ReplicaSet | None) -> dict[str, str]:
    """The new set's annotations: the deployment's, and which revision and size it is for."""
    notes = {} if new is None else dict(new.metadata.annotations)
    notes |= {k: v for k, v in seen.live.metadata.annotations.items() if k not in _OWN_NOTES}
    before = notes.get(REVISION)
    if new is not None and before is not None and before != str(seen.revision):
        history = [each for each in notes.get(REVISION_HISTORY, "").split(",") if each]
        notes[REVISION_HISTORY] = ",".join([*history, before])
    notes[REVISION] = str(seen.revision)
    notes[DESIRED] = str(seen.limits.replicas)
    notes[MOST] = str(seen.limits.most)
    return notes


def _revised(seen: _Seen) -> list[pb.Transaction]:
    """The deployment says which revision it is at."""
    live = seen.live
    if live.metadata.annotations.get(REVISION) == str(seen.revision):
        return []
    fresh = Deployment()
    fresh.metadata.annotations.update(live.metadata.annotations)
    fresh.metadata.annotations[REVISION] = str(seen.revision)
    return [transaction.patch(live, fresh, ["metadata.annotations"], unchanged=True)]


def _cleared(seen: _Seen) -> list[pb.Transaction]:
    """Old sets without pods go, beyond as many as are kept to go back to."""
    limit = _DEFAULT_HISTORY
    if seen.live.spec.HasField("revision_history_limit"):
        limit = seen.live.spec.revision_history_limit
    there = [each for each in seen.old if not each.metadata.HasField("deletion_timestamp")]
    surplus = sorted(there, key=_revision)[: max(0, len(there) - limit)]
    return [
        transaction.delete(each, unchanged=True)
        for each in surplus
        if replicaset.replicas(each) == 0
        and each.status.replicas == 0
        and each.status.observed_generation >= each.metadata.generation
    ]


def _old_is_gone(view: View, seen: _Seen) -> bool:
    """Whether no pod of an old set runs any more, nor is still on its way out."""
    for each in seen.old:
        if replicaset.replicas(each) or each.status.replicas:
            return False
        for one in view.list(Pod, each.metadata.namespace, owner=each.metadata.uid):
            if one.status.phase not in pod.OVER:
                return False
    return True


def _numbers(view: View, each: ReplicaSet, live: Deployment, now: float) -> rollout.Set:
    """Its numbers, counted on its pods: its status may not tell of all of them yet."""
    there = view.list(Pod, each.metadata.namespace, owner=each.metadata.uid)
    active = [facts for one in there if (facts := view.fact(pod.facts, one)).active]
    least = each.spec.min_ready_seconds
    return rollout.Set(
        each.metadata.name,
        each.metadata.creation_timestamp.seconds,
        replicaset.replicas(each),
        max(each.status.replicas, len(active)),
        sum(facts.is_available(least, now) for facts in active),
        _number(each, MOST) or live.status.replicas,
        _number(each, DESIRED),
    )


def _number(each: ReplicaSet, note: str) -> int | None:
    try:
        return int(each.metadata.annotations[note]) if note in each.metadata.annotations else None
    except ValueError:
        return None


def _revision(each: ReplicaSet) -> int:
    return _number(each, REVISION) or 0


def _age(each: ReplicaSet) -> tuple[int, str]:
    return (each.metadata.creation_timestamp.seconds, each.metadata.name)


def _is_rolling(live: Deployment) -> bool:
    return live.spec.strategy.type != "Recreate"


def _bounds(live: Deployment) -> rollout.Bounds:
    replicas = live.spec.replicas if live.spec.HasField("replicas") else 1
    if not _is_rolling(live):
        return rollout.Bounds(replicas, 0, 0)
    rolling = live.spec.strategy.rolling_update
    surge = _amount(rolling.max_surge) if rolling.HasField("max_surge") else "25%"
    fewer = _amount(rolling.max_unavailable) if rolling.HasField("max_unavailable") else "25%"
    return rollout.bounds(replicas, surge, fewer)


def _amount(value: meta_pb2.IntOrString) -> int | str:
    return value.str_val if value.type == 1 else value.int_val


def _plain(template: pod_spec_pb2.PodTemplateSpec) -> bytes:
    """The template without the mark of its set."""
    if HASH in template.metadata.labels:
        copy = pod_spec_pb2.PodTemplateSpec()
        copy.CopyFrom(template)
        del copy.metadata.labels[HASH]
        template = copy
    return template.SerializeToString(deterministic=True)


def template_letters(template: pod_spec_pb2.PodTemplateSpec, collisions: int) -> str:
    """The mark of a template's set; `collisions` makes it another."""
    return name.letters(_plain(template), collisions, length=_HASH_LETTERS)


def _scaled(named: str, before: int, after: int) -> str:
    way = "up" if after > before else "down"
    return f"Scaled {way} replica set {named} from {before} to {after}"


def _pod_gone(view: View, old: Pod | None, new: Pod | None) -> Iterable[Key]:
    """Keys: the deployment whose pod has gone or is over; Recreate waits for that."""
    if old is None or (new is not None and new.status.phase not in pod.OVER):
        return
    found = owner.manager(old.metadata)
    if found is None:
        return
    one = view.get(ReplicaSet, old.metadata.namespace, found.name)
    parent = None if one is None else owner.manager(one.metadata)
    if parent is not None and parent.kind == "Deployment":
        yield (old.metadata.namespace, parent.name)


_SETS = ReplicaSet.DESCRIPTOR.full_name
_DEPLOYMENTS = Deployment.DESCRIPTOR.full_name

CONTROLLER = Controller(
    name="deployment-controller",
    reads={Deployment: itself, ReplicaSet: adoption.concerned(Deployment), Pod: _pod_gone},
    writes=(_SETS, _DEPLOYMENTS, f"{_DEPLOYMENTS}/status"),
    reconcile=reconcile,
    indexes={ReplicaSet: {"orphan": adoption.orphan}},
)
