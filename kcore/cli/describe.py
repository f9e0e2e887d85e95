"""`kcore describe`: all about objects in words, of any kind, with their events.

What is shown follows from the kind's descriptor: field names become words, lists of flat messages
tables, other lists blocks headed by a name; what is sensitive is covered.
"""

import re
from datetime import datetime
from typing import Any, Final

import click
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from kcore.cli import events, objects, options, subject
from kcore.cli.about import fields_of, inner_of
from kcore.cli.session import FAILED, Session, harmless
from kcore.cli.table import Table
from kcore.client import age, codec
from kcore.client.kinds import Kind
from kcore.client.options import field as field_options
from kcore.wire.errors import ApiError, Reason

_HEAD: Final = ("name", "generateName", "namespace", "labels", "annotations")
_NOT_SHOWN: Final = {"managedFields", "selfLink", "resourceVersion", "uid", "generation"}
_WORDS: Final = re.compile(r"[A-Z]{2,}s(?![a-z])|[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z0-9]+|[A-Z]+")
_UPPER: Final = {
    "Qos": "QoS",
    "Uid": "UID",
    "Tcp": "TCP",
    "Http": "HTTP",
    "Id": "ID",
    "Ip": "IP",
    "Dns": "DNS",
}
# Widest cell of a table; wider lists become blocks.
_WIDEST: Final = 60
_EVENTS: Final = 20


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="KIND [NAME...] | KIND/NAME...")
@options.namespace
@options.everywhere
@options.selector
@click.option("--show-events/--no-events", "show_events", default=True, help="With their events.")
@click.pass_obj
async def describe(
    session: Session,
    words: tuple[str, ...],
    all_namespaces: bool,
    labels: str,
    show_events: bool,
) -> int:
    """Show all about objects, with their events.

    \b
    kcore describe pod web-0
    kcore describe deploy -l app=web
    """
    code = 0
    shown = 0
    namespace = "" if all_namespaces else session.namespace
    for asked in subject.parse(words, await session.kinds()):
        try:
            if asked.name:
                found = [await objects.get(session, asked.kind, namespace, asked.name)]
            else:
                found = (await objects.listing(session, asked.kind, namespace, labels=labels)).items
        except ApiError as error:
            if error.reason is not Reason.NOT_FOUND:
                raise
            # As kubectl has it: the beginning of a name will do.
            listing = await objects.listing(session, asked.kind, namespace)
            found = [m for m in listing.items if objects.metadata(m).name.startswith(asked.name)]
            if not found or not asked.name:
                session.say(f"error: {error.message}")
                code = FAILED
                continue
        for message in found:
            if shown:
                session.out("\n")
            shown += 1
            for line in lines(asked.kind, message, session.clock.now()):
                session.out(harmless(line))
            if show_events:
                await _events(session, asked.kind, message)
    if not shown and not code:
        session.say("No resources found.")
    return code


def lines(kind: Kind, message: Message, now: float) -> list[str]:
    """The object in words."""
    plain = codec.to_plain(message)
    metadata = plain.get("metadata", {})
    head: list[tuple[str, list[str]]] = [("Name", [metadata.get("name", "")])]
    if kind.namespaced:
        head.append(("Namespace", [metadata.get("namespace", "")]))
    for name in ("labels", "annotations"):
        pairs = [f"{k}={_one_line(v)}" for k, v in metadata.get(name, {}).items()]
        head.append((name.capitalize(), pairs or ["<none>"]))
    if "creationTimestamp" in metadata:
        head.append(("Created", [_moment(metadata["creationTimestamp"], now)]))
    if "deletionTimestamp" in metadata:
        grace = metadata.get("deletionGracePeriodSeconds", 0)
        due = _moment(metadata["deletionTimestamp"], now)
        head.append(("Deletion", [f"{due}, grace {grace}s"]))
    for owner in metadata.get("ownerReferences", []):
        verb = "Controlled By" if owner.get("controller") else "Owned By"
        head.append((verb, [f"{owner.get('kind')}/{owner.get('name')}"]))
    if metadata.get("finalizers"):
        head.append(("Finalizers", metadata["finalizers"]))
    said = _aligned(head)
    shown = _Shown(now)
    for name, field in fields_of(kind.descriptor).items():
        if name != "metadata" and name in plain:
            said += shown.entry(name, field, plain[name], "")
    return said


