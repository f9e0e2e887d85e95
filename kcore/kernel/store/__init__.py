"""Stores: where the log is kept.

A store only appends and reads back; what may be appended is the kernel's to say. Some have one
writer and say so by having no `tail`; on the others a kernel shares the log with other kernels, and
an append is refused that does not come right after the last. Whatever is far away may fail by
`ApiError`: UNAVAILABLE where it cannot be reached now, GONE where the past that was asked for is no
longer there. All stores pass one conformance suite (tests/kernel/test_store.py).
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from kcore.kernel.record import Key, Record, Request

# For so long, by the log's own time, a request is known that was asked for by an id.
REMEMBERED_SECONDS: Final = 600.0


class Refused(Exception):
    """The store's content must not be served; says why in one line."""


class Full(Exception):
    """There was no room; nothing was appended."""


class Conflict(Exception):
    """Somebody else has appended meanwhile; nothing was appended."""


class TooLarge(Exception):
    """It is more than can be appended at once, and says how much can; nothing was appended."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What a store says of itself."""

    # Identity of the cluster; made when the store is.
    cluster_id: str
    # Grows with each deliberate restore.
    epoch: int
    # The last revision, and its time in seconds since 1970; 0: nothing was ever appended.
    head: int
    time: float
    # What was before this revision is gone; the changes after it are all there.
    compacted: int


class Tail(Protocol):
    """What others append to a log. A kernel that writes, and one that only follows, read it."""

    async def head(self) -> int:
        """The last revision that anybody has appended."""
        ...

    async def moved(self, revision: int) -> int:
        """Waits until there is something after `revision`; answers up to where."""
        ...


class Store(Protocol):
    """The log."""

    @property
    def tail(self) -> Tail | None:
        """What others append; None where nobody else can."""
        ...

    async def open(self) -> Opened:
        """Makes it ready, again after a failure. Raises `Refused`."""
        ...

    def replay(self) -> AsyncIterator[Record]:
        """The whole log, in order, each checksum verified, and their sum at the end."""
        ...

    async def requests(self) -> Sequence[Request]:
        """Those of records that are gone but younger than `REMEMBERED_SECONDS`, after `replay`.

        In order of time, one for each revision.
        """
        ...

    async def append(self, records: Sequence[Record], keep: Mapping[Key, int]) -> None:
        """Appends in order, all or none; durable when it returns.

        `keep`: of these objects no more than so many old records are needed. Raises `Full`,
        `Conflict` or `TooLarge` where nothing was appended; any other exception leaves it unknown,
        and the store must be opened again.
        """
        ...

    async def at(self, key: Key, revision: int) -> Record | None:
        """The last record of an object up to `revision`; None where there was no object."""
        ...

    def state_at(self, revision: int, kind: str, namespace: str) -> AsyncIterator[Record]:
        """The last records of the objects that were there at `revision`, by namespace and name.

        Of all namespaces where `namespace` is "".
        """
        ...

    def since(self, revision: int) -> AsyncGenerator[Record, None]:
        """All records after `revision`, in order."""
        ...

    async def transaction(self, revision: int) -> Sequence[Record]:
        """The records of one revision."""
        ...

    async def revision_at(self, time: float) -> int:
        """The last revision not after `time` (seconds since 1970); 0 where there was none."""
        ...

    async def compact(self, revision: int) -> None:
        """Forgets what is no longer needed to know the state at `revision` and all after."""
        ...

    async def close(self) -> None:
        """Lets go of it."""
        ...
