"""The loop: all controllers of a process over one view, one watch.

It drains what the watch has brought, turns it into keys, reconciles each key once, commits what all
of them want at once, and waits. What it promises to controllers:
- After a commit at revision r a key is not reconciled before the view has reached r, so nobody acts
  twice on one sight. An answer that was lost is asked for again with the same request id until it
  is known.
- A key whose commit or reconcile failed is tried again after 5 ms, 10 ms, … up to 1000 s, or when
  something that concerns it changes; after a failed creation it creates one object at a time, then
  two, four, …, until they succeed. Failures are in `view.last(key)`.
- Each transaction names as its cause the newest of the changes that queued its key.
- A key that raises holds up no other.
- `view.held_seconds` counts only time in which the view is known to have been complete.
A write of a kind that the controller did not declare is a fault of the program and ends the loop.
It must not know any kind.
"""

import asyncio
import heapq
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from google.protobuf.message import Message
from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.chance import Chance
from kcore.clock import Clock
from kcore.reconcile import attention, recorder, stream
from kcore.reconcile.controller import EVERY_KIND, Controller, Key, Keys, Result, Said
from kcore.reconcile.view import Batch, Change, Index, Trait, View
from kcore.tasks import Tasks
from kcore.wire import errors
from kcore.wire.api import Api
from kcore.wire.errors import ApiError, Reason

logger = logging.getLogger(__name__)

_FIRST_BACKOFF_SECONDS = 0.005
_LONGEST_BACKOFF_SECONDS = 1000.0
_FIRST_ASK_AGAIN_SECONDS = 0.05
_LONGEST_ASK_AGAIN_SECONDS = 5.0
# The server remembers request ids for ten minutes; after that an answer can't be known any more.
_ANSWER_SECONDS = 540.0
# Keys between two commits, and transactions in one: others want the processor too.
_KEYS_AT_ONCE = 256
_TRANSACTIONS_AT_ONCE = 512
# Room that a message's own frame takes of its limit.
_FRAME_BYTES = 64 << 10


@dataclass(slots=True)
class _Job:
    """What is known of one key of one controller."""

    controller: int
    key: Key
    # Newest revision among the changes that queued it; kept for retries.
    because: int = 0
    # The view must have reached this revision.
    fence: int = 0
    # Not before this moment of the monotonic clock.
    not_before: float = 0.0
    failures: int = 0
    # How many creations at once, after some failed; None: all.
    creations: int | None = None
    # When to look again, by the monotonic clock; None: not by itself.
    again: float | None = None


@dataclass(slots=True)
class _Wish:
    """One transaction of one key, and what became of it."""

    job: _Job
    transaction: pb.Transaction
    revision: int = 0
    error: ApiError | None = None
    events: list[Said] = field(default_factory=list)


