"""Server-side apply, and who owns which field.

`apply` makes the fields of an object be as a manager says, and only those: what the manager
applied before and says no more goes, unless somebody else owns it; what others own with another
value is a conflict, unless it is taken by force. `track` keeps the owners of an object that was
written in any other way: who changes a field owns it from then on.

Owners stand in metadata.managedFields, in Kubernetes' shape, one entry for each (manager,
operation, subresource). An applier owns what he sent; what the server fills in afterwards
(defaults, claims) is nobody's. An entry's time is when its set of fields last changed, so that
what changes nothing leaves the object as it was, byte for byte.

Two things are kcore's own. A manager's other writes are no conflict for its applies: `create`,
then `apply` of the same file is one story. And of a message in which an applier wanted something
and wants nothing any more, nobody else wanting anything, nothing stays: defaults go with it.

Pure; knows no kind.
"""

import functools
import json
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, Protocol

from kcore.kernel import fieldset
from kcore.kernel.fieldset import LEAF, SELF, Tree
from kcore.kernel.layout import Layout, Slot, Sort, layout_of, value_text
from kcore.wire.errors import ApiError, Reason, Violation, invalid

APPLY: Final = "Apply"
UPDATE: Final = "Update"

# Where Kubernetes' client-side apply keeps what it applied.
LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
# Entries of ordinary writers beyond which the oldest become one, so that managers with made-up
# names can't fill an object.
MOST_WRITERS: Final = 16
ANCIENT: Final = "ancient-changes"

# Parts of new objects whose fields are known.
_TEMPLATES: Final = 2048
_TEMPLATE_BYTES: Final = 16 << 10
# Of a map's keys, for which its text is kept.
_KEYS_LETTERS: Final = 1 << 10

# Metadata that differs from object to object of one template.
_IDENTITY: Final = ("name", "generate_name", "uid", "resource_version", "creation_timestamp")


class Kind(Protocol):
    """What of a kind is needed here."""

    @property
    def message(self) -> Any:
        """Its class."""
        ...

    @property
    def api_version(self) -> str:
        """As manifests name it: "apps/v1"."""
        ...

    @property
    def has_status(self) -> bool:
        """Whether it has the field `status`."""
        ...

    def subject(self, name: str) -> str:
        """An object, as errors name it."""
        ...


@dataclass(frozen=True, slots=True)
class _Entry:
    """What one manager owns, by one operation, through one subresource."""

    manager: str
    operation: str
    subresource: str
    fields: Tree
    # As it is stored; None: it has changed.
    stored: Any = None

    @property
    def identity(self) -> tuple[str, str, str]:
        """Whose entry it is."""
        return self.manager, self.operation, self.subresource

    def having(self, fields: Tree) -> "_Entry":
        """The entry with this set."""
        if fields == self.fields:
            return self
        return _Entry(self.manager, self.operation, self.subresource, fields)


def apply(
    kind: Kind,
    live: Any | None,
    applied: Any,
    manager: str,
    force: bool,
    time: float,
    *,
    subresource: str = "",
) -> Any:
    """The object as it is when `applied` has been applied to it; `live` None: it is made.

    CONFLICT names each manager and field that stand against it.
    """
    layout = layout_of(kind.message.DESCRIPTOR)
    wanted = kind.message()
    wanted.CopyFrom(applied)
    if kind.has_status:
        _only_through(wanted, subresource)
    wanted.metadata.ClearField("managed_fields")
    name = wanted.metadata.name
    if not name and wanted.metadata.generate_name:
        said = "cannot use generate name with apply"
        raise invalid(kind.subject(""), [Violation("metadata.generateName", said)])
    _refuse_doubles(kind, layout, wanted)
    fields = fieldset.gather(layout, wanted)
    _drop_empty_metadata(fields)
    if live is None:
        entry = _Entry(manager, APPLY, subresource, fields)
        _write(kind, wanted, [entry], time)
        return wanted
    new = kind.message()
    new.CopyFrom(live)
    entries = _read(live)
    own = (manager, APPLY, subresource)
    before = next((entry.fields for entry in entries if entry.identity == own), None)
    if before is None:
        before = _last_applied(layout, live, subresource)
    _merge(layout, new, wanted)
    changed, _ = fieldset.compare(layout, live, new)
    others = [entry for entry in entries if entry.manager != manager]
    if changed and not force:
        _refuse_conflicts(kind, layout, name, changed, others)
    kept = fields
    for entry in entries:
        if entry.identity != own:
            taken = changed if entry.manager != manager else fields
            kept = fieldset.union(kept, fieldset.difference(entry.fields, taken))
    gone = fieldset.difference(before, fields)
    if gone:
        _remove(layout, new, gone, kept, top=True)
    owners: list[_Entry] = []
    for entry in entries:
        if entry.identity == own:
            continue
        # His own other writes say the same now; from others, what has been changed is taken.
        taken = fields if entry.manager == manager else changed
        owners.append(entry.having(fieldset.difference(entry.fields, taken)))
    mine = next((entry for entry in entries if entry.identity == own), None)
    owners.append(
        mine.having(fields) if mine is not None else _Entry(manager, APPLY, subresource, fields)
    )
    _write(kind, new, _in_old_order(entries, owners), time)
    return new


