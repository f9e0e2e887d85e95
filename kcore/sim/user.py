"""Somebody at a shell: writes as a person does, again until it is answered.

It must not know what it is asked to write, nor why.
"""

from collections.abc import Sequence

from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.chance import Chance
from kcore.clock import Clock
from kcore.wire import errors
from kcore.wire.api import Api
from kcore.wire.errors import ApiError, Reason

_AGAIN_SECONDS = 1.0


class User:
    """One such person."""

    def __init__(self, api: Api, clock: Clock, chance: Chance) -> None:
        """`api`: with all its faults."""
        self._api = api
        self._clock = clock
        self._process = chance.token(12)
        self._requests = 0

    async def do(self, wanted: pb.Transaction) -> ApiError | None:
        """Commits until it is answered; the error, if that is the answer."""
        (answer,) = await self.do_all([wanted])
        return answer

    async def do_all(self, wanted: Sequence[pb.Transaction]) -> list[ApiError | None]:
        """The same for several at once, each on its own."""
        for one in wanted:
            self._requests += 1
            one.request_id = f"user-{self._process}-{self._requests}"
            one.manager = "kcore"
        while True:
            try:
                answer = await self._api.commit(pb.CommitRequest(transactions=wanted))
                answers = [
                    errors.from_status(result.error) if result.HasField("error") else None
                    for result in answer.results
                ]
            except ApiError as error:
                answers = [error] * len(wanted)
            if not any(one is not None and one.reason is Reason.UNAVAILABLE for one in answers):
                return answers
            await self._clock.sleep(_AGAIN_SECONDS)