class Loop:
    """Controllers at work. `run` ends only by error or cancellation."""

    def __init__(
        self, api: Api, controllers: Sequence[Controller], clock: Clock, chance: Chance
    ) -> None:
        """`controllers`: in this order their wishes are committed."""
        self._api = api
        self._controllers = tuple(controllers)
        self._clock = clock
        self._chance = chance
        self._traits = _traits(controllers)
        self.view = View(_classes(controllers), _indexes(controllers), self._traits)
        self._attention = attention.Attention(clock.monotonic())
        # Once the view has this revision, it was complete at this moment.
        self._proof: tuple[int, float] | None = None
        every = any(EVERY_KIND in controller.reads for controller in controllers)
        self._stream = stream.Stream(
            api, self.view.kinds, clock, chance.fork("stream"), every=every
        )
        self._readers = _readers(controllers)
        self._recorders = [
            recorder.Recorder(api, controller.name, clock, chance.fork(f"events/{controller.name}"))
            for controller in controllers
        ]
        self._jobs: dict[tuple[int, Key], _Job] = {}
        self._queue: dict[tuple[int, Key], _Job] = {}
        # (moment, controller, key); one that is not its job's `again` any more means nothing.
        self._timers: list[tuple[float, int, Key]] = []
        self._outcomes: list[dict[Key, tuple[ApiError, ...]]] = [{} for _ in controllers]
        self._process = chance.token(12)
        self._requests = 0

    async def run(self) -> None:
        """Reconciles for ever."""
        async with Tasks() as tasks:
            tasks.start(self._stream.run(), "reconcile stream")
            for each in self._recorders:
                tasks.start(each.run(), f"events of {each.component}")
            if self._traits:
                tasks.start(self._listen(), "reconcile attention")
            await self._work(tasks)

    async def _work(self, tasks: Tasks) -> None:
        coming: asyncio.Task[object] | None = None
        while True:
            self._drain()
            if self.view.synced:
                wishes = self._reconcile_due()
                if wishes:
                    await self._commit(wishes)
                    continue
                if any(self._is_due(job) for job in self._queue.values()):
                    await self._clock.sleep(0)
                    continue
            # Nothing to do: until the watch brings something, or it is time.
            if coming is None:
                coming = tasks.start(self._take(), "reconcile next")
            wait = self._seconds_to_wait() if self.view.synced else None
            waiting = [coming]
            if wait is not None:
                waiting.append(tasks.start(self._clock.sleep(wait), "reconcile timer"))
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for timer in waiting[1:]:
                timer.cancel()
            if coming.done():
                coming = None

    async def _take(self) -> None:
        self._apply(await self._stream.next())

    def _drain(self) -> None:
        for batch in self._stream.come():
            self._apply(batch)

    def _apply(self, batch: Batch) -> None:
        self.view.most_seconds = self._attention.most(self._clock.monotonic())
        for change in self.view.apply(batch):
            self._queue_readers(change)
        self._prove()

    async def _listen(self) -> None:
        """Asks again and again how far the log is: once the view is as far, nothing was missed."""
        kind = min(each.DESCRIPTOR.full_name for each in self._traits)
        request = pb.ListRequest(selection=pb.Selection(kind=kind), page_size=1)
        while True:
            asked_at = self._clock.monotonic()
            try:
                answer = await self._api.list(request)
            except ApiError as error:
                # Whoever hears nothing learns nothing: no time passes.
                logger.info("no proof that the view is complete: %s", error)
            else:
                revision = int(answer.metadata.resource_version or 0)
                # The oldest is proved first; a log that was restored is shorter.
                if self._proof is None or revision < self._proof[0]:
                    self._proof = (revision, asked_at)
                self._prove()
            await self._clock.sleep(attention.ASK_SECONDS)

    def _prove(self) -> None:
        if self._proof is None or not self.view.synced or self.view.revision < self._proof[0]:
            return
        self._attention.proved(self._proof[1])
        self.view.seconds = self._attention.seconds
        self._proof = None

    def _queue_readers(self, change: Change) -> None:
        readers = self._readers.get(change.name.kind, ()) or self._readers.get(EVERY_KIND, ())
        for index, keys in readers:
            try:
                found = list(keys(self.view, change.old, change.new))
            except Exception:
                # One odd object must not stop the others; it is told, and it changes again.
                name = self._controllers[index].name
                logger.exception("%s: whom does %s concern?", name, change.name)
                continue
            for key in found:
                job = self._job(index, key)
                job.because = max(job.because, change.revision)
                # What it failed on may be different now.
                job.not_before = 0.0
                self._queue[index, key] = job

    def _job(self, index: int, key: Key) -> _Job:
        job = self._jobs.get((index, key))
        if job is None:
            job = self._jobs[index, key] = _Job(index, key)
        return job

    def _is_due(self, job: _Job) -> bool:
        return job.fence <= self.view.revision and job.not_before <= self._clock.monotonic()

    def _seconds_to_wait(self) -> float | None:
        """Until the next moment at which a key may be due; None: no such moment."""
        moments = [
            job.not_before
            for job in self._queue.values()
            # Others wait for the view, however late it is.
            if job.not_before and job.fence <= self.view.revision
        ]
        if self._timers:
            moments.append(self._timers[0][0])
        return max(0.0, min(moments) - self._clock.monotonic()) if moments else None

    def _reconcile_due(self) -> list[_Wish]:
        now = self._clock.monotonic()
        while self._timers and self._timers[0][0] <= now:
            moment, index, key = heapq.heappop(self._timers)
            waiting = self._jobs.get((index, key))
            if waiting is not None and waiting.again == moment:
                self._queue[index, key] = waiting
        due = [where for where, job in self._queue.items() if self._is_due(job)][:_KEYS_AT_ONCE]
        wishes: list[_Wish] = []
        for where in sorted(due):
            wishes += self._reconcile(self._queue.pop(where))
        return wishes

    def _reconcile(self, job: _Job) -> list[_Wish]:
        controller = self._controllers[job.controller]
        self.view.outcomes = self._outcomes[job.controller]
        job.not_before = 0.0
        job.again = None
        now = self._clock.now()
        try:
            result = controller.reconcile(self.view, job.key, now)
        except Exception as error:
            logger.exception("%s: %s", controller.name, "/".join(job.key))
            said = f"{controller.name} failed on {'/'.join(job.key)}: {error!r}"
            self._failed(job, (ApiError(Reason.REFUSED, said),))
            return []
        if result.again_at is not None:
            self._look_again(job, result.again_at - now)
        wishes = self._wishes(job, controller, result)
        if not wishes:
            self._succeeded(job)
            if job.again is None and job.creations is None:
                # All is as wanted: nothing to remember until something changes.
                self._jobs.pop((job.controller, job.key), None)
        return wishes

    def _wishes(self, job: _Job, controller: Controller, result: Result) -> list[_Wish]:
        wishes: list[_Wish] = []
        by_transaction: dict[int, _Wish] = {}
        creations = 0
        for wanted in result.transactions:
            for operation in wanted.operations:
                assert controller.may_write(operation), (
                    f"{controller.name} wrote {operation.ref.kind} {operation.subresource}, "
                    "which it does not declare"
                )
            if job.creations is not None and wanted.operations[0].HasField("create"):
                creations += 1
                if creations > job.creations:
                    # They come when these have succeeded.
                    self._queue[job.controller, job.key] = job
                    continue
            self._requests += 1
            wanted.request_id = f"{controller.name}-{self._process}-{self._requests}"
            wanted.manager = controller.name
            wanted.because = wanted.because or job.because
            wish = _Wish(job, wanted)
            wishes.append(wish)
            by_transaction[id(wanted)] = wish
        for said in result.events:
            if said.of is None:
                self._recorders[job.controller].say(said)
            elif id(said.of) in by_transaction:
                by_transaction[id(said.of)].events.append(said)
        return wishes

    def _look_again(self, job: _Job, seconds: float) -> None:
        job.again = self._clock.monotonic() + max(0.0, seconds)
        heapq.heappush(self._timers, (job.again, job.controller, job.key))

    # Committing.

    async def _commit(self, wishes: list[_Wish]) -> None:
        for slice_ in self._slices(wishes):
            await self._ask(slice_)
        by_job: dict[int, list[_Wish]] = {}
        for wish in wishes:
            by_job.setdefault(id(wish.job), []).append(wish)
        for together in by_job.values():
            self._learn(together)

    def _slices(self, wishes: list[_Wish]) -> Iterable[list[_Wish]]:
        """As few requests as the limits allow, in order."""
        most_bytes = (self._stream.limits.message_bytes or 4 << 20) - _FRAME_BYTES
        slice_: list[_Wish] = []
        size = 0
        for wish in wishes:
            bytes_ = wish.transaction.ByteSize() + 8
            if slice_ and (size + bytes_ > most_bytes or len(slice_) >= _TRANSACTIONS_AT_ONCE):
                yield slice_
                slice_, size = [], 0
            slice_.append(wish)
            size += bytes_
        if slice_:
            yield slice_

    async def _ask(self, wishes: list[_Wish]) -> None:
        """Commits them; asks again for each whose answer was lost."""
        wait = _FIRST_ASK_AGAIN_SECONDS
        give_up_at = self._clock.monotonic() + _ANSWER_SECONDS
        asking = wishes
        while True:
            request = pb.CommitRequest(transactions=[wish.transaction for wish in asking])
            try:
                answer = await self._api.commit(request)
            except ApiError as error:
                for wish in asking:
                    wish.error = error
            else:
                for wish, result in zip(asking, answer.results, strict=True):
                    wish.revision = result.revision
                    failed = result.HasField("error")
                    wish.error = errors.from_status(result.error) if failed else None
            asking = [wish for wish in asking if wish.error and _is_unknown(wish.error)]
            if not asking or self._clock.monotonic() > give_up_at:
                return
            unknown = asking[0].error
            assert unknown is not None
            logger.info("commit of %d has no answer yet: %s", len(asking), unknown)
            pause = max(unknown.retry_seconds or 0.0, wait * self._chance.uniform(0.5, 1.0))
            await self._clock.sleep(pause)
            wait = min(wait * 2, _LONGEST_ASK_AGAIN_SECONDS)

    def _learn(self, wishes: list[_Wish]) -> None:
        """What became of all that one key wanted."""
        job = wishes[0].job
        job.fence = max(job.fence, *(wish.revision for wish in wishes))
        failures = tuple(wish.error for wish in wishes if wish.error is not None)
        for wish in wishes:
            for said in wish.events:
                if said.failed is (wish.error is not None):
                    self._recorders[job.controller].say(said, wish.error)
        creations = [wish for wish in wishes if wish.transaction.operations[0].HasField("create")]
        if any(wish.error is not None for wish in creations):
            job.creations = 1
        elif job.creations is not None and creations:
            job.creations = job.creations * 2 if len(creations) >= job.creations else None
        if failures:
            self._failed(job, failures)
        else:
            self._succeeded(job)

    def _failed(self, job: _Job, failures: tuple[ApiError, ...]) -> None:
        self._outcomes[job.controller][job.key] = failures
        backoff = _FIRST_BACKOFF_SECONDS * 2 ** min(job.failures, 30)
        job.failures += 1
        job.not_before = self._clock.monotonic() + min(backoff, _LONGEST_BACKOFF_SECONDS)
        self._queue[job.controller, job.key] = job
        name = self._controllers[job.controller].name
        for error in failures:
            level = logging.DEBUG if error.reason is Reason.CONFLICT else logging.WARNING
            logger.log(level, "%s: %s: %s", name, "/".join(job.key), error)

    def _succeeded(self, job: _Job) -> None:
        job.failures = 0
        self._outcomes[job.controller].pop(job.key, None)


