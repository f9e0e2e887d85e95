"""The door to time.

Every room takes a `Clock`; none asks the operating system. `SystemClock` is the real one; a
simulation passes one whose time is its event loop's, so that hours pass in milliseconds.
"""

import asyncio
import time
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Protocol

_LOCAL = Path("/etc/localtime")


class Clock(Protocol):
    """What a room may know of time."""

    def now(self) -> float:
        """Seconds since 1970; may jump when somebody sets the machine's clock."""
        ...

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back. For intervals and deadlines."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Returns after so many seconds."""
        ...


class SystemClock:
    """The machine's own time."""

    def now(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since the machine started."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Sleeps on the event loop."""
        await asyncio.sleep(seconds)


class LoopClock:
    """The event loop's time, for simulations: with a virtual-time loop nothing ever waits."""

    def __init__(self, epoch: float = 1_767_225_600.0) -> None:
        """`epoch`: what `now()` says when the loop's time is 0; 2026-01-01 unless told."""
        self._epoch = epoch

    def now(self) -> float:
        """Epoch plus the loop's time."""
        return self._epoch + self.monotonic()

    def monotonic(self) -> float:
        """The loop's time."""
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        """Sleeps in the loop's time."""
        await asyncio.sleep(seconds)


def local_zone() -> tzinfo:
    """The time zone that this machine is set to; UTC where it is set to none."""
    # Of those who need a clock, few need zones.
    from zoneinfo import ZoneInfo

    try:
        with _LOCAL.open("rb") as file:
            return ZoneInfo.from_file(file)
    except (OSError, ValueError):
        return UTC
