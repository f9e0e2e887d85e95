"""One node's pods on a runtime made of data, with the real kernel, in virtual time.

    house.run(tmp_path, story)            # story: async def (house: House) -> None

The kubelet of a house can be stopped and started again while the runtime goes on; it can be made to
die, or to lose an answer, at its n-th step. Images and sandboxes come quickly unless a test says
otherwise.
"""

import asyncio
import pathlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import event_pb2, pod_pb2

from kcore.chance import Chance
from kcore.clock import LoopClock
from kcore.kubelet import (
    config_objects,
    cri,
    launch,
    observed,
    pods,
    reporter,
    services,
    status,
)
from kcore.kubelet.resolver import Resolver
from kcore.reconcile import owner, recorder, transaction
from kcore.sim import loop
from kcore.sim.runtime import Runtime, Speed
from kcore.tasks import Tasks
from kcore.wire.errors import ApiError, Reason
from tests.kubelet.world import World, world

Pod = pod_pb2.Pod
QUICK = Speed((0.01, 0.02), (0.01, 0.02), (0.1, 0.2), (0.001, 0.002))


class Wall(LoopClock):
    """The clock on the wall can be set."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead = 0.0

    def now(self) -> float:
        return super().now() + self.ahead


@dataclass
class Trouble:
    """What happens at the n-th step of a kubelet: a step is a call to the runtime or the API."""

    steps: int = 0
    # How late what it watches comes.
    lag_seconds: float = 0.0
    # The step before or after which it dies, or whose answer it does not get.
    dies_at: int = 0
    loses_at: int = 0
    die: Callable[[], None] = lambda: None

    async def meet(self, call: Callable[[], Awaitable[Any]], lost: Exception) -> Any:
        """Makes a call."""
        self.steps += 1
        number = self.steps
        await self._maybe_die()
        answer = await call()
        if number == self.loses_at:
            self.loses_at = 0
            raise lost
        self.steps += 1
        await self._maybe_die()
        return answer

    async def _maybe_die(self) -> None:
        if self.steps == self.dies_at:
            self.dies_at = 0
            self.die()
            # Whatever it was about to do, it does not.
            await asyncio.Event().wait()


class Door:
    """A runtime or an API with trouble on the way."""

    def __init__(self, behind: Any, trouble: Trouble) -> None:
        self._behind = behind
        self._trouble = trouble

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._behind, name)
        if name == "watch":
            return lambda request: self._late(real(request))
        if name == "events":
            return real
        lost: Exception = cri.CriError(cri.Code.UNAVAILABLE, "connection reset", name)
        if name in ("get", "list", "commit", "kinds"):
            lost = ApiError(Reason.UNAVAILABLE, "connection reset")

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self._trouble.meet(lambda: real(*args, **kwargs), lost)

        return call

    async def _late(self, responses: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """All of them, in order, each so much later than the one before."""
        async for response in responses:
            await asyncio.sleep(self._trouble.lag_seconds)
            yield response


@dataclass
class House:
    """A node."""

    world: World
    root: pathlib.Path
    # The one made of data, unless a test brings a real one.
    runtime: Any
    clock: Any
    trouble: Trouble = field(default_factory=Trouble)
    static: dict[str, Pod] | None = field(default_factory=dict)
    api: Any = None
    kubelet: pods.Pods | None = None
    _life: asyncio.Task[None] | None = None
    _lives: int = 0

    def start(self) -> None:
        """A kubelet begins."""
        assert self._life is None
        self._life = self.world.tasks.start(self._live(), "kubelet")

    async def stop(self) -> None:
        """It ends, wherever it is."""
        if self._life is not None:
            self._life.cancel()
            await asyncio.wait([self._life])
            self._life = None

    async def restart(self) -> None:
        """Another one takes its place."""
        await self.stop()
        self.start()

    async def _live(self) -> None:
        life = asyncio.current_task()
        assert life is not None
        self.trouble.die = life.cancel
        api = Door(self.api or self.world.api, self.trouble)
        runtime = Door(self.runtime, self.trouble)
        async with Tasks() as tasks:
            self._lives += 1
            chance = Chance(f"life {self._lives}")
            teller = recorder.Recorder(api, "kubelet", self.clock, chance.fork("events"), "n1")
            words = reporter.Reporter(api, self.clock, chance.fork("statuses"))
            self.kubelet = pods.Pods(
                launch.Node(
                    name="n1",
                    runtime=cast(cri.Runtime, runtime),
                    reader=observed.Reader(cast(cri.Runtime, runtime)),
                    clock=self.clock,
                    tasks=tasks,
                    root=self.root / "state",
                    logs=self.root / "logs",
                    around=status.Surroundings(("192.0.2.1",), "sim"),
                    capacity_bytes=8 << 30,
                    dns=Resolver(),
                    allocatable={"cpu": "2", "memory": "8Gi"},
                    starts=asyncio.Semaphore(8),
                    named=lambda pod: config_objects.fetch(api, pod),
                    services=services.Services(api),
                    event=lambda pod, *said: teller.tell(owner.about(pod), *said),
                    report=words.put,
                    finished=words.finish,
                )
            )
            if self.static is not None:
                self.kubelet.set_static(self.static)
            for part in (
                self.kubelet.run_bound(api),
                self.kubelet.run_relist(),
                self.kubelet.run_workers(),
                teller.run(),
                words.run(),
            ):
                tasks.start(part)

    # What people do.

    async def create(self, pod: Pod) -> Pod:
        """It is bound to this node; answers what the API has."""
        made = Pod()
        made.CopyFrom(pod)
        made.spec.node_name = "n1"
        made.metadata.ClearField("uid")
        made.ClearField("status")
        await self.world.do(transaction.create(made))
        found = await self.pod(pod.metadata.name)
        assert found is not None
        return found

    async def delete(self, name: str = "web", grace_seconds: int | None = None) -> None:
        """As by `delete pod`."""
        found = await self.pod(name)
        if found is not None:
            await self.world.do(transaction.delete(found, grace_seconds=grace_seconds))

    async def pod(self, name: str = "web") -> Pod | None:
        """What the API has of it."""
        return await self.world.get(Pod, name, "default")

    async def phase(self, name: str = "web") -> str:
        """Its phase; "" if it is gone."""
        found = await self.pod(name)
        return str(found.status.phase) if found is not None else ""

    async def until(self, true: Callable[[Pod | None], Any], seconds: float = 60.0) -> Pod:
        """Waits until it holds of the pod "web"."""

        async def now() -> Any:
            found = await self.pod()
            return (found or Pod(),) if true(found) else None

        found: Pod = (await self.world.until(now, seconds))[0]
        return found

    async def last_seen(self, name: str = "web") -> Pod:
        """Waits until a pod is gone; how it was last."""
        kind = Pod.DESCRIPTOR.full_name
        request = pb.WatchRequest(selections=[pb.Selection(kind=kind)])
        async for response in self.world.admin.watch(request):
            for event in response.events:
                found = Pod.FromString(event.object)
                if event.type == pb.Event.DELETED and found.metadata.name == name:
                    return found
        raise AssertionError("the watch ended")

    async def events(self) -> list[tuple[str, str, int]]:
        """Reasons, messages and counts of what people were told."""
        await self.clock.sleep(1.0)
        kind = event_pb2.Event.DESCRIPTOR.full_name
        found = await self.world.admin.list(pb.ListRequest(selection=pb.Selection(kind=kind)))
        events = [event_pb2.Event.FromString(body) for body in found.items]
        return sorted((one.reason, one.message, one.count) for one in events)

    def running(self) -> list[str]:
        """Names of the containers that run."""
        return sorted(name for _, name in self.runtime.running_who())

    def is_clean(self) -> bool:
        """Whether nothing is left of any pod."""
        left = [*(self.root / "state").glob("pods/*"), *(self.root / "logs").glob("*")]
        return not (left or self.runtime.sandboxes or self.runtime.containers)


def is_ready(pod: Pod | None) -> bool:
    """Whether it says so."""
    return pod is not None and any(
        one.type == "Ready" and one.status == "True" for one in pod.status.conditions
    )


def is_gone(pod: Pod | None) -> bool:
    """Whether the API has it no more."""
    return pod is None


def run(
    root: pathlib.Path,
    story: Callable[[House], Awaitable[None]],
    *,
    speed: Speed = QUICK,
    begun: bool = True,
) -> None:
    """Lets the story happen in a house whose kubelet has begun."""

    async def main() -> None:
        async with world() as here:
            clock = Wall()
            runtime = Runtime(clock, Chance(5), speed=speed)
            house = House(here, root, runtime, clock)
            running = here.tasks.start(runtime.run(), "runtime")
            await asyncio.sleep(0)
            if begun:
                house.start()
            await story(house)
            await house.stop()
            running.cancel()

    loop.run(main())