def _is_unknown(error: ApiError) -> bool:
    """Whether asking again with the same request id is what to do."""
    return error.reason is Reason.UNAVAILABLE or (
        error.reason is Reason.EXHAUSTED and error.retry_seconds is not None
    )


def _classes(controllers: Iterable[Controller]) -> list[type[Message]]:
    found = {
        kind.DESCRIPTOR.full_name: kind
        for controller in controllers
        for kind in controller.reads
        if not isinstance(kind, str)
    }
    return [found[name] for name in sorted(found)]


def _indexes(controllers: Iterable[Controller]) -> dict[type[Message], dict[str, Index]]:
    found: dict[type[Message], dict[str, Index]] = {}
    for controller in controllers:
        for kind, indexes in controller.indexes.items():
            for name, index in indexes.items():
                known = found.setdefault(kind, {}).setdefault(name, index)
                assert known is index, f"index {name} is declared twice, differently"
    return found


def _traits(controllers: Iterable[Controller]) -> dict[type[Message], dict[str, Trait]]:
    found: dict[type[Message], dict[str, Trait]] = {}
    for controller in controllers:
        for kind, traits in controller.traits.items():
            for name, trait in traits.items():
                known = found.setdefault(kind, {}).setdefault(name, trait)
                assert known is trait, f"trait {name} is declared twice, differently"
    return found


def _readers(controllers: Sequence[Controller]) -> dict[str, list[tuple[int, Keys]]]:
    """For each kind by full name, and for EVERY_KIND, who is concerned; the latter in all."""
    every = [
        (index, controller.reads[EVERY_KIND])
        for index, controller in enumerate(controllers)
        if EVERY_KIND in controller.reads
    ]
    found: dict[str, list[tuple[int, Keys]]] = {EVERY_KIND: every}
    for index, controller in enumerate(controllers):
        for kind, keys in controller.reads.items():
            if not isinstance(kind, str):
                full_name = kind.DESCRIPTOR.full_name
                found.setdefault(full_name, list(every)).append((index, keys))
    return found


async def run(api: Api, controllers: Sequence[Controller], clock: Clock, chance: Chance) -> None:
    """Runs the controllers until cancelled."""
    await Loop(api, controllers, clock, chance).run()
