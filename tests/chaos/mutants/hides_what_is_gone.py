"""A watch from a past that was compacted begins as if nothing had been lost."""

from kcore.kernel import feed
from kcore.kernel.replica import Replica

FOUND_BY = "P8", "watcher .*: (reliable|is-create|previous)"


def plant() -> None:
    # So that the log is asked for what memory would have had.
    defaults = list(feed.Limits.__init__.__defaults__ or ())
    defaults[3] = 8
    feed.Limits.__init__.__defaults__ = tuple(defaults)  # type: ignore[misc]
    Replica.compacted = property(lambda self: 0)  # type: ignore[assignment, method-assign]
