"""Disruption budgets: an eviction takes from what is left, and leaves what is needed."""

from collections.abc import Iterator

from google.protobuf.message import Message

from kcore.kernel.record import Record
from kcore.sim import world as worlds
from kcore.sim.world import Budget, Pod, World


def kept(world: World, record: Record, old: Message | None, new: Message | None) -> Iterator[str]:
    """No budget is overdrawn."""
    if isinstance(new, Budget) and new.status.disruptions_allowed < 0:
        yield f"allows {new.status.disruptions_allowed} disruptions"


def not_below(
    world: World, record: Record, old: Message | None, new: Message | None
) -> Iterator[str]:
    """By what was known when the budget was last counted, enough pods are left."""
    if record.subresource != "eviction" or not isinstance(old, Pod) or not worlds.is_well(old):
        return
    for found in world.all(Budget):
        if not _covers(found, old) or not found.status.HasField("observed_generation"):
            continue
        since = world.counted.get(found.metadata.uid, 0)
        others = [
            pod
            for pod in world.pods()
            if _covers(found, pod) and pod.metadata.uid != old.metadata.uid
        ]
        left = sum(world.was_well(pod, since) and not _is_evicted(pod) for pod in others)
        # What others took away since then was still counted on.
        there = {pod.metadata.uid for pod in others}
        left += sum(
            lost.revision > since
            and lost.subresource != "eviction"
            and lost.uid not in there
            and _covers(found, lost.pod)
            for lost in world.losses
        )
        if left < found.status.desired_healthy:
            yield (
                f"evicted: {left} are left of {found.metadata.name}, "
                f"{found.status.desired_healthy} are needed"
            )


def _is_evicted(pod: Pod) -> bool:
    return any(each.reason == "EvictionByEvictionAPI" for each in pod.status.conditions)


def _covers(budget: Budget, pod: Pod) -> bool:
    wanted = budget.spec.selector.match_labels
    same = budget.metadata.namespace == pod.metadata.namespace
    return same and all(pod.metadata.labels.get(key) == wanted[key] for key in wanted)
