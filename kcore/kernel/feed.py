"""The feed: what was committed, told to those who watch.

The committer calls `publish` once for each durable batch; a reader iterates `watch`, which gives
WatchResponses as bytes, ready to be sent. `run` sends the progress marks.

What a reader may rely on:
- Events come in the order of revisions; those of one revision come in one message.
- A message's `revision` is a mark: everything up to it has been sent. It never overtakes an event,
  so a reader that comes back with it as `from_revision` misses nothing.
- Entering a selection is ADDED, leaving it DELETED with the last state that was in it.
- `synced` comes once, when the present has been told; then come changes.
- A reader that keeps up gets every change. For one that does not, pending events of one object
  merge into its last state, at the revision of that state; its deletion and its re-creation never
  merge, and what came and went unseen is not told. So what is pending is bounded by the number of
  objects, never by time.
- After the head has moved, a message follows within `progress_ms`, even if it is empty.

Waking is batched: publishing costs what it takes to append an event to each reader whose selection
it concerns; no task is made, nobody else is asked. Where one change concerns a crowd, it is told at
once, and what changes while the crowd is being told is told to all of them together.

Knows no kind, no transport, no permission: who may see what is a function that is passed in.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.clock import Clock
from kcore.kernel import frame, interest, mask
from kcore.kernel.record import Change, Key, Record, Stored, Verb
from kcore.kernel.source import Source
from kcore.tasks import Tasks
from kcore.wire import selector
from kcore.wire.errors import ApiError, Reason, Violation

# (kind, namespace, name) -> whether the reader may see it; asked of selections of any kind, of each
# event, and of all others by `recheck`.
Allowed = Callable[[str, str, str], bool]

# Marks are sent in these rhythms; a reader gets the slowest that keeps its promise.
PROGRESS_MS = (10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 600_000)
DEFAULT_PROGRESS_MS = 10_000

# To send a message takes half of this, whatever is in it. So many readers are a crowd: telling it
# takes half of the server's time at most, and none of it waits longer than this; nor for more than
# so many changes, which would make messages large, not cheap.
_MESSAGE_SECONDS = 200e-6
_CROWD = 64
_TOGETHER = 16
_REST_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Limits:
    """What the feed keeps and sends at a time."""

    # A message has at most so many bytes, or one revision: that is never split.
    message_bytes: int = 1 << 20
    # What is pending beyond either is merged; then, beyond twice what merging left.
    pending_events: int = 512
    pending_bytes: int = 512 << 10
    # Changes kept in memory, for readers that come back soon.
    recent_changes: int = 4096
    recent_bytes: int = 8 << 20
    # Records of the log read between two looks at the rest of the world.
    replay_records: int = 512
    replay_bytes: int = 4 << 20


@dataclass(slots=True)
class Entry:
    """One event for one selection, encoded; shared by all readers that get it."""

    key: Key
    kind: int
    revision: int
    selection: int
    body: bytes
    data: bytes
    # The kind, where the selection is of any kind: then, and only then, the event says it.
    said_kind: str


@dataclass(slots=True, eq=False)
class _Reader:
    """One stream: its selections, and what it has not been sent yet."""

    wants: list[interest.Want]
    allowed: Allowed | None
    limits: Limits
    pending: list[Entry] = field(default_factory=list)
    pending_bytes: int = 0
    # Whether events were merged in `pending`: marks between them would lie.
    merged: bool = False
    most_events: int = field(init=False)
    most_bytes: int = field(init=False)
    # Mark last sent.
    sent: int = 0
    # A mark is owed.
    due: bool = False
    error: ApiError | None = None
    # It ends so, after what is pending.
    last_word: ApiError | None = None
    waiter: asyncio.Future[None] | None = None

    def __post_init__(self) -> None:
        self.most_events = self.limits.pending_events
        self.most_bytes = self.limits.pending_bytes

    def wake(self) -> None:
        """Lets its stream go on."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def merge(self) -> None:
        """Merges pending events, if there are too many."""
        if len(self.pending) <= self.most_events and self.pending_bytes <= self.most_bytes:
            return
        merged = coalesce(self.pending)
        self.merged = self.merged or len(merged) < len(self.pending)
        self.pending = merged
        self.pending_bytes = sum(len(entry.data) for entry in merged)
        self.most_events = max(self.limits.pending_events, 2 * len(merged))
        self.most_bytes = max(self.limits.pending_bytes, 2 * self.pending_bytes)

    def take(self) -> tuple[list[Entry], bool]:
        """What is pending, and whether events in it were merged; it is pending no longer."""
        taken = self.pending, self.merged
        self.pending, self.pending_bytes, self.merged = [], 0, False
        self.most_events = self.limits.pending_events
        self.most_bytes = self.limits.pending_bytes
        return taken


