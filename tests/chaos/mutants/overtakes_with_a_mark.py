"""A batch is announced as complete, and its last event comes later."""

import asyncio

from kcore.kernel.feed import Feed

FOUND_BY = "P8", "after the mark"


def plant() -> None:
    publish = Feed.publish

    def early(self, changes, head, time) -> None:  # type: ignore[no-untyped-def]
        publish(self, changes[:-1], head, time)
        again = lambda: publish(self, changes[-1:], self.head, time)  # noqa: E731
        asyncio.get_running_loop().call_later(0.1, again)

    Feed.publish = early  # type: ignore[method-assign]
