"""Messages of any type for hypothesis, made from descriptors, as their writers make them."""

import json
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_SCALARS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.CPPTYPE_STRING: TEXT,
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: st.integers(0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats(allow_nan=False, allow_infinity=False),
    FieldDescriptor.CPPTYPE_FLOAT: st.floats(allow_nan=False, allow_infinity=False, width=32),
}
_SECONDS = st.integers(-62135596799, 253402300799)


@st.composite
def messages(draw: st.DrawFn, descriptor: Descriptor, depth: int = 8) -> Message:
    """A message of the type, some of its fields set."""
    message = message_factory.GetMessageClass(descriptor)()
    made: Any = message
    match descriptor.full_name:
        case "kcore.meta.v1.Time":
            made.seconds = draw(_SECONDS)
            return message
        case "kcore.meta.v1.MicroTime":
            made.seconds = draw(_SECONDS)
            if micros := draw(st.integers(0, 999_999)):
                made.nanos = micros * 1000
            return message
        case "kcore.meta.v1.Quantity":
            made.string = draw(st.sampled_from(["100m", "0.1", "1e3", "128Mi", "1.50", "-3", "0"]))
            return message
        case "kcore.meta.v1.IntOrString":
            if draw(st.booleans()):
                made.type, made.str_val = 1, draw(TEXT)
            else:
                made.type, made.int_val = 0, draw(st.integers(-(2**31), 2**31 - 1))
            return message
        case "kcore.meta.v1.FieldsV1" | "kcore.meta.v1.RawExtension":
            value = draw(st.dictionaries(TEXT, st.dictionaries(TEXT, st.just({})), max_size=2))
            made.raw = json.dumps(value, separators=(",", ":")).encode()
            return message
    fields = list(descriptor.fields)
    for field in draw(st.lists(st.sampled_from(fields), unique=True, max_size=5)) if fields else []:
        _set(draw, message, field, depth)
    return message


def _set(draw: st.DrawFn, message: Message, field: FieldDescriptor, depth: int) -> None:
    container: Any = getattr(message, field.name) if field.is_repeated else None
    inner = field.message_type
    count = draw(st.integers(0, 3)) if field.is_repeated else 1
    if inner is not None and inner.GetOptions().map_entry:
        key, value = inner.fields_by_name["key"], inner.fields_by_name["value"]
        for _ in range(count):
            name = draw(_scalar(key))
            if value.message_type is None:
                container[name] = draw(_scalar(value))
            elif depth:
                container[name].CopyFrom(draw(messages(value.message_type, depth - 1)))
    elif inner is not None:
        if depth:
            for _ in range(count):
                target = container.add() if field.is_repeated else getattr(message, field.name)
                target.CopyFrom(draw(messages(inner, depth - 1)))
                target.SetInParent()
    elif field.is_repeated:
        container.extend(draw(st.lists(_scalar(field), max_size=3)))
    else:
        setattr(message, field.name, draw(_scalar(field)))


def _scalar(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=8)
    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values])
    return _SCALARS[field.cpp_type]
