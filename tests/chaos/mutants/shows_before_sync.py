"""Everybody may read what is not durable yet."""

from kcore.kernel.kernel import Kernel

FOUND_BY = "P1", "as the log does not"


def plant() -> None:
    async def early(self, changes, head, time):  # type: ignore[no-untyped-def]
        self._replica.show(changes, head, time)
        await self._clock.sleep(0.02)
        await self._store.append([one.record for one in changes], self._keep(changes))
        for one in changes:
            self._note(one.record, self.schema)
        self._feed.publish(changes, head, time)

    Kernel._append = early  # type: ignore[method-assign]
