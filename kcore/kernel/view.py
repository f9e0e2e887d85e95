"""What evaluation asks of a state, be it durable or not yet."""

from collections.abc import Iterator
from typing import Protocol

from kcore.kernel.record import Key, Stored
from kcore.kernel.schema import Schema


class View(Protocol):
    """What evaluation asks of a state."""

    @property
    def schema(self) -> Schema:
        """The kinds that are served."""
        ...

    def count(self, kind: str) -> int:
        """How many objects of a kind there are."""
        ...

    def get(self, key: Key) -> Stored | None:
        """One object."""
        ...

    def objects(self, kind: str, namespace: str) -> Iterator[Stored]:
        """Objects of a kind; of all namespaces where `namespace` is ""."""
        ...

    def holder(self, pool: str, value: str) -> Key | None:
        """Who claims a pool's value."""
        ...

    def held(self, pool: str) -> int:
        """How many values of a pool are claimed."""
        ...

    def last_drawn(self, pool: str) -> str:
        """The value of a pool that was claimed last; "" where none was."""
        ...

    def children(self, parent: Key) -> int:
        """How many objects live in another."""
        ...
