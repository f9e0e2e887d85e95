"""The log in memory, for simulations and tests: nothing outlives the value.

A kernel may be closed and another opened on the same `MemoryStore`: that is a restart.
"""

import bisect
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence

from kcore.chance import Chance
from kcore.kernel.record import Key, Record, Request, Verb
from kcore.kernel.store import REMEMBERED_SECONDS, Opened, Tail


class MemoryStore:
    """A log in memory."""

    def __init__(self, chance: Chance) -> None:
        """`chance` draws the cluster's identity."""
        self._cluster_id = chance.uid()
        self._epoch = 1
        self._log: list[Record] = []
        self._by_key: dict[Key, list[Record]] = {}
        self._head = 0
        self._time = 0.0
        self._compacted = 0
        # By revision: of records that are gone.
        self._requests: dict[int, Request] = {}

    @property
    def tail(self) -> Tail | None:
        """Nobody else can reach it."""
        return None

    async def open(self) -> Opened:
        """Is always ready."""
        return Opened(self._cluster_id, self._epoch, self._head, self._time, self._compacted)

    async def replay(self) -> AsyncIterator[Record]:
        """The whole log."""
        for record in list(self._log):
            yield record

    async def requests(self) -> Sequence[Request]:
        """Those of records that are gone, but young."""
        since = self._time - REMEMBERED_SECONDS
        self._requests = {
            revision: one for revision, one in self._requests.items() if one.time >= since
        }
        return sorted(self._requests.values(), key=lambda one: one.revision)

    async def append(self, records: Sequence[Record], keep: Mapping[Key, int]) -> None:
        """Appends in order."""
        for record in records:
            self._log.append(record)
            self._by_key.setdefault(record.key, []).append(record)
        if records:
            self._head = records[-1].revision
            self._time = records[-1].time
        for key, count in keep.items():
            if key in self._by_key:
                self._drop(self._by_key[key][: -(count + 1)])

    async def at(self, key: Key, revision: int) -> Record | None:
        """The last record of an object up to `revision`."""
        history = self._by_key.get(key, [])
        index = bisect.bisect_right(history, revision, key=lambda record: record.revision)
        found = history[index - 1] if index else None
        return found if found is not None and found.verb is not Verb.DELETE else None

    async def state_at(self, revision: int, kind: str, namespace: str) -> AsyncIterator[Record]:
        """The last records of the objects that were there at `revision`."""
        for key in sorted(self._by_key):
            if key.kind == kind and namespace in ("", key.namespace):
                found = await self.at(key, revision)
                if found is not None:
                    yield found

    async def since(self, revision: int) -> AsyncGenerator[Record, None]:
        """All records after `revision`."""
        start = bisect.bisect_right(self._log, revision, key=lambda record: record.revision)
        for record in self._log[start:]:
            yield record

    async def transaction(self, revision: int) -> Sequence[Record]:
        """The records of one revision."""
        start = bisect.bisect_left(self._log, revision, key=lambda record: record.revision)
        stop = bisect.bisect_right(self._log, revision, key=lambda record: record.revision)
        return self._log[start:stop]

    async def revision_at(self, time: float) -> int:
        """The last revision not after `time`."""
        index = bisect.bisect_right(self._log, time, key=lambda record: record.time)
        return self._log[index - 1].revision if index else 0

    async def compact(self, revision: int) -> None:
        """Forgets superseded records up to `revision`, and the deleted."""
        self._compacted = max(self._compacted, min(revision, self._head))
        gone: list[Record] = []
        for history in self._by_key.values():
            index = bisect.bisect_right(history, revision, key=lambda record: record.revision)
            if index:
                last = history[index - 1]
                gone += history[: index if last.verb is Verb.DELETE else index - 1]
        self._drop(gone)

    async def adopt(self, opened: Opened, *, whole: bool) -> None:
        """Takes over a log's identity, and at last its end."""
        self._cluster_id, self._epoch = opened.cluster_id, opened.epoch
        if whole:
            self._head, self._time = opened.head, opened.time
            self._compacted = opened.compacted

    async def close(self) -> None:
        """Keeps all, for the next who opens it."""

    def _drop(self, records: Sequence[Record]) -> None:
        if not records:
            return
        for record in records:
            if record.request_id:
                self._requests[record.revision] = Request(
                    record.actor, record.request_id, record.revision, record.time
                )
            history = self._by_key[record.key]
            history.remove(record)
            if not history:
                del self._by_key[record.key]
        # The log is in the order of positions: each is found without looking at the others.
        for record in records:
            index = bisect.bisect_left(self._log, record.position, key=lambda one: one.position)
            del self._log[index]
