"""The database is told not to sync."""

from kcore.kernel.store.sqlite import SqliteStore

FOUND_BY = "P3", "lost|damaged|malformed|not those that|not a database|knows of"


def plant() -> None:
    connect = SqliteStore._connect

    def careless(self):  # type: ignore[no-untyped-def]
        connection = connect(self)
        connection.execute("PRAGMA synchronous = OFF")
        return connection

    SqliteStore._connect = careless  # type: ignore[method-assign]
