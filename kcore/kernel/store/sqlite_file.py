"""An SQLite log as a file: looked over, copied while it is served, and put back.

    faults(path)            every mismatch, by revision and object
    backup(path, copy)      the log as it is at some moment, whoever has it open
    restore(copy, path)     puts a copy in a log's place, on purpose: its epoch grows

A server refuses a log at the first fault; this finds all. A restored log goes back to where the
copy was: that is told apart from a log that has lost writes by the epoch, so that clients who have
seen more begin anew instead of being refused.
"""

import contextlib
import fcntl
import os
import pathlib
import sqlite3
from collections.abc import Iterator

from kcore.kernel.store import Opened, Refused, sqlite
from kcore.kernel.store.mark import Mark


def faults(path: pathlib.Path) -> Iterator[str]:
    """What of the log is not as it was written, in its order. Changes nothing."""
    try:
        with contextlib.closing(_read_only(path)) as connection:
            opened = sqlite.opened_of(connection)
            yield from _faults(connection)
    except Refused as error:
        yield str(error)
        return
    except sqlite3.DatabaseError as error:
        yield f"{path}: {error}"
        return
    try:
        mark_of(path).check(str(path), opened)
    except Refused as error:
        yield str(error)


def said_of(path: pathlib.Path) -> Opened:
    """What the log says of itself."""
    try:
        with contextlib.closing(_read_only(path)) as connection:
            return sqlite.opened_of(connection)
    except sqlite3.DatabaseError as error:
        raise Refused(f"{path}: {error}") from error


def backup(path: pathlib.Path, copy: pathlib.Path) -> Opened:
    """Copies the log; writers go on. `copy` is there wholly or not at all."""
    if copy.exists():
        raise Refused(f"{copy}: is there already")
    draft = copy.with_name(copy.name + ".new")
    draft.unlink(missing_ok=True)
    try:
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        with (
            contextlib.closing(_read_only(path)) as source,
            contextlib.closing(sqlite3.connect(draft)) as target,
        ):
            source.backup(target)
            target.execute("PRAGMA journal_mode = DELETE")
        _refuse_faulty(draft)
        _sync(draft)
        os.replace(draft, copy)
    except (OSError, sqlite3.DatabaseError) as error:
        raise Refused(f"{copy}: {error}") from error
    finally:
        draft.unlink(missing_ok=True)
    return said_of(copy)


def restore(copy: pathlib.Path, path: pathlib.Path) -> Opened:
    """Puts a copy in the place of the log at `path`, which no server may have open."""
    _refuse_faulty(copy)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        epoch = max(said_of(copy).epoch, mark_of(path).epoch()) + 1
        draft = path.with_name(path.name + ".new")
        draft.unlink(missing_ok=True)
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        with (
            contextlib.closing(_read_only(copy)) as source,
            contextlib.closing(sqlite3.connect(draft)) as target,
        ):
            source.backup(target)
            target.execute("PRAGMA journal_mode = DELETE")
            target.execute("UPDATE head SET epoch = ?", (epoch,))
            target.commit()
        _sync(draft)
        # What was written ahead belongs to the log that goes.
        for rest in ("-wal", "-shm"):
            path.with_name(path.name + rest).unlink(missing_ok=True)
        os.replace(draft, path)
        opened = said_of(path)
        mark_of(path).write(opened, opened.head)
    except BlockingIOError:
        said = "an apiserver has it open: stop it first (its parent is named in run/kcore.pid)"
        raise Refused(f"{path}: {said}") from None
    except (OSError, sqlite3.DatabaseError) as error:
        raise Refused(f"{path}: {error}") from error
    finally:
        os.close(lock)
    return opened


def mark_of(path: pathlib.Path) -> Mark:
    """The mark of the log at `path`."""
    return Mark(path.with_name(path.name + ".mark"))


def _faults(connection: sqlite3.Connection) -> Iterator[str]:
    # One transaction, so that all is of one moment.
    connection.execute("BEGIN")
    head = connection.execute("SELECT revision, tally FROM head").fetchone()
    count = tally = last = 0
    for row in connection.execute(f"SELECT {sqlite.COLUMNS} FROM log ORDER BY position"):
        count += 1
        tally += row[13] if isinstance(row[13], int) else 0
        last = row[0] >> 10
        try:
            sqlite.record_of(row)
        except Refused as error:
            yield str(error)
    for row in connection.execute(f"SELECT {sqlite.REQUEST_COLUMNS} FROM request"):
        tally += row[-1] if isinstance(row[-1], int) else 0
        try:
            sqlite.request_of(row)
        except Refused as error:
            yield str(error)
    if tally & sqlite.TALLY_MASK != head[1] or last > head[0]:
        yield (
            f"the log's {count} records up to revision {last} are not those that its head at "
            f"revision {head[0]} accounts for: some are missing or foreign"
        )
    for (said,) in connection.execute("PRAGMA integrity_check"):
        if said != "ok":
            yield f"the database is damaged: {said}"


def _refuse_faulty(path: pathlib.Path) -> None:
    fault = next(faults(path), None)
    if fault is not None:
        raise Refused(f"{path} is no good copy: {fault}")


def _read_only(path: pathlib.Path) -> sqlite3.Connection:
    if not path.exists():
        raise Refused(f"{path}: there is no such file")
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10.0)


def _sync(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
