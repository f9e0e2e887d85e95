"""The kubelet ends pods and does not say so."""

import pytest

from kcore.kubelet.reporter import Reporter

FOUND_BY = "not settled"


def plant(patch: pytest.MonkeyPatch) -> None:
    async def silent(self, pod, status) -> None:  # type: ignore[no-untyped-def]
        return

    patch.setattr(Reporter, "finish", silent)
