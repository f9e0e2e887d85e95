"""What reading needs of the rest of the kernel: the feed and the listing are written against this.

The kernel's core is one implementation, over its state and its store; tests have another, a plain
log in memory.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from typing import Protocol

from google.protobuf.message import Message

from kcore.kernel.record import Key, Record, Stored


class Source(Protocol):
    """The present, by kind and namespace, and the log.

    The present that it shows between two awaits is that of one revision: the head that was last
    given to `Feed.publish`. Unknown kinds are `ApiError(NOT_FOUND)`. The past may be far away:
    reading it takes a while, and fails where the store cannot be reached (UNAVAILABLE) or no longer
    has it (GONE).
    """

    @property
    def head(self) -> int:
        """The last revision."""
        ...

    @property
    def compacted(self) -> int:
        """What was before this revision is gone; the changes after it are all there."""
        ...

    def kinds(self) -> Iterable[str]:
        """Full names of the kinds that are served, sorted."""
        ...

    def plural(self, kind: str) -> str:
        """What people call objects of the kind: "pods"."""
        ...

    def selectable(self, kind: str) -> tuple[str, ...]:
        """Paths that a field selector may name."""
        ...

    def served_since(self, kind: str) -> int:
        """What is older than this revision is of another kind of that name; 0: nothing is."""
        ...

    def remembers(self, kind: str) -> bool:
        """Whether all old states of the kind's objects are kept, as far as the log goes back."""
        ...

    def message(self, kind: str) -> type[Message]:
        """The kind's class."""
        ...

    def get(self, key: Key) -> Stored | None:
        """One object, now."""
        ...

    def objects(self, kind: str, namespace: str) -> Iterable[Stored]:
        """Objects of a kind, now; of all namespaces where `namespace` is ""."""
        ...

    def labelled(self, kind: str, label: str, value: str) -> Iterable[Stored]:
        """Objects of a kind that have this label, now."""
        ...

    def selected(self, kind: str, path: str, value: str) -> Iterable[Stored]:
        """Objects of a kind whose selectable path has this value, now."""
        ...

    def read(self, key: Key, revision: int, body: bytes) -> Stored:
        """An old body as it was kept in memory."""
        ...

    async def at(self, key: Key, revision: int) -> bytes | None:
        """One object as `revision` left it; None where there was none."""
        ...

    def state_at(self, revision: int, kind: str, namespace: str) -> AsyncIterator[Record]:
        """The last records of the objects that were there when `revision` was the head."""
        ...

    def since(self, revision: int) -> AsyncGenerator[Record, None]:
        """All records after `revision`, in order, up to the head."""
        ...

    async def revision_at(self, time: float) -> int:
        """The head at this time (seconds since 1970)."""
        ...
