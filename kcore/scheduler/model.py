"""All nodes as arrays, and what the pods on them take. Kept up to date, never rebuilt.

A node has a slot: a row in each array. `set_node`, `drop_node`, `place` and `remove` follow the
watch; `judge` gives, for a demand, what does not depend on other pods, worked out once per node and
change; `free` and the used columns are what plans start from. Pods may come before their node.
It must not know which pods wait, nor decide anything.
"""

import weakref
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kcore.scheduler import demand, fit
from kcore.scheduler.demand import Demand, Port
from kcore.scheduler.fit import Reason, Want
from kcore.scheduler.node import Facts

Numbers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_FIRST_SLOTS = 16
_EVERY_WANT = frozenset(Want)
# What may become free when a pod leaves.
_LEAVING = frozenset((Want.ROOM, Want.PORTS))

# Columns of what scores look at.
SCORED = (demand.CPU, demand.MEMORY)


class Key(NamedTuple):
    """Names a pod."""

    namespace: str
    name: str


@dataclass(slots=True)
class Judgement:
    """What a demand has to expect of each slot, but for what other pods take."""

    # 0: nothing against it; else 1 + an index into `reasons`. -1: no node in the slot.
    verdicts: npt.NDArray[np.int16]
    intolerable: Numbers
    reasons: list[Reason] = field(default_factory=list)
    # The model's revision at which it is complete.
    seen: int = 0


