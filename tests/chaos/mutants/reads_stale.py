"""A read may be answered as it was a moment ago."""

import time

from kcore.kernel.listing import Listing

FOUND_BY = "P7", "had returned before it was sent"


def plant() -> None:
    get, kept = Listing.get, {}  # type: ignore[var-annotated]

    async def stale(self, request):  # type: ignore[no-untyped-def]
        name = request.SerializeToString()
        since, answer = kept.get(name, (0.0, b""))
        if time.monotonic() - since > 0.05:
            answer = await get(self, request)
            kept[name] = time.monotonic(), answer
        return answer

    Listing.get = stale  # type: ignore[method-assign]
