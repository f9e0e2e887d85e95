"""After a restart the kernel does again what it is asked again."""

from kcore.kernel.kernel import Kernel

FOUND_BY = "P23", "more than once"


def plant() -> None:
    replay = Kernel._replay

    async def forgetful(self) -> None:  # type: ignore[no-untyped-def]
        await replay(self)
        self._remembered.clear()

    Kernel._replay = forgetful  # type: ignore[method-assign]
