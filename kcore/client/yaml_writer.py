"""Plain values as YAML text for people.

`write(value)` gives block style with an indent of two, lists level with their key, text of several
lines as a literal block, and quotes just where some YAML reader (1.1, 1.2, Go's) would take a
string for something else. What `document.read` makes of the text is the value again.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from yaml.resolver import Resolver

from kcore.client import document

_BARE: Final = re.compile(
    r"[A-Za-z0-9_./+\-$(][^\x00-\x1f\x7f-\xa0\ud800-\udfff\ufeff\u2028\u2029]*"
)
_WORDS: Final = {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "~"}
_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def write(value: Any) -> str:
    """The text, ending in a newline."""
    lines: list[str] = []
    if isinstance(value, Mapping) and value:
        _mapping(value, "", lines)
    elif isinstance(value, list) and value:
        _sequence(value, "", lines)
    else:
        # Indented even here: readers differ over a block that is not.
        lines.append(_leaf(value, "  "))
    return "\n".join(lines) + "\n"


def _mapping(value: Mapping[str, Any], indent: str, lines: list[str]) -> None:
    for key, item in value.items():
        head = f"{indent}{_text(str(key))}:"
        if isinstance(item, Mapping) and item:
            lines.append(head)
            _mapping(item, indent + "  ", lines)
        elif isinstance(item, list) and item:
            lines.append(head)
            _sequence(item, indent, lines)
        else:
            lines.append(f"{head} {_leaf(item, indent + '  ')}")


def _sequence(value: list[Any], indent: str, lines: list[str]) -> None:
    for item in value:
        if isinstance(item, Mapping | list) and item:
            start = len(lines)
            if isinstance(item, Mapping):
                _mapping(item, indent + "  ", lines)
            else:
                _sequence(item, indent + "  ", lines)
            lines[start] = f"{indent}- {lines[start][len(indent) + 2 :]}"
        else:
            lines.append(f"{indent}- {_leaf(item, indent + '  ')}")


def _leaf(value: Any, indent: str) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _block(value, indent) if _is_block(value) else _text(value)
    if isinstance(value, int | float):
        return str(value)
    return "{}" if isinstance(value, Mapping) else "[]"


def _is_block(value: str) -> bool:
    """Whether a literal block shows it truly: several lines, nothing that has to be escaped."""
    return (
        "\n" in value
        and value[0] not in " \t\n"
        and all(c.isprintable() or c in "\n\t" for c in value)
    )


def _block(value: str, indent: str) -> str:
    if not value.endswith("\n"):
        mark = "|-"
    elif value.endswith("\n\n"):
        mark = "|+"
    else:
        mark = "|"
    body = value[:-1] if value.endswith("\n") else value
    return "\n".join([mark, *(indent + line if line else "" for line in body.split("\n"))])


def _text(value: str) -> str:
    if _is_bare(value):
        return value
    return '"' + "".join(_escaped(c) for c in value) + '"'


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    code = ord(character)
    return (
        f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
    )


def _is_bare(value: str) -> bool:
    """Whether every reader takes it for this string without quotes."""
    if not _BARE.fullmatch(value) or value.lower() in _WORDS:
        return False
    if value[0] in "*-" and not re.match(r"-[A-Za-z-]", value):
        return False
    if ": " in value or " #" in value or value[-1] in ": " or value.startswith(("---", "...")):
        return False
    if not all(c.isprintable() for c in value) or not isinstance(document.scalar(value), str):
        return False
    known = Resolver.yaml_implicit_resolvers
    return not any(regexp.match(value) for _, regexp in known.get(value[0], ()))
