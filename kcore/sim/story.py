"""What the user of a simulated cluster does, and what must have become of it in the end.

`User` writes as a person with a shell does: again until it is answered. `Story` draws what to do
next from chance: deployments come, roll, fail, scale and go, pods and namespaces are deleted, nodes
are cordoned. `unsettled` says what is not yet as it was asked for.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.apps.v1 import deployment_pb2
from kcore_api.kcore.core.v1 import namespace_pb2, node_pb2
from kcore_api.kcore.meta.v1 import meta_pb2

from kcore.chance import Chance
from kcore.clock import Clock
from kcore.reconcile import transaction
from kcore.sim import world as worlds
from kcore.sim.world import Deployment, Node, Pod, ReplicaSet, World
from kcore.wire.api import Api
from kcore.wire.errors import ApiError, Reason

MISSING_IMAGE = "missing:1"
_MOST_PODS = 8
_AGAIN_SECONDS = 1.0


class User:
    """Somebody at a shell."""

    def __init__(self, api: Api, clock: Clock, chance: Chance) -> None:
        """`api`: with all its faults."""
        self._api = api
        self._clock = clock
        self._process = chance.token(12)
        self._requests = 0

    async def do(self, wanted: pb.Transaction) -> ApiError | None:
        """Commits until it is answered; the error, if that is the answer."""
        self._requests += 1
        wanted.request_id = f"user-{self._process}-{self._requests}"
        wanted.manager = "kcore"
        while True:
            try:
                await self._api.commit(pb.CommitRequest(transactions=[wanted]))
            except ApiError as error:
                if error.reason is not Reason.UNAVAILABLE:
                    return error
                await self._clock.sleep(_AGAIN_SECONDS)
            else:
                return None


@dataclass(slots=True)
class Wanted:
    """A deployment as the user wants it."""

    replicas: int
    image: str


class Story:
    """What is done, and what is wanted."""

    def __init__(self, user: User, world: World, clock: Clock, chance: Chance) -> None:
        """`world`: where the user sees what there is."""
        self.wanted: dict[tuple[str, str], Wanted] = {}
        self.complaints: list[str] = []
        self._user = user
        self._world = world
        self._clock = clock
        self._chance = chance
        self._namespaces = ["default"]
        self._gone: list[str] = []
        self._cordoned: list[str] = []
        self._count = 0

    async def tell(self, seconds: float) -> None:
        """Does one thing after the other for so long, then repairs what it broke on purpose."""
        ends = self._clock.monotonic() + seconds
        await self.deploy()
        while self._clock.monotonic() < ends:
            await self._clock.sleep(self._chance.uniform(0.2, 12.0))
            await self._something()
        for node in list(self._cordoned):
            await self.cordon(node, False)
        for name, wanted in sorted(self.wanted.items()):
            if wanted.image == MISSING_IMAGE:
                await self.roll(name, "web:last")

    async def _something(self) -> None:
        draw = self._chance.uniform(0, 1)
        names = sorted(self.wanted)
        if not names or (draw < 0.15 and self._pods() < _MOST_PODS):
            await self.deploy()
            return
        name = names[self._chance.integer(0, len(names) - 1)]
        if draw < 0.40:
            self._count += 1
            bad = self._chance.uniform(0, 1) < 0.15
            await self.roll(name, MISSING_IMAGE if bad else f"web:{self._count}")
        elif draw < 0.55:
            room = _MOST_PODS - self._pods() + self.wanted[name].replicas
            await self.scale(name, self._chance.integer(0, max(1, min(6, room))))
        elif draw < 0.67:
            await self.delete_a_pod()
        elif draw < 0.74:
            await self.delete(name)
        elif draw < 0.84:
            await self.add_namespace()
        elif draw < 0.92:
            await self.end_namespace()
        else:
            await self.cordon_some()

    # One thing each.

    async def deploy(
        self, name: str = "", replicas: int | None = None, image: str = "web:0"
    ) -> tuple[str, str]:
        """A new deployment."""
        self._count += 1
        namespace = self._namespaces[self._chance.integer(0, len(self._namespaces) - 1)]
        key = (namespace, name or f"web-{self._count}")
        count = self._chance.integer(1, 4) if replicas is None else replicas
        self.wanted[key] = Wanted(count, image)
        found = _deployment(key, count, image)
        self._expect(await self._user.do(transaction.create(found)), "create deployment", key)
        return key

    async def scale(self, key: tuple[str, str], replicas: int) -> None:
        """Another number of replicas."""
        self.wanted[key].replicas = replicas
        fresh = Deployment(spec=deployment_pb2.DeploymentSpec(replicas=replicas))
        await self._patch(key, fresh, "spec.replicas")

    async def roll(self, key: tuple[str, str], image: str) -> None:
        """Another template."""
        wanted = self.wanted[key]
        wanted.image = image
        fresh = _deployment(key, wanted.replicas, image)
        await self._patch(key, fresh, "spec.template")

    async def delete(self, key: tuple[str, str]) -> None:
        """It goes, with all that is its."""
        del self.wanted[key]
        how = (pb.PROPAGATION_BACKGROUND, pb.PROPAGATION_FOREGROUND)[self._chance.integer(0, 1)]
        asked = pb.Transaction(
            operations=[
                pb.Operation(ref=_ref(worlds.DEPLOYMENT, *key), delete=pb.Delete(propagation=how))
            ]
        )
        self._expect(await self._user.do(asked), "delete deployment", key)

    async def delete_a_pod(self) -> None:
        """Some pod that is there."""
        pods = [pod for pod in self._world.pods() if worlds.is_active(pod)]
        if pods:
            pod = pods[self._chance.integer(0, len(pods) - 1)]
            await self._user.do(transaction.delete(pod))

    async def add_namespace(self) -> None:
        """Another namespace."""
        self._count += 1
        name = f"space-{self._count}"
        found = namespace_pb2.Namespace(metadata=meta_pb2.ObjectMeta(name=name))
        self._expect(await self._user.do(transaction.create(found)), "create namespace", name)
        self._namespaces.append(name)

    async def end_namespace(self) -> None:
        """A namespace goes, with all that is in it."""
        if len(self._namespaces) == 1:
            return
        name = self._namespaces.pop()
        self._gone.append(name)
        self.wanted = {key: value for key, value in self.wanted.items() if key[0] != name}
        asked = pb.Transaction(
            operations=[pb.Operation(ref=_ref(worlds.NAMESPACE, "", name), delete=pb.Delete())]
        )
        self._expect(await self._user.do(asked), "delete namespace", name)

    async def cordon_some(self) -> None:
        """One node takes no more pods, or takes them again."""
        nodes = [key.name for key in sorted(self._world.objects) if key.kind == worlds.NODE]
        if nodes:
            node = nodes[self._chance.integer(0, len(nodes) - 1)]
            await self.cordon(node, node not in self._cordoned)

    async def cordon(self, node: str, closed: bool) -> None:
        """This node."""
        if closed:
            self._cordoned.append(node)
        else:
            self._cordoned.remove(node)
        fresh = Node(spec=node_pb2.NodeSpec(unschedulable=closed))
        operation = pb.Operation(ref=_ref(worlds.NODE, "", node))
        _merge(operation, fresh, "spec.unschedulable")
        self._expect(await self._user.do(pb.Transaction(operations=[operation])), "cordon", node)

    # What became of it.

    def unsettled(self) -> Iterator[str]:
        """What is not yet as it was asked for."""
        for (namespace, name), wanted in sorted(self.wanted.items()):
            yield from self._unsettled(namespace, name, wanted)
        there = {worlds.metadata(obj).uid for obj in self._world.objects.values()}
        for key in sorted(self._world.objects):
            obj = self._world.objects[key]
            if key.kind == worlds.DEPLOYMENT and key[1:] not in self.wanted:
                yield f"{key} is still there"
            elif isinstance(obj, Pod | ReplicaSet) and worlds.manager(obj) not in there:
                yield f"{key} is still there, its owner is not"
            elif key.kind == worlds.NAMESPACE and key.name in self._gone:
                yield f"{key} is still there"

    def _unsettled(self, namespace: str, name: str, wanted: Wanted) -> Iterator[str]:
        found = self._world.get(worlds.DEPLOYMENT, namespace, name)
        if not isinstance(found, Deployment):
            yield f"deployment {namespace}/{name} is not there"
            return
        sets = {
            worlds.metadata(each).uid
            for each in self._world.owned(found.metadata.uid, worlds.REPLICA_SET)
        }
        pods = [pod for pod in self._world.pods() if worlds.manager(pod) in sets]
        good = [
            pod
            for pod in pods
            if worlds.is_ready(pod)
            and worlds.is_active(pod)
            and pod.spec.containers[0].image == wanted.image
        ]
        if len(good) != wanted.replicas or len(pods) != wanted.replicas:
            yield (
                f"deployment {namespace}/{name}: {len(good)} good pods of {len(pods)}, "
                f"{wanted.replicas} wanted"
            )
        status = found.status
        if status.observed_generation != found.metadata.generation:
            yield f"deployment {namespace}/{name}: its status is old"
        if (status.replicas, status.ready_replicas) != (wanted.replicas, wanted.replicas):
            said = f"{status.ready_replicas}/{status.replicas} in its status"
            yield f"deployment {namespace}/{name}: {said}, {wanted.replicas} wanted"

    # Inside.

    def _pods(self) -> int:
        return sum(wanted.replicas for wanted in self.wanted.values())

    async def _patch(self, key: tuple[str, str], fresh: Deployment, path: str) -> None:
        operation = pb.Operation(ref=_ref(worlds.DEPLOYMENT, *key))
        _merge(operation, fresh, path)
        error = await self._user.do(pb.Transaction(operations=[operation]))
        self._expect(error, f"patch {path}", key)

    def _expect(self, error: ApiError | None, what: str, whom: object) -> None:
        """Nothing that this user does is refused."""
        if error is not None:
            self.complaints.append(f"user: {what} {whom}: {error.reason.name}: {error}")


def _ref(kind: str, namespace: str, name: str) -> pb.Ref:
    return pb.Ref(kind=kind, namespace=namespace, name=name)


def _merge(operation: pb.Operation, fresh: Deployment | Node, path: str) -> None:
    operation.patch.merge.object = fresh.SerializeToString(deterministic=True)
    operation.patch.merge.mask.paths.append(path)


def _deployment(key: tuple[str, str], replicas: int, image: str) -> Deployment:
    found = Deployment(metadata=meta_pb2.ObjectMeta(namespace=key[0], name=key[1]))
    spec = found.spec
    spec.replicas = replicas
    spec.selector.match_labels["app"] = key[1]
    spec.template.metadata.labels["app"] = key[1]
    pod = spec.template.spec
    pod.termination_grace_period_seconds = 5
    container = pod.containers.add(name="web", image=image)
    container.resources.requests["cpu"].string = "700m"
    container.resources.requests["memory"].string = "128Mi"
    return found
