"""The reference of the API, from the protos' comments and options: generated/reference.md.

`render(descriptors)` gives the whole of it as Markdown: each kind with what is said of it, then
each message once, with its fields in JSON names. Pure.
"""

from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor

_META = "kcore.meta.v1"
# Messages that are plain values in YAML and JSON.
_PLAIN = {
    f"{_META}.Time": "time",
    f"{_META}.MicroTime": "time",
    f"{_META}.Quantity": "quantity",
    f"{_META}.IntOrString": "number or string",
    f"{_META}.FieldsV1": "object",
    f"{_META}.RawExtension": "object",
}
_SCALARS = {
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BYTES: "base64",
    FieldDescriptor.TYPE_BOOL: "true or false",
    FieldDescriptor.TYPE_INT32: "number",
    FieldDescriptor.TYPE_INT64: "number",
}


class Options:
    """The options of kcore/meta/v1/options.proto, read off the descriptors of one pool."""

    def __init__(self, pool: descriptor_pool.DescriptorPool) -> None:
        """`pool` has kcore/meta/v1/options.proto."""
        self._pool = pool

    def kind(self, message: Descriptor) -> Any:
        """What makes the message a kind, or None."""
        return self._get(message, "MessageOptions", "kind")

    def rules(self, message: Descriptor) -> Any:
        """The message's own rules."""
        return self._get(message, "MessageOptions", "rules") or []

    def group(self, message: Descriptor) -> str:
        """The API group of the message's file."""
        return self._get(message.file, "FileOptions", "group") or ""

    def field(self, field: FieldDescriptor) -> Any:
        """What is said of the field, or None."""
        return self._get(field, "FieldOptions", "field")

    def _get(self, of: Any, holder: str, name: str) -> Any:
        # Options come as messages of the default pool: read again as those of this one.
        made = message_factory.GetMessageClass(
            self._pool.FindMessageTypeByName(f"google.protobuf.{holder}")
        )
        extension = self._pool.FindExtensionByName(f"{_META}.{name}")
        message_factory.GetMessageClass(extension.containing_type)
        if extension.message_type is not None:
            message_factory.GetMessageClass(extension.message_type)
        options = made.FromString(of.GetOptions().SerializeToString())
        if extension.is_repeated:
            return list(options.Extensions[extension])
        return options.Extensions[extension] if options.HasExtension(extension) else None


def render(descriptors: descriptor_pb2.FileDescriptorSet) -> str:
    """All of it."""
    pool = descriptor_pool.DescriptorPool()
    for file in descriptors.file:
        pool.Add(file)
    return "\n".join(_Reference(pool, descriptors).lines()) + "\n"


