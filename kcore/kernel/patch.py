"""Patches: some fields of an object changed.

`patch(kind, live, request, codec)` answers with the changed object. A Merge carries an object and a
mask and needs nothing else. The three patches in JSON (RFC 7386, RFC 6902, Kubernetes' strategic
merge) are worked out on JSON, but only what they change is written into the message: fields that
JSON can't show stay as they are. JSON is turned into messages by a `Codec` that the composition
root passes in; without one they are UNIMPLEMENTED.

Knows layouts, no kind.
"""

import copy
import json
from collections.abc import Mapping
from typing import Any, Final, NoReturn, Protocol

from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.kernel import mask
from kcore.kernel.apply import Kind
from kcore.kernel.layout import PLAIN, Layout, Slot, Sort, layout_of
from kcore.wire.errors import ApiError, Reason, Violation

# Operations in one RFC 6902 patch.
_MOST_OPERATIONS: Final = 10_000
# Levels of a patch, and of what it makes; values that its copies bring.
_DEPTH: Final = 100
_COPIED_VALUES: Final = 100_000
_COPIED_LETTERS: Final = 2 << 20
_DIRECTIVE: Final = "$patch"
_RETAIN: Final = "$retainKeys"
_ORDER: Final = "$setElementOrder/"
_DELETE_VALUES: Final = "$deleteFromPrimitiveList/"


class Codec(Protocol):
    """Messages as plain values of Kubernetes' JSON, and back."""

    def to_plain(self, message: Any) -> dict[str, Any]:
        """The message as a dict."""
        ...

    def from_plain(self, descriptor: Any, plain: Mapping[str, Any]) -> Any:
        """The message of a dict; ApiError INVALID with every violation."""
        ...


