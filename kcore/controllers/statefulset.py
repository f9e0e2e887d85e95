"""StatefulSets: pods with numbers, one after another.

Each number has one pod, <set>-<number>, with claims of its own; a pod is made only when nothing of
its name is left, so there are never two. Under OrderedReady one pod is made or taken away at a
time, and only while all before it are well; under Parallel sizes change at once. A new template
goes from the highest number down, so many at a time as may be away.

Where Kubernetes waits for ever, kcore goes on: a pod that is not well and not of the template that
its number is to have is replaced, though it keeps the others waiting; nobody loses by it.
It must not know how claims get their volumes.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.apps.v1 import controller_revision_pb2, stateful_set_pb2
from kcore_api.kcore.core.v1 import persistent_volume_claim_pb2, pod_pb2, pod_spec_pb2
from kcore_api.kcore.meta.v1 import meta_pb2

from kcore.controllers import adoption, pod, revision, rollout
from kcore.reconcile import owner, transaction
from kcore.reconcile.controller import NOTHING, Controller, Key, Result, Said, itself
from kcore.reconcile.view import View

StatefulSet = stateful_set_pb2.StatefulSet
ControllerRevision = controller_revision_pb2.ControllerRevision
Claim = persistent_volume_claim_pb2.PersistentVolumeClaim
Pod = pod_pb2.Pod

POD_NAME = "statefulset.kubernetes.io/pod-name"
POD_INDEX = "apps.kubernetes.io/pod-index"
_NUMBER = re.compile(r"(0|[1-9][0-9]{0,8})\Z")


@dataclass(frozen=True, slots=True)
class _One:
    """A pod of the set, as far as order is concerned."""

    number: int
    pod: Pod
    revision: str
    # Running, ready, and for long enough; not on its way out.
    well: bool
    ready: bool
    going: bool
    over: bool


@dataclass(frozen=True, slots=True)
class _Seen:
    """A set and all that is its own."""

    view: View
    live: StatefulSet
    pods: dict[int, _One]
    look: revision.Look
    # Names of revisions: of new pods below the partition, and of the present template.
    current: str
    update: str

    @property
    def numbers(self) -> range:
        """Those that are to have a pod."""
        start = self.live.spec.ordinals.start
        return range(start, start + replicas(self.live))

    @property
    def wanted(self) -> list[_One]:
        """Pods that are to be, lowest first."""
        return [self.pods[number] for number in self.numbers if number in self.pods]

    @property
    def surplus(self) -> list[_One]:
        """Pods that are too many, highest first."""
        return [self.pods[n] for n in sorted(self.pods, reverse=True) if n not in self.numbers]

    def revision_of(self, number: int) -> str:
        """What the pod of this number is to be of."""
        rolling = self.live.spec.update_strategy
        kept = self.live.spec.ordinals.start + rolling.rolling_update.partition
        is_kept = rolling.type != "OnDelete" and number < kept
        return self.current if is_kept else self.update


@dataclass(slots=True)
class _Plan:
    """What is wanted, gathered on the way."""

    live: StatefulSet
    transactions: list[pb.Transaction]
    events: list[Said]

    def create(self, fresh: Pod, guards: Iterable[pb.Guard]) -> None:
        """A pod is made."""
        self._say("create", "Create", fresh.metadata.name, transaction.create(fresh, guards=guards))

    def delete(self, doomed: Pod, guards: Iterable[pb.Guard] = ()) -> None:
        """A pod is taken away."""
        asked = transaction.delete(doomed, guards=guards)
        self._say("delete", "Delete", doomed.metadata.name, asked)

    def _say(self, did: str, done: str, named: str, asked: pb.Transaction) -> None:
        self.transactions.append(asked)
        said = f"{did} Pod {named} in StatefulSet {self.live.metadata.name}"
        self.events.append(Said(self.live, f"Successful{done}", f"{said} successful", of=asked))
        failed = f"{said} failed error: "
        self.events.append(Said(self.live, f"Failed{done}", failed, "Warning", asked, failed=True))


def reconcile(view: View, key: Key, now: float) -> Result:
    """What is to be done for one StatefulSet."""
    live = view.get(StatefulSet, *key)
    if live is None:
        return NOTHING
    matching = adoption.selects(live.spec.selector)
    if matching is None:
        return NOTHING
    claimed = adoption.claim(
        view, live, matching, Pod, lambda each: _number(live, each) is not None
    )
    deleting = live.metadata.HasField("deletion_timestamp")
    look = revision.look(view, live, matching, live.spec.template, live.status.collision_count)
    if claimed.transactions:
        return Result(claimed.transactions)
    if look.present is None or look.transactions:
        if deleting:
            return NOTHING
        return revision.awaited(live, look)
    update = look.present.metadata.name
    current = live.status.current_revision or update
    pods = dict(_pods(view, live, claimed.children, now))
    seen = _Seen(view, live, pods, look, current, update)
    plan = _Plan(live, [], [])
    if not deleting:
        plan.transactions += _kept_claims(seen)
        _arrange(seen, plan)
        live_names = {current, update, *(each.revision for each in pods.values())}
        limit = live.spec.revision_history_limit
        has_limit = live.spec.HasField("revision_history_limit")
        plan.transactions += revision.cleared(look.known, live_names, limit if has_limit else None)
    status = _status(seen)
    if status != live.status:
        plan.transactions.append(transaction.status(live, status))
    least = live.spec.min_ready_seconds
    again_at = pod.next_available(view, (one.pod for one in pods.values()), least, now)
    return Result(tuple(plan.transactions), again_at, tuple(plan.events))


def replicas(live: StatefulSet) -> int:
    """How many pods it asks for."""
    return live.spec.replicas if live.spec.HasField("replicas") else 1


def _arrange(seen: _Seen, plan: _Plan) -> None:
    """The next step, or under Parallel the next steps, towards what is wanted."""
    ordered = seen.live.spec.pod_management_policy != "Parallel"
    settled = True
    for number in seen.numbers:
        one = seen.pods.get(number)
        if one is None:
            plan.transactions += _claims(seen, number)
            fresh = _fresh(seen, number)
            if fresh is not None:
                plan.create(fresh, pod.still_wanted(seen.live))
        elif one.over and not one.going:
            # It comes back under the same name as soon as that is free.
            plan.delete(one.pod)
        elif one.well:
            continue
        elif not one.going and not one.ready and _is_old(seen, one):
            plan.delete(one.pod)
        settled = False
        if ordered:
            return
    if not _shrink(seen, plan, ordered) or (ordered and not settled):
        return
    _update(seen, plan)


def _shrink(seen: _Seen, plan: _Plan, ordered: bool) -> bool:
    """Takes pods away that are too many, the highest number first; whether none is left."""
    surplus = seen.surplus
    if not ordered:
        for one in surplus:
            if not one.going:
                _remove(seen, plan, one)
        return not surplus
    if not surplus or any(one.going for one in surplus):
        return not surplus
    ill = [one for one in surplus if not one.well]
    # One that is not well may go itself, but holds up all above it.
    if not ill or surplus[0] is ill[-1]:
        _remove(seen, plan, surplus[0])
    return False


def _remove(seen: _Seen, plan: _Plan, one: _One) -> None:
    if seen.live.spec.persistent_volume_claim_retention_policy.when_scaled == "Delete":
        # The claims go with the pod, whoever is alive then.
        for claim in _claims_of(seen, one.number):
            known = {each.uid for each in claim.metadata.owner_references}
            if one.pod.metadata.uid not in known:
                set_uid = seen.live.metadata.uid
                others = [each for each in claim.metadata.owner_references if each.uid != set_uid]
                plan.transactions.append(_owned(claim, [*others, _holder(one.pod)]))
    plan.delete(one.pod, pod.still_wanted(seen.live))


def _update(seen: _Seen, plan: _Plan) -> None:
    """Takes pods of the old template away, the highest number first."""
    away = len(seen.numbers) - sum(one.well for one in seen.wanted)
    most = _most_away(seen.live.spec.update_strategy.rolling_update, len(seen.numbers))
    for one in reversed(seen.wanted):
        if one.going or not _is_old(seen, one):
            continue
        # Those that have just been replaced have to be well first.
        if one.well and away >= most:
            return
        plan.delete(one.pod)
        away += one.well


def _is_old(seen: _Seen, one: _One) -> bool:
    """Whether it is to be replaced for its template."""
    on_delete = seen.live.spec.update_strategy.type == "OnDelete"
    return not on_delete and one.revision != seen.revision_of(one.number)


def _most_away(rolling: stateful_set_pb2.RollingUpdateStatefulSetStrategy, whole: int) -> int:
    if not rolling.HasField("max_unavailable"):
        return 1
    said = rolling.max_unavailable
    amount = said.str_val if said.type == 1 else said.int_val
    return max(1, rollout.part(amount, whole, up=True))


# Pods.


def _pods(
    view: View, live: StatefulSet, children: Sequence[Pod], now: float
) -> Iterator[tuple[int, _One]]:
    for each in children:
        number = _number(live, each)
        if number is None:
            continue
        facts = view.fact(pod.facts, each)
        going = each.metadata.HasField("deletion_timestamp")
        ready = facts.ready_since is not None and each.status.phase == "Running"
        yield (
            number,
            _One(
                number,
                each,
                each.metadata.labels.get(revision.HASH, ""),
                ready and not going and facts.is_available(live.spec.min_ready_seconds, now),
                ready,
                going,
                each.status.phase in pod.OVER,
            ),
        )


def _number(live: StatefulSet, each: Pod) -> int | None:
    """The pod's number; None: its name is none of the set's."""
    before, dash, after = each.metadata.name.rpartition("-")
    if not dash or before != live.metadata.name or not _NUMBER.match(after):
        return None
    return int(after)


def _fresh(seen: _Seen, number: int) -> Pod | None:
    """The pod of this number."""
    live, wanted = seen.live, seen.revision_of(number)
    template: pod_spec_pb2.PodTemplateSpec | None = live.spec.template
    if wanted != seen.update:
        kept = seen.look.called(wanted)
        template = revision.template(kept) if kept is not None else None
        if template is None:
            # What it was can't be known any more: then it is as it is to be.
            wanted, template = seen.update, live.spec.template
    assert template is not None
    fresh = Pod()
    fresh.spec.CopyFrom(template.spec)
    meta = fresh.metadata
    meta.name, meta.namespace = f"{live.metadata.name}-{number}", live.metadata.namespace
    meta.generate_name = f"{live.metadata.name}-"
    meta.labels.update(template.metadata.labels)
    meta.annotations.update(template.metadata.annotations)
    meta.finalizers.extend(template.metadata.finalizers)
    meta.labels[POD_NAME], meta.labels[POD_INDEX] = meta.name, str(number)
    meta.labels[revision.HASH] = wanted
    meta.owner_references.append(owner.reference(live))
    fresh.spec.hostname = meta.name
    if live.spec.service_name:
        fresh.spec.subdomain = live.spec.service_name
    claimed = {each.metadata.name for each in live.spec.volume_claim_templates}
    others = [each for each in fresh.spec.volumes if each.name not in claimed]
    del fresh.spec.volumes[:]
    for each in live.spec.volume_claim_templates:
        volume = fresh.spec.volumes.add(name=each.metadata.name)
        volume.volume_source.persistent_volume_claim.claim_name = _claim_name(live, each, number)
    fresh.spec.volumes.extend(others)
    return fresh


# Claims.


def _claim_name(live: StatefulSet, template: Claim, number: int) -> str:
    return f"{template.metadata.name}-{live.metadata.name}-{number}"


def _claims(seen: _Seen, number: int) -> Iterator[pb.Transaction]:
    """Makes the claims of a number that are not there."""
    live = seen.live
    for template in live.spec.volume_claim_templates:
        named = _claim_name(live, template, number)
        if seen.view.get(Claim, live.metadata.namespace, named) is not None:
            continue
        fresh = Claim()
        fresh.spec.CopyFrom(template.spec)
        fresh.metadata.name, fresh.metadata.namespace = named, live.metadata.namespace
        fresh.metadata.labels.update(template.metadata.labels)
        fresh.metadata.labels.update(live.spec.selector.match_labels)
        fresh.metadata.annotations.update(template.metadata.annotations)
        if live.spec.persistent_volume_claim_retention_policy.when_deleted == "Delete":
            fresh.metadata.owner_references.append(_holder(live))
        yield transaction.create(fresh, guards=pod.still_wanted(live))


def _kept_claims(seen: _Seen) -> Iterator[pb.Transaction]:
    """Makes all its claims go with the set, or stay, as it says now."""
    live = seen.live
    goes = live.spec.persistent_volume_claim_retention_policy.when_deleted == "Delete"
    for number in seen.numbers:
        for claim in _claims_of(seen, number):
            owners = claim.metadata.owner_references
            # Nor do those of a number that is wanted again go with a pod that was too many.
            pod_name = f"{live.metadata.name}-{number}"
            kept = [
                each
                for each in owners
                if each.uid != live.metadata.uid
                and not (each.kind == "Pod" and each.name == pod_name)
            ]
            wanted = [*kept, _holder(live)] if goes else kept
            if sorted(each.uid for each in wanted) != sorted(each.uid for each in owners):
                yield _owned(claim, wanted)


def _claims_of(seen: _Seen, number: int) -> Iterator[Claim]:
    for template in seen.live.spec.volume_claim_templates:
        named = _claim_name(seen.live, template, number)
        found = seen.view.get(Claim, seen.live.metadata.namespace, named)
        if found is not None and not found.metadata.HasField("deletion_timestamp"):
            yield found


def _holder(live: StatefulSet | Pod) -> meta_pb2.OwnerReference:
    reference = owner.reference(live)
    reference.controller = False
    return reference


def _owned(claim: Claim, owners: Iterable[meta_pb2.OwnerReference]) -> pb.Transaction:
    fresh = Claim()
    fresh.metadata.owner_references.extend(owners)
    return transaction.patch(claim, fresh, ["metadata.ownerReferences"], unchanged=True)


# Status.


def _status(seen: _Seen) -> stateful_set_pb2.StatefulSetStatus:
    live, pods = seen.live, seen.pods.values()
    there = [one for one in pods if not one.over]
    ready = sum(one.ready for one in there)
    updated = sum(one.revision == seen.update and not one.going for one in there)
    current = sum(one.revision == seen.current and not one.going for one in there)
    current_revision = seen.current
    done = updated == len(there) == ready == replicas(live)
    if done and live.spec.update_strategy.type != "OnDelete":
        current_revision, current = seen.update, updated
    status = stateful_set_pb2.StatefulSetStatus(
        observed_generation=live.metadata.generation or None,
        replicas=len(there),
        ready_replicas=ready or None,
        current_replicas=current or None,
        updated_replicas=updated or None,
        current_revision=current_revision,
        update_revision=seen.update,
        collision_count=seen.look.collisions,
        available_replicas=sum(one.well for one in there),
    )
    status.conditions.extend(live.status.conditions)
    return status


CONTROLLER = Controller(
    name="statefulset-controller",
    reads={
        StatefulSet: itself,
        Pod: adoption.concerned(StatefulSet),
        ControllerRevision: adoption.concerned(StatefulSet),
        Claim: lambda _view, _old, _new: (),
    },
    writes=(
        Pod.DESCRIPTOR.full_name,
        ControllerRevision.DESCRIPTOR.full_name,
        Claim.DESCRIPTOR.full_name,
        f"{StatefulSet.DESCRIPTOR.full_name}/status",
    ),
    reconcile=reconcile,
    indexes={Pod: {"orphan": adoption.orphan}, ControllerRevision: {"orphan": adoption.orphan}},
)
