"""DaemonSets: one pod of a template on every node that it fits.

A node is to have the pod if the template's selector and affinity match it and it has no taint that
the pod can't live with; one that is merely not ready, under pressure or cordoned has it, too. Each
pod says by affinity for which node it is; the scheduler binds it. A new template goes node by node:
with maxUnavailable the old pod goes first, with maxSurge the new one comes first.
It must not know how pods are bound, nor how they are run.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.apps.v1 import controller_revision_pb2, daemon_set_pb2
from kcore_api.kcore.core.v1 import affinity_pb2, node_pb2, pod_pb2
from kcore_api.kcore.meta.v1 import meta_pb2

from kcore.controllers import adoption, pod, revision, rollout
from kcore.reconcile import name, owner, transaction
from kcore.reconcile.controller import NOTHING, Controller, Key, Result, Said, itself
from kcore.reconcile.view import View
from kcore.wire import placement
from kcore.wire.placement import NO_EXECUTE, NO_SCHEDULE, Placement, Taint, Toleration

DaemonSet = daemon_set_pb2.DaemonSet
ControllerRevision = controller_revision_pb2.ControllerRevision
Node = node_pb2.Node
Pod = pod_pb2.Pod

# What happens to nodes now and then, and what a daemon stays there for.
_TOLERATED = (
    ("node.kubernetes.io/not-ready", NO_EXECUTE),
    ("node.kubernetes.io/unreachable", NO_EXECUTE),
    ("node.kubernetes.io/disk-pressure", NO_SCHEDULE),
    ("node.kubernetes.io/memory-pressure", NO_SCHEDULE),
    ("node.kubernetes.io/pid-pressure", NO_SCHEDULE),
    ("node.kubernetes.io/unschedulable", NO_SCHEDULE),
)
_TOLERATED_ON_HOST_NETWORK = (("node.kubernetes.io/network-unavailable", NO_SCHEDULE),)
_MOST_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class _Ground:
    """A node, as far as daemons are concerned."""

    labels: Mapping[str, str]
    taints: tuple[Taint, ...]


@dataclass(slots=True)
class _Place:
    """A node that has pods of the set, or is to have one."""

    wanted: bool
    stays: bool
    # Those that are neither over nor on their way out: of the present template, and others.
    new: list[Pod] = field(default_factory=list)
    old: list[Pod] = field(default_factory=list)
    going: list[Pod] = field(default_factory=list)
    failed: list[Pod] = field(default_factory=list)


@dataclass(slots=True)
class _Plan:
    """What is wanted, gathered on the way."""

    view: View
    live: DaemonSet
    hash: str
    transactions: list[pb.Transaction] = field(default_factory=list)
    events: list[Said] = field(default_factory=list)
    # Nodes that get a pod.
    fresh: list[str] = field(default_factory=list)

    def delete(self, doomed: Pod) -> None:
        """A pod is taken away."""
        asked = transaction.delete(doomed)
        self.transactions.append(asked)
        self._say("Delete", "Delet", doomed.metadata.name, asked)

    def create(self) -> None:
        """Pods for all nodes that need one."""
        pattern, prefix = _pattern(self.live, self.hash), f"{self.live.metadata.name}-"
        uid = self.live.metadata.uid
        guards = transaction.same(transaction.ref(self.live), self.live.metadata)
        for node in self.fresh[:_MOST_AT_ONCE]:
            made = Pod()
            made.CopyFrom(pattern)
            # One node, one template, one name, until the pod that had it has gone.
            ordinal = 0
            while True:
                given = f"{prefix[:58]}{name.letters(uid, node, self.hash, ordinal)}"
                if self.view.get(Pod, made.metadata.namespace, given) is None:
                    break
                ordinal += 1
            made.metadata.name = given
            _bind_to(made, node)
            asked = transaction.create(made, guards=guards)
            self.transactions.append(asked)
            self._say("Create", "Creat", given, asked)

    def _say(self, done: str, stem: str, of: str, asked: pb.Transaction) -> None:
        self.events.append(Said(self.live, f"Successful{done}", f"{stem}ed pod: {of}", of=asked))
        failed = f"Error {stem.lower()}ing: "
        self.events.append(Said(self.live, f"Failed{done}", failed, "Warning", asked, failed=True))


def reconcile(view: View, key: Key, now: float) -> Result:
    """What is to be done for one DaemonSet."""
    live = view.get(DaemonSet, *key)
    if live is None:
        return NOTHING
    matching = adoption.selects(live.spec.selector)
    if matching is None:
        return NOTHING
    deleting = live.metadata.HasField("deletion_timestamp")
    claimed = adoption.claim(view, live, matching, Pod)
    if claimed.transactions:
        return Result(claimed.transactions)
    look = revision.look(view, live, matching, live.spec.template, live.status.collision_count)
    if look.present is None or look.transactions:
        if deleting:
            return NOTHING
        return revision.awaited(live, look)
    letters = revision.letters(look.present)
    places = _places(view, live, claimed.children, letters)
    plan = _Plan(view, live, letters)
    if not deleting:
        _arrange(plan, places, now)
        plan.create()
        used = {each.metadata.labels.get(revision.HASH, "") for each in claimed.children}
        needed = {
            each.metadata.name
            for each in look.known
            if each is look.present or revision.letters(each) in used
        }
        has_limit = live.spec.HasField("revision_history_limit")
        limit = live.spec.revision_history_limit if has_limit else None
        plan.transactions += revision.cleared(look.known, needed, limit)
    status = _status(view, live, places, look, now)
    if status != live.status:
        plan.transactions.append(transaction.status(live, status))
    again_at = pod.next_available(view, claimed.children, live.spec.min_ready_seconds, now)
    return Result(tuple(plan.transactions), again_at, tuple(plan.events))


def _arrange(plan: _Plan, places: Mapping[str, _Place], now: float) -> None:
    """Which nodes get a pod, and which pods go."""
    live, view = plan.live, plan.view
    rolling = live.spec.update_strategy.rolling_update
    on_delete = live.spec.update_strategy.type == "OnDelete"
    wanted = sum(place.wanted for place in places.values())
    most_more = rollout.part(_amount(rolling.max_surge), wanted, up=True)
    most_away = rollout.part(_amount(rolling.max_unavailable), wanted, up=True)
    if not on_delete and not most_more and not most_away:
        most_away = 1
    least = live.spec.min_ready_seconds

    def serves(each: Pod) -> bool:
        return view.fact(pod.facts, each).is_available(least, now)

    away = surged = 0
    for place in places.values():
        if place.wanted:
            away += not any(serves(each) for each in (*place.new, *place.old))
            surged += bool(place.old and (place.new or place.going))
    for node, place in places.items():
        for each in place.failed:
            plan.delete(each)
        if not place.stays:
            for each in (*place.new, *place.old):
                plan.delete(each)
            continue
        for spare in (*_doubles(place.new), *_doubles(place.old)):
            plan.delete(spare)
            place.going.append(spare)
        if not place.wanted:
            continue
        if place.new and place.old:
            # The new one has come first: now the old one may go, and has to if it serves nobody.
            if serves(place.new[0]) or not serves(place.old[0]):
                plan.delete(place.old[0])
        elif place.new:
            continue
        elif not place.old:
            # Where one is still on its way out, the next has to wait.
            if not place.going:
                plan.fresh.append(node)
        elif on_delete:
            continue
        elif not serves(place.old[0]):
            plan.delete(place.old[0])
        elif most_more:
            if surged < most_more and not place.going:
                surged += 1
                plan.fresh.append(node)
        elif away < most_away:
            away += 1
            plan.delete(place.old[0])


def _doubles(pods: list[Pod]) -> Sequence[Pod]:
    """All but the one that has been there for longest, one that is bound before one that is not."""
    pods.sort(
        key=lambda each: (
            not each.spec.node_name,
            each.metadata.creation_timestamp.seconds,
            each.metadata.name,
        )
    )
    doubles = pods[1:]
    del pods[1:]
    return doubles


# Places.


def _places(view: View, live: DaemonSet, pods: Sequence[Pod], letters: str) -> dict[str, _Place]:
    where = _placement(live)
    places: dict[str, _Place] = {}
    for node in view.list(Node):
        wanted, stays = _fits(where, node.metadata.name, view.fact(_ground, node))
        if wanted or stays:
            places[node.metadata.name] = _Place(wanted, stays)
    for each in pods:
        node_name = each.spec.node_name or _meant_for(each)
        place = places.setdefault(node_name, _Place(False, False))
        if each.metadata.HasField("deletion_timestamp"):
            place.going.append(each)
        elif each.status.phase in pod.OVER:
            place.failed.append(each)
        elif each.metadata.labels.get(revision.HASH) == letters:
            place.new.append(each)
        else:
            place.old.append(each)
    return places


def _ground(node: Node) -> _Ground:
    taints = placement.taints(node.spec)
    if node.spec.unschedulable:
        taints = (*taints, Taint("node.kubernetes.io/unschedulable", "", NO_SCHEDULE))
    return _Ground(dict(node.metadata.labels), taints)


def _placement(live: DaemonSet) -> Placement:
    """What its pods say of nodes, with what they tolerate as daemons."""
    found = placement.of(live.spec.template.spec)
    added = [Toleration(key, True, "", effect) for key, effect in _tolerations(live)]
    return found._replace(tolerations=(*found.tolerations, *added))


def _tolerations(live: DaemonSet) -> tuple[tuple[str, str], ...]:
    on_host = live.spec.template.spec.host_network
    return (*_TOLERATED, *_TOLERATED_ON_HOST_NETWORK) if on_host else _TOLERATED


def _fits(where: Placement, node: str, ground: _Ground) -> tuple[bool, bool]:
    """Whether the node is to have a pod, and whether one that is there may stay."""
    if not placement.selected(where.labels, where.terms, node, ground.labels):
        return False, False
    refusing = [
        taint.effect
        for taint in ground.taints
        if taint.effect in (NO_SCHEDULE, NO_EXECUTE)
        and not placement.tolerated(where.tolerations, taint)
    ]
    return not refusing, NO_EXECUTE not in refusing


def _meant_for(each: Pod) -> str:
    """The node that a pod names in its affinity."""
    required = each.spec.affinity.node_affinity.required_during_scheduling_ignored_during_execution
    for term in required.node_selector_terms:
        for one in term.match_fields:
            if one.key == "metadata.name" and len(one.values) == 1:
                return one.values[0]
    return ""


# Pods.


def _pattern(live: DaemonSet, letters: str) -> Pod:
    template = live.spec.template
    pattern = Pod(spec=template.spec)
    meta = pattern.metadata
    meta.namespace, meta.generate_name = live.metadata.namespace, f"{live.metadata.name}-"
    meta.labels.update(template.metadata.labels)
    meta.labels[revision.HASH] = letters
    meta.annotations.update(template.metadata.annotations)
    meta.finalizers.extend(template.metadata.finalizers)
    meta.owner_references.append(owner.reference(live))
    there = {(each.key, each.effect) for each in pattern.spec.tolerations}
    for key, effect in _tolerations(live):
        if (key, effect) not in there:
            pattern.spec.tolerations.add(key=key, operator="Exists", effect=effect)
    return pattern


def _bind_to(made: Pod, node: str) -> None:
    """Of what the template requires of nodes, only the name is left: it has been looked at."""
    affinity = made.spec.affinity.node_affinity
    required = affinity.required_during_scheduling_ignored_during_execution
    name_is = affinity_pb2.NodeSelectorRequirement(
        key="metadata.name", operator="In", values=[node]
    )
    if not required.node_selector_terms:
        required.node_selector_terms.add()
    for term in required.node_selector_terms:
        del term.match_fields[:]
        term.match_fields.append(name_is)


def _amount(value: meta_pb2.IntOrString) -> int | str:
    return value.str_val if value.type == 1 else value.int_val


# Status.


def _status(
    view: View, live: DaemonSet, places: Mapping[str, _Place], look: revision.Look, now: float
) -> daemon_set_pb2.DaemonSetStatus:
    least = live.spec.min_ready_seconds
    desired = current = misplaced = updated = ready = available = 0
    for place in places.values():
        there = [*place.new, *place.old]
        if not place.wanted:
            misplaced += bool(there)
            continue
        desired += 1
        current += bool(there)
        updated += bool(place.new)
        facts = [view.fact(pod.facts, each) for each in there]
        ready += any(one.ready_since is not None for one in facts)
        available += any(one.is_available(least, now) for one in facts)
    status = daemon_set_pb2.DaemonSetStatus(
        current_number_scheduled=current,
        number_misscheduled=misplaced,
        desired_number_scheduled=desired,
        number_ready=ready,
        observed_generation=live.metadata.generation or None,
        updated_number_scheduled=updated or None,
        number_available=available or None,
        number_unavailable=(desired - available) or None,
        collision_count=look.collisions or None,
    )
    status.conditions.extend(live.status.conditions)
    return status


def _where_nodes_change(view: View, old: Node | None, new: Node | None) -> Iterator[Key]:
    """Keys: every set, when a node comes, goes, or says something else of itself."""
    if old is not None and new is not None and view.fact(_ground, new) == _ground(old):
        return
    for live in view.list(DaemonSet):
        yield (live.metadata.namespace, live.metadata.name)


CONTROLLER = Controller(
    name="daemonset-controller",
    reads={
        DaemonSet: itself,
        Pod: adoption.concerned(DaemonSet),
        ControllerRevision: adoption.concerned(DaemonSet),
        Node: _where_nodes_change,
    },
    writes=(
        Pod.DESCRIPTOR.full_name,
        ControllerRevision.DESCRIPTOR.full_name,
        f"{DaemonSet.DESCRIPTOR.full_name}/status",
    ),
    reconcile=reconcile,
    indexes={Pod: {"orphan": adoption.orphan}, ControllerRevision: {"orphan": adoption.orphan}},
)
