"""How long something is or was, as people read it: "5s", "3m20s", "4h", "12d"."""

from typing import Final

_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
_YEAR: Final = 365 * _DAY


def text(seconds: float) -> str:
    """The span in one or two units, the second only where it says something."""
    whole = int(seconds)
    if whole < 0:
        # Clocks of two machines differ by a little; by more it is worth seeing.
        return "0s" if whole >= -1 else "<invalid>"
    for below, unit, name, rest, rest_name in (
        (2 * _MINUTE, 1, "s", 0, ""),
        (10 * _MINUTE, _MINUTE, "m", 1, "s"),
        (3 * _HOUR, _MINUTE, "m", 0, ""),
        (8 * _HOUR, _HOUR, "h", _MINUTE, "m"),
        (2 * _DAY, _HOUR, "h", 0, ""),
        (8 * _DAY, _DAY, "d", _HOUR, "h"),
        (2 * _YEAR, _DAY, "d", 0, ""),
        (8 * _YEAR, _YEAR, "y", _DAY, "d"),
    ):
        if whole < below:
            more = whole % unit // rest if rest else 0
            return f"{whole // unit}{name}" + (f"{more}{rest_name}" if more else "")
    return f"{whole // _YEAR}y"
