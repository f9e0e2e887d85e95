"""The scheduler does not count what pods take."""

import pytest

from kcore.scheduler import model

FOUND_BY = "has not enough cpu"
FOUND_IN = 17


def plant(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(model.Model, "_take", lambda self, slot, asked, sign: None)
