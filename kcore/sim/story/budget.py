"""Disruption budgets over whatever runs, and somebody who drains what they cover."""

from collections.abc import Iterator
from dataclasses import dataclass

from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.sim import world as worlds
from kcore.sim.story import stage as stages
from kcore.sim.story.stage import Stage, Where
from kcore.sim.world import Budget, Pod
from kcore.wire.errors import Reason

_MOST = 3
# A pod that has gone meanwhile, a namesake, a budget with nothing left.
_REFUSED = (Reason.NOT_FOUND, Reason.CONFLICT, Reason.EXHAUSTED)


@dataclass(frozen=True, slots=True)
class _Wanted:
    app: str


class Budgets:
    """All of one story."""

    kind = Budget.DESCRIPTOR.full_name

    def __init__(self, stage: Stage) -> None:
        """None yet."""
        self._stage = stage
        self._wanted: dict[Where, _Wanted] = {}

    def wanted(self) -> list[Where]:
        """What is to be there."""
        return sorted(self._wanted)

    async def begin(self) -> None:
        """One for pods that have none."""
        covered = {(where[0], wanted.app) for where, wanted in self._wanted.items()}
        free = [each for each in stages.apps(self._stage) if each not in covered]
        if free and len(self._wanted) < _MOST:
            namespace, app = self._stage.pick(free)
            await self.make(
                namespace, app, self._stage.chance.integer(0, 2), self._stage.strikes(0.5)
            )

    async def make(self, namespace: str, app: str, count: int, of_missing: bool) -> Where:
        """A new one: so many may be missing, or have to be there."""
        where = (namespace, f"budget-{self._stage.number()}")
        self._wanted[where] = _Wanted(app)
        made = stages.shell(Budget, where)
        made.spec.selector.match_labels["app"] = app
        amount = made.spec.max_unavailable if of_missing else made.spec.min_available
        amount.int_val = count
        await self._stage.create(made)
        return where

    async def change(self, where: Where) -> None:
        """Evicts all that it covers, one after the other or all at once."""
        names = [pod.metadata.name for pod in self._covered(where) if worlds.is_active(pod)]
        if self._stage.strikes(0.5):
            await self.evict(where[0], *names)
        else:
            for name in names:
                await self.evict(where[0], name)

    async def evict(self, namespace: str, *names: str) -> None:
        """As far as budgets allow."""
        asked = [
            pb.Transaction(
                operations=[
                    pb.Operation(
                        ref=pb.Ref(kind=worlds.POD, namespace=namespace, name=name),
                        subresource="eviction",
                        delete=pb.Delete(),
                    )
                ]
            )
            for name in names
        ]
        if asked:
            for name, error in zip(names, await self._stage.user.do_all(asked), strict=True):
                self._stage.expect(error, f"evict {namespace}/{name}", *_REFUSED)

    def forget(self, where: Where) -> None:
        """It is to go."""
        del self._wanted[where]

    async def repair(self) -> None:
        """Nothing is broken on purpose."""

    def unsettled(self) -> Iterator[str]:
        """What is not yet as it was asked for."""
        for where in self.wanted():
            said = f"budget {'/'.join(where)}"
            found = self._stage.world.get(self.kind, *where)
            if not isinstance(found, Budget):
                yield f"{said} is not there"
                continue
            status = found.status
            well = sum(worlds.is_well(pod) for pod in self._covered(where))
            if status.current_healthy != well or status.disrupted_pods:
                yield f"{said}: {status.current_healthy} healthy in its status, {well} are"
            elif status.expected_pods and (
                status.disruptions_allowed != max(0, well - status.desired_healthy)
            ):
                yield f"{said}: {status.disruptions_allowed} disruptions allowed of {well}"

    def _covered(self, where: Where) -> list[Pod]:
        app = self._wanted[where].app
        return [
            pod
            for pod in self._stage.world.pods()
            if pod.metadata.namespace == where[0] and pod.metadata.labels.get("app") == app
        ]
