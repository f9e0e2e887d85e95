"""Moving a log from one store to another, offline: revisions, uids, identity, and all of the past.

    moved = await migrate(source, target, progress)

The target must be empty, and cannot be opened for anything else before all is there: then it says
what the source said, and is read back and compared record by record. The epoch stays, since nothing
acknowledged is lost; of what is before the compaction point only the state at it is taken along, as
the source promises no more.
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Protocol

from kcore.kernel.record import Key, Record, Verb
from kcore.kernel.store import Opened, Refused, Store

# So much is appended at once: what an etcd takes that nobody has configured.
_BATCH_RECORDS: Final = 100
_BATCH_BYTES: Final = 1 << 20

# Told at which revision it is, and which is the last.
Progress = Callable[[int, int], None]


class Target(Store, Protocol):
    """A store that can become another's continuation."""

    async def adopt(self, opened: Opened, *, whole: bool) -> None:
        """Takes over a log's identity, while it is empty; from then on it is refused by `open`.

        `whole`: now all records are there, and it is as `opened` says.
        """
        ...


@dataclass(frozen=True, slots=True)
class Moved:
    """What was moved."""

    opened: Opened
    records: int
    objects: int


async def migrate(source: Store, target: Target, progress: Progress) -> Moved:
    """Moves all of it; `Refused` where the target is not empty, or not the same in the end."""
    try:
        opened = await source.open()
        there = await target.open()
        if there.head:
            raise Refused(f"the target is not empty: it ends at revision {there.head}")
        await target.adopt(opened, whole=False)
        batch: list[Record] = []
        size = records = 0
        async for record in _needed(source, opened.compacted):
            full = len(batch) >= _BATCH_RECORDS or size >= _BATCH_BYTES
            # A revision is never split, nor what is before the compaction point from what is not.
            if full and record.revision != batch[-1].revision:
                await target.append(batch, {})
                progress(batch[-1].revision, opened.head)
                batch, size = [], 0
            batch.append(record)
            size += len(record.body)
            records += 1
        await target.append(batch, {})
        if source.tail is not None and await source.tail.head() != opened.head:
            raise Refused("the source was written to meanwhile: stop all apiservers of the cluster")
        await target.adopt(opened, whole=True)
        objects = await _compare(source, target, opened)
        progress(opened.head, opened.head)
        return Moved(opened, records, objects)
    finally:
        await source.close()
        await target.close()


async def _compare(source: Store, target: Target, expected: Opened) -> int:
    """Reads both again; answers how many objects there are."""
    opened = await target.open()
    if opened != expected:
        raise Refused(f"the target says {opened}, but the source {expected}")
    present: set[Key] = set()
    async with aclosing(_needed(target, expected.compacted)) as copies:
        async for record in _needed(source, expected.compacted):
            copy = await anext(copies, None)
            if copy != record:
                found = f"{copy.revision} of {copy.key}" if copy is not None else "nothing"
                raise Refused(
                    f"revision {record.revision} of {record.key} is not in the target as it was: "
                    f"there is {found}"
                )
            (present.discard if record.verb is Verb.DELETE else present.add)(record.key)
        if await anext(copies, None) is not None:
            raise Refused("the target has more than the source")
    return len(present)


async def _needed(store: Store, compacted: int) -> AsyncGenerator[Record, None]:
    """The log without what compaction may have left before its point, and makes useless."""
    state: dict[Key, Record] | None = {}
    async for record in store.replay():
        if state is not None:
            if record.revision <= compacted:
                state[record.key] = record
                continue
            for old in _present(state):
                yield old
            state = None
        yield record
    for old in _present(state or {}):
        yield old


def _present(state: Mapping[Key, Record]) -> Sequence[Record]:
    there = [record for record in state.values() if record.verb is not Verb.DELETE]
    return sorted(there, key=lambda record: record.position)
