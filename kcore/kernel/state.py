"""The state: all objects as they are at one revision, in memory, with their indexes.

`State.apply(change)` is the only way it changes. A `Draft` is a state that is not yet: changes over
a state, or over another draft, that may be folded into it or forgotten. Both answer the same
questions (`View`), so a transaction is evaluated without knowing what of it is durable.

All of it is derived from the log and none of it stored. Knows no kind but through the schema.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from kcore_api.kcore.meta.v1 import meta_pb2

from kcore.kernel import claim, frame, upload
from kcore.kernel.record import Change, Key, Stored
from kcore.kernel.schema import Kind, Schema
from kcore.kernel.view import View


def stored_from(kind: Kind, key: Key, revision: int, body: bytes, message: Any) -> Stored:
    """An object as memory keeps it; `message` is what the bytes say."""
    metadata = message.metadata
    return Stored(
        key=key,
        uid=metadata.uid,
        revision=revision,
        body=body,
        labels=dict(metadata.labels),
        fields={text: read(message) for text, read in kind.selectable},
        owners=tuple(owner.uid for owner in metadata.owner_references),
        claims=claim.claimed(kind, message),
        deleting=metadata.HasField("deletion_timestamp"),
    )


def stored_of_old(key: Key, revision: int, body: bytes) -> Stored:
    """An object of a kind that is served no longer: its metadata is all that is known of it."""
    _, inner, end = frame.metadata_of(body)
    metadata = meta_pb2.ObjectMeta.FromString(body[inner:end])
    return Stored(
        key=key,
        uid=metadata.uid,
        revision=revision,
        body=body,
        labels=dict(metadata.labels),
        owners=tuple(owner.uid for owner in metadata.owner_references),
        deleting=metadata.HasField("deletion_timestamp"),
    )


def parent_of(kind: Kind, key: Key) -> Key | None:
    """The object that one of this key lives in."""
    return Key(kind.parent, "", key.namespace) if kind.parent else None


class State:
    """All objects at one revision."""

    def __init__(self, schema: Schema) -> None:
        """Empty, at revision 0; `schema`: the kinds that are served then."""
        self._schema = schema
        # By kind and namespace.
        self._objects: dict[str, dict[str, dict[str, Stored]]] = {}
        # By kind, label and value; by kind, selectable path and value.
        self._labels: dict[tuple[str, str, str], dict[Key, Stored]] = {}
        self._fields: dict[tuple[str, str, str], dict[Key, Stored]] = {}
        # By pool and value.
        self._claims: dict[str, dict[str, Key]] = {}
        self._last_drawn: dict[str, str] = {}
        self._children: dict[Key, int] = {}
        # By kind: the last revision that changed one of its objects.
        self._changed: dict[str, int] = {}

    @property
    def schema(self) -> Schema:
        """The kinds that are served."""
        return self._schema

    def changed(self, kind: str) -> int:
        """The last revision that changed an object of the kind."""
        return self._changed.get(kind, 0)

    def count(self, kind: str) -> int:
        """How many objects of a kind there are."""
        return sum(map(len, self._objects.get(kind, {}).values()))

    def get(self, key: Key) -> Stored | None:
        """One object."""
        namespaces = self._objects.get(key.kind)
        if namespaces is None:
            return None
        names = namespaces.get(key.namespace)
        return names.get(key.name) if names is not None else None

    def objects(self, kind: str, namespace: str) -> Iterator[Stored]:
        """Objects of a kind; of all namespaces where `namespace` is ""."""
        namespaces = self._objects.get(kind, {})
        if namespace:
            yield from namespaces.get(namespace, {}).values()
            return
        for names in namespaces.values():
            yield from names.values()

    def labelled(self, kind: str, label: str, value: str) -> Iterable[Stored]:
        """Objects of a kind that have this label."""
        return self._labels.get((kind, label, value), {}).values()

    def selected(self, kind: str, path: str, value: str) -> Iterable[Stored]:
        """Objects of a kind whose selectable path has this value."""
        return self._fields.get((kind, path, value), {}).values()

    def holder(self, pool: str, value: str) -> Key | None:
        """Who claims a pool's value."""
        return self._claims.get(pool, {}).get(value)

    def held(self, pool: str) -> int:
        """How many values of a pool are claimed."""
        return len(self._claims.get(pool, ()))

    def last_drawn(self, pool: str) -> str:
        """The value of a pool that was claimed last."""
        return self._last_drawn.get(pool, "")

    def children(self, parent: Key) -> int:
        """How many objects live in another."""
        return self._children.get(parent, 0)

    def apply(self, change: Change) -> None:
        """Makes the change."""
        before, after = change.before, change.after
        key = change.record.key
        self._changed[key.kind] = change.record.revision
        if before is not None:
            self._forget(before)
        if after is not None:
            namespaces = self._objects.setdefault(key.kind, {})
            namespaces.setdefault(key.namespace, {})[key.name] = after
            for label, value in after.labels.items():
                self._labels.setdefault((key.kind, label, value), {})[key] = after
            for path, value in after.fields.items():
                self._fields.setdefault((key.kind, path, value), {})[key] = after
            for pool, value in after.claims:
                self._claims.setdefault(pool, {})[value] = key
                if before is None or (pool, value) not in before.claims:
                    self._last_drawn[pool] = value
        elif before is not None:
            names = self._objects[key.kind][key.namespace]
            del names[key.name]
            if not names:
                del self._objects[key.kind][key.namespace]
        self._count(key, (after is not None) - (before is not None))

    def date(self, revision: int) -> None:
        """The kinds were last changed at this revision."""
        self._schema = dataclasses.replace(self._schema, revision=revision)

    def settle(self, revision: int) -> None:
        """Serves the kinds that the Schema objects say, since `revision`."""
        before = self._schema
        after = upload.served(before, upload.said(self.objects(upload.SCHEMA, "")), revision)
        self._schema = after
        for name, kind in after.kinds.items():
            known = before.kinds.get(name)
            if known is not None and known.selectable_paths != kind.selectable_paths:
                for stored in list(self.objects(name, "")):
                    self._index_again(kind, stored)

    def _index_again(self, kind: Kind, stored: Stored) -> None:
        """Another version of its kind selects by other fields."""
        key = stored.key
        for path, value in stored.fields.items():
            _remove(self._fields, (key.kind, path, value), key)
        again = stored_from(kind, key, stored.revision, stored.body, kind.parse(stored.body))
        self._objects[key.kind][key.namespace][key.name] = again
        for label, value in again.labels.items():
            self._labels[key.kind, label, value][key] = again
        for path, value in again.fields.items():
            self._fields.setdefault((key.kind, path, value), {})[key] = again

    def _forget(self, stored: Stored) -> None:
        """Takes the object out of the indexes."""
        key = stored.key
        for label, value in stored.labels.items():
            _remove(self._labels, (key.kind, label, value), key)
        for path, value in stored.fields.items():
            _remove(self._fields, (key.kind, path, value), key)
        for pool, value in stored.claims:
            holders = self._claims.get(pool, {})
            if holders.get(value) == key:
                del holders[value]

    def _count(self, key: Key, grown: int) -> None:
        kind = self._schema.kinds.get(key.kind)
        parent = parent_of(kind, key) if kind is not None else None
        if grown and parent is not None:
            count = self._children.get(parent, 0) + grown
            if count:
                self._children[parent] = count
            else:
                del self._children[parent]


