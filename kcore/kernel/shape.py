"""Shapes: message types with their defaults and constraints, compiled, and walked.

`fill` gives absent fields their defaults, outer ones first; `check` finds the faults of fields,
`judge` the broken rules, each with its place; `inert` finds fields that are stored but not acted
on; `clear_write_only` forgets what is never stored. Types that have nothing to say are not walked.

A `Part` is a top-level field of a kind: what it holds is good or not by itself, so what was found
good once is not looked at again; and its rules are first asked all at once. Knows no kind.
"""

import contextlib
import functools
from collections.abc import Callable, Collection, Iterable, Iterator
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from kcore.kernel import constraint, layout, path
from kcore.kernel.constraint import Check, Found
from kcore.wire import cel

# Messages that are plain values in YAML and JSON: a fault within is the value's own.
_PLAIN: Final = frozenset(
    f"kcore.meta.v1.{name}" for name in ("Quantity", "IntOrString", "Time", "MicroTime")
)
# How a field holds messages. An inline one's fields stand in its parent's place in YAML and JSON.
# Messages in one list: each costs its rules, 20 µs apiece, and an object is looked at while all
# others wait. And faults after which nobody needs more.
MOST_ELEMENTS: Final = 4096
MOST_FAULTS: Final = 1000

_ONE, _INLINE, _MANY, _MAP = 0, 1, 2, 3

# Contents that a part remembers to be good, as digests; results that a default remembers.
_REMEMBERED: Final = 4096


_Walk = Callable[["Shape", Any, Found], None]


class Below(NamedTuple):
    """A field that holds messages."""

    name: str
    json_name: str
    how: int
    shape: "Shape"


class Shape:
    """A compiled message type. Made by `Shapes`, then immutable."""

    __slots__ = (
        "below",
        "checked",
        "checks",
        "defaults",
        "filled",
        "filled_rest",
        "inert",
        "inert_below",
        "judged",
        "name",
        "rest",
        "rules",
        "write_only",
        "write_only_below",
    )

    def __init__(self, name: str) -> None:
        """An empty shape of the message type called `name`."""
        self.name = name
        self.defaults: tuple[Callable[[Any], None], ...] = ()
        # With the name of the field that each is about.
        self.checks: tuple[tuple[str, Check], ...] = ()
        self.rules: tuple[_Rule, ...] = ()
        self.inert: tuple[FieldDescriptor, ...] = ()
        self.write_only: tuple[str, ...] = ()
        # All fields that hold messages, and of these those below which there is something to do.
        self.below: list[Below] = []
        self.filled: tuple[Below, ...] = ()
        # Of those that are filled, what is no `Part`, where the message is a kind.
        self.filled_rest: tuple[Below, ...] = ()
        self.checked: tuple[Below, ...] = ()
        self.judged: tuple[Below, ...] = ()
        # How fields are walked that are no `Part`, where the message is a kind.
        self.rest: tuple[tuple[Below, _Walk], ...] = ()
        self.inert_below: tuple[Below, ...] = ()
        self.write_only_below: tuple[Below, ...] = ()


class _Rule:
    """A relation between the fields of a message."""

    __slots__ = ("at", "condition", "said", "words")

    def __init__(self, rule: Any, owner: str, engine: cel.Engine) -> None:
        self.condition = engine.compile_condition(rule.expression, owner)
        if self.condition.uses_old:
            raise ValueError(f"{owner}: {rule.expression}: only a kind's own rules know old_self")
        self.at: str = rule.path
        self.said: str = rule.message or f"must hold: {rule.expression}"
        words = rule.message_expression
        self.words = engine.compile(words, owner) if words else None


