"""The view: what is known of the world at one revision.

A `View` is a cut of the log: all objects of the watched kinds as they were at `view.revision`.
`stream` brings batches of changes, `view.apply(batch)` moves it on and tells what changed; between
two applies it does not change, so whoever reads it without awaiting reads one state.

    view.get(pod_pb2.Pod, "default", "web-1")
    view.list(pod_pb2.Pod, "default", labels={"app": "web"})
    view.list(pod_pb2.Pod, owner=uid)
    view.list(pod_pb2.Pod, index=("node", "n1"))        # an index that a controller declared
    view.held_seconds(node, "taints", "k:NoExecute")    # for how long a trait has had a value

Each message is parsed once, when its event comes, and shared: readers must not change it. Of kinds
that nobody reads by class only the metadata is kept (`Bare`); `owned`, `holder`, `within` and
`object` see all kinds alike. Lists are sorted by namespace and name.
It must not know what any kind means, nor how it is filled.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from google.protobuf.message import DecodeError, Message
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.meta.v1 import meta_pb2

from kcore.wire.errors import ApiError

logger = logging.getLogger(__name__)

M = TypeVar("M", bound=Message)
F = TypeVar("F")

# From an object to the values under which an index finds it.
Index = Callable[[Any], Iterable[str]]
# From an object to values of which is asked for how long it has had them.
Trait = Callable[[Any], Iterable[str]]


class Name(NamedTuple):
    """Names one object of any kind."""

    kind: str
    namespace: str
    name: str

    def ref(self) -> pb.Ref:
        """The same, as the API says it."""
        return pb.Ref(kind=self.kind, namespace=self.namespace, name=self.name)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind by its names: "kcore.apps.v1.Deployment"; "apps/v1", "Deployment"."""

    full_name: str
    api_version: str
    name: str
    namespaced: bool


