"""Decides for all pending pods at once. Pure: it reads a model and changes nothing.

Pods are taken in the order given; each one that fits is put on a draft of the model, so that the
next sees it. Pods with one demand are decided as a class: masks and scores of all nodes are worked
out once, then only of the nodes that a decision has changed. Among equally good nodes chance
decides. A class of which one pod did not fit is not tried again: a plan only fills nodes.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from kcore.chance import Chance
from kcore.scheduler import fit, model, score
from kcore.scheduler.demand import Demand
from kcore.scheduler.fit import Reason, Want

Pod = TypeVar("Pod")

Numbers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a demand fits nowhere."""

    message: str
    # What would have to change.
    wants: frozenset[Want]


@dataclass(frozen=True, slots=True)
class Decision(Generic[Pod]):
    """A pod, and its node or why it has none."""

    pod: Pod
    node: str
    refusal: Refusal | None = None


def plan(
    world: model.Model, pods: Iterable[tuple[Pod, Demand]], chance: Chance
) -> list[Decision[Pod]]:
    """What is to become of each pod, in the order given."""
    draft = _Draft(world)
    rounds: dict[Demand, _Round] = {}
    decisions: list[Decision[Pod]] = []
    for pod, asked in pods:
        current = rounds.get(asked)
        if current is None:
            # A new resource widens the model's rows, so this comes before the draft is read.
            world.vector(asked)
            current = rounds[asked] = _Round(draft, asked)
        slot = current.choose(chance)
        if slot is None:
            decisions.append(Decision(pod, "", current.refusal()))
            continue
        draft.put(slot, current)
        facts = world.facts[slot]
        assert facts is not None
        decisions.append(Decision(pod, facts.name))
    return decisions


class _Draft:
    """What nodes carry, with the decisions taken so far."""

    def __init__(self, world: model.Model) -> None:
        self.world = world
        self.free: Numbers = world.allocatable - world.used
        self.scored: Numbers = world.scored.copy()
        self.ports: dict[tuple[str, int], dict[tuple[int, str], int]] = {}
        # Slots in the order in which they were given pods.
        self.touched: list[int] = []

    def widen(self) -> None:
        """Follows the model when a demand has brought a resource that no node has."""
        missing = len(self.world.resources) - self.free.shape[1]
        if missing:
            self.free = np.hstack([self.free, np.zeros((len(self.free), missing), dtype=np.int64)])

    def put(self, slot: int, current: "_Round") -> None:
        asked = current.asked
        self.free[slot] -= current.vector()
        self.scored[slot, 0] += asked.score_cpu
        self.scored[slot, 1] += asked.score_memory
        for port in asked.ports:
            users = self.ports.setdefault((port.protocol, port.number), {})
            model.count(users, slot, port, 1)
        self.touched.append(slot)


class _Round:
    """One demand against all nodes of a draft."""

    def __init__(self, draft: _Draft, asked: Demand) -> None:
        self.asked = asked
        self._draft = draft
        self._judgement = draft.world.judge(asked)
        self._seen = len(draft.touched)
        self._refusal: Refusal | None = None
        draft.widen()
        self._feasible, self._scores = self._look(np.arange(len(draft.free)))
        self._advised = bool(self._judgement.intolerable.any())

    def vector(self) -> Numbers:
        return self._draft.world.vector(self.asked)

    def choose(self, chance: Chance) -> int | None:
        """The best slot; None: there is none."""
        if self._refusal is not None:
            return None
        touched = self._draft.touched
        if self._seen < len(touched):
            changed = np.array(sorted(set(touched[self._seen :])))
            self._seen = len(touched)
            self._feasible[changed], self._scores[changed] = self._look(changed)
        scores = self._scores
        if self._advised:
            preference = score.preference(self._judgement.intolerable, self._feasible)
            scores = scores + score.PREFERENCE_WEIGHT * preference
        scores = np.where(self._feasible, scores, -1)
        best = int(scores.max(initial=-1))
        if best < 0:
            return None
        equal = np.flatnonzero(scores == best)
        return int(equal[chance.integer(0, len(equal) - 1) if len(equal) > 1 else 0])

    def refusal(self) -> Refusal:
        """Why there is none."""
        if self._refusal is None:
            reasons = list(self._reasons())
            message = fit.explain(reasons, self._draft.world.nodes)
            # Without nodes, whatever comes may help.
            wants = frozenset(reason.want for reason in reasons) or frozenset(Want)
            self._refusal = Refusal(message, wants)
        return self._refusal

    def _look(self, slots: Numbers) -> tuple[Mask, Numbers]:
        draft, world = self._draft, self._draft.world
        vector = self.vector()
        feasible: Mask = (self._judgement.verdicts[slots] == 0) & fit.room(
            vector, draft.free[slots]
        )
        for slot in self._port_clashes():
            feasible &= slots != slot
        capacity = world.allocatable[slots, : len(model.SCORED)]
        scored = draft.scored[slots] + (self.asked.score_cpu, self.asked.score_memory)
        scores = score.least(capacity, scored)
        if self.asked.asks:
            used = capacity - draft.free[slots, : len(model.SCORED)] + vector[: len(model.SCORED)]
            scores = scores + score.balanced(capacity, used)
        return feasible, scores

    def _port_clashes(self) -> list[int]:
        draft = self._draft
        found: set[int] = set()
        for port in self.asked.ports:
            found.update(draft.world.taken(port))
            found.update(model.clashes(draft.ports.get((port.protocol, port.number), {}), port))
        return sorted(found)

    def _reasons(self) -> Iterable[Reason]:
        """The reasons of all nodes: of each what stands against it first, as Kubernetes asks."""
        world = self._draft.world
        vector, clashes = self.vector(), set(self._port_clashes())
        for slot, facts in enumerate(world.facts):
            if facts is None:
                continue
            verdict = int(self._judgement.verdicts[slot])
            if verdict > 0:
                yield self._judgement.reasons[verdict - 1]
            elif slot in clashes:
                yield fit.PORTS_TAKEN
            else:
                for column in fit.lacking(vector, self._draft.free[slot]):
                    yield fit.insufficient(world.resources[column])
