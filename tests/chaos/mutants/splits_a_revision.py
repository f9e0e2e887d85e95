"""The events of one revision come in two messages."""

from kcore.kernel.feed import Feed

FOUND_BY = "P8", "atomic"


def plant() -> None:
    from kcore.kernel import frame

    messages = Feed._messages

    def split(self, entries, before, mark, withheld, synced=False):  # type: ignore[no-untyped-def]
        entries = list(entries)
        if len(entries) > 1 and entries[-1].revision == entries[-2].revision and not synced:
            first = [entry.data for entry in entries[:-1]]
            yield frame.watch_response(before, first, False)
            entries = entries[-1:]
        yield from messages(self, entries, before, mark, withheld, synced)

    Feed._messages = split  # type: ignore[method-assign]
