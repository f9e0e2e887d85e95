"""The kubelet lets pods go and leaves what ran."""

import pytest

from kcore.kubelet.pods import Pods
from kcore.sim.runtime import Runtime

FOUND_BY = "is left on"


def plant(patch: pytest.MonkeyPatch) -> None:
    async def keep(self, sandbox_id: str) -> None:  # type: ignore[no-untyped-def]
        return

    patch.setattr(Runtime, "remove_pod_sandbox", keep)
    patch.setattr(Pods, "_end_strays", lambda self, wanted: None)
