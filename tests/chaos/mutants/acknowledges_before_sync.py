"""What is appended is acknowledged at once and written a little later."""

import asyncio

from kcore.kernel.store.sqlite import SqliteStore

FOUND_BY = "P1", "lost"


def plant() -> None:
    append = SqliteStore.append
    writing: list[asyncio.Task[None]] = []

    async def later(self, records, keep) -> None:  # type: ignore[no-untyped-def]
        before = writing[-1:]

        async def write() -> None:
            await asyncio.sleep(0.05)
            if before:
                await asyncio.wait(before)
            await append(self, records, keep)

        writing[:] = [asyncio.create_task(write())]

    SqliteStore.append = later  # type: ignore[method-assign]