class _Shown:
    """Values as indented words."""

    def __init__(self, now: float) -> None:
        self._now = now

    def entry(self, name: str, field: FieldDescriptor, value: Any, indent: str) -> list[str]:
        """One field: a line, or a heading with what is below it."""
        flat = self._flat(field, value)
        if flat is not None:
            return [f"{indent}{_words(name)}:  {flat}"]
        return [f"{indent}{_words(name)}:", *self._below(field, value, indent + "  ")]

    def _below(self, field: FieldDescriptor, value: Any, indent: str) -> list[str]:
        inner = inner_of(field)
        if isinstance(value, str):
            return [f"{indent}{line}" for line in value.splitlines()]
        if isinstance(value, list):
            return self._list(inner, field, value, indent)
        if _is_map(field):
            return self._map(field, value, indent)
        if inner is None:
            return [f"{indent}{k}: {_one_line(v)}" for k, v in value.items()]
        return self._message(inner, value, indent)

    def _message(self, descriptor: Descriptor, value: dict[str, Any], indent: str) -> list[str]:
        """A block: short values first aligned, then what has something below."""
        fields = fields_of(descriptor)
        flat: list[tuple[str, list[str]]] = []
        deep: list[str] = []
        for name, item in value.items():
            if name in _NOT_SHOWN:
                continue
            field = fields[name]
            said = self._flat(field, item)
            if said is not None:
                flat.append((_words(name), [said]))
            else:
                deep += self.entry(name, field, item, indent)
        return [f"{indent}{line}" for line in _aligned(flat)] + deep

    def _map(self, field: FieldDescriptor, value: dict[str, Any], indent: str) -> list[str]:
        said: list[str] = []
        assert field.message_type is not None
        inner = field.message_type.fields_by_name["value"]
        for key, item in value.items():
            if inner.type == FieldDescriptor.TYPE_BYTES or _sensitive(field):
                said.append(f"{indent}{key}: {_covered(inner, item)}")
            elif isinstance(item, str) and "\n" in item:
                said.append(f"{indent}{key}:")
                said += [f"{indent}  {line}" for line in item.splitlines()]
            elif isinstance(item, dict):
                said.append(f"{indent}{key}:")
                said += self._below(inner, item, indent + "  ")
            else:
                said.append(f"{indent}{key}: {_one_line(item)}")
        return said

    def _list(
        self, inner: Descriptor | None, field: FieldDescriptor, value: list[Any], indent: str
    ) -> list[str]:
        if inner is None:
            return [f"{indent}{line}" for item in value for line in str(item).splitlines() or [""]]
        rows = [self._row(inner, item) for item in value]
        # What has parts of its own reads better as a block, unless little of it is set.
        simple = all(inner_of(f) is None for f in fields_of(inner).values())
        if all(row is not None and (simple or len(row) <= 2) for row in rows):
            names = [n for n in fields_of(inner) if any(n in row for row in rows if row)]
            cells = [[(row or {}).get(n, "") or "-" for n in names] for row in rows]
            if sum(max(len(c[i]) for c in cells) for i in range(len(names))) <= 2 * _WIDEST:
                table = Table([_words(n) for n in names])
                return [indent + line for line in table.lines(cells)]
        said: list[str] = []
        for item in value:
            rest = dict(item)
            title = next((str(rest.pop(k)) for k in ("name", "type", "key") if k in rest), "")
            said.append(f"{indent}{title or '-'}:")
            said += self._message(inner, rest, indent + "  ")
        return said

    def _row(self, descriptor: Descriptor, item: dict[str, Any]) -> dict[str, str] | None:
        """A message as the cells of a table; None where something in it is too deep or wide."""
        fields = fields_of(descriptor)
        row: dict[str, str] = {}
        for name, value in item.items():
            said = self._flat(fields[name], value)
            if said is None or len(said) > _WIDEST:
                return None
            row[name] = said
        return row

    def _flat(self, field: FieldDescriptor, value: Any) -> str | None:
        """The value on the line of its name, if it fits there."""
        if _sensitive(field) or field.type == FieldDescriptor.TYPE_BYTES:
            return None if isinstance(value, dict) else _covered(field, value)
        if isinstance(value, dict):
            if not value:
                return "{}"
            if _is_map(field) and all(isinstance(v, str | int | float) for v in value.values()):
                said = ", ".join(f"{k}={v}" for k, v in value.items())
                return said if "\n" not in said and len(said) <= _WIDEST else None
            return None
        if isinstance(value, list):
            if any(isinstance(v, dict | list) for v in value):
                return None
            said = ", ".join(str(v) for v in value)
            return said if "\n" not in said and len(said) <= _WIDEST else None
        if isinstance(value, bool):
            return "true" if value else "false"
        if field.message_type is not None and field.message_type.name in ("Time", "MicroTime"):
            return _moment(value, self._now)
        return None if isinstance(value, str) and "\n" in value else str(value)


