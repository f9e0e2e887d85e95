"""The feed announces revisions as complete, and brings the last event of each later."""

import asyncio

import pytest

from kcore.kernel.feed import Feed

FOUND_BY = "was complete"
_LATE_SECONDS = 0.2


def plant(patch: pytest.MonkeyPatch) -> None:
    publish = Feed.publish

    def early(self: Feed, changes, head: int, time: float) -> None:  # type: ignore[no-untyped-def]
        publish(self, changes[:-1], head, time)
        loop = asyncio.get_running_loop()
        loop.call_later(_LATE_SECONDS, publish, self, changes[-1:], head, time)

    patch.setattr(Feed, "publish", early)
