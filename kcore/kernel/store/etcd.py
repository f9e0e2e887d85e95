"""The log in etcd.

An object's key holds the records of its last batch, deletions too; older ones are etcd's own old
versions of the key. A batch is one flat transaction: it compares the head key, writes each object's
key once, and the head anew. So whoever comes too late writes nothing (`Conflict`), and nobody needs
a lock. What others write is read from a watch of all keys, by whoever waits for it.

A transaction whose answer is lost may still be applied later. Before anybody is told anything the
head is written once more under the same comparison: then either the transaction is found before
that, or it can never be.

In memory are, of each batch, kcore's and etcd's revision and its time, and of each key the
checksum: a sum of them is in the head, so that a changed, lost or foreign entry is found when the
log is read. Compaction is recorded in the head, and is etcd's own; deleted objects' keys go with
it. etcd's lags ten minutes behind: what is promised no more still tells who asked for it.
"""

import asyncio
import bisect
import itertools
from array import array
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError
from kcore_api.etcdserverpb import rpc_pb2 as pb
from kcore_api.mvccpb import kv_pb2
from kcore_api.store.v1 import log_pb2

from kcore.chance import Chance
from kcore.clock import Clock
from kcore.kernel.record import Key, Record, Request, Verb
from kcore.kernel.store import REMEMBERED_SECONDS, Conflict, Full, Opened, Refused, Tail
from kcore.kernel.store.etcd_client import Compacted, Endpoints, Etcd
from kcore.kernel.store.mark import Mark
from kcore.wire.errors import ApiError, Reason

_FORMAT: Final = 1
# While a migration fills it.
_UNFINISHED: Final = 0
_VERBS: Final = {verb.value: verb for verb in Verb}
_TALLY_MASK: Final = (1 << 62) - 1
# Keys read, and deleted, at once.
_PAGE: Final = 500
_DELETED_AT_ONCE: Final = 100
# Records of others kept for who follows.
_RECENT_RECORDS: Final = 4096
# How long an unknown outcome is asked after before it is called one, and how often.
_SETTLE_SECONDS: Final = 10.0
_AGAIN_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class _Batch:
    """What one revision of etcd's did to the log."""

    revision: int
    head: log_pb2.Head
    entries: Sequence[kv_pb2.KeyValue]
    deleted: Sequence[bytes]

    def records(self) -> list[Record]:
        """Its records in order, verified."""
        found = [record for entry in self.entries for record in _records(entry)]
        found.sort(key=lambda record: record.position)
        return found


@dataclass(frozen=True, slots=True)
class _Latest:
    """What is known of an entry as it is now."""

    checksum: int
    # The revision that deleted the object; 0: it is there.
    deleted: int


