"""The stores under test, as the harness sees them: how an apiserver is told of one, and its log.

The log is read from outside of the server that is tested, with nothing of it but the row's layout;
`Tail` copies it while it grows, faster than compaction forgets it, so that the whole log is known
however little of it is kept. A new store is one more entry of `BACKINGS`.
"""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from kcore.chance import Chance
from kcore.clock import SystemClock
from kcore.kernel.record import Record
from kcore.kernel.store import Store, sqlite
from tests.chaos.server import Server

_TAIL_SECONDS = 0.01


class Backing(Protocol):
    """One sort of store."""

    def arguments(self) -> Sequence[str]:
        """What to tell the apiserver."""
        ...

    def records_after(self, server: Server, revision: int) -> list[Record]:
        """The log after a revision as it is now; the server may live or not."""
        ...

    def store(self, server: Server) -> Store:
        """The store itself, for when the server is not running."""
        ...


class Sqlite:
    """kcore's own: a file below the server's root."""

    def arguments(self) -> Sequence[str]:
        """It is what is there unless told."""
        return ()

    def records_after(self, server: Server, revision: int) -> list[Record]:
        """By a connection that is there for this read only, and writes nothing."""
        path: Path = server.place.database
        if not path.exists():
            return []
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5.0)
        try:
            rows = connection.execute(
                f"SELECT {sqlite._COLUMNS} FROM log WHERE position >= ? ORDER BY position",
                ((revision + 1) << 10,),
            ).fetchall()
        finally:
            connection.close()
        return [sqlite._record(row) for row in rows]

    def store(self, server: Server) -> Store:
        """Opens the same file."""
        return sqlite.SqliteStore(server.place.database, SystemClock(), Chance())


BACKINGS: dict[str, Callable[[], Backing]] = {"sqlite": Sqlite}


class Gap(Exception):
    """The witness was too slow: something was compacted before it was read."""


class Tail:
    """The whole log, copied while it grows. `async with Tail(backing, server) as tail: …`."""

    def __init__(self, backing: Backing, server: Server) -> None:
        """Begins with what is there."""
        self.records: list[Record] = []
        self._backing = backing
        self._server = server
        self._task: asyncio.Task[None] | None = None
        self._reading = threading.Lock()

    async def __aenter__(self) -> "Tail":
        self._task = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None

    async def catch_up(self) -> list[Record]:
        """The log up to now."""
        if self._task is not None and self._task.done():
            self._task.result()
        await asyncio.to_thread(self._read)
        return self.records

    async def _follow(self) -> None:
        while True:
            await asyncio.to_thread(self._read)
            await asyncio.sleep(_TAIL_SECONDS)

    def _read(self) -> None:
        with self._reading:
            last = self.records[-1].revision if self.records else 0
            try:
                found = self._backing.records_after(self._server, last)
            except sqlite3.OperationalError:
                # It is being made, or opened after a crash: next time.
                return
            for record in found:
                if record.revision > last + 1:
                    raise Gap(f"revision {record.revision} follows {last}")
                last = record.revision
            self.records += found
