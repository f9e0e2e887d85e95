"""After a failed write the kernel goes on as if nothing had been written."""

import pytest

from kcore.kernel.kernel import Kernel

FOUND_BY = "revision"


def plant(patch: pytest.MonkeyPatch) -> None:
    async def believe(self: Kernel, cause: Exception) -> None:
        return

    patch.setattr(Kernel, "_recover", believe)
