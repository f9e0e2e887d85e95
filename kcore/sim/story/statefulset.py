"""StatefulSets of both policies: come, are scaled, roll (also down to a partition), go."""

from collections.abc import Iterator
from dataclasses import dataclass

from kcore.sim import world as worlds
from kcore.sim.story import stage as stages
from kcore.sim.story.stage import MISSING_IMAGE, Stage, Where
from kcore.sim.world import Pod, StatefulSet

_MOST = 2
_MOST_PODS = 4


@dataclass(slots=True)
class _Wanted:
    replicas: int
    parallel: bool
    # Its containers end only when they are killed.
    deaf: bool = False
    image: str = "db:0"
    partition: int = 0


class StatefulSets:
    """All of one story."""

    kind = StatefulSet.DESCRIPTOR.full_name

    def __init__(self, stage: Stage) -> None:
        """None yet."""
        self._stage = stage
        self._wanted: dict[Where, _Wanted] = {}

    def wanted(self) -> list[Where]:
        """What is to be there."""
        return sorted(self._wanted)

    async def begin(self) -> None:
        """Another one."""
        if len(self._wanted) < _MOST:
            await self.make()

    async def make(self, replicas: int | None = None, parallel: bool | None = None) -> Where:
        """A new one."""
        where = self._stage.place("db")
        count = self._stage.chance.integer(1, _MOST_PODS) if replicas is None else replicas
        side_by_side = self._stage.strikes(0.4) if parallel is None else parallel
        self._wanted[where] = _Wanted(count, side_by_side, self._stage.strikes(0.5))
        await self._stage.create(self._made(where))
        return where

    async def change(self, where: Where) -> None:
        """Rolls or scales it."""
        wanted = self._wanted[where]
        if self._stage.strikes(0.5):
            await self.scale(where, self._stage.chance.integer(0, _MOST_PODS))
        elif self._stage.strikes(0.7):
            bad = self._stage.strikes(0.15)
            wanted.image = MISSING_IMAGE if bad else f"db:{self._stage.number()}"
            partly = self._stage.strikes(0.3)
            wanted.partition = self._stage.chance.integer(1, 3) if partly else 0
            await self._stage.patch(self._made(where), "spec.template", "spec.updateStrategy")
        else:
            wanted.partition = 0
            await self._stage.patch(self._made(where), "spec.updateStrategy")

    async def scale(self, where: Where, replicas: int) -> None:
        """Another number of replicas."""
        self._wanted[where].replicas = replicas
        await self._stage.patch(self._made(where), "spec.replicas")

    async def roll(self, where: Where, image: str) -> None:
        """Another template, for all."""
        self._wanted[where].image, self._wanted[where].partition = image, 0
        await self._stage.patch(self._made(where), "spec.template", "spec.updateStrategy")

    def forget(self, where: Where) -> None:
        """It is to go."""
        del self._wanted[where]

    async def repair(self) -> None:
        """All get images that are there, for all pods."""
        for where, wanted in sorted(self._wanted.items()):
            if wanted.image == MISSING_IMAGE or wanted.partition:
                bad = wanted.image == MISSING_IMAGE
                await self.roll(where, "db:last" if bad else wanted.image)

    def unsettled(self) -> Iterator[str]:
        """What is not yet as it was asked for."""
        world = self._stage.world
        for where, wanted in sorted(self._wanted.items()):
            said = f"stateful set {'/'.join(where)}"
            found = world.get(self.kind, *where)
            if not isinstance(found, StatefulSet):
                yield f"{said} is not there"
                continue
            pods = world.owned(found.metadata.uid, Pod)
            good = {
                pod.metadata.name
                for pod in pods
                if worlds.is_well(pod) and stages.image(pod) == wanted.image
            }
            names = {f"{where[1]}-{number}" for number in range(wanted.replicas)}
            if good != names or len(pods) != len(names):
                yield f"{said}: {len(pods)} pods, good are {sorted(good)} of {sorted(names)}"
            status = found.status
            shown = (status.replicas, status.ready_replicas, status.updated_replicas)
            if shown != (wanted.replicas,) * 3 or (
                status.observed_generation != found.metadata.generation
                or status.current_revision != status.update_revision
            ):
                yield f"{said}: {shown} in its status, {wanted.replicas} wanted, or it is old"

    def _made(self, where: Where) -> StatefulSet:
        wanted = self._wanted[where]
        made = stages.shell(StatefulSet, where)
        spec = made.spec
        spec.replicas, spec.service_name = wanted.replicas, where[1]
        spec.pod_management_policy = "Parallel" if wanted.parallel else "OrderedReady"
        spec.selector.match_labels["app"] = where[1]
        spec.update_strategy.type = "RollingUpdate"
        spec.update_strategy.rolling_update.partition = wanted.partition
        container = stages.template(spec.template, where[1], wanted.image)
        if wanted.deaf:
            container.env.add(name="SIM_IGNORES_TERM", value="1")
        return made
