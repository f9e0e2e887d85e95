"""CEL, the one expression language: rules, defaults, conditions, columns.

`Engine(pool)` belongs to one schema. `engine.compile(text, type)` gives an `Expression`
over `self` (and `old_self`) of that message type; `expression.bind(message, old)` an activation
that all expressions over the type can share; `expression.evaluate(activation)` the value.
An engine made `timed` has `now`, a moment, in the place of `old_self`.

Beside CEL's own functions and its extensions (`cel.bind`, math, optionals, strings) there are
`quantity(string)`, a double; `matches_labels(LabelSelector, map)`; `selector_text(LabelSelector)`,
as it is typed after -l; and `sum(list(int))`.

Expressions speak proto names. JSON names are rewritten at compile: where the type checker finds no
field `nodeName`, and the message has a field whose JSON name that is, its proto name is put there.
So a map's keys and strings stay as they are.

What goes wrong while evaluating is a `Failed` value, never an exception: rules come from users. So
does what would take too long (kcore/wire/price.py), where the rules are anybody's.
This is the only file that imports the CEL runtime, and that takes long: who must start fast imports
it late. Knows no kind.
"""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from cel_expr_python import cel
from cel_expr_python.ext import ext_bindings, ext_math, ext_optional, ext_strings
from google.protobuf import any_pb2
from google.protobuf.descriptor_pool import DescriptorPool

from kcore.wire import price, quantity

LABEL_SELECTOR: Final = "kcore.meta.v1.LabelSelector"

_NO_FIELD = re.compile(
    r"ERROR: <input>:(\d+):(\d+): undefined field '(\w+)' not found in struct '([\w.]+)'"
)
_UNUSUAL = re.compile(r"""\b[rRbB]+['"]|'''|\"{3}|//""")
_SELF = re.compile(r"(?<![\w.])self\b")
_LITERAL = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"")


@dataclass(frozen=True, slots=True)
class Failed:
    """An evaluation that gave no value."""

    why: str


class Activation:
    """Messages, as expressions can be evaluated on them."""

    __slots__ = ("messages", "native")

    def __init__(self, native: Any, messages: tuple[tuple[str, Any], ...]) -> None:
        """`messages`: what `native` was made of, by name."""
        self.native = native
        self.messages = messages


