"""Paths: "spec.containers.image" as fields of a message type.

`compile_path(descriptor, text)` reads proto or JSON names; `Path.text` is in JSON names. A path
goes through lists to each element; after a map's name all that follows is one key. `values` finds
what is set, with its place in words ("spec.containers[0].image"); `holders` the messages that have,
or could have, the last field. Pure; knows descriptors, no kind.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

# Messages that are plain values in YAML and JSON; how each is shown as text.
_TEXTS: Final[dict[str, Callable[[Any], str]]] = {
    "kcore.meta.v1.Quantity": lambda value: str(value.string),
    "kcore.meta.v1.IntOrString": lambda value: str(value.str_val if value.type else value.int_val),
    "kcore.meta.v1.Time": lambda value: str(value.seconds),
    "kcore.meta.v1.MicroTime": lambda value: f"{value.seconds}.{value.nanos // 1000:06}",
}


@dataclass(frozen=True, slots=True)
class Path:
    """A way from a message to a field, or to a key of a map."""

    text: str
    fields: tuple[FieldDescriptor, ...]
    # Set where the path ends in a map's key.
    key: str | None = None

    @property
    def last(self) -> FieldDescriptor:
        """The field that it leads to."""
        return self.fields[-1]

    @property
    def many(self) -> bool:
        """Whether it leads through a list, so that there may be several."""
        return any(field.is_repeated for field in self.fields[:-1])


def compile_path(descriptor: Descriptor, text: str) -> Path:
    """The path that `text` says of messages of this type. ValueError where it has no such field."""
    fields: list[FieldDescriptor] = []
    names: list[str] = []
    at: Descriptor | None = descriptor
    segments = text.split(".")
    for index, segment in enumerate(segments):
        field = find_field(at, segment) if at is not None else None
        if field is None:
            where = at.name if at is not None else ".".join(names)
            raise ValueError(f"{text}: {where} has no field {segment!r}")
        fields.append(field)
        names.append(field.json_name)
        at = field.message_type
        if is_map(field):
            rest = segments[index + 1 :]
            if not rest:
                break
            key = ".".join(rest)
            return Path(".".join([*names, key]), tuple(fields), key)
    return Path(".".join(names), tuple(fields))


def find_field(descriptor: Descriptor, name: str) -> FieldDescriptor | None:
    """The field of this proto or JSON name."""
    field = descriptor.fields_by_name.get(name)
    if field is None:
        field = next((one for one in descriptor.fields if one.json_name == name), None)
    return field


def is_map(field: FieldDescriptor) -> bool:
    """Whether the field is a map."""
    message = field.message_type
    return message is not None and bool(message.GetOptions().map_entry)


def values(message: Any, path: Path) -> Iterator[tuple[str, Any]]:
    """What is set there, with its place; a list at the end of the path is one value."""
    for where, holder in holders(message, path):
        field = path.last
        value = getattr(holder, field.name)
        if path.key is not None:
            if path.key in value:
                yield f"{where}[{path.key}]", value[path.key]
        elif len(value) if field.is_repeated else holder.HasField(field.name):
            yield where, value


def holders(message: Any, path: Path, absent: bool = False) -> Iterator[tuple[str, Any]]:
    """The messages whose field is the path's last, and that field's place.

    `absent`: those too that would come to be if the field were set.
    """
    level = [("", message)]
    for field in path.fields[:-1]:
        below: list[tuple[str, Any]] = []
        for where, holder in level:
            place = f"{where}.{field.json_name}" if where else field.json_name
            if field.is_repeated:
                elements = enumerate(getattr(holder, field.name))
                below += [(f"{place}[{index}]", element) for index, element in elements]
            elif absent or holder.HasField(field.name):
                below.append((place, getattr(holder, field.name)))
        level = below
    for where, holder in level:
        yield (f"{where}.{path.last.json_name}" if where else path.last.json_name), holder


def clear(message: Any, path: Path) -> None:
    """Makes the field unset wherever the path leads."""
    for _, holder in holders(message, path):
        if path.key is None:
            holder.ClearField(path.last.name)
        else:
            getattr(holder, path.last.name).pop(path.key, None)


def text(field: FieldDescriptor, value: Any) -> str:
    """A value as a selector or a guard names it. ValueError where it has no text."""
    if field.message_type is not None and not is_map(field):
        show = _TEXTS.get(field.message_type.full_name)
        if show is None:
            raise ValueError(f"{field.full_name} is a {field.message_type.name}, not a plain value")
        return show(value)
    if value is True or value is False:
        return "true" if value else "false"
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def reader(path: Path) -> Callable[[Any], str]:
    """A quick function from a message to the text at the path; of an unset field its type's zero.

    ValueError for paths through lists and maps, and to what has no text.
    """
    field = path.last
    if path.many or field.is_repeated or path.key is not None:
        raise ValueError(f"{path.text}: only a single plain value can be read as text")
    get = attrgetter(".".join(one.name for one in path.fields))
    if (
        field.cpp_type == FieldDescriptor.CPPTYPE_STRING
        and field.type != FieldDescriptor.TYPE_BYTES
    ):
        return get
    if field.message_type is not None and field.message_type.full_name not in _TEXTS:
        raise ValueError(f"{path.text}: a {field.message_type.name} is not a plain value")
    return lambda message: text(field, get(message))


def differences(old: Any, new: Any, where: str = "") -> Iterator[str]:
    """Places where two messages of one type differ, as deep as they can be named."""
    for field in old.DESCRIPTOR.fields:
        name = field.name
        one, other = getattr(old, name), getattr(new, name)
        place = f"{where}.{field.json_name}" if where else field.json_name
        if field.is_repeated:
            if one == other:
                continue
            if field.message_type is None or is_map(field) or len(one) != len(other):
                yield place
                continue
            for index, (a, b) in enumerate(zip(one, other, strict=True)):
                if a != b:
                    yield from differences(a, b, f"{place}[{index}]")
            continue
        there = old.HasField(name)
        if there != new.HasField(name):
            yield place
        elif there and one != other:
            if field.message_type is None or field.message_type.full_name in _TEXTS:
                yield place
            else:
                yield from differences(one, other, place)