def track(
    kind: Kind,
    old: Any | None,
    new: Any,
    manager: str,
    operation: str,
    subresource: str,
    time: float,
) -> None:
    """Sets the owners in `new`, which the manager has made of `old`; None: there was none.

    Whatever owners the writer sent along are forgotten. Of fields that are set by nobody's wish,
    nobody is the owner if they are filled in later.
    """
    metadata = new.metadata
    if old is None:
        metadata.ClearField("managed_fields")
        raw = _template(new)
        if raw != b"{}":
            stored = metadata.managed_fields.add()
            _fill(stored, kind, manager, operation, subresource, raw, time)
        return
    layout = layout_of(kind.message.DESCRIPTOR)
    changed, removed = fieldset.compare(layout, old, new)
    metadata.ClearField("managed_fields")
    if not changed and not removed:
        metadata.managed_fields.MergeFrom(old.metadata.managed_fields)
        return
    entries = _read(old)
    own = (manager, operation, subresource)
    owners: list[_Entry] = []
    found = False
    for entry in entries:
        if entry.identity == own:
            found = True
            if not fieldset.includes(entry.fields, changed):
                entry = entry.having(fieldset.union(entry.fields, changed))
        elif fieldset.meets(entry.fields, changed):
            entry = entry.having(fieldset.difference(entry.fields, changed))
        if removed and fieldset.meets(entry.fields, removed):
            entry = entry.having(fieldset.difference(entry.fields, removed))
        owners.append(entry)
    if not found and changed:
        owners.append(_Entry(manager, operation, subresource, changed))
    _write(kind, new, _capped(owners), time)


def _only_through(wanted: Any, subresource: str) -> None:
    """The main door ignores status, and status' door all else."""
    if not subresource:
        wanted.ClearField("status")
    elif subresource == "status":
        for field, _ in wanted.ListFields():
            if field.name not in ("metadata", "status"):
                wanted.ClearField(field.name)
        metadata = wanted.metadata
        for field, _ in metadata.ListFields():
            if field.name not in (*_IDENTITY, "namespace"):
                metadata.ClearField(field.name)


def _drop_empty_metadata(fields: Tree) -> None:
    # It is there in every object, and nobody's.
    if not fields.get("f:metadata", True):
        del fields["f:metadata"]


def _last_applied(layout: Layout, live: Any, subresource: str) -> Tree:
    """What a client-side apply says that it had applied."""
    said = live.metadata.annotations.get(LAST_APPLIED, "") if not subresource else ""
    try:
        plain = json.loads(said) if said else {}
    except ValueError:
        # Anybody may write annotations; what can't be read says nothing.
        return {}
    if not isinstance(plain, dict):
        return {}
    plain.pop("status", None)
    return fieldset.gather_plain(layout, plain)


def _refuse_conflicts(
    kind: Kind, layout: Layout, name: str, changed: Tree, others: Iterable[_Entry]
) -> None:
    violations: list[Violation] = []
    lines: list[str] = []
    for entry in others:
        against = fieldset.intersection(entry.fields, changed)
        if not against:
            continue
        through = f" through {entry.subresource}" if entry.subresource else ""
        owner = f'"{entry.manager}"{through} using {kind.api_version}'
        for path in fieldset.paths(layout, against):
            violations.append(Violation(path, f"conflict with {owner}"))
            lines.append(f"conflict with {owner}: .{path}")
    if violations:
        count = f"{len(violations)} conflict{'s' if len(violations) > 1 else ''}"
        said = f"{kind.subject(name)}: Apply failed with {count}: {'; '.join(lines)}"
        raise ApiError(Reason.CONFLICT, said, violations)


