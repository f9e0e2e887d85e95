"""Rollouts in numbers: how many of which, and what next.

A rollout is a deployment's wish and the replica sets that it has; each function takes those as
plain numbers and says what sizes to give. Bounds that hold whatever happens: the sets together
never ask for more than `replicas + surge`, and what is taken down leaves at least
`replicas - unavailable` available.

`asked` is a set's spec.replicas; `pods` how many it may really have, which is more while it shrinks
(and counts, or a moment later there would be too many); `available` how many serve, never more than
asked for, since a set gives up the worst first.
Pure. It must not know objects.
"""

from collections.abc import Sequence
from dataclasses import dataclass

Scale = dict[str, int]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a rolling update has to keep to."""

    replicas: int
    surge: int
    unavailable: int

    @property
    def most(self) -> int:
        """Pods that there may be."""
        return self.replicas + self.surge

    @property
    def least_available(self) -> int:
        """Pods that must serve."""
        return self.replicas - self.unavailable


@dataclass(frozen=True, slots=True)
class Set:
    """One replica set's numbers; `before_scale` is the `most` of when it was last scaled, or 0."""

    name: str
    created: float
    asked: int
    pods: int = 0
    available: int = 0
    before_scale: int = 0
    # The deployment's replicas of when it was last scaled, if known.
    desired: int | None = None

    @property
    def weight(self) -> int:
        """Pods to reckon with."""
        return max(self.asked, self.pods)


def part(value: int | str, whole: int, *, up: bool) -> int:
    """A number, or "25%" of the whole, rounded up or down."""
    if isinstance(value, int):
        return value
    text = value.strip()
    if not text.endswith("%"):
        return int(text)
    scaled = int(text[:-1]) * whole
    return -(-scaled // 100) if up else scaled // 100


def bounds(replicas: int, surge: int | str, unavailable: int | str) -> Bounds:
    """Surge rounds up, unavailable down; if both come to nothing, one may be unavailable."""
    more = part(surge, replicas, up=True)
    fewer = min(part(unavailable, replicas, up=False), replicas)
    if more == 0 and fewer == 0:
        fewer = 1
    return Bounds(replicas, more, fewer)


def grow(limits: Bounds, new: Set, old: Sequence[Set]) -> int:
    """The size of the new set in a rolling update."""
    if new.asked >= limits.replicas:
        return limits.replicas
    room = limits.most - sum(each.weight for each in (new, *old))
    return new.asked + max(0, min(room, limits.replicas - new.asked))


def shrink(limits: Bounds, new: Set, old: Sequence[Set]) -> Scale:
    """The sizes of the old sets in a rolling update, those that change.

    First go those that do not serve, oldest set first, then as many as are not needed.
    """
    asked = new.asked + sum(each.asked for each in old)
    # Those of the new set that do not serve yet may not be counted on.
    spare = asked - limits.least_available - (new.asked - _serving(new))
    if spare <= 0:
        return {}
    sizes = {each.name: each.asked for each in old}
    in_order = sorted(old, key=lambda each: (each.created, each.name))
    for each in in_order:
        idle = min(each.asked - _serving(each), spare)
        if idle > 0:
            sizes[each.name] -= idle
            spare -= idle
    serving = _serving(new) + sum(_serving(each) for each in old)
    surplus = min(serving - limits.least_available, spare)
    for each in in_order:
        fewer = min(sizes[each.name], surplus)
        if fewer > 0:
            sizes[each.name] -= fewer
            surplus -= fewer
    return {each.name: sizes[each.name] for each in old if sizes[each.name] != each.asked}


def needs_scaling(replicas: int, sets: Sequence[Set]) -> bool:
    """Whether the deployment's size has changed since its sets were sized."""
    return any(each.asked > 0 and each.desired not in (None, replicas) for each in sets)


def scale(limits: Bounds, new: Set | None, old: Sequence[Set], *, rolling: bool) -> Scale:
    """The sizes of all sets when the deployment's size changes, without going on with a rollout.

    One set that is alone, or the last that there was, takes all. In a rollout each takes its share.
    """
    sets = [*old, *([] if new is None else [new])]
    if not sets:
        return {}
    active = [each for each in sets if each.asked > 0]
    if len(active) <= 1:
        only = active[0] if active else new or max(sets, key=lambda s: (s.created, s.name))
        return {} if only.asked == limits.replicas else {only.name: limits.replicas}
    if new is not None and _is_saturated(limits.replicas, new):
        return {each.name: 0 for each in old if each.asked > 0}
    if not rolling:
        return {}
    return _share(limits, active)


def _share(limits: Bounds, active: Sequence[Set]) -> Scale:
    """Every active set's size, also where it stays: it was sized for these bounds now."""
    most = limits.most if limits.replicas > 0 else 0
    change = most - sum(each.asked for each in active)
    if change > 0:
        # The larger first; of the same size, the newer.
        in_order = sorted(active, key=lambda each: (-each.asked, -each.created, each.name))
    else:
        in_order = sorted(active, key=lambda each: (-each.asked, each.created, each.name))
    sizes: Scale = {}
    given = 0
    for each in in_order:
        wanted = _fraction(limits, most, each)
        left = change - given
        share = min(max(wanted, 0), left) if change > 0 else max(min(wanted, 0), left)
        sizes[each.name] = each.asked + share
        given += share
    # What rounding left goes to the largest.
    largest = in_order[0].name
    sizes[largest] = max(0, sizes[largest] + change - given)
    return sizes


def _fraction(limits: Bounds, most: int, each: Set) -> int:
    if limits.replicas == 0:
        return -each.asked
    if each.before_scale <= 0:
        return 0
    # Half is rounded up.
    return (2 * each.asked * most + each.before_scale) // (2 * each.before_scale) - each.asked


def _serving(each: Set) -> int:
    return min(each.available, each.asked)


def _is_saturated(replicas: int, new: Set) -> bool:
    return new.asked == new.available == replicas and new.desired in (None, replicas)
