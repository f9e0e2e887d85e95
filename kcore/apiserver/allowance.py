"""What one user may have under way at the same time, so that the others are served.

    with allowance.take(user.name, streaming): …

raises `ApiError(EXHAUSTED)`, with the time after which to ask again, where the user has too many
calls or streams already. What is counted are users, not connections: whoever dials often has no
more than others. Nothing is kept of users who have nothing under way. Pure.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from kcore.wire.errors import ApiError, Reason

# A tenth of a second of this server's work.
CALLS_PER_USER: Final = 512
STREAMS_PER_USER: Final = 1024
_RETRY_SECONDS: Final = 1.0


class Allowance:
    """The calls and streams of all users."""

    def __init__(self, calls: int = CALLS_PER_USER, streams: int = STREAMS_PER_USER) -> None:
        """`calls`, `streams`: the most that one user may have."""
        self._most = {False: calls, True: streams}
        self._taken: dict[tuple[str, bool], int] = {}

    @property
    def calls(self) -> int:
        """How many calls are under way."""
        return sum(count for (_, streaming), count in self._taken.items() if not streaming)

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return sum(count for (_, streaming), count in self._taken.items() if streaming)

    @contextmanager
    def take(self, user: str, streaming: bool) -> Iterator[None]:
        """Holds one call or stream of the user's."""
        key = user, streaming
        count = self._taken.get(key, 0)
        if count >= self._most[streaming]:
            what = "streams open" if streaming else "calls under way"
            said = f'User "{user}" has {count} {what}: no more are served at a time'
            raise ApiError(Reason.EXHAUSTED, said, retry_seconds=_RETRY_SECONDS)
        self._taken[key] = count + 1
        try:
            yield
        finally:
            left = self._taken[key] - 1
            if left:
                self._taken[key] = left
            else:
                del self._taken[key]