class Expression:
    """A compiled expression; immutable, but that it may be compiled when it is first needed."""

    __slots__ = (
        "_activation",
        "_environment",
        "_eval",
        "_price",
        "_serialize",
        "constant",
        "idle_without",
        "parts",
        "text",
        "type",
        "uses_old",
    )

    def __init__(
        self, text: str, environment: Callable[[], Any], *, priced: bool = False, late: bool = False
    ) -> None:
        """`text` is in proto names; RuntimeError says what is wrong with it.

        `late`: nothing is, and it is compiled when it is first evaluated.
        """
        self.text = text
        self._environment = environment
        names = _LITERAL.sub("", text)
        # None: it is cheap, or ours; else it has a price, reckoned when it matters.
        self._serialize: Callable[[], bytes] | None = None
        self._price: price.Price | None = None
        # Of its value, as the runtime says it: "BOOL", "LIST<INT>", a message's full name.
        self.type = ""
        self._eval: Callable[[Any], Any] = self._first_eval
        self._activation: Callable[[Any], Any] = self._first_activation
        if not late:
            compiled = self._compile()
            if priced and not price.always_cheap(names):
                self._serialize = compiled.serialize
        # Fields of `self` and `old_self` that are looked at; None: anything.
        self.parts = _parts(text)
        self.uses_old = re.search(r"\bold_self\b", names) is not None
        # A list or map without whose elements it is true.
        self.idle_without = _idle_without(text)
        # Set where the value is the same for every message, always.
        self.constant = self.parts == frozenset() and not re.search(r"\bnow\b", names)

    def _compile(self) -> Any:
        environment = self._environment()
        compiled = environment.compile(self.text)
        self._eval, self._activation = compiled.eval, environment.Activation
        self.type = compiled.return_type().name()
        return compiled

    def _first_eval(self, activation: Any) -> Any:
        return self._compile().eval(activation)

    def _first_activation(self, data: Any) -> Any:
        self._activation = self._environment().Activation
        return self._activation(data)

    @property
    def unbounded(self) -> bool:
        """Whether it is too dear on anything."""
        return self._serialize is not None and self._priced().unbounded

    def _priced(self) -> price.Price:
        if self._price is None:
            assert self._serialize is not None
            # In a google.protobuf.Any.
            packed = any_pb2.Any.FromString(self._serialize())
            self._price = price.Price(packed.value)
        return self._price

    def _dear(self, activation: Activation) -> str:
        return self._priced().dear(activation.messages) if self._serialize is not None else ""

    def about(self, holder: str) -> str:
        """The text about what `holder`, an expression, says, instead of about `self`.

        ValueError where that can't be done.
        """
        if _UNUSUAL.search(self.text):
            raise ValueError(f"{self.text}: literals of this sort can't be told from names")
        pieces: list[str] = []
        at = 0
        for literal in _LITERAL.finditer(self.text):
            pieces += (_SELF.sub(holder, self.text[at : literal.start()]), literal[0])
            at = literal.end()
        return "".join((*pieces, _SELF.sub(holder, self.text[at:])))

    def bind(self, message: Any = None, old: Any = None, now: datetime | None = None) -> Activation:
        """What all expressions over this type can be evaluated on; sees the messages as they are.

        Without `old`, only those that do not use it; so with `now`.
        """
        data = {} if message is None else {"self": message}
        if old is not None:
            data["old_self"] = old
        messages = tuple(data.items())
        if now is not None:
            data["now"] = now
        return Activation(self._activation(data), messages)

    def evaluate(self, activation: Activation) -> Any:
        """The value as plain Python, a message for a message; `Failed` if there is none."""
        if self._serialize is not None and (dear := self._dear(activation)):
            return Failed(dear)
        try:
            value = self._eval(activation.native)
        except RuntimeError as error:
            return Failed(_first_line(str(error)))
        if value.type() == cel.Type.ERROR:
            return Failed(_first_line(str(value.value())))
        return value.plain_value()

    def holds(self, activation: Activation) -> bool | Failed:
        """Whether it is true."""
        if self._serialize is not None and (dear := self._dear(activation)):
            return Failed(dear)
        try:
            value = self._eval(activation.native).value()
        except RuntimeError as error:
            return Failed(_first_line(str(error)))
        if value is True or value is False:
            return bool(value)
        return Failed(_first_line(str(value)))

    def says(self, activation: Activation) -> str:
        """The value as text, for messages to people."""
        value = self.evaluate(activation)
        return value.why if isinstance(value, Failed) else str(value)


class Engine:
    """Compiles expressions over the messages of one descriptor pool."""

    def __init__(
        self,
        pool: DescriptorPool,
        *,
        timed: bool = False,
        wary: Callable[[str], bool] = lambda _: False,
        late: bool = False,
    ) -> None:
        """`pool` has all message types that expressions speak of; `timed`: they know `now`.

        `late`: all expressions are known to be good, and in proto names. Each is compiled when it
        is first evaluated; most never are.

        `wary`: of which message types anybody may write expressions. Those have a price: what is
        too dear on any object is refused, what is on one object is not evaluated on it.
        """
        self._pool = pool
        self._wary = wary
        self._timed = timed
        self.late = late
        self._functions = _functions(pool)
        self._environments: dict[str, Any] = {}

    def compile(self, text: str, message_type: str) -> Expression:
        """The expression over `self` of this type. ValueError says where it is wrong."""
        environment = functools.partial(self._environment, message_type)
        if self.late:
            return Expression(text, environment, late=True)
        priced = self._wary(message_type)
        rewritten = text
        for _ in range(64):
            try:
                expression = Expression(rewritten, environment, priced=priced)
                break
            except RuntimeError as error:
                better = self._with_proto_names(rewritten, str(error))
                if better is None:
                    raise ValueError(f"{message_type}: {text}: {_plain(str(error))}") from None
                rewritten = better
        else:
            raise ValueError(f"{message_type}: {text}: too many JSON names")
        if priced and expression.unbounded:
            raise ValueError(f"{message_type}: {text}: it costs too much on the smallest object")
        return expression

    def compile_condition(self, text: str, message_type: str) -> Expression:
        """As `compile`, of what is true or false."""
        expression = self.compile(text, message_type)
        if not self.late and expression.type not in ("BOOL", "DYN"):
            said = f"it is {expression.type}, and a condition is true or false"
            raise ValueError(f"{message_type}: {text}: {said}")
        return expression

    def _environment(self, message_type: str) -> Any:
        found = self._environments.get(message_type)
        if found is None:
            declared = cel.Type(message_type)
            beside = {"now": cel.Type.TIMESTAMP} if self._timed else {"old_self": declared}
            found = self._environments[message_type] = cel.NewEnv(
                self._pool,
                variables={"self": declared, **beside},
                container=message_type.rpartition(".")[0],
                functions=self._functions,
                extensions=[
                    ext_bindings.ExtBindings(),
                    ext_math.ExtMath(),
                    ext_optional.ExtOptional(),
                    ext_strings.ExtStrings(),
                ],
            )
        return found

    def _with_proto_names(self, text: str, error: str) -> str | None:
        """The text with proto names where the checker found none of these fields."""
        lines = text.split("\n")
        changed = False
        # From the end, so that what is still to be replaced does not move.
        found = [
            (int(line), int(column), *rest) for line, column, *rest in _NO_FIELD.findall(error)
        ]
        for row, column, name, struct in sorted(found, reverse=True):
            proto_name = self._proto_name(struct, name)
            line = lines[row - 1]
            if proto_name is None:
                continue
            words = list(re.finditer(rf"\b{name}\b", line))
            if line[column - 1] == ":":  # In `Message{field: value}` the colon is pointed at.
                words = [word for word in words if word.end() <= column - 1][-1:]
            else:
                words = [word for word in words if word.start() >= column - 1][:1]
            for word in words:
                lines[row - 1] = line[: word.start()] + proto_name + line[word.end() :]
                changed = True
        return "\n".join(lines) if changed else None

    def _proto_name(self, struct: str, json_name: str) -> str | None:
        try:
            descriptor = self._pool.FindMessageTypeByName(struct)
        except KeyError:
            return None
        for field in descriptor.fields:
            if field.json_name == json_name and field.name != json_name:
                name: str = field.name
                return name
        return None


