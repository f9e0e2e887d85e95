"""Selectors: which objects are meant, by their labels or by their fields.

`parse_labels("app=web,tier in (a, b),!old")` and `from_message(kcore.meta.v1.LabelSelector)` give a
`LabelSelector`; `parse_fields("spec.nodeName=n1", selectable)` a `FieldSelector`. All of a
selector's conditions must hold; an empty one selects everything (an *absent* LabelSelector message
selects nothing: that is for whoever holds it to know). What cannot be understood is
`ApiError(INVALID)`. Parsing is cached, so selectors may be parsed where they are needed.

`equality` is what an index can use: values that the selector requires by themselves.
Pure; knows no kind: what fields a kind lets be selected is the caller's to say.
"""

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from kcore_api.kcore.meta.v1 import meta_pb2

from kcore.wire.errors import ApiError, Reason, Violation

# Every kind lets these be selected.
ALWAYS_SELECTABLE = ("metadata.name", "metadata.namespace")

_TOKEN = re.compile(r"\s*(==|!=|[=!(),<>]|[^\s=!(),<>]+)")
_NAME = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?\Z")
_PREFIX = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*\Z")
_SYMBOLS = frozenset(("=", "==", "!=", "!", "(", ")", ",", "<", ">"))


class Operator(Enum):
    """How a label is compared; values are those of LabelSelectorRequirement.operator."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    ABSENT = "DoesNotExist"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one label. `values` is sorted; empty for EXISTS and ABSENT."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.operator is Operator.EXISTS:
            return self.key
        if self.operator is Operator.ABSENT:
            return f"!{self.key}"
        if self.values == ("",) or (self.operator is Operator.IN and len(self.values) == 1):
            sign = "=" if self.operator is Operator.IN else "!="
            return f"{self.key}{sign}{self.values[0]}"
        word = "in" if self.operator is Operator.IN else "notin"
        return f"{self.key} {word} ({','.join(self.values)})"

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether it holds; NOT_IN holds for objects without the label."""
        value = labels.get(self.key)
        if self.operator is Operator.IN:
            return value is not None and value in self.values
        if self.operator is Operator.NOT_IN:
            return value is None or value not in self.values
        return (value is not None) is (self.operator is Operator.EXISTS)


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """Conditions on labels, all of which must hold. Made by the functions of this module."""

    requirements: tuple[Requirement, ...] = ()
    # Labels that must have just this value.
    equality: Mapping[str, str] = field(init=False, compare=False, repr=False)
    _others: tuple[Requirement, ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        equality: dict[str, str] = {}
        others: list[Requirement] = []
        for requirement in self.requirements:
            if (
                requirement.operator is Operator.IN
                and len(requirement.values) == 1
                and requirement.key not in equality
            ):
                equality[requirement.key] = requirement.values[0]
            else:
                others.append(requirement)
        object.__setattr__(self, "equality", equality)
        object.__setattr__(self, "_others", tuple(others))

    def __str__(self) -> str:
        return ",".join(map(str, self.requirements))

    @property
    def everything(self) -> bool:
        """Whether there is no condition at all."""
        return not self.requirements

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is selected."""
        for key, value in self.equality.items():
            if labels.get(key) != value:
                return False
        return all(requirement.matches(labels) for requirement in self._others)


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """Conditions on fields, all of which must hold. Made by `parse_fields`."""

    # Fields that must have just this value; "" matches unset ones.
    equality: Mapping[str, str] = field(default_factory=dict)
    # (field, value) pairs that must not be.
    different: tuple[tuple[str, str], ...] = ()
    # Set where two conditions exclude each other.
    impossible: bool = False

    def __str__(self) -> str:
        said = [f"{path}={_escaped(value)}" for path, value in self.equality.items()]
        said += [f"{path}!={_escaped(value)}" for path, value in self.different]
        return ",".join(said)

    @property
    def everything(self) -> bool:
        """Whether there is no condition at all."""
        return not (self.equality or self.different or self.impossible)

    def matches(self, fields: Mapping[str, str], namespace: str = "", name: str = "") -> bool:
        """Whether an object with these selectable fields, namespace and name is selected."""
        if self.impossible:
            return False
        for path, value in self.equality.items():
            if _value(path, fields, namespace, name) != value:
                return False
        return all(_value(path, fields, namespace, name) != value for path, value in self.different)


EVERY_LABEL = LabelSelector()
EVERY_FIELD = FieldSelector()


def parse_labels(text: str) -> LabelSelector:
    """The label selector that `text` says: `= == != in notin key !key`, joined by commas."""
    return _parse_labels(text) if text else EVERY_LABEL


def from_message(message: meta_pb2.LabelSelector) -> LabelSelector:
    """The label selector that the message says."""
    return _from_bytes(message.SerializeToString(deterministic=True))


def from_labels(labels: Mapping[str, str]) -> LabelSelector:
    """The selector of objects that have at least these labels."""
    return _from_pairs(tuple(sorted(labels.items())))


def parse_fields(text: str, selectable: Iterable[str]) -> FieldSelector:
    """The field selector that `text` says: `= == !=`, joined by commas.

    `selectable`: the paths that may be named, besides metadata.name and metadata.namespace.
    A backslash takes the meaning from a comma, an equals sign and a backslash.
    """
    return _parse_fields(text, tuple(selectable)) if text else EVERY_FIELD


@functools.lru_cache(maxsize=4096)
def _parse_labels(text: str) -> LabelSelector:
    tokens = _tokens(text)
    requirements: list[Requirement] = []
    at = 0
    while at < len(tokens):
        at = _requirement(text, tokens, at, requirements)
        if at < len(tokens):
            if tokens[at] != ",":
                raise _unreadable(text, f"found {tokens[at]!r}, expected ',' or the end")
            at += 1
            if at == len(tokens):
                raise _unreadable(text, "it ends after ','")
    return _checked(requirements, "labels")


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    at = 0
    text = text.rstrip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        assert found is not None  # every character is a symbol, a blank or part of a word
        tokens.append(found[1])
        at = found.end()
    return tokens


def _requirement(text: str, tokens: list[str], at: int, into: list[Requirement]) -> int:
    """Reads one condition; returns where the next token is."""

    def word(position: int) -> bool:
        return position < len(tokens) and tokens[position] not in _SYMBOLS

    def token(position: int) -> str:
        return tokens[position] if position < len(tokens) else ""

    if token(at) == "!":
        if not word(at + 1):
            raise _unreadable(text, "expected a label's key after '!'")
        into.append(Requirement(tokens[at + 1], Operator.ABSENT))
        return at + 2
    if not word(at):
        raise _unreadable(text, f"found {token(at)!r}, expected a label's key")
    key, sign = tokens[at], token(at + 1)
    if sign in ("=", "==", "!="):
        operator = Operator.NOT_IN if sign == "!=" else Operator.IN
        given = word(at + 2)
        into.append(Requirement(key, operator, (tokens[at + 2] if given else "",)))
        return at + 3 if given else at + 2
    if sign in ("in", "notin"):
        if token(at + 2) != "(":
            raise _unreadable(text, f"expected '(' after '{sign}'")
        values: list[str] = []
        value, at = "", at + 3
        empty = True
        while token(at) != ")":
            if at >= len(tokens):
                raise _unreadable(text, "expected ')'")
            empty = False
            if tokens[at] == ",":
                values.append(value)
                value = ""
            elif word(at) and not value:
                value = tokens[at]
            else:
                raise _unreadable(text, f"found {tokens[at]!r}, expected ',' or ')'")
            at += 1
        if not empty:
            values.append(value)
        operator = Operator.IN if sign == "in" else Operator.NOT_IN
        into.append(Requirement(key, operator, tuple(sorted(set(values)))))
        return at + 1
    if sign in ("", ","):
        into.append(Requirement(key, Operator.EXISTS))
        return at + 1
    raise _unreadable(
        text, f"found {sign!r} after {key!r}, expected one of '=', '==', '!=', 'in', 'notin', ','"
    )


@functools.lru_cache(maxsize=4096)
def _from_bytes(data: bytes) -> LabelSelector:
    message = meta_pb2.LabelSelector.FromString(data)
    requirements = [
        Requirement(key, Operator.IN, (value,))
        for key, value in sorted(message.match_labels.items())
    ]
    violations: list[Violation] = []
    for index, expression in enumerate(message.match_expressions):
        try:
            operator = Operator(expression.operator)
        except ValueError:
            path = f"matchExpressions[{index}].operator"
            said = f'"{expression.operator}" is not one of In, NotIn, Exists, DoesNotExist'
            violations.append(Violation(path, said))
            continue
        requirements.append(
            Requirement(expression.key, operator, tuple(sorted(set(expression.values))))
        )
    return _checked(requirements, "selector", violations)


@functools.lru_cache(maxsize=4096)
def _from_pairs(pairs: tuple[tuple[str, str], ...]) -> LabelSelector:
    return LabelSelector(tuple(Requirement(key, Operator.IN, (value,)) for key, value in pairs))


def _checked(
    requirements: list[Requirement], path: str, violations: Iterable[Violation] = ()
) -> LabelSelector:
    found = list(violations)
    for requirement in requirements:
        found += [Violation(path, said) for said in _faults(requirement)]
    if found:
        said = "; ".join(violation.message for violation in found)
        raise ApiError(Reason.INVALID, f"invalid label selector: {said}", found)
    return LabelSelector(tuple(requirements))


def _faults(requirement: Requirement) -> list[str]:
    said: list[str] = []
    prefix, slash, name = requirement.key.rpartition("/")
    if not _NAME.match(name):
        said.append(
            f'key "{requirement.key}": the name must be 1 to 63 letters, digits, "-", "_" or ".", '
            "with a letter or digit at both ends"
        )
    if slash and not (_PREFIX.match(prefix) and len(prefix) <= 253):
        said.append(f'key "{requirement.key}": the prefix must be a DNS subdomain of at most 253')
    valued = requirement.operator in (Operator.IN, Operator.NOT_IN)
    if valued and not requirement.values:
        said.append(f'key "{requirement.key}": {requirement.operator.value} needs values')
    if not valued and requirement.values:
        said.append(f'key "{requirement.key}": {requirement.operator.value} takes no values')
    said += [
        f'value "{value}" of key "{requirement.key}": must be empty or up to 63 letters, digits, '
        '"-", "_" or ".", with a letter or digit at both ends'
        for value in requirement.values
        if value and not _NAME.match(value)
    ]
    return said


def _unreadable(text: str, why: str) -> ApiError:
    said = f'unable to parse label selector "{text}": {why}'
    return ApiError(Reason.INVALID, said, [Violation("labels", why)])


@functools.lru_cache(maxsize=4096)
def _parse_fields(text: str, selectable: tuple[str, ...]) -> FieldSelector:
    equality: dict[str, str] = {}
    different: list[tuple[str, str]] = []
    violations: list[Violation] = []
    impossible = False
    for term in _terms(text):
        if not term:
            continue
        path, sign, value = _split(term)
        if not sign or not path:
            said = f'invalid selector: "{text}"; can\'t understand "{term}"'
            violations.append(Violation("fields", said))
        elif path not in selectable and path not in ALWAYS_SELECTABLE:
            violations.append(Violation("fields", f"field label not supported: {path}"))
        elif sign == "!=":
            different.append((path, value))
        else:
            impossible = impossible or equality.get(path, value) != value
            equality[path] = value
    if violations:
        said = "; ".join(violation.message for violation in violations)
        raise ApiError(Reason.INVALID, said, violations)
    return FieldSelector(equality, tuple(different), impossible)


def _terms(text: str) -> list[str]:
    """Cut at commas that no backslash precedes; backslashes stay."""
    terms: list[str] = []
    start = at = 0
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] == ",":
            terms.append(text[start:at].strip())
            start = at + 1
        at += 1
    terms.append(text[start:].strip())
    return terms


def _split(term: str) -> tuple[str, str, str]:
    found = re.search(r"!=|==|=", term)
    if found is None:
        return term, "", ""
    value = re.sub(r"\\([\\,=])", r"\1", term[found.end() :].strip())
    return term[: found.start()].strip(), found[0], value


def _escaped(value: str) -> str:
    return re.sub(r"([\\,=])", r"\\\1", value)


def _value(path: str, fields: Mapping[str, str], namespace: str, name: str) -> str:
    if path == "metadata.name":
        return name
    if path == "metadata.namespace":
        return namespace
    return fields.get(path, "")
