"""Two transactions of one batch are told the same revision."""

from kcore.kernel.kernel import _Waiting

FOUND_BY = "P7", "was acknowledged at"


def plant() -> None:
    settle, last = _Waiting.settle, [None]

    def lazy(self, answer):  # type: ignore[no-untyped-def]
        before, last[0] = last[0], answer
        close = hasattr(answer, "revision") and hasattr(before, "revision")
        if close and answer.revision == before.revision + 1:  # type: ignore[union-attr]
            answer = type(answer)(before.revision, answer.results)  # type: ignore[union-attr]
        settle(self, answer)

    _Waiting.settle = lazy  # type: ignore[method-assign]
