"""What `-o` means: name, yaml, json, jsonpath=…; tables are the callers' own.

Objects are shown neat: managedFields and what kubectl apply noted in an annotation only on demand.
Several objects, or a list, are one `kind: List`, as manifests take it.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, Final

import click
from google.protobuf.message import Message

from kcore.cli import files
from kcore.client.kinds import Kind

FORMATS: Final = ("name", "yaml", "json")
_PATHS: Final = ("jsonpath", "jsonpath-as-json")
_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
# JSON may hold these as they are, terminals may take them for commands.
_CONTROLS: Final = re.compile("[\x7f-\x9f]")


def check(form: str, allowed: Sequence[str] = FORMATS) -> str:
    """The format with its file read; refuses what is none of the formats.

    `allowed` with a `=` at the end take an argument, or a file where `-file` is put to their name.
    """
    takes = [f"{name}=" for name in _PATHS] + [name for name in allowed if name.endswith("=")]
    if not form or form in allowed:
        return form
    name, equals, argument = form.partition("=")
    if equals and argument:
        if f"{name}=" in takes:
            return form
        name = name.removesuffix("-file")
        if f"{name}=" in takes:
            return f"{name}={files.text(argument, '-o ')}"
    if name in ("go-template", "template", "go-template-file", "templatefile"):
        raise click.UsageError(
            "-o go-template is Go's own; try -o jsonpath=… or -o custom-columns=…"
        )
    known = ", ".join(n if not n.endswith("=") else f"{n}…" for n in (*allowed, *takes[:1]))
    raise click.UsageError(f'-o takes {known}, not "{form}"')


def plain(message: Message, *, managed_fields: bool = False) -> dict[str, Any]:
    """The object as people want to see it."""
    # Tables and names do without.
    from kcore.client import codec

    shown = codec.to_plain(message)
    if not managed_fields:
        metadata = shown.get("metadata", {})
        metadata.pop("managedFields", None)
        annotations = metadata.get("annotations", {})
        if annotations.pop(_LAST_APPLIED, None) is not None and not annotations:
            del metadata["annotations"]
    return shown


def as_list(objects: Sequence[dict[str, Any]], revision: int = 0) -> dict[str, Any]:
    """Several objects as one."""
    return {
        "apiVersion": "v1",
        "kind": "List",
        "metadata": {"resourceVersion": str(revision) if revision else ""},
        "items": list(objects),
    }


def text(value: Any, form: str) -> str:
    """The value in yaml, json or by a path, without a last newline."""
    if form == "json":
        return _json(value)
    if form == "yaml":
        # Reading and writing YAML is not for free at start.
        from kcore.client import yaml_writer

        return yaml_writer.write(value).removesuffix("\n")
    from kcore.cli import jsonpath

    name, _, template = form.partition("=")
    if name == "jsonpath-as-json":
        return _json(jsonpath.find(jsonpath.bare(template), value))
    return jsonpath.render(template, value)


def name(kind: Kind, message: Message) -> str:
    """`deployment.apps/web`."""
    metadata: Any = getattr(message, "metadata", None)
    return f"{kind.singular_resource}/{metadata.name}"


def _json(value: Any) -> str:
    said = json.dumps(value, indent=4, ensure_ascii=False)
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", said)