def _remove(
    index: dict[tuple[str, str, str], dict[Key, Stored]], place: tuple[str, str, str], key: Key
) -> None:
    found = index[place]
    del found[key]
    if not found:
        del index[place]


class Draft:
    """Changes over a state, not yet made."""

    def __init__(self, below: View) -> None:
        """No changes."""
        self._below = below
        self._schema = below.schema
        self._objects: dict[Key, Stored | None] = {}
        self._claims: dict[tuple[str, str], Key | None] = {}
        self._held: dict[str, int] = {}
        self._last_drawn: dict[str, str] = {}
        self._children: dict[Key, int] = {}
        self._counts: dict[str, int] = {}

    @property
    def schema(self) -> Schema:
        """The kinds that are served: what is changed here of them is not so yet."""
        return self._schema

    def count(self, kind: str) -> int:
        """How many objects of a kind there are."""
        return self._below.count(kind) + self._counts.get(kind, 0)

    def get(self, key: Key) -> Stored | None:
        """One object."""
        return self._objects[key] if key in self._objects else self._below.get(key)

    def objects(self, kind: str, namespace: str) -> Iterator[Stored]:
        """Objects of a kind; of all namespaces where `namespace` is ""."""
        for stored in self._below.objects(kind, namespace):
            if stored.key not in self._objects:
                yield stored
        for key, changed in self._objects.items():
            if changed is not None and key.kind == kind and namespace in ("", key.namespace):
                yield changed

    def holder(self, pool: str, value: str) -> Key | None:
        """Who claims a pool's value."""
        place = pool, value
        return self._claims[place] if place in self._claims else self._below.holder(pool, value)

    def held(self, pool: str) -> int:
        """How many values of a pool are claimed."""
        return self._below.held(pool) + self._held.get(pool, 0)

    def last_drawn(self, pool: str) -> str:
        """The value of a pool that was claimed last."""
        found = self._last_drawn.get(pool)
        return self._below.last_drawn(pool) if found is None else found

    def children(self, parent: Key) -> int:
        """How many objects live in another."""
        return self._below.children(parent) + self._children.get(parent, 0)

    def put(self, key: Key, before: Stored | None, after: Stored | None) -> None:
        """Makes a change here; `before` is what `get` gave."""
        self._objects[key] = after
        old = before.claims if before is not None else ()
        new = after.claims if after is not None else ()
        if old != new:
            self._claim(key, old, new)
        grown = (after is not None) - (before is not None)
        if grown:
            self._counts[key.kind] = self._counts.get(key.kind, 0) + grown
            parent = parent_of(self._schema.kinds[key.kind], key)
            if parent is not None:
                self._children[parent] = self._children.get(parent, 0) + grown

    def fold(self, above: "Draft") -> None:
        """Makes the changes of a draft over this one."""
        self._objects.update(above._objects)
        self._claims.update(above._claims)
        self._last_drawn.update(above._last_drawn)
        for pool, grown in above._held.items():
            self._held[pool] = self._held.get(pool, 0) + grown
        for kind, grown in above._counts.items():
            self._counts[kind] = self._counts.get(kind, 0) + grown
        for parent, grown in above._children.items():
            self._children[parent] = self._children.get(parent, 0) + grown

    def _claim(
        self, key: Key, old: Sequence[tuple[str, str]], new: Sequence[tuple[str, str]]
    ) -> None:
        for pool, value in old:
            if (pool, value) not in new and self.holder(pool, value) == key:
                self._claims[pool, value] = None
                self._held[pool] = self._held.get(pool, 0) - 1
        for pool, value in new:
            if (pool, value) not in old:
                if self.holder(pool, value) is None:
                    self._held[pool] = self._held.get(pool, 0) + 1
                self._claims[pool, value] = key
                self._last_drawn[pool] = value