class _Reference:
    def __init__(
        self, pool: descriptor_pool.DescriptorPool, descriptors: descriptor_pb2.FileDescriptorSet
    ) -> None:
        self._options = Options(pool)
        self._comments = dict(_comments(descriptors))
        messages = [
            message
            for file in descriptors.file
            for message in pool.FindFileByName(file.name).message_types_by_name.values()
        ]
        kinds = [message for message in messages if self._options.kind(message)]
        self._kinds = sorted(kinds, key=lambda one: (self._options.group(one), one.name))
        # Messages that kinds are made of, in the order in which they are met.
        self._parts: dict[str, Descriptor] = {}
        for kind in self._kinds:
            self._meet(kind)

    def _meet(self, message: Descriptor) -> None:
        for field in message.fields:
            held = _held(field)
            if held is None or held.full_name in self._parts or held.full_name in _PLAIN:
                continue
            self._parts[held.full_name] = held
            self._meet(held)

    def lines(self) -> Iterator[str]:
        """The lines."""
        yield "# Kinds"
        yield ""
        yield "Generated from `proto/` by `make gen`; never edited. Field names are those of YAML."
        yield ""
        yield "| kind | apiVersion | names | lives in |"
        yield "| --- | --- | --- | --- |"
        for kind in self._kinds:
            said = self._options.kind(kind)
            names = ", ".join([said.plural, said.singular, *said.short_names])
            where = "the cluster" if said.scope else "a namespace"
            yield f"| {_link(kind)} | {self._api_version(kind)} | {names} | {where} |"
        for kind in self._kinds:
            yield from self._kind(kind)
        yield ""
        yield "# Parts"
        for part in self._parts.values():
            yield from self._message(part)

    def _api_version(self, kind: Descriptor) -> str:
        group, version = self._options.group(kind), kind.file.package.rpartition(".")[2]
        return f"{group}/{version}" if group else version

    def _kind(self, kind: Descriptor) -> Iterator[str]:
        said = self._options.kind(kind)
        yield ""
        yield f"## {kind.name}"
        yield ""
        yield self._comment(kind)
        yield ""
        yield f"- `apiVersion: {self._api_version(kind)}`, message `{kind.full_name}`"
        if said.categories:
            yield f"- among {_code(said.categories)}"
        if said.columns:
            always = [one.name for one in said.columns if not one.wide]
            wide = [one.name for one in said.columns if one.wide]
            rest = f"; with `-o wide` {', '.join(wide)}" if wide else ""
            yield f"- columns {', '.join(always)}{rest}"
        if said.selectable:
            yield f"- field selectors {_code(said.selectable)}"
        doors = list(said.subresources)
        if "status" in kind.fields_by_name:
            yield "- subresource `status`"
        for door in doors:
            writes = f" writes {_code(door.paths)}" if door.paths else ""
            yield f"- subresource `{door.name}`{writes}"
        for claim in said.claims:
            yield f"- `{claim.path}` is unique, from pool `{claim.pool}`"
        for frozen in said.immutable:
            but = f" but for {_code(_but(frozen))}" if _but(frozen) else ""
            when = f" where `{frozen.when}`" if frozen.when else ""
            yield f"- `{frozen.path}` may not change{but}{when}"
        if said.HasField("history"):
            if said.history.revisions < 0:
                yield "- no past is kept"
            if said.history.ttl_seconds:
                yield f"- lasts {said.history.ttl_seconds} seconds after its last change"
        if said.HasField("graceful"):
            yield "- its deletion waits to be confirmed"
        for rule in said.rules:
            yield f"- {_rule(rule)}"
        yield from self._rules(kind)
        yield from self._fields(kind)

    def _message(self, message: Descriptor) -> Iterator[str]:
        yield ""
        yield f"## {message.name}"
        yield ""
        yield self._comment(message)
        rules = list(self._rules(message))
        if rules:
            yield ""
            yield from rules
        yield from self._fields(message)

    def _rules(self, message: Descriptor) -> Iterator[str]:
        for rule in self._options.rules(message):
            yield f"- {_rule(rule)}"

    def _fields(self, message: Descriptor) -> Iterator[str]:
        yield ""
        yield "| field | type | |"
        yield "| --- | --- | --- |"
        for field in message.fields:
            said = self._options.field(field)
            about = " ".join([self._comment(field), *(_facts(said) if said else ())])
            name = "(in place)" if said and said.inline else f"`{field.json_name}`"
            yield f"| {name} | {_type(field)} | {about.replace('|', chr(92) + '|')} |"

    def _comment(self, of: Descriptor | FieldDescriptor) -> str:
        return self._comments.get(of.full_name, "")


def _comments(descriptors: descriptor_pb2.FileDescriptorSet) -> Iterator[tuple[str, str]]:
    """The comments of messages and their fields, by full name."""
    for file in descriptors.file:
        said = {
            tuple(place.path): " ".join(place.leading_comments.split())
            for place in file.source_code_info.location
        }
        for index, message in enumerate(file.message_type):
            name = f"{file.package}.{message.name}"
            yield name, said.get((4, index), "")
            for place, field in enumerate(message.field):
                yield f"{name}.{field.name}", said.get((4, index, 2, place), "")


def _held(field: FieldDescriptor) -> Descriptor | None:
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        held: Descriptor | None = message.fields_by_name["value"].message_type
        return held
    return message


def _type(field: FieldDescriptor) -> str:
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        return f"map of {_type(message.fields_by_name['value'])}"
    if message is not None:
        name = _PLAIN.get(message.full_name) or _link(message)
    else:
        name = _SCALARS.get(field.type, "")
    return f"list of {name}" if field.is_repeated else name


def _link(message: Descriptor) -> str:
    return f"[{message.name}](#{message.name.lower()})"


def _code(words: Any) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _but(frozen: Any) -> list[str]:
    # `except` is a word of Python's.
    return list(getattr(frozen, "except"))


def _rule(rule: Any) -> str:
    where = f"`{rule.path}` " if rule.path else ""
    expression = " ".join(rule.expression.split())
    when = "on deletion, " if rule.on_delete else ""
    return f"{when}{where}{rule.message}: `{expression}`"


def _facts(said: Any) -> Iterator[str]:
    if said.required:
        yield "**Required.**"
    if said.default:
        yield f"Default `{said.default}`."
    if said.enum:
        yield f"One of {_code(word or repr(word) for word in said.enum)}."
    if said.format:
        yield f"Format {said.format}."
    if said.HasField("min"):
        yield f"At least {said.min}."
    if said.HasField("max"):
        yield f"At most {said.max}."
    if said.merge_key:
        yield f"Merged by {_code(said.merge_key)}."
    if said.set:
        yield "A set."
    if said.atomic:
        yield "Applied as a whole."
    if said.sensitive:
        yield "Sensitive."
    if said.write_only:
        yield "Never stored."
    if said.inert:
        yield "*Stored, not acted on.*"
