"""The scheduler at work: follows pods and nodes, plans, binds.

It drains what the watch has brought into the model, plans for all pods that are ready, commits the
decisions in batches of one transaction a pod, and waits for the watch: nothing is polled. A bound
pod counts in the model from the moment of its commit. A binding is guarded by the pod's uid and
revision, and spec.nodeName can't change once it is set, so nobody is bound twice; an answer that
was lost is asked for again with the same request id. A pod that fits nowhere is parked until
something changes that may help it.
It must not know where pods come from, nor what becomes of them.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import node_pb2, pod_pb2

from kcore.chance import Chance
from kcore.clock import Clock
from kcore.reconcile import owner, recorder, stream, transaction
from kcore.reconcile.view import Change, View
from kcore.scheduler import condition, demand, model, node, pending, plan
from kcore.scheduler.fit import Want
from kcore.scheduler.model import Key
from kcore.scheduler.pending import Waiting
from kcore.tasks import Tasks
from kcore.wire import errors
from kcore.wire.api import Api
from kcore.wire.errors import ApiError, Reason

logger = logging.getLogger(__name__)

NAME = "scheduler"
# Pods that name another scheduler are its business.
SCHEDULERS = ("", "default-scheduler")

# Pods in one plan, and transactions in one Commit: others want the processor too.
_PODS_AT_ONCE = 2048
_BINDINGS_AT_ONCE = 256
_FIRST_BACKOFF_SECONDS = 1.0
_LONGEST_BACKOFF_SECONDS = 60.0
_FIRST_ASK_AGAIN_SECONDS = 0.05
_LONGEST_ASK_AGAIN_SECONDS = 5.0
# The server remembers request ids for ten minutes; after that an answer can't be known any more.
_ANSWER_SECONDS = 540.0
_GATED = "Scheduling is blocked due to non-empty scheduling gates"


@dataclass(slots=True)
class _Wish:
    """One transaction for one pod, and what became of it."""

    waiting: Waiting
    transaction: pb.Transaction
    # "": a note of a refusal.
    node: str = ""
    message: str = ""
    # The revision of the pod that it was decided on.
    seen: str = ""
    revision: int = 0
    error: ApiError | None = None


class Scheduler:
    """One scheduler. `run` ends only by error or cancellation."""

    def __init__(self, api: Api, clock: Clock, chance: Chance) -> None:
        """Nothing is asked before `run`."""
        self.view = View([pod_pb2.Pod, node_pb2.Node])
        self.model = model.Model()
        self.pending = pending.Pending()
        self._api = api
        self._clock = clock
        self._chance = chance.fork("choices")
        self._stream = stream.Stream(api, self.view.kinds, clock, chance.fork("stream"))
        self._recorder = recorder.Recorder(api, "default-scheduler", clock, chance.fork("events"))
        self._process = chance.token(12)
        self._requests = 0

    async def run(self) -> None:
        """Schedules for ever."""
        async with Tasks() as tasks:
            tasks.start(self._stream.run(), "scheduler stream")
            tasks.start(self._recorder.run(), "scheduler events")
            await self._work(tasks)

    async def _work(self, tasks: Tasks) -> None:
        coming: asyncio.Task[None] | None = None
        while True:
            for batch in self._stream.come():
                self._apply(self.view.apply(batch))
            if self.view.synced and await self._turn():
                continue
            # Nothing to do: until the watch brings something, or a pod was put off long enough.
            if coming is None:
                coming = tasks.start(self._take(), "scheduler next")
            waiting: list[asyncio.Task[None]] = [coming]
            moment = self.pending.next_moment()
            if moment is not None:
                wait = max(0.0, moment - self._clock.monotonic())
                waiting.append(tasks.start(self._clock.sleep(wait), "scheduler timer"))
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for timer in waiting[1:]:
                timer.cancel()
            if coming.done():
                coming = None

    async def _take(self) -> None:
        self._apply(self.view.apply(await self._stream.next()))

    # Following.

    def _apply(self, changes: Sequence[Change]) -> None:
        relieved: set[Want] = set()
        revision = 0
        for change in changes:
            found = self._pod(change) if change.name.kind == _POD else self._node(change)
            if found:
                relieved |= found
                revision = max(revision, change.revision)
        if relieved:
            self.pending.wake(frozenset(relieved), revision)

    def _node(self, change: Change) -> frozenset[Want]:
        if change.new is None:
            self.model.drop_node(change.name.name)
            return frozenset()
        return self.model.set_node(node.of(change.new))

    def _pod(self, change: Change) -> frozenset[Want]:
        key = Key(change.name.namespace, change.name.name)
        pod: pod_pb2.Pod | None = change.new
        if pod is None or pod.status.phase in ("Succeeded", "Failed"):
            self.pending.drop(key)
            return self.model.remove(key)
        if pod.spec.node_name:
            self.pending.drop(key)
            return self.model.place(key, pod.spec.node_name, demand.of(pod))
        relieved = self.model.remove(key)
        ours = pod.spec.scheduler_name in SCHEDULERS
        if pod.metadata.HasField("deletion_timestamp") or not ours:
            self.pending.drop(key)
        else:
            self.pending.put(key, pod, demand.of(pod), change.revision)
        return relieved

    # Deciding.

    async def _turn(self) -> bool:
        """Plans once and commits what comes of it; False: there was nobody to plan for."""
        due = self.pending.due(self.view.revision, self._clock.monotonic(), _PODS_AT_ONCE)
        if not due:
            return False
        now = self._clock.now()
        wishes: list[_Wish] = []
        gated = [waiting for waiting in due if waiting.pod.spec.scheduling_gates]
        for waiting in gated:
            wishes += self._refuse(waiting, condition.GATED, _GATED, frozenset(), now)
        pods = [
            (waiting, waiting.demand) for waiting in due if not waiting.pod.spec.scheduling_gates
        ]
        for decision in plan.plan(self.model, pods, self._chance):
            if decision.refusal is None:
                wishes.append(self._bind(decision.pod, decision.node, now))
            else:
                message, wants = decision.refusal.message, decision.refusal.wants
                wishes += self._refuse(decision.pod, condition.UNSCHEDULABLE, message, wants, now)
        for start in range(0, len(wishes), _BINDINGS_AT_ONCE):
            some = wishes[start : start + _BINDINGS_AT_ONCE]
            await self._ask(some)
            for wish in some:
                self._learn(wish)
        return True

    def _bind(self, waiting: Waiting, chosen: str, now: float) -> _Wish:
        bound = pod_pb2.Pod()
        bound.spec.node_name = chosen
        told = pod_pb2.Pod()
        told.status.conditions.extend(condition.bound(waiting.pod, now))
        built = transaction.atomic(
            transaction.patch(
                waiting.pod, bound, ["spec.nodeName"], unchanged=True, subresource="binding"
            ),
            transaction.patch(waiting.pod, told, ["status.conditions"], subresource="status"),
        )
        return self._wish(waiting, built, node=chosen)

    def _refuse(
        self, waiting: Waiting, reason: str, message: str, wants: frozenset[Want], now: float
    ) -> list[_Wish]:
        self.pending.park(waiting, wants)
        conditions = condition.refused(waiting.pod, reason, message, now)
        if conditions is None:
            return []
        wanted = pod_pb2.Pod()
        wanted.status.conditions.extend(conditions)
        built = transaction.patch(
            waiting.pod, wanted, ["status.conditions"], unchanged=True, subresource="status"
        )
        said = message if reason == condition.UNSCHEDULABLE else ""
        return [self._wish(waiting, built, message=said)]

    def _wish(
        self, waiting: Waiting, built: pb.Transaction, *, node: str = "", message: str = ""
    ) -> _Wish:
        self._requests += 1
        built.request_id = f"{NAME}-{self._process}-{self._requests}"
        built.manager = NAME
        built.because = waiting.because
        return _Wish(waiting, built, node, message, waiting.pod.metadata.resource_version)

    # Committing.

    async def _ask(self, wishes: Sequence[_Wish]) -> None:
        """Commits them; asks again for each whose answer was lost."""
        wait = _FIRST_ASK_AGAIN_SECONDS
        give_up_at = self._clock.monotonic() + _ANSWER_SECONDS
        asking = list(wishes)
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
            lost = asking[0].error
            assert lost is not None
            logger.info("commit of %d has no answer yet: %s", len(asking), lost)
            pause = max(lost.retry_seconds or 0.0, wait * self._chance.uniform(0.5, 1.0))
            await self._clock.sleep(pause)
            wait = min(wait * 2, _LONGEST_ASK_AGAIN_SECONDS)

    def _learn(self, wish: _Wish) -> None:
        waiting = wish.waiting
        if wish.error is not None:
            self._failed(wish, wish.error)
        elif wish.node:
            if self.view.revision < wish.revision:
                # Else the watch was faster, and knows what has happened since.
                self.pending.drop(waiting.key)
                self.model.place(waiting.key, wish.node, waiting.demand)
            space, name = waiting.key
            said = f"Successfully assigned {space}/{name} to {wish.node}"
            self._tell(waiting, "Normal", "Scheduled", said)
        else:
            waiting.fence = wish.revision
            waiting.failures = 0
            if wish.message:
                self._tell(waiting, "Warning", "FailedScheduling", wish.message)

    def _failed(self, wish: _Wish, error: ApiError) -> None:
        waiting = wish.waiting
        if self.pending.get(waiting.key) is not waiting:
            # It is gone, or somebody else has bound it.
            return
        if error.reason in (Reason.CONFLICT, Reason.NOT_FOUND):
            # It has changed or gone: the watch has said so, or is about to.
            logger.debug("%s/%s: %s", *waiting.key, error)
            if waiting.pod.metadata.resource_version == wish.seen:
                self.pending.park(waiting)
            else:
                self.pending.ready(waiting)
            return
        logger.warning("%s/%s: %s", *waiting.key, error)
        backoff = _FIRST_BACKOFF_SECONDS * 2 ** min(waiting.failures, 10)
        waiting.failures += 1
        waiting.not_before = self._clock.monotonic() + min(backoff, _LONGEST_BACKOFF_SECONDS)
        self.pending.ready(waiting)
        if wish.node:
            self._tell(waiting, "Warning", "FailedScheduling", f"binding rejected: {error}")

    def _tell(self, waiting: Waiting, type_: str, reason: str, message: str) -> None:
        self._recorder.tell(owner.about(waiting.pod), type_, reason, message)


def _is_unknown(error: ApiError) -> bool:
    """Whether asking again with the same request id is what to do."""
    return error.reason is Reason.UNAVAILABLE or (
        error.reason is Reason.EXHAUSTED and error.retry_seconds is not None
    )


_POD = pod_pb2.Pod.DESCRIPTOR.full_name


async def run(api: Api, clock: Clock, chance: Chance) -> None:
    """Schedules until cancelled."""
    await Scheduler(api, clock, chance).run()
