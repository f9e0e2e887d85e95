"""Admission of one object: read it, complete it, check it. What is checked is what is stored.

`parse` reads a writer's bytes, `refuse_unknown` judges what the kind does not have; `complete`
applies what the kind's admission function and defaults imply; `check` finds all violations at once,
of those parts that have changed. Pure; knows no kind.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

from google.protobuf import unknown_fields
from google.protobuf.message import DecodeError

from kcore.kernel import format, path, shape
from kcore.kernel.constraint import Found
from kcore.kernel.schema import Kind
from kcore.wire.errors import ApiError, Reason, Violation, invalid

OBJECT_BYTES: Final = 3 << 19  # 1.5 MiB
_LONG_BYTES: Final = 2 * shape.MOST_ELEMENTS

# read(kind, namespace, name): another object as it is in this transaction.
Read = Callable[[str, str, str], Any]
# admit(obj, old, read) changes `obj` in place and returns what it must refuse.
Admit = Callable[[Any, Any, Read], list[Violation] | None]
# leave(obj, others, time) changes `obj`, which is to be deleted, in place, and returns the other
# objects that change with it; others(kind, namespace): all that there are in this transaction.
Leave = Callable[[Any, Callable[[str, str], Iterator[Any]], float], list[Any]]

# Finalizers without a domain that mean something.
_KNOWN_FINALIZERS: Final = frozenset(("orphan", "foregroundDeletion", "kubernetes"))


def parse(kind: Kind, data: bytes) -> Any:
    """The message that a writer sent."""
    if len(data) > OBJECT_BYTES:
        raise too_large(kind, len(data))
    try:
        return kind.parse(data)
    except DecodeError as error:
        said = f"the object is not a {kind.name}: {error}"
        raise ApiError(Reason.INVALID, said) from None


def refuse_unknown(kind: Kind, message: Any, data: bytes, old: Any = None) -> None:
    """Refuses field numbers that the kind does not have; those that `old` has may come back.

    `message` is what `data` says.
    """
    size = message.ByteSize()
    message.DiscardUnknownFields()
    if message.ByteSize() == size:
        return
    message.Clear()
    message.MergeFromString(data)
    known = set(_unknown(old, "")) if old is not None else set()
    violations = [
        Violation(one[0], f"unknown field number {one[1]}")
        for one in _unknown(message, "")
        if one not in known
    ]
    if violations:
        raise invalid(kind.subject(message.metadata.name), violations)


def too_large(kind: Kind, size: int) -> ApiError:
    """The error for an object over the limit."""
    said = f"{kind.short_name} is too large: {size} bytes, at most {OBJECT_BYTES} are allowed"
    return ApiError(Reason.EXHAUSTED, said)


def complete(
    kind: Kind, new: Any, old: Any, admit: Admit | None, read: Read
) -> tuple[list[Violation], frozenset[str]]:
    """Fills in what the object implies, in place.

    Answers with what the admission function refuses, and the names of the top-level fields that
    differ from the old object. What does not differ is complete already.
    """
    # Small objects have no long lists.
    if new.ByteSize() > _LONG_BYTES and (crowded := list(shape.crowded(kind.top, new))):
        raise invalid(kind.subject(new.metadata.name), [Violation(*one) for one in crowded])
    refused = (admit(new, old, read) if admit is not None else None) or []
    changed = kind.field_names if old is None else changed_fields(kind, new, old)
    shape.fill_top(kind.top, new, changed)
    for part in kind.parts:
        if part.name in changed:
            part.fill(new)
    shape.clear_write_only(kind.top, new)
    return refused, changed if old is None else changed_fields(kind, new, old)


def changed_fields(kind: Kind, new: Any, old: Any) -> frozenset[str]:
    """Names of the top-level fields that differ."""
    changed = []
    for name, has_presence in kind.presence:
        came_or_went = has_presence and new.HasField(name) != old.HasField(name)
        if came_or_went or getattr(new, name) != getattr(old, name):
            changed.append(name)
    return frozenset(changed)


def check(
    kind: Kind, new: Any, old: Any, changed: frozenset[str]
) -> tuple[list[Violation], tuple[str, ...]]:
    """All violations in the fields that have changed: what was stored is not judged anew.

    And the places of what is stored but not acted on, as far as the writer has newly set it.
    """
    found: Found = []
    bound: Any = None

    def activation() -> Any:
        nonlocal bound
        if bound is None:
            bound = kind.bind(new, old)
        return bound

    unserved: list[str] = []
    shape.check_top(kind.top, new, changed, found)
    for part in kind.parts:
        if part.name in changed:
            unserved += part.check(new, activation, found)
    if unserved and old is not None:
        before = frozenset(shape.inert(kind.top, old))
        unserved = [place for place in unserved if place not in before]
    if "metadata" in changed:
        _check_metadata(kind, new.metadata, old.metadata if old is not None else None, found)
    if old is not None:
        _check_immutable(kind, new, old, changed, found)
    for rule in kind.rules:
        condition = rule.condition
        if old is None and condition.uses_old:
            continue
        if condition.parts is not None and condition.parts.isdisjoint(changed):
            continue
        if condition.idle_without is not None and not getattr(new, condition.idle_without):
            continue
        held = condition.holds(activation())
        if held is not True:
            words = rule.message_words
            said = words.says(activation()) if words is not None else rule.message
            found.append((rule.at, shape.broken(held, said)))
    return [Violation(place, said) for place, said in found], tuple(unserved)


def check_deletion(kind: Kind, old: Any) -> str:
    """Why the object may not be deleted; "" where it may."""
    for rule in kind.delete_rules:
        activation = kind.bind(old, old)
        held = rule.condition.holds(activation)
        if held is not True:
            words = rule.message_words
            said = words.says(activation) if words is not None else rule.message
            return shape.broken(held, said)
    return ""


def _check_metadata(kind: Kind, new: Any, old: Any, found: Found) -> None:
    if old is None:
        if said := kind.judge_name(new.name):
            found.append(("metadata.name", f'Invalid value: "{new.name}": {said}'))
        if kind.namespaced and (said := format.dns_label(new.namespace)):
            found.append(("metadata.namespace", f'Invalid value: "{new.namespace}": {said}'))
    controllers = 0
    for index, owner in enumerate(new.owner_references):
        controllers += owner.controller
        if owner.controller and controllers > 1:
            said = "only one owner may have controller set to true"
            found.append((f"metadata.ownerReferences[{index}].controller", said))
    finalizers = new.finalizers
    if not finalizers:
        return
    known = frozenset(old.finalizers) if old is not None else frozenset()
    for index, finalizer in enumerate(finalizers):
        place = f"metadata.finalizers[{index}]"
        if finalizer in known:
            continue
        if said := format.qualified_name(finalizer):
            found.append((place, f'Invalid value: "{finalizer}": {said}'))
        elif "/" not in finalizer and finalizer not in _KNOWN_FINALIZERS:
            said = "is neither a standard finalizer nor does it have a domain before it"
            found.append((place, f'Invalid value: "{finalizer}": {said}'))
        if old is not None and old.HasField("deletion_timestamp"):
            said = "no new finalizers can be added if the object is being deleted"
            found.append((place, f'Forbidden: {said}, found new finalizer "{finalizer}"'))


def _check_immutable(kind: Kind, new: Any, old: Any, changed: frozenset[str], found: Found) -> None:
    for one in kind.immutable:
        if one.at.fields[0].name not in changed:
            continue
        before = [value for _, value in path.values(old, one.at)]
        after = [value for _, value in path.values(new, one.at)]
        if before == after or (not before and not one.from_creation):
            continue
        if one.when is not None and one.when.holds(kind.bind(new, old)) is not True:
            continue
        if not one.excepted or not before or not after:
            found.append((one.at.text, "field is immutable"))
            continue
        frozen = [_without(kind, message, one.excepted) for message in (old, new)]
        for place in path.differences(*frozen):
            if f"{place}.".startswith(f"{one.at.text}."):
                found.append((place, "field is immutable"))


def check_exclusive(kind: Kind, new: Any, old: Any) -> Iterator[Violation]:
    """Changes by the main door of what only a subresource may write; `old` None: it is made."""
    for door in kind.subresources.values():
        if not door.exclusive:
            continue
        for at in door.paths:
            before = [value for _, value in path.values(old, at)] if old is not None else []
            if before != [value for _, value in path.values(new, at)]:
                yield Violation(at.text, f"may only be changed through {kind.plural}/{door.name}")


def _without(kind: Kind, message: Any, paths: tuple[path.Path, ...]) -> Any:
    """The object as it is to be compared: without these, metadata and status."""
    copy = kind.message()
    copy.CopyFrom(message)
    copy.ClearField("metadata")
    if kind.has_status:
        copy.ClearField("status")
    for one in paths:
        path.clear(copy, one)
    return copy


def _unknown(message: Any, where: str) -> Iterator[tuple[str, int, str]]:
    """Unknown fields at any depth: the message they are in, their number, and what they hold."""
    unknown: Any = unknown_fields.UnknownFieldSet(message)
    for field in unknown:
        yield where, field.field_number, repr(field.data)
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        place = f"{where}.{field.json_name}" if where else field.json_name
        if path.is_map(field):
            if field.message_type.fields_by_name["value"].message_type is not None:
                for key in sorted(value):
                    yield from _unknown(value[key], f"{place}[{key}]")
        elif field.is_repeated:
            for index, element in enumerate(value):
                yield from _unknown(element, f"{place}[{index}]")
        else:
            yield from _unknown(value, place)
