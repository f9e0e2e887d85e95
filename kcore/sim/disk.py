"""The disk under the kernel: a store in memory that takes time, shows what it is given, and fails.

A `Disk` is a Store around another one. Every record that reaches it is shown to `witness` when it
lies there, whatever becomes of the answer: that is the log that invariants are checked on. A failed
append leaves its outcome unknown, as a failed disk sync does.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence

from kcore.chance import Chance
from kcore.clock import Clock
from kcore.kernel.record import Key, Record, Request
from kcore.kernel.store import Opened, Store, Tail
from kcore.sim.faults import Weather


class Disk:
    """A disk."""

    def __init__(
        self,
        store: Store,
        witness: Callable[[Sequence[Record]], None],
        weather: Weather,
        clock: Clock,
        chance: Chance,
    ) -> None:
        """`store` keeps what is written."""
        self._store = store
        self._witness = witness
        self._weather = weather
        self._clock = clock
        self._chance = chance

    @property
    def tail(self) -> Tail | None:
        """What others append."""
        return self._store.tail

    async def append(self, records: Sequence[Record], keep: Mapping[Key, int]) -> None:
        """Writes; sometimes it fails, before or after it has."""
        await self._clock.sleep(self._chance.uniform(0.0005, 0.003))
        failure = self._weather.faults.disk_fails
        if self._weather.strikes(failure / 2, "disk failed before writing", "disk"):
            raise OSError("input/output error")
        # Killed here, the kernel leaves all or nothing.
        await self._store.append(records, keep)
        self._witness(records)
        if self._weather.strikes(failure / 2, "disk failed after writing", "disk"):
            raise OSError("input/output error")

    async def open(self) -> Opened:
        """Makes it ready."""
        return await self._store.open()

    def replay(self) -> AsyncIterator[Record]:
        """The whole log."""
        return self._store.replay()

    async def requests(self) -> Sequence[Request]:
        """Those of records that are gone, but young."""
        return await self._store.requests()

    async def at(self, key: Key, revision: int) -> Record | None:
        """The last record of an object up to `revision`."""
        return await self._store.at(key, revision)

    def state_at(self, revision: int, kind: str, namespace: str) -> AsyncIterator[Record]:
        """The last records of the objects that were there at `revision`."""
        return self._store.state_at(revision, kind, namespace)

    def since(self, revision: int) -> AsyncGenerator[Record, None]:
        """All records after `revision`."""
        return self._store.since(revision)

    async def transaction(self, revision: int) -> Sequence[Record]:
        """The records of one revision."""
        return await self._store.transaction(revision)

    async def revision_at(self, time: float) -> int:
        """The last revision not after `time`."""
        return await self._store.revision_at(time)

    async def compact(self, revision: int) -> None:
        """Forgets."""
        await self._store.compact(revision)

    async def close(self) -> None:
        """Keeps all, for the next who opens it."""