class EtcdStore:
    """A log in etcd, which other kernels may write, too."""

    def __init__(
        self,
        endpoints: Endpoints,
        clock: Clock,
        chance: Chance,
        *,
        mark: Mark | None = None,
        prefix: str = "/kcore",
    ) -> None:
        """Nothing is dialled before `open`. `prefix`: where in etcd the log is."""
        self._endpoints = endpoints
        self._clock = clock
        self._chance = chance
        self._mark = mark
        self._prefix = prefix
        self._head_key = f"{prefix}/head".encode()
        self._start, self._end = f"{prefix}/".encode(), f"{prefix}0".encode()
        self._etcd: Etcd | None = None
        # Each write has a name of its own: whose, and the how manieth.
        self._writer = ""
        self._written = 0
        self._head = log_pb2.Head()
        # etcd's revision of the head; what is known is known up to there.
        self._reached = 0
        # Of each batch since the base: kcore's last revision, etcd's, and first and last time.
        self._revisions = array("q")
        self._places = array("q")
        self._began = array("d")
        self._ended = array("d")
        self._base_time = 0.0
        self._latest: dict[bytes, _Latest] = {}
        # By revision: of records that are there no longer.
        self._requests: dict[int, Request] = {}
        # Whether all that is so; a replay makes it so.
        self._known = False
        # What others have written after revision `_floor`.
        self._recent: deque[tuple[int, Sequence[Record]]] = deque()
        self._recent_records = 0
        self._floor = 0
        self._writing = asyncio.Lock()
        # Set while no write of ours is under way.
        self._settled = asyncio.Event()
        self._settled.set()
        self._stream: AsyncGenerator[pb.WatchResponse, None] | None = None
        self._pumping = asyncio.Lock()
        # One read of the head for all who wait: the number of who asked last, and who is answered.
        self._asking = asyncio.Lock()
        self._asked = self._answered = 0
        self._answer: int | Exception = 0

    @property
    def tail(self) -> Tail | None:
        """What others append."""
        return self

    async def open(self) -> Opened:
        """Connects, makes the head where there is none, and lets nothing earlier succeed."""
        await self.close()
        self._known = False
        self._reached = 0
        self._etcd = Etcd(self._endpoints)
        self._writer, self._written = self._chance.uid(), 0
        found = await self._read_head()
        if found is None:
            found = await self._create()
        self._check(found[1])
        opened = _opened(found[1])
        if self._mark is not None:
            self._mark.check(self._name, opened)
        self._reached, self._head = found
        while not await self._fence():
            found = await self._read_head()
            if found is None:
                raise Refused(f"{self._name}: its head has been deleted")
            self._reached, self._head = found
        await self._find_base()
        opened = _opened(self._head)
        if self._mark is not None:
            self._mark.write(opened, opened.head)
        self._floor = self._head.revision
        return opened

    async def replay(self) -> AsyncIterator[Record]:
        """The log: the state at its base, then all that came after, each sum verified."""
        self._forget_index()
        compacted, until = self._head.compacted, self._reached
        base: dict[Key, Record] = {}
        tally = 0
        async for entry in self._entries(self._start, self._end, self._head.base):
            if entry.key == self._head_key:
                head = _head(entry)
                self._base_time = head.time
                continue
            records = _records(entry)
            tally += self._learn(entry.key, records)
            base[records[-1].key] = records[-1]
        self._check_tally(tally, head)
        tally = head.tally
        flushed = False
        async for batch in self._history(self._head.base + 1, until):
            records = batch.records()
            tally += self._apply(batch, records)
            self._check_tally(tally, batch.head)
            for record in records:
                if record.revision <= compacted:
                    self._keep_request(base.get(record.key))
                    base[record.key] = record
                    continue
                if not flushed:
                    flushed = True
                    for old in _present(base.values()):
                        yield old
                yield record
        for record in base.values():
            if record.verb is Verb.DELETE:
                self._keep_request(record)
        self._known = True
        if not flushed:
            for old in _present(base.values()):
                yield old

    async def requests(self) -> Sequence[Request]:
        """Those of records that are gone, but young; as the last replay found them."""
        return sorted(self._requests.values(), key=lambda one: one.revision)

    async def append(self, records: Sequence[Record], keep: Mapping[Key, int]) -> None:
        """Appends in order. What is no longer needed goes with the next compaction."""
        if not records:
            return
        await self._know()
        async with self._writing:
            if records[0].revision <= self._head.revision:
                raise Conflict(f"{self._name} is at revision {self._head.revision} already")
            head = self._next_head()
            head.revision, head.time = records[-1].revision, records[-1].time
            entries: dict[bytes, log_pb2.Entry] = {}
            checksums: dict[bytes, int] = {}
            for record in records:
                key = self._key(record.key)
                checksum = record.checksum()
                entries.setdefault(key, log_pb2.Entry()).records.append(_written(record, checksum))
                checksums[key] = checksums.get(key, 0) + checksum
            for key, checksum in checksums.items():
                known = self._latest.get(key)
                head.tally += checksum - (known.checksum if known is not None else 0)
            head.tally &= _TALLY_MASK
            puts = {key: entry.SerializeToString() for key, entry in entries.items()}
            place = await self._write(puts, (), head)
            for record in records:
                key = self._key(record.key)
                deleted = record.revision if record.verb is Verb.DELETE else 0
                self._latest[key] = _Latest(checksums[key], deleted)
            self._index(place, records)
            # Whoever appends has seen all that came before.
            self._recent.clear()
            self._recent_records = 0
            self._floor = head.revision
        if self._mark is not None:
            self._mark.note(_opened(head), head.revision, self._clock.monotonic())

    async def at(self, key: Key, revision: int) -> Record | None:
        """The last record of an object up to `revision`."""
        await self._know()
        place = self._place(revision)
        record = await self._record_at(self._key(key), revision, place)
        return record if record is not None and record.verb is not Verb.DELETE else None

    async def state_at(self, revision: int, kind: str, namespace: str) -> AsyncIterator[Record]:
        """The last records of the objects that were there at `revision`."""
        await self._know()
        place = self._place(revision)
        start = f"{self._prefix}/o/{kind}/" + (f"{namespace}/" if namespace else "")
        end = start[:-1] + "0"
        found = []
        async for entry in self._entries(start.encode(), end.encode(), place):
            record = _last(_records(entry), revision)
            if record is None and entry.mod_revision == place:
                record = await self._record_at(entry.key, revision, place - 1)
            if record is not None:
                found.append(record)
        for record in sorted(found, key=lambda record: record.key):
            if record.verb is not Verb.DELETE:
                yield record

    async def since(self, revision: int) -> AsyncGenerator[Record, None]:
        """All records after `revision`, up to what is there now."""
        await self._know()
        found = await self._read_head()
        if found is None:
            raise Refused(f"{self._name}: its head has been deleted")
        await self._reach(found[0])
        if revision >= self._floor:
            for _, records in list(self._recent):
                for record in records:
                    if record.revision > revision:
                        yield record
            return
        index = bisect.bisect_right(self._revisions, revision)
        if index == len(self._revisions):
            return
        last = self._places[-1]
        async with aclosing(self._history(self._places[index], last)) as batches:
            async for batch in batches:
                for record in batch.records():
                    if record.revision > revision:
                        yield record

    async def transaction(self, revision: int) -> Sequence[Record]:
        """The records of one revision."""
        await self._know()
        index = bisect.bisect_left(self._revisions, revision)
        if index == len(self._revisions):
            return []
        return [one for one in await self._batch_records(index) if one.revision == revision]

    async def revision_at(self, time: float) -> int:
        """The last revision not after `time`."""
        await self._know()
        index = bisect.bisect_right(self._ended, time)
        if index < len(self._began) and self._began[index] <= time:
            # In the midst of a batch.
            before = [one for one in await self._batch_records(index) if one.time <= time]
            return before[-1].revision
        if index:
            return self._revisions[index - 1]
        base = self._head.compacted
        if self._revisions and self._revisions[0] <= base:
            # It was before what is promised, wherever in there.
            return 0
        return base if base and time >= self._base_time else 0

    async def compact(self, revision: int) -> None:
        """Forgets what is no longer needed to know the state at `revision` and all after."""
        await self._know()
        try:
            # First of all nobody is promised what is about to go.
            base = await self._promise(revision)
        except Full:
            # The promise is derived from what etcd still has, too; this makes room.
            index = bisect.bisect_right(self._revisions, revision)
            base = self._places[index - 1] if index else 0
        if base:
            await self._client.compact(base)

    async def adopt(self, opened: Opened, *, whole: bool) -> None:
        """Takes over a log's identity, and at last its end."""
        await self._know()
        async with self._writing:
            head = self._next_head()
            head.format = _FORMAT if whole else _UNFINISHED
            head.cluster_id, head.epoch = opened.cluster_id, opened.epoch
            if whole:
                head.revision, head.time = opened.head, opened.time
                head.compacted = opened.compacted
            await self._write({}, (), head)
        if whole and self._mark is not None:
            self._mark.write(opened, opened.head)

    async def close(self) -> None:
        """Hangs up."""
        stream, self._stream = self._stream, None
        if stream is not None and not self._pumping.locked():
            await stream.aclose()
        if self._etcd is not None:
            etcd, self._etcd = self._etcd, None
            await etcd.close()

    # The tail.

    async def head(self) -> int:
        """The last revision that anybody has appended; those who ask together share one read."""
        self._asked += 1
        mine = self._asked
        async with self._asking:
            if self._answered < mine:
                asked = self._asked
                try:
                    found = await self._read_head()
                    self._answer = found[1].revision if found is not None else 0
                except (ApiError, Refused) as error:
                    self._answer = error
                self._answered = asked
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer

    async def moved(self, revision: int) -> int:
        """Waits until there is something after `revision`; answers up to where."""
        while self._head.revision <= revision:
            reached = self._reached
            try:
                await self._pump(reached)
            except ApiError as error:
                if error.reason is not Reason.UNAVAILABLE:
                    raise
                await self._clock.sleep(_AGAIN_SECONDS)
        return self._head.revision

    async def _reach(self, place: int) -> None:
        """Reads what others have written, up to etcd's revision `place`."""
        while self._reached < place:
            await self._pump(self._reached)

    async def _pump(self, reached: int) -> None:
        """Takes in what the watch tells next, unless somebody else has since `reached`."""
        async with self._pumping:
            if self._reached > reached:
                return
            if not self._known:
                raise ApiError(Reason.UNAVAILABLE, f"{self._name}: it is being read")
            if self._stream is None:
                create = pb.WatchCreateRequest(
                    key=self._start, range_end=self._end, start_revision=self._reached + 1
                )
                self._stream = self._client.watch(create)
            try:
                response = await anext(self._stream)
            except BaseException as error:
                # Whoever waits next begins a new one where this has ended.
                self._stream = None
                if isinstance(error, Compacted):
                    said = f"{self._name}: what others have written is compacted already"
                    raise ApiError(Reason.GONE, said) from None
                if isinstance(error, StopAsyncIteration):
                    raise ApiError(Reason.UNAVAILABLE, f"{self._name}: closed") from None
                raise
            try:
                for batch in self._batches(response):
                    # Not under a write: what that was evaluated on must not move beneath it, and
                    # of one's own batches whoever wrote them knows when he has his answer.
                    await self._settled.wait()
                    if batch.revision > self._reached:
                        self._take_in(batch)
            except BaseException:
                # The rest of the response must be told again.
                stream, self._stream = self._stream, None
                if stream is not None:
                    await stream.aclose()
                raise

    def _take_in(self, batch: _Batch) -> None:
        """What somebody else has written."""
        self._check(batch.head)
        records = batch.records()
        if self._head.cluster_id != batch.head.cluster_id:
            raise Refused(f"{self._name}: it is another cluster's now: {batch.head.cluster_id}")
        self._check_tally(self._head.tally + self._apply(batch, records), batch.head)
        self._head, self._reached = batch.head, batch.revision
        if not records:
            return
        self._recent.append((records[-1].revision, records))
        self._recent_records += len(records)
        while self._recent_records > _RECENT_RECORDS:
            self._floor, gone = self._recent.popleft()
            self._recent_records -= len(gone)

    # Writing.

    async def _write(
        self, puts: Mapping[bytes, bytes], deletes: Iterable[bytes], head: log_pb2.Head
    ) -> int:
        """Writes under the head's comparison, and answers etcd's revision. Its outcome is known."""
        given_up_at = self._clock.monotonic() + _SETTLE_SECONDS
        self._settled.clear()
        try:
            while True:
                try:
                    place = await self._attempt(puts, deletes, head)
                except ApiError as error:
                    if error.reason is not Reason.UNAVAILABLE:
                        raise
                    place = await self._settle(head, error, given_up_at)
                if place:
                    self._head, self._reached = head, place
                    return place
        finally:
            self._settled.set()

    async def _attempt(
        self, puts: Mapping[bytes, bytes], deletes: Iterable[bytes], head: log_pb2.Head
    ) -> int:
        request = pb.TxnRequest()
        self._compare(request)
        for key, value in puts.items():
            request.success.add().request_put.CopyFrom(pb.PutRequest(key=key, value=value))
        for key in deletes:
            request.success.add().request_delete_range.key = key
        put = request.success.add().request_put
        put.key, put.value = self._head_key, head.SerializeToString()
        response = await self._client.txn(request)
        if not response.succeeded:
            raise Conflict(f"{self._name}: somebody else was faster")
        return response.header.revision

    async def _settle(self, head: log_pb2.Head, cause: ApiError, given_up_at: float) -> int:
        """Finds out whether a write was made whose answer is lost.

        Answers its revision in etcd; 0: it was not and never will be.
        """
        while True:
            try:
                if await self._fence():
                    return 0
                # Somebody has written meanwhile: it was ours, if ours was the first.
                begin = pb.WatchCreateRequest(key=self._head_key, start_revision=self._reached + 1)
                async with aclosing(self._client.watch(begin)) as responses:
                    first = (await anext(responses)).events[0].kv
                if _head(first).batch == head.batch:
                    return first.mod_revision
                raise Conflict(f"{self._name}: somebody else was faster")
            except ApiError as error:
                if error.reason is not Reason.UNAVAILABLE:
                    raise
                if self._clock.monotonic() > given_up_at:
                    raise cause from error
            await self._clock.sleep(_AGAIN_SECONDS)

    async def _fence(self) -> bool:
        """Writes the head as it is, so that no earlier write can succeed; False: somebody did."""
        head = log_pb2.Head()
        head.CopyFrom(self._head)
        self._written += 1
        head.batch = f"{self._writer}/{self._written}"
        try:
            self._reached = await self._attempt({}, (), head)
        except Conflict:
            return False
        except Full:
            # Then nothing else is written either.
            return True
        self._head = head
        return True

    def _keep_request(self, record: Record | None) -> None:
        """Of a record that is told no more."""
        if record is None or not record.request_id:
            return
        if record.time >= self._head.time - REMEMBERED_SECONDS:
            self._requests[record.revision] = Request(
                record.actor, record.request_id, record.revision, record.time
            )

    def _begin(self, revision: int) -> int:
        """How many batches need not be known for what is after `revision`.

        The log begins later than it must be: it tells of requests that may be asked again.
        """
        young = bisect.bisect_left(self._ended, self._head.time - REMEMBERED_SECONDS)
        return min(bisect.bisect_right(self._revisions, revision), young)

    async def _promise(self, revision: int) -> int:
        """Writes that the log begins at `revision`, and deletes what was deleted before.

        Answers etcd's revision where it begins; 0: it does already.
        """
        while True:
            async with self._writing:
                revision = min(revision, self._head.revision)
                dead = [
                    key
                    for key, known in self._latest.items()
                    if known.deleted and known.deleted <= revision
                ][:_DELETED_AT_ONCE]
                if revision <= self._head.compacted and not dead:
                    index = self._begin(revision)
                    return self._head.base if index == 0 else self._trim(index - 1)
                head = self._next_head()
                head.compacted = max(revision, head.compacted)
                index = self._begin(head.compacted)
                head.base = self._places[index - 1] if index else head.base
                head.tally -= sum(self._latest[key].checksum for key in dead)
                head.tally &= _TALLY_MASK
                try:
                    await self._write({}, dead, head)
                except Conflict:
                    pass
                else:
                    for key in dead:
                        del self._latest[key]
                    continue
            found = await self._read_head()
            await self._reach(found[0] if found is not None else 0)

    def _trim(self, index: int) -> int:
        """Forgets the batches before one, whose place in etcd is answered."""
        self._base_time = self._ended[index]
        place = self._places[index]
        for column in (self._revisions, self._places, self._began, self._ended):
            del column[:index]
        return place

    def _compare(self, request: pb.TxnRequest) -> None:
        request.compare.add(
            result=pb.Compare.EQUAL,
            target=pb.Compare.MOD,
            key=self._head_key,
            mod_revision=self._reached,
        )

    def _next_head(self) -> log_pb2.Head:
        head = log_pb2.Head()
        head.CopyFrom(self._head)
        self._written += 1
        head.batch = f"{self._writer}/{self._written}"
        return head

    # Opening.

    async def _create(self) -> tuple[int, log_pb2.Head]:
        """A new log, where there is nothing."""
        if self._mark is not None:
            self._mark.check_absent(self._name)
        request = pb.RangeRequest(key=self._start, range_end=self._end, count_only=True)
        if (await self._client.range(request)).count:
            raise Refused(f"{self._name}: there are objects, but no head: restore etcd")
        head = log_pb2.Head(format=_FORMAT, cluster_id=self._chance.uid(), epoch=1)
        with suppress(Conflict):
            await self._attempt({}, (), head)
        found = await self._read_head()
        if found is None:
            raise Refused(f"{self._name}: its head has been deleted")
        return found

    async def _find_base(self) -> None:
        """Where the log begins: as the head says, or later, where etcd was compacted by others."""
        if not self._head.base:
            request = pb.RangeRequest(key=self._head_key)
            self._head.base = (await self._client.range(request)).kvs[0].create_revision
        begin = pb.WatchCreateRequest(key=self._head_key, start_revision=self._head.base)
        try:
            async with aclosing(self._client.watch(begin)) as responses:
                await anext(responses)
        except Compacted as error:
            request = pb.RangeRequest(key=self._head_key, revision=error.revision)
            there = _head((await self._client.range(request)).kvs[0])
            self._head.base = error.revision
            self._head.compacted = max(self._head.compacted, there.revision)

    def _check(self, head: log_pb2.Head) -> None:
        if head.format != _FORMAT:
            said = f"format {head.format} is not known to this version"
            if head.format == _UNFINISHED:
                said = "a migration into it has not come to its end: delete it, and begin again"
            raise Refused(f"{self._name}: {said}")

    def _check_tally(self, tally: int, head: log_pb2.Head) -> None:
        if tally & _TALLY_MASK != head.tally:
            raise Refused(
                f"{self._name}: the entries at revision {head.revision} are not those that its "
                "head accounts for: some are missing or foreign"
            )

    # What is known of all batches.

    async def _know(self) -> None:
        """Reads the log, where nobody has since it was opened."""
        if not self._known:
            async for _ in self.replay():
                pass

    def _forget_index(self) -> None:
        for column in (self._revisions, self._places, self._began, self._ended):
            del column[:]
        self._latest.clear()
        self._requests.clear()
        self._recent.clear()
        self._recent_records = 0

    def _index(self, place: int, records: Sequence[Record]) -> None:
        self._revisions.append(records[-1].revision)
        self._places.append(place)
        self._began.append(records[0].time)
        self._ended.append(records[-1].time)

    def _learn(self, key: bytes, records: Sequence[Record]) -> int:
        """Takes note of an entry; answers by how much the tally grows."""
        known = self._latest.get(key)
        checksum = sum(record.checksum() for record in records)
        deleted = records[-1].revision if records[-1].verb is Verb.DELETE else 0
        self._latest[key] = _Latest(checksum, deleted)
        return checksum - (known.checksum if known is not None else 0)

    def _apply(self, batch: _Batch, records: Sequence[Record]) -> int:
        """Takes note of a batch; answers by how much the tally grows."""
        grown = 0
        by_key: dict[bytes, list[Record]] = {}
        for record in records:
            by_key.setdefault(self._key(record.key), []).append(record)
        for key, some in by_key.items():
            grown += self._learn(key, some)
        for key in batch.deleted:
            known = self._latest.pop(key, None)
            grown -= known.checksum if known is not None else 0
        if records:
            self._index(batch.revision, records)
        return grown

    def _place(self, revision: int) -> int:
        """The revision of etcd's at which the log had reached `revision`."""
        index = bisect.bisect_left(self._revisions, revision)
        place = self._places[index] if index < len(self._places) else self._reached
        return max(place, self._head.base)

    # Reading.

    @property
    def _client(self) -> Etcd:
        if self._etcd is None:
            raise ApiError(Reason.UNAVAILABLE, f"{self._name}: the store is not open")
        return self._etcd

    @property
    def _name(self) -> str:
        return f"etcd at {','.join(self._endpoints.urls)}, {self._prefix}"

    def _key(self, key: Key) -> bytes:
        return f"{self._prefix}/o/{key.kind}/{key.namespace}/{key.name}".encode()

    async def _read_head(self) -> tuple[int, log_pb2.Head] | None:
        """The head as it is now, and etcd's revision of it."""
        response = await self._client.range(pb.RangeRequest(key=self._head_key))
        if not response.kvs:
            return None
        return response.kvs[0].mod_revision, _head(response.kvs[0])

    async def _record_at(self, key: bytes, revision: int, place: int) -> Record | None:
        """The last record in a key up to `revision`, as etcd's `place` or the one before has it."""
        response = await self._client.range(pb.RangeRequest(key=key, revision=place))
        if not response.kvs:
            return None
        (entry,) = response.kvs
        found = _last(_records(entry), revision)
        if found is None and entry.mod_revision == place and entry.version > 1:
            return await self._record_at(key, revision, place - 1)
        return found

    async def _entries(
        self, start: bytes, end: bytes, place: int
    ) -> AsyncIterator[kv_pb2.KeyValue]:
        """Keys and values as they were at etcd's revision `place`, page by page."""
        while True:
            request = pb.RangeRequest(key=start, range_end=end, revision=place, limit=_PAGE)
            response = await self._client.range(request)
            for entry in response.kvs:
                yield entry
            if not response.more:
                return
            start = response.kvs[-1].key + b"\0"

    async def _batch_records(self, index: int) -> list[Record]:
        place = self._places[index]
        async with aclosing(self._history(place, place)) as batches:
            async for batch in batches:
                return batch.records()
        return []

    async def _history(self, start: int, end: int) -> AsyncGenerator[_Batch, None]:
        """What was written from one revision of etcd's to another, which wrote the head."""
        if start > end:
            return
        begin = pb.WatchCreateRequest(key=self._start, range_end=self._end, start_revision=start)
        try:
            async with aclosing(self._client.watch(begin)) as responses:
                async for response in responses:
                    for batch in self._batches(response):
                        if batch.revision > end:
                            return
                        yield batch
                        if batch.revision == end:
                            return
        except Compacted as error:
            said = f"{self._name}: that part of the log is compacted: {error}"
            raise ApiError(Reason.GONE, said) from None

    def _batches(self, response: pb.WatchResponse) -> Iterator[_Batch]:
        """A response's changes by etcd's revision; `Refused` where one has no head."""
        for place, events in itertools.groupby(response.events, lambda one: one.kv.mod_revision):
            head: log_pb2.Head | None = None
            entries, deleted = [], []
            for event in events:
                if event.type == kv_pb2.Event.DELETE:
                    deleted.append(event.kv.key)
                elif event.kv.key == self._head_key:
                    head = _head(event.kv)
                else:
                    entries.append(event.kv)
            if head is None:
                keys = [*(entry.key for entry in entries), *deleted]
                said = f"{keys[0].decode(errors='replace')} was written by somebody who is no kcore"
                raise Refused(f"{self._name}: {said}")
            yield _Batch(place, head, entries, deleted)


