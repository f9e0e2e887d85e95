"""JSONPath as kubectl has it: `{.items[*].metadata.name}`, `{range .items[*]}…{end}`.

A template is text with expressions in braces. An expression is a path (`.a.b`, `['a.b']`,
`.a\\.b`, `[0]`, `[-1]`, `[1:3]`, `[*]`, `..a`, `[?(@.type=="Ready")]`), a quoted text ("\\n"), or
`range <path>` … `end`. Values of a path are joined by spaces; what is absent is nothing.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import click

Step = Callable[[Any], Iterator[Any]]

_PARTS: Final = re.compile(r"\{((?:[^{}'\"]|'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\")*)\}")
_STEP: Final = re.compile(
    r"""
      (?P<deep>\.\.)(?=[A-Za-z_*])
    | \.?(?P<name>(?:[A-Za-z0-9_$/-]|\\.)+)
    | \.?(?P<star>\*)
    | \.(?=\[)
    | \[(?P<quote>'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")\]
    | \[(?P<all>\*)\]
    | \[(?P<index>-?[0-9]{1,9})\]
    | \[(?P<slice>-?[0-9]{0,9}:-?[0-9]{0,9})\]
    | \[\?\((?P<filter>(?:[^'"()]|'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")*)\)\]
    """,
    re.VERBOSE,
)
_FILTER: Final = re.compile(
    r"\s*@(?P<left>[^=!<>]*?)\s*(?:(?P<operator>==|!=|<=|>=|<|>)\s*(?P<right>.+?)\s*)?", re.DOTALL
)
_COMPARE: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "==": lambda a, b: bool(a == b),
    "!=": lambda a, b: bool(a != b),
    "<": lambda a, b: bool(a < b),
    "<=": lambda a, b: bool(a <= b),
    ">": lambda a, b: bool(a > b),
    ">=": lambda a, b: bool(a >= b),
}


def render(template: str, value: Any) -> str:
    """The template filled in. click.UsageError if it can't be read."""
    if "{" not in template:
        template = "{" + template + "}"
    pieces: list[tuple[bool, str]] = []
    at = 0
    for found in _PARTS.finditer(template):
        pieces += [(False, template[at : found.start()]), (True, found[1].strip())]
        at = found.end()
    pieces.append((False, template[at:]))
    if any("{" in text or "}" in text for is_path, text in pieces if not is_path):
        raise click.UsageError(f"jsonpath {template!r}: a brace is not closed")
    said, rest = _fill(pieces, 0, value, value)
    if rest != len(pieces):
        raise click.UsageError(f"jsonpath {template!r}: {{end}} without {{range}}")
    return said


def find(path: str, value: Any) -> list[Any]:
    """The values that a path leads to."""
    found = [value]
    for step in _steps(path.removeprefix("$")):
        found = [after for before in found for after in step(before)]
    return found


def _fill(pieces: list[tuple[bool, str]], at: int, value: Any, root: Any) -> tuple[str, int]:
    """The text of the pieces up to their end or an {end}, and where that is."""
    said = ""
    while at < len(pieces):
        is_path, text = pieces[at]
        if not is_path:
            said += text
        elif text == "end":
            return said, at
        elif text.startswith("range ") or text == "range":
            for item in _values(text[5:].strip(), value, root):
                said += _fill(pieces, at + 1, item, root)[0]
            at = _end(pieces, at + 1)
        elif text[:1] in ("'", '"'):
            said += _unquoted(text)
        else:
            said += " ".join(_shown(v) for v in _values(text, value, root))
        at += 1
    return said, at


def _end(pieces: list[tuple[bool, str]], at: int) -> int:
    depth = 0
    for index in range(at, len(pieces)):
        is_path, text = pieces[index]
        if is_path and text.startswith("range"):
            depth += 1
        elif is_path and text == "end":
            if depth == 0:
                return index
            depth -= 1
    raise click.UsageError("jsonpath: {range} without {end}")


def _values(path: str, value: Any, root: Any) -> list[Any]:
    return find(path, root if path.startswith("$") else value)


def _steps(path: str) -> list[Step]:
    path = path.removeprefix("@")
    if path in ("", "."):
        return []
    steps: list[Step] = []
    at = 0
    while at < len(path):
        found = _STEP.match(path, at)
        if found is None:
            raise click.UsageError(f"jsonpath {path!r}: cannot read {path[at:]!r}")
        at = found.end()
        step = _step(found)
        if step is not None:
            steps.append(step)
    return steps


def _step(found: re.Match[str]) -> Step | None:
    if found["deep"]:
        return _all_below
    if found["name"] is not None:
        return _member(re.sub(r"\\(.)", r"\1", found["name"]))
    if found["quote"] is not None:
        return _member(_unquoted(found["quote"]))
    if found["star"] or found["all"]:
        return _children
    if found["index"] is not None:
        return _element(int(found["index"]))
    if found["slice"] is not None:
        low, _, high = found["slice"].partition(":")
        return _part(slice(int(low) if low else None, int(high) if high else None))
    if found["filter"] is not None:
        return _filtered(found["filter"])
    return None


def _member(name: str) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, dict) and name in value:
            yield value[name]

    return step


def _element(index: int) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, list) and -len(value) <= index < len(value):
            yield value[index]

    return step


def _part(wanted: slice) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, list):
            yield from value[wanted]

    return step


def _children(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _all_below(value: Any) -> Iterator[Any]:
    yield value
    for child in _children(value):
        yield from _all_below(child)


def _filtered(text: str) -> Step:
    found = _FILTER.fullmatch(text)
    if found is None:
        raise click.UsageError(f"jsonpath: cannot read the filter {text!r}")
    left, operator = found["left"].strip(), found["operator"]
    right = _literal(found["right"]) if operator else None
    find(left, None)

    def step(value: Any) -> Iterator[Any]:
        for child in _children(value):
            values = find(left, child)
            if operator is None:
                if values:
                    yield child
            elif values and _holds(operator, values[0], right):
                yield child

    return step


def _holds(operator: str, left: Any, right: Any) -> bool:
    try:
        return _COMPARE[operator](left, right)
    except TypeError:
        return False


def _literal(text: str) -> Any:
    if text[:1] in ("'", '"'):
        return _unquoted(text)
    try:
        return json.loads(text)
    except ValueError:
        raise click.UsageError(f"jsonpath: cannot read {text!r}") from None


def _unquoted(text: str) -> str:
    if len(text) < 2 or text[-1] != text[0]:
        raise click.UsageError(f"jsonpath: {text} is not closed")
    known = {"n": "\n", "t": "\t", "r": "\r"}
    return re.sub(r"\\(.)", lambda m: known.get(m[1], m[1]), text[1:-1])


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
