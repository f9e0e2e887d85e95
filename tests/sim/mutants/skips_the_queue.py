"""A stateful set makes all its pods at once."""

import pytest

from kcore.controllers import statefulset

FOUND_BY = "is made before"
FOUND_IN = 7


def plant(patch: pytest.MonkeyPatch) -> None:
    arrange = statefulset._arrange

    def at_once(seen, plan):  # type: ignore[no-untyped-def]
        policy = seen.live.spec.pod_management_policy
        seen.live.spec.pod_management_policy = "Parallel"
        arrange(seen, plan)
        seen.live.spec.pod_management_policy = policy

    patch.setattr(statefulset, "_arrange", at_once)
