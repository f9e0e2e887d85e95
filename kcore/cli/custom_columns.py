"""Columns of the user's own: `-o custom-columns=NAME:.metadata.name,NODE:.spec.nodeName`.

A column is a heading and a path (jsonpath.py). In a file the first line has the headings, the
second the paths. Several values of a path are joined by commas; what is absent is <none>.
"""

import json
from typing import Any

import click

from kcore.cli import jsonpath

Column = tuple[str, str]


def parse(said: str) -> list[Column]:
    """The columns that `-o custom-columns=` names."""
    found = []
    for part in _parts(said):
        heading, colon, path = part.partition(":")
        if not colon or not heading or not path:
            raise click.UsageError(f'custom-columns: "{part}" is not of the form HEADING:.path')
        found.append((heading.strip(), jsonpath.bare(path)))
    return found


def parse_file(text: str) -> list[Column]:
    """The columns of a file."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if len(lines) != 2 or len(lines[0]) != len(lines[1]):
        raise click.UsageError(
            "custom-columns-file: a line of headings and a line with as many paths"
        )
    return [(heading, jsonpath.bare(path)) for heading, path in zip(*lines, strict=True)]


def row(columns: list[Column], plain: dict[str, Any]) -> list[str]:
    """The cells of one object."""
    return [
        ",".join(_shown(v) for v in jsonpath.find(path, plain)) or "<none>" for _, path in columns
    ]


def _parts(said: str) -> list[str]:
    """The columns' texts: commas in brackets and quotes part nothing."""
    parts, depth, quote = [""], 0, ""
    for character in said:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        depth += {"[": 1, "(": 1, "]": -1, ")": -1}.get(character, 0) if not quote else 0
        if character == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _shown(value: Any) -> str:
    if value is None:
        return "<none>"
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
