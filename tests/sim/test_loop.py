"""Virtual time passes as fast as the program can say what happens in it."""

import asyncio

import pytest

from kcore.clock import LoopClock
from kcore.sim import loop


def test_hours_pass_at_once_and_in_order() -> None:
    clock = LoopClock()

    async def main() -> list[tuple[str, float]]:
        seen: list[tuple[str, float]] = []

        async def after(seconds: float, name: str) -> None:
            await clock.sleep(seconds)
            seen.append((name, round(clock.monotonic(), 6)))

        await asyncio.gather(after(7200, "late"), after(0.5, "soon"), after(3600, "later"))
        return seen

    assert loop.run(main()) == [("soon", 0.5), ("later", 3600.0), ("late", 7200.0)]


def test_a_wait_that_nothing_ends_is_an_error() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(loop.NothingWillHappen):
        loop.run(main())


def test_work_for_threads_is_done_on_the_spot() -> None:
    async def main() -> int:
        return await asyncio.to_thread(lambda: 40 + 2)

    assert loop.run(main()) == 42


def test_sets_of_tasks_are_cancelled_in_the_order_of_their_making() -> None:
    async def main() -> list[int]:
        ended: list[int] = []

        async def wait(number: int) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(number)

        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                for number in range(40):
                    group.create_task(wait(number))
                await asyncio.sleep(1)
                raise ValueError("enough")
        return ended

    first = loop.run(main())
    assert sorted(first) == list(range(40))
    assert loop.run(main()) == first


def test_a_moment_is_reached_by_sleeping_until_it() -> None:
    clock = LoopClock()

    async def main() -> None:
        moment = clock.monotonic() + 3e-14
        while (left := moment - clock.monotonic()) > 0:
            await clock.sleep(left)

    loop.run(main())


def test_tasks_that_never_wait_are_an_error() -> None:
    async def main() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(loop.TimeStandsStill):
        loop.run(main())
