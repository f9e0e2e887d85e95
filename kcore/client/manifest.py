"""Manifests: objects that people wrote into files.

`load(sources, catalogue)` reads files, patterns, directories, URLs and standard input ("-") and
gives every object with where it came from; `read` does so with a text. All that is wrong in all of
them is said at once (`problem.Refused`), each with path, line, column, the line itself and a caret.
`Manifest.show` says the same of what a server found wrong with an object.
"""

import glob
import os
import re
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
_PATTERN: Final = re.compile(r"[*?\[]")
# How long the network may be silent.
_FETCH_SECONDS: Final = 30
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
        return _shown(self.document, Problem((), ""), self.place(violation), str(violation))

    def place(self, violation: Violation) -> Place:
        """Where in the file it is."""
        prefix = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in self.at).lstrip(".")
        whole = ".".join(part for part in (prefix, violation.path) if part)
        return self.document.place(self.document.path(whole))


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
        try:
            found += read(text, name, catalogue)
        except Refused as refused:
            said += refused.said
    if said:
        raise Refused(said)
    return found


def read(text: str, name: str, catalogue: Catalogue) -> list[Manifest]:
    """The objects of a text; `Refused` if anything is wrong."""
    found: list[Manifest] = []
    said: list[str] = []
    short: list[tuple[int, int, str]] = []
    for one in document.read(text, name):
        wrong = list(one.problems)
        if one.plain is not None:
            _objects(one, one.plain, (), catalogue, found, wrong)
        wrong.sort(key=lambda entry: (entry[1].line, entry[1].column))
        said += [_shown(one, problem, place) for problem, place in wrong]
        short += [(place.line, place.column, str(problem)) for problem, place in wrong]
    if said:
        raise Refused(said, short)
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
            _fetch(source, found, said)
        elif os.path.isdir(source):
            names = _listed(source, recursive)
            if not names:
                said.append(f"{source}: no .yaml, .yml or .json file in this directory")
            for name in names:
                _read(name, found, said)
        elif not os.path.exists(source) and _PATTERN.search(source):
            names = sorted(glob.glob(source))
            if not names:
                said.append(f"{source}: no file is like this")
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


def _fetch(source: str, found: list[tuple[str, bytes]], said: list[str]) -> None:
    # Files of the network are rare, and its libraries slow to come.
    import http.client
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(source, timeout=_FETCH_SECONDS) as answer:
            data: bytes = answer.read(_LARGEST_BYTES + 1)
    except urllib.error.HTTPError as refused:
        said.append(f"{source}: {refused.code} {refused.reason}")
        return
    except (OSError, ValueError, http.client.HTTPException) as wrong:
        said.append(f"{source}: {getattr(wrong, 'reason', wrong)}")
        return
    if len(data) > _LARGEST_BYTES:
        said.append(f"{source}: is larger than {_LARGEST_BYTES >> 20} MiB")
        return
    found.append((source, data))


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
