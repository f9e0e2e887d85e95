"""Tasks whose failures are never lost.

A room's background work lives in one `Tasks`; a failed task fails the room (its `run` raises),
which the composition root restarts or dies of. `supervise` is for work that serves one caller and
whose failure is that caller's alone: it is reported, not raised.
"""

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any


class Tasks:
    """Background tasks of one room. Use as `async with Tasks() as tasks: tasks.start(…)`.

    Leaving the block waits for all; an exception in one cancels the others and is raised.
    """

    def __init__(self) -> None:
        """Empty."""
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> "Tasks":
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._group.__aexit__(kind, error, trace)

    def start(self, work: Coroutine[Any, Any, Any], name: str = "") -> asyncio.Task[Any]:
        """Runs `work`; its failure is the room's."""
        task = self._group.create_task(work, name=name or None)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def supervise(
        self,
        work: Coroutine[Any, Any, Any],
        on_error: Callable[[Exception], None],
        name: str = "",
    ) -> asyncio.Task[Any]:
        """Runs `work`; its failure goes to `on_error` and nobody else is disturbed."""

        async def guarded() -> None:
            try:
                await work
            except Exception as error:
                on_error(error)

        return self.start(guarded(), name)

    def cancel(self) -> None:
        """Cancels all that run."""
        for task in sorted(self._tasks, key=lambda t: t.get_name()):
            task.cancel()
