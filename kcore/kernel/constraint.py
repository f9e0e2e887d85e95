"""Constraints of one field, compiled to closures: required, format, enum, bounds, distinctness.

`checks(field, options)` gives what options.proto says of a field as functions that look at a
message and add to `Found` what is wrong with the field, with its place within the message. Pure;
knows no kind.
"""

from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from kcore.kernel import format, path

# (place, what is wrong), the place relative to the message that was checked.
Found = list[tuple[str, str]]
Check = Callable[[Any, Found], None]


def checks(field: FieldDescriptor, options: Any) -> Iterator[Check]:
    """The checks of a field; `options` is its kcore.meta.v1.Field. ValueError for nonsense."""
    if options.required:
        yield _required(field, options)
    if options.format:
        yield _format(field, options)
    if options.enum:
        yield _enum(field, options)
    if options.HasField("min") or options.HasField("max"):
        yield _bounds(field, options)
    if options.set:
        yield _distinct(field, options)


def _required(field: FieldDescriptor, options: Any) -> Check:
    name, json_name = field.name, "" if options.inline else field.json_name
    emptiable = field.is_repeated or field.cpp_type == FieldDescriptor.CPPTYPE_STRING

    def check_required(message: Any, found: Found) -> None:
        if not (len(getattr(message, name)) if emptiable else message.HasField(name)):
            found.append((json_name, "Required value"))

    return check_required


def _format(field: FieldDescriptor, options: Any) -> Check:
    """Empty texts are left to `required`, as they are to Kubernetes."""
    name, json_name, sensitive = field.name, field.json_name, options.sensitive
    word = options.format
    whole = format.MAPS.get(word)
    if path.is_map(field):
        well_formed = format.TEXTS.get(word)

        def check_map(message: Any, found: Found) -> None:
            elements = getattr(message, name)
            if not elements:
                return
            if whole is not None:
                fault = whole(elements)
                if fault is not None:
                    found.append((json_name, f"Invalid value: {fault[1]}"))
                return
            for key in sorted(elements):
                if said := well_formed(key):  # type: ignore[misc]
                    found.append((f"{json_name}[{key}]", f'Invalid value: "{key}": {said}'))

        if whole is None and well_formed is None:
            raise ValueError(f"{field.full_name}: no format {word!r} of maps")
        return check_map
    judge = _judge(field, word)
    is_text = field.cpp_type == FieldDescriptor.CPPTYPE_STRING

    def check_one(message: Any, found: Found) -> None:
        value = getattr(message, name)
        if (value if is_text else message.HasField(name)) and (said := judge(value)):
            found.append((json_name, f"Invalid value: {_shown(value, sensitive)}: {said}"))

    def check_each(message: Any, found: Found) -> None:
        for index, value in enumerate(getattr(message, name)):
            if said := judge(value):
                shown = _shown(value, sensitive)
                found.append((f"{json_name}[{index}]", f"Invalid value: {shown}: {said}"))

    return check_each if field.is_repeated else check_one


def _judge(field: FieldDescriptor, word: str) -> Callable[[Any], str]:
    type_name = field.message_type.full_name if field.message_type is not None else ""
    if type_name == "kcore.meta.v1.Quantity" and word in format.TEXTS:
        judge_text = format.TEXTS[word]
        return lambda value: judge_text(value.string)
    if type_name == "kcore.meta.v1.IntOrString" and word in format.NUMBERS_OR_TEXTS:
        return format.NUMBERS_OR_TEXTS[word]
    if not type_name and field.cpp_type == FieldDescriptor.CPPTYPE_STRING and word in format.TEXTS:
        return format.TEXTS[word]
    if not type_name and word in format.NUMBERS:
        return format.NUMBERS[word]
    raise ValueError(f"{field.full_name}: no format {word!r} of such fields")


def _enum(field: FieldDescriptor, options: Any) -> Check:
    name, json_name, sensitive = field.name, field.json_name, options.sensitive
    allowed = frozenset(options.enum)
    supported = ", ".join(f'"{value}"' for value in options.enum)

    def check_one(message: Any, found: Found) -> None:
        value = getattr(message, name)
        if value not in allowed and message.HasField(name):
            shown = _shown(value, sensitive)
            found.append((json_name, f"Unsupported value: {shown}: supported values: {supported}"))

    def check_each(message: Any, found: Found) -> None:
        for index, value in enumerate(getattr(message, name)):
            if value not in allowed:
                said = f"Unsupported value: {_shown(value, sensitive)}: supported values: "
                found.append((f"{json_name}[{index}]", said + supported))

    return check_each if field.is_repeated else check_one


def _bounds(field: FieldDescriptor, options: Any) -> Check:
    name, json_name, sensitive = field.name, field.json_name, options.sensitive
    least = options.min if options.HasField("min") else None
    most = options.max if options.HasField("max") else None

    def check_count(message: Any, found: Found) -> None:
        count = len(getattr(message, name))
        if least is not None and count < least:
            found.append((json_name, f"Too few: {count}: must have at least {least} items"))
        if most is not None and count > most:
            found.append((json_name, f"Too many: {count}: must have at most {most} items"))

    def check_length(message: Any, found: Found) -> None:
        value = getattr(message, name)
        size = len(value.encode() if isinstance(value, str) else value)
        if most is not None and size > most:
            found.append((json_name, f"Too long: {size} bytes: may not be more than {most} bytes"))

    def check_value(message: Any, found: Found) -> None:
        if not message.HasField(name):
            return
        value = getattr(message, name)
        shown = _shown(value, sensitive)
        if least is not None and value < least:
            said = f"Invalid value: {shown}: must be greater than or equal to {least}"
            found.append((json_name, said))
        if most is not None and value > most:
            found.append(
                (json_name, f"Invalid value: {shown}: must be less than or equal to {most}")
            )

    if field.is_repeated:
        return check_count
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return check_length
    if field.message_type is not None:
        raise ValueError(f"{field.full_name}: min and max are of numbers, texts, lists and maps")
    return check_value


def _distinct(field: FieldDescriptor, options: Any) -> Check:
    name, json_name, sensitive = field.name, field.json_name, options.sensitive
    keys = tuple(options.merge_key)

    def check_distinct(message: Any, found: Found) -> None:
        elements = getattr(message, name)
        if len(elements) < 2:
            return
        seen: set[Any] = set()
        for index, element in enumerate(elements):
            value = tuple(getattr(element, key) for key in keys) if keys else element
            if value in seen:
                shown = _shown(value[0] if keys and len(value) == 1 else value, sensitive)
                found.append((f"{json_name}[{index}]", f"Duplicate value: {shown}"))
            seen.add(value)

    if field.message_type is not None and not keys:
        raise ValueError(f"{field.full_name}: set is of scalars, or of lists with a merge_key")
    return check_distinct


def _shown(value: Any, sensitive: bool) -> str:
    """A value, as it is put into messages to people."""
    if sensitive:
        return "<hidden>"
    if hasattr(value, "DESCRIPTOR"):
        if value.DESCRIPTOR.name == "Quantity":
            return f'"{value.string}"'
        if value.DESCRIPTOR.name == "IntOrString":
            return f'"{value.str_val}"' if value.type else str(value.int_val)
    text = str(value)
    if len(text) > 100:
        text = text[:100] + "…"
    return f'"{text}"' if isinstance(value, str | bytes) else text
