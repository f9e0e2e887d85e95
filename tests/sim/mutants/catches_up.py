"""A cron job makes up for every time that it has missed."""

import pytest

from kcore.wire import cron

FOUND_BY = "were due"


def plant(patch: pytest.MonkeyPatch) -> None:
    def earliest(self, since, until, zone):  # type: ignore[no-untyped-def]
        first = self.next(since, zone)
        return None if first > until else (first, 1)

    patch.setattr(cron.Schedule, "latest", earliest)
