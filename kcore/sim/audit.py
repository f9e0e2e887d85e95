"""A watcher that holds what it is shown against the log.

It follows every kind through the same feed as everybody else. Whenever it is told that all is
complete up to a revision, what it has been shown must be just what the log says: no event skipped,
none invented, none out of order, none split.
"""

from collections.abc import Sequence

from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.clock import Clock
from kcore.kernel.record import Key, Record, Verb
from kcore.sim import world
from kcore.wire.api import Api
from kcore.wire.errors import ApiError, Reason

_PROGRESS_MS = 50
_PAUSE_SECONDS = 0.1


class Audit:
    """One such watcher."""

    def __init__(self, kinds: Sequence[str]) -> None:
        """`kinds` by full name."""
        self.broken: list[str] = []
        self.events = 0
        self._kinds = list(kinds)
        # What the log says, further than the watch may have got.
        self._log: list[Record] = []
        self._true: dict[Key, bytes] = {}
        self._shown: dict[Key, bytes] = {}
        self._revision = 0
        self._resumable = False

    def observe(self, records: Sequence[Record]) -> None:
        """The log goes on."""
        self._log.extend(records)

    async def run(self, api: Api, clock: Clock) -> None:
        """Watches until cancelled; a watch that broke is resumed."""
        while True:
            try:
                await self._watch(api)
            except ApiError as error:
                if error.reason is Reason.GONE:
                    self._resumable = False
                elif error.reason is not Reason.UNAVAILABLE:
                    self.broken.append(f"watch of everything: {error}")
                    return
            await clock.sleep(_PAUSE_SECONDS)

    async def _watch(self, api: Api) -> None:
        request = pb.WatchRequest(progress_ms=_PROGRESS_MS)
        since = self._revision if self._resumable else 0
        for kind in self._kinds:
            request.selections.add(kind=kind, from_revision=since)
        if not since:
            self._shown = {}
        complete = bool(since)
        responses = api.watch(request)
        try:
            async for response in responses:
                self._take(response, complete)
                complete = complete or response.synced
                if complete:
                    self._resumable = True
                    self._compare(response.revision)
        finally:
            await responses.aclose()  # type: ignore[attr-defined]

    def _take(self, response: pb.WatchResponse, ordered: bool) -> None:
        last = self._revision if ordered else 0
        for event in response.events:
            self.events += 1
            meta = world.metadata(world.Bare.FromString(event.object))
            key = Key(self._kinds[event.selection], meta.namespace, meta.name)
            if ordered and event.revision < last:
                self.broken.append(f"{key}: event of {event.revision} after {last}")
            if ordered and event.revision <= self._revision:
                said = f"{key}: event of {event.revision}, but {self._revision} was complete"
                self.broken.append(said)
            if event.revision > response.revision:
                said = f"{key}: event of {event.revision}, complete only to {response.revision}"
                self.broken.append(said)
            last = max(last, event.revision)
            there = key in self._shown
            if event.type == pb.Event.DELETED:
                if not there:
                    self.broken.append(f"{key}: deleted, but it was never shown")
                self._shown.pop(key, None)
            else:
                if ordered and there is (event.type == pb.Event.ADDED):
                    said = f"{key}: {pb.Event.Type.Name(event.type)}, shown before: {there}"
                    self.broken.append(said)
                self._shown[key] = event.object

    def _compare(self, revision: int) -> None:
        """All that the log changed up to this revision is as it was shown."""
        touched: dict[Key, None] = {}
        done = 0
        for record in self._log:
            if record.revision > revision:
                break
            done += 1
            touched[record.key] = None
            if record.verb is Verb.DELETE:
                self._true.pop(record.key, None)
            else:
                self._true[record.key] = record.body
        del self._log[:done]
        self._revision = revision
        for key in touched:
            if key.kind in self._kinds and self._true.get(key) != self._shown.get(key):
                self.broken.append(f"{key}: not shown as it was at revision {revision}")
        if len(self._true) != len(self._shown):
            said = f"{len(self._shown)} objects shown, there were {len(self._true)}"
            self.broken.append(f"revision {revision}: {said}")
