"""A component's process: it dies, and is started again.

Each life has its own link and its own stream of chance. A death takes effect at whatever the
component is waiting for; what it has sent goes on. A component that ends by itself has a fault of
its own, and is noted in `failures`.
"""

import asyncio
import traceback
from collections.abc import Callable, Coroutine
from typing import Any

from kcore.chance import Chance
from kcore.clock import Clock
from kcore.sim.faults import Weather
from kcore.sim.link import Link, Server
from kcore.tasks import Tasks
from kcore.wire.api import Api

# From an Api and chance to the component's work.
Work = Callable[[Api, Chance], Coroutine[Any, Any, None]]

_DOWN_SECONDS = (0.1, 5.0)
_APART_SECONDS = (1.0, 30.0)


class Component:
    """One component."""

    def __init__(
        self,
        name: str,
        work: Work,
        server: Server,
        weather: Weather,
        clock: Clock,
        chance: Chance,
        tasks: Tasks,
    ) -> None:
        """`tasks` holds it, and what it has sent."""
        self.name = name
        self.lives = 0
        self.failures: list[str] = []
        self._work = work
        self._server = server
        self._weather = weather
        self._clock = clock
        self._chance = chance
        self._tasks = tasks
        self._life: asyncio.Task[None] | None = None
        self._link: Link | None = None
        # Not while its machine is off.
        self._on = asyncio.Event()
        self._on.set()

    def halt(self) -> None:
        """Ends this life; the next begins with `go_on`."""
        self._on.clear()
        self.die()

    def go_on(self) -> None:
        """Its machine is on again."""
        self._on.set()

    async def run(self) -> None:
        """Lives again and again."""
        self._tasks.start(self._die_now_and_then(), f"fate of {self.name}")
        self._tasks.start(self._be_apart_now_and_then(), f"network of {self.name}")
        while True:
            await self._on.wait()
            self.lives += 1
            self._link = Link(
                self._server, self.name, self._weather, self._clock, self._tasks, self.die
            )
            work = self._work(self._link, self._chance.fork(f"life {self.lives}"))
            self._life = self._tasks.start(self._live(work), f"{self.name} {self.lives}")
            await asyncio.wait([self._life])
            self._link.cut()
            await self._clock.sleep(self._chance.uniform(*_DOWN_SECONDS))

    def die(self) -> None:
        """Ends this life, wherever it is."""
        if self._life is not None and self._link is not None:
            self._link.cut()
            self._life.cancel()

    async def _live(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            if self._link is not None and not self._link.is_cut:
                trace = "".join(traceback.format_exception(error))
                self.failures.append(f"{self.name} ended by itself: {error!r}\n{trace}")
                self._weather.note("ended by itself", self.name)

    async def _die_now_and_then(self) -> None:
        while mean := self._weather.faults.death_seconds:
            await self._clock.sleep(self._weather.until(mean))
            if self._weather.faults.death_seconds:
                self._weather.note("death", self.name)
                self.die()

    async def _be_apart_now_and_then(self) -> None:
        while mean := self._weather.faults.partition_seconds:
            await self._clock.sleep(self._weather.until(mean))
            if self._weather.faults.partition_seconds:
                self._weather.note("partition", self.name)
                ends = self._clock.monotonic() + self._chance.uniform(*_APART_SECONDS)
                self._weather.apart[self.name] = ends
