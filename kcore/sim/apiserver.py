"""The simulated cluster's apiserver: the real kernel on a disk that fails; it dies and returns.

A death takes the kernel and all its watches, as it stands; the next life opens the same store.
Callers have the identities and permissions of real components.
"""

import asyncio
import functools
import traceback
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore import admission
from kcore.apiserver import identity
from kcore.apiserver.session import Session
from kcore.chance import Chance
from kcore.client import kinds
from kcore.clock import Clock
from kcore.controllers import cluster, namespace
from kcore.kernel import kernel as kernels
from kcore.kernel import schema
from kcore.kernel.record import Record
from kcore.kernel.store.memory import MemoryStore
from kcore.sim.disk import Disk
from kcore.sim.faults import Weather
from kcore.tasks import Tasks
from kcore.wire.api import Api
from kcore.wire.errors import ApiError, Reason

Answer = TypeVar("Answer")

_DOWN_SECONDS = (0.2, 4.0)
_LONG_SECONDS = 3600.0

USERS = {
    "controllers": identity.User("system:kube-controller-manager", (identity.AUTHENTICATED,)),
    "scheduler": identity.User("system:kube-scheduler", (identity.AUTHENTICATED,)),
}


class Apiserver:
    """One apiserver, life after life."""

    def __init__(
        self,
        witness: Callable[[Sequence[Record]], None],
        weather: Weather,
        clock: Clock,
        chance: Chance,
    ) -> None:
        """`witness` sees every record that reaches the disk."""
        self.failures: list[str] = []
        self.lives = 0
        self._weather = weather
        self._clock = clock
        self._chance = chance
        store = MemoryStore(chance.fork("store"))
        self._disk = Disk(store, witness, weather, clock, chance.fork("disk"))
        self._kernel: kernels.Kernel | None = None
        # Work for callers, which dies with this life.
        self._calls: Tasks | None = None
        self._up = asyncio.Event()

    @property
    def kinds(self) -> Sequence[str]:
        """Full names of the kinds that it serves."""
        return sorted(_schema().kinds)

    async def run(self) -> None:
        """Lives again and again."""
        async with Tasks() as tasks:
            while True:
                self.lives += 1
                life = tasks.start(self._live(), f"kernel {self.lives}")
                fate = tasks.start(self._fate(), "fate of the kernel")
                await asyncio.wait([life, fate], return_when=asyncio.FIRST_COMPLETED)
                self._kernel = self._calls = None
                self._up.clear()
                life.cancel()
                fate.cancel()
                await asyncio.wait([life, fate])
                await self._clock.sleep(self._chance.uniform(*_DOWN_SECONDS))

    async def ready(self) -> None:
        """Waits until it serves, and has what every cluster is set up with."""
        for wanted in (*namespace.first(), *cluster.first(cluster.Cluster("10.244.0.0/16"))):
            request = pb.CommitRequest(transactions=[wanted])
            while True:
                await self._up.wait()
                assert self._kernel is not None
                try:
                    await self._kernel.commit(request, identity.ADMIN.name)
                    break
                except ApiError as error:
                    if error.reason is Reason.ALREADY_EXISTS:
                        break
                    await self._clock.sleep(_DOWN_SECONDS[0])

    async def serve(self, who: str, do: Callable[[Api], Awaitable[Answer]]) -> Answer:
        """Does it in the name of this caller. UNAVAILABLE when down, or if it dies meanwhile."""
        calls = self._calls
        if calls is None:
            raise _down()

        async def call() -> tuple[Answer | None, ApiError | None]:
            try:
                return await do(self.session(who)), None
            except ApiError as error:
                return None, error

        task = calls.start(call(), f"call of {who}")
        await asyncio.wait([task])
        if task.cancelled():
            raise _down()
        answer: Answer | None
        answer, error = task.result()
        if error is not None:
            raise error
        assert answer is not None
        return answer

    def session(self, who: str) -> Api:
        """An Api for this caller, as long as this life lasts."""
        if self._kernel is None:
            raise _down()
        return Session(self._kernel, _user(who))

    async def _live(self) -> None:
        try:
            async with self.opened() as kernel, Tasks() as calls:
                self._kernel, self._calls = kernel, calls
                self._up.set()
                await asyncio.Event().wait()
        except Exception as error:
            trace = "".join(traceback.format_exception(error))
            self.failures.append(f"the kernel ended by itself: {error!r}\n{trace}")
            self._weather.note("ended by itself", "kernel")

    def opened(self) -> AbstractAsyncContextManager[kernels.Kernel]:
        """A kernel on the disk."""
        chance = self._chance.fork(f"life {self.lives}")
        return kernels.opened(
            self._disk,
            _schema(),
            admission.BY_KIND,
            self._clock,
            chance,
            leaving=admission.ON_DELETE,
        )

    async def _fate(self) -> None:
        while True:
            mean = self._weather.faults.kernel_death_seconds
            await self._clock.sleep(self._weather.until(mean) if mean else _LONG_SECONDS)
            if self._weather.faults.kernel_death_seconds:
                self._weather.note("kernel death", "kernel")
                return


@functools.cache
def _schema() -> schema.Schema:
    """It never changes, and takes a while to compile."""
    return schema.compile_schema(kinds.built_in_bytes(), proven=True)


def _user(who: str) -> identity.User:
    if who.startswith("kubelet-"):
        name = identity.NODE_PREFIX + who.removeprefix("kubelet-")
        return identity.User(name, (identity.NODES, identity.AUTHENTICATED))
    return USERS.get(who, identity.ADMIN)


def _down() -> ApiError:
    return ApiError(Reason.UNAVAILABLE, "connection refused")
