"""An eviction asks the budget and takes nothing from it."""

import pytest

from kcore import admission
from kcore.admission import eviction

FOUND_BY = "are left of"
FOUND_IN = 5


def plant(patch: pytest.MonkeyPatch) -> None:
    def free(obj, others, time):  # type: ignore[no-untyped-def]
        eviction.admit(obj, others, time)
        return []

    patch.setattr(admission, "ON_DELETE", {"kcore.core.v1.Pod/eviction": free})
