"""The kernel does again what it is asked again."""

import pytest

from kcore.kernel.kernel import Kernel

FOUND_BY = "user: "


def plant(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Kernel, "_repeated", lambda self, one: None)