@dataclass(slots=True, eq=False)
class _Rhythm:
    """Readers that are owed marks in the same rhythm."""

    seconds: float
    readers: dict[_Reader, None] = field(default_factory=dict)
    moved: asyncio.Event = field(default_factory=asyncio.Event)


# Who reads a want: readers by the index that the selection has in their request.
_Readers = dict[int, dict[_Reader, None]]


class Feed:
    """The tail of the log, for many readers."""

    def __init__(self, source: Source, clock: Clock, limits: Limits | None = None) -> None:
        """`source`: the state and the log; changes up to its head count as published."""
        self._source = source
        self._limits = limits or Limits()
        self._clock = clock
        self._head = source.head
        self._interests: interest.Interests[_Readers] = interest.Interests()
        self._readers: dict[_Reader, None] = {}
        self._rhythms = {ms: _Rhythm(ms / 1000) for ms in PROGRESS_MS}
        # Whether a crowd is being told; and who is to be told something when it has been.
        self._resting = False
        self._rest_seconds = 0.0
        self._told = asyncio.Event()
        self._held: dict[_Reader, None] = {}
        self._held_changes = 0
        self._recent: deque[Change] = deque()
        self._recent_bytes = 0
        # All changes after this revision are in `_recent`.
        self._recent_floor = self._head
        self._closed: ApiError | None = None

    @property
    def head(self) -> int:
        """The revision last published."""
        return self._head

    @property
    def readers(self) -> int:
        """How many streams are open."""
        return len(self._readers)

    async def run(self) -> None:
        """Sends progress marks, for ever."""
        async with Tasks() as tasks:
            for ms, rhythm in self._rhythms.items():
                tasks.start(self._beat(rhythm), f"feed-progress-{ms}ms")
            tasks.start(self._pace(), "feed-pace")

    def publish(self, changes: Sequence[Change], head: int, time: float) -> None:
        """Tells a durable batch. The source's present is already that of `head`."""
        assert head >= self._head, f"the head went back from {self._head} to {head} at {time}"
        self._head = head
        woken: dict[_Reader, None] = {}
        for change in merge_per_revision(changes):
            self._remember(change)
            self._tell(change, woken)
        for reader in woken:
            reader.merge()
        if self._resting and len(woken) >= _CROWD:
            self._held.update(woken)
            self._held_changes += len(changes)
            if self._held_changes >= _TOGETHER:
                self._release()
        else:
            self._wake(woken)
        for rhythm in self._rhythms.values():
            if rhythm.readers:
                rhythm.moved.set()

    def recheck(self) -> None:
        """Ends the streams whose readers may no longer see what they asked for."""
        for reader in list(self._readers):
            if reader.allowed is None:
                continue
            for want in reader.wants:
                if want.kind == interest.ANY_KIND:
                    continue
                if not all(
                    reader.allowed(want.kind, want.namespace, name) for name in want.names or ("",)
                ):
                    said = f"watching {want.kind} is no longer permitted"
                    self._end(reader, ApiError(Reason.FORBIDDEN, said))
                    break

    def turn(self) -> None:
        """Other kinds are served: ends the streams that ask for what is no longer there."""
        for reader in list(self._readers):
            for want in reader.wants:
                if want.kind == interest.ANY_KIND:
                    continue
                try:
                    selectable = self._source.selectable(want.kind)
                    selector.parse_fields(want.fields_text, selectable)
                except ApiError as error:
                    reader.last_word = error
                    reader.wake()
                    break

    def close(self, error: ApiError | None = None) -> None:
        """Ends all streams, and those that are still to come, with this error."""
        self._closed = error or ApiError(Reason.UNAVAILABLE, "the server is shutting down")
        for reader in list(self._readers):
            self._end(reader, self._closed)

    async def watch(
        self, request: pb.WatchRequest, allowed: Allowed | None = None
    ) -> AsyncGenerator[bytes, None]:
        """A stream of WatchResponses. It ends by ApiError, or by being closed by its reader."""
        if self._closed is not None:
            raise self._closed
        wants = self._compile(request)
        rhythm = self._rhythm(request.progress_ms)
        reader = _Reader(wants, allowed, self._limits)
        starts = [selection.from_revision for selection in request.selections]
        head = self._head
        self._check_starts(wants, starts, head)
        oldest = min((start for start in starts if start), default=head)
        # From here to the first await the present is that of `head`; what comes later is pending.
        present = self._present(reader, starts)
        self._attach(reader, rhythm)
        try:
            if oldest >= self._recent_floor:
                recent = [one for one in self._recent if one.record.revision > oldest]
                replay = self._from_memory(recent)
            else:
                replay = self._from_log(reader, starts, oldest, head)
            told = self._begin(reader, starts, head, present, replay)
            async for message in told:
                if reader.error is not None:
                    raise reader.error
                yield message
            # A mark that came to be owed meanwhile stays so: the head may not move again.
            reader.sent = head
            while True:
                if reader.error is not None:
                    raise reader.error
                if reader.last_word is not None and not reader.pending:
                    raise reader.last_word
                if not reader.pending and not (reader.due and reader.sent < self._head):
                    reader.waiter = asyncio.get_running_loop().create_future()
                    await reader.waiter
                    reader.waiter = None
                    continue
                mark = self._head
                entries, merged = reader.take()
                reader.due = False
                for message in self._messages(entries, reader.sent, mark, merged):
                    if reader.error is not None:
                        raise reader.error
                    yield message
                reader.sent = mark
        finally:
            self._detach(reader, rhythm)

    def _compile(self, request: pb.WatchRequest) -> list[interest.Want]:
        if not request.selections:
            said = "at least one selection is required"
            raise ApiError(Reason.INVALID, said, [Violation("selections", said)])
        paths = tuple(request.mask.paths)
        wants = [
            interest.compile_selection(selection, paths, self._source)
            for selection in request.selections
        ]
        kinds = [want.kind for want in wants]
        for path in paths:
            if interest.ANY_KIND not in kinds:
                _check_path(path, kinds, self._source)
        return wants

    def _rhythm(self, progress_ms: int) -> _Rhythm:
        if progress_ms < 0:
            said = f"{progress_ms} is negative"
            raise ApiError(Reason.INVALID, f"progress_ms: {said}", [Violation("progressMs", said)])
        asked = progress_ms or DEFAULT_PROGRESS_MS
        kept = [ms for ms in PROGRESS_MS if ms <= asked]
        return self._rhythms[kept[-1] if kept else PROGRESS_MS[0]]

    def _check_starts(
        self, wants: Sequence[interest.Want], starts: Sequence[int], head: int
    ) -> None:
        for want, start in zip(wants, starts, strict=True):
            if start and want.kind != interest.ANY_KIND:
                since = self._source.served_since(want.kind)
                if start < since:
                    raise _too_old(start, since)
            if start and start < self._source.compacted:
                raise _too_old(start, self._source.compacted)
            if start > head:
                # This server has forgotten what the reader has seen, or never had it.
                said = f"resource version {start} is ahead of this server, which is at {head}"
                raise ApiError(Reason.GONE, said)

    def _present(self, reader: _Reader, starts: Sequence[int]) -> list[tuple[int, int, Stored]]:
        """What is there now, as (revision, selection, object), for selections that start with it.

        In the order of revisions, like everything else; references only, encoded when sent.
        """
        found: list[tuple[int, int, Stored]] = []
        for index, (want, start) in enumerate(zip(reader.wants, starts, strict=True)):
            if start:
                continue
            if want.kind == interest.ANY_KIND:
                objects: Iterable[Stored] = itertools.chain.from_iterable(
                    self._source.objects(kind, want.namespace) for kind in self._source.kinds()
                )
            else:
                objects = interest.candidates(want, self._source)
            found += [
                (stored.revision, index, stored)
                for stored in objects
                if want.matches(stored) and _may_see(reader, want, stored.key)
            ]
        found.sort(key=lambda one: (one[0], one[1], one[2].key))
        return found

    async def _begin(
        self,
        reader: _Reader,
        starts: Sequence[int],
        head: int,
        present: list[tuple[int, int, Stored]],
        replay: AsyncIterator[list[Change]],
    ) -> AsyncGenerator[bytes, None]:
        """What came before `head`, up to the message that says `synced`."""
        waiting = deque(present)
        # While some of the present is untold, no mark is true.
        mark = 0 if not all(starts) else min(starts)
        ready: list[Entry] = []
        size = 0
        async for changes in replay:
            complete = changes[-1].record.revision
            entries = [
                self._added(reader.wants[one[1]], one[1], one[2])
                for one in _up_to(waiting, complete)
            ]
            for change in changes:
                entries += self._replayed(reader, starts, change)
            entries.sort(key=lambda entry: entry.revision)
            ready += entries
            size += sum(len(entry.data) for entry in entries)
            if size >= self._limits.message_bytes:
                for message in self._messages(ready, mark, complete if mark else 0, mark == 0):
                    yield message
                mark = complete if mark else 0
                ready, size = [], 0
            await self._clock.sleep(0)
        rest = (self._added(reader.wants[one[1]], one[1], one[2]) for one in waiting)
        for message in self._messages(
            itertools.chain(ready, rest), mark, head, mark == 0, synced=True
        ):
            yield message

    def _added(self, want: interest.Want, index: int, stored: Stored) -> Entry:
        body = want.show(stored.key.kind, stored.body, self._source)
        return _entry(stored.key, frame.ADDED, stored.revision, index, body, want)

    def _replayed(self, reader: _Reader, starts: Sequence[int], change: Change) -> Iterator[Entry]:
        record = change.record
        for index, (want, start) in enumerate(zip(reader.wants, starts, strict=True)):
            if not start or record.revision <= start or not want.may_concern(record.key):
                continue
            if not _may_see(reader, want, record.key):
                continue
            kind, body = want.see(change, self._source)
            if kind:
                yield _entry(record.key, kind, record.revision, index, body, want)

    async def _from_memory(self, recent: Iterable[Change]) -> AsyncIterator[list[Change]]:
        for changes in self._in_revisions(recent):
            yield changes

    async def _from_log(
        self, reader: _Reader, starts: Sequence[int], after: int, head: int
    ) -> AsyncIterator[list[Change]]:
        """Changes after `after` and up to `head`, read from the log page by page."""
        wanted = [want for want, start in zip(reader.wants, starts, strict=True) if start]
        known: dict[Key, Stored | None] = {}
        while after < head:
            if after < self._source.compacted:
                raise _too_old(after, self._source.compacted)
            page = await self._page(after, head)
            if not page:
                return
            after = page[-1].revision
            changes = [
                await self._restored(record, known)
                for record in page
                if any(want.may_concern(record.key) for want in wanted)
            ]
            for whole in self._in_revisions(merge_per_revision(changes)):
                yield whole

    async def _page(self, after: int, head: int) -> list[Record]:
        page: list[Record] = []
        size = 0
        limits = self._limits
        async with aclosing(self._source.since(after)) as records:
            async for record in records:
                if record.revision > head:
                    break
                full = len(page) >= limits.replay_records or size >= limits.replay_bytes
                if full and record.revision != page[-1].revision:
                    break
                page.append(record)
                size += len(record.body)
        return page

    def _in_revisions(self, changes: Iterable[Change]) -> Iterator[list[Change]]:
        """The changes in pages that end where a revision ends."""
        page: list[Change] = []
        for change in changes:
            if (
                len(page) >= self._limits.replay_records
                and change.record.revision != page[-1].record.revision
            ):
                yield page
                page = []
            page.append(change)
        if page:
            yield page

    def _messages(
        self,
        entries: Iterable[Entry],
        before: int,
        mark: int,
        withheld: bool,
        synced: bool = False,
    ) -> Iterator[bytes]:
        """Messages with these events, cut between revisions; the last one carries `mark`.

        `before`: the mark that was true before them. `withheld`: it stays so until the last.
        """
        data: list[bytes] = []
        size = 0
        revision = before
        for complete, group in itertools.groupby(entries, _revision_of):
            events = [entry.data for entry in group]
            weight = sum(map(len, events))
            if data and size + weight > self._limits.message_bytes:
                yield frame.watch_response(before if withheld else revision, data, False)
                data, size = [], 0
            data += events
            size += weight
            revision = complete
        yield frame.watch_response(mark, data, synced)

    async def _restored(self, record: Record, known: dict[Key, Stored | None]) -> Change:
        """The change that a record was."""
        key = record.key
        if record.verb is Verb.CREATE:
            before = None
        elif key in known:
            before = known[key]
        else:
            body = await self._source.at(key, record.revision - 1)
            if body is not None:
                before = self._source.read(key, record.revision - 1, body)
            else:
                # Its kind keeps no history: it was there, in whatever state.
                before = self._source.read(key, interest.UNKNOWN, record.body)
        after = None
        if record.verb is not Verb.DELETE:
            after = self._source.read(key, record.revision, record.body)
        known[key] = after
        return Change(record, before, after)

    def _tell(self, change: Change, woken: dict[_Reader, None]) -> None:
        record = change.record
        # By what is in them beside the object: type, selection, and whether they say the kind.
        entries: dict[tuple[int, int, bool], Entry] = {}
        for want, readers in self._interests.concerned(change):
            kind, body = want.see(change, self._source)
            if not kind:
                continue
            any_kind = want.kind == interest.ANY_KIND
            for index, listening in readers.items():
                form = kind, index, any_kind
                entry = entries.get(form) if not want.paths else None
                if entry is None:
                    entry = _entry(record.key, kind, record.revision, index, body, want)
                    if not want.paths:
                        entries[form] = entry
                size = len(entry.data)
                for reader in listening:
                    if any_kind and not _may_see(reader, want, record.key):
                        continue
                    reader.pending.append(entry)
                    reader.pending_bytes += size
                woken.update(listening)

    def _remember(self, change: Change) -> None:
        self._recent.append(change)
        self._recent_bytes += len(change.record.body)
        limits = self._limits
        while len(self._recent) > limits.recent_changes or self._recent_bytes > limits.recent_bytes:
            oldest = self._recent.popleft()
            self._recent_bytes -= len(oldest.record.body)
            self._recent_floor = oldest.record.revision

    def _attach(self, reader: _Reader, rhythm: _Rhythm) -> None:
        self._readers[reader] = None
        rhythm.readers[reader] = None
        for index, want in enumerate(reader.wants):
            readers = self._interests.get(want)
            if readers is None:
                readers = {}
                self._interests.add(want, readers)
            readers.setdefault(index, {})[reader] = None

    def _detach(self, reader: _Reader, rhythm: _Rhythm) -> None:
        self._readers.pop(reader, None)
        rhythm.readers.pop(reader, None)
        for index, want in enumerate(reader.wants):
            readers = self._interests.get(want)
            if readers is None or reader not in readers.get(index, {}):
                continue
            del readers[index][reader]
            if not readers[index]:
                del readers[index]
            if not readers:
                self._interests.remove(want)

    def _end(self, reader: _Reader, error: ApiError) -> None:
        reader.error = error
        reader.wake()

    def _wake(self, readers: dict[_Reader, None]) -> None:
        for reader in readers:
            reader.wake()
        if len(readers) >= _CROWD:
            self._rest_seconds = min(len(readers) * _MESSAGE_SECONDS, _REST_SECONDS)
            self._resting = True
            self._told.set()

    async def _pace(self) -> None:
        """Wakes crowds together."""
        while True:
            await self._told.wait()
            self._told.clear()
            await self._clock.sleep(self._rest_seconds)
            self._resting = False
            self._release()

    def _release(self) -> None:
        held, self._held = self._held, {}
        self._held_changes = 0
        self._wake(held)

    async def _beat(self, rhythm: _Rhythm) -> None:
        while True:
            await rhythm.moved.wait()
            rhythm.moved.clear()
            await self._clock.sleep(rhythm.seconds)
            for reader in rhythm.readers:
                if reader.sent < self._head:
                    reader.due = True
                    reader.wake()


