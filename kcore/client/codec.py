"""The codec: messages of any kind as plain values of Kubernetes' JSON, and back.

`to_plain(message)` gives dicts, lists and scalars; `from_plain(descriptor, plain)` the message, or
an ApiError with every violation; `read` does the same and leaves the problems to the caller.
Driven by descriptors of any pool: JSON names, `inline` fields shown in their parent's place, bytes
as base64, 64-bit integers as numbers, enums by name, and Time, MicroTime, Quantity, IntOrString,
FieldsV1, RawExtension as plain values. Presence is kept: what is absent stays absent, a zero that
is given stays. An object of a kind also carries apiVersion and kind. Must not know kinds by name,
nor files.
"""

import base64
import binascii
import functools
import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from kcore.client import options
from kcore.client.problem import Problem, meant, text
from kcore.wire import errors, quantity

# Deepest nesting of a plain value.
DEPTH: Final = 100

_META: Final = "kcore.meta.v1."
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# What Go calls the zero time; it stands for absence.
_ZERO_TIME_SECONDS: Final = -62135596800
_LATEST_SECONDS: Final = 253402300799
_MOMENT: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9})[0-9]*)?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))",
    re.ASCII,
)


class _Bad(Exception):
    """A value can't be taken; the message says why."""


def type_meta(descriptor: Descriptor) -> tuple[str, str] | None:
    """apiVersion and kind of a message that is a kind; None of others."""
    if options.kind(descriptor) is None:
        return None
    group = options.group(descriptor.file)
    version = descriptor.file.package.rpartition(".")[2]
    return (f"{group}/{version}" if group else version), descriptor.name


def to_plain(message: Message) -> dict[str, Any]:
    """The message as a dict; an object of a kind begins with apiVersion and kind."""
    shape = _shape(message.DESCRIPTOR)
    plain: dict[str, Any] = {}
    if shape.type_meta is not None:
        plain["apiVersion"], plain["kind"] = shape.type_meta
    _show(message, shape, plain)
    return plain


def from_plain(descriptor: Descriptor, plain: Mapping[str, Any]) -> Message:
    """The message of a dict, or ApiError INVALID with all violations."""
    message, problems = read(descriptor, plain)
    if problems:
        name = plain.get("metadata")
        name = name.get("name") if isinstance(name, Mapping) else None
        subject = f'{descriptor.name} "{name}"' if isinstance(name, str) else descriptor.name
        raise errors.invalid(subject, [errors.Violation(text(p.path), p.message) for p in problems])
    return message


def read(descriptor: Descriptor, plain: Mapping[str, Any]) -> tuple[Message, list[Problem]]:
    """The message of a dict, as far as it can be taken, and all that is wrong with it."""
    shape = _shape(descriptor)
    message = shape.make()
    reader = _Reader()
    if shape.type_meta is None:
        reader.fill(message, shape, plain)
    else:
        rest = dict(plain)
        for key, right in zip(("apiVersion", "kind"), shape.type_meta, strict=True):
            given = rest.pop(key, right)
            if given != right:
                reader.path.append(key)
                reader.problem(f'expected "{right}"')
                reader.path.pop()
        reader.fill(message, shape, rest)
    return message, reader.problems


class _Field:
    """One JSON name of a message: how it is read and shown."""

    __slots__ = ("descriptor", "key", "name", "oneof", "order", "repeated", "rivals", "route",
                 "scalar", "shape_of", "special", "value")  # fmt: skip

    def __init__(self, descriptor: FieldDescriptor, route: tuple[str, ...], order: int) -> None:
        self.descriptor = descriptor
        self.name = descriptor.name
        # Names of the inline messages on the way to it.
        self.route = route
        self.order = order
        entry = descriptor.message_type
        if entry is not None and not entry.GetOptions().map_entry:
            entry = None
        self.repeated = descriptor.is_repeated and entry is None
        # Of a map: the field of its keys.
        self.key = entry.fields_by_name["key"] if entry is not None else None
        # The field that a single value is of.
        self.value = entry.fields_by_name["value"] if entry is not None else descriptor
        oneof = descriptor.containing_oneof
        # Its oneof, and the JSON names in it by proto name; `optional` makes one of its own.
        self.oneof = oneof.name if oneof is not None and len(oneof.fields) > 1 else None
        self.rivals = {f.name: f.json_name for f in oneof.fields} if oneof is not None else {}
        message = self.value.message_type
        self.shape_of = message
        self.special = _SPECIAL.get(message.full_name) if message is not None else None
        self.scalar = None if message is not None else _scalar(self.value)


