"""What lies between a component and the apiserver: time, and what goes wrong on the way.

A `Link` is an Api. It asks whatever server is up at that moment, and answers UNAVAILABLE when there
is none. What was sent goes on without its sender: a commit whose sender has died may still land.
It must not know what the messages say.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol, TypeVar

from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.clock import Clock
from kcore.sim.faults import Weather
from kcore.tasks import Tasks
from kcore.wire.api import Api
from kcore.wire.errors import ApiError, Reason

Answer = TypeVar("Answer")

# After which a caller takes it that nobody answers.
_SILENCE_SECONDS = 2.0


class Server(Protocol):
    """The apiserver's side."""

    async def serve(self, who: str, do: Callable[[Api], Awaitable[Answer]]) -> Answer:
        """Does it in the name of this caller. UNAVAILABLE when down, or if it dies meanwhile."""
        ...

    def session(self, who: str) -> Api:
        """An Api for this caller, as long as this life lasts. UNAVAILABLE when down."""
        ...


class Link:
    """One component's way to the apiserver."""

    def __init__(
        self,
        server: Server,
        who: str,
        weather: Weather,
        clock: Clock,
        beyond: Tasks,
        die: Callable[[], None] | None = None,
    ) -> None:
        """`beyond`: where messages live that are on their way; `die` ends the component, if it
        may die."""
        self._server = server
        self._who = who
        self._weather = weather
        self._clock = clock
        self._beyond = beyond
        self._die = die
        self.is_cut = False

    def cut(self) -> None:
        """Its component is dead: nothing more is sent."""
        self.is_cut = True

    async def kinds(self, request: pb.KindsRequest) -> pb.KindsResponse:
        """The kinds that are served."""
        return await self._ask(lambda api: api.kinds(request))

    async def get(self, request: pb.GetRequest) -> pb.GetResponse:
        """One object."""
        return await self._ask(lambda api: api.get(request))

    async def list(self, request: pb.ListRequest) -> pb.ListResponse:
        """A page of objects."""
        return await self._ask(lambda api: api.list(request))

    async def commit(self, request: pb.CommitRequest) -> pb.CommitResponse:
        """Transactions."""
        sent = pb.CommitRequest()
        sent.CopyFrom(request)
        faults = self._weather.faults

        async def land(api: Api) -> pb.CommitResponse:
            answer = await api.commit(sent)
            if self._weather.strikes(faults.request_doubled, "request doubled", self._who):
                await self._clock.sleep(self._weather.latency())
                await api.commit(sent)
            return answer

        return await self._ask(land)

    async def watch(self, request: pb.WatchRequest) -> AsyncIterator[pb.WatchResponse]:
        """Objects, then their changes."""
        await self._clock.sleep(self._weather.latency())
        if self._apart():
            await self._clock.sleep(_SILENCE_SECONDS)
            raise _gone("nobody answers")
        responses = self._server.session(self._who).watch(request)
        try:
            async for response in responses:
                await self._clock.sleep(self._weather.latency())
                if self._weather.strikes(
                    self._weather.faults.watch_broken, "watch broken", self._who
                ):
                    raise _gone("the watch has broken")
                if self.is_cut:
                    raise _gone("the component is dead")
                if self._apart():
                    raise _gone("nothing is heard")
                yield response
        finally:
            await responses.aclose()  # type: ignore[attr-defined]

    async def _ask(self, do: Callable[[Api], Awaitable[Answer]]) -> Answer:
        """Sends a request on its way and waits for its answer."""
        weather, faults = self._weather, self._weather.faults
        if self.is_cut:
            raise _gone("the component is dead")
        if self._apart():
            await self._clock.sleep(_SILENCE_SECONDS)
            raise _gone("nobody answers")
        if weather.strikes(faults.request_lost, "request lost", self._who):
            await self._clock.sleep(weather.latency())
            raise _gone("the request was lost")

        async def travel() -> tuple[Answer | None, ApiError | None]:
            # What it answers is handed over as a value: nobody may be left to hear it.
            await self._clock.sleep(weather.latency())
            try:
                return await self._server.serve(self._who, do), None
            except ApiError as error:
                return None, error

        there = self._beyond.start(travel(), f"on the way from {self._who}")
        if self._die and weather.strikes(faults.dies_asking, "dies asking", self._who):
            self._die()
        answer: Answer | None
        answer, error = await asyncio.shield(there)
        await self._clock.sleep(weather.latency())
        if self._apart():
            raise _gone("the answer did not come through")
        if weather.strikes(faults.answer_lost, "answer lost", self._who):
            raise _gone("the answer was lost")
        if error is not None:
            raise error
        assert answer is not None
        return answer

    def _apart(self) -> bool:
        return self._weather.apart.get(self._who, 0.0) > self._clock.monotonic()


def _gone(why: str) -> ApiError:
    return ApiError(Reason.UNAVAILABLE, f"connection lost: {why}")
