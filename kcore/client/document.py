"""Documents: the text of YAML and JSON files as plain values whose every place is known.

`read(text, name)` gives the documents of a file: dicts, lists, strings, ints, floats, bools, None.
Scalars are resolved as Kubernetes does (YAML 1.1 as Go reads it): `0400` is 256, `yes` a boolean,
`12:30` and `2026-01-01` strings. A number that is no integer keeps its text (`Float.text`).
Duplicate keys, wrong syntax, too deep nesting and aliases that blow up are problems of the
document; `place` tells where a path stands, `excerpt` shows it. Must not know messages or kinds.
"""

import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from kcore.client.problem import Path, Problem

# Deepest nesting taken: far more than any kind has, and safe for every parser's stack.
DEPTH: Final = 100
# What aliases may add to a document: values, and characters.
ALIASED_NODES: Final = 50_000
ALIASED_CHARACTERS: Final = 4 * 1024 * 1024

_STR: Final = "tag:yaml.org,2002:str"
_MAP: Final = "tag:yaml.org,2002:map"
_SEQ: Final = "tag:yaml.org,2002:seq"
# The tag of a scalar that was written without quotes and without a tag.
_PLAIN: Final = "plain"
_TYPED: Final = {f"tag:yaml.org,2002:{name}" for name in ("int", "float", "bool", "null")}
_AS_TEXT: Final = {_STR, "tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:binary"}

_CONSTANTS: Final[dict[str, bool | None]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"), True),
    **dict.fromkeys(("false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"), False),
}
_INT: Final = re.compile(
    r"(?P<sign>[-+]?)(?:0b(?P<two>[01_]+)|0o(?P<o>[0-7_]+)|0x(?P<sixteen>[0-9a-fA-F_]+)"
    r"|0(?P<eight>[0-7_]+)|(?P<ten>0|[1-9][0-9_]*))",
    re.ASCII,
)
_BASES: Final = (("ten", 10), ("eight", 8), ("o", 8), ("sixteen", 16), ("two", 2))
_FLOAT: Final = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
    re.ASCII,
)
_LONGEST_INT: Final = 64
_BREAKS: Final = re.compile("\r\n|[\n\r\x85\u2028\u2029]")


class Int(int):
    """A whole number that was not written in plain decimals, with the text it was written in."""

    text: str

    def __new__(cls, value: int, text: str) -> "Int":
        """From its value and its text."""
        made = super().__new__(cls, value)
        made.text = text
        return made


class Float(float):
    """A number that is no integer, with the text it was written in."""

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> "Float":
        """From its text."""
        made = super().__new__(cls, text.replace(".inf", "inf").replace(".nan", "nan"))
        made.text = text
        return made


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands: line and column count from 1."""

    line: int
    column: int
    length: int = 1
    # As it is written, for a scalar without quotes.
    raw: str | None = None


@dataclass(slots=True)
class Document:
    """One document of a file. `plain` is None where it is empty or could not be read."""

    name: str
    lines: list[str]
    plain: Any
    # What is wrong with it as a document, and where.
    problems: list[tuple[Problem, Place]] = field(default_factory=list)
    node: Node | None = None
    # Of JSON: how many documents stand before it. Its nodes are made when a place is asked for.
    index: int = -1

    def place(self, path: Path, at_key: bool = False) -> Place:
        """Where the value (or its key) stands; the nearest thing around it where it is absent."""
        node, key = self._root(), None
        for step in path:
            found = _step(node, step) if node is not None else None
            if found is None:
                break
            key, node = found
        else:
            if at_key and key is not None:
                return _place(key)
            return _place(node) if node is not None else Place(1, 1)
        # What is missing is shown by the key of what misses it.
        shown = key if key is not None else node
        return _place(shown) if shown is not None else Place(1, 1)

    def path(self, said: str) -> Path:
        """The path that a text such as `spec.ports[0].name` means in this document."""
        parts: list[str | int] = []
        node = self._root()
        rest = said
        while rest:
            if isinstance(node, MappingNode):
                bare = rest.removeprefix(".")
                bracketed = bare.startswith("[")
                bare = bare.removeprefix("[")
                names = sorted((k.value for k, _ in node.value), key=len, reverse=True)
                name = next((n for n in names if n and _begins(bare, n)), None)
                if name is None:
                    break
                rest = bare[len(name) :]
                if bracketed:
                    rest = rest.removeprefix("]")
                parts.append(name)
            elif isinstance(node, SequenceNode):
                found = re.match(r"\[([0-9]{1,9})\]", rest)
                if found is None:
                    break
                rest = rest[found.end() :]
                parts.append(int(found[1]))
            else:
                break
            stepped = _step(node, parts[-1])
            node = stepped[1] if stepped is not None else None
        return tuple(parts)

    def _root(self) -> Node | None:
        if self.node is None and self.index >= 0:
            try:
                nodes = list(_nodes("\n".join(self.lines)))
            except yaml.YAMLError:
                nodes = []
            if self.index < len(nodes):
                self.node = nodes[self.index]
            self.index = -1
        return self.node


def read(text: str, name: str) -> list[Document]:
    """The documents of a file. Syntax errors end it: the document at fault is the last."""
    text = text.removeprefix("\ufeff")
    head = text.lstrip()[:1]
    if head in ("{", "["):
        documents = _read_json(text, name)
        if documents is not None:
            return documents
    return _read_yaml(text, name)


def excerpt(document: Document, place: Place) -> str:
    """The line and a caret under the place, as compilers show it."""
    if not 1 <= place.line <= len(document.lines):
        return ""
    line = document.lines[place.line - 1]
    start = place.column - 1
    # A long line (JSON is often one) is cut around the place.
    low = max(0, start - 60) if len(line) > 120 else 0
    high = min(len(line), low + 120)
    shown = _printable(line[low:high])
    pad = "".join("\t" if c == "\t" else " " * _width(c) for c in _printable(line[low:start]))
    caret = "^" * max(1, min(_wide(line[start : start + place.length]), 60))
    number = str(place.line)
    gutter = " " * len(number)
    return f" {number} | {shown}\n {gutter} | {pad}{caret}"


def scalar(text: str) -> str | int | float | bool | None:
    """What a scalar without quotes means."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if text[0] not in "0123456789+-.":
        return text
    found = _INT.fullmatch(text) if len(text) <= _LONGEST_INT else None
    if found is not None:
        for group, base in _BASES:
            digits = found[group]
            if digits is not None and (bare := digits.replace("_", "")):
                value = int(found["sign"] + bare, base)
                return value if str(value) == text else Int(value, text)
    if _FLOAT.fullmatch(text):
        return Float(text)
    return text


