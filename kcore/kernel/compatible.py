"""Compatibility: whether what was stored and said under one version of message types is read right
under the next.

`breaks(old, new)` compares two sets of files and names, message by message, what does not go on:
the wire's numbers and types, JSON's names, and what our options say of the stored form. A file may
be split, joined or renamed; messages are told by their full names. Pure.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from kcore_api.kcore.meta.v1 import options_pb2

_FIELD: Final[Any] = options_pb2.field
_KIND: Final[Any] = options_pb2.kind
_GROUP: Final[Any] = options_pb2.group
# Of a field: what apply's memory of owners, or the shape in JSON, hangs on.
_SHAPING: Final = ("merge_key", "set", "atomic", "inline")


class Placed(NamedTuple):
    """A message or enum, and the file that it is in."""

    file: FileDescriptorProto
    proto: Any


def messages(files: Iterable[FileDescriptorProto]) -> dict[str, Placed]:
    """All messages, nested ones too, by full name."""
    found: dict[str, Placed] = {}

    def collect(above: str, file: FileDescriptorProto, message: DescriptorProto) -> None:
        name = f"{above}.{message.name}".lstrip(".")
        found[name] = Placed(file, message)
        for nested in message.nested_type:
            collect(name, file, nested)

    for file in files:
        for message in file.message_type:
            collect(file.package, file, message)
    return found


def enums(files: Iterable[FileDescriptorProto]) -> dict[str, Placed]:
    """All enums, nested ones too, by full name."""
    files = list(files)
    found = {
        f"{file.package}.{enum.name}".lstrip("."): Placed(file, enum)
        for file in files
        for enum in file.enum_type
    }
    for name, (file, message) in messages(files).items():
        for enum in message.enum_type:
            found[f"{name}.{enum.name}"] = Placed(file, enum)
    return found


def breaks(
    old: Mapping[str, FileDescriptorProto], new: Mapping[str, FileDescriptorProto]
) -> Iterator[tuple[str, str]]:
    """(the file that does it, what it breaks). What is gone as a whole is not looked at."""
    before, after = messages(old.values()), messages(new.values())
    for name in sorted(before.keys() & after.keys()):
        placed = after[name]
        for said in _message(name, before[name], placed):
            yield placed.file.name, said
    known, present = enums(old.values()), enums(new.values())
    for name in sorted(known.keys() & present.keys()):
        for said in _enum(name, known[name].proto, present[name].proto):
            yield present[name].file.name, said


def _message(name: str, old: Placed, new: Placed) -> Iterator[str]:
    if old.proto.options.HasExtension(_KIND):
        if not new.proto.options.HasExtension(_KIND):
            yield f"{name}: it was a kind"
        else:
            yield from _kind(name, old, new)
    present = {field.number: field for field in new.proto.field}
    for field in old.proto.field:
        where = f"{name}.{field.name}"
        now = present.get(field.number)
        if now is None:
            if not _reserved(new.proto, field.number):
                yield f"{where}: was removed, but its number {field.number} is not reserved"
            if field.name not in new.proto.reserved_name:
                yield f'{where}: was removed, but its name "{field.name}" is not reserved'
            continue
        yield from _field(where, old.proto, field, new.proto, now)


def _kind(name: str, old: Placed, new: Placed) -> Iterator[str]:
    was, now = old.proto.options.Extensions[_KIND], new.proto.options.Extensions[_KIND]
    for what in ("scope", "plural", "parent"):
        one, other = getattr(was, what), getattr(now, what)
        if one != other:
            if what == "scope":
                one, other = (options_pb2.Scope.Name(value) for value in (one, other))
            yield f'{name}: its {what} was "{one}", and is "{other}"'
    groups = [placed.file.options.Extensions[_GROUP] for placed in (old, new)]
    if groups[0] != groups[1]:
        yield f'{name}: its group was "{groups[0]}", and is "{groups[1]}"'


def _field(
    where: str,
    holder: DescriptorProto,
    old: FieldDescriptorProto,
    new_holder: DescriptorProto,
    new: FieldDescriptorProto,
) -> Iterator[str]:
    number = f"field {old.number}"
    for what, was, now in (
        ("type", _type(old), _type(new)),
        ("JSON name", json_name(old), json_name(new)),
        ("oneof", _oneof(holder, old), _oneof(new_holder, new)),
    ):
        if was != now:
            yield f'{where}: the {what} of {number} was "{was}", and is "{now}"'
    before, after = old.options.Extensions[_FIELD], new.options.Extensions[_FIELD]
    if before.sensitive and not after.sensitive:
        yield f"{where}: was sensitive, and would be shown"
    for what in _SHAPING:
        one, other = getattr(before, what), getattr(after, what)
        if what == "merge_key":
            one, other = ",".join(one), ",".join(other)
        if one != other:
            yield f'{where}: its option {what} was "{one}", and is "{other}"'


def _enum(name: str, old: EnumDescriptorProto, new: EnumDescriptorProto) -> Iterator[str]:
    present = {value.number: value.name for value in new.value}
    for value in old.value:
        now = present.get(value.number)
        if now is None:
            if not any(one.start <= value.number <= one.end for one in new.reserved_range):
                yield f"{name}.{value.name}: was removed, but {value.number} is not reserved"
        elif now != value.name:
            yield f'{name}.{value.name}: the name of {value.number} was "{value.name}", is "{now}"'


def json_name(field: FieldDescriptorProto) -> str:
    """As protoc makes it, where the file does not say it."""
    if field.json_name:
        return field.json_name
    first, *rest = field.name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in rest)


def _type(field: FieldDescriptorProto) -> str:
    repeated = "repeated " if field.label == FieldDescriptorProto.LABEL_REPEATED else ""
    if field.type_name:
        return repeated + field.type_name.lstrip(".")
    return repeated + FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()


def _oneof(holder: DescriptorProto, field: FieldDescriptorProto) -> str:
    if not field.HasField("oneof_index") or field.proto3_optional:
        return ""
    return holder.oneof_decl[field.oneof_index].name


def _reserved(message: DescriptorProto, number: int) -> bool:
    return any(one.start <= number < one.end for one in message.reserved_range)
