"""A replica: the present in memory, and the log behind it, for reading.

It is made from a store by replaying the log, and brought forward by `show`, or by `follow` where
others have written. Whoever shows changes has made them durable, here or elsewhere. It is the
`Source` of a feed and a listing: between two awaits what it shows is one revision.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Any

from kcore.kernel.record import Change, Key, Record, Stored, Verb
from kcore.kernel.schema import Kind, Schema
from kcore.kernel.state import State, stored_from
from kcore.kernel.store import Opened, Refused, Store


class Replica:
    """The state at the head, and what came before."""

    def __init__(self, schema: Schema, store: Store) -> None:
        """Empty; call `replay`."""
        self._schema = schema
        self._store = store
        self._state = State(schema)
        self._head = 0
        self._time = 0.0
        self._compacted = 0

    async def replay(self, opened: Opened, note: Callable[[Record], None]) -> None:
        """Reads the whole log of the store, verified; `note` is told of each record."""
        state = State(self._schema)
        last: dict[Key, Record] = {}
        async for record in self._store.replay():
            kind = self._known(record)
            if kind.claims:
                # The order of claims decides what is drawn next: go through all of them.
                state.apply(self._change(state, kind, record))
            else:
                last[record.key] = record
            note(record)
        for key, record in last.items():
            state.apply(self._change(state, self._schema.kinds[key.kind], record))
        self._state = state
        self._head, self._time = opened.head, opened.time
        self._compacted = opened.compacted

    def show(self, changes: Sequence[Change], head: int, time: float) -> None:
        """Brings the present forward to `head`."""
        for change in changes:
            self._state.apply(change)
        self._head, self._time = head, time

    def follow(self, records: Sequence[Record]) -> Sequence[Change]:
        """Brings the present forward by whole revisions that were read from the log."""
        changes = self.changes(records, self._state)
        self._head, self._time = records[-1].revision, records[-1].time
        return changes

    def changes(self, records: Iterable[Record], state: State) -> Sequence[Change]:
        """What records did that came after `state`; it is brought forward."""
        done = []
        for record in records:
            change = self._change(state, self._known(record), record)
            state.apply(change)
            done.append(change)
        return done

    def forget(self, revision: int) -> None:
        """Promises nothing any more of what was before."""
        self._compacted = revision

    @property
    def state(self) -> State:
        """The present."""
        return self._state

    @property
    def time(self) -> float:
        """When the last revision was made, in seconds since 1970."""
        return self._time

    @property
    def head(self) -> int:
        """The last revision."""
        return self._head

    @property
    def compacted(self) -> int:
        """What was before this revision is gone; the changes after it are all there."""
        return self._compacted

    def kinds(self) -> Iterable[str]:
        """Full names of the kinds that are served, sorted."""
        return self._schema.kinds

    def plural(self, kind: str) -> str:
        """What errors call objects of a kind."""
        return self._schema.kind(kind).resource

    def selectable(self, kind: str) -> tuple[str, ...]:
        """Paths that a field selector may name."""
        return tuple(path for path, _ in self._schema.kind(kind).selectable)

    def remembers(self, kind: str) -> bool:
        """Whether all old states of the kind's objects are kept, as far as the log goes back."""
        return self._schema.kind(kind).keep_revisions is None

    def message(self, kind: str) -> Any:
        """The kind's class."""
        return self._schema.kind(kind).message

    def get(self, key: Key) -> Stored | None:
        """One object, now."""
        return self._state.get(key)

    def objects(self, kind: str, namespace: str) -> Iterable[Stored]:
        """Objects of a kind, now; of all namespaces where `namespace` is ""."""
        return self._state.objects(kind, namespace)

    def labelled(self, kind: str, label: str, value: str) -> Iterable[Stored]:
        """Objects of a kind that have this label, now."""
        return self._state.labelled(kind, label, value)

    def selected(self, kind: str, path: str, value: str) -> Iterable[Stored]:
        """Objects of a kind whose selectable path has this value, now."""
        return self._state.selected(kind, path, value)

    def read(self, key: Key, revision: int, body: bytes) -> Stored:
        """An old body as it was kept in memory."""
        kind = self._schema.kind(key.kind)
        return stored_from(kind, key, revision, body, kind.parse(body))

    async def at(self, key: Key, revision: int) -> bytes | None:
        """One object as `revision` left it; None where there was none."""
        record = await self._store.at(key, revision)
        return record.body if record is not None else None

    def state_at(self, revision: int, kind: str, namespace: str) -> AsyncIterator[Record]:
        """The last records of the objects that were there when `revision` was the head."""
        return self._store.state_at(revision, kind, namespace)

    async def since(self, revision: int) -> AsyncGenerator[Record, None]:
        """All records after `revision`, in order, up to the head."""
        async with aclosing(self._store.since(revision)) as records:
            async for record in records:
                if record.revision > self._head:
                    # Durable already, but nobody has seen it yet.
                    return
                yield record

    async def revision_at(self, time: float) -> int:
        """The head at this time (seconds since 1970)."""
        return min(await self._store.revision_at(time), self._head)

    def _known(self, record: Record) -> Kind:
        kind = self._schema.kinds.get(record.key.kind)
        if kind is None:
            raise Refused(f"the log has objects of the unknown kind {record.key.kind}")
        return kind

    def _change(self, state: State, kind: Kind, record: Record) -> Change:
        after = None
        if record.verb is not Verb.DELETE:
            after = self.read(record.key, record.revision, record.body)
        return Change(record, state.get(record.key), after)
