"""A watch that never ends: it is taken up again where it broke.

`Stream.run` reads the watch into a short queue; `next` and `come` give what is in it, as
`view.Batch`es. A broken watch is resumed after its last revision; where that part of the past is
gone (or the kinds have changed), the present state is sent again, marked `fresh`. The queue is
short on purpose: a reader that is behind makes the server merge what it has not sent.

A server that turns out to be another cluster, or the same one with a forgotten past, ends the
stream with an error: acting on it would delete what it has merely forgotten.
It must not know what is done with the changes.
"""

import asyncio
import logging
from collections.abc import Iterable, Iterator

from google.protobuf import descriptor_pb2
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.meta.v1 import options_pb2

from kcore.chance import Chance
from kcore.clock import Clock
from kcore.reconcile import view
from kcore.wire.api import Api
from kcore.wire.errors import ApiError, Reason

logger = logging.getLogger(__name__)

_PROGRESS_MS = 50
_QUEUE = 16
_FIRST_WAIT_SECONDS = 0.05
_LONGEST_WAIT_SECONDS = 5.0
# How old what is known of the served kinds may be while the log moves.
_KINDS_SECONDS = 30.0


class Stream:
    """Batches of changes of some kinds."""

    def __init__(
        self,
        api: Api,
        kinds: Iterable[str],
        clock: Clock,
        chance: Chance,
        *,
        every: bool = False,
    ) -> None:
        """`kinds` by full name; `every`: and all others that are served, now and later."""
        self.limits = pb.Limits()
        self._api = api
        self._declared = frozenset(kinds)
        self._every = every
        self._clock = clock
        self._chance = chance
        self._queue: asyncio.Queue[view.Batch] = asyncio.Queue(_QUEUE)
        # Those that are watched, by full name.
        self._kinds: dict[str, view.Kind] = {}
        self._digest = ""
        self._asked_at = 0.0
        self._cluster = ""
        self._epoch = 0
        # Where to resume; 0: nowhere. And the highest revision ever seen.
        self._revision = 0
        self._seen = 0

    async def run(self) -> None:
        """Reads for ever. Raises what asking again cannot cure."""
        wait = _FIRST_WAIT_SECONDS
        while True:
            seen = self._seen
            asked_seconds = 0.0
            try:
                await self._ask_kinds()
                await self._follow()
                continue
            except ApiError as error:
                if error.reason is Reason.GONE:
                    logger.info("watch: what followed %d is gone, starting anew", self._revision)
                    self._revision = 0
                elif error.reason in (Reason.UNAVAILABLE, Reason.EXHAUSTED):
                    logger.info("watch broke at revision %d: %s", self._revision, error)
                    asked_seconds = error.retry_seconds or 0.0
                else:
                    raise
            if self._seen > seen:
                wait = _FIRST_WAIT_SECONDS
            await self._clock.sleep(max(asked_seconds, wait * self._chance.uniform(0.5, 1.0)))
            wait = min(wait * 2, _LONGEST_WAIT_SECONDS)

    async def next(self) -> view.Batch:
        """The next batch; waits for it."""
        return await self._queue.get()

    def come(self) -> list[view.Batch]:
        """All batches that have come; waits for none."""
        found = []
        while not self._queue.empty():
            found.append(self._queue.get_nowait())
        return found

    async def _follow(self) -> None:
        """One watch, into the queue; returns when the kinds have changed."""
        served = self._kinds
        kinds = sorted(served)
        request = pb.WatchRequest(progress_ms=_PROGRESS_MS)
        for kind in kinds:
            request.selections.add(kind=kind, from_revision=self._revision)
        fresh = complete = self._revision == 0
        complete = not fresh
        responses = self._api.watch(request)
        try:
            async for response in responses:
                complete = complete or response.synced
                if complete:
                    if response.revision < self._seen:
                        raise ApiError(
                            Reason.REFUSED,
                            f"the server is at revision {response.revision}, "
                            f"seen before was {self._seen}: it has forgotten",
                        )
                    # A state that is not complete can't be resumed, so not before.
                    self._revision = self._seen = response.revision
                await self._queue.put(
                    view.Batch(
                        response.revision,
                        [(kinds[event.selection], event) for event in response.events],
                        fresh=fresh,
                        synced=response.synced,
                        kinds=tuple(served.values()) if fresh else (),
                    )
                )
                fresh = False
                if self._every and self._clock.monotonic() - self._asked_at > _KINDS_SECONDS:
                    await self._ask_kinds()
                    if self._kinds != served:
                        return
        finally:
            close = getattr(responses, "aclose", None)
            if close is not None:
                await close()

    async def _ask_kinds(self) -> None:
        """Learns the served kinds; raises where this is not the cluster that was seen before."""
        answer = await self._api.kinds(pb.KindsRequest(digest=self._digest))
        self._asked_at = self._clock.monotonic()
        self.limits = answer.limits
        if self._digest and (answer.cluster_id != self._cluster or answer.epoch < self._epoch):
            raise ApiError(
                Reason.REFUSED,
                f"the server is cluster {answer.cluster_id} epoch {answer.epoch}, "
                f"seen before was {self._cluster} epoch {self._epoch}",
            )
        if answer.epoch > self._epoch:
            # Restored on purpose: its past is another one now.
            self._revision = self._seen = 0
        self._cluster, self._epoch = answer.cluster_id, answer.epoch
        if answer.digest == self._digest:
            return
        self._digest = answer.digest
        found = {
            kind.full_name: kind
            for kind in _kinds(answer.descriptors)
            if self._every or kind.full_name in self._declared
        }
        missing = sorted(self._declared.difference(found))
        if missing:
            raise ApiError(Reason.NOT_FOUND, f"kinds that are not served: {', '.join(missing)}")
        if found != self._kinds:
            self._kinds = found
            self._revision = 0


def _kinds(files: descriptor_pb2.FileDescriptorSet) -> Iterator[view.Kind]:
    """The kinds among the messages."""
    for file in files.file:
        group: str = file.options.Extensions[options_pb2.group]  # type: ignore[index]
        version = file.package.rpartition(".")[2]
        for message in file.message_type:
            if message.options.HasExtension(options_pb2.kind):  # type: ignore[arg-type]
                said: options_pb2.Kind = message.options.Extensions[options_pb2.kind]  # type: ignore[index]
                yield view.Kind(
                    f"{file.package}.{message.name}",
                    f"{group}/{version}" if group else version,
                    message.name,
                    said.scope == options_pb2.SCOPE_NAMESPACED,
                )