def patch(kind: Kind, live: Any, request: pb.Patch, codec: Codec | None = None) -> Any:
    """The object as it is with the patch; `live` is left alone."""
    which = request.WhichOneof("patch")
    if which is None:
        raise _refused("patch", "a patch must say how")
    new = kind.message()
    new.CopyFrom(live)
    if which == "merge":
        _merge(kind, new, request.merge)
        return new
    if codec is None:
        said = f"patches of type {which} are not served here"
        raise ApiError(Reason.UNIMPLEMENTED, said)
    said = getattr(request, which)
    try:
        given = json.loads(said, object_pairs_hook=_no_doubles, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _refused("patch", f"it is not JSON: {error}") from None
    _weigh(given, len(said), len(said), 0, "patch")
    layout = layout_of(kind.message.DESCRIPTOR)
    if which == "json_merge":
        if not isinstance(given, dict):
            raise _refused("patch", "a merge patch is an object")
        changes = given
    else:
        before = codec.to_plain(live)
        if which == "json":
            after = _operate(copy.deepcopy(before), given)
        else:
            if not isinstance(given, dict):
                raise _refused("patch", "a strategic merge patch is an object")
            after = _strategic(layout, before, given)
        if not isinstance(after, dict):
            raise _refused("patch", "what it leaves is not an object")
        changes = _difference(before, after)
    for name in ("apiVersion", "kind"):
        # The codec judges them; they are no fields of the message.
        if changes.get(name, "") is None:
            raise _refused(name, "it must stay")
    values = codec.from_plain(kind.message.DESCRIPTOR, _without_nulls(changes))
    _write(layout, new, changes, values)
    return new


def _merge(kind: Kind, new: Any, request: pb.Merge) -> None:
    if not request.mask.paths:
        raise _refused("merge.mask", "a merge must say which fields it is about")
    tree = mask.compile_mask(kind.message.DESCRIPTOR, request.mask.paths)
    mask.merge(kind.message.FromString(request.object), new, tree)


def _without_nulls(changes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _without_nulls(value) if isinstance(value, dict) else value
        for name, value in changes.items()
        if value is not None
    }


def _write(layout: Layout, target: Any, changes: Mapping[str, Any], values: Any) -> None:
    """RFC 7386 on a message: `values` is what `changes` says but for its nulls."""
    for name, change in changes.items():
        slot = layout.by_json(name)
        if slot is None:
            # The codec has refused what it does not know; the rest is apiVersion and kind.
            continue
        if change is None:
            if all(_has(target, slot.route[:length]) for length in range(1, len(slot.route) + 1)):
                slot.holder(target).ClearField(slot.name)
            continue
        holder = slot.holder(target)
        source = slot.holder(values)
        if slot.message and isinstance(change, dict):
            inner = getattr(holder, slot.name)
            inner.SetInParent()
            _write(slot.below, inner, change, getattr(source, slot.name))
        elif slot.map and isinstance(change, dict):
            kept, given = getattr(holder, slot.name), getattr(source, slot.name)
            for text, value in change.items():
                if value is None:
                    kept.pop(text, None)
                elif slot.descriptor is None:
                    kept[text] = given[text]
                elif slot.descriptor.full_name in PLAIN:
                    kept[text].CopyFrom(given[text])
                else:
                    kept[text].SetInParent()
                    _write(slot.below, kept[text], value, given[text])
        else:
            _replace(slot, holder, source)


def _replace(slot: Slot, holder: Any, source: Any) -> None:
    holder.ClearField(slot.name)
    value = getattr(source, slot.name)
    if slot.repeated:
        getattr(holder, slot.name).MergeFrom(value)
    elif slot.descriptor is not None:
        getattr(holder, slot.name).CopyFrom(value)
    else:
        setattr(holder, slot.name, value)


def _has(message: Any, route: tuple[str, ...]) -> bool:
    for step in route[:-1]:
        message = getattr(message, step)
    return bool(message.HasField(route[-1]))


def _difference(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """The merge patch that makes `after` of `before`."""
    changes: dict[str, Any] = {}
    for name, value in after.items():
        was = before.get(name)
        if value is None:
            if was is not None:
                changes[name] = None
        elif was is None:
            changes[name] = value
        elif isinstance(value, dict) and isinstance(was, dict):
            below = _difference(was, value)
            if below:
                changes[name] = below
        elif _differs(was, value):
            changes[name] = value
    for name, was in before.items():
        if name not in after and was is not None:
            changes[name] = None
    return changes


def _differs(one: Any, other: Any) -> bool:
    """JSON tells true from 1, which Python does not."""
    return bool(one != other) or json.dumps(one, sort_keys=True) != json.dumps(
        other, sort_keys=True
    )


# -- RFC 6902 --------------------------------------------------------------------------------------


def _operate(document: Any, operations: Any) -> Any:
    if not isinstance(operations, list):
        raise _refused("patch", "a JSON patch is a list of operations")
    if len(operations) > _MOST_OPERATIONS:
        raise _refused("patch", f"it has more than {_MOST_OPERATIONS} operations")
    values, letters = _COPIED_VALUES, _COPIED_LETTERS
    for index, operation in enumerate(operations):
        where = f"patch[{index}]"
        if not isinstance(operation, dict):
            raise _refused(where, "an operation is an object")
        if operation.get("op") in ("copy", "move"):
            # A copy of copies doubles with each step.
            source = _look(document, _pointer(operation, "from", where), where)
            below = len(_pointer(operation, "path", where))
            values, letters = _weigh(source, values, letters, below, where)
        document = _operate_one(document, operation, where)
    return document


def _weigh(value: Any, values: int, letters: int, depth: int, where: str) -> tuple[int, int]:
    """What is left of so many values and letters; refuses what is more, or deeper."""
    waiting = [(value, depth)]
    while waiting:
        one, depth = waiting.pop()
        values -= 1
        if depth > _DEPTH:
            raise _refused(where, f"it is nested deeper than {_DEPTH} levels")
        if isinstance(one, str):
            letters -= len(one)
        elif isinstance(one, dict):
            letters -= sum(map(len, one))
            waiting += [(inner, depth + 1) for inner in one.values()]
        elif isinstance(one, list):
            waiting += [(inner, depth + 1) for inner in one]
        if values < len(waiting) or letters < 0:
            raise _refused(where, "its copies make the object too large")
    return values, letters


def _operate_one(document: Any, operation: dict[str, Any], where: str) -> Any:
    what = operation.get("op")
    path = _pointer(operation, "path", where)
    if what in ("add", "replace", "test") and "value" not in operation:
        raise _refused(where, f"{what} needs a value")
    if what == "add":
        return _add(document, path, copy.deepcopy(operation["value"]), where)
    if what == "remove":
        return _take(document, path, where)[0]
    if what == "replace":
        # What is not there can't be replaced.
        if not path:
            return copy.deepcopy(operation["value"])
        holder, last = _holder(document, path, where)
        holder[last] = copy.deepcopy(operation["value"])
        return document
    if what in ("move", "copy"):
        source = _pointer(operation, "from", where)
        if what == "copy":
            value = copy.deepcopy(_look(document, source, where))
        else:
            if path[: len(source)] == source and len(path) > len(source):
                raise _refused(where, "nothing can be moved into itself")
            document, value = _take(document, source, where)
        return _add(document, path, value, where)
    if what == "test":
        if _differs(_look(document, path, where), operation["value"]):
            said = f"{operation['path']} is not what the test says"
            raise ApiError(Reason.INVALID, f"{where}: {said}", [Violation(where, said)])
        return document
    raise _refused(where, f"unknown operation {what!r}")


def _pointer(operation: dict[str, Any], name: str, where: str) -> list[str]:
    text = operation.get(name)
    if not isinstance(text, str) or (text and not text.startswith("/")):
        raise _refused(where, f'{name} must be a JSON pointer, such as "/spec/replicas"')
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _look(document: Any, path: list[str], where: str) -> Any:
    for part in path:
        document = document[_step(document, part, where)]
    return document


def _step(document: Any, part: str, where: str) -> Any:
    """The key or index that leads on; it must be there."""
    if isinstance(document, dict):
        if part in document:
            return part
    elif isinstance(document, list):
        index = _index(part, where)
        if index < len(document):
            return index
    raise _refused(where, f'there is no "{part}"')


def _index(part: str, where: str) -> int:
    if not part.isascii() or not part.isdigit() or (part != "0" and part.startswith("0")):
        raise _refused(where, f'"{part}" is not the index of an element')
    # Longer ones than any list has are all the same.
    return int(part[:10])


def _holder(document: Any, path: list[str], where: str) -> tuple[Any, Any]:
    holder = _look(document, path[:-1], where)
    return holder, _step(holder, path[-1], where)


def _add(document: Any, path: list[str], value: Any, where: str) -> Any:
    if not path:
        return value
    holder = _look(document, path[:-1], where)
    part = path[-1]
    if isinstance(holder, dict):
        holder[part] = value
    elif isinstance(holder, list):
        index = len(holder) if part == "-" else _index(part, where)
        if index > len(holder):
            raise _refused(where, f"there is no element {part}")
        holder.insert(index, value)
    else:
        raise _refused(where, f'there is nothing to add "{part}" to')
    return document


def _take(document: Any, path: list[str], where: str) -> tuple[Any, Any]:
    if not path:
        return None, document
    holder, last = _holder(document, path, where)
    return document, holder.pop(last)


# -- strategic merge -------------------------------------------------------------------------------


def _strategic(
    layout: Layout | None, before: dict[str, Any], given: dict[str, Any]
) -> dict[str, Any]:
    """The dict with a strategic merge patch."""
    directive = given.get(_DIRECTIVE)
    if directive == "replace":
        return {name: value for name, value in given.items() if name != _DIRECTIVE}
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise _refused(_DIRECTIVE, f"unknown directive {directive!r}")
    after = dict(before)
    retained = given.get(_RETAIN)
    if retained is not None:
        if not isinstance(retained, list):
            raise _refused(_RETAIN, "it is a list of names")
        after = {name: value for name, value in after.items() if name in retained}
    for name, value in given.items():
        if name in (_DIRECTIVE, _RETAIN) or name.startswith((_ORDER, _DELETE_VALUES)):
            continue
        slot = layout.by_json(name) if layout is not None else None
        if value is None:
            after.pop(name, None)
        elif isinstance(value, dict):
            was = after.get(name)
            after[name] = _strategic(_below(slot), was if isinstance(was, dict) else {}, value)
        elif isinstance(value, list) and slot is not None:
            was = after.get(name)
            after[name] = _strategic_list(slot, was if isinstance(was, list) else [], value)
        else:
            after[name] = value
    for name, value in given.items():
        if name.startswith(_DELETE_VALUES) and isinstance(value, list):
            field = name.removeprefix(_DELETE_VALUES)
            after[field] = [one for one in after.get(field, ()) if one not in value]
    for name, value in given.items():
        if name.startswith(_ORDER) and isinstance(value, list) and layout is not None:
            field = name.removeprefix(_ORDER)
            slot = layout.by_json(field)
            if slot is not None and isinstance(after.get(field), list):
                after[field] = _ordered(slot, after[field], value)
    return after


def _below(slot: Slot | None) -> Layout | None:
    if slot is None or slot.descriptor is None or slot.map:
        # A map's keys are no fields.
        return None
    return slot.below


def _strategic_list(slot: Slot, before: list[Any], given: list[Any]) -> list[Any]:
    if slot.sort is Sort.SET:
        return before + [one for one in given if one not in before]
    if slot.sort is not Sort.KEYED:
        return given
    if any(not isinstance(one, dict) for one in given):
        raise _refused(slot.json_name, "its elements are objects")
    directives = [one.get(_DIRECTIVE) for one in given]
    if "replace" in directives:
        return [one for one in given if one.get(_DIRECTIVE) != "replace" or len(one) > 1]
    after = list(before)
    for one in given:
        key = slot.plain_key(one)
        at = next(
            (
                index
                for index, known in enumerate(after)
                if isinstance(known, dict) and slot.plain_key(known) == key
            ),
            None,
        )
        if one.get(_DIRECTIVE) == "delete":
            if at is not None:
                del after[at]
        elif at is None:
            after.append(_strategic(slot.below, {}, one))
        else:
            after[at] = _strategic(slot.below, after[at], one)
    return after


def _ordered(slot: Slot, elements: list[Any], order: list[Any]) -> list[Any]:
    """The elements in this order; those that it does not name stay behind the one before them."""

    def key_of(element: Any) -> str:
        if slot.sort is Sort.KEYED and isinstance(element, dict):
            return slot.plain_key(element)
        return json.dumps(element, sort_keys=True)

    places = {key_of(one): place for place, one in enumerate(order)}
    ranked: list[tuple[int, Any]] = []
    last = -1
    for element in elements:
        place = places.get(key_of(element))
        last = last if place is None else place
        ranked.append((last, element))
    return [element for _, element in sorted(ranked, key=lambda one: one[0])]


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f'"{name}" is there twice')
        found[name] = value
    return found


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


def _refused(path: str, said: str) -> ApiError:
    return ApiError(Reason.INVALID, f"invalid patch: {path}: {said}", [Violation(path, said)])