class Part:
    """A top-level field of a kind that holds one message."""

    __slots__ = ("_below", "_filled", "_full", "_gate", "_good", "_judged", "name")

    def __init__(
        self, below: Below, filled: bool, judged: bool, gate: Callable[[], cel.Expression | None]
    ) -> None:
        """`filled`, `judged`: there are defaults, rules below.

        `gate` gives an expression over the kind that is true where all rules hold, or none.
        """
        self.name = below.name
        self._below = below
        self._filled = filled
        # Contents that lack nothing: what is made from a template that is stored.
        self._full: dict[bytes, None] = {}
        self._judged = judged
        self._gate = gate
        # Contents that were found good, and their fields that are not acted on.
        self._good: dict[bytes, tuple[str, ...]] = {}

    def fill(self, message: Any) -> None:
        """As `fill`, of this field of an object."""
        if not self._filled or not message.HasField(self.name):
            return
        value = getattr(message, self.name)
        content = _digest(value)
        if content in self._full:
            return
        size = value.ByteSize()
        fill(self._below.shape, value)
        if value.ByteSize() == size and _digest(value) == content:
            if len(self._full) >= _REMEMBERED:
                del self._full[next(iter(self._full))]
            self._full[content] = None

    def check(self, message: Any, activation: Callable[[], Any], found: Found) -> tuple[str, ...]:
        """Adds what is wrong with this field of an object to `found`.

        Answers with the fields that are stored but not acted on. `activation` binds the object.
        """
        if not message.HasField(self.name):
            return ()
        _, json_name, _, shape = self._below
        value = getattr(message, self.name)
        content = _digest(value)
        known = self._good.get(content)
        if known is not None:
            return known
        before = len(found)
        check(shape, value, found)
        if self._judged:
            gate = self._gate()
            if gate is None or gate.holds(activation()) is not True:
                judge(shape, value, found)
        unserved = tuple(inert(shape, value, f"{json_name}."))
        if len(found) > before:
            _move(found, before, json_name, shape)
            return unserved
        if len(self._good) >= _REMEMBERED:
            del self._good[next(iter(self._good))]
        self._good[content] = unserved
        return unserved


