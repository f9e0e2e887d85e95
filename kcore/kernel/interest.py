"""Interest: what selections ask for, compiled, and which of them a change concerns.

A `Want` is a selection without its asker: readers that ask for the same share one, so that a change
is matched and masked once for all of them. `Interests` finds the wants that a change may concern by
what they require (a name, a selectable field, a label, a namespace), not by asking each.

Pure; knows no kind, no reader and no stream.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.kernel import frame, mask
from kcore.kernel.record import Change, Key, Stored
from kcore.kernel.source import Source
from kcore.wire import selector

ANY_KIND = "*"
# Revision of a state that nobody remembers: it may have been selected, so it counts as if it had.
UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class Want:
    """A compiled selection. Equal ones match the same objects and show the same of them."""

    kind: str
    namespace: str
    names: tuple[str, ...]
    labels: selector.LabelSelector
    fields_text: str
    paths: tuple[str, ...]
    fields: selector.FieldSelector = field(compare=False)
    # Set where every object of the kind and namespace is meant.
    plain: bool = field(compare=False)
    # By kind, filled as kinds are met: a selection of any kind has one for each.
    masks: dict[str, tuple[Any, mask.Mask]] = field(compare=False, default_factory=dict)

    def matches(self, stored: Stored) -> bool:
        """Whether the object is selected; its kind is known to be right."""
        key = stored.key
        if self.namespace and key.namespace != self.namespace:
            return False
        if self.plain:
            return True
        if self.names and key.name not in self.names:
            return False
        return self.labels.matches(stored.labels) and self.fields.matches(
            stored.fields, key.namespace, key.name
        )

    def may_concern(self, key: Key) -> bool:
        """Whether an object of this name could be selected, whatever is in it."""
        return (
            self.kind in (key.kind, ANY_KIND)
            and self.namespace in ("", key.namespace)
            and (not self.names or key.name in self.names)
        )

    def see(self, change: Change, source: Source) -> tuple[int, bytes]:
        """The event that a change is for this want, and the body it shows; type 0: none."""
        before, after = change.before, change.after
        unknown = before is not None and before.revision == UNKNOWN
        was = before is not None and (unknown or self.matches(before))
        now = after is not None and self.matches(after)
        if now:
            assert after is not None
            if not was:
                return frame.ADDED, self.show(after.key.kind, after.body, source)
            assert before is not None
            if (
                self.paths
                and not unknown
                and not self._differ(after.key.kind, before.body, after.body, source)
            ):
                return 0, b""
            return frame.MODIFIED, self.show(after.key.kind, after.body, source)
        if not was:
            return 0, b""
        assert before is not None
        if after is None:
            return frame.DELETED, self.show(before.key.kind, change.record.body, source)
        last = frame.with_revision(before.body, change.record.revision)
        return frame.DELETED, self.show(before.key.kind, last, source)

    def show(self, kind: str, body: bytes, source: Source) -> bytes:
        """The body as it is shown: whole, or the masked part of it."""
        found = self._mask(kind, source) if self.paths else None
        return masked(*found, body) if found is not None else body

    def _mask(self, kind: str, source: Source) -> tuple[Any, mask.Mask] | None:
        """The kind's class and what is shown of it; None where the kind is served no longer."""
        if kind not in source.kinds():
            return None
        found = self.masks.get(kind)
        message_class: Any = source.message(kind)
        if found is None or found[0] is not message_class:
            tree = mask.compile_mask(
                message_class.DESCRIPTOR, self.paths, identity=True, lenient=True
            )
            found = self.masks[kind] = (message_class, tree)
        return found

    def _differ(self, kind: str, before: bytes, after: bytes, source: Source) -> bool:
        # The revision differs always, and is no reason to tell of a change.
        known = self._mask(kind, source)
        if known is None:
            return True
        message_class, tree = known
        if "metadata.resourceVersion" in self.paths or "metadata.resource_version" in self.paths:
            return True
        shown = [message_class.FromString(body) for body in (before, after)]
        for message in shown:
            mask.prune(message, tree)
            message.metadata.ClearField("resource_version")
        return bool(shown[0] != shown[1])


def masked(message_class: Any, tree: mask.Mask, body: bytes) -> bytes:
    """The masked part of an object."""
    message = message_class.FromString(body)
    mask.prune(message, tree)
    shown: bytes = message.SerializeToString(deterministic=True)
    return shown