def _words(name: str) -> str:
    """`containerPort` as "Container Port"."""
    parts = _WORDS.findall(name) or [name]
    said = [part[:1].upper() + part[1:] for part in parts]
    return " ".join(_UPPER.get(part, part) for part in said)


def _aligned(entries: list[tuple[str, list[str]]]) -> list[str]:
    width = max((len(name) for name, _ in entries), default=0) + 3
    said: list[str] = []
    for name, values in entries:
        for index, value in enumerate(values):
            label = f"{name}:" if index == 0 else ""
            said.append(f"{label.ljust(width)}{value}")
    return said


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _sensitive(field: FieldDescriptor) -> bool:
    said = field_options(field)
    return said is not None and said.sensitive


def _covered(field: FieldDescriptor, value: Any) -> str:
    """How much there is of what is not shown."""
    text = str(value)
    size = (
        len(text) * 3 // 4 - text.count("=")
        if field.type == FieldDescriptor.TYPE_BYTES
        else (len(text.encode()))
    )
    return f"{size} bytes"


def _moment(text: str, now: float) -> str:
    try:
        seconds = datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return text
    if seconds > now:
        return f"{text} (in {age.text(seconds - now)})"
    return f"{text} ({age.text(now - seconds)} ago)"


def _one_line(value: Any) -> str:
    said = " ".join(str(value).split("\n"))
    return said if len(said) <= 200 else said[:197] + "..."


async def _events(session: Session, kind: Kind, message: Message) -> None:
    metadata = objects.metadata(message)
    catalogue = await session.kinds()
    fields = events.selector(kind, metadata.name, metadata.uid)
    try:
        listing = await objects.listing(
            session, events.kind_of_events(catalogue), metadata.namespace, fields=fields
        )
    except ApiError as error:
        session.say(f"Warning: its events can't be shown: {error.message}")
        return
    found = sorted(listing.items, key=events.last_seconds)
    if not found:
        session.out("Events: <none>")
        return
    session.out("Events:")
    rows = []
    for event in found[-_EVENTS:]:
        seen, type_, reason, _, said = events.cells_of(event, session.clock.now())
        source: Any = getattr(event, "source", None)
        reporter: Any = getattr(event, "reporting_component", "")
        rows.append([type_, reason, seen, source.component or reporter or "-", said])
    for line in Table(["Type", "Reason", "Age", "From", "Message"]).lines(rows):
        session.out(f"  {line}")