class _Shape:
    """A message type, prepared."""

    __slots__ = ("by_number", "descriptor", "fields", "make", "type_meta")

    def __init__(self, descriptor: Descriptor) -> None:
        self.descriptor = descriptor
        self.make: Callable[[], Message] = message_factory.GetMessageClass(descriptor)
        self.type_meta = type_meta(descriptor)
        self.fields: dict[str, _Field] = {}
        self._collect(descriptor, ())
        # How a field of the message itself is shown: by name, or inline.
        self.by_number = {
            f.number: None if _inline(f) else (f.json_name, self.fields[f.json_name])
            for f in descriptor.fields
        }

    def _collect(self, descriptor: Descriptor, route: tuple[str, ...]) -> None:
        for field in descriptor.fields:
            if _inline(field) and field.message_type is not None:
                self._collect(field.message_type, (*route, field.name))
            else:
                made = _Field(field, route, len(self.fields))
                self.fields.setdefault(field.json_name, made)


def _inline(field: FieldDescriptor) -> bool:
    said = options.field(field)
    return said is not None and said.inline


@functools.lru_cache(maxsize=4096)
def _shape(descriptor: Descriptor) -> _Shape:
    return _Shape(descriptor)


# -- from plain ------------------------------------------------------------------------------------


class _Reader:
    """One reading: where it is, and what was wrong so far."""

    def __init__(self) -> None:
        self.path: list[str | int] = []
        self.problems: list[Problem] = []

    def problem(self, message: str, *, at_key: bool = False) -> None:
        self.problems.append(Problem(tuple(self.path), message, at_key))

    def fill(self, message: Message, shape: _Shape, plain: Any) -> None:
        """Sets the message's fields as the dict says."""
        if not isinstance(plain, Mapping):
            self.problem(f"expected a mapping, got {_said(plain)}")
            return
        path = self.path
        if len(path) > DEPTH:
            self.problem(f"nested deeper than {DEPTH} levels")
            return
        path.append("")
        for name, value in plain.items():
            field = shape.fields.get(name)
            path[-1] = name
            if field is None:
                hint = meant(str(name), shape.fields)
                self.problem(f"unknown field{hint}", at_key=True)
            elif value is not None:
                target = message
                for step in field.route:
                    target = getattr(target, step)
                self._set(target, field, value)
        path.pop()

    def _set(self, target: Message, field: _Field, value: Any) -> None:
        if field.oneof is not None:
            taken = target.WhichOneof(field.oneof)
            if taken is not None and taken != field.name:
                self.problem(f'not together with "{field.rivals[taken]}"', at_key=True)
                return
        if field.key is not None:
            self._map(getattr(target, field.name), field, value)
        elif field.repeated:
            self._list(getattr(target, field.name), field, value)
        elif field.scalar is not None:
            try:
                setattr(target, field.name, field.scalar(value))
            except _Bad as bad:
                self.problem(str(bad))
        else:
            inner = getattr(target, field.name)
            inner.SetInParent()
            self._message(inner, field, value)

    def _message(self, inner: Message, field: _Field, value: Any) -> None:
        if field.special is None:
            assert field.shape_of is not None
            self.fill(inner, _shape(field.shape_of), value)
            return
        try:
            field.special[0](inner, value)
        except _Bad as bad:
            self.problem(str(bad))

    def _list(self, container: Any, field: _Field, value: Any) -> None:
        if not isinstance(value, list | tuple):
            self.problem(f"expected a list, got {_said(value)}")
            return
        path = self.path
        path.append(0)
        for index, item in enumerate(value):
            path[-1] = index
            if item is None:
                self.problem("must not be null")
            elif field.scalar is None:
                self._message(container.add(), field, item)
            else:
                try:
                    container.append(field.scalar(item))
                except _Bad as bad:
                    self.problem(str(bad))
        path.pop()

    def _map(self, container: Any, field: _Field, value: Any) -> None:
        if not isinstance(value, Mapping):
            self.problem(f"expected a mapping, got {_said(value)}")
            return
        assert field.key is not None
        path = self.path
        path.append("")
        for key, item in value.items():
            path[-1] = key if isinstance(key, str) else str(key)
            try:
                made = _map_key(field.key, key)
            except _Bad as bad:
                self.problem(str(bad), at_key=True)
                continue
            if field.scalar is None:
                if item is None:
                    self.problem("must not be null")
                else:
                    self._message(container[made], field, item)
                continue
            try:
                # Go leaves a map's value zero where it is null.
                empty = field.value.default_value
                container[made] = empty if item is None else field.scalar(item)
            except _Bad as bad:
                self.problem(str(bad))
        path.pop()


