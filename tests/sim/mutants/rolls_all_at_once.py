"""A rolling update takes all old pods down before there are new ones."""

import pytest

from kcore.controllers import rollout

FOUND_BY = "are needed"
FOUND_IN = 3


def plant(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rollout, "shrink", lambda limits, new, old: {one.name: 0 for one in old})
