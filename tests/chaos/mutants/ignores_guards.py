"""Guards are not looked at."""

from kcore.kernel.commit import _Attempt

FOUND_BY = "P7", "increments made"


def plant() -> None:
    _Attempt.guard = lambda self, guard: None  # type: ignore[method-assign]
