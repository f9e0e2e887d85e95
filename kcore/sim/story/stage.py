"""The stage on which the parts of a story play: one user, one world, shared namespaces.

Every part (`Part`) makes objects of one kind, changes them, and says in the end what is not as it
wanted. `Stage` has what they share. A part must not know the others.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from google.protobuf.message import Message
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import container_pb2, pod_spec_pb2
from kcore_api.kcore.meta.v1 import meta_pb2

from kcore.chance import Chance
from kcore.reconcile import transaction
from kcore.sim import world as worlds
from kcore.sim.user import User
from kcore.sim.world import Pod, World
from kcore.wire.errors import ApiError, Reason

T = TypeVar("T")
M = TypeVar("M", bound=Message)

# Namespace and name.
Where = tuple[str, str]

Template = pod_spec_pb2.PodTemplateSpec

MISSING_IMAGE = "missing:1"


class Part(Protocol):
    """What a story does with one kind."""

    # Full name of the kind.
    kind: str

    def wanted(self) -> list[Where]:
        """What is to be there."""
        ...

    async def begin(self) -> None:
        """Makes another one, if there are not too many."""
        ...

    async def change(self, where: Where) -> None:
        """Does something to one."""
        ...

    def forget(self, where: Where) -> None:
        """It is to go, by the user's own act."""
        ...

    async def repair(self) -> None:
        """In the end: nothing stays that can't come to rest."""
        ...

    def unsettled(self) -> Iterator[str]:
        """What is not yet as it was asked for."""
        ...


@dataclass(slots=True)
class Stage:
    """What the parts share."""

    user: User
    world: World
    chance: Chance
    namespaces: list[str] = field(default_factory=lambda: ["default"])
    complaints: list[str] = field(default_factory=list)
    _count: int = 0

    def number(self) -> int:
        """One that was not used before."""
        self._count += 1
        return self._count

    def place(self, name: str) -> Where:
        """Somewhere for a new object; the name gets a number."""
        return (self.pick(self.namespaces), f"{name}-{self.number()}")

    def pick(self, among: list[T]) -> T:
        """One of them."""
        return among[self.chance.integer(0, len(among) - 1)]

    def strikes(self, probability: float) -> bool:
        """Whether it happens."""
        return self.chance.uniform(0, 1) < probability

    async def create(self, obj: Message) -> None:
        """Makes it."""
        self.expect(await self.user.do(transaction.create(obj)), f"create {_named(obj)}")

    async def patch(self, fresh: Message, *paths: str, may_be: Sequence[Reason] = ()) -> None:
        """Makes these fields be as they are in `fresh`."""
        operation = pb.Operation(ref=transaction.ref(fresh))
        operation.patch.merge.object = fresh.SerializeToString(deterministic=True)
        operation.patch.merge.mask.paths.extend(paths)
        error = await self.user.do(pb.Transaction(operations=[operation]))
        self.expect(error, f"patch {', '.join(paths)} of {_named(fresh)}", *may_be)

    async def delete(self, kind: str, where: Where) -> None:
        """It goes, with all that is its, in either order."""
        how = self.pick([pb.PROPAGATION_BACKGROUND, pb.PROPAGATION_FOREGROUND])
        await self.remove(kind, where, pb.Delete(propagation=how))

    async def remove(self, kind: str, where: Where, how: pb.Delete) -> None:
        """It goes, in this way."""
        target = pb.Ref(kind=kind, namespace=where[0], name=where[1])
        asked = pb.Transaction(operations=[pb.Operation(ref=target, delete=how)])
        self.expect(await self.user.do(asked), f"delete {kind} {where}")

    def expect(self, error: ApiError | None, what: str, *may_be: Reason) -> None:
        """Nothing that this user does is refused, but for reasons that may be."""
        if error is not None and error.reason not in may_be:
            self.complaints.append(f"user: {what}: {error.reason.name}: {error}")


def shell(kind: type[M], where: Where) -> M:
    """An object that has nothing but its name."""
    made = kind()
    worlds.metadata(made).CopyFrom(meta_pb2.ObjectMeta(namespace=where[0], name=where[1]))
    return made


def template(into: Template, app: str, image: str, millicpus: int = 10) -> container_pb2.Container:
    """Fills in a small pod; its container."""
    into.metadata.labels["app"] = app
    into.spec.termination_grace_period_seconds = 5
    container = into.spec.containers.add(name="main", image=image)
    container.resources.requests["cpu"].string = f"{millicpus}m"
    container.resources.requests["memory"].string = "16Mi"
    return container


def image(pod: Pod) -> str:
    """Of what its container is."""
    return pod.spec.containers[0].image


def _named(obj: Message) -> str:
    meta = worlds.metadata(obj)
    return f"{obj.DESCRIPTOR.name} {meta.namespace}/{meta.name}"


def apps(stage: Stage) -> list[Where]:
    """Namespace and label of what runs."""
    found = {(pod.metadata.namespace, pod.metadata.labels["app"]) for pod in stage.world.pods()}
    return sorted(each for each in found if each[0] in stage.namespaces)
