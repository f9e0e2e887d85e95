"""The records of one batch are written one by one."""

from kcore.kernel.store.sqlite import SqliteStore

FOUND_BY = "P2", "in the middle of a batch|only .* was acknowledged|not those that"


def plant() -> None:
    append = SqliteStore._append

    def one_by_one(self, records, keep, moment) -> None:  # type: ignore[no-untyped-def]
        for record in records:
            append(self, [record], keep, moment)

    SqliteStore._append = one_by_one  # type: ignore[method-assign]