class _Loader(yaml.cyaml.CParser):  # type: ignore[misc, name-defined]
    """PyYAML's C parser, with nothing resolved and its recursion bounded."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def resolve(self, kind: type[Node], value: object, implicit: tuple[bool, bool]) -> str:
        if kind is ScalarNode:
            return _PLAIN if implicit[0] else _STR
        return _MAP if kind is MappingNode else _SEQ

    def descend_resolver(self, parent: Node | None, index: object) -> None:
        self._depth += 1
        if self._depth > DEPTH:
            mark = parent.start_mark if parent is not None else None
            raise yaml.MarkedYAMLError(None, None, f"nested deeper than {DEPTH} levels", mark)

    def ascend_resolver(self) -> None:
        self._depth -= 1


def _read_yaml(text: str, name: str) -> list[Document]:
    lines = _BREAKS.split(text)
    documents: list[Document] = []
    try:
        loader = _Loader(text)
    except yaml.YAMLError as error:
        return [_broken(error, name, lines)]
    try:
        while loader.check_node():
            document = Document(name, lines, None, node=loader.get_node())
            _Walk(document, len(text)).run()
            documents.append(document)
    except yaml.YAMLError as error:
        documents.append(_broken(error, name, lines))
    finally:
        loader.dispose()
    return documents


def _nodes(text: str) -> Iterator[Node]:
    loader = _Loader(text)
    try:
        while loader.check_node():
            yield loader.get_node()
    finally:
        loader.dispose()


def _broken(error: yaml.YAMLError, name: str, lines: list[str]) -> Document:
    document = Document(name, lines, None)
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    said = getattr(error, "problem", None)
    if said is None and isinstance(error, yaml.reader.ReaderError):
        at = error.position if isinstance(error.position, int) else 0
        before = _BREAKS.split("\n".join(lines)[:at])
        said = f"character {error.character!r} is not allowed here"
        place = Place(len(before), len(before[-1]) + 1)
    elif mark is not None:
        place = Place(mark.line + 1, mark.column + 1)
    else:
        place = Place(1, 1)
    context = getattr(error, "context", None)
    message = f"{said or 'not YAML'}" + (f" ({context})" if context else "")
    document.problems.append((Problem((), message), place))
    return document


class _Walk:
    """From nodes to plain values. Aliases share one value; what they would add is counted."""

    def __init__(self, document: Document, length: int) -> None:
        self._document = document
        # Values and characters seen, as if every alias were written out.
        self._nodes = 0
        self._characters = 0
        self._spare = ALIASED_NODES
        self._spare_characters = ALIASED_CHARACTERS + length
        # By node: its value, and what it weighs.
        self._done: dict[int, tuple[Any, int, int]] = {}
        self._open: set[int] = set()
        self._path: list[str | int] = []

    def run(self) -> None:
        """Sets the document's value."""
        node = self._document.node
        try:
            self._document.plain = self._value(node) if node is not None else None
        except _TooMuch as refused:
            self._problem(refused.node, str(refused))
            self._document.plain = None

    def _problem(self, node: Node, message: str) -> None:
        self._document.problems.append((Problem(tuple(self._path), message), _place(node)))

    def _value(self, node: Node) -> Any:
        if isinstance(node, ScalarNode):
            self._nodes += 1
            self._characters += len(node.value)
            return self._scalar(node)
        identity = id(node)
        known = self._done.get(identity)
        if known is not None:
            value, nodes, characters = known
            self._nodes += nodes
            self._characters += characters
            self._spare -= nodes
            self._spare_characters -= characters
            if self._spare < 0 or self._spare_characters < 0:
                raise _TooMuch(node, "aliases make this document too large")
            return value
        if identity in self._open:
            raise _TooMuch(node, "an alias stands inside what it stands for")
        self._open.add(identity)
        nodes, characters = self._nodes, self._characters
        self._nodes += 1
        value = self._mapping(node) if isinstance(node, MappingNode) else self._sequence(node)
        self._open.discard(identity)
        self._done[identity] = (value, self._nodes - nodes, self._characters - characters)
        return value

    def _scalar(self, node: ScalarNode) -> Any:
        tag, text = node.tag, node.value
        if tag == _PLAIN:
            return scalar(text)
        if tag in _AS_TEXT:
            return text
        if tag in _TYPED:
            value = scalar(text)
            kind = {"int": int, "float": float, "bool": bool, "null": type(None)}[tag[18:]]
            if kind is float and isinstance(value, int) and not isinstance(value, bool):
                return Float(text)
            if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
                self._problem(node, f"{text!r} is not what the tag !!{tag[18:]} says")
            return value
        self._problem(node, f"unknown tag {tag!r}")
        return text

    def _sequence(self, node: Node) -> list[Any]:
        if node.tag != _SEQ:
            self._problem(node, f"unknown tag {node.tag!r}")
        values = []
        path = self._path
        path.append(0)
        for index, item in enumerate(node.value):
            path[-1] = index
            values.append(self._value(item))
        path.pop()
        return values

    def _mapping(self, node: Node) -> dict[str, Any]:
        if node.tag != _MAP:
            self._problem(node, f"unknown tag {node.tag!r}")
        values: dict[str, Any] = {}
        lines: dict[str, int] = {}
        merges: list[Node] = []
        path = self._path
        for key, item in node.value:
            if not isinstance(key, ScalarNode):
                self._problem(key, "a key must be a string")
                continue
            name = key.value
            if key.tag == _PLAIN:
                if name == "<<":
                    merges.append(item)
                    continue
                if name in _CONSTANTS and _CONSTANTS[name] is None:
                    self._problem(key, "a key must not be null")
                    continue
            path.append(name)
            if name in lines:
                said = f"duplicate key, first on line {lines[name]}"
                self._problem(key, said)
            else:
                lines[name] = key.start_mark.line + 1
                self._characters += len(name)
                values[name] = self._value(item)
            path.pop()
        for item in merges:
            self._merge(item, values)
        return values

    def _merge(self, node: Node, values: dict[str, Any]) -> None:
        merged = self._value(node)
        for one in merged if isinstance(merged, list) else [merged]:
            if not isinstance(one, dict):
                self._problem(node, "only a mapping can be merged with <<")
                return
            for name, value in one.items():
                values.setdefault(name, value)


