"""The recorder: events for people, written when there is time.

`Recorder.say` never waits and never fails; `run` writes what was said, in transactions of its own.
What is said again about the same object, with the same reason and message, is one Event whose count
and last time grow; its name is `<object>.<letters>`, derived from what it says, so a recorder that
was restarted finds it again. When too much is unsaid, new things are dropped and counted in
`dropped`: events are a courtesy, the objects' status is the truth.
It must not know what an event means.
"""

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass

from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import event_pb2, reference_pb2
from kcore_api.kcore.meta.v1 import meta_pb2

from kcore.chance import Chance
from kcore.clock import Clock
from kcore.reconcile import name, owner, transaction
from kcore.reconcile.controller import Said
from kcore.wire import errors
from kcore.wire.api import Api
from kcore.wire.errors import ApiError, Reason

logger = logging.getLogger(__name__)

# Different things unsaid at once; events known to exist; events in one commit.
_MOST_UNSAID = 1024
_MOST_KNOWN = 4096
_AT_ONCE = 128
_MESSAGE_CHARACTERS = 1024
# An Event lasts an hour after its last write; then it is made anew.
_EVENT_SECONDS = 3600.0
# Between two writes, so that repetitions meet.
_PAUSE_SECONDS = 0.2
# Where events of objects without a namespace are kept.
_CLUSTER_NAMESPACE = "default"
_PREFIX_LENGTH = 240


@dataclass(slots=True)
class _Entry:
    """One event, said `count` times since it was written last."""

    regarding: reference_pb2.ObjectReference
    type: str
    reason: str
    message: str
    namespace: str
    name: str
    count: int
    first: float
    last: float


@dataclass(slots=True)
class _Known:
    """An Event that is there: how often it was said, and when it was written last."""

    count: int
    written: float


class Recorder:
    """Says what happened, for one component."""

    def __init__(
        self, api: Api, component: str, clock: Clock, chance: Chance, host: str = ""
    ) -> None:
        """`component`: "deployment-controller"; `host`: the node it speaks from, if any."""
        self.component = component
        self.dropped = 0
        self._api = api
        self._host = host
        self._clock = clock
        self._process = chance.token(12)
        self._requests = 0
        self._unsaid: OrderedDict[str, _Entry] = OrderedDict()
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._something = asyncio.Event()

    def say(self, said: Said, error: ApiError | None = None) -> None:
        """Something happened. With `error`, its words follow the message."""
        message = said.message + (str(error) if error is not None else "")
        self.tell(owner.about(said.regarding), said.type, said.reason, message)

    def tell(
        self, regarding: reference_pb2.ObjectReference, type_: str, reason: str, message: str
    ) -> None:
        """The same, about an object that is known only by reference."""
        now = self._clock.now()
        message = message[:_MESSAGE_CHARACTERS]
        letters = name.letters(regarding.uid, type_, reason, message, self.component, length=16)
        named = f"{regarding.name[:_PREFIX_LENGTH]}.{letters}"
        entry = self._unsaid.get(named)
        if entry is not None:
            entry.count += 1
            entry.last = now
            return
        if len(self._unsaid) >= _MOST_UNSAID:
            self.dropped += 1
            return
        space = regarding.namespace or _CLUSTER_NAMESPACE
        self._unsaid[named] = _Entry(regarding, type_, reason, message, space, named, 1, now, now)
        self._something.set()

    async def run(self) -> None:
        """Writes what is said, until cancelled."""
        while True:
            await self._something.wait()
            await self._write()
            await self._clock.sleep(_PAUSE_SECONDS)
            if not self._unsaid:
                self._something.clear()

    async def _write(self) -> None:
        entries = [self._unsaid.popitem(last=False)[1] for _ in range(len(self._unsaid))]
        for start in range(0, len(entries), _AT_ONCE):
            some = entries[start : start + _AT_ONCE]
            failures = await self._commit(some)
            again = []
            for entry, error in zip(some, failures, strict=True):
                if error is None:
                    continue
                known = self._known.pop(entry.name, None)
                if error.reason in (Reason.ALREADY_EXISTS, Reason.CONFLICT):
                    # Somebody else says the same, or did before a restart.
                    await self._meet(entry)
                    again.append(entry)
                elif error.reason is Reason.NOT_FOUND and known is not None:
                    again.append(entry)
                else:
                    self._drop(entry, error)
            if again:
                failures = await self._commit(again)
                for entry, error in zip(again, failures, strict=True):
                    if error is not None:
                        self._drop(entry, error)

    def _drop(self, entry: _Entry, error: ApiError) -> None:
        self.dropped += 1
        # A namespace on its way out takes no events: nothing to tell anybody about.
        logger.info("event %s/%s not written: %s", entry.namespace, entry.name, error)

    async def _commit(self, entries: list[_Entry]) -> list[ApiError | None]:
        transactions = []
        for entry in entries:
            built = self._transaction(entry)
            self._requests += 1
            built.request_id = f"{self.component}-event-{self._process}-{self._requests}"
            built.manager = self.component
            transactions.append(built)
        try:
            answer = await self._api.commit(pb.CommitRequest(transactions=transactions))
        except ApiError as error:
            return [error] * len(entries)
        failures: list[ApiError | None] = []
        for entry, result in zip(entries, answer.results, strict=True):
            if result.HasField("error"):
                failures.append(errors.from_status(result.error))
                continue
            failures.append(None)
            known = self._known.pop(entry.name, _Known(0, 0.0))
            self._known[entry.name] = _Known(known.count + entry.count, self._clock.monotonic())
            if len(self._known) > _MOST_KNOWN:
                self._known.popitem(last=False)
        return failures

    async def _meet(self, entry: _Entry) -> None:
        """Learns how often an Event of that name was said before."""
        ref = pb.Ref(kind=_KIND, namespace=entry.namespace, name=entry.name)
        try:
            answer = await self._api.get(pb.GetRequest(ref=ref))
        except ApiError as error:
            logger.info("event %s/%s not read: %s", entry.namespace, entry.name, error)
            return
        found = event_pb2.Event.FromString(answer.object)
        self._known[entry.name] = _Known(found.count, self._clock.monotonic())

    def _transaction(self, entry: _Entry) -> pb.Transaction:
        known = self._known.get(entry.name)
        if known is not None and self._clock.monotonic() - known.written > _EVENT_SECONDS:
            del self._known[entry.name]
            known = None
        if known is None:
            return transaction.create(self._event(entry, entry.count))
        event = self._event(entry, known.count + entry.count)
        ref = pb.Ref(kind=_KIND, namespace=entry.namespace, name=entry.name)
        merge = pb.Merge(object=event.SerializeToString(deterministic=True))
        merge.mask.paths.extend(("count", "lastTimestamp"))
        operation = pb.Operation(ref=ref, patch=pb.Patch(merge=merge))
        return pb.Transaction(
            guards=[transaction.field_is(ref, "count", known.count)], operations=[operation]
        )

    def _event(self, entry: _Entry, count: int) -> event_pb2.Event:
        return event_pb2.Event(
            metadata=meta_pb2.ObjectMeta(namespace=entry.namespace, name=entry.name),
            involved_object=entry.regarding,
            reason=entry.reason,
            message=entry.message,
            source=event_pb2.EventSource(component=self.component, host=self._host or None),
            first_timestamp=meta_pb2.Time(seconds=int(entry.first)),
            last_timestamp=meta_pb2.Time(seconds=int(entry.last)),
            count=count,
            type=entry.type,
            reporting_component=self.component,
            reporting_instance=self._host or None,
        )


_KIND = event_pb2.Event.DESCRIPTOR.full_name
