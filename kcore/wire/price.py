"""Price: what a CEL expression may cost, before it is evaluated.

The runtime counts iterations, and nothing else: a list that grows by copying, or a pattern that is
tried on a long text, takes seconds long before it has counted to its end. So a `Price` is made of
each compiled expression: an upper bound of the nanoseconds that it takes, given what is bound to
`self` and `old_self`. `price.dear(messages)` says why it must not be evaluated on them.

What is known of a value is its weight (bytes of text; bytes and elements of all else) and, of lists
and maps, how many elements it has. Fields that `self` leads to directly are measured; for what is
below lists the weight of the whole must do. A list's elements share its weight: a loop over them
costs what it costs on one that has all of it, and on the rest that have nothing.

The constants were measured, and rounded up. Pure; knows CEL's syntax tree, no kind.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final, NamedTuple

from kcore_api.cel.expr import checked_pb2

BUDGET_NS: Final = 10e6
# Loops in loops beyond which nobody reckons any more.
_DEPTH: Final = 6
# The runtime gives up after so many iterations, of all loops together.
_ITERATIONS: Final = 10_000
_NODE_NS: Final = 25.0
_LOOP_NS: Final = 300.0
# Copying an element into a longer list.
_COPY_NS: Final = 120.0
# Comparing two elements; two bytes of messages.
_EQUAL_NS: Final = 200.0
_MESSAGE_NS: Final = 10.0
_PYTHON_NS: Final = 5_000.0
# A pattern with so few states is an automaton that fits into memory.
_SMALL_PATTERN: Final = 16
# No two elements of a message weigh less.
_ELEMENT_BYTES: Final = 2
_LARGEST_BYTES: Final = 1 << 22

_STRING, _BYTES = 5, 6
# Functions that look at each byte once; ns per byte.
_LINEAR: Final = {
    "size": 10.0,
    "startsWith": 1.0,
    "endsWith": 1.0,
    "charAt": 20.0,
    "substring": 20.0,
    "lowerAscii": 5.0,
    "upperAscii": 5.0,
    "trim": 20.0,
    "reverse": 30.0,
    "string": 20.0,
    "bytes": 5.0,
    "int": 20.0,
    "uint": 20.0,
    "double": 20.0,
    "timestamp": 50.0,
    "duration": 50.0,
    "quantity": 200.0,
    "sum": 300.0,
    "matches_labels": 200.0,
}
_IN_PYTHON: Final = ("quantity", "sum", "matches_labels")
_ROOTS: Final = ("self", "old_self")


class _Value(NamedTuple):
    weight: float
    # Of lists and maps.
    length: float = 0.0
    # Of texts: the text, where it is a literal.
    literal: str | None = None
    # Of lists: what an element has at most, where that is known.
    element: "_Value | None" = None


class _Cost(NamedTuple):
    # Without what loops repeat, and that.
    flat: float
    loops: float
    value: _Value


_PLAIN: Final = _Value(1.0)
_NOTHING: Final = _Value(0.0)
_Names = Mapping[str, _Value]
# From the root of an expression's field to the field: ("self", "spec", "color").
_Path = tuple[str, ...]


_CALL: Final = re.compile(r"(\w+)\s*\(")


def always_cheap(text: str) -> bool:
    """Whether an expression, without its literals, is cheap whatever it is evaluated on."""
    called = _CALL.findall(text)
    return text.count("+") <= 8 and all(name in ("has", "size", "string") for name in called)


class Price:
    """What one expression may cost."""

    __slots__ = ("_expr", "_hidden", "_known", "_paths", "_types", "_worst", "free", "unbounded")

    def __init__(self, checked: bytes) -> None:
        """`checked`: a CheckedExpr."""
        whole = checked_pb2.CheckedExpr.FromString(checked)
        self._expr: Any = whole.expr
        self._types: dict[int, Any] = dict(whole.type_map)
        # Fields that are measured: whether they are text, and how they are got.
        self._paths: dict[_Path, tuple[bool, Callable[[Any], Any]]] = {}
        # Whether a loop's variable hides a root: then nothing is known of it.
        self._hidden = False
        self._collect(self._expr)
        self._known: dict[tuple[int, ...], float] = {}
        self._worst = 0.0
        # Whatever is in messages of so many bytes, it is not dear on them.
        # Whether it is dear on anything at all.
        few = [16 if text else 4 for text, _ in self._paths.values()]
        self.unbounded = self._hidden or self._reckon(64, few) > BUDGET_NS
        self.free = 0
        size = 64
        while size <= _LARGEST_BYTES and not self.unbounded:
            lengths = [size if text else size // 2 for text, _ in self._paths.values()]
            if self._reckon(size, lengths) > BUDGET_NS:
                break
            self.free, size = size, size * 8
        self._known.clear()

    def dear(self, messages: Sequence[tuple[str, Any]]) -> str:
        """Why it must not be evaluated on these, by their names; "" where it may."""
        size = sum(message.ByteSize() for _, message in messages)
        if size <= self.free:
            return ""
        found = dict(messages)
        lengths = []
        for path, (_, get) in self._paths.items():
            message = found.get(path[0])
            lengths.append(_up(len(get(message))) if message is not None else 0)
        cost = self._reckon(_up(size), lengths)
        if cost <= BUDGET_NS:
            return ""
        return (
            f"it could take {cost / 1e6:.0f} ms on an object of {size} bytes, and "
            f"{BUDGET_NS / 1e6:.0f} ms are allowed"
        )

    def _reckon(self, size: int, lengths: Sequence[int]) -> float:
        """The price for messages of this size, and these lengths of the measured fields."""
        key = (size, *lengths)
        known = self._known.get(key)
        if known is not None:
            return known
        names = {root: _Value(size, size / _ELEMENT_BYTES) for root in _ROOTS}
        for (path, (text, _)), length in zip(self._paths.items(), lengths, strict=True):
            # What a list or a map holds, nobody has weighed.
            names[".".join(path)] = _Value(length if text else size, length)
        self._worst = 0.0
        cost = self._price(self._expr, names, 0)
        # However loops are nested: the runtime stops at its limit.
        whole = cost.flat + min(cost.loops, _ITERATIONS * self._worst)
        if len(self._known) >= 256:
            self._known.clear()
        self._known[key] = whole
        return whole

    def _price(self, expr: Any, names: _Names, depth: int) -> _Cost:
        which = expr.WhichOneof("expr_kind")
        if which == "const_expr":
            text = expr.const_expr.string_value
            size = len(text.encode()) + len(expr.const_expr.bytes_value)
            return _Cost(_NODE_NS, 0.0, _Value(max(size, 1), 0.0, text))
        if which == "ident_expr":
            return _Cost(_NODE_NS, 0.0, names.get(expr.ident_expr.name, _PLAIN))
        if which == "select_expr":
            return self._select(expr, names, depth)
        if which == "comprehension_expr":
            return self._loop(expr.comprehension_expr, names, depth)
        if which == "call_expr":
            return self._call(expr, names, depth)
        if which == "list_expr":
            parts = [self._price(one, names, depth) for one in expr.list_expr.elements]
        else:
            parts = [
                self._price(part, names, depth)
                for entry in expr.struct_expr.entries
                for part in (entry.map_key, entry.value)
                if part.WhichOneof("expr_kind") is not None
            ]
        weight = 0.0 + sum(part.value.weight for part in parts) + len(parts)
        element = _most([part.value for part in parts])
        flat = sum(part.flat for part in parts) + _COPY_NS * len(parts) + _NODE_NS
        value = _Value(weight, len(parts), None, element)
        return _Cost(flat, sum(part.loops for part in parts), value)

    def _select(self, expr: Any, names: _Names, depth: int) -> _Cost:
        path = self._path(expr)
        if path is not None and path in self._paths:
            return _Cost(_NODE_NS * len(path), 0.0, names[".".join(path)])
        flat, loops, value = self._price(expr.select_expr.operand, names, depth)
        if expr.select_expr.test_only or self._is_plain(expr):
            return _Cost(flat + _NODE_NS, loops, _PLAIN)
        return _Cost(flat + _NODE_NS, loops, _Value(value.weight, value.weight / _ELEMENT_BYTES))

    def _loop(self, loop: Any, names: _Names, depth: int) -> _Cost:
        span = self._price(loop.iter_range, names, depth)
        first = self._price(loop.accu_init, names, depth)
        flat, loops = span.flat + first.flat, span.loops + first.loops
        if not span.value.length and loop.iter_range.HasField("list_expr"):
            # cel.bind: a name for a value.
            result = self._price(loop.result, {**names, loop.accu_var: first.value}, depth)
            return _Cost(flat + result.flat, loops + result.loops, result.value)
        if depth >= _DEPTH:
            return _Cost(math.inf, math.inf, _PLAIN)
        count, weight = span.value.length, span.value.weight
        heavy, light = _Value(weight, weight / _ELEMENT_BYTES), _NOTHING
        if span.value.element is not None:
            heavy = light = span.value.element

        def body(element: _Value, made: _Value) -> tuple[float, float, _Value]:
            bound = {**names, loop.iter_var: element, loop.accu_var: made}
            if loop.iter_var2:
                bound[loop.iter_var2] = element
            condition = self._price(loop.loop_condition, bound, depth + 1)
            step = self._price(loop.loop_step, bound, depth + 1)
            return condition.flat + step.flat, condition.loops + step.loops, step.value

        made = first.value
        if loop.accu_init.HasField("list_expr"):
            # It grows by what a step adds to nothing.
            most, least = body(heavy, _NOTHING)[2], body(light, _NOTHING)[2]
            added = most.weight + count * least.weight
            made = _Value(made.weight + added, made.length + count, None, most.element)
        heavy_flat, heavy_loops, _ = body(heavy, made)
        light_flat, light_loops, _ = body(light, made)
        self._worst = max(self._worst, _LOOP_NS + heavy_flat)
        loops += count * _LOOP_NS + min(count, 1.0) * (heavy_flat + heavy_loops)
        loops += max(count - 1.0, 0.0) * (light_flat + light_loops)
        result = self._price(loop.result, {**names, loop.accu_var: made}, depth)
        return _Cost(flat + result.flat, loops + result.loops, result.value)

    def _call(self, expr: Any, names: _Names, depth: int) -> _Cost:
        call = expr.call_expr
        given = [call.target, *call.args] if call.HasField("target") else list(call.args)
        parts = [self._price(one, names, depth) for one in given]
        loops = sum(part.loops for part in parts)
        flat = sum(part.flat for part in parts) + _NODE_NS
        values = [part.value for part in parts]
        cost, value = self._function(call.function, given, values)
        return _Cost(flat + cost, loops, _PLAIN if self._is_plain(expr) else value)

    def _function(
        self, name: str, given: Sequence[Any], values: Sequence[_Value]
    ) -> tuple[float, _Value]:
        """What a function costs on these values, and what it gives."""
        weight = sum(value.weight for value in values)
        count = sum(value.length for value in values)
        first = values[0] if values else _PLAIN
        if name == "_?_:_":
            return 0.0, _most(values[1:])
        if name == "_+_":
            if self._is_plain(given[0]):
                return 0.0, _PLAIN
            cost = count * _COPY_NS if not self._is_text(given[0]) else weight
            return cost, _Value(weight, count, None, _shared(values))
        if name in ("_==_", "_!=_"):
            least = min(values, key=lambda value: value.weight)
            if any(map(self._is_plain, given)):
                return 0.0, _PLAIN
            if self._is_text(given[0]):
                return least.weight, _PLAIN
            return least.length * _EQUAL_NS + least.weight * _MESSAGE_NS, _PLAIN
        if name == "@in":
            several = self._type(given[1]).WhichOneof("type_kind") != "map_type"
            return values[1].length * _EQUAL_NS if several else 0.0, _PLAIN
        if name == "matches":
            return first.weight * _per_byte(values[1]), _PLAIN
        if name in ("contains", "indexOf", "lastIndexOf"):
            return first.weight * (5.0 + values[1].weight), _PLAIN
        if name == "replace":
            size = (first.weight + 1.0) * (values[2].weight + 1.0)
            return first.weight * (250.0 + values[1].weight) + 8.0 * size, _Value(size)
        if name == "split":
            return first.weight * 300.0, _Value(2.0 * first.weight + 1.0, first.weight + 1.0)
        if name == "join":
            between = values[1].weight if len(values) > 1 else 0.0
            size = first.weight + first.length * between
            return first.length * 100.0 + 2.0 * size, _Value(size)
        if name == "format":
            return 100.0 * weight, _Value(4.0 * weight)
        if name == "size" and not self._is_text(given[0]):
            return 0.0, _PLAIN
        if name in ("_[_]", "_?._", "_[?_]"):
            return 0.0, _Value(first.weight, first.weight / _ELEMENT_BYTES)
        python = _PYTHON_NS if name in _IN_PYTHON else 0.0
        return python + weight * _LINEAR.get(name, _NODE_NS), _Value(4.0 * weight, count)

    def _collect(self, expr: Any) -> None:
        """Finds the fields that `self` leads to directly, as far as they have a length."""
        path = self._path(expr)
        if path is not None:
            text = self._is_text(expr)
            if text or self._type(expr).WhichOneof("type_kind") in ("list_type", "map_type"):
                self._paths[path] = text, attrgetter(".".join(path[1:]))
                return
        loop = expr.comprehension_expr
        if not {loop.iter_var, loop.iter_var2, loop.accu_var}.isdisjoint(_ROOTS):
            self._hidden = True
        for _, value in expr.ListFields():
            for below in _below(value):
                self._collect(below)

    def _path(self, expr: Any) -> _Path | None:
        names: list[str] = []
        while expr.HasField("select_expr") and not expr.select_expr.test_only:
            names.append(expr.select_expr.field)
            expr = expr.select_expr.operand
            if self._type(expr).WhichOneof("type_kind") != "message_type":
                return None
        if not names or expr.ident_expr.name not in _ROOTS:
            return None
        return (expr.ident_expr.name, *reversed(names))

    def _type(self, expr: Any) -> Any:
        return self._types.get(expr.id, _UNKNOWN)

    def _is_text(self, expr: Any) -> bool:
        return self._type(expr).primitive in (_STRING, _BYTES)

    def _is_plain(self, expr: Any) -> bool:
        """Whether it is a number, a truth value or a moment."""
        kind = self._type(expr)
        return kind.primitive not in (0, _STRING, _BYTES) or kind.well_known in (2, 3)


_UNKNOWN: Final = checked_pb2.Type()


def _most(values: Sequence[_Value]) -> _Value:
    """What is at least as much as each of these."""
    if not values:
        return _NOTHING
    weight = max(value.weight for value in values)
    return _Value(weight, max(value.length for value in values), None, _shared(values))


def _shared(values: Sequence[_Value]) -> _Value | None:
    """What an element of any of these lists has at most."""
    elements = [value.element for value in values if value.length or value.element is not None]
    known = [element for element in elements if element is not None]
    return _most(known) if known and len(known) == len(elements) else None


def _below(value: Any) -> list[Any]:
    """The expressions in a field of one."""
    if isinstance(value, checked_pb2.Expr):
        return [value]
    if hasattr(value, "ListFields"):
        return [one for _, inner in value.ListFields() for one in _below(inner)]
    if isinstance(value, str | bytes | int | float | bool):
        return []
    return [one for element in value for one in _below(element)]


def _up(length: int) -> int:
    """Somewhat more, so that what was reckoned once serves again."""
    step = max(length.bit_length() - 3, 0)
    return (length + (1 << step) - 1) >> step << step


def _per_byte(pattern: _Value) -> float:
    """Nanoseconds for each byte that a pattern is tried on."""
    if pattern.literal is None:
        return 20.0 * 1000.0 * pattern.weight
    states = _states(pattern.literal)
    return 10.0 if states <= _SMALL_PATTERN else 20.0 * states


_COUNTED: Final = re.compile(r"\{(\d+)(?:,(\d*))?\}")


def _states(pattern: str) -> float:
    """How many states a pattern has, about: what is repeated counts as often."""
    groups: list[list[float]] = [[]]
    at = 0
    while at < len(pattern):
        letter = pattern[at]
        counted = _COUNTED.match(pattern, at) if letter == "{" else None
        size: int = 1
        if letter == "(":
            groups.append([])
        elif letter == ")" and len(groups) > 1:
            inner = sum(groups.pop())
            groups[-1].append(inner + 1.0)
        elif letter == "[":
            end = pattern.find("]", at + 2)
            size = (end if end > 0 else len(pattern)) - at + 1
            groups[-1].append(1.0 + size / 4)
        elif letter == "\\":
            size = 2
            # A class of Unicode is a tree of bytes.
            groups[-1].append(200.0 if pattern[at + 1 : at + 2] in ("p", "P") else 2.0)
        elif counted is not None:
            size = len(counted[0])
            if groups[-1]:
                groups[-1][-1] *= max(int(counted[1]), int(counted[2] or 0), 1)
        elif letter not in "*+?|^$":
            groups[-1].append(1.0)
        at += size
    return sum(map(sum, groups)) * (2.0 if "(?" in pattern and "i" in pattern else 1.0)
