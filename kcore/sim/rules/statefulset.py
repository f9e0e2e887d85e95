"""StatefulSets: numbers are made from the lowest up and taken from the highest down."""

from collections.abc import Iterator

from google.protobuf.message import Message

from kcore.kernel.record import Record, Verb
from kcore.sim import world as worlds
from kcore.sim.world import Pod, StatefulSet, World

_MANAGER = "statefulset-controller"


def made_in_order(
    world: World, record: Record, old: Message | None, new: Message | None
) -> Iterator[str]:
    """No number is made that nobody asked for, nor before all below it are well."""
    if record.verb is not Verb.CREATE or not isinstance(new, Pod) or record.manager != _MANAGER:
        return
    owner, number = _owner(world, new), _number(new)
    if owner is None:
        return
    asked = max(each.replicas for each in world.limits_since(owner.metadata.uid, record.because))
    if number >= asked:
        yield f"number {number} of {asked}"
    if owner.spec.pod_management_policy == "Parallel":
        return
    ill = set(range(number)) - _well(world, owner, record.because)
    if ill:
        yield f"number {number} is made before {sorted(ill)} are well"


def taken_in_order(
    world: World, record: Record, old: Message | None, new: Message | None
) -> Iterator[str]:
    """The highest number goes first; of those that are wanted, one at a time."""
    if record.manager != _MANAGER or not isinstance(old, Pod) or not worlds.is_active(old):
        return
    owner, number = _owner(world, old), _number(old)
    if owner is None or (new is not None and worlds.is_active(new)):
        return
    limits = world.limits_since(owner.metadata.uid, record.because)
    if number >= max(each.replicas for each in limits):
        if owner.spec.pod_management_policy == "Parallel":
            return
        above = [
            _number(pod)
            for pod in world.owned(owner.metadata.uid, Pod)
            if _number(pod) > number and world.created.get(pod.metadata.uid, 0) <= record.because
        ]
        if above:
            yield f"number {number} goes before {above}"
    elif number < min(each.replicas for each in limits):
        was_ready = world.ready_since.get(old.metadata.uid, record.revision) <= record.because
        if not worlds.is_ready(old) or not was_ready:
            # It serves nobody, or did not when this was decided.
            return
        wanted = set(range(min(each.replicas for each in limits)))
        ill = wanted - {number} - _well(world, owner, record.because)
        if ill:
            yield f"ready number {number} goes while {sorted(ill)} are not well"


def _owner(world: World, pod: Pod) -> StatefulSet | None:
    name = next((o.name for o in pod.metadata.owner_references if o.controller), "")
    found = world.get(StatefulSet.DESCRIPTOR.full_name, pod.metadata.namespace, name)
    same = isinstance(found, StatefulSet) and found.metadata.uid == worlds.manager(pod)
    return found if same and isinstance(found, StatefulSet) else None


def _number(pod: Pod) -> int:
    return int(pod.metadata.name.rpartition("-")[2])


def _well(world: World, owner: StatefulSet, since: int) -> set[int]:
    """Numbers whose pods are well, or were when it was decided."""
    uid = owner.metadata.uid
    there = {_number(pod) for pod in world.owned(uid, Pod) if world.was_well(pod, since)}
    lost = {
        _number(lost.pod) for lost in world.losses if lost.owner == uid and lost.revision > since
    }
    return there | lost
