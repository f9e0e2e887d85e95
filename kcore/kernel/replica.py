"""A replica: the present in memory, and the log behind it, for reading.

It is made from a store by replaying the log, and brought forward by `show`, or by `follow` where
others have written. Whoever shows changes has made them durable, here or elsewhere. It is the
`Source` of a feed and a listing: between two awaits what it shows is one revision.
"""

import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Any

from kcore.kernel import upload
from kcore.kernel.record import Change, Key, Record, Stored, Verb
from kcore.kernel.schema import Schema
from kcore.kernel.state import State, stored_from, stored_of_old
from kcore.kernel.store import Opened, Refused, Store

# Told of each record of the log, and of the kinds that are served at its end.
Note = Callable[[Record, Schema], None]


class Replica:
    """The state at the head, and what came before."""

    def __init__(self, schema: Schema, store: Store) -> None:
        """Empty; call `replay`. `schema`: the kinds that are built in."""
        self._built_in = schema
        self._store = store
        self._state = State(schema)
        self._head = 0
        self._time = 0.0
        self._compacted = 0

    async def replay(self, opened: Opened, note: Note) -> None:
        """Reads the whole log of the store, verified; `note` is told of each record."""
        # Kinds come first: of one that was uploaded, objects may be older than its last version.
        schema = await self._schema_at(opened.head)
        state, kinds = State(schema), schema.kinds
        claiming = {name for name, kind in kinds.items() if kind.claims}
        last: dict[Key, Record] = {}
        turned = 0
        async for record in self._store.replay():
            key = record.key
            if key.kind in claiming:
                # The order of claims decides what is drawn next: go through all of them.
                state.apply(self._change(state, schema, record))
            else:
                last[key] = record
                if key.kind == upload.SCHEMA:
                    turned = record.revision
            note(record, schema)
        for key, record in last.items():
            if key.kind in kinds:
                state.apply(self._change(state, schema, record))
            elif record.verb is not Verb.DELETE:
                raise Refused(f"the log has objects of the unknown kind {key.kind}")
        state.date(max(turned, schema.revision))
        self._state = state
        self._head, self._time = opened.head, opened.time
        self._compacted = opened.compacted

    def show(self, changes: Sequence[Change], head: int, time: float) -> None:
        """Brings the present forward to `head`."""
        for change in changes:
            self._state.apply(change)
        self._settle(changes)
        self._head, self._time = head, time

    def follow(self, records: Sequence[Record]) -> Sequence[Change]:
        """Brings the present forward by whole revisions that were read from the log."""
        followed: list[Change] = []
        for _, revision in itertools.groupby(records, lambda record: record.revision):
            changes = self.changes(revision, self._state)
            self._settle(changes)
            followed += changes
        self._head, self._time = records[-1].revision, records[-1].time
        return followed

    def changes(self, records: Iterable[Record], state: State) -> Sequence[Change]:
        """What records did that came after `state`; it is brought forward."""
        done = []
        for record in records:
            change = self._change(state, self.schema, record)
            state.apply(change)
            done.append(change)
        return done

    def forget(self, revision: int) -> None:
        """Promises nothing any more of what was before."""
        self._compacted = revision

    @property
    def schema(self) -> Schema:
        """The kinds that are served."""
        return self._state.schema

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
        return self.schema.kinds

    def plural(self, kind: str) -> str:
        """What errors call objects of a kind."""
        return self.schema.kind(kind).resource

    def selectable(self, kind: str) -> tuple[str, ...]:
        """Paths that a field selector may name."""
        return self.schema.kind(kind).selectable_paths

    def served_since(self, kind: str) -> int:
        """What is older than this revision is of another kind of that name; 0: nothing is."""
        return self.schema.kind(kind).since

    def remembers(self, kind: str) -> bool:
        """Whether all old states of the kind's objects are kept, as far as the log goes back."""
        return self.schema.kind(kind).keep_revisions is None

    def message(self, kind: str) -> Any:
        """The kind's class."""
        return self.schema.kind(kind).message

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
        return _read(self.schema, key, revision, body)

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

    def _settle(self, changes: Sequence[Change]) -> None:
        """Other kinds are served where Schemas were changed, all at one revision."""
        if any(change.record.key.kind == upload.SCHEMA for change in changes):
            self._state.settle(changes[-1].record.revision)

    async def _schema_at(self, head: int) -> Schema:
        """The kinds that the store's Schema objects say."""
        records = [one async for one in self._store.state_at(head, upload.SCHEMA, "")]
        revision = max((one.revision for one in records), default=0)
        found = {one.key.name: upload.read(one.body) for one in records}
        try:
            return upload.served(self._built_in, found, revision)
        except ValueError as error:
            raise Refused(f"the log has a Schema that can't be served: {error}") from error

    def _change(self, state: State, schema: Schema, record: Record) -> Change:
        after = None
        if record.verb is not Verb.DELETE:
            after = _read(schema, record.key, record.revision, record.body)
        return Change(record, state.get(record.key), after)


def _read(schema: Schema, key: Key, revision: int, body: bytes) -> Stored:
    kind = schema.kinds.get(key.kind)
    if kind is None or 0 <= revision < kind.since:
        return stored_of_old(key, revision, body)
    return stored_from(kind, key, revision, body, kind.parse(body))
