"""The log in an SQLite database.

One table of records; one of requests, of what is no longer among them; one row of `head`, which is
written in the same transaction and holds the sum of their checksums, so that a changed, lost or
foreign row is found when the log is read. A commit is synced to disk before `append` returns (WAL,
synchronous=FULL). Writing happens in a thread of its own; reading where it is asked for, by another
connection.

Beside the database stands a file `<path>.mark` with the cluster's id and a lower bound of the
revisions that were acknowledged, written at most once a second. A database that is behind it has
forgotten something, and is refused. `<path>.lock` keeps a second writer away.
"""

import asyncio
import contextlib
import fcntl
import functools
import os
import pathlib
import sqlite3
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar

from kcore.chance import Chance
from kcore.clock import Clock
from kcore.kernel.record import Key, Record, Request, Verb
from kcore.kernel.store import REMEMBERED_SECONDS, Full, Opened, Refused, Tail
from kcore.kernel.store.mark import Mark

T = TypeVar("T")

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS log (
    position INTEGER PRIMARY KEY,  -- revision * 1024 + ordinal
    kind TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    uid TEXT NOT NULL,
    operation TEXT NOT NULL,
    body BLOB NOT NULL,
    actor TEXT NOT NULL,
    because INTEGER NOT NULL,
    time REAL NOT NULL,
    request_id TEXT NOT NULL,
    manager TEXT NOT NULL,
    subresource TEXT NOT NULL,
    checksum INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS log_by_key ON log (kind, namespace, name, position);
-- Of records that are gone, but young.
CREATE TABLE IF NOT EXISTS request (
    revision INTEGER PRIMARY KEY,
    actor TEXT NOT NULL,
    request_id TEXT NOT NULL,
    time REAL NOT NULL,
    checksum INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS head (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    format INTEGER NOT NULL,
    cluster_id TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    time REAL NOT NULL,
    compacted INTEGER NOT NULL,
    tally INTEGER NOT NULL  -- sum of all checksums
);
"""
_FORMAT: Final = 1
# While a migration fills it.
_UNFINISHED: Final = 0
COLUMNS: Final = (
    "position, kind, namespace, name, uid, operation, body, actor, because, time, request_id, "
    "manager, subresource, checksum"
)
REQUEST_COLUMNS: Final = "actor, request_id, revision, time, checksum"
_HEAD: Final = ("format", "cluster_id", "epoch", "revision", "time", "compacted", "tally")
_GONE: Final = "RETURNING position, actor, request_id, time, checksum"
_VERBS: Final = {verb.value: verb for verb in Verb}
_PAGE: Final = 512
TALLY_MASK: Final = (1 << 62) - 1


class SqliteStore:
    """A log in a file."""

    def __init__(self, path: pathlib.Path, clock: Clock, chance: Chance) -> None:
        """Nothing is touched before `open`. `chance` draws the identity of a new cluster."""
        self._path = path
        self._mark = Mark(path.with_name(path.name + ".mark"))
        self._lock_path = path.with_name(path.name + ".lock")
        self._clock = clock
        self._chance = chance
        self._executor: ThreadPoolExecutor | None = None
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._lock: int | None = None
        self._integrity: Future[str] | None = None
        self._tally = 0
        self._opened = Opened("", 0, 0, 0.0, 0)
        # Up to here compaction has gone since the store was opened: what was interrupted before is
        # made up for by the first one.
        self._swept = 0

    @property
    def tail(self) -> Tail | None:
        """Its lock keeps everybody else away."""
        return None

    async def open(self) -> Opened:
        """Opens the database, and makes it if neither it nor a mark is there."""
        await self.close()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite-writer")
        try:
            opened = await self._in_thread(self._open)
        except BaseException:
            await self.close()
            raise
        # Goes on while the log is replayed, and is waited for at its end.
        self._integrity = self._executor.submit(self._check_integrity)
        return opened

    async def replay(self) -> AsyncIterator[Record]:
        """The whole log, verified."""
        head = self._read_head()
        tally = sum(request.checksum() for request in self._read_requests())
        count = 0
        last = -1
        for row in self._pages("position > ?", -1):
            record = record_of(row)
            tally = tally + row[13] & TALLY_MASK
            count += 1
            last = record.revision
            yield record
        if tally != head["tally"] or last > head["revision"]:
            raise Refused(
                f"{self._path}: the log's {count} records up to revision {last} are not those that "
                f"its head at revision {head['revision']} accounts for: some are missing or foreign"
            )
        said = self._integrity.result() if self._integrity is not None else "ok"
        if said != "ok":
            raise Refused(f"{self._path}: the database is damaged: {said}")

    async def requests(self) -> Sequence[Request]:
        """Those of records that are gone, but young."""
        since = self._read_head()["time"] - REMEMBERED_SECONDS
        return [request for request in self._read_requests() if request.time >= since]

    async def append(self, records: Sequence[Record], keep: Mapping[Key, int]) -> None:
        """Appends in order, synced to disk."""
        if records:
            moment = self._clock.monotonic()
            await self._in_thread(lambda: self._append(records, keep, moment))

    async def at(self, key: Key, revision: int) -> Record | None:
        """The last record of an object up to `revision`."""
        row = self._row(
            f"SELECT {COLUMNS} FROM log WHERE kind = ? AND namespace = ? AND name = ? "
            "AND position < ? ORDER BY position DESC LIMIT 1",
            (*key, _after(revision)),
        )
        record = record_of(row) if row is not None else None
        return record if record is not None and record.verb is not Verb.DELETE else None

    async def state_at(self, revision: int, kind: str, namespace: str) -> AsyncIterator[Record]:
        """The last records of the objects that were there at `revision`."""
        found = self._rows(
            "SELECT max(position) FROM log WHERE kind = ? AND namespace BETWEEN ? AND ? "
            "AND position < ? GROUP BY namespace, name ORDER BY namespace, name",
            (kind, namespace, namespace or "\U0010ffff", _after(revision)),
        )
        for start in range(0, len(found), _PAGE):
            positions = [position for (position,) in found[start : start + _PAGE]]
            marks = ",".join("?" * len(positions))
            rows = self._rows(f"SELECT {COLUMNS} FROM log WHERE position IN ({marks})", positions)
            for row in sorted(rows, key=lambda row: (row[2], row[3])):
                record = record_of(row)
                if record.verb is not Verb.DELETE:
                    yield record

    async def since(self, revision: int) -> AsyncGenerator[Record, None]:
        """All records after `revision`."""
        for row in self._pages("position > ?", _after(revision) - 1):
            yield record_of(row)

    async def transaction(self, revision: int) -> Sequence[Record]:
        """The records of one revision."""
        rows = self._rows(
            f"SELECT {COLUMNS} FROM log WHERE position BETWEEN ? AND ? ORDER BY position",
            (_after(revision - 1), _after(revision) - 1),
        )
        return [record_of(row) for row in rows]

    async def revision_at(self, time: float) -> int:
        """The last revision not after `time`; times never go back along the log."""
        low, high = 0, self._read_head()["revision"]
        while low < high:
            middle = (low + high + 1) // 2
            row = self._row(
                "SELECT time FROM log WHERE position < ? ORDER BY position DESC LIMIT 1",
                (_after(middle),),
            )
            if row is None or row[0] <= time:
                low = middle
            else:
                high = middle - 1
        row = self._row("SELECT time FROM log ORDER BY position LIMIT 1")
        return low if row is not None and row[0] <= time else 0

    async def compact(self, revision: int) -> None:
        """Forgets superseded records up to `revision`, and the deleted."""
        revision = min(revision, self._read_head()["revision"])
        if revision <= self._opened.compacted:
            return
        executor = self._executor
        # First of all nobody is promised what is about to go.
        await self._in_thread(lambda: self._set_compacted(revision))
        after: int | None = _after(self._swept) - 1
        while after is not None:
            if self._executor is not executor:
                # It was opened again meanwhile: the next time begins at the beginning.
                return
            some = functools.partial(self._compact_some, after, _after(revision))
            after = await self._in_thread(some)
        self._swept = revision

    async def adopt(self, opened: Opened, *, whole: bool) -> None:
        """Takes over a log's identity, and at last its end."""
        await self._in_thread(lambda: self._adopt(opened, whole))

    async def close(self) -> None:
        """Lets go of the files."""
        if self._executor is not None:
            closing = self._in_thread(self._close)
            executor, self._executor = self._executor, None
            await closing
            executor.shutdown()

    def _in_thread(self, work: Callable[[], T]) -> Awaitable[T]:
        assert self._executor is not None, "the store is not open"
        return _whole(asyncio.get_running_loop().run_in_executor(self._executor, work))

    def _open(self) -> Opened:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Refused(f"{self._path}: cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            said = f"another process has it open (`fuser {self._lock_path}` names it)"
            raise Refused(f"{self._path}: {said}") from None
        if not self._path.exists():
            self._mark.check_absent(str(self._path))
        try:
            self._writer = self._connect()
            self._prepare(self._writer)
            self._reader = self._connect()
            head = self._read_head()
        except (sqlite3.DatabaseError, OSError) as error:
            raise Refused(f"{self._path}: {error}") from error
        _check_format(str(self._path), head["format"])
        self._tally = head["tally"]
        self._swept = 0
        self._opened = _opened(head)
        self._mark.check(str(self._path), self._opened)
        self._mark.write(self._opened, head["revision"])
        return self._opened

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        connection.execute("PRAGMA busy_timeout = 10000")
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        # After a failed sync, what can be read need not be on the disk: now it will be.
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.executescript(_TABLES)
        connection.execute(
            "INSERT OR IGNORE INTO head VALUES (1, ?, ?, 1, 0, 0.0, 0, 0)",
            (_FORMAT, self._chance.uid()),
        )
        os.chmod(self._path, 0o600)

    def _check_integrity(self) -> str:
        """Whether the index agrees with the log; "ok", or what is wrong."""
        assert self._writer is not None
        try:
            (said,) = self._writer.execute("PRAGMA integrity_check(1)").fetchone()
        except sqlite3.DatabaseError as error:
            return str(error)
        return str(said)

    def _close(self) -> None:
        for connection in (self._reader, self._writer):
            if connection is not None:
                with contextlib.suppress(sqlite3.Error):
                    connection.close()
        self._reader = self._writer = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _append(self, records: Sequence[Record], keep: Mapping[Key, int], moment: float) -> None:
        connection = self._writer
        assert connection is not None, "the store is not open"
        tally = self._tally
        rows = []
        for record in records:
            checksum = record.checksum()
            tally += checksum
            rows.append(_row(record, checksum))
        last = records[-1]
        since = last.time - REMEMBERED_SECONDS
        with self._transaction(connection):
            connection.executemany(f"INSERT INTO log VALUES ({','.join('?' * 14)})", rows)
            for key, count in keep.items():
                tally -= _trim(connection, key, count, since)
            connection.execute(
                "UPDATE head SET revision = ?, time = ?, tally = ?",
                (last.revision, last.time, tally & TALLY_MASK),
            )
        self._tally = tally & TALLY_MASK
        self._mark.note(self._opened, last.revision, moment)

    @contextlib.contextmanager
    def _transaction(self, connection: sqlite3.Connection) -> Iterator[None]:
        """All or nothing. `Full` where there was no room and nothing was written; after any other
        failure nobody knows.
        """
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL and self._rolled_back(connection):
                raise Full(f"{self._path}: {error}") from error
            raise

    def _rolled_back(self, connection: sqlite3.Connection) -> bool:
        """Whether after a failure the log is surely as it was before."""
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        (tally,) = connection.execute("SELECT tally FROM head").fetchone()
        return bool(tally == self._tally)

    def _adopt(self, opened: Opened, whole: bool) -> None:
        assert self._writer is not None
        self._writer.execute(
            "UPDATE head SET format = ?, cluster_id = ?, epoch = ?",
            (_FORMAT if whole else _UNFINISHED, opened.cluster_id, opened.epoch),
        )
        self._opened = Opened(opened.cluster_id, opened.epoch, 0, 0.0, 0)
        if whole:
            self._writer.execute(
                "UPDATE head SET revision = ?, time = ?, compacted = ?",
                (opened.head, opened.time, opened.compacted),
            )
            self._opened = opened
        self._mark.write(self._opened, self._opened.head)

    def _set_compacted(self, revision: int) -> None:
        assert self._writer is not None
        with self._transaction(self._writer):
            old = self._writer.execute(
                "DELETE FROM request WHERE time < (SELECT time FROM head) - ? RETURNING checksum",
                (REMEMBERED_SECONDS,),
            ).fetchall()
            tally = self._tally - sum(checksum for (checksum,) in old) & TALLY_MASK
            self._writer.execute("UPDATE head SET compacted = ?, tally = ?", (revision, tally))
        self._tally = tally
        opened = self._opened
        self._opened = Opened(opened.cluster_id, opened.epoch, opened.head, opened.time, revision)

    def _compact_some(self, after: int, before: int) -> int | None:
        """Looks at a window of records, each of which makes older ones of its object useless."""
        connection = self._writer
        assert connection is not None
        window = connection.execute(
            "SELECT position, kind, namespace, name, operation, checksum FROM log "
            "WHERE position > ? AND position < ? ORDER BY position LIMIT ?",
            (after, before, _PAGE),
        ).fetchall()
        if not window:
            return None
        tally = self._tally
        (time,) = connection.execute("SELECT time FROM head").fetchone()
        with self._transaction(connection):
            for position, kind, namespace, name, operation, _ in window:
                gone = connection.execute(
                    "DELETE FROM log WHERE kind = ? AND namespace = ? AND name = ? "
                    f"AND position < ? {_GONE}",
                    (kind, namespace, name, position + (operation == Verb.DELETE.value)),
                ).fetchall()
                tally -= _forgotten(connection, gone, time - REMEMBERED_SECONDS)
            connection.execute("UPDATE head SET tally = ?", (tally & TALLY_MASK,))
        self._tally = tally & TALLY_MASK
        return int(window[-1][0])

    def _rows(self, text: str, values: Sequence[Any] = ()) -> list[Any]:
        assert self._reader is not None, "the store is not open"
        try:
            return self._reader.execute(text, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise Refused(f"{self._path}: {error}") from error

    def _row(self, text: str, values: Sequence[Any] = ()) -> Any:
        rows = self._rows(text, values)
        return rows[0] if rows else None

    def _pages(self, condition: str, start: int) -> Iterator[tuple[Any, ...]]:
        """Rows by position, page by page, so that no read is left open."""
        while True:
            rows = self._rows(
                f"SELECT {COLUMNS} FROM log WHERE {condition} ORDER BY position LIMIT {_PAGE}",
                (start,),
            )
            yield from rows
            if len(rows) < _PAGE:
                return
            start = rows[-1][0]

    def _read_requests(self) -> list[Request]:
        rows = self._rows(f"SELECT {REQUEST_COLUMNS} FROM request ORDER BY revision")
        return [request_of(row) for row in rows]

    def _read_head(self) -> dict[str, Any]:
        row = self._row(f"SELECT {', '.join(_HEAD)} FROM head")
        if row is None:
            raise Refused(f"{self._path}: the row of its head is missing")
        return dict(zip(_HEAD, row, strict=True))


async def _whole(future: asyncio.Future[T]) -> T:
    """Its result. What has begun in the thread cannot be called back: whoever is cancelled waits,
    so that nothing overlaps.
    """
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        with contextlib.suppress(Exception):
            await future
        raise


def opened_of(connection: sqlite3.Connection) -> Opened:
    """What a log says of itself."""
    row = connection.execute(f"SELECT {', '.join(_HEAD)} FROM head").fetchone()
    if row is None:
        raise Refused("the row of the log's head is missing")
    head = dict(zip(_HEAD, row, strict=True))
    _check_format("the log", head["format"])
    return _opened(head)


def _opened(head: Mapping[str, Any]) -> Opened:
    return Opened(
        head["cluster_id"], head["epoch"], head["revision"], head["time"], head["compacted"]
    )


def _check_format(log: str, number: int) -> None:
    if number == _UNFINISHED:
        raise Refused(
            f"{log}: a migration into it has not come to its end: remove it, its .mark "
            "and its .lock, and begin again"
        )
    if number != _FORMAT:
        raise Refused(f"{log}: format {number} is not known to this version")


def _after(revision: int) -> int:
    """The first position after a revision."""
    return (revision + 1) << 10


def _trim(connection: sqlite3.Connection, key: Key, count: int, since: float) -> int:
    """Deletes all but an object's last record and `count` before it; how much the tally shrinks."""
    gone = connection.execute(
        "DELETE FROM log WHERE kind = ? AND namespace = ? AND name = ? AND position < "
        "(SELECT position FROM log WHERE kind = ? AND namespace = ? AND name = ? "
        f"ORDER BY position DESC LIMIT 1 OFFSET ?) {_GONE}",
        (*key, *key, count),
    ).fetchall()
    return _forgotten(connection, gone, since)


def _forgotten(connection: sqlite3.Connection, gone: Iterable[Sequence[Any]], since: float) -> int:
    """Keeps the requests of records that are gone; how much the tally shrinks.

    Of those that are younger than `since`: they may be asked again.
    """
    shrunk = 0
    for position, actor, request_id, time, checksum in gone:
        shrunk += checksum
        if request_id and time >= since:
            request = Request(actor, request_id, position >> 10, time)
            shrunk -= _keep(connection, request)
    return shrunk


def _keep(connection: sqlite3.Connection, request: Request) -> int:
    """Writes it down, once for a revision; how much the tally grows."""
    checksum = request.checksum()
    row = (request.revision, request.actor, request.request_id, request.time, checksum)
    done = connection.execute("INSERT OR IGNORE INTO request VALUES (?, ?, ?, ?, ?)", row)
    return checksum if done.rowcount else 0


def _row(record: Record, checksum: int) -> tuple[Any, ...]:
    return (
        record.position,
        *record.key,
        record.uid,
        record.verb.value,
        record.body,
        record.actor,
        record.because,
        record.time,
        record.request_id,
        record.manager,
        record.subresource,
        checksum,
    )


def request_of(row: Sequence[Any]) -> Request:
    """A row's request; `Refused` where it is not what was written."""
    *values, checksum = row
    request = Request(*values)
    try:
        good = request.checksum() == checksum
    except (TypeError, AttributeError):
        good = False
    if not good:
        raise Refused(
            f"the log's request of revision {request.revision} is damaged: its checksum does not "
            "match (`kcore check` names all that are)"
        )
    return request


def record_of(row: Sequence[Any]) -> Record:
    """A row's record; `Refused` where it is not what was written."""
    # In the order of the table's columns; by position, since a start makes one of each row.
    position, kind, namespace, name, uid, verb, body, actor, because, time, *more = row
    request_id, manager, subresource, checksum = more
    try:
        record = Record(
            position >> 10,
            Key(kind, namespace, name),
            uid,
            _VERBS[verb],
            body,
            actor,
            because,
            time,
            request_id,
            manager,
            subresource,
            position & 1023,
        )
        good = record.checksum() == checksum
    except (KeyError, TypeError, AttributeError):
        good = False
    if not good:
        raise Refused(
            f"the log's record at revision {position >> 10} of {kind}/{namespace}/{name} is "
            "damaged: its checksum does not match (`kcore check` names all that are)"
        )
    return record