@dataclass(frozen=True, slots=True)
class Bare:
    """An object of which only the metadata is kept."""

    metadata: meta_pb2.ObjectMeta


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to one object: `old` None: it is new; `new` None: it is gone."""

    name: Name
    old: Any
    new: Any
    revision: int


@dataclass(frozen=True, slots=True)
class Batch:
    """What a watch said at once: complete up to `revision`.

    `events` are (kind, event). In a `fresh` one the present state begins, all over again; it is
    complete with the next one (or this) that is `synced`; `kinds` are those it is about.
    """

    revision: int
    events: Sequence[tuple[str, pb.Event]] = ()
    fresh: bool = False
    synced: bool = False
    kinds: tuple[Kind, ...] = ()


@dataclass(slots=True)
class _Table:
    """The objects of one kind."""

    parse: Callable[[bytes], Any]
    indexes: Mapping[str, Index]
    objects: dict[tuple[str, str], Any] = field(default_factory=dict)
    spaces: dict[str, set[tuple[str, str]]] = field(default_factory=dict)
    # By index and value.
    found: dict[tuple[str, str], set[tuple[str, str]]] = field(default_factory=dict)
    traits: Mapping[str, Trait] = field(default_factory=dict)
    # By object, then by trait and value: since when.
    since: dict[tuple[str, str], dict[tuple[str, str], float]] = field(default_factory=dict)


class View:
    """Objects at one revision, found by name, namespace, owner and declared indexes."""

    def __init__(
        self,
        classes: Iterable[type[Message]],
        indexes: Mapping[type[Message], Mapping[str, Index]] | None = None,
        traits: Mapping[type[Message], Mapping[str, Trait]] | None = None,
    ) -> None:
        """`classes` are read whole; of other kinds that a batch brings, only the metadata."""
        self.revision = 0
        self.synced = False
        # Who moves it on says how long it has listened, proved and at most; see `attention`.
        self.seconds = 0.0
        self.most_seconds = 0.0
        # Outcomes of the commits of whoever reconciles just now, by key; the loop's to set.
        self.outcomes: Mapping[Any, tuple[ApiError, ...]] = {}
        self._tables: dict[str, _Table] = {}
        self._owned: dict[str, set[Name]] = {}
        self._uids: dict[str, Name] = {}
        self._called: dict[tuple[str, str], Kind] = {}
        # What was worked out of objects: by identity, each with the object, so that it lives.
        self._facts: dict[int, tuple[Any, dict[Any, Any]]] = {}
        # Objects of a fresh state that is not complete yet.
        self._arriving: dict[Name, tuple[Any, int]] | None = None
        for kind in classes:
            declared = (indexes or {}).get(kind, {})
            self._tables[kind.DESCRIPTOR.full_name] = _Table(
                kind.FromString, dict(declared), traits=dict((traits or {}).get(kind, {}))
            )

    @property
    def kinds(self) -> list[str]:
        """The full names of the kinds that it holds."""
        return sorted(self._tables)

    # Reading.

    def get(self, kind: type[M], namespace: str, name: str) -> M | None:
        """The object, if it is there; `namespace` "" for cluster-scoped kinds."""
        found: M | None = self._table(kind).objects.get((namespace, name))
        return found

    def list(
        self,
        kind: type[M],
        namespace: str | None = None,
        *,
        owner: str | None = None,
        labels: Mapping[str, str] | None = None,
        index: tuple[str, str] | None = None,
    ) -> list[M]:
        """The objects for which all that is given holds; `owner` is a uid."""
        table = self._table(kind)
        if index is not None:
            assert index[0] in table.indexes, f"{kind.DESCRIPTOR.full_name} has no index {index[0]}"
            keys: Iterable[tuple[str, str]] = table.found.get(index, ())
        elif owner is not None:
            full_name = kind.DESCRIPTOR.full_name
            keys = (name[1:] for name in self._owned.get(owner, ()) if name.kind == full_name)
        elif namespace is not None:
            keys = table.spaces.get(namespace, ())
        else:
            keys = table.objects
        found: list[M] = []
        for key in sorted(keys):
            if namespace is not None and key[0] != namespace:
                continue
            obj = table.objects[key]
            meta = obj.metadata
            if index is not None and owner is not None and not _has_owner(meta, owner):
                continue
            if labels and any(meta.labels.get(k) != v for k, v in labels.items()):
                continue
            found.append(obj)
        return found

    def last(self, key: Any) -> tuple[ApiError, ...]:
        """The errors of the last commit that this controller made for the key."""
        return self.outcomes.get(key, ())

    def fact(self, function: Callable[[M], F], obj: M) -> F:
        """function(obj), worked out once for each version of an object of this view."""
        known = self._facts.get(id(obj))
        if known is None:
            known = self._facts[id(obj)] = (obj, {})
        facts = known[1]
        if function not in facts:
            facts[function] = function(obj)
        found: F = facts[function]
        return found

    def held_seconds(self, obj: Message, trait: str, value: str) -> float:
        """For how long the object has had this value, as far as this view has listened; 0: it
        hasn't.
        """
        table = self._table(type(obj))
        assert trait in table.traits, f"{obj.DESCRIPTOR.full_name} has no trait {trait}"
        meta: meta_pb2.ObjectMeta = obj.metadata  # type: ignore[attr-defined]
        since = table.since.get((meta.namespace, meta.name), {}).get((trait, value))
        return 0.0 if since is None else max(0.0, self.seconds - since)

    # Reading without knowing the kind.

    def object(self, name: Name) -> Any:
        """The object or its `Bare` metadata; None if it is not there or the kind is not held."""
        table = self._tables.get(name.kind)
        return None if table is None else table.objects.get(name[1:])

    def called(self, api_version: str, name: str) -> Kind | None:
        """The kind that an owner reference calls so, if it is held."""
        return self._called.get((api_version, name))

    def holder(self, uid: str) -> Name | None:
        """Which object has this uid."""
        return self._uids.get(uid)

    def owned(self, uid: str) -> Sequence[Name]:
        """All objects that name the uid as one of their owners."""
        return sorted(self._owned.get(uid, ()))

    def within(self, namespace: str) -> Sequence[Name]:
        """All objects in a namespace."""
        return [
            Name(kind, *key)
            for kind in sorted(self._tables)
            for key in sorted(self._tables[kind].spaces.get(namespace, ()))
        ]

    # Moving on.

    def apply(self, batch: Batch) -> Sequence[Change]:
        """Moves to the batch's revision; what has changed, in the order it did."""
        if batch.fresh:
            for served in batch.kinds:
                self._tables.setdefault(served.full_name, _Table(_bare, {}))
                self._called[served.api_version, served.name] = served
            self._arriving = {}
        if self._arriving is not None:
            return self._arrive(batch)
        changes = []
        for kind, event in batch.events:
            table = self._tables.get(kind)
            if table is None:
                continue
            new = _parsed(table, kind, event)
            if new is None:
                continue
            name = Name(kind, new.metadata.namespace, new.metadata.name)
            gone = event.type == pb.Event.DELETED
            changes.append(self._put(name, None if gone else new, event.revision))
        self.revision = max(self.revision, batch.revision)
        return [change for change in changes if change.old is not None or change.new is not None]

    def _arrive(self, batch: Batch) -> Sequence[Change]:
        """Gathers a fresh state; when it is complete, the difference to what was known."""
        arriving = self._arriving
        assert arriving is not None
        for kind, event in batch.events:
            table = self._tables.get(kind)
            if table is None:
                continue
            new = _parsed(table, kind, event)
            if new is None:
                continue
            name = Name(kind, new.metadata.namespace, new.metadata.name)
            if event.type == pb.Event.DELETED:
                arriving.pop(name, None)
            else:
                arriving[name] = (new, event.revision)
        if not batch.synced:
            return []
        self._arriving = None
        changes = []
        for kind in sorted(self._tables):
            for key in sorted(self._tables[kind].objects):
                name = Name(kind, *key)
                if name not in arriving:
                    changes.append(self._put(name, None, batch.revision))
        for name, (new, revision) in arriving.items():
            old = self.object(name)
            if old is None or old.metadata.resource_version != new.metadata.resource_version:
                changes.append(self._put(name, new, revision))
        self.revision = batch.revision
        self.synced = True
        return changes

    def _put(self, name: Name, new: Any, revision: int) -> Change:
        table = self._tables[name.kind]
        key = (name.namespace, name.name)
        old = table.objects.get(key)
        if old is not None:
            self._forget(table, name, key, old)
        if table.traits:
            self._note(table, key, old, new)
        if new is None:
            table.objects.pop(key, None)
            return Change(name, old, None, revision)
        table.objects[key] = new
        meta = new.metadata
        self._uids[meta.uid] = name
        table.spaces.setdefault(name.namespace, set()).add(key)
        for owner in meta.owner_references:
            self._owned.setdefault(owner.uid, set()).add(name)
        for index, function in table.indexes.items():
            for value in function(new):
                table.found.setdefault((index, value), set()).add(key)
        return Change(name, old, new, revision)

    def _note(self, table: _Table, key: tuple[str, str], old: Any, new: Any) -> None:
        """Since when the object has which traits; a namesake has them anew."""
        before = table.since.pop(key, {})
        if new is None:
            return
        if old is not None and old.metadata.uid != new.metadata.uid:
            before = {}
        table.since[key] = {
            (trait, value): before.get((trait, value), self.most_seconds)
            for trait, function in table.traits.items()
            for value in function(new)
        }

    def _forget(self, table: _Table, name: Name, key: tuple[str, str], old: Any) -> None:
        self._facts.pop(id(old), None)
        if self._uids.get(old.metadata.uid) == name:
            del self._uids[old.metadata.uid]
        _discard(table.spaces, name.namespace, key)
        for owner in old.metadata.owner_references:
            _discard(self._owned, owner.uid, name)
        for index, function in table.indexes.items():
            for value in function(old):
                _discard(table.found, (index, value), key)

    def _table(self, kind: type[Message]) -> _Table:
        table = self._tables.get(kind.DESCRIPTOR.full_name)
        assert table is not None, f"{kind.DESCRIPTOR.full_name} is read but not declared"
        return table