class _TooMuch(Exception):
    """The document is larger than may be."""

    def __init__(self, node: Node, message: str) -> None:
        super().__init__(message)
        self.node = node


class _NotJson(Exception):
    """The text is something else, or says a thing that needs a place to be complained about."""


def _read_json(text: str, name: str) -> list[Document] | None:
    """The documents, if the text is JSON without flaw; places are looked up when needed."""
    decoder = json.JSONDecoder(
        object_pairs_hook=_unique, parse_float=Float, parse_int=_integer, parse_constant=_refuse
    )
    values: list[Any] = []
    at = 0
    try:
        while at < len(text):
            value, at = decoder.raw_decode(text, at)
            values.append(value)
            while at < len(text) and text[at] in " \t\r\n":
                at += 1
    except (ValueError, RecursionError, _NotJson):
        return None
    if any(_deeper(value, DEPTH) for value in values):
        return None
    lines = _BREAKS.split(text)
    return [Document(name, lines, value, index=index) for index, value in enumerate(values)]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _NotJson
    return made


def _integer(text: str) -> int | float:
    return int(text) if len(text) <= _LONGEST_INT else Float(text)


def _refuse(text: str) -> None:
    raise _NotJson


def _deeper(value: Any, depth: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    if depth == 0:
        return True
    children = value.values() if isinstance(value, dict) else value
    return any(_deeper(child, depth - 1) for child in children)


def _step(node: Node, step: str | int) -> tuple[Node, Node] | None:
    """The key (the item itself, in a list) and the value that a step of a path leads to."""
    if isinstance(node, MappingNode):
        for key, value in node.value:
            if isinstance(key, ScalarNode) and key.value == step:
                return key, value
    elif isinstance(node, SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step], node.value[step]
    return None


def _place(node: Node) -> Place:
    start, end = node.start_mark, node.end_mark
    if not isinstance(node, ScalarNode):
        return Place(start.line + 1, start.column + 1)
    length = max(1, end.column - start.column) if end.line == start.line else 1
    raw = node.value if node.tag == _PLAIN else None
    return Place(start.line + 1, start.column + 1, length, raw)


def _begins(text: str, name: str) -> bool:
    """Whether a path's text begins with the name as a whole."""
    return text.startswith(name) and text[len(name) : len(name) + 1] in ("", ".", "[", "]")


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in text)


def _width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _wide(text: str) -> int:
    return sum(_width(c) for c in text)