def _refuse_doubles(kind: Kind, layout: Layout, wanted: Any) -> None:
    violations = list(_doubles(layout, wanted, ""))
    if violations:
        raise invalid(kind.subject(wanted.metadata.name), violations)


def _doubles(layout: Layout, message: Any, place: str) -> Iterable[Violation]:
    """Elements of keyed lists that have the same key."""
    for field, value in message.ListFields():
        slot = layout.by_name.get(field.name)
        if slot is None or slot.sort in (Sort.VALUE, Sort.MAP, Sort.SET):
            continue
        if slot.sort is Sort.INLINE:
            yield from _doubles(slot.below, value, place)
            continue
        where = f"{place}.{slot.json_name}" if place else slot.json_name
        if slot.sort is Sort.MESSAGE:
            yield from _doubles(slot.below, value, where)
        elif slot.sort is Sort.MESSAGE_MAP:
            for key in sorted(value):
                yield from _doubles(slot.below, value[key], f"{where}[{key}]")
        else:
            seen: set[str] = set()
            for index, element in enumerate(value):
                key = slot.element_key(element)
                if key in seen:
                    yield Violation(f"{where}[{index}]", f"duplicate entries for key {key[2:]}")
                seen.add(key)
                yield from _doubles(slot.below, element, f"{where}[{index}]")


def _merge(layout: Layout, target: Any, wanted: Any) -> None:
    """Makes what is set in `wanted` so in `target`."""
    for field, value in wanted.ListFields():
        slot = layout.by_name.get(field.name)
        if slot is None:
            continue
        sort = slot.sort
        if sort in (Sort.MESSAGE, Sort.INLINE):
            inner = getattr(target, slot.name)
            inner.SetInParent()
            _merge(slot.below, inner, value)
        elif sort is Sort.VALUE:
            _set_value(slot, target, field, value)
        elif sort is Sort.MAP:
            _merge_map(slot, getattr(target, slot.name), value)
        elif sort is Sort.MESSAGE_MAP:
            kept = getattr(target, slot.name)
            for key in value:
                _merge(slot.below, kept[key], value[key])
        elif sort is Sort.SET:
            _merge_list(
                getattr(target, slot.name),
                list(value),
                value_text,
                lambda was, said: was,
            )
        else:
            _merge_list(
                getattr(target, slot.name),
                list(value),
                slot.element_key,
                _element_merger(slot),
            )


def _merge_map(slot: Slot, kept: Any, wanted: Any) -> None:
    for key, value in wanted.items():
        if slot.descriptor is None:
            kept[key] = value
        elif not (
            slot.quantity and key in kept and fieldset.same_quantity(kept[key].string, value.string)
        ):
            kept[key].CopyFrom(value)


def _set_value(slot: Slot, target: Any, field: Any, value: Any) -> None:
    name = slot.name
    if field.is_repeated:
        target.ClearField(name)
        getattr(target, name).MergeFrom(value)
    elif field.message_type is None:
        setattr(target, name, value)
    elif not (
        slot.quantity
        and target.HasField(name)
        # Another word for the same amount changes nothing.
        and fieldset.same_quantity(getattr(target, name).string, value.string)
    ):
        getattr(target, name).CopyFrom(value)


def _element_merger(slot: Slot) -> Any:
    def merged(was: Any, said: Any) -> Any:
        made = type(was)()
        made.CopyFrom(was)
        _merge(slot.below, made, said)
        return made

    return merged


