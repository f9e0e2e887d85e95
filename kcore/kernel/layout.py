"""Layout: how the fields of a message type are told apart and put together, in apply and patches.

`layout_of(descriptor)` gives each field a `Slot`: a value taken as a whole, a message, a map, a
list whose elements have keys, or a set; and its name in JSON, with `inline` messages' fields in
their parent's place. Learned from the field options, once per type. Pure; knows no kind.
"""

import functools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from kcore_api.kcore.meta.v1 import options_pb2

# Text in JSON's quotes.
_quoted: Final = json.encoder.encode_basestring

# Messages that are plain values in JSON, and are taken as a whole.
PLAIN: Final = frozenset(
    "kcore.meta.v1." + name
    for name in ("Time", "MicroTime", "Quantity", "IntOrString", "FieldsV1", "RawExtension")
)
QUANTITY: Final = "kcore.meta.v1.Quantity"

# What the server sets or an object is named by: nobody owns it, no apply changes it.
_UNOWNED: Final = frozenset(
    (
        "name",
        "generate_name",
        "namespace",
        "self_link",
        "uid",
        "resource_version",
        "generation",
        "creation_timestamp",
        "deletion_timestamp",
        "deletion_grace_period_seconds",
        "managed_fields",
    )
)
_METADATA: Final = "kcore.meta.v1.ObjectMeta"
_CONSTANT: Final = re.compile(r"""\s*(?:'([^'\\]*)'|"([^"\\]*)"|(-?\d+)|(true|false))\s*\Z""")


class Sort(Enum):
    """What a field is made of."""

    # A scalar, a plain message, an atomic list, map or message.
    VALUE = 1
    MESSAGE = 2
    # From text to a value; of other maps each is a VALUE.
    MAP = 3
    # From text to messages.
    MESSAGE_MAP = 4
    # A list of messages with keys.
    KEYED = 5
    # A list of scalars without order.
    SET = 6
    # A message whose fields stand in its parent's place.
    INLINE = 7


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """One field."""

    # In proto and in JSON; and as FieldsV1 says it: "f:nodeName".
    name: str
    json_name: str
    key: str
    sort: Sort
    # Names of the inline messages on the way to it.
    route: tuple[str, ...]
    # Of messages, elements and map values.
    descriptor: Any
    # Of keyed lists: their elements' keys, as (slot, value where it is absent).
    merge_keys: tuple[tuple["Slot", Any], ...] = ()
    # The same, prepared: '"name":', proto name, route, value where it is absent.
    key_words: tuple[tuple[str, str, tuple[str, ...], Any], ...] = ()
    quantity: bool = False
    repeated: bool = False
    map: bool = False

    @property
    def message(self) -> bool:
        """Whether it is a message that JSON shows as an object."""
        return (
            self.descriptor is not None
            and not self.repeated
            and self.descriptor.full_name not in PLAIN
        )

    @property
    def below(self) -> "Layout":
        """The layout of the message, element or map value."""
        return layout_of(self.descriptor)

    def holder(self, message: Any) -> Any:
        """The message that has the field itself, given the one in whose JSON it stands."""
        for step in self.route:
            message = getattr(message, step)
        return message

    def element_key(self, element: Any) -> str:
        """How FieldsV1 names an element of a keyed list."""
        words = []
        for said, name, route, absent in self.key_words:
            holder = element
            for step in route:
                holder = getattr(holder, step)
            value = getattr(holder, name) if holder.HasField(name) else absent
            if value == "":
                value = absent
            words.append(said + (_quoted(value) if type(value) is str else _word(value)))
        return f"k:{{{','.join(words)}}}"

    def plain_key(self, element: dict[str, Any]) -> str:
        """How FieldsV1 names an element that is given in JSON."""
        words = []
        for slot, absent in self.merge_keys:
            value = element.get(slot.json_name)
            value = absent if value is None or value == "" else value
            words.append(f'"{slot.json_name}":{_word(value)}')
        return f"k:{{{','.join(words)}}}"


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """The fields of a message type."""

    # By proto name; fields that nobody owns are left out.
    by_name: dict[str, Slot]
    # By name in FieldsV1, those of inline messages too.
    by_key: dict[str, Slot]
    # All fields by JSON name, those that nobody owns too.
    _by_json: dict[str, Slot]

    def by_json(self, name: str) -> Slot | None:
        """The field of this JSON name."""
        return self._by_json.get(name)