def _discard(sets: dict[Any, set[Any]], key: Any, member: Any) -> None:
    found = sets.get(key)
    if found is not None:
        found.discard(member)
        if not found:
            del sets[key]


def _has_owner(meta: meta_pb2.ObjectMeta, uid: str) -> bool:
    return any(owner.uid == uid for owner in meta.owner_references)


def _parsed(table: _Table, kind: str, event: pb.Event) -> Any:
    try:
        return table.parse(event.object)
    except (DecodeError, IndexError):
        # One broken object must not hide all others; what was known of it stays.
        logger.exception("%s at revision %d can't be read", kind, event.revision)
        return None


def _bare(body: bytes) -> Bare:
    """Reads field 1 of a message of any kind, and nothing else."""
    meta = meta_pb2.ObjectMeta()
    at, end = 0, len(body)
    while at < end:
        tag, at = _varint(body, at)
        wire_type = tag & 7
        if wire_type == 2:
            size, at = _varint(body, at)
            if tag >> 3 == 1:
                meta.MergeFromString(body[at : at + size])
                # Encoders write fields in order: nothing of the metadata follows.
                break
            at += size
        elif wire_type == 0:
            _, at = _varint(body, at)
        else:
            at += 8 if wire_type == 1 else 4
    # Nobody here asks who set what, and it is the greater part.
    meta.ClearField("managed_fields")
    return Bare(meta)


def _varint(body: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
