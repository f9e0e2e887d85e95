"""JSONPath as kubectl has it: `{.items[*].metadata.name}`, `{range .items[*]}…{end}`.

A template is text with expressions in braces. An expression is a path (`.a.b`, `['a.b']`,
`.a\\.b`, `[0]`, `[-1]`, `[1:3]`, `[*]`, `['a','b']`, `..a`, `[?(@.type=="Ready")]`), a quoted
text ("\\n"), or `range <path>` … `end`. Values of a path are joined by spaces; what is absent is
nothing.

Written here because kubectl's paths are no RFC 9535: the root goes without saying, dots are
escaped, a union's members are paths, and order is by member.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import click

# From the values that a path has led to so far, to those one step further.
Step = Callable[[list[Any]], list[Any]]
Each = Callable[[Any], Iterator[Any]]

_PARTS: Final = re.compile(r"\{((?:[^{}'\"]|'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\")*)\}")
_QUOTED: Final = r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\""
_NUMBER: Final = r"-?[0-9]{1,9}"
_STEP: Final = re.compile(
    rf"""
      (?P<deep>\.\.)(?=[A-Za-z_*])
    | \.?(?P<name>(?:[A-Za-z0-9_$/-]|\\.)+)
    | \.?(?P<star>\*)
    | \.(?=\[)
    | \[\s*(?P<quotes>(?:{_QUOTED})(?:\s*,\s*(?:{_QUOTED}))*)\s*\]
    | \[(?P<all>\*)\]
    | \[\s*(?P<indices>{_NUMBER}(?:\s*,\s*{_NUMBER})*)\s*\]
    | \[(?P<slice>(?:{_NUMBER})?:(?:{_NUMBER})?(?::[0-9]{{1,9}})?)\]
    """,
    re.VERBOSE,
)
_OPERATOR: Final = re.compile("==|!=|<=|>=|<|>")
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
    for step in _steps(path.strip().removeprefix("$")):
        found = step(found)
    return found


def bare(path: str) -> str:
    """A path as commands take it, with or without braces and a leading dot; checked."""
    path = path.strip()
    if path.startswith("{") and path.endswith("}"):
        path = path[1:-1].strip()
    if path[:1] not in (".", "[", "$", "@"):
        path = f".{path}"
    find(path, None)
    return path


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
        if path.startswith("[?(", at):
            end = _closing(path, at)
            steps.append(_each(_filtered(path[at + 3 : end - 2])))
            at = end
            continue
        found = _STEP.match(path, at)
        if found is None:
            raise click.UsageError(f"jsonpath {path!r}: cannot read {path[at:]!r}")
        at = found.end()
        step = _step(found)
        if step is not None:
            steps.append(step)
    return steps


def _closing(path: str, at: int) -> int:
    """Where the filter that begins here ends."""
    depth = 0
    for index, character in _unquoted_characters(path, at):
        depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(character, 0)
        if depth == 0:
            if not path.startswith(")", index - 1):
                break
            return index + 1
    raise click.UsageError(f"jsonpath {path!r}: a filter is not closed")


def _unquoted_characters(text: str, at: int = 0) -> Iterator[tuple[int, str]]:
    """The characters that do not stand in quotes, and where."""
    for found in re.compile(rf"{_QUOTED}|(?P<one>.)", re.DOTALL).finditer(text, at):
        if found["one"] is not None:
            yield found.start(), found["one"]


def _step(found: re.Match[str]) -> Step | None:
    if found["deep"]:
        return _each(_all_below)
    if found["name"] is not None:
        return _each(_member(re.sub(r"\\(.)", r"\1", found["name"])))
    if found["quotes"] is not None:
        return _union([_quoted(q) for q in re.findall(_QUOTED, found["quotes"])])
    if found["star"] or found["all"]:
        return _each(_children)
    if found["indices"] is not None:
        return _union([_element(int(i)) for i in found["indices"].split(",")])
    if found["slice"] is not None:
        ends = [int(i) if i else None for i in found["slice"].split(":")]
        if ends[2:] == [0]:
            raise click.UsageError("jsonpath: the step of a slice must not be 0")
        return _each(_part(slice(*ends)))
    return None


def _each(each: Each) -> Step:
    return lambda values: [after for before in values for after in each(before)]


def _union(members: list[Each]) -> Step:
    """What each member leads to, member by member."""
    return lambda values: [v for member in members for before in values for v in member(before)]


def _quoted(text: str) -> Each:
    """A key in quotes; where there is no such key, the path that it spells."""
    name = _unquoted(text)
    path = f".{text[1:-1]}" if re.search(r"[^\\]\.", text[1:-1]) else ""
    if path:
        find(path, None)

    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, dict) and name in value:
            yield value[name]
        elif path:
            yield from find(path, value)

    return step


def _member(name: str) -> Each:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, dict) and name in value:
            yield value[name]

    return step


def _element(index: int) -> Each:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, list) and -len(value) <= index < len(value):
            yield value[index]

    return step


def _part(wanted: slice) -> Each:
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


def _filtered(text: str) -> Each:
    """Children of which a comparison holds, or that have something."""
    left, operator, right = text.strip(), "", None
    at = _operator(text)
    if at is not None:
        left, operator = text[: at.start()].strip(), at[0]
        right = _literal(text[at.end() :].strip())
    if not left.startswith("@"):
        raise click.UsageError(f"jsonpath: cannot read the filter {text!r}")
    find(left, None)

    def step(value: Any) -> Iterator[Any]:
        for child in _children(value):
            values = find(left, child)
            if not operator:
                if values:
                    yield child
            elif values and _holds(operator, values[0], right):
                yield child

    return step


def _operator(text: str) -> re.Match[str] | None:
    """The comparison of a filter: not one of a filter inside it, nor in quotes."""
    depth = 0
    for index, character in _unquoted_characters(text):
        depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(character, 0)
        if depth == 0 and (found := _OPERATOR.match(text, index)):
            return found
    return None


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
