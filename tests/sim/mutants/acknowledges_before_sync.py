"""The disk answers at once and writes a second later; what dies in between is lost."""

import asyncio

import pytest

from kcore.sim.disk import Disk

FOUND_BY = "revision"
FOUND_IN = 2


def plant(patch: pytest.MonkeyPatch) -> None:
    append = Disk.append
    waiting: list[asyncio.Task[None]] = []

    async def later(self: Disk, records, keep) -> None:  # type: ignore[no-untyped-def]
        self._witness(records)

        async def write() -> None:
            before = waiting[-2:-1]
            await asyncio.sleep(1.0)
            if before:
                await asyncio.wait(before)
            await self._store.append(records, keep)

        waiting.append(asyncio.create_task(write()))

    async def lose(self: Disk):  # type: ignore[no-untyped-def]
        for task in waiting:
            task.cancel()
        waiting.clear()
        return await self._store.open()

    assert append is not None
    patch.setattr(Disk, "append", later)
    patch.setattr(Disk, "open", lose)
