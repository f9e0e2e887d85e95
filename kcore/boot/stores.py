"""Which store: from a word on a command line to the thing.

sqlite:/var/lib/kcore/store/kcore.db
etcd:https://10.0.0.1:2379,https://10.0.0.2:2379?ca=FILE&cert=FILE&key=FILE&prefix=/kcore
"""

from pathlib import Path
from urllib.parse import parse_qsl

from kcore.chance import Chance
from kcore.clock import Clock
from kcore.kernel.store import (
    Opened,
    Refused,
    mark,
    migrate,
    sqlite,
    sqlite_file,
)
from kcore.wire.errors import ApiError

_FILES = ("ca", "cert", "key")


class StoreError(Exception):
    """There is no such store, or it is not as it should be; the text says what to do."""


def store_of(text: str, clock: Clock, chance: Chance, known: Path | None = None) -> migrate.Target:
    """The store that `text` names, not yet opened.

    `known`: a file of this machine's that says how far the log in an etcd was acknowledged.
    """
    sort, _, rest = text.partition(":")
    if sort == "sqlite" and rest:
        return sqlite.SqliteStore(Path(rest), clock, chance)
    if sort != "etcd" or not rest:
        raise StoreError(
            f"{text!r} names no store: expected sqlite:PATH or etcd:https://HOST:PORT[,...]"
            "[?ca=FILE&cert=FILE&key=FILE&prefix=/kcore]"
        )
    # Imported late: most have no etcd, and an apiserver must start fast.
    from kcore.kernel.store import etcd, etcd_client

    urls, _, query = rest.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = options.keys() - {*_FILES, "prefix"}
    if unknown:
        raise StoreError(f"{text!r}: unknown option {', '.join(sorted(unknown))}")
    prefix = options.get("prefix", "/kcore").rstrip("/")
    if not prefix.startswith("/"):
        raise StoreError(f"{text!r}: the prefix must begin with / and be more than that")
    if ("cert" in options) != ("key" in options):
        raise StoreError(f"{text!r}: cert and key belong together")
    try:
        authority, certificate, key = (
            Path(options[name]).read_bytes() if name in options else None for name in _FILES
        )
        endpoints = etcd_client.Endpoints(tuple(urls.split(",")), authority, certificate, key)
    except (OSError, ValueError) as error:
        raise StoreError(f"{text!r}: {error}") from error
    marked = mark.Mark(known) if known is not None else None
    return etcd.EtcdStore(endpoints, clock, chance, mark=marked, prefix=prefix)


async def move(
    source: str, target: str, clock: Clock, chance: Chance, progress: migrate.Progress
) -> migrate.Moved:
    """Moves a log from one store to another; the source is read only."""
    if source == target:
        raise StoreError("the two stores are the same")
    if source.startswith("sqlite:") and not Path(source.partition(":")[2]).exists():
        raise StoreError(f"{source}: there is no such file")
    stores = store_of(source, clock, chance), store_of(target, clock, chance)
    try:
        return await migrate.migrate(*stores, progress)
    except (Refused, ApiError) as error:
        raise StoreError(str(error)) from error


def check(database: Path) -> tuple[list[str], str]:
    """Every mismatch in an SQLite log, and what it is."""
    found = list(sqlite_file.faults(database))
    return found, "" if found else _words(sqlite_file.said_of(database))


def backup(database: Path, copy: Path) -> str:
    """Copies an SQLite log, served or not; what was copied."""
    try:
        return _words(sqlite_file.backup(database, copy))
    except Refused as error:
        raise StoreError(str(error)) from error


def restore(copy: Path, database: Path) -> str:
    """Puts a copy in the place of an SQLite log; what is there now."""
    try:
        return _words(sqlite_file.restore(copy, database))
    except Refused as error:
        raise StoreError(str(error)) from error


def _words(opened: Opened) -> str:
    return f"cluster {opened.cluster_id}, epoch {opened.epoch}, revision {opened.head}"
