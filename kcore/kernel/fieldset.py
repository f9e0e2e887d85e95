"""Field sets: which fields, as trees of FieldsV1's shape.

{"f:spec": {"f:replicas": {}, "f:containers": {'k:{"name":"web"}': {".": {}, "f:image": {}}}}}: a
path is in the set where its tree is empty or has "."; below it stand longer paths. `gather` gives
the set of what is set in a message, `compare` what differs between two, `union`, `difference` and
`intersection` are what they are of sets.

Trees are shared and cached, and must not be changed. Pure; knows layouts, no kind.
"""

import functools
import json
from collections.abc import Iterator
from typing import Any, Final

from kcore.kernel.layout import Layout, Slot, Sort, layout_of, value_text
from kcore.wire import quantity

Tree = dict[str, Any]

LEAF: Final[Tree] = {}
SELF: Final = "."


@functools.lru_cache(maxsize=2048)
def parse(raw: bytes) -> Tree:
    """The set that FieldsV1's text says."""
    tree: Tree = json.loads(raw) if raw else {}
    return tree


def dump(tree: Tree) -> bytes:
    """The set as FieldsV1's text."""
    return json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def gather(layout: Layout, message: Any) -> Tree:
    """The fields that are set in a message."""
    tree: Tree = {}
    by_name = layout.by_name
    for field, value in message.ListFields():
        slot = by_name.get(field.name)
        if slot is None:
            continue
        sort = slot.sort
        if sort is Sort.VALUE:
            tree[slot.key] = LEAF
        elif sort is Sort.INLINE:
            tree.update(gather(slot.below, value))
        else:
            tree[slot.key] = gather_field(slot, value)
    return tree


def gather_field(slot: Slot, value: Any) -> Tree:
    """The fields that are set in one field."""
    sort = slot.sort
    if sort is Sort.MESSAGE:
        return gather(slot.below, value)
    if sort is Sort.MAP:
        return {f"f:{key}": LEAF for key in value}
    if sort is Sort.MESSAGE_MAP:
        below = slot.below
        return {f"f:{key}": gather(below, value[key]) for key in value}
    if sort is Sort.KEYED:
        below = slot.below
        tree: Tree = {}
        for element in value:
            tree[slot.element_key(element)] = {SELF: LEAF, **gather(below, element)}
        return tree
    if sort is Sort.SET:
        return {value_text(element): LEAF for element in value}
    return LEAF


def gather_plain(layout: Layout, plain: dict[str, Any]) -> Tree:
    """The fields that are set in an object given in JSON; what is not of its type is left out."""
    tree: Tree = {}
    for name, value in plain.items():
        slot = layout.by_key.get(f"f:{name}")
        if slot is None or value is None:
            continue
        sort = slot.sort
        if sort is Sort.MESSAGE and isinstance(value, dict):
            tree[slot.key] = gather_plain(slot.below, value)
        elif sort is Sort.MAP and isinstance(value, dict):
            tree[slot.key] = {f"f:{key}": LEAF for key in value}
        elif sort is Sort.MESSAGE_MAP and isinstance(value, dict):
            tree[slot.key] = {
                f"f:{key}": gather_plain(slot.below, one)
                for key, one in value.items()
                if isinstance(one, dict)
            }
        elif sort is Sort.KEYED and isinstance(value, list):
            tree[slot.key] = {
                slot.plain_key(one): {SELF: LEAF, **gather_plain(slot.below, one)}
                for one in value
                if isinstance(one, dict)
            }
        elif sort is Sort.SET and isinstance(value, list):
            tree[slot.key] = {value_text(one): LEAF for one in value}
        else:
            tree[slot.key] = LEAF
    return tree


def compare(layout: Layout, old: Any, new: Any) -> tuple[Tree, Tree]:
    """What is in `new` and was not so in `old`, and what was in `old` and is not in `new`.

    The order of lists is not looked at; quantities are compared by value.
    """
    changed: Tree = {}
    removed: Tree = {}
    before = {field.name: value for field, value in old.ListFields()}
    for field, value in new.ListFields():
        name = field.name
        was = before.pop(name, None)
        slot = layout.by_name.get(name)
        if slot is None:
            continue
        if was is None:
            if slot.sort is Sort.INLINE:
                changed.update(gather(slot.below, value))
            else:
                changed[slot.key] = LEAF if slot.sort is Sort.VALUE else gather_field(slot, value)
        elif was != value:
            if slot.sort is Sort.INLINE:
                more, less = compare(slot.below, was, value)
                changed.update(more)
                removed.update(less)
                continue
            added, gone = _compare_field(slot, was, value)
            if added is not None:
                changed[slot.key] = added
            if gone is not None:
                removed[slot.key] = gone
    for name, was in before.items():
        slot = layout.by_name.get(name)
        if slot is None:
            continue
        if slot.sort is Sort.INLINE:
            removed.update(gather(slot.below, was))
        else:
            removed[slot.key] = LEAF if slot.sort is Sort.VALUE else gather_field(slot, was)
    return changed, removed