def _merge_list(kept: Any, wanted: list[Any], key_of: Any, merged: Any) -> None:
    """Merges by key. The order is that of `wanted`, with the others where they were among them."""
    before = list(kept)
    keys = [key_of(element) for element in before]
    said = [key_of(element) for element in wanted]
    known = dict(zip(reversed(keys), reversed(before), strict=True))
    asked = dict(zip(said, wanted, strict=True))
    result: list[Any] = []
    done: set[str] = set()
    at = 0
    for key, element in zip(said, wanted, strict=True):
        if key in done:
            continue
        while at < len(before) and keys[at] != key and (keys[at] not in asked or keys[at] in done):
            if keys[at] not in asked:
                result.append(before[at])
            at += 1
        if at < len(before) and keys[at] == key:
            at += 1
        result.append(merged(known[key], element) if key in known else element)
        done.add(key)
    result += [element for element, key in zip(before[at:], keys[at:], strict=True)
               if key not in asked]  # fmt: skip
    if result != before:
        copies = [_copy(element) for element in result]
        del kept[:]
        kept.extend(copies)


def _copy(element: Any) -> Any:
    if not hasattr(element, "CopyFrom"):
        return element
    made = type(element)()
    made.CopyFrom(element)
    return made


def _remove(layout: Layout, message: Any, gone: Tree, kept: Tree, top: bool = False) -> None:
    """Takes the fields in `gone` out of a message, as far as they are not in `kept`."""
    for key, below in gone.items():
        slot = layout.by_key.get(key)
        if slot is None:
            continue
        holder = message
        for step in slot.route:
            if not holder.HasField(step):
                break
            holder = getattr(holder, step)
        else:
            _remove_field(slot, holder, below, kept.get(key), top)
            _tidy(slot, message)


def _tidy(slot: Slot, message: Any) -> None:
    """Inline messages that have become empty are not seen by anybody; they go."""
    for length in range(len(slot.route), 0, -1):
        holder = message
        for step in slot.route[: length - 1]:
            holder = getattr(holder, step)
        last = slot.route[length - 1]
        if holder.HasField(last) and not getattr(holder, last).ListFields():
            holder.ClearField(last)


def _remove_field(slot: Slot, holder: Any, gone: Tree, kept: Tree | None, top: bool) -> None:
    name = slot.name
    if slot.sort is Sort.VALUE:
        if kept is None:
            holder.ClearField(name)
        return
    if slot.sort is Sort.MESSAGE:
        if not holder.HasField(name):
            return
        if kept is None and not top:
            holder.ClearField(name)
            return
        inner = getattr(holder, name)
        _remove(slot.below, inner, gone, kept or {})
        if kept is None and not inner.ListFields():
            holder.ClearField(name)
        return
    value = getattr(holder, name)
    kept = kept or {}
    if slot.sort in (Sort.MAP, Sort.MESSAGE_MAP):
        for key, below in gone.items():
            entry = key[2:]
            if key == SELF or entry not in value:
                continue
            if key not in kept:
                del value[entry]
            elif slot.sort is Sort.MESSAGE_MAP:
                _remove(slot.below, value[entry], below, kept[key])
        return
    if slot.sort is Sort.SET:
        stay = [one for one in value if value_text(one) in kept or value_text(one) not in gone]
        if len(stay) < len(value):
            del value[:]
            value.extend(stay)
        return
    for index in range(len(value) - 1, -1, -1):
        key = slot.element_key(value[index])
        below = gone.get(key)
        if below is None:
            continue
        if key not in kept:
            del value[index]
        else:
            # What tells it from the others stays as long as it does.
            own = {SELF, *(merge_key.key for merge_key, _ in slot.merge_keys)}
            less = {one: rest for one, rest in below.items() if one not in own}
            _remove(slot.below, value[index], less, kept[key])


def _read(message: Any) -> list[_Entry]:
    return [
        _Entry(
            stored.manager,
            stored.operation,
            stored.subresource,
            fieldset.parse(stored.fields_v1.raw),
            stored,
        )
        for stored in message.metadata.managed_fields
    ]


def _write(kind: Kind, message: Any, entries: Iterable[_Entry], time: float) -> None:
    """Sets managedFields; entries that have not changed stay as they were stored."""
    # What is stored may be of this very message: all is made before it is cleared.
    fresh = type(message.metadata)()
    for entry in entries:
        if not entry.fields:
            continue
        one = fresh.managed_fields.add()
        if entry.stored is not None:
            one.CopyFrom(entry.stored)
        else:
            raw = fieldset.dump(entry.fields)
            _fill(one, kind, entry.manager, entry.operation, entry.subresource, raw, time)
    message.metadata.ClearField("managed_fields")
    message.metadata.managed_fields.MergeFrom(fresh.managed_fields)


