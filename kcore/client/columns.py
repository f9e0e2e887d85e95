"""The columns of a kind's table: CEL expressions of its options, evaluated on objects.

The one file of the client that knows CEL. Expressions see the object as `self` and the time as
`now`. What can't be evaluated (an index past a list's end) shows as nothing, like what is absent.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from google.protobuf.message import Message

from kcore.client import age
from kcore.client.kinds import Kind
from kcore.wire import cel

NONE: Final = "<none>"


class Columns:
    """The columns of one kind. Compiled once, used for each row."""

    def __init__(self, kind: Kind, *, wide: bool = False) -> None:
        """`wide`: those of `-o wide`, too."""
        declared = list(kind.options.columns)
        names = {c.name for c in declared}
        # A kind that places its name itself decides on its age, too.
        self._named = "NAME" not in names
        aged = self._named and "AGE" not in names
        narrow = [i for i, c in enumerate(declared) if not c.wide]
        cut = narrow[-1] + 1 if narrow else 0
        self._shown = [c for c in declared if wide or not c.wide]
        # Where the age stands: after all that is always shown.
        self._age_at = sum(1 for c in declared[:cut] if wide or not c.wide) if aged else None
        self.headers = [c.name for c in self._shown]
        if self._age_at is not None:
            self.headers.insert(self._age_at, "AGE")
        if self._named:
            self.headers.insert(0, "NAME")
        engine = cel.Engine(kind.descriptor.file.pool, timed=True)
        self._compiled = [engine.compile(c.value, kind.full_name) for c in self._shown]

    def row(self, message: Message, now: float) -> list[str]:
        """The cells of one object, beginning with its name."""
        metadata: Any = getattr(message, "metadata", None)
        cells = []
        if self._compiled:
            activation = self._compiled[0].bind(message, now=datetime.fromtimestamp(now, UTC))
            for column, expression in zip(self._shown, self._compiled, strict=True):
                value = expression.evaluate(activation)
                if isinstance(value, cel.Failed):
                    value = None
                cells.append(_aged(value, now) if column.format == "age" else _text(value))
        if self._age_at is not None:
            created = metadata.creation_timestamp.seconds
            cells.insert(self._age_at, age.text(now - created) if created else "<unknown>")
        return [metadata.name, *cells] if self._named else cells


def _text(value: Any) -> str:
    if value is None or value == "" or (isinstance(value, Sequence) and not value):
        return NONE
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, timedelta):
        return age.text(value.total_seconds())
    if isinstance(value, list):
        return ",".join(_text(item) for item in value)
    if isinstance(value, dict):
        return ",".join(f"{key}={_text(item)}" for key, item in sorted(value.items())) or NONE
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, Message):
        return _scalar_message(value)
    return str(value)


def _scalar_message(value: Any) -> str:
    """A message that stands for a scalar: a quantity, a number or text."""
    names = value.DESCRIPTOR.fields_by_name
    if "string" in names:
        return value.string or NONE
    if "str_val" in names:
        return value.str_val if value.type == 1 else str(value.int_val)
    return NONE


def _aged(value: Any, now: float) -> str:
    if isinstance(value, Message):
        value = getattr(value, "seconds", None)
    if isinstance(value, datetime):
        value = value.timestamp()
    if isinstance(value, timedelta):
        return age.text(value.total_seconds())
    if not isinstance(value, int | float) or not value:
        return NONE
    return age.text(now - value)


def value_of(kind: Kind, text: str) -> Callable[[Message, float], str]:
    """An expression of the user's as a function of an object and the time; "" where it has none.

    ValueError says what is wrong with it.
    """
    # Tables do without.
    import json

    from kcore.client import codec

    expression = cel.Engine(kind.descriptor.file.pool, timed=True).compile(text, kind.full_name)

    def said(message: Message, now: float) -> str:
        value = expression.evaluate(expression.bind(message, now=datetime.fromtimestamp(now, UTC)))
        if isinstance(value, cel.Failed):
            return ""
        if isinstance(value, Message) and value.DESCRIPTOR.full_name not in codec.SCALARS:
            return json.dumps(codec.to_plain(value), separators=(",", ":"))
        shown = _text(value)
        return "" if shown == NONE else shown

    return said
