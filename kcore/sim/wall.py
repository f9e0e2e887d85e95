"""A machine's wall clock, which somebody may set. Its monotonic clock is everybody's."""

from kcore.clock import Clock


class Wall:
    """A Clock whose `now` may jump."""

    def __init__(self, clock: Clock) -> None:
        """`clock`: the right time."""
        self.offset_seconds = 0.0
        self._clock = clock

    def now(self) -> float:
        """Seconds since 1970, as this machine believes."""
        return self._clock.now() + self.offset_seconds

    def monotonic(self) -> float:
        """Seconds since some moment."""
        return self._clock.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Returns after so many seconds."""
        await self._clock.sleep(seconds)
