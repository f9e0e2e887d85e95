"""The feed forgets one change in forty."""

from kcore.kernel.feed import Feed

FOUND_BY = "P8", "watcher .*: (reliable|is-create|previous)"


def plant() -> None:
    publish, seen = Feed.publish, [0]

    def skipping(self, changes, head, time) -> None:  # type: ignore[no-untyped-def]
        kept = []
        for change in changes:
            seen[0] += 1
            if seen[0] % 40:
                kept.append(change)
        publish(self, kept, head, time)

    Feed.publish = skipping  # type: ignore[method-assign]