class Shapes:
    """Compiles message types of one schema."""

    def __init__(
        self,
        engine: cel.Engine,
        field_options: Callable[[FieldDescriptor], Any],
        rules: Callable[[Descriptor], Iterable[Any]],
        faults: list[str],
    ) -> None:
        """`field_options` gives a field's kcore.meta.v1.Field, `rules` a message's own rules.

        What is wrong with either is added to `faults`.
        """
        self._faults = faults
        self._engine = engine
        self._field_options = field_options
        self._rules = rules
        self._shapes: dict[str, Shape] = {}

    def of(self, descriptors: Iterable[Descriptor]) -> dict[str, Shape]:
        """The shapes of these message types, by full name."""
        roots = {descriptor.full_name: self._build(descriptor) for descriptor in descriptors}
        shapes = self._shapes.values()
        filled = _reaching(shapes, lambda shape: bool(shape.defaults))
        checked = _reaching(shapes, lambda shape: bool(shape.checks))
        judged = _reaching(shapes, lambda shape: bool(shape.rules))
        inert = _reaching(shapes, lambda shape: bool(shape.inert))
        write_only = _reaching(shapes, lambda shape: bool(shape.write_only))
        for shape in shapes:
            shape.filled = tuple(one for one in shape.below if one.shape.name in filled)
            shape.filled_rest = tuple(one for one in shape.filled if not _is_part(one))
            shape.checked = tuple(one for one in shape.below if one.shape.name in checked)
            shape.judged = tuple(one for one in shape.below if one.shape.name in judged)
            shape.inert_below = tuple(one for one in shape.below if one.shape.name in inert)
            shape.write_only_below = tuple(
                one for one in shape.below if one.shape.name in write_only
            )
            shape.rest = (
                *((one, check) for one in shape.checked if not _is_part(one)),
                *((one, judge) for one in shape.judged if not _is_part(one)),
            )
        return roots

    def parts(self, shape: Shape) -> tuple[Part, ...]:
        """The parts of a kind's shape."""
        return tuple(
            Part(
                one,
                one in shape.filled,
                one in shape.judged,
                # Compiled when the first object of the kind comes: of most kinds none does.
                functools.cache(functools.partial(self._gate, shape, one)),
            )
            for one in shape.below
            if _is_part(one)
        )

    def _gate(self, shape: Shape, part: Below) -> cel.Expression | None:
        """All rules below a part as one expression; None where it can't be said so."""
        try:
            terms = list(_terms(part.shape, f"self.{part.name}", (shape.name,)))
            return self._engine.compile(" && ".join(terms), shape.name) if terms else None
        except (ValueError, RecursionError):
            return None

    def _build(self, descriptor: Descriptor) -> Shape:
        name = descriptor.full_name
        if name in self._shapes:
            return self._shapes[name]
        shape = self._shapes[name] = Shape(name)
        defaults: list[Callable[[Any], None]] = []
        checks: list[tuple[str, Check]] = []
        inert: list[FieldDescriptor] = []
        write_only: list[str] = []
        for field in descriptor.fields:
            options = self._field_options(field)
            if options.zero_absent:
                defaults.append(_zero_absent(field))
            if options.default:
                with self._noted():
                    defaults.append(self._default(descriptor, field, options.default))
            with self._noted():
                checks += [(field.name, one) for one in constraint.checks(field, options)]
            if options.inert:
                inert.append(field)
            if options.write_only:
                write_only.append(field.name)
            held, how = _held_message(field, options)
            if held is not None:
                json_name = "" if how == _INLINE else field.json_name
                shape.below.append(Below(field.name, json_name, how, self._build(held)))
        shape.defaults, shape.checks = tuple(defaults), tuple(checks)
        rules: list[_Rule] = []
        for one in self._rules(descriptor):
            with self._noted():
                rules.append(_Rule(one, name, self._engine))
        shape.rules = tuple(rules)
        shape.inert, shape.write_only = tuple(inert), tuple(write_only)
        return shape

    @contextlib.contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            self._faults.append(str(error))

    def _default(
        self, descriptor: Descriptor, field: FieldDescriptor, text: str
    ) -> Callable[[Any], None]:
        assign = _assigner(field)
        present = _presence(field)
        # Most are literals: to make CEL ready for a type takes milliseconds and half a megabyte.
        value = layout.constant(text)
        expression = self._engine.compile(text, descriptor.full_name) if value is None else None
        constant = expression is not None and expression.constant and not self._engine.late
        if expression is not None and constant:
            value = expression.evaluate(expression.bind())
            if isinstance(value, cel.Failed):
                raise ValueError(f"{field.full_name}: default {text}: {value.why}")
        if expression is None or constant:
            if value is not None:
                _try_out(descriptor, field, text, assign, value)

            def fixed(message: Any) -> None:
                if not present(message):
                    assign(message, value)

            return fixed
        # Most objects are alike: the same inputs come again and again.
        inputs = _inputs(descriptor, expression.parts)
        known: dict[Any, Any] = {}

        def computed(message: Any) -> None:
            if present(message):
                return
            # By digest: nobody's content is kept.
            given = blake2b(inputs(message), digest_size=16).digest()
            if given in known:
                value = known[given]
            else:
                value = expression.evaluate(expression.bind(message))
                if len(known) >= _REMEMBERED:
                    known.clear()
                known[given] = value
            # A default that can't be worked out is none; what is missing is found by the checks.
            if value is not None and not isinstance(value, cel.Failed):
                # Nor can one of another type; what is constant was tried out.
                with contextlib.suppress(TypeError, ValueError):
                    assign(message, value)

        return computed


def fill(shape: Shape, message: Any) -> None:
    """Gives absent fields their defaults."""
    for default in shape.defaults:
        default(message)
    _fill_below(shape.filled, message)


def fill_top(shape: Shape, message: Any, changed: Collection[str]) -> None:
    """As `fill`, but only what is absent at the top or below changed fields that are no `Part`."""
    for default in shape.defaults:
        default(message)
    _fill_below([one for one in shape.filled_rest if one.name in changed], message)


def _fill_below(fields: Iterable[Below], message: Any) -> None:
    for name, _, how, below in fields:
        if how == _ONE:
            if message.HasField(name):
                fill(below, getattr(message, name))
        elif how == _INLINE:
            # It is there for its writer, whether it has anything in it or not.
            fill(below, getattr(message, name))
        else:
            elements = getattr(message, name)
            for element in elements if how == _MANY else elements.values():
                fill(below, element)


def check(shape: Shape, message: Any, found: Found) -> None:
    """Adds the faults of all fields to `found`."""
    for _, one in shape.checks:
        one(message, found)
    _walk(shape.checked, message, found, check)


def judge(shape: Shape, message: Any, found: Found) -> None:
    """Adds all broken rules to `found`."""
    if shape.rules:
        activation = shape.rules[0].condition.bind(message)
        for rule in shape.rules:
            held = rule.condition.holds(activation)
            if held is not True:
                said = rule.words.says(activation) if rule.words is not None else rule.said
                found.append((rule.at, broken(held, said)))
    _walk(shape.judged, message, found, judge)


