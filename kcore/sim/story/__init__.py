"""What the user of a simulated cluster does, and what must have become of it in the end.

`Story` draws what to do next from chance: objects of its cast (each seed has kinds of its own)
come, are changed and go, pods and namespaces are deleted, nodes are cordoned. `unsettled` says
what is not yet as it was asked for. What is done with each kind is a file of its own.
"""

from collections.abc import Collection, Iterator

from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import namespace_pb2, node_pb2
from kcore_api.kcore.meta.v1 import meta_pb2

from kcore.chance import Chance
from kcore.clock import Clock
from kcore.controllers import cluster
from kcore.kernel.record import Key
from kcore.reconcile import transaction
from kcore.sim import world as worlds
from kcore.sim.story.budget import Budgets
from kcore.sim.story.cronjob import CronJobs
from kcore.sim.story.daemonset import DaemonSets
from kcore.sim.story.deployment import Deployments
from kcore.sim.story.job import Jobs
from kcore.sim.story.service import Services
from kcore.sim.story.stage import Part, Stage
from kcore.sim.story.statefulset import StatefulSets
from kcore.sim.user import User
from kcore.sim.world import Node, Service, World
from kcore.wire.errors import Reason

# Every cluster has it.
_API_SERVICE = Key(Service.DESCRIPTOR.full_name, cluster.NAMESPACE, cluster.NAME)
# What runs pods, and what is about pods that run.
RUNNING = ("deployments", "stateful_sets", "daemon_sets", "jobs", "cron_jobs")
ABOUT = ("budgets", "services")
CAST = (*RUNNING, *ABOUT)


def cast(chance: Chance) -> tuple[str, ...]:
    """About half of the kinds, and at least one that runs pods."""
    drawn = [name for name in CAST if chance.uniform(0, 1) < 0.5]
    if not any(name in RUNNING for name in drawn):
        drawn.append(RUNNING[chance.integer(0, len(RUNNING) - 1)])
    return tuple(drawn)


class Story:
    """What is done, and what is wanted."""

    def __init__(
        self,
        user: User,
        world: World,
        clock: Clock,
        chance: Chance,
        players: Collection[str] = CAST,
    ) -> None:
        """`world`: where the user sees what there is; `players`: kinds that are drawn."""
        self._stage = stage = Stage(user, world, chance)
        self.deployments = Deployments(stage)
        self.stateful_sets = StatefulSets(stage)
        self.daemon_sets = DaemonSets(stage)
        self.jobs = Jobs(stage)
        self.cron_jobs = CronJobs(stage)
        self.budgets = Budgets(stage)
        self.services = Services(stage)
        self._all: list[Part] = [getattr(self, name) for name in CAST]
        self._cast: list[Part] = [getattr(self, name) for name in CAST if name in players]
        self._clock = clock
        self._gone: list[str] = []
        self._cordoned: list[str] = []

    @property
    def complaints(self) -> list[str]:
        """What was refused, and should not have been."""
        return self._stage.complaints

    async def tell(self, seconds: float) -> None:
        """Does one thing after the other for so long, then repairs what it broke on purpose."""
        ends = self._clock.monotonic() + seconds
        for part in self._cast:
            await part.begin()
        while self._clock.monotonic() < ends:
            await self._clock.sleep(self._stage.chance.uniform(0.2, 12.0))
            await self._something()
        for node in list(self._cordoned):
            await self.cordon(node, False)
        for part in self._all:
            await part.repair()

    async def _something(self) -> None:
        draw = self._stage.chance.uniform(0, 1)
        part = self._stage.pick(self._cast)
        there = part.wanted()
        if draw < 0.10:
            await self.delete_a_pod()
        elif draw < 0.18:
            await self.add_namespace()
        elif draw < 0.24:
            await self.end_namespace()
        elif draw < 0.32:
            await self.cordon_some()
        elif not there or draw < 0.50:
            await part.begin()
        elif draw < 0.58:
            await self.delete(part, self._stage.pick(there))
        else:
            await part.change(self._stage.pick(there))

    # One thing each.

    async def delete(self, part: Part, where: tuple[str, str]) -> None:
        """It goes, with all that is its."""
        part.forget(where)
        await self._stage.delete(part.kind, where)

    async def delete_a_pod(self) -> None:
        """Some pod that is there."""
        pods = [pod for pod in self._stage.world.pods() if worlds.is_active(pod)]
        if pods:
            await self._stage.user.do(transaction.delete(self._stage.pick(pods)))

    async def add_namespace(self) -> None:
        """Another namespace."""
        name = f"space-{self._stage.number()}"
        found = namespace_pb2.Namespace(metadata=meta_pb2.ObjectMeta(name=name))
        await self._stage.create(found)
        self._stage.namespaces.append(name)

    async def end_namespace(self) -> None:
        """A namespace goes, with all that is in it."""
        if len(self._stage.namespaces) == 1:
            return
        name = self._stage.namespaces.pop()
        self._gone.append(name)
        for part in self._all:
            for where in part.wanted():
                if where[0] == name:
                    part.forget(where)
        await self._stage.remove(worlds.NAMESPACE, ("", name), pb.Delete())

    async def cordon_some(self) -> None:
        """One node takes no more pods, or takes them again."""
        nodes = [node.metadata.name for node in self._stage.world.all(Node)]
        if nodes:
            node = self._stage.pick(nodes)
            await self.cordon(node, node not in self._cordoned)

    async def cordon(self, node: str, closed: bool) -> None:
        """This node."""
        if closed:
            self._cordoned.append(node)
        else:
            self._cordoned.remove(node)
        fresh = Node(metadata=meta_pb2.ObjectMeta(name=node))
        fresh.spec.CopyFrom(node_pb2.NodeSpec(unschedulable=closed))
        await self._stage.patch(fresh, "spec.unschedulable", may_be=[Reason.NOT_FOUND])

    async def lose(self, node: str) -> None:
        """Somebody who knows that a node is gone for good says so."""
        target = pb.Ref(kind=worlds.NODE, name=node)
        asked = pb.Transaction(operations=[pb.Operation(ref=target, delete=pb.Delete())])
        error = await self._stage.user.do(asked)
        self._stage.expect(error, f"delete node {node}", Reason.NOT_FOUND)

    # What became of it.

    def unsettled(self) -> Iterator[str]:
        """What is not yet as it was asked for."""
        wanted = {_API_SERVICE}
        for part in self._all:
            yield from part.unsettled()
            wanted |= {Key(part.kind, *where) for where in part.wanted()}
        kinds = {part.kind for part in self._all}
        world = self._stage.world
        there = {worlds.metadata(obj).uid for obj in world.objects.values()}
        for key in sorted(world.objects):
            owner = worlds.manager(world.objects[key])
            if owner and owner not in there:
                yield f"{key} is still there, its owner is not"
            elif (not owner and key.kind in kinds and key not in wanted) or (
                key.kind == worlds.NAMESPACE and key.name in self._gone
            ):
                yield f"{key} is still there"