def _compare_field(slot: Slot, was: Any, now: Any) -> tuple[Tree | None, Tree | None]:
    """As `compare`, of a field that is set in both; None: nothing."""
    sort = slot.sort
    if sort is Sort.VALUE:
        same = slot.quantity and same_quantity(was.string, now.string)
        return (None if same else LEAF), None
    if sort is Sort.MESSAGE:
        more, less = compare(slot.below, was, now)
        # An empty message is set all the same: what was taken from it leaves it there.
        return more or None, less or None
    changed: Tree = {}
    removed: Tree = {}
    before = _elements(slot, was)
    after = _elements(slot, now)
    for key, values in after.items():
        old = before.get(key)
        if old is None:
            changed[key] = _gather_element(slot, values)
        elif len(old) == 1 and len(values) == 1:
            if old[0] != values[0]:
                if sort in (Sort.KEYED, Sort.MESSAGE_MAP):
                    more, less = compare(slot.below, old[0], values[0])
                    if more:
                        changed[key] = more
                    if less:
                        removed[key] = less
                elif not (slot.quantity and same_quantity(old[0].string, values[0].string)):
                    changed[key] = LEAF
        elif old != values:
            # Several elements of one key can't be told apart.
            changed[key] = _gather_element(slot, values)
    for key, old in before.items():
        if key not in after:
            removed[key] = _gather_element(slot, old)
    return changed or None, removed or None


def _elements(slot: Slot, value: Any) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    if slot.sort is Sort.KEYED:
        for element in value:
            found.setdefault(slot.element_key(element), []).append(element)
    elif slot.sort is Sort.SET:
        for element in value:
            found.setdefault(value_text(element), [element])
    else:
        for key in value:
            found[f"f:{key}"] = [value[key]]
    return found


def _gather_element(slot: Slot, values: list[Any]) -> Tree:
    if slot.sort is Sort.KEYED:
        tree: Tree = {SELF: LEAF}
        for value in values:
            tree = union(tree, gather(slot.below, value))
        return tree
    if slot.sort is Sort.MESSAGE_MAP:
        return gather(slot.below, values[0])
    return LEAF


def same_quantity(one: str, other: str) -> bool:
    """Whether two amounts are the same value."""
    if one == other:
        return True
    try:
        return quantity.parse(one) == quantity.parse(other)
    except ValueError:
        return False


def union(one: Tree, other: Tree) -> Tree:
    """What is in either."""
    if one is other or not other:
        return one if one or not other else other
    return _union(one, other, False)


def _union(one: Tree, other: Tree, inner: bool) -> Tree:
    if inner and not one and not other:
        return LEAF
    tree = dict(one)
    for key, below in other.items():
        mine = tree.get(key)
        if mine is None:
            tree[key] = below
        elif mine is not below and mine != below:
            tree[key] = _union(mine, below, True)
    if inner and (not one or not other) and tree:
        tree[SELF] = LEAF
    return tree


def difference(one: Tree, other: Tree) -> Tree:
    """What is in `one` and not in `other`."""
    tree: Tree = {}
    for key, mine in one.items():
        theirs = other.get(key)
        if theirs is None:
            tree[key] = mine
            continue
        if key == SELF:
            continue
        own = (not mine or SELF in mine) and not (not theirs or SELF in theirs)
        below = difference(mine, theirs)
        below.pop(SELF, None)
        if below and own:
            tree[key] = {SELF: LEAF, **below}
        elif below or own:
            tree[key] = below
    return tree


def intersection(one: Tree, other: Tree) -> Tree:
    """What is in both."""
    tree: Tree = {}
    for key, mine in one.items():
        theirs = other.get(key)
        if theirs is None:
            continue
        if key == SELF:
            tree[key] = LEAF
            continue
        both = (not mine or SELF in mine) and (not theirs or SELF in theirs)
        below = intersection(mine, theirs)
        below.pop(SELF, None)
        if below and both:
            tree[key] = {SELF: LEAF, **below}
        elif below or both:
            tree[key] = below
    return tree


def includes(one: Tree, other: Tree) -> bool:
    """Whether all of `other` is in `one`."""
    for key, theirs in other.items():
        mine = one.get(key)
        if mine is None:
            return False
        if mine is theirs or key == SELF:
            continue
        if (not theirs or SELF in theirs) and not (not mine or SELF in mine):
            return False
        if theirs and not includes(mine, {k: v for k, v in theirs.items() if k != SELF}):
            return False
    return True


def meets(one: Tree, other: Tree) -> bool:
    """Whether anything is in both."""
    for key, mine in one.items():
        theirs = other.get(key)
        if theirs is None:
            continue
        if key == SELF:
            return True
        if (not mine or SELF in mine) and (not theirs or SELF in theirs):
            return True
        if meets(mine, theirs):
            return True
    return False


def paths(layout: Layout, tree: Tree, before: str = "") -> Iterator[str]:
    """The set's paths in words: `spec.containers[name="web"].image`, `metadata.labels[app]`."""
    for key, below in sorted(tree.items()):
        if key == SELF:
            continue
        slot = layout.by_key.get(key)
        name = f"{before}.{key[2:]}" if before else key[2:]
        if slot is None or slot.sort is Sort.VALUE:
            yield name
            continue
        if not below or SELF in below:
            yield name
        if slot.sort is Sort.MESSAGE:
            yield from paths(slot.below, below, name)
            continue
        for element, rest in sorted(below.items()):
            if element == SELF:
                continue
            place = f"{name}[{_element_text(element)}]"
            if not rest or (SELF in rest and len(rest) == 1):
                yield place
            elif slot.descriptor is not None:
                yield from paths(layout_of(slot.descriptor), rest, place)


def _element_text(key: str) -> str:
    if key.startswith("k:"):
        values = json.loads(key[2:])
        return ",".join(f"{name}={json.dumps(value)}" for name, value in values.items())
    return key[2:]