def _opened(head: log_pb2.Head) -> Opened:
    return Opened(head.cluster_id, head.epoch, head.revision, head.time, head.compacted)


def _head(entry: kv_pb2.KeyValue) -> log_pb2.Head:
    try:
        return log_pb2.Head.FromString(entry.value)
    except DecodeError:
        raise Refused(f"etcd's {entry.key.decode(errors='replace')} is damaged") from None


def _present(records: Iterable[Record]) -> list[Record]:
    """Those of objects that are there, in order."""
    there = [record for record in records if record.verb is not Verb.DELETE]
    return sorted(there, key=lambda record: record.position)


def _last(records: Sequence[Record], revision: int) -> Record | None:
    """The last record up to `revision`."""
    found = [record for record in records if record.revision <= revision]
    return found[-1] if found else None


def _written(record: Record, checksum: int) -> log_pb2.Record:
    kind, namespace, name = record.key
    return log_pb2.Record(
        revision=record.revision,
        ordinal=record.ordinal,
        kind=kind,
        namespace=namespace,
        name=name,
        uid=record.uid,
        verb=record.verb.value,
        body=record.body,
        actor=record.actor,
        because=record.because,
        time=record.time,
        request_id=record.request_id,
        manager=record.manager,
        subresource=record.subresource,
        checksum=checksum,
    )


def _records(entry: kv_pb2.KeyValue) -> list[Record]:
    """An entry's records; `Refused` where they are not what was written."""
    place = entry.key.decode(errors="replace")
    try:
        found = [
            (
                Record(
                    revision=one.revision,
                    key=Key(one.kind, one.namespace, one.name),
                    uid=one.uid,
                    verb=_VERBS[one.verb],
                    body=one.body,
                    actor=one.actor,
                    because=one.because,
                    time=one.time,
                    request_id=one.request_id,
                    manager=one.manager,
                    subresource=one.subresource,
                    ordinal=one.ordinal,
                ),
                one.checksum,
            )
            for one in log_pb2.Entry.FromString(entry.value).records
        ]
    except (DecodeError, KeyError):
        found = []
    for record, checksum in found:
        whose = "/".join(record.key)
        if record.checksum() != checksum or not place.endswith(f"/o/{whose}"):
            raise Refused(
                f"the log's record at revision {record.revision} of {record.key} is damaged: its "
                "checksum does not match"
            )
    if not found:
        raise Refused(f"etcd's {place} is damaged: it has no records")
    return [record for record, _ in found]