def _fill(
    stored: Any,
    kind: Kind,
    manager: str,
    operation: str,
    subresource: str,
    raw: bytes,
    time: float,
) -> None:
    stored.manager = manager
    stored.operation = operation
    stored.api_version = kind.api_version
    stored.time.seconds = int(time)
    stored.fields_type = "FieldsV1"
    stored.fields_v1.raw = raw
    if subresource:
        stored.subresource = subresource


def _in_old_order(before: list[_Entry], after: list[_Entry]) -> list[_Entry]:
    places = {entry.identity: place for place, entry in enumerate(before)}
    return sorted(after, key=lambda entry: places.get(entry.identity, len(places)))


def _capped(entries: list[_Entry]) -> list[_Entry]:
    writers = [entry for entry in entries if entry.operation == UPDATE and entry.fields]
    if len(writers) <= MOST_WRITERS:
        return entries
    # An entry without stored form has just been written; the others are as old as they say.
    writers.sort(key=lambda entry: (entry.stored is None, _seconds(entry)))
    oldest = writers[: len(writers) - MOST_WRITERS + 1]
    fields: Tree = {}
    for entry in oldest:
        fields = fieldset.union(fields, entry.fields)
    rest = [entry for entry in entries if entry not in oldest]
    return [_Entry(ANCIENT, UPDATE, "", fields), *rest]


def _seconds(entry: _Entry) -> int:
    return int(entry.stored.time.seconds) if entry.stored is not None else 0


def _template(new: Any) -> bytes:
    """FieldsV1 of a new object. What objects of one template have in common is worked out once."""
    layout = layout_of(new.DESCRIPTOR)
    pieces: list[tuple[str, bytes]] = []
    for field, value in new.ListFields():
        slot = layout.by_name.get(field.name)
        if slot is None:
            continue
        if slot.sort is Sort.INLINE:
            return fieldset.dump(fieldset.gather(layout, new))
        if slot.name == "metadata":
            owned = [
                (one.key, _text(one, inner))
                for inner_field, inner in value.ListFields()
                if (one := slot.below.by_name.get(inner_field.name)) is not None
            ]
            if owned:
                # It is there in every object, and nobody's.
                pieces.append((slot.key, _joined(owned)))
        else:
            pieces.append((slot.key, _text(slot, value)))
    return _joined(pieces)


def _joined(pieces: list[tuple[str, bytes]]) -> bytes:
    pieces.sort()
    return b"{%b}" % b",".join([b'"%b":%b' % (key.encode(), text) for key, text in pieces])


def _text(slot: Slot, value: Any) -> bytes:
    """FieldsV1 of one field."""
    if slot.sort is Sort.VALUE:
        return b"{}"
    if slot.sort is Sort.MAP:
        keys = tuple(value)
        small = sum(map(len, keys)) <= _KEYS_LETTERS
        return _keys_text(keys) if small else fieldset.dump(fieldset.gather_field(slot, value))
    if slot.sort is Sort.MESSAGE:
        content = value.SerializeToString(deterministic=True)
    elif slot.sort is Sort.KEYED:
        content = b"".join([b"%d:%b" % (len(one), one) for one in map(_bytes, value)])
    else:
        return fieldset.dump(fieldset.gather_field(slot, value))
    # By digest: contents may be secret, and are not to be kept.
    digest = blake2b(content, digest_size=16).digest()
    known = _parts.get((slot, digest))
    if known is None:
        known = fieldset.dump(fieldset.gather_field(slot, value))
        if len(known) > _TEMPLATE_BYTES:
            return known
        if len(_parts) >= _TEMPLATES:
            _parts.popitem(last=False)
        _parts[slot, digest] = known
    return known


def _bytes(message: Any) -> bytes:
    made: bytes = message.SerializeToString(deterministic=True)
    return made


@functools.lru_cache(maxsize=_TEMPLATES)
def _keys_text(keys: tuple[str, ...]) -> bytes:
    """FieldsV1 of a map with these keys."""
    return fieldset.dump({f"f:{key}": LEAF for key in keys})


_parts: OrderedDict[tuple[Slot, bytes], bytes] = OrderedDict()
