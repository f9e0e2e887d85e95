"""DaemonSets: come, roll with a pod away or a pod more, go."""

from collections.abc import Iterator
from dataclasses import dataclass

from kcore.sim import world as worlds
from kcore.sim.story import stage as stages
from kcore.sim.story.stage import Stage, Where
from kcore.sim.world import DaemonSet, Node, Pod

_MOST = 1


@dataclass(slots=True)
class _Wanted:
    surge: bool
    image: str = "agent:0"


class DaemonSets:
    """All of one story."""

    kind = DaemonSet.DESCRIPTOR.full_name

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
            await self.make(self._stage.strikes(0.4))

    async def make(self, surge: bool) -> Where:
        """A new one."""
        where = self._stage.place("agent")
        self._wanted[where] = _Wanted(surge)
        await self._stage.create(self._made(where))
        return where

    async def change(self, where: Where) -> None:
        """Rolls it."""
        await self.roll(where, f"agent:{self._stage.number()}")

    async def roll(self, where: Where, image: str) -> None:
        """Another template."""
        self._wanted[where].image = image
        await self._stage.patch(self._made(where), "spec.template")

    def forget(self, where: Where) -> None:
        """It is to go."""
        del self._wanted[where]

    async def repair(self) -> None:
        """Nothing is broken on purpose."""

    def unsettled(self) -> Iterator[str]:
        """What is not yet as it was asked for."""
        world = self._stage.world
        nodes = [node.metadata.name for node in world.all(Node)]
        for where, wanted in sorted(self._wanted.items()):
            said = f"daemon set {'/'.join(where)}"
            found = world.get(self.kind, *where)
            if not isinstance(found, DaemonSet):
                yield f"{said} is not there"
                continue
            pods = world.owned(found.metadata.uid, Pod)
            good = sorted(
                pod.spec.node_name
                for pod in pods
                if worlds.is_well(pod) and stages.image(pod) == wanted.image
            )
            if good != nodes or len(pods) != len(nodes):
                yield f"{said}: {len(pods)} pods, good are those of {good}"
            status = found.status
            shown = (
                status.desired_number_scheduled,
                status.number_ready,
                status.updated_number_scheduled,
            )
            if shown != (len(nodes),) * 3:
                yield f"{said}: {shown} in its status, {len(nodes)} wanted"

    def _made(self, where: Where) -> DaemonSet:
        wanted = self._wanted[where]
        made = stages.shell(DaemonSet, where)
        made.spec.selector.match_labels["app"] = where[1]
        made.spec.update_strategy.type = "RollingUpdate"
        rolling = made.spec.update_strategy.rolling_update
        rolling.max_surge.int_val = int(wanted.surge)
        rolling.max_unavailable.int_val = int(not wanted.surge)
        stages.template(made.spec.template, where[1], wanted.image)
        return made