class Model:
    """The nodes and what they carry."""

    def __init__(self) -> None:
        """No nodes, no pods."""
        self.resources: list[str] = [demand.CPU, demand.MEMORY, demand.EPHEMERAL, demand.PODS]
        self.facts: list[Facts | None] = [None] * _FIRST_SLOTS
        self.slots: dict[str, int] = {}
        columns = len(self.resources)
        self.allocatable: Numbers = np.zeros((_FIRST_SLOTS, columns), dtype=np.int64)
        self.used: Numbers = np.zeros((_FIRST_SLOTS, columns), dtype=np.int64)
        # The same in cpu and memory, with guesses for those who did not ask.
        self.scored: Numbers = np.zeros((_FIRST_SLOTS, len(SCORED)), dtype=np.int64)
        # By protocol and number: the (slot, address) pairs where it is taken, with how often.
        self.ports: dict[tuple[str, int], dict[tuple[int, str], int]] = {}
        self._free_slots = list(range(_FIRST_SLOTS - 1, -1, -1))
        # Grows with every change of what `judge` looks at; per slot, when it last changed.
        self._revision = 1
        self._changed: Numbers = np.zeros(_FIRST_SLOTS, dtype=np.int64)
        self._placed: dict[Key, tuple[str, Demand]] = {}
        self._by_node: dict[str, dict[Key, Demand]] = {}
        self._judgements: weakref.WeakKeyDictionary[Demand, Judgement] = weakref.WeakKeyDictionary()
        self._vectors: weakref.WeakKeyDictionary[Demand, Numbers] = weakref.WeakKeyDictionary()

    # Following the world. What is answered are the wants that may be met now.

    def set_node(self, facts: Facts) -> frozenset[Want]:
        """A node is there, or has changed."""
        for resource in facts.allocatable:
            self._column(resource)
        slot = self.slots.get(facts.name)
        if slot is None:
            return self._add(facts)
        old = self.facts[slot]
        assert old is not None
        if old == facts:
            return frozenset()
        self.facts[slot] = facts
        self.allocatable[slot] = self._row(facts)
        self._touch(slot)
        relieved = set()
        if old.labels != facts.labels:
            relieved.add(Want.LABELS)
        if old.taints != facts.taints:
            relieved.add(Want.TOLERANCE)
        if old.unschedulable != facts.unschedulable:
            relieved.add(Want.OPENNESS)
        if old.allocatable != facts.allocatable:
            relieved.add(Want.ROOM)
        # Behind the reason that was found first there may be another one.
        return _EVERY_WANT if relieved - {Want.ROOM} else frozenset(relieved)

    def drop_node(self, name: str) -> None:
        """A node is gone. Its pods, if they stay, wait for its return."""
        slot = self.slots.pop(name, None)
        if slot is None:
            return
        for asked in self._by_node.get(name, {}).values():
            self._take(slot, asked, -1)
        self.facts[slot] = None
        self.allocatable[slot] = 0
        self._touch(slot)
        self._free_slots.append(slot)

    def place(self, key: Key, node: str, asked: Demand) -> frozenset[Want]:
        """A pod is on a node (or is about to be)."""
        old = self._placed.get(key)
        if old == (node, asked):
            return frozenset()
        relieved = self.remove(key)
        self._placed[key] = (node, asked)
        self._by_node.setdefault(node, {})[key] = asked
        slot = self.slots.get(node)
        if slot is not None:
            self._take(slot, asked, 1)
        return relieved

    def remove(self, key: Key) -> frozenset[Want]:
        """A pod takes nothing any more."""
        old = self._placed.pop(key, None)
        if old is None:
            return frozenset()
        node, asked = old
        pods = self._by_node[node]
        del pods[key]
        if not pods:
            del self._by_node[node]
        slot = self.slots.get(node)
        if slot is None:
            return frozenset()
        self._take(slot, asked, -1)
        return _LEAVING

    # Reading.

    @property
    def nodes(self) -> int:
        """How many nodes there are."""
        return len(self.slots)

    def vector(self, asked: Demand) -> Numbers:
        """What is asked for, by column; one pod is counted too."""
        found = self._vectors.get(asked)
        if found is None or len(found) != len(self.resources):
            columns = [(self._column(name), most) for name, most in asked.request]
            found = np.zeros(len(self.resources), dtype=np.int64)
            for column, most in columns:
                found[column] = most
            found[self.resources.index(demand.PODS)] = 1
            self._vectors[asked] = found
        return found

    def judge(self, asked: Demand) -> Judgement:
        """What does not depend on other pods, for each slot."""
        found = self._judgements.get(asked)
        slots = len(self.facts)
        if found is None:
            found = Judgement(np.full(slots, -1, np.int16), np.zeros(slots, np.int64))
            self._judgements[asked] = found
        elif len(found.verdicts) < slots:
            more = slots - len(found.verdicts)
            found.verdicts = np.concatenate([found.verdicts, np.full(more, -1, np.int16)])
            found.intolerable = np.concatenate([found.intolerable, np.zeros(more, np.int64)])
        if found.seen < self._revision:
            for slot in np.flatnonzero(self._changed > found.seen):
                self._judge_slot(found, asked, int(slot))
            found.seen = self._revision
        return found

    def taken(self, port: Port) -> list[int]:
        """The slots where a pod with this port would clash with one that is there."""
        return clashes(self.ports.get((port.protocol, port.number), {}), port)

    # Inside.

    def _add(self, facts: Facts) -> frozenset[Want]:
        if not self._free_slots:
            self._grow()
        slot = self._free_slots.pop()
        self.slots[facts.name] = slot
        self.facts[slot] = facts
        self.allocatable[slot] = self._row(facts)
        self.used[slot] = 0
        self.scored[slot] = 0
        for asked in self._by_node.get(facts.name, {}).values():
            self._take(slot, asked, 1)
        self._touch(slot)
        return _EVERY_WANT

    def _grow(self) -> None:
        slots = len(self.facts)
        self._free_slots = list(range(2 * slots - 1, slots - 1, -1))
        self.facts += [None] * slots
        self.allocatable = np.concatenate([self.allocatable, np.zeros_like(self.allocatable)])
        self.used = np.concatenate([self.used, np.zeros_like(self.used)])
        self.scored = np.concatenate([self.scored, np.zeros_like(self.scored)])
        self._changed = np.concatenate([self._changed, np.zeros_like(self._changed)])

    def _touch(self, slot: int) -> None:
        self._revision += 1
        self._changed[slot] = self._revision

    def _column(self, resource: str) -> int:
        if resource in self.resources:
            return self.resources.index(resource)
        self.resources.append(resource)
        more = np.zeros((len(self.facts), 1), dtype=np.int64)
        self.allocatable = np.hstack([self.allocatable, more])
        self.used = np.hstack([self.used, more])
        return len(self.resources) - 1

    def _row(self, facts: Facts) -> Numbers:
        return np.array([facts.allocatable.get(r, 0) for r in self.resources], dtype=np.int64)

    def _take(self, slot: int, asked: Demand, sign: int) -> None:
        vector = self.vector(asked)
        self.used[slot] += sign * vector
        self.scored[slot, 0] += sign * asked.score_cpu
        self.scored[slot, 1] += sign * asked.score_memory
        for port in asked.ports:
            count(self.ports.setdefault((port.protocol, port.number), {}), slot, port, sign)

    def _judge_slot(self, found: Judgement, asked: Demand, slot: int) -> None:
        facts = self.facts[slot]
        if facts is None:
            found.verdicts[slot] = -1
            return
        reason = fit.refusal(asked, facts)
        if reason is None:
            found.verdicts[slot] = 0
        else:
            if reason not in found.reasons:
                found.reasons.append(reason)
            found.verdicts[slot] = 1 + found.reasons.index(reason)
        found.intolerable[slot] = fit.intolerable(asked, facts) if facts.advice else 0


def count(users: dict[tuple[int, str], int], slot: int, port: Port, sign: int) -> None:
    """Adds one user of a port, or takes it away."""
    place = (slot, port.address)
    users[place] = users.get(place, 0) + sign
    if not users[place]:
        del users[place]


def clashes(users: dict[tuple[int, str], int], port: Port) -> list[int]:
    """The slots on which a port is taken: on the same address, or on all of them."""
    return [
        slot
        for slot, address in users
        if not address or not port.address or address == port.address
    ]
