"""Writes pods' statuses to the API, many in one commit.

`put` says how a pod is now; only the last word on each pod is kept, and what the API has already is
not said again. A word goes upon the version of the object that it was worked out from: whatever
others have written since comes by the watch, and then the word is said anew with it. `finish` says
the last word and lets the object go, in one commit, and returns when that is known to have
happened. A commit whose outcome is unknown is tried again with what is true by then.
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
LONGEST_WAIT_SECONDS = 10.0
# The pod is gone, another has its name, or somebody else has written to it: that is coming.
_OVER = (Reason.NOT_FOUND, Reason.CONFLICT)
# Nothing that asking again could cure.
_HOPELESS = (Reason.INVALID, Reason.UNIMPLEMENTED)


@dataclass(frozen=True, slots=True)
class _Word:
    pod: pod_pb2.Pod
    status: bytes


@dataclass(frozen=True, slots=True)
class _Said:
    status: bytes
    revision: int


class Reporter:
    """The statuses of one node's pods. `run` must be started."""

    def __init__(self, api: Api, clock: Clock, chance: Chance) -> None:
        """`api` is the node's own identity's."""
        self._api = api
        self._clock = clock
        self._chance = chance
        self._unsaid: dict[str, _Word] = {}
        self._said: dict[str, _Said] = {}
        self._something = asyncio.Event()

    def put(self, pod: pod_pb2.Pod, status: pod_pb2.PodStatus) -> None:
        """The pod's status is this now."""
        uid, body = pod.metadata.uid, status.SerializeToString(deterministic=True)
        said = self._said.get(uid)
        if said is not None and said.revision >= _revision(pod):
            known = said.status
        else:
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
        wait = AGAIN_SECONDS
        while steps:
            found = await self._commit(steps)
            left = []
            for step, (_, error) in zip(steps, found, strict=True):
                if error is None or error.reason in _OVER:
                    continue
                log.warning("end of %s: %s", pod.metadata.name, error)
                # A status that is refused must not keep the object.
                if error.reason not in _HOPELESS or not step.operations[0].subresource:
                    left.append(step)
            steps = left
            if steps:
                await self._clock.sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT_SECONDS)
        self.forget(uid)

    async def run(self) -> None:
        """Writes what is said, until cancelled."""
        wait = AGAIN_SECONDS
        while True:
            await self._something.wait()
            self._something.clear()
            words = [self._unsaid[uid] for uid in sorted(self._unsaid)]
            well = True
            for start in range(0, len(words), MOST_AT_ONCE):
                well = await self._write(words[start : start + MOST_AT_ONCE]) and well
            if well:
                wait = AGAIN_SECONDS
                continue
            await self._clock.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT_SECONDS)
            self._something.set()

    async def _write(self, words: list[_Word]) -> bool:
        # Some may have been said better, or have ended, while others were written.
        words = [word for word in words if self._unsaid.get(word.pod.metadata.uid) is word]
        if not words:
            return True
        well = True
        found = await self._commit([self._step(word) for word in words])
        for word, (revision, error) in zip(words, found, strict=True):
            uid = word.pod.metadata.uid
            if error is None:
                self._said[uid] = _Said(word.status, revision or self._base(word))
            elif error.reason in _OVER:
                self._said.pop(uid, None)
            else:
                log.warning("status of %s: %s", word.pod.metadata.name, error)
                if error.reason not in _HOPELESS:
                    well = False
                    continue
            if self._unsaid.get(uid) is word:
                del self._unsaid[uid]
        return well

    def _step(self, word: _Word) -> pb.Transaction:
        pod = word.pod
        step = transaction.status(pod, pod_pb2.PodStatus.FromString(word.status))
        if revision := self._base(word):
            step.guards.append(pb.Guard(ref=transaction.ref(pod), revision=revision))
        return step

    def _base(self, word: _Word) -> int:
        """The version of the object that the word goes upon; 0: none is known."""
        said = self._said.get(word.pod.metadata.uid)
        return max(_revision(word.pod), said.revision if said is not None else 0)

    async def _commit(self, steps: list[pb.Transaction]) -> list[tuple[int, ApiError | None]]:
        """Each one's revision or error; of a commit that failed as a whole, the same for all."""
        for step in steps:
            step.request_id = self._chance.uid()
        try:
            answer = await self._api.commit(pb.CommitRequest(transactions=steps))
        except ApiError as error:
            return [(0, error)] * len(steps)
        return [
            # What changed nothing is still at the revision where it was.
            (
                one.revision if any(each.changed for each in one.operations) else 0,
                _error(one) if one.HasField("error") else None,
            )
            for one in answer.results
        ]

    def forget(self, uid: str) -> None:
        """The pod is no longer this node's."""
        self._unsaid.pop(uid, None)
        self._said.pop(uid, None)


def _revision(pod: pod_pb2.Pod) -> int:
    return int(pod.metadata.resource_version or 0)


def _error(result: pb.TransactionResult) -> ApiError:
    return errors.from_status(status_pb2.Status.FromString(result.error.SerializeToString()))
