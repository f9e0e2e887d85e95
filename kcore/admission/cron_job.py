"""Admission of cron jobs: a schedule and a time zone that can be understood."""

import zoneinfo
from collections.abc import Callable
from typing import Any

from kcore.wire import cron
from kcore.wire.errors import Violation


def admit(obj: Any, _old: Any, _read: Callable[[str, str, str], Any]) -> list[Violation]:
    """Refuses what has no next time."""
    violations = []
    if obj.spec.schedule:
        try:
            cron.parse(obj.spec.schedule)
        except ValueError as error:
            said = f'Invalid value: "{obj.spec.schedule}": {error}'
            violations.append(Violation("spec.schedule", said))
    if obj.spec.HasField("time_zone"):
        name = obj.spec.time_zone
        try:
            known = name.lower() != "local" and bool(zoneinfo.ZoneInfo(name))
        except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
            known = False
        if not known:
            said = f'Invalid value: "{name}": unknown time zone'
            violations.append(Violation("spec.timeZone", said))
    return violations
