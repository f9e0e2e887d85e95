"""A deletion and the creation that follows become one change, for readers that are slow."""

from kcore.kernel import feed, frame

FOUND_BY = "P8", "is-create"


def plant() -> None:
    coalesce = feed.coalesce
    # So that it shows without a very slow reader.
    feed.Limits.__init__.__defaults__ = (1 << 20, 4, 4096, *feed.Limits.__init__.__defaults__[3:])  # type: ignore[misc, index]

    def careless(entries):  # type: ignore[no-untyped-def]
        last = {}  # type: ignore[var-annotated]
        for entry in coalesce(entries):
            thing = entry.selection, entry.key
            gone = last.pop(thing, None)
            if gone is not None and gone.kind == frame.DELETED:
                entry = feed._encoded(
                    *(entry.key, frame.MODIFIED, entry.revision, entry.selection, entry.body),
                    entry.said_kind,
                )
            last[thing] = entry
        return sorted(last.values(), key=lambda one: one.revision)

    feed.coalesce = careless
