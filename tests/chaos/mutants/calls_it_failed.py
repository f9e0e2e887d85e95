"""A write whose sync failed is said to have failed, and the next goes on from there."""

from kcore.kernel.kernel import Kernel
from kcore.wire.errors import ApiError, Reason

FOUND_BY = "sync", "failed .*, but is there"


def plant() -> None:
    append = Kernel._append

    async def sure(self, changes, head, time):  # type: ignore[no-untyped-def]
        recover = self._recover

        async def believe(cause) -> None:  # type: ignore[no-untyped-def]
            return

        self._recover = believe
        failure = await append(self, changes, head, time)
        self._recover = recover
        if failure is not None:
            return ApiError(Reason.EXHAUSTED, f"the write failed: {failure.message}")
        return None

    Kernel._append = sure  # type: ignore[method-assign]