def _said(value: Any) -> str:
    """What a value is, in words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return f"the number {_number_text(value)[:40]}"
    if isinstance(value, str):
        return f"the string {json.dumps(value[:40])}"
    return "a mapping" if isinstance(value, Mapping) else "a list"


def _number_text(value: int | float) -> str:
    """As it was written, where that is known (document.Float)."""
    written = getattr(value, "text", None)
    return written if isinstance(written, str) else str(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        hint = "; put it in quotes" if isinstance(value, bool | int | float) else ""
        raise _Bad(f"expected a string, got {_said(value)}{hint}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _Bad("is not valid Unicode") from None
    return value


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Bad(f"expected true or false, got {_said(value)}")
    return value


def _bytes(value: Any) -> bytes:
    if not isinstance(value, str):
        raise _Bad(f"expected base64, got {_said(value)}")
    try:
        return base64.b64decode(value.replace("\n", "").replace("\r", ""), validate=True)
    except (binascii.Error, ValueError):
        raise _Bad("is not base64") from None


def _float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Bad(f"expected a number, got {_said(value)}")
    try:
        made = float(value)
    except OverflowError:
        made = float("inf")
    if made != made or made in (float("inf"), float("-inf")):
        raise _Bad(f"{_number_text(value)[:40]} is not a finite number")
    return made


def _integer(low: int, high: int) -> Callable[[Any], int]:
    def read_integer(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _Bad(f"expected a whole number, got {_said(value)}")
        if isinstance(value, float):
            if not value.is_integer():
                raise _Bad(f"expected a whole number, got {_number_text(value)[:40]}")
            value = int(value)
        if not low <= value <= high:
            raise _Bad(f"must be between {low} and {high}")
        return int(value)

    return read_integer


_READERS: Final[dict[int, Callable[[Any], Any]]] = {
    FieldDescriptor.CPPTYPE_STRING: _text,
    FieldDescriptor.CPPTYPE_BOOL: _bool,
    FieldDescriptor.CPPTYPE_INT32: _integer(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: _integer(-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: _integer(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: _integer(0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_DOUBLE: _float,
    FieldDescriptor.CPPTYPE_FLOAT: _float,
}


def _scalar(field: FieldDescriptor) -> Callable[[Any], Any]:
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _bytes
    if field.cpp_type != FieldDescriptor.CPPTYPE_ENUM:
        return _READERS[field.cpp_type]
    assert field.enum_type is not None
    numbers = {value.name: value.number for value in field.enum_type.values}

    def read_enum(value: Any) -> int:
        if isinstance(value, str) and value in numbers:
            return numbers[value]
        hint = meant(value, numbers) if isinstance(value, str) else ""
        raise _Bad(f"expected one of {', '.join(numbers)}, got {_said(value)}{hint}")

    return read_enum


def _map_key(field: FieldDescriptor, key: Any) -> Any:
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return _text(key)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        if key not in ("true", "false"):
            raise _Bad("expected true or false as the key")
        return key == "true"
    try:
        return _READERS[field.cpp_type](int(key))
    except (ValueError, TypeError):
        raise _Bad("expected a whole number as the key") from None


def _read_time(message: Any, value: Any) -> None:
    if not isinstance(value, str):
        raise _Bad(f"expected a time, got {_said(value)}")
    found = _MOMENT.fullmatch(value)
    try:
        if found is None:
            raise ValueError
        moment = datetime.fromisoformat(f"{found[1]}T{found[2]}+00:00")
        if found[4]:
            offset = timedelta(hours=int(found[5]), minutes=int(found[6]))
            if int(found[5]) > 23 or int(found[6]) > 59:
                raise ValueError
            moment = moment - offset if found[4] == "+" else moment + offset
    except (ValueError, OverflowError):
        raise _Bad(
            f"{_said(value)} is not a time such as 2026-01-31T12:00:00Z".removeprefix("the string ")
        ) from None
    message.seconds = (moment - _EPOCH) // timedelta(seconds=1)
    nanos = int((found[3] or "0").ljust(9, "0"))
    if message.DESCRIPTOR.name == "MicroTime":
        nanos -= nanos % 1000
    elif message.DESCRIPTOR.full_name == _META + "Time":
        nanos = 0
    if nanos:
        message.nanos = nanos


def _read_quantity(message: Any, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _Bad(f"expected a quantity, got {_said(value)}")
    # A number's own text, but for forms that no quantity has: 0400, 0x10.
    said = value if isinstance(value, str) else _number_text(value)
    if isinstance(value, int):
        said = str(int(value))
    try:
        quantity.parse(said)
    except ValueError as wrong:
        raise _Bad(str(wrong)) from None
    message.string = said


def _read_int_or_string(message: Any, value: Any) -> None:
    if isinstance(value, str):
        message.type = 1
        message.str_val = _text(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        message.type = 0
        message.int_val = _READERS[FieldDescriptor.CPPTYPE_INT32](value)
    else:
        raise _Bad(f"expected a whole number or a string, got {_said(value)}")


def _read_raw(message: Any, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise _Bad(f"expected a mapping, got {_said(value)}")
    try:
        message.raw = json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError):
        raise _Bad("is not JSON") from None


def _read_well_known(message: Any, value: Any) -> None:
    # Imported only where an uploaded kind uses one.
    from google.protobuf import json_format

    try:
        json_format.ParseDict(value, message)
    except (json_format.ParseError, RecursionError) as wrong:
        raise _Bad(str(wrong)) from None


# -- to plain --------------------------------------------------------------------------------------


def _show(message: Message, shape: _Shape, plain: dict[str, Any]) -> None:
    """Adds the message's fields to the dict, in the order in which they are declared."""
    shown: list[tuple[int, str, Any]] = []
    _gather(message, shape, shape, shown)
    shown.sort(key=_order)
    for _, name, value in shown:
        plain[name] = value


