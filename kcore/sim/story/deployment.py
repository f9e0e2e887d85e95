"""Deployments: come, roll (now and then to an image that is not there), are scaled, go."""

from collections.abc import Iterator
from dataclasses import dataclass

from kcore.sim import world as worlds
from kcore.sim.story import stage as stages
from kcore.sim.story.stage import MISSING_IMAGE, Stage, Where
from kcore.sim.world import Deployment, ReplicaSet

_MOST_PODS = 8
# Few fit on a node, so that room runs out.
_MILLICPUS = 700


@dataclass(slots=True)
class _Wanted:
    replicas: int
    image: str


class Deployments:
    """All of one story."""

    kind = worlds.DEPLOYMENT

    def __init__(self, stage: Stage) -> None:
        """None yet."""
        self._stage = stage
        self._wanted: dict[Where, _Wanted] = {}

    def wanted(self) -> list[Where]:
        """What is to be there."""
        return sorted(self._wanted)

    async def begin(self) -> None:
        """Another one."""
        if self._pods() < _MOST_PODS:
            await self.deploy()

    async def change(self, where: Where) -> None:
        """Rolls or scales it."""
        if self._stage.strikes(0.6):
            bad = self._stage.strikes(0.15)
            await self.roll(where, MISSING_IMAGE if bad else f"web:{self._stage.number()}")
        else:
            room = _MOST_PODS - self._pods() + self._wanted[where].replicas
            await self.scale(where, self._stage.chance.integer(0, max(1, min(6, room))))

    def forget(self, where: Where) -> None:
        """It is to go."""
        del self._wanted[where]

    async def repair(self) -> None:
        """All get images that are there."""
        for where, wanted in sorted(self._wanted.items()):
            if wanted.image == MISSING_IMAGE:
                await self.roll(where, "web:last")

    async def deploy(
        self, name: str = "", replicas: int | None = None, image: str = "web:0"
    ) -> Where:
        """A new one."""
        where = self._stage.place("web")
        where = (where[0], name) if name else where
        count = self._stage.chance.integer(1, 4) if replicas is None else replicas
        self._wanted[where] = _Wanted(count, image)
        await self._stage.create(_made(where, count, image))
        return where

    async def scale(self, where: Where, replicas: int) -> None:
        """Another number of replicas."""
        self._wanted[where].replicas = replicas
        await self._stage.patch(_made(where, replicas, ""), "spec.replicas")

    async def roll(self, where: Where, image: str) -> None:
        """Another template."""
        self._wanted[where].image = image
        await self._stage.patch(_made(where, 0, image), "spec.template")

    def unsettled(self) -> Iterator[str]:
        """What is not yet as it was asked for."""
        world = self._stage.world
        for where, wanted in sorted(self._wanted.items()):
            said = f"deployment {'/'.join(where)}"
            found = world.get(self.kind, *where)
            if not isinstance(found, Deployment):
                yield f"{said} is not there"
                continue
            pods = [
                pod
                for each in world.owned(found.metadata.uid, ReplicaSet)
                for pod in world.owned(each.metadata.uid, worlds.Pod)
            ]
            good = sum(worlds.is_well(pod) and stages.image(pod) == wanted.image for pod in pods)
            if good != wanted.replicas or len(pods) != wanted.replicas:
                yield f"{said}: {good} good pods of {len(pods)}, {wanted.replicas} wanted"
            status = found.status
            if status.observed_generation != found.metadata.generation:
                yield f"{said}: its status is old"
            if (status.replicas, status.ready_replicas) != (wanted.replicas, wanted.replicas):
                shown = f"{status.ready_replicas}/{status.replicas} in its status"
                yield f"{said}: {shown}, {wanted.replicas} wanted"

    def _pods(self) -> int:
        return sum(wanted.replicas for wanted in self._wanted.values())


def _made(where: Where, replicas: int, image: str) -> Deployment:
    made = stages.shell(Deployment, where)
    made.spec.replicas = replicas
    made.spec.selector.match_labels["app"] = where[1]
    stages.template(made.spec.template, where[1], image, _MILLICPUS)
    return made
