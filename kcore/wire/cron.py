"""Schedules of CronJobs: what Kubernetes reads there, no more and no less.

    schedule = cron.parse("*/5 * * * mon-fri")      # ValueError says what is wrong
    schedule.next(moment, zone)                     # the first time after a moment
    schedule.latest(since, until, zone)             # the last of those in between, and how many

Five fields, names of months and days, ranges, steps, lists; @hourly and its like; @every 1h30m.
Where both days of month and days of week are said, either will do. What the field's own tools take
besides (seconds, L, W, #, Sunday as 7, a zone in the text) is refused: it means other things
elsewhere. A time that a change of clocks leaves out is at the end of the gap; one that it brings
twice is once. Moments are seconds since 1970. Pure.
"""

import functools
import re
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Final

from cronsim import CronSim, CronSimError

_MACROS: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MONTHS: Final = [
    "jan",
    "feb",
    "mar",
    "apr",
    "may",
    "jun",
    "jul",
    "aug",
    "sep",
    "oct",
    "nov",
    "dec",
]
_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
# Name, least, greatest, and what else may stand for a number.
_FIELDS: Final[tuple[tuple[str, int, int, dict[str, int]], ...]] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of month", 1, 31, {}),
    ("month", 1, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    ("day of week", 0, 6, {name: number for number, name in enumerate(_DAYS)}),
)
_PART: Final = re.compile(r"(?:([*?])|([0-9a-z]{1,3})(?:-([0-9a-z]{1,3}))?)(?:/([0-9]{1,3}))?\Z")
_SPAN: Final = re.compile(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?\Z")


@dataclass(frozen=True, slots=True)
class Schedule:
    """When."""

    # Five fields, or "" where it is an interval.
    fields: str
    every_seconds: int = 0

    def next(self, moment: float, zone: tzinfo = UTC) -> float:
        """The first time after a moment."""
        if self.every_seconds:
            return float(int(moment) + self.every_seconds)
        return _next(self.fields, int(moment), zone)

    def latest(self, since: float, until: float, zone: tzinfo = UTC) -> tuple[float, int] | None:
        """The last time after `since` and not after `until`, and about how many there are.

        None: there is none. It takes no longer for a year than for an hour.
        """
        first = self.next(since, zone)
        if first > until:
            return None
        second = self.next(first, zone)
        if second > until:
            return first, 1
        count = int((until - first) // (second - first)) + 1
        if self.every_seconds:
            return first + (count - 1) * self.every_seconds, count
        width = second - first
        while True:
            found, at = first, self.next(max(first, until - width), zone)
            while at <= until:
                found, at = at, self.next(at, zone)
            if found > first or until - width <= first:
                return found, count
            width *= 4


@functools.lru_cache(maxsize=1024)
def parse(text: str) -> Schedule:
    """The schedule that the text says. ValueError where it says none."""
    said = text.strip()
    if said.startswith(("TZ=", "CRON_TZ=")):
        raise ValueError("a time zone goes into timeZone")
    if said.startswith("@every "):
        return Schedule("", _seconds(said.removeprefix("@every ").strip()))
    if said.startswith("@"):
        if said not in _MACROS:
            known = ", ".join((*_MACROS, "@every <duration>"))
            raise ValueError(f"{said}: not one of {known}")
        said = _MACROS[said]
    words = said.lower().split()
    if len(words) != len(_FIELDS):
        raise ValueError(f"expected exactly 5 fields, found {len(words)}: {text!r}")
    fields = " ".join(_field(word, *field) for word, field in zip(words, _FIELDS, strict=True))
    try:
        next(CronSim(fields, datetime(2026, 1, 1, tzinfo=UTC)))
    except (CronSimError, StopIteration):
        raise ValueError(f"{text!r} is never") from None
    return Schedule(fields)


def _field(word: str, name: str, least: int, most: int, names: dict[str, int]) -> str:
    def number(said: str) -> int:
        value = names[said] if said in names else int(said) if said.isdecimal() else -1
        if not least <= value <= most:
            raise ValueError(f"{name}: {said} is not between {least} and {most}")
        return value

    parts = []
    for part in word.split(","):
        found = _PART.match(part)
        if found is None:
            raise ValueError(f"{name}: {part!r} can't be understood")
        everything, first, last, step = found.groups()
        if step is not None and int(step) == 0:
            raise ValueError(f"{name}: a step of 0")
        if everything is not None:
            made = "*"
        else:
            begin = number(first)
            # "5/15" goes on to the end.
            end = number(last) if last is not None else most if step is not None else begin
            if begin > end:
                raise ValueError(f"{name}: {part}: the range ends before it begins")
            made = f"{begin}-{end}" if end != begin else str(begin)
        # From a single number a step leads nowhere.
        parts.append(f"{made}/{step}" if step is not None and not made.isdecimal() else made)
    return ",".join(parts)


def _seconds(text: str) -> int:
    found = _SPAN.match(text)
    if not text or found is None:
        raise ValueError(f"@every {text}: not a duration like 1h30m")
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    total = hours * 3600 + minutes * 60 + seconds
    if total < 1:
        raise ValueError(f"@every {text}: at least one second")
    return total


@functools.lru_cache(maxsize=4096)
def _next(fields: str, moment: int, zone: tzinfo) -> float:
    begin = datetime.fromtimestamp(moment, zone)
    for found in CronSim(fields, begin):
        at = found.timestamp()
        # A time that comes twice when clocks are set back is once.
        if at > moment:
            return at
    raise ValueError(f"{fields} is never")
