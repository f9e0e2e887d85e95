"""The real rooms put together over virtual time: kernel, controllers, scheduler, kubelets.

`Cluster(setting).run()` lets a user's story happen in a storm, then calms the weather and waits
until all is as the user wants it. Whatever was wrong is in the `Report`. One seed decides
everything. Only here is it known which rooms there are.
"""

import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kcore_api.runtime.v1 import api_pb2 as cri_pb

from kcore.chance import Chance
from kcore.clock import LoopClock
from kcore.controllers import run as controllers
from kcore.kernel.record import Record
from kcore.kubelet import node as kubelet_node
from kcore.kubelet import run as kubelet
from kcore.kubelet.machine import Machine
from kcore.scheduler import run as scheduler
from kcore.sim import door, invariants, loop, story
from kcore.sim.apiserver import Apiserver
from kcore.sim.audit import Audit
from kcore.sim.component import Component, Work
from kcore.sim.faults import Faults, Weather, swarm
from kcore.sim.link import Link
from kcore.sim.runtime import Runtime, Speed
from kcore.sim.story import Story
from kcore.sim.story.stage import MISSING_IMAGE
from kcore.sim.transcript import Transcript
from kcore.sim.user import User
from kcore.sim.wall import Wall
from kcore.sim.world import World
from kcore.tasks import Tasks

# Virtual seconds in which a cluster must come to rest after the last fault.
SETTLE_SECONDS = 600.0
# And how long nothing may be written about workloads after that.
_REST_SECONDS = 30.0
_LOOK_SECONDS = 1.0
_MOST_OFFSET_SECONDS = 3600.0
# Where files cost nothing.
_MEMORY = Path("/dev/shm")
# What each node has.
CPUS = 3
MEMORY_BYTES = 8 << 30
# How containers crash: by themselves, for want of memory, by a fault in memory.
_CRASHES = ((0, ""), (1, ""), (2, ""), (137, "OOMKilled"), (139, ""))
_AWAY_SECONDS = (5.0, 60.0)
# Kinds that may be written while nothing happens.
_PULSE = ("Lease", "Event", "Node")


@dataclass(frozen=True, slots=True)
class Setting:
    """One simulation."""

    seed: int
    minutes: float = 3.0
    nodes: int = 3
    # None: a storm of the seed's own.
    faults: Faults | None = None
    # Kinds that the user makes; None: drawn by the seed.
    cast: Sequence[str] | None = None
    # Puts other works in the place of some, by name: for tests.
    recast: Callable[[dict[str, Work]], Mapping[str, Work]] = dict
    server: type[Apiserver] = Apiserver


@dataclass(frozen=True, slots=True)
class Report:
    """What came of it. Nothing is `broken` in a cluster that works."""

    seed: int
    broken: Sequence[str]
    digest: str
    transcript: Sequence[str]
    revisions: int
    seconds: float
    happened: Counter[str]
    faults: Faults
    cast: Sequence[str]


Plot = Callable[["Cluster"], Awaitable[None]]