def coalesce(entries: Iterable[Entry]) -> list[Entry]:
    """The events with those of one object merged, for each selection by itself.

    What is left of an object: nothing, its last state, its deletion, or a deletion and a creation.
    """
    kept: list[Entry | None] = []
    # Where the last event of each object is that is left.
    places: dict[tuple[int, Key], int] = {}
    for entry in entries:
        thing = entry.selection, entry.key
        at = places.get(thing)
        earlier = kept[at] if at is not None else None
        if at is None or earlier is None or earlier.kind == frame.DELETED:
            # The first, or what came again after its deletion: that stays, too.
            places[thing] = len(kept)
            kept.append(entry)
            continue
        kept[at] = None
        if earlier.kind == frame.ADDED:
            if entry.kind == frame.DELETED:
                # It came and went, and the reader had not heard of it.
                del places[thing]
                continue
            entry = _encoded(
                entry.key, frame.ADDED, entry.revision, entry.selection, entry.body, entry.said_kind
            )
        places[thing] = len(kept)
        kept.append(entry)
    return [entry for entry in kept if entry is not None]


def merge_per_revision(changes: Iterable[Change]) -> list[Change]:
    """The changes with those that one revision made to one object merged into one.

    A deletion and a re-creation stay two.
    """
    merged: list[Change | None] = []
    places: dict[Key, int] = {}
    revision = -1
    for change in changes:
        if change.record.revision != revision:
            revision = change.record.revision
            places.clear()
        key = change.record.key
        at = places.get(key, -1)
        earlier = merged[at] if at >= 0 else None
        if earlier is None or earlier.after is None:
            places[key] = len(merged)
            merged.append(change)
            continue
        merged[at] = None
        if earlier.before is not None or change.after is not None:
            record = change.record
            if change.after is None and earlier.before is not None:
                # What was between was never there for anybody else.
                last = frame.with_revision(earlier.before.body, record.revision)
                record = record._replace(body=last)
            places[key] = len(merged)
            merged.append(Change(record, earlier.before, change.after))
        else:
            del places[key]
    return [change for change in merged if change is not None]


