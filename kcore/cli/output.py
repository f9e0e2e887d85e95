"""What `-o` means: name, yaml, json, jsonpath=…; tables are the callers' own.

Objects are shown neat: managedFields only on demand. Several objects, or a list, are one
`kind: List`, as manifests take it.
"""

import json
from collections.abc import Sequence
from typing import Any, Final

import click
from google.protobuf.message import Message

from kcore.client.kinds import Kind

FORMATS: Final = ("name", "yaml", "json", "jsonpath=…")


def check(output: str, allowed: Sequence[str]) -> None:
    """Refuses what is none of the formats."""
    if output and output not in allowed and not output.startswith("jsonpath="):
        raise click.UsageError(f'-o takes {", ".join((*allowed, "jsonpath=…"))}, not "{output}"')


def plain(message: Message, *, managed_fields: bool = False) -> dict[str, Any]:
    """The object as people want to see it."""
    # Tables and names do without.
    from kcore.client import codec

    shown = codec.to_plain(message)
    if not managed_fields:
        shown.get("metadata", {}).pop("managedFields", None)
    return shown


def as_list(objects: Sequence[dict[str, Any]], revision: int = 0) -> dict[str, Any]:
    """Several objects as one."""
    return {
        "apiVersion": "v1",
        "kind": "List",
        "metadata": {"resourceVersion": str(revision) if revision else ""},
        "items": list(objects),
    }


def text(value: Any, output: str) -> str:
    """The value in yaml, json or by a path, without a last newline."""
    if output == "json":
        return json.dumps(value, indent=4, ensure_ascii=False)
    if output == "yaml":
        # Reading and writing YAML is not for free at start.
        from kcore.client import yaml_writer

        return yaml_writer.write(value).removesuffix("\n")
    from kcore.cli import jsonpath

    return jsonpath.render(output.removeprefix("jsonpath="), value)


def name(kind: Kind, message: Message) -> str:
    """`deployment.apps/web`."""
    metadata: Any = getattr(message, "metadata", None)
    return f"{kind.singular_resource}/{metadata.name}"