def _parts(text: str) -> frozenset[str] | None:
    names = _LITERAL.sub("", text)
    parts = re.findall(r"(?<![\w.])(?:old_)?self\b\s*(?:\.\s*(\w+))?", names)
    return None if "" in parts else frozenset(parts)


def _idle_without(text: str) -> str | None:
    """The field, where the text is `self.field.all(…)` and nothing else."""
    begin = re.match(r"\s*self\.(\w+)\.all\(", text)
    if begin is None:
        return None
    plain = _LITERAL.sub(lambda literal: " " * len(literal[0]), text)
    depth = 1
    for at in range(begin.end(), len(plain)):
        depth += (plain[at] == "(") - (plain[at] == ")")
        if not depth:
            return begin[1] if not plain[at + 1 :].strip() else None
    return None


def _functions(pool: DescriptorPool) -> list[Any]:
    functions = [
        _function("quantity", _quantity, cel.Type.DOUBLE, [cel.Type.STRING]),
        _function("sum", _sum, cel.Type.INT, [cel.Type.List(cel.Type.INT)]),
    ]
    try:
        pool.FindMessageTypeByName(LABEL_SELECTOR)
    except KeyError:
        return functions
    labels = cel.Type.Map(cel.Type.STRING, cel.Type.STRING)
    parameters = [cel.Type(LABEL_SELECTOR), labels]
    return [
        *functions,
        _function("matches_labels", _matches_labels, cel.Type.BOOL, parameters),
        _function("selector_text", _selector_text, cel.Type.STRING, parameters[:1]),
    ]


def _function(name: str, body: Any, returned: Any, parameters: list[Any]) -> Any:
    overload = cel.Overload(name, return_type=returned, parameters=parameters, impl=body)
    return cel.FunctionDecl(name, [overload])


def _quantity(text: str) -> float:
    return float(quantity.parse(text))


def _sum(numbers: list[int]) -> int:
    return sum(numbers)


def _matches_labels(message: Any, labels: dict[str, str]) -> bool:
    # Few columns ask this, and who prints them starts often.
    from kcore.wire import selector

    return selector.from_message(message).matches(labels)


def _selector_text(message: Any) -> str:
    from kcore.wire import selector

    return str(selector.from_message(message))


def _first_line(text: str) -> str:
    return text.partition("\n")[0].partition(": ")[2] or text


def _plain(error: str) -> str:
    """The checker's words without its own frame; they end with the line and a caret."""
    said = error.removeprefix("INVALID_ARGUMENT: ").removesuffix(" [INVALID_ARGUMENT]")
    return said.replace("ERROR: <input>:", "")
