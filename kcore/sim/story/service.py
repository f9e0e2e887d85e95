"""Services before whatever runs; some publish pods that are not ready."""

from collections.abc import Iterator
from dataclasses import dataclass

from kcore.sim import world as worlds
from kcore.sim.story import stage as stages
from kcore.sim.story.stage import Stage, Where
from kcore.sim.world import EndpointSlice, Service

_MOST = 3


@dataclass(slots=True)
class _Wanted:
    app: str
    published: bool


class Services:
    """All of one story."""

    kind = Service.DESCRIPTOR.full_name

    def __init__(self, stage: Stage) -> None:
        """None yet."""
        self._stage = stage
        self._wanted: dict[Where, _Wanted] = {}

    def wanted(self) -> list[Where]:
        """What is to be there."""
        return sorted(self._wanted)

    async def begin(self) -> None:
        """Another one."""
        free = stages.apps(self._stage)
        if free and len(self._wanted) < _MOST:
            await self.make(*self._stage.pick(free), published=self._stage.strikes(0.3))

    async def make(self, namespace: str, app: str, *, published: bool = False) -> Where:
        """A new one."""
        where = (namespace, f"service-{self._stage.number()}")
        self._wanted[where] = _Wanted(app, published)
        made = self._made(where)
        made.spec.ports.add(name="http", port=80)
        await self._stage.create(made)
        return where

    async def change(self, where: Where) -> None:
        """It leads somewhere else."""
        apps = [app for namespace, app in stages.apps(self._stage) if namespace == where[0]]
        if apps:
            self._wanted[where].app = self._stage.pick(apps)
            await self._stage.patch(self._made(where), "spec.selector")

    def forget(self, where: Where) -> None:
        """It is to go."""
        del self._wanted[where]

    async def repair(self) -> None:
        """Nothing is broken on purpose."""

    def unsettled(self) -> Iterator[str]:
        """What is not yet as it was asked for."""
        world = self._stage.world
        for where, wanted in sorted(self._wanted.items()):
            said = f"service {'/'.join(where)}"
            found = world.get(self.kind, *where)
            if not isinstance(found, Service):
                yield f"{said} is not there"
                continue
            shown = {
                endpoint.target_ref.name
                for each in world.owned(found.metadata.uid, EndpointSlice)
                for endpoint in each.endpoints
                if endpoint.conditions.ready
            }
            meant = {
                pod.metadata.name
                for pod in world.pods()
                if pod.metadata.namespace == where[0]
                and pod.metadata.labels.get("app") == wanted.app
                and pod.status.pod_ip
                and not worlds.is_over(pod)
                and (wanted.published or worlds.is_well(pod))
            }
            if shown != meant:
                yield f"{said} leads to {sorted(shown)}, ready are {sorted(meant)}"

    def _made(self, where: Where) -> Service:
        wanted = self._wanted[where]
        made = stages.shell(Service, where)
        made.spec.selector["app"] = wanted.app
        made.spec.publish_not_ready_addresses = wanted.published
        return made
