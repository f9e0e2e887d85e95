"""Writes pods' statuses to the API, many in one commit.

`put` says how a pod is now; only the last word on each pod is kept, and what the API has already is
not said again. `finish` says the last word and lets the object go, in one commit, and returns when
that is known to have happened. A commit that fails is tried again with what is true by then.
"""

import asyncio
import logging
from dataclasses import dataclass

from google.rpc import status_pb2
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import pod_pb2

from kcore.chance import Chance
from kcore.clock import Clock
from kcore.reconcile import transaction
from kcore.wire import errors
from kcore.wire.api import Api
from kcore.wire.errors import ApiError, Reason

log = logging.getLogger(__name__)

MOST_AT_ONCE = 128
AGAIN_SECONDS = 0.5
# The pod is gone, or another has its name: there is nobody to tell about.
_OVER = (Reason.NOT_FOUND, Reason.CONFLICT)


@dataclass(frozen=True, slots=True)
class _Word:
    pod: pod_pb2.Pod
    status: bytes


class Reporter:
    """The statuses of one node's pods. `run` must be started."""

    def __init__(self, api: Api, clock: Clock, chance: Chance) -> None:
        """`api` is the node's own identity's."""
        self._api = api
        self._clock = clock
        self._chance = chance
        self._unsaid: dict[str, _Word] = {}
        self._said: dict[str, bytes] = {}
        self._something = asyncio.Event()

    def put(self, pod: pod_pb2.Pod, status: pod_pb2.PodStatus) -> None:
        """The pod's status is this now."""
        uid, body = pod.metadata.uid, status.SerializeToString(deterministic=True)
        known = self._said.get(uid)
        if known is None:
            known = pod.status.SerializeToString(deterministic=True)
        if body == known:
            self._unsaid.pop(uid, None)
            return
        self._unsaid[uid] = _Word(pod, body)
        self._something.set()

    async def finish(self, pod: pod_pb2.Pod, status: pod_pb2.PodStatus) -> None:
        """The pod has ended: its last status, and nothing holds its object any more."""
        uid = pod.metadata.uid
        self._unsaid.pop(uid, None)
        steps = [transaction.status(pod, status), transaction.delete(pod, grace_seconds=0)]
        while steps:
            for step in steps:
                step.request_id = self._chance.uid()
            found = await self._commit(steps)
            steps = [
                step
                for step, error in zip(steps, found, strict=True)
                if error is not None and error.reason not in _OVER
            ]
            if steps:
                await self._clock.sleep(AGAIN_SECONDS)
        self._said.pop(uid, None)

    async def run(self) -> None:
        """Writes what is said, until cancelled."""
        while True:
            await self._something.wait()
            self._something.clear()
            while self._unsaid:
                words = [self._unsaid[uid] for uid in sorted(self._unsaid)[:MOST_AT_ONCE]]
                if not await self._write(words):
                    await self._clock.sleep(AGAIN_SECONDS)

    async def _write(self, words: list[_Word]) -> bool:
        steps = []
        for word in words:
            step = transaction.status(word.pod, pod_pb2.PodStatus.FromString(word.status))
            step.request_id = self._chance.uid()
            steps.append(step)
        well = True
        for word, error in zip(words, await self._commit(steps), strict=True):
            uid = word.pod.metadata.uid
            if error is not None and error.reason not in _OVER:
                log.warning("status of %s: %s", word.pod.metadata.name, error)
                well = False
                if error.reason is not Reason.INVALID:
                    continue
            if error is None:
                self._said[uid] = word.status
            if self._unsaid.get(uid) is word:
                del self._unsaid[uid]
        return well

    async def _commit(self, steps: list[pb.Transaction]) -> list[ApiError | None]:
        """Each one's error; of a commit that failed as a whole, the same for all."""
        try:
            answer = await self._api.commit(pb.CommitRequest(transactions=steps))
        except ApiError as error:
            return [error] * len(steps)
        return [
            errors.from_status(status_pb2.Status.FromString(one.error.SerializeToString()))
            if one.HasField("error")
            else None
            for one in answer.results
        ]

    def forget(self, uid: str) -> None:
        """The pod is no longer this node's."""
        self._unsaid.pop(uid, None)
        self._said.pop(uid, None)
