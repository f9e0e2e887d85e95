"""Field masks over messages of any kind.

`compile_mask(descriptor, paths)` reads paths in proto or JSON names ("spec.node_name",
"spec.nodeName", "metadata.labels", "spec.containers.image": of each element) into a `Mask`;
`prune` leaves only the named fields in a message, `merge` copies just these from another. A path
that the message has not is `ApiError(INVALID)`. Pure; knows descriptors, no kind.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from kcore.wire.errors import ApiError, Reason, Violation

# What says which object it is stays in every answer, or nobody could tell whose fields they are.
IDENTITY = ("metadata.name", "metadata.namespace", "metadata.uid", "metadata.resource_version")


@dataclass(frozen=True, slots=True)
class Mask:
    """Fields by proto name (by key, in a map); None: the field as a whole."""

    fields: Mapping[str, "Mask | None"]

    def paths(self, before: str = "") -> Iterator[str]:
        """Its paths, in proto names, sorted."""
        for name, below in sorted(self.fields.items()):
            if below is None:
                yield before + name
            else:
                yield from below.paths(f"{before}{name}.")


def compile_mask(
    descriptor: Descriptor,
    paths: Iterable[str],
    *,
    identity: bool = False,
    lenient: bool = False,
) -> Mask:
    """The mask that `paths` say of messages of this type.

    `identity`: name, namespace, uid and resourceVersion belong to it always. `lenient`: paths that
    the message has not are left out, for masks over several kinds.
    """
    tree: dict[str, Any] = {}
    violations: list[Violation] = []
    for path in paths:
        found = _resolve(descriptor, path)
        if found is None:
            if not lenient:
                violations.append(Violation(path, f"{descriptor.name} has no such field"))
            continue
        _plant(tree, found)
    if violations:
        said = "; ".join(str(violation) for violation in violations)
        raise ApiError(Reason.INVALID, f"invalid field mask: {said}", violations)
    if identity:
        for path in IDENTITY:
            found = _resolve(descriptor, path)
            if found is not None:
                _plant(tree, found)
    return _frozen(tree)


def prune(message: Message, mask: Mask) -> None:
    """Clears all that the mask does not name, in place."""
    for field, value in message.ListFields():
        if field.name not in mask.fields:
            message.ClearField(field.name)
            continue
        below = mask.fields[field.name]
        if below is None:
            continue
        if _is_map(field):
            for key in [key for key in value if str(key) not in below.fields]:
                del value[key]
        elif field.is_repeated:
            for element in value:
                prune(element, below)
        else:
            prune(value, below)


def merge(source: Message, target: Message, mask: Mask) -> None:
    """Makes the named fields of `target` what they are in `source`; absent ones are removed.

    Lists are replaced as a whole: a path that goes through one is refused.
    """
    by_name = source.DESCRIPTOR.fields_by_name
    for name, below in mask.fields.items():
        field = by_name[name]
        if below is None:
            target.ClearField(name)
            _copy(source, target, field)
        elif _is_map(field):
            given, kept = getattr(source, name), getattr(target, name)
            for key in below.fields:
                if key in given:
                    _set_entry(field, kept, key, given[key])
                else:
                    kept.pop(key, None)
        elif field.is_repeated:
            said = f"{field.json_name}: a merge replaces a list as a whole"
            raise ApiError(Reason.INVALID, said, [Violation(field.json_name, said)])
        elif source.HasField(name) or target.HasField(name):
            merge(getattr(source, name), getattr(target, name), below)


def _copy(source: Message, target: Message, field: Any) -> None:
    given = getattr(source, field.name)
    if field.is_repeated:
        getattr(target, field.name).MergeFrom(given)
    elif not source.HasField(field.name):
        return
    elif field.message_type is not None:
        getattr(target, field.name).CopyFrom(given)
    else:
        setattr(target, field.name, given)


def _set_entry(field: Any, kept: Any, key: str, value: Any) -> None:
    if field.message_type.fields_by_name["value"].message_type is not None:
        kept[key].CopyFrom(value)
    else:
        kept[key] = value


def _resolve(descriptor: Descriptor, path: str) -> list[str] | None:
    """The path in proto names; None where there is no such field."""
    names: list[str] = []
    at: Descriptor | None = descriptor
    segments = path.split(".")
    index = 0
    while index < len(segments):
        if at is None:
            return None
        field = _field(at, segments[index])
        if field is None:
            return None
        names.append(field.name)
        index += 1
        at = field.message_type
        if _is_map(field):
            # A map's keys may have dots in them: all that follows is one key.
            if index < len(segments):
                if field.message_type.fields_by_name["key"].type != FieldDescriptor.TYPE_STRING:
                    return None
                names.append(".".join(segments[index:]))
            return names
    return names


def _field(descriptor: Descriptor, name: str) -> Any:
    field: Any = descriptor.fields_by_name.get(name)
    if field is None:
        field = descriptor.fields_by_camelcase_name.get(name)
        if field is None or field.json_name != name:
            field = next((one for one in descriptor.fields if one.json_name == name), None)
    return field


def _is_map(field: Any) -> bool:
    message = field.message_type
    return message is not None and bool(message.GetOptions().map_entry)


def _plant(tree: dict[str, Any], names: list[str]) -> None:
    for name in names[:-1]:
        below = tree.setdefault(name, {})
        if below is None:
            return
        tree = below
    tree[names[-1]] = None


def _frozen(tree: dict[str, Any]) -> Mask:
    return Mask(
        {name: None if below is None else _frozen(below) for name, below in sorted(tree.items())}
    )
