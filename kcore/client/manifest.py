"""Manifests: objects that people wrote into files.

`load(sources, catalogue)` reads files, directories and standard input ("-") and gives every object
with where it came from. All that is wrong in all of them is said at once (`problem.Refused`), each
with path, line, column, the line itself and a caret. `Manifest.show` says the same of what a server
found wrong with an object.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import Message

from kcore.client import codec, document
from kcore.client.document import Document, Place
from kcore.client.kinds import Catalogue, Kind
from kcore.client.problem import Path, Problem, Refused
from kcore.wire.errors import ApiError, Violation

_SUFFIXES: Final = (".yaml", ".yml", ".json")
# Larger files are no manifests.
_LARGEST_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Manifest:
    """One object of a file."""

    kind: Kind
    message: Message
    document: Document
    # Where in the document it stands: () or ("items", 3).
    at: Path = ()

    def show(self, violation: Violation) -> str:
        """A server's complaint about it, shown in the file."""
        prefix = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in self.at).lstrip(".")
        whole = ".".join(part for part in (prefix, violation.path) if part)
        path = self.document.path(whole)
        problem = Problem(path, "")
        return _shown(self.document, problem, self.document.place(path), str(violation))


def load(
    sources: Sequence[str],
    catalogue: Catalogue,
    *,
    recursive: bool = False,
    stdin: Callable[[], bytes] | None = None,
) -> list[Manifest]:
    """The objects of all sources, in their order; `Refused` if anything is wrong."""
    said: list[str] = []
    found: list[Manifest] = []
    for name, data in _files(sources, recursive, stdin, said):
        try:
            text = _decoded(data)
        except UnicodeDecodeError as undecoded:
            line = data.count(b"\n", 0, undecoded.start) + 1
            column = undecoded.start - data.rfind(b"\n", 0, undecoded.start)
            said.append(f"{name}:{line}:{column}: is not UTF-8 text")
            continue
        for one in document.read(text, name):
            wrong = list(one.problems)
            if one.plain is not None:
                _objects(one, one.plain, (), catalogue, found, wrong)
            wrong.sort(key=lambda entry: (entry[1].line, entry[1].column))
            said += [_shown(one, problem, place) for problem, place in wrong]
    if said:
        raise Refused(said)
    return found


def _files(
    sources: Sequence[str],
    recursive: bool,
    stdin: Callable[[], bytes] | None,
    said: list[str],
) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for source in sources:
        if source == "-":
            if stdin is None:
                said.append("there is no standard input to read manifests from")
            else:
                found.append(("<stdin>", stdin()))
        elif source.startswith(("http://", "https://")):
            said.append(
                f"{source}: manifests are not fetched from the network;"
                f" try: curl -fsSL {source} | kcore apply -f -"
            )
        elif os.path.isdir(source):
            names = _listed(source, recursive)
            if not names:
                said.append(f"{source}: no .yaml, .yml or .json file in this directory")
            for name in names:
                _read(name, found, said)
        else:
            _read(source, found, said)
    return found


def _listed(directory: str, recursive: bool) -> list[str]:
    found: list[str] = []
    for place, below, names in os.walk(directory):
        below[:] = sorted(below) if recursive else []
        found += [os.path.join(place, n) for n in sorted(names) if n.endswith(_SUFFIXES)]
    return found


def _read(name: str, found: list[tuple[str, bytes]], said: list[str]) -> None:
    try:
        with open(name, "rb") as file:
            data = file.read(_LARGEST_BYTES + 1)
    except OSError as wrong:
        said.append(f"{name}: {(wrong.strerror or str(wrong)).lower()}")
        return
    if len(data) > _LARGEST_BYTES:
        said.append(f"{name}: is larger than {_LARGEST_BYTES >> 20} MiB")
        return
    found.append((name, data))


def _decoded(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16")
    return data.decode("utf-8-sig")


def _objects(
    one: Document,
    plain: Any,
    at: Path,
    catalogue: Catalogue,
    found: list[Manifest],
    wrong: list[tuple[Problem, Place]],
) -> None:
    def complain(path: Path, message: str, at_key: bool = False) -> None:
        wrong.append((Problem(path, message, at_key), one.place((*at, *path), at_key)))

    if not isinstance(plain, dict):
        complain((), "expected an object with apiVersion and kind")
        return
    unset = [key for key in ("apiVersion", "kind") if not _is_word(plain.get(key))]
    for key in unset:
        if key in plain:
            complain((key,), "is not set")
        else:
            complain((), f"{key} is not set")
    if unset:
        return
    name, items = plain["kind"], plain.get("items")
    if name == "List" and not at:
        if items is not None and not isinstance(items, list):
            complain(("items",), "expected a list")
            return
        for index, item in enumerate(items or []):
            _objects(one, item, ("items", index), catalogue, found, wrong)
        return
    try:
        kind = catalogue.of_type(plain["apiVersion"], name)
    except ApiError as unknown:
        known = any(kind.api_version == plain["apiVersion"] for kind in catalogue.kinds)
        place = one.place((*at, "kind" if known else "apiVersion"))
        wrong.append((Problem((), unknown.message), place))
        return
    message, problems = codec.read(kind.descriptor, plain)
    for problem in problems:
        complain(problem.path, problem.message, problem.at_key)
    found.append(Manifest(kind, message, one, at))


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _shown(one: Document, problem: Problem, place: Place, message: str = "") -> str:
    head = f"{one.name}:{place.line}:{place.column}: {message or problem}"
    shown = document.excerpt(one, place)
    return f"{head}\n{shown}" if shown else head
