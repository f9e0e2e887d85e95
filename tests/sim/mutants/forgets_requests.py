"""The kernel does again what it is asked again."""

import pytest

from kcore.kernel.kernel import Kernel

FOUND_BY = "user: "


def plant(patch: pytest.MonkeyPatch) -> None:
    async def forget(self, one):  # type: ignore[no-untyped-def]
        return None

    patch.setattr(Kernel, "_repeated", forget)
