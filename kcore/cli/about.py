"""What is there: the kinds, what their fields mean, versions."""

import click
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from kcore.cli.session import FAILED, Exit, Session
from kcore.cli.table import Table
from kcore.client import codec
from kcore.client.options import field as field_options
from kcore.client.options import rules
from kcore.client.problem import meant


@click.command(name="api-resources")
@click.option("--namespaced", type=click.BOOL, default=None, help="true or false.")
@click.option("--api-group", default=None, help="Only of this group; empty is core.")
@click.option("--no-headers", is_flag=True, help="Without the first line.")
@click.option("-o", "--output", "form", type=click.Choice(["", "name", "wide"]), default="")
@click.pass_obj
async def api_resources(
    session: Session, namespaced: bool | None, api_group: str | None, no_headers: bool, form: str
) -> int:
    """List the kinds.

    \b
    kcore api-resources -o wide
    kcore api-resources --api-group=apps --namespaced=true
    """
    catalogue = await session.kinds()
    shown = [
        kind
        for kind in catalogue.kinds
        if (namespaced is None or kind.namespaced is namespaced)
        and (api_group is None or kind.group == api_group)
    ]
    if form == "name":
        for kind in shown:
            session.out(kind.resource)
        return 0
    headers = ["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"]
    if form == "wide":
        headers += ["CATEGORIES", "MESSAGE"]
    rows = []
    for kind in shown:
        row = [
            kind.options.plural,
            ",".join(kind.options.short_names),
            kind.api_version,
            "true" if kind.namespaced else "false",
            kind.name,
        ]
        if form == "wide":
            row += [",".join(kind.options.categories), kind.full_name]
        rows.append(row)
    for line in Table(headers, show_headers=not no_headers).lines(rows):
        session.out(line)
    return 0


@click.command(name="api-versions")
@click.pass_obj
async def api_versions(session: Session) -> int:
    """List the groups of kinds, with their versions.

    \b
    kcore api-versions
    """
    for version in sorted({kind.api_version for kind in (await session.kinds()).kinds}):
        session.out(version)
    return 0


@click.command()
@click.argument("path", metavar="KIND[.FIELD...]")
@click.option("--recursive", is_flag=True, help="All fields below, as a tree.")
@click.pass_obj
async def explain(session: Session, path: str, recursive: bool) -> int:
    """Show what a kind's fields mean.

    \b
    kcore explain pod.spec.containers
    kcore explain deployment --recursive
    """
    catalogue = await session.kinds()
    word, _, rest = path.partition(".")
    kind = catalogue.one(word)
    comments = catalogue.comments()
    descriptor: Descriptor | None = kind.descriptor
    said = comments.get(kind.full_name, "")
    name, shown_type = "", kind.name
    field: FieldDescriptor | None = None
    for step in [s for s in rest.split(".") if s]:
        fields = fields_of(descriptor) if descriptor is not None else {}
        if step not in fields:
            at = f"{kind.name}{f'.{name}' if name else ''}"
            raise Exit(FAILED, f'error: {at} has no field "{step}"{meant(step, fields)}')
        field = fields[step]
        name = f"{name}.{step}" if name else step
        said = comments.get(field.full_name, "")
        shown_type = type_of(field)
        descriptor = inner_of(field)
    session.out(f"KIND:       {kind.name}")
    session.out(f"VERSION:    {kind.api_version}")
    if name:
        session.out(f"FIELD:      {name} <{shown_type}>")
    session.out("")
    session.out("DESCRIPTION:")
    for line in (said or "<no words>").splitlines():
        session.out(f"    {line.strip()}")
    if field is not None:
        for line in _facts(field):
            session.out(f"    {line}")
    if descriptor is not None and (held := rules(descriptor)):
        session.out("")
        session.out("RULES:")
        for rule in held:
            at = f"{rule.path}: " if rule.path else ""
            session.out(f"    {at}{rule.message or rule.message_expression or rule.expression}")
    if descriptor is not None and fields_of(descriptor):
        session.out("")
        session.out("FIELDS:")
        _fields(session, descriptor, comments, recursive, "  ", ())
    return 0


def _fields(
    session: Session,
    descriptor: Descriptor,
    comments: dict[str, str],
    recursive: bool,
    indent: str,
    above: tuple[str, ...],
) -> None:
    for name, field in fields_of(descriptor).items():
        said = field_options(field)
        required = " -required-" if said is not None and said.required else ""
        session.out(f"{indent}{name} <{type_of(field)}>{required}")
        if recursive:
            inner = inner_of(field)
            if inner is not None and inner.full_name not in above:
                _fields(session, inner, comments, True, indent + "  ", (*above, inner.full_name))
            continue
        for line in comments.get(field.full_name, "").splitlines():
            session.out(f"{indent}  {line.strip()}")
        for line in _facts(field):
            session.out(f"{indent}  {line}")
        session.out("")


def _facts(field: FieldDescriptor) -> list[str]:
    """What the field's options promise, a line each."""
    said = field_options(field)
    if said is None:
        return []
    found = [f"One of: {', '.join(said.enum)}"] if said.enum else []
    found += [f"Format: {said.format}"] if said.format else []
    found += [f"At least: {said.min}"] if said.HasField("min") else []
    found += [f"At most: {said.max}"] if said.HasField("max") else []
    found += [f"Default: {said.default}"] if said.default else []
    found += ["Stored, but not acted on."] if said.inert else []
    return found


def fields_of(descriptor: Descriptor) -> dict[str, FieldDescriptor]:
    """A message's fields by JSON name, inline ones in their parent's place."""
    found: dict[str, FieldDescriptor] = {}
    for field in descriptor.fields:
        said = field_options(field)
        if said is not None and said.inline and field.message_type is not None:
            found |= fields_of(field.message_type)
        else:
            found[field.json_name] = field
    return found


def inner_of(field: FieldDescriptor) -> Descriptor | None:
    """The message behind a field that has fields of its own to show."""
    inner = field.message_type
    if inner is None:
        return None
    if inner.GetOptions().map_entry:
        return inner_of(inner.fields_by_name["value"])
    return None if inner.full_name in codec.SCALARS else inner


def type_of(field: FieldDescriptor) -> str:
    """As people say it: string, []Container, map[string]Quantity."""
    inner = field.message_type
    if inner is not None and inner.GetOptions().map_entry:
        key, value = inner.fields_by_name["key"], inner.fields_by_name["value"]
        return f"map[{_word(key)}]{_word(value)}"
    return f"[]{_word(field)}" if field.is_repeated else _word(field)


def _word(field: FieldDescriptor) -> str:
    if field.message_type is not None:
        return field.message_type.name
    if field.enum_type is not None:
        return field.enum_type.name
    words: dict[int, str] = {
        FieldDescriptor.TYPE_BOOL: "boolean",
        FieldDescriptor.TYPE_BYTES: "base64",
        FieldDescriptor.TYPE_STRING: "string",
        FieldDescriptor.TYPE_DOUBLE: "number",
        FieldDescriptor.TYPE_FLOAT: "number",
    }
    return words.get(field.type, "integer")
