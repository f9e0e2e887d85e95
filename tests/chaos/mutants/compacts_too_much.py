"""Compaction takes the last record of an object, too."""

from kcore.kernel.record import Verb
from kcore.kernel.store.sqlite import SqliteStore

FOUND_BY = "P8", "lost|is made at|as the log does not"


def plant() -> None:
    compact_some = SqliteStore._compact_some

    def greedy(self, after, before):  # type: ignore[no-untyped-def]
        row = self._writer.execute(
            "SELECT position, checksum FROM log WHERE kind LIKE '%ConfigMap' AND position < ? "
            "AND operation != ? ORDER BY position LIMIT 1",
            (before, Verb.DELETE.value),
        ).fetchone()
        if row is not None:
            self._tally -= row[1]
            self._writer.execute("DELETE FROM log WHERE position = ?", (row[0],))
            self._writer.execute("UPDATE head SET tally = ?", (self._tally,))
        return compact_some(self, after, before)

    SqliteStore._compact_some = greedy  # type: ignore[method-assign]