def _order(entry: tuple[int, str, Any]) -> int:
    return entry[0]


def _gather(
    message: Message, shape: _Shape, root: _Shape, shown: list[tuple[int, str, Any]]
) -> None:
    for descriptor, value in message.ListFields():
        entry = shape.by_number.get(descriptor.number)
        if entry is None:
            _gather(value, _shape(descriptor.message_type), root, shown)
            continue
        name, field = entry
        made = _plain(field, value)
        if made is not None:
            shown.append((root.fields[name].order, name, made))


def _plain(field: _Field, value: Any) -> Any:
    if field.key is not None:
        return {
            str(key).lower() if isinstance(key, bool) else str(key): _single(field, value[key])
            for key in sorted(value)
        }
    if field.repeated:
        return [_single(field, item) for item in value]
    return _single(field, value)


def _single(field: _Field, value: Any) -> Any:
    if field.shape_of is not None:
        if field.special is not None:
            return field.special[1](value)
        inner: dict[str, Any] = {}
        _show(value, _shape(field.shape_of), inner)
        return inner
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if field.value.enum_type is not None:
        known = field.value.enum_type.values_by_number.get(value)
        return known.name if known is not None else value
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value


def _show_time(message: Any) -> str | None:
    seconds = message.seconds
    if seconds <= _ZERO_TIME_SECONDS:
        return None
    moment = _EPOCH + timedelta(seconds=min(seconds, _LATEST_SECONDS))
    said = moment.strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")
    if message.DESCRIPTOR.name == "MicroTime":
        said += f".{message.nanos // 1000 % 1_000_000:06d}"
    return said + "Z"


def _show_quantity(message: Any) -> str:
    return message.string or "0"


def _show_int_or_string(message: Any) -> Any:
    return message.str_val if message.type == 1 else message.int_val


def _show_raw(message: Any) -> Any:
    try:
        return json.loads(message.raw or b"{}")
    except (ValueError, RecursionError):
        return {}


def _show_well_known(message: Any) -> Any:
    from google.protobuf import json_format

    return json_format.MessageToDict(message)


# Messages that are plain values: how each is read and shown.
_SPECIAL: Final[dict[str, tuple[Callable[[Any, Any], None], Callable[[Any], Any]]]] = {
    _META + "Time": (_read_time, _show_time),
    _META + "MicroTime": (_read_time, _show_time),
    _META + "Quantity": (_read_quantity, _show_quantity),
    _META + "IntOrString": (_read_int_or_string, _show_int_or_string),
    _META + "FieldsV1": (_read_raw, _show_raw),
    _META + "RawExtension": (_read_raw, _show_raw),
    **{
        f"google.protobuf.{name}": (_read_well_known, _show_well_known)
        for name in (
            "Timestamp", "Duration", "Struct", "Value", "ListValue", "Any", "FieldMask", "Empty",
            "DoubleValue", "FloatValue", "Int64Value", "UInt64Value", "Int32Value", "UInt32Value",
            "BoolValue", "StringValue", "BytesValue",
        )
    },
}  # fmt: skip

# Full names of the messages that stand for plain scalars or values.
SCALARS: Final = frozenset(_SPECIAL)