def compile_selection(selection: pb.Selection, paths: Sequence[str], source: Source) -> Want:
    """The want that a selection says, masked to `paths`; ApiError where it is not well said."""
    if selection.kind == ANY_KIND:
        selectable: tuple[str, ...] = ()
    else:
        selectable = source.selectable(selection.kind)
    labels = selector.parse_labels(selection.labels)
    fields = selector.parse_fields(selection.fields, selectable)
    names = tuple(sorted(set(selection.names)))
    return Want(
        kind=selection.kind,
        namespace=selection.namespace,
        names=names,
        labels=labels,
        fields_text=selection.fields,
        paths=tuple(paths),
        fields=fields,
        plain=not names and labels.everything and fields.everything,
    )


def candidates(want: Want, source: Source) -> Iterable[Stored]:
    """Objects of `want.kind`, now, among which are all that it selects."""
    kind = want.kind
    names = want.names
    named = want.fields.equality.get("metadata.name")
    if named is not None and not names:
        names = (named,)
    if names and want.namespace:
        keys = [Key(kind, want.namespace, name) for name in names]
        return [stored for key in keys if (stored := source.get(key)) is not None]
    for path, value in want.fields.equality.items():
        if path not in selector.ALWAYS_SELECTABLE:
            return source.selected(kind, path, value)
    for label, value in want.labels.equality.items():
        return source.labelled(kind, label, value)
    return source.objects(kind, want.namespace)


T = TypeVar("T")
# Wants and what hangs on each.
Shelf = dict[Want, T]


@dataclass(slots=True)
class _Kind(Generic[T]):
    """The wants of one kind, each on one shelf: by the narrowest thing that it requires."""

    # Under "": those that require nothing.
    namespaces: dict[str, Shelf[T]] = field(default_factory=dict)
    names: dict[str, Shelf[T]] = field(default_factory=dict)
    fields: dict[str, dict[str, Shelf[T]]] = field(default_factory=dict)
    labels: dict[str, dict[str, Shelf[T]]] = field(default_factory=dict)


class Interests(Generic[T]):
    """Wants by what they require."""

    def __init__(self) -> None:
        """Empty."""
        self._kinds: dict[str, _Kind[T]] = {}
        self._all: dict[Want, T] = {}

    def get(self, want: Want) -> T | None:
        """What hangs on the want."""
        return self._all.get(want)

    def add(self, want: Want, value: T) -> None:
        """Hangs `value` on a want that was not there."""
        self._all[want] = value
        kind = self._kinds.setdefault(want.kind, _Kind())
        for by_value, key in self._places(kind, want):
            by_value.setdefault(key, {})[want] = value

    def remove(self, want: Want) -> None:
        """Forgets the want; empty shelves go too, or values of long ago would pile up."""
        del self._all[want]
        kind = self._kinds[want.kind]
        for by_value, key in self._places(kind, want):
            del by_value[key][want]
            if not by_value[key]:
                del by_value[key]
        for outer in (kind.fields, kind.labels):
            for path in [path for path, by_value in outer.items() if not by_value]:
                del outer[path]

    def concerned(self, change: Change) -> Iterator[tuple[Want, T]]:
        """Wants that may concern the change, each once."""
        key = change.record.key
        for kind in (self._kinds.get(key.kind), self._kinds.get(ANY_KIND)):
            if kind is None:
                continue
            if "" in kind.namespaces:
                yield from kind.namespaces[""].items()
            if key.namespace and key.namespace in kind.namespaces:
                yield from kind.namespaces[key.namespace].items()
            if kind.names and key.name in kind.names:
                yield from kind.names[key.name].items()
            before, after = change.before, change.after
            for path, by_value in kind.fields.items():
                was = before.fields.get(path, "") if before is not None else None
                now = after.fields.get(path, "") if after is not None else None
                yield from _either(by_value, was, now)
            for label, by_value in kind.labels.items():
                was = before.labels.get(label) if before is not None else None
                now = after.labels.get(label) if after is not None else None
                yield from _either(by_value, was, now)

    def _places(self, kind: _Kind[T], want: Want) -> list[tuple[dict[str, Shelf[T]], str]]:
        names = want.names
        if not names and "metadata.name" in want.fields.equality:
            names = (want.fields.equality["metadata.name"],)
        if names:
            return [(kind.names, name) for name in names]
        for path, value in want.fields.equality.items():
            if path not in selector.ALWAYS_SELECTABLE:
                return [(kind.fields.setdefault(path, {}), value)]
        for label, value in want.labels.equality.items():
            return [(kind.labels.setdefault(label, {}), value)]
        return [(kind.namespaces, want.namespace)]


def _either(
    by_value: dict[str, Shelf[T]], was: str | None, now: str | None
) -> Iterator[tuple[Want, T]]:
    if was is not None and was in by_value:
        yield from by_value[was].items()
    if now is not None and now != was and now in by_value:
        yield from by_value[now].items()
