"""An event loop on virtual time: when all tasks wait, time leaps to the next timer.

`run(main)` is `asyncio.run` on such a loop. What happens on it is decided by the program alone:
nothing is polled, threads are refused a turn of their own (work for them is done on the spot), and
tasks have hashes in the order of their creation, since the standard library keeps some in sets.
"""

import asyncio
import itertools
import selectors
import socket
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor
from typing import Any, TypeVar

T = TypeVar("T")

_ROUND_SECONDS = 1e-9
# Rounds of the loop without a moment's waiting.
_MOST_ROUNDS = 20_000


class NothingWillHappen(Exception):
    """All tasks wait for each other."""


class TimeStandsStill(Exception):
    """Tasks keep each other busy, and none of them waits."""


class _Leap(selectors.BaseSelector):
    """Instead of waiting for files, moves time. Knows no file but the loop's own pipe."""

    def __init__(self) -> None:
        self.time = 0.0
        self._still = 0
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise NothingWillHappen("every task waits, and no timer is set")
        if timeout > 0:
            self.time += timeout
            self._still = 0
        else:
            # What is but a rounding error away comes, as it does on a real clock.
            self.time += _ROUND_SECONDS
            self._still += 1
            if self._still > _MOST_ROUNDS:
                # Whoever cleans up after it has as much again.
                self._still = 0
                raise TimeStandsStill(f"{_MOST_ROUNDS} rounds at {self.time:.3f} s, none waited")
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = selectors.SelectorKey(fileobj, int(fileobj), events, data)
        self._keys[fileobj] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys[fileobj]

    def close(self) -> None:
        self._keys.clear()


class _Task(asyncio.Task[T]):
    """A task whose place in a set does not depend on where it lies in memory."""

    _ordinals = itertools.count()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._ordinal = next(_Task._ordinals)
        super().__init__(*args, **kwargs)

    def __hash__(self) -> int:
        return self._ordinal


class _Loop(asyncio.SelectorEventLoop):
    """The standard loop, with time and threads taken from it."""

    def __init__(self) -> None:
        self._leap = _Leap()
        super().__init__(self._leap)
        _Task._ordinals = itertools.count()
        self.set_task_factory(lambda loop, work, **kwargs: _Task(work, loop=loop, **kwargs))

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._leap.time

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Does the work at once, in no time."""
        done: asyncio.Future[Any] = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:
            done.set_exception(error)
        return done

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Nothing outside is there."""
        raise ConnectionRefusedError(f"a simulation has no outside: {address}")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Runs `main` to its end on a new loop of virtual time."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(main)