def _entry(
    key: Key, kind: int, revision: int, selection: int, body: bytes, want: interest.Want
) -> Entry:
    said_kind = key.kind if want.kind == interest.ANY_KIND else ""
    return _encoded(key, kind, revision, selection, body, said_kind)


def _encoded(
    key: Key, kind: int, revision: int, selection: int, body: bytes, said_kind: str
) -> Entry:
    data = frame.event(kind, body, revision, selection, said_kind)
    return Entry(key, kind, revision, selection, body, data, said_kind)


def _revision_of(entry: Entry) -> int:
    return entry.revision


def _up_to(
    waiting: deque[tuple[int, int, Stored]], revision: int
) -> Iterator[tuple[int, int, Stored]]:
    while waiting and waiting[0][0] <= revision:
        yield waiting.popleft()


def _may_see(reader: _Reader, want: interest.Want, key: Key) -> bool:
    return (
        reader.allowed is None
        or want.kind != interest.ANY_KIND
        or reader.allowed(key.kind, key.namespace, key.name)
    )


def _check_path(path: str, kinds: Iterable[str], source: Source) -> None:
    for kind in kinds:
        message_class: Any = source.message(kind)
        if mask.compile_mask(message_class.DESCRIPTOR, [path], lenient=True).fields:
            return
    said = "none of the selected kinds has such a field"
    raise ApiError(Reason.INVALID, f"{path}: {said}", [Violation("mask", f"{path}: {said}")])


def _too_old(start: int, compacted: int) -> ApiError:
    return ApiError(Reason.GONE, f"too old resource version: {start} ({compacted})")
