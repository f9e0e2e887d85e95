"""Subjects: the kinds and names that people type before or after options.

pods            pod web        pod/web deploy/api        svc,po        deploy web api
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click
from google.protobuf.message import Message

from kcore.client.kinds import Catalogue, Kind


@dataclass(frozen=True, slots=True)
class Subject:
    """A kind, or one object of it."""

    kind: Kind
    # Empty: all of the kind.
    name: str = ""
    # Empty: the one that the command works in.
    namespace: str = ""

    def __str__(self) -> str:
        return f"{self.kind.singular_resource}/{self.name}" if self.name else self.kind.resource

    @property
    def said(self) -> str:
        """In a sentence: `pod "web"`."""
        return f'{self.kind.singular_resource} "{self.name}"'


def of(kind: Kind, message: Message) -> Subject:
    """An object that is known already."""
    metadata: Any = getattr(message, "metadata", None)
    return Subject(kind, metadata.name, metadata.namespace)


def parse(words: Sequence[str], catalogue: Catalogue) -> list[Subject]:
    """The subjects that the words name."""
    if not words:
        raise click.UsageError("name a kind, such as `pods`, or an object, such as `pod/web`")
    if any("/" in word for word in words):
        found = []
        for word in words:
            kinds, slash, name = word.partition("/")
            if not slash or not kinds or not name or "/" in name:
                raise click.UsageError(f'"{word}" is not of the form kind/name like the others')
            found += [Subject(kind, name) for kind in catalogue.resolve(kinds)]
        return found
    kinds, *names = words
    resolved = catalogue.resolve(kinds)
    if not names:
        return [Subject(kind) for kind in resolved]
    return [Subject(kind, name) for kind in resolved for name in names]


def one(word: str, catalogue: Catalogue, kind: str) -> Subject:
    """One object; a bare name is one of the kind."""
    if "/" not in word:
        return Subject(catalogue.one(kind), word)
    (found,) = parse([word], catalogue)[:1]
    return found