def check_top(shape: Shape, message: Any, changed: Collection[str], found: Found) -> None:
    """Adds the faults of changed top-level fields, but for what their `Part` finds."""
    for name, one in shape.checks:
        if name in changed:
            one(message, found)
    for below, walk in shape.rest:
        if below.name in changed:
            _walk((below,), message, found, walk)


def broken(held: bool | cel.Failed, said: str) -> str:
    """What is said of a rule that does not hold."""
    if isinstance(held, cel.Failed):
        return f"{said} (the rule could not be evaluated: {held.why})"
    return said


def inert(shape: Shape, message: Any, where: str = "") -> Iterator[str]:
    """Places of the fields that are set but not acted on."""
    for field in shape.inert:
        value = getattr(message, field.name)
        if len(value) if field.is_repeated else message.HasField(field.name):
            yield where + field.json_name
    for name, json_name, how, below in shape.inert_below:
        if how <= _INLINE:
            if message.HasField(name):
                prefix = f"{where}{json_name}." if json_name else where
                yield from inert(below, getattr(message, name), prefix)
            continue
        elements = getattr(message, name)
        for key, element in (
            enumerate(elements) if how == _MANY else sorted(elements.items(), key=_first)
        ):
            yield from inert(below, element, f"{where}{json_name}[{key}].")


def clear_write_only(shape: Shape, message: Any) -> None:
    """Forgets what is never stored."""
    for name in shape.write_only:
        message.ClearField(name)
    for name, _, how, below in shape.write_only_below:
        if how <= _INLINE:
            if message.HasField(name):
                clear_write_only(below, getattr(message, name))
        else:
            elements = getattr(message, name)
            for element in elements if how == _MANY else elements.values():
                clear_write_only(below, element)


def _digest(message: Any) -> bytes:
    return blake2b(message.SerializeToString(deterministic=True), digest_size=16).digest()


def _is_part(below: Below) -> bool:
    """Whether a kind's field is a `Part`. Metadata is not: hardly two objects have the same."""
    return below.how == _ONE and below.name != "metadata"


def _walk(fields: Iterable[Below], message: Any, found: Found, walk: _Walk) -> None:
    """Walks the messages that fields hold, and says where in them faults were found."""
    for name, json_name, how, shape in fields:
        if how <= _INLINE:
            if message.HasField(name):
                known = len(found)
                walk(shape, getattr(message, name), found)
                if len(found) > known:
                    _move(found, known, json_name, shape)
            continue
        elements = getattr(message, name)
        if not elements:
            continue
        known = len(found)
        for key, element in (
            enumerate(elements) if how == _MANY else sorted(elements.items(), key=_first)
        ):
            if known >= MOST_FAULTS:
                return
            walk(shape, element, found)
            if len(found) > known:
                _move(found, known, f"{json_name}[{key}]", shape)
                known = len(found)