@functools.lru_cache(maxsize=8192)
def layout_of(descriptor: Descriptor) -> Layout:
    """The layout of a message type."""
    by_name: dict[str, Slot] = {}
    by_key: dict[str, Slot] = {}
    by_json: dict[str, Slot] = {}
    _collect(descriptor, (), by_name, by_key, by_json)
    return Layout(by_name, by_key, by_json)


def value_text(value: Any) -> str:
    """FieldsV1's name of an element of a set."""
    return "v:" + _word(value)


def _collect(
    descriptor: Descriptor,
    route: tuple[str, ...],
    by_name: dict[str, Slot],
    by_key: dict[str, Slot],
    by_json: dict[str, Slot],
) -> None:
    for field in descriptor.fields:
        slot = _slot(field, route)
        if slot.sort is Sort.INLINE:
            # In JSON it is not there; its fields are.
            by_name[field.name] = slot
            _collect(slot.descriptor, (*route, field.name), {}, by_key, by_json)
            continue
        by_json.setdefault(slot.json_name, slot)
        if descriptor.full_name == _METADATA and field.name in _UNOWNED:
            continue
        by_name[field.name] = slot
        by_key.setdefault(slot.key, slot)


def _slot(field: Any, route: tuple[str, ...]) -> Slot:
    options = _options(field)
    message = field.message_type
    is_map = _is_text_map(message)
    below = message.fields_by_name["value"].message_type if is_map else message
    plain = below is not None and below.full_name in PLAIN
    merge_keys: tuple[tuple[Slot, Any], ...] = ()
    if options.atomic:
        sort = Sort.VALUE
    elif is_map:
        sort = Sort.MAP if below is None or plain else Sort.MESSAGE_MAP
    elif field.is_repeated:
        sort = Sort.VALUE
        if options.set and message is None:
            sort = Sort.SET
        elif options.merge_key and message is not None:
            sort = Sort.KEYED
            merge_keys = _merge_keys(message, options.merge_key)
    elif message is None or plain:
        sort = Sort.VALUE
    else:
        sort = Sort.INLINE if options.inline else Sort.MESSAGE
    return Slot(
        name=field.name,
        json_name=field.json_name,
        key="f:" + field.json_name,
        sort=sort,
        route=route,
        descriptor=below,
        merge_keys=merge_keys,
        key_words=tuple(
            (f'"{one.json_name}":', one.name, one.route, absent) for one, absent in merge_keys
        ),
        quantity=below is not None
        and below.full_name == QUANTITY
        and (is_map or not field.is_repeated),
        repeated=field.is_repeated,
        map=is_map,
    )


def _is_text_map(message: Any) -> bool:
    # Other maps are taken as a whole: FieldsV1 has no words for their keys.
    return (
        message is not None
        and message.GetOptions().map_entry
        and message.fields_by_name["key"].type == FieldDescriptor.TYPE_STRING
    )


def _merge_keys(element: Any, names: Sequence[str]) -> tuple[tuple[Slot, Any], ...]:
    found: list[tuple[Slot, Any]] = []
    for name in names:
        at = _find(element, name, ())
        if at is None:
            raise ValueError(f"{element.full_name} has no field {name!r} to be a merge key")
        field, route = at
        default = _options(field).default
        absent = constant(default) if default else None
        found.append((_slot(field, route), absent))
    return tuple(sorted(found, key=lambda one: one[0].json_name))


def _find(descriptor: Any, name: str, route: tuple[str, ...]) -> tuple[Any, tuple[str, ...]] | None:
    """The field of this name, in the message or in one that is inline in it."""
    if name in descriptor.fields_by_name:
        return descriptor.fields_by_name[name], route
    for field in descriptor.fields:
        if field.message_type is not None and _options(field).inline:
            found = _find(field.message_type, name, (*route, field.name))
            if found is not None:
                return found
    return None


def _options(field: Any) -> Any:
    # The descriptor may be of any pool; read by the default pool's class, ours are known.
    options = field.GetOptions().SerializeToString()
    extension: Any = options_pb2.field
    return descriptor_pb2.FieldOptions.FromString(options).Extensions[extension]


def constant(expression: str) -> Any:
    """The value of an expression that is a literal; None where it is more than that."""
    found = _CONSTANT.match(expression)
    if found is None:
        return None
    single, double, number, truth = found.groups()
    if number is not None:
        return int(number)
    if truth is not None:
        return truth == "true"
    return single if single is not None else double


def _word(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