class Cluster:
    """One cluster in one process."""

    def __init__(self, setting: Setting) -> None:
        """Nothing happens before `run`."""
        chance = Chance(setting.seed)
        self.setting = setting
        self.clock = LoopClock()
        self.transcript = Transcript()
        self.faults = swarm(chance.fork("swarm")) if setting.faults is None else setting.faults
        self.cast = story.cast(chance.fork("cast")) if setting.cast is None else setting.cast
        self.weather = Weather(self.faults, chance.fork("weather"), self._tell)
        # By machine: where each component gets its time.
        self.walls: dict[str, Wall] = {}
        self.server = setting.server(
            self._wrote, self.weather, self._wall("apiserver"), chance.fork("apiserver")
        )
        self.runtimes: dict[str, Runtime] = {}
        self.components: dict[str, Component] = {}
        self._invariants = invariants.Invariants(self._ended)
        self._audit = Audit(self.server.kinds)
        self._chance = chance
        self._broken: list[str] = []
        self._last_change = 0.0
        self._seconds = 0.0
        self._story: Story | None = None
        # Where kubelets keep files.
        self._root = Path()

    @property
    def world(self) -> World:
        """What is there, by the log."""
        return self._invariants.world

    @property
    def story(self) -> Story:
        """What the user does."""
        assert self._story is not None, "it begins with `run`"
        return self._story

    async def run(self, plot: Plot | None = None) -> Report:
        """Lets the story happen (or the plot in its place), and all come to rest."""
        memory = _MEMORY if _MEMORY.is_dir() else None
        with tempfile.TemporaryDirectory(prefix="kcore-sim-", dir=memory) as root:
            self._root = Path(root)
            return await self._run(plot)

    async def _run(self, plot: Plot | None) -> Report:
        async with Tasks() as tasks:
            tasks.start(self.server.run(), "apiserver")
            await self.server.ready()
            await self._begin(tasks)
            if plot is None:
                await self.story.tell(self.setting.minutes * 60)
            else:
                await plot(self)
            self.weather.calm()
            self._tell("calm")
            await self._settle()
            tasks.cancel()
        return self.report()

    async def until(self, what: Callable[[], bool], seconds: float = 60.0) -> None:
        """Waits until it holds; AssertionError if it does not come to hold."""
        ends = self.clock.monotonic() + seconds
        while not what():
            if self.clock.monotonic() > ends:
                raise AssertionError(f"not so after {seconds} s; the last lines:\n{self.tail()}")
            await self.clock.sleep(_LOOK_SECONDS / 10)

    def tail(self) -> str:
        """The last lines of the transcript."""
        return "\n".join(self.transcript.lines())

    # Beginning.

    async def _begin(self, tasks: Tasks) -> None:
        tasks.start(self._audit.run(self._link("auditor", tasks), self.clock), "audit")
        for name, work in self.setting.recast(self._works(tasks)).items():
            component = Component(
                name,
                work,
                self.server,
                self.weather,
                self.clock,
                self._chance.fork(name),
                tasks,
            )
            self.components[name] = component
            tasks.start(component.run(), f"process {name}")
        tasks.start(self._machines_fail(), "machines")
        user = User(self._link("user", tasks), self.clock, self._chance.fork("user"))
        self._story = Story(user, self.world, self.clock, self._chance.fork("story"), self.cast)
        await self.until(lambda: len(self._nodes()) == self.setting.nodes, SETTLE_SECONDS)

    def _works(self, tasks: Tasks) -> dict[str, Work]:
        works: dict[str, Work] = {
            "controllers": lambda api, chance: controllers.run(api, self._wall("head"), chance),
            "scheduler": lambda api, chance: scheduler.run(api, self._wall("head"), chance),
        }
        for number in range(1, self.setting.nodes + 1):
            node = f"n{number}"
            slowest = max(self.faults.pull_seconds, Speed().pull_seconds[1])
            runtime = Runtime(
                self._wall(node),
                self._chance.fork(f"runtime {node}"),
                subnet=f"10.244.{number}",
                speed=Speed(pull_seconds=(0.5, slowest)),
            )
            runtime.missing = frozenset([MISSING_IMAGE])
            self.runtimes[node] = runtime
            tasks.start(runtime.run(), f"runtime {node}")
            works[f"kubelet-{node}"] = self._kubelet(node, runtime)
        return works

    def _kubelet(self, node: str, runtime: Runtime) -> Work:
        reached = door.opened(runtime, node, self.weather)
        root = self._root / node
        (root / "logs").mkdir(parents=True)
        settings = kubelet.Settings(
            node=kubelet_node.Settings(node, root, [f"192.168.0.{len(self.runtimes)}"]),
            logs=root / "logs",
            dns=cri_pb.DNSConfig(servers=["10.96.0.10"]),
            look=lambda _: Machine(cpus=CPUS, memory=MEMORY_BYTES, memory_available=MEMORY_BYTES),
        )
        wall = self._wall(node)
        return lambda api, chance: kubelet.run(api, None, reached, settings, wall, chance)

    def _wall(self, machine: str) -> Wall:
        return self.walls.setdefault(machine, Wall(self.clock))

    def _link(self, who: str, tasks: Tasks) -> Link:
        """The way of somebody who never dies."""
        return Link(self.server, who, self.weather, self.clock, tasks)

    # Machines.

    async def _machines_fail(self) -> None:
        """Containers crash, nodes are rebooted or vanish, clocks are set."""
        async with Tasks() as tasks:
            tasks.start(self._clocks_jump(), "clocks")
            tasks.start(self._containers_crash(), "crashes")
            tasks.start(self._nodes_reboot(), "reboots")
            tasks.start(self._nodes_vanish(), "vanishing")

    async def _containers_crash(self) -> None:
        chance = self._chance.fork("crashes")
        while mean := self.weather.faults.container_death_seconds:
            await self.clock.sleep(chance.uniform(0, 2 * mean))
            running = [
                (node, id_)
                for node, runtime in sorted(self.runtimes.items())
                for id_ in runtime.running()
            ]
            if running and self.weather.faults.container_death_seconds:
                node, id_ = running[chance.integer(0, len(running) - 1)]
                self.weather.note("container crash", f"{id_[:13]} on {node}")
                code, reason = _CRASHES[chance.integer(0, len(_CRASHES) - 1)]
                self.runtimes[node].crash(id_, code, reason)

    async def _nodes_reboot(self) -> None:
        chance = self._chance.fork("reboots")
        while mean := self.weather.faults.reboot_seconds:
            await self.clock.sleep(chance.uniform(0, 2 * mean))
            if self.weather.faults.reboot_seconds:
                node = f"n{chance.integer(1, self.setting.nodes)}"
                self.weather.note("reboot", node)
                self.runtimes[node].reboot()
                self.components[f"kubelet-{node}"].die()

    async def _nodes_vanish(self) -> None:
        """Machines are off for a while; of some it is said that they are gone for good."""
        chance = self._chance.fork("vanishing")
        while mean := self.weather.faults.vanish_seconds:
            await self.clock.sleep(chance.uniform(0, 2 * mean))
            if not self.weather.faults.vanish_seconds:
                return
            node = f"n{chance.integer(1, self.setting.nodes)}"
            self.weather.note("vanished", node)
            self.components[f"kubelet-{node}"].halt()
            self.runtimes[node].reboot()
            await self.clock.sleep(chance.uniform(*_AWAY_SECONDS))
            if chance.uniform(0, 1) < 0.5:
                self._tell(f"given up: {node}")
                await self.story.lose(node)
                await self.clock.sleep(chance.uniform(*_AWAY_SECONDS))
            self._tell(f"back: {node}")
            self.components[f"kubelet-{node}"].go_on()

    async def _clocks_jump(self) -> None:
        chance = self._chance.fork("clocks")
        while mean := self.weather.faults.jump_seconds:
            await self.clock.sleep(chance.uniform(0, 2 * mean))
            if self.weather.faults.jump_seconds:
                machines = sorted(self.walls)
                machine = machines[chance.integer(0, len(machines) - 1)]
                offset = chance.uniform(-_MOST_OFFSET_SECONDS, _MOST_OFFSET_SECONDS)
                self.weather.note("clock jump", f"{machine} by {offset:.0f} s")
                self.walls[machine].offset_seconds = offset
                self.world.jumps += machine == "head"
        for wall in self.walls.values():
            wall.offset_seconds = 0.0
        self.world.jumps += 1

    # Ending.

    async def _settle(self) -> None:
        """All must come to be as the user wants it, and then nothing may happen any more."""
        ends = self.clock.monotonic() + SETTLE_SECONDS
        # What is broken already need not come to rest, too.
        while not self._wrong():
            await self.clock.sleep(_LOOK_SECONDS)
            open_ = [*self.story.unsettled(), *self._left_over()]
            now = self.clock.monotonic()
            if not open_ and now - self._last_change >= _REST_SECONDS:
                return
            if now > ends:
                since = now - self._last_change
                restless = (
                    [f"no rest: something was written {since:.0f} s ago"] if not open_ else []
                )
                self._broken += [f"not settled: {what}" for what in open_ + restless]
                return

    def _left_over(self) -> list[str]:
        """What runtimes have that no object asks for."""
        bound = {(pod.metadata.uid, pod.spec.node_name) for pod in self.world.pods()}
        return [
            f"sandbox of {sandbox.config.metadata.name} is left on {node}"
            for node, runtime in sorted(self.runtimes.items())
            for sandbox in runtime.sandboxes.values()
            if (sandbox.config.metadata.uid, node) not in bound
        ]

    def report(self, *more: str) -> Report:
        """What has come of it so far; `more` is broken besides."""
        return Report(
            seed=self.setting.seed,
            broken=[*more, *self._wrong()],
            digest=self.transcript.digest(),
            transcript=tuple(self.transcript.lines()),
            revisions=self.world.revision,
            seconds=self._seconds,
            happened=self.weather.happened,
            faults=self.faults,
            cast=self.cast,
        )

    # Seeing.

    def _wrong(self) -> list[str]:
        wrong = list(self._invariants.broken)
        wrong += [f"watch: {what}" for what in self._audit.broken]
        for component in self.components.values():
            wrong += component.failures
        wrong += self.server.failures
        wrong += [] if self._story is None else self._story.complaints
        return wrong + self._broken

    def _wrote(self, records: Sequence[Record]) -> None:
        """Something reached the disk."""
        seconds = self._seconds = self.clock.monotonic()
        for record in records:
            self.transcript.record(record, seconds)
            if record.key.kind.rpartition(".")[2] not in _PULSE:
                self._last_change = seconds
        self._invariants.check(records, seconds)
        self._audit.observe(records)
        twice = invariants.doubles(
            who for _, runtime in sorted(self.runtimes.items()) for who in runtime.running_who()
        )
        twice += invariants.twins(
            who for _, runtime in sorted(self.runtimes.items()) for who in runtime.running_pods()
        )
        self._broken += [f"revision {records[-1].revision}: {what}" for what in twice]

    def _ended(self, uid: str) -> int | None:
        """With which code the last container of a pod ended."""
        for runtime in self.runtimes.values():
            if uid in runtime.ends:
                return runtime.ends[uid]
        return None

    def _tell(self, what: str) -> None:
        self.transcript.fault(self.clock.monotonic(), what)

    def _nodes(self) -> list[str]:
        return [key.name for key in self.world.objects if key.kind == "kcore.core.v1.Node"]


def simulate(setting: Setting, plot: Plot | None = None) -> Report:
    """One simulation from beginning to end."""
    cluster = Cluster(setting)
    try:
        return loop.run(cluster.run(plot))
    except (loop.TimeStandsStill, loop.NothingWillHappen) as error:
        return cluster.report(str(error))
