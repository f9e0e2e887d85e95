"""What one user may have under way at the same time, so that the others are served.

    lease = allowance.take(user.name, streaming)
    lease.hold(len(answer)); …; lease.release()

`take` and `hold` raise `ApiError(EXHAUSTED)`, with the time after which to ask again, where the
user has too many calls or streams already, or has too much not read that was answered. What is
counted are users, not connections: whoever dials often has no more than others. Nothing is kept of
users who have nothing under way. Pure.
"""

from dataclasses import dataclass, field
from typing import Final

from kcore.wire.errors import ApiError, Reason

# A tenth of a second of this server's work.
CALLS_PER_USER: Final = 512
STREAMS_PER_USER: Final = 1024
# Answers that wait in memory for who does not read; a single one may always. gRPC needs three times
# as much for them.
UNREAD_BYTES_PER_USER: Final = 32 << 20
_RETRY_SECONDS: Final = 1.0


@dataclass(slots=True)
class _Taken:
    calls: int = 0
    streams: int = 0
    bytes: int = 0


@dataclass(slots=True)
class Allowance:
    """The calls and streams of all users."""

    calls_per_user: int = CALLS_PER_USER
    streams_per_user: int = STREAMS_PER_USER
    bytes_per_user: int = UNREAD_BYTES_PER_USER
    _taken: dict[str, _Taken] = field(default_factory=dict)

    @property
    def calls(self) -> int:
        """How many calls are under way."""
        return sum(one.calls for one in self._taken.values())

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return sum(one.streams for one in self._taken.values())

    @property
    def bytes(self) -> int:
        """Of answers that were not read yet."""
        return sum(one.bytes for one in self._taken.values())

    def take(self, user: str, streaming: bool) -> "Lease":
        """One call or stream of the user's."""
        taken = self._taken.get(user)
        if taken is None:
            taken = self._taken[user] = _Taken()
        if 4 * taken.bytes > 3 * self.bytes_per_user:
            # Before it is worked for.
            raise _exhausted(user, f"{taken.bytes} bytes of answers unread")
        if streaming:
            if taken.streams >= self.streams_per_user:
                raise _exhausted(user, f"{taken.streams} streams open")
            taken.streams += 1
        else:
            if taken.calls >= self.calls_per_user:
                raise _exhausted(user, f"{taken.calls} calls under way")
            taken.calls += 1
        return Lease(self, user, streaming, taken)

    def give_back(self, user: str, streaming: bool, taken: _Taken, size: int) -> None:
        """What a lease had."""
        if streaming:
            taken.streams -= 1
        else:
            taken.calls -= 1
        taken.bytes -= size
        if not taken.calls and not taken.streams:
            del self._taken[user]


@dataclass(slots=True)
class Lease:
    """One call or stream."""

    _allowance: Allowance
    _user: str
    _streaming: bool
    _taken: _Taken
    _bytes: int = 0

    def hold(self, size: int) -> None:
        """So many bytes are on their way to the user, and no others."""
        unread = self._taken.bytes - self._bytes
        if unread and size and unread + size > self._allowance.bytes_per_user:
            raise _exhausted(self._user, f"{unread} bytes of answers unread")
        self._taken.bytes = unread + size
        self._bytes = size

    def release(self) -> None:
        """The call has ended."""
        self._allowance.give_back(self._user, self._streaming, self._taken, self._bytes)


def _exhausted(user: str, what: str) -> ApiError:
    said = f'User "{user}" has {what}: no more are served at a time'
    return ApiError(Reason.EXHAUSTED, said, retry_seconds=_RETRY_SECONDS)