def crowded(shape: Shape, message: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Lists of messages that are too long, with what is wrong with them."""
    for name, json_name, how, below in shape.below:
        place = f"{where}.{json_name}" if where else json_name
        if how <= _INLINE:
            if message.HasField(name):
                yield from crowded(below, getattr(message, name), place)
            continue
        elements = getattr(message, name)
        if len(elements) > MOST_ELEMENTS:
            said = f"Too many: {len(elements)}: must have at most {MOST_ELEMENTS} items"
            yield place, said
            continue
        for key, element in enumerate(elements) if how == _MANY else elements.items():
            yield from crowded(below, element, f"{place}[{key}]")


def _first(pair: tuple[Any, Any]) -> Any:
    return pair[0]


def _move(found: Found, known: int, prefix: str, shape: Shape) -> None:
    """Makes the places that were found below relative to the message above."""
    plain = shape.name in _PLAIN
    for index in range(known, len(found)):
        place, said = found[index]
        if plain or not place:
            place = prefix
        elif prefix:
            place = f"{prefix}.{place}"
        found[index] = (place, said)


def _terms(shape: Shape, holder: str, above: tuple[str, ...]) -> Iterator[str]:
    """The rules of a message and all below, as conditions on `holder`, an expression."""
    if shape.name in above:
        raise RecursionError(shape.name)
    for rule in shape.rules:
        yield f"({rule.condition.about(holder)})"
    above = (*above, shape.name)
    for name, _, how, below in shape.judged:
        each = f"each_{len(above)}"
        field = f"{holder}.{name}"
        if how <= _INLINE:
            yield f"(!has({field}) || ({' && '.join(_terms(below, field, above))}))"
        elif how == _MANY:
            yield f"{field}.all({each}, {' && '.join(_terms(below, each, above))})"
        else:
            element = f"{field}[{each}]"
            yield f"{field}.all({each}, {' && '.join(_terms(below, element, above))})"


def _try_out(
    descriptor: Descriptor,
    field: FieldDescriptor,
    text: str,
    assign: Callable[[Any, Any], None],
    value: Any,
) -> None:
    """Raises ValueError where a default is not a value for its field."""
    try:
        assign(message_factory.GetMessageClass(descriptor)(), value)
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{field.full_name}: default {text}: {error}") from None


def _inputs(descriptor: Descriptor, parts: frozenset[str] | None) -> Callable[[Any], bytes]:
    """A function to what of a message an expression looks at."""
    fields = [] if parts is None else [path.find_field(descriptor, name) for name in sorted(parts)]
    plain = [
        field.name
        for field in fields
        if field is not None and field.message_type is None and not field.is_repeated
    ]
    if not plain or len(plain) < len(fields):
        return lambda message: message.SerializeToString(deterministic=True)
    return lambda message: repr(
        [(message.HasField(name), getattr(message, name)) for name in plain]
    ).encode()


def _reaching(shapes: Iterable[Shape], busy: Callable[[Shape], bool]) -> set[str]:
    """Names of the shapes that are busy, or hold one that is, however deep."""
    found = {shape.name for shape in shapes if busy(shape)}
    grown = True
    while grown:
        more = {
            shape.name
            for shape in shapes
            if shape.name not in found and any(one.shape.name in found for one in shape.below)
        }
        grown = bool(more)
        found |= more
    return found


def _held_message(field: FieldDescriptor, options: Any) -> tuple[Descriptor | None, int]:
    if field.message_type is None:
        return None, _ONE
    if path.is_map(field):
        return field.message_type.fields_by_name["value"].message_type, _MAP
    if field.is_repeated:
        return field.message_type, _MANY
    return field.message_type, _INLINE if options.inline else _ONE


def _presence(field: FieldDescriptor) -> Callable[[Any], bool]:
    name = field.name
    if field.is_repeated:
        return lambda message: len(getattr(message, name)) > 0
    return lambda message: bool(message.HasField(name))


def _zero_absent(field: FieldDescriptor) -> Callable[[Any], None]:
    name = field.name
    # Of a message, its own emptiness is what counts: an empty Quantity, an IntOrString of 0.
    is_message = field.message_type is not None

    def clear(message: Any) -> None:
        if message.HasField(name):
            value = getattr(message, name)
            if value.ByteSize() == 0 if is_message else not value:
                message.ClearField(name)

    return clear


def _assigner(field: FieldDescriptor) -> Callable[[Any, Any], None]:
    name = field.name
    message_type: Any = field.message_type

    def scalar(message: Any, value: Any) -> None:
        setattr(message, name, value)

    def single(message: Any, value: Any) -> None:
        target = getattr(message, name)
        target.SetInParent()
        if message_type.full_name == "kcore.meta.v1.Quantity" and isinstance(value, str):
            target.string = value
        elif message_type.full_name == "kcore.meta.v1.IntOrString" and isinstance(value, int):
            target.type, target.int_val = 0, value
        elif message_type.full_name == "kcore.meta.v1.IntOrString" and isinstance(value, str):
            target.type, target.str_val = 1, value
        else:
            target.MergeFrom(value)

    def many(message: Any, value: Any) -> None:
        getattr(message, name).extend(value)

    def by_key(message: Any, value: Any) -> None:
        target = getattr(message, name)
        for key, element in value.items():
            if message_type.fields_by_name["value"].message_type is not None:
                target[key].MergeFrom(element)
            else:
                target[key] = element

    if path.is_map(field):
        return by_key
    if field.is_repeated:
        return many
    return scalar if message_type is None else single
