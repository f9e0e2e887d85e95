"""The feed forgets one change in forty."""

import pytest

from kcore.kernel.feed import Feed

FOUND_BY = "not shown as it was"


def plant(patch: pytest.MonkeyPatch) -> None:
    publish, seen = Feed.publish, [0]

    def skipping(self: Feed, changes, head: int, time: float) -> None:  # type: ignore[no-untyped-def]
        kept = []
        for change in changes:
            seen[0] += 1
            if seen[0] % 40:
                kept.append(change)
        publish(self, kept, head, time)

    patch.setattr(Feed, "publish", skipping)
